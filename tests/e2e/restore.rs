//! The real binary among newer things: refused, saved first, undone, killed and continued.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::lab::{Lab, Ran, files_below, noise};

/// A source of three files, its snapshot, and a newer edit in one of them, an older one, and an extra.
fn edited() -> Lab {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let source = lab.path("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    for name in ["edited", "old", "sub/gone"] {
        std::fs::write(source.join(name), format!("{name} as it was")).unwrap();
    }
    lab.run("host", &["backup", "source"]).summary(0);
    std::fs::write(source.join("edited"), "the work of a week").unwrap();
    std::fs::write(source.join("extra"), "not in the snapshot").unwrap();
    std::fs::write(source.join("old"), "from the attic").unwrap();
    let attic = std::fs::File::options().write(true).open(source.join("old")).unwrap();
    attic.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    std::fs::remove_file(source.join("sub/gone")).unwrap();
    lab
}

fn restore(lab: &Lab, more: &[&str]) -> Ran {
    let source = lab.path("source").display().to_string();
    let from = format!("latest:{source}");
    lab.run("host", &[&["restore", &from, "--target", &source], more].concat())
}

fn read(lab: &Lab, name: &str) -> Option<String> {
    std::fs::read_to_string(lab.path("source").join(name)).ok()
}

fn error(ran: &Ran) -> &Value {
    ran.lines.iter().find(|line| line["event"] == "error").unwrap()
}

#[test]
fn newer_edits_are_refused_counted_and_nothing_is_touched() {
    let lab = edited();
    let refused = restore(&lab, &[]);
    refused.summary(1);
    let message = error(&refused)["message"].as_str().unwrap();
    assert!(message.starts_with("1 of 2 entries") && message.contains("nothing was touched"), "{message}");
    assert!(error(&refused)["hint"].as_str().unwrap().contains("--no-overwrite-newer"));
    assert!(error(&refused)["cause"].as_str().unwrap().contains("/edited"));
    assert_eq!(read(&lab, "sub/gone"), None);
    assert_eq!(read(&lab, "old").unwrap(), "from the attic");
    // A rehearsal tells, and does not refuse.
    let rehearsed = restore(&lab, &["--dry-run"]);
    let summary = rehearsed.summary(0);
    assert_eq!((&summary["newer_overwritten"], &summary["overwritten"]), (&1.into(), &2.into()));
    assert!(rehearsed.stderr.contains("modified after the snapshot"), "{}", rehearsed.stderr);
    assert_eq!(read(&lab, "sub/gone"), None);
    // What only adds needs no permission, and saves nothing.
    let missing = restore(&lab, &["--missing-only"]);
    assert_eq!(missing.summary(0)["safety_snapshot"], Value::Null);
    assert_eq!(read(&lab, "sub/gone").unwrap(), "sub/gone as it was");
    assert_eq!(read(&lab, "edited").unwrap(), "the work of a week");
    let newer = restore(&lab, &["--no-overwrite-newer"]);
    assert_eq!(newer.summary(0)["overwritten"], 1);
    assert_eq!(
        (read(&lab, "edited").unwrap(), read(&lab, "old").unwrap()),
        ("the work of a week".into(), "old as it was".into())
    );
}

#[test]
fn a_mistaken_restore_is_undone_by_the_command_that_it_prints() {
    let lab = edited();
    let source = lab.path("source");
    let before = std::fs::metadata(source.join("edited")).unwrap();
    let from = format!("latest:{}", source.display());
    let args = ["restore", &from, "--target", source.to_str().unwrap(), "--delete"];
    let output = lab.command("host", &args).output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!((read(&lab, "edited").unwrap(), read(&lab, "extra")), ("edited as it was".into(), None));
    // It is there with its tag, and is not what `latest` means.
    let listed = lab.run("host", &["snapshots", "--tag", "before-restore"]);
    let safety = listed.lines[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed.lines.len(), 2);
    let latest = restore(&lab, &["--dry-run"]);
    assert_ne!(latest.summary(0)["snapshot"], safety.as_str());
    assert_eq!(lab.run("host", &["backup", "source", "--dry-run"]).summary(0)["files_new"], 0);
    // As a shell would take it.
    let command = told.lines().find(|line| line.trim_start().starts_with("snap restore ")).unwrap();
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    lab.run("host", &words).summary(0);
    assert_eq!(read(&lab, "edited").unwrap(), "the work of a week");
    assert_eq!(read(&lab, "old").unwrap(), "from the attic");
    assert_eq!(read(&lab, "extra").unwrap(), "not in the snapshot");
    let after = std::fs::metadata(source.join("edited")).unwrap();
    assert_eq!(
        (after.mtime(), after.mtime_nsec(), after.mode()),
        (before.mtime(), before.mtime_nsec(), before.mode())
    );
    // Nor is it something that would have to be protected by itself.
    let judged = lab.run("host", &["policy"]);
    assert!(judged.lines.iter().all(|line| line["dataset"] != "before-restore"));
    // It holds a part: to delete the rest would be another mistake.
    let target = source.to_str().unwrap();
    let refused =
        lab.run("host", &["restore", &format!("{safety}:{target}"), "--target", target, "--delete"]);
    refused.summary(2);
    assert_eq!(lab.run("host", &["check", "--read-data"]).summary(0)["findings"], 0);
}

#[test]
fn a_key_that_only_reads_says_what_else_there_is() {
    let lab = edited();
    let key = lab.path("reader.key");
    lab.run("host", &["key", "add", "--role", "restore", "--new-key-file", key.to_str().unwrap()]).summary(0);
    let source = lab.path("source").display().to_string();
    let from = format!("latest:{source}");
    let restore = |more: &[&str]| {
        let args = [&["restore", &from, "--target", &source][..], more].concat();
        lab.run_with_key("reader", "reader.key", &args)
    };
    // Adding needs nobody's leave.
    restore(&["--missing-only"]).summary(0);
    let refused = restore(&["--overwrite", "always"]);
    refused.summary(1);
    let hint = error(&refused)["hint"].as_str().unwrap();
    assert!(hint.contains("--safety-dir") && hint.contains("--no-safety-snapshot"), "{hint}");
    assert!(error(&refused)["cause"].as_str().unwrap().contains("role"), "{}", error(&refused));
    assert_eq!(read(&lab, "edited").unwrap(), "the work of a week");
    let kept = lab.path("kept");
    let done = restore(&["--overwrite", "if-changed", "--safety-dir", kept.to_str().unwrap()]);
    let dir = done.summary(0)["safety_dir"].as_str().unwrap().to_owned();
    assert!(Path::new(&dir).starts_with(&kept), "{dir}");
    assert_eq!(std::fs::read_to_string(Path::new(&dir).join("edited")).unwrap(), "the work of a week");
    assert_eq!(read(&lab, "edited").unwrap(), "edited as it was");
    std::fs::write(lab.path("source/edited"), "more work").unwrap();
    let bare = restore(&["--overwrite", "if-changed", "--no-safety-snapshot"]);
    assert_eq!(
        (&bare.summary(0)["safety_snapshot"], &bare.summary(0)["safety_dir"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(read(&lab, "edited").unwrap(), "edited as it was");
    let both = restore(&["--safety-dir", "x", "--no-safety-snapshot"]);
    assert_eq!(both.code, 2);
}

#[test]
fn a_killed_restore_is_continued_by_the_same_command() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let source = lab.path("source");
    for dir in 0..20 {
        std::fs::create_dir_all(source.join(format!("{dir}/below"))).unwrap();
        for file in 0..20 {
            let path = source.join(format!("{dir}/below/{file}"));
            std::fs::write(&path, noise(dir * 100 + file, 40_000 + 3000 * file as usize)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        }
        std::fs::write(source.join(format!("{dir}/large")), noise(dir + 5000, 3 << 20)).unwrap();
    }
    lab.run("host", &["backup", "source"]).summary(0);
    let from = format!("latest:{}", source.display());
    let whole = lab.run("host", &["restore", &from, "--target", lab.path("whole").to_str().unwrap()]);
    let all = whole.summary(0)["fetched_bytes"].as_u64().unwrap();
    // Killed when so many files are there.
    for wanted in [1, 30, 150, 300] {
        let target = lab.path(&format!("target-{wanted}"));
        let args = ["restore", &from, "--target", target.to_str().unwrap()];
        let mut child =
            lab.command("host", &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while files_below(&target).len() < wanted && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let there = files_below(&target).len();
        let again = lab.run("host", &args);
        let summary = again.summary(0);
        if there > 250 {
            assert!(summary["fetched_bytes"].as_u64().unwrap() < all, "{there} files were there");
        }
        let status = std::process::Command::new("diff").arg("-r").args([&source, &target]).status().unwrap();
        assert!(status.success());
        for file in files_below(&target) {
            let was = std::fs::metadata(source.join(file.strip_prefix(&target).unwrap())).unwrap();
            let is = std::fs::metadata(&file).unwrap();
            assert_eq!((was.mode(), was.mtime(), was.mtime_nsec()), (is.mode(), is.mtime(), is.mtime_nsec()));
        }
        let (was, is) = (std::fs::metadata(&source).unwrap(), std::fs::metadata(&target).unwrap());
        assert_eq!((was.mode(), was.mtime()), (is.mode(), is.mtime()));
        // Once more: nothing is left to do, nor to save.
        let third = lab.run("host", &args);
        assert_eq!(
            (&third.summary(0)["restored"], &third.summary(0)["fetched_bytes"]),
            (&0.into(), &0.into())
        );
        assert_eq!(third.summary(0)["safety_snapshot"], Value::Null);
    }
}

#[test]
fn a_target_that_cannot_be_written_to_is_told_entry_by_entry() {
    let lab = edited();
    let blocked = lab.path("blocked");
    std::fs::write(&blocked, "a file").unwrap();
    let from = format!("latest:{}", lab.path("source").display());
    let ran = lab.run("host", &["restore", &from, "--target", blocked.join("below").to_str().unwrap()]);
    ran.summary(1);
    assert!(error(&ran)["message"].as_str().unwrap().contains("blocked/below"), "{}", error(&ran));
    assert_eq!(std::fs::read_to_string(&blocked).unwrap(), "a file");
}

#[test]
fn a_rehearsal_says_how_long_it_takes_and_what_it_costs() {
    let lab = edited();
    let source = lab.path("source").display().to_string();
    let from = format!("latest:{source}");
    let (target, config) = (lab.path("target").display().to_string(), lab.path("priced.toml"));
    let repo = lab.path("repo").display().to_string();
    let key = lab.path("owner.key").display().to_string();
    let price = "{ per-gb = 1000000, per-1000-requests = 2000, currency = \"EUR\" }";
    std::fs::write(&config, format!("[repository]\nuri = {repo:?}\nkey-file = {key:?}\nprice = {price}\n"))
        .unwrap();
    let rehearse = |priced: bool| {
        let args = ["restore", &from, "--target", &target, "--dry-run"];
        let mut command = lab.command("host", &args);
        if priced {
            command.env_remove("SNAP_REPO").env_remove("SNAP_KEY_FILE").env("SNAP_CONFIG", &config);
        }
        crate::lab::finish(command.arg("--json").output().unwrap())
    };
    // Nothing was measured yet, and nobody named a price.
    let first = rehearse(false);
    let summary = first.summary(0);
    assert_eq!((&summary["estimated_seconds"], &summary["estimated_cost"]), (&Value::Null, &Value::Null));
    lab.run("host", &["restore", &from, "--target", lab.path("measured").to_str().unwrap()]).summary(0);
    let second = rehearse(true);
    let summary = second.summary(0);
    assert!(summary["estimated_seconds"].as_f64().unwrap() > 0.0);
    let (bytes, requests) =
        (summary["fetched_bytes"].as_f64().unwrap(), summary["requests"].as_f64().unwrap());
    assert!(bytes > 0.0 && requests >= 1.0);
    let cost = summary["estimated_cost"].as_f64().unwrap();
    assert!((cost - bytes * 0.001 - requests * 2.0).abs() < 1e-6, "{cost}");
    assert_eq!(summary["currency"], "EUR");
    assert!(!Path::new(&target).exists());
}

/// A file system of a megabyte; none where it may not be mounted.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_target_ends_the_restore_and_says_where() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let source = lab.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("small"), "small").unwrap();
    std::fs::write(source.join("large"), noise(1, 3 << 20)).unwrap();
    lab.run("host", &["backup", "source"]).summary(0);
    let Some(small) = Small::mount(lab.path("full")) else { return };
    let from = format!("latest:{}", source.display());
    let full = lab.run("host", &["restore", &from, "--target", small.0.to_str().unwrap()]);
    full.summary(1);
    let told = error(&full);
    assert!(told["message"].as_str().unwrap().contains("/large"), "{told}");
    assert!(told["cause"].as_str().unwrap().to_lowercase().contains("no space"), "{told}");
    assert!(told["hint"].is_string(), "{told}");
    // With the large one left out, and what there is of it away, the same target takes the rest.
    std::fs::remove_file(small.0.join("large")).unwrap();
    let rest =
        lab.run("host", &["restore", &from, "--target", small.0.to_str().unwrap(), "--exclude", "large"]);
    rest.summary(0);
    assert_eq!(std::fs::read_to_string(small.0.join("small")).unwrap(), "small");
}
