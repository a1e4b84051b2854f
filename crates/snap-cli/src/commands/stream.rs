//! Streams that become a file: standard input, and the output of a command.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use snap_engine::CommandStream;

use crate::exit::Failure;
use crate::signals::Signals;

/// How long a stream that is silent may keep a signal waiting.
const LOOK: Duration = Duration::from_millis(200);

/// A stream that a signal ends even while nothing comes.
struct Interruptible {
    file: File,
    signals: Signals,
}

impl Interruptible {
    fn new(fd: OwnedFd, signals: &Signals) -> Self {
        Self { file: fd.into(), signals: signals.clone() }
    }

    /// Waits until something can be read.
    fn wait(&self) -> io::Result<()> {
        let timeout = Timespec::try_from(LOOK).expect("a fraction of a second");
        loop {
            if self.signals.stop().load(Ordering::Relaxed) {
                // Not `Interrupted`, which is tried again.
                return Err(io::Error::other("interrupted"));
            }
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Interruptible {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.file.read(out)
    }
}

/// Standard input: it cannot tell whether its writer succeeded.
pub struct Stdin(Interruptible);

impl Stdin {
    /// Takes it; what was read of it before through `std` is gone.
    pub fn open(signals: &Signals) -> Result<Self, Failure> {
        let fd = io::stdin().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|error| Failure::io("cannot read standard input", &error))?;
        Ok(Self(Interruptible::new(fd, signals)))
    }
}

impl Read for Stdin {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl CommandStream for Stdin {
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The output of a command, which must succeed. Its errors go where those of this program go.
pub struct CommandOutput {
    child: Child,
    stdout: Interruptible,
    is_over: bool,
}

/// A command needs at least a program.
pub fn refuse_no_command(argv: &[OsString]) -> Result<(), Failure> {
    if argv.is_empty() {
        return Err(Failure::usage("--command needs the command to run")
            .hint("put it behind --: snap backup --command shop.sql -- pg_dump shop"));
    }
    Ok(())
}

impl CommandOutput {
    /// Starts the command, without a shell.
    pub fn start(argv: &[OsString], signals: &Signals) -> Result<Self, Failure> {
        refuse_no_command(argv)?;
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::io(format!("cannot run {}", argv[0].to_string_lossy()), &error))?;
        let stdout = child.stdout.take().expect("the child was started with a pipe");
        Ok(Self { child, stdout: Interruptible::new(stdout.into(), signals), is_over: false })
    }
}

impl Read for CommandOutput {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stdout.read(out)
    }
}

impl CommandStream for CommandOutput {
    fn finish(&mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        self.is_over = true;
        if status.success() { Ok(()) } else { Err(status.to_string()) }
    }
}

impl Drop for CommandOutput {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> CommandOutput {
        CommandOutput::start(&["sh".into(), "-c".into(), script.into()], &Signals::default()).ok().unwrap()
    }

    #[test]
    fn the_output_counts_only_if_the_command_succeeds() {
        let mut output = String::new();
        let mut good = start("echo dump");
        good.read_to_string(&mut output).unwrap();
        assert_eq!((output.as_str(), good.finish()), ("dump\n", Ok(())));
        let mut bad = start("echo half; exit 3");
        bad.read_to_string(&mut output).unwrap();
        assert!(bad.finish().unwrap_err().contains('3'));
    }

    #[test]
    fn a_silent_command_does_not_outlive_the_signal() {
        let mut silent = start("exec sleep 1000");
        silent.stdout.signals.stop().store(true, Ordering::Relaxed);
        assert!(silent.read(&mut [0; 8]).is_err());
        drop(silent);
    }

    #[test]
    fn a_command_that_is_not_there_is_a_failure() {
        let signals = Signals::default();
        assert!(CommandOutput::start(&["/no/such/program".into()], &signals).is_err());
        let failure = CommandOutput::start(&[], &signals).err().unwrap();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
    }
}
