//! The server's own programs: found, as new as the server, and run so that they end when we do.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::settings::Settings;
use crate::{DatabaseError, Stop};

/// Where distributions put each version, below `VERSION/bin`.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Most of what a program says that is kept.
const SAID_MAX: u64 = 64 << 10;

/// The programs of one version.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    /// `None`: by the search path.
    directory: Option<PathBuf>,
}

impl Tools {
    /// Those of the search path, or newer ones where distributions put them, if the server is newer.
    pub(super) fn find(server_major: u32) -> Result<Self, DatabaseError> {
        let by_path = major_of(None);
        if by_path.is_some_and(|major| major >= server_major) {
            return Ok(Self { directory: None });
        }
        let mut installed: Vec<(u32, PathBuf)> =
            VERSIONED.iter().flat_map(|(above, prefix)| versions_in(Path::new(above), prefix)).collect();
        installed.sort();
        installed.retain(|(_, directory)| directory.join("pg_dump").exists());
        if let Some((_, directory)) = installed.into_iter().find(|(major, _)| *major >= server_major) {
            return Ok(Self { directory: Some(directory) });
        }
        Err(DatabaseError::Tool(match by_path {
            Some(major) => format!(
                "pg_dump is of version {major}, older than the server, which is {server_major}: install the client programs of PostgreSQL {server_major} (postgresql-client-{server_major})"
            ),
            None => format!(
                "pg_dump is not here: install the client programs of PostgreSQL {server_major} (postgresql-client-{server_major})"
            ),
        }))
    }

    /// A program that will log in to a database.
    pub(super) fn command(
        &self,
        program: &str,
        settings: &Settings,
        database: &str,
    ) -> Result<Command, DatabaseError> {
        let mut command = match &self.directory {
            Some(directory) => Command::new(directory.join(program)),
            None => Command::new(program),
        };
        let environment = settings.environment(database);
        let environment = environment.map_err(|error| DatabaseError::Connect(error.to_string()))?;
        // A password file that is asked for nothing, so that what is set decides alone.
        command.args(["--no-password"]).envs(environment).stdin(Stdio::null());
        Ok(command)
    }
}

fn versions_in(above: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(above).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect()
}

/// The version of `pg_dump`, if there is one.
fn major_of(directory: Option<&Path>) -> Option<u32> {
    let program = directory.map_or_else(|| PathBuf::from("pg_dump"), |directory| directory.join("pg_dump"));
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    major_in(&String::from_utf8_lossy(&output.stdout))
}

fn major_in(said: &str) -> Option<u32> {
    let number =
        said.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    number.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// A program that is killed when it is forgotten.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    name: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program printed and said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Result<Self, DatabaseError> {
        let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("program"));
        let name = name.to_string_lossy().into_owned();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| DatabaseError::Tool(format!("cannot run {name}: {error}")))?;
        Ok(Self { child, name })
    }

    /// Waits for its end. A failure tells what it said; a success may have said something, too.
    pub(super) fn finish(mut self, stop: &Stop) -> Result<Said, DatabaseError> {
        let (mut stdout, mut stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let mut said = Said::default();
        let status = std::thread::scope(|scope| {
            let printed = scope.spawn(move || {
                let mut bytes = Vec::new();
                stdout.as_mut().map(|pipe| pipe.read_to_end(&mut bytes));
                bytes
            });
            let told = scope.spawn(move || {
                let mut bytes = Vec::new();
                if let Some(pipe) = &mut stderr {
                    let _ = pipe.by_ref().take(SAID_MAX).read_to_end(&mut bytes);
                    // The rest must not stop it.
                    let _ = std::io::copy(pipe, &mut std::io::sink());
                }
                bytes
            });
            let status = loop {
                match self.child.try_wait() {
                    Ok(Some(status)) => break Ok(status),
                    Ok(None) if stop() => {
                        let _ = self.child.kill();
                        break Err(DatabaseError::Interrupted);
                    }
                    Ok(None) => std::thread::sleep(LOOK),
                    Err(error) => {
                        break Err(DatabaseError::failed(format!("cannot wait for {}", self.name), error));
                    }
                }
            };
            said.stdout = printed.join().unwrap_or_default();
            said.stderr = String::from_utf8_lossy(&told.join().unwrap_or_default()).into_owned();
            status
        })?;
        if status.success() {
            return Ok(said);
        }
        let told = said.stderr.trim().to_owned();
        let why = if told.is_empty() { status.to_string() } else { told };
        Err(DatabaseError::failed(format!("{} failed", self.name), why))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(command).unwrap()
    }

    #[test]
    fn versions_are_understood() {
        assert_eq!(major_in("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_in("pg_dump (PostgreSQL) 17beta1\n"), Some(17));
        assert_eq!(major_in("nonsense"), None);
    }

    #[test]
    fn a_program_that_fails_says_why_and_one_that_hangs_is_stopped() {
        let never: Stop = Arc::new(|| false);
        let said = shell("echo out; echo told >&2").finish(&never).unwrap();
        assert_eq!((said.stdout.as_slice(), said.stderr.as_str()), (&b"out\n"[..], "told\n"));
        let error = shell("echo no such table >&2; exit 1").finish(&never).unwrap_err();
        let DatabaseError::Failed { what, source } = error else { panic!("{error}") };
        assert_eq!((what.as_str(), source.to_string().as_str()), ("sh failed", "no such table"));
        let stopped = shell("exec sleep 1000").finish(&(Arc::new(|| true) as Stop));
        assert!(matches!(stopped, Err(DatabaseError::Interrupted)));
    }

    #[test]
    fn a_client_older_than_the_server_is_refused() {
        let error = Tools::find(9_999).unwrap_err().to_string();
        assert!(error.contains("9999") && error.contains("install"), "{error}");
    }
}
