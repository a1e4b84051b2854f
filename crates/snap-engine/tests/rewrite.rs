//! Snapshots that an owner writes anew: what changes, what stays, what a crash leaves, and what retention makes of them.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod check_support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use check_support::forger::Forger;
use check_support::*;
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_engine::retention::{Policy, Suspicion};
use snap_engine::rewrite::{
    Change, Decide, Request, Rewritten, TreeStore, Verdict, replace_all, snapshots_to_rewrite,
};
use snap_engine::{ForgetPlan, NullObserver, ReadData};
use snap_format::{BlobId, Node, ObjectId, Pin, Role, Time};
use snap_repo::{RepoError, Repository, Snapshot, Writer, WriterOptions};

/// Drops one path, and remembers every node that it was asked about.
struct Without<'a>(&'a [u8], &'a Mutex<Vec<Vec<u8>>>);

impl Decide for Without<'_> {
    fn by_path(&self) -> bool {
        true
    }

    fn concerns(&self, path: &[u8]) -> bool {
        self.0.starts_with(path) && self.0.get(path.len()) == Some(&b'/')
    }

    fn node(&mut self, path: &[u8], _: &Node, _: &mut TreeStore<'_>) -> snap_engine::Result<Verdict> {
        self.1.lock().unwrap().push(path.to_vec());
        Ok(if path == self.0 { Verdict::Drop } else { Verdict::Keep })
    }

    fn lost(&mut self, _: &BlobId, error: RepoError) -> snap_engine::Result<()> {
        Err(error.into())
    }
}

/// Takes `path` out of every snapshot. Returns ids, old and new, and what was looked at.
type Done = (Vec<(ObjectId, ObjectId)>, Vec<Vec<u8>>);

fn take_out(repository: &Repository, path: &str, now: Time) -> snap_engine::Result<Done> {
    let (set, overlays) = repository.snapshots_with_overlays()?;
    let (snapshots, leftovers) = snapshots_to_rewrite(set.snapshots, &overlays);
    let asked = Mutex::new(Vec::new());
    let request = Request {
        snapshots: snapshots.iter().collect(),
        dropped: Vec::new(),
        leftovers: &leftovers,
        overlays: &overlays,
        reason: "a test",
        now,
        cache: None,
    };
    fn change<'a>(old: &'a Snapshot, body: snap_format::Body, new: &Rewritten) -> Option<Change<'a>> {
        (new.root != body.root).then(|| Change {
            old,
            root: new.root,
            paths: body.paths,
            details: body.details,
            tags: old.envelope.tags.clone(),
            summary: new.dropped.taken_from(&old.envelope.summary),
        })
    }
    let decide = |_: &str| Without(path.as_bytes(), &asked);
    let replaced =
        with_context(&NullObserver, |context| replace_all(repository, &request, decide, change, context))?;
    Ok((replaced, asked.into_inner().unwrap()))
}

fn snapshots(repository: &Repository) -> Vec<Snapshot> {
    repository.snapshots().unwrap().snapshots
}

/// What is expected of the new snapshots: the files of the old ones but for those at or below `path`.
fn expect_without(fixture: &mut Fixture, replaced: &[(ObjectId, ObjectId)], path: &str) {
    for (old, new) in replaced {
        let mut files = fixture.expected[old].clone();
        files.retain(|name, _| *name != path && !name.starts_with(&format!("{path}/")));
        fixture.expected.insert(*new, files);
    }
}

#[test]
fn a_path_is_taken_out_of_snapshots_of_every_domain() {
    for (path, left) in [("/srv/long", 5), ("/srv/app", 3), ("/srv/app/text", 5), ("/srv/app/new", 5)] {
        let mut fixture = Fixture::full();
        let owner = fixture.open(OWNER);
        let before = snapshots(&owner);
        let packs = fixture.names("packs/").len();
        let (replaced, asked) = take_out(&owner, path, time(500)).unwrap();
        assert_eq!(replaced.len(), 4, "{path}");
        let after = snapshots(&owner);
        let olds: Vec<ObjectId> = replaced.iter().map(|(old, _)| *old).collect();
        for old in &before {
            let (_, new) = replaced.iter().find(|(id, _)| *id == old.id).unwrap();
            let new = after.iter().find(|snapshot| snapshot.id == *new).unwrap();
            let (was, is) = (&old.envelope, &new.envelope);
            assert_eq!(
                (is.time, &is.dataset, &is.host, &is.domain, is.previous, &is.label, &is.tags),
                (was.time, &was.dataset, &was.host, &was.domain, was.previous, &was.label, &was.tags)
            );
            assert_eq!(new.slot, owner.keyring().slot());
        }
        assert_eq!(after.len(), 4);
        assert!(after.iter().all(|snapshot| !olds.contains(&snapshot.id)));
        // The trees of two domains, and no data.
        assert_eq!(fixture.names("packs/").len(), packs + 2);
        let depth = path.matches('/').count();
        assert!(asked.iter().all(|asked| asked.iter().filter(|byte| **byte == b'/').count() <= depth));
        expect_without(&mut fixture, &replaced, path);
        for secret in [OWNER, RESTORE] {
            let report = check_with(&fixture.open(secret), ReadData::All);
            assert_eq!(brief(&report), [""; 0], "{path}");
            assert_eq!(read_the_rest(&fixture.open(secret), &fixture, &report), 4 * left);
        }
        // Once more there is nothing to do.
        let objects = fixture.backend.names();
        assert_eq!(take_out(&fixture.open(OWNER), path, time(600)).unwrap().0, []);
        assert_eq!(fixture.backend.names(), objects);
    }
}

#[test]
fn what_goes_is_counted_and_pins_go_along() {
    let fixture = Fixture::new();
    let owner = fixture.open(OWNER);
    let writer = begin(&owner);
    let content = |bytes: &[u8]| {
        let blob = add(&writer, snap_format::BlobKind::Data, bytes);
        snap_format::Content::Blobs(vec![blob])
    };
    let deep = leaf(&writer, vec![file("x", 4, content(b"four"), vec![]), dir("y", leaf(&writer, vec![]))]);
    let nodes = vec![dir("d", deep), Node::new(b"p".to_vec(), snap_format::NodeKind::Fifo, time(0))];
    let root = leaf(&writer, nodes);
    let mut new = new_snapshot(root, time(9), None);
    new.summary = snap_format::Summary {
        files: 1,
        dirs: 2,
        others: 1,
        source_bytes: 4,
        files_new: 1,
        added_bytes: 77,
        duration_ms: 5,
        ..Default::default()
    };
    let old = writer.finish().unwrap().commit(new).unwrap();
    let pin = Pin { reason: "audit".into(), until: Some(time(9000)) };
    owner.pin(&[old], &pin, time(10)).unwrap();
    let (replaced, _) = take_out(&owner, "/d", time(20)).unwrap();
    let summary = snapshots(&owner)[0].envelope.summary;
    assert_eq!((summary.files, summary.dirs, summary.others, summary.source_bytes), (0, 0, 1, 0));
    assert_eq!((summary.files_new, summary.added_bytes, summary.duration_ms), (1, 77, 5));
    let overlays = owner.overlays().unwrap();
    assert_eq!(overlays.pin(&replaced[0].1, time(30)), Some(&pin));
    assert_eq!(overlays.origin(&replaced[0].1), old);
}

#[test]
fn wherever_it_dies_nothing_is_lost_and_the_next_run_finishes_it() {
    let count = {
        let fixture = Fixture::full();
        let store = Arc::new(CrashBackend::immortal(Arc::new(fixture.backend)));
        take_out(&Repository::open(store.clone(), &key(OWNER)).unwrap(), "/srv/app", time(500)).unwrap();
        store.mutations()
    };
    assert!(count > 10);
    for mode in [CrashMode::Before, CrashMode::After] {
        for point in 0..count {
            let mut fixture = Fixture::full();
            let store =
                CrashBackend::new(Arc::new(fixture.backend.clone()), CrashPoint::Mutation(point), mode);
            let dying = Repository::open(Arc::new(store), &key(OWNER)).unwrap();
            take_out(&dying, "/srv/app", time(500)).unwrap_err();
            let owner = fixture.open(OWNER);
            let overlays = owner.overlays().unwrap();
            let there: BTreeSet<ObjectId> =
                snapshots(&owner).iter().map(|snapshot| overlays.origin(&snapshot.id)).collect();
            assert_eq!(there, fixture.snapshots.iter().copied().collect(), "{mode:?} {point}");
            take_out(&owner, "/srv/app", time(600)).unwrap();
            let owner = fixture.open(OWNER);
            let (after, overlays) = (snapshots(&owner), owner.overlays().unwrap());
            assert_eq!(after.len(), 4, "{mode:?} {point}");
            let replaced: Vec<_> = after.iter().map(|new| (overlays.origin(&new.id), new.id)).collect();
            expect_without(&mut fixture, &replaced, "/srv/app");
            let report = check_with(&owner, ReadData::All);
            assert_eq!(brief(&report), [""; 0], "{mode:?} {point}");
            assert_eq!(read_the_rest(&owner, &fixture, &report), 4 * 3);
        }
    }
}

#[test]
fn a_backup_slot_stays_in_its_domain() {
    let fixture = Fixture::full();
    let backup = fixture.open(BACKUP);
    let (index, _) = snap_repo::Index::load(&backup, None).unwrap();
    let options = WriterOptions { domain: Some("main".into()), ..WriterOptions::default() };
    let refused = Writer::begin(&backup, index, None, options).err().unwrap();
    assert!(matches!(refused, RepoError::Role { needs: "owner", .. }), "{refused}");
    assert!(matches!(
        take_out(&backup, "/srv", time(500)).unwrap_err(),
        snap_engine::EngineError::Repo(RepoError::Role { .. })
    ));
    // One made by hand, from a program that does not ask.
    let forger = Forger::new(&fixture.backend, [BACKUP; 32]);
    let root = forger.id(snap_format::BlobKind::Tree, b"x");
    let name = forger.put_snapshot("main", root, None);
    let report = check_with(&fixture.open(OWNER), ReadData::None);
    assert_eq!(brief(&report), [format!("forged {name}")]);
}

/// The clock of a new backend in memory: 2024-01-01.
const BEGIN: i64 = 1_704_067_200;
const DAY: i64 = 86_400;

/// Snapshots with `/f` and `/g`, a day apart, with times that lie behind the store's by `late` seconds.
fn back_up_daily(fixture: &Fixture, secret: u8, days: i64, late: i64) -> Vec<ObjectId> {
    let repository = fixture.open(secret);
    let mut ids: Vec<ObjectId> = Vec::new();
    for _ in 0..days {
        let writer = begin(&repository);
        let empty = || snap_format::Content::default();
        let root = leaf(&writer, vec![file("f", 0, empty(), vec![]), file("g", 0, empty(), vec![])]);
        let stored = {
            use snap_backend::Backend;
            let name = snap_backend::ObjectName::new("clock").unwrap();
            fixture.backend.put(&name, snap_backend::Bytes::new()).unwrap();
            let stored = fixture.backend.stat(&name).unwrap().modified.unwrap().unix_seconds;
            fixture.backend.delete(&name).unwrap();
            stored
        };
        let new = new_snapshot(root, Time::new(stored - late, 0), ids.last().copied());
        ids.push(writer.finish().unwrap().commit(new).unwrap());
        fixture.backend.advance(Duration::from_secs(DAY as u64));
    }
    ids
}

/// By the snapshot at the beginning: whether it stays, and why it is suspicious.
fn judged(repository: &Repository, last: u64) -> BTreeSet<(ObjectId, bool, String)> {
    let (set, overlays) = repository.snapshots_with_overlays().unwrap();
    let policy = Policy { last, ..Policy::default() };
    let now = Time::new(BEGIN + 1000 * DAY, 0);
    let plan = ForgetPlan::by_policy(set.snapshots, &overlays, |_| true, &policy, now).unwrap();
    let verdicts = plan.groups().iter().flat_map(|group| &group.verdicts);
    verdicts
        .map(|verdict| {
            let why = match verdict.suspicion() {
                None => "",
                Some(Suspicion::Ahead { .. }) => "ahead",
                Some(Suspicion::Behind { .. }) => "behind",
                Some(Suspicion::Burst { .. }) => "burst",
            };
            (overlays.origin(&plan.snapshot(verdict).id), verdict.keep, why.to_owned())
        })
        .collect()
}

#[test]
fn retention_judges_a_replacement_as_what_it_replaced() {
    let fixture = Fixture::new();
    fixture.add_slot(Role::Backup, BACKUP, "web");
    back_up_daily(&fixture, OWNER, 12, 60);
    // A slot that lies about its times, and would displace the others if it were believed.
    back_up_daily(&fixture, BACKUP, 5, 30 * DAY);
    back_up_daily(&fixture, BACKUP, 5, -30 * DAY);
    let owner = fixture.open(OWNER);
    let before = judged(&owner, 4);
    let suspicious = |verdicts: &BTreeSet<(ObjectId, bool, String)>| {
        verdicts.iter().filter(|(.., why)| !why.is_empty()).count()
    };
    assert_eq!(suspicious(&before), 10);
    fixture.backend.advance(Duration::from_secs(40 * DAY as u64));
    assert_eq!(take_out(&owner, "/f", Time::new(BEGIN + 60 * DAY, 0)).unwrap().0.len(), 22);
    assert_eq!(judged(&fixture.open(OWNER), 4), before, "an owner wrote them anew, late and all at once");
    fixture.backend.advance(Duration::from_secs(40 * DAY as u64));
    assert_eq!(take_out(&owner, "/g", Time::new(BEGIN + 99 * DAY, 0)).unwrap().0.len(), 22);
    assert_eq!(judged(&fixture.open(OWNER), 4), before, "and again");
    // Without the records they are what they look like.
    let records = fixture.names("records/");
    assert_eq!(records.len(), 2 * 3, "a replacement for each domain, and a forget");
    records.iter().for_each(|name| {
        fixture.backend.remove(name);
    });
    assert_eq!(suspicious(&judged(&fixture.open(OWNER), 4)), 22);
}
