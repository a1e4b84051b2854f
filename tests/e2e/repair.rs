//! What `repair` puts right, as somebody at a terminal sees it.

use std::path::{Path, PathBuf};

use crate::lab::{Lab, Ran, files_below, noise};

const SIZE: usize = 2_000_000;

/// A repository with two epochs and a snapshot of one file of noise and one of text.
fn made() -> Lab {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    lab.run("host", &["key", "rotate"]).summary(0);
    std::fs::create_dir(lab.path("source")).unwrap();
    std::fs::write(lab.path("source/noise"), noise(3, SIZE)).unwrap();
    std::fs::write(lab.path("source/text"), "some text\n").unwrap();
    lab.run("host", &["backup", "source"]).summary(0);
    lab
}

fn whats(ran: &Ran) -> Vec<&str> {
    let events = ran.lines.iter().filter(|line| line["event"] == "repair");
    events.map(|line| line["what"].as_str().unwrap()).collect()
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn epochs(lab: &Lab) -> Vec<PathBuf> {
    files_below(&lab.path("repo/epochs"))
}

#[track_caller]
fn is_whole(lab: &Lab) {
    assert_eq!(lab.run("host", &["check", "--read-data"]).summary(0)["findings"], 0);
    let path = format!("latest:{}", lab.path("source").display());
    let target = lab.path("whole");
    lab.run("host", &["restore", &path, "--target", target.to_str().unwrap(), "--delete"]).summary(0);
    assert!(std::fs::read(target.join("noise")).unwrap() == noise(3, SIZE));
    assert_eq!(whats(&lab.run("host", &["repair"])), [""; 0]);
}

#[test]
fn config_and_epochs_come_back() {
    type Damage = fn(&Lab);
    let cases: [(&str, Damage, &[&str]); 7] = [
        ("config is gone", |lab| std::fs::remove_file(lab.path("repo/config")).unwrap(), &["config"]),
        ("its twin is gone", |lab| std::fs::remove_file(lab.path("repo/config.bak")).unwrap(), &["config"]),
        ("config is rotten", |lab| spoil(&lab.path("repo/config")), &["config"]),
        (
            "one is gone, the other rotten",
            |lab| {
                spoil(&lab.path("repo/config"));
                std::fs::remove_file(lab.path("repo/config.bak")).unwrap();
            },
            &["config", "config"],
        ),
        (
            "both are gone, and the first epoch",
            |lab| {
                std::fs::remove_file(lab.path("repo/config")).unwrap();
                std::fs::remove_file(lab.path("repo/config.bak")).unwrap();
                std::fs::remove_file(&epochs(lab)[0]).unwrap();
            },
            &["config", "config", "epoch"],
        ),
        ("an epoch is rotten", |lab| spoil(&epochs(lab)[1]), &["epoch"]),
        (
            "all epochs are gone",
            |lab| epochs(lab).iter().for_each(|path| std::fs::remove_file(path).unwrap()),
            &["epoch", "epoch"],
        ),
    ];
    for (name, damage, expected) in cases {
        let lab = made();
        damage(&lab);
        assert_ne!(lab.run("host", &["check"]).code, 0, "{name}: the check sees it");
        let before = files_below(&lab.path("repo"));
        let rehearsal = lab.run("host", &["repair", "--dry-run"]);
        rehearsal.summary(4);
        assert_eq!(whats(&rehearsal), expected, "{name}");
        assert_eq!(files_below(&lab.path("repo")), before, "{name}: a rehearsal writes nothing");
        let repaired = lab.run("host", &["repair"]);
        repaired.summary(0);
        assert_eq!(whats(&repaired), expected, "{name}");
        is_whole(&lab);
    }
}

#[test]
fn an_epoch_that_no_cache_has_is_named() {
    let lab = made();
    let lost = epochs(&lab).remove(0);
    std::fs::remove_file(&lost).unwrap();
    let elsewhere = lab.run("elsewhere", &["repair"]);
    assert_eq!(elsewhere.code, 4);
    let error = elsewhere.lines.iter().find(|line| line["event"] == "error").unwrap();
    let message = error["message"].as_str().unwrap();
    let is_told = message.contains("another copy") || message.contains("epochs/");
    assert!(is_told, "{message}");
    assert!(!lost.exists());
    // Where it was seen it comes back.
    lab.run("host", &["repair"]).summary(0);
    is_whole(&lab);
}

#[test]
fn a_wrong_key_rebuilds_nothing() {
    let lab = made();
    let other = Lab::new();
    other.run("host", &["init"]).summary(0);
    for name in ["config", "config.bak"] {
        std::fs::remove_file(lab.path("repo").join(name)).unwrap();
    }
    std::fs::copy(other.path("owner.key"), lab.path("other.key")).unwrap();
    let ran = lab.run_with_key("host", "other.key", &["repair"]);
    assert_ne!(ran.code, 0);
    assert!(!lab.path("repo/config").exists());
}

#[test]
fn what_is_lost_is_marked_and_backed_up_again() {
    let lab = made();
    let packs = files_below(&lab.path("repo/packs"));
    let data = packs.iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    std::fs::remove_file(data).unwrap();
    let shown = lab.command("host", &["repair", "--dry-run"]).output().unwrap();
    let (out, told) = (String::from_utf8(shown.stdout).unwrap(), String::from_utf8(shown.stderr).unwrap());
    assert!(out.contains("missing-pack") && out.contains("lost: ") && out.contains("/noise"), "{out}");
    assert!(told.contains("another copy"), "{told}");
    let repaired = lab.run("host", &["repair"]);
    let summary = repaired.summary(4);
    assert_eq!(summary["lost"], 2);
    let lost: Vec<_> = repaired.lines.iter().filter(|line| line["event"] == "lost").collect();
    let noise_lost = lost.iter().find(|line| line["path"].as_str().unwrap().ends_with("/noise")).unwrap();
    assert_eq!(noise_lost["missing"], format!("0+{SIZE}"));
    let listed = lab.run("host", &["snapshots", "--tag", "repaired"]);
    assert_eq!(listed.lines.iter().filter(|line| line["event"] == "snapshot").count(), 1);
    assert_eq!(lab.run("host", &["check", "--read-data"]).summary(0)["findings"], 0);
    let path = format!("latest:{}", lab.path("source").display());
    let target = lab.path("holes");
    lab.run("host", &["restore", &path, "--target", target.to_str().unwrap()]).summary(0);
    assert!(std::fs::read(target.join("noise")).unwrap() == vec![0; SIZE]);
    // The source still has it: the next backup reads it again, and takes over no hole.
    lab.run("host", &["backup", "source"]).summary(0);
    is_whole(&lab);
}

#[test]
fn the_index_is_made_anew_and_leftovers_go() {
    let lab = made();
    for path in files_below(&lab.path("repo/index")) {
        std::fs::remove_file(path).unwrap();
    }
    let half = lab.path("repo/packs/aa").join("aa".repeat(32));
    std::fs::create_dir_all(half.parent().unwrap()).unwrap();
    std::fs::write(&half, "SNAPPACK").unwrap();
    let temporary = lab.path("repo/tmp/old");
    std::fs::create_dir_all(temporary.parent().unwrap()).unwrap();
    std::fs::write(&temporary, "half").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 86_400);
    std::fs::File::options().write(true).open(&temporary).unwrap().set_modified(long_ago).unwrap();
    let repaired = lab.run("host", &["repair"]);
    assert_eq!(repaired.summary(0)["temporaries"], 1);
    assert_eq!(whats(&repaired), ["unindexed-pack", "unindexed-pack", "half-written-pack"]);
    assert!(!half.exists() && !temporary.exists());
    is_whole(&lab);
}

#[test]
fn others_than_owners_may_not() {
    let lab = made();
    let key = lab.path("web.key");
    let add = ["key", "add", "--role", "backup", "--new-key-file", key.to_str().unwrap()];
    lab.run("host", &add).summary(0);
    assert_eq!(lab.run_with_key("host", "web.key", &["repair"]).code, 12);
}
