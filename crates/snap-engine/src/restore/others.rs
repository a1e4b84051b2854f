//! Everything but files and directories; and what the snapshot does not have.

use std::collections::HashSet;
use std::io;

use snap_format::{Node, NodeKind};
use snap_source::{Stat, TargetDir, Verdict};

use super::plan::{Planner, directory_in_the_way};
use crate::Result;
use crate::browse::join;

impl Planner<'_, '_> {
    /// Makes a link, pipe or device.
    pub(super) fn special(&mut self, dir: u32, full: &[u8], node: &Node, existing: Option<&Stat>) {
        if let Some(stat) = existing {
            if stat.is_dir() {
                return self.restore.failed(full, &directory_in_the_way());
            }
            let is_newer = self.plan.changes.is_newer(stat);
            if !self.overwrites(dir, full, &node.name, stat, is_newer) {
                return;
            }
        }
        if self.restore.is_rehearsal() {
            self.restore.would_restore(full, existing.is_some());
            return self.restore.count_restored(0, existing.is_some());
        }
        let made = self.plan.dirs.open(dir).and_then(|handle| {
            place(&handle, node, existing.is_some())?;
            Ok(handle)
        });
        match made {
            Ok(handle) => {
                self.restore.count_restored(0, existing.is_some());
                self.restore.apply(&handle, &self.plan.dirs, dir, node);
                self.restore.context.done(full, "restored");
            }
            // Devices need a privilege that an ordinary user lacks: a note, as with owners.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && matches!(node.kind, NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. }) =>
            {
                self.restore.context.note(full, "left out: only root can make device nodes");
            }
            Err(error) => self.restore.failed(full, &error),
        }
    }

    /// Removes what the snapshot does not have.
    pub(super) fn delete_others(&mut self, dir: u32, path: &[u8], names: &[Vec<u8>]) -> Result<()> {
        if !self.plan.dirs.infos[dir as usize].existed {
            return Ok(());
        }
        let listed = self.plan.dirs.open(dir).and_then(|handle| Ok((handle.entries()?, handle)));
        let (entries, handle) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.restore.failed(path, &error);
                return Ok(());
            }
        };
        for entry in entries {
            let name = snap_source::entry_name(&entry);
            let is_dir = entry.as_ref().is_ok_and(|entry| entry.stat.is_dir());
            let full = join(path, name);
            let is_kept = names.binary_search_by(|kept| kept.as_slice().cmp(name)).is_ok();
            if is_kept || self.matcher.matches(&full, is_dir) != Verdict::Take {
                continue;
            }
            self.restore.context.check_stop()?;
            match self.delete(dir, &handle, name) {
                Ok(()) => self.restore.count_deleted(&full),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    self.restore.context.note(&full, &format!("not deleted: {error}"));
                }
                Err(error) => self.restore.failed(&full, &error),
            }
        }
        Ok(())
    }

    /// Removes one entry and all below, as it was found: nothing that snap itself needs, no other file system.
    fn delete(&mut self, dir: u32, handle: &TargetDir, name: &[u8]) -> io::Result<()> {
        let protected: &HashSet<_> = &self.restore.protected;
        let doomed = handle.survey_removal(name, self.plan.changes.since(), protected)?;
        let path = self.plan.dirs.path(dir, name);
        if self.restore.is_rehearsal() {
            self.plan.changes.delete(&path, &doomed);
            return Ok(());
        }
        if self.restore.approved.is_some_and(|changes| !changes.has_doomed(&path, &doomed)) {
            return Err(io::Error::other("it, or something in it, changed while the restore was prepared"));
        }
        handle.remove(name)
    }
}

/// Makes the entry; in place of what is there only when it is made.
fn place(dir: &TargetDir, node: &Node, replaces: bool) -> io::Result<()> {
    let make = |name: &[u8]| match &node.kind {
        NodeKind::Symlink { target } => dir.symlink(target, name),
        _ => dir.mknod(name, node),
    };
    if !replaces {
        return make(&node.name);
    }
    for number in 0_u32.. {
        let aside = format!(".snap-{number}").into_bytes();
        match make(&aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return dir.rename(&aside, dir, &node.name).inspect_err(|_| drop(dir.remove(&aside))),
        }
    }
    unreachable!("no directory has so many entries")
}
