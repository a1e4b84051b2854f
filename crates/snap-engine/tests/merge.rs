//! Restoring into a tree that went on living: what is newer is not lost, whatever the flags, and what was done can be undone.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::compare::{Leeway, assert_same};
use common::{Lab, copy_tree, odd};
use snap_engine::browse::Browser;
use snap_engine::restore::{Guard, Keeper, Kept, SafetySnapshot};
use snap_engine::{
    BackupOptions, Context, EngineError, Event, Observer, Overwrite, RestoreOptions, RestoreReport, Selector,
};
use snap_format::{ObjectId, Time};
use snap_repo::Index;

/// When the snapshot is made; its files are from before that.
const SNAPSHOT: i64 = 1_600_000_000;
const BEFORE: i64 = 1_500_000_000;
const LONG_BEFORE: i64 = 1_400_000_000;
const AFTER: i64 = 1_700_000_000;

fn write(path: &Path, content: &str, time: i64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    odd::set_time(path, time, 0);
}

/// A source, its snapshot, and the target: the source as people have gone on working in it.
fn scene() -> (Lab, PathBuf) {
    let (lab, _) = common::in_memory();
    let source = lab.source("");
    for name in ["same", "newer edit", "older edit", "sub/deep/newer edit", "missing", "sub/mode"] {
        write(&source.join(name), &format!("{name} of the snapshot"), BEFORE);
    }
    write(&source.join("grown"), "short", BEFORE);
    std::fs::hard_link(source.join("same"), source.join("sub/same again")).unwrap();
    symlink("here", source.join("link")).unwrap();
    odd::set_time(&source.join("link"), BEFORE, 0);
    let options = lab.options();
    lab.backup_with(BackupOptions { time: Time::new(SNAPSHOT, 0), ..options }).unwrap();
    let target = lab.keep("target");
    write(&target.join("newer edit"), "the work of a week", AFTER);
    write(&target.join("sub/deep/newer edit"), "and of another", AFTER);
    write(&target.join("grown"), "short, and then some", AFTER);
    write(&target.join("older edit"), "something from the attic", LONG_BEFORE);
    write(&target.join("newer extra/deep/file"), "new", AFTER);
    write(&target.join("older extra"), "old", LONG_BEFORE);
    std::fs::remove_file(target.join("missing")).unwrap();
    odd::set_mode(&target.join("sub/mode"), 0o600);
    std::fs::remove_file(target.join("link")).unwrap();
    symlink("there", target.join("link")).unwrap();
    odd::set_time(&target.join("link"), AFTER, 0);
    (lab, target)
}

fn open(lab: &Lab, id: Option<ObjectId>) -> Browser {
    let repository = lab.repository();
    let (index, findings) = Index::load(&repository, None).unwrap();
    assert_eq!(findings, []);
    let set = repository.snapshots().unwrap();
    let list: Vec<_> = set.snapshots.iter().collect();
    let snapshot = match id {
        Some(id) => list.iter().find(|snapshot| snapshot.id == id).unwrap(),
        None => Selector::parse("latest").unwrap().select(&list).unwrap().snapshot,
    };
    Browser::open(&repository, Arc::new(index), snapshot).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Snapshot,
    Dir,
    Nowhere,
}

/// As the program does it: without an overwrite mode and without delete, what is newer is refused.
struct Flags {
    overwrite: Option<Overwrite>,
    delete: bool,
    keep: Keep,
}

impl Flags {
    const PLAIN: Self = Self { overwrite: None, delete: false, keep: Keep::Snapshot };

    fn restore(&self, lab: &Lab, target: &Path, context: Context<'_>) -> snap_engine::Result<RestoreReport> {
        let from = lab.source("");
        let from = from.to_str().unwrap().trim_end_matches('/');
        self.restore_from(lab, &open(lab, None), from.as_bytes(), target, context)
    }

    fn restore_from(
        &self,
        lab: &Lab,
        browser: &Browser,
        from: &[u8],
        target: &Path,
        context: Context<'_>,
    ) -> snap_engine::Result<RestoreReport> {
        let options = RestoreOptions {
            overwrite: self.overwrite.unwrap_or_default(),
            delete: self.delete,
            verify: true,
            ..RestoreOptions::default()
        };
        let repository = lab.repository();
        let keeper = match self.keep {
            Keep::Nowhere => Keeper::Nowhere,
            Keep::Dir => Keeper::Dir(lab.dir.path().join("kept")),
            Keep::Snapshot => Keeper::Snapshot(SafetySnapshot {
                repository: &repository,
                cache: None,
                host: "lab".into(),
                time: Time::new(SNAPSHOT + 1000, 0),
            }),
        };
        let guard = Guard { refuse_newer: self.overwrite.is_none() && !self.delete, keeper };
        snap_engine::restore_guarded(browser, Some(from), target, &options, &guard, context)
    }
}

/// Every file and link below a directory, with what it holds.
fn contents(top: &Path) -> BTreeMap<String, String> {
    let (mut out, mut waiting) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            let content = match () {
                () if kind.is_dir() => {
                    waiting.push(path);
                    continue;
                }
                () if kind.is_symlink() => std::fs::read_link(&path).unwrap().to_str().unwrap().to_owned(),
                () => std::fs::read_to_string(&path).unwrap(),
            };
            out.insert(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(), content);
        }
    }
    out
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It stays.
    Stays,
    /// The snapshot's takes its place, or nothing does; it was saved first.
    Saved,
    /// Nothing at all is done.
    Refused,
}
use Fate::{Refused, Saved, Stays};

/// The entries of the table: two that were edited after the snapshot, a link, one with an old edit, and what is not in it.
const ENTRIES: [&str; 7] = [
    "newer edit",
    "sub/deep/newer edit",
    "grown",
    "link",
    "older edit",
    "newer extra/deep/file",
    "older extra",
];

/// For every mode, without and with `--delete`, what becomes of them.
const TABLE: [(Option<Overwrite>, bool, [Fate; 7]); 10] = [
    (None, false, [Refused; 7]),
    (None, true, [Saved; 7]),
    (Some(Overwrite::IfChanged), false, [Saved, Saved, Saved, Saved, Saved, Stays, Stays]),
    (Some(Overwrite::IfChanged), true, [Saved; 7]),
    (Some(Overwrite::IfNewer), false, [Stays, Stays, Stays, Stays, Saved, Stays, Stays]),
    (Some(Overwrite::IfNewer), true, [Stays, Stays, Stays, Stays, Saved, Saved, Saved]),
    (Some(Overwrite::Never), false, [Stays; 7]),
    (Some(Overwrite::Never), true, [Stays, Stays, Stays, Stays, Stays, Saved, Saved]),
    (Some(Overwrite::Always), false, [Saved, Saved, Saved, Saved, Saved, Stays, Stays]),
    (Some(Overwrite::Always), true, [Saved; 7]),
];

#[test]
fn newer_edits_are_lost_in_no_combination_of_flags() {
    for (overwrite, delete, fates) in TABLE {
        for keep in [Keep::Snapshot, Keep::Dir, Keep::Nowhere] {
            let row = format!("{overwrite:?}, delete {delete}, {keep:?}");
            let (lab, target) = scene();
            let (before, source) = (contents(&target), contents(&lab.source("")));
            let copy = lab.dir.path().join("copy");
            copy_tree(&target, &copy);
            let outcome = Flags { overwrite, delete, keep }.restore(&lab, &target, lab.context());
            if fates == [Refused; 7] {
                let Err(EngineError::Newer { overwritten: 4, deleted: 0, of: 5, examples }) = outcome else {
                    panic!("{row}: {outcome:?}");
                };
                assert_eq!(examples.len(), 4);
                assert_same(&copy, &target, Leeway::default());
                continue;
            }
            let report = outcome.unwrap();
            assert_eq!((report.failed, report.damaged), (0, 0), "{row}: {:?}", lab.heard());
            let after = contents(&target);
            assert_eq!(after["missing"], "missing of the snapshot", "{row}");
            assert_eq!(after["same"], before["same"], "{row}");
            for (name, fate) in ENTRIES.into_iter().zip(fates) {
                let expected = if fate == Stays { before.get(name) } else { source.get(name) };
                assert_eq!(after.get(name), expected, "{row}: {name}");
            }
            // All that was there is there still, or is in what was saved, and comes back from it.
            let saves = fates.contains(&Saved) || overwrite != Some(Overwrite::Never);
            match (keep, &report.kept) {
                (Keep::Nowhere, None) => continue,
                (Keep::Dir, Some(Kept::Dir(dir))) => {
                    let status = std::process::Command::new("cp")
                        .args(["-a", "--remove-destination", "-T"])
                        .args([dir, &target])
                        .status();
                    assert!(status.unwrap().success());
                }
                (Keep::Snapshot, Some(Kept::Snapshot { id, path })) => {
                    let undone =
                        Flags::PLAIN.restore_from(&lab, &open(&lab, Some(*id)), path, &target, lab.context());
                    assert_eq!(undone.unwrap().failed, 0, "{row}: {:?}", lab.heard());
                }
                (_, None) => assert!(!saves, "{row}"),
                (_, other) => panic!("{row}: {other:?}"),
            }
            let undone = contents(&target);
            for (name, content) in &before {
                assert_eq!(undone.get(name), Some(content), "{row}: {name} after undoing");
            }
            std::fs::remove_file(target.join("missing")).unwrap();
            assert_same(&copy, &target, Leeway { dir_times: true, ..Leeway::default() });
        }
    }
}

/// With nothing missing, undoing leaves no trace at all: times of directories, modes, links.
#[test]
fn undone_bit_by_bit() {
    let (lab, target) = scene();
    write(&target.join("missing"), "was not missing", LONG_BEFORE);
    odd::set_xattr(&target.join("older edit"), "user.colour", b"green");
    odd::set_mode(&target.join("sub"), 0o711);
    std::fs::hard_link(target.join("newer extra/deep/file"), target.join("newer extra/again")).unwrap();
    odd::sparse(&target.join("newer extra/sparse"), 9 << 20, &[(5 << 20, odd::noise(1, 100_000))]);
    odd::fifo(&target.join("newer extra/pipe"));
    for dir in ["newer extra/deep", "newer extra", "sub/deep", "sub", ""] {
        odd::set_time(&target.join(dir), AFTER + 7, 123);
    }
    let copy = lab.dir.path().join("copy");
    copy_tree(&target, &copy);
    for keep in [Keep::Snapshot, Keep::Dir] {
        let flags = Flags { overwrite: None, delete: true, keep };
        let report = flags.restore(&lab, &target, lab.context()).unwrap();
        assert_eq!((report.failed, report.changes.newer_overwritten), (0, 4), "{:?}", lab.heard());
        // Newer were the file, its other name, the sparse file and the pipe.
        assert_eq!(report.changes.newer_deleted, 4);
        let same_but_links = Leeway::default();
        assert_same(&lab.source(""), &target, same_but_links);
        match report.kept.unwrap() {
            Kept::Snapshot { id, path } => {
                let browser = open(&lab, Some(id));
                let plain = Flags::PLAIN;
                plain.restore_from(&lab, &browser, &path, &target, lab.context()).unwrap();
                assert_same(&copy, &target, Leeway::default());
                // It is no `latest`, nor what the next backup compares with.
                assert_eq!(open(&lab, None).snapshot().envelope.dataset, "files");
                // It holds a part: deleting what it lacks is refused.
                let mut all = Flags { delete: true, ..Flags::PLAIN };
                all.keep = Keep::Nowhere;
                let refused = all.restore_from(&lab, &browser, &path, &target, lab.context());
                assert!(matches!(refused, Err(EngineError::Usage(_))), "{refused:?}");
            }
            Kept::Dir(dir) => {
                let status = std::process::Command::new("cp")
                    .args(["-a", "--remove-destination", "-T"])
                    .args([&dir, &target])
                    .status();
                assert!(status.unwrap().success());
                for path in ["older edit", "sub", "newer extra/sparse", "newer extra/pipe", "missing"] {
                    let (was, is) =
                        (copy.join(path).metadata().unwrap(), target.join(path).metadata().unwrap());
                    assert_eq!(
                        (was.mode(), was.mtime(), was.len()),
                        (is.mode(), is.mtime(), is.len()),
                        "{path}"
                    );
                }
                assert!(odd::allocated(&target.join("newer extra/sparse")) < 1 << 20);
            }
        }
    }
}

#[test]
fn where_nothing_is_overwritten_nothing_is_saved() {
    let (lab, _) = scene();
    let snapshots = || lab.repository().snapshots().unwrap().snapshots.len();
    // A new target, an empty one, and one that has it all.
    let target = lab.dir.path().join("new");
    for _ in 0..2 {
        let report = Flags::PLAIN.restore(&lab, &target, lab.context()).unwrap();
        assert_eq!((report.kept, report.failed), (None, 0));
    }
    let empty = lab.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(Flags::PLAIN.restore(&lab, &empty, lab.context()).unwrap().kept, None);
    // A file less.
    std::fs::remove_file(target.join("grown")).unwrap();
    assert_eq!(Flags::PLAIN.restore(&lab, &target, lab.context()).unwrap().kept, None);
    assert_same(&lab.source(""), &target, Leeway::default());
    assert_eq!(snapshots(), 1);
    // Touched, with the content that it had: nothing would be lost but the time, which is saved.
    write(&target.join("grown"), "short", AFTER);
    let report = Flags::PLAIN.restore(&lab, &target, lab.context()).unwrap();
    assert_eq!((report.failed, report.changes.newer_overwritten, snapshots()), (0, 0, 2));
}

/// Does something as soon as the engine says that it is done with an entry.
struct Meanwhile<F: Fn() + Send + Sync> {
    action: F,
    done: Mutex<bool>,
    failures: Mutex<Vec<String>>,
}

impl<F: Fn() + Send + Sync> Observer for Meanwhile<F> {
    fn event(&self, event: Event<'_>) {
        if let Event::Unreadable { path, error } = event {
            let text = format!("{}: {error}", String::from_utf8_lossy(path));
            self.failures.lock().unwrap().push(text);
        }
        let mut done = self.done.lock().unwrap();
        // The first is the first file that was saved: the look is over, the restore has not begun.
        if matches!(event, Event::Done { .. }) && !std::mem::replace(&mut *done, true) {
            (self.action)();
        }
    }

    fn wants_done(&self) -> bool {
        true
    }
}

#[test]
fn what_changes_while_the_restore_is_prepared_stays_as_it_is() {
    let (lab, target) = scene();
    let meanwhile = Meanwhile {
        action: || {
            write(&target.join("older edit"), "written just now", AFTER);
            write(&target.join("missing"), "just now, too", AFTER);
            write(&target.join("newer extra/deep/file 2"), "and this", AFTER);
            write(&target.join("another extra"), "and that", AFTER);
        },
        done: Mutex::default(),
        failures: Mutex::default(),
    };
    let context = Context { observer: &meanwhile, threads: 1, ..lab.context() };
    let flags = Flags { overwrite: Some(Overwrite::Always), delete: true, keep: Keep::Snapshot };
    let report = flags.restore(&lab, &target, context).unwrap();
    let failures = meanwhile.failures.into_inner().unwrap();
    assert_eq!((report.failed, failures.len()), (4, 4), "{failures:?}");
    assert!(failures.iter().all(|line| line.contains("while the restore was prepared")), "{failures:?}");
    let after = contents(&target);
    assert_eq!(after["older edit"], "written just now");
    assert_eq!(after["missing"], "just now, too");
    assert_eq!(after["newer extra/deep/file 2"], "and this");
    assert_eq!(after["newer extra/deep/file"], "new");
    assert_eq!(after["another extra"], "and that");
    // The rest was done.
    assert_eq!(after["newer edit"], "newer edit of the snapshot");
    assert!(!after.contains_key("older extra"));
}

/// Where every directory of the target becomes a link to the outside between the look and the restore.
#[test]
fn a_target_that_is_swapped_for_links() {
    let (lab, target) = scene();
    let outside = lab.dir.path().join("outside");
    write(&outside.join("newer edit"), "precious", AFTER);
    write(&outside.join("deep/newer edit"), "precious", AFTER);
    write(&outside.join("mode"), "precious", AFTER);
    let meanwhile = Meanwhile {
        action: || {
            std::fs::rename(target.join("sub"), target.join("aside")).unwrap();
            symlink(&outside, target.join("sub")).unwrap();
            std::fs::rename(target.join("newer extra"), target.join("aside 2")).unwrap();
            symlink(&outside, target.join("newer extra")).unwrap();
        },
        done: Mutex::default(),
        failures: Mutex::default(),
    };
    let before = contents(&outside);
    let context = Context { observer: &meanwhile, threads: 1, ..lab.context() };
    let flags = Flags { overwrite: Some(Overwrite::Always), delete: true, keep: Keep::Snapshot };
    // What was to be saved is gone from its place: some of it may not be found, which refuses, or the restore goes past it.
    match flags.restore(&lab, &target, context) {
        Ok(report) => assert!(report.failed > 0),
        Err(error) => assert!(matches!(error, EngineError::NotSaved { .. }), "{error}"),
    }
    assert_eq!(contents(&outside), before);
    assert_eq!(outside.join("mode").metadata().unwrap().mode() & 0o777, 0o644);
}

#[test]
fn what_cannot_be_saved_is_not_overwritten() {
    let (lab, target) = scene();
    let copy = lab.dir.path().join("copy");
    copy_tree(&target, &copy);
    let options = RestoreOptions { overwrite: Overwrite::Always, ..RestoreOptions::default() };
    let from = lab.source("");
    let from = from.to_str().unwrap().trim_end_matches('/').as_bytes();
    let inside = target.join("sub/kept");
    let keepers =
        [Keeper::Unable("for a reason".into()), Keeper::Dir(inside.clone()), Keeper::Dir(copy.clone())];
    for keeper in keepers {
        let guard = Guard { refuse_newer: false, keeper };
        let outcome = snap_engine::restore_guarded(
            &open(&lab, None),
            Some(from),
            &target,
            &options,
            &guard,
            lab.context(),
        );
        assert!(matches!(outcome, Err(EngineError::NotSaved { .. })), "{outcome:?}");
        assert!(!inside.exists());
        assert_same(&copy, &target, Leeway { dir_times: true, ..Leeway::default() });
    }
}

#[test]
fn a_rehearsal_refuses_nothing_and_counts_what_is_newer() {
    let (lab, target) = scene();
    let copy = lab.dir.path().join("copy");
    copy_tree(&target, &copy);
    let from = lab.source("");
    let from = from.to_str().unwrap().trim_end_matches('/').as_bytes();
    for delete in [false, true] {
        let options = RestoreOptions { dry_run: true, delete, ..RestoreOptions::default() };
        let guard = Guard { refuse_newer: true, keeper: Keeper::Unable("unused".into()) };
        let report = snap_engine::restore_guarded(
            &open(&lab, None),
            Some(from),
            &target,
            &options,
            &guard,
            lab.context(),
        )
        .unwrap();
        let changes = report.changes;
        assert_eq!((changes.overwritten, changes.newer_overwritten, changes.adjusted), (5, 4, 1));
        // The extra directory is three entries with what is in it, the file in it is newer.
        assert_eq!((changes.deleted, changes.newer_deleted), if delete { (4, 1) } else { (0, 0) });
        assert_same(&copy, &target, Leeway::default());
    }
}

/// Snap's own directories are neither deleted nor part of what is.
#[test]
fn the_repository_is_not_deleted() {
    let (lab, target) = scene();
    for dir in ["repo", "newer extra/cache"] {
        write(&target.join(dir).join("object"), "precious", AFTER);
    }
    let identity = |path: &str| {
        let metadata = target.join(path).metadata().unwrap();
        (metadata.dev(), metadata.ino())
    };
    let options = RestoreOptions {
        delete: true,
        protected: vec![identity("repo"), identity("newer extra/cache")],
        ..RestoreOptions::default()
    };
    let from = lab.source("");
    let from = from.to_str().unwrap().trim_end_matches('/').as_bytes();
    let guard = Guard { refuse_newer: false, keeper: Keeper::Nowhere };
    let browser = open(&lab, None);
    let report =
        snap_engine::restore_guarded(&browser, Some(from), &target, &options, &guard, lab.context()).unwrap();
    assert_eq!((report.failed, report.deleted), (0, 1), "{:?}", lab.heard());
    let after = contents(&target);
    assert!(after.contains_key("repo/object") && after.contains_key("newer extra/cache/object"));
    assert!(!after.contains_key("older extra"));
}

/// A restore that was broken off is not taken for somebody's work.
#[test]
fn what_was_begun_is_continued_unasked() {
    let (lab, _) = scene();
    let target = lab.dir.path().join("half");
    Flags::PLAIN.restore(&lab, &target, lab.context()).unwrap();
    let half = |name: &str, content: &[u8]| {
        let path = target.join(name);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        odd::set_mode(&path, 0o600);
    };
    let continues = |expected: bool| {
        let outcome = Flags::PLAIN.restore(&lab, &target, lab.context());
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        if expected {
            assert_same(&lab.source(""), &target, Leeway::default());
        }
    };
    // All of it but its attributes, none of it yet, and zeros where a chunk is missing.
    half("newer edit", b"newer edit of the snapshot");
    half("older edit", b"");
    half("grown", &[0; 3]);
    continues(true);
    // A part of a chunk could be anybody's, unless the target, or the file, is marked.
    half("grown", b"sho");
    continues(false);
    odd::set_xattr(&target.join("grown"), "user.snap.unfinished", b"");
    continues(true);
    half("grown", b"sho");
    let id = open(&lab, None).snapshot().id.to_hex();
    odd::set_xattr(&target, "user.snap.unfinished", id.as_bytes());
    odd::set_mode(&target.join("sub"), 0o700);
    continues(true);
    // The mark of another snapshot does not count, nor does it make a finished file less of somebody's work.
    half("grown", b"sho");
    odd::set_xattr(&target, "user.snap.unfinished", b"another");
    continues(false);
    odd::set_xattr(&target, "user.snap.unfinished", id.as_bytes());
    half("grown", b"longer than it was");
    continues(false);
}

/// What stays is no first name for others to be linked with.
#[test]
fn another_name_of_a_file_that_stays_gets_the_content_of_the_snapshot() {
    let (lab, _) = common::in_memory();
    write(&lab.source("a"), "content", BEFORE);
    std::fs::hard_link(lab.source("a"), lab.source("b")).unwrap();
    std::fs::hard_link(lab.source("a"), lab.source("c")).unwrap();
    let options = lab.options();
    lab.backup_with(BackupOptions { time: Time::new(SNAPSHOT, 0), ..options }).unwrap();
    for overwrite in [Overwrite::Never, Overwrite::IfNewer] {
        let target = lab.dir.path().join(format!("{overwrite:?}"));
        write(&target.join("a"), "edited", AFTER);
        write(&target.join("c"), "edited as well", AFTER);
        let flags = Flags { overwrite: Some(overwrite), delete: false, keep: Keep::Snapshot };
        let report = flags.restore(&lab, &target, lab.context()).unwrap();
        assert_eq!((report.failed, report.restored, report.kept), (0, 1, None));
        let found = contents(&target);
        assert_eq!((&*found["a"], &*found["b"], &*found["c"]), ("edited", "content", "edited as well"));
    }
}
