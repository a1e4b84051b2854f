//! Two directories and a bucket hold one repository: each restores alone.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use snap_testkit::S3Server;

use crate::config::{unnamed, write};
use crate::lab::{Lab, Ran, files_below, finish, noise};

pub const NAMES: [&str; 3] = ["disk", "second", "cloud"];

/// A source, a configuration with three copies, and a server for one of them.
pub struct Three {
    pub lab: Lab,
    pub server: S3Server,
}

impl Three {
    /// The copies made, and nothing in them yet.
    pub fn new() -> Self {
        let three = Self { lab: Lab::new(), server: S3Server::start() };
        three.version(1);
        let text = format!(
            "[repository]\nkey-file = \"owner.key\"\n\
             [[repository.copies]]\nname = \"disk\"\npath = \"repo\"\n\
             [[repository.copies]]\nname = \"second\"\npath = \"elsewhere/repo\"\n\
             [[repository.copies]]\nname = \"cloud\"\nuri = \"{}\"\n\
             credentials = {{ access-key-id = \"env:CLOUD_ID\", secret-access-key = \"env:CLOUD_SECRET\" }}\n\
             retention = {{ last = 1 }}\n\
             [dataset.docs]\nsource = \"source\"\nretention = {{ last = 3 }}\n",
            three.server.uri("prefix")
        );
        write(&three.lab, "snap.toml", &text);
        std::fs::create_dir(three.lab.path("elsewhere")).unwrap();
        three.run(&["init", "--copy", "disk"]).summary(0);
        let made = three.run(&["init", "--copy", "second", "--copy-of", "disk"]);
        let id = made.summary(0)["repository_id"].clone();
        let made = three.run(&["init", "--copy", "cloud", "--copy-of", "second"]);
        assert_eq!(made.summary(0)["repository_id"], id);
        three
    }

    pub fn version(&self, version: u64) {
        write(&self.lab, "source/text", &format!("version {version}\n").repeat(2000));
        std::fs::write(self.lab.path("source/noise"), noise(version, 300_000)).unwrap();
        if version == 1 {
            write(&self.lab, "source/kept", "kept");
        }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = unnamed(&self.lab, args);
        let [(_, id), (_, secret)] = self.server.credentials();
        command.env("CLOUD_ID", id).env("CLOUD_SECRET", secret);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).output().unwrap())
    }

    pub fn backup(&self) -> Value {
        self.run(&["backup", "--dataset", "docs"]).summary(0).clone()
    }

    /// What the newest snapshot of a copy, and of no other, gives back is the source as it is.
    #[track_caller]
    pub fn restores(&self, name: &str) {
        let target = self.lab.path(&format!("restored-{name}"));
        let _ = std::fs::remove_dir_all(&target);
        let source = format!("latest:{}", self.lab.path("source").display());
        self.run(&["restore", &source, "--target", target.to_str().unwrap(), "--copy", name]).summary(0);
        same_files(&self.lab.path("source"), &target);
    }

    #[track_caller]
    pub fn is_clean(&self, name: &str) {
        let ran = self.run(&["check", "--read-data", "--copy", name]);
        assert_eq!(ran.summary(0)["findings"], 0, "{name}");
    }

    pub fn snapshots(&self, name: &str) -> Vec<Value> {
        let ran = self.run(&["snapshots", "--copy", name]);
        ran.summary(0);
        ran.lines.iter().filter(|line| line["event"] == "snapshot").map(|line| line["id"].clone()).collect()
    }

    pub fn hide(&self, is_hidden: bool) {
        let (shown, hidden) = (self.lab.path("elsewhere"), self.lab.path("unmounted"));
        if is_hidden { std::fs::rename(shown, hidden) } else { std::fs::rename(hidden, shown) }.unwrap();
    }
}

#[track_caller]
fn same_files(expected: &Path, found: &Path) {
    let mut names: Vec<_> = files_below(expected);
    names.sort();
    assert!(!names.is_empty());
    for name in &names {
        let inside = name.strip_prefix(expected).unwrap();
        assert_eq!(std::fs::read(name).unwrap(), std::fs::read(found.join(inside)).unwrap(), "{inside:?}");
    }
    assert_eq!(files_below(found).len(), names.len());
}

fn states(summary: &Value) -> Vec<(&str, &str)> {
    let copies = summary["copies"].as_array().unwrap();
    copies.iter().map(|copy| (copy["name"].as_str().unwrap(), copy["state"].as_str().unwrap())).collect()
}

#[test]
fn a_backup_writes_all_copies_and_each_restores_alone() {
    let three = Three::new();
    let first = three.backup();
    assert_eq!(states(&first), NAMES.map(|name| (name, "ok")));
    three.version(2);
    let second = three.backup();
    let ids = json!([first["snapshot"], second["snapshot"]]);
    for name in NAMES {
        assert_eq!(json!(three.snapshots(name)), ids);
        three.restores(name);
        three.is_clean(name);
    }
    // A copy by itself is a repository.
    let alone = three.run(&["-r", "elsewhere/repo", "--key-file", "owner.key", "snapshots"]);
    alone.summary(0);
    let again = three.run(&["init", "--copy", "second", "--copy-of", "disk"]);
    again.summary(1);
}

#[test]
fn a_copy_that_is_away_lags_and_says_so() {
    let three = Three::new();
    three.backup();
    three.version(2);
    three.hide(true);
    let ran = three.run(&["backup", "--dataset", "docs"]);
    let summary = ran.summary(0);
    assert_eq!(states(summary), [("disk", "ok"), ("second", "lagging"), ("cloud", "ok")]);
    assert!(summary["copies"][1]["reason"].as_str().unwrap().contains("elsewhere"), "{summary}");
    assert!(ran.stderr.contains("warning: the copy second lags"), "{}", ran.stderr);
    for name in ["disk", "cloud"] {
        three.restores(name);
        three.is_clean(name);
    }
    // The first may be away as well.
    std::fs::rename(three.lab.path("repo"), three.lab.path("gone")).unwrap();
    three.version(3);
    let summary = three.backup();
    assert_eq!(states(&summary), [("disk", "lagging"), ("second", "lagging"), ("cloud", "ok")]);
    assert_eq!((&summary["files_new"], &summary["files_unchanged"]), (&0.into(), &1.into()));
    three.restores("cloud");
    std::fs::rename(three.lab.path("gone"), three.lab.path("repo")).unwrap();
    three.hide(false);
    three.version(4);
    assert_eq!(states(&three.backup()), NAMES.map(|name| (name, "ok")));
    NAMES.iter().for_each(|name| three.restores(name));
}

#[test]
fn if_all_copies_fail_the_backup_fails() {
    let three = Three::new();
    three.hide(true);
    std::fs::rename(three.lab.path("repo"), three.lab.path("gone")).unwrap();
    let mut command = three.command(&["backup", "--dataset", "docs"]);
    let ran = finish(command.env("CLOUD_SECRET", "wrong").output().unwrap());
    ran.summary(1);
    for name in NAMES {
        assert!(ran.stderr.contains(&format!("the copy {name}")), "{}", ran.stderr);
    }
}

#[test]
fn a_copy_that_is_away_during_a_rotation_gets_the_keys_with_the_next_backup() {
    let three = Three::new();
    three.backup();
    three.hide(true);
    let rotated = three.run(&["key", "rotate"]);
    assert_eq!(states(rotated.summary(0)), [("disk", "ok"), ("second", "lagging"), ("cloud", "ok")]);
    three.run(&["key", "add", "--role", "backup", "--new-key-file", "web.key"]).summary(0);
    three.hide(false);
    three.version(2);
    // By somebody whom the copy has never heard of, and who may not read.
    let mut command = three.command(&["backup", "--dataset", "docs", "--key-file", "web.key"]);
    let ran = finish(command.output().unwrap());
    assert_eq!(states(ran.summary(0)), NAMES.map(|name| (name, "ok")));
    for name in NAMES {
        three.restores(name);
        let epochs = three.run(&["key", "list", "--copy", name]);
        assert_eq!(epochs.lines[0]["epoch"], 2, "{name}");
    }
    three.is_clean("second");
}

#[test]
fn keys_that_were_changed_on_each_copy_by_itself_stop_the_run() {
    let three = Three::new();
    three.backup();
    for name in ["disk", "second"] {
        // Another machine each time: this one would remember.
        three.run(&["key", "rotate", "--copy", name, "--cache-dir", name]).summary(0);
    }
    let ran = three.run(&["backup", "--dataset", "docs"]);
    ran.summary(1);
    let error = ran.lines.iter().find(|line| line["event"] == "error").unwrap();
    assert!(error["message"].as_str().unwrap().contains("have parted"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("key list --copy"), "{error}");
}

/// The copies of a run by name: state, and how many snapshots each got.
fn got(summary: &Value) -> Vec<(&str, &str, u64)> {
    let copies = summary["copies"].as_array().unwrap();
    let of = |copy: &'_ Value| copy["snapshots"].as_u64().unwrap_or_default();
    copies
        .iter()
        .map(|copy| (copy["name"].as_str().unwrap(), copy["state"].as_str().unwrap(), of(copy)))
        .collect()
}

#[test]
fn what_a_copy_has_missed_is_copied() {
    let three = Three::new();
    three.backup();
    three.hide(true);
    three.version(2);
    three.backup();
    three.run(&["key", "rotate"]).summary(0);
    three.version(3);
    three.backup();
    three.hide(false);
    // By itself it is behind what this machine has seen.
    let alone = three.run(&["backup", "--dataset", "docs", "--copy", "second"]);
    alone.summary(4);
    assert!(alone.stderr.contains("`snap copy`"), "{}", alone.stderr);
    let rehearsed = three.run(&["copy", "--dry-run"]);
    assert_eq!(rehearsed.summary(0)["dry_run"], true);
    assert_eq!(three.snapshots("second").len(), 1);
    let copied = three.run(&["copy"]);
    let summary = copied.summary(0);
    assert_eq!(got(summary), [("disk", "ok", 0), ("second", "ok", 2), ("cloud", "ok", 0)]);
    assert!(summary["stored_bytes"].as_u64().unwrap() > 300_000, "{summary}");
    let all = three.snapshots("disk");
    assert_eq!(all.len(), 3);
    for name in NAMES {
        assert_eq!(three.snapshots(name), all);
        three.restores(name);
        three.is_clean(name);
    }
    let again = three.run(&["copy"]);
    assert_eq!((&again.summary(0)["snapshots"], &again.summary(0)["packs"]), (&0.into(), &0.into()));
}

#[test]
fn a_copy_is_filled_from_a_repository_that_is_not_configured() {
    let three = Three::new();
    three.backup();
    std::fs::rename(three.lab.path("repo"), three.lab.path("old")).unwrap();
    std::fs::remove_dir_all(three.lab.path("elsewhere/repo")).unwrap();
    three.run(&["init", "--copy", "second", "--copy-of", "old"]).summary(0);
    let copied = three.run(&["copy", "--from", "old", "--to", "second"]);
    assert_eq!(got(copied.summary(0))[0], ("second", "ok", 1));
    three.restores("second");
    three.is_clean("second");
    // The first is still away.
    let all = three.run(&["copy"]);
    assert_eq!(got(all.summary(0))[0], ("disk", "lagging", 0));
    three.run(&["copy", "--to", "nowhere"]).summary(2);
    three.run(&["copy", "-r", "old"]).summary(2);
}

#[test]
fn what_is_damaged_in_one_copy_is_read_from_the_next() {
    let three = Three::new();
    three.backup();
    let mut packs = files_below(&three.lab.path("repo/packs"));
    packs.sort_by_key(|pack| std::fs::metadata(pack).unwrap().len());
    let data = packs.pop().unwrap();
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let restore = |copy: &[&str]| {
        let target = three.lab.path("restored");
        let _ = std::fs::remove_dir_all(&target);
        let source = format!("latest:{}", three.lab.path("source").display());
        let args = [&["restore", &source, "--target", target.to_str().unwrap(), "--verify"], copy].concat();
        let ran = three.run(&args);
        (ran, target)
    };
    let damages: [&dyn Fn(); 4] = [
        &|| {
            std::fs::remove_file(&data).unwrap();
            std::fs::write(&data, &bytes).unwrap();
        },
        &|| std::fs::remove_file(&data).unwrap(),
        // Trees, too; then nothing is indexed at all.
        &|| packs.iter().for_each(|pack| std::fs::remove_file(pack).unwrap()),
        &|| std::fs::remove_dir_all(three.lab.path("repo/index")).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        let (ran, target) = restore(&["--cache-dir", "cold"]);
        ran.summary(0);
        same_files(&three.lab.path("source"), &target);
        assert!(ran.stderr.contains("read from the copy second instead"), "{number}: {}", ran.stderr);
        let (alone, _) = restore(&["--copy", "disk", "--cache-dir", "cold"]);
        assert_ne!(alone.code, 0, "{number}: {}", alone.stderr);
        let _ = std::fs::remove_dir_all(three.lab.path("cold"));
    }
    // The whole copy is away.
    std::fs::remove_dir_all(three.lab.path("repo")).unwrap();
    let (ran, target) = restore(&[]);
    ran.summary(0);
    same_files(&three.lab.path("source"), &target);
    assert!(ran.stderr.contains("the copy disk cannot be used"), "{}", ran.stderr);
}

/// The packs of a copy in a directory.
fn packs(three: &Three, dir: &str) -> Vec<std::path::PathBuf> {
    let root = three.lab.path(dir);
    let mut names: Vec<_> =
        files_below(&root).iter().map(|file| file.strip_prefix(&root).unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Copies with retentions of their own, one away during a rotation and two prunes.
#[test]
fn after_a_life_of_their_own_each_copy_restores_alone() {
    let three = Three::new();
    let tidy = || {
        let forgot = three.run(&["forget", "--prune"]);
        forgot.summary(0);
        let pruned = three.run(&["prune", "--grace", "0", "--max-unused", "0"]);
        pruned.summary(0);
        (forgot, pruned)
    };
    for version in 1..=4 {
        three.version(version);
        three.backup();
    }
    let (forgot, _) = tidy();
    let kept: Vec<_> = forgot.summary(0)["copies"].as_array().unwrap().iter().map(|it| &it["kept"]).collect();
    assert_eq!(kept, [3, 3, 1], "the cloud has a retention of its own");
    assert_eq!(NAMES.map(|name| three.snapshots(name).len()), [3, 3, 1]);
    three.hide(true);
    three.version(5);
    three.backup();
    three.run(&["key", "rotate"]).summary(0);
    let (_, pruned) = tidy();
    assert_eq!(states(pruned.summary(0)), [("disk", "ok"), ("second", "lagging"), ("cloud", "ok")]);
    three.version(6);
    three.backup();
    tidy();
    three.hide(false);
    three.run(&["copy"]).summary(0);
    assert_ne!(
        packs(&three, "repo/packs"),
        packs(&three, "elsewhere/repo/packs"),
        "they were packed otherwise"
    );
    for _ in 0..2 {
        for name in NAMES {
            three.is_clean(name);
            three.restores(name);
        }
        tidy();
    }
    let newest = three.snapshots("cloud").pop().unwrap();
    assert_eq!(NAMES.map(|name| three.snapshots(name).len()), [3, 3, 1]);
    // Alone, on a machine that has never seen the others.
    let source = format!("{}:{}", newest.as_str().unwrap(), three.lab.path("source").display());
    std::fs::rename(three.lab.path("snap.toml"), three.lab.path("away.toml")).unwrap();
    for (number, dir) in ["repo", "elsewhere/repo"].iter().enumerate() {
        let target = three.lab.path(&format!("alone-{number}"));
        let (cache, to) = (format!("cache-{number}"), target.to_str().unwrap());
        let args =
            ["-r", dir, "--key-file", "owner.key", "--cache-dir", &cache, "restore", &source, "--target", to];
        three.run(&args).summary(0);
        same_files(&three.lab.path("source"), &target);
    }
}

#[test]
fn a_pin_holds_in_every_copy_that_has_the_snapshot() {
    let three = Three::new();
    let first = three.backup()["snapshot"].clone();
    three.hide(true);
    let pinned = three.run(&["pin", "latest", "--reason", "the first"]);
    assert_eq!(states(pinned.summary(0)), [("disk", "ok"), ("second", "lagging"), ("cloud", "ok")]);
    for version in 2..=5 {
        three.version(version);
        three.backup();
    }
    three.hide(false);
    three.run(&["copy", "--to", "second"]).summary(0);
    three.run(&["forget"]).summary(0);
    for (name, count) in NAMES.iter().zip([4, 4, 2]) {
        let all = three.snapshots(name);
        assert_eq!((all.len(), &all[0]), (count, &first), "{name}");
    }
    // By name, from wherever it is.
    three.run(&["forget", first.as_str().unwrap()]).summary(1);
    three.run(&["pin", "--remove", first.as_str().unwrap()]).summary(0);
    let forgot = three.run(&["forget", first.as_str().unwrap()]);
    assert_eq!(forgot.summary(0)["dropped"], 3);
    assert_eq!(NAMES.map(|name| three.snapshots(name).len()), [3, 3, 1]);
}
