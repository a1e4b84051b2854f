use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn files_below(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count())
}

#[test]
fn a_missing_root_is_made_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let closed = LocalBackend::new(&root, false);
    assert!(closed.put(&name("config"), Bytes::new()).unwrap_err().is_not_found());
    assert!(closed.get(&name("config")).unwrap_err().is_not_found());
    assert!(closed.list("", &mut |_| Ok(())).unwrap_err().is_not_found());
    assert!(!root.exists());
    LocalBackend::new(&root, true).put(&name("config"), Bytes::new()).unwrap();
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(root.join("config")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_put_leaves_no_temporary_behind() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(dir.path(), false);
    let object = name("packs/ab/c");
    assert_eq!(backend.put(&object, Bytes::from_static(b"1")).unwrap(), PutOutcome::Created);
    assert_eq!(backend.put(&object, Bytes::from_static(b"2")).unwrap(), PutOutcome::Existed);
    assert_eq!(backend.get(&object).unwrap(), "1");
    // A directory where the object should go: the put fails late.
    std::fs::create_dir(dir.path().join("taken")).unwrap();
    let _ = backend.put(&name("taken"), Bytes::from_static(b"3"));
    assert_eq!(files_below(&dir.path().join(TEMPORARIES)), 0);
}

#[test]
fn placing_never_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let root = Dir::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("there"), "old").unwrap();
    let temporary = root.create_temporary().unwrap();
    temporary.write(b"new").unwrap();
    assert!(matches!(temporary.place(&root, "there").unwrap(), Placed::Existed));
    drop(temporary);
    assert_eq!(std::fs::read(dir.path().join("there")).unwrap(), b"old");
    assert_eq!(files_below(dir.path()), 1);
}

#[test]
fn no_name_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("packs")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("config")).unwrap();
    let backend = LocalBackend::new(dir.path(), false);
    for escaping in ["packs/secret", "config"] {
        assert!(backend.get(&name(escaping)).is_err(), "{escaping}");
        assert!(backend.stat(&name(escaping)).is_err(), "{escaping}");
    }
    assert!(backend.put(&name("packs/new"), Bytes::new()).is_err());
    assert!(backend.delete(&name("packs/secret")).is_ok() || outside.path().join("secret").exists());
    backend.list("", &mut |meta| panic!("listed {}", meta.name)).unwrap();
    assert_eq!(files_below(outside.path()), 1);
}

#[test]
fn listing_skips_what_is_not_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(dir.path(), false);
    backend.put(&name("snapshots/a"), Bytes::from_static(b"1")).unwrap();
    for foreign in ["README", "tmp/1-aa", "snapshots/Desktop.ini", "snapshots/a~"] {
        std::fs::write(dir.path().join(foreign), "").unwrap();
    }
    let mut found = Vec::new();
    let mut each = |meta: ObjectMeta| {
        found.push(meta.name.to_string());
        Ok(())
    };
    backend.list("", &mut each).unwrap();
    assert_eq!(found, ["snapshots/a"]);
}

#[test]
fn the_sweep_takes_only_what_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(dir.path(), false);
    assert_eq!(backend.sweep_stale_temporaries().unwrap(), 0);
    backend.put(&name("config"), Bytes::new()).unwrap();
    let temporaries = dir.path().join(TEMPORARIES);
    let old = std::fs::File::create(temporaries.join("1-old")).unwrap();
    let long_ago = old.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(100_000);
    old.set_modified(long_ago).unwrap();
    std::fs::write(temporaries.join("2-new"), "").unwrap();
    assert_eq!(backend.sweep_stale_temporaries().unwrap(), 1);
    assert!(temporaries.join("2-new").exists());
    assert_eq!(files_below(&temporaries), 1);
}

#[test]
fn system_errors_have_kinds() {
    for (errno, kind) in [
        (Errno::NOSPC, ErrorKind::NoSpace),
        (Errno::DQUOT, ErrorKind::NoSpace),
        (Errno::ROFS, ErrorKind::ReadOnly),
        (Errno::ACCESS, ErrorKind::Permission),
        (Errno::PERM, ErrorKind::Permission),
        (Errno::NOENT, ErrorKind::NotFound),
        (Errno::STALE, ErrorKind::Network),
        (Errno::IO, ErrorKind::Other),
    ] {
        assert_eq!(classify(errno), kind, "{errno:?}");
    }
}
