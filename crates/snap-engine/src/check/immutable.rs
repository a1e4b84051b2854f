//! What the holder of these credentials could destroy, tried with real requests on an object of our own.
//!
//! No object of the repository is written, deleted or changed: those are only asked how long they are locked. What is tried
//! on has a name that is drawn anew for each run, and that no reader heeds. What the bucket is told to do with what it holds
//! (versioning, locks, expiry) is never tried to change: that could not be taken back.

use std::collections::BTreeSet;

use snap_backend::{
    Backend, BackendError, Bytes, ErrorKind, LockMode, ObjectLock, ObjectName, Retention, Timestamp,
};
use snap_format::Time;
use snap_repo::{Area, RepoError, parse_object_name};

use super::CONFIGS;
use crate::locks::{Hold, Locks};
use crate::{Context, EngineError, Result};

/// Where the object lies that is tried on: where every role that writes may write.
const PROBE: &str = "packs/immutable-probe-";
/// How long a probe is locked, if it is locked at all, seconds.
const PROBE_LOCK_SECS: i64 = 3600;

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
    /// What: `put`, `overwrite`, `delete`, `delete-version`, `lock`, `shorten-lock`, `bypass-shorten`, `bypass-delete`,
    /// `compliance-delete`.
    pub action: &'static str,
    /// The object that it was tried on.
    pub object: ObjectName,
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
    /// Objects that were asked.
    pub objects: usize,
    /// How many are locked now.
    pub locked: usize,
    /// Of those, how many in governance mode: who may bypass it can delete them.
    pub governance: usize,
    /// How many of all can be deleted with these credentials, as far as was tried.
    pub destroyable: usize,
    /// The earliest end of a lock among those that are locked.
    pub until: Option<Time>,
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
    /// Before this nothing that was asked can be deleted; none unless all of it is locked.
    pub locked_until: Option<Time>,
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

    fn denies(&self, action: &str) -> bool {
        matches!(self.outcome(action), Some(Outcome::Denied(_)))
    }

    /// Whether a version that nothing locks may be deletable.
    fn can_delete_open(&self) -> bool {
        // Who may not even hide an object may not delete a version of it, where that could not be tried.
        let tried = if self.outcome("delete-version").is_some() { "delete-version" } else { "delete" };
        !self.denies(tried)
    }

    /// Whether a version that is locked in governance mode may be deletable.
    fn can_delete_governed(&self) -> bool {
        let undone = ["shorten-lock", "bypass-shorten", "bypass-delete"];
        match self.outcome("bypass-delete") {
            Some(_) => undone.iter().any(|action| self.allows(action)),
            None => self.can_delete_open(),
        }
    }

    /// Takes down how a request ended; what has to do with the network fails the check.
    fn tried<T>(
        &mut self,
        action: &'static str,
        object: &ObjectName,
        destroys: bool,
        done: Result<T, BackendError>,
    ) -> Result<Option<T>> {
        let (outcome, value) = match done {
            Ok(value) => (Outcome::Allowed, Some(value)),
            Err(error) => (refused(error)?, None),
        };
        self.probes.push(Probe { action, object: object.clone(), outcome, destroys });
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

/// A name that nothing has.
fn fresh_name() -> Result<ObjectName> {
    let drawn: [u8; 8] = snap_crypto::random().map_err(RepoError::from)?;
    Ok(named(&format!("{PROBE}{:016x}", u64::from_le_bytes(drawn))))
}

fn body(number: u8) -> Bytes {
    Bytes::from(format!("a probe of `snap check --immutable`, {number}; nothing needs it\n"))
}

/// Tries what could destroy the repository, on objects of its own, and asks what locks there are: of `needed`, or of all
/// objects of the repository. `lock` is the same store's, where it has such a thing; `now` is taken for the store's time
/// where the store tells none.
pub fn check_immutable(
    backend: &dyn Backend,
    lock: Option<&ObjectLock>,
    needed: Option<&BTreeSet<ObjectName>>,
    now: Time,
    context: Context<'_>,
) -> Result<ImmutableReport> {
    let mut report = ImmutableReport::default();
    let Some(lock) = lock else {
        try_plain(backend, &mut report)?;
        return Ok(report);
    };
    let probe = fresh_name()?;
    try_versions(lock, &probe, &mut report)?;
    let now = lock.store_time().map_or(now, |time| Time::new(time.unix_seconds, 0));
    if report.has_locks != Some(false) {
        try_locks(lock, &probe, now, &mut report)?;
        try_compliance(lock, now, &mut report)?;
    }
    if report.allows("delete-version") {
        clean_up(lock, &probe)?;
    }
    if report.has_locks != Some(false) {
        let all = match needed {
            Some(_) => None,
            None => Some(all_objects(backend)?),
        };
        survey(lock, needed.or(all.as_ref()).into_iter().flatten(), now, context, &mut report)?;
    }
    judge(&mut report);
    Ok(report)
}

/// A store without versions and locks that we know of: who deletes an object of theirs deletes any.
fn try_plain(backend: &dyn Backend, report: &mut ImmutableReport) -> Result<()> {
    let probe = fresh_name()?;
    let is_put = report.tried("put", &probe, false, backend.put(&probe, body(1)))?.is_some();
    // To delete what is not there succeeds without asking anybody.
    if is_put {
        report.tried("delete", &probe, true, backend.delete(&probe))?;
    }
    report.can_destroy = is_put && !report.denies("delete");
    report.versioned = backend.local_root().map(|_| false);
    Ok(())
}

fn try_versions(lock: &ObjectLock, probe: &ObjectName, report: &mut ImmutableReport) -> Result<()> {
    let told = |answer: Result<bool, BackendError>| match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => refused(error).map(|_| None),
    };
    (report.versioned, report.has_locks) = (told(lock.is_versioned())?, told(lock.has_locks())?);
    let put = report.tried("put", probe, false, lock.put(probe, body(1), None))?;
    let version = put.clone().flatten();
    if put.is_some() && report.versioned.is_none() {
        report.versioned = Some(version.is_some());
    }
    let loses = report.versioned != Some(true);
    if put.is_some() {
        report.tried("overwrite", probe, loses, lock.put(probe, body(2), None))?;
    }
    // Amazon judges a deletion by the name alone, whether there is such an object or not.
    report.tried("delete", probe, loses, lock.delete(probe, None, false))?;
    if let Some(version) = version {
        // The bucket may lock whatever is put: that such a version stays says nothing of one whose lock has ended.
        let is_locked = matches!(lock.retention_of(probe, Some(&version)), Ok(Some(_)));
        if !is_locked {
            report.tried("delete-version", probe, true, lock.delete(probe, Some(&version), false))?;
        }
    }
    Ok(())
}

fn until(now: Time, secs: i64, mode: LockMode) -> Retention {
    Retention { mode, until: Timestamp { unix_seconds: now.secs + secs, nanos: 0 } }
}

/// Locks a probe for a while, and tries to undo that.
fn try_locks(lock: &ObjectLock, probe: &ObjectName, now: Time, report: &mut ImmutableReport) -> Result<()> {
    let governed = |secs| until(now, secs, LockMode::Governance);
    let put = lock.put(probe, body(3), Some(governed(PROBE_LOCK_SECS)));
    let version = match report.tried("lock", probe, false, put)?.flatten() {
        Some(version) => version,
        // The bucket may lock what is new by itself.
        None => match lock.put(probe, body(3), None) {
            Ok(Some(version)) => match lock.retention_of(probe, Some(&version)) {
                Ok(Some(Retention { mode: LockMode::Governance, .. })) => version,
                _ => return Ok(()),
            },
            Ok(None) => return Ok(()),
            Err(error) => return refused(error).map(drop),
        },
    };
    let version = Some(version.as_str());
    let shorter = governed(PROBE_LOCK_SECS / 2);
    report.tried("shorten-lock", probe, true, lock.set_retention(probe, version, shorter, false))?;
    report.tried("bypass-shorten", probe, true, lock.set_retention(probe, version, shorter, true))?;
    report.tried("bypass-delete", probe, true, lock.delete(probe, version, true))?;
    Ok(())
}

/// Locks another probe in compliance mode, for no longer, and tries to delete it. On a store that keeps its word it stays
/// for that hour.
fn try_compliance(lock: &ObjectLock, now: Time, report: &mut ImmutableReport) -> Result<()> {
    if !report.allows("lock") {
        return Ok(());
    }
    let probe = fresh_name()?;
    let put = lock.put(&probe, body(4), Some(until(now, PROBE_LOCK_SECS, LockMode::Compliance)));
    match put {
        Ok(Some(version)) => {
            let done = lock.delete(&probe, Some(&version), true);
            report.tried("compliance-delete", &probe, true, done)?;
        }
        Ok(None) => {}
        Err(error) => drop(refused(error)?),
    }
    Ok(())
}

/// Takes away what is left of a probe, as far as it goes.
fn clean_up(lock: &ObjectLock, probe: &ObjectName) -> Result<()> {
    let mut versions = Vec::new();
    let listed = lock.list_versions(probe.as_str(), &mut |version| {
        versions.push(version.version);
        Ok(())
    });
    if let Err(error) = listed {
        return refused(error).map(drop);
    }
    for version in versions {
        if let Err(error) = lock.delete(probe, Some(&version), true) {
            refused(error)?;
        }
    }
    Ok(())
}

/// Every object of the repository that can hold something.
fn all_objects(backend: &dyn Backend) -> Result<BTreeSet<ObjectName>> {
    let mut names = BTreeSet::from(CONFIGS.map(named));
    for area in [Area::Epochs, Area::Snapshots, Area::Index, Area::Packs] {
        let listed = backend.list(area.prefix(), &mut |meta| {
            if parse_object_name(meta.name.as_str()).is_some() {
                names.insert(meta.name);
            }
            Ok(())
        });
        listed.map_err(RepoError::from)?;
    }
    Ok(names)
}

fn area_of(name: &ObjectName) -> &'static str {
    parse_object_name(name.as_str()).map_or("config", |(area, _)| area.prefix().trim_end_matches('/'))
}

/// Asks objects until when they are locked.
fn survey<'a>(
    lock: &ObjectLock,
    objects: impl Iterator<Item = &'a ObjectName>,
    now: Time,
    context: Context<'_>,
    report: &mut ImmutableReport,
) -> Result<()> {
    let objects: BTreeSet<ObjectName> = objects.cloned().collect();
    let locks = match Locks::ask(lock, &objects, context) {
        Ok(locks) => locks,
        // These credentials may not ask.
        Err(EngineError::Repo(RepoError::Backend(error))) => return refused(error).map(drop),
        Err(error) => return Err(error),
    };
    let can_delete =
        (report.can_delete_open(), report.can_delete_governed(), report.allows("compliance-delete"));
    for name in &objects {
        let area = area_of(name);
        if !report.locks.iter().any(|it| it.area == area) {
            let found = AreaLocks { area, objects: 0, locked: 0, governance: 0, destroyable: 0, until: None };
            report.locks.push(found);
        }
        let found = report.locks.iter_mut().find(|it| it.area == area).expect("it was just pushed");
        found.objects += 1;
        found.destroyable += usize::from(match locks.hold(name, now) {
            // What went meanwhile, or was never there, can be destroyed by nobody.
            Hold::Gone => false,
            Hold::Locked { until_secs, is_final } => {
                let until = Time::new(until_secs, 0);
                found.locked += 1;
                found.governance += usize::from(!is_final);
                found.until = Some(found.until.map_or(until, |earlier| earlier.min(until)));
                if is_final { can_delete.2 } else { can_delete.1 }
            }
            Hold::Open | Hold::Hidden | Hold::Unknown => can_delete.0,
        });
    }
    Ok(())
}

fn judge(report: &mut ImmutableReport) {
    let all_locked = report.locks.iter().all(|area| area.objects == area.locked);
    if all_locked {
        report.locked_until = report.locks.iter().filter_map(|area| area.until).min();
    }
    report.can_destroy = if report.versioned != Some(true) {
        // What was not tried cannot be done: who may not put may not overwrite.
        let put_denied = report.denies("put") || report.denies("overwrite");
        !(put_denied && report.denies("delete"))
    } else if report.locks.is_empty() {
        report.can_delete_open()
    } else {
        report.locks.iter().any(|area| area.destroyable > 0)
    };
}
