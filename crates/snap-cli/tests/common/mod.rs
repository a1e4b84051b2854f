//! The real binary, each run with a home of its own.

#![allow(dead_code)] // every test file uses a part of it
#![allow(clippy::unwrap_used)] // a helper that panics fails the test

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home directory, and a repository in it that need not be there yet.
pub struct World {
    dir: TempDir,
}

/// What a run left.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// One with a repository that a key file opens, and the recovery key.
    pub fn with_repository() -> (Self, String) {
        let world = Self::new();
        let run = world.snap(["init", "--key-file", "key", "--json"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let key = run.summary()["recovery_key"].as_str().unwrap().to_owned();
        (world, key)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The program, in this home, with no variable of the caller's and no repository named.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("HOME", self.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    /// The same with the repository `repo` named.
    pub fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.env("SNAP_REPO", self.path("repo"));
        command
    }

    pub fn snap<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args))
    }

    /// With the key file that [`Self::with_repository`] made.
    pub fn keyed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().env("SNAP_KEY_FILE", self.path("key")).args(args))
    }
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        Self {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// All JSON lines; anything else on standard output fails the test.
    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Those of one sort.
    pub fn events_of(&self, event: &str) -> Vec<Value> {
        self.events().into_iter().filter(|it| it["event"] == event).collect()
    }

    /// The last line.
    pub fn summary(&self) -> Value {
        let last = self.events().pop().unwrap_or_else(|| panic!("no output; stderr: {}", self.stderr));
        assert_eq!(last["event"], "summary");
        assert_eq!(last["exit"], self.code);
        last
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Permission bits.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
