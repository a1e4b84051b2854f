//! Keys over the years, with the real binary: rotation, removal, recovery, and where secrets come from.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::lab::{Lab, Ran, finish, noise};

/// An owner, a `backup` key in `web.key`, a `restore` key in `drill.key`, the recovery key in `paper`, and a source.
fn made() -> Lab {
    let lab = Lab::new();
    let init = lab.run("owner", &["init"]);
    std::fs::write(lab.path("paper"), init.summary(0)["recovery_key"].as_str().unwrap()).unwrap();
    for (role, file) in [("backup", "web.key"), ("restore", "drill.key")] {
        lab.run("owner", &["key", "add", "--role", role, "--new-key-file", file, "--label", role]).summary(0);
    }
    std::fs::create_dir(lab.path("source")).unwrap();
    std::fs::write(lab.path("source/old"), noise(1, 200_000)).unwrap();
    lab
}

/// With no key given but what `set` gives.
fn run_bare(lab: &Lab, host: &str, args: &[&str], set: impl Fn(&mut Command)) -> Ran {
    let mut command = lab.command(host, args);
    command.env_remove("SNAP_KEY_FILE").arg("--json");
    set(&mut command);
    finish(command.output().unwrap())
}

fn restored(lab: &Lab, ran: &Ran, name: &str) -> Vec<u8> {
    ran.summary(0);
    let below = lab.path("out").join(lab.path("source").strip_prefix("/").unwrap());
    let bytes = std::fs::read(below.join(name)).unwrap();
    std::fs::remove_dir_all(lab.path("out")).unwrap();
    bytes
}

#[test]
fn after_a_rotation_each_key_does_what_it_did() {
    let lab = made();
    let first = lab.run_with_key("web", "web.key", &["backup", "source"]);
    let first = first.summary(0)["snapshot"].as_str().unwrap().to_owned();
    let epochs = || std::fs::read_dir(lab.path("repo/epochs")).unwrap().count();
    let plan = lab.run("owner", &["key", "rotate", "--dry-run"]);
    assert_eq!(
        (&plan.summary(0)["epoch"], &plan.summary(0)["keys"], epochs()),
        (&3.into(), &4.into(), 3),
        "{}",
        plan.stderr
    );
    // The owner alone: no other key is on this machine.
    for file in ["web.key", "drill.key", "paper"] {
        std::fs::rename(lab.path(file), lab.path(&format!("{file}.away"))).unwrap();
    }
    let rotated = lab.run("owner", &["key", "rotate"]);
    assert_eq!((&rotated.summary(0)["epoch"], epochs()), (&3.into(), 4));
    assert!(
        rotated.stderr.contains("stays under its old keys") && rotated.stderr.contains("snap key remove")
    );
    for file in ["web.key", "drill.key", "paper"] {
        std::fs::rename(lab.path(&format!("{file}.away")), lab.path(file)).unwrap();
    }
    let keys = lab.run("owner", &["key", "list"]);
    keys.summary(0);
    assert!(keys.lines[..4].iter().all(|key| key["epoch"] == 3));

    // The machine that only writes goes on from its cache.
    let unchanged = lab.run_with_key("web", "web.key", &["backup", "source"]);
    assert_eq!(
        (&unchanged.summary(0)["files_unchanged"], &unchanged.summary(0)["added_bytes"]),
        (&1.into(), &0.into())
    );
    std::fs::write(lab.path("source/new"), noise(2, 100_000)).unwrap();
    lab.run_with_key("web", "web.key", &["backup", "source"]).summary(0);
    let out = lab.path("out");
    let out = out.to_str().unwrap();
    for set in
        [&["--key-file", "owner.key"][..], &["--key-file", "drill.key"], &["--recovery-key-file", "paper"]]
    {
        for (snapshot, name, bytes) in
            [(&*first, "old", noise(1, 200_000)), ("latest", "new", noise(2, 100_000))]
        {
            let args = [&["restore", snapshot, "--target", out][..], set].concat();
            let ran = run_bare(&lab, "other", &args, |_| {});
            assert!(restored(&lab, &ran, name) == bytes, "{set:?} {name}");
        }
    }
    for key in ["web.key", "drill.key"] {
        lab.run_with_key("web", key, &["key", "rotate"]).summary(12);
        lab.run_with_key("web", key, &["key", "rotate", "--dry-run"]).summary(12);
    }
    assert_eq!(lab.run("owner", &["check", "--read-data"]).summary(0)["findings"], 0);
}

#[test]
fn the_key_in_use_and_the_last_owner_stay_unless_told_otherwise() {
    let lab = made();
    let keys = lab.run("owner", &["key", "list"]);
    keys.summary(0);
    let id = |kind: &str, role: &str| {
        let found = keys.lines.iter().find(|key| key["kind"] == kind && key["role"] == role);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (own, recovery) = (id("key-file", "owner"), id("recovery", "owner"));
    let refused = lab.run("owner", &["key", "remove", &own]);
    refused.summary(1);
    assert!(refused.stderr.contains("--current"), "{}", refused.stderr);
    lab.run("owner", &["key", "remove", &recovery]).summary(0);
    let last = lab.run("owner", &["key", "remove", &own, "--current"]);
    last.summary(1);
    assert!(last.stderr.contains("last owner"), "{}", last.stderr);
    let fresh = lab.run("owner", &["key", "recovery"]);
    std::fs::write(lab.path("paper"), fresh.summary(0)["recovery_key"].as_str().unwrap()).unwrap();
    lab.run("owner", &["key", "remove", &own, "--current"]).summary(0);
    lab.run("owner", &["key", "list"]).summary(12);
    run_bare(&lab, "owner", &["key", "list", "--recovery-key-file", "paper"], |_| {}).summary(0);
}

#[test]
fn the_recovery_key_is_tried_on_what_it_is_for() {
    let lab = made();
    let verify = |paper: &str| {
        run_bare(&lab, "safe", &["key", "verify-recovery", "--recovery-key-file", paper], |_| {})
    };
    assert_eq!(verify("paper").summary(0)["snapshots_opened"], 0);
    lab.run_with_key("web", "web.key", &["backup", "source"]).summary(0);
    lab.run("owner", &["key", "rotate"]).summary(0);
    lab.run("owner", &["backup", "source"]).summary(0);
    let good = verify("paper");
    let summary = good.summary(0);
    assert_eq!((&summary["snapshots_opened"], &summary["role"]), (&2.into(), &"owner".into()));
    assert!(summary["created"].as_str().unwrap().ends_with('Z') && summary["epoch"] == 3);
    let keys = lab.run("owner", &["key", "list"]);
    keys.summary(0);
    let listed = keys.lines.iter().find(|key| key["kind"] == "recovery").unwrap();
    assert_eq!((&listed["id"], &listed["created"]), (&summary["id"], &summary["created"]));
    // Replaced, mistyped, another's, no recovery key at all.
    let old = std::fs::read_to_string(lab.path("paper")).unwrap();
    lab.run("owner", &["key", "recovery"]).summary(0);
    let gone = verify("paper");
    gone.summary(12);
    assert!(gone.stderr.contains("removed"), "{}", gone.stderr);
    let other = Lab::new();
    let strange = other.run("owner", &["init"]).summary(0)["recovery_key"].as_str().unwrap().to_owned();
    let typo =
        old.replacen(|c: char| c.is_ascii_alphanumeric(), if old.starts_with('0') { "1" } else { "0" }, 1);
    for wrong in [strange, typo, "no key".to_owned()] {
        std::fs::write(lab.path("wrong"), wrong).unwrap();
        verify("wrong").summary(12);
    }
}

#[test]
fn systemd_hands_over_a_key_or_a_password() {
    let lab = made();
    let credentials = lab.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let run = |args: &[&str]| {
        run_bare(&lab, "unit", args, |command| {
            command.env("CREDENTIALS_DIRECTORY", &credentials);
        })
    };
    run(&["snapshots"]).summary(2);
    std::fs::write(lab.path("pw"), "unit's password\n").unwrap();
    lab.run("owner", &["key", "add", "--role", "owner", "--new-password-file", "pw"]).summary(0);
    std::fs::copy(lab.path("pw"), credentials.join("snap-password")).unwrap();
    run(&["key", "list"]).summary(0);
    // The key file comes first, and an explicit variable before both.
    std::fs::copy(lab.path("web.key"), credentials.join("snap-key")).unwrap();
    run(&["key", "list"]).summary(12);
    run(&["backup", "source"]).summary(0);
    let explicit = run_bare(&lab, "unit", &["key", "list"], |command| {
        command.env("CREDENTIALS_DIRECTORY", &credentials).env("SNAP_KEY_FILE", lab.path("owner.key"));
    });
    explicit.summary(0);
    // One that cannot be used is not passed over for the next.
    std::fs::write(credentials.join("snap-key"), "garbage").unwrap();
    run(&["snapshots"]).summary(12);
}

#[test]
fn a_password_command_asks_the_keyring() {
    let lab = made();
    // What stands for secret-tool: it gives the password to whoever asks with the right attributes.
    let tool = lab.path("bin/secret-tool");
    std::fs::create_dir(lab.path("bin")).unwrap();
    let script =
        "#!/bin/sh\n[ \"$*\" = 'lookup service snap repository web 1' ] && printf 'from the keyring'\n";
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", lab.path("bin").display(), std::env::var("PATH").unwrap());
    let ask = "secret-tool lookup service snap repository 'web 1'";
    let add = ["key", "add", "--role", "restore", "--new-password-command", ask];
    finish(lab.command("owner", &add).env("PATH", &path).arg("--json").output().unwrap()).summary(0);
    let run = |command: &str| {
        run_bare(&lab, "desk", &["snapshots", "--password-command", command], |it| {
            it.env("PATH", &path);
        })
    };
    run(ask).summary(0);
    run("secret-tool lookup service snap repository web").summary(1);
}
