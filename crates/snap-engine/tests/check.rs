//! `check` on whole repositories, on what interrupted runs leave, and on hostile ones.

#![allow(clippy::unwrap_used)] // a failed step is a failed test

mod check_support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use check_support::forger::Forger;
use check_support::*;
use snap_backend::{LocalBackend, MemoryBackend};
use snap_engine::{CheckOptions, Context, EngineError, NullObserver, Progress, ReadData};
use snap_format::{BlobKind, BranchEntry, Content, TreeBlob};
use snap_repo::{Repository, parse_object_name};

const READ: [ReadData; 5] = [
    ReadData::None,
    ReadData::All,
    ReadData::Part { number: 2, of: 3 },
    ReadData::Percent { percent: 40.0, seed: 7 },
    ReadData::Bytes { bytes: 100_000, seed: 7 },
];

#[test]
fn a_whole_repository_has_no_findings() {
    let fixture = Fixture::full();
    for secret in [OWNER, RESTORE, BACKUP] {
        for read in READ {
            let report = check_with(&fixture.open(secret), read);
            assert_eq!(report.findings, [], "key {secret}, {read:?}");
            assert_eq!(report.objects, fixture.backend.len() as u64);
        }
        let report = check_with(&fixture.open(secret), ReadData::All);
        assert!(report.read_bytes >= fixture.backend.total_bytes());
    }
    let report = check_keyless(&fixture.backend);
    assert_eq!(report.findings, []);
    assert_eq!(report.read_bytes, fixture.backend.total_bytes());
    assert_eq!(report.objects, fixture.backend.len() as u64);
    let report = check_with(&fixture.open(OWNER), ReadData::All);
    assert_eq!(read_the_rest(&fixture.open(OWNER), &fixture, &report), 4 * 6);
}

#[test]
fn a_directory_is_checked_like_memory() {
    let fixture = Fixture::full();
    let place = tempfile::tempdir().unwrap();
    for name in fixture.backend.names() {
        let path = place.path().join(name.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, snap_backend::Backend::get(&fixture.backend, &name).unwrap()).unwrap();
    }
    let local = Arc::new(LocalBackend::new(place.path(), false));
    let repository = Repository::open(local.clone(), &key(OWNER)).unwrap();
    assert_eq!(check_with(&repository, ReadData::All).findings, []);
    assert_eq!(check_keyless(local.as_ref()).findings, []);
}

#[test]
fn what_interrupted_runs_leave_is_no_damage() {
    let mut fixture = Fixture::full();
    // Packs without an index: killed before the index was put. An index without a snapshot: killed after.
    for (seed, finish) in [(50, false), (60, true)] {
        let repository = fixture.open(OWNER);
        let before = fixture.backend.len();
        let state = fixture.backend.snapshot();
        fixture.backup(OWNER, seed);
        let id = fixture.snapshots.pop().unwrap();
        fixture.expected.remove(&id);
        let kept = fixture.backend.names();
        assert!(kept.len() > before);
        for name in kept {
            let is_new = !state_has(&state, name.as_str());
            let goes =
                name.as_str().starts_with("snapshots/") || (name.as_str().starts_with("index/") && !finish);
            if is_new && goes {
                fixture.backend.remove(&name);
            }
        }
        for secret in [OWNER, RESTORE, BACKUP] {
            for read in [ReadData::None, ReadData::All] {
                assert_eq!(brief(&check_with(&fixture.open(secret), read)), [] as [&str; 0]);
            }
        }
        drop(repository);
    }
    assert_eq!(check_keyless(&fixture.backend).findings, []);
    // The next run takes them over.
    fixture.backup(OWNER, 5);
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [] as [&str; 0]);
}

fn state_has(state: &snap_backend::MemoryState, name: &str) -> bool {
    let names = MemoryBackend::from_state(state.clone()).names();
    names.iter().any(|known| known.as_str() == name)
}

#[test]
fn an_interrupted_prune_is_no_damage() {
    let mut fixture = Fixture::new();
    fixture.backup(OWNER, 1);
    fixture.backup(OWNER, 2);
    let (first, second) = (fixture.snapshots[0], fixture.snapshots[1]);
    let owner = Forger::new(&fixture.backend, [OWNER; 32]);
    owner.put_forget(&[first]);
    fixture.backend.remove(&snap_repo::object_name(snap_repo::Area::Snapshots, &first));
    // The marks stand, one pack is gone already and one is not.
    let repository = fixture.open(OWNER);
    let report = check_with(&repository, ReadData::All);
    assert_eq!(brief(&report), [] as [&str; 0], "the second snapshot follows one that was forgotten");
    let packs: Vec<_> =
        fixture.names("packs/").iter().map(|name| parse_object_name(name.as_str()).unwrap().1).collect();
    owner.put_mark(&packs);
    assert_eq!(brief(&check_with(&repository, ReadData::All)), [] as [&str; 0]);
    assert!(fixture.expected.contains_key(&second));
}

#[test]
fn a_stranger_in_the_store_is_noted_and_left_alone() {
    let fixture = Fixture::full();
    for name in ["packs/readme", "index/x", "lost+found", "notes/a"] {
        if let Ok(name) = snap_backend::ObjectName::new(name) {
            fixture.backend.replace(&name, b"?".as_slice());
        }
    }
    let heard = Heard::default();
    let options = CheckOptions { read_data: ReadData::All };
    let repository = fixture.open(OWNER);
    let report = with_context(&heard, |context| snap_engine::check(&repository, &options, context)).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(heard.0.lock().unwrap().iter().filter(|event| event.contains("left alone")).count(), 2);
    assert_eq!(check_keyless(&fixture.backend).findings, []);
}

#[test]
fn it_stops_when_told_and_refuses_nonsense() {
    let fixture = Fixture::full();
    let (progress, stop) = (Progress::default(), AtomicBool::new(true));
    let context =
        Context { observer: &NullObserver, progress: &progress, stop: &stop, threads: 2, memory_bytes: 0 };
    let options = CheckOptions { read_data: ReadData::All };
    let repository = fixture.open(OWNER);
    assert!(matches!(snap_engine::check(&repository, &options, context), Err(EngineError::Interrupted)));
    assert!(matches!(snap_engine::check_keyless(&fixture.backend, context), Err(EngineError::Interrupted)));
    let nonsense = CheckOptions { read_data: ReadData::Part { number: 4, of: 3 } };
    let outcome = with_context(&NullObserver, |context| snap_engine::check(&repository, &nonsense, context));
    assert!(matches!(outcome, Err(EngineError::Usage(_))));
    let nothing =
        with_context(&NullObserver, |context| snap_engine::check_keyless(&MemoryBackend::new(), context));
    assert!(matches!(nothing, Err(EngineError::Repo(snap_repo::RepoError::NoRepository(_)))));
}

#[test]
fn a_snapshot_that_came_back_is_found() {
    let fixture = Fixture::full();
    let owner = Forger::new(&fixture.backend, [OWNER; 32]);
    owner.put_forget(&[fixture.snapshots[1]]);
    let expected = [format!("forged snapshots/{}", fixture.snapshots[1])];
    for secret in [OWNER, BACKUP] {
        assert_eq!(brief(&check_with(&fixture.open(secret), ReadData::All)), expected);
    }
}

/// What a backup slot can put into the store: nothing of it touches another domain, and check names the slot.
#[test]
fn a_hostile_backup_slot_is_named_and_touches_nobody() {
    let fixture = Fixture::full();
    let hostile = Forger::new(&fixture.backend, [BACKUP; 32]);
    let own = hostile.domain();
    assert_ne!(own, "main");
    let (index, _) = snap_repo::Index::load(&fixture.open(OWNER), None).unwrap();
    let theirs: Vec<_> = index.iter("main").collect();
    let stolen = theirs.iter().find(|(_, place)| place.kind == BlobKind::Data).unwrap().0;
    let stolen_tree = theirs.iter().find(|(_, place)| place.kind == BlobKind::Tree).unwrap().0;
    let mut expected = Vec::new();
    let mut expect = |code: &str, object: String| expected.push(format!("{code} {object}"));

    // A blob whose content is not what its id says; it is indexed in its own domain.
    let content = b"not what you backed up".as_slice();
    let lying = hostile.put_pack(
        BlobKind::Data,
        &own,
        &[(stolen, content), (hostile.id(BlobKind::Data, b"x"), b"y")],
    );
    hostile.put_index(std::slice::from_ref(&lying));
    expect("forged", snap_repo::object_name(snap_repo::Area::Packs, &lying.id).to_string());
    // A tree that is none, with the id that it ought to have.
    let garbage = b"this is no tree".as_slice();
    let no_tree = hostile.put_pack(BlobKind::Tree, &own, &[(hostile.id(BlobKind::Tree, garbage), garbage)]);
    let index_of_tree = hostile.put_index(std::slice::from_ref(&no_tree));
    expect("forged", snap_repo::object_name(snap_repo::Area::Packs, &no_tree.id).to_string());
    // The same pack claimed for the main domain, shadowing a blob there.
    let mut shadow = lying.clone();
    shadow.domain = "main".into();
    expect("forged", hostile.put_index(&[shadow]).to_string());
    // A pack of the main domain claimed for its own, with another table.
    let victims: Vec<_> = index.packs().filter(|pack| &*pack.domain == "main").collect();
    let claimed: Vec<_> = victims
        .iter()
        .map(|pack| snap_format::IndexedPack { id: pack.id, size: pack.size, ..lying.clone() })
        .collect();
    let liar = hostile.put_index(&claimed).to_string();
    for _ in &claimed {
        expect("forged", liar.clone());
    }
    // A pack that says itself that it is of the main domain.
    let (foreign, bytes) = hostile.pack(BlobKind::Data, "main", &[(stolen, content)]);
    hostile.put(snap_repo::Area::Packs, bytes);
    expect("forged", snap_repo::object_name(snap_repo::Area::Packs, &foreign.id).to_string());
    // A snapshot for the main domain, marks, a forget, and an epoch.
    expect("forged", hostile.put_snapshot("main", stolen_tree, None).to_string());
    expect("forged", hostile.put_mark(&[victims[0].id]).to_string());
    expect("forged", hostile.put_forget(&fixture.snapshots).to_string());
    expect("forged", hostile.put_epoch().to_string());
    // A snapshot of its own whose root is another domain's tree: nothing is there in its own.
    let borrowed = hostile.put_snapshot(&own, stolen_tree, None).to_string();
    expect("dangling", borrowed);
    // And one whose root is its tree that is none.
    hostile.put_snapshot(&own, no_tree.blobs[0].id, None);
    drop(index_of_tree);
    expected.sort();

    for secret in [OWNER, RESTORE] {
        let repository = fixture.open(secret);
        let report = check_with(&repository, ReadData::All);
        assert_eq!(brief(&report), expected, "{:#?}", report.findings);
        for finding in report.findings.iter().filter(|finding| finding.code == snap_repo::FindingCode::Forged)
        {
            let is_epoch = finding.object.starts_with("epochs/");
            assert!(finding.why.contains(&hostile.name()) || is_epoch, "{finding}");
        }
        // Every snapshot but the forged ones is whole.
        let whole: usize = fixture.expected.values().map(std::collections::BTreeMap::len).sum();
        assert_eq!(read_the_rest(&repository, &fixture, &report), whole);
        // Without reading data the lies about blobs stay unseen, the rest does not.
        let structure = brief(&check_with(&repository, ReadData::None));
        let unseen = format!("forged {}", snap_repo::object_name(snap_repo::Area::Packs, &lying.id));
        let without: Vec<_> = expected.iter().filter(|line| **line != unseen).cloned().collect();
        assert_eq!(structure, without);
    }
    assert_eq!(check_keyless(&fixture.backend).findings, []);
    // Its marks hide nothing, its index shadows nothing: a new run of the owner knows what it knew.
    let writer = begin_ignoring_findings(&fixture.open(OWNER));
    assert!(writer.knows(&stolen));
    let mut fixture = fixture;
    fixture.expected.clear();
    let repository = fixture.open(OWNER);
    assert_eq!(repository.keyring().own_domain(), "main");
}

fn begin_ignoring_findings(repository: &Repository) -> snap_repo::Writer {
    let (index, _) = snap_repo::Index::load(repository, None).unwrap();
    snap_repo::Writer::begin(repository, index, None, snap_repo::WriterOptions::default()).unwrap()
}

/// Trees that open and contradict themselves, written by who may write them.
#[test]
fn trees_that_contradict_themselves_are_found() {
    type Case = (&'static str, &'static str, fn(&snap_repo::Writer) -> snap_format::BlobId);
    let cases: [Case; 5] = [
        ("a size that chunks do not add up to", "/f", |writer| {
            let chunk = add(writer, BlobKind::Data, b"12345");
            leaf(writer, vec![file("f", 6, Content::Blobs(vec![chunk]), Vec::new())])
        }),
        ("a list that is a leaf", "/f", |writer| {
            let chunk = leaf(writer, Vec::new());
            leaf(writer, vec![file("f", 6, Content::Lists(vec![chunk]), Vec::new())])
        }),
        ("a branch that miscounts", "/d", |writer| {
            let inner = leaf(writer, vec![file("f", 0, Content::default(), Vec::new())]);
            let branch = TreeBlob::Branch(vec![BranchEntry { first: b"f".to_vec(), id: inner, nodes: 2 }]);
            let branch = add(writer, BlobKind::Tree, &branch.encode());
            leaf(writer, vec![dir("d", branch)])
        }),
        ("a directory that is a content list", "/d", |writer| {
            let list = add(writer, BlobKind::Tree, &TreeBlob::Content(Vec::new()).encode());
            leaf(writer, vec![dir("d", list)])
        }),
        ("branches without end", "/", |writer| {
            let mut tree = leaf(writer, vec![file("f", 0, Content::default(), Vec::new())]);
            for _ in 0..10 {
                let branch = TreeBlob::Branch(vec![BranchEntry { first: b"f".to_vec(), id: tree, nodes: 1 }]);
                tree = add(writer, BlobKind::Tree, &branch.encode());
            }
            tree
        }),
    ];
    for (what, path, make) in cases {
        let mut fixture = Fixture::full();
        fixture.expected.clear();
        let repository = fixture.open(OWNER);
        let writer = begin(&repository);
        let root = make(&writer);
        let id = writer.finish().unwrap().commit(new_snapshot(root, time(99), None)).unwrap();
        for read in [ReadData::None, ReadData::All] {
            let report = check_with(&repository, read);
            let [finding] = report.findings.as_slice() else { panic!("{what}: {:#?}", report.findings) };
            assert_eq!(finding.code, snap_repo::FindingCode::Forged, "{what}");
            assert!(finding.object.starts_with("packs/") && finding.blob.is_some(), "{what}: {finding}");
            assert_eq!(finding.snapshots, [id], "{what}");
            assert_eq!(finding.paths, [path.as_bytes()], "{what}");
            assert!(finding.why.contains(&repository.keyring().slot().to_hex()), "{what}: {finding}");
        }
    }
}

/// Directories that refer to one directory twice, level upon level, have more paths than atoms; the walk ends nevertheless.
#[test]
fn paths_that_double_at_each_level_end() {
    let fixture = Fixture::new();
    let repository = fixture.open(OWNER);
    let writer = begin(&repository);
    let mut tree =
        leaf(&writer, vec![file("f", 7, Content::Blobs(vec![snap_format::BlobId([9; 32])]), Vec::new())]);
    for _ in 0..64 {
        tree = leaf(&writer, vec![dir("a", tree), dir("b", tree)]);
    }
    let id = writer.finish().unwrap().commit(new_snapshot(tree, time(99), None)).unwrap();
    let report = check_with(&repository, ReadData::All);
    assert_eq!(brief(&report), [format!("dangling snapshots/{id}")]);
    assert_eq!(report.findings[0].paths.len(), 100);
}

/// Packs that a prune is about to delete: no run takes them over, relies on them, or fails to notice (F27).
#[test]
fn a_run_leaves_marked_packs_its_own_too() {
    let mut fixture = Fixture::new();
    fixture.add_slot(snap_format::Role::Backup, BACKUP, "web");
    fixture.backup(OWNER, 1);
    let owner = Forger::new(&fixture.backend, [OWNER; 32]);
    let repository = fixture.open(OWNER);
    let id_of = |name: &snap_backend::ObjectName| parse_object_name(name.as_str()).unwrap().1;
    let old: Vec<_> = fixture.names("packs/").iter().map(id_of).collect();

    // A run that knows the old packs, and stores one of its own; both are marked when its index is stored already.
    let writer = begin(&repository);
    let known = writer.add(BlobKind::Data, &noise(0, 25_000)[..CHUNK], &mut scratch()).unwrap();
    assert!(!known.1);
    let fresh = writer.add(BlobKind::Data, b"new in this run", &mut scratch()).unwrap();
    let content = Content::Blobs(vec![known.0, fresh.0]);
    let root = leaf(&writer, vec![file("f", CHUNK as u64 + 15, content, Vec::new())]);
    let flushed = writer.finish().unwrap();
    let before: Vec<_> = fixture.names("packs/").iter().map(id_of).collect();
    let mark = owner.put_mark(&before);
    let id = flushed.commit(new_snapshot(root, time(50), Some(fixture.snapshots[0]))).unwrap();

    // The prune goes on: the first snapshot, the index of what it deletes, the packs, the mark.
    let forget = owner.put_forget(&fixture.snapshots);
    fixture.backend.remove(&snap_repo::object_name(snap_repo::Area::Snapshots, &fixture.snapshots[0]));
    for name in fixture.names("index/") {
        let bytes = snap_backend::Backend::get(&fixture.backend, &name).unwrap();
        let parsed = repository.parse_index(&id_of(&name), &bytes).unwrap();
        if parsed.packs.iter().all(|pack| before.contains(&pack.id)) {
            fixture.backend.remove(&name);
        }
    }
    // Killed here, nothing is wrong, whoever looks; and the next run does not adopt what is about to go.
    for secret in [OWNER, BACKUP] {
        assert_eq!(brief(&check_with(&fixture.open(secret), ReadData::All)), [] as [&str; 0]);
    }
    let writer = begin(&repository);
    assert!(before.iter().all(|pack| writer.index().pack_number(pack).is_none()));
    drop(writer);
    for pack in &before {
        fixture.backend.remove(&snap_repo::object_name(snap_repo::Area::Packs, pack));
    }
    fixture.backend.remove(&mark);
    let report = check_with(&repository, ReadData::All);
    assert_eq!(brief(&report), [] as [&str; 0], "{:#?}", report.findings);
    assert!(old.iter().all(|pack| before.contains(pack)));
    let snapshots = repository.snapshots().unwrap().snapshots;
    assert_eq!(snapshots.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), [id]);
    drop(forget);
}

fn scratch() -> snap_repo::Scratch {
    snap_repo::Scratch::new(3).unwrap()
}
