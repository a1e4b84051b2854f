//! Looking through many snapshots, as a user or a script does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::lab::{Lab, Ran, files_below, noise};

/// A repository with three snapshots of `source`.
fn three() -> Lab {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let write = |name: &[u8], content: &[u8]| {
        let path = lab.path("source").join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write(b"notes.md", b"one\ntwo\nthree\n");
    write(b"image", &[b"x\0".as_slice(), &noise(1, 5000)].concat());
    write(b"dir/kept", b"kept");
    write(b"dir/it's \"odd\"\n$HOME\xff", b"odd");
    lab.run("host", &["backup", "source"]).summary(0);
    write(b"notes.md", b"one\n2\nthree\n");
    write(b"image", &[b"x\0".as_slice(), &noise(2, 7000)].concat());
    write(b"dir/sub/new", b"new");
    lab.run("host", &["backup", "source"]).summary(0);
    std::fs::remove_file(lab.path("source/image")).unwrap();
    lab.run("host", &["backup", "source"]).summary(0);
    lab
}

fn events<'a>(ran: &'a Ran, name: &str) -> Vec<&'a Value> {
    ran.lines.iter().filter(|line| line["event"] == name).collect()
}

/// Paths of events below `source`.
fn paths(lab: &Lab, ran: &Ran, name: &str) -> Vec<String> {
    let top = format!("{}/", lab.path("source").display());
    let path = |event: &&Value| event["path"].as_str().unwrap().replace(&top, "");
    events(ran, name).iter().map(path).collect()
}

fn ids(lab: &Lab) -> Vec<String> {
    let ran = lab.run("host", &["snapshots"]);
    events(&ran, "snapshot").iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn find_names_what_each_snapshot_has() {
    let lab = three();
    let ids = ids(&lab);
    let ran = lab.run("host", &["find", "image"]);
    assert_eq!(
        (ran.summary(0)["entries"].as_u64(), ran.summary(0)["snapshots"].as_u64()),
        (Some(2), Some(3))
    );
    let nodes = events(&ran, "node");
    let fields: Vec<&str> = nodes[0].as_object().unwrap().keys().map(String::as_str).collect();
    let expected =
        ["event", "snapshot", "path", "type", "mode", "uid", "gid", "size_bytes", "mtime", "target"];
    assert_eq!(fields, expected);
    let holders: Vec<_> = nodes.iter().map(|node| (&node["snapshot"], &node["size_bytes"])).collect();
    assert_eq!(holders, [(&ids[0].clone().into(), &5002.into()), (&ids[1].clone().into(), &7002.into())]);

    let count = |args: &[&str]| lab.run("host", args).summary(0)["entries"].as_u64().unwrap();
    assert_eq!(count(&["find", "image", "--once"]), 1);
    assert_eq!(count(&["find", "*", "--type", "file", "--snapshot", "latest"]), 4);
    assert_eq!(count(&["find", "--size", "+6K", "--type", "file"]), 1);
    assert_eq!(count(&["find", "--size=-3", "--type", "f", "--snapshot", "latest"]), 2);
    assert_eq!(count(&["find", "--regex", "/sub/n.w$"]), 2);
    assert_eq!(count(&["find", "NOTES.*", "-i"]), 3);
    assert_eq!(count(&["find", "kept", "--newer", "1h"]), 3);
    assert_eq!(count(&["find", "kept", "--older", "1h"]), 0);
    assert_eq!(count(&["find", "kept", "--host", "elsewhere"]), 0);
    for usage in [&["find"][..], &["find", "["], &["find", "--regex", "("], &["find", "x", "--type", "y"]] {
        assert_eq!(lab.run("host", usage).code, 2, "{usage:?}");
    }
    // What is printed names what other commands take.
    let output = lab.command("host", &["find", "image"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.lines().next().unwrap();
    assert!(lab.command("host", &["cat", first]).output().unwrap().stdout.ends_with(&noise(1, 5000)));
}

#[test]
fn versions_of_a_path() {
    let lab = three();
    let ids = ids(&lab);
    let ran = lab.run("host", &["versions", "source/notes.md"]);
    let list: Vec<_> = events(&ran, "node")
        .iter()
        .map(|it| (it["snapshot"].clone(), it["snapshots"].clone(), it["change"].clone()))
        .collect();
    let expected = [
        (ids[0].clone().into(), vec![ids[0].clone()].into(), Value::Null),
        (ids[2].clone().into(), ids[1..].to_vec().into(), "modified".into()),
    ];
    assert_eq!(list, expected);
    assert_eq!(ran.summary(0)["absent"], 0);
    assert_eq!(lab.run("host", &["versions", "source/image"]).summary(0)["absent"], 1);
    let absent = lab.run("host", &["versions", "/no/such"]);
    assert_eq!(absent.code, 1);
    assert!(absent.stderr.contains("none of 3 snapshots"), "{}", absent.stderr);
}

#[test]
fn diff_tells_what_changed_and_how() {
    let lab = three();
    let ran = lab.run("host", &["diff", "latest~2", "latest~1", "--content"]);
    let summary = ran.summary(0);
    assert_eq!(
        (&summary["added"], &summary["modified"], &summary["removed"]),
        (&2.into(), &2.into(), &0.into())
    );
    assert_eq!(paths(&lab, &ran, "change"), ["dir/sub", "dir/sub/new", "image", "notes.md"]);
    let changes = events(&ran, "change");
    let notes = changes[3]["diff"].as_str().unwrap();
    assert!(notes.ends_with("@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"), "{notes}");
    assert_eq!((&changes[2]["diff"], &changes[2]["diff_left_out"]), (&Value::Null, &"not text".into()));
    // Without arguments: the last two.
    let ran = lab.run("host", &["diff"]);
    assert_eq!(paths(&lab, &ran, "change"), ["image"]);
    // A path on one side counts for both; two files may be compared.
    let source = lab.path("source").display().to_string();
    let ran = lab.run("host", &["diff", &format!("latest~2:{source}/dir"), "latest"]);
    assert_eq!(paths(&lab, &ran, "change"), ["dir/sub", "dir/sub/new"]);
    let (a, b) = (format!("latest:{source}/notes.md"), format!("latest:{source}/dir/kept"));
    assert_eq!(lab.run("host", &["diff", &a, &b]).summary(0)["modified"], 1);
    assert_eq!(lab.run("host", &["diff", "latest:/no/such", "latest"]).code, 1);
}

#[test]
fn what_deleted_says_brings_it_back() {
    let lab = three();
    let source = lab.path("source");
    let copy = lab.path("copy");
    let cp = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success())
    };
    cp(&source, &copy);
    std::fs::remove_dir_all(source.join("dir/sub")).unwrap();
    std::fs::remove_file(source.join("notes.md")).unwrap();
    std::fs::remove_file(source.join(OsStr::from_bytes(b"dir/it's \"odd\"\n$HOME\xff"))).unwrap();
    let ran = lab.run("host", &["deleted"]);
    assert_eq!(ran.summary(0)["entries"], 4);
    let nodes = events(&ran, "node");
    assert!(nodes.iter().any(|node| node["path"].as_str().unwrap().ends_with("/image")));
    let bin = Path::new(env!("CARGO_BIN_EXE_snap")).parent().unwrap();
    for node in nodes.iter().filter(|node| !node["path"].as_str().unwrap().ends_with("/image")) {
        let line = node["command"].as_str().unwrap();
        assert!(!line.contains('\n'), "{line}");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let status = Command::new("bash")
            .args(["-c", line])
            .env("PATH", path)
            .env("HOME", lab.path("host"))
            .env("SNAP_REPO", lab.path("repo"))
            .env("SNAP_KEY_FILE", lab.path("owner.key"))
            .status();
        assert!(status.unwrap().success(), "{line}");
    }
    let same = Command::new("diff").arg("-r").args([&source, &copy]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    let ran = lab.run("host", &["deleted", "source/dir"]);
    assert_eq!(ran.summary(0)["entries"], 0);
    // Flags that opened the repository are in the command; a path that nobody knows is a failure.
    let ran = lab.run("host", &["deleted", "source", "-r", lab.path("repo").to_str().unwrap()]);
    assert!(events(&ran, "node")[0]["command"].as_str().unwrap().starts_with("snap -r /"));
    assert_eq!(lab.run("host", &["deleted", "/no/such"]).code, 1);
    assert_eq!(lab.run("host", &["deleted", "--host", "elsewhere"]).code, 1);
    // Another host's snapshots do not count, unless there are no others.
    let path = source.join("dir").display().to_string();
    let other = Lab::new();
    other.run("host", &["init"]).summary(0);
    other.run("host", &["backup", &path, "--host", "renamed"]).summary(0);
    std::fs::remove_file(source.join("dir/kept")).unwrap();
    let renamed = other.run("host", &["deleted"]);
    assert_eq!(renamed.summary(0)["entries"], 1);
    assert!(renamed.stderr.contains("renamed"), "{}", renamed.stderr);
    other.run("host", &["backup", &path]).summary(0);
    assert_eq!(other.run("host", &["deleted"]).summary(0)["entries"], 0);
}

#[test]
fn ls_sorts_everything() {
    let lab = three();
    let top = format!("latest~1:{}", lab.path("source").display());
    let sorted = |args: &[&str]| {
        let ran = lab.run("host", &[&["ls", &top], args].concat());
        ran.summary(0);
        paths(&lab, &ran, "node")
    };
    let odd = "dir/it's \"odd\"\n$HOME\u{fffd}";
    assert_eq!(sorted(&["--sort", "size"])[..4], ["image", "notes.md", "dir/kept", odd]);
    let mut by_name = sorted(&["--sort", "name"]);
    assert_eq!(by_name, ["dir", odd, "dir/kept", "dir/sub", "dir/sub/new", "image", "notes.md"]);
    by_name.reverse();
    assert_eq!(sorted(&["--sort", "name", "--reverse"]), by_name);
    assert_eq!(sorted(&["--sort", "time", "--reverse"])[0], "dir/kept");
    assert_eq!(lab.run("host", &["ls", "--reverse"]).code, 2);
}

#[test]
fn a_key_that_only_writes_may_not_look() {
    let lab = three();
    let new = lab.path("backup.key");
    lab.run("host", &["key", "add", "--role", "backup", "--new-key-file", new.to_str().unwrap()]).summary(0);
    for args in [&["find", "x"][..], &["versions", "/x"], &["diff"], &["deleted"], &["ls"]] {
        assert_eq!(lab.run_with_key("host", "backup.key", args).code, 12, "{args:?}");
    }
}

#[test]
fn damage_is_named_and_the_rest_is_listed() {
    let lab = three();
    let packs = files_below(&lab.path("repo/packs"));
    std::fs::write(lab.path("source/more"), "more").unwrap();
    lab.run("host", &["backup", "source"]).summary(0);
    for pack in files_below(&lab.path("repo/packs")).iter().filter(|pack| !packs.contains(pack)) {
        std::fs::remove_file(pack).unwrap();
    }
    std::fs::remove_dir_all(lab.path("host/.cache")).unwrap();
    let found = lab.run("host", &["find", "kept"]);
    assert_eq!(found.summary(4)["entries"], 3);
    assert_eq!(events(&found, "finding").len(), 1);
    let versions = lab.run("host", &["versions", "source/dir/kept"]);
    assert_eq!((&versions.summary(4)["versions"], &versions.summary(4)["unknown"]), (&1.into(), &1.into()));
    lab.run("host", &["diff"]).summary(4);
    assert_eq!(lab.run("host", &["diff", "latest~3", "latest~2"]).summary(0)["modified"], 2);
    assert_eq!(lab.run("host", &["ls"]).summary(4)["entries"], 0);
    std::fs::remove_file(lab.path("source/notes.md")).unwrap();
    let gone = lab.run("host", &["deleted"]);
    assert_eq!(paths(&lab, &gone, "node"), ["image", "notes.md"]);
    gone.summary(4);
}
