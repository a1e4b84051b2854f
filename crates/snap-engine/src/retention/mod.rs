//! Which snapshots a policy keeps, and why: a pure function of snapshots, policy and time.
//!
//! Snapshots are grouped by dataset and host. Each rule of a [`Policy`] goes through them from the newest to the oldest, as
//! restic's do; a snapshot that any rule keeps stays. Hours, days, ISO weeks, months and years are those of UTC.
//!
//! # What a snapshot says of its time is not believed blindly
//!
//! Whoever holds a `backup` slot can sign snapshots of any dataset and host, at any time. **What is suspicious is judged
//! apart, so it displaces nothing**: within a group the policy is applied to each of these classes as if there were no other,
//! and none uses up the counts of another.
//!
//! 1. Each signing slot is a class of its own: dataset and host are claims, the slot is proved by its signature.
//! 2. Within a slot, snapshots whose claimed time does not fit the time at which the store got them: more than 5 minutes
//!    ahead; or behind by more than an hour and the time that the run took, where a run is not believed to have begun more
//!    than an hour before the snapshot before it was stored. Where the store tells no time, it fits.
//! 3. Within a slot, each *burst*: snapshots that the store got much faster than the ones before. The rhythm is the median of
//!    the last up to 32 gaps, at least 4, between snapshots of which the later names the earlier as the one before: so that
//!    what was thinned out by an earlier `forget` does not look like a slow rhythm. A burst begins with a gap below 1/8 of it,
//!    and has at least 8 snapshots within one usual gap; it goes on as long as another small gap ends within a usual one.
//!    When it has lasted 32 usual gaps, what follows is the new rhythm. There is no rhythm below a minute, and none is
//!    compared with on the first day of a series.
//!
//! And the newest snapshot of each slot that is not suspicious is never dropped by a policy.
//!
//! What this does not help against: a slot that writes useless snapshots of its own group at no more than 8 times its usual
//! rate and with true times. They look like its snapshots, since that is what they are; pins and calendar rules outlast it.

mod calendar;
mod rules;
mod suspicion;

use std::collections::BTreeMap;
use std::fmt;

use snap_format::{ObjectId, Pin, SlotId, Time};

pub use calendar::Span;
pub use suspicion::Suspicion;

/// What to keep. Nothing is kept by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest so many.
    pub last: u64,
    /// The newest of each of the last so many hours that have any.
    pub hourly: u64,
    /// The same of days.
    pub daily: u64,
    /// The same of ISO weeks.
    pub weekly: u64,
    /// The same of months.
    pub monthly: u64,
    /// The same of years.
    pub yearly: u64,
    /// Those that are at most so much older than the newest.
    pub within: Option<Span>,
    /// Those that have all tags of one of these lists.
    pub tags: Vec<Vec<String>>,
}

impl Policy {
    /// Whether it has no rule that could keep anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be decided of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whether it stays.
    Open,
    /// Nothing: it was not meant. It shows the rhythm of the others.
    NotMeant,
    /// Nothing: an owner forgot it, and only its deletion was interrupted.
    Forgotten,
}

/// A snapshot, as far as the policy looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: ObjectId,
    /// The time that it claims.
    pub time: Time,
    /// When the store got it, by the store's clock.
    pub stored: Option<Time>,
    /// How long its run claims to have taken, milliseconds.
    pub duration_ms: u64,
    /// The snapshot before, of the same dataset, host and slot, as it claims.
    pub previous: Option<ObjectId>,
    /// Claimed.
    pub dataset: String,
    /// Claimed.
    pub host: String,
    /// Who signed it.
    pub slot: SlotId,
    /// The tags that it has now.
    pub tags: Vec<String>,
    /// The pin that holds it.
    pub pin: Option<Pin>,
    /// What is to be decided of it.
    pub standing: Standing,
}

/// Why a snapshot stays or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest but so many less one.
    Last(u64),
    /// It is the newest of an hour, day, week, month or year.
    NewestOf {
        /// `hourly`, `daily`, ….
        rule: &'static str,
        /// Such as `2026-11-20`.
        name: String,
    },
    /// It is at most so much older than the newest.
    Within(Span),
    /// It has these tags, joined by commas.
    Tag(String),
    /// It is the newest of its slot that is not suspicious.
    Newest,
    /// Somebody pinned it.
    Pinned(Pin),
    /// It is in a class of its own; `Display` of the suspicion tells why.
    Apart(Suspicion),
    /// No rule keeps it.
    NoRule,
    /// It was named.
    Named,
    /// An earlier run forgot it and was interrupted.
    ForgottenBefore,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(at) => write!(f, "last {at}"),
            Self::NewestOf { rule, name } => write!(f, "{rule} {name}"),
            Self::Within(span) => write!(f, "within {span}"),
            Self::Tag(tags) => write!(f, "tag {tags}"),
            Self::Newest => f.write_str("newest of its key"),
            Self::Pinned(pin) => {
                f.write_str("pinned")?;
                if let Some(until) = pin.until {
                    write!(f, " until {}", calendar::date_time(until))?;
                }
                if pin.reason.is_empty() { Ok(()) } else { write!(f, ": {}", pin.reason) }
            }
            Self::Apart(suspicion) => write!(f, "judged apart: {suspicion}"),
            Self::NoRule => f.write_str("no rule keeps it"),
            Self::Named => f.write_str("named"),
            Self::ForgottenBefore => f.write_str("forgotten before, and not yet deleted"),
        }
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its place among the candidates.
    pub candidate: usize,
    /// Whether it stays.
    pub keep: bool,
    /// Every reason, never none.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Why it was judged apart, if it was.
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.reasons.iter().find_map(|reason| match reason {
            Reason::Apart(suspicion) => Some(*suspicion),
            _ => None,
        })
    }
}

/// The snapshots of one dataset and host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The dataset.
    pub dataset: String,
    /// The host.
    pub host: String,
    /// Oldest first.
    pub verdicts: Vec<Verdict>,
    /// Whether a rule of the policy keeps at least one of them.
    pub is_kept_by_rule: bool,
}

/// Which class a snapshot is judged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Regular,
    Ahead,
    Behind,
    Burst(usize),
}

impl Class {
    const fn of(suspicion: Option<Suspicion>) -> Self {
        match suspicion {
            None => Self::Regular,
            Some(Suspicion::Ahead { .. }) => Self::Ahead,
            Some(Suspicion::Behind { .. }) => Self::Behind,
            Some(Suspicion::Burst { number, .. }) => Self::Burst(number),
        }
    }
}

/// Decides for every candidate that is [`Standing::Open`] or [`Standing::Forgotten`], in groups sorted by dataset and host.
pub fn judge(candidates: &[Candidate], policy: &Policy) -> Vec<Group> {
    judge_by(candidates, |_| policy)
}

/// The same with a policy for each dataset.
pub fn judge_by<'p>(candidates: &[Candidate], policy_of: impl Fn(&str) -> &'p Policy) -> Vec<Group> {
    let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        groups.entry((&candidate.dataset, &candidate.host)).or_default().push(at);
    }
    groups
        .into_iter()
        .map(|((dataset, host), members)| judge_group(candidates, members, policy_of(dataset), dataset, host))
        .filter(|group| !group.verdicts.is_empty())
        .collect()
}

fn judge_group(
    candidates: &[Candidate],
    members: Vec<usize>,
    policy: &Policy,
    dataset: &str,
    host: &str,
) -> Group {
    let mut slots: BTreeMap<SlotId, Vec<usize>> = BTreeMap::new();
    for at in members {
        slots.entry(candidates[at].slot).or_default().push(at);
    }
    let mut verdicts = Vec::new();
    let mut is_kept_by_rule = false;
    for members in slots.into_values() {
        is_kept_by_rule |= judge_slot(candidates, &members, policy, &mut verdicts);
    }
    verdicts.sort_by_key(|verdict| {
        let candidate = &candidates[verdict.candidate];
        (candidate.time, candidate.id)
    });
    Group { dataset: dataset.to_owned(), host: host.to_owned(), verdicts, is_kept_by_rule }
}

/// Returns whether a rule keeps anything.
fn judge_slot(
    candidates: &[Candidate],
    members: &[usize],
    policy: &Policy,
    verdicts: &mut Vec<Verdict>,
) -> bool {
    let snapshots: Vec<&Candidate> = members.iter().map(|at| &candidates[*at]).collect();
    let mut classes: BTreeMap<Class, Vec<(usize, Option<Suspicion>)>> = BTreeMap::new();
    for (at, suspicion) in members.iter().zip(suspicion::suspicions(&snapshots)) {
        match candidates[*at].standing {
            Standing::Open => classes.entry(Class::of(suspicion)).or_default().push((*at, suspicion)),
            Standing::NotMeant => {}
            Standing::Forgotten => {
                let reasons = vec![Reason::ForgottenBefore];
                verdicts.push(Verdict { candidate: *at, keep: false, reasons });
            }
        }
    }
    let mut is_kept_by_rule = false;
    for (class, mut members) in classes {
        members.sort_by_key(|(at, _)| std::cmp::Reverse((candidates[*at].time, candidates[*at].id)));
        let items: Vec<rules::Item<'_>> = members
            .iter()
            .map(|(at, _)| rules::Item { time: candidates[*at].time, tags: &candidates[*at].tags })
            .collect();
        let kept = rules::apply(policy, &items);
        for (place, ((at, suspicion), mut reasons)) in members.into_iter().zip(kept).enumerate() {
            is_kept_by_rule |= !reasons.is_empty();
            if place == 0 && class == Class::Regular {
                reasons.push(Reason::Newest);
            }
            reasons.extend(candidates[at].pin.clone().map(Reason::Pinned));
            let keep = !reasons.is_empty();
            if !keep {
                reasons.push(Reason::NoRule);
            }
            reasons.extend(suspicion.map(Reason::Apart));
            verdicts.push(Verdict { candidate: at, keep, reasons });
        }
    }
    is_kept_by_rule
}
