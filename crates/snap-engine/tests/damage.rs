//! Damage by kind of object and kind of damage: what `check` must say, and what must still be readable.

#![allow(clippy::unwrap_used)] // a failed step is a failed test

mod check_support;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use check_support::forger::Forger;
use check_support::*;
use snap_backend::{Backend, ObjectName};
use snap_engine::ReadData;
use snap_format::{BlobKind, ObjectId};
use snap_repo::{Area, FindingCode, Index, RepoError, Repository, object_name};

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Delete,
    Halve,
    CutOneByte,
    Empty,
    /// Flips a bit at this many thousandths of the length.
    Flip(usize),
    Zeros,
    /// Puts it in the place of another of its kind, and the other in its.
    Swap,
    /// Puts the bytes of another of its kind in its place.
    Other,
    Append,
}

const HARMS: [Harm; 13] = [
    Harm::Delete,
    Harm::Halve,
    Harm::CutOneByte,
    Harm::Empty,
    Harm::Flip(0),
    Harm::Flip(10),
    Harm::Flip(300),
    Harm::Flip(700),
    Harm::Flip(1000),
    Harm::Zeros,
    Harm::Swap,
    Harm::Other,
    Harm::Append,
];

/// An object of the fixture, with another of its kind.
struct Victim {
    kind: &'static str,
    name: ObjectName,
    other: ObjectName,
}

/// What is expected of `check --read-data` by a reader.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// Exactly these findings, `code object`.
    Found(BTreeSet<String>),
    /// At least these; whatever else there is follows from them.
    AtLeast(BTreeSet<String>),
    /// The repository does not open, and says what is damaged.
    Refused(&'static str),
    /// Nothing, and nothing can be: why.
    Unknowable(&'static str),
}

struct Case {
    fixture: Fixture,
    /// Packs of the second snapshot's run, named by the index object that is damaged, and those of the other one.
    packs: BTreeMap<String, Vec<String>>,
    victims: Vec<Victim>,
}

fn fixture() -> Case {
    let mut fixture = Fixture::full();
    let forgotten = fixture.backup(OWNER, 9);
    fixture.snapshots.pop();
    fixture.expected.remove(&forgotten);
    let owner = Forger::new(&fixture.backend, [OWNER; 32]);
    let record = owner.put_forget(&[forgotten]);
    let other_record = owner.put_forget(&[ObjectId([7; 32])]);
    fixture.backend.remove(&object_name(Area::Snapshots, &forgotten));
    let mark = owner.put_mark(&[ObjectId([8; 32])]);
    let other_mark = owner.put_mark(&[ObjectId([9; 32])]);

    let repository = fixture.open(OWNER);
    let mut packs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut by_kind: BTreeMap<(ObjectId, BlobKind), ObjectId> = BTreeMap::new();
    let mut indexes = BTreeMap::new();
    // Each run made one data pack, one tree pack and one index object; they are told apart by their run keys.
    let snapshots = repository.snapshots().unwrap().snapshots;
    let (index, _) = Index::load(&repository, None).unwrap();
    for snapshot in &snapshots {
        for (_, place) in index.iter(&snapshot.envelope.domain) {
            if place.run_key == snapshot.envelope.run_key {
                by_kind.insert((snapshot.id, place.kind), place.pack_id);
            }
        }
    }
    for name in fixture.names("index/") {
        let id = ObjectId::from_hex(&name.as_str()[6..]).unwrap();
        let parsed = repository.parse_index(&id, &fixture.backend.get(&name).unwrap()).unwrap();
        let ids: Vec<ObjectId> = parsed.packs.iter().map(|pack| pack.id).collect();
        for snapshot in &snapshots {
            if by_kind.get(&(snapshot.id, BlobKind::Data)).is_some_and(|pack| ids.contains(pack)) {
                indexes.insert(snapshot.id, name.clone());
            }
        }
        let names = ids.iter().map(|id| object_name(Area::Packs, id).to_string()).collect();
        packs.insert(name.to_string(), names);
    }
    let [first, middle, tail, _] = fixture.snapshots[..] else { panic!("four snapshots") };
    let pack = |snapshot, kind| object_name(Area::Packs, &by_kind[&(snapshot, kind)]);
    let snapshot = |id| object_name(Area::Snapshots, &id);
    let mut epochs: Vec<(u64, ObjectName)> = fixture
        .names("epochs/")
        .into_iter()
        .map(|name| {
            (snap_format::Epoch::decode(&fixture.backend.get(&name).unwrap()).unwrap().0.number, name)
        })
        .collect();
    epochs.sort();
    let epoch = |number: usize| epochs[number].1.clone();
    let fixed = |name: &str| ObjectName::new(name).unwrap();
    let victims = [
        ("config", fixed("config"), fixed("config.bak")),
        ("config.bak", fixed("config.bak"), fixed("config")),
        ("epoch first", epoch(0), epoch(1)),
        ("epoch middle", epoch(1), epoch(2)),
        ("epoch head", epoch(2), epoch(1)),
        ("data pack", pack(middle, BlobKind::Data), pack(tail, BlobKind::Data)),
        ("tree pack", pack(middle, BlobKind::Tree), pack(tail, BlobKind::Tree)),
        ("index", indexes[&middle].clone(), indexes[&tail].clone()),
        ("snapshot first", snapshot(first), snapshot(tail)),
        ("snapshot middle", snapshot(middle), snapshot(first)),
        ("snapshot tail", snapshot(tail), snapshot(middle)),
        ("record", record, other_record),
        ("mark", mark, other_mark),
    ];
    let victims = victims.into_iter().map(|(kind, name, other)| Victim { kind, name, other }).collect();
    Case { fixture, packs, victims }
}

fn harm(case: &Case, victim: &Victim, harm: Harm) {
    let store = &case.fixture.backend;
    let other = store.get(&victim.other).unwrap();
    match harm {
        Harm::Delete => assert!(store.remove(&victim.name)),
        Harm::Swap => {
            store.replace(&victim.other, store.get(&victim.name).unwrap());
            store.replace(&victim.name, other);
        }
        Harm::Other => store.replace(&victim.name, other),
        _ => {
            let changed = store.damage(&victim.name, |bytes| match harm {
                Harm::Halve => bytes.truncate(bytes.len() / 2),
                Harm::CutOneByte => bytes.truncate(bytes.len() - 1),
                Harm::Empty => bytes.clear(),
                Harm::Flip(thousandths) => {
                    let at = (bytes.len() - 1) * thousandths / 1000;
                    bytes[at] ^= 0x10;
                }
                Harm::Zeros => bytes.fill(0),
                _ => bytes.extend_from_slice(b"garbage"),
            });
            assert!(changed);
        }
    }
}

fn set(lines: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    lines.into_iter().collect()
}

/// The table.
fn expected(case: &Case, victim: &Victim, harm: Harm) -> Expected {
    let (name, other) = (victim.name.as_str(), victim.other.as_str());
    // What a look at the bytes says: the object, and the other one if both were swapped.
    let bytes = match harm {
        Harm::Delete => set([format!("missing {name}")]),
        Harm::Swap => set([format!("misnamed {name}"), format!("misnamed {other}")]),
        Harm::Other => set([format!("misnamed {name}")]),
        _ => set([format!("corrupt {name}")]),
    };
    let unindexed = |index: &str| case.packs[index].iter().map(|pack| format!("unindexed {pack}"));
    match (victim.kind, harm) {
        // Both hold the same bytes.
        ("config" | "config.bak", Harm::Swap | Harm::Other) => Expected::Unknowable("the bytes are the same"),
        ("config" | "config.bak", _) => Expected::Found(bytes),
        ("epoch first", Harm::Delete) => Expected::Refused("missing"),
        ("epoch first", _) => Expected::Refused("corrupt"),
        // Without it the later ones cannot be believed: what they seal is a stranger's. The head is seen only by that.
        ("epoch head", Harm::Delete) => Expected::AtLeast(BTreeSet::new()),
        ("epoch middle" | "epoch head", _) => Expected::AtLeast(bytes),
        ("index", Harm::Delete) => Expected::Found(unindexed(name).collect()),
        ("index", Harm::Swap) => {
            Expected::Found(bytes.into_iter().chain(unindexed(name)).chain(unindexed(other)).collect())
        }
        ("index", _) => Expected::Found(bytes.into_iter().chain(unindexed(name)).collect()),
        ("snapshot tail", Harm::Delete) => Expected::Unknowable("nothing names the last snapshot"),
        ("record", Harm::Delete) => {
            Expected::Unknowable("the forgotten snapshot was the last: nothing names it, nor the record")
        }
        ("mark", Harm::Delete) => Expected::Unknowable("nothing names a mark; a prune would set it again"),
        _ => Expected::Found(bytes),
    }
}

#[test]
fn the_damage_table() {
    let case = fixture();
    let clean = case.fixture.backend.snapshot();
    let report = check_with(&case.fixture.open(OWNER), ReadData::All);
    assert_eq!(report.findings, []);
    let all = read_the_rest(&case.fixture.open(OWNER), &case.fixture, &report);
    let mut failures = Vec::new();
    let mut rows = 0;
    for victim in &case.victims {
        for what in HARMS {
            rows += 1;
            case.fixture.backend.restore(clean.clone());
            harm(&case, victim, what);
            let outcome = catch_unwind(AssertUnwindSafe(|| row(&case, victim, what, all)));
            if outcome.is_err() {
                failures.push(format!("{} / {what:?}", victim.kind));
            }
        }
    }
    assert!(failures.is_empty(), "of {rows}: {failures:#?}");
}

fn row(case: &Case, victim: &Victim, what: Harm, all: usize) {
    let expected = expected(case, victim, what);
    keyless_row(case, victim, what);
    for secret in [OWNER, RESTORE] {
        let store = Arc::new(case.fixture.backend.clone());
        let opened = Repository::open(store, &key(secret));
        let repository = match (&expected, opened) {
            (Expected::Refused(code), Err(RepoError::Damaged(finding))) => {
                assert_eq!((finding.code.as_str(), finding.object.as_str()), (*code, victim.name.as_str()));
                continue;
            }
            // The slot came with a later epoch, or the head is gone and with it the slot.
            (Expected::AtLeast(_), Err(RepoError::WrongKey(_))) if secret == RESTORE => continue,
            (_, opened) => opened.unwrap(),
        };
        let report = check_with(&repository, ReadData::All);
        let found: BTreeSet<String> = brief(&report).into_iter().collect();
        match &expected {
            Expected::Found(expected) => assert_eq!(found, *expected, "{:#?}", report.findings),
            Expected::AtLeast(expected) => {
                assert!(found.is_superset(expected), "{found:?}");
                assert!(report.findings.len() > expected.len());
                for finding in report.findings.iter().filter(|finding| {
                    !expected.contains(&format!("{} {}", finding.code.as_str(), finding.object))
                }) {
                    assert!(finding.why.contains("unknown epoch"), "{finding}");
                }
            }
            Expected::Unknowable(_) => assert_eq!(report.findings, []),
            Expected::Refused(_) => panic!("it opened"),
        }
        assert_eq!(report.findings.len(), found.len(), "an object is named twice: {:#?}", report.findings);
        // Everything else is still there.
        let read = read_the_rest(&repository, &case.fixture, &report);
        let least = match victim.kind {
            "config" | "config.bak" | "record" | "mark" => all,
            "epoch middle" | "epoch head" => 6,
            "data pack" | "tree pack" | "index" if what == Harm::Swap => all - 2 * 6,
            _ if what == Harm::Swap && victim.kind.starts_with("snapshot") => all - 2 * 6,
            _ => all - 6,
        };
        assert!(read >= least, "{read} of {all} files could be read, not {least}");
        // Structure alone must find the same, but for what only the bytes of a data pack show.
        let structure: BTreeSet<String> =
            brief(&check_with(&repository, ReadData::None)).into_iter().collect();
        assert!(structure.is_subset(&found), "{structure:?}");
        let same_size = matches!(what, Harm::Flip(_) | Harm::Zeros | Harm::Swap | Harm::Other);
        let only_in_bytes = victim.kind.ends_with("pack") && same_size;
        assert!(only_in_bytes || structure == found, "{structure:?}");
    }
    backup_row(case, victim, &expected);
}

/// The role backup sees the same but for what is inside of packs.
fn backup_row(case: &Case, victim: &Victim, expected: &Expected) {
    let store = Arc::new(case.fixture.backend.clone());
    match (expected, Repository::open(store, &key(BACKUP))) {
        (Expected::Refused(_), opened) => assert!(opened.is_err()),
        (Expected::AtLeast(_), _) => {}
        (Expected::Unknowable(_), opened) => {
            assert_eq!(check_with(&opened.unwrap(), ReadData::All).findings, [], "{}", victim.kind);
        }
        (Expected::Found(expected), opened) => {
            let found: BTreeSet<String> =
                brief(&check_with(&opened.unwrap(), ReadData::All)).into_iter().collect();
            assert_eq!(found, *expected);
        }
    }
}

/// Without a key rot is seen wherever it is, and so is a gap in the chain of epochs.
fn keyless_row(case: &Case, victim: &Victim, what: Harm) {
    let found: BTreeSet<String> = brief(&check_keyless(&case.fixture.backend)).into_iter().collect();
    let (name, other) = (victim.name.as_str(), victim.other.as_str());
    let is_config = victim.kind.starts_with("config");
    let expected = match what {
        Harm::Delete if is_config || matches!(victim.kind, "epoch first" | "epoch middle") => {
            set([format!("missing {name}")])
        }
        Harm::Delete => BTreeSet::new(),
        Harm::Swap | Harm::Other if is_config => BTreeSet::new(),
        Harm::Swap => set([format!("misnamed {name}"), format!("misnamed {other}")]),
        Harm::Other => set([format!("misnamed {name}")]),
        _ => set([format!("corrupt {name}")]),
    };
    assert_eq!(found, expected, "keyless");
}

#[test]
fn a_flipped_bit_in_a_data_pack_is_traced_to_the_files_of_its_group() {
    let case = fixture();
    let pack = case.victims.iter().find(|victim| victim.kind == "data pack").unwrap();
    let middle = case.fixture.snapshots[1];
    case.fixture.backend.damage(&pack.name, |bytes| bytes[28 + 100] ^= 1);
    let repository = case.fixture.open(OWNER);
    assert_eq!(check_with(&repository, ReadData::None).findings, []);
    let report = check_with(&repository, ReadData::All);
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.code, finding.object.as_str()), (FindingCode::Corrupt, pack.name.as_str()));
    assert_eq!(finding.snapshots, [middle]);
    // What was new in that run was small: all of it was sealed together.
    let paths: Vec<String> =
        finding.paths.iter().map(|path| String::from_utf8(path.clone()).unwrap()).collect();
    assert_eq!(paths, ["/srv/app/new", "/srv/app/text", "/srv/long", "/srv/sparse"]);
    // The backup role may not look inside.
    let report = check_with(&case.fixture.open(BACKUP), ReadData::All);
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.snapshots.len(), finding.paths.len()), (0, 0));
}

#[test]
fn a_chunk_of_all_snapshots_is_lost_in_all_of_them() {
    let case = fixture();
    let repository = case.fixture.open(OWNER);
    let first = repository.snapshots().unwrap().snapshots[0].clone();
    assert_eq!(first.id, case.fixture.snapshots[0]);
    let (index, _) = Index::load(&repository, None).unwrap();
    let run_key = first.envelope.run_key;
    let pack = index
        .iter("main")
        .find(|(_, place)| place.run_key == run_key && place.kind == BlobKind::Data)
        .unwrap()
        .1
        .pack_id;
    case.fixture.backend.remove(&object_name(Area::Packs, &pack));
    for read in [ReadData::None, ReadData::All] {
        let report = check_with(&repository, read);
        let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
        let name = object_name(Area::Packs, &pack);
        assert_eq!((finding.code, finding.object.as_str()), (FindingCode::Missing, name.as_str()));
        let mut all: Vec<_> = case.fixture.snapshots[..3].to_vec();
        all.sort();
        assert_eq!(finding.snapshots, all);
        let paths: Vec<_> = finding.paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
        assert_eq!(paths, ["/srv/app/always", "/srv/app/new", "/srv/app/text", "/srv/long", "/srv/sparse"]);
        read_the_rest(&repository, &case.fixture, &report);
    }
}

#[test]
fn a_lost_index_and_its_pack_leave_dangling_blobs() {
    let case = fixture();
    let find = |kind: &str| case.victims.iter().find(|victim| victim.kind == kind).unwrap();
    let (index, pack) = (find("index"), find("data pack"));
    case.fixture.backend.remove(&index.name);
    case.fixture.backend.remove(&pack.name);
    let report = check_with(&case.fixture.open(OWNER), ReadData::All);
    let snapshot = object_name(Area::Snapshots, &case.fixture.snapshots[1]).to_string();
    let tree = case.packs[index.name.as_str()].iter().find(|name| *name != pack.name.as_str()).unwrap();
    let lines: BTreeSet<String> = brief(&report).into_iter().collect();
    assert_eq!(lines, set([format!("dangling {snapshot}"), format!("unindexed {tree}")]));
    assert!(report.findings.iter().all(|finding| finding.snapshots == [case.fixture.snapshots[1]]));
    let blobs = report.findings.iter().filter(|finding| finding.code == FindingCode::Dangling).count();
    assert_eq!(blobs, 5 + 1 + 4 + 2, "chunks of new, text, long and sparse");
    read_the_rest(&case.fixture.open(OWNER), &case.fixture, &report);
}

/// The version stands in every object; a bit of it flips as easily as any other.
#[test]
fn a_flipped_version_is_damage_and_no_newer_version() {
    let case = fixture();
    let clean = case.fixture.backend.snapshot();
    for victim in case.victims.iter().filter(|victim| victim.kind != "epoch first") {
        case.fixture.backend.restore(clean.clone());
        case.fixture.backend.damage(&victim.name, |bytes| bytes[8] ^= 2);
        let found = brief(&check_with(&case.fixture.open(OWNER), ReadData::All));
        assert!(found.contains(&format!("corrupt {}", victim.name)), "{}: {found:?}", victim.kind);
        let keyless = brief(&check_keyless(&case.fixture.backend));
        assert_eq!(keyless, [format!("corrupt {}", victim.name)]);
    }
}

/// Bytes from anywhere in every place: nothing panics, and what is refused is named.
#[test]
fn nothing_panics_on_garbage() {
    let case = fixture();
    let clean = case.fixture.backend.snapshot();
    let names = case.fixture.backend.names();
    for (number, name) in names.iter().enumerate() {
        for garbage in
            [noise(number as u64, 5000), b"SNAPPACK\0\0\x01\0".repeat(30), b"SNAPSBOX\x09\0".repeat(9)]
        {
            case.fixture.backend.restore(clean.clone());
            case.fixture.backend.replace(name, garbage);
            let store = Arc::new(case.fixture.backend.clone());
            if let Ok(repository) = Repository::open(store, &key(OWNER)) {
                let report = check_with(&repository, ReadData::All);
                assert!(report.findings.iter().any(|finding| finding.object == name.as_str()), "{name}");
            }
        }
    }
}
