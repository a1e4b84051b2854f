//! What comes last: further names of files, then the attributes of directories.

use std::borrow::Cow;
use std::io;

use snap_format::{Node, NodeKind, Time};
use snap_source::{ApplyOptions, Stat, TargetDir};

use super::Restore;
use super::dirs::Ending;
use super::plan::{self, LinkTask, Plan};
use crate::Result;

/// Further names of files, once the first is there.
pub(super) fn make_links(restore: &Restore<'_>, plan: &Plan) -> Result<()> {
    for task in &plan.links {
        restore.context.check_stop()?;
        let path = plan.dirs.path(task.dir, &task.node.name);
        if plan.lost.contains(&task.first) {
            let error = io::Error::other("another name of a file that could not be restored");
            restore.failed(&path, &error);
            continue;
        }
        match make_link(restore, plan, task, &path) {
            Ok(Some(replaced)) => restore.count_restored(0, replaced),
            Ok(None) => restore.count_skipped(),
            Err(error) => restore.failed(&path, &error),
        }
    }
    Ok(())
}

/// Tells whether it replaced something; `None` if there was nothing to do.
fn make_link(restore: &Restore<'_>, plan: &Plan, task: &LinkTask, path: &[u8]) -> io::Result<Option<bool>> {
    let (first_dir, first_name) = &task.first;
    let (first, dir) = (plan.dirs.open(*first_dir)?, plan.dirs.open(task.dir)?);
    let name = &task.node.name;
    let existing = dir.stat_child(name)?;
    if let Some(stat) = existing {
        if stays(restore, task, &stat, first.stat_child(first_name)?) {
            return Ok(None);
        }
        if restore.approved.is_some_and(|changes| !changes.has(path, &stat)) {
            return Err(plan::changed_meanwhile(&stat));
        }
        plan::remove_non_directory(&dir, name)?;
    }
    first.link(first_name, &dir, name)?;
    Ok(Some(existing.is_some()))
}

/// Whether what is there is another name of the first already, or stays for what it is.
fn stays(restore: &Restore<'_>, task: &LinkTask, stat: &Stat, first: Option<Stat>) -> bool {
    first.is_some_and(|first| first.is_same_file(stat)) || restore.options.overwrite.leaves(&task.node, stat)
}

/// Counts what [`make_links`] would do, and takes down what would be replaced.
pub(super) fn rehearse_links(restore: &Restore<'_>, plan: &mut Plan) {
    let links = std::mem::take(&mut plan.links);
    let stat = |plan: &Plan, dir: u32, name: &[u8]| {
        let existed = plan.dirs.infos[dir as usize].existed;
        existed.then(|| plan.dirs.open(dir).ok()?.stat_child(name).ok()?).flatten()
    };
    for task in &links {
        let path = plan.dirs.path(task.dir, &task.node.name);
        let first = stat(plan, task.first.0, &task.first.1).filter(|_| !plan.replaced.contains(&task.first));
        match stat(plan, task.dir, &task.node.name) {
            Some(stat) if stays(restore, task, &stat, first) => restore.count_skipped(),
            Some(stat) if stat.is_dir() => restore.failed(&path, &plan::directory_in_the_way()),
            existing => {
                if let Some(stat) = existing {
                    let is_newer = plan.changes.is_newer(&stat);
                    plan.changes.overwrite(&path, &stat, is_newer);
                }
                restore.would_restore(&path, existing.is_some());
                restore.count_restored(0, existing.is_some());
            }
        }
    }
}

/// Attributes of directories come last and from the bottom up, since what happens inside changes them.
pub(super) fn finish_directories(restore: &Restore<'_>, plan: &Plan) {
    for (number, info) in plan.dirs.infos.iter().enumerate().rev() {
        let Some(node) = info.node.as_ref().filter(|_| info.made) else { continue };
        if matches!(info.ending, Ending::Leave(None)) {
            continue;
        }
        let path = || plan.dirs.path(number as u32, b"");
        let notes = plan.dirs.open(number as u32).and_then(|handle| match info.ending {
            Ending::Leave(Some(mode)) => close_again(&handle, mode),
            _ => Ok(handle.apply_self(&with_a_time(node, &handle), &restore.apply_options)),
        });
        match notes {
            Ok(notes) => restore.notes(&path, notes),
            Err(error) => restore.failed(&path(), &error),
        }
    }
    if let Ok(target) = plan.dirs.open(0) {
        target.set_finished();
    }
}

/// Gives a directory that had to be opened up the mode that it had.
fn close_again(handle: &TargetDir, mode: u32) -> io::Result<Vec<snap_source::ApplyNote>> {
    let stat = handle.stat()?;
    let mut node = Node::new(Vec::new(), NodeKind::Dir { tree: snap_format::BlobId([0; 32]) }, stat.mtime);
    node.mode = mode;
    let mode_alone = ApplyOptions { owner: false, xattrs: false, ..ApplyOptions::default() };
    Ok(handle.apply_self(&node, &mode_alone))
}

/// Directories that lead to a source are stored without times; they keep the one that they have.
fn with_a_time<'a>(node: &'a Node, handle: &TargetDir) -> Cow<'a, Node> {
    let has_none = node.ctime.is_none() && node.inode.is_none() && node.mtime == Time::default();
    match handle.stat().ok().filter(|_| has_none) {
        Some(stat) => Cow::Owned(Node { mtime: stat.mtime, ..node.clone() }),
        None => Cow::Borrowed(node),
    }
}
