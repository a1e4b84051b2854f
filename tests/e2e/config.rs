//! `snap.toml` as a run finds it: where it is looked for, what wins over it, what is said of a wrong one.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::lab::{Lab, Ran, finish};

/// The binary in the lab's directory, with nothing named by variables.
pub fn unnamed(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.command("host", args);
    command.env_remove("SNAP_REPO").env_remove("SNAP_KEY_FILE").arg("--json");
    command
}

pub fn run(lab: &Lab, args: &[&str]) -> Ran {
    finish(unnamed(lab, args).output().unwrap())
}

pub fn write(lab: &Lab, name: &str, text: &str) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The text of the first error.
fn error(ran: &Ran) -> String {
    let first = ran.lines.iter().find(|line| line["event"] == "error").unwrap();
    first["message"].as_str().unwrap().to_owned()
}

/// The files in the newest snapshot: their names, sorted.
fn files(lab: &Lab, args: &[&str]) -> Vec<String> {
    let ran = run(lab, &[&["ls"], args].concat());
    ran.summary(0);
    let name =
        |line: &serde_json::Value| line["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut names: Vec<_> = ran.lines.iter().filter(|line| line["type"] == "file").map(name).collect();
    names.sort();
    names
}

/// A source with three files and a file that describes it.
fn lab() -> Lab {
    let lab = Lab::new();
    for name in
        ["source/kept", "source/left.tmp", "source/old.bak", "source/sub/secret", "source/sub/.nobackup"]
    {
        write(&lab, name, name);
    }
    write(&lab, "excludes", "*.bak\n");
    write(
        &lab,
        "snap.toml",
        r#"
[repository]
path = "repo"
key-file = "owner.key"

[dataset.docs]
source = "source"
exclude = ["*.tmp"]
exclude-file = ["excludes"]
exclude-if-present = [".nobackup"]
tags = ["nightly"]
"#,
    );
    lab
}

#[test]
fn a_file_in_the_working_directory_is_enough() {
    let lab = lab();
    run(&lab, &["init"]).summary(0);
    assert!(lab.path("owner.key").exists() && lab.path("repo/config").exists());
    let backup = run(&lab, &["backup", "--dataset", "docs", "--tag", "extra"]);
    assert_eq!(backup.summary(0)["copies"][0]["name"], "main");
    assert_eq!(files(&lab, &[]), [".nobackup", "kept"]);
    let listed = run(&lab, &["snapshots"]);
    assert_eq!(listed.lines[0]["tags"], serde_json::json!(["nightly", "extra"]));

    // Named paths win; a pattern of the command line takes back what the file leaves out.
    write(&lab, "more/a.tmp", "a");
    run(&lab, &["backup", "more", "--dataset", "docs", "--exclude", "!*.tmp"]).summary(0);
    assert_eq!(files(&lab, &[]), ["a.tmp"]);
    run(&lab, &["backup", "--dataset", "docs", "--exclude", "kept"]).summary(0);
    assert_eq!(files(&lab, &[]), [".nobackup"]);
    let wrong = run(&lab, &["backup", "--dataset", "dosc"]);
    wrong.summary(2);
    assert!(wrong.stderr.contains("did you mean docs?"), "{}", wrong.stderr);
    // Relative paths are relative to the file, not to the working directory.
    let mut below = unnamed(&lab, &["snapshots", "-c", "../snap.toml"]);
    assert_eq!(finish(below.current_dir(lab.path("source")).output().unwrap()).summary(0)["snapshots"], 3);
}

#[test]
fn flag_over_variable_over_working_directory_over_the_users() {
    let lab = Lab::new();
    for name in ["a", "b", "c", "d", "e"] {
        let text = format!("[repository]\npath = \"{}\"\nkey-file = \"{0}.key\"\n", lab.path(name).display());
        write(&lab, &format!("{name}.toml"), &text);
    }
    std::fs::create_dir_all(lab.path("host/.config/snap")).unwrap();
    std::fs::copy(lab.path("c.toml"), lab.path("host/.config/snap/snap.toml")).unwrap();
    let used = |command: &mut Command| {
        let ran = finish(command.output().unwrap());
        ran.summary(0);
        let uri = ran.lines[0]["repository"]["copies"][0]["uri"].as_str().unwrap().to_owned();
        let key =
            ran.lines[0]["repository"]["copies"][0]["key"]["from"].as_str().unwrap_or("none").to_owned();
        (uri.rsplit('/').next().unwrap().to_owned(), key)
    };
    let expect = |repo: &str, key: &str| (repo.to_owned(), key.to_owned());
    let show = || unnamed(&lab, &["config", "show"]);
    assert_eq!(used(&mut show()), expect("c", "config"));
    std::fs::copy(lab.path("b.toml"), lab.path("snap.toml")).unwrap();
    assert_eq!(used(&mut show()), expect("b", "config"));
    assert_eq!(used(show().env("SNAP_CONFIG", "a.toml")), expect("a", "config"));
    assert_eq!(used(show().env("SNAP_CONFIG", "a.toml").args(["-c", "d.toml"])), expect("d", "config"));
    // The repository and its key are looked for each by itself.
    assert_eq!(used(show().env("SNAP_REPO", "e")), expect("e", "config"));
    assert_eq!(used(show().env("SNAP_KEY_FILE", "k")), expect("b", "environment"));
    assert_eq!(used(show().env("SNAP_REPO", "e").args(["-r", "f", "--key-file", "k"])), expect("f", "flag"));
}

#[test]
fn keys_and_copies_come_from_the_file() {
    let lab = Lab::new();
    write(&lab, "source/a", "a");
    let text = "[repository]\nkey-file = \"backup.key\"\nread-key-file = \"read.key\"\n\
                [[repository.copies]]\nname = \"one\"\npath = \"one\"\n\
                [[repository.copies]]\nname = \"two\"\npath = \"two\"\npassword-command = [\"printf\", \"two words\"]\n";
    write(&lab, "snap.toml", text);
    run(&lab, &["init", "--key-file", "owner.key"]).summary(0);
    for (role, key) in [("backup", "backup.key"), ("restore", "read.key")] {
        run(&lab, &["key", "add", "--role", role, "--new-key-file", key, "--key-file", "owner.key"])
            .summary(0);
    }
    let backup = run(&lab, &["backup", "source"]);
    let copies = &backup.summary(0)["copies"];
    assert_eq!(copies[0], serde_json::json!({ "name": "one", "state": "ok" }));
    assert_eq!((&copies[1]["name"], &copies[1]["state"]), (&"two".into(), &"lagging".into()));
    assert!(backup.stderr.contains("snap init --copy two --copy-of"), "{}", backup.stderr);
    // Reading takes the key that may; without it the role is told.
    run(&lab, &["ls"]).summary(0);
    std::fs::remove_file(lab.path("read.key")).unwrap();
    run(&lab, &["ls"]).summary(12);
    run(&lab, &["snapshots"]).summary(0);

    run(&lab, &["init", "--copy", "two"]).summary(0);
    assert_eq!(run(&lab, &["backup", "source", "--copy", "two"]).summary(0)["copies"][0]["name"], "two");
    std::fs::write(lab.path("pw"), "two words\n").unwrap();
    run(&lab, &["-r", "two", "ls", "--password-file", "pw"]).summary(0);
    run(&lab, &["-r", "two", "ls", "--copy", "two"]).summary(2);
    assert!(run(&lab, &["ls", "--copy", "three"]).stderr.contains("there are one, two"));
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    let lab = Lab::new();
    write(&lab, "snap.toml", "[repository]\n\nkeyfile = \"hunter2\"\n");
    for args in [&["snapshots"][..], &["config", "check"], &["backup", "x", "--dataset", "docs"]] {
        let ran = run(&lab, args);
        ran.summary(2);
        let message = error(&ran);
        assert!(
            message.contains("snap.toml:3: unknown key `keyfile`; did you mean `key-file`?"),
            "{message}"
        );
        assert!(!format!("{message}{}", ran.stderr).contains("hunter2"));
    }
    // What needs no configuration is not hindered.
    assert!(unnamed(&lab, &["completions", "bash"]).output().unwrap().status.success());
    assert_eq!(run(&lab, &["-r", "repo", "--key-file", "k", "init"]).code, 0);
    run(&lab, &["snapshots", "-c", "none.toml"]).summary(2);

    write(&lab, "snap.toml", "[dataset.a]\nretention = {}\n[app.shop]\ndatasets = [\"b\"]\n");
    let message = error(&run(&lab, &["config", "check"]));
    assert!(message.contains("snap.toml:2: ") && message.contains("snap.toml:4: "), "{message}");
}

#[test]
fn a_file_that_anybody_may_change_is_not_used_unasked() {
    let lab = lab();
    std::fs::set_permissions(lab.path("snap.toml"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let ran = run(&lab, &["snapshots"]);
    ran.summary(2);
    assert!(ran.stderr.contains("may be changed by anybody"), "{}", ran.stderr);
    run(&lab, &["snapshots", "-c", "snap.toml"]).summary(10);
}

#[test]
fn the_example_is_written_once_and_changes_nothing() {
    let lab = Lab::new();
    run(&lab, &["config", "check"]).summary(1);
    run(&lab, &["config", "init"]).summary(0);
    assert_eq!(std::fs::metadata(lab.path("snap.toml")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(run(&lab, &["config", "init"]).stderr.contains("it is left as it is"));
    assert_eq!(run(&lab, &["config", "check"]).summary(0)["copies"], 0);
    let shown = run(&lab, &["config", "show"]);
    assert_eq!(shown.lines[0]["repository"]["from"], "default");
    run(&lab, &["config", "init", "-c", "other.toml"]).summary(0);
    assert!(lab.path("other.toml").exists());
}

#[test]
fn show_and_check_tell_no_secret_and_what_is_missing() {
    let lab = Lab::new();
    let text = "[repository]\nuri = \"s3://b/x?region=r\"\nkey-file = \"none.key\"\n\
                credentials = { access-key-id = \"env:NONE\", secret-access-key = \"hunter2\" }\n\
                [dataset.db]\nsource = \"postgres://me:hunter2@h/db\"\n[dataset.docs]\nsource = \"none\"\n";
    write(&lab, "snap.toml", text);
    let shown = run(&lab, &["config", "show"]);
    let config = &shown.lines[0]["config"];
    assert_eq!(config["dataset"]["db"]["source"], "postgres://me:[redacted]@h/db");
    assert!(!format!("{:?}{}", shown.lines, shown.stderr).contains("hunter2"));
    let checked = run(&lab, &["config", "check"]);
    assert_eq!(checked.summary(0)["warnings"], 3, "{}", checked.stderr);
    // Half of the credentials is an error, not a reason to look for others.
    let mut command = unnamed(&lab, &["snapshots"]);
    let failed = finish(command.env("AWS_ACCESS_KEY_ID", "x").output().unwrap());
    failed.summary(1);
    assert!(failed.stderr.contains("the variable NONE is not set"), "{}", failed.stderr);
}
