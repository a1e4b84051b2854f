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
