//! Saving what a restore is about to overwrite or delete.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snap_format::{ObjectId, Time};
use snap_repo::{Cache, Repository, Snapshot};
use snap_source::{FilterOptions, Selection};

use super::{RestoreOptions, keep_dir};
use crate::browse::Browser;
use crate::{BackupOptions, BackupSource, Context, EngineError, Result, backup};

/// Dataset and tag of the snapshots that a restore makes first. A dataset of their own: they hold a part, and must neither
/// be what a backup compares with nor what `latest` means.
const BEFORE_RESTORE: &str = "before-restore";

/// Level of compression of what is saved.
const LEVEL: i32 = 3;

/// Where what is overwritten or deleted is saved first.
#[derive(Debug, Clone)]
pub enum Keeper<'a> {
    /// Nowhere.
    Nowhere,
    /// Nowhere, though it should be, for this reason: nothing is overwritten or deleted.
    Unable(String),
    /// As plain files in a new directory.
    Dir(PathBuf),
    /// In a snapshot.
    Snapshot(SafetySnapshot<'a>),
}

/// A snapshot of what is about to be overwritten or deleted, and nothing else.
#[derive(Debug, Clone)]
pub struct SafetySnapshot<'a> {
    /// Where to.
    pub repository: &'a Repository,
    /// Its cache.
    pub cache: Option<&'a Cache>,
    /// This host.
    pub host: String,
    /// Now.
    pub time: Time,
}

/// Where it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In a snapshot, under the absolute path of the target.
    Snapshot {
        /// Its id.
        id: ObjectId,
        /// The path in it that is to be restored into the target, to undo.
        path: Vec<u8>,
    },
    /// In this directory, which has the entries of the target.
    Dir(PathBuf),
}

/// Whether a snapshot holds what a restore was about to overwrite or delete.
pub fn is_safety_snapshot(snapshot: &Snapshot) -> bool {
    let envelope = &snapshot.envelope;
    envelope.dataset == BEFORE_RESTORE && envelope.tags.iter().any(|tag| tag == BEFORE_RESTORE)
}

impl Keeper<'_> {
    /// Saves what `selection` takes of the directory `top`, all of it or the restore must not be.
    pub(super) fn keep(
        &self,
        browser: &Browser,
        top: &Path,
        selection: &Arc<Selection>,
        options: &RestoreOptions,
        context: Context<'_>,
    ) -> Result<Option<Kept>> {
        let kept = match self {
            Self::Nowhere => return Ok(None),
            Self::Unable(why) => Err(EngineError::Refused(why.clone())),
            Self::Dir(dir) => keep_dir::keep(dir, top, selection, context).map(|()| Kept::Dir(dir.clone())),
            Self::Snapshot(safety) => safety.keep(browser, top, selection, options, context),
        };
        match kept {
            Ok(kept) => Ok(Some(kept)),
            Err(EngineError::Interrupted) => Err(EngineError::Interrupted),
            Err(source) => Err(EngineError::NotSaved { source: Box::new(source) }),
        }
    }
}

impl SafetySnapshot<'_> {
    fn keep(
        &self,
        browser: &Browser,
        top: &Path,
        selection: &Arc<Selection>,
        options: &RestoreOptions,
        context: Context<'_>,
    ) -> Result<Kept> {
        let filter = FilterOptions {
            protected: options.protected.clone(),
            only: Some(Arc::clone(selection)),
            ..FilterOptions::default()
        };
        let source = BackupSource::Paths {
            paths: vec![top.to_owned()],
            working_dir: PathBuf::from("/"),
            filter,
            as_path: None,
        };
        let restored = browser.snapshot().id.to_hex();
        let report = backup(
            self.repository,
            self.cache,
            BackupOptions {
                source,
                dataset: BEFORE_RESTORE.to_owned(),
                host: self.host.clone(),
                tags: vec![BEFORE_RESTORE.to_owned()],
                label: format!("before restoring {}", &restored[..12]),
                time: self.time,
                level: LEVEL,
                readers: None,
                skip_if_unchanged: false,
                dry_run: false,
            },
            context,
        )?;
        let unread = report.summary.unreadable + report.missing_sources.len() as u64;
        match report.snapshot.filter(|_| unread == 0) {
            Some(id) => Ok(Kept::Snapshot { id, path: top.as_os_str().as_bytes().to_vec() }),
            None => Err(EngineError::Refused(format!("{unread} entries that would be lost cannot be read"))),
        }
    }
}
