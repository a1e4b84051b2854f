//! Sets of streams: what a database is to the engine.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Lab, odd, within};
use snap_engine::{BackupOptions, BackupReport, BackupSource, EngineError, SnapshotFiles};
use snap_format::{Details, Xattr};
use snap_source::{EntryStream, StoredFiles, StreamSource};

const LIMIT: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// What goes wrong with an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Open,
    Read,
    Finish,
}

struct Set {
    entries: Vec<(String, Vec<u8>, Trouble)>,
    is_whole: bool,
    open: Arc<AtomicUsize>,
    most_open: AtomicUsize,
}

impl Set {
    fn of(entries: &[(&str, Vec<u8>)]) -> Self {
        let entries = entries.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone(), Trouble::None));
        Self {
            entries: entries.collect(),
            is_whole: true,
            open: Arc::default(),
            most_open: AtomicUsize::new(0),
        }
    }
}

impl StreamSource for Set {
    fn entries(&self) -> Vec<Vec<u8>> {
        self.entries.iter().map(|entry| entry.0.clone().into_bytes()).collect()
    }

    fn open(&self, entry: usize) -> io::Result<Box<dyn EntryStream>> {
        let (_, bytes, trouble) = &self.entries[entry];
        if *trouble == Trouble::Open {
            return Err(io::Error::other("cannot be opened"));
        }
        let now = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(now, Ordering::SeqCst);
        Ok(Box::new(One {
            bytes: Cursor::new(bytes.clone()),
            trouble: *trouble,
            open: Arc::clone(&self.open),
        }))
    }

    fn finish(&self) -> io::Result<Details> {
        assert_eq!(self.open.load(Ordering::SeqCst), 0, "asked before all have ended");
        if !self.is_whole {
            return Err(io::Error::other("the transaction is lost"));
        }
        Ok(Details { kind: "set".into(), facts: [("position".to_owned(), "7".to_owned())].into() })
    }
}

struct One {
    bytes: Cursor<Vec<u8>>,
    trouble: Trouble,
    open: Arc<AtomicUsize>,
}

impl Drop for One {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Read for One {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let half = self.bytes.get_ref().len() as u64 / 2;
        if self.trouble == Trouble::Read && self.bytes.position() >= half {
            return Err(io::Error::other("the line was cut"));
        }
        let piece = out.len().min(70_001);
        self.bytes.read(&mut out[..piece])
    }
}

impl EntryStream for One {
    fn finish(&mut self) -> io::Result<Vec<Xattr>> {
        if self.trouble == Trouble::Finish {
            return Err(io::Error::other("rows are missing"));
        }
        let length = self.bytes.get_ref().len().to_string();
        Ok(vec![Xattr { name: b"user.length".to_vec(), value: length.into_bytes() }])
    }
}

fn backup(lab: &Lab, set: Set, more: BackupOptions) -> snap_engine::Result<BackupReport> {
    let source = BackupSource::Streams(Arc::new(set));
    lab.backup_with(BackupOptions { source, dataset: "set".into(), ..more })
}

#[test]
fn a_set_is_a_tree_and_comes_back() {
    within(LIMIT, || {
        let lab = Lab::new();
        let mut entries: Vec<(String, Vec<u8>)> =
            (0..40).map(|n| (format!("/db/tables/t{n}"), odd::noise(n, n as usize * 1000))).collect();
        entries.push(("/db/large".into(), odd::noise(99, 20 * MIB + 3)));
        entries.push(("/other".into(), Vec::new()));
        let borrowed: Vec<(&str, Vec<u8>)> =
            entries.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
        let set = Arc::new(Set::of(&borrowed));
        let source = BackupSource::Streams(Arc::clone(&set) as _);
        let options = BackupOptions { source, dataset: "set".into(), readers: Some(3), ..lab.options() };
        let report = lab.backup_with(options).unwrap();
        assert_eq!((report.summary.files, report.summary.dirs, report.summary.files_new), (42, 2, 42));
        assert!(set.most_open.load(Ordering::SeqCst) <= 3, "more are open than threads work");

        let browser = lab.browser();
        assert_eq!(browser.paths(), [b"/db".to_vec(), b"/other".to_vec()]);
        let stored = SnapshotFiles::new(&browser);
        let files = stored.files(b"/").unwrap();
        assert_eq!(files.len(), 42);
        for (path, bytes) in &entries {
            let mut read = Vec::new();
            stored.read(path.as_bytes(), &mut read).unwrap();
            assert!(read == *bytes, "{path}");
            let file = files.iter().find(|file| file.path == path.as_bytes()).unwrap();
            assert_eq!(
                (file.size_bytes, file.xattrs[0].value.clone()),
                (bytes.len() as u64, bytes.len().to_string().into_bytes())
            );
        }
        assert_eq!(stored.files(b"/db/tables").unwrap().len(), 40);
        assert_eq!(stored.files(b"/db/large").unwrap().len(), 1);
        assert!(stored.files(b"/db/none").is_err() && stored.read(b"/db", &mut Vec::new()).is_err());
        let repository = lab.repository();
        let details = repository.open_body(&lab.latest()).unwrap().details.unwrap();
        assert_eq!((details.kind.as_str(), details.facts["position"].as_str()), ("set", "7"));
        lab.check_over(&lab.backend);
    });
}

#[test]
fn one_that_fails_fails_all() {
    within(LIMIT, || {
        let lab = Lab::new();
        for trouble in [Trouble::Open, Trouble::Read, Trouble::Finish] {
            for length in [0, 1, 20 * MIB] {
                let mut set = Set::of(&[
                    ("/db/a", odd::noise(1, 9 * MIB)),
                    ("/db/b", odd::noise(2, length)),
                    ("/db/c", Vec::new()),
                ]);
                set.entries[1].2 = trouble;
                match backup(&lab, set, lab.options()) {
                    Err(EngineError::Stream { what, .. }) => assert_eq!(what, "/db/b"),
                    other => panic!("{other:?}"),
                }
            }
        }
        let set = Set { is_whole: false, ..Set::of(&[("/db/a", vec![1])]) };
        assert!(matches!(backup(&lab, set, lab.options()), Err(EngineError::Stream { .. })));
        assert_eq!(lab.repository().snapshots().unwrap().snapshots.len(), 0);
        lab.check_over(&lab.backend);
    });
}

#[test]
fn what_did_not_change_is_the_same_tree() {
    within(LIMIT, || {
        let lab = Lab::new();
        let same = || [("/db/a", odd::noise(1, 3 * MIB)), ("/db/t/b", b"b".to_vec())];
        let first = backup(&lab, Set::of(&same()), lab.options()).unwrap();
        let times = |lab: &Lab| -> Vec<i64> {
            let browser = lab.browser();
            let mut times = Vec::new();
            let mut scratch = snap_repo::Scratch::new(1).unwrap();
            let mut each = |_: &[u8], node: &snap_format::Node| {
                times.push(node.mtime.secs);
                Ok(true)
            };
            browser.walk(b"/", browser.root(), &mut scratch, &mut each).unwrap();
            times
        };
        let before = times(&lab);
        let skipping = BackupOptions { skip_if_unchanged: true, ..lab.options() };
        let again = backup(&lab, Set::of(&same()), skipping).unwrap();
        assert_eq!((again.snapshot, again.summary.files_unchanged), (None, 2));
        let second = backup(&lab, Set::of(&same()), lab.options()).unwrap();
        assert!(second.snapshot.is_some() && second.parent == first.snapshot);
        assert_eq!((times(&lab), second.summary.added_bytes), (before, 0));

        // One entry more, one less, one other.
        let set = Set::of(&[("/db/a", odd::noise(2, 100)), ("/db/new", Vec::new())]);
        let changed = backup(&lab, set, lab.options()).unwrap();
        let counts = changed.summary;
        assert_eq!(
            (counts.files, counts.files_changed, counts.files_new, counts.files_unchanged),
            (2, 1, 1, 0)
        );
    });
}

#[test]
fn paths_that_cannot_be_are_refused() {
    within(LIMIT, || {
        let lab = Lab::new();
        for paths in [
            &["a"][..],
            &["/"],
            &["/a/../b"],
            &["/a//b"],
            &["/a", "/a"],
            &["/a", "/a/b"],
            &["/a/b", "/a"],
            &["/a\0"],
        ] {
            let entries: Vec<(&str, Vec<u8>)> = paths.iter().map(|path| (*path, Vec::new())).collect();
            let outcome = backup(&lab, Set::of(&entries), lab.options());
            assert!(matches!(outcome, Err(EngineError::Refused(_))), "{paths:?}: {outcome:?}");
        }
    });
}
