//! Golden repositories: frozen bytes that every later version must restore, and so must the reader that knows only the page.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::Lab;

/// Every golden repository, by name; a directory that is not listed here fails the test.
const GOLDENS: [&str; 1] = ["0"];

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").canonicalize().unwrap()
}

/// Lines of a manifest by path: `kind mode size mtime holds`, written when the golden was made, by other tools.
fn manifest(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.rsplit_once(' ').map(|(rest, path)| (path.to_owned(), rest.to_owned())).unwrap())
        .collect()
}

/// The same of a restored tree; SHA-256 by the system's tool.
fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut waiting = vec![(root.to_owned(), b".".to_vec())];
    while let Some((dir, name)) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let full = [&name[..], b"/", path.file_name().unwrap().as_bytes()].concat();
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            let (kind, size, holds) = if kind.is_dir() {
                waiting.push((path.clone(), full.clone()));
                ("dir", "-".to_owned(), "-".to_owned())
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                let line = [target.as_os_str().as_bytes(), b"\n"].concat(); // as readlink prints it
                ("symlink", "-".to_owned(), sha256(&line))
            } else if kind.is_fifo() {
                ("fifo", "-".to_owned(), "-".to_owned())
            } else {
                ("file", meta.len().to_string(), sha256(&std::fs::read(&path).unwrap()))
            };
            let mode = meta.permissions().mode() & 0o7777;
            // As stat prints it: seconds rounded towards the past, but for the sign of a fraction.
            let (secs, nanos) = (meta.mtime(), meta.mtime_nsec());
            let mtime = if secs < 0 && nanos > 0 {
                format!("{}.{:09}", secs + 1, 1_000_000_000 - nanos)
            } else {
                format!("{secs}.{nanos:09}")
            };
            let hex: String = full.iter().map(|byte| format!("{byte:02x}")).collect();
            out.insert(hex, format!("{kind} {mode:o} {size} {mtime} {holds}"));
        }
    }
    out
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum is part of coreutils");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

#[track_caller]
fn compare(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>, what: &str) {
    for (path, line) in expected {
        assert_eq!(found.get(path), Some(line), "{what}: {path}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: more than there was");
}

/// Snapshots of the dataset `files`, oldest first: the ones that have manifests.
fn snapshots(lab: &Lab, repo: &Path, key: &Path) -> Vec<String> {
    let listed = lab.command("host", &["snapshots", "--dataset", "files", "--json"]);
    let listed = { listed }.env("SNAP_REPO", repo).env("SNAP_KEY_FILE", key).output().unwrap();
    let listed = crate::lab::finish(listed);
    listed.summary(0);
    let snapshots = listed.lines.iter().filter(|line| line["event"] == "snapshot");
    snapshots.map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn no_golden_is_forgotten() {
    let mut found: Vec<_> = std::fs::read_dir(golden_dir())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, GOLDENS);
}

#[test]
fn snap_restores_every_golden() {
    for name in GOLDENS {
        let (lab, golden) = (Lab::new(), golden_dir().join(name));
        let (repo, key) = (golden.join("repo"), golden.join("key"));
        let run = |args: &[&str]| {
            let mut command = lab.command("host", args);
            crate::lab::finish(
                command.env("SNAP_REPO", &repo).env("SNAP_KEY_FILE", &key).arg("--json").output().unwrap(),
            )
        };
        assert_eq!(run(&["check", "--read-data"]).summary(0)["findings"], 0);
        assert_eq!(run(&["check", "--keyless"]).summary(0)["findings"], 0);
        for (number, id) in snapshots(&lab, &repo, &key).iter().enumerate() {
            let target = lab.path(&format!("out-{number}"));
            run(&["restore", &format!("{id}:/golden"), "--target", target.to_str().unwrap()]).summary(0);
            let expected = manifest(&golden.join("manifests").join((number + 1).to_string()));
            assert!(expected.len() > 100);
            compare(&describe(&target), &expected, &format!("golden {name}, snapshot {}", number + 1));
        }
    }
}

#[test]
fn every_kind_of_key_opens_the_golden_and_the_removed_one_does_not() {
    let (lab, golden) = (Lab::new(), golden_dir().join("0"));
    let code = |args: &[&str]| {
        let mut command = lab.command("host", args);
        command
            .env("SNAP_REPO", golden.join("repo"))
            .env_remove("SNAP_KEY_FILE")
            .output()
            .unwrap()
            .status
            .code()
    };
    let file = |name: &str| golden.join(name).to_str().unwrap().to_owned();
    assert_eq!(code(&["ls", "--password-file", &file("password")]), Some(0));
    assert_eq!(code(&["ls", "--recovery-key-file", &file("recovery-key")]), Some(0));
    assert_eq!(code(&["ls", "--key-file", &file("backup-key")]), Some(12));
    assert_eq!(code(&["ls", "--password-file", &file("recovery-key")]), Some(12));
}

fn read_independently(repo: &Path, key: &Path, id: &str, target: &Path) {
    use snap_reader::{
        crypto, pack::Store, repo::Repo, restore::restore, snapshot::snapshots, verify::verify,
    };
    let mut findings = Vec::new();
    let secret = crypto::Secret::from_key_file(&std::fs::read_to_string(key).unwrap()).unwrap();
    let opened = Repo::open(repo, &secret, &mut findings).unwrap();
    let snapshot = snapshots(&opened, &mut findings).unwrap().into_iter();
    let snapshot = { snapshot }.find(|snapshot| crypto::hex(&snapshot.id) == id).unwrap();
    // From the packs alone (F18), and with everything verified that the page promises.
    let store = Store::new(opened, true, &mut findings).unwrap();
    verify(&store, &mut findings).unwrap();
    restore(&store, &snapshot, target, &mut findings).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn the_independent_reader_restores_every_golden() {
    for name in GOLDENS {
        let (lab, golden) = (Lab::new(), golden_dir().join(name));
        let (repo, key) = (golden.join("repo"), golden.join("key"));
        for (number, id) in snapshots(&lab, &repo, &key).iter().enumerate() {
            let target = lab.path(&format!("out-{number}"));
            read_independently(&repo, &key, id, &target);
            let expected = manifest(&golden.join("manifests").join((number + 1).to_string()));
            compare(
                &describe(&target.join("golden")),
                &expected,
                &format!("golden {name}, snapshot {}", number + 1),
            );
        }
    }
}
