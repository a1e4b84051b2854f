//! Restoring into a bucket: files become objects, and what a bucket cannot hold is told.

mod headers;
mod keep;
mod upload;
mod walk;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_backend::{Bucket, BucketObject, Timestamp};
use snap_format::Time;
use snap_repo::RepoError;

use self::walk::Walk;
use super::changes::ChangeCounts;
use super::guard::{Guard, refuse_newer};
use super::keep::is_safety_snapshot;
use super::{Mode, Restore, RestoreOptions, RestoreReport};
use crate::browse::Browser;
use crate::{Context, EngineError, Event, NullObserver, Phase, Result};

/// Objects that are overwritten or deleted, by key, as they were found: size and time.
type Victims = BTreeMap<String, (u64, Option<Timestamp>)>;

/// What becomes of objects that are there already.
#[derive(Debug, Default)]
struct Found {
    counts: ChangeCounts,
    examples: Vec<Vec<u8>>,
    victims: Victims,
}

/// What a bucket does not hold, counted.
#[derive(Debug, Default)]
struct Unfit {
    /// Links, pipes, devices, empty directories, names: each is told.
    entries: AtomicU64,
    /// Files with extended attributes.
    with_xattrs: AtomicU64,
    /// Further names of files, each of which becomes an object of its own.
    names: AtomicU64,
}

/// Restores `path` of a snapshot (`None`: all of it, under its absolute paths) into a bucket, one object a file. Times, modes
/// and owners go along as metadata where the store keeps it.
///
/// The guard protects what is there as in [`super::restore_guarded`]; objects can be saved in a directory only.
pub fn restore_to_bucket(
    browser: &Browser,
    path: Option<&[u8]>,
    bucket: &Bucket,
    options: &RestoreOptions,
    guard: &Guard<'_>,
    context: Context<'_>,
) -> Result<RestoreReport> {
    if options.delete && is_safety_snapshot(browser.snapshot()) {
        return Err(EngineError::Usage(super::guard::PARTIAL.into()));
    }
    let is_occupied = !bucket.list("").map_err(RepoError::from)?.is_empty();
    let unfit = Unfit::default();
    let run = |restore: &Restore<'_>, approved: Option<&Victims>, unfit: &Unfit| {
        restore.context.progress.begin(Phase::Planning, 0, 0);
        Walk::new(restore, bucket, approved, unfit)?.run(path, is_occupied)
    };
    if options.dry_run {
        let restore = Restore::new(browser, options, context, Mode::Rehearse);
        let found = run(&restore, None, &unfit)?;
        unfit.tell(bucket, context);
        return Ok(RestoreReport { changes: found.counts, ..restore.counts.report() });
    }
    let mut found = Found::default();
    let mut kept = None;
    if is_occupied {
        // What it meets is told by the restore itself.
        let quiet = Context { observer: &NullObserver, ..context };
        found = run(&Restore::new(browser, options, quiet, Mode::Survey), None, &Unfit::default())?;
        if guard.refuse_newer {
            refuse_newer(&found.counts, &found.examples)?;
        }
        if !found.victims.is_empty() {
            kept = keep::keep(&guard.keeper, bucket, &found.victims, context)?;
        }
    }
    let restore = Restore::new(browser, options, context, Mode::Do);
    run(&restore, Some(&found.victims), &unfit)?;
    unfit.tell(bucket, context);
    Ok(RestoreReport { changes: found.counts, kept, ..restore.counts.report() })
}

/// What tells whether an object is still the one that was found.
fn identity(object: &BucketObject) -> (u64, Option<Timestamp>) {
    (object.size_bytes, object.modified)
}

/// When the content of an object was modified: as its metadata says, else when it was stored. Many stores say the second in
/// which that was: then it may have been at its end.
fn time_of(object: &BucketObject) -> Option<Time> {
    let latest = |nanos| if nanos == 0 { 999_999_999 } else { nanos };
    let stored = object.modified.map(|time| Time::new(time.unix_seconds, latest(time.nanos)));
    headers::mtime(&object.headers).or(stored)
}

impl Unfit {
    fn tell(&self, bucket: &Bucket, context: Context<'_>) {
        let warn = |text: String| context.observer.event(Event::Warning { text: &text });
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (entries, xattrs, names) = (count(&self.entries), count(&self.with_xattrs), count(&self.names));
        if entries > 0 {
            warn(format!("entries that a bucket cannot hold, each named above and left out: {entries}"));
        }
        if xattrs > 0 {
            warn(format!("files whose extended attributes and ACLs a bucket does not hold: {xattrs}"));
        }
        if names > 0 {
            warn(format!("further names of hard-linked files, each an object of its own now: {names}"));
        }
        if !bucket.keeps_metadata() {
            warn("this store keeps no metadata: times, modes and owners are not there".to_owned());
        }
    }
}
