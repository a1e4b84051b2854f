//! Sources that do not hold still, and sources of which a part is meant: what is counted, what is said, what is stored.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::compare::{Leeway, assert_same};
use common::stores::Hooked;
use common::{Ear, Lab, odd, within};
use snap_backend::testing::RecordingBackend;
use snap_backend::{Backend, Operation};
use snap_engine::browse::{Browser, Found};
use snap_engine::{
    BackupOptions, BackupReport, BackupSource, CommandStream, Context, EngineError, Event, Observer,
};
use snap_format::{Node, Time};
use snap_repo::{Index, Scratch};
use snap_source::FilterOptions;

const LIMIT: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// Everything in the latest snapshot below the source, by its path there; directories end in `/`.
fn stored(lab: &Lab) -> Vec<(String, Node)> {
    stored_below(&lab.browser(), &lab.source(""))
}

fn stored_below(browser: &Browser, top: &Path) -> Vec<(String, Node)> {
    let mut scratch = Scratch::new(1).unwrap();
    let top = top.to_str().unwrap().trim_end_matches('/').to_owned();
    let tree = match browser.find(top.as_bytes(), &mut scratch).unwrap() {
        Found::Root => browser.root(),
        Found::Node(node) => node.tree().unwrap(),
    };
    let mut found = Vec::new();
    let mut each = |path: &[u8], node: &Node| {
        let slash = if node.tree().is_some() { "/" } else { "" };
        let path = String::from_utf8(path[top.len() + 1..].to_vec()).unwrap();
        found.push((path + slash, node.clone()));
        Ok(true)
    };
    browser.walk(top.as_bytes(), tree, &mut scratch, &mut each).unwrap();
    found
}

fn names(lab: &Lab) -> Vec<String> {
    stored(lab).into_iter().map(|(name, _)| name).collect()
}

fn content(lab: &Lab, name: &str) -> Vec<u8> {
    let browser = lab.browser();
    let mut scratch = Scratch::new(1).unwrap();
    let path = lab.source(name);
    let Found::Node(node) = browser.find(path.to_str().unwrap().as_bytes(), &mut scratch).unwrap() else {
        panic!("{name} is the root")
    };
    let mut out = Vec::new();
    browser.cat(&node, &mut out, &mut scratch).unwrap();
    out
}

/// Acts once, when the file `after` has been stored.
struct Meddler<F> {
    after: &'static str,
    act: F,
    ear: Ear,
}

impl<F: Fn() + Send + Sync> Observer for Meddler<F> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Done { path, .. } if path.ends_with(self.after.as_bytes()) => (self.act)(),
            other => self.ear.event(other),
        }
    }

    fn wants_done(&self) -> bool {
        true
    }
}

/// Backs up with one worker; between listing the source and reading all files after `after`, `act` happens.
fn meddled(lab: &Lab, after: &'static str, act: impl Fn() + Send + Sync) -> (BackupReport, Vec<String>) {
    let meddler = Meddler { after, act, ear: Ear::default() };
    let context = Context { threads: 1, observer: &meddler, ..lab.context() };
    let report = snap_engine::backup(&lab.repository(), None, lab.options(), context).unwrap();
    let heard = meddler.ear.0.into_inner().unwrap();
    (report, heard)
}

#[test]
fn what_changes_between_listing_and_opening() {
    within(LIMIT, || {
        let lab = Lab::new();
        let source = lab.source("");
        for name in ["a", "b changes", "c vanishes", "d", "e", "f", "g", "z"] {
            std::fs::write(source.join(name), name).unwrap();
        }
        for name in ["sub vanishes", "sub to link", "sub to pipe", "sub to file"] {
            std::fs::create_dir(source.join(name)).unwrap();
            std::fs::write(source.join(name).join("inside"), name).unwrap();
        }
        let gone = |name: &str| std::fs::remove_file(source.join(name)).unwrap();
        let dir_gone = |name: &str| std::fs::remove_dir_all(source.join(name)).unwrap();
        let (report, heard) = meddled(&lab, "/a", || {
            std::fs::write(source.join("b changes"), "something else").unwrap();
            ["c vanishes", "d", "e", "f", "g"].into_iter().for_each(gone);
            odd::fifo(&source.join("d")); // nobody writes to it: reading it would wait for ever
            symlink("/etc/passwd", source.join("e")).unwrap();
            std::fs::create_dir(source.join("f")).unwrap();
            drop(std::os::unix::net::UnixListener::bind(source.join("g")).unwrap());
            ["sub vanishes", "sub to link", "sub to pipe", "sub to file"].into_iter().for_each(dir_gone);
            symlink("/etc", source.join("sub to link")).unwrap();
            odd::fifo(&source.join("sub to pipe"));
            std::fs::write(source.join("sub to file"), "file").unwrap();
        });
        assert_eq!(names(&lab), ["a", "b changes", "z"], "{heard:?}");
        assert_eq!(content(&lab, "b changes"), b"something else");
        let summary = report.summary;
        assert_eq!(
            (summary.vanished, summary.unreadable, summary.changed_while_read),
            (9, 0, 0),
            "{heard:?}"
        );
        assert_eq!(heard.len(), 9);
        assert!(heard.iter().all(|line| line.contains("vanished while the backup ran")), "{heard:?}");
        lab.check_over(&lab.backend);
    });
}

/// Backs up a file of 20 MiB with one worker, which waits for each upload; before each of them, `act` happens.
fn while_read(lab: &Lab, act: impl Fn(u64, &Path) + Send + Sync + 'static) -> (BackupReport, Vec<String>) {
    let path = lab.source("large");
    std::fs::write(&path, odd::noise(1, 20 * MIB)).unwrap();
    let store = Hooked::new(Arc::clone(&lab.backend), move |put| act(put, &path));
    let context = Context { threads: 1, memory_bytes: 0, ..lab.context() };
    let report = lab.backup_over(store, None, lab.options(), context, MIB).unwrap();
    (report, lab.heard())
}

fn append(path: &Path, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut &file, bytes).unwrap();
}

fn large_node(lab: &Lab) -> Node {
    stored(lab).into_iter().find(|(name, _)| name == "large").unwrap().1
}

#[test]
fn a_file_that_changes_once_is_read_once_more() {
    within(LIMIT, || {
        let lab = Lab::new();
        let (report, heard) = while_read(&lab, |put, path| {
            if put == 0 {
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(b"changed at the end", 19 * MIB as u64).unwrap();
                file.write_all_at(b"and at the beginning", 0).unwrap();
            }
        });
        assert_eq!((report.summary.changed_while_read, heard.len()), (0, 0));
        assert_eq!((report.summary.files, report.summary.files_new), (1, 1));
        assert!(content(&lab, "large") == std::fs::read(lab.source("large")).unwrap());
        assert!(!large_node(&lab).changed_while_read);
    });
}

#[test]
fn a_log_that_grows_for_ever_ends() {
    within(LIMIT, || {
        let lab = Lab::new();
        let (report, heard) = while_read(&lab, |put, path| append(path, &odd::noise(1000 + put, MIB)));
        assert_eq!((report.summary.changed_while_read, report.summary.unreadable), (1, 0));
        assert!(heard.len() == 1 && heard[0].contains("changed while it was read"), "{heard:?}");
        let node = large_node(&lab);
        assert!(node.changed_while_read && node.size() > 20 * MIB as u64);
        // What is stored is how it began, up to where it ended when it was opened.
        let now = std::fs::read(lab.source("large")).unwrap();
        assert!(now.starts_with(&content(&lab, "large")) && now.len() as u64 > node.size());
        assert_eq!(report.summary.source_bytes, node.size());
        lab.check_over(&lab.backend);
        // The next run reads it again, even if its times were the same.
        let next = lab.backup().summary;
        assert_eq!((next.files_changed, next.changed_while_read), (1, 0));
        assert!(content(&lab, "large") == now);
    });
}

#[test]
fn a_file_that_shrinks_is_stored_as_long_as_it_was_read() {
    within(LIMIT, || {
        let lab = Lab::new();
        let (report, heard) = while_read(&lab, |put, path| {
            // A new end each time, so that there is something to store the second time too.
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let size = file.metadata().unwrap().len();
            file.set_len(size - (64 << 10)).unwrap();
            file.write_all_at(&odd::noise(5000 + put, 6 * MIB), size - 7 * MIB as u64).unwrap();
        });
        assert_eq!(report.summary.changed_while_read, 1, "{heard:?}");
        let node = large_node(&lab);
        assert!(node.changed_while_read);
        assert_eq!(content(&lab, "large").len() as u64, node.size());
        assert!(node.size() < 20 * MIB as u64);
        lab.check_over(&lab.backend);
    });
}

#[test]
fn a_file_that_goes_while_it_is_read() {
    within(LIMIT, || {
        type Replace = fn(&Path);
        let replacements: [Replace; 4] = [
            |_| {},
            odd::fifo,
            |path| symlink("/etc/passwd", path).unwrap(),
            |path| std::fs::create_dir(path).unwrap(),
        ];
        for replace in replacements {
            let lab = Lab::new();
            std::fs::write(lab.source("stays"), "stays").unwrap();
            let (report, heard) = while_read(&lab, move |put, path| {
                if put == 0 {
                    std::fs::remove_file(path).unwrap();
                    replace(path);
                }
            });
            assert_eq!((report.summary.vanished, report.summary.unreadable), (1, 0), "{heard:?}");
            assert_eq!(names(&lab), ["stays"]);
            lab.check_over(&lab.backend);
        }
    });
}

#[test]
fn a_file_that_is_rewritten_all_the_time() {
    within(LIMIT, || {
        let lab = Lab::new();
        std::fs::write(lab.source("log"), "").unwrap();
        let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = std::fs::OpenOptions::new().write(true).open(lab.source("log")).unwrap();
                while !done.load(Ordering::SeqCst) {
                    let round = rounds.fetch_add(1, Ordering::SeqCst);
                    file.set_len(round * 7919 % 2_000_000).unwrap();
                    file.write_all_at(&odd::noise(round, 10_000), round * 104_729 % 1_500_000).unwrap();
                }
            });
            for _ in 0..10 {
                let before = rounds.load(Ordering::SeqCst);
                while rounds.load(Ordering::SeqCst) == before {
                    std::thread::yield_now();
                }
                let report = lab.backup().summary;
                assert_eq!((report.files, report.unreadable, report.vanished), (1, 0, 0));
            }
            done.store(true, Ordering::SeqCst);
        });
        // Whatever it was at the time: sizes and contents fit together.
        lab.check_over(&lab.backend);
        assert_eq!(content(&lab, "log").len() as u64, stored(&lab)[0].1.size());
    });
}

#[test]
fn what_cannot_be_read_is_counted() {
    if odd::as_ordinary_user("what_cannot_be_read_is_counted") {
        return;
    }
    let lab = Lab::new();
    for dir in ["closed", "listed", "open"] {
        std::fs::create_dir(lab.source(dir)).unwrap();
        std::fs::write(lab.source(dir).join("inside"), "inside").unwrap();
    }
    std::fs::write(lab.source("secret"), "secret").unwrap();
    std::fs::write(lab.source("large secret"), odd::noise(1, 3 * MIB)).unwrap();
    odd::sparse(&lab.source("sparse secret"), 3 << 20, &[]);
    for (path, mode) in [
        ("secret", 0o000),
        ("large secret", 0o200),
        ("sparse secret", 0),
        ("closed", 0o000),
        ("listed", 0o400),
    ] {
        odd::set_mode(&lab.source(path), mode);
    }
    let report = lab.backup();
    // Of a directory that can be listed and not entered, each entry is unreadable.
    let heard = lab.heard();
    assert_eq!(report.summary.unreadable, 5, "{heard:?}");
    assert_eq!(heard.len(), 5);
    assert!(heard.iter().all(|line| line.starts_with("unreadable /") && line.contains("ermission denied")));
    assert!(lab.latest().is_incomplete());
    // The directory is kept, as one that could not be looked into.
    assert_eq!(names(&lab), ["closed/", "listed/", "open/", "open/inside"]);
    assert!(stored(&lab)[0].1.unreadable && !stored(&lab)[2].1.unreadable);
    lab.check_over(&lab.backend);
    let again = lab.backup();
    assert_eq!((again.summary.unreadable, again.summary.files_unchanged), (5, 1));
    // When it can be read, it is there.
    for path in ["secret", "large secret", "sparse secret", "closed", "listed"] {
        odd::set_mode(&lab.source(path), 0o700);
    }
    let healed = lab.backup();
    assert_eq!((healed.summary.unreadable, healed.summary.files_new), (0, 5));
    let target = lab.dir.path().join("target");
    lab.restore(&target, &Default::default());
    assert_same(&lab.source(""), &target, Leeway::default());
}

/// Options for these paths, with a filter.
fn of(lab: &Lab, paths: &[PathBuf], filter: FilterOptions) -> BackupOptions {
    let source =
        BackupSource::Paths { paths: paths.to_vec(), working_dir: lab.source(""), filter, as_path: None };
    BackupOptions { source, ..lab.options() }
}

#[test]
fn paths_that_are_missing() {
    let memory = snap_backend::MemoryBackend::new();
    let recording = RecordingBackend::new(Arc::new(memory));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    std::fs::write(lab.source("a"), "a").unwrap();
    let paths = [lab.source("a"), lab.source("missing"), PathBuf::from("gone/too")];
    let report = lab.backup_with(of(&lab, &paths, FilterOptions::default())).unwrap();
    let missing: Vec<_> =
        ["missing", "gone/too"].map(|name| lab.source(name).to_str().unwrap().as_bytes().to_vec()).to_vec();
    assert_eq!((report.missing_sources, report.summary.files), (missing, 1));
    assert_eq!(lab.heard().iter().filter(|line| line.starts_with("unreadable ")).count(), 2);
    assert_eq!(names(&lab), ["a"]);
    // All of them: an error, and nothing is written.
    let _ = recording.take();
    let failed = lab.backup_with(of(&lab, &paths[1..], FilterOptions::default()));
    assert!(matches!(&failed, Err(EngineError::NoSource(why)) if why.contains("gone/too")), "{failed:?}");
    let failed = lab.backup_with(of(&lab, &[], FilterOptions::default()));
    assert!(matches!(&failed, Err(EngineError::NoSource(_))), "{failed:?}");
    assert!(recording.take().iter().all(|call| call.operation != Operation::Put));
}

#[test]
fn the_order_of_paths_does_not_matter() {
    let lab = Lab::new();
    for path in ["one/a", "one/b/c", "two/d", "three"] {
        std::fs::create_dir_all(lab.source(path).parent().unwrap()).unwrap();
        std::fs::write(lab.source(path), path).unwrap();
    }
    let root = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        lab.backup_with(of(&lab, &paths, FilterOptions::default())).unwrap();
        let browser = lab.browser();
        (browser.root(), browser.paths().to_vec())
    };
    let expected = root(&["one", "two", "three"]);
    assert_eq!(expected.1.len(), 3);
    // Relative to the working directory, doubled, inside one another, with dots.
    assert_eq!(root(&["three", "two", "one"]), expected);
    assert_eq!(root(&["one/b", "three", "./one/", "two/../two", "one/b/c", "two"]), expected);
    // Names that begin alike are no part of one another.
    std::fs::write(lab.source("one more"), "x").unwrap();
    assert_eq!(root(&["one", "one more"]).1.len(), 2);
    assert_eq!(names(&lab), ["one/", "one/a", "one/b/", "one/b/c", "one more"]);
}

#[test]
fn a_source_that_is_a_link_is_followed_and_one_below_is_not() {
    let lab = Lab::new();
    std::fs::create_dir(lab.source("real")).unwrap();
    std::fs::write(lab.source("real/file"), "file").unwrap();
    symlink("file", lab.source("real/link")).unwrap();
    symlink("real", lab.source("to dir")).unwrap();
    symlink("real/file", lab.source("to file")).unwrap();
    symlink("nowhere", lab.source("to nowhere")).unwrap();
    let paths = ["to dir", "to file", "to nowhere"].map(PathBuf::from);
    let report = lab.backup_with(of(&lab, &paths, FilterOptions::default())).unwrap();
    assert_eq!(report.missing_sources.len(), 1);
    assert_eq!(names(&lab), ["to dir/", "to dir/file", "to dir/link", "to file"]);
    let again = lab.backup_with(of(&lab, &paths, FilterOptions::default())).unwrap();
    assert_eq!((again.summary.files_unchanged, again.summary.added_bytes), (2, 0));
}

#[test]
fn the_repository_is_not_backed_up_into_itself() {
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::new();
    let inside = lab.source("backups/repo");
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::write(inside.join("config"), "part of snap itself").unwrap();
    std::fs::write(lab.source("backups/mine"), "mine").unwrap();
    let id = inside.metadata().unwrap();
    let filter = FilterOptions { protected: vec![(id.dev(), id.ino())], ..Default::default() };
    let report = lab.backup_with(of(&lab, &[lab.source("")], filter)).unwrap();
    assert_eq!(names(&lab), ["backups/", "backups/mine"]);
    assert_eq!(report.summary.unreadable, 0);
    let heard = lab.heard();
    assert!(heard.len() == 1 && heard[0].contains("it belongs to snap itself"), "{heard:?}");
}

#[test]
fn other_file_systems() {
    use std::os::unix::fs::MetadataExt;
    let (top, mounted) = (Path::new("/dev"), Path::new("/dev/shm"));
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    if device(mounted).is_none() || device(top) == device(mounted) {
        return;
    }
    let dir = tempfile::tempdir_in(mounted).unwrap();
    std::fs::write(dir.path().join("inside"), "inside").unwrap();
    let lab = Lab::new();
    for (one_file_system, files) in [(false, 1), (true, 0)] {
        let exclude = ["/dev/*", "!/dev/shm", "/dev/shm/*"].map(str::to_owned).to_vec();
        let exclude = [exclude, vec![format!("!{}", dir.path().display())]].concat();
        let filter = FilterOptions { exclude, one_file_system, ..Default::default() };
        let report = lab.backup_with(of(&lab, &[top.to_owned()], filter)).unwrap();
        assert_eq!(report.summary.files, files);
        // The place where it was mounted is kept.
        assert!(stored_below(&lab.browser(), top).iter().any(|(name, _)| name == "shm/"));
    }
    // Several sources: each has its own file system.
    let filter = FilterOptions { one_file_system: true, ..Default::default() };
    std::fs::write(lab.source("a"), "a").unwrap();
    let report = lab.backup_with(of(&lab, &[lab.source(""), dir.path().to_owned()], filter)).unwrap();
    assert_eq!(report.summary.files, 2);
}

#[test]
fn excludes() {
    let lab = Lab::new();
    for path in [
        "a.txt",
        "b.log",
        "sub/c.log",
        "sub/keep.log",
        "cache/big",
        "cache/CACHEDIR.TAG",
        "no/.nobackup",
        "no/x",
    ] {
        std::fs::create_dir_all(lab.source(path).parent().unwrap()).unwrap();
        std::fs::write(lab.source(path), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    }
    let filter = FilterOptions {
        exclude: vec!["*.log".into(), "!keep.log".into()],
        exclude_if_present: vec![".nobackup".into()],
        cachedir_tag: true,
        ..Default::default()
    };
    let report = lab.backup_with(of(&lab, &[lab.source("")], filter)).unwrap();
    assert_eq!(
        names(&lab),
        ["a.txt", "cache/", "cache/CACHEDIR.TAG", "no/", "no/.nobackup", "sub/", "sub/keep.log"]
    );
    assert_eq!(report.summary.files, 4);
    // What is excluded now and was stored before is gone from the new snapshot alone.
    lab.backup();
    assert_eq!(names(&lab).len(), 11);
    let bad = FilterOptions { exclude: vec!["b{".into()], ..Default::default() };
    assert!(matches!(lab.backup_with(of(&lab, &[lab.source("")], bad)), Err(EngineError::Pattern(_))));
}

#[test]
fn stored_under_another_path() {
    let lab = Lab::new();
    std::fs::write(lab.source("a"), "a").unwrap();
    std::fs::create_dir(lab.source("sub")).unwrap();
    let options = |as_path: &str, paths: Vec<PathBuf>| BackupOptions {
        source: BackupSource::Paths {
            paths,
            working_dir: PathBuf::from("/"),
            filter: FilterOptions::default(),
            as_path: Some(PathBuf::from(as_path)),
        },
        ..lab.options()
    };
    lab.backup_with(options("/srv/./data/", vec![lab.source("")])).unwrap();
    let browser = lab.browser();
    assert_eq!(browser.paths(), [b"/srv/data".to_vec()]);
    let names = |top: &str| {
        let found = stored_below(&lab.browser(), Path::new(top));
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("/srv/data"), ["a", "sub/"]);
    // The same again, from elsewhere, is unchanged.
    let copy = lab.dir.path().join("moved");
    std::fs::rename(lab.source(""), &copy).unwrap();
    let report = lab.backup_with(options("/srv/data", vec![copy.clone()])).unwrap();
    assert_eq!(report.summary.files_unchanged, 1);
    assert!(report.summary.added_bytes < 300); // the directory's own node: a move changes its inode
    // The root itself.
    lab.backup_with(options("/", vec![copy.clone()])).unwrap();
    assert_eq!(names("/"), ["a", "sub/"]);
    lab.backup_with(options("/renamed", vec![copy.join("a")])).unwrap();
    assert_eq!(names("/"), ["renamed"]);
    for (as_path, paths) in [("/", vec![copy.join("a")]), ("/x", vec![copy.clone(), copy.join("a")])] {
        assert!(matches!(lab.backup_with(options(as_path, paths)), Err(EngineError::Usage(_))));
    }
}

#[test]
fn a_run_without_news_can_go_without_a_snapshot() {
    let lab = Lab::new();
    std::fs::write(lab.source("a"), "a").unwrap();
    let skipping = || BackupOptions { skip_if_unchanged: true, ..lab.options() };
    // The first is news.
    let first = lab.backup_with(skipping()).unwrap();
    assert!(first.snapshot.is_some());
    let second = lab.backup_with(skipping()).unwrap();
    assert_eq!((second.snapshot, second.parent), (None, first.snapshot));
    assert_eq!(second.summary.files_unchanged, 1);
    odd::set_mode(&lab.source("a"), 0o600);
    let third = lab.backup_with(skipping()).unwrap();
    assert_eq!((third.snapshot.is_some(), third.parent), (true, first.snapshot));
    assert_eq!(lab.repository().snapshots().unwrap().snapshots.len(), 2);
    // Another dataset has its own past.
    let other = BackupOptions { dataset: "other".into(), ..skipping() };
    assert!(lab.backup_with(other).unwrap().snapshot.is_some());
    lab.check_over(&lab.backend);
}

#[test]
fn a_rehearsal_writes_nothing_and_counts_the_same() {
    let memory = snap_backend::MemoryBackend::new();
    let recording = RecordingBackend::new(Arc::new(memory.clone()));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    std::fs::write(lab.source("a"), odd::noise(1, 400_000)).unwrap();
    std::fs::write(lab.source("b"), odd::text(3 * MIB)).unwrap();
    for round in 0..3 {
        let before = memory.snapshot();
        let cache = lab.cache();
        // Whoever reads the index brings the cached one up to date.
        drop(Index::load(&lab.repository(), Some(&cache)).unwrap());
        let cached = || cache.root().exists().then(|| odd::count(cache.root()));
        let cached_before = cached();
        let _ = recording.take();
        let rehearsed = lab.backup_with(BackupOptions { dry_run: true, ..lab.options() }).unwrap();
        assert!(recording.take().iter().all(|call| call.operation != Operation::Put));
        assert!(before == memory.snapshot() && cached() == cached_before);
        assert_eq!(rehearsed.snapshot, None);
        let real = lab.backup();
        let count = |report: &BackupReport| {
            // Sizes of what is sealed differ by a few bytes: their padding and signatures do.
            snap_format::Summary { stored_bytes: report.summary.stored_bytes >> 12, ..report.summary }
        };
        assert_eq!(count(&rehearsed), count(&real));
        assert_eq!(rehearsed.parent, real.parent);
        std::fs::write(lab.source(&format!("new {round}")), odd::noise(round, 70_000)).unwrap();
    }
}

/// So many bytes, in pieces of odd sizes; then it ends as told.
struct Stream {
    bytes: Vec<u8>,
    at: usize,
    fails_at: Option<usize>,
    outcome: Result<(), String>,
}

impl Stream {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0, fails_at: None, outcome: Ok(()) }
    }
}

impl std::io::Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.fails_at.is_some_and(|at| self.at >= at) {
            return Err(std::io::Error::other("the pipe broke"));
        }
        let piece = (self.bytes.len() - self.at).min(out.len()).min(1 + self.at % 70_001);
        out[..piece].copy_from_slice(&self.bytes[self.at..self.at + piece]);
        self.at += piece;
        Ok(piece)
    }
}

impl CommandStream for Stream {
    fn finish(&mut self) -> Result<(), String> {
        self.outcome.clone()
    }
}

fn stream(lab: &Lab, name: &str, stream: Stream) -> snap_engine::Result<BackupReport> {
    let source = BackupSource::Stream { name: name.into(), stream: Box::new(stream) };
    lab.backup_with(BackupOptions { source, dataset: "stream".into(), ..lab.options() })
}

#[test]
fn streams_of_all_lengths() {
    within(LIMIT, || {
        let lab = Lab::new();
        for (number, length) in [0, 1, 100, 8 * MIB - 1, 8 * MIB, 30 * MIB + 7].into_iter().enumerate() {
            let bytes = odd::noise(number as u64, length);
            let report = stream(&lab, "dump.sql", Stream::of(bytes.clone())).unwrap();
            assert_eq!((report.summary.files, report.summary.source_bytes), (1, length as u64));
            let found = stored_below(&lab.browser(), Path::new("/"));
            assert_eq!((found.len(), found[0].0.as_str()), (1, "dump.sql"));
            let mut out = Vec::new();
            lab.browser().cat(&found[0].1, &mut out, &mut Scratch::new(1).unwrap()).unwrap();
            assert!(out == bytes, "{length}");
        }
        // The same bytes again add nothing but the node, which has a new time.
        let again = stream(&lab, "dump.sql", Stream::of(odd::noise(5, 30 * MIB + 7))).unwrap();
        assert!(again.summary.added_bytes < 10_000, "{}", again.summary.added_bytes);
        lab.check_over(&lab.backend);
    });
}

#[test]
fn a_stream_that_fails_makes_no_snapshot() {
    within(LIMIT, || {
        let lab = Lab::new();
        for length in [0, 1, 20 * MIB] {
            let failing =
                Stream { outcome: Err("exit status 1".into()), ..Stream::of(odd::noise(1, length)) };
            let failed = stream(&lab, "dump", failing);
            assert!(
                matches!(&failed, Err(EngineError::Command(why)) if why == "exit status 1"),
                "{failed:?}"
            );
            let breaking = Stream { fails_at: Some(length), ..Stream::of(odd::noise(1, length + MIB)) };
            let failed = stream(&lab, "dump", breaking);
            assert!(matches!(&failed, Err(EngineError::Command(why)) if why.contains("broke")), "{failed:?}");
        }
        assert_eq!(lab.repository().snapshots().unwrap().snapshots.len(), 0);
        lab.check_over(&lab.backend);
        for name in ["", "a/b", "..", ".", "a\0b"] {
            let refused = stream(&lab, name, Stream::of(Vec::new()));
            assert!(matches!(refused, Err(EngineError::Usage(_))), "{name:?}");
        }
        // What had been stored by then is not stored again: a pack of 16 MiB less a chunk of at most 4.
        let done = stream(&lab, "dump", Stream::of(odd::noise(1, 20 * MIB))).unwrap();
        assert!(done.summary.added_bytes < 9 * MIB as u64, "{}", done.summary.added_bytes);
    });
}

#[test]
fn a_dataset_and_a_host_have_their_own_past() {
    let lab = Lab::new();
    std::fs::write(lab.source("a"), odd::noise(1, 100_000)).unwrap();
    let first = lab.backup();
    let elsewhere = lab.backup_with(BackupOptions { host: "other".into(), ..lab.options() }).unwrap();
    assert_eq!((elsewhere.parent, elsewhere.summary.files_new), (None, 1));
    // Nothing but trees is new: the data is known, whoever stored it.
    assert!(elsewhere.summary.added_bytes < 10_000);
    assert_eq!(lab.backup().parent, first.snapshot);
    let _: Arc<dyn Backend> = Arc::clone(&lab.backend);
}

#[test]
fn a_snapshot_from_the_future_is_not_what_came_before() {
    let (lab, _) = common::in_memory(); // where it is 2024, and the lab's clock says 1970
    std::fs::write(lab.source("a"), "a").unwrap();
    let first = lab.backup().snapshot;
    let ahead = BackupOptions { time: Time::new(4_000_000_000, 0), ..lab.options() };
    let ahead = lab.backup_with(ahead).unwrap().snapshot;
    let next = lab.backup();
    assert_eq!(next.parent, first);
    let set = lab.repository().snapshots().unwrap();
    let of = |id| set.snapshots.iter().find(|snapshot| Some(snapshot.id) == id).unwrap();
    assert!(of(ahead).is_from_the_future());
    assert_eq!(of(next.snapshot).envelope.previous, first);
}
