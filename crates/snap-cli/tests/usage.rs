//! What is refused before anything is done, and how it is told.

mod common;

use common::{Run, World};

#[test]
fn usage_errors_exit_2_and_say_what_to_type() {
    let world = World::new();
    let cases: &[&[&str]] = &[
        &["nonsense"],
        &["ls", "--nonsense"],
        &["backup"],
        &["backup", "--stdin", "a/b"],
        &["backup", "--stdin", "x", "--command", "y"],
        &["backup", "--command", "x"],
        &["backup", "--command", "x", "."],
        &["backup", ".", "--dataset", "Latest"],
        &["backup", ".", "--dataset", "latest"],
        &["backup", ".", "--dataset", "deadbeef"],
        &["backup", ".", "--compression", "20"],
        &["backup", ".", "--as-path", "relative"],
        &["restore", "latest"],
        &["restore", "latest", "--target", "file:///x"],
        &["restore", "latest", "--target", "s3://bucket/x", "--map-owner", "a:0"],
        &["restore", "latest", "--target", "x", "--map-owner", "alice"],
        &["restore", "latest", "--target", "x", "--map-owner", "0:1", "--no-owner"],
        &["restore", "latest", "--target", "x", "--safety-dir", "y", "--no-safety-snapshot"],
        &["restore", "latest", "--target", "-", "--safety-dir", "y"],
        &["restore", "latest", "--target", "x", "--missing-only", "--no-overwrite-newer"],
        &["restore", "latest", "--target", "x", "--overwrite", "sometimes"],
        &["restore", "latest", "--target", "-", "--delete"],
        &["check", "--read-data", "--keyless"],
        &["check", "--read-data-subset", "4/3"],
        &["key", "add", "--role", "owner"],
        &["key", "add", "--role", "king", "--new-key-file", "k"],
        &["key", "add", "--role", "owner", "--new-key-file", "k", "--domain", "main"],
        &["key", "remove", "ab"],
        &["ls", "--key-file", "a", "--password-file", "b"],
        &["ls", "-q", "-v"],
        &["--memory", "much", "ls"],
        &["--tag", "x", "init"],
        &["man", "nonsense"],
    ];
    for case in cases {
        // There is a key, so that nothing else is wrong.
        let run = Run::of(world.command().env("SNAP_PASSWORD", "x").args(*case));
        assert_eq!(run.code, 2, "{case:?}: {}", run.stderr);
        assert!(
            run.stderr.starts_with("error: ") && run.stderr.contains("hint: "),
            "{case:?}: {}",
            run.stderr
        );
        assert_eq!(run.stdout, "", "{case:?}");
    }
}

#[test]
fn without_a_command_there_is_help_and_exit_2() {
    let run = World::new().snap::<&str>([]).expect(2);
    assert!(run.stderr.contains("Usage: snap"), "{}", run.stderr);
    let run = World::new().snap(["--json"]).expect(2);
    assert_eq!(run.events_of("error")[0]["message"], "a command is missing");
}

#[test]
fn errors_are_json_lines_too() {
    let world = World::new();
    for args in
        [&["ls", "--nonsense", "--json"][..], &["--json", "ls", "--key-file", "a", "--password-file", "b"]]
    {
        let run = world.snap(args).expect(2);
        let events = run.events();
        assert_eq!(events.len(), 2, "{}", run.stdout);
        let error = events[0].as_object().unwrap();
        assert_eq!(error["event"], "error");
        assert!(error["message"].is_string() && error["hint"].is_string() && error.contains_key("cause"));
        let summary = run.summary();
        assert_eq!((&summary["command"], &summary["exit"]), (&"ls".into(), &2.into()));
    }
}

#[test]
fn no_repository_is_10_whatever_the_key_is() {
    let world = World::new();
    for args in [
        &["snapshots"][..],
        &["snapshots", "--key-file", "missing"],
        &["ls"],
        &["check"],
        &["check", "--keyless"],
        &["key", "list"],
        &["restore", "latest", "--target", "out"],
        &["backup", "."],
        &["stats"],
    ] {
        for password in [None, Some("x")] {
            let mut command = world.command();
            command.args(args).arg("--json");
            password.map(|password| command.env("SNAP_PASSWORD", password));
            let run = Run::of(&mut command).expect(10);
            assert!(run.events_of("error")[0]["hint"].as_str().unwrap().contains("snap init"), "{args:?}");
        }
    }
    assert!(!world.exists("repo"), "looking makes nothing");
    world.write("repo/stray", "no repository");
    world.snap(["snapshots", "--key-file", "x"]).expect(10);
}

#[test]
fn an_unreachable_store_is_1() {
    let world = World::new();
    let mut command = world.bare_command();
    command
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "secret-secret")
        .env("SNAP_PASSWORD", "x");
    let repo = "s3://bucket/x?endpoint=http://127.0.0.1:1&region=r";
    let run = Run::of(command.args(["-r", repo, "snapshots"])).expect(1);
    assert!(!run.stderr.contains("secret-secret"));
    Run::of(world.bare_command().args(["-r", "s3:bucket", "snapshots"])).expect(2);
}

#[test]
fn without_a_key_and_a_terminal_the_ways_are_listed() {
    let (world, _) = World::with_repository();
    let run = world.snap(["snapshots"]).expect(2);
    assert!(
        run.stderr.contains("SNAP_PASSWORD_COMMAND") && run.stderr.contains("--key-file"),
        "{}",
        run.stderr
    );
}

#[test]
fn completions_and_man_pages_are_not_empty() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = world.snap(["completions", shell]).expect(0);
        assert!(run.stdout.contains("read-data-subset"), "{shell}");
    }
    assert!(world.snap(["man"]).expect(0).stdout.contains("snap\\-backup"));
    assert!(world.snap(["man", "key", "add"]).expect(0).stdout.contains("new\\-key\\-file"));
    world.snap(["man", "--dir", "pages"]).expect(0);
    for page in ["snap.1", "snap-backup.1", "snap-key-verify-recovery.1"] {
        assert!(std::fs::metadata(world.path("pages").join(page)).unwrap().len() > 100, "{page}");
    }
    let markdown = world.snap(["man", "--markdown"]).expect(0).stdout;
    assert!(markdown.contains("`snap key add`") && markdown.contains("`--read-data-subset N/M\\|P%\\|SIZE`"));
}

#[test]
fn help_is_an_answer() {
    let world = World::new();
    for args in [&["--help"][..], &["backup", "--help"], &["help", "key", "add"], &["--version"]] {
        assert!(!world.snap(args).expect(0).stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is() {
    let world = World::new();
    let snap = env!("CARGO_BIN_EXE_snap");
    let script = format!("{snap} man --markdown | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}");
    let mut command = std::process::Command::new("bash");
    let run = Run::of(command.current_dir(world.path(".")).args(["-c", &script]));
    assert_eq!(run.stdout, "0\n", "{}", run.stderr);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = world.command().args(["completions", "bash"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
