//! Many snapshots in one object: merging, whatever comes between, and what damage and forgery do.
#![allow(clippy::unwrap_used)] // a failed step is a failed test

mod check_support;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use check_support::forger::Forger;
use check_support::*;
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, BackendError, Bytes, MemoryBackend, ObjectMeta, ObjectName, PutOutcome};
use snap_engine::ReadData;
use snap_format::{BundledSnapshot, ObjectId, ObjectKind, SnapshotBundle};
use snap_repo::{Area, MergeReport, MergeRequest, RepoError, Repository, object_name};

const NONE: [&str; 0] = [];

fn all() -> MergeRequest {
    MergeRequest { stored_before_secs: i64::MAX, ..MergeRequest::default() }
}

fn dropping(ids: &[ObjectId]) -> MergeRequest {
    MergeRequest { drop: ids.iter().copied().collect(), ..all() }
}

fn open_over(backend: Arc<dyn Backend>) -> Repository {
    Repository::open(backend, &key(OWNER)).unwrap()
}

fn open(backend: &MemoryBackend) -> Repository {
    open_over(Arc::new(backend.clone()))
}

fn ids(repository: &Repository) -> BTreeSet<ObjectId> {
    let set = repository.snapshots().unwrap();
    assert_eq!(set.findings, []);
    let ids: BTreeSet<_> = set.snapshots.iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(ids.len(), set.snapshots.len(), "each stands for one");
    ids
}

fn objects(backend: &MemoryBackend) -> Vec<ObjectName> {
    backend.names().into_iter().filter(|name| name.as_str().starts_with("snapshots/")).collect()
}

#[test]
fn what_is_merged_is_what_it_was() {
    let mut fixture = Fixture::full();
    let before = fixture.open(OWNER).snapshots().unwrap();
    let report = fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    let [bundle] = &objects(&fixture.backend)[..] else { panic!("one object") };
    let stored_bytes = fixture.backend.get(bundle).unwrap().len() as u64;
    assert_eq!(report, MergeReport { merged: 4, dropped: 0, bundles: 1, stored_bytes, deleted: 4 });
    for secret in [OWNER, RESTORE, BACKUP] {
        let after = fixture.open(secret).snapshots().unwrap();
        assert_eq!(after.findings, []);
        for (before, after) in before.snapshots.iter().zip(&after.snapshots) {
            assert_eq!((before.id, &before.envelope, before.size), (after.id, &after.envelope, after.size));
            assert_eq!((before.slot, &before.slot_label), (after.slot, &after.slot_label));
            assert_eq!(before.stored.map(|at| at.unix_seconds), after.stored.map(|at| at.unix_seconds));
        }
        assert_eq!(check_with(&fixture.open(secret), ReadData::All).findings, []);
    }
    assert_eq!(check_keyless(&fixture.backend).findings, []);
    let report = check_with(&fixture.open(OWNER), ReadData::All);
    assert_eq!(read_the_rest(&fixture.open(OWNER), &fixture, &report), 4 * 6);
    // One more, which names as its predecessor one that is in a bundle; then both go into a new bundle.
    fixture.snapshots.pop();
    fixture.backup(OWNER, 9);
    assert_eq!(check_with(&fixture.open(OWNER), ReadData::All).findings, []);
    let report = fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    assert_eq!((report.merged, report.bundles, report.deleted), (5, 1, 2));
    assert_eq!(ids(&fixture.open(OWNER)).len(), 5);
    // With nothing new there is nothing to do.
    assert_eq!(fixture.open(OWNER).merge_snapshots(&all()).unwrap(), MergeReport::default());
    assert!(fixture.open(OWNER).plan_merge(&all()).unwrap().is_empty());
}

#[test]
fn what_is_young_stays_alone() {
    let mut fixture = Fixture::new();
    for seed in 1..=3 {
        fixture.backup(OWNER, seed);
    }
    fixture.backend.advance(std::time::Duration::from_secs(1000));
    let young = fixture.backup(OWNER, 4);
    let set = fixture.open(OWNER).snapshots().unwrap();
    let stored = |id| set.snapshots.iter().find(|s| s.id == id).unwrap().stored.unwrap().unix_seconds;
    let request = MergeRequest { stored_before_secs: stored(young), ..MergeRequest::default() };
    assert_eq!(stored(young), stored(fixture.snapshots[0]) + 1000);
    let report = fixture.open(OWNER).merge_snapshots(&request).unwrap();
    assert_eq!((report.merged, report.deleted, objects(&fixture.backend).len()), (3, 3, 2));
    assert!(objects(&fixture.backend).contains(&object_name(Area::Snapshots, &young)));
}

#[test]
fn owners_alone_merge() {
    let fixture = Fixture::full();
    for secret in [BACKUP, RESTORE] {
        let refused = fixture.open(secret).merge_snapshots(&all()).unwrap_err();
        assert!(matches!(refused, RepoError::Role { .. }), "{refused:?}");
    }
}

#[test]
fn snapshots_go_away_wherever_they_stand() {
    let mut fixture = Fixture::full();
    let [first, second, third, of_backup] = fixture.snapshots[..] else { panic!("four") };
    let forget = |fixture: &Fixture, gone: &[ObjectId]| {
        Forger::new(&fixture.backend, [OWNER; 32]).put_forget(gone);
        fixture.open(OWNER).merge_snapshots(&dropping(gone)).unwrap()
    };
    assert_eq!(forget(&fixture, &[first]).dropped, 1, "alone");
    assert_eq!(ids(&fixture.open(OWNER)), [second, third, of_backup].into());
    let fresh = fixture.backup(OWNER, 9);
    assert_eq!(forget(&fixture, &[second, fresh, ObjectId([9; 32])]).dropped, 2, "in a bundle, and alone");
    assert_eq!(ids(&fixture.open(OWNER)), [third, of_backup].into());
    assert_eq!(check_with(&fixture.open(OWNER), ReadData::None).findings, []);
    // A rotten one goes too; nothing stays when all go.
    let rotten = fixture.backup(OWNER, 10);
    fixture.backend.damage(&object_name(Area::Snapshots, &rotten), |bytes| bytes[50] ^= 1);
    assert_eq!(forget(&fixture, &[third, of_backup, rotten]).dropped, 3);
    assert_eq!(objects(&fixture.backend), [] as [ObjectName; 0]);
}

#[test]
fn killed_anywhere_it_loses_nothing() {
    let mut fixture = Fixture::full();
    fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    fixture.snapshots.pop();
    fixture.backup(OWNER, 7);
    fixture.backup(OWNER, 8);
    let everything = ids(&fixture.open(OWNER));
    let state = fixture.backend.snapshot();
    for request in [all(), dropping(&fixture.snapshots[..1]), dropping(&[*fixture.snapshots.last().unwrap()])]
    {
        let kept: BTreeSet<_> = everything.iter().filter(|id| !request.drop.contains(id)).copied().collect();
        let counted = Arc::new(CrashBackend::immortal(Arc::new(MemoryBackend::from_state(state.clone()))));
        let repository = open_over(Arc::clone(&counted) as _);
        let before = counted.operations();
        repository.merge_snapshots(&request).unwrap();
        for step in before..counted.operations() {
            for mode in [CrashMode::Before, CrashMode::After] {
                let memory = MemoryBackend::from_state(state.clone());
                let inner = Arc::new(memory.clone());
                let store = Arc::new(CrashBackend::new(inner, CrashPoint::Operation(step), mode));
                let outcome = open_over(store).merge_snapshots(&request);
                assert!(outcome.is_err(), "step {step}");
                let left = ids(&open(&memory));
                assert!(left.is_superset(&kept) && left.is_subset(&everything), "step {step}, {mode:?}");
                if request.drop.is_empty() {
                    assert_eq!(brief(&check_with(&open(&memory), ReadData::None)), NONE, "step {step}");
                }
                // The next one ends what this one began.
                open(&memory).merge_snapshots(&request).unwrap();
                assert_eq!(ids(&open(&memory)), kept, "step {step}, {mode:?}");
                assert_eq!(objects(&memory).len(), 1, "step {step}, {mode:?}");
            }
        }
    }
}

#[test]
fn a_damaged_bundle_hides_nothing_else_and_is_left_alone() {
    let mut fixture = Fixture::full();
    fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    let bundle = objects(&fixture.backend).remove(0);
    fixture.snapshots.pop();
    let young = [fixture.backup(OWNER, 8), fixture.backup(OWNER, 9)];
    fixture.backend.damage(&bundle, |bytes| bytes[100] ^= 1);
    for secret in [OWNER, BACKUP] {
        let set = fixture.open(secret).snapshots().unwrap();
        let found: Vec<_> = set.findings.iter().map(|f| (f.code.as_str(), f.object.as_str())).collect();
        assert_eq!(found, [("corrupt", bundle.as_str())]);
        assert_eq!(set.snapshots.iter().map(|s| s.id).collect::<BTreeSet<_>>(), young.into());
    }
    assert_eq!(brief(&check_keyless(&fixture.backend)), [format!("corrupt {bundle}")]);
    let report = check_with(&fixture.open(OWNER), ReadData::None);
    // The first of the young ones names one that was in it.
    let lost = object_name(Area::Snapshots, &fixture.snapshots[2]);
    assert_eq!(brief(&report), [format!("corrupt {bundle}"), format!("missing {lost}")]);
    let report = fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    assert_eq!((report.merged, report.deleted), (2, 2));
    assert!(objects(&fixture.backend).contains(&bundle));
}

/// A bundle of the objects that are there, as `forger` makes it.
fn forge_bundle(forger: &Forger, members: &[Bytes]) -> ObjectName {
    let members =
        members.iter().map(|bytes| BundledSnapshot { stored_secs: 5, bytes: bytes.to_vec() }).collect();
    let payload = SnapshotBundle { members }.encode();
    forger.put(Area::Snapshots, forger.seal_box(ObjectKind::SnapshotBundle, &payload))
}

#[test]
fn bundles_of_others_than_owners_are_forged() {
    let fixture = Fixture::full();
    let originals: Vec<Bytes> =
        objects(&fixture.backend).iter().map(|name| fixture.backend.get(name).unwrap()).collect();
    let kept = object_name(Area::Snapshots, &fixture.snapshots[0]);
    for secret in [BACKUP, RESTORE] {
        let state = fixture.backend.snapshot();
        let bundle = forge_bundle(&Forger::new(&fixture.backend, [secret; 32]), &originals);
        fixture.backend.remove(&kept);
        let set = fixture.open(OWNER).snapshots().unwrap();
        assert_eq!(set.snapshots.len(), 3, "nothing of it is used");
        let found: Vec<_> = set.findings.iter().map(|f| (f.code.as_str(), f.object.as_str())).collect();
        assert_eq!(found, [("forged", bundle.as_str())]);
        assert!(
            brief(&check_with(&fixture.open(OWNER), ReadData::None)).contains(&format!("forged {bundle}"))
        );
        fixture.backend.restore(state);
    }
}

#[test]
fn a_forged_member_hides_no_other() {
    let fixture = Fixture::full();
    let owner = Forger::new(&fixture.backend, [OWNER; 32]);
    let backup = Forger::new(&fixture.backend, [BACKUP; 32]);
    let original = fixture.backend.get(&object_name(Area::Snapshots, &fixture.snapshots[1])).unwrap();
    // A backup slot's for the owner's domain; a record; a bundle; nothing.
    let root = snap_format::BlobId([1; 32]);
    let foreign = backup.put_snapshot("main", root, None);
    let forged = fixture.backend.get(&foreign).unwrap();
    fixture.backend.remove(&foreign);
    let record: Bytes = owner.seal_box(ObjectKind::Record, &[0xa0]).into();
    let payload =
        SnapshotBundle { members: vec![BundledSnapshot { stored_secs: 1, bytes: original.to_vec() }] };
    let nested: Bytes = owner.seal_box(ObjectKind::SnapshotBundle, &payload.encode()).into();
    let members = [forged, record, nested, Bytes::new(), original];
    let bundle = forge_bundle(&owner, &members);
    for id in &fixture.snapshots {
        fixture.backend.remove(&object_name(Area::Snapshots, id));
    }
    let set = fixture.open(OWNER).snapshots().unwrap();
    assert_eq!(set.snapshots.iter().map(|s| s.id).collect::<Vec<_>>(), [fixture.snapshots[1]]);
    assert_eq!(set.findings.len(), 4, "{:?}", set.findings);
    assert!(set.findings.iter().all(|finding| finding.object == bundle.as_str()));
    let found = brief(&check_with(&fixture.open(OWNER), ReadData::None));
    assert_eq!(found.iter().filter(|line| line.ends_with(bundle.as_str())).count(), 4, "{found:?}");
}

#[test]
fn the_earliest_time_of_storing_counts() {
    let fixture = Fixture::full();
    let id = fixture.snapshots[0];
    let alone = fixture.backend.get(&object_name(Area::Snapshots, &id)).unwrap();
    forge_bundle(&Forger::new(&fixture.backend, [OWNER; 32]), &[alone]);
    let set = fixture.open(OWNER).snapshots().unwrap();
    let snapshot = set.snapshots.iter().find(|snapshot| snapshot.id == id).unwrap();
    assert_eq!((set.snapshots.len(), snapshot.stored.unwrap().unix_seconds), (4, 5));
    assert!(snapshot.is_from_the_future());
    // Merging keeps it.
    fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    let set = fixture.open(OWNER).snapshots().unwrap();
    let snapshot = set.snapshots.iter().find(|snapshot| snapshot.id == id).unwrap();
    assert_eq!(snapshot.stored.unwrap().unix_seconds, 5);
}

/// Calls `hook` before the operation number `at`, counted from when it is armed. While the hook runs it is not called.
struct Meddled<F> {
    inner: MemoryBackend,
    at: u64,
    armed: AtomicBool,
    count: AtomicU64,
    hook: F,
}

impl<F: Fn(&MemoryBackend)> Meddled<F> {
    fn step(&self) {
        if self.armed.load(Ordering::SeqCst) && self.count.fetch_add(1, Ordering::SeqCst) == self.at {
            (self.hook)(&self.inner);
        }
    }
}

impl<F> fmt::Debug for Meddled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddled")
    }
}

impl<F: Fn(&MemoryBackend) + Send + Sync> Backend for Meddled<F> {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.step();
        self.inner.get(name)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.step();
        self.inner.get_range(name, offset, len)
    }
    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.step();
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
        self.step();
        self.inner.list(prefix, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.step();
        self.inner.delete(name)
    }
    fn location(&self) -> String {
        "meddled".into()
    }
    fn parallelism(&self) -> usize {
        1
    }
}

#[test]
fn nothing_goes_before_the_bundle_is_listed() {
    let fixture = Fixture::full();
    let everything = ids(&fixture.open(OWNER));
    let originals = objects(&fixture.backend);
    // A listing, a request for each, the bundle; then it is gone when the next listing begins.
    let meddled = Arc::new(Meddled {
        inner: fixture.backend.clone(),
        at: 1 + 4 + 4 + 1,
        armed: false.into(),
        count: 0.into(),
        hook: move |backend: &MemoryBackend| {
            let fresh: Vec<_> =
                objects(backend).into_iter().filter(|name| !originals.contains(name)).collect();
            assert_eq!(fresh.len(), 1);
            backend.remove(&fresh[0]);
        },
    });
    let repository = open_over(Arc::clone(&meddled) as _);
    meddled.armed.store(true, Ordering::SeqCst);
    repository.merge_snapshots(&all()).unwrap();
    assert_eq!(ids(&fixture.open(OWNER)), everything);
}

/// Calls `run` over stores in which a merge happens before each of its operations in turn.
fn with_a_merge_at_each_step(
    state: &snap_backend::MemoryState,
    request: &MergeRequest,
    run: impl Fn(&Repository, &MemoryBackend),
) -> u64 {
    for at in 0.. {
        let inner = MemoryBackend::from_state(state.clone());
        let meddled = Arc::new(Meddled {
            inner: inner.clone(),
            at,
            armed: false.into(),
            count: 0.into(),
            hook: {
                let request = request.clone();
                move |backend: &MemoryBackend| {
                    open(backend).merge_snapshots(&request).unwrap();
                }
            },
        });
        let repository = open_over(Arc::clone(&meddled) as _);
        meddled.armed.store(true, Ordering::SeqCst);
        run(&repository, &inner);
        if meddled.count.load(Ordering::SeqCst) <= at {
            return at;
        }
    }
    unreachable!()
}

#[test]
fn two_merges_at_once() {
    let fixture = Fixture::full();
    let everything = ids(&fixture.open(OWNER));
    let alone = fixture.backend.snapshot();
    fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    let mut fixture = fixture;
    let more = [fixture.backup(OWNER, 7), fixture.backup(OWNER, 8)];
    let bundled = fixture.backend.snapshot();
    let more_than_everything: BTreeSet<_> = everything.iter().copied().chain(more).collect();
    for (state, expected) in [(&alone, &everything), (&bundled, &more_than_everything)] {
        let drop = dropping(&[*everything.first().unwrap()]);
        for (inner_request, outer) in [(all(), all()), (drop.clone(), all()), (all(), drop)] {
            let gone: HashSet<ObjectId> = inner_request.drop.union(&outer.drop).copied().collect();
            let kept: BTreeSet<_> = expected.iter().filter(|id| !gone.contains(id)).copied().collect();
            let steps = with_a_merge_at_each_step(state, &inner_request, |repository, memory| {
                repository.merge_snapshots(&outer).unwrap();
                let left = ids(&open(memory));
                assert!(left.is_superset(&kept) && left.is_subset(expected));
                // What one of two at once dropped, the other may have kept: the next one takes it away.
                let last = MergeRequest { drop: gone.clone(), ..all() };
                open(memory).merge_snapshots(&last).unwrap();
                assert_eq!((ids(&open(memory)), objects(memory).len()), (kept.clone(), 1));
            });
            assert!(steps > 8, "{steps}");
        }
    }
}

#[test]
fn a_merge_while_somebody_reads() {
    let mut fixture = Fixture::full();
    fixture.open(OWNER).merge_snapshots(&all()).unwrap();
    fixture.snapshots.pop();
    fixture.backup(OWNER, 7);
    fixture.backup(OWNER, 8);
    let everything = ids(&fixture.open(OWNER));
    let state = fixture.backend.snapshot();
    let steps = with_a_merge_at_each_step(&state, &all(), |repository, _| {
        assert_eq!(ids(repository), everything);
    });
    assert!(steps > 3, "{steps}");
    with_a_merge_at_each_step(&state, &all(), |repository, _| {
        let set = repository.settled_snapshots().unwrap();
        assert_eq!((set.snapshots.len(), set.findings.len()), (everything.len(), 0));
    });
}

/// The first listing of the snapshots passes over all that a merge moves meanwhile.
#[derive(Debug)]
struct Sliding {
    inner: MemoryBackend,
    slid: AtomicBool,
}

impl Backend for Sliding {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.inner.get(name)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.inner.get_range(name, offset, len)
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
        if prefix == "snapshots/" && !self.slid.swap(true, Ordering::SeqCst) {
            let before: Vec<_> = objects(&self.inner);
            open(&self.inner).merge_snapshots(&all()).unwrap();
            return self.inner.list(prefix, &mut |meta| match before.contains(&meta.name) {
                true => each(meta),
                false => Ok(()),
            });
        }
        self.inner.list(prefix, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.inner.delete(name)
    }
    fn location(&self) -> String {
        "sliding".into()
    }
}

#[test]
fn who_deletes_is_not_deceived_by_a_listing_that_a_merge_passes() {
    for settled in [false, true] {
        let fixture = Fixture::full();
        let store = Sliding { inner: fixture.backend.clone(), slid: false.into() };
        let repository = open_over(Arc::new(store));
        let set = if settled { repository.settled_snapshots() } else { repository.snapshots() };
        // It is so, which is why there are two ways.
        assert_eq!(set.unwrap().snapshots.len(), if settled { 4 } else { 0 });
    }
    let fixture = Fixture::full();
    let store = Sliding { inner: fixture.backend.clone(), slid: false.into() };
    let report = check_with(&open_over(Arc::new(store)), ReadData::All);
    assert_eq!(brief(&report), NONE);
    assert_eq!(report.objects, fixture.backend.len() as u64, "it has seen the bundle");
}
