//! From files to a snapshot and back, as far as the command line has a part in it.

#![allow(clippy::unwrap_used)] // a helper that panics fails the test

mod common;

use common::{Run, World};
use serde_json::json;

fn world_with_source() -> World {
    let (world, _) = World::with_repository();
    world.write("src/a.txt", "alpha");
    world.write("src/sub/b.txt", "beta");
    std::os::unix::fs::symlink("a.txt", world.path("src/link")).unwrap();
    world
}

#[test]
fn a_backup_is_listed_shown_and_restored() {
    let world = world_with_source();
    let run = world
        .keyed(["backup", "src", "--tag", "x,y", "--host", "web1", "--label", "first", "--json"])
        .expect(0);
    let summary = run.summary();
    for field in
        "snapshot parent dataset host files dirs others files_new files_changed files_unchanged unreadable vanished \
         changed_while_read source_bytes added_bytes stored_bytes seconds copies"
            .split_whitespace()
    {
        assert!(summary.get(field).is_some(), "{field}");
    }
    assert_eq!((&summary["files"], &summary["dataset"]), (&2.into(), &"files".into()));
    assert_eq!(summary["copies"], json!([{ "name": "main", "state": "ok" }]));

    let source = world.path("src");
    let listed = world.keyed(["snapshots", "--json"]).expect(0).events_of("snapshot");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], summary["snapshot"]);
    assert_eq!(listed[0]["tags"], json!(["x", "y"]));
    assert_eq!(listed[0]["paths"], json!([source.to_str().unwrap()]));
    assert_eq!((&listed[0]["incomplete"], &listed[0]["files"]), (&false.into(), &2.into()));
    assert_eq!(
        world.keyed(["snapshots", "--tag", "x", "--tag", "z", "--json"]).events_of("snapshot").len(),
        0
    );
    assert_eq!(
        world.keyed(["snapshots", "--path", "src", "--host", "web1", "--json"]).events_of("snapshot").len(),
        1
    );

    let path = |name: &str| source.join(name).to_str().unwrap().to_owned();
    let nodes = world.keyed(["ls", "--json"]).expect(0).events_of("node");
    let node = |name: &str| nodes.iter().find(|node| node["path"] == path(name).as_str()).unwrap().clone();
    assert_eq!((&node("a.txt")["type"], &node("a.txt")["size_bytes"]), (&"file".into(), &5.into()));
    assert_eq!((&node("link")["type"], &node("link")["target"]), (&"symlink".into(), &"a.txt".into()));
    assert_eq!(node("sub")["type"], "dir");
    let below = world.keyed(["ls", &format!("latest:{}", path("sub"))]).expect(0).stdout;
    assert_eq!(below, format!("{}\n", path("sub/b.txt")));
    let long = world.keyed(["ls", "-l", &format!("latest:{}", path("link"))]).expect(0).stdout;
    assert!(long.starts_with("lrwxrwxrwx") && long.ends_with("link -> a.txt\n"), "{long}");

    let cat = world.keyed(["cat", &format!("latest:{}", path("a.txt")), "--json"]).expect(0);
    assert_eq!(cat.stdout, "alpha");
    assert!(cat.stderr.contains("\"summary\""));
    world.keyed(["cat", "latest:/no/such"]).expect(1);
    world.keyed(["ls", "ffff"]).expect(1);

    let run = world
        .keyed(["restore", &format!("latest:{}", source.display()), "--target", "out", "--json"])
        .expect(0);
    let summary = run.summary();
    for field in
        ["restored", "skipped", "overwritten", "deleted", "restored_bytes", "fetched_bytes", "requests"]
    {
        assert!(summary[field].is_u64(), "{field}");
    }
    assert_eq!(std::fs::read_to_string(world.path("out/sub/b.txt")).unwrap(), "beta");
    world.keyed(["check", "--read-data"]).expect(0);
    world.keyed(["stats"]).expect(0);
}

#[test]
fn a_directory_becomes_a_tar() {
    let world = world_with_source();
    world.keyed(["backup", "src"]).expect(0);
    let name = format!("latest:{}", world.path("src").display());
    for args in [&["cat", &name][..], &["restore", &name, "--target", "-", "--json"]] {
        let output = world.command().env("SNAP_KEY_FILE", world.path("key")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(&output.stdout[257..262], b"ustar", "{args:?}");
    }
}

#[test]
fn a_restore_that_could_mean_several_datasets_does_not_guess_over_what_is_there() {
    let world = world_with_source();
    world.keyed(["backup", "src", "--dataset", "one"]).expect(0);
    world.keyed(["backup", "src", "--dataset", "two"]).expect(0);
    world.write("full/x", "mine");
    let run = world.keyed(["restore", "latest", "--target", "full", "--json"]).expect(2);
    let message = run.events_of("error")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("one@") && message.contains("two@"), "{message}");
    let run = world.keyed(["restore", "latest", "--target", "empty"]).expect(0);
    assert!(run.stderr.contains("two@"), "{}", run.stderr);
    world.keyed(["restore", "latest", "--target", "full", "--dataset", "one"]).expect(0);
    assert!(world.keyed(["ls", "latest"]).expect(0).stderr.contains("two@"));
}

#[test]
fn streams_become_files_and_a_failed_command_none() {
    let (world, _) = World::with_repository();
    let run = world.keyed(["backup", "--command", "shop.sql", "--json", "--", "echo", "rows"]).expect(0);
    assert_eq!(run.summary()["dataset"], "shop-sql");
    assert_eq!(world.keyed(["cat", "latest:/shop.sql"]).expect(0).stdout, "rows\n");
    world.keyed(["backup", "--command", "shop.sql", "--", "sh", "-c", "echo half; exit 1"]).expect(1);
    world.keyed(["backup", "--command", "shop.sql", "--", "/no/such/program"]).expect(1);
    assert_eq!(world.keyed(["snapshots", "--json"]).events_of("snapshot").len(), 1);

    let list = world.write("list", "# comment\n\nlist\n");
    let mut command = world.command();
    command.env("SNAP_KEY_FILE", world.path("key")).stdin(std::fs::File::open(&list).unwrap());
    Run::of(command.args(["backup", "--stdin", "dump", "--dataset", "other"])).expect(0);
    assert_eq!(world.keyed(["cat", "latest:/dump", "--dataset", "other"]).stdout, "# comment\n\nlist\n");
    let run = world.keyed(["backup", "--files-from", "list", "--json"]).expect(0);
    assert_eq!(run.summary()["files"], 1);
}

#[test]
fn missing_sources_are_3_and_1() {
    let world = world_with_source();
    let run = world.keyed(["backup", "src", "missing", "--json"]).expect(3);
    assert!(run.events_of("error").iter().any(|event| event["path"].as_str().unwrap().ends_with("/missing")));
    world.keyed(["backup", "missing", "gone"]).expect(1);
    assert_eq!(world.keyed(["snapshots", "--json"]).events_of("snapshot").len(), 1);
}

#[test]
fn the_default_repository_is_made_at_first_use_and_stays_out_of_itself() {
    let world = World::new();
    world.write("docs/a.txt", "alpha");
    let run = Run::of(world.bare_command().args(["backup", ".", "--json"])).expect(0);
    let created = &run.events_of("created")[0];
    assert!(run.stderr.contains(created["recovery_key"].as_str().unwrap()));
    assert!(run.stderr.contains("same disk"), "{}", run.stderr);
    let nodes = Run::of(world.bare_command().args(["ls"])).expect(0).stdout;
    assert!(nodes.contains("/docs/a.txt"));
    assert!(!nodes.contains("/snap/repo/config") && !nodes.contains(".cache/snap/"), "{nodes}");
    let run = Run::of(world.bare_command().args(["backup", "."])).expect(0);
    assert!(!run.stderr.contains("recovery key"));
    assert_eq!(Run::of(world.bare_command().args(["snapshots", "--json"])).events_of("snapshot").len(), 2);
}

#[test]
fn a_dry_run_writes_nothing() {
    let world = world_with_source();
    let run = world.keyed(["backup", "src", "--dry-run", "--json"]).expect(0);
    assert_eq!((&run.summary()["snapshot"], &run.summary()["files"]), (&json!(null), &2.into()));
    assert_eq!(world.keyed(["snapshots", "--json"]).events_of("snapshot").len(), 0);
    Run::of(world.bare_command().args(["backup", "src", "--dry-run"])).expect(10);
    assert!(!world.exists(".local/share/snap"));
}
