//! Restoring: a snapshot becomes files again.

mod bucket;
mod changes;
mod data;
mod decide;
mod dirs;
mod existing;
mod finish;
mod guard;
mod keep;
mod keep_dir;
mod make;
mod others;
mod plan;
mod tar;
mod verify;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_format::{Node, Xattr};
use snap_repo::Scratch;
use snap_source::{ApplyNote, ApplyOptions, OwnerMap, SourceDir, Stat, TargetDir};

pub use self::bucket::restore_to_bucket;
pub use self::changes::ChangeCounts;
use self::changes::Changes;
pub use self::guard::{Guard, restore_guarded};
pub use self::keep::{Keeper, Kept, SafetySnapshot, is_safety_snapshot};
use self::plan::Plan;
use crate::browse::Browser;
use crate::{Context, EngineError, Phase, Result};

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
    /// Owners by name where this host knows the name.
    pub owners_by_name: bool,
    /// Owners that are somebody else here.
    pub owners: Arc<OwnerMap>,
    /// Device and inode of what is never deleted: the repository, its cache.
    pub protected: Vec<(u64, u64)>,
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
    /// What became of what was there, as far as that was looked at first.
    pub changes: ChangeCounts,
    /// Where it was saved.
    pub kept: Option<Kept>,
}

/// Restores `path` of a snapshot (`None`: all of it, below the target under absolute paths).
///
/// Every blob is authenticated and hashed again before it is written. Damage costs the entries that it touches, each named
/// through the observer; everything else is restored. What is there is treated as the options say and saved nowhere:
/// [`restore_guarded`] does that first.
pub fn restore(
    browser: &Browser,
    path: Option<&[u8]>,
    target: RestoreTarget,
    options: &RestoreOptions,
    context: Context<'_>,
) -> Result<RestoreReport> {
    let mode = if options.dry_run { Mode::Rehearse } else { Mode::Do };
    let restore = Restore::new(browser, options, context, mode);
    match target {
        RestoreTarget::Tar(out) => tar::write(&restore, path, out)?,
        RestoreTarget::Dir(target) => drop(into_directory(&restore, path, &target)?),
    }
    Ok(restore.counts.report())
}

/// Restores, or only looks, into a directory; returns what became, or would become, of what is there.
fn into_directory(restore: &Restore<'_>, path: Option<&[u8]>, target: &Path) -> Result<Changes> {
    let bytes = target.as_os_str().as_bytes();
    let mut scratch =
        Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error))?;
    // The path is looked up first: a typing error must not leave an empty target behind.
    restore.browser.find(path.unwrap_or_default(), &mut scratch)?;
    // A rehearsal makes nothing, not even the target.
    let opened = match SourceDir::open_search(target) {
        Err(error) if restore.is_rehearsal() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => TargetDir::open_or_create(target, 0o700).map(Some),
    };
    let opened = opened.map_err(|error| EngineError::io("opening the target", bytes, error))?;
    restore.context.progress.begin(Phase::Planning, 0, 0);
    let buffers = data::Spare::default();
    let mut do_files = |plan: &mut Plan| {
        let lost = match restore.mode {
            Mode::Survey => HashSet::new(),
            Mode::Rehearse | Mode::Do => data::write_files(restore, plan, &buffers)?,
        };
        if restore.options.verify && !restore.is_rehearsal() {
            verify::verify(restore, plan, &lost)?;
        }
        plan.files_done(restore.is_rehearsal(), &lost);
        Ok(())
    };
    let mut plan = plan::plan(restore, path, opened, &mut scratch, &mut do_files)?;
    if restore.is_rehearsal() {
        finish::rehearse_links(restore, &mut plan);
    } else {
        finish::make_links(restore, &plan)?;
        finish::finish_directories(restore, &plan);
    }
    Ok(plan.changes)
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// How far it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Finds out what becomes of what is there.
    Survey,
    /// And what would be fetched and written.
    Rehearse,
    /// Does it.
    Do,
}

/// What the parts of a restore share.
struct Restore<'a> {
    browser: &'a Browser,
    options: &'a RestoreOptions,
    context: Context<'a>,
    mode: Mode,
    apply_options: ApplyOptions,
    counts: Counts,
    /// Device and inode of what is never deleted.
    protected: HashSet<(u64, u64)>,
    /// Absolute path of the target, where it was looked at before.
    top: Vec<u8>,
    /// What that found: nothing else that is there is overwritten or deleted.
    approved: Option<&'a Changes>,
}

#[derive(Default)]
struct Counts {
    restored: AtomicU64,
    skipped: AtomicU64,
    overwritten: AtomicU64,
    deleted: AtomicU64,
    restored_bytes: AtomicU64,
    fetched_bytes: AtomicU64,
    requests: AtomicU64,
    damaged: AtomicU64,
    failed: AtomicU64,
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counts {
    fn report(&self) -> RestoreReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RestoreReport {
            restored: read(&self.restored),
            skipped: read(&self.skipped),
            overwritten: read(&self.overwritten),
            deleted: read(&self.deleted),
            restored_bytes: read(&self.restored_bytes),
            fetched_bytes: read(&self.fetched_bytes),
            requests: read(&self.requests),
            damaged: read(&self.damaged),
            failed: read(&self.failed),
            ..RestoreReport::default()
        }
    }
}

impl<'a> Restore<'a> {
    fn new(browser: &'a Browser, options: &'a RestoreOptions, context: Context<'a>, mode: Mode) -> Self {
        let apply_options = ApplyOptions {
            owner: !options.no_owner,
            names: options.owners_by_name.then(Arc::default),
            map: Arc::clone(&options.owners),
            remove_xattrs: true,
            ..ApplyOptions::default()
        };
        let protected = options.protected.iter().copied().collect();
        let (top, approved) = (Vec::new(), None);
        let counts = Counts::default();
        Self { browser, options, context, mode, apply_options, counts, protected, top, approved }
    }
}

impl Restore<'_> {
    /// Whether nothing may be touched.
    fn is_rehearsal(&self) -> bool {
        self.mode != Mode::Do
    }

    /// What marks a target as long as the restore is not done.
    fn mark(&self) -> Vec<u8> {
        self.browser.snapshot().id.to_hex().into_bytes()
    }

    /// Whether an entry that is right would get another mode, owner or attribute.
    fn would_adjust(
        &self,
        stat: &Stat,
        node: &Node,
        xattrs: impl FnOnce() -> io::Result<Vec<Xattr>>,
    ) -> bool {
        let options = &self.apply_options;
        // The inode is as it was when it was backed up.
        let is_untouched = node.ctime == Some(stat.ctime) && node.inode == Some(stat.inode);
        if is_untouched && options.owner_of(node) == (node.uid, node.gid) {
            return false;
        }
        options.would_change(stat, node)
            || xattrs().is_ok_and(|found| options.would_change_xattrs(&found, node))
    }

    /// Says what a rehearsal would do with an entry.
    fn would_restore(&self, path: &[u8], replaces: bool) {
        self.context.done(path, if replaces { "overwrite" } else { "create" });
    }

    fn count_restored(&self, bytes: u64, replaced: bool) {
        bump(&self.counts.restored, 1);
        bump(&self.counts.restored_bytes, bytes);
        if replaced {
            bump(&self.counts.overwritten, 1);
        }
    }

    fn count_dir(&self, existed: bool) {
        if existed { self.count_skipped() } else { self.count_restored(0, false) }
    }

    fn count_skipped(&self) {
        bump(&self.counts.skipped, 1);
    }

    fn count_deleted(&self, path: &[u8]) {
        bump(&self.counts.deleted, 1);
        self.context.done(path, if self.is_rehearsal() { "delete" } else { "deleted" });
    }

    /// Sets the attributes of an entry that is not a regular file.
    fn apply(&self, handle: &TargetDir, dirs: &dirs::Dirs, dir: u32, node: &Node) {
        self.notes(&|| dirs.path(dir, &node.name), handle.apply_child(&node.name, node, &self.apply_options));
    }

    fn notes(&self, path: &dyn Fn() -> Vec<u8>, notes: Vec<ApplyNote>) {
        for note in notes {
            self.context.note(&path(), &format!("not restored: {note}"));
        }
    }
}
