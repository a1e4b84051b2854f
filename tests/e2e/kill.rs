//! kill -9 of the real process, at moments that the repository itself shows.

use std::process::Stdio;

use crate::lab::{Lab, files_below, noise};

/// Megabytes of the source: several packs of 16.
const MEGABYTES: usize = 100;

#[test]
fn a_killed_backup_leaves_a_sound_repository_and_its_packs_are_used() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let source = lab.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("small"), "first").unwrap();
    lab.run("host", &["backup", "source"]).summary(0);
    for part in 0..MEGABYTES / 5 {
        std::fs::write(source.join(format!("part-{part}")), noise(part as u64 + 7, 5 << 20)).unwrap();
    }
    let packs = || files_below(&lab.path("repo/packs")).len();
    let before = packs();
    for wanted in [1, 3] {
        let mut child = lab
            .command("host", &["backup", "source", "-q"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while packs() < before + wanted {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be killed");
            std::thread::yield_now();
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        assert_eq!(lab.run("host", &["check", "--read-data"]).summary(0)["findings"], 0);
        let restored = lab.path(&format!("restored-{wanted}"));
        let path = format!("latest:{}", source.join("small").display());
        lab.run("host", &["restore", &path, "--target", restored.to_str().unwrap()]).summary(0);
        assert_eq!(std::fs::read(restored.join("small")).unwrap(), b"first");
    }
    let kept = packs() - before;
    let again = lab.run("host", &["backup", "source"]);
    let stored = again.summary(0)["stored_bytes"].as_u64().unwrap();
    let all = (MEGABYTES as u64) << 20;
    assert!(
        stored + (kept as u64 - 1) * (15 << 20) < all,
        "{kept} packs were there, {stored} bytes stored again"
    );
    assert_eq!(lab.run("host", &["check", "--read-data"]).summary(0)["findings"], 0);
    let restored = lab.path("restored-all");
    let path = format!("latest:{}", source.display());
    lab.run("host", &["restore", &path, "--target", restored.to_str().unwrap(), "--verify"]).summary(0);
    for part in 0..MEGABYTES / 5 {
        assert!(
            std::fs::read(restored.join(format!("part-{part}"))).unwrap() == noise(part as u64 + 7, 5 << 20)
        );
    }
}
