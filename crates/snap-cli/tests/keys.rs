//! Making a repository, and its keys.

mod common;

use common::{Run, World, mode};

#[test]
fn init_makes_a_private_key_file_and_tells_the_recovery_key_once() {
    let world = World::new();
    let run = world.snap(["init", "--key-file", "key", "--json"]).expect(0);
    let summary = run.summary();
    let recovery = summary["recovery_key"].as_str().unwrap();
    assert_eq!(summary["command"], "init");
    assert_eq!(summary["repository_id"].as_str().unwrap().len(), 64);
    assert_eq!(recovery.split('-').count(), 8);
    assert_eq!(run.stderr.matches(recovery).count(), 1);
    assert_eq!(run.events().len(), 1);
    assert_eq!(mode(&world.path("key")), 0o600);
    world.keyed(["snapshots"]).expect(0);
}

#[test]
fn init_in_words_prints_nothing_on_stdout() {
    let world = World::new();
    world.write("pw", "secret\n");
    let run = world.snap(["init", "--password-file", "pw"]).expect(0);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("created repository") && run.stderr.contains("recovery key"));
    // The newline is no part of it.
    Run::of(world.command().env("SNAP_PASSWORD", "secret").arg("snapshots")).expect(0);
    Run::of(world.command().env("SNAP_PASSWORD_COMMAND", "echo secret").arg("snapshots")).expect(0);
    Run::of(world.command().env("SNAP_PASSWORD", "wrong").arg("snapshots")).expect(12);
    Run::of(world.command().env("SNAP_PASSWORD", "wrong").args(["snapshots", "--password-file", "pw"]))
        .expect(0);
}

#[test]
fn init_refuses_what_is_there_and_leaves_no_key_behind() {
    let (world, _) = World::with_repository();
    let run = world.snap(["init", "--key-file", "other", "--json"]).expect(1);
    assert!(run.events_of("error")[0]["hint"].is_string());
    assert!(!world.exists("other"));
    world.keyed(["snapshots"]).expect(0);

    let world = World::new();
    world.write("file", "in the way");
    Run::of(world.bare_command().args(["-r", "file/repo", "init", "--key-file", "other"])).expect(1);
    assert!(!world.exists("other"));
}

#[test]
fn init_uses_a_key_file_that_is_there() {
    let (world, _) = World::with_repository();
    let before = std::fs::read(world.path("key")).unwrap();
    Run::of(world.bare_command().args(["-r", "second", "init", "--key-file", "key"])).expect(0);
    assert_eq!(std::fs::read(world.path("key")).unwrap(), before);
    Run::of(world.bare_command().args(["-r", "second", "snapshots", "--key-file", "key"])).expect(0);
}

#[test]
fn init_refuses_an_empty_password_and_a_recovery_key() {
    let world = World::new();
    world.write("empty", "\n");
    world.snap(["init", "--password-file", "empty"]).expect(2);
    world.snap(["init", "--recovery-key-file", "empty"]).expect(2);
    world.snap(["init"]).expect(2);
    assert!(!world.exists("repo"));
}

#[test]
fn wrong_keys_are_12() {
    let (world, _) = World::with_repository();
    world.write("pw", "wrong");
    world.write("garbage", "no key");
    for args in [
        ["snapshots", "--password-file", "pw"],
        ["snapshots", "--key-file", "garbage"],
        ["snapshots", "--recovery-key-file", "garbage"],
    ] {
        let run = world.snap(args.iter().chain(&["--json"])).expect(12);
        assert!(run.events_of("error")[0]["hint"].is_string(), "{args:?}");
    }
    Run::of(world.bare_command().args(["-r", "second", "init", "--key-file", "key2"])).expect(0);
    world.snap(["snapshots", "--key-file", "key2"]).expect(12);
    world.snap(["snapshots", "--key-file", "missing"]).expect(1);
}

#[test]
fn the_recovery_key_opens_and_is_verified() {
    let (world, recovery) = World::with_repository();
    world.write("paper", &recovery.to_lowercase().replace('-', " "));
    world.snap(["key", "list", "--recovery-key-file", "paper"]).expect(0);
    let run = world.snap(["key", "verify-recovery", "--recovery-key-file", "paper", "--json"]).expect(0);
    assert_eq!(run.summary()["role"], "owner");
    Run::of(world.command().env("SNAP_RECOVERY_KEY", &recovery).args(["key", "verify-recovery"])).expect(0);
    world.keyed(["key", "verify-recovery"]).expect(2);
    world.snap(["key", "verify-recovery", "--key-file", "key"]).expect(2);

    let fresh = world.keyed(["key", "recovery", "--json"]).expect(0).summary();
    let fresh = fresh["recovery_key"].as_str().unwrap();
    assert_ne!(fresh, recovery);
    world.snap(["key", "verify-recovery", "--recovery-key-file", "paper"]).expect(12);
    world.write("paper", fresh);
    world.snap(["key", "verify-recovery", "--recovery-key-file", "paper"]).expect(0);
    let typo = if fresh.starts_with('2') { fresh.replacen('2', "3", 1) } else { format!("2{}", &fresh[1..]) };
    Run::of(world.command().env("SNAP_RECOVERY_KEY", typo).args(["key", "verify-recovery"])).expect(12);
}

#[test]
fn keys_are_added_listed_and_removed() {
    let (world, _) = World::with_repository();
    world.write("pw", "second\n");
    let add = ["key", "add", "--role", "backup", "--new-key-file", "writer", "--label", "web1", "--json"];
    let added = world.keyed(add).expect(0).summary();
    assert_eq!(added["role"], "backup");
    assert_eq!(mode(&world.path("writer")), 0o600);
    // What is there is not overwritten, and stays.
    world.keyed(add).expect(1);
    assert!(world.exists("writer"));
    world.keyed(["key", "add", "--role", "restore", "--new-password-file", "pw"]).expect(0);
    world.keyed(["key", "add", "--role", "owner", "--new-password-command", "echo third"]).expect(0);

    let keys = world.keyed(["key", "list", "--json"]).expect(0).events_of("key");
    assert_eq!(keys.len(), 5);
    let writer = keys.iter().find(|key| key["label"] == "web1").unwrap();
    assert_eq!((&writer["role"], &writer["kind"]), (&"backup".into(), &"key-file".into()));
    assert_eq!(writer["id"], added["id"]);
    assert!(writer["domain"].as_str().unwrap().starts_with("slot-"));
    assert!(writer["created"].as_str().unwrap().ends_with('Z'));
    assert_eq!(writer["epoch"], 3);

    // Roles: listing snapshots is for all, keys are for owners, content is for readers.
    world.snap(["snapshots", "--key-file", "writer"]).expect(0);
    world.snap(["key", "list", "--key-file", "writer"]).expect(12);
    world.snap(["ls", "--key-file", "writer"]).expect(12);
    let run = world.snap(["backup", ".", "--password-file", "pw"]).expect(12);
    assert!(run.stderr.contains("owner or backup"), "{}", run.stderr);

    let id = added["id"].as_str().unwrap();
    let run = world.keyed(["key", "remove", &id[..8]]).expect(0);
    assert!(run.stderr.contains("credentials"), "{}", run.stderr);
    world.keyed(["key", "remove", &id[..8]]).expect(1);
    let run = world.snap(["snapshots", "--key-file", "writer"]).expect(12);
    assert!(run.stderr.contains("removed"), "{}", run.stderr);
}

#[test]
fn a_key_that_could_not_be_added_leaves_no_file() {
    let (world, _) = World::with_repository();
    world.keyed(["key", "add", "--role", "restore", "--new-key-file", "reader"]).expect(0);
    world
        .snap(["key", "add", "--role", "owner", "--new-key-file", "mine", "--key-file", "reader"])
        .expect(12);
    assert!(!world.exists("mine"));
    world.write("empty", "");
    world.keyed(["key", "add", "--role", "owner", "--new-password-file", "empty"]).expect(2);
}

#[test]
fn the_default_repository_is_made_by_init_with_a_key_beside_it() {
    let world = World::new();
    let run = Run::of(world.bare_command().args(["snapshots", "--json"])).expect(10);
    assert!(run.events_of("error")[0]["hint"].as_str().unwrap().contains("snap backup"));
    Run::of(world.bare_command().arg("init")).expect(0);
    assert_eq!(mode(&world.path(".local/share/snap/key")), 0o600);
    assert_eq!(mode(&world.path(".local/share/snap")), 0o700);
    Run::of(world.bare_command().arg("snapshots")).expect(0);
    Run::of(world.bare_command().arg("init")).expect(1);
    assert!(world.exists(".local/share/snap/key"));
    let mut elsewhere = world.bare_command();
    elsewhere.env("XDG_DATA_HOME", world.path("data")).arg("snapshots");
    Run::of(&mut elsewhere).expect(10);
}
