//! A home of its own for each test, and the binary run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub struct Lab {
    dir: tempfile::TempDir,
}

pub struct Ran {
    pub code: i32,
    pub lines: Vec<Value>,
    pub stderr: String,
}

impl Lab {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary with nothing of the caller's environment, a host name given, and one home a `host`.
    pub fn command(&self, host: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        let home = self.path(host);
        std::fs::create_dir_all(&home).unwrap();
        command
            .args(args)
            .env_clear()
            .env("HOME", &home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("SNAP_REPO", self.path("repo")).env("SNAP_KEY_FILE", self.path("owner.key"));
        command.current_dir(self.dir.path());
        command
    }

    /// Runs with `--json`.
    pub fn run(&self, host: &str, args: &[&str]) -> Ran {
        finish(self.command(host, args).arg("--json").output().unwrap())
    }

    /// Runs with `--json` and another key file.
    pub fn run_with_key(&self, host: &str, key: &str, args: &[&str]) -> Ran {
        let mut command = self.command(host, args);
        finish(command.env("SNAP_KEY_FILE", self.path(key)).arg("--json").output().unwrap())
    }
}

pub fn finish(output: Output) -> Ran {
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), lines, stderr }
}

impl Ran {
    /// The summary, of a run that must have ended with `code`.
    #[track_caller]
    pub fn summary(&self, code: i32) -> &Value {
        assert_eq!(self.code, code, "{:?}\n{}", self.lines, self.stderr);
        let last = self.lines.last().unwrap();
        assert_eq!((last["event"].as_str(), last["exit"].as_i64()), (Some("summary"), Some(code.into())));
        last
    }
}

/// Bytes that do not compress and occur nowhere else: a linear congruential generator.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            out.extend(files_below(&entry.path()));
        } else {
            out.push(entry.path());
        }
    }
    out
}
