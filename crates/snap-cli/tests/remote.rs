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
