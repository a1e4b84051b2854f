//! What is erased is gone from every pack, out of groups too, and nothing else is; whoever is at work meanwhile, and wherever
//! it dies.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod check_support;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use check_support::forger::Forger;
use check_support::meanwhile::Meanwhile;
use check_support::*;
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, MemoryBackend};
use snap_engine::erase::{EraseOptions, ErasePlan, Erasure};
use snap_engine::{CopyOptions, NullObserver, ReadData, copy_snapshots};
use snap_format::{BlobId, BlobKind, ObjectId, TreeBlob};
use snap_repo::prune::{PruneOptions, PruneReport};
use snap_repo::{Area, BlobReader, Index, RepoError, Repository, Scratch};

fn plan(repository: &Repository, path: &str) -> snap_engine::Result<ErasePlan> {
    let (set, overlays) = repository.snapshots_with_overlays()?;
    let paths = vec![path.as_bytes().to_vec()];
    let options = EraseOptions { paths, pinned: false, reason: "a test".into(), now: time(5000) };
    with_context(&NullObserver, |context| {
        ErasePlan::new(repository, None, set.snapshots, overlays, |_| true, options, context)
    })
}

fn erase(repository: &Repository, path: &str, copies: &[&Repository]) -> snap_engine::Result<Erasure> {
    let plan = plan(repository, path)?;
    with_context(&NullObserver, |context| plan.execute(repository, None, copies, context))
}

/// As the defaults are, but for the grace.
fn prune(repository: &Repository) -> PruneReport {
    let options = PruneOptions { grace: Duration::ZERO, ..PruneOptions::at(time(6000)) };
    with_context(&NullObserver, |context| snap_engine::prune(repository, &options, context)).unwrap()
}

/// Every blob that lies in any pack, needed or not.
fn stored(fixture: &Fixture) -> HashSet<BlobId> {
    let repository = fixture.open(OWNER);
    let packs = repository.list(Area::Packs).unwrap();
    let headers = packs.iter().map(|(id, size)| repository.read_pack_header(*id, *size).unwrap().1);
    headers.flat_map(|pack| pack.blobs).map(|blob| blob.id).collect()
}

/// The chunks of `/srv/long` in every snapshot of a full fixture, of both domains.
fn chunks_of_long(fixture: &Fixture) -> HashSet<BlobId> {
    chunks_from(fixture, 1)
}

/// The same without the first snapshots of the owner.
fn chunks_from(fixture: &Fixture, first: u64) -> HashSet<BlobId> {
    let (owner, web) =
        (Forger::new(&fixture.backend, [OWNER; 32]), Forger::new(&fixture.backend, [BACKUP; 32]));
    let of = |forger: &Forger, seed: u64| -> Vec<BlobId> {
        noise(100 + seed, 35_000).chunks(CHUNK).map(|chunk| forger.id(BlobKind::Data, chunk)).collect()
    };
    (first..=3).flat_map(|seed| of(&owner, seed)).chain(of(&web, 4)).collect()
}

/// Whether a tree in the store has a node of this name.
fn names_a_node(fixture: &Fixture, name: &str) -> bool {
    let repository = fixture.open(OWNER);
    let (index, _) = Index::load(&repository, None).unwrap();
    let index = Arc::new(index);
    let reader = BlobReader::new(repository.clone(), Arc::clone(&index));
    let mut scratch = Scratch::new(1).unwrap();
    let mut found = false;
    for domain in index.domains() {
        let keys = repository.keyring().domain(&domain).unwrap();
        for (id, place) in index.iter(&domain).filter(|(_, place)| place.kind == BlobKind::Tree) {
            assert_eq!(place.kind, BlobKind::Tree);
            if let TreeBlob::Leaf(nodes) = reader.tree(&keys, &id, &mut scratch).unwrap() {
                found |= nodes.iter().any(|node| node.name == name.as_bytes());
            }
        }
    }
    found
}

/// What is expected of what stands in place of the snapshots.
fn expect_without(fixture: &mut Fixture, path: &str) {
    let owner = fixture.open(OWNER);
    let overlays = owner.overlays().unwrap();
    for snapshot in owner.snapshots().unwrap().snapshots {
        if let Some(mut files) = fixture.expected.get(&overlays.origin(&snapshot.id)).cloned() {
            files.remove(path);
            fixture.expected.insert(snapshot.id, files);
        }
    }
}

/// Everything but what was erased is there.
#[track_caller]
fn is_whole(fixture: &mut Fixture, files: usize, what: &str) {
    expect_without(fixture, "/srv/long");
    let owner = fixture.open(OWNER);
    let report = check_with(&owner, ReadData::All);
    assert_eq!(brief(&report), [""; 0], "{what}");
    assert_eq!(read_the_rest(&owner, fixture, &report), files, "{what}");
}

#[test]
fn what_is_erased_is_in_no_pack_after_a_prune() {
    let mut fixture = Fixture::full();
    let erased = chunks_of_long(&fixture);
    assert_eq!(erased.len(), 16);
    assert!(erased.is_subset(&stored(&fixture)) && names_a_node(&fixture, "long"));
    // Some of them share a sealed unit with what stays.
    let repository = fixture.open(OWNER);
    let (index, _) = Index::load(&repository, None).unwrap();
    let grouped = erased.iter().filter_map(|id| index.locate("main", id)).filter(|at| at.group.is_some());
    assert!(grouped.count() > 0);

    let before = fixture.names("packs/").len();
    let done = erase(&repository, "/srv/long", &[]).unwrap();
    assert_eq!((done.replaced.len(), done.damaged.len()), (4, 0));
    assert!(!done.packs.is_empty() && fixture.names("packs/").len() > before);
    let report = prune(&fixture.open(OWNER));
    assert_eq!(report.deleted.packs as usize, done.packs.len(), "{report:?}");
    assert_eq!(report.moved_bytes, 0, "all else has been moved already");
    assert!(erased.is_disjoint(&stored(&fixture)));
    assert!(!names_a_node(&fixture, "long"));
    is_whole(&mut fixture, 4 * 5, "after the prune");
    assert!(plan(&fixture.open(OWNER), "/srv/long").unwrap().is_empty());
}

#[test]
fn what_something_else_needs_stays() {
    // The same content under another name.
    let mut fixture = Fixture::full();
    let repository = fixture.open(OWNER);
    let forger = Forger::new(&fixture.backend, [OWNER; 32]);
    let writer = begin(&repository);
    let ids = noise(101, 35_000).chunks(CHUNK).map(|chunk| forger.id(BlobKind::Data, chunk)).collect();
    let root = leaf(&writer, vec![file("again", 35_000, snap_format::Content::Blobs(ids), vec![])]);
    let id = writer.finish().unwrap().commit(new_snapshot(root, time(99), None)).unwrap();
    fixture.expected.insert(id, [("/again", noise(101, 35_000))].into());
    let erased = chunks_of_long(&fixture);
    erase(&fixture.open(OWNER), "/srv/long", &[]).unwrap();
    prune(&fixture.open(OWNER));
    assert_eq!(erased.intersection(&stored(&fixture)).count(), 4);
    is_whole(&mut fixture, 4 * 5 + 1, "with the other name");
}

#[test]
fn wherever_it_dies_the_same_again_finishes_it() {
    let fixture = Fixture::full();
    let erased = chunks_of_long(&fixture);
    let state = fixture.backend.snapshot();
    let store = Arc::new(CrashBackend::immortal(Arc::new(fixture.backend.clone())));
    erase(&Repository::open(store.clone(), &key(OWNER)).unwrap(), "/srv/long", &[]).unwrap();
    assert!(store.mutations() > 12);
    for mode in [CrashMode::Before, CrashMode::After] {
        for point in 0..store.mutations() {
            let what = format!("{mode:?} {point}");
            let mut fixture = Fixture {
                backend: MemoryBackend::from_state(state.clone()),
                expected: fixture.expected.clone(),
                snapshots: fixture.snapshots.clone(),
            };
            let inner = Arc::new(fixture.backend.clone());
            let dying = CrashBackend::new(inner, CrashPoint::Mutation(point), mode);
            let dying = Repository::open(Arc::new(dying), &key(OWNER)).unwrap();
            erase(&dying, "/srv/long", &[]).unwrap_err();
            erase(&fixture.open(OWNER), "/srv/long", &[]).unwrap();
            prune(&fixture.open(OWNER));
            assert!(erased.is_disjoint(&stored(&fixture)), "{what}");
            assert_eq!(fixture.open(OWNER).snapshots().unwrap().snapshots.len(), 4, "{what}");
            is_whole(&mut fixture, 4 * 5, &what);
        }
    }
}

#[test]
fn a_backup_meanwhile_loses_nothing() {
    for number in 0.. {
        let mut fixture = Fixture::full();
        let twin = Arc::new(Mutex::new(Fixture {
            backend: fixture.backend.clone(),
            expected: fixture.expected.clone(),
            snapshots: fixture.snapshots.clone(),
        }));
        let others = Arc::clone(&twin);
        // It has what is erased once more, and finds it stored.
        let act = move || {
            others.lock().unwrap().backup(OWNER, 3);
        };
        let store = Arc::new(Meanwhile::new(Arc::new(fixture.backend.clone()), number, act));
        let repository = Repository::open(store.clone(), &key(OWNER)).unwrap();
        let outcome = erase(&repository, "/srv/long", &[]);
        let is_overtaken = matches!(&outcome, Err(snap_engine::EngineError::Repo(RepoError::Overtaken)));
        assert!(outcome.is_ok() || is_overtaken, "{number}: {outcome:?}");
        if !store.has_acted() {
            break;
        }
        prune(&fixture.open(OWNER));
        let new = *twin.lock().unwrap().snapshots.last().unwrap();
        let owner = fixture.open(OWNER);
        let report = check_with(&owner, ReadData::All);
        assert_eq!(brief(&report), [""; 0], "{number}");
        let files = twin.lock().unwrap().expected[&new].clone();
        fixture.expected = [(new, files)].into();
        let there: BTreeSet<ObjectId> = owner.snapshots().unwrap().snapshots.iter().map(|it| it.id).collect();
        // It came before the plan, or stays as it is.
        if there.contains(&new) {
            assert_eq!(read_the_rest(&owner, &fixture, &report), 6, "{number}");
        } else {
            is_whole(&mut fixture, 5, &format!("{number}"));
        }
    }
}

/// A copy of a full fixture with all that it has.
fn copy_of(fixture: &Fixture) -> Fixture {
    let backend = MemoryBackend::new();
    let owner = fixture.open(OWNER);
    owner.create_copy(&backend, time(0)).unwrap();
    let copy = Fixture { backend, expected: fixture.expected.clone(), snapshots: fixture.snapshots.clone() };
    let options = CopyOptions::new(time(4000));
    let target = copy.open(OWNER);
    with_context(&NullObserver, |it| copy_snapshots(&owner, &target, None, &options, it)).unwrap();
    copy
}

#[test]
fn copies_get_the_same_snapshots() {
    let mut one = Fixture::full();
    let mut two = copy_of(&one);
    // One of them has gone from the first.
    one.open(OWNER).forget(&one.snapshots[..1], &[], time(600)).unwrap();
    let first = one.open(OWNER);
    let done = erase(&first, "/srv/long", &[]).unwrap();
    let same = erase(&two.open(OWNER), "/srv/long", &[&first]).unwrap();
    let ids = |erasure: &Erasure| erasure.replaced.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!((done.replaced.len(), same.replaced.len()), (3, 4));
    assert!(ids(&done).is_subset(&ids(&same)), "{done:?} {same:?}");
    // What was forgotten before is nobody's any more, and may be left among what is unused.
    for (fixture, first, files) in [(&mut one, 2, 3 * 5), (&mut two, 1, 4 * 5)] {
        prune(&fixture.open(OWNER));
        assert!(chunks_from(fixture, first).is_disjoint(&stored(fixture)));
        is_whole(fixture, files, "a copy");
    }
    // There is nothing left to copy.
    let options = CopyOptions::new(time(7000));
    let report = with_context(&NullObserver, |it| {
        copy_snapshots(&one.open(OWNER), &two.open(OWNER), None, &options, it)
    });
    assert_eq!(report.unwrap().snapshots, []);
}

#[test]
fn a_copy_that_was_interrupted_takes_over_the_same() {
    let one = Fixture::full();
    let two = copy_of(&one);
    let first = one.open(OWNER);
    erase(&first, "/srv/long", &[]).unwrap();
    let new: BTreeSet<ObjectId> = first.snapshots().unwrap().snapshots.iter().map(|it| it.id).collect();
    let state = two.backend.snapshot();
    let store = Arc::new(CrashBackend::immortal(Arc::new(two.backend.clone())));
    erase(&Repository::open(store.clone(), &key(OWNER)).unwrap(), "/srv/long", &[&first]).unwrap();
    for point in 0..store.mutations() {
        let mut two = Fixture {
            backend: MemoryBackend::from_state(state.clone()),
            expected: two.expected.clone(),
            snapshots: two.snapshots.clone(),
        };
        let inner = Arc::new(two.backend.clone());
        let dying = CrashBackend::new(inner, CrashPoint::Mutation(point), CrashMode::After);
        let dying = Repository::open(Arc::new(dying), &key(OWNER)).unwrap();
        erase(&dying, "/srv/long", &[&first]).unwrap_err();
        erase(&two.open(OWNER), "/srv/long", &[&first]).unwrap();
        prune(&two.open(OWNER));
        let there: BTreeSet<ObjectId> =
            two.open(OWNER).snapshots().unwrap().snapshots.iter().map(|it| it.id).collect();
        assert_eq!(there, new, "{point}");
        is_whole(&mut two, 4 * 5, &format!("{point}"));
    }
}

#[test]
fn what_a_copy_has_lost_is_not_taken_over() {
    let one = Fixture::full();
    let mut two = copy_of(&one);
    // The first has lost data, and has holes in place of them.
    let lost = one.names("packs/").into_iter().max_by_key(|name| one.backend.stat(name).unwrap().size_bytes);
    one.backend.remove(&lost.unwrap());
    let first = one.open(OWNER);
    let options =
        snap_engine::repair::RepairOptions { dry_run: false, give_up_epochs: false, now: time(4500) };
    let repaired =
        with_context(&NullObserver, |it| snap_engine::repair::repair(&first, None, &options, it)).unwrap();
    assert!(repaired.lost_count > 0);
    erase(&two.open(OWNER), "/srv/long", &[&first]).unwrap();
    is_whole(&mut two, 4 * 5, "the copy that is whole");
}
