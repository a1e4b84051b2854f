//! Restoring among newer things: first a look at what would become of them, then whether that may be, then a place to keep
//! them, and only then the restore.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::changes::{ChangeCounts, Changes};
use super::keep::{Keeper, is_safety_snapshot};
use super::{Mode, Overwrite, Restore, RestoreOptions, RestoreReport, into_directory};
use crate::browse::Browser;
use crate::{Context, EngineError, NullObserver, Result};

/// Of a safety snapshot and `--delete`.
pub(super) const PARTIAL: &str =
    "this snapshot holds only what a restore overwrote or deleted: --delete would take away all the rest";

/// What stands between a restore and what is there already.
#[derive(Debug, Clone)]
pub struct Guard<'a> {
    /// Nothing that was modified after the snapshot is overwritten or deleted: if the plan would, nothing is touched.
    pub refuse_newer: bool,
    /// Where what is overwritten or deleted is saved first.
    pub keeper: Keeper<'a>,
}

/// Restores `path` of a snapshot (`None`: all of it) into a directory, as [`super::restore`], but takes care of what is there.
///
/// What a look beforehand did not find to be overwritten or deleted, or found otherwise than it is now, stays as it is and
/// is a failure of its own. Into a directory that is new or empty nothing is looked at and nothing saved. A rehearsal
/// reports what it finds and refuses nothing.
pub fn restore_guarded(
    browser: &Browser,
    path: Option<&[u8]>,
    target: &Path,
    options: &RestoreOptions,
    guard: &Guard<'_>,
    context: Context<'_>,
) -> Result<RestoreReport> {
    if options.delete && is_safety_snapshot(browser.snapshot()) {
        return Err(EngineError::Usage(PARTIAL.into()));
    }
    let top = occupied(target)
        .map_err(|error| EngineError::io("looking at the target", target.as_os_str().as_bytes(), error))?;
    let begin = |mode| {
        let top = top.as_ref().map_or_else(Vec::new, |top| top.as_os_str().as_bytes().to_vec());
        Restore { top, ..Restore::new(browser, options, context, mode) }
    };
    if options.dry_run {
        let rehearsal = begin(Mode::Rehearse);
        let changes = into_directory(&rehearsal, path, target)?;
        return Ok(RestoreReport { changes: changes.counts, ..rehearsal.counts.report() });
    }
    let mut found = Changes::default();
    let mut kept = None;
    // What only adds loses nothing.
    let only_adds = options.overwrite == Overwrite::Never && !options.delete;
    if let Some(top) = top.as_ref().filter(|_| !only_adds) {
        // What it meets is told by the restore itself.
        let quiet = Context { observer: &NullObserver, ..context };
        let survey = Restore { context: quiet, ..begin(Mode::Survey) };
        found = into_directory(&survey, path, target)?;
        if guard.refuse_newer {
            refuse_newer(&found.counts, &found.examples)?;
        }
        if found.has_losses() {
            let selection = Arc::new(std::mem::take(&mut found.selection));
            kept = guard.keeper.keep(browser, top, &selection, options, context)?;
            found.selection = Arc::into_inner(selection).expect("whoever saved it is done");
        }
    }
    let restore = Restore { approved: Some(&found), ..begin(Mode::Do) };
    into_directory(&restore, path, target)?;
    Ok(RestoreReport { changes: found.counts, kept, ..restore.counts.report() })
}

/// The path of a directory that has something in it, without links.
fn occupied(target: &Path) -> io::Result<Option<PathBuf>> {
    let top = match std::fs::canonicalize(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let is_occupied = std::fs::read_dir(&top)?.next().is_some();
    Ok(is_occupied.then_some(top))
}

pub(super) fn refuse_newer(counts: &ChangeCounts, examples: &[Vec<u8>]) -> Result<()> {
    if counts.newer_overwritten + counts.newer_deleted == 0 {
        return Ok(());
    }
    let examples = examples.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    Err(EngineError::Newer {
        overwritten: counts.newer_overwritten,
        deleted: counts.newer_deleted,
        of: counts.overwritten + counts.deleted,
        examples,
    })
}
