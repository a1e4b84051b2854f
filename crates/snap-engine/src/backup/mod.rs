//! Backing up: a source becomes a snapshot.

use std::io::Read;
use std::path::PathBuf;

use snap_format::{ObjectId, Summary, Time};
use snap_repo::{Cache, Repository};
use snap_source::FilterOptions;

use crate::{Context, Result};

/// Where a run reads from.
pub enum BackupSource {
    /// Files and directories.
    Paths {
        /// As given; made absolute lexically against `working_dir`.
        paths: Vec<PathBuf>,
        /// Absolute.
        working_dir: PathBuf,
        /// What to leave out.
        filter: FilterOptions,
        /// Stored under this absolute path instead of its own; one path only.
        as_path: Option<PathBuf>,
    },
    /// A stream that becomes one file in the root.
    Stream {
        /// The file's name.
        name: String,
        /// The bytes.
        stream: Box<dyn CommandStream>,
    },
}

/// The bytes of a stream, and whether they are all.
pub trait CommandStream: Read + Send {
    /// Called after the last byte: an error (the command failed) means that no snapshot is made.
    fn finish(&mut self) -> std::result::Result<(), String>;
}

/// What to back up and how.
pub struct BackupOptions {
    /// Where from.
    pub source: BackupSource,
    /// Dataset name.
    pub dataset: String,
    /// Host name.
    pub host: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Label.
    pub label: String,
    /// When the run begins.
    pub time: Time,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Threads that read, if more than the context's.
    pub readers: Option<usize>,
    /// Make no snapshot if nothing differs from the parent.
    pub skip_if_unchanged: bool,
    /// Read and count, write nothing.
    pub dry_run: bool,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct BackupReport {
    /// The snapshot, unless skipped or a dry run.
    pub snapshot: Option<ObjectId>,
    /// What it was compared with.
    pub parent: Option<ObjectId>,
    /// Counters; `duration_ms` is left 0.
    pub summary: Summary,
    /// Given paths that could not be read, as bytes: exit code 3.
    pub missing_sources: Vec<Vec<u8>>,
}

/// Backs up.
pub fn backup(
    _repository: &Repository,
    _cache: Option<&Cache>,
    _options: BackupOptions,
    _context: Context<'_>,
) -> Result<BackupReport> {
    Ok(BackupReport::default())
}
