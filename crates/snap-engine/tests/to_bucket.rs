//! Restoring into a bucket, by real requests to a server in this process.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Lab, odd};
use snap_backend::{Bucket, Bytes, Headers, OpenOptions, open_bucket};
use snap_engine::restore::{Guard, Keeper, Kept, restore_to_bucket};
use snap_engine::{BackupOptions, EngineError, Overwrite, RestoreOptions, RestoreReport};
use snap_format::Time;
use snap_testkit::S3Server;

const BEFORE: i64 = 1_500_000_000;
const SNAPSHOT: i64 = 1_600_000_000;

fn bucket(server: &S3Server) -> Bucket {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let credentials = server.credentials().map(|(name, value)| (name.to_owned(), value)).into();
    let options = OpenOptions { credentials, ..OpenOptions::default() };
    open_bucket(&server.uri(&format!("out{}", NEXT.fetch_add(1, Ordering::Relaxed))), &options).unwrap()
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    odd::set_time(path, BEFORE, 42);
}

/// A source with what a bucket holds and what it does not.
fn scene() -> Lab {
    let (lab, _) = common::in_memory();
    let source = lab.source("");
    write(&source.join("a.txt"), b"alpha");
    write(&source.join("empty file"), b"");
    write(&source.join("sub/deep/ä & ?.bin"), &odd::noise(3, 50_000));
    write(&source.join("large"), &odd::noise(4, 21 << 20));
    odd::sparse(&source.join("sparse"), 3 << 20, &[(1 << 20, odd::noise(5, 70_000))]);
    odd::set_mode(&source.join("a.txt"), 0o640);
    std::fs::hard_link(source.join("a.txt"), source.join("sub/a again")).unwrap();
    symlink("a.txt", source.join("link")).unwrap();
    odd::fifo(&source.join("pipe"));
    std::fs::create_dir(source.join("empty")).unwrap();
    write(&source.join("blank at the end "), b"x");
    std::fs::write(source.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff")), "x")
        .unwrap();
    odd::set_xattr(&source.join("a.txt"), "user.colour", b"green");
    let options = lab.options();
    lab.backup_with(BackupOptions { time: Time::new(SNAPSHOT, 0), ..options }).unwrap();
    lab
}

fn restore(
    lab: &Lab,
    to: &Bucket,
    options: &RestoreOptions,
    refuse_newer: bool,
    keeper: Keeper<'_>,
) -> snap_engine::Result<RestoreReport> {
    let from = lab.source("");
    let from = from.to_str().unwrap().trim_end_matches('/').as_bytes();
    let guard = Guard { refuse_newer, keeper };
    restore_to_bucket(&lab.browser(), Some(from), to, options, &guard, lab.context())
}

fn contents(bucket: &Bucket) -> BTreeMap<String, Vec<u8>> {
    let read = |(key, object): (String, snap_backend::BucketObject)| {
        let bytes = bucket.read(&key, 0, object.size_bytes).unwrap().to_vec();
        (key, bytes)
    };
    bucket.list_all("").unwrap().into_iter().map(read).collect()
}

fn put(bucket: &Bucket, key: &str, content: &'static [u8]) {
    let mut writer = bucket.write(key, &Headers::default()).unwrap();
    writer.write(Bytes::from_static(content)).unwrap();
    writer.finish().unwrap();
}

const KEYS: [&str; 6] = ["a.txt", "empty file", "large", "sparse", "sub/a again", "sub/deep/ä & ?.bin"];

#[test]
fn files_become_objects_and_what_does_not_is_told() {
    let (lab, server) = (scene(), S3Server::start());
    let to = bucket(&server);
    lab.heard();
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let dry = RestoreOptions { dry_run: true, ..options.clone() };
    let planned = restore(&lab, &to, &dry, true, Keeper::Unable("unused".into())).unwrap();
    assert!(contents(&to).is_empty());
    lab.heard();
    let report = restore(&lab, &to, &options, true, Keeper::Unable("unused".into())).unwrap();
    assert_eq!((report.restored, report.failed, report.damaged), (6, 0, 0), "{:?}", lab.heard());
    assert_eq!(
        (planned.restored, planned.restored_bytes, planned.fetched_bytes),
        (report.restored, report.restored_bytes, report.fetched_bytes)
    );
    let found = contents(&to);
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), KEYS);
    for (key, content) in &found {
        assert!(std::fs::read(lab.source(key)).unwrap() == *content, "{key}");
    }
    let headers = to.stat("a.txt").unwrap().unwrap().headers.metadata;
    assert_eq!((&*headers["mtime"], &*headers["mode"]), ("1500000000.000000042", "33184"));
    let heard = lab.heard();
    let told = |what: &str| heard.iter().filter(|line| line.contains(what)).count();
    for what in ["holds no links", "neither pipes", "no empty directories", "blanks at an end", "not UTF-8"] {
        assert_eq!(told(what), 1, "{what}: {heard:?}");
    }
    assert_eq!(told("left out: 5"), 1, "{heard:?}");
    // Both names of the one file have the attribute.
    assert_eq!((told("does not hold: 2"), told("of its own now: 1")), (1, 1), "{heard:?}");
}

#[test]
fn merging_into_a_bucket() {
    // Mode, deleting; whether the newer object, the older one and the extra one are the snapshot's, or gone, afterwards.
    let rows = [
        (Overwrite::IfChanged, false, [true, true, false]),
        (Overwrite::IfChanged, true, [true, true, true]),
        (Overwrite::IfNewer, true, [false, true, true]),
        (Overwrite::Never, false, [false, false, false]),
        (Overwrite::Never, true, [false, false, true]),
        (Overwrite::Always, false, [true, true, false]),
    ];
    let server = S3Server::start();
    for (overwrite, delete, [newer, older, extra]) in rows {
        let row = format!("{overwrite:?} {delete}");
        let (lab, to) = (scene(), bucket(&server));
        let plain = RestoreOptions::default();
        restore(&lab, &to, &plain, true, Keeper::Nowhere).unwrap();
        put(&to, "a.txt", b"the work of a week");
        put(&to, "extra/deep/object", b"extra");
        let metadata = BTreeMap::from([("mtime".to_owned(), "1400000000.5".to_owned())]);
        let mut old = to.write("empty file", &Headers { content_type: None, metadata }).unwrap();
        old.write(Bytes::from_static(b"from the attic")).unwrap();
        old.finish().unwrap();
        let before = contents(&to);
        // What was stored after the snapshot is refused, if nothing else was said.
        let refused = restore(&lab, &to, &plain, true, Keeper::Nowhere);
        let Err(EngineError::Newer { overwritten: 1, deleted: 0, of: 2, .. }) = refused else {
            panic!("{row}: {refused:?}")
        };
        // And nothing goes before it is saved.
        let options = RestoreOptions { overwrite, delete, ..plain };
        let saves = newer || older || extra;
        if saves {
            let refused = restore(&lab, &to, &options, false, Keeper::Unable("why".into()));
            assert!(matches!(refused, Err(EngineError::NotSaved { .. })), "{row}: {refused:?}");
        }
        assert_eq!(contents(&to), before, "{row}");
        let dir = lab.dir.path().join("kept");
        let report = restore(&lab, &to, &options, false, Keeper::Dir(dir.clone())).unwrap();
        assert_eq!(report.failed, 0, "{row}: {:?}", lab.heard());
        assert_eq!(report.kept, saves.then(|| Kept::Dir(dir.clone())), "{row}");
        let after = contents(&to);
        assert_eq!(after["a.txt"] == b"alpha", newer, "{row}");
        assert_eq!(after["empty file"].is_empty(), older, "{row}");
        assert_eq!(!after.contains_key("extra/deep/object"), extra, "{row}");
        assert_eq!(after.len(), KEYS.len() + usize::from(!extra), "{row}");
        for (key, content) in &before {
            let kept = std::fs::read(dir.join(key)).ok();
            assert!(after.get(key) == Some(content) || kept.as_ref() == Some(content), "{row}: {key}");
        }
        // Only what differs is written.
        if overwrite == Overwrite::IfChanged {
            assert_eq!((report.restored, report.skipped), (2, 4), "{row}");
        }
    }
}

#[test]
fn a_store_that_fails_now_and_then() {
    let (lab, server) = (scene(), S3Server::start());
    let to = bucket(&server);
    server.faults().slow_down_one_in.store(19, Ordering::Relaxed);
    server.faults().internal_error_one_in.store(23, Ordering::Relaxed);
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let report = restore(&lab, &to, &options, true, Keeper::Nowhere).unwrap();
    assert_eq!((report.restored, report.failed, report.damaged), (6, 0, 0), "{:?}", lab.heard());
    server.faults().slow_down_one_in.store(0, Ordering::Relaxed);
    server.faults().internal_error_one_in.store(0, Ordering::Relaxed);
    assert_eq!(contents(&to).len(), KEYS.len());
}

#[test]
fn a_part_and_a_file() {
    let (lab, server) = (scene(), S3Server::start());
    let guard = || Guard { refuse_newer: true, keeper: Keeper::Nowhere };
    let options = RestoreOptions::default();
    for (from, keys) in [("sub", &["a again", "deep/ä & ?.bin"][..]), ("sub/deep/ä & ?.bin", &["ä & ?.bin"])]
    {
        let to = bucket(&server);
        let from = lab.source(from);
        let from = from.to_str().unwrap().as_bytes();
        for restored in [keys.len() as u64, 0] {
            let report =
                restore_to_bucket(&lab.browser(), Some(from), &to, &options, &guard(), lab.context())
                    .unwrap();
            assert_eq!((report.restored, report.skipped), (restored, keys.len() as u64 - restored));
        }
        assert_eq!(contents(&to).keys().map(String::as_str).collect::<Vec<_>>(), keys);
    }
    let select = RestoreOptions { include: vec!["*.txt".into()], ..options };
    let to = bucket(&server);
    restore(&lab, &to, &select, true, Keeper::Nowhere).unwrap();
    assert_eq!(contents(&to).keys().map(String::as_str).collect::<Vec<_>>(), ["a.txt"]);
}
