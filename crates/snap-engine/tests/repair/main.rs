//! Everything that can be wrong with a repository, and what `repair` makes of it.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod beside;
#[path = "../check_support/mod.rs"]
mod check_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use check_support::forger::Forger;
use check_support::*;
use snap_backend::{Backend, Bytes, ObjectName};
use snap_engine::browse::{Browser, Found};
use snap_engine::repair::{RepairOptions, RepairReport, repair};
use snap_engine::{CheckReport, EngineError, NullObserver, ReadData};
use snap_format::{BlobKind, Node, NodeKind, ObjectId, Role};
use snap_repo::{Area, Index, MergeRequest, RepoError, Repository, Scratch, object_name, parse_object_name};

fn run(repository: &Repository, dry_run: bool) -> snap_engine::Result<RepairReport> {
    let options = RepairOptions { dry_run, give_up_epochs: false, now: time(5000) };
    with_context(&NullObserver, |context| repair(repository, None, &options, context))
}

/// `what object` of each action, sorted.
fn actions(report: &RepairReport) -> Vec<String> {
    let mut out: Vec<_> =
        report.actions.iter().map(|it| format!("{} {}", it.ill.as_str(), it.finding.object)).collect();
    out.sort();
    out
}

fn flip(fixture: &Fixture, name: &ObjectName, at: usize) {
    let mut bytes = fixture.backend.get(name).unwrap().to_vec();
    bytes[at] ^= 1;
    fixture.backend.replace(name, bytes);
}

fn id(name: &ObjectName) -> ObjectId {
    parse_object_name(name.as_str()).unwrap().1
}

/// The data packs of the owner, or those of trees.
fn packs(fixture: &Fixture, kind: BlobKind) -> Vec<ObjectName> {
    let repository = fixture.open(OWNER);
    let of_kind = |name: &ObjectName| {
        let size = fixture.backend.stat(name).unwrap().size_bytes;
        let opened = repository.read_pack_header(id(name), size);
        opened.is_ok_and(|(_, pack)| pack.kind == kind && pack.domain == "main")
    };
    fixture.names("packs/").into_iter().filter(of_kind).collect()
}

/// What is expected of snapshots that were written anew is what was expected of the old ones, where nothing is missing.
fn follow(fixture: &mut Fixture, report: &RepairReport) -> BTreeMap<ObjectId, ObjectId> {
    for (old, new) in &report.rewritten {
        if let Some(files) = fixture.expected.get(old).cloned() {
            fixture.expected.insert(*new, files);
        }
    }
    report.rewritten.iter().map(|(old, new)| (*new, *old)).collect()
}

fn node(repository: &Repository, snapshot: &ObjectId, path: &str) -> (Node, Vec<u8>) {
    let (index, findings) = Index::load(repository, None).unwrap();
    assert_eq!(findings, []);
    let set = repository.snapshots().unwrap();
    let snapshot = set.snapshots.iter().find(|it| it.id == *snapshot).unwrap();
    let browser = Browser::open(repository, Arc::new(index), snapshot).unwrap();
    let mut scratch = Scratch::new(3).unwrap();
    let Found::Node(node) = browser.find(path.as_bytes(), &mut scratch).unwrap() else { panic!("{path}") };
    let mut bytes = Vec::new();
    if node.content().is_some() {
        browser.cat(&node, &mut bytes, &mut scratch).unwrap();
    }
    (*node, bytes)
}

fn missing_of(node: &Node) -> Option<String> {
    let xattr = node.xattrs.iter().find(|xattr| xattr.name == b"user.snap.missing")?;
    Some(String::from_utf8(xattr.value.clone()).unwrap())
}

/// Rehearses, repairs, and makes sure that everything is right afterwards but for what is marked. `expected` are the findings
/// of the check before, `done` the actions. Returns what was reported and what was found to be lost.
fn put_right(fixture: &mut Fixture, expected: &[String], done: &[String]) -> (RepairReport, usize) {
    let before = fixture.backend.snapshot();
    let found = check_with(&fixture.open(OWNER), ReadData::All);
    assert_eq!(brief(&found), expected, "what the check finds");
    let rehearsal = run(&fixture.open(OWNER), true).unwrap();
    assert!(fixture.backend.snapshot() == before, "a rehearsal writes nothing");
    assert_eq!(actions(&rehearsal), done, "rehearsed");
    let report = run(&fixture.open(OWNER), false).unwrap();
    assert_eq!(actions(&report), done, "done");
    assert_eq!((&report.lost, report.lost_count), (&rehearsal.lost, rehearsal.lost_count));
    follow(fixture, &report);
    for secret in [OWNER, RESTORE] {
        let after = check_with(&fixture.open(secret), ReadData::All);
        assert_eq!(brief(&after), [""; 0], "after the repair");
    }
    let repaired = fixture.backend.snapshot();
    let again = run(&fixture.open(OWNER), false).unwrap();
    assert_eq!(actions(&again), [""; 0], "once is enough");
    assert!(fixture.backend.snapshot() == repaired, "and nothing is written the second time");
    let read = compare(fixture, &report);
    (report, read)
}

/// Compares every file of every snapshot that is expected: what is missing reads as zeros. Returns how many are whole.
fn compare(fixture: &Fixture, report: &RepairReport) -> usize {
    let owner = fixture.open(OWNER);
    let old: BTreeMap<ObjectId, ObjectId> = report.rewritten.iter().map(|(old, new)| (*new, *old)).collect();
    let mut whole = 0;
    for snapshot in owner.snapshots().unwrap().snapshots {
        let Some(files) = fixture.expected.get(&snapshot.id) else { continue };
        let was = old.get(&snapshot.id).copied().unwrap_or(snapshot.id);
        let is_repaired = snapshot.envelope.tags.contains(&"repaired".to_owned());
        assert_eq!(is_repaired, was != snapshot.id);
        for (path, expected) in files {
            let in_lost_dir = report.lost.iter().any(|lost| {
                let dir = String::from_utf8(lost.path.clone()).unwrap();
                lost.snapshot == was
                    && lost.missing == "tree"
                    && (dir == "/" || path.starts_with(&format!("{dir}/")))
            });
            if in_lost_dir {
                continue;
            }
            let (node, bytes) = node(&owner, &snapshot.id, path);
            let lost = report.lost.iter().find(|lost| lost.snapshot == was && lost.path == path.as_bytes());
            assert_eq!(missing_of(&node), lost.map(|lost| lost.missing.clone()), "{path}");
            assert_eq!(bytes.len(), expected.len(), "{path} keeps its size");
            let mut expected = expected.clone();
            for range in lost.into_iter().flat_map(|lost| lost.missing.split(',')) {
                let (offset, length) = range.split_once('+').unwrap();
                let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
                expected[offset..offset + length].fill(0);
            }
            assert!(bytes == expected, "{path} of {}", snapshot.id);
            if lost.is_some() {
                assert_eq!((node.ctime, node.inode), (None, None), "the next backup must not take it over");
            } else {
                whole += 1;
            }
        }
    }
    whole
}

fn said(what: &str, names: &[ObjectName]) -> Vec<String> {
    let mut out: Vec<_> = names.iter().map(|name| format!("{what} {name}")).collect();
    out.sort();
    out
}

const FILES: usize = 6;

#[test]
fn a_whole_repository_is_left_as_it_is() {
    let mut fixture = Fixture::full();
    let (report, read) = put_right(&mut fixture, &[], &[]);
    assert!(!report.has_losses() && report.duplicates == 0);
    assert_eq!(read, 4 * FILES);
}

#[test]
fn a_lost_index_is_made_from_the_packs() {
    let mut fixture = Fixture::full();
    let all = fixture.names("packs/");
    fixture.names("index/").iter().for_each(|name| {
        fixture.backend.remove(name);
    });
    let (report, read) = put_right(&mut fixture, &said("unindexed", &all), &said("unindexed-pack", &all));
    assert!(!report.has_losses());
    assert_eq!(read, 4 * FILES);
}

#[test]
fn a_damaged_index_object_gives_way() {
    let mut fixture = Fixture::full();
    let name = fixture.names("index/").remove(1);
    flip(&fixture, &name, 100);
    let found = check_with(&fixture.open(OWNER), ReadData::All);
    let unindexed: Vec<ObjectName> = found
        .findings
        .iter()
        .filter(|finding| finding.code.as_str() == "unindexed")
        .map(|finding| ObjectName::new(finding.object.clone()).unwrap())
        .collect();
    assert_eq!(unindexed.len(), 2);
    let expected = [said("corrupt", std::slice::from_ref(&name)), said("unindexed", &unindexed)].concat();
    let done = [said("damaged-index", &[name]), said("unindexed-pack", &unindexed)].concat();
    assert_eq!(put_right(&mut fixture, &expected, &done).1, 4 * FILES);
}

#[test]
fn packs_of_a_run_that_died_are_indexed() {
    let mut fixture = Fixture::full();
    let before = fixture.backend.names();
    let id = fixture.backup(OWNER, 9);
    fixture.expected.remove(&id);
    for prefix in ["snapshots/", "index/"] {
        for name in fixture.names(prefix) {
            if !before.contains(&name) {
                fixture.backend.remove(&name);
            }
        }
    }
    let orphans: Vec<_> = fixture.names("packs/").into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(orphans.len(), 2);
    put_right(&mut fixture, &[], &said("unindexed-pack", &orphans));
}

#[test]
fn what_waits_for_its_deletion_is_named_again_if_it_is_needed() {
    // Named by no index, and marked by a prune that went no further: needed all the same.
    let mut fixture = Fixture::full();
    let all = fixture.names("packs/");
    let marked = packs(&fixture, BlobKind::Data).remove(0);
    fixture.open(OWNER).mark_packs(&[id(&marked)], time(4000)).unwrap();
    fixture.names("index/").iter().for_each(|name| {
        fixture.backend.remove(name);
    });
    let found = brief(&check_with(&fixture.open(OWNER), ReadData::All));
    assert!(found.iter().any(|finding| finding.starts_with("dangling")), "{found:?}");
    let (report, read) = put_right(&mut fixture, &found, &said("unindexed-pack", &all));
    assert!(!report.has_losses());
    assert_eq!(read, 4 * FILES);

    // What a prune is about to delete is left to it, if nobody needs it.
    let mut fixture = Fixture::full();
    let before = fixture.backend.names();
    let last = fixture.backup(OWNER, 9);
    fixture.open(OWNER).forget(&[last], &[], time(600)).unwrap();
    let is_new = |name: &ObjectName| !before.contains(name);
    let new: Vec<ObjectName> = fixture.names("packs/").into_iter().filter(is_new).collect();
    let ids: Vec<ObjectId> = new.iter().map(id).collect();
    fixture.open(OWNER).mark_packs(&ids, time(4000)).unwrap();
    fixture.names("index/").into_iter().filter(is_new).for_each(|name| {
        fixture.backend.remove(&name);
    });
    assert_eq!(put_right(&mut fixture, &[], &[]).1, 4 * FILES);
}

/// A snapshot with one file, of chunks that are large enough to be sealed each by itself.
fn of_large_chunks() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.add_slot(Role::Restore, RESTORE, "drill");
    let repository = fixture.open(OWNER);
    let writer = begin(&repository);
    let bytes = noise(77, 1_000_000);
    let ids = bytes.chunks(200_000).map(|chunk| add(&writer, BlobKind::Data, chunk)).collect();
    let node = file("large", 1_000_000, snap_format::Content::Blobs(ids), vec![]);
    let root = leaf(&writer, vec![node]);
    let id = writer.finish().unwrap().commit(new_snapshot(root, time(9), None)).unwrap();
    fixture.expected.insert(id, [("/large", bytes)].into());
    fixture.snapshots.push(id);
    fixture
}

#[test]
fn what_is_left_of_a_damaged_pack_moves() {
    // In the second chunk, in the header, and cut short within the fourth.
    for (flipped, cut, moved, missing) in [
        (Some(250_000), None, 4, "200000+200000"),
        (Some(usize::MAX), None, 5, ""),
        (None, Some(700_000), 3, "600000+400000"),
    ] {
        let mut fixture = of_large_chunks();
        let pack = packs(&fixture, BlobKind::Data).remove(0);
        let bytes = fixture.backend.get(&pack).unwrap();
        match flipped {
            Some(at) => flip(&fixture, &pack, at.min(bytes.len() - 60)),
            None => fixture.backend.replace(&pack, bytes[..cut.unwrap()].to_vec()),
        }
        let mut done = said("damaged-pack", std::slice::from_ref(&pack));
        if !missing.is_empty() {
            done.push(format!("lost-blobs {}", object_name(Area::Snapshots, &fixture.snapshots[0])));
        }
        let (report, read) = put_right(&mut fixture, &said("corrupt", std::slice::from_ref(&pack)), &done);
        assert_eq!(report.moved_blobs, moved);
        assert!(!fixture.names("packs/").contains(&pack), "what is left of it is gone");
        // Writers and prunes learn that packs went (F34).
        let [trace] = &fixture.names("marks/")[..] else { panic!("{:?}", fixture.names("marks/")) };
        let mark = fixture.open(OWNER).parse_mark(&id(trace), &fixture.backend.get(trace).unwrap()).unwrap();
        assert_eq!(mark.packs, []);
        assert_eq!((report.has_losses(), read), (!missing.is_empty(), usize::from(missing.is_empty())));
        assert_eq!(report.lost.iter().map(|lost| lost.missing.as_str()).collect::<String>(), missing);
    }
}

#[test]
fn what_is_nowhere_becomes_holes() {
    let mut fixture = Fixture::full();
    let pack = packs(&fixture, BlobKind::Data).remove(0);
    fixture.backend.remove(&pack);
    let dry = run(&fixture.open(OWNER), true).unwrap();
    let lost: Vec<_> = dry.rewritten.iter().map(|(id, _)| object_name(Area::Snapshots, id)).collect();
    let done = [said("lost-blobs", &lost), said("missing-pack", std::slice::from_ref(&pack))].concat();
    let (report, read) = put_right(&mut fixture, &said("missing", &[pack]), &done);
    assert!(report.has_losses());
    assert_eq!(read + report.lost.len(), 4 * FILES, "each file is whole, or on the list");
    // A file with holes of its own keeps them, and its data are marked where they were.
    let sparse = report.lost.iter().find(|lost| lost.path == b"/srv/sparse");
    if let Some(sparse) = sparse {
        assert_eq!(sparse.missing, "5000+12000");
    }
    let long = report.lost.iter().find(|lost| lost.path == b"/srv/long").unwrap();
    assert_eq!(long.missing, "0+35000");
}

#[test]
fn lengths_are_told_by_their_neighbours_when_the_index_is_lost_too() {
    let mut fixture = Fixture::full();
    let pack = packs(&fixture, BlobKind::Data).remove(0);
    fixture.backend.remove(&pack);
    fixture.names("index/").iter().for_each(|name| {
        fixture.backend.remove(name);
    });
    let report = run(&fixture.open(OWNER), false).unwrap();
    follow(&mut fixture, &report);
    assert!(report.has_losses());
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [""; 0]);
    assert_eq!(compare(&fixture, &report) + report.lost.len(), 4 * FILES);
}

#[test]
fn a_lost_tree_leaves_an_empty_directory_that_says_so() {
    let mut fixture = Fixture::full();
    let trees = packs(&fixture, BlobKind::Tree);
    trees[..1].iter().for_each(|pack| {
        fixture.backend.remove(pack);
    });
    let report = run(&fixture.open(OWNER), false).unwrap();
    follow(&mut fixture, &report);
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [""; 0]);
    let roots: Vec<_> = report.lost.iter().filter(|lost| lost.path == b"/").collect();
    assert_eq!(roots.len(), 1, "the root of one snapshot was in it: {:?}", report.lost);
    compare(&fixture, &report);

    // One tree alone: the leaf of `/srv/app` in which `text` is. The directory keeps the rest.
    let mut fixture = Fixture::full();
    let name = packs(&fixture, BlobKind::Tree).remove(0);
    let size = fixture.backend.stat(&name).unwrap().size_bytes;
    let (_, pack) = fixture.open(OWNER).read_pack_header(id(&name), size).unwrap();
    let second = snap_repo::pack_places(&pack).nth(1).unwrap().1.offset;
    flip(&fixture, &name, second as usize + 30);
    let report = run(&fixture.open(OWNER), false).unwrap();
    follow(&mut fixture, &report);
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [""; 0]);
    let [(_, new)] = report.rewritten[..] else { panic!("{:?}", report.rewritten) };
    let [lost] = &report.lost[..] else { panic!("{:?}", report.lost) };
    assert_eq!((lost.path.as_slice(), lost.missing.as_str()), (&b"/srv/app"[..], "tree"));
    let owner = fixture.open(OWNER);
    let (app, _) = node(&owner, &new, "/srv/app");
    assert_eq!(missing_of(&app).as_deref(), Some("tree"));
    assert!(matches!(app.kind, NodeKind::Dir { .. }));
    let (_, always) = node(&owner, &new, "/srv/app/always");
    assert!(always == noise(0, 25_000));
    assert!(node(&owner, &new, "/srv/long").1.len() == 35_000);
}

#[test]
fn half_written_objects_go() {
    let mut fixture = Fixture::full();
    let pack = fixture.names("packs/").remove(0);
    let half = fixture.backend.get(&pack).unwrap().slice(..1000);
    let name = |area, byte| object_name(area, &ObjectId([byte; 32]));
    let junk = [
        (name(Area::Packs, 1), half),
        (name(Area::Packs, 2), Bytes::new()),
        (name(Area::Index, 3), Bytes::from_static(b"SNAPSBOX\0\0")),
        (name(Area::Marks, 4), Bytes::from_static(b"junk")),
        (name(Area::Records, 5), Bytes::new()),
        (name(Area::Snapshots, 6), Bytes::from_static(b"SNAP")),
    ];
    for (name, bytes) in &junk {
        fixture.backend.put(name, bytes.clone()).unwrap();
    }
    let names: Vec<ObjectName> = junk.iter().map(|(name, _)| name.clone()).collect();
    let done = [
        said("damaged-index", &names[2..3]),
        said("damaged-mark", &names[3..4]),
        said("damaged-record", &names[4..5]),
        said("damaged-snapshot", &names[5..6]),
        said("half-written-pack", &names[..2]),
    ]
    .concat();
    let half_written = check_with(&fixture.open(OWNER), ReadData::None);
    let is_said = |finding: &&snap_repo::Finding| finding.why.contains("half-written");
    assert_eq!(half_written.findings.iter().filter(is_said).count(), 2, "{:?}", half_written.findings);
    assert_eq!(put_right(&mut fixture, &said("corrupt", &names), &done).1, 4 * FILES);
}

#[test]
fn of_a_group_with_a_lie_in_it_the_rest_stays() {
    let mut fixture = Fixture::full();
    let forger = Forger::new(&fixture.backend, [OWNER; 32]);
    let (good, lie) = (noise(500, 300), noise(501, 400));
    let ids = [forger.id(BlobKind::Data, &good), snap_format::BlobId([7; 32])];
    let (pack, bytes) = forger.group("main", &[(ids[0], &good), (ids[1], &lie)]);
    let name = forger.put(Area::Packs, bytes);
    forger.put_index(&[pack]);
    let node = file("both", 700, snap_format::Content::Blobs(ids.to_vec()), vec![]);
    let tree = snap_format::TreeBlob::Leaf(vec![node]).encode();
    let root = forger.id(BlobKind::Tree, &tree);
    forger.put_index(&[forger.put_pack(BlobKind::Tree, "main", &[(root, &tree)])]);
    let snapshot = forger.put_snapshot("main", root, None);
    fixture.expected.insert(id(&snapshot), [("/both", [good, lie].concat())].into());
    let done = [said("damaged-pack", std::slice::from_ref(&name)), said("lost-blobs", &[snapshot])].concat();
    let (report, read) = put_right(&mut fixture, &said("forged", &[name]), &done);
    assert_eq!((report.moved_blobs, read), (1, 4 * FILES));
    assert_eq!(report.lost[0].missing, "300+400");
}

#[test]
fn what_nobody_may_have_signed_goes() {
    let mut fixture = Fixture::full();
    let web = Forger::new(&fixture.backend, [BACKUP; 32]);
    let tree = web.id(BlobKind::Tree, b"none");
    let snapshot = web.put_snapshot("main", tree, None);
    let record = web.put_forget(&[fixture.snapshots[0]]);
    let mark = web.put_mark(&[ObjectId([1; 32])]);
    let expected = said("forged", &[snapshot.clone(), record.clone(), mark.clone()]);
    let done = [
        said("damaged-mark", &[mark]),
        said("damaged-record", &[record]),
        said("damaged-snapshot", &[snapshot]),
    ]
    .concat();
    assert_eq!(put_right(&mut fixture, &expected, &done).1, 4 * FILES);
}

#[test]
fn gaps_in_the_chain_are_closed_by_a_record() {
    let mut fixture = Fixture::full();
    let middle = object_name(Area::Snapshots, &fixture.snapshots[1]);
    flip(&fixture, &middle, 200);
    let found: CheckReport = check_with(&fixture.open(OWNER), ReadData::None);
    assert!(brief(&found).contains(&format!("corrupt {middle}")));
    let done = said("damaged-snapshot", std::slice::from_ref(&middle));
    assert_eq!(put_right(&mut fixture, &brief(&found), &done).1, 3 * FILES);

    let mut fixture = Fixture::full();
    let middle = object_name(Area::Snapshots, &fixture.snapshots[1]);
    fixture.backend.remove(&middle);
    let (report, read) = put_right(
        &mut fixture,
        &said("missing", std::slice::from_ref(&middle)),
        &said("lost-snapshot", &[middle]),
    );
    assert!(report.has_losses());
    assert_eq!(read, 3 * FILES);
}

#[test]
fn a_forgotten_snapshot_that_is_back_goes_again() {
    let mut fixture = Fixture::full();
    let first = fixture.snapshots[0];
    let name = object_name(Area::Snapshots, &first);
    let bytes = fixture.backend.get(&name).unwrap();
    fixture.open(OWNER).forget(&[first], &[], time(600)).unwrap();
    fixture.backend.put(&name, bytes).unwrap();
    let expected = said("forged", std::slice::from_ref(&name));
    assert_eq!(put_right(&mut fixture, &expected, &said("risen-snapshot", &[name])).1, 3 * FILES);
}

#[test]
fn a_bundle_loses_its_bad_member_alone() {
    let mut fixture = Fixture::full();
    let web = Forger::new(&fixture.backend, [BACKUP; 32]);
    let forged = web.put_snapshot("main", web.id(BlobKind::Tree, b"none"), None);
    let stored = |name: &ObjectName| snap_format::BundledSnapshot {
        stored_secs: 1_704_067_200,
        bytes: fixture.backend.get(name).unwrap().to_vec(),
    };
    let members = fixture.names("snapshots/").iter().map(stored).collect();
    let owner = Forger::new(&fixture.backend, [OWNER; 32]);
    let payload = snap_format::SnapshotBundle { members }.encode();
    let bytes = owner.seal_box(snap_format::ObjectKind::SnapshotBundle, &payload);
    let bundle = object_name(Area::Snapshots, &ObjectId(snap_crypto::hash(&bytes)));
    fixture.names("snapshots/").iter().for_each(|name| {
        fixture.backend.remove(name);
    });
    fixture.backend.put(&bundle, bytes.into()).unwrap();
    let expected = said("forged", std::slice::from_ref(&bundle));
    assert_eq!(put_right(&mut fixture, &expected, &said("damaged-snapshot", &[bundle])).1, 4 * FILES);
    assert_eq!(fixture.names("snapshots/").len(), 1);
    assert!(!fixture.backend.names().contains(&forged));
    // What is left can be merged and forgotten as ever.
    let owner = fixture.open(OWNER);
    let request = MergeRequest { stored_before_secs: i64::MAX, ..MergeRequest::default() };
    owner.merge_snapshots(&request).unwrap();
}

#[test]
fn an_index_that_lies_is_written_anew() {
    let mut fixture = Fixture::full();
    let name = packs(&fixture, BlobKind::Data).remove(0);
    let size = fixture.backend.stat(&name).unwrap().size_bytes;
    let (_, mut pack) = fixture.open(OWNER).read_pack_header(id(&name), size).unwrap();
    pack.blobs[0].id = snap_format::BlobId([9; 32]);
    let liar = fixture.open(OWNER).put_index(vec![pack], &[]).unwrap().remove(0);
    let liar = object_name(Area::Index, &liar);
    let expected = said("forged", std::slice::from_ref(&liar));
    assert_eq!(put_right(&mut fixture, &expected, &said("false-index", &[liar])).1, 4 * FILES);
}

#[test]
fn blobs_that_are_stored_twice_are_no_damage() {
    let mut fixture = Fixture::full();
    let index: Vec<_> = fixture
        .names("index/")
        .into_iter()
        .map(|name| (name.clone(), fixture.backend.get(&name).unwrap()))
        .collect();
    let all: Vec<_> = fixture
        .names("packs/")
        .into_iter()
        .map(|name| (name.clone(), fixture.backend.get(&name).unwrap()))
        .collect();
    index.iter().chain(&all).for_each(|(name, _)| {
        fixture.backend.remove(name);
    });
    let repository = fixture.open(OWNER);
    let writer = begin(&repository);
    add(&writer, BlobKind::Data, &noise(0, 25_000)[..CHUNK]);
    writer.finish().unwrap().abandon();
    for (name, bytes) in index.into_iter().chain(all) {
        fixture.backend.put(&name, bytes).unwrap();
    }
    let (report, read) = put_right(&mut fixture, &[], &[]);
    assert_eq!((report.duplicates, read), (1, 4 * FILES));
}

#[test]
fn what_is_sealed_under_a_lost_epoch_is_not_thrown_away() {
    let mut fixture = Fixture::full();
    let newest = Forger::new(&fixture.backend, [OWNER; 32]).epoch_name;
    let name = object_name(Area::Epochs, &newest);
    let bytes = fixture.backend.get(&name).unwrap();
    fixture.backend.remove(&name);
    // Nothing names the newest epoch; what was written under its keys looks forged.
    let before = fixture.backend.snapshot();
    let refused = run(&fixture.open(OWNER), false).unwrap_err();
    let EngineError::Repo(RepoError::Damaged(finding)) = refused else { panic!("{refused}") };
    assert!(finding.why.contains("an epoch is lost"), "{finding}");
    assert!(fixture.backend.snapshot() == before);
    fixture.backend.put(&name, bytes).unwrap();
    assert_eq!(put_right(&mut fixture, &[], &[]).1, 4 * FILES);

    // Somebody else's snapshot is no sign of that.
    let stranger = Fixture::full();
    let foreign = stranger.names("snapshots/").remove(0);
    fixture.backend.put(&foreign, stranger.backend.get(&foreign).unwrap()).unwrap();
    let expected = said("forged", std::slice::from_ref(&foreign));
    assert_eq!(put_right(&mut fixture, &expected, &said("damaged-snapshot", &[foreign])).1, 4 * FILES);

    // A pack is; who knows better may say so.
    let foreign = stranger.names("packs/").remove(0);
    fixture.backend.put(&foreign, stranger.backend.get(&foreign).unwrap()).unwrap();
    assert!(run(&fixture.open(OWNER), false).is_err());
    let options = RepairOptions { dry_run: false, give_up_epochs: true, now: time(5000) };
    let report =
        with_context(&NullObserver, |context| repair(&fixture.open(OWNER), None, &options, context)).unwrap();
    assert_eq!(actions(&report), said("half-written-pack", &[foreign]));
    assert_eq!(brief(&check_with(&fixture.open(OWNER), ReadData::All)), [""; 0]);
}

#[test]
fn only_owners_repair() {
    let fixture = Fixture::full();
    for secret in [BACKUP, RESTORE] {
        let refused = run(&fixture.open(secret), true).unwrap_err();
        assert!(matches!(refused, EngineError::Repo(RepoError::Role { needs: "owner", .. })));
    }
}
