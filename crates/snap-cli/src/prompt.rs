//! Asking somebody at a terminal.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use snap_crypto::Zeroizing;
use snap_repo::Secret;

use crate::exit::Failure;
use crate::keys::parse_recovery;

/// Whether somebody can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal()
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let _guard = keep_settings();
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::io("cannot read from the terminal", &error))
}

/// Asks for the password.
pub fn ask_password(location: &str) -> Result<Secret, Failure> {
    ask(&format!("password for {location}: ")).map(Secret::Password)
}

/// Asks for a new password, twice.
pub fn ask_new_password(location: &str) -> Result<Secret, Failure> {
    let first = ask(&format!("new password for {location}: "))?;
    if *first != *ask("again: ")? {
        return Err(Failure::usage("the two passwords differ").hint("run the command again"));
    }
    Ok(Secret::Password(first))
}

/// Asks for the recovery key.
pub fn ask_recovery() -> Result<Secret, Failure> {
    parse_recovery(ask("recovery key: ")?.as_bytes(), "the terminal")
}

/// The terminal's settings while a secret is typed: a signal must not leave it without echo.
static SAVED: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Forgets the settings when the secret is read.
struct Kept;

/// Remembers the settings.
fn keep_settings() -> Kept {
    let terminal = File::open("/dev/tty").ok();
    let saved = terminal.and_then(|file| tcgetattr(&file).ok().map(|settings| (file, settings)));
    *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = saved;
    Kept
}

/// Puts the settings back, if a secret is being typed.
pub fn restore_settings() {
    if let Some((file, settings)) = &*SAVED.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = tcsetattr(file, OptionalActions::Now, settings);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
