//! What a run can meet: another run at the same time, another version, no repository, a wrong key.

use std::process::Stdio;

use crate::lab::{Lab, finish, noise};

#[test]
fn two_processes_back_up_at_once_and_both_snapshots_are_complete() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    for half in ["left", "right"] {
        let dir = lab.path(half);
        std::fs::create_dir(&dir).unwrap();
        // Mostly the same, so that each may build on what the other has just stored.
        std::fs::write(dir.join("same"), noise(1, 30 << 20)).unwrap();
        std::fs::write(dir.join("own"), noise(half.len() as u64, 5 << 20)).unwrap();
    }
    let running: Vec<_> = ["left", "right"]
        .map(|half| {
            let mut command = lab.command(half, &["backup", half, "--dataset", half, "--json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .into_iter()
        .collect();
    for child in running {
        finish(child.wait_with_output().unwrap()).summary(0);
    }
    assert_eq!(lab.run("host", &["check", "--read-data"]).summary(0)["findings"], 0);
    for half in ["left", "right"] {
        let (target, path) =
            (lab.path(&format!("out-{half}")), format!("latest:{}", lab.path(half).display()));
        lab.run("host", &["restore", &path, "--dataset", half, "--target", target.to_str().unwrap()])
            .summary(0);
        assert!(std::fs::read(target.join("same")).unwrap() == noise(1, 30 << 20));
        assert!(std::fs::read(target.join("own")).unwrap() == noise(half.len() as u64, 5 << 20));
    }
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    for name in ["config", "config.bak"] {
        let path = lab.path("repo").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8] = 1; // the version, after the magic
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::create_dir(lab.path("source")).unwrap();
    for args in [&["snapshots"][..], &["backup", "source"], &["check"]] {
        let refused = lab.run("host", args);
        assert_eq!(refused.code, 1, "{args:?}");
        assert!(refused.stderr.contains("newer snap"), "{}", refused.stderr);
    }
}

#[test]
fn the_exit_code_says_what_is_wrong() {
    let lab = Lab::new();
    assert_eq!(lab.run("host", &["snapshots"]).code, 10); // told before the missing key file
    std::fs::write(lab.path("owner.key"), format!("snap-key-v0 {}\n", "00".repeat(32))).unwrap();
    assert_eq!(lab.run("host", &["snapshots"]).code, 10);
    std::fs::remove_file(lab.path("owner.key")).unwrap();
    lab.run("host", &["init"]).summary(0);
    std::fs::write(lab.path("other.key"), format!("snap-key-v0 {}\n", "00".repeat(32))).unwrap();
    assert_eq!(lab.run_with_key("host", "other.key", &["snapshots"]).code, 12);
    assert_eq!(lab.run("host", &["snapshots", "--nonsense"]).code, 2);
    assert_eq!(lab.run("host", &["backup", "nowhere"]).code, 1);
    std::fs::create_dir(lab.path("source")).unwrap();
    lab.run("host", &["backup", "source", "nowhere"]).summary(3);
}
