//! Locks of what snapshots need, in the copy of a run: asked, and made to last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;
use snap_backend::{LockMode, ObjectLock, ObjectName, Retention, Timestamp};
use snap_engine::locks::{
    Extension, Hold, Left, LockAim, Locks, LostSnapshots, Needs, SnapshotLock, StoredSnapshots, extend_locks,
};
use snap_format::{ObjectId, Time};
use snap_ops::LockConfig;
use snap_repo::{BlobReader, Index, Overlays, Snapshot};

use crate::app::App;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{Opened, Place};
use crate::system;

/// What is told of the locks in a copy.
pub enum Told {
    /// The store is of a kind that nobody here can ask.
    Nothing,
    /// Nothing in it is locked, and why.
    Open(&'static str),
    /// The lock of each snapshot that was asked for.
    Locks(BTreeMap<ObjectId, SnapshotLock>),
}

impl Told {
    /// Of one snapshot; none where nobody can ask.
    pub fn of(&self, snapshot: &ObjectId) -> Option<Result<&SnapshotLock, &'static str>> {
        match self {
            Self::Nothing => None,
            Self::Open(why) => Some(Err(why)),
            Self::Locks(locks) => locks.get(snapshot).map(Ok),
        }
    }
}

pub const DIRECTORY: &str = "it is a directory: whoever can write in it can delete all of it";
const NO_LOCKS: &str = "the bucket has no object lock";

/// Versions and locks of the store behind an opened repository.
fn object_lock(app: &App, opened: &Opened) -> Result<Option<ObjectLock>, Failure> {
    Place { copy: opened.copy.clone(), default_key: None }.object_lock(app)
}

fn needs(app: &App, opened: &Opened, snapshots: &[Snapshot]) -> Result<Needs, Failure> {
    let (index, findings) = Index::load(&opened.repository, opened.cache.as_ref())?;
    findings.iter().for_each(|finding| app.out.finding(finding));
    let reader = BlobReader::new(opened.repository.clone(), Arc::new(index));
    let observer = CliObserver::new(app);
    app.engine(&observer, |context| Needs::gather(&reader, snapshots, context))
}

/// The store's time, asked just now; this machine's if it tells none.
fn time_of(lock: &ObjectLock) -> Time {
    lock.store_time().map_or_else(system::now, |time| Time::new(time.unix_seconds, 0))
}

/// Asks the store until when nothing that these snapshots need can be deleted. Needs a key that reads.
pub fn ask(app: &App, opened: &Opened, snapshots: &[Snapshot]) -> Result<Told, Failure> {
    if opened.repository.backend().local_root().is_some() {
        return Ok(Told::Open(DIRECTORY));
    }
    let Some(lock) = object_lock(app, opened)? else { return Ok(Told::Nothing) };
    opened.repository.keyring().require_reader("asking which objects a snapshot needs")?;
    if !lock.has_locks()? {
        return Ok(Told::Open(NO_LOCKS));
    }
    let now = time_of(&lock);
    let needs = needs(app, opened, snapshots)?;
    let observer = CliObserver::new(app);
    let locks = app.engine(&observer, |context| Locks::ask(&lock, needs.objects(), context))?;
    Ok(Told::Locks(needs.weakest(&locks, now)))
}

/// What the store still has of objects, those that were deleted too, and when the locks on them end; none where nobody can ask.
pub fn left_of(app: &App, opened: &Opened, objects: &BTreeSet<ObjectName>) -> Result<Option<Left>, Failure> {
    if opened.repository.backend().local_root().is_some() {
        return Ok(None);
    }
    let Some(lock) = object_lock(app, opened)? else { return Ok(None) };
    let observer = CliObserver::new(app);
    let locks = app.engine(&observer, |context| Locks::ask(&lock, objects, context))?;
    Ok(Some(locks.left_of(objects.iter(), time_of(&lock))))
}

/// The objects that the snapshots of a repository need.
pub fn needed(app: &App, opened: &Opened) -> Result<BTreeSet<ObjectName>, Failure> {
    Ok(needs(app, opened, &kept(app, opened)?.0)?.objects().clone())
}

/// All snapshots that no record forgot, and what records say.
fn kept(app: &App, opened: &Opened) -> Result<(Vec<Snapshot>, Overlays), Failure> {
    let (set, overlays) = opened.repository.snapshots_with_overlays()?;
    set.findings.iter().for_each(|finding| app.out.finding(finding));
    let mut snapshots = set.snapshots;
    snapshots.retain(|snapshot| !overlays.was_forgotten(&snapshot.id));
    Ok((snapshots, overlays))
}

/// Why a snapshot is not locked, in words.
pub fn why_open(lock: &SnapshotLock) -> String {
    let object = lock.weakest.object.as_ref().map_or("something that it needs", |name| name.as_str());
    match lock.weakest.hold {
        Hold::Unknown => "what it needs cannot be read, so nobody knows".to_owned(),
        Hold::Gone => format!("{object} is not there"),
        Hold::Hidden => format!("{object} is hidden by a delete marker"),
        Hold::Open | Hold::Locked { .. } => format!("{object} is not locked"),
    }
}

/// What came of making locks last.
pub struct Kept {
    extension: Extension,
    lost: LostSnapshots,
    until: Time,
}

/// Makes the locks of all that the kept snapshots need last, where the configuration says so. `None` where it does not.
pub fn extend(app: &App, opened: &Opened) -> Result<Option<Kept>, Failure> {
    let Some(LockConfig { length, is_final }) = opened.copy.lock else { return Ok(None) };
    opened.repository.keyring().require_owner("locking what snapshots need")?;
    let lock = object_lock(app, opened)?.ok_or_else(|| no_locks(opened))?;
    if !lock.has_locks()? {
        return Err(no_locks(opened));
    }
    let now = time_of(&lock);
    // Before the snapshots are read: one that comes meanwhile is not lost.
    let stored = StoredSnapshots::list(&lock)?;
    let (snapshots, overlays) = kept(app, opened)?;
    let lost = stored.lost(&lock, &opened.repository, |id| overlays.was_forgotten(id))?;
    let needs = needs(app, opened, &snapshots)?;
    let seconds = length.seconds() as i64; // at most a year
    let after = |seconds: i64| Timestamp { unix_seconds: now.secs + seconds, nanos: 0 };
    let mode = if is_final { LockMode::Compliance } else { LockMode::Governance };
    // A quarter more than is wanted, so that a lock is not extended by every run.
    let goal = Retention { mode, until: after(seconds + seconds / 4) };
    let aim = LockAim { at_least: after(seconds), goal };
    let observer = CliObserver::new(app);
    let extension = app.engine(&observer, |context| extend_locks(&lock, &needs, &lost, aim, context))?;
    Ok(Some(Kept { extension, lost, until: Time::new(aim.at_least.unix_seconds, 0) }))
}

fn no_locks(opened: &Opened) -> Failure {
    Failure::new(Exit::Failed, format!("the copy {} is to be locked: {NO_LOCKS}", opened.copy.name)).hint(
        "object lock is switched on for a bucket at the store; see the guide, \"What nobody can delete\"",
    )
}

/// The same at the end of an owner's run that has done its work: what fails is a warning. Returns the field of the summary.
pub fn extend_after_run(app: &App, opened: &Opened) -> serde_json::Value {
    if opened.copy.lock.is_none() || opened.repository.keyring().require_owner("locking").is_err() {
        return serde_json::Value::Null;
    }
    match extend(app, opened) {
        Ok(None) => serde_json::Value::Null,
        Ok(Some(kept)) => {
            kept.tell(app);
            kept.event().into()
        }
        Err(failure) => {
            let why = [vec![failure.message.clone()], failure.causes.clone()].concat().join(": ");
            app.out.warning(&format!("the locks were not extended: {why}"));
            json!({ "state": "failed", "why": why })
        }
    }
}

impl Kept {
    /// Whether all that is needed is locked.
    pub fn is_complete(&self) -> bool {
        self.extension.is_complete()
    }

    /// In words.
    pub fn tell(&self, app: &App) {
        let Extension { objects, is_guess, extended, sufficient, hidden, gone, overwritten, failed } =
            &self.extension;
        let until = text::date_time(self.until);
        if self.is_complete() {
            app.out.done(&format!(
                "locked at least until {until} UTC: {}; {} extended, {} locked for long enough",
                text::counted(*objects as u64, "object", "objects"),
                text::count(*extended as u64),
                text::count(*sufficient as u64),
            ));
        }
        if let Some(first) = self.lost.snapshots.first() {
            let count = text::counted(self.lost.snapshots.len() as u64, "snapshot", "snapshots");
            app.out.warning(&format!(
                "{count} in the bucket cannot be read, and no record forgot them: somebody hid them or wrote over them, \
                 such as {}; everything in the bucket was locked",
                text::short(first)
            ));
        } else if *is_guess {
            app.out.warning(
                "a tree that kept snapshots need cannot be read, so everything in the bucket was locked; `snap check` \
                 tells what is wrong",
            );
        }
        let warn = |names: &[ObjectName], what: &str| {
            if let Some(first) = names.first() {
                let count = text::counted(names.len() as u64, "object", "objects");
                app.out.warning(&format!("{count} that kept snapshots need {what}, such as {first}"));
            }
        };
        warn(hidden, "are hidden by a delete marker");
        warn(gone, "are not there");
        warn(overwritten, "have several versions, all of them locked: somebody may have written over them");
        if let Some((name, error)) = failed.first() {
            let count = text::counted(failed.len() as u64, "object", "objects");
            app.out.warning(&format!("{count} could not be locked, such as {name}: {error}"));
        }
    }

    /// For JSON.
    pub fn event(&self) -> json::Object {
        let Extension { objects, is_guess, extended, sufficient, hidden, gone, overwritten, failed } =
            &self.extension;
        json::object(json!({
            "state": if self.is_complete() { "ok" } else { "incomplete" },
            "objects": objects,
            "guessed": is_guess,
            "lost": self.lost.snapshots.len(),
            "extended": extended,
            "sufficient": sufficient,
            "hidden": hidden.len(),
            "gone": gone.len(),
            "overwritten": overwritten.len(),
            "failed": failed.len(),
            "until": text::rfc3339(self.until),
        }))
    }
}
