//! A repository made by an owner, to which a second host backs up with nothing but a `backup` slot.

use crate::lab::{Lab, files_below, noise};

const NAME: &str = "payroll-2031-confidential.txt";
const LINE: &str = "the salary of everyone, in plain words\n";

fn made() -> Lab {
    let lab = Lab::new();
    let init = lab.run("owner", &["init"]);
    assert_eq!(init.summary(0)["recovery_key"].as_str().unwrap().len(), 63);
    let added = lab.run(
        "owner",
        &[
            "key",
            "add",
            "--role",
            "backup",
            "--new-key-file",
            lab.path("web.key").to_str().unwrap(),
            "--label",
            "web",
        ],
    );
    added.summary(0);
    let source = lab.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join(NAME), LINE.repeat(1000)).unwrap();
    std::fs::write(source.join("noise"), noise(1, 3_000_000)).unwrap();
    lab
}

#[test]
fn the_second_host_writes_and_cannot_read_and_the_owner_restores_all() {
    let lab = made();
    let first = lab.run_with_key("web", "web.key", &["backup", "source", "--host", "web"]);
    assert_eq!(first.summary(0)["files_new"], 2);
    // The second run compares with what this host's cache has kept.
    let second = lab.run_with_key("web", "web.key", &["backup", "source", "--host", "web"]);
    assert_eq!(
        (&second.summary(0)["files_unchanged"], &second.summary(0)["added_bytes"]),
        (&2.into(), &0.into())
    );
    // Without it, everything is read again and nothing uploaded.
    let third = lab.run_with_key("rebuilt", "web.key", &["backup", "source", "--host", "web"]);
    assert_eq!((&third.summary(0)["files_new"], &third.summary(0)["added_bytes"]), (&2.into(), &0.into()));
    let id = first.summary(0)["snapshot"].as_str().unwrap().to_owned();
    let target = lab.path("stolen");
    for args in [
        &["restore", &id, "--target", target.to_str().unwrap()][..],
        &["ls", &id],
        &["cat", &format!("{id}:/{NAME}")],
        &["key", "list"],
        &["key", "add", "--role", "owner", "--new-key-file", "mine.key"],
    ] {
        let refused = lab.run_with_key("web", "web.key", args);
        assert_eq!(refused.code, 12, "{args:?}: {}", refused.stderr);
    }
    assert!(!target.exists() && !lab.path("mine.key").exists());
    let listed = lab.run_with_key("web", "web.key", &["snapshots"]);
    listed.summary(0);
    assert_eq!(listed.lines[0]["paths"].as_array().map(Vec::len), Some(0));
    let restored = lab.path("restored");
    lab.run("owner", &["restore", &id, "--target", restored.to_str().unwrap()]).summary(0);
    let below = restored.join(lab.path("source").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(below.join(NAME)).unwrap(), LINE.repeat(1000));
    assert_eq!(std::fs::read(below.join("noise")).unwrap(), noise(1, 3_000_000));
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
}

#[test]
fn nothing_of_the_source_shows_in_the_repository() {
    let lab = made();
    lab.run("owner", &["backup", "source", "--label", "quarterly-label", "--tag", "sensitive-tag"])
        .summary(0);
    let noise = noise(1, 64);
    let secrets: [&[u8]; 6] =
        [NAME.as_bytes(), &LINE.as_bytes()[..30], &noise, b"quarterly-label", b"sensitive-tag", b"source"];
    let mut seen = 0;
    for file in files_below(&lab.path("repo")) {
        let bytes = std::fs::read(&file).unwrap();
        seen += bytes.len();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds {:?}", file.display(), String::from_utf8_lossy(secret));
        }
    }
    assert!(seen > 3_000_000);
}

#[test]
fn a_removed_slot_is_told_so_and_opens_nothing_written_after() {
    let lab = made();
    let listed = lab.run("owner", &["key", "list"]);
    listed.summary(0);
    let web =
        listed.lines.iter().find(|line| line["label"] == "web").unwrap()["id"].as_str().unwrap().to_owned();
    lab.run("owner", &["key", "remove", &web[..12]]).summary(0);
    lab.run("owner", &["backup", "source"]).summary(0);
    let refused = lab.run_with_key("web", "web.key", &["backup", "source"]);
    assert_eq!(refused.code, 12);
    assert!(refused.stderr.contains("removed"), "{}", refused.stderr);
}
