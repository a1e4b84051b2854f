//! Snapshots that were verified once and are not fetched again.
#![allow(clippy::unwrap_used)] // a failed step is a failed test

mod check_support;

use std::path::Path;
use std::sync::Arc;

use check_support::forger::Forger;
use check_support::*;
use snap_backend::testing::RecordingBackend;
use snap_backend::{MemoryBackend, Operation};
use snap_format::{BlobId, ObjectId};
use snap_repo::{Area, Cache, MergeRequest, Repository, Snapshot, SnapshotSet, object_name};

fn everything() -> MergeRequest {
    MergeRequest { stored_before_secs: i64::MAX, ..MergeRequest::default() }
}

/// Opens the repository with a cache, reads the snapshots, and counts the objects fetched for it.
fn read(backend: &MemoryBackend, secret: u8, cache: &Path) -> (SnapshotSet, usize) {
    let recording = RecordingBackend::new(Arc::new(backend.clone()));
    let repository = Repository::open(Arc::new(recording.clone()), &key(secret)).unwrap();
    repository.remember_in(&Cache::new(cache, repository.id()));
    let _ = recording.take();
    let set = repository.snapshots().unwrap();
    let gets = recording.take().iter().filter(|call| call.operation == Operation::Get).count();
    (set, gets)
}

fn same(a: &[Snapshot], b: &[Snapshot]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!((a.id, &a.envelope, a.stored, a.size), (b.id, &b.envelope, b.stored, b.size));
        assert_eq!((a.slot, &a.slot_label, a.epoch), (b.slot, &b.slot_label, b.epoch));
    }
}

#[test]
fn only_what_is_new_is_fetched() {
    let mut fixture = Fixture::full();
    let plain = fixture.open(OWNER).snapshots().unwrap().snapshots;
    let cache = tempfile::tempdir().unwrap();
    for expected in [4, 0, 0] {
        let (set, gets) = read(&fixture.backend, OWNER, cache.path());
        assert_eq!((gets, set.findings.len()), (expected, 0));
        same(&set.snapshots, &plain);
    }
    // Whoever may use the cache has the keys to verify what is in it.
    for secret in [BACKUP, RESTORE] {
        let (set, gets) = read(&fixture.backend, secret, cache.path());
        assert_eq!(gets, 0);
        same(&set.snapshots, &plain);
    }
    fixture.snapshots.pop();
    let young = fixture.backup(OWNER, 9);
    let (set, gets) = read(&fixture.backend, BACKUP, cache.path());
    assert_eq!((gets, set.snapshots.len()), (1, 5));
    // Bundles, too, and what is in them.
    fixture.open(OWNER).merge_snapshots(&everything()).unwrap();
    let plain = fixture.open(OWNER).snapshots().unwrap().snapshots;
    for expected in [1, 0] {
        let (set, gets) = read(&fixture.backend, OWNER, cache.path());
        assert_eq!(gets, expected);
        same(&set.snapshots, &plain);
    }
    // What is gone is gone.
    let drop = MergeRequest { drop: [young].into(), ..everything() };
    fixture.open(OWNER).merge_snapshots(&drop).unwrap();
    assert_eq!(read(&fixture.backend, OWNER, cache.path()).0.snapshots.len(), 4);
}

#[test]
fn what_is_wrong_is_read_each_time() {
    let fixture = Fixture::full();
    let rotten = object_name(Area::Snapshots, &fixture.snapshots[1]);
    let forged = Forger::new(&fixture.backend, [BACKUP; 32]).put_snapshot("main", BlobId([1; 32]), None);
    let state = fixture.backend.snapshot();
    fixture.backend.damage(&rotten, |bytes| bytes[60] ^= 1);
    let cache = tempfile::tempdir().unwrap();
    for expected in [5, 2, 2] {
        let (set, gets) = read(&fixture.backend, OWNER, cache.path());
        assert_eq!((gets, set.snapshots.len()), (expected, 3));
        let mut found: Vec<_> = set.findings.iter().map(|finding| finding.object.clone()).collect();
        found.sort();
        let mut named = [rotten.to_string(), forged.to_string()];
        named.sort();
        assert_eq!(found, named);
    }
    // And believed once it is healed.
    fixture.backend.restore(state);
    assert_eq!(read(&fixture.backend, OWNER, cache.path()).0.snapshots.len(), 4);
}

#[test]
fn a_damaged_or_foreign_table_is_made_again() {
    let (fixture, other) = (Fixture::full(), Fixture::full());
    let cache = tempfile::tempdir().unwrap();
    read(&fixture.backend, OWNER, cache.path());
    read(&other.backend, OWNER, cache.path());
    let [own, foreign] = [&fixture, &other].map(|fixture| Cache::new(cache.path(), fixture.open(OWNER).id()));
    let file = "snapshots.recent";
    let whole = own.read(file).unwrap();
    for damage in [foreign.read(file).unwrap(), whole[..whole.len() / 2].to_vec(), {
        // A table that says of one snapshot what is not true.
        let mut lie = whole.clone();
        *lie.last_mut().unwrap() ^= 1;
        lie
    }] {
        own.write(file, &damage).unwrap();
        for expected in [4, 0] {
            let (set, gets) = read(&fixture.backend, OWNER, cache.path());
            assert_eq!((gets, set.snapshots.len(), set.findings.len()), (expected, 4, 0));
        }
    }
}

#[test]
fn merging_does_not_rely_on_the_cache() {
    let fixture = Fixture::full();
    let cache = tempfile::tempdir().unwrap();
    read(&fixture.backend, OWNER, cache.path());
    let rotten = object_name(Area::Snapshots, &fixture.snapshots[1]);
    fixture.backend.damage(&rotten, |bytes| bytes[60] ^= 1);
    let repository = fixture.open(OWNER);
    repository.remember_in(&Cache::new(cache.path(), repository.id()));
    let report = repository.merge_snapshots(&everything()).unwrap();
    assert_eq!((report.merged, report.deleted), (3, 3));
    assert!(fixture.names("snapshots/").contains(&rotten));
}

#[test]
fn bodies_are_opened_once_and_by_readers_only() {
    let fixture = Fixture::full();
    let cache = tempfile::tempdir().unwrap();
    let bodies = |secret| {
        let repository = fixture.open(secret);
        repository.remember_in(&Cache::new(cache.path(), repository.id()));
        let mut snapshots = repository.snapshots().unwrap().snapshots;
        // Without the sealed body nothing but the cache can tell.
        let sealed = repository.open_bodies(&snapshots).map(|(bodies, _)| bodies.len());
        snapshots.iter_mut().for_each(|snapshot| snapshot.envelope.body.clear());
        sealed.map(|sealed| (sealed, repository.open_bodies(&snapshots).unwrap()))
    };
    let (sealed, (known, findings)) = bodies(OWNER).unwrap();
    assert_eq!((sealed, known.len(), findings.len()), (4, 4, 0));
    assert!(known.values().all(|body| body.paths == [b"/srv"]));
    assert!(bodies(BACKUP).is_err());
    let (_, (known, findings)) = bodies(RESTORE).unwrap();
    assert_eq!((known.len(), findings.len()), (4, 0));
    let ids: std::collections::BTreeSet<ObjectId> = known.into_keys().collect();
    assert_eq!(ids, fixture.snapshots.iter().copied().collect());
}

#[test]
fn two_at_once_lose_nothing_that_matters() {
    let mut fixture = Fixture::full();
    let cache = tempfile::tempdir().unwrap();
    for round in 10..14 {
        fixture.snapshots.pop();
        fixture.backup(OWNER, round);
        let expected = fixture.open(OWNER).snapshots().unwrap().snapshots;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (set, _) = read(&fixture.backend, OWNER, cache.path());
                    assert_eq!(set.findings, []);
                    same(&set.snapshots, &expected);
                });
            }
        });
    }
    read(&fixture.backend, OWNER, cache.path());
    assert_eq!(read(&fixture.backend, OWNER, cache.path()).1, 0);
}
