//! Fresh keys for the same slots: who reads what afterwards, and what runs that are under way meet.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod check_support;
mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use check_support::forger::Forger;
use common::compare::{Leeway, assert_same};
use common::stores::Hooked;
use common::{Lab, odd};
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, MemoryBackend};
use snap_engine::browse::Browser;
use snap_engine::{BackupOptions, BackupReport, EngineError, RestoreTarget};
use snap_format::{EpochId, ObjectId, Role, Time};
use snap_repo::{FindingCode, Index, KeyChange, NewSlot, RepoError, Repository, Secret};

const NOW: Time = Time::new(1_000_000, 7);
const PACK: usize = 64 << 10;

/// An owner, a recovery key, and one more slot of each role, one of them with a password.
struct Scene {
    lab: Lab,
    memory: Arc<MemoryBackend>,
    backup: Secret,
    restore: Secret,
    password: Secret,
}

impl Scene {
    fn new() -> Self {
        let (lab, memory) = common::in_memory();
        std::fs::write(lab.source("same"), odd::noise(1, 300_000)).unwrap();
        let [backup, restore] = [(); 2].map(|()| Secret::random_key_file().unwrap());
        let password = Secret::Password("correct horse".to_owned().into());
        for (role, secret) in [(Role::Backup, &backup), (Role::Restore, &restore), (Role::Owner, &password)] {
            let new = NewSlot { role, secret, label: role.to_string(), domain: None };
            lab.repository().add_slot(new, NOW).unwrap();
        }
        Self { lab, memory, backup, restore, password }
    }

    fn store(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.memory) as _
    }

    fn open(&self, secret: &Secret) -> snap_repo::Result<Repository> {
        Repository::open(self.store(), secret)
    }

    fn rotate(&self) -> KeyChange {
        self.open(&self.lab.secret).unwrap().rotate_keys(NOW).unwrap()
    }

    /// Backs up what the source holds now, with one more file in it; returns the report and a copy of the source.
    fn back_up(&self, secret: &Secret, name: &str) -> (BackupReport, PathBuf) {
        std::fs::write(self.lab.source(name), odd::noise(name.len() as u64, 50_000)).unwrap();
        let report = self.run(self.store(), secret, "host").unwrap();
        (report, self.lab.keep(&format!("copy of {name}")))
    }

    fn run(&self, store: Arc<dyn Backend>, secret: &Secret, host: &str) -> snap_engine::Result<BackupReport> {
        let cache = self.lab.dir.path().join(format!("cache of {host}"));
        let (repository, cache) = self.lab.open_over(store, secret, Some(&cache))?;
        let options = BackupOptions { host: "host".into(), ..self.lab.options() };
        snap_engine::backup::backup_in_packs(&[repository], cache.as_ref(), options, self.lab.context(), PACK)
    }

    #[track_caller]
    fn restores(&self, secret: &Secret, (report, copy): &(BackupReport, PathBuf)) {
        let repository = self.open(secret).unwrap();
        let (index, findings) = Index::load(&repository, None).unwrap();
        assert_eq!(findings, []);
        let set = repository.snapshots().unwrap();
        let snapshot = set.snapshots.iter().find(|snapshot| Some(snapshot.id) == report.snapshot).unwrap();
        let browser = Browser::open(&repository, Arc::new(index), snapshot).unwrap();
        let target = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
        let to = RestoreTarget::Dir(target.path().to_owned());
        let from = self.lab.source("");
        let from = from.to_str().unwrap().trim_end_matches('/').as_bytes();
        let restored =
            snap_engine::restore(&browser, Some(from), to, &Default::default(), self.lab.context()).unwrap();
        assert_eq!((restored.failed, restored.damaged), (0, 0));
        assert_same(copy, target.path(), Leeway::default());
    }

    fn readers(&self) -> [&Secret; 4] {
        [&self.lab.secret, &self.lab.recovery, &self.restore, &self.password]
    }
}

#[test]
fn every_slot_opens_old_and_new_with_the_secret_that_it_had() {
    let scene = Scene::new();
    let before = [scene.back_up(&scene.backup, "one"), scene.back_up(&scene.lab.secret, "three")];
    // No secret but the owner's is at hand here.
    let change = scene.rotate();
    assert_eq!(change, KeyChange { name: change.name, epoch: 4, slots: 5, rivals: Vec::new(), counts: true });
    let after = [scene.back_up(&scene.backup, "after"), scene.back_up(&scene.lab.secret, "owner's")];
    for secret in scene.readers() {
        before.iter().chain(&after).for_each(|made| scene.restores(secret, made));
    }
    scene.lab.check_over(&scene.store());
    // What is new is under new keys: no object is under an earlier epoch that was not there before.
    let repository = scene.open(&scene.backup).unwrap();
    let epochs: Vec<_> =
        repository.snapshots().unwrap().snapshots.iter().map(|it| it.envelope.run_key.epoch).collect();
    assert_eq!(epochs[0], epochs[1]);
    assert!(epochs[2] == epochs[3] && epochs[1] != epochs[2]);
    // And again with the recovery key alone.
    let change = scene.open(&scene.lab.recovery).unwrap().rotate_keys(NOW).unwrap();
    assert_eq!((change.epoch, change.counts), (5, true));
    let last = scene.back_up(&scene.backup, "last one");
    for secret in scene.readers() {
        [&before[0], &after[0], &last].into_iter().for_each(|made| scene.restores(secret, made));
    }
    for secret in [&scene.backup, &scene.restore] {
        let refused = scene.open(secret).unwrap().rotate_keys(NOW);
        assert!(matches!(refused, Err(RepoError::Role { needs: "owner", .. })), "{refused:?}");
    }
}

#[test]
fn a_backup_slot_goes_on_from_its_cache() {
    let scene = Scene::new();
    let (first, _) = scene.back_up(&scene.backup, "one");
    scene.rotate();
    let second = scene.run(scene.store(), &scene.backup, "host").unwrap();
    assert_eq!(second.parent, first.snapshot);
    assert_eq!((second.summary.files_unchanged, second.summary.files_new), (2, 0));
    assert_eq!(second.summary.added_bytes, 0);
    assert_eq!(scene.lab.heard(), [""; 0]);
}

#[test]
fn two_at_once_are_a_fork_that_loses_no_slot_and_no_data() {
    let mut losers = 0;
    for _ in 0..40 {
        let scene = Scene::new();
        let old = scene.back_up(&scene.lab.secret, "old");
        let [first, second] = [&scene.lab.secret, &scene.password].map(|secret| scene.open(secret).unwrap());
        assert_eq!(first.rotate_keys(NOW).unwrap().rivals, []);
        // A run that takes the first for the head, and writes under its keys.
        let between = scene.back_up(&scene.backup, "between");
        let change = second.rotate_keys(NOW).unwrap();
        assert_eq!((change.epoch, change.rivals.len()), (4, 1));
        losers += u32::from(change.counts);
        let forked = scene.open(&scene.restore).unwrap();
        let codes: Vec<_> = forked.findings().iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [FindingCode::Forged; 2]);
        for secret in scene.readers() {
            [&old, &between].into_iter().for_each(|made| scene.restores(secret, made));
        }
        scene.open(&scene.backup).unwrap();
        // The next change takes the keys of both lines along, so that a slot that is made now reads all.
        let late = Secret::random_key_file().unwrap();
        let new = NewSlot { role: Role::Restore, secret: &late, label: "late".into(), domain: None };
        let (_, change) = scene.open(&scene.lab.secret).unwrap().add_slot(new, NOW).unwrap();
        assert_eq!((change.epoch, change.rivals, change.counts), (5, Vec::new(), true));
        [&old, &between].into_iter().for_each(|made| scene.restores(&late, made));
        if losers > 0 {
            return;
        }
    }
    panic!("the first of two never lost");
}

#[test]
fn killed_at_any_step_it_has_happened_or_not() {
    let scene = Scene::new();
    let old = scene.back_up(&scene.backup, "old");
    let before = scene.memory.snapshot();
    let immortal = Arc::new(CrashBackend::immortal(scene.store()));
    Repository::open(immortal.clone(), &scene.lab.secret).unwrap().rotate_keys(NOW).unwrap();
    let (steps, puts) = (immortal.operations(), immortal.mutations());
    assert_eq!(puts, 1);
    for step in 0..steps {
        for mode in [CrashMode::Before, CrashMode::After, CrashMode::Torn] {
            scene.memory.restore(before.clone());
            let store = Arc::new(CrashBackend::new(scene.store(), CrashPoint::Operation(step), mode));
            let died = Repository::open(store, &scene.lab.secret).and_then(|it| it.rotate_keys(NOW));
            assert!(died.is_err());
            scene.readers().into_iter().for_each(|secret| scene.restores(secret, &old));
            scene.open(&scene.backup).unwrap();
            assert!(scene.rotate().counts);
            scene.lab.check_over(&scene.store());
        }
    }
}

/// Runs a backup and does something else before its put number `at`; `None` if it does not come to that.
fn interrupted(
    scene: &Scene,
    at: u64,
    meanwhile: impl Fn() + Send + Sync + 'static,
) -> Option<snap_engine::Result<BackupReport>> {
    let reached = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&reached);
    let store = Hooked::new(scene.store(), move |put| {
        seen.fetch_add(1, Ordering::SeqCst);
        if put == at {
            meanwhile();
        }
    });
    let report = scene.run(store, &scene.backup, "host");
    (reached.load(Ordering::SeqCst) > at).then_some(report)
}

#[test]
fn a_run_under_the_old_keys_ends_and_is_readable() {
    for at in 0.. {
        let scene = Scene::new();
        let (store, secret) = (scene.store(), scene.lab.secret.clone());
        let rotate = move || {
            Repository::open(store.clone(), &secret).unwrap().rotate_keys(NOW).unwrap();
        };
        let Some(report) = interrupted(&scene, at, rotate) else {
            assert!(at >= 3, "packs, index and snapshot");
            return;
        };
        let made = (report.unwrap(), scene.lab.keep("copy"));
        scene.readers().into_iter().for_each(|secret| scene.restores(secret, &made));
        scene.lab.check_over(&scene.store());
        let next = scene.run(scene.store(), &scene.backup, "host").unwrap();
        assert_eq!((next.parent, next.summary.added_bytes), (made.0.snapshot, 0));
    }
}

fn secret_bytes(secret: &Secret) -> [u8; 32] {
    match secret {
        Secret::KeyFile(bytes) => **bytes,
        _ => panic!("not a key file"),
    }
}

fn packs(memory: &MemoryBackend) -> Vec<ObjectId> {
    let names = memory.names().into_iter();
    names
        .filter_map(|name| ObjectId::from_hex(name.as_str().strip_prefix("packs/")?.split_once('/')?.1))
        .collect()
}

#[test]
fn a_mark_under_keys_that_came_later_is_not_passed_over() {
    let scene = Scene::new();
    scene.back_up(&scene.backup, "one");
    std::fs::write(scene.lab.source("more"), odd::noise(9, 10_000)).unwrap();
    let (memory, secret) = (scene.memory.clone(), scene.lab.secret.clone());
    let rotate_and_mark = move || {
        Repository::open(memory.clone(), &secret).unwrap().rotate_keys(NOW).unwrap();
        let forger = Forger::new(&memory, secret_bytes(&secret));
        forger.put_mark(&packs(&memory));
    };
    let refused = interrupted(&scene, 0, rotate_and_mark).unwrap();
    assert!(matches!(refused, Err(EngineError::Repo(RepoError::KeysChanged))), "{refused:?}");
    // The next run can read it, and stores what it is about to lose.
    let again = scene.run(scene.store(), &scene.backup, "host").unwrap();
    assert!(again.summary.stored_bytes > 300_000);
}

#[test]
fn a_mark_under_keys_that_nobody_has_stops_nothing() {
    let scene = Scene::new();
    scene.back_up(&scene.backup, "one");
    let mut forger = Forger::new(&scene.memory, secret_bytes(&scene.lab.secret));
    forger.epoch = EpochId([9; 16]);
    forger.put_mark(&packs(&scene.memory));
    assert_eq!(scene.run(scene.store(), &scene.backup, "host").unwrap().summary.added_bytes, 0);
}
