//! `prune --reseal`: what was sealed under earlier keys is sealed anew, and nothing else about it changes.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::compare::{Leeway, assert_same};
use common::{Lab, odd};
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, MemoryBackend};
use snap_format::{BlobId, BlobKind, Epoch, Head, IndexedPack, ObjectId, Role, Time};
use snap_repo::prune::{PruneOptions, PruneReport};
use snap_repo::{Area, NewSlot, Repository, Secret, object_name};

const NOW: Time = Time::new(1_000_000, 7);
const PACK: usize = 64 << 10;

/// Two slots, each of its own domain, with two snapshots of each; the first of all is forgotten.
struct Scene {
    lab: Lab,
    memory: Arc<MemoryBackend>,
    copies: Vec<PathBuf>,
}

impl Scene {
    fn new() -> Self {
        let (lab, memory) = common::in_memory();
        let machine = Secret::random_key_file().unwrap();
        let new = NewSlot { role: Role::Backup, secret: &machine, label: "machine".into(), domain: None };
        lab.repository().add_slot(new, NOW).unwrap();
        std::fs::write(lab.source("noise"), odd::noise(1, 300_000)).unwrap();
        for number in 0..40 {
            // Of such as these groups are made.
            let text = format!("file {number} says this and that\n").repeat(200);
            std::fs::write(lab.source(&format!("text {number}")), text).unwrap();
        }
        let mut scene = Self { lab, memory, copies: Vec::new() };
        for (number, secret) in
            [&scene.lab.secret.clone(), &scene.lab.secret.clone(), &machine, &machine].into_iter().enumerate()
        {
            std::fs::write(scene.lab.source("changing"), odd::noise(10 + number as u64, 90_000)).unwrap();
            let (repository, _) = scene.lab.open_over(scene.store(), secret, None).unwrap();
            let (options, context) = (scene.lab.options(), scene.lab.context());
            snap_engine::backup::backup_in_packs(&[repository], None, options, context, PACK).unwrap();
            scene.copies.push(scene.lab.keep(&format!("copy {number}")));
        }
        let repository = scene.lab.repository();
        let first = repository.snapshots().unwrap().snapshots[0].id;
        repository.forget(&[first], &[], NOW).unwrap();
        scene.copies.remove(0);
        scene
    }

    fn store(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.memory) as _
    }

    fn prune(&self, store: Arc<dyn Backend>, options: &PruneOptions) -> snap_engine::Result<PruneReport> {
        snap_engine::prune(&Repository::open(store, &self.lab.secret)?, options, self.lab.context())
    }

    /// What is in the packs, as their headers say.
    fn packs(&self) -> Vec<IndexedPack> {
        let repository = self.lab.repository();
        let listed = repository.list(Area::Packs).unwrap();
        listed.into_iter().map(|(id, size)| repository.read_pack_header(id, size).unwrap().1).collect()
    }

    /// How much of the store is under the keys of earlier epochs: packs by their run keys, packs and index objects by their own.
    fn old(&self) -> [usize; 3] {
        let names = self.memory.names().into_iter().filter(|name| name.as_str().starts_with("epochs/"));
        let epochs = names.map(|name| Epoch::decode(&self.memory.get(&name).unwrap()).unwrap().0);
        let newest = epochs.max_by_key(|epoch| epoch.number).unwrap().id;
        let of_object = |area: Area| {
            let names = self.lab.repository().list(area).unwrap().into_iter();
            let heads = names.map(|(id, _)| Head::decode(&self.memory.get(&object_name(area, &id)).unwrap()));
            heads.filter(|head| head.as_ref().unwrap().epoch != newest).count()
        };
        let packs = self.packs();
        let has_old = |pack: &&IndexedPack| pack.run_keys.iter().any(|entry| entry.epoch != newest);
        [packs.iter().filter(has_old).count(), of_object(Area::Packs), of_object(Area::Index)]
    }

    fn everything_restores(&self) {
        for (number, copy) in self.copies.iter().enumerate() {
            let target = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
            let report = self.lab.restore_over(&self.store(), number, target.path());
            assert_eq!((report.failed, report.damaged), (0, 0));
            assert_same(copy, target.path(), Leeway::default());
        }
        self.lab.check_over(&self.store());
    }
}

fn options(reseal: bool, grace_secs: u64) -> PruneOptions {
    let grace = Duration::from_secs(grace_secs);
    PruneOptions { reseal, grace, pack_target: PACK, ..PruneOptions::at(NOW) }
}

/// By domain, whether it is a tree, and id.
type Lines = BTreeMap<(String, bool, BlobId), (u32, u32, bool, usize)>;

/// The blobs: lengths of their unit and of themselves, whether it is a group, and of how many.
fn lines(packs: &[IndexedPack]) -> Lines {
    let mut out = BTreeMap::new();
    for pack in packs {
        for unit in snap_format::PackHeader::units(&pack.blobs) {
            for blob in unit.blobs {
                let key = (pack.domain.clone(), pack.kind == BlobKind::Tree, blob.id);
                out.insert(key, (unit.stored_len(), blob.plain_len, blob.grouped, unit.blobs.len()));
            }
        }
    }
    out
}

#[test]
fn after_it_nothing_is_under_old_keys_and_all_is_as_it_was() {
    let scene = Scene::new();
    scene.prune(scene.store(), &options(false, 0)).unwrap();
    let before = lines(&scene.packs());
    assert!(before.values().any(|(_, _, grouped, members)| *grouped && *members > 10));
    scene.lab.repository().rotate_keys(NOW).unwrap();
    let [packs, sealed, index] = scene.old();
    assert!(packs > 4 && packs == sealed && index > 0);

    let state = scene.memory.snapshot();
    let dry = scene.prune(scene.store(), &PruneOptions { dry_run: true, ..options(true, 0) }).unwrap();
    assert!(state == scene.memory.snapshot());
    let report = scene.prune(scene.store(), &options(true, 0)).unwrap();
    assert_eq!((dry.resealed_bytes, dry.old_keys), (report.resealed_bytes, report.old_keys));
    assert_eq!(report.old_keys.packs, packs as u64);
    // Each unit once.
    assert!(report.resealed_bytes > 500_000 && report.resealed_bytes == report.moved_bytes, "{report:?}");
    assert_eq!(scene.old(), [0; 3]);
    assert_eq!(lines(&scene.packs()), before);
    scene.everything_restores();
    // And there is nothing to do any more.
    let state = scene.memory.snapshot();
    let again = scene.prune(scene.store(), &options(true, 0)).unwrap();
    assert!(again.resealed_bytes == 0 && state == scene.memory.snapshot());
}

#[test]
fn without_being_asked_a_prune_leaves_old_keys_alone() {
    let scene = Scene::new();
    scene.lab.repository().rotate_keys(NOW).unwrap();
    let report = scene.prune(scene.store(), &options(false, 0)).unwrap();
    assert_eq!((report.resealed_bytes, report.old_keys.packs), (0, 0));
    assert!(scene.old()[0] > 0);
    scene.everything_restores();
}

#[test]
fn what_waits_for_the_grace_goes_with_any_later_prune() {
    let scene = Scene::new();
    scene.lab.repository().rotate_keys(NOW).unwrap();
    let [packs, ..] = scene.old();
    let report = scene.prune(scene.store(), &options(true, 3600)).unwrap();
    assert!(report.resealed_bytes > 0 && report.deleted.packs == 0);
    assert_eq!(scene.old()[0], packs);
    scene.everything_restores();
    let later = scene.prune(scene.store(), &options(false, 0)).unwrap();
    assert_eq!((later.moved_blobs, scene.old()), (0, [0; 3]));
    scene.everything_restores();
}

#[test]
fn killed_anywhere_nothing_is_lost_and_the_next_one_ends_it() {
    let scene = Scene::new();
    scene.lab.repository().rotate_keys(NOW).unwrap();
    let before = scene.memory.snapshot();
    let immortal = Arc::new(CrashBackend::immortal(scene.store()));
    scene.prune(immortal.clone(), &options(true, 0)).unwrap();
    let steps = immortal.mutations();
    assert!(steps > 10);
    for step in 0.. {
        scene.memory.restore(before.clone());
        let mode = [CrashMode::Before, CrashMode::After][step as usize % 2];
        let store = Arc::new(CrashBackend::new(scene.store(), CrashPoint::Mutation(step), mode));
        if scene.prune(store, &options(true, 0)).is_ok() {
            // It lived to the end. Two threads fill packs: some more or less.
            assert!(step > steps * 3 / 4, "{step} of {steps}");
            break;
        }
        if step % 4 == 0 {
            scene.everything_restores();
        }
        scene.prune(scene.store(), &options(true, 0)).unwrap();
        assert_eq!(scene.old(), [0; 3], "killed at {step}");
        if step % 4 == 2 {
            scene.everything_restores();
        }
    }
}

#[test]
fn a_damaged_pack_is_not_sealed_anew_and_nothing_is_deleted() {
    let scene = Scene::new();
    scene.prune(scene.store(), &options(false, 0)).unwrap();
    scene.lab.repository().rotate_keys(NOW).unwrap();
    let victim: ObjectId = scene.packs().iter().find(|pack| pack.kind == BlobKind::Data).unwrap().id;
    let name = object_name(Area::Packs, &victim);
    let mut bytes = scene.memory.get(&name).unwrap().to_vec();
    bytes[100] ^= 1;
    scene.memory.delete(&name).unwrap();
    scene.memory.put(&name, bytes.into()).unwrap();
    let packs = scene.lab.repository().list(Area::Packs).unwrap();
    let refused = scene.prune(scene.store(), &options(true, 0)).unwrap_err().to_string();
    assert!(refused.contains("nothing was deleted"), "{refused}");
    let there = scene.lab.repository().list(Area::Packs).unwrap();
    assert!(packs.iter().all(|pack| there.contains(pack)));
}
