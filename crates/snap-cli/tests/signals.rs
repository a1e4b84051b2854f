//! SIGINT and SIGTERM.

#![allow(clippy::unwrap_used)] // a helper that panics fails the test

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Run, World};

/// Runs the program until it has had time to begin, sends it a signal, and waits.
fn signalled(world: &World, signal: &str, args: &[&str]) -> Run {
    let mut child = world
        .command()
        .env("SNAP_KEY_FILE", world.path("key"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !world.exists("started") {
        assert!(began.elapsed() < Duration::from_secs(60), "the command was not started");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    let read = |stream: &mut dyn std::io::Read| std::io::read_to_string(stream).unwrap();
    Run {
        code: status.code().unwrap_or(-1),
        stdout: read(child.stdout.as_mut().unwrap()),
        stderr: read(child.stderr.as_mut().unwrap()),
    }
}

#[test]
fn a_signal_ends_a_run_in_good_order_even_while_its_source_is_silent() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let (world, _) = World::with_repository();
        let script = "echo begun; touch started; exec sleep 100";
        let run =
            signalled(&world, signal, &["backup", "--command", "x", "--json", "--", "sh", "-c", script]);
        assert_eq!(run.code, code, "{}", run.stderr);
        let error = &run.events_of("error")[0];
        assert_eq!(error["message"], "interrupted");
        assert!(error["hint"].as_str().unwrap().contains("again"));
        assert_eq!(run.summary()["command"], "backup");
        assert_eq!(world.keyed(["snapshots", "--json"]).events_of("snapshot").len(), 0);
        world.keyed(["check"]).expect(0);
    }
}

#[test]
fn a_signal_ends_at_once_what_has_nothing_to_finish() {
    let (world, _) = World::with_repository();
    let waits = ["snapshots", "--json", "--password-command", "sh -c 'touch started; exec sleep 5'"];
    let run = signalled(&world, "-TERM", &waits);
    assert_eq!(run.code, 143, "{}", run.stderr);
    assert_eq!(run.events_of("error")[0]["message"], "interrupted");
    run.summary();
}
