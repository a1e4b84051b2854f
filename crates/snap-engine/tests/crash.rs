//! A backup that dies at every operation in turn: what was there stays whole, and the next run goes on from what was stored.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::compare::{Leeway, assert_same};
use common::{Lab, odd};
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint, RecordingBackend};
use snap_backend::{Backend, ErrorKind, LocalBackend, MemoryBackend, MemoryState, Operation};
use snap_engine::{BackupReport, Context, EngineError, Event, Observer};
use snap_repo::{Index, RepoError, Repository};

/// Small packs, so that a run has many steps.
const PACK: usize = 20 << 10;

/// A repository with one snapshot, and a source that has changed since.
struct Scene {
    lab: Lab,
    /// The store, with one snapshot in it.
    before: MemoryState,
    /// The cache as that run left it.
    cache: PathBuf,
    first: PathBuf,
    second: PathBuf,
    threads: usize,
}

/// What a run of the second version takes.
struct Whole {
    operations: u64,
    mutations: u64,
}

impl Scene {
    fn new(threads: usize, changes: u64) -> Self {
        let (lab, memory) = common::in_memory();
        let source = lab.source("");
        std::fs::create_dir(source.join("sub")).unwrap();
        for number in 0..changes {
            std::fs::write(source.join(format!("kept {number}")), odd::noise(number, 2000)).unwrap();
            std::fs::write(source.join(format!("sub/changes {number}")), odd::noise(1000 + number, 3000))
                .unwrap();
        }
        std::fs::write(source.join("large"), odd::noise(7, 1_300_000)).unwrap();
        std::fs::write(source.join("goes"), b"goes").unwrap();
        let cache = lab.dir.path().join("cache as it was");
        let scene = Self {
            before: memory.snapshot(),
            first: PathBuf::new(),
            second: PathBuf::new(),
            cache,
            lab,
            threads,
        };
        scene.backup(Arc::clone(&scene.lab.backend), Some(&scene.cache)).unwrap();
        let first = scene.lab.keep("first");
        for number in 0..changes {
            let path = source.join(format!("sub/changes {number}"));
            // Long enough to be stored alone: noise is not taken into groups from 32 KiB on.
            std::fs::write(path, odd::noise(2000 + number, 33_000)).unwrap();
        }
        std::fs::remove_file(source.join("goes")).unwrap();
        std::fs::create_dir(source.join("new")).unwrap();
        std::fs::write(source.join("new/file"), odd::noise(8, 200_000)).unwrap();
        let mut large = odd::noise(7, 1_300_000);
        large.splice(600_000..600_000, odd::noise(9, 400_000));
        std::fs::write(source.join("large"), large).unwrap();
        let second = scene.lab.keep("second");
        Self { before: memory.snapshot(), first, second, ..scene }
    }

    /// One worker and one upload at a time make a run the same each time; more of them only change the order.
    fn context(&self) -> Context<'_> {
        let memory_bytes = if self.threads == 1 { 0 } else { 1 << 30 };
        Context { threads: self.threads, memory_bytes, ..self.lab.context() }
    }

    fn backup(&self, backend: Arc<dyn Backend>, cache: Option<&Path>) -> snap_engine::Result<BackupReport> {
        self.lab.backup_over(backend, cache, self.lab.options(), self.context(), PACK)
    }

    /// Runs undisturbed, to learn how many points there are to die at.
    fn whole(&self) -> Whole {
        let store = CrashBackend::immortal(Arc::new(MemoryBackend::from_state(self.before.clone())));
        let store = Arc::new(store);
        let cache = self.fresh_cache();
        self.backup(store.clone(), Some(cache.path())).unwrap();
        Whole { operations: store.operations(), mutations: store.mutations() }
    }

    fn fresh_cache(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
        common::copy_tree(&self.cache, dir.path());
        dir
    }

    /// Dies at `point`, and looks at what is left; then runs again, with or without the cache.
    fn die(&self, store: &Arc<dyn Backend>, point: CrashPoint, mode: CrashMode, keeps_cache: bool) {
        let case = format!("{point:?} {mode:?}, cache kept: {keeps_cache}");
        let cache = self.fresh_cache();
        let dying = Arc::new(CrashBackend::new(Arc::clone(store), point, mode));
        let outcome = self.backup(dying.clone(), Some(cache.path()));
        assert!(dying.is_dead(), "{case}");
        match outcome {
            Err(EngineError::Repo(RepoError::Backend(error))) => {
                assert_eq!(error.kind(), ErrorKind::Stopped, "{case}");
            }
            other => panic!("{case}: {other:?}"),
        }
        self.lab.check_over(store);
        self.restores(store, 0, &self.first);
        let snapshots = Repository::open(Arc::clone(store), &self.lab.secret).unwrap().snapshots().unwrap();
        let committed = snapshots.snapshots.len() - 1;

        if !keeps_cache {
            std::fs::remove_dir_all(cache.path()).unwrap();
        }
        let recording = Arc::new(RecordingBackend::new(Arc::clone(store)));
        let again = self.backup(recording.clone(), Some(cache.path())).unwrap();
        let summary = again.summary;
        let puts: Vec<_> =
            recording.take().into_iter().filter(|call| call.operation == Operation::Put).collect();
        let packs = puts.iter().filter(|put| put.name.starts_with("packs/")).count();
        if committed == 1 {
            // The snapshot was there, and nobody had heard of it.
            assert_eq!(
                (summary.files_unchanged, summary.added_bytes, packs),
                (summary.files, 0, 0),
                "{case}"
            );
        }
        self.no_blob_is_stored_twice(store, &case);
        self.lab.check_over(store);
        self.restores(store, 0, &self.first);
        self.restores(store, committed + 1, &self.second);
        // What was left over is taken in: a third run finds nothing to do.
        let third = self.backup(Arc::clone(store), Some(cache.path())).unwrap();
        assert_eq!((third.summary.stored_bytes, third.parent), (0, again.snapshot), "{case}");
        assert_eq!(self.lab.heard(), [""; 0], "{case}");
    }

    fn restores(&self, store: &Arc<dyn Backend>, number: usize, expected: &Path) {
        let target = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
        let report = self.lab.restore_over(store, number, target.path());
        assert_eq!((report.failed, report.damaged), (0, 0));
        assert_same(expected, target.path(), Leeway::default());
    }

    /// Each blob lies in one pack, and each pack stands in an index: nothing was uploaded again, nothing is left over.
    fn no_blob_is_stored_twice(&self, store: &Arc<dyn Backend>, case: &str) {
        let repository = Repository::open(Arc::clone(store), &self.lab.secret).unwrap();
        let (index, _) = Index::load(&repository, None).unwrap();
        let twice = index.iter("main").filter(|(id, _)| index.locate_all("main", id).len() != 1).count();
        assert_eq!(twice, 0, "{case}: blobs stored twice");
        let stored = repository.list(snap_repo::Area::Packs).unwrap();
        assert!(stored.iter().all(|(id, _)| index.names_pack(id, "main")), "{case}: a pack without an index");
    }

    fn store(&self) -> Arc<dyn Backend> {
        Arc::new(MemoryBackend::from_state(self.before.clone()))
    }
}

#[test]
fn dying_before_every_operation() {
    common::within(Duration::from_secs(300), || {
        let scene = Scene::new(1, 12);
        let whole = scene.whole();
        assert!(whole.operations > 20 && whole.mutations > 15, "{} {}", whole.operations, whole.mutations);
        for k in 0..whole.operations {
            scene.die(&scene.store(), CrashPoint::Operation(k), CrashMode::Before, k % 2 == 0);
        }
    });
}

#[test]
fn dying_before_and_after_every_mutation() {
    common::within(Duration::from_secs(300), || {
        let scene = Scene::new(1, 12);
        for k in 0..scene.whole().mutations {
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::Before, k % 2 == 1);
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::After, true);
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::After, false);
        }
    });
}

#[test]
fn dying_again_while_taking_over_what_was_left() {
    common::within(Duration::from_secs(300), || {
        let mut scene = Scene::new(1, 12);
        let store = Arc::new(MemoryBackend::from_state(scene.before.clone()));
        let dying = CrashBackend::new(store.clone(), CrashPoint::Mutation(9), CrashMode::After);
        scene.backup(Arc::new(dying), Some(&scene.cache)).unwrap_err();
        scene.before = store.snapshot();
        for k in 0..scene.whole().operations {
            scene.die(&scene.store(), CrashPoint::Operation(k), CrashMode::Before, k % 3 != 0);
        }
    });
}

#[test]
fn dying_with_many_threads_at_work() {
    common::within(Duration::from_secs(300), || {
        let scene = Scene::new(3, 12);
        for k in (0..scene.whole().mutations).rev().step_by(2) {
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::Before, true);
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::After, false);
        }
    });
}

#[test]
fn dying_around_an_index_in_the_middle_of_a_run() {
    common::within(Duration::from_secs(300), || {
        // An index is written after 64 packs.
        let scene = Scene::new(1, 70);
        let whole = scene.whole();
        assert!(whole.mutations > 72);
        for k in [62, 63, 64, 65, 66, whole.mutations - 2] {
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::Before, k % 2 == 0);
            scene.die(&scene.store(), CrashPoint::Mutation(k), CrashMode::After, k % 2 == 1);
        }
    });
}

#[test]
fn dying_with_half_a_file_in_a_directory() {
    common::within(Duration::from_secs(300), || {
        let scene = Scene::new(1, 12);
        let whole = scene.whole();
        let template = scene.lab.dir.path().join("repository");
        fill(&template, &MemoryBackend::from_state(scene.before.clone()));
        for k in (0..whole.mutations).step_by(3).chain([whole.mutations - 1]) {
            let dir = tempfile::tempdir_in(scene.lab.dir.path()).unwrap();
            common::copy_tree(&template, dir.path());
            let store: Arc<dyn Backend> = Arc::new(LocalBackend::new(dir.path(), false));
            scene.die(&store, CrashPoint::Mutation(k), CrashMode::Torn, k % 2 == 0);
            assert!(dir.path().join("tmp/1-torn").exists());
        }
    });
}

/// Writes all objects of a store into a directory.
fn fill(to: &Path, from: &MemoryBackend) {
    let store = LocalBackend::new(to, true);
    for name in from.names() {
        store.put(&name, from.get(&name).unwrap()).unwrap();
    }
}

/// Stops the run when it has heard of some files.
struct Impatient {
    left: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Observer for Impatient {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Done { .. }) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.stop.store(true, Ordering::SeqCst);
        }
    }

    fn wants_done(&self) -> bool {
        true
    }
}

/// An interruption by the user is a crash that leaves the connection alive.
#[test]
fn an_interrupted_run_is_taken_up() {
    for after in 1..8 {
        let scene = Scene::new(2, 12);
        let (store, cache) = (scene.store(), scene.fresh_cache());
        let stop = Arc::new(AtomicBool::new(false));
        let observer = Impatient { left: after.into(), stop: Arc::clone(&stop) };
        let context = Context { stop: &stop, observer: &observer, ..scene.context() };
        let options = scene.lab.options();
        let outcome = scene.lab.backup_over(Arc::clone(&store), Some(cache.path()), options, context, PACK);
        assert!(matches!(outcome, Err(EngineError::Interrupted)), "{outcome:?}");
        scene.lab.check_over(&store);
        scene.backup(Arc::clone(&store), Some(cache.path())).unwrap();
        scene.no_blob_is_stored_twice(&store, "interrupted");
        scene.restores(&store, 1, &scene.second);
    }
}
