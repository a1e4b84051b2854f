//! What a prune does when nobody is in its way, and what it refuses.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod support;

use std::sync::Arc;
use std::time::Duration;

use snap_backend::{Backend, MemoryBackend};
use snap_format::ObjectId;
use snap_repo::prune::{PackSum, PruneOptions, Waste};
use snap_repo::{Area, RepoError, Repository, Secret, object_name};
use support::{backup, create, forget, open, prune_now, prune_options, read_back};

struct Lab {
    memory: Arc<MemoryBackend>,
    secret: Secret,
}

impl Lab {
    fn new() -> Self {
        let memory = Arc::new(MemoryBackend::new());
        Self { secret: create(memory.as_ref()), memory }
    }

    fn repository(&self) -> Repository {
        open(Arc::clone(&self.memory) as Arc<dyn Backend>, &self.secret)
    }

    fn names(&self, area: Area) -> Vec<ObjectId> {
        self.repository().list(area).unwrap().into_iter().map(|(id, _)| id).collect()
    }

    fn bytes(&self) -> u64 {
        self.repository().list(Area::Packs).unwrap().iter().map(|(_, size)| size).sum()
    }

    fn prune(&self, options: &PruneOptions) -> snap_repo::prune::PruneReport {
        prune_now(&self.repository(), options).unwrap()
    }
}

#[test]
fn dead_packs_go_and_the_rest_is_kept() {
    let lab = Lab::new();
    let repository = lab.repository();
    let first = backup(&repository, &[1, 2, 3], 10).unwrap();
    let second = backup(&repository, &[3, 4], 11).unwrap();
    forget(&repository, &first).unwrap();
    let before = lab.bytes();
    let state = lab.memory.snapshot();
    let dry = lab.prune(&PruneOptions { dry_run: true, ..prune_options(0) });
    assert!(state == lab.memory.snapshot());
    let report = lab.prune(&prune_options(0));
    assert_eq!((report.deleted, report.dead, report.orphans), (dry.deleted, dry.dead, dry.orphans));
    // Two blobs and a tree.
    assert_eq!((report.deleted.packs, report.repacked.packs), (3, 0));
    assert_eq!(lab.bytes(), before - report.deleted.bytes);
    assert_eq!(read_back(&repository, &second), Ok(2));
    // One mark stays, a trace that names nothing; the next prune finds nothing to do and writes nothing.
    assert_eq!(lab.names(Area::Marks).len(), 1);
    let quiet = lab.memory.snapshot();
    let again = lab.prune(&prune_options(0));
    assert_eq!((again.deleted, again.waiting), (PackSum::default(), PackSum::default()));
    assert!(quiet == lab.memory.snapshot());
}

#[test]
fn what_is_marked_waits_for_the_grace_by_the_clock_of_the_store() {
    let lab = Lab::new();
    let repository = lab.repository();
    let first = backup(&repository, &[1, 2], 10).unwrap();
    let second = backup(&repository, &[2, 3], 11).unwrap();
    forget(&repository, &first).unwrap();
    let packs = lab.names(Area::Packs).len();
    let report = lab.prune(&prune_options(3600));
    assert_eq!((report.deleted.packs, report.waiting.packs), (0, 2));
    assert_eq!(lab.names(Area::Packs).len(), packs);
    // Not yet; and asked again, it marks nothing twice.
    lab.memory.advance(Duration::from_secs(3599));
    let early = lab.prune(&prune_options(3600));
    assert_eq!((early.deleted.packs, early.waiting.packs), (0, 2));
    lab.memory.advance(Duration::from_secs(1));
    // Something new tells the store's time, or the clock of this machine does; here neither is ahead.
    let third = backup(&repository, &[4], 12).unwrap();
    let report = lab.prune(&prune_options(3600));
    assert_eq!((report.deleted.packs, report.waiting.packs), (2, 0));
    assert_eq!(lab.names(Area::Packs).len(), packs);
    for (snapshot, blobs) in [(second, 2), (third, 1)] {
        assert_eq!(read_back(&repository, &snapshot), Ok(blobs));
    }
    assert_eq!(lab.names(Area::Marks).len(), 1);
}

#[test]
fn a_blob_that_is_needed_again_is_moved_out_of_a_marked_pack() {
    let lab = Lab::new();
    let repository = lab.repository();
    let first = backup(&repository, &[1], 10).unwrap();
    forget(&repository, &first).unwrap();
    // A run that began before the mark, and commits after it.
    let (index, _) = snap_repo::Index::load(&repository, None).unwrap();
    let options = support::writer_options(snap_repo::Sabotage::None);
    let writer = snap_repo::Writer::begin(&repository, index, None, options).unwrap();
    let mut scratch = snap_repo::Scratch::new(1).unwrap();
    let piece = support::noise(1, 500);
    let (id, is_new) = writer.add(snap_format::BlobKind::Data, &piece, &mut scratch).unwrap();
    assert!(!is_new);
    let tree = snap_format::TreeBlob::Content(vec![id]).encode();
    let (root, _) = writer.add(snap_format::BlobKind::Tree, &tree, &mut scratch).unwrap();
    let marked = lab.prune(&prune_options(3600));
    assert_eq!(marked.waiting.packs, 2);
    let snapshot = writer.finish().unwrap().commit(support::new_snapshot(root, 20)).unwrap();
    let report = lab.prune(&prune_options(0));
    assert_eq!((report.deleted.packs, report.moved_blobs), (2, 0));
    assert_eq!(read_back(&repository, &snapshot), Ok(1));
}

#[test]
fn packs_of_dead_writers_go_when_they_are_old() {
    let lab = Lab::new();
    let repository = lab.repository();
    let kept = backup(&repository, &[1], 10).unwrap();
    let (index, _) = snap_repo::Index::load(&repository, None).unwrap();
    let options = support::writer_options(snap_repo::Sabotage::None);
    let writer = snap_repo::Writer::begin(&repository, index, None, options).unwrap();
    writer
        .add(snap_format::BlobKind::Data, &support::noise(7, 700), &mut snap_repo::Scratch::new(1).unwrap())
        .unwrap();
    drop(writer);
    assert_eq!(lab.names(Area::Packs).len(), 3);
    assert_eq!(lab.prune(&prune_options(3600)).orphans.packs, 0);
    lab.memory.advance(Duration::from_secs(3600));
    repository.put_record("check", snap_format::Time::new(1, 0), vec![0xa0]).unwrap();
    let kept_too = backup(&open(Arc::clone(&lab.memory) as _, &lab.secret), &[1, 2], 12);
    // The run adopted it: it is indexed, and dead.
    assert!(kept_too.is_ok());
    let report = lab.prune(&prune_options(0));
    assert_eq!((report.dead.packs, report.orphans.packs), (1, 0));
    assert_eq!(read_back(&repository, &kept), Ok(1));
    assert_eq!(read_back(&repository, &kept_too.unwrap()), Ok(2));
}

#[test]
fn wasteful_packs_are_repacked_and_blobs_stored_twice_kept_once() {
    let lab = Lab::new();
    let repository = lab.repository();
    let big =
        snap_repo::WriterOptions { pack_target: 1 << 20, ..support::writer_options(Default::default()) };
    let first = support::backup_with(&repository, &[1, 2, 3, 4, 5, 6], 10, big.clone()).unwrap();
    let second = backup(&repository, &[1, 2, 9], 11).unwrap();
    forget(&repository, &first).unwrap();
    // A fifth is not too much if it is said so.
    let lax = lab.prune(&PruneOptions { max_waste: Waste::Share(0.9), ..prune_options(0) });
    assert_eq!(lax.repacked.packs, 0);
    assert!(lax.waste_bytes > 2000);
    let report = lab.prune(&PruneOptions { max_waste: Waste::Share(0.1), ..prune_options(0) });
    assert_eq!((report.repacked.packs, report.moved_blobs), (1, 2));
    assert_eq!(report.waste_bytes, 0);
    assert_eq!(read_back(&repository, &second), Ok(3));

    // Two that did not know of one another store the same.
    let (index, _) = snap_repo::Index::load(&repository, None).unwrap();
    let late = snap_repo::Writer::begin(&repository, index, None, big).unwrap();
    let third = backup(&repository, &[20, 21], 12).unwrap();
    let mut scratch = snap_repo::Scratch::new(1).unwrap();
    let mut ids = Vec::new();
    for piece in [20, 21, 22] {
        ids.push(late.add(snap_format::BlobKind::Data, &support::noise(piece, 500), &mut scratch).unwrap().0);
    }
    let tree = snap_format::TreeBlob::Content(ids).encode();
    let (root, _) = late.add(snap_format::BlobKind::Tree, &tree, &mut scratch).unwrap();
    let fourth = late.finish().unwrap().commit(support::new_snapshot(root, 13)).unwrap();
    let report = lab.prune(&prune_options(0));
    assert!(report.deleted.packs >= 1, "{report:?}");
    for (snapshot, blobs) in [(second, 3), (third, 2), (fourth, 3)] {
        assert_eq!(read_back(&repository, &snapshot), Ok(blobs));
    }
    assert_eq!(lab.prune(&prune_options(0)).deleted.packs, 0);
}

#[test]
fn small_packs_and_index_objects_are_merged() {
    let lab = Lab::new();
    let repository = lab.repository();
    let snapshots: Vec<_> =
        (0..12).map(|number| backup(&repository, &[number], number as i64 + 10).unwrap()).collect();
    assert_eq!((lab.names(Area::Packs).len(), lab.names(Area::Index).len()), (24, 12));
    let options = PruneOptions { pack_target: 1 << 20, ..prune_options(0) };
    let report = lab.prune(&options);
    assert_eq!((report.repacked.packs, report.moved_blobs), (24, 24));
    assert_eq!(lab.names(Area::Packs).len(), 2);
    assert!(lab.names(Area::Index).len() <= 2, "{}", lab.names(Area::Index).len());
    for snapshot in &snapshots {
        assert_eq!(read_back(&repository, snapshot), Ok(1));
    }
    assert_eq!(lab.prune(&options).deleted.packs, 0);
}

fn refuses(lab: &Lab, options: &PruneOptions) -> String {
    let before = lab.names(Area::Packs);
    let error = prune_now(&lab.repository(), options).unwrap_err();
    assert!(matches!(error, RepoError::Unprunable(_)), "{error:?}");
    assert_eq!(lab.names(Area::Packs), before);
    error.to_string()
}

#[test]
fn nothing_is_deleted_when_it_is_uncertain_what_is_needed() {
    type Damage = fn(&Lab, &ObjectId);
    let damage: [(&str, Damage); 5] = [
        ("a snapshot", |lab, snapshot| {
            lab.memory.damage(&object_name(Area::Snapshots, snapshot), |bytes| bytes[60] ^= 1);
        }),
        ("a snapshot of nobody", |lab, _| {
            let bytes = b"SNAPSBOX and no more".to_vec();
            let id = ObjectId(snap_crypto::hash(&bytes));
            lab.memory.put(&object_name(Area::Snapshots, &id), bytes.into()).unwrap();
        }),
        ("an index object", |lab, _| {
            let id = lab.names(Area::Index)[0];
            lab.memory.damage(&object_name(Area::Index, &id), |bytes| bytes[60] ^= 1);
        }),
        ("a lost index object", |lab, _| {
            for id in lab.names(Area::Index) {
                lab.memory.remove(&object_name(Area::Index, &id));
            }
        }),
        ("all packs", |lab, _| {
            for id in lab.names(Area::Packs) {
                lab.memory.damage(&object_name(Area::Packs, &id), |bytes| bytes[40] ^= 1);
            }
        }),
    ];
    for (what, damage) in damage {
        let lab = Lab::new();
        let repository = lab.repository();
        let first = backup(&repository, &[1, 2], 10).unwrap();
        let second = backup(&repository, &[2, 3], 11).unwrap();
        forget(&repository, &first).unwrap();
        damage(&lab, &second);
        let said = refuses(&lab, &prune_options(0));
        assert!(said.starts_with("nothing was deleted"), "{what}: {said}");
        refuses(&lab, &PruneOptions { dry_run: true, ..prune_options(0) });
    }
}

#[test]
fn a_damaged_snapshot_is_named() {
    let lab = Lab::new();
    let repository = lab.repository();
    let first = backup(&repository, &[1, 2], 10).unwrap();
    let second = backup(&repository, &[2, 3], 11).unwrap();
    let third = backup(&repository, &[4], 12).unwrap();
    forget(&repository, &first).unwrap();
    // A pack with a blob of the second alone.
    let (index, _) = snap_repo::Index::load(&repository, None).unwrap();
    let set = repository.snapshots().unwrap();
    let domain = repository.domain_of(&set.snapshots[0]).unwrap();
    let id = snap_format::BlobId(domain.data_id.id(&support::noise(3, 500)));
    let pack = index.locate("main", &id).unwrap().pack_id;
    lab.memory.remove(&object_name(Area::Packs, &pack));
    let said = refuses(&lab, &prune_options(0));
    assert!(said.contains(&second.to_hex()[..8]) && !said.contains(&third.to_hex()[..8]), "{said}");
    // A new backup of the same stores it again, and all is well.
    backup(&repository, &[2, 3], 13).unwrap();
    assert!(lab.prune(&prune_options(0)).deleted.packs > 0);
    assert_eq!(read_back(&repository, &second), Ok(2));
}

#[test]
fn many_old_snapshots_become_a_bundle() {
    let lab = Lab::new();
    let repository = lab.repository();
    let snapshots: Vec<_> = (0..70).map(|number| backup(&repository, &[1], number + 10).unwrap()).collect();
    assert_eq!(lab.prune(&prune_options(0)).bundled, 0);
    lab.memory.advance(Duration::from_secs(25 * 3600));
    let young = backup(&repository, &[1, 2], 200).unwrap();
    assert_eq!(lab.prune(&prune_options(0)).bundled, 70);
    assert_eq!(lab.names(Area::Snapshots).len(), 2);
    let found = lab.repository().snapshots().unwrap();
    assert_eq!((found.snapshots.len(), found.findings.len()), (71, 0));
    assert!(snapshots.iter().chain([&young]).all(|id| found.snapshots.iter().any(|it| it.id == *id)));
    // What only bundled snapshots need stays.
    assert_eq!(lab.prune(&prune_options(0)).deleted, PackSum::default());
    assert_eq!(read_back(&repository, &young), Ok(2));
}

#[test]
fn a_group_stays_whole_and_counts_as_used() {
    let lab = Lab::new();
    let repository = lab.repository();
    let grouped = snap_repo::WriterOptions {
        group_below: 1 << 20,
        pack_target: 1 << 20,
        ..support::writer_options(Default::default())
    };
    let first = support::backup_with(&repository, &[1, 2, 3, 4], 10, grouped).unwrap();
    let second = backup(&repository, &[3, 9], 11).unwrap();
    forget(&repository, &first).unwrap();
    // The tree of the first snapshot goes; of the group one member is alive.
    let report = lab.prune(&prune_options(0));
    assert_eq!((report.deleted.packs, report.repacked.packs, report.waste_bytes), (1, 0, 0));
    // The dead members are still known, and may be needed again.
    let third = backup(&repository, &[1, 4], 12).unwrap();
    let known = lab.prune(&prune_options(0));
    assert_eq!(known.deleted, PackSum::default());
    assert_eq!((read_back(&repository, &second), read_back(&repository, &third)), (Ok(2), Ok(2)));
}
