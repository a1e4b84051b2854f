//! Several runs on one repository at once, and slots that may do a part.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use common::compare::{Leeway, assert_same};
use common::stores::Hooked;
use common::{Lab, odd, within};
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint, RecordingBackend};
use snap_backend::{Backend, MemoryBackend, Operation};
use snap_engine::browse::Browser;
use snap_engine::{BackupOptions, BackupReport, BackupSource, Context, EngineError, RestoreTarget};
use snap_format::{Role, Time};
use snap_repo::{Area, Index, NewSlot, RepoError, Repository, Secret};
use snap_source::FilterOptions;

const LIMIT: Duration = Duration::from_secs(120);
const PACK: usize = 64 << 10;

fn fill(dir: &Path, seed: u64) {
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    for number in 0..20 {
        // Half of the files are the same, whatever the seed.
        let own = if number % 2 == 0 { seed * 1000 } else { 0 };
        std::fs::write(dir.join(format!("sub/{number}")), odd::noise(own + number, 30_000)).unwrap();
    }
    std::fs::write(dir.join("large"), odd::noise(seed, 2 << 20)).unwrap();
}

fn options_of(lab: &Lab, source: &Path) -> BackupOptions {
    let source = BackupSource::Paths {
        paths: vec![source.to_owned()],
        working_dir: PathBuf::from("/"),
        filter: FilterOptions::default(),
        as_path: Some(PathBuf::from("/data")),
    };
    BackupOptions { source, ..lab.options() }
}

fn run(
    lab: &Lab,
    store: Arc<dyn Backend>,
    cache: Option<&Path>,
    source: &Path,
) -> snap_engine::Result<BackupReport> {
    let context = Context { threads: 2, ..lab.context() };
    lab.backup_over(store, cache, options_of(lab, source), context, PACK)
}

/// Restores the snapshot of a report and compares it with a source.
fn restores(lab: &Lab, store: &Arc<dyn Backend>, report: &BackupReport, source: &Path) {
    let repository = Repository::open(Arc::clone(store), &lab.secret).unwrap();
    restores_with(lab, &repository, report, source);
}

fn restores_with(lab: &Lab, repository: &Repository, report: &BackupReport, source: &Path) {
    let (index, findings) = Index::load(repository, None).unwrap();
    assert_eq!(findings, []);
    let set = repository.snapshots().unwrap();
    let snapshot = set.snapshots.iter().find(|snapshot| Some(snapshot.id) == report.snapshot).unwrap();
    let browser = Browser::open(repository, Arc::new(index), snapshot).unwrap();
    let target = tempfile::tempdir_in(lab.dir.path()).unwrap();
    let to = RestoreTarget::Dir(target.path().to_owned());
    let restored =
        snap_engine::restore(&browser, Some(b"/data"), to, &Default::default(), lab.context()).unwrap();
    assert_eq!((restored.failed, restored.damaged), (0, 0));
    assert_same(source, target.path(), Leeway::default());
}

fn two_sources(lab: &Lab) -> [PathBuf; 2] {
    let sources = [lab.source("one"), lab.source("two")];
    fill(&sources[0], 1);
    fill(&sources[1], 2);
    sources
}

#[test]
fn two_runs_at_once_both_succeed() {
    within(LIMIT, || {
        for (shares_cache, shares_source) in [(false, false), (false, true), (true, false), (true, true)] {
            let (lab, memory) = common::in_memory();
            let plain: Arc<dyn Backend> = memory;
            let [one, two] = two_sources(&lab);
            let sources = [one.clone(), if shares_source { one } else { two }];
            // Each stores its first pack when the other is about to do so, too.
            let barrier = Arc::new(Barrier::new(2));
            let reports: Vec<_> = std::thread::scope(|scope| {
                let runs: Vec<_> = (0..2)
                    .map(|number| {
                        let barrier = Arc::clone(&barrier);
                        let store = Hooked::new(Arc::clone(&plain), move |put| {
                            if put == 0 {
                                barrier.wait();
                            }
                        });
                        let cache =
                            lab.dir.path().join(format!("cache {}", if shares_cache { 0 } else { number }));
                        let (lab, source) = (&lab, &sources[number]);
                        scope.spawn(move || run(lab, store, Some(&cache), source).unwrap())
                    })
                    .collect();
                runs.into_iter().map(|run| run.join().unwrap()).collect()
            });
            lab.check_over(&plain);
            assert_eq!(lab.repository().snapshots().unwrap().snapshots.len(), 2);
            reports.iter().zip(&sources).for_each(|(report, source)| restores(&lab, &plain, report, source));
            // The next finds all that either has stored.
            for (number, source) in sources.iter().enumerate() {
                let cache = lab.dir.path().join(format!("cache {number}"));
                let report = run(&lab, Arc::clone(&plain), Some(&cache), source).unwrap();
                assert!(report.summary.added_bytes < 10_000, "{:?}", report.summary);
                restores(&lab, &plain, &report, source);
            }
            lab.check_over(&plain);
            assert_eq!(lab.heard(), [""; 0]);
        }
    });
}

/// Runs the first up to its third put, then the second from beginning to end, then the rest of the first.
fn one_inside_the_other(
    lab: &Lab,
    plain: &Arc<dyn Backend>,
    caches: [Option<&Path>; 2],
    sources: &[PathBuf; 2],
    around_first: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>,
) -> [snap_engine::Result<BackupReport>; 2] {
    let ((reached, is_reached), (release, released)) = (channel(), channel());
    let (reached, released) = (Mutex::new(reached), Mutex::new(released));
    let pausing = Hooked::new(Arc::clone(plain), move |put| {
        if put == 2 {
            reached.lock().unwrap().send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
    });
    let first_store = around_first(pausing);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run(lab, first_store, caches[0], &sources[0]));
        is_reached.recv().unwrap();
        let second = run(lab, Arc::clone(plain), caches[1], &sources[1]);
        release.send(()).unwrap();
        [first.join().unwrap(), second]
    })
}

#[test]
fn a_run_that_takes_over_the_packs_of_one_that_lives_does_no_harm() {
    within(LIMIT, || {
        for shares_cache in [false, true] {
            let (lab, memory) = common::in_memory();
            let plain: Arc<dyn Backend> = memory;
            let sources = two_sources(&lab);
            let caches =
                [lab.dir.path().join("a"), lab.dir.path().join(if shares_cache { "a" } else { "b" })];
            let caches = [Some(caches[0].as_path()), Some(caches[1].as_path())];
            let reports = one_inside_the_other(&lab, &plain, caches, &sources, |store| store);
            let [first, second] = reports.map(Result::unwrap);
            restores(&lab, &plain, &first, &sources[0]);
            restores(&lab, &plain, &second, &sources[1]);
            lab.check_over(&plain);
            let next = run(&lab, Arc::clone(&plain), caches[1], &sources[0]).unwrap();
            assert!(next.summary.added_bytes < 10_000);
            lab.check_over(&plain);
        }
    });
}

#[test]
fn a_run_that_dies_beside_one_that_lives_leaves_nothing_that_is_lost() {
    within(LIMIT, || {
        let (lab, memory) = common::in_memory();
        let plain: Arc<dyn Backend> = memory;
        let sources = two_sources(&lab);
        let caches = [lab.dir.path().join("a"), lab.dir.path().join("b")];
        let caches = [Some(caches[0].as_path()), Some(caches[1].as_path())];
        let dies = |store| Arc::new(CrashBackend::new(store, CrashPoint::Mutation(6), CrashMode::After)) as _;
        let [first, second] = one_inside_the_other(&lab, &plain, caches, &sources, dies);
        first.unwrap_err();
        restores(&lab, &plain, &second.unwrap(), &sources[1]);
        lab.check_over(&plain);
        let again = run(&lab, Arc::clone(&plain), caches[0], &sources[0]).unwrap();
        restores(&lab, &plain, &again, &sources[0]);
        lab.check_over(&plain);
        let repository = Repository::open(Arc::clone(&plain), &lab.secret).unwrap();
        let (index, _) = Index::load(&repository, None).unwrap();
        let packs = repository.list(Area::Packs).unwrap();
        assert!(packs.iter().all(|(id, _)| index.names_pack(id, "main")));
    });
}

/// A lab with a slot of another role.
fn with_slot(role: Role) -> (Lab, Arc<MemoryBackend>, Secret) {
    let (lab, memory) = common::in_memory();
    fill(&lab.source(""), 1);
    let secret = Secret::random_key_file().unwrap();
    let new = NewSlot { role, secret: &secret, label: "other".into(), domain: None };
    lab.repository().add_slot(new, Time::new(1_000_000, 1)).unwrap();
    (lab, memory, secret)
}

#[test]
fn a_slot_that_may_only_back_up() {
    within(LIMIT, || {
        let (lab, memory, secret) = with_slot(Role::Backup);
        let recording = RecordingBackend::new(memory.clone());
        let cache_dir = lab.dir.path().join("cache of the second host");
        let back_up = || {
            let _ = recording.take();
            let (repository, cache) =
                lab.open_over(Arc::new(recording.clone()), &secret, Some(&cache_dir)).unwrap();
            assert_eq!(repository.keyring().role(), Role::Backup);
            let options = BackupOptions { host: "second".into(), ..options_of(&lab, &lab.source("")) };
            let report = snap_engine::backup::backup_in_packs(
                &[repository],
                cache.as_ref(),
                options,
                lab.context(),
                PACK,
            )
            .unwrap();
            let calls = recording.take();
            let count = |operation, area: &str| {
                calls.iter().filter(|call| call.operation == operation && call.name.starts_with(area)).count()
            };
            let writes = [count(Operation::Put, "packs/"), count(Operation::Put, "index/")];
            (report, writes, count(Operation::Get, "packs/") + count(Operation::GetRange, "packs/"))
        };
        let files = odd::count(&lab.source("")).1;
        let (first, writes, _) = back_up();
        assert_eq!((first.parent, first.summary.files_new), (None, files));
        assert!(writes[0] > 2 && writes[1] == 1, "{writes:?}");
        // Unchanged: compared by the cache, no file and no pack is read.
        let (second, writes, reads) = back_up();
        assert_eq!((second.parent, second.summary.files_unchanged), (first.snapshot, files));
        assert_eq!((second.summary.added_bytes, writes, reads), (0, [0, 0], 0));
        // Its cache lost: everything is read again, and nothing stored again. Packs' headers are looked at only if unindexed.
        std::fs::remove_dir_all(&cache_dir).unwrap();
        let (third, writes, reads) = back_up();
        assert_eq!((third.parent, third.summary.files_new), (None, files));
        assert_eq!((third.summary.added_bytes, writes, reads), (0, [0, 0], 0));
        // One file changes: it alone is new.
        std::fs::write(lab.source("sub/3"), b"changed").unwrap();
        let (fourth, _, _) = back_up();
        assert_eq!((fourth.summary.files_changed, fourth.summary.files_unchanged), (1, files - 1));
        assert!(fourth.summary.added_bytes < 10_000);
        assert_eq!(lab.heard(), [""; 0]);

        // It sees what is there and can read none of it.
        let (repository, _) = lab.open_over(memory.clone(), &secret, None).unwrap();
        let set = repository.snapshots().unwrap();
        assert_eq!((set.snapshots.len(), set.findings), (4, Vec::new()));
        let (index, _) = Index::load(&repository, None).unwrap();
        let refused = Browser::open(&repository, Arc::new(index), &set.snapshots[3]).unwrap_err();
        assert!(
            matches!(refused, EngineError::Repo(RepoError::Role { role: Role::Backup, .. })),
            "{refused:?}"
        );

        // The owner reads it all, and has a domain of his own: nothing is shared with what a slot wrote.
        let plain: Arc<dyn Backend> = memory;
        restores(&lab, &plain, &fourth, &lab.source(""));
        let owner = run(&lab, Arc::clone(&plain), None, &lab.source("")).unwrap();
        assert!(owner.summary.added_bytes > 2 << 20);
        restores(&lab, &plain, &owner, &lab.source(""));
        lab.check_over(&plain);
        // And the slot goes on from its own.
        let (fifth, writes, _) = back_up();
        assert_eq!((fifth.parent, fifth.summary.files_unchanged, writes), (fourth.snapshot, files, [0, 0]));
    });
}

#[test]
fn a_slot_that_may_only_restore() {
    within(LIMIT, || {
        let (lab, memory, secret) = with_slot(Role::Restore);
        let plain: Arc<dyn Backend> = memory.clone();
        let report = run(&lab, Arc::clone(&plain), None, &lab.source("")).unwrap();
        let (repository, _) = lab.open_over(Arc::clone(&plain), &secret, None).unwrap();
        restores_with(&lab, &repository, &report, &lab.source(""));
        let before = memory.snapshot();
        for dry_run in [false, true] {
            let options = BackupOptions { dry_run, ..options_of(&lab, &lab.source("")) };
            let refused = snap_engine::backup(&repository, None, options, lab.context()).unwrap_err();
            assert!(
                matches!(refused, EngineError::Repo(RepoError::Role { role: Role::Restore, .. })),
                "{refused:?}"
            );
        }
        assert!(before == memory.snapshot());
    });
}

#[test]
fn a_restore_while_a_backup_runs() {
    within(LIMIT, || {
        let (lab, memory) = common::in_memory();
        let plain: Arc<dyn Backend> = memory;
        let sources = two_sources(&lab);
        let first = run(&lab, Arc::clone(&plain), None, &sources[0]).unwrap();
        let (inner, restore_lab) = (Arc::clone(&plain), &lab);
        // At the second put of another run, before it, all of the first snapshot is restored.
        std::thread::scope(|scope| {
            let ((reached, is_reached), (release, released)) = (channel(), channel());
            let (reached, released) = (Mutex::new(reached), Mutex::new(released));
            let store = Hooked::new(inner, move |put| {
                if put == 1 {
                    reached.lock().unwrap().send(()).unwrap();
                    released.lock().unwrap().recv().unwrap();
                }
            });
            let second = scope.spawn(|| run(restore_lab, store, None, &sources[1]));
            is_reached.recv().unwrap();
            restores(restore_lab, &plain, &first, &sources[0]);
            restore_lab.check_over(&plain);
            release.send(()).unwrap();
            restores(restore_lab, &plain, &second.join().unwrap().unwrap(), &sources[1]);
        });
    });
}
