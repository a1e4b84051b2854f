//! Taking files out of what was backed up, as an owner sees it.

use std::path::Path;

use serde_json::Value;

use crate::lab::{Lab, Ran, files_below, noise};

const SECRET: usize = 600_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn snapshot(ran: &Ran) -> String {
    ran.summary(0)["snapshot"].as_str().unwrap().to_owned()
}

fn events<'a>(ran: &'a Ran, event: &str) -> Vec<&'a Value> {
    ran.lines.iter().filter(|line| line["event"] == event).collect()
}

/// Two snapshots by the owner and one by a machine with a `backup` slot, each with a secret file and a harmless one.
fn made() -> (Lab, Vec<String>) {
    let lab = Lab::new();
    lab.run("owner", &["init"]).summary(0);
    let key = lab.path("web.key");
    lab.run("owner", &["key", "add", "--role", "backup", "--new-key-file", text(&key)]).summary(0);
    std::fs::create_dir_all(lab.path("source/dir")).unwrap();
    std::fs::write(lab.path("source/dir/secret"), noise(5, SECRET)).unwrap();
    let mut ids = Vec::new();
    for number in 0..2 {
        std::fs::write(lab.path("source/dir/other"), format!("{number}")).unwrap();
        ids.push(snapshot(&lab.run("owner", &["backup", "source", "--host", "a"])));
    }
    ids.push(snapshot(&lab.run_with_key("web", "web.key", &["backup", "source", "--host", "b"])));
    (lab, ids)
}

fn erase(lab: &Lab, more: &[&str]) -> Ran {
    lab.run("owner", &[&["erase", "--reason", "a test"][..], more].concat())
}

fn listed(lab: &Lab) -> Vec<Value> {
    let ran = lab.run("owner", &["snapshots"]);
    ran.summary(0);
    events(&ran, "snapshot").into_iter().cloned().collect()
}

fn paths(lab: &Lab, id: &str) -> Vec<String> {
    let ran = lab.run("owner", &["ls", id]);
    ran.summary(0);
    events(&ran, "node").iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_file_is_taken_out_of_every_snapshot() {
    let (lab, ids) = made();
    let secret = lab.path("source/dir/secret");
    let before = files_below(&lab.path("repo"));
    let rehearsal = erase(&lab, &["--path", text(&secret), "--dry-run"]);
    let summary = rehearsal.summary(0);
    assert_eq!((&summary["rewritten"], &summary["dropped"]), (&3.into(), &0.into()));
    // The same content twice, since it lies in two domains.
    let freed = summary["unreferenced_bytes"].as_u64().unwrap();
    assert!((2 * SECRET as u64..2 * SECRET as u64 + 10_000).contains(&freed), "{freed}");
    assert_eq!(events(&rehearsal, "erase").len(), 3);
    assert_eq!(files_below(&lab.path("repo")), before, "a rehearsal changes nothing");
    // Nobody can be asked.
    let asked = erase(&lab, &["--path", text(&secret)]);
    assert_eq!(asked.code, 2);
    assert_eq!(files_below(&lab.path("repo")), before);

    let times: Vec<Value> = listed(&lab).iter().map(|line| line["time"].clone()).collect();
    // A path is named as everywhere: relative to where one is.
    let done = erase(&lab, &["--path", "source/dir/../dir/secret", "--yes"]);
    assert_eq!(done.summary(0)["replaced"].as_array().unwrap().len(), 3);
    let after = listed(&lab);
    assert_eq!(after.iter().map(|line| line["time"].clone()).collect::<Vec<_>>(), times);
    for line in &after {
        let id = line["id"].as_str().unwrap();
        assert!(!ids.contains(&id.to_owned()));
        let paths = paths(&lab, id);
        assert!(paths.iter().any(|path| path.ends_with("/dir/other")), "{paths:?}");
        assert!(!paths.iter().any(|path| path.contains("secret")), "{paths:?}");
    }
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
    for old in &ids {
        assert_eq!(lab.run("owner", &["ls", old]).code, 1, "it is forgotten");
    }
    // It is in no snapshot any more.
    assert_eq!(erase(&lab, &["--path", text(&secret), "--yes"]).code, 1);
    // The machine goes on as if nothing had been.
    std::fs::remove_file(&secret).unwrap();
    snapshot(&lab.run_with_key("web", "web.key", &["backup", "source", "--host", "b"]));
    snapshot(&lab.run("owner", &["backup", "source", "--host", "a"]));
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
}

#[test]
fn hosts_datasets_and_times_narrow_it() {
    let (lab, ids) = made();
    let secret = lab.path("source/dir/secret");
    let done = erase(&lab, &["--path", text(&secret), "--host", "b", "--yes"]);
    assert_eq!(done.summary(0)["rewritten"], 1);
    assert!(paths(&lab, &ids[0]).iter().any(|path| path.ends_with("secret")));
    let from = erase(&lab, &["--path", text(&secret), "--from", &ids[1], "--dry-run"]);
    let chosen: Vec<&Value> = events(&from, "erase").iter().map(|line| &line["id"]).collect();
    assert_eq!(chosen, [&ids[1]]);
    assert_eq!(erase(&lab, &["--path", text(&secret), "--to", "2001-01-01", "--dry-run"]).code, 1);
    let dataset = listed(&lab)[0]["dataset"].as_str().unwrap().to_owned();
    let all = erase(&lab, &["--dataset", &dataset, "--host", "a", "--to", &ids[0], "--yes"]);
    assert_eq!(all.summary(0)["dropped"], 1);
    assert_eq!(listed(&lab).len(), 2);
    // All of its sources: nothing would be left.
    let whole = erase(&lab, &["--path", text(&lab.path("source")), "--yes"]);
    assert_eq!((&whole.summary(0)["dropped"], listed(&lab).len()), (&2.into(), 0));
    assert_eq!(lab.run("owner", &["check"]).summary(0)["findings"], 0);
}

#[test]
fn pins_hold_unless_they_are_meant_too() {
    let (lab, ids) = made();
    lab.run("owner", &["pin", &ids[0], "--reason", "audit"]).summary(0);
    let secret = lab.path("source/dir/secret");
    let refused = erase(&lab, &["--path", text(&secret), "--yes"]);
    assert_eq!(refused.code, 1);
    assert_eq!(listed(&lab).len(), 3);
    assert!(listed(&lab).iter().any(|line| line["id"] == *ids[0]), "nothing was done");
    erase(&lab, &["--path", text(&secret), "--pinned", "--yes"]).summary(0);
    let pins = lab.run("owner", &["pin", "--list"]);
    let pinned: Vec<String> =
        events(&pins, "pin").iter().map(|line| line["snapshot"].as_str().unwrap().to_owned()).collect();
    let oldest = listed(&lab)[0]["id"].as_str().unwrap().to_owned();
    assert!(pinned.contains(&oldest), "the pin went along: {pinned:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (lab, ids) = made();
    for (code, args) in [
        (2, &["--yes"][..]),
        (2, &["--path", "source/*", "--yes"]),
        (2, &["--path", "/nowhere/*", "--yes"]),
        (1, &["--path", "/nowhere", "--yes"]),
        (1, &["--path", "/nowhere", "--path", text(&lab.path("source/dir")), "--yes"]),
        (1, &["--dataset", "nobodys", "--yes"]),
        (2, &["--path", "/x", "--from", "yesterday", "--yes"]),
    ] {
        let ran = erase(&lab, args);
        assert_eq!(ran.code, code, "{args:?}: {:?}", ran.lines);
    }
    assert_eq!(lab.run("owner", &["erase", "--path", "/x", "--reason", " ", "--yes"]).code, 2);
    assert_eq!(
        lab.run_with_key("web", "web.key", &["erase", "--path", "/x", "--reason", "r", "--yes"]).code,
        12
    );
    assert_eq!(listed(&lab).iter().map(|line| line["id"].clone()).collect::<Vec<_>>(), ids);
}

#[test]
fn copies_that_still_have_it_are_named() {
    let (lab, _) = made();
    let (repo, other) = (lab.path("repo"), lab.path("other"));
    let toml = format!(
        "[repository]\nkey-file = \"{}\"\n\n[[repository.copies]]\nname = \"disk\"\nuri = \"{}\"\n\n\
         [[repository.copies]]\nname = \"cloud\"\nuri = \"{}\"\n",
        lab.path("owner.key").display(),
        repo.display(),
        other.display()
    );
    std::fs::write(lab.path("snap.toml"), toml).unwrap();
    let secret = lab.path("source/dir/secret");
    let args = ["erase", "--reason", "r", "--path", text(&secret), "--copy", "disk", "--yes", "--json"];
    let mut command = lab.command("owner", &args);
    let ran = crate::lab::finish(command.env_remove("SNAP_REPO").output().unwrap());
    assert_eq!(ran.summary(0)["copies_left"], serde_json::json!(["cloud"]));
}

fn stored_bytes(repository: &Path) -> u64 {
    files_below(&repository.join("packs")).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn the_bytes_go_after_the_grace() {
    let (lab, _) = made();
    let (repo, secret) = (lab.path("repo"), lab.path("source/dir/secret"));
    let done = erase(&lab, &["--path", text(&secret), "--yes"]);
    let copy = &done.summary(0)["copies"][0];
    assert_eq!((&copy["state"], &copy["lock"]), (&"erased".into(), &Value::Null));
    assert!(
        copy["packs"].as_u64().unwrap() >= 2 && copy["packs_bytes"].as_u64().unwrap() > 2 * SECRET as u64
    );
    let after: jiff::Timestamp = copy["deletable_after"].as_str().unwrap().parse().unwrap();
    let hours = after.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((22..=23).contains(&hours), "{hours}");
    assert!(stored_bytes(&repo) > 2 * SECRET as u64);
    lab.run("owner", &["prune", "--grace", "0"]).summary(0);
    assert!(stored_bytes(&repo) < 100_000, "{}", stored_bytes(&repo));
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);

    // At once, and a small file, which lies in a group with others.
    let (lab, _) = made();
    let [other, secret] = ["source/dir/other", "source/dir/secret"].map(|name| lab.path(name));
    let done = erase(&lab, &["--path", text(&other), "--path", text(&secret), "--grace", "0", "--yes"]);
    let copy = &done.summary(0)["copies"][0];
    assert_eq!((&copy["packs"], &copy["deletable_after"]), (&0.into(), &Value::Null));
    assert!(stored_bytes(&lab.path("repo")) < 100_000);
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
}

#[test]
fn all_copies_that_can_be_reached_lose_it() {
    let lab = Lab::new();
    let toml = format!(
        "[repository]\nkey-file = \"{}\"\n\n[[repository.copies]]\nname = \"disk\"\npath = \"repo\"\n\n\
         [[repository.copies]]\nname = \"second\"\npath = \"second\"\n",
        lab.path("owner.key").display(),
    );
    std::fs::write(lab.path("snap.toml"), toml).unwrap();
    let run = |args: &[&str]| {
        let mut command = lab.command("owner", &[args, &["--json"]].concat());
        crate::lab::finish(command.env_remove("SNAP_REPO").output().unwrap())
    };
    run(&["init", "--copy", "disk"]).summary(0);
    run(&["init", "--copy", "second", "--copy-of", "disk"]).summary(0);
    std::fs::create_dir_all(lab.path("source/dir")).unwrap();
    let secret = lab.path("source/dir/secret");
    std::fs::write(lab.path("source/dir/other"), "other").unwrap();
    std::fs::write(&secret, noise(5, SECRET)).unwrap();
    let old = snapshot(&run(&["backup", "source"]));
    let erase = ["erase", "--reason", "r", "--path", text(&secret), "--grace", "0", "--yes"];
    let all = |copy: &str| -> Vec<Value> {
        let ran = run(&["snapshots", "--copy", copy]);
        ran.summary(0);
        events(&ran, "snapshot").iter().map(|line| line["id"].clone()).collect()
    };

    // One is away: the other is done, and it is told.
    std::fs::rename(lab.path("second"), lab.path("away")).unwrap();
    let done = run(&erase);
    let summary = done.summary(0);
    assert_eq!(summary["copies_left"], serde_json::json!(["second"]));
    let states: Vec<&Value> = summary["copies"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["erased", "left"]);
    assert!(done.stderr.contains("second"), "{}", done.stderr);
    std::fs::rename(lab.path("away"), lab.path("second")).unwrap();
    assert_eq!(all("second"), [old.as_str()]);

    // Then the rest, with the same snapshot in its place.
    let done = run(&erase);
    let summary = done.summary(0);
    let states: Vec<&Value> = summary["copies"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["nothing", "erased"]);
    assert_eq!(summary["copies_left"], serde_json::json!([]));
    assert_eq!(all("disk"), all("second"));
    assert_ne!(all("disk"), [old.as_str()]);
    for copy in ["disk", "second"] {
        assert_eq!(run(&["check", "--read-data", "--copy", copy]).summary(0)["findings"], 0);
    }
    assert!(stored_bytes(&lab.path("repo")) < 100_000 && stored_bytes(&lab.path("second")) < 100_000);
    assert_eq!(run(&erase).code, 1, "it is nowhere any more");
}
