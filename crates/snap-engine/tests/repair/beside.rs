//! Repair on bad disks, beside others who are at work, and after it died.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{
    Backend, BackendError, Bytes, ErrorKind, MemoryBackend, ObjectMeta, ObjectName, Operation, PutOutcome,
};
use snap_engine::{EngineError, NullObserver, ReadData};
use snap_format::{BlobKind, ObjectId, Role};
use snap_repo::prune::{PruneOptions, Waste};
use snap_repo::{Area, RepoError, Repository, object_name};

use crate::check_support::meanwhile::Meanwhile;
use crate::check_support::*;
use crate::{FILES, actions, compare, flip, follow, missing_of, node, of_large_chunks, packs, run};

/// A disk that cannot read a part of one object, until that is gone.
#[derive(Debug)]
struct BadDisk {
    inner: MemoryBackend,
    bad: ObjectName,
    from: u64,
    to: u64,
}

impl BadDisk {
    fn read<T>(
        &self,
        name: &ObjectName,
        range: (u64, u64),
        read: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if *name == self.bad && range.0 < self.to && range.1 > self.from && self.inner.exists(name)? {
            return Err(BackendError::new(ErrorKind::Other, Operation::Get).with_name(name.as_str()));
        }
        read()
    }
}

impl Backend for BadDisk {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.read(name, (0, u64::MAX), || self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.read(name, (offset, offset + len), || self.inner.get_range(name, offset, len))
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.inner.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.inner.delete(name)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn local_root(&self) -> Option<&Path> {
        Some(Path::new("/nowhere"))
    }
}

#[test]
fn what_a_disk_can_still_read_is_kept() {
    let mut fixture = of_large_chunks();
    let bad = packs(&fixture, BlobKind::Data).remove(0);
    let inner = fixture.backend.clone();
    // Within the fourth chunk, a sector.
    let disk = Arc::new(BadDisk { inner, bad: bad.clone(), from: 700_000, to: 704_096 });
    let report = run(&Repository::open(disk, &key(OWNER)).unwrap(), false).unwrap();
    assert_eq!(actions(&report)[0], format!("damaged-pack {bad}"));
    assert_eq!((report.moved_blobs, report.lost[0].missing.as_str()), (4, "600000+200000"));
    assert!(!fixture.names("packs/").contains(&bad));
    follow(&mut fixture, &report);
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [""; 0]);
    compare(&fixture, &report);

    // A small object.
    let fixture = Fixture::full();
    let bad = fixture.names("index/").remove(0);
    let disk = Arc::new(BadDisk { inner: fixture.backend.clone(), bad: bad.clone(), from: 0, to: 10 });
    let report = run(&Repository::open(disk, &key(OWNER)).unwrap(), false).unwrap();
    assert!(actions(&report).contains(&format!("damaged-index {bad}")) && !report.has_losses());
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [""; 0]);
}

#[test]
fn what_is_brought_back_meanwhile_stays() {
    let fixture = of_large_chunks();
    let pack = packs(&fixture, BlobKind::Data).remove(0);
    let whole = fixture.backend.get(&pack).unwrap();
    flip(&fixture, &pack, 250_000);
    // When nothing but the deletion is left.
    let name = pack.clone();
    let count = Arc::new(Meanwhile::new(Arc::new(twin_of(&fixture).backend), u64::MAX, || ()));
    let state = fixture.backend.snapshot();
    run(&Repository::open(count.clone(), &key(OWNER)).unwrap(), false).unwrap();
    let operations = count.operations();
    let mut kept = 0;
    for before in operations - 12..operations {
        let backend_now = MemoryBackend::from_state(state.clone());
        let (there, name, whole) = (backend_now.clone(), name.clone(), whole.clone());
        let act = move || there.replace(&name, whole);
        let store = Arc::new(Meanwhile::new(Arc::new(backend_now.clone()), before, act));
        run(&Repository::open(store, &key(OWNER)).unwrap(), false).unwrap();
        kept += usize::from(backend_now.exists(&pack).unwrap());
    }
    assert!(kept > 0, "before it was looked at for the last time");
}

/// Something of everything.
fn wrecked() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.backup(OWNER, 1);
    fixture.add_slot(Role::Backup, BACKUP, "web");
    fixture.backup(OWNER, 2);
    fixture.backup(OWNER, 3);
    fixture.backup(BACKUP, 4);
    let data = packs(&fixture, BlobKind::Data);
    flip(&fixture, &data[0], 15_000);
    fixture.backend.remove(&data[1]);
    flip(&fixture, &fixture.names("index/")[0], 80);
    flip(&fixture, &object_name(Area::Snapshots, &fixture.snapshots[1]), 200);
    fixture
}

/// On the same store.
fn twin_of(fixture: &Fixture) -> Fixture {
    let (backend, expected) = (fixture.backend.clone(), fixture.expected.clone());
    Fixture { backend, expected, snapshots: fixture.snapshots.clone() }
}

/// What another machine does while a repair is at work: a backup, or a prune that deletes at once.
#[test]
fn others_at_work_meanwhile_lose_nothing() {
    type Other = fn(&mut Fixture);
    let backs_up: Other = |fixture| {
        fixture.backup(OWNER, 7);
    };
    let prunes: Other = |fixture| {
        let grace = Duration::ZERO;
        let options = PruneOptions { grace, max_waste: Waste::Share(0.0), ..PruneOptions::at(time(4000)) };
        // It refuses where something is damaged.
        let _ = with_context(&NullObserver, |it| snap_engine::prune(&fixture.open(OWNER), &options, it));
    };
    let harmed = || {
        let mut fixture = Fixture::full();
        fixture.backup(OWNER, 8);
        let last = fixture.snapshots[4];
        fixture.open(OWNER).forget(&[last], &[], time(600)).unwrap();
        fixture.expected.remove(&last);
        let half = object_name(Area::Packs, &ObjectId([1; 32]));
        fixture.backend.put(&half, Bytes::from_static(b"SNAPPACK")).unwrap();
        fixture
    };
    // Each tries a third of the operations.
    for (from, other, with_damage) in [(0, backs_up, true), (1, backs_up, false), (2, prunes, false)] {
        for number in (from..).step_by(3) {
            let mut fixture = harmed();
            if with_damage {
                let data = packs(&fixture, BlobKind::Data);
                flip(&fixture, &data[0], 15_000);
            }
            let twin = Arc::new(Mutex::new(twin_of(&fixture)));
            let others = Arc::clone(&twin);
            let act = move || other(&mut others.lock().unwrap());
            let store = Arc::new(Meanwhile::new(Arc::new(fixture.backend.clone()), number, act));
            let repository = Repository::open(store.clone(), &key(OWNER)).unwrap();
            let outcome = run(&repository, false);
            let is_overtaken = |error: &EngineError| matches!(error, EngineError::Repo(RepoError::Overtaken));
            assert!(outcome.as_ref().err().is_none_or(is_overtaken), "{number}: {outcome:?}");
            if !store.has_acted() {
                break;
            }
            fixture.expected.extend(twin.lock().unwrap().expected.clone());
            let report = run(&fixture.open(OWNER), false).unwrap();
            let owner = fixture.open(OWNER);
            assert_eq!(brief(&check_with(&owner, ReadData::All)), [""; 0], "{number}: {report:?}");
            let overlays = owner.overlays().unwrap();
            let mut whole = 0;
            for snapshot in owner.snapshots().unwrap().snapshots {
                let Some(files) = fixture.expected.get(&overlays.origin(&snapshot.id)) else { continue };
                for (path, expected) in files {
                    let (node, bytes) = node(&owner, &snapshot.id, path);
                    whole += usize::from(missing_of(&node).is_none());
                    assert!(missing_of(&node).is_some() || bytes == *expected, "{path} {number}");
                }
            }
            let all = fixture.expected.len() * FILES;
            assert!(whole == all || with_damage && whole > all / 2, "{number}: {whole} of {all}: {report:?}");
        }
    }
}

#[test]
fn wherever_it_dies_the_next_one_finishes_it() {
    let fixture = wrecked();
    let state = fixture.backend.snapshot();
    let store = Arc::new(CrashBackend::immortal(Arc::new(fixture.backend.clone())));
    let whole = run(&Repository::open(store.clone(), &key(OWNER)).unwrap(), false).unwrap();
    assert!(store.mutations() > 12 && whole.has_losses());
    let lost: Vec<&[u8]> = whole.lost.iter().map(|lost| lost.path.as_slice()).collect();
    for mode in [CrashMode::Before, CrashMode::After] {
        for point in 0..store.mutations() {
            let mut fixture = Fixture {
                backend: MemoryBackend::from_state(state.clone()),
                expected: fixture.expected.clone(),
                snapshots: fixture.snapshots.clone(),
            };
            let dying =
                CrashBackend::new(Arc::new(fixture.backend.clone()), CrashPoint::Mutation(point), mode);
            let dying = Repository::open(Arc::new(dying), &key(OWNER)).unwrap();
            run(&dying, false).unwrap_err();
            run(&fixture.open(OWNER), false).unwrap();
            let owner = fixture.open(OWNER);
            assert_eq!(brief(&check_with(&owner, ReadData::All)), [""; 0], "{mode:?} {point}");
            // Every snapshot but the damaged one is there once, with all but what is lost.
            let overlays = owner.overlays().unwrap();
            let set = owner.snapshots().unwrap().snapshots;
            assert_eq!(set.len(), 3, "{mode:?} {point}");
            for snapshot in &set {
                let origin = overlays.origin(&snapshot.id);
                let files = fixture.expected.remove(&origin).unwrap();
                for (path, expected) in files {
                    let (node, bytes) = node(&owner, &snapshot.id, path);
                    match missing_of(&node) {
                        None => assert!(bytes == expected, "{path} {mode:?} {point}"),
                        Some(_) => assert!(lost.contains(&path.as_bytes()), "{path} {mode:?} {point}"),
                    }
                }
            }
        }
    }
}
