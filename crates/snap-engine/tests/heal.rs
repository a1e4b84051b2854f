//! What is damaged in one copy is brought back, whatever the other has of it, and whenever that is interrupted.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::scene::{NOW, PACK, Scene};
use common::within;
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, ObjectName};
use snap_engine::backup::backup_in_packs;
use snap_engine::{
    CheckOptions, CheckReport, Context, CopyOptions, EngineError, HealOptions, HealReport, ReadData, Sibling,
    check, copy_snapshots, heal, prune,
};
use snap_format::{BlobKind, ObjectId};
use snap_repo::prune::PruneOptions;
use snap_repo::{
    Area, BlobReader, FindingCode, Index, RepoError, Repository, Scratch, Writer, WriterOptions,
    parse_object_name,
};

const LIMIT: Duration = Duration::from_secs(300);

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

impl Scene {
    fn look(&self, number: usize) -> CheckReport {
        let options = CheckOptions { read_data: ReadData::All };
        check(&self.open(number), &options, self.lab.context()).unwrap()
    }

    fn flip(&self, number: usize, object: &str) {
        let store = &self.stores[number];
        let mut bytes = store.get(&name(object)).unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.delete(&name(object)).unwrap();
        store.put(&name(object), bytes.into()).unwrap();
    }

    /// Heals the second copy, as this store shows it, with the help of the first.
    fn try_heal(&self, target: Arc<dyn Backend>) -> snap_engine::Result<HealReport> {
        let target = Repository::open(target, &self.lab.secret)?;
        let options = CheckOptions { read_data: ReadData::All };
        let found = check(&target, &options, self.lab.context())?;
        let siblings = [Sibling { name: "first".into(), repository: self.open(0) }];
        let options = HealOptions { time: NOW, host: "elsewhere", has_all_copies: true, pack_target: PACK };
        heal(&target, &siblings, &found.findings, None, &options, self.lab.context())
    }

    fn heal(&self) -> HealReport {
        self.try_heal(self.store(1)).unwrap()
    }

    /// Versions that both copies have, in packs of which some differ.
    fn diverged() -> Self {
        let scene = Self::new();
        scene.backup(&[scene.store(0)]);
        scene.write(2);
        scene.backup(&[scene.store(1)]);
        scene.write(3);
        scene.backup(&[scene.store(0)]);
        scene.copy();
        let options = CopyOptions { pack_target: PACK, ..CopyOptions::new(NOW) };
        copy_snapshots(&scene.open(1), &scene.open(0), None, &options, scene.lab.context()).unwrap();
        assert_eq!(scene.snapshots(0), scene.snapshots(1));
        scene
    }

    /// Packs of the second copy, those first that the first has not.
    fn own_packs(&self) -> Vec<String> {
        let others = self.names(0, "packs/");
        let (shared, mut own): (Vec<_>, Vec<_>) =
            self.names(1, "packs/").into_iter().partition(|pack| others.contains(pack));
        assert!(!own.is_empty() && !shared.is_empty());
        own.extend(shared);
        own
    }
}

#[test]
fn packs_that_the_other_has_come_back_as_they_were() {
    let scene = Scene::new();
    scene.backup(&scene.both());
    let before = scene.names(1, "packs/");
    let packs: Vec<&String> = before.iter().collect();
    scene.flip(1, packs[0]);
    scene.stores[1].delete(&name(packs[1])).unwrap();
    let report = scene.heal();
    let healed: BTreeSet<&String> = report.objects.iter().map(|(object, _)| object).collect();
    assert_eq!(healed, BTreeSet::from([packs[0], packs[1]]));
    assert!(report.objects.iter().all(|(_, from)| from == "first"));
    assert_eq!((report.blobs, report.lost, report.removed.len()), (0, 0, 0));
    assert_eq!(scene.names(1, "packs/"), before);
    scene.is_sound(1);
    assert!(!scene.heal().has_done_something());
}

#[test]
fn blobs_come_back_where_packs_differ() {
    let scene = Scene::diverged();
    let packs = scene.own_packs();
    scene.flip(1, &packs[0]);
    scene.stores[1].delete(&name(&packs[1])).unwrap();
    let report = scene.heal();
    assert!(report.blobs > 0 && report.lost == 0, "{report:?}");
    assert!(report.removed.contains(&packs[0]), "{report:?}");
    assert_eq!(scene.look(1).findings, []);
    assert_eq!(scene.snapshots(1).len(), 3);
    scene.is_sound(1);
}

#[test]
fn what_nobody_has_stays_and_the_rest_is_saved_from_its_pack() {
    let scene = Scene::new();
    // The first has nothing.
    scene.backup(&[scene.store(1)]);
    let largest = |scene: &Scene| {
        let packs = scene.names(1, "packs/").into_iter();
        packs.max_by_key(|pack| scene.stores[1].get(&name(pack)).unwrap().len()).unwrap()
    };
    let pack = largest(&scene);
    scene.flip(1, &pack);
    let report = scene.heal();
    assert!(report.lost > 0 && report.removed.is_empty(), "{report:?}");
    let found = scene.look(1).findings;
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [FindingCode::Corrupt]);
    assert!(!found[0].paths.is_empty() && found[0].snapshots == scene.snapshots(1));
    // Once the file is looked at, too, nothing is missing.
    let target = scene.open(1);
    let options = HealOptions { time: NOW, host: "lab", has_all_copies: true, pack_target: PACK };
    let report = heal(&target, &[], &found, None, &options, scene.lab.context()).unwrap();
    assert!(report.file_blobs > 0 && report.lost == 0, "{report:?}");
    assert_eq!(report.removed, [pack]);
    scene.is_sound(1);
}

/// What was saved must not be superfluous to the next prune, because the damaged pack still says that it has it.
#[test]
fn what_was_saved_of_a_damaged_pack_survives_prunes() {
    let scene = Scene::new();
    let large = scene.lab.source("large");
    let content = std::fs::read(&large).unwrap();
    std::fs::remove_file(&large).unwrap();
    scene.backup(&[scene.store(0)]);
    std::fs::write(&large, &content).unwrap();
    let context = Context { memory_bytes: 500 << 20, ..scene.lab.context() };
    let backup = || {
        let options = scene.lab.options();
        backup_in_packs(&[scene.open(1)], None, options, context, 64 << 20).unwrap()
    };
    backup();
    let target = scene.open(1);
    let (index, _) = Index::load(&target, None).unwrap();
    let pack = index.packs().max_by_key(|pack| pack.size).unwrap();
    let pack = snap_repo::object_name(Area::Packs, &pack.id).to_string();
    let length = scene.stores[1].get(&name(&pack)).unwrap().len();
    scene.stores[1].delete(&name(&pack)).unwrap();
    scene.stores[1].put(&name(&pack), vec![0; length].into()).unwrap();
    let report = scene.heal();
    assert!(report.blobs > 0 && report.lost > 0 && report.removed.is_empty(), "{report:?}");
    let packs = scene.names(1, "packs/");
    let prune = |grace| {
        let options = PruneOptions { grace, pack_target: PACK, ..PruneOptions::at(NOW) };
        prune(&scene.open(1), &options, context)
    };
    prune(Duration::from_secs(1 << 30)).unwrap();
    assert!(scene.names(1, "packs/").is_superset(&packs), "nothing goes");
    let refused = prune(Duration::ZERO);
    assert!(matches!(refused, Err(EngineError::Repo(RepoError::Unprunable(_)))), "{refused:?}");
    assert!(scene.names(1, "packs/").is_superset(&packs), "nothing went");
    let again = scene.heal();
    assert_eq!((again.blobs, again.lost), (0, report.lost), "what was saved is there");
    // The next backup relies on nothing in that pack; then nobody does.
    assert_eq!(backup().summary.added_bytes, content.len() as u64);
    prune(Duration::ZERO).unwrap();
    assert!(!scene.names(1, "packs/").contains(&pack));
    scene.is_sound(1);
}

#[test]
fn index_and_snapshots_come_back() {
    let scene = Scene::diverged();
    scene.names(1, "index/").iter().for_each(|object| scene.flip(1, object));
    let middle = scene.snapshots(0)[0];
    let object = snap_repo::object_name(Area::Snapshots, &middle);
    scene.stores[1].delete(&object).unwrap();
    let report = scene.heal();
    assert!(report.indexed > 0, "{report:?}");
    scene.heal();
    assert_eq!(scene.look(1).findings, []);
    scene.is_sound(1);
}

/// Under the name of another, an object may be all that there is of it.
#[test]
fn what_stands_under_a_wrong_name_gets_its_own() {
    let scene = Scene::new();
    scene.backup(&scene.both());
    scene.write(2);
    scene.backup(&scene.both());
    let all = scene.snapshots(0);
    // The first has the older snapshot alone, the second the newer one, under the name of the older.
    let [older, newer] = [&all[0], &all[1]].map(|id| snap_repo::object_name(Area::Snapshots, id));
    scene.stores[0].remove(&newer);
    let bytes = scene.stores[1].get(&newer).unwrap();
    scene.stores[1].remove(&newer);
    scene.stores[1].replace(&older, bytes);
    scene.heal();
    assert_eq!(scene.look(1).findings, []);
    assert_eq!(scene.snapshots(1), all);
    scene.is_sound(1);
}

/// What a lost record may have forgotten comes back if the other copy has it, and is noted again if it was forgotten there too.
#[test]
fn a_record_that_is_lost_hides_nothing() {
    let scene = Scene::new();
    for version in 1..5 {
        scene.write(version);
        scene.backup(&scene.both());
    }
    let all = scene.snapshots(0);
    scene.open(1).forget(&all[..3], &[], NOW).unwrap();
    let record = scene.names(1, "records/").pop_first().unwrap();
    let forgotten = scene.stores[1].snapshot();
    let lose = |is_rotten: bool| {
        scene.stores[1].restore(forgotten.clone());
        match is_rotten {
            true => scene.flip(1, &record),
            false => scene.stores[1].delete(&name(&record)).unwrap(),
        }
    };
    let heal_without = || {
        let target = scene.open(1);
        let found = check(&target, &CheckOptions::default(), scene.lab.context()).unwrap().findings;
        let options = HealOptions { time: NOW, host: "elsewhere", has_all_copies: false, pack_target: PACK };
        heal(&target, &[], &found, None, &options, scene.lab.context()).unwrap()
    };
    for is_rotten in [true, false] {
        lose(is_rotten);
        assert!(!heal_without().has_done_something());
        let report = scene.heal();
        assert_eq!((report.snapshots.as_slice(), report.forgotten.as_slice()), (&all[..3], &[][..]));
        assert_eq!(scene.look(1).findings, []);
        assert_eq!(scene.snapshots(1), all);
        scene.is_sound(1);
    }
    scene.open(0).forget(&all[..2], &[], NOW).unwrap();
    for is_rotten in [true, false] {
        lose(is_rotten);
        let report = scene.heal();
        assert_eq!((report.snapshots.as_slice(), report.forgotten.as_slice()), (&all[2..3], &all[1..2]));
        assert_eq!(scene.look(1).findings, []);
        assert_eq!(scene.snapshots(1), all[2..]);
        assert!(!scene.heal().has_done_something());
    }
}

/// Killed at each change that it makes, and run again.
#[test]
fn healing_that_is_interrupted_anywhere_is_taken_up() {
    within(LIMIT, || {
        let scene = Scene::diverged();
        let packs = scene.own_packs();
        scene.flip(1, &packs[0]);
        scene.stores[1].delete(&name(&packs[1])).unwrap();
        scene.flip(1, packs.last().unwrap());
        scene.flip(1, scene.names(1, "index/").first().unwrap());
        let before = scene.stores[1].snapshot();
        let whole = Arc::new(CrashBackend::immortal(scene.store(1)));
        scene.try_heal(Arc::clone(&whole) as _).unwrap();
        scene.is_sound(1);
        assert!(whole.mutations() > 8, "{}", whole.mutations());
        for (k, mode) in (0..whole.mutations()).flat_map(|k| [(k, CrashMode::Before), (k, CrashMode::After)])
        {
            scene.stores[1].restore(before.clone());
            let dying = Arc::new(CrashBackend::new(scene.store(1), CrashPoint::Mutation(k), mode));
            let outcome = scene.try_heal(Arc::clone(&dying) as _);
            assert!(outcome.is_err() || !dying.is_dead(), "{k}");
            scene.heal();
            assert_eq!(scene.look(1).findings, [], "{k} {mode:?}");
            scene.restores(1);
        }
    });
}

/// A prune that thinks that a damaged pack makes another one superfluous must not take the last whole place of a blob.
#[test]
fn a_damaged_pack_stays_while_another_prune_is_about_to_take_what_replaces_it() {
    let scene = Scene::new();
    scene.backup(&[scene.store(1)]);
    let target = scene.open(1);
    let (index, _) = Index::load(&target, None).unwrap();
    let first: HashSet<ObjectId> = index.packs().map(|pack| pack.id).collect();
    let ids: Vec<_> = index.iter("main").map(|(id, place)| (place.kind, id)).collect();
    let reader = BlobReader::new(target.clone(), Arc::new(index));
    let options =
        WriterOptions { distrust: first.clone(), pack_target: 64 << 20, ..WriterOptions::default() };
    let writer = Writer::begin(&target, Index::load(&target, None).unwrap().0, None, options).unwrap();
    let (mut scratch, mut plain) = (Scratch::new(1).unwrap(), Vec::new());
    for (kind, id) in &ids {
        let domain = writer.domain().clone();
        reader.read(&domain, *kind, id, &mut scratch, &mut plain).unwrap();
        assert!(writer.add(*kind, &plain, &mut scratch).unwrap().1);
    }
    writer.finish().unwrap().abandon();
    assert!(ids.iter().any(|(kind, _)| *kind == BlobKind::Tree));
    // Everything is there twice; a prune finds one of the two superfluous, and waits for the grace.
    let options = PruneOptions { pack_target: PACK, ..PruneOptions::at(NOW) };
    prune(&target, &options, scene.lab.context()).unwrap();
    let mut marked = HashSet::new();
    for (id, _) in target.list(Area::Marks).unwrap() {
        let bytes = target.backend().get(&snap_repo::object_name(Area::Marks, &id)).unwrap();
        marked.extend(target.parse_mark(&id, &bytes).unwrap().packs);
    }
    let all: HashSet<ObjectId> = target.list(Area::Packs).unwrap().into_iter().map(|(id, _)| id).collect();
    let damaged: HashSet<ObjectId> = all.difference(&marked).copied().collect();
    assert!(!marked.is_empty() && !damaged.is_empty());
    let options = PruneOptions { damaged, ..PruneOptions::at(NOW) };
    let refused = prune(&target, &options, scene.lab.context());
    assert!(matches!(refused, Err(EngineError::Repo(RepoError::Unprunable(_)))), "{refused:?}");
    let names: HashSet<ObjectId> =
        scene.names(1, "packs/").iter().filter_map(|name| Some(parse_object_name(name)?.1)).collect();
    assert_eq!(names, all);
}
