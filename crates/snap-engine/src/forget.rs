//! Forgetting snapshots: a plan, shown, then carried out.

use std::collections::BTreeMap;

use snap_format::{ObjectId, Time};
use snap_repo::{Overlays, Repository, Snapshot};

use crate::retention::{Candidate, Group, Policy, Reason, Standing, Verdict, judge_by};
use crate::{EngineError, Result};

/// Which snapshots go, and why each stays or goes. Nothing is done before [`ForgetPlan::execute`].
#[derive(Debug)]
#[must_use]
pub struct ForgetPlan {
    snapshots: Vec<Snapshot>,
    groups: Vec<Group>,
    time: Time,
}

impl ForgetPlan {
    /// Applies a policy to those of `snapshots`, all that the repository has, that `is_meant` names. Refused if it would keep
    /// nothing of a group, or if a record cannot be read, which may be a pin.
    pub fn by_policy(
        snapshots: Vec<Snapshot>,
        overlays: &Overlays,
        is_meant: impl Fn(&Snapshot) -> bool,
        policy: &Policy,
        now: Time,
    ) -> Result<Self> {
        if policy.is_empty() {
            return Err(EngineError::Usage("the policy keeps nothing at all".into()));
        }
        Self::by_policies(snapshots, overlays, is_meant, |_| Some(policy), now)
    }

    /// The same with a policy for each dataset; of one that has none everything stays.
    pub fn by_policies<'p>(
        snapshots: Vec<Snapshot>,
        overlays: &Overlays,
        is_meant: impl Fn(&Snapshot) -> bool,
        policy_of: impl Fn(&str) -> Option<&'p Policy>,
        now: Time,
    ) -> Result<Self> {
        overlays.require_complete()?;
        let none = Policy::default();
        let candidate = |snapshot: &Snapshot| {
            let policy = policy_of(&snapshot.envelope.dataset);
            if policy.is_some_and(Policy::is_empty) {
                return Err(EngineError::Usage("the policy keeps nothing at all".into()));
            }
            Ok(candidate(snapshot, overlays, policy.is_some() && is_meant(snapshot), now))
        };
        let candidates: Vec<Candidate> = snapshots.iter().map(candidate).collect::<Result<_>>()?;
        let groups = judge_by(&candidates, |dataset| policy_of(dataset).unwrap_or(&none));
        let is_open = |verdict: &Verdict| candidates[verdict.candidate].standing == Standing::Open;
        if let Some(group) =
            groups.iter().find(|group| !group.is_kept_by_rule && group.verdicts.iter().any(is_open))
        {
            return Err(EngineError::KeepsNothing(format!("{}@{}", group.dataset, group.host)));
        }
        Ok(Self { snapshots, groups, time: now })
    }

    /// Forgets `named` of `snapshots`. Refused for one that is pinned.
    pub fn of_named(
        snapshots: Vec<Snapshot>,
        overlays: &Overlays,
        named: &[ObjectId],
        now: Time,
    ) -> Result<Self> {
        overlays.require_complete()?;
        let mut groups: BTreeMap<(String, String), Vec<Verdict>> = BTreeMap::new();
        for (at, snapshot) in snapshots.iter().enumerate() {
            let reason = match overlays.pin(&snapshot.id, now) {
                _ if overlays.was_forgotten(&snapshot.id) => Reason::ForgottenBefore,
                _ if !named.contains(&snapshot.id) => continue,
                Some(pin) => {
                    let (id, pin) = (snapshot.id.to_hex(), Reason::Pinned(pin.clone()));
                    return Err(EngineError::Pinned(format!("the snapshot {} is {pin}", &id[..12])));
                }
                None => Reason::Named,
            };
            let group = (snapshot.envelope.dataset.clone(), snapshot.envelope.host.clone());
            let verdict = Verdict { candidate: at, keep: false, reasons: vec![reason] };
            groups.entry(group).or_default().push(verdict);
        }
        let groups = groups
            .into_iter()
            .map(|((dataset, host), verdicts)| Group { dataset, host, verdicts, is_kept_by_rule: false })
            .collect();
        Ok(Self { snapshots, groups, time: now })
    }

    /// What becomes of each snapshot, by dataset and host.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The snapshot that a verdict is about.
    pub fn snapshot(&self, verdict: &Verdict) -> &Snapshot {
        &self.snapshots[verdict.candidate]
    }

    /// How many stay and how many go.
    pub fn counts(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for verdict in self.groups.iter().flat_map(|group| &group.verdicts) {
            *if verdict.keep { &mut counts.0 } else { &mut counts.1 } += 1;
        }
        counts
    }

    /// The snapshots that go.
    pub fn dropped(&self) -> impl Iterator<Item = ObjectId> + '_ {
        let verdicts = self.groups.iter().flat_map(|group| &group.verdicts);
        verdicts.filter(|verdict| !verdict.keep).map(|verdict| self.snapshot(verdict).id)
    }

    /// Writes the record, then deletes. Owners only. Interrupted in between, the next plan finishes it.
    pub fn execute(self, repository: &Repository) -> Result<()> {
        let go = self.groups.iter().flat_map(|group| &group.verdicts).filter(|verdict| !verdict.keep);
        let (leftovers, new): (Vec<&Verdict>, Vec<&Verdict>) =
            go.partition(|verdict| verdict.reasons.contains(&Reason::ForgottenBefore));
        let ids = |verdicts: Vec<&Verdict>| -> Vec<ObjectId> {
            verdicts.into_iter().map(|verdict| self.snapshot(verdict).id).collect()
        };
        Ok(repository.forget(&ids(new), &ids(leftovers), self.time)?)
    }
}

fn candidate(snapshot: &Snapshot, overlays: &Overlays, is_meant: bool, now: Time) -> Candidate {
    let envelope = &snapshot.envelope;
    let standing = match (overlays.was_forgotten(&snapshot.id), is_meant) {
        (true, _) => Standing::Forgotten,
        (false, true) => Standing::Open,
        (false, false) => Standing::NotMeant,
    };
    // One that stands in place of another is judged as that one: neither is it suspicious because an owner stored it late,
    // nor is a forged one beyond suspicion because an owner wrote it anew.
    let before = overlays.replacement(&snapshot.id);
    let stored = match before {
        Some(pair) => pair.stored_secs.map(|secs| Time::new(secs, 0)),
        None => snapshot.stored.map(|stored| Time::new(stored.unix_seconds, stored.nanos)),
    };
    Candidate {
        id: overlays.origin(&snapshot.id),
        time: envelope.time,
        stored,
        duration_ms: envelope.summary.duration_ms,
        previous: envelope.previous.map(|id| overlays.origin(&id)),
        dataset: envelope.dataset.clone(),
        host: envelope.host.clone(),
        slot: before.map_or(snapshot.slot, |pair| pair.slot),
        tags: envelope.tags.clone(),
        pin: overlays.pin(&snapshot.id, now).cloned(),
        standing,
    }
}
