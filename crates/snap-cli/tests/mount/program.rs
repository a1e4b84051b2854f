//! The program: how it ends, what it refuses, what it says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::odd::is_root;
use crate::{can_mount, unmount};

/// A home directory with a repository, in which a directory was backed up.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for dir in ["mnt", "data"] {
            std::fs::create_dir(home.path(dir)).unwrap();
        }
        std::fs::write(home.path("data/a"), b"one").unwrap();
        home.ok(&["init"]);
        home.ok(&["backup", "--host", "here", "data"]);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        command.args(args).env_clear().current_dir(self.path("")).stdin(Stdio::null());
        command.env("HOME", self.path("")).env("PATH", std::env::var_os("PATH").unwrap());
        command.env("SNAP_REPO", self.path("repo")).env("SNAP_KEY_FILE", self.path("key"));
        command
    }

    /// Exit code, JSON lines, standard error.
    fn run(&self, args: &[&str]) -> (i32, Vec<Value>, String) {
        let output = self.command(args).arg("--json").output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
    }

    fn ok(&self, args: &[&str]) -> Vec<Value> {
        let (code, lines, stderr) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        lines
    }

    /// Mounts, and waits until it is said that it is there.
    fn mount(&self, args: &[&str]) -> Running {
        let mut command = self.command(&["mount", "mnt", "--json"]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut first).unwrap();
        if first.is_empty() {
            panic!("{}", std::io::read_to_string(child.stderr.take().unwrap()).unwrap());
        }
        let event: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(
            (event["event"].as_str(), event["path"].as_str()),
            (Some("mounted"), self.path("mnt").to_str())
        );
        Running { child, lines, dir: self.path("mnt") }
    }
}

struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    dir: PathBuf,
}

impl Running {
    fn kill(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end: what it exits with, by number and in its summary.
    fn end(mut self) -> i32 {
        let code = self.child.wait().unwrap().code().unwrap();
        let rest = std::io::read_to_string(&mut self.lines).unwrap();
        let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
        assert_eq!(
            (summary["command"].as_str(), summary["exit"].as_i64()),
            (Some("mount"), Some(code.into()))
        );
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Whatever a failed test leaves.
        let (program, lazily) = if is_root() { ("umount", "-l") } else { ("fusermount3", "-uz") };
        let _ = Command::new(program).arg(lazily).arg(&self.dir).stderr(Stdio::null()).status();
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn signals_unmount_even_what_is_in_use() {
    if !can_mount() {
        return;
    }
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let home = Home::new();
        let running = home.mount(&[]);
        let inside = home.path("mnt/latest/files/here").join(home.path("data/a").strip_prefix("/").unwrap());
        assert_eq!(std::fs::read(&inside).unwrap(), b"one");
        let open = std::fs::File::open(&inside).unwrap();
        running.kill(signal);
        assert_eq!(running.end(), code);
        assert!(is_empty(&home.path("mnt")));
        drop(open);
    }
}

#[test]
fn unmounting_ends_the_program() {
    if !can_mount() {
        return;
    }
    let home = Home::new();
    let running = home.mount(&["--snapshot", "latest", "--host", "here"]);
    let inside = home.path("mnt").join(home.path("data/a").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read(inside).unwrap(), b"one");
    unmount(&home.path("mnt"));
    assert_eq!(running.end(), 0);
}

#[test]
fn a_killed_program_leaves_nothing_that_hangs() {
    if !can_mount() {
        return;
    }
    let home = Home::new();
    let running = home.mount(&[]);
    assert!(!is_empty(&home.path("mnt")));
    running.kill("-KILL");
    let began = Instant::now();
    // Dead, not hanging: every look fails at once.
    while std::fs::read_dir(home.path("mnt")).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, lines, _) = home.run(&["mount", "mnt"]);
    assert_eq!(code, 1);
    let hint = lines[0]["hint"].as_str().unwrap();
    assert!(hint.contains("umount -l") && hint.contains("fusermount3 -u"), "{hint}");
    drop(running);
    // An ordinary user may let others in only where /etc/fuse.conf says so.
    if !is_root() {
        return;
    }
    // With others let in, fusermount3 stays behind and unmounts.
    let running = home.mount(&["--allow-other"]);
    assert!(!is_empty(&home.path("mnt")));
    running.kill("-KILL");
    let began = Instant::now();
    while !std::fs::read_dir(home.path("mnt")).is_ok_and(|mut entries| entries.next().is_none()) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn others_see_what_the_modes_let_them() {
    if !can_mount() || !is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    std::fs::write(home.path("data/secret"), b"mine").unwrap();
    std::fs::set_permissions(home.path("data/secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for dir in home.path("data").ancestors() {
        let mode = dir.metadata().unwrap().permissions().mode();
        if mode & 0o5 != 0o5 {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode | 0o5)).unwrap();
        }
    }
    home.ok(&["backup", "--host", "here", "data"]);
    let inside = home.path("mnt").join(home.path("data").strip_prefix("/").unwrap());
    let reads = |name: &str| {
        let mut cat = Command::new("cat");
        std::os::unix::process::CommandExt::uid(&mut cat, 12_345);
        cat.arg(inside.join(name)).output().unwrap().stdout
    };
    for (args, a, secret) in [
        (&[][..], &b""[..], &b""[..]),
        (&["--allow-other"], b"one", b""),
        (&["--allow-other", "--no-default-permissions"], b"one", b"mine"),
    ] {
        let running = home.mount(&[&["--snapshot", "latest"], args].concat());
        assert_eq!((reads("a").as_slice(), reads("secret").as_slice()), (a, secret), "{args:?}");
        running.kill("-TERM");
        assert_eq!(running.end(), 143);
    }
}

#[test]
fn a_mount_is_not_backed_up() {
    if !can_mount() {
        return;
    }
    let home = Home::new();
    let running = home.mount(&[]);
    let top = home.path("");
    let summary = home.ok(&["backup", "--dataset", "all", top.to_str().unwrap()]).pop().unwrap();
    let listed = home.ok(&["ls", "latest", "--dataset", "all"]);
    let paths: Vec<&str> = listed.iter().filter_map(|line| line["path"].as_str()).collect();
    assert!(paths.iter().any(|path| path.ends_with("/data/a")), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("/mnt/")), "{summary} {paths:?}");
    // Not by its inside either.
    let inside = home.path("mnt/latest");
    let (code, lines, _) = home.run(&["backup", "--dataset", "all", inside.to_str().unwrap()]);
    assert_eq!(code, 2, "{lines:?}");
    assert!(lines[0]["message"].as_str().unwrap().contains("snap mount"), "{lines:?}");
    running.kill("-TERM");
    assert_eq!(running.end(), 143);
}

#[test]
fn what_is_refused() {
    let home = Home::new();
    for (dir, told) in
        [("nowhere", "no such directory"), ("data", "not empty"), ("data/a", "not a directory")]
    {
        let (code, lines, _) = home.run(&["mount", dir]);
        let error = &lines[0];
        assert_eq!((code, error["event"].as_str()), (1, Some("error")));
        assert!(error["message"].as_str().unwrap().contains(told) && error["hint"].is_string(), "{error}");
    }
    home.ok(&["key", "add", "--role", "backup", "--new-key-file", "writer"]);
    let output = home.command(&["mount", "mnt"]).env("SNAP_KEY_FILE", home.path("writer")).output().unwrap();
    assert_eq!(output.status.code(), Some(12));
    let (code, lines, _) = home.run(&["mount", "mnt", "--snapshot", "0000"]);
    assert_eq!(code, 1, "{lines:?}");
    assert!(is_empty(&home.path("mnt")));
}
