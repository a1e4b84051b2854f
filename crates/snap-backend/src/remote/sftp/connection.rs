//! A connection: an `ssh` process that speaks SFTP.

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssh_sftp_client::{Sftp, SftpOptions};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};

use crate::ErrorKind;

/// Where to, and how to get in.
#[derive(Debug)]
pub(crate) struct Target {
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub key: Option<String>,
    pub known_hosts: Option<String>,
    pub accept_new: bool,
}

/// A session, and the process that carries it; that ends when this is dropped, or when we die.
pub(super) struct Connection {
    pub sftp: Sftp,
    complaints: Complaints,
    _ssh: Child,
}

/// What `ssh` wrote to its standard error, as far as it is worth keeping.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Vec<u8>>>);

const KEPT_BYTES: usize = 2000;

/// How long to wait for `ssh`'s last words once the connection has failed.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Target {
    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        // Never ask: there may be nobody to answer, and the terminal is not ours.
        command.args(["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        command.args(["-o", "ConnectTimeout=15", "-o", "ClearAllForwardings=yes", "-o", "EscapeChar=none"]);
        let strict = if self.accept_new { "accept-new" } else { "yes" };
        command.arg("-o").arg(format!("StrictHostKeyChecking={strict}"));
        if let Some(file) = &self.known_hosts {
            command.arg("-o").arg(format!("UserKnownHostsFile={}", quoted(file)));
        }
        if let Some(key) = &self.key {
            command.args(["-o", "IdentitiesOnly=yes"]).arg("-i").arg(key);
        }
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &self.user {
            command.arg("-l").arg(user);
        }
        command.arg("-s").arg("--").arg(&self.host).arg("sftp");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // An interrupt at the terminal is for us to act on, not for the connection that we still need.
        command.process_group(0);
        command
    }

    pub(super) async fn connect(&self) -> Result<Connection, (ErrorKind, String)> {
        let mut ssh = self.command().spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => (ErrorKind::Config, "the program `ssh` is not installed".to_owned()),
            _ => (ErrorKind::Other, error.to_string()),
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take())
        else {
            return Err((ErrorKind::Other, "ssh without pipes".to_owned()));
        };
        let complaints = Complaints::default();
        let listener = tokio::spawn(complaints.clone().listen(stderr));
        match Sftp::new(stdin, stdout, SftpOptions::default()).await {
            Ok(sftp) => Ok(Connection { sftp, complaints, _ssh: ssh }),
            Err(error) => {
                let _ = tokio::time::timeout(LAST_WORDS, listener).await;
                let said = complaints.text();
                Err(if said.is_empty() {
                    (ErrorKind::Network, error.to_string())
                } else {
                    (blame(&said), said)
                })
            }
        }
    }
}

impl Connection {
    pub fn complaints(&self) -> String {
        self.complaints.text()
    }
}

/// `ssh` splits a list of files at blanks.
fn quoted(file: &str) -> String {
    format!("\"{}\"", file.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The kind of failure, from the words of OpenSSH.
fn blame(said: &str) -> ErrorKind {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["Permission denied", "Too many authentication failures", "Host key verification failed"]) {
        ErrorKind::Unauthenticated
    } else if says(&["Could not resolve hostname", "subsystem request failed", "Bad configuration option"]) {
        ErrorKind::Config
    } else {
        ErrorKind::Network
    }
}

impl Complaints {
    async fn listen(self, mut stderr: ChildStderr) {
        let mut buffer = [0; 512];
        while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT_BYTES.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..read.min(room)]);
        }
    }

    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_ssh_have_kinds() {
        for (said, kind) in [
            ("bob@h: Permission denied (publickey).", ErrorKind::Unauthenticated),
            ("Host key verification failed.", ErrorKind::Unauthenticated),
            ("ssh: connect to host h port 22: Connection refused", ErrorKind::Network),
            ("ssh: Could not resolve hostname h: Name or service not known", ErrorKind::Config),
        ] {
            assert_eq!(blame(said), kind, "{said}");
        }
    }

    #[test]
    fn no_argument_is_taken_for_an_option() {
        let target = Target {
            host: "h".to_owned(),
            user: None,
            port: Some(2222),
            key: Some("/k".to_owned()),
            known_hosts: Some("/a b".to_owned()),
            accept_new: false,
        };
        let command = target.command();
        let args: Vec<_> = command.as_std().get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(args[args.len() - 4..], ["-s", "--", "h", "sftp"]);
        assert!(args.contains(&"UserKnownHostsFile=\"/a b\"") && args.contains(&"StrictHostKeyChecking=yes"));
    }
}
