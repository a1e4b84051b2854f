//! Copies: one run writes them all; one that fails lags, and harms no other.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

#[path = "check_support/mod.rs"]
mod check_support;
mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use check_support::forger::Forger;
use common::scene::{NOW, PACK, Scene};
use common::stores::Hooked;
use common::within;
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint, RecordingBackend};
use snap_backend::{Backend, MemoryBackend, Operation};
use snap_engine::{CopyOptions, CopyReport, copy_snapshots, note_forgotten};
use snap_format::ObjectId;
use snap_repo::{Area, Epochs, RepoError, Repository, Secret, object_name, parse_object_name};

const LIMIT: Duration = Duration::from_secs(300);

/// The objects that were put, by area.
fn puts(recording: &RecordingBackend, area: &str) -> Vec<String> {
    let calls = recording.take().into_iter().filter(|call| call.operation == Operation::Put);
    calls.map(|call| call.name).filter(|name| name.starts_with(area)).collect()
}

#[test]
fn a_copy_has_the_same_epochs_and_a_config_of_its_own() {
    let scene = Scene::new();
    assert_eq!(scene.names(0, "epochs/"), scene.names(1, "epochs/"));
    let [first, second] = scene.both().map(|store| Repository::open(store, &scene.lab.secret).unwrap());
    assert_eq!(first.id(), second.id());
    assert_ne!(first.config().copy, second.config().copy);
    let again = first.create_copy(scene.stores[1].as_ref(), NOW);
    assert!(matches!(again, Err(RepoError::AlreadyExists(_))));
}

#[test]
fn both_get_the_same_bytes_and_each_restores_alone() {
    let scene = Scene::new();
    let first = scene.backup(&scene.both());
    for area in ["packs/", "snapshots/"] {
        assert_eq!(scene.names(0, area), scene.names(1, area), "{area}");
    }
    scene.write(2);
    let second = scene.backup(&scene.both());
    assert_eq!(second.parent, first.snapshot);
    let third = scene.backup(&scene.both());
    assert_eq!((third.summary.added_bytes, third.summary.stored_bytes), (0, 0));
    for number in [0, 1] {
        scene.is_sound(number);
        assert_eq!(scene.stored_twice(number), 0);
    }
    // What was stored is counted once, not for each copy.
    let packs: u64 = scene.stores[0]
        .names()
        .iter()
        .filter(|name| name.as_str().starts_with("packs/"))
        .map(|name| scene.stores[0].get(name).unwrap().len() as u64)
        .sum();
    let counted = first.summary.stored_bytes + second.summary.stored_bytes;
    assert!(counted >= packs && counted < packs + packs / 10, "{counted} {packs}");
}

#[test]
fn what_one_copy_lacks_goes_to_that_one_alone() {
    let scene = Scene::new();
    scene.backup(&[scene.store(0)]);
    scene.write(2);
    scene.backup(&[scene.store(1)]);
    scene.write(3);
    // Each lacks what the other has of the versions before, and both what is new.
    let recordings = scene.both().map(RecordingBackend::new);
    scene.backup(&recordings.clone().map(|store| Arc::new(store) as _));
    let [first, second] =
        recordings.each_ref().map(|it| puts(it, "packs/").into_iter().collect::<BTreeSet<_>>());
    assert!(first.intersection(&second).count() > 0, "{first:?} {second:?}");
    scene.restores(0);
    scene.restores(1);
    assert_eq!((scene.stored_twice(0), scene.stored_twice(1)), (0, 0));
    // The second had text and noise that the first has had, too: it got none of it again.
    let again = scene.backup(&scene.both());
    assert_eq!(again.summary.added_bytes, 0);
}

#[test]
fn a_copy_that_lagged_gets_what_the_next_snapshot_needs() {
    let scene = Scene::new();
    scene.backup(&scene.both());
    scene.write(2);
    scene.backup(&[scene.store(0)]);
    // Nothing has changed since; the second copy lacks it all the same.
    let recordings = scene.both().map(RecordingBackend::new);
    let report = scene.backup(&recordings.clone().map(|store| Arc::new(store) as _));
    assert_eq!(puts(&recordings[0], "packs/"), [""; 0]);
    assert!(!puts(&recordings[1], "packs/").is_empty());
    assert!(report.summary.stored_bytes > 0);
    scene.restores(1);
    scene.is_sound(0);
    assert_eq!((scene.stored_twice(0), scene.stored_twice(1)), (0, 0));
}

/// Dies at each operation in turn, in the first copy or in the second: the run succeeds with the other, tells, and the next run
/// goes on from what is there.
fn dies_everywhere(dying: usize, threads: usize, step: usize) {
    let scene = Scene::new();
    scene.backup(&scene.both());
    scene.write(2);
    let before = scene.stores.each_ref().map(|store| store.snapshot());
    let opening = {
        let store = Arc::new(CrashBackend::immortal(scene.store(dying)));
        Repository::open(Arc::clone(&store) as _, &scene.lab.secret).unwrap();
        store.operations()
    };
    let whole = {
        let store = Arc::new(CrashBackend::immortal(scene.store(dying)));
        let mut stores = scene.both();
        stores[dying] = Arc::clone(&store) as _;
        scene.try_backup(&stores, threads).unwrap();
        store.operations()
    };
    assert!(whole > opening + 15, "{whole}");
    for k in (opening..whole).step_by(step) {
        let case = format!("{dying} dies at {k} of {whole}");
        scene.stores.iter().zip(&before).for_each(|(store, state)| store.restore(state.clone()));
        let store =
            Arc::new(CrashBackend::new(scene.store(dying), CrashPoint::Operation(k), CrashMode::Before));
        let mut stores = scene.both();
        stores[dying] = Arc::clone(&store) as _;
        let report = scene.try_backup(&stores, threads).unwrap();
        if !store.is_dead() {
            continue; // with several threads a run may take fewer
        }
        assert_eq!(report.lagging.iter().map(|lag| lag.copy).collect::<Vec<_>>(), [dying], "{case}");
        assert!(report.lagging[0].why.contains("the store is gone"), "{case}: {:?}", report.lagging);
        scene.is_sound(1 - dying);
        assert_eq!(scene.stored_twice(1 - dying), 0, "{case}");
        // What was left lying does no harm: the copy is whole, and the next run brings both to the same state.
        let repository = Repository::open(scene.store(dying), &scene.lab.secret).unwrap();
        let has = repository.snapshots().unwrap().snapshots.iter().any(|it| Some(it.id) == report.snapshot);
        scene.lab.check_over(&scene.store(dying));
        scene.backup(&scene.both());
        scene.restores(dying);
        scene.is_sound(1 - dying);
        assert_eq!(scene.stored_twice(dying), 0, "{case}, committed: {has}");
        let last = scene.backup(&scene.both());
        assert_eq!(last.summary.stored_bytes, 0, "{case}");
    }
    assert_eq!(scene.lab.heard(), [""; 0]);
}

#[test]
fn the_second_copy_dies_at_every_operation() {
    within(LIMIT, || dies_everywhere(1, 1, 1));
}

#[test]
fn the_first_copy_dies_at_every_second_operation() {
    within(LIMIT, || dies_everywhere(0, 1, 2));
}

#[test]
fn a_copy_dies_while_many_threads_are_at_work() {
    within(LIMIT, || dies_everywhere(1, 3, 3));
}

#[test]
fn with_the_last_copy_the_run_fails() {
    within(LIMIT, || {
        let scene = Scene::new();
        let dying = |number: usize, k| {
            let point = CrashPoint::Mutation(k);
            Arc::new(CrashBackend::new(scene.store(number), point, CrashMode::Before)) as Arc<dyn Backend>
        };
        let error = scene.try_backup(&[dying(0, 2), dying(1, 5)], 2).unwrap_err();
        assert!(error.to_string().contains("the store is gone"), "{error}");
        let heard = scene.lab.heard();
        assert!(heard.len() == 1 && heard[0].starts_with("warning"), "{heard:?}");
        scene.backup(&scene.both());
        scene.is_sound(0);
        scene.is_sound(1);
    });
}

/// A prune that marks packs of one copy while a run writes to both: what lies there is moved in that copy alone.
#[test]
fn marks_on_one_copy_concern_that_copy() {
    for marked in [0, 1] {
        let scene = Scene::new();
        scene.backup(&scene.both());
        scene.write(2);
        let owner = Repository::open(scene.store(marked), &scene.lab.secret).unwrap();
        let packs: Vec<ObjectId> = owner.list(Area::Packs).unwrap().iter().map(|(id, _)| *id).collect();
        let Secret::KeyFile(secret) = &scene.lab.secret else { panic!("a key file") };
        let forger = Forger::new(&scene.stores[marked], **secret);
        let marking = Hooked::new(scene.store(marked), move |put| {
            if put == 1 {
                forger.put_mark(&packs);
            }
        });
        let before = scene.names(1 - marked, "packs/");
        let recording = RecordingBackend::new(scene.store(1 - marked));
        let mut stores = scene.both();
        stores[marked] = marking;
        stores[1 - marked] = Arc::new(recording.clone());
        scene.backup(&stores);
        let new: BTreeSet<_> = puts(&recording, "packs/").into_iter().collect();
        let here: BTreeSet<_> = scene.names(marked, "packs/").difference(&before).cloned().collect();
        assert!(here.is_superset(&new) && here.len() > new.len(), "moved: {here:?}, new: {new:?}");
        // The prune goes on: what it has marked goes, from the index first.
        let repository = Repository::open(scene.store(marked), &scene.lab.secret).unwrap();
        take_away(&scene.stores[marked], &repository, &before);
        scene.restores(marked);
        scene.is_sound(1 - marked);
    }
}

/// Deletes packs and the index objects that name nothing else.
fn take_away(store: &MemoryBackend, repository: &Repository, packs: &BTreeSet<String>) {
    for name in store.names() {
        let Some((area, id)) = parse_object_name(name.as_str()) else { continue };
        let goes = match area {
            Area::Packs => packs.contains(name.as_str()),
            Area::Index => {
                let parsed = repository.parse_index(&id, &store.get(&name).unwrap()).unwrap();
                parsed.packs.iter().all(|pack| packs.contains(object_name(Area::Packs, &pack.id).as_str()))
            }
            _ => false,
        };
        if goes {
            store.delete(&name).unwrap();
        }
    }
}

#[test]
fn a_copy_that_was_away_during_a_rotation_gets_the_keys_first() {
    let scene = Scene::new();
    scene.backup(&scene.both());
    assert!(scene.lab.repository().rotate_keys(NOW).unwrap().counts);
    let [first, second] = scene.both().map(|store| Repository::open(store, &scene.lab.secret).unwrap());
    assert_eq!(first.compare_epochs(&second).unwrap(), Epochs::Behind(1));
    assert_eq!(second.compare_epochs(&first).unwrap(), Epochs::Ahead);
    scene.write(2);
    // Under different keys nothing is written to it.
    let report = scene.try_backup(&scene.both(), 2).unwrap();
    assert_eq!(report.lagging[0].copy, 1);
    assert!(report.lagging[0].why.contains("other keys"), "{:?}", report.lagging);
    assert_eq!(second.bring_epochs(scene.stores[0].as_ref()).unwrap(), Epochs::Ahead);
    assert_eq!(first.bring_epochs(scene.stores[1].as_ref()).unwrap(), Epochs::Behind(1));
    assert_eq!(first.bring_epochs(scene.stores[1].as_ref()).unwrap(), Epochs::Same);
    assert_eq!(scene.names(0, "epochs/"), scene.names(1, "epochs/"));
    scene.backup(&scene.both());
    scene.restores(1);
    scene.is_sound(0);
}

#[test]
fn keys_that_have_parted_are_an_error() {
    let scene = Scene::new();
    for store in scene.both() {
        Repository::open(store, &scene.lab.secret).unwrap().rotate_keys(NOW).unwrap();
    }
    let [first, second] = scene.both().map(|store| Repository::open(store, &scene.lab.secret).unwrap());
    assert!(matches!(first.compare_epochs(&second), Err(RepoError::CopiesForked { .. })));
    let before = scene.names(1, "epochs/");
    let brought = first.bring_epochs(scene.stores[1].as_ref());
    assert!(matches!(brought, Err(RepoError::CopiesForked { .. })));
    assert_eq!(scene.names(1, "epochs/"), before);
}

#[test]
fn another_repository_is_no_copy() {
    let scene = Scene::new();
    let (other, memory) = common::in_memory();
    let brought = scene.lab.repository().bring_epochs(memory.as_ref());
    assert!(matches!(brought, Err(RepoError::NoCopy { .. })));
    let report = {
        let copies = [scene.lab.repository(), other.repository()];
        snap_engine::backup_copies(&copies, None, scene.lab.options(), scene.lab.context()).unwrap()
    };
    assert_eq!(report.lagging.iter().map(|lag| lag.copy).collect::<Vec<_>>(), [1]);
    assert!(!Path::new(&report.lagging[0].why).is_absolute());
}

#[test]
fn a_fresh_copy_gets_everything_as_it_is() {
    let scene = Scene::new();
    scene.backup(&[scene.store(0)]);
    scene.write(2);
    scene.backup(&[scene.store(0)]);
    let rehearsed = {
        let options = CopyOptions { dry_run: true, ..CopyOptions::new(NOW) };
        copy_snapshots(&scene.open(0), &scene.open(1), None, &options, scene.lab.context()).unwrap()
    };
    assert_eq!(rehearsed.snapshots, scene.snapshots(0));
    assert_eq!(scene.names(1, "packs/").len() + scene.names(1, "snapshots/").len(), 0);
    let report = scene.copy();
    assert_eq!((&report.snapshots, &report.left[..]), (&scene.snapshots(0), &[][..]));
    assert_eq!(report.packs as usize, scene.names(1, "packs/").len());
    // Whole packs, whole snapshots.
    for area in ["packs/", "snapshots/"] {
        assert_eq!(scene.names(0, area), scene.names(1, area), "{area}");
    }
    scene.is_sound(1);
    assert_eq!(scene.copy(), CopyReport::default());
    // The next backup finds both alike.
    assert_eq!(scene.backup(&scene.both()).summary.stored_bytes, 0);
}

#[test]
fn copies_that_were_packed_otherwise_get_single_units() {
    let scene = Scene::new();
    scene.backup(&[scene.store(0)]);
    scene.write(2);
    scene.backup(&[scene.store(1)]);
    scene.write(3);
    scene.backup(&[scene.store(0)]);
    let report = scene.copy();
    assert_eq!(report.snapshots.len(), 2);
    assert_eq!(scene.snapshots(1).len(), 3);
    let packs = scene.names(0, "packs/");
    let moved: Vec<_> = scene.names(1, "packs/").difference(&packs).cloned().collect();
    assert!(!moved.is_empty());
    scene.is_sound(1);
    // A group is moved as a whole, with what the target had of it: but never twice.
    assert_eq!(scene.copy(), CopyReport::default());
}

/// Killed at each operation in turn, and run again.
#[test]
fn a_copy_that_is_interrupted_anywhere_is_taken_up() {
    within(LIMIT, || {
        let scene = Scene::new();
        scene.backup(&[scene.store(0)]);
        scene.write(2);
        scene.backup(&[scene.store(1)]);
        scene.write(3);
        scene.backup(&[scene.store(0)]);
        let before = scene.stores[1].snapshot();
        let whole = Arc::new(CrashBackend::immortal(scene.store(1)));
        scene.try_copy(Arc::clone(&whole) as _).unwrap();
        let packs = scene.names(1, "packs/").len();
        assert!(whole.mutations() > 8, "{}", whole.mutations());
        for (k, mode) in (0..whole.operations()).flat_map(|k| [(k, CrashMode::Before), (k, CrashMode::After)])
        {
            scene.stores[1].restore(before.clone());
            let point = CrashPoint::Operation(k);
            let dying = Arc::new(CrashBackend::new(scene.store(1), point, mode));
            let outcome = scene.try_copy(Arc::clone(&dying) as _);
            if !dying.is_dead() {
                continue;
            }
            assert!(outcome.is_err(), "{k}");
            scene.lab.check_over(&scene.store(1));
            scene.copy();
            assert_eq!(scene.snapshots(1).len(), 3, "{k} {mode:?}");
            scene.lab.check_over(&scene.store(1));
            let now = scene.names(1, "packs/").len();
            assert!(now <= packs + 3, "{k} {mode:?}: {now} packs, not {packs}: what was there was used");
            assert_eq!(scene.copy(), CopyReport::default());
        }
        scene.restores(1);
    });
}

#[test]
fn what_was_forgotten_on_one_side_does_not_come_back() {
    let scene = Scene::new();
    for version in 1..4 {
        scene.write(version);
        scene.backup(&scene.both());
    }
    let all = scene.snapshots(0);
    // The second keeps one only.
    scene.open(1).forget(&all[..2], &[], NOW).unwrap();
    assert_eq!(scene.copy(), CopyReport::default());
    assert_eq!(scene.snapshots(1), all[2..]);
    // The first forgets what the second never had.
    scene.write(4);
    scene.backup(&[scene.store(0)]);
    scene.write(5);
    scene.backup(&[scene.store(0)]);
    let all = scene.snapshots(0);
    scene.open(0).forget(&all[2..4], &[], NOW).unwrap();
    let report = scene.copy();
    assert_eq!(report.snapshots, all[4..]);
    assert_eq!(note_forgotten(&[&scene.open(0)], &scene.open(1), NOW).unwrap(), 1);
    assert_eq!(scene.snapshots(1), [all[2], all[4]]);
    scene.is_sound(1);
    scene.is_sound(0);
    assert_eq!(scene.copy(), CopyReport::default());
    assert_eq!(note_forgotten(&[&scene.open(0)], &scene.open(1), NOW).unwrap(), 0);
}

/// One copy forgot what a second keeps: a third gets it all the same, whichever is asked first.
#[test]
fn what_another_copy_keeps_is_not_noted_as_forgotten() {
    let scene = Scene::new();
    for version in 1..4 {
        scene.write(version);
        scene.backup(&scene.both());
    }
    let all = scene.snapshots(0);
    scene.open(0).forget(&all[..1], &[], NOW).unwrap();
    let third: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    scene.lab.repository().create_copy(third.as_ref(), NOW).unwrap();
    let open = || Repository::open(Arc::clone(&third), &scene.lab.secret).unwrap();
    let options = CopyOptions { pack_target: PACK, ..CopyOptions::new(NOW) };
    for number in [0, 1] {
        copy_snapshots(&scene.open(number), &open(), None, &options, scene.lab.context()).unwrap();
        assert_eq!(note_forgotten(&[&scene.open(0), &scene.open(1)], &open(), NOW).unwrap(), 0);
    }
    let there: Vec<_> = open().snapshots().unwrap().snapshots.iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(there, all);
    // A copy that cannot say what it has may have it.
    let object = object_name(Area::Snapshots, &all[0]);
    let bytes = scene.stores[1].get(&object).unwrap();
    for store in [&scene.store(1), &third] {
        store.delete(&object).unwrap();
        store.put(&object, bytes.slice(1..)).unwrap();
    }
    assert_eq!(note_forgotten(&[&scene.open(0), &scene.open(1)], &open(), NOW).unwrap(), 0);
}

#[test]
fn pins_and_tags_travel() {
    let scene = Scene::new();
    scene.backup(&scene.both());
    let all = scene.snapshots(0);
    let pin = snap_format::Pin { reason: "why".into(), until: None };
    scene.open(0).pin(&all, &pin, NOW).unwrap();
    scene.open(0).set_tags(&all, &["nightly".into()], NOW).unwrap();
    assert_eq!(scene.copy().records, 2);
    let (set, overlays) = scene.open(1).snapshots_with_overlays().unwrap();
    assert_eq!(overlays.pin(&all[0], NOW), Some(&pin));
    assert_eq!(set.snapshots[0].envelope.tags, ["nightly"]);
    assert_eq!(scene.names(0, "records/"), scene.names(1, "records/"));
    assert_eq!(scene.copy().records, 0);
}

#[test]
fn what_is_damaged_is_not_spread_and_hinders_no_other() {
    let scene = Scene::new();
    scene.backup(&[scene.store(0)]);
    let first: BTreeSet<_> = scene.names(0, "packs/");
    std::fs::remove_file(scene.lab.source("large")).unwrap();
    for number in 0..12 {
        std::fs::remove_file(scene.lab.source(&format!("sub/noise {number}"))).unwrap();
    }
    scene.backup(&[scene.store(0)]);
    // A pack of data that only the first snapshot needs: the large file's.
    let largest = first.iter().max_by_key(|name| {
        scene.stores[0].get(&snap_backend::ObjectName::new(name.as_str()).unwrap()).unwrap().len()
    });
    let name = snap_backend::ObjectName::new(largest.unwrap().as_str()).unwrap();
    let mut bytes = scene.stores[0].get(&name).unwrap().to_vec();
    bytes[1000] ^= 1;
    scene.stores[0].delete(&name).unwrap();
    scene.stores[0].put(&name, bytes.into()).unwrap();
    let all = scene.snapshots(0);
    let report = scene.copy();
    assert_eq!((report.snapshots.as_slice(), report.left.as_slice()), (&all[1..], &all[..1]));
    let heard = scene.lab.heard();
    assert!(heard.iter().any(|text| text.contains(name.as_str())), "{heard:?}");
    assert!(!scene.names(1, "packs/").contains(name.as_str()));
    scene.restores(1);
}

#[test]
fn a_slot_that_cannot_read_copies_what_is_its_own() {
    let scene = Scene::new();
    let secret = Secret::random_key_file().unwrap();
    let new = snap_repo::NewSlot {
        role: snap_format::Role::Backup,
        secret: &secret,
        label: "web".into(),
        domain: None,
    };
    scene.open(0).add_slot(new, NOW).unwrap();
    scene.open(0).bring_epochs(scene.stores[1].as_ref()).unwrap();
    scene.backup(&[scene.store(0)]);
    let open = |number: usize| Repository::open(scene.store(number), &secret).unwrap();
    let own = snap_engine::backup(&open(0), None, scene.lab.options(), scene.lab.context()).unwrap();
    let options = CopyOptions::new(NOW);
    let report = copy_snapshots(&open(0), &open(1), None, &options, scene.lab.context()).unwrap();
    assert_eq!(report.snapshots, own.snapshot.into_iter().collect::<Vec<_>>());
    assert_eq!(report.left.len(), 1);
    scene.is_sound(1);
    // An owner brings the rest, and what is another's stays in its domain.
    let report = scene.copy();
    assert_eq!((report.snapshots.len(), report.left.len()), (1, 0));
    scene.is_sound(1);
    assert_eq!(scene.snapshots(1), scene.snapshots(0));
}
