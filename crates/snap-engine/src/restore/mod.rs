//! Restoring: a snapshot becomes files again.

mod data;
mod dirs;
mod plan;
mod tar;
mod verify;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use snap_format::{Node, Time};
use snap_repo::Scratch;
use snap_source::{ApplyNote, ApplyOptions, SourceDir, TargetDir};

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
///
/// Every blob is authenticated and hashed again before it is written. Damage costs the entries that it touches, each named
/// through the observer; everything else is restored.
pub fn restore(
    browser: &Browser,
    path: Option<&[u8]>,
    target: RestoreTarget,
    options: &RestoreOptions,
    context: Context<'_>,
) -> Result<RestoreReport> {
    let apply_options =
        ApplyOptions { owner: !options.no_owner, remove_xattrs: true, ..ApplyOptions::default() };
    let restore = Restore { browser, options, context, apply_options, counts: Counts::default() };
    match target {
        RestoreTarget::Tar(out) => tar::write(&restore, path, out)?,
        RestoreTarget::Dir(target) => into_directory(&restore, path, &target)?,
    }
    Ok(restore.counts.report())
}

fn into_directory(restore: &Restore<'_>, path: Option<&[u8]>, target: &Path) -> Result<()> {
    let bytes = target.as_os_str().as_bytes();
    let mut scratch =
        Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error))?;
    // The path is looked up first: a typing error must not leave an empty target behind.
    restore.browser.find(path.unwrap_or_default(), &mut scratch)?;
    // A rehearsal makes nothing, not even the target.
    let opened = match SourceDir::open_search(target) {
        Err(error) if restore.options.dry_run && error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => TargetDir::open_or_create(target, 0o700).map(Some),
    };
    let opened = opened.map_err(|error| EngineError::io("opening the target", bytes, error))?;
    restore.context.progress.begin(Phase::Planning, 0, 0);
    let dry_run = restore.options.dry_run;
    let buffers = data::Spare::default();
    let mut do_files = |plan: &mut Plan| {
        let lost = data::write_files(restore, plan, &buffers)?;
        if restore.options.verify && !dry_run {
            verify::verify(restore, plan, &lost)?;
        }
        plan.files_done(dry_run, &lost);
        Ok(())
    };
    let plan = plan::plan(restore, path, opened, &mut scratch, &mut do_files)?;
    if dry_run {
        rehearse_links(restore, &plan);
        return Ok(());
    }
    make_links(restore, &plan)?;
    finish_directories(restore, &plan);
    Ok(())
}

/// Further names of files, once the first is there.
fn make_links(restore: &Restore<'_>, plan: &Plan) -> Result<()> {
    for task in &plan.links {
        restore.context.check_stop()?;
        let path = plan.dirs.path(task.dir, &task.node.name);
        let (first_dir, first_name) = &task.first;
        if plan.lost.contains(&task.first) {
            let error = io::Error::other("another name of a file that could not be restored");
            restore.failed(&path, &error);
            continue;
        }
        let made =
            plan.dirs.open(*first_dir).and_then(|first| Ok((first, plan.dirs.open(task.dir)?))).and_then(
                |(first, dir)| {
                    let existing = dir.stat_child(&task.node.name)?;
                    let wanted = first.stat_child(first_name)?;
                    match (existing, wanted) {
                        (Some(existing), Some(wanted)) if existing.is_same_file(&wanted) => return Ok(None),
                        (Some(_), _) if restore.options.overwrite == Overwrite::Never => return Ok(None),
                        (Some(_), Some(_)) => plan::remove_non_directory(&dir, &task.node.name)?,
                        _ => {}
                    }
                    first.link(first_name, &dir, &task.node.name)?;
                    Ok(Some(existing.is_some()))
                },
            );
        match made {
            Ok(Some(replaced)) => restore.count_restored(0, replaced),
            Ok(None) => restore.count_skipped(),
            Err(error) => restore.failed(&path, &error),
        }
    }
    Ok(())
}

/// Counts what [`make_links`] would do.
fn rehearse_links(restore: &Restore<'_>, plan: &Plan) {
    let stat = |dir: u32, name: &[u8]| {
        let existed = plan.dirs.infos[dir as usize].existed;
        existed.then(|| plan.dirs.open(dir).ok()?.stat_child(name).ok()?).flatten()
    };
    for task in &plan.links {
        let existing = stat(task.dir, &task.node.name);
        let first = stat(task.first.0, &task.first.1).filter(|_| !plan.replaced.contains(&task.first));
        let is_linked = existing.zip(first).is_some_and(|(existing, first)| existing.is_same_file(&first));
        match existing {
            Some(_) if is_linked || restore.options.overwrite == Overwrite::Never => restore.count_skipped(),
            Some(stat) if stat.is_dir() => {
                restore.failed(&plan.dirs.path(task.dir, &task.node.name), &plan::directory_in_the_way());
            }
            _ => restore.count_restored(0, existing.is_some()),
        }
    }
}

/// Attributes of directories come last and from the bottom up, since what happens inside changes them.
fn finish_directories(restore: &Restore<'_>, plan: &Plan) {
    for (number, info) in plan.dirs.infos.iter().enumerate().rev() {
        let Some(node) = info.node.as_ref().filter(|_| info.made) else { continue };
        let path = || plan.dirs.path(number as u32, b"");
        match plan.dirs.open(number as u32) {
            Ok(handle) => {
                let node = with_a_time(node, &handle);
                restore.notes(&path, handle.apply_self(&node, &restore.apply_options));
            }
            Err(error) => restore.failed(&path(), &error),
        }
    }
}

/// Directories that lead to a source are stored without times; they keep the one that they have.
fn with_a_time<'a>(node: &'a Node, handle: &TargetDir) -> Cow<'a, Node> {
    let has_none = node.ctime.is_none() && node.inode.is_none() && node.mtime == Time::default();
    match handle.stat().ok().filter(|_| has_none) {
        Some(stat) => Cow::Owned(Node { mtime: stat.mtime, ..node.clone() }),
        None => Cow::Borrowed(node),
    }
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// What the parts of a restore share.
struct Restore<'a> {
    browser: &'a Browser,
    options: &'a RestoreOptions,
    context: Context<'a>,
    apply_options: ApplyOptions,
    counts: Counts,
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
        }
    }
}

impl Restore<'_> {
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
        self.context.done(path, "deleted");
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
