//! Directories on the way down: made, found, or put in place of what is none.

use std::io;

use snap_format::Node;
use snap_source::{Stat, TargetDir};

use super::Overwrite;
use super::dirs::Ending;
use super::plan::{Planner, changed_meanwhile};

impl Planner<'_, '_> {
    /// Makes a directory, and those above it. False if that failed, which is said and counted.
    pub(super) fn make(&mut self, dir: u32) -> bool {
        let mut way = Vec::new();
        let mut at = dir;
        while !self.plan.dirs.infos[at as usize].made {
            way.push(at);
            at = self.plan.dirs.infos[at as usize].above.expect("the target is made");
        }
        while let Some(at) = way.pop() {
            if let Err(error) = self.make_one(at) {
                let path = self.plan.dirs.path(at, b"");
                self.restore.failed(&path, &error);
                return false;
            }
        }
        true
    }

    fn make_one(&mut self, dir: u32) -> io::Result<()> {
        let above = self.plan.dirs.infos[dir as usize].above.expect("the target is made");
        let name = self.plan.dirs.infos[dir as usize].name.clone();
        if self.restore.is_rehearsal() {
            return self.rehearse_directory(dir, above, &name);
        }
        let parent = self.plan.dirs.open(above)?;
        let made = parent.make_child(&name);
        let (handle, created) = match made {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && self.may_replace() => {
                let stat = parent.stat_child(&name)?;
                if let Some(stat) = stat.filter(|stat| !self.is_approved(above, &name, stat)) {
                    return Err(changed_meanwhile(&stat));
                }
                parent.remove(&name)?;
                parent.make_child(&name)?
            }
            other => other?,
        };
        // A directory of ours that we may not write to must be opened up until its attributes are set.
        let granted = if created { None } else { parent.grant_owner(&name)? };
        self.plan.dirs.keep(dir, &handle);
        if !created {
            let node = self.plan.dirs.infos[dir as usize].node.clone().expect("a directory below has a node");
            let ending = self.ending(dir, &handle, &node, granted);
            self.plan.dirs.infos[dir as usize].ending = ending;
        }
        let info = &mut self.plan.dirs.infos[dir as usize];
        (info.made, info.existed) = (true, !created);
        self.restore.count_dir(!created);
        Ok(())
    }

    fn rehearse_directory(&mut self, dir: u32, above: u32, name: &[u8]) -> io::Result<()> {
        let existing = match self.plan.dirs.infos[above as usize].existed {
            true => self.plan.dirs.open(above)?.stat_child(name)?,
            false => None,
        };
        let is_dir = existing.is_some_and(|stat| stat.is_dir());
        if let Some(stat) = existing.filter(|_| !is_dir) {
            if !self.may_replace() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            let is_newer = self.plan.changes.is_newer(&stat);
            self.plan.changes.overwrite(&self.plan.dirs.path(above, name), &stat, is_newer);
        }
        if is_dir {
            let node = self.plan.dirs.infos[dir as usize].node.clone().expect("a directory below has a node");
            let handle = self.plan.dirs.open(above)?.open_child(name)?;
            self.plan.dirs.keep(dir, &handle);
            self.ending(dir, &handle, &node, None);
        }
        let info = &mut self.plan.dirs.infos[dir as usize];
        (info.made, info.existed) = (true, is_dir);
        self.restore.count_dir(info.existed);
        Ok(())
    }

    /// What becomes of the attributes of a directory that was there: where files that are there stay, so do they, unless the
    /// directory was made by a restore that did not come to an end.
    pub(super) fn ending(
        &mut self,
        dir: u32,
        handle: &TargetDir,
        node: &Node,
        granted: Option<u32>,
    ) -> Ending {
        let Ok(stat) = handle.stat() else { return Ending::Apply };
        let mode = granted.unwrap_or(stat.mode);
        let is_ours = self.resumes && mode == 0o700;
        let applies = match self.restore.options.overwrite {
            Overwrite::Never => is_ours,
            Overwrite::IfNewer => is_ours || node.mtime > stat.mtime,
            Overwrite::IfChanged | Overwrite::Always => true,
        };
        if applies && self.restore.is_rehearsal() && !is_ours {
            let (path, xattrs) = (self.plan.dirs.path(dir, b""), || handle.as_source().xattrs());
            if self.restore.would_adjust(&Stat { mode, ..stat }, node, xattrs) {
                self.plan.changes.adjust(&path, &stat);
            } else if stat.mtime != node.mtime {
                self.plan.changes.touch(&path, &stat);
            }
        }
        if applies { Ending::Apply } else { Ending::Leave(granted) }
    }

    const fn may_replace(&self) -> bool {
        matches!(self.restore.options.overwrite, Overwrite::IfChanged | Overwrite::Always)
    }
}
