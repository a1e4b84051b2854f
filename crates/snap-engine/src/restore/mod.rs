//! Restoring: a snapshot becomes files again.

use std::io::Write;
use std::path::PathBuf;

use crate::browse::Browser;
use crate::{Context, Result};

/// What to do with what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Where it differs; only what differs is fetched and written.
    #[default]
    IfChanged,
    /// Where the snapshot's is newer.
    IfNewer,
    /// Never.
    Never,
    /// Always, without comparing.
    Always,
}

/// Where to.
pub enum RestoreTarget {
    /// A directory, created if missing.
    Dir(PathBuf),
    /// A tar stream.
    Tar(Box<dyn Write + Send>),
}

/// How.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Patterns; if any, only what they take.
    pub include: Vec<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// What to do with what is there already.
    pub overwrite: Overwrite,
    /// Delete what is not in the snapshot, inside the restored subtree.
    pub delete: bool,
    /// Read back and compare after writing.
    pub verify: bool,
    /// Plan and count, touch nothing.
    pub dry_run: bool,
    /// Do not set owners.
    pub no_owner: bool,
}

/// What was done. Counts are entries, sizes bytes.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct RestoreReport {
    pub restored: u64,
    pub skipped: u64,
    pub overwritten: u64,
    pub deleted: u64,
    pub restored_bytes: u64,
    pub fetched_bytes: u64,
    pub requests: u64,
    /// Entries lost to damage of the repository, each reported as [`crate::Event::Finding`] with its path: exit code 4.
    pub damaged: u64,
    /// Entries that could not be written: exit code 1.
    pub failed: u64,
}

/// Restores `path` of a snapshot (`None`: all of it, below the target under absolute paths).
pub fn restore(
    _browser: &Browser,
    _path: Option<&[u8]>,
    _target: RestoreTarget,
    _options: &RestoreOptions,
    _context: Context<'_>,
) -> Result<RestoreReport> {
    Ok(RestoreReport::default())
}
