use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use snap_backend::{BackendError, LockMode, ObjectLock, ObjectName, ObjectVersion, Retention, Timestamp};
use snap_format::Time;
use snap_repo::{Area, RepoError, for_each_parallel, parse_object_name};

use super::{LostSnapshots, Needs};
use crate::work::lock as locked;
use crate::{Context, Phase, Result};

/// Requests about locks at once: they only wait.
const PARALLELISM: usize = 16;

/// What keeps an object from being deleted, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// It is not known what would have to be locked: a tree cannot be read.
    Unknown,
    /// It is not there.
    Gone,
    /// A delete marker hides it.
    Hidden,
    /// Nothing: whoever may delete versions can.
    Open,
    /// A lock.
    Locked {
        /// Until then, seconds since 1970 by the store's clock.
        until_secs: i64,
        /// In compliance mode: nobody can end it. Else whoever may bypass governance can.
        is_final: bool,
    },
}

/// The weakest object of several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weakness {
    /// How weak.
    pub hold: Hold,
    /// Which; none if that is not known.
    pub object: Option<ObjectName>,
}

impl Weakness {
    pub(super) const fn unknown() -> Self {
        Self { hold: Hold::Unknown, object: None }
    }

    /// The weaker of the two objects; of two locks the earlier end, and the weaker mode.
    pub(super) fn and(self, other: Self) -> Self {
        let hold = weaker(self.hold, other.hold);
        Self { hold, object: self.min(other).object }
    }
}

/// How long a snapshot cannot be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLock {
    /// Before then nothing that it needs can be deleted; none if something can be deleted now.
    pub until: Option<Time>,
    /// All of it is locked in compliance mode: nobody can end that. Else whoever may bypass governance can.
    pub is_final: bool,
    /// The object with the weakest lock, or without one.
    pub weakest: Weakness,
}

impl SnapshotLock {
    pub(super) fn of(weakest: Weakness) -> Self {
        let until = match weakest.hold {
            Hold::Locked { until_secs, .. } => Some(Time::new(until_secs, 0)),
            _ => None,
        };
        let is_final = matches!(weakest.hold, Hold::Locked { is_final: true, .. });
        Self { until, is_final, weakest }
    }
}

/// What the store says of the versions of some objects.
#[derive(Debug, Default)]
pub struct Locks(HashMap<ObjectName, Vec<(ObjectVersion, Option<Retention>)>>);

impl Locks {
    /// Asks the store: one request for every thousand versions that it has, and one for each version of `objects`.
    pub fn ask(lock: &ObjectLock, objects: &BTreeSet<ObjectName>, context: Context<'_>) -> Result<Self> {
        let versions = versions_where(lock, |name| objects.contains(name))?;
        context.progress.begin(Phase::Checking, versions.len() as u64, 0);
        let out: Mutex<HashMap<ObjectName, Vec<_>>> = Mutex::default();
        for_each_parallel(&versions, PARALLELISM, |version| {
            context.check_stop()?;
            let retention = match version.is_delete_marker {
                true => None,
                false => match lock.retention_of(&version.name, Some(&version.version)) {
                    Ok(retention) => retention,
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(RepoError::from(error).into()),
                },
            };
            locked(&out).entry(version.name.clone()).or_default().push((version.clone(), retention));
            context.progress.add(1, 0);
            Ok::<(), crate::EngineError>(())
        })?;
        Ok(Self(out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }

    /// What keeps an object at `now`.
    pub fn hold(&self, name: &ObjectName, now: Time) -> Hold {
        let versions = self.0.get(name).map_or(&[][..], Vec::as_slice);
        if versions.iter().any(|(version, _)| version.is_delete_marker && version.is_newest) {
            return Hold::Hidden;
        }
        let real = versions.iter().filter(|(version, _)| !version.is_delete_marker);
        let hold = |retention: &Option<Retention>| match retention {
            Some(Retention { mode, until }) if until.unix_seconds > now.secs => {
                Hold::Locked { until_secs: until.unix_seconds, is_final: *mode == LockMode::Compliance }
            }
            _ => Hold::Open,
        };
        let holds: Vec<Hold> = real.map(|(_, retention)| hold(retention)).collect();
        holds.into_iter().reduce(weaker).unwrap_or(Hold::Gone)
    }

    /// What the store still has of objects that were deleted, hidden versions included.
    pub fn left_of<'a>(&self, objects: impl Iterator<Item = &'a ObjectName>, now: Time) -> Left {
        let mut left = Left::default();
        for name in objects {
            let versions = self.0.get(name).into_iter().flatten();
            let mut real = versions.filter(|(version, _)| !version.is_delete_marker).peekable();
            left.objects += u64::from(real.peek().is_some());
            for retention in real.filter_map(|(_, retention)| *retention) {
                let until = retention.until.unix_seconds;
                if until > now.secs && left.locked_until_secs.is_none_or(|latest| latest < until) {
                    left.locked_until_secs = Some(until);
                    left.is_final = retention.mode == LockMode::Compliance;
                }
            }
        }
        left
    }
}

/// What a store still has of some objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Of how many it has anything.
    pub objects: u64,
    /// When the last of the locks on them ends, seconds since 1970 by the store's clock; none if none is locked.
    pub locked_until_secs: Option<i64>,
    /// That lock is in compliance mode.
    pub is_final: bool,
}

/// Both at once: the earlier end, and the weaker mode.
fn weaker(one: Hold, other: Hold) -> Hold {
    match (one, other) {
        (
            Hold::Locked { until_secs: first, is_final: one },
            Hold::Locked { until_secs: second, is_final: other },
        ) => Hold::Locked { until_secs: first.min(second), is_final: one && other },
        (one, other) => one.min(other),
    }
}

fn versions_where(lock: &ObjectLock, is_meant: impl Fn(&ObjectName) -> bool) -> Result<Vec<ObjectVersion>> {
    let mut out = Vec::new();
    let listed = lock.list_versions("", &mut |version| {
        if is_meant(&version.name) {
            out.push(version);
        }
        Ok(())
    });
    listed.map_err(RepoError::from)?;
    Ok(out)
}

/// How long is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockAim {
    /// A lock that ends no earlier is left as it is.
    pub at_least: Timestamp,
    /// What others are extended to: later, so that not every run extends every lock.
    pub goal: Retention,
}

/// What [`extend_locks`] did.
#[derive(Debug, Default)]
pub struct Extension {
    /// Objects that are needed.
    pub objects: usize,
    /// It is not known what is needed, so all that is there was locked: a tree cannot be read, or a snapshot is lost.
    pub is_guess: bool,
    /// Versions whose lock ends later now.
    pub extended: usize,
    /// Versions that were locked for long enough.
    pub sufficient: usize,
    /// Needed objects that are hidden by a delete marker. What it hides is locked all the same.
    pub hidden: Vec<ObjectName>,
    /// Needed objects of which there is no version.
    pub gone: Vec<ObjectName>,
    /// Objects that have several versions: somebody wrote over them, or a PUT was repeated. All are locked.
    pub overwritten: Vec<ObjectName>,
    /// What could not be locked, and why.
    pub failed: Vec<(ObjectName, BackendError)>,
}

impl Extension {
    /// Whether all that is needed is known, there, and locked as long as wanted.
    pub fn is_complete(&self) -> bool {
        !self.is_guess && self.hidden.is_empty() && self.gone.is_empty() && self.failed.is_empty()
    }
}

/// Sees to it that every version of all that is needed stays locked as long as `aim` says. Where that is not known, since a
/// tree cannot be read or snapshots are `lost`, all that is there is locked, hidden or not, so that no damage makes a lock
/// lapse. One that fails hinders no other.
pub fn extend_locks(
    lock: &ObjectLock,
    needs: &Needs,
    lost: &LostSnapshots,
    aim: LockAim,
    context: Context<'_>,
) -> Result<Extension> {
    let is_guess = !needs.is_known() || !lost.snapshots.is_empty();
    let may_be_needed = |name: &ObjectName| match parse_object_name(name.as_str()) {
        Some((Area::Snapshots, id)) => lost.objects.contains(&id),
        Some((Area::Epochs | Area::Packs | Area::Index, _)) => true,
        _ => false,
    };
    let is_meant = |name: &ObjectName| needs.objects().contains(name) || is_guess && may_be_needed(name);
    let versions = versions_where(lock, is_meant)?;
    let mut out = Extension { objects: needs.objects().len(), is_guess, ..Extension::default() };
    let mut count: HashMap<&ObjectName, usize> = HashMap::new();
    for version in &versions {
        let count = count.entry(&version.name).or_default();
        match (version.is_delete_marker, version.is_newest) {
            (true, true) => out.hidden.push(version.name.clone()),
            (true, false) => {}
            (false, _) => *count += 1,
        }
    }
    let real = |name: &ObjectName| count.get(name).copied().unwrap_or(0);
    let names = || needs.objects().iter();
    out.gone = names().filter(|name| real(name) == 0).cloned().collect();
    out.overwritten = names().filter(|name| real(name) > 1).cloned().collect();
    let real: Vec<&ObjectVersion> = versions.iter().filter(|version| !version.is_delete_marker).collect();
    context.progress.begin(Phase::Finishing, real.len() as u64, 0);
    let report = Mutex::new(out);
    for_each_parallel(&real, PARALLELISM, |version| {
        context.check_stop()?;
        let done = lock.extend_retention(&version.name, Some(&version.version), aim.at_least, aim.goal);
        let mut report = locked(&report);
        match done {
            Ok((_, true)) => report.extended += 1,
            Ok((_, false)) => report.sufficient += 1,
            Err(error) => report.failed.push((version.name.clone(), error)),
        }
        drop(report);
        context.progress.add(1, 0);
        Ok::<(), crate::EngineError>(())
    })?;
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.failed.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(report)
}
