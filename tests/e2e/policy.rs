//! `snap policy`: what is called two copies, and whether it is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::config::{run, write};
use crate::lab::{Lab, Ran};

/// Copies the repository `from` to `to` object by object: the same snapshots in a second place.
fn duplicate(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            duplicate(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A dataset in one repository, and a configuration with a second copy at `second`.
fn lab(second: &Path, more: &str) -> Lab {
    let lab = Lab::new();
    write(&lab, "source/a", "a");
    let text = format!(
        "[repository]\nkey-file = \"owner.key\"\n\
         [[repository.copies]]\nname = \"disk\"\npath = \"repo\"\nmedia = \"disk\"\nlocation = \"onsite\"\n\
         [[repository.copies]]\nname = \"other\"\npath = \"{}\"\nmedia = \"tape\"\nlocation = \"bunker\"\n\
         immutable = true\n{more}\n[dataset.docs]\nsource = \"source\"\n",
        second.display()
    );
    write(&lab, "snap.toml", &text);
    run(&lab, &["init"]).summary(0);
    run(&lab, &["backup", "--dataset", "docs"]).summary(0);
    lab
}

fn of<'a>(ran: &'a Ran, event: &str) -> Vec<&'a Value> {
    ran.lines.iter().filter(|line| line["event"] == event).collect()
}

#[test]
fn two_directories_on_one_device_are_one_place_whatever_their_labels_say() {
    let lab = lab(Path::new("second"), "");
    duplicate(&lab.path("repo"), &lab.path("second"));
    let ran = run(&lab, &["policy"]);
    assert_eq!(ran.summary(0)["findings"], 5);
    let findings = of(&ran, "finding");
    let pairs: Vec<_> = findings
        .iter()
        .filter(|it| it["code"] == "co-located")
        .map(|it| (it["with_source"].as_bool().unwrap(), it["copies"].clone()))
        .collect();
    let names = |names: &[&str]| serde_json::json!(names);
    assert_eq!(
        pairs,
        [(true, names(&["disk"])), (true, names(&["other"])), (false, names(&["disk", "other"]))]
    );
    assert_eq!(findings[0]["evidence"][0]["kind"], "device");
    assert_eq!(findings[3]["code"], "none-elsewhere");
    // It is called immutable, and whoever writes here can delete it.
    assert_eq!((&findings[4]["code"], &findings[4]["copies"]), (&"not-immutable".into(), &names(&["other"])));
    let policy = of(&ran, "policy")[0];
    assert_eq!((&policy["dataset"], &policy["places"]), (&"docs".into(), &1.into()));
    assert_eq!((&policy["copies"], &policy["elsewhere"]), (&names(&["disk", "other"]), &names(&[])));
    assert_eq!((&policy["media"], &policy["immutable"]), (&names(&["disk", "tape"]), &"no".into()));
    run(&lab, &["policy", "--check"]).summary(4);
    let text = lab.command("host", &["policy"]).env_remove("SNAP_REPO").output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("2 of 2: disk, other") && text.contains("not-immutable: "), "{text}");
    assert!(
        text.contains("co-located: the source and the copy disk are not apart: the same device"),
        "{text}"
    );
}

#[test]
fn another_device_elsewhere_is_no_finding() {
    // A file system in memory is another device than that of the temporary files; where it is not, nothing is shown.
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
    let lab = lab(&memory.path().join("second"), "");
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    if device(memory.path()) == device(&lab.path("repo")) {
        return;
    }
    duplicate(&lab.path("repo"), &memory.path().join("second"));
    let ran = run(&lab, &["policy"]);
    let policy = of(&ran, "policy")[0];
    assert_eq!((&policy["places"], &policy["elsewhere"]), (&2.into(), &serde_json::json!(["other"])));
    let findings: Vec<_> =
        of(&ran, "finding").iter().map(|it| (it["code"].clone(), it["copies"].clone())).collect();
    let pair = |code: &str, copy: &str| (Value::from(code), serde_json::json!([copy]));
    assert_eq!(findings, [pair("co-located", "disk"), pair("not-immutable", "other")]);
}

#[test]
fn a_copy_that_lags_and_one_that_is_away() {
    let lab = lab(Path::new("second"), "[[repository.copies]]\nname = \"away\"\npath = \"/nowhere/snap\"\n");
    duplicate(&lab.path("repo"), &lab.path("second"));
    write(&lab, "source/a", "changed");
    run(&lab, &["backup", "--dataset", "docs", "--copy", "disk"]).summary(0);
    let ran = run(&lab, &["policy"]);
    assert_eq!(ran.summary(0)["unreachable"], 1);
    let policy = of(&ran, "policy")[0];
    assert_eq!(policy["copies"], serde_json::json!(["disk"]));
    assert_eq!(policy["lagging"], serde_json::json!(["other"]));
    assert_eq!(policy["unreachable"], serde_json::json!(["away"]));
    assert_eq!(of(&ran, "copy")[2]["state"], "unreachable");
    assert!(ran.stderr.contains("the copy away does not answer"), "{}", ran.stderr);
    // If none answers there is nothing to say.
    std::fs::rename(lab.path("repo"), lab.path("gone")).unwrap();
    std::fs::rename(lab.path("second"), lab.path("gone2")).unwrap();
    run(&lab, &["policy"]).summary(10);
}

#[test]
fn what_is_configured_and_was_never_backed_up_is_listed_too() {
    let lab = lab(Path::new("second"), "[dataset.never]\nsource = \"s3://shop?region=r\"\n");
    run(&lab, &["backup", "--dataset", "unknown", "source"]).summary(0);
    let ran = run(&lab, &["policy", "--check"]);
    ran.summary(4);
    let listed: Vec<_> = of(&ran, "policy").iter().map(|it| it["dataset"].clone()).collect();
    assert_eq!(listed, ["docs", "never", "unknown"]);
    let of_unknown = of(&ran, "finding").into_iter().find(|it| it["dataset"] == "unknown").unwrap();
    // Its paths come from the snapshot.
    assert_eq!(of_unknown["evidence"][0]["kind"], "device");
}

#[test]
fn without_a_configuration_there_is_one_copy() {
    let lab = Lab::new();
    write(&lab, "source/a", "a");
    run(&lab, &["backup", "source"]).summary(0);
    let ran = run(&lab, &["policy"]);
    assert_eq!(ran.summary(0)["copies"], 1);
    let codes: Vec<_> = of(&ran, "finding").iter().map(|it| it["code"].clone()).collect();
    assert_eq!(codes, ["co-located", "few-copies", "one-medium", "none-elsewhere"]);
}
