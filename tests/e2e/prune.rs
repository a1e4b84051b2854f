//! Pruning, as an owner and the machines around see it.

use std::path::Path;

use serde_json::Value;

use crate::lab::{Lab, Ran, files_below, noise};

/// Files of a directory: names and contents.
type State = Vec<(String, Vec<u8>)>;

/// Small files, sealed in groups.
const SMALL: usize = 400;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(lab: &Lab, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(lab.path("source")).unwrap();
    std::fs::write(lab.path("source").join(name), bytes).unwrap();
}

/// Lines that compress, told apart by a number.
fn prose(number: usize) -> Vec<u8> {
    (0..60)
        .flat_map(|line| format!("file {number} says in line {line} what it says\n").into_bytes())
        .collect()
}

fn back_up(lab: &Lab) -> String {
    lab.run("owner", &["backup", "source", "--host", "web"]).summary(0)["snapshot"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn is(ran: &Ran, field: &str) -> u64 {
    ran.summary(0)[field].as_u64().unwrap_or_else(|| panic!("{field}: {:?}", ran.lines))
}

fn pack_bytes(lab: &Lab) -> u64 {
    files_below(&lab.path("repo/packs")).iter().map(|file| file.metadata().unwrap().len()).sum()
}

/// Restores a snapshot and compares it with what was there then.
fn restores(lab: &Lab, snapshot: &str, expected: &State) {
    let target = lab.path("restored").join(snapshot);
    lab.run("owner", &["restore", snapshot, "--target", text(&target)]).summary(0);
    let below = target.join(lab.path("source").strip_prefix("/").unwrap());
    assert_eq!(files_below(&below).len(), expected.len());
    for (name, bytes) in expected {
        assert!(std::fs::read(below.join(name)).unwrap() == *bytes, "{name}");
    }
}

/// Two states of a directory: large files and small ones, half of which change. Returns the lab, both snapshots and the
/// later state.
fn made() -> (Lab, [String; 2], State) {
    let lab = Lab::new();
    lab.run("owner", &["init"]).summary(0);
    for at in 0..SMALL {
        write(&lab, &format!("small-{at}"), &prose(at));
    }
    write(&lab, "stays", &noise(1, 3_000_000));
    write(&lab, "goes", &noise(2, 5_000_000));
    let first = back_up(&lab);
    std::fs::remove_file(lab.path("source/goes")).unwrap();
    for at in (0..SMALL).filter(|at| at % 7 != 0) {
        write(&lab, &format!("small-{at}"), &prose(at + 10_000));
    }
    let second = back_up(&lab);
    let state =
        (0..SMALL).map(|at| (format!("small-{at}"), prose(if at % 7 == 0 { at } else { at + 10_000 })));
    let state = state.chain([("stays".to_owned(), noise(1, 3_000_000))]).collect();
    (lab, [first, second], state)
}

#[test]
fn it_frees_what_it_says_and_the_rest_restores() {
    let (lab, [first, second], state) = made();
    lab.run("owner", &["forget", &first]).summary(0);
    let before = (files_below(&lab.path("repo")), pack_bytes(&lab));
    let args = ["prune", "--grace", "0", "--max-unused", "0"];
    let said = lab.run("owner", &[&args[..], &["--dry-run"]].concat());
    assert_eq!((files_below(&lab.path("repo")), pack_bytes(&lab)), before, "a rehearsal changes nothing");
    assert!(is(&said, "freed_bytes") > 5_000_000);
    let done = lab.run("owner", &args);
    for field in ["freed_bytes", "deleted_bytes", "moved_bytes", "packs_deleted", "packs_kept", "blobs_moved"]
    {
        assert_eq!(is(&done, field), is(&said, field), "{field}");
    }
    assert_eq!((&said.summary(0)["dry_run"], &done.summary(0)["dry_run"]), (&true.into(), &false.into()));
    // To the byte, but for the headers of new packs, which no plan knows.
    let freed = before.1 - pack_bytes(&lab);
    let headers = is(&done, "freed_bytes") - freed;
    assert!(headers < 200_000, "{headers}");
    restores(&lab, &second, &state);
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
    // Groups of which a member is alive are whole: nothing is left to move, and a second run writes nothing.
    let quiet = files_below(&lab.path("repo"));
    let again = lab.run("owner", &args);
    assert_eq!((is(&again, "freed_bytes"), is(&again, "unused_bytes")), (0, 0));
    assert_eq!(is(&again, "stored_bytes"), 0);
    assert_eq!(files_below(&lab.path("repo")), quiet);
    // And what is known is still known.
    let third = lab.run("owner", &["backup", "source", "--host", "web"]);
    assert_eq!(third.summary(0)["added_bytes"], 0);
}

#[test]
fn what_is_marked_waits_and_a_backup_meanwhile_loses_nothing() {
    let (lab, [first, second], state) = made();
    lab.run("owner", &["forget", &first]).summary(0);
    let before = pack_bytes(&lab);
    let marked = lab.run("owner", &["prune"]);
    assert_eq!((is(&marked, "packs_deleted"), is(&marked, "freed_bytes")), (0, 0));
    assert!(is(&marked, "packs_waiting") > 0 && is(&marked, "waiting_bytes") > 0);
    assert!(pack_bytes(&lab) >= before);
    // What was forgotten comes back: its blobs lie in marked packs, and are stored again.
    write(&lab, "goes", &noise(2, 5_000_000));
    let third = lab.run("owner", &["backup", "source", "--host", "web"]);
    assert!(is(&third, "added_bytes") >= 5_000_000);
    let third = third.summary(0)["snapshot"].as_str().unwrap().to_owned();
    let done = lab.run("owner", &["prune", "--grace", "0"]);
    assert!(is(&done, "packs_deleted") >= is(&marked, "packs_waiting"));
    restores(&lab, &second, &state);
    let state: State = state.into_iter().chain([("goes".to_owned(), noise(2, 5_000_000))]).collect();
    restores(&lab, &third, &state);
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
}

#[test]
fn forget_prunes_if_asked() {
    let (lab, [_, second], state) = made();
    let before = files_below(&lab.path("repo"));
    let args = ["forget", "--keep-last", "1", "--prune"];
    let said = lab.run("owner", &[&args[..], &["--dry-run"]].concat());
    assert_eq!(files_below(&lab.path("repo")), before, "a rehearsal changes nothing");
    let done = lab.run("owner", &args);
    let of = |ran: &Ran, field: &str| -> Value { ran.summary(0)["prune"][field].clone() };
    for field in ["packs_waiting", "packs_unused", "packs_repacked_bytes", "moved_bytes", "snapshots"] {
        assert_eq!(of(&done, field), of(&said, field), "{field}");
    }
    assert_eq!((of(&said, "snapshots"), done.summary(0)["dropped"].clone()), (1.into(), 1.into()));
    assert!(of(&said, "waiting_bytes").as_u64().unwrap() > 5_000_000);
    restores(&lab, &second, &state);
    // The table, for people.
    let shown = lab.command("owner", &["prune", "--dry-run", "--grace", "0"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for row in ["kept", "repacked", "unused", "deleted now"] {
        assert!(shown.lines().any(|line| line.starts_with(row)), "{shown}");
    }
}

#[test]
fn only_an_owner_prunes() {
    let (lab, ids, _) = made();
    for role in ["backup", "restore"] {
        let key = format!("{role}.key");
        let add = ["key", "add", "--role", role, "--new-key-file", &key, "--label", role];
        lab.run("owner", &add).summary(0);
        for args in [&["prune"][..], &["prune", "--dry-run"], &["forget", &ids[0], "--prune"]] {
            let refused = lab.run_with_key(role, &key, args);
            assert_eq!(refused.code, 12, "{args:?}: {}", refused.stderr);
        }
    }
    for (args, code) in [(&["prune", "--grace", "1m"][..], 2), (&["prune", "--max-unused", "110%"], 2)] {
        assert_eq!(lab.run("owner", args).code, code, "{args:?}");
    }
}

#[test]
fn nothing_goes_if_it_is_uncertain_what_is_needed() {
    let (lab, [first, second], _) = made();
    lab.run("owner", &["forget", &first]).summary(0);
    // One bit of the snapshot that stays.
    let path = lab.path("repo/snapshots").join(&second);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let before = files_below(&lab.path("repo"));
    // To a machine that has read it before it is known what it needs.
    let fresh = lab.path("another cache");
    let fresh = ["--cache-dir", fresh.to_str().unwrap()];
    for args in [&["prune", "--grace", "0"][..], &["prune", "--dry-run"]] {
        let refused = lab.run("owner", &[&fresh, args].concat());
        assert_eq!(refused.code, 4, "{}", refused.stderr);
        let error = refused.lines.iter().find(|line| line["event"] == "error").unwrap();
        assert!(error["message"].as_str().unwrap().contains(&second[..12]), "{error}");
        assert!(error["hint"].is_string());
    }
    assert_eq!(files_below(&lab.path("repo")), before);
}
