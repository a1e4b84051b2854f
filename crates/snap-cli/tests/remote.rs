//! A repository in an object store.

#![allow(clippy::unwrap_used)] // closures that panic fail the test

mod common;

use common::{Run, World};
use snap_testkit::S3Server;

#[test]
fn a_remote_repository_is_cached_locally_but_checked_remotely() {
    let (world, server) = (World::new(), S3Server::start());
    world.write("src/a.txt", "alpha");
    let snap = |args: &[&str]| {
        let mut command = world.bare_command();
        command
            .env("SNAP_REPO", server.uri("some/prefix"))
            .env("SNAP_PASSWORD", "secret")
            .envs(server.credentials());
        Run::of(command.args(args))
    };
    snap(&["snapshots"]).expect(10);
    snap(&["init"]).expect(0);
    snap(&["backup", "src"]).expect(0);
    let requests = |args: &[&str]| {
        let before = server.requests();
        snap(args).expect(0);
        server.requests() - before
    };
    let cached = requests(&["snapshots"]);
    std::fs::remove_dir_all(world.path(".cache")).unwrap();
    let fetched = requests(&["snapshots"]);
    assert!(cached < fetched, "{cached} requests with the cache, {fetched} without");
    assert!(cached <= requests(&["check"]));
    let run = snap(&["cat", &format!("latest:{}", world.path("src/a.txt").display())]).expect(0);
    assert_eq!(run.stdout, "alpha");
    // No cache is no failure.
    world.write("file", "in the way");
    let run = snap(&["snapshots", "--cache-dir", "file/cache"]).expect(0);
    assert!(run.stderr.contains("going on without"), "{}", run.stderr);
}

#[test]
fn credentials_of_the_configuration_are_used_and_one_bucket_is_one_place() {
    let (world, server) = (World::new(), S3Server::start());
    world.write("src/a.txt", "alpha");
    let [(_, id), (_, secret)] = server.credentials();
    world.write("secret", &format!("{secret}\n"));
    let copy = |name: &str| {
        let (uri, credentials) =
            (server.uri(name), "{ access-key-id = \"env:ID\", secret-access-key = \"file:secret\" }");
        format!("[[repository.copies]]\nname = \"{name}\"\nuri = \"{uri}\"\ncredentials = {credentials}\n")
    };
    let text = format!("[repository]\nkey-file = \"key\"\n{}{}", copy("one"), copy("two"));
    world.write("snap.toml", &text);
    let snap = |args: &[&str]| {
        let mut command = world.bare_command();
        // What the environment says of the same store must not be mixed in.
        command.env("ID", &id).env("AWS_SECRET_ACCESS_KEY", "wrong").env("AWS_SESSION_TOKEN", "stray");
        Run::of(command.args(args).arg("--json"))
    };
    snap(&["init"]).expect(0);
    snap(&["init", "--copy", "two"]).expect(0);
    snap(&["backup", "src"]).expect(0);
    let run = snap(&["policy", "--check"]).expect(4);
    let findings = run.events_of("finding");
    let pair = findings.iter().find(|it| it["copies"] == serde_json::json!(["one", "two"])).unwrap();
    let kinds: Vec<_> = pair["evidence"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!((pair["code"].as_str(), kinds), (Some("co-located"), vec!["bucket".into(), "account".into()]));
    assert!(run.stderr.contains("one and two are two repositories"), "{}", run.stderr);
    assert!(!format!("{}{}", run.stdout, run.stderr).contains(&secret));
}

#[test]
fn files_are_restored_into_a_bucket_and_what_is_newer_there_is_not_overwritten_unasked() {
    let (world, server) = (World::with_repository().0, S3Server::start());
    world.write("src/a.txt", "alpha");
    world.write("src/sub/b.txt", "beta");
    std::os::unix::fs::symlink("a.txt", world.path("src/link")).unwrap();
    world.keyed(["backup", "src"]).expect(0);
    let from = format!("latest:{}", world.path("src").display());
    let uri = server.uri("out");
    let restore = |more: &[&str]| {
        let mut command = world.command();
        command.env("SNAP_KEY_FILE", world.path("key")).envs(server.credentials());
        Run::of(command.args(["restore", &from, "--target", &uri, "--json"]).args(more))
    };
    let rehearsed = restore(&["--dry-run"]).expect(0).summary();
    assert_eq!((&rehearsed["restored"], &rehearsed["restored_bytes"]), (&2.into(), &9.into()));
    let run = restore(&["--verify"]).expect(0);
    assert_eq!(run.summary()["restored"], 2);
    assert!(run.stderr.contains("a bucket holds no links"), "{}", run.stderr);
    assert_eq!(restore(&[]).expect(0).summary()["skipped"], 2);
    // What somebody has stored there since.
    let options = snap_backend::OpenOptions {
        credentials: server.credentials().map(|(name, value)| (name.to_owned(), value)).into(),
        ..Default::default()
    };
    let bucket = snap_backend::open_bucket(&uri, &options).unwrap();
    let mut writer = bucket.write("a.txt", &Default::default()).unwrap();
    writer.write("newer".into()).unwrap();
    writer.finish().unwrap();
    let refused = restore(&[]).expect(1);
    assert!(refused.events_of("error")[0]["message"].as_str().unwrap().starts_with("1 of 1 entries"));
    let unsaved = restore(&["--overwrite", "if-changed"]).expect(1);
    assert!(unsaved.events_of("error")[0]["hint"].as_str().unwrap().contains("--safety-dir"));
    assert_eq!(bucket.read("a.txt", 0, 5).unwrap(), "newer");
    let run = restore(&["--overwrite", "if-changed", "--safety-dir", "kept"]).expect(0);
    assert_eq!(bucket.read("a.txt", 0, 5).unwrap(), "alpha");
    let kept = std::path::PathBuf::from(run.summary()["safety_dir"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(kept.join("a.txt")).unwrap(), "newer");
}
