//! Forgetting, pins and tags: what a crash leaves, who may, and what forged snapshots change of it (nothing).
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod check_support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use check_support::forger::Forger;
use check_support::{BACKUP, Fixture, OWNER, RESTORE, begin, brief, check_with, key, leaf, new_snapshot};
use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, MemoryBackend};
use snap_engine::retention::{Policy, Reason, Suspicion};
use snap_engine::{EngineError, ForgetPlan, ReadData};
use snap_format::{BlobId, ObjectId, Pin, RecordBody, Role, Time};
use snap_repo::{Area, FindingCode, RepoError, Repository, object_name};

/// The clock of a new backend in memory: 2024-01-01.
const BEGIN: i64 = 1_704_067_200;
const HOUR: i64 = 3600;

/// An owner, a backup slot, a restore slot, and no snapshots.
fn made() -> Fixture {
    let fixture = Fixture::new();
    fixture.add_slot(Role::Backup, BACKUP, "web");
    fixture.add_slot(Role::Restore, RESTORE, "drill");
    fixture
}

/// One snapshot an hour, each the next of the one before; the store's clock goes with them.
fn back_up_hourly(fixture: &Fixture, secret: u8, hours: i64) -> Vec<ObjectId> {
    let repository = fixture.open(secret);
    let mut ids: Vec<ObjectId> = Vec::new();
    for hour in 0..hours {
        let writer = begin(&repository);
        let root = leaf(&writer, Vec::new());
        let time = Time::new(BEGIN + hour * HOUR, 0);
        ids.push(writer.finish().unwrap().commit(new_snapshot(root, time, ids.last().copied())).unwrap());
        if hour + 1 < hours {
            fixture.backend.advance(Duration::from_secs(HOUR as u64));
        }
    }
    ids
}

fn policy(last: u64) -> Policy {
    Policy { last, ..Policy::default() }
}

fn now() -> Time {
    Time::new(BEGIN + 1000 * HOUR, 0)
}

fn plan_by(repository: &Repository, policy: &Policy) -> snap_engine::Result<ForgetPlan> {
    let (set, overlays) = repository.snapshots_with_overlays()?;
    ForgetPlan::by_policy(set.snapshots, &overlays, |_| true, policy, now())
}

fn named(repository: &Repository, ids: &[ObjectId]) -> snap_engine::Result<ForgetPlan> {
    let (set, overlays) = repository.snapshots_with_overlays()?;
    ForgetPlan::of_named(set.snapshots, &overlays, ids, now())
}

fn kept(plan: &ForgetPlan) -> BTreeSet<ObjectId> {
    let verdicts = plan.groups().iter().flat_map(|group| &group.verdicts);
    verdicts.filter(|verdict| verdict.keep).map(|verdict| plan.snapshot(verdict).id).collect()
}

fn listed(repository: &Repository) -> Vec<ObjectId> {
    repository.snapshots().unwrap().snapshots.iter().map(|snapshot| snapshot.id).collect()
}

fn structure(repository: &Repository) -> Vec<String> {
    brief(&check_with(repository, ReadData::None))
}

#[test]
fn what_a_policy_drops_is_gone_and_the_check_knows_why() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 6);
    let owner = fixture.open(OWNER);
    let plan = plan_by(&owner, &policy(2)).unwrap();
    assert_eq!(plan.counts(), (2, 4));
    assert_eq!(listed(&owner), ids, "a plan does nothing");
    plan.execute(&owner).unwrap();
    assert_eq!(listed(&owner), ids[4..]);
    assert_eq!(structure(&owner), [""; 0]);
    assert_eq!(fixture.names("records/").len(), 1);
    // Nothing to drop: nothing is written.
    plan_by(&owner, &policy(2)).unwrap().execute(&owner).unwrap();
    assert_eq!(fixture.names("records/").len(), 1);
}

#[test]
fn wherever_it_dies_the_next_one_finishes_it() {
    for mode in [CrashMode::Before, CrashMode::After] {
        for point in 0..5 {
            let fixture = made();
            let ids = back_up_hourly(&fixture, OWNER, 6);
            let store =
                CrashBackend::new(Arc::new(fixture.backend.clone()), CrashPoint::Mutation(point), mode);
            let dying = Repository::open(Arc::new(store), &key(OWNER)).unwrap();
            plan_by(&dying, &policy(2)).unwrap().execute(&dying).unwrap_err();
            let owner = fixture.open(OWNER);
            let left = listed(&owner);
            assert!(left.ends_with(&ids[4..]), "what stays is there");
            let records = fixture.names("records/").len();
            assert_eq!(records, usize::from(point > 0 || matches!(mode, CrashMode::After)));
            let deleted_so_far = ids.len() - left.len();
            assert!(records == 1 || deleted_so_far == 0, "the record comes first");
            // Whatever the next run is asked for, it finishes what was begun, and counts the rest as if it were gone.
            let plan = plan_by(&owner, &policy(3)).unwrap();
            let expected = if records == 1 { &ids[4..] } else { &ids[3..] };
            assert_eq!(kept(&plan), expected.iter().copied().collect());
            plan.execute(&owner).unwrap();
            assert_eq!(listed(&owner), expected);
            assert_eq!(structure(&owner), [""; 0]);
        }
    }
}

#[test]
fn a_named_run_finishes_the_deletion_too() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 4);
    let owner = fixture.open(OWNER);
    owner.put_record("forget", Time::new(1, 0), RecordBody::Forget(vec![ids[0]]).encode()).unwrap();
    assert_eq!(listed(&owner), ids, "until it is deleted it is listed");
    let plan = named(&owner, &[ids[1]]).unwrap();
    let reasons: Vec<_> = plan.groups()[0].verdicts.iter().map(|verdict| verdict.reasons.clone()).collect();
    assert_eq!(reasons, [[Reason::ForgottenBefore], [Reason::Named]]);
    plan.execute(&owner).unwrap();
    assert_eq!(listed(&owner), ids[2..]);
}

#[test]
fn only_owners_decide() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 3);
    let before = fixture.backend.snapshot();
    for secret in [BACKUP, RESTORE] {
        let repository = fixture.open(secret);
        let refused = |outcome: Result<(), EngineError>| {
            assert!(matches!(outcome, Err(EngineError::Repo(RepoError::Role { needs: "owner", .. }))));
        };
        refused(plan_by(&repository, &policy(1)).unwrap().execute(&repository));
        refused(named(&repository, &ids[..1]).unwrap().execute(&repository));
        let pin = Pin { reason: "x".into(), until: None };
        refused(repository.pin(&ids, &pin, now()).map_err(Into::into));
        refused(repository.unpin(&ids, now()).map_err(Into::into));
        refused(repository.set_tags(&ids, &[], now()).map_err(Into::into));
        refused(repository.delete_snapshots(&ids).map_err(Into::into));
    }
    assert!(fixture.backend.snapshot() == before);
}

#[test]
fn records_of_others_are_findings_and_change_nothing() {
    for secret in [BACKUP, RESTORE] {
        let fixture = made();
        let ids = back_up_hourly(&fixture, OWNER, 3);
        let owner = fixture.open(OWNER);
        let pin = Pin { reason: "mine".into(), until: None };
        owner.pin(&ids[..1], &pin, Time::new(1, 0)).unwrap();
        let hostile = Forger::new(&fixture.backend, [secret; 32]);
        let bodies = [
            RecordBody::Forget(ids.clone()),
            RecordBody::Pin(ids.clone(), Pin { reason: "theirs".into(), until: None }),
            RecordBody::Unpin(ids.clone()),
            RecordBody::Tag(ids.clone(), vec!["theirs".into()]),
        ];
        let mut forged: Vec<String> = bodies
            .iter()
            .map(|body| format!("forged {}", hostile.put_record(body.kind(), body.encode())))
            .collect();
        forged.sort();
        let (set, overlays) = owner.snapshots_with_overlays().unwrap();
        let found: Vec<String> = overlays
            .findings
            .iter()
            .map(|finding| format!("{} {}", finding.code.as_str(), finding.object))
            .collect();
        assert_eq!(found, forged);
        assert_eq!(overlays.unreadable, []);
        assert_eq!(overlays.pins().collect::<Vec<_>>(), [(&ids[0], &pin)]);
        assert!(set.snapshots.iter().all(|snapshot| snapshot.envelope.tags.is_empty()));
        assert!(ids.iter().all(|id| !overlays.was_forgotten(id)));
        assert_eq!(structure(&owner), forged);
        assert_eq!(kept(&plan_by(&owner, &policy(1)).unwrap()), [ids[0], ids[2]].into());
    }
}

#[test]
fn what_a_removed_owner_forgot_is_not_deleted_on_his_word() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 3);
    fixture.add_slot(Role::Owner, 9, "second");
    let second = Forger::new(&fixture.backend, [9; 32]);
    let slot = fixture.open(9).keyring().slot();
    let owner = fixture.open(OWNER);
    owner.remove_slot(slot, Time::new(5, 0)).unwrap();
    // Under the epoch in which it was one.
    second.put_forget(&ids);
    let owner = fixture.open(OWNER);
    let plan = plan_by(&owner, &policy(3)).unwrap();
    assert_eq!(kept(&plan), ids.iter().copied().collect());
    plan.execute(&owner).unwrap();
    assert_eq!(listed(&owner), ids);
}

#[test]
fn nothing_is_forgotten_while_a_record_cannot_be_read() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 3);
    let owner = fixture.open(OWNER);
    owner.pin(&ids[..1], &Pin { reason: "x".into(), until: None }, Time::new(1, 0)).unwrap();
    let record = fixture.names("records/").remove(0);
    let bytes = fixture.backend.get(&record).unwrap();
    let mut damages = vec![bytes[..bytes.len() - 1].to_vec(), Vec::new()];
    let mut flipped = bytes.to_vec();
    flipped[8] ^= 1; // the version: as if a newer program wrote it
    damages.push(flipped);
    for damage in damages {
        fixture.backend.replace(&record, damage);
        for outcome in [plan_by(&owner, &policy(1)), named(&owner, &ids[..1])] {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(record.as_str()), "{error}");
        }
    }
    // Rubbish that is whole by its name was never a record of anybody's.
    fixture.backend.replace(&record, bytes);
    let rubbish = b"rubbish".to_vec();
    let name = object_name(Area::Records, &ObjectId(snap_crypto::hash(&rubbish)));
    fixture.backend.put(&name, rubbish.into()).unwrap();
    let (_, overlays) = owner.snapshots_with_overlays().unwrap();
    assert_eq!((overlays.findings.len(), overlays.unreadable.len()), (1, 0));
    assert_eq!(overlays.findings[0].code, FindingCode::Forged);
    assert_eq!(kept(&plan_by(&owner, &policy(1)).unwrap()), [ids[0], ids[2]].into());
}

#[test]
fn pins_hold_until_their_end_or_their_removal() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 4);
    let owner = fixture.open(OWNER);
    let until = |secs| Pin { reason: "audit".into(), until: Some(Time::new(now().secs + secs, 0)) };
    owner.pin(&ids[..2], &until(1), Time::new(1, 0)).unwrap();
    owner.pin(&[ids[2]], &until(0), Time::new(2, 0)).unwrap();
    assert_eq!(kept(&plan_by(&owner, &policy(1)).unwrap()), [ids[0], ids[1], ids[3]].into());
    assert!(matches!(named(&owner, &ids), Err(EngineError::Pinned(_))));
    owner.unpin(&[ids[1]], Time::new(3, 0)).unwrap();
    let plan = plan_by(&owner, &policy(1)).unwrap();
    assert_eq!(kept(&plan), [ids[0], ids[3]].into());
    let of_pinned = &plan.groups()[0].verdicts[0];
    assert_eq!(of_pinned.reasons, [Reason::Pinned(until(1))]);
    assert_eq!(structure(&owner), [""; 0], "check knows the records");
    named(&owner, &ids[1..3]).unwrap().execute(&owner).unwrap();
    assert_eq!(listed(&owner), [ids[0], ids[3]]);
    assert_eq!(structure(&owner), [""; 0]);
    // A pin that somebody wrote by hand, and wrongly.
    let forged =
        Forger::new(&fixture.backend, [OWNER; 32]).put_record("pin", RecordBody::Unpin(vec![]).encode());
    let nonsense = vec![0xa1, 0x01, 0x61, b'x']; // a reason, and no snapshots
    let second = Forger::new(&fixture.backend, [OWNER; 32]).put_record("pin", nonsense);
    let found = structure(&owner);
    assert!(found.contains(&format!("forged {second}")), "{found:?}");
    assert!(!found.iter().any(|found| found.contains(forged.as_str())), "no snapshots is no damage");
}

#[test]
fn the_last_tag_record_decides_for_everybody() {
    let fixture = made();
    let ids = back_up_hourly(&fixture, OWNER, 3);
    let owner = fixture.open(OWNER);
    let texts = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    owner.set_tags(&ids[..2], &texts(&["keep", "x"]), Time::new(5, 0)).unwrap();
    owner.set_tags(&[ids[1]], &texts(&["y"]), Time::new(4, 0)).unwrap();
    owner.set_tags(&[ids[1]], &texts(&["z"]), Time::new(6, 0)).unwrap();
    for secret in [OWNER, BACKUP, RESTORE] {
        let (set, _) = fixture.open(secret).snapshots_with_overlays().unwrap();
        let tags: Vec<_> = set.snapshots.iter().map(|snapshot| snapshot.envelope.tags.clone()).collect();
        assert_eq!(tags, [texts(&["keep", "x"]), texts(&["z"]), vec![]]);
    }
    let policy = Policy { tags: vec![texts(&["keep"])], ..Policy::default() };
    assert_eq!(kept(&plan_by(&owner, &policy).unwrap()), [ids[0], ids[2]].into());
    assert_eq!(structure(&owner), [""; 0]);
}

#[test]
fn a_policy_that_would_keep_nothing_is_refused() {
    let fixture = made();
    back_up_hourly(&fixture, OWNER, 3);
    let owner = fixture.open(OWNER);
    let policy = Policy { tags: vec![vec!["none".into()]], ..Policy::default() };
    assert!(
        matches!(plan_by(&owner, &policy), Err(EngineError::KeepsNothing(group)) if group == "files@host")
    );
    assert!(matches!(plan_by(&owner, &Policy::default()), Err(EngineError::Usage(_))));
}

/// Every sort of policy, under each of which the good ones must stay that stayed without an attack.
fn policies() -> Vec<Policy> {
    let none = Policy::default();
    vec![
        Policy { last: 5, ..none.clone() },
        Policy { hourly: 8, ..none.clone() },
        Policy { daily: 2, ..none.clone() },
        Policy { last: 1, weekly: 1, monthly: 1, yearly: 1, ..none.clone() },
        Policy { within: Some("6h".parse().unwrap()), ..none.clone() },
        Policy { last: 2, tags: vec![vec!["x".into()]], ..none },
    ]
}

/// Runs an attack on 40 good hourly snapshots by `good`, and looks at what each policy makes of them before and after.
#[track_caller]
fn survives(good: u8, attack: impl Fn(&MemoryBackend)) -> Vec<Suspicion> {
    let fixture = made();
    let ids: BTreeSet<ObjectId> = back_up_hourly(&fixture, good, 40).into_iter().collect();
    let owner = fixture.open(OWNER);
    let before: Vec<_> = policies().iter().map(|policy| kept(&plan_by(&owner, policy).unwrap())).collect();
    fixture.backend.advance(Duration::from_secs(1));
    attack(&fixture.backend);
    let attacked = fixture.backend.snapshot();
    let mut suspicions = Vec::new();
    for (policy, before) in policies().iter().zip(before) {
        fixture.backend.restore(attacked.clone());
        let plan = plan_by(&owner, policy).unwrap();
        suspicions =
            plan.groups().iter().flat_map(|group| &group.verdicts).filter_map(|it| it.suspicion()).collect();
        plan.execute(&owner).unwrap();
        let left: BTreeSet<ObjectId> = listed(&owner).into_iter().filter(|id| ids.contains(id)).collect();
        assert_eq!(left, before, "{policy:?}");
    }
    suspicions
}

/// Snapshots of the group that is attacked, with these times.
fn forge(backend: &MemoryBackend, secret: u8, times: impl IntoIterator<Item = i64>) {
    let forger = Forger::new(backend, [secret; 32]);
    for secs in times {
        forger.put_envelope(BlobId([6; 32]), |envelope| {
            envelope.time = Time::new(secs, 0);
            envelope.tags = vec!["x".into()];
            envelope.summary.duration_ms = 30 * 24 * 3_600_000;
        });
    }
}

/// When the last good snapshot was made; the store's clock stands a second later.
const LAST: i64 = BEGIN + 39 * HOUR;

#[test]
fn forged_times_of_the_same_slot() {
    let ahead = survives(BACKUP, |backend| forge(backend, BACKUP, (1..60).map(|day| LAST + day * 24 * HOUR)));
    assert_eq!(ahead.len(), 59);
    assert!(ahead.iter().all(|suspicion| matches!(suspicion, Suspicion::Ahead { .. })));
    // After every good one that is more than an hour old, at the end of the first day for example.
    let behind =
        survives(BACKUP, |backend| forge(backend, BACKUP, (0..38).map(|hour| BEGIN + hour * HOUR + 1800)));
    assert_eq!(behind.len(), 38);
    assert!(behind.iter().all(|suspicion| matches!(suspicion, Suspicion::Behind { .. })));
}

#[test]
fn a_flood_of_the_same_slot() {
    let burst = survives(BACKUP, |backend| {
        for number in 1..=200 {
            forge(backend, BACKUP, [LAST + number]);
            backend.advance(Duration::from_secs(1));
        }
    });
    assert_eq!(burst.len(), 200);
    assert!(burst.iter().all(|suspicion| matches!(suspicion, Suspicion::Burst { snapshots: 200, .. })));
}

#[test]
fn whatever_another_slot_signs() {
    let times = (0..40).map(|hour| BEGIN + hour * HOUR + 1).chain((0..40).map(|number| LAST + number));
    let times: Vec<i64> = times.collect();
    survives(OWNER, |backend| forge(backend, BACKUP, times.iter().copied()));
    survives(OWNER, |backend| {
        // With patience, and times that fit.
        for hour in 1..60 {
            backend.advance(Duration::from_secs(HOUR as u64));
            forge(backend, BACKUP, [LAST + hour * HOUR]);
        }
    });
    survives(BACKUP, |backend| {
        // Whoever may add keys may do worse, but a second machine is not an owner.
        let second = Repository::open(Arc::new(backend.clone()), &key(OWNER)).unwrap();
        let secret = key(8);
        let new =
            snap_repo::NewSlot { role: Role::Backup, secret: &secret, label: "second".into(), domain: None };
        second.add_slot(new, Time::new(2, 0)).unwrap();
        forge(backend, 8, times.iter().copied());
    });
}
