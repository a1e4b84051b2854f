//! What the holder of these credentials could destroy, tried with real requests on an object of our own.
//!
//! No object of the repository is written, deleted or changed: those are only asked how long they are locked.

use snap_backend::{
    Backend, BackendError, Bytes, ErrorKind, LockMode, ObjectLock, ObjectName, Retention, Timestamp,
};
use snap_format::Time;
use snap_repo::{Area, RepoError, parse_object_name};

use super::keyless::CONFIGS;
use crate::Result;

/// The object that is tried on: where every role that writes may write, and by a name that no reader heeds.
const PROBE: &str = "packs/immutable-probe";
/// For who may not write: there is no such object.
const ABSENT: &str = "packs/immutable-probe-absent";
/// How long a probe is locked, if it is locked at all, seconds.
const PROBE_LOCK_SECS: i64 = 3600;
/// Objects of one area that are asked for their lock, spread evenly: names are hashes, so this is a fair sample.
const SAMPLE: usize = 64;

/// How a request on the probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Allowed,
    /// The store refused, in its own words.
    Denied(String),
    /// It could not be tried, or failed otherwise.
    Unknown(String),
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What: `put`, `overwrite`, `delete`, `delete-version`, `lock`, `shorten-lock`, `bypass-shorten`, `bypass-delete`.
    pub action: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether doing it to an object of the repository would lose what is in it.
    pub destroys: bool,
}

/// The locks on the objects of an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaLocks {
    /// `config`, or the area's prefix without its slash.
    pub area: &'static str,
    /// Objects there are.
    pub objects: usize,
    /// Objects that were asked.
    pub asked: usize,
    /// Of those, how many are locked now.
    pub locked: usize,
    /// Of those, how many in governance mode: who may bypass it can delete them.
    pub governance: usize,
    /// The earliest end of a lock among those that are locked.
    pub until: Option<Timestamp>,
}

/// What [`check_immutable`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImmutableReport {
    /// What was tried.
    pub probes: Vec<Probe>,
    /// Whether the store keeps older versions; none if it does not say.
    pub versioned: Option<bool>,
    /// Whether it has locks; none if it does not say.
    pub has_locks: Option<bool>,
    /// The locks of what is stored; empty where the store has none, or does not say.
    pub locks: Vec<AreaLocks>,
    /// Whether these credentials can destroy what is stored, as far as could be told: what is not known counts as yes.
    pub can_destroy: bool,
    /// Before this nobody whose requests were tried can delete what was asked; none unless all of it is locked.
    pub locked_until: Option<Timestamp>,
}

impl ImmutableReport {
    /// Whether everything that was asked is locked, and these credentials cannot undo it.
    pub fn is_immutable(&self) -> bool {
        self.locked_until.is_some() && !self.can_destroy
    }

    fn outcome(&self, action: &str) -> Option<&Outcome> {
        self.probes.iter().find(|probe| probe.action == action).map(|probe| &probe.outcome)
    }

    fn allows(&self, action: &str) -> bool {
        self.outcome(action) == Some(&Outcome::Allowed)
    }

    /// Takes down how a request ended; what has to do with the network fails the check.
    fn tried<T>(
        &mut self,
        action: &'static str,
        destroys: bool,
        done: Result<T, BackendError>,
    ) -> Result<Option<T>> {
        let (outcome, value) = match done {
            Ok(value) => (Outcome::Allowed, Some(value)),
            Err(error) => (refused(error)?, None),
        };
        self.probes.push(Probe { action, outcome, destroys });
        Ok(value)
    }
}

fn refused(error: BackendError) -> Result<Outcome> {
    match error.kind() {
        ErrorKind::Permission | ErrorKind::ReadOnly => Ok(Outcome::Denied(error.to_string())),
        ErrorKind::Unsupported | ErrorKind::Other | ErrorKind::NotFound => {
            Ok(Outcome::Unknown(error.to_string()))
        }
        _ => Err(RepoError::from(error).into()),
    }
}

fn named(name: &str) -> ObjectName {
    ObjectName::new(name).expect("the names of probes are valid")
}

fn body(number: u8) -> Bytes {
    Bytes::from(format!("a probe of `snap check --immutable`, {number}; nothing needs it\n"))
}

/// Tries what could destroy the repository, on an object of its own, and asks what locks there are. `lock` is the same
/// store's, where it has such a thing; `now` is taken for the store's time.
pub fn check_immutable(
    backend: &dyn Backend,
    lock: Option<&ObjectLock>,
    now: Time,
) -> Result<ImmutableReport> {
    let mut report = ImmutableReport::default();
    match lock {
        None => try_plain(backend, &mut report)?,
        Some(lock) => {
            try_versions(lock, &mut report)?;
            if report.has_locks != Some(false) {
                try_locks(lock, now, &mut report)?;
                survey(backend, lock, now, &mut report)?;
            }
            judge(&mut report);
        }
    }
    Ok(report)
}

/// A store without versions and locks that we know of: who deletes an object of theirs deletes any.
fn try_plain(backend: &dyn Backend, report: &mut ImmutableReport) -> Result<()> {
    let probe = named(PROBE);
    let is_put = report.tried("put", false, backend.put(&probe, body(1)))?.is_some();
    // To delete what is not there succeeds without asking anybody.
    if is_put {
        report.tried("delete", true, backend.delete(&probe))?;
    }
    report.can_destroy = is_put && !matches!(report.outcome("delete"), Some(Outcome::Denied(_)));
    (report.versioned, report.has_locks) = (backend.local_root().map(|_| false), None);
    Ok(())
}

fn try_versions(lock: &ObjectLock, report: &mut ImmutableReport) -> Result<()> {
    let told = |answer: Result<bool, BackendError>| match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => refused(error).map(|_| None),
    };
    (report.versioned, report.has_locks) = (told(lock.is_versioned())?, told(lock.has_locks())?);
    let (probe, absent) = (named(PROBE), named(ABSENT));
    let put = report.tried("put", false, lock.put(&probe, body(1), None))?;
    let version = put.clone().flatten();
    if put.is_some() && report.versioned.is_none() {
        report.versioned = Some(version.is_some());
    }
    let loses = report.versioned != Some(true);
    if put.is_some() {
        report.tried("overwrite", loses, lock.put(&probe, body(2), None))?;
    }
    // Amazon judges a deletion by the name alone, whether there is such an object or not.
    let target = if put.is_some() { &probe } else { &absent };
    report.tried("delete", loses, lock.delete(target, None, false))?;
    if let Some(version) = version {
        report.tried("delete-version", true, lock.delete(&probe, Some(&version), false))?;
    }
    Ok(())
}

/// Locks a probe for a while, and tries to undo that.
fn try_locks(lock: &ObjectLock, now: Time, report: &mut ImmutableReport) -> Result<()> {
    let probe = named(PROBE);
    let until = |secs: i64| Retention {
        mode: LockMode::Governance,
        until: Timestamp { unix_seconds: now.secs + secs, nanos: 0 },
    };
    let put = lock.put(&probe, body(3), Some(until(PROBE_LOCK_SECS)));
    let version = match report.tried("lock", false, put)?.flatten() {
        Some(version) => version,
        // The bucket may lock what is new by itself.
        None => match lock.put(&probe, body(3), None) {
            Ok(Some(version)) if matches!(lock.retention_of(&probe, None), Ok(Some(_))) => version,
            Ok(_) => return Ok(()),
            Err(error) => return refused(error).map(drop),
        },
    };
    let version = Some(version.as_str());
    let shorter = until(PROBE_LOCK_SECS / 2);
    report.tried("shorten-lock", true, lock.set_retention(&probe, version, shorter, false))?;
    report.tried("bypass-shorten", true, lock.set_retention(&probe, version, shorter, true))?;
    report.tried("bypass-delete", true, lock.delete(&probe, version, true))?;
    Ok(())
}

/// Asks objects of each area until when they are locked.
fn survey(backend: &dyn Backend, lock: &ObjectLock, now: Time, report: &mut ImmutableReport) -> Result<()> {
    let mut areas: Vec<(&'static str, Vec<ObjectName>)> = vec![("config", CONFIGS.map(named).to_vec())];
    for area in [Area::Epochs, Area::Snapshots, Area::Index, Area::Packs, Area::Records] {
        let mut names = Vec::new();
        let listed = backend.list(area.prefix(), &mut |meta| {
            if parse_object_name(meta.name.as_str()).is_some() {
                names.push(meta.name);
            }
            Ok(())
        });
        listed.map_err(RepoError::from)?;
        names.sort();
        areas.push((area.prefix().trim_end_matches('/'), names));
    }
    for (area, names) in areas {
        let mut found =
            AreaLocks { area, objects: names.len(), asked: 0, locked: 0, governance: 0, until: None };
        // An epoch lost is everything lost.
        let step = if area == "epochs" { 1 } else { names.len().div_ceil(SAMPLE).max(1) };
        for name in names.iter().step_by(step) {
            let retention = match lock.retention_of(name, None) {
                Ok(retention) => retention,
                Err(error) if error.kind() == ErrorKind::NotFound => continue, // went meanwhile
                Err(error) => {
                    refused(error)?;
                    report.locks.clear();
                    return Ok(());
                }
            };
            found.asked += 1;
            if let Some(Retention { mode, until }) = retention.filter(|it| it.until.unix_seconds > now.secs) {
                found.locked += 1;
                found.governance += usize::from(mode == LockMode::Governance);
                found.until = Some(found.until.map_or(until, |earlier| earlier.min(until)));
            }
        }
        report.locks.push(found);
    }
    Ok(())
}

fn judge(report: &mut ImmutableReport) {
    let all_locked = report.locks.iter().all(|area| area.asked == area.locked);
    let asked: usize = report.locks.iter().map(|area| area.asked).sum();
    if all_locked && asked > 0 {
        report.locked_until = report.locks.iter().filter_map(|area| area.until).min();
    }
    let has_governance = report.locks.iter().any(|area| area.governance > 0);
    let is_denied = |action| matches!(report.outcome(action), Some(Outcome::Denied(_)));
    // Who may not even hide an object may not delete a version of it, where that could not be tried.
    let judged = if report.outcome("delete-version").is_some() { "delete-version" } else { "delete" };
    report.can_destroy = if report.versioned != Some(true) {
        // What was not tried cannot be done: who may not put may not overwrite.
        let put_denied = is_denied("put") || is_denied("overwrite");
        !(put_denied && is_denied("delete"))
    } else if report.locked_until.is_some() {
        let undone = ["shorten-lock", "bypass-shorten", "bypass-delete"];
        let is_tried = report.outcome("bypass-delete").is_some();
        has_governance
            && (undone.iter().any(|action| report.allows(action)) || !is_tried && !is_denied(judged))
    } else {
        !is_denied(judged)
    };
}
