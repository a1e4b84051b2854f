//! How often very many packs are listed.
#![allow(clippy::unwrap_used)] // a failed step is a failed test

mod check_support;

use std::sync::Arc;

use check_support::forger::Forger;
use check_support::*;
use snap_backend::testing::RecordingBackend;
use snap_backend::{Backend, Operation};
use snap_format::{BlobKind, IndexedPack, ObjectId};
use snap_repo::{Cache, Index, Repository, Scratch, Writer, WriterOptions, areas_of_a_backup};

const DAY: i64 = 24 * 60 * 60;

/// An index that names so many packs more, which are not there and hold nothing.
fn name_packs(fixture: &Fixture, count: u32) {
    let pack = |number: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let domain = "main".to_owned();
        let (run_keys, blobs) = (Vec::new(), Vec::new());
        IndexedPack { id: ObjectId(id), size: 100, kind: BlobKind::Data, domain, run_keys, blobs }
    };
    let packs: Vec<_> = (0..count).map(pack).collect();
    Forger::new(&fixture.backend, [OWNER; 32]).put_index(&packs);
}

/// Begins and ends a run that stores nothing; returns how many listings of packs that took.
fn listings(fixture: &Fixture, cache: &std::path::Path, now: i64) -> usize {
    let recording = RecordingBackend::new(Arc::new(fixture.backend.clone()));
    let areas = areas_of_a_backup(Some(&Cache::of_place(cache, &recording.location())));
    let repository = Repository::open_with(Arc::new(recording.clone()), &key(OWNER), &areas).unwrap();
    let cache = Cache::new(cache, repository.id());
    let (index, findings) = Index::load(&repository, None).unwrap();
    assert_eq!(findings, []);
    let options = WriterOptions { now: Some(time(now)), ..WriterOptions::default() };
    let writer = Writer::begin(&repository, index, Some(&cache), options).unwrap();
    writer.finish().unwrap().abandon();
    let calls = recording.take();
    calls.iter().filter(|call| call.operation == Operation::List && call.name.starts_with("packs/")).count()
}

#[test]
fn few_packs_are_listed_each_time() {
    let fixture = Fixture::full();
    name_packs(&fixture, 9000);
    let cache = tempfile::tempdir().unwrap();
    for now in [0, 1, 2] {
        assert_eq!(listings(&fixture, cache.path(), now), 1);
    }
}

#[test]
fn many_packs_are_listed_once_a_day() {
    let fixture = Fixture::full();
    name_packs(&fixture, 10_001);
    let caches = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [cache, other] = caches.each_ref().map(|cache| cache.path());
    // The first run on a machine cannot know; afterwards they are listed by their 256 directories.
    for (now, expected) in [(0, 1), (1, 0), (DAY - 1, 0), (DAY, 256), (DAY + 1, 0), (5, 256), (6, 0)] {
        assert_eq!(listings(&fixture, cache, now), expected, "at {now}");
    }
    assert_eq!(listings(&fixture, other, 7), 1, "another machine");
    // After a run that did not end, the packs that it may have left are looked for.
    let repository = fixture.open(OWNER);
    let copy: String = repository.config().copy.iter().map(|byte| format!("{byte:02x}")).collect();
    let pending = format!("pending-{}-{copy}", repository.keyring().slot());
    let own = Cache::new(cache, repository.id());
    own.write(&pending, b"").unwrap();
    assert_eq!(listings(&fixture, cache, 8), 256);
    assert_eq!(listings(&fixture, cache, 9), 0);
}

#[test]
fn packs_that_are_gone_are_noticed_by_a_look() {
    let fixture = Fixture::full();
    name_packs(&fixture, 10_001);
    let cache = tempfile::tempdir().unwrap();
    listings(&fixture, cache.path(), 0);
    let known = |now| {
        let repository = fixture.open(OWNER);
        let (index, _) = Index::load(&repository, None).unwrap();
        let blobs: Vec<_> = index.iter("main").map(|(id, _)| id).collect();
        let cache = Cache::new(cache.path(), repository.id());
        let options = WriterOptions { now: Some(time(now)), ..WriterOptions::default() };
        let writer = Writer::begin(&repository, index, Some(&cache), options).unwrap();
        let known = blobs.iter().filter(|id| writer.knows(id)).count();
        writer.finish().unwrap().abandon();
        (known, blobs.len())
    };
    let (before, all) = known(1);
    assert_eq!(before, all);
    for pack in fixture.names("packs/") {
        fixture.backend.remove(&pack);
    }
    assert_eq!(known(2), (all, all), "not yet");
    assert_eq!(known(DAY), (0, all));
}

#[test]
fn another_index_object_ends_the_trust() {
    let fixture = Fixture::full();
    name_packs(&fixture, 10_001);
    let cache = tempfile::tempdir().unwrap();
    assert_eq!([listings(&fixture, cache.path(), 0), listings(&fixture, cache.path(), 1)], [1, 0]);
    // As a writer leaves it that was suspended for long: what it names may be gone.
    name_packs(&fixture, 3);
    assert_eq!([listings(&fixture, cache.path(), 2), listings(&fixture, cache.path(), 3)], [256, 0]);
    // What this machine writes itself does not count.
    let repository = fixture.open(OWNER);
    let own = Cache::new(cache.path(), repository.id());
    let (index, _) = Index::load(&repository, None).unwrap();
    let options = WriterOptions { now: Some(time(4)), ..WriterOptions::default() };
    let writer = Writer::begin(&repository, index, Some(&own), options).unwrap();
    let (_, is_new) = writer.add(BlobKind::Data, b"something new", &mut Scratch::new(3).unwrap()).unwrap();
    assert!(is_new);
    writer.finish().unwrap().abandon();
    assert_eq!(listings(&fixture, cache.path(), 5), 0);
}
