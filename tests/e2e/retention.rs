//! Forgetting, pins and tags, as an owner and a machine with a `backup` slot see them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::{Lab, Ran, files_below};

/// A repository with so many snapshots of one directory, tagged `n0`, `n1`, …, and their ids.
fn made(snapshots: usize) -> (Lab, Vec<String>) {
    let lab = Lab::new();
    lab.run("owner", &["init"]).summary(0);
    let key = lab.path("web.key");
    lab.run("owner", &["key", "add", "--role", "backup", "--new-key-file", text(&key), "--label", "web"])
        .summary(0);
    std::fs::create_dir(lab.path("source")).unwrap();
    let ids = (0..snapshots)
        .map(|number| {
            std::fs::write(lab.path("source/file"), number.to_string()).unwrap();
            let tag = format!("n{number}");
            snapshot(&lab.run("owner", &["backup", "source", "--host", "web", "--tag", &tag]))
        })
        .collect();
    (lab, ids)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn snapshot(ran: &Ran) -> String {
    ran.summary(0)["snapshot"].as_str().unwrap().to_owned()
}

fn events<'a>(ran: &'a Ran, event: &str) -> Vec<&'a Value> {
    ran.lines.iter().filter(|line| line["event"] == event).collect()
}

fn listed(lab: &Lab) -> Vec<String> {
    let ran = lab.run("owner", &["snapshots"]);
    ran.summary(0);
    events(&ran, "snapshot").iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

fn objects(lab: &Lab) -> Vec<PathBuf> {
    let mut files = files_below(&lab.path("repo"));
    files.sort();
    files
}

/// Ids by whether they stay, oldest first.
fn verdicts(ran: &Ran) -> Vec<(String, bool)> {
    let verdicts = events(ran, "retention");
    verdicts.iter().map(|it| (it["id"].as_str().unwrap().to_owned(), it["keep"].as_bool().unwrap())).collect()
}

#[test]
fn a_policy_is_rehearsed_then_carried_out() {
    let (lab, ids) = made(5);
    let before = objects(&lab);
    let rehearsal = lab.run("owner", &["forget", "--keep-last", "2", "--keep-tag", "n1", "--dry-run"]);
    let summary = rehearsal.summary(0);
    assert_eq!((&summary["kept"], &summary["dropped"]), (&3.into(), &2.into()));
    assert_eq!((&summary["command"], &summary["dry_run"]), (&"forget".into(), &true.into()));
    assert_eq!(objects(&lab), before, "a rehearsal changes nothing");
    let expected = [false, true, false, true, true];
    assert_eq!(verdicts(&rehearsal), ids.iter().cloned().zip(expected).collect::<Vec<_>>());
    let of = |at: usize| rehearsal.lines[at]["reasons"].clone();
    assert_eq!(of(0), serde_json::json!(["no rule keeps it"]));
    assert_eq!(of(1), serde_json::json!(["tag n1"]));
    assert_eq!(of(3), serde_json::json!(["last 2"]));
    assert_eq!(of(4), serde_json::json!(["last 1", "newest of its key"]));
    let line = rehearsal.lines[0].as_object().unwrap();
    for field in ["time", "dataset", "host", "slot"] {
        assert!(line[field].is_string(), "{field}");
    }
    // The table, for people.
    let shown = lab
        .command("owner", &["forget", "--keep-last", "2", "--keep-tag", "n1", "--dry-run"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let row = shown.lines().find(|line| line.starts_with(&ids[1][..12])).unwrap();
    assert!(row.contains("web") && row.contains("keep") && row.ends_with("tag n1"), "{shown}");

    let done = lab.run("owner", &["forget", "--keep-last", "2", "--keep-tag", "n1"]);
    assert_eq!((done.summary(0)["dry_run"].as_bool(), verdicts(&done)), (Some(false), verdicts(&rehearsal)));
    assert_eq!(listed(&lab), [1, 3, 4].map(|at| ids[at].clone()));
    assert_eq!(lab.run("owner", &["check"]).summary(0)["findings"], 0);
    let target = lab.path("out");
    lab.run("owner", &["restore", &ids[1], "--target", text(&target)]).summary(0);
    let file = target.join(lab.path("source/file").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "1");
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_done() {
    let (lab, ids) = made(2);
    let before = objects(&lab);
    for (code, args) in [
        (2, &["forget"][..]),
        (2, &["forget", "--dry-run"]),
        (2, &["forget", "--keep-last", "0"]),
        (2, &["forget", "--keep-within", "7"]),
        (2, &["forget", "--keep-last", "1", &ids[0]]),
        (2, &["forget", "abc"]),
        (1, &["forget", "ffffffff"]),
        (1, &["forget", "--keep-tag", "none"]),
        (2, &["pin", &ids[0]]),
        (2, &["pin", &ids[0], "--reason", " "]),
        (2, &["pin", &ids[0], "--reason", "x", "--until", "2001-01-01"]),
        (2, &["pin", "--reason", "x"]),
        (2, &["tag", &ids[0]]),
        (2, &["tag", &ids[0], "--set", "a", "--add", "b"]),
    ] {
        let refused = lab.run("owner", args);
        assert_eq!(refused.code, code, "{args:?}: {}", refused.stderr);
        assert!(events(&refused, "error")[0]["hint"].is_string(), "{args:?}");
    }
    assert_eq!(objects(&lab), before);
}

#[test]
fn snapshots_are_forgotten_by_name() {
    let (lab, ids) = made(4);
    let other = snapshot(&lab.run("owner", &["backup", "source", "--host", "db"]));
    // `latest` of two hosts is nobody's.
    assert_eq!(lab.run("owner", &["forget", "latest"]).code, 2);
    let done = lab.run("owner", &["forget", "latest~1", &ids[0][..8], "--host", "web"]);
    assert_eq!(done.summary(0)["dropped"], 2);
    assert_eq!(listed(&lab), [ids[1].clone(), ids[3].clone(), other.clone()]);
    // Filters say which groups a policy is for.
    let done = lab.run("owner", &["forget", "--keep-last", "1", "--host", "web"]);
    assert_eq!(verdicts(&done), [(ids[1].clone(), false), (ids[3].clone(), true)]);
    // All of a group, by name.
    lab.run("owner", &["forget", &other]).summary(0);
    assert_eq!(listed(&lab), ids[3..]);
    assert_eq!(lab.run("owner", &["check"]).summary(0)["findings"], 0);
}

#[test]
fn a_flood_by_another_key_displaces_nothing() {
    let (lab, ids) = made(4);
    for _ in 0..12 {
        let args = ["backup", "source", "--host", "web", "--dataset", "files", "--tag", "n0"];
        lab.run_with_key("web", "web.key", &args).summary(0);
    }
    let ran = lab.run("owner", &["forget", "--keep-last", "3", "--keep-daily", "1"]);
    ran.summary(0);
    let note = &events(&ran, "note")[0]["message"];
    assert!(note.as_str().unwrap().contains("2 keys"), "{note}");
    let left = listed(&lab);
    assert_eq!(left[..3], ids[1..]);
    assert_eq!(left.len(), 6);
    // And tables say by whom each is.
    let shown = lab.command("owner", &["forget", "--keep-last", "3", "-n"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().filter(|line| line.contains(" web  keep")).count() == 3, "{shown}");
}

#[test]
fn times_that_do_not_fit_are_judged_apart_and_said() {
    let (lab, ids) = made(3);
    // The store's time is the file's: as if the first two came back later than they were made, and the last one were ahead.
    let touch = |id: &str, when: &str| {
        let path = lab.path("repo/snapshots").join(id);
        let status = std::process::Command::new("touch").args(["-d", when]).arg(path).status();
        assert!(status.unwrap().success());
    };
    touch(&ids[0], "3 days");
    touch(&ids[2], "3 days ago");
    let ran = lab.run("owner", &["forget", "--keep-last", "1", "--dry-run"]);
    ran.summary(0);
    let expected: Vec<_> = ids.iter().map(|id| (id.clone(), true)).collect();
    assert_eq!(verdicts(&ran), expected);
    let reasons = |at: usize| ran.lines[at]["reasons"][1].as_str().unwrap();
    assert!(reasons(0).starts_with("judged apart: it was stored 3d after"), "{}", reasons(0));
    assert_eq!(reasons(1), "newest of its key");
    assert!(reasons(2).starts_with("judged apart: its time lies 2d 23h ahead"), "{}", reasons(2));
    assert_eq!(events(&ran, "warning").len(), 2);
    assert!(ran.stderr.contains("displace nothing"), "{}", ran.stderr);
}

#[test]
fn pins_keep_until_they_are_removed() {
    let (lab, ids) = made(4);
    let pinned = lab.run("owner", &["pin", &ids[0], &ids[1], "--reason", "audit", "--until", "90d"]);
    let summary = pinned.summary(0);
    assert_eq!((&summary["pinned"], &summary["reason"]), (&true.into(), &"audit".into()));
    assert!(summary["until"].is_string());
    let shown = lab.run("owner", &["snapshots"]);
    let field = |name: &str| -> Vec<Value> {
        events(&shown, "snapshot").iter().map(|snapshot| snapshot[name].clone()).collect()
    };
    assert_eq!(field("pinned"), [true, true, false, false].map(Value::from));
    assert_eq!((&field("pin_reason")[1], &field("pin_reason")[2]), (&"audit".into(), &Value::Null));
    assert_eq!((&field("pinned_until")[0], &field("pinned_until")[3]), (&summary["until"], &Value::Null));
    let text = lab.command("owner", &["snapshots"]).output().unwrap();
    assert_eq!(String::from_utf8(text.stdout).unwrap().matches("(pinned until ").count(), 2);

    let listed_pins = lab.run("owner", &["pin", "--list"]);
    let pins = events(&listed_pins, "pin");
    assert_eq!(
        (pins.len(), &pins[0]["snapshot"], &pins[0]["in_force"]),
        (2, &ids[0].clone().into(), &true.into())
    );

    let refused = lab.run("owner", &["forget", &ids[2], &ids[1]]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("audit") && refused.stderr.contains("snap pin --remove"));
    assert_eq!(listed(&lab), ids);
    let done = lab.run("owner", &["forget", "--keep-last", "1"]);
    done.summary(0);
    let reason = done.lines[0]["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("pinned until ") && reason.ends_with(": audit"), "{reason}");
    assert_eq!(listed(&lab), [0, 1, 3].map(|at| ids[at].clone()));
    lab.run("owner", &["pin", "--remove", &ids[1]]).summary(0);
    lab.run("owner", &["forget", "--keep-last", "1"]).summary(0);
    assert_eq!(listed(&lab), [0, 3].map(|at| ids[at].clone()));
    assert_eq!(lab.run("owner", &["check"]).summary(0)["findings"], 0);
}

#[test]
fn tags_are_changed_without_changing_snapshots() {
    let (lab, ids) = made(3);
    let snapshots = || {
        let mut files = files_below(&lab.path("repo/snapshots"));
        files.sort();
        files
    };
    let before = snapshots();
    let ran = lab.run("owner", &["tag", "--add", "keep,x", "--remove", "n0", &ids[0], &ids[1]]);
    assert_eq!(ran.summary(0)["changed"].as_array().unwrap().len(), 2);
    let again = lab.run("owner", &["tag", "--add", "keep", &ids[0]]);
    assert_eq!(again.summary(0)["changed"].as_array().unwrap().len(), 0);
    lab.run("owner", &["tag", "--set", "only", &ids[2]]).summary(0);
    assert_eq!(snapshots(), before);
    for (host, key) in [("owner", "owner.key"), ("web", "web.key")] {
        let shown = lab.run_with_key(host, key, &["snapshots"]);
        let tags: Vec<_> = events(&shown, "snapshot").iter().map(|it| it["tags"].clone()).collect();
        let expected = [&["keep", "x"][..], &["n1", "keep", "x"], &["only"]];
        assert_eq!(tags, expected.map(|tags| serde_json::json!(tags)));
    }
    let filtered = |tag: &str| events(&lab.run("owner", &["snapshots", "--tag", tag]), "snapshot").len();
    assert_eq!((filtered("keep"), filtered("n0"), filtered("n1"), filtered("n2")), (2, 0, 1, 0));
    assert_eq!(lab.run("owner", &["ls", "latest", "--tag", "n2"]).code, 1);
    lab.run("owner", &["ls", "latest", "--tag", "only"]).summary(0);
    lab.run("owner", &["forget", "--keep-tag", "keep,n1"]).summary(0);
    assert_eq!(listed(&lab), ids[1..]);
}

#[test]
fn a_backup_key_may_not() {
    let (lab, ids) = made(3);
    lab.run_with_key("web", "web.key", &["backup", "source"]).summary(0);
    let before = objects(&lab);
    for args in [
        &["forget", "--keep-last", "1"][..],
        &["forget", "--keep-last", "1", "--dry-run"],
        &["forget", &ids[0]],
        &["pin", &ids[0], "--reason", "x"],
        &["pin", "--remove", &ids[0]],
        &["tag", "--add", "x", &ids[0]],
    ] {
        let refused = lab.run_with_key("web", "web.key", args);
        assert_eq!(refused.code, 12, "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("needs the role owner"), "{}", refused.stderr);
    }
    assert_eq!(objects(&lab), before);
    lab.run_with_key("web", "web.key", &["pin", "--list"]).summary(0);
}

#[test]
fn an_interrupted_forget_is_finished_by_the_next() {
    let (lab, ids) = made(4);
    let dir = lab.path("repo/snapshots");
    let names: Vec<PathBuf> = ids[..2].iter().map(|id| dir.join(id)).collect();
    let bytes: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(name).unwrap()).collect();
    lab.run("owner", &["forget", &ids[0], &ids[1]]).summary(0);
    // As if it had been killed after the record and the first deletion.
    std::fs::write(&names[1], &bytes[1]).unwrap();
    assert_eq!(listed(&lab), ids[1..]);
    lab.run("owner", &["ls", &ids[1]]).summary(0);
    assert_eq!(lab.run("owner", &["pin", &ids[1], "--reason", "too late"]).code, 1);
    let rehearsal = lab.run("owner", &["forget", "--keep-last", "5", "--dry-run"]);
    assert_eq!((&rehearsal.summary(0)["dropped"], listed(&lab).len()), (&1.into(), 3));
    let next = lab.run("owner", &["forget", "--keep-last", "5"]);
    let first = &events(&next, "retention")[0];
    assert_eq!((&first["id"], &first["keep"]), (&ids[1].clone().into(), &false.into()));
    assert_eq!(first["reasons"][0], "forgotten before, and not yet deleted");
    assert_eq!(listed(&lab), ids[2..]);
    assert_eq!(lab.run("owner", &["check"]).summary(0)["findings"], 0);
}
