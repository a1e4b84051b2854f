//! Stores on a bad day: with retries everything works, without them everything fails cleanly, and nothing ever hangs.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::compare::{Leeway, assert_same};
use common::stores::{Limited, Refusal};
use common::{Lab, odd, within};
use snap_backend::testing::{Fault, FaultBackend, FaultOptions, ManualClock};
use snap_backend::{Backend, ErrorKind, OpenOptions, RetryBackend, RetryOptions};
use snap_engine::{BackupReport, Context, EngineError, Event, Observer};
use snap_repo::{RepoError, Repository};
use snap_testkit::S3Server;

const LIMIT: Duration = Duration::from_secs(120);
/// Small packs: a run makes many requests.
const PACK: usize = 64 << 10;

/// A source of some files of all sizes: 4 MiB.
fn fill(lab: &Lab) {
    for number in 0..40 {
        std::fs::write(lab.source(&format!("small {number}")), odd::noise(number, 1000 * number as usize))
            .unwrap();
    }
    std::fs::write(lab.source("large"), odd::noise(77, 2 << 20)).unwrap();
    std::fs::write(lab.source("text"), odd::text(1 << 20)).unwrap();
    std::fs::create_dir(lab.source("sub")).unwrap();
    std::os::unix::fs::symlink("large", lab.source("sub/link")).unwrap();
}

fn backup(lab: &Lab, store: Arc<dyn Backend>) -> snap_engine::Result<BackupReport> {
    let context = Context { threads: 3, memory_bytes: 1 << 30, ..lab.context() };
    lab.backup_over(store, Some(&lab.dir.path().join("cache")), lab.options(), context, PACK)
}

/// The same, with one request after the other.
fn in_order(lab: &Lab, store: Arc<dyn Backend>) -> snap_engine::Result<BackupReport> {
    let context = Context { threads: 1, memory_bytes: 0, ..lab.context() };
    lab.backup_over(store, Some(&lab.dir.path().join("cache")), lab.options(), context, PACK)
}

fn restores(lab: &Lab, store: &Arc<dyn Backend>) {
    let target = tempfile::tempdir_in(lab.dir.path()).unwrap();
    let report = lab.restore_over(store, 0, target.path());
    assert_eq!((report.failed, report.damaged), (0, 0), "{:?}", lab.heard());
    assert_same(&lab.source(""), target.path(), Leeway::default());
}

/// Repeats for as long as it takes; no time passes.
fn retrying(inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let options = RetryOptions { attempts: 40, deadline: Duration::MAX, ..RetryOptions::default() };
    Arc::new(RetryBackend::new(inner, options, Arc::new(ManualClock::new())))
}

fn faulty(inner: Arc<dyn Backend>, faults: &[Fault], one_in: u64, seed: u64) -> Arc<dyn Backend> {
    let options = FaultOptions { one_in, faults: faults.to_vec(), seed };
    Arc::new(FaultBackend::new(inner, options, Arc::new(ManualClock::new())))
}

const ALL: [Fault; 5] = [
    Fault::Refused(ErrorKind::Network),
    Fault::Refused(ErrorKind::Throttled),
    Fault::LostAnswer,
    Fault::ShortBody,
    Fault::Slow(Duration::from_secs(30)),
];

#[test]
fn one_request_in_five_fails_and_nobody_notices() {
    within(LIMIT, || {
        for seed in 0..4 {
            let (lab, memory) = common::in_memory();
            fill(&lab);
            let store = retrying(faulty(memory.clone(), &ALL, 5, seed));
            let report = backup(&lab, Arc::clone(&store)).unwrap();
            assert_eq!(report.summary.unreadable, 0);
            restores(&lab, &store);
            lab.check_over(&store);
            assert_eq!(lab.heard(), [""; 0]);
            // And what was stored is whole, seen without faults.
            let plain: Arc<dyn Backend> = memory;
            lab.check_over(&plain);
            let again = backup(&lab, plain).unwrap();
            assert_eq!((again.summary.stored_bytes, again.parent), (0, report.snapshot));
        }
    });
}

#[test]
fn each_kind_of_fault_alone() {
    within(LIMIT, || {
        for fault in ALL {
            let (lab, memory) = common::in_memory();
            fill(&lab);
            let store = retrying(faulty(memory, &[fault], 2, 9));
            backup(&lab, Arc::clone(&store)).unwrap();
            restores(&lab, &store);
            assert_eq!(lab.heard(), [""; 0], "{fault:?}");
        }
    });
}

#[test]
fn without_retries_it_fails_cleanly() {
    within(LIMIT, || {
        let (mut failed, mut succeeded) = (0, 0);
        for seed in 0..24 {
            let (lab, memory) = common::in_memory();
            fill(&lab);
            let plain: Arc<dyn Backend> = memory.clone();
            // Both rare and frequent faults: the run dies at its beginning, in the middle, and at its end.
            let store = faulty(memory, &ALL, [6, 40, 400][seed as usize % 3], seed);
            match backup(&lab, store) {
                Ok(_) => succeeded += 1,
                Err(EngineError::Repo(RepoError::Backend(error))) => {
                    failed += 1;
                    assert!(error.is_retryable(), "{error:?}");
                }
                Err(EngineError::Repo(RepoError::Damaged(_) | RepoError::NoRepository(_))) => failed += 1,
                Err(other) => panic!("{other:?}"),
            }
            lab.check_over(&plain);
            lab.heard();
            backup(&lab, Arc::clone(&plain)).unwrap();
            restores(&lab, &plain);
        }
        assert!(failed >= 8 && succeeded >= 1, "{failed} failed, {succeeded} succeeded");
    });
}

#[test]
fn a_restore_without_retries_fails_or_names_what_is_missing() {
    within(LIMIT, || {
        let (lab, memory) = common::in_memory();
        fill(&lab);
        backup(&lab, memory.clone()).unwrap();
        lab.heard();
        let repository = Repository::open(memory.clone(), &lab.secret).unwrap();
        let (index, _) = snap_repo::Index::load(&repository, None).unwrap();
        let index = Arc::new(index);
        let mut failures = 0;
        for seed in 0..24 {
            let store = faulty(memory.clone(), &ALL, 12, seed);
            // Opening may fail as well; then that was it.
            let Ok(repository) = Repository::open(store, &lab.secret) else { continue };
            let Ok(set) = repository.snapshots() else { continue };
            let Some(snapshot) = set.snapshots.first() else { continue };
            let browser =
                snap_engine::browse::Browser::open(&repository, Arc::clone(&index), snapshot).unwrap();
            let target = tempfile::tempdir_in(lab.dir.path()).unwrap();
            let to = snap_engine::RestoreTarget::Dir(target.path().to_owned());
            let from = lab.source("");
            let from = Some(from.to_str().unwrap().as_bytes());
            match snap_engine::restore(&browser, from, to, &Default::default(), lab.context()) {
                Ok(report) if report.damaged == 0 && report.failed == 0 => {
                    assert_same(&lab.source(""), target.path(), Leeway::default());
                }
                Ok(report) => {
                    failures += 1;
                    let heard = lab.heard();
                    assert_eq!(heard.len() as u64, report.damaged + report.failed, "{heard:?}");
                    // What is there is right; the rest is missing rather than half.
                    let (source, target) = (lab.source(""), target.path());
                    let found = snap_engine_differences(&source, target);
                    assert!(found.iter().all(|line| line.contains("missing")), "{found:?}");
                }
                Err(EngineError::Repo(RepoError::Backend(error))) => {
                    failures += 1;
                    assert!(error.is_retryable(), "{error:?}");
                }
                Err(other) => panic!("{other:?}"),
            }
            lab.heard();
        }
        assert!(failures > 1, "{failures}");
    });
}

fn snap_engine_differences(left: &std::path::Path, right: &std::path::Path) -> Vec<String> {
    let open = |path| snap_source::SourceDir::open(path).unwrap();
    let leeway = Leeway { dir_times: true, ..Leeway::default() };
    common::compare::differences(&open(left), &open(right), leeway)
}

fn kind_of(outcome: &snap_engine::Result<BackupReport>) -> ErrorKind {
    match outcome {
        Err(EngineError::Repo(RepoError::Backend(error))) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_fills_up() {
    within(LIMIT, || {
        let (lab, memory) = common::in_memory();
        fill(&lab);
        let plain: Arc<dyn Backend> = memory.clone();
        // From "at once" to "all but the snapshot".
        let begun = memory.snapshot();
        let empty = memory.total_bytes();
        in_order(&lab, Arc::clone(&plain)).unwrap();
        let needed = memory.total_bytes() - empty;
        let _ = std::fs::remove_dir_all(lab.dir.path().join("cache"));
        for bytes in [0, 100_000, needed / 2, needed * 9 / 10, needed - 100] {
            memory.restore(begun.clone());
            let full = Limited::new(Arc::clone(&plain), bytes, Refusal::Fails(ErrorKind::NoSpace));
            let outcome = in_order(&lab, full.clone());
            assert_eq!(kind_of(&outcome), ErrorKind::NoSpace);
            lab.check_over(&plain);
            assert!(
                Repository::open(full.clone(), &lab.secret)
                    .unwrap()
                    .snapshots()
                    .unwrap()
                    .snapshots
                    .is_empty()
            );
            // Someone made room: only what is missing is stored.
            let stored = memory.total_bytes();
            full.left_bytes.store(u64::MAX, Ordering::SeqCst);
            backup(&lab, full).unwrap();
            // Padding depends on how the rest falls into packs.
            assert!(memory.total_bytes() - stored < needed - (stored - empty) + needed / 10);
            lab.check_over(&plain);
            restores(&lab, &plain);
        }
    });
}

#[test]
fn a_store_that_takes_no_writes_can_be_read() {
    within(LIMIT, || {
        let (lab, memory) = common::in_memory();
        fill(&lab);
        backup(&lab, memory.clone()).unwrap();
        std::fs::write(lab.source("new"), odd::noise(5, 3 << 20)).unwrap();
        let before = memory.snapshot();
        let closed: Arc<dyn Backend> = Limited::new(memory.clone(), 0, Refusal::Fails(ErrorKind::ReadOnly));
        assert_eq!(kind_of(&backup(&lab, Arc::clone(&closed))), ErrorKind::ReadOnly);
        assert!(before == memory.snapshot());
        std::fs::remove_file(lab.source("new")).unwrap();
        // The directory's time is not what it was.
        let target = lab.dir.path().join("target");
        assert_eq!(lab.restore_over(&closed, 0, &target).failed, 0);
        assert_same(&lab.source(""), &target, Leeway { dir_times: true, ..Leeway::default() });
        lab.check_over(&closed);
    });
}

/// Panics when it hears of the n-th file.
struct Frail(std::sync::atomic::AtomicU64);

impl Observer for Frail {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Done { .. }) && self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            panic!("the observer panics");
        }
    }

    fn wants_done(&self) -> bool {
        true
    }
}

#[test]
fn a_panic_does_not_become_a_hang() {
    within(LIMIT, || {
        let (lab, memory) = common::in_memory();
        fill(&lab);
        let plain: Arc<dyn Backend> = memory;
        for bytes in [0, 300_000, 1 << 20] {
            let frail = Limited::new(Arc::clone(&plain), bytes, Refusal::Panics);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| backup(&lab, frail)));
            assert!(!matches!(ended, Ok(Ok(_))));
        }
        for file in 1..40 {
            let frail = Frail(file.into());
            let context = Context { threads: 3, observer: &frail, ..lab.context() };
            let (store, options) = (Arc::clone(&plain), lab.options());
            let run = || lab.backup_over(store, None, options, context, PACK);
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        }
        backup(&lab, Arc::clone(&plain)).unwrap();
        lab.check_over(&plain);
        restores(&lab, &plain);
    });
}

/// A lab whose repository is in a bucket of a server.
fn s3_lab() -> (Arc<S3Server>, Lab, Arc<dyn Backend>) {
    let server = Arc::new(S3Server::start());
    let credentials = server.credentials().map(|(name, value)| (name.to_owned(), value)).into();
    let options = OpenOptions { credentials, retry: None, ..OpenOptions::default() };
    let bare = snap_backend::open(&server.uri("backups/here"), &options).unwrap();
    let lab = Lab::over(tempfile::tempdir().unwrap(), retrying(Arc::clone(&bare)));
    fill(&lab);
    (server, lab, bare)
}

#[test]
fn a_server_that_fails_is_asked_again() {
    within(LIMIT, || {
        let (server, lab, _) = s3_lab();
        let faults = server.faults();
        faults.internal_error_one_in.store(9, Ordering::Relaxed);
        faults.slow_down_one_in.store(11, Ordering::Relaxed);
        faults.cut_one_in.store(6, Ordering::Relaxed);
        faults.lost_answer_one_in.store(13, Ordering::Relaxed);
        backup(&lab, Arc::clone(&lab.backend)).unwrap();
        restores(&lab, &lab.backend);
        lab.check_over(&lab.backend);
        let again = backup(&lab, Arc::clone(&lab.backend)).unwrap().summary;
        assert_eq!((again.stored_bytes, again.files_unchanged), (0, again.files));
        assert_eq!(lab.heard(), [""; 0]);
    });
}

#[test]
fn a_server_that_is_down_is_an_error() {
    within(LIMIT, || {
        let (server, lab, bare) = s3_lab();
        server.faults().internal_error_one_in.store(7, Ordering::Relaxed);
        for _ in 0..3 {
            assert!(matches!(kind_of(&backup(&lab, Arc::clone(&bare))), ErrorKind::Network));
        }
        server.faults().internal_error_one_in.store(0, Ordering::Relaxed);
        server.faults().slow_down_one_in.store(1, Ordering::Relaxed);
        assert_eq!(kind_of(&backup(&lab, Arc::clone(&bare))), ErrorKind::Throttled);
        server.faults().slow_down_one_in.store(0, Ordering::Relaxed);
        backup(&lab, Arc::clone(&bare)).unwrap();
        lab.check_over(&bare);
        restores(&lab, &bare);
    });
}

#[test]
fn a_store_that_keeps_what_it_is_given_does_not_starve_the_run() {
    within(LIMIT, || {
        // More packs than there are buffers, at their full size.
        let (lab, _) = common::in_memory();
        std::fs::write(lab.source("large"), odd::noise(1, 90 << 20)).unwrap();
        let store: Arc<dyn Backend> = Arc::clone(&lab.backend);
        let context = Context { memory_bytes: 48 << 20, ..lab.context() };
        let repository = Repository::open(store, &lab.secret).unwrap();
        let report = snap_engine::backup(&repository, None, lab.options(), context).unwrap();
        assert_eq!(report.summary.added_bytes >> 20, 90);
    });
}
