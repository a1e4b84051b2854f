//! Planning: what of the snapshot goes where, compared with what is there. Directories and links are made on the way, files are
//! left for [`super::data`], some at a time, so that memory does not grow with their number. A rehearsal goes the same way and
//! touches nothing.

use std::collections::{HashMap, HashSet};
use std::io;

use snap_format::{BlobId, Link, Node, NodeKind};
use snap_repo::Scratch;
use snap_source::{FileType, PathMatcher, Stat, TargetDir, Verdict};

use super::dirs::Dirs;
use super::{Overwrite, Restore};
use crate::browse::{Found, join};
use crate::{EngineError, Event, Result};

/// A file whose content has to be written.
pub(super) struct FileTask {
    pub(super) dir: u32,
    pub(super) node: Node,
    /// Its blobs, in order.
    pub(super) blobs: Vec<BlobId>,
    /// A regular file stands there: what of it is right stays.
    pub(super) existing: Option<Stat>,
}

/// A further name of a file.
pub(super) struct LinkTask {
    pub(super) dir: u32,
    pub(super) node: Node,
    /// Where the first name is.
    pub(super) first: (u32, Vec<u8>),
}

/// What was planned and is not done yet.
pub(super) struct Plan {
    pub(super) dirs: Dirs,
    pub(super) files: Vec<FileTask>,
    pub(super) links: Vec<LinkTask>,
    /// First names of linked files that did not come out whole.
    pub(super) lost: HashSet<(u32, Vec<u8>)>,
    /// First names of linked files that a rehearsal would make anew.
    pub(super) replaced: HashSet<(u32, Vec<u8>)>,
    /// What the files take in memory, roughly.
    weight: u64,
}

/// Memory that a planned file takes with all that writing it needs, and each of its chunks, bytes; measured.
const FILE_WEIGHT: u64 = 900;
const CHUNK_WEIGHT: u64 = 400;

/// Does what is planned of files so far, and forgets it.
pub(super) type DoFiles<'f> = dyn FnMut(&mut Plan) -> Result<()> + 'f;

impl Plan {
    /// Ends with some files, of which those at the positions `lost` did not come out whole.
    pub(super) fn files_done(&mut self, is_rehearsal: bool, lost: &HashSet<usize>) {
        self.weight = 0;
        for (number, task) in std::mem::take(&mut self.files).into_iter().enumerate() {
            if task.node.link.is_none() {
                continue;
            }
            let is_new = !task.existing.is_some_and(|stat| super::data::is_written_in_place(&stat));
            if lost.contains(&number) {
                self.lost.insert((task.dir, task.node.name));
            } else if is_rehearsal && is_new {
                self.replaced.insert((task.dir, task.node.name));
            }
        }
    }
}

/// What to do with an entry, given what is there.
enum Decision {
    Create,
    /// It is there and right, but for its attributes.
    Adjust,
    Overwrite,
    Skip,
}

struct Planner<'a, 'b> {
    restore: &'a Restore<'b>,
    matcher: PathMatcher,
    plan: Plan,
    first_names: HashMap<Link, (u32, Vec<u8>)>,
    do_files: &'a mut DoFiles<'a>,
}

/// Plans the restore of `path` (`None`: everything) into `target`, and has `do_files` called for all files in it.
pub(super) fn plan<'a>(
    restore: &'a Restore<'_>,
    path: Option<&[u8]>,
    target: Option<(TargetDir, bool)>,
    scratch: &mut Scratch,
    do_files: &'a mut DoFiles<'a>,
) -> Result<Plan> {
    let options = restore.options;
    let roots: Vec<_> = restore.browser.paths().iter().map(|path| super::to_path(path)).collect();
    let matcher = PathMatcher::below(&roots, &options.include, &options.exclude)
        .map_err(|error| EngineError::Pattern(error.to_string()))?;
    let found = restore.browser.find(path.unwrap_or_default(), scratch)?;
    let path = normal(path.unwrap_or_default());
    let existed = target.as_ref().is_some_and(|(_, created)| !created);
    let handle = target.map(|(handle, _)| handle);
    let planner = |node| {
        let plan = Plan {
            dirs: Dirs::new(handle, node, existed),
            files: Vec::new(),
            links: Vec::new(),
            lost: HashSet::new(),
            replaced: HashSet::new(),
            weight: 0,
        };
        Planner { restore, matcher, plan, first_names: HashMap::new(), do_files }
    };
    let mut planner = match found {
        Found::Root => {
            let mut planner = planner(None);
            planner.directory(path, restore.browser.root(), scratch)?;
            planner
        }
        Found::Node(node) => match node.tree() {
            Some(tree) => {
                let mut planner = planner(Some(*node));
                planner.directory(path, tree, scratch)?;
                planner
            }
            None => {
                let mut planner = planner(None);
                planner.entry(0, &path, *node, scratch)?;
                planner
            }
        },
    };
    (planner.do_files)(&mut planner.plan)?;
    Ok(planner.plan)
}

/// The path as the walk spells it: absolute, without doubled or trailing slashes.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.fold(Vec::new(), |path, name| join(&path, name))
}

impl Planner<'_, '_> {
    /// Plans everything below the directory at position 0, depth first.
    fn directory(&mut self, path: Vec<u8>, tree: BlobId, scratch: &mut Scratch) -> Result<()> {
        let mut waiting = vec![(0u32, path, tree)];
        while let Some((dir, path, tree)) = waiting.pop() {
            self.restore.context.check_stop()?;
            let mut below = Vec::new();
            let mut names = Vec::new();
            let browser = self.restore.browser;
            let outcome = browser.entries(tree, scratch, &mut |node, scratch| {
                let full = join(&path, &node.name);
                if self.restore.options.delete {
                    names.push(node.name.clone());
                }
                if let Some(tree) = node.tree() {
                    match self.matcher.matches(&full, true) {
                        Verdict::Skip => {}
                        verdict => {
                            let child = self.plan.dirs.add(dir, node);
                            if verdict == Verdict::Take && !self.make(child) {
                                return Ok(()); // said and counted
                            }
                            below.push((child, full, tree));
                        }
                    }
                    return Ok(());
                }
                if self.matcher.matches(&full, false) == Verdict::Take {
                    self.entry(dir, &full, node, scratch)?;
                }
                Ok(())
            });
            if let Err(error) = outcome {
                self.restore.lost(&path, error)?;
                continue; // what cannot be listed must not be taken for empty: nothing is deleted here
            }
            if self.restore.options.delete {
                self.delete_others(dir, &path, &names)?;
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Makes a directory, and those above it. False if that failed, which is said and counted.
    fn make(&mut self, dir: u32) -> bool {
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
        if self.restore.options.dry_run {
            let above_existed = self.plan.dirs.infos[above as usize].existed;
            let existing = if above_existed { self.plan.dirs.open(above)?.stat_child(&name)? } else { None };
            let is_dir = existing.is_some_and(|stat| stat.is_dir());
            if existing.is_some() && !is_dir && !self.may_replace() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            let info = &mut self.plan.dirs.infos[dir as usize];
            (info.made, info.existed) = (true, is_dir);
            self.restore.count_dir(info.existed);
            return Ok(());
        }
        let parent = self.plan.dirs.open(above)?;
        let made = parent.make_child(&name);
        let (handle, created) = match made {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && self.may_replace() => {
                parent.remove(&name)?;
                parent.make_child(&name)?
            }
            other => other?,
        };
        if !created {
            // A directory of ours that we may not write to must be opened up until its attributes are set.
            parent.grant_owner(&name)?;
        }
        self.plan.dirs.keep(dir, &handle);
        let info = &mut self.plan.dirs.infos[dir as usize];
        (info.made, info.existed) = (true, !created);
        self.restore.count_dir(!created);
        Ok(())
    }

    const fn may_replace(&self) -> bool {
        matches!(self.restore.options.overwrite, Overwrite::IfChanged | Overwrite::Always)
    }

    /// Plans anything but a directory.
    fn entry(&mut self, dir: u32, full: &[u8], node: Node, scratch: &mut Scratch) -> Result<()> {
        if node.unreadable {
            self.restore.context.note(full, "was unreadable when it was backed up; nothing to restore");
            return Ok(());
        }
        if !self.make(dir) {
            return Ok(());
        }
        let existing = match self.existing(dir, &node.name) {
            Ok(existing) => existing,
            Err(error) => {
                self.restore.failed(full, &error);
                return Ok(());
            }
        };
        if let Some(link) = node.link.filter(|_| matches!(node.kind, NodeKind::File { .. })) {
            if let Some(first) = self.first_names.get(&link) {
                self.plan.links.push(LinkTask { dir, node, first: first.clone() });
                return Ok(());
            }
            self.first_names.insert(link, (dir, node.name.clone()));
        }
        let decision = self.decide(dir, &node, existing.as_ref());
        match (&node.kind, decision) {
            (_, Decision::Skip) => self.restore.count_skipped(),
            (NodeKind::File { .. } | NodeKind::Object { .. }, decision) => {
                let adjust = matches!(decision, Decision::Adjust);
                let blobs =
                    if adjust { Ok(Vec::new()) } else { self.restore.browser.file_blobs(&node, scratch) };
                match blobs {
                    Err(error) => self.restore.lost(full, error)?,
                    Ok(_) if adjust => {
                        self.restore.count_skipped();
                        self.adjust(dir, &node);
                    }
                    Ok(blobs) => {
                        self.plan.weight += FILE_WEIGHT + CHUNK_WEIGHT * blobs.len() as u64;
                        self.plan.files.push(FileTask { dir, node, blobs, existing });
                        if self.plan.weight > self.restore.context.memory_bytes / 8 {
                            (self.do_files)(&mut self.plan)?;
                        }
                    }
                }
            }
            (_, Decision::Adjust) => {
                self.restore.count_skipped();
                self.adjust(dir, &node);
            }
            (_, _) => self.special(dir, full, &node, existing.as_ref()),
        }
        Ok(())
    }

    fn existing(&self, dir: u32, name: &[u8]) -> io::Result<Option<Stat>> {
        if !self.plan.dirs.infos[dir as usize].existed {
            return Ok(None);
        }
        self.plan.dirs.open(dir)?.stat_child(name)
    }

    fn decide(&self, dir: u32, node: &Node, existing: Option<&Stat>) -> Decision {
        let Some(stat) = existing else { return Decision::Create };
        let looks_same = match (&node.kind, stat.kind) {
            (NodeKind::File { .. } | NodeKind::Object { .. }, FileType::File) => {
                stat.size == node.size() && stat.mtime == node.mtime
            }
            (NodeKind::Symlink { target }, FileType::Symlink) => {
                let read = self.plan.dirs.open(dir).and_then(|dir| dir.as_source().read_link(&node.name));
                read.is_ok_and(|read| read == *target)
            }
            (NodeKind::Fifo, FileType::Fifo) => true,
            (NodeKind::CharDevice { major, minor }, FileType::CharDevice)
            | (NodeKind::BlockDevice { major, minor }, FileType::BlockDevice) => {
                stat.rdev == (*major, *minor)
            }
            _ => false,
        };
        match self.restore.options.overwrite {
            Overwrite::Never => Decision::Skip,
            Overwrite::IfNewer if node.mtime <= stat.mtime => Decision::Skip,
            Overwrite::IfChanged | Overwrite::IfNewer if looks_same => Decision::Adjust,
            _ => Decision::Overwrite,
        }
    }

    fn adjust(&self, dir: u32, node: &Node) {
        if !self.restore.options.dry_run {
            match self.plan.dirs.open(dir) {
                Ok(handle) => self.restore.apply(&handle, &self.plan.dirs, dir, node),
                Err(error) => self.restore.failed(&self.plan.dirs.path(dir, &node.name), &error),
            }
        }
    }

    /// Makes a link, pipe or device.
    fn special(&self, dir: u32, full: &[u8], node: &Node, existing: Option<&Stat>) {
        if self.restore.options.dry_run {
            match existing {
                Some(stat) if stat.is_dir() => self.restore.failed(full, &directory_in_the_way()),
                _ => self.restore.count_restored(0, existing.is_some()),
            }
            return;
        }
        let made = self.plan.dirs.open(dir).and_then(|handle| {
            if existing.is_some() {
                remove_non_directory(&handle, &node.name)?;
            }
            match &node.kind {
                NodeKind::Symlink { target } => handle.symlink(target, &node.name)?,
                _ => handle.mknod(&node.name, node)?,
            }
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
    fn delete_others(&self, dir: u32, path: &[u8], names: &[Vec<u8>]) -> Result<()> {
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
            let removed = if self.restore.options.dry_run { Ok(()) } else { handle.remove(name) };
            match removed {
                Ok(()) => self.restore.count_deleted(&full),
                Err(error) => self.restore.failed(&full, &error),
            }
        }
        Ok(())
    }
}

/// Makes room for something else; a directory that is in the way stays, since what is in it may be all there is.
pub(super) fn remove_non_directory(dir: &TargetDir, name: &[u8]) -> io::Result<()> {
    if dir.stat_child(name)?.is_some_and(|stat| stat.is_dir()) {
        return Err(directory_in_the_way());
    }
    dir.remove(name)
}

pub(super) fn directory_in_the_way() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "a directory stands in its place")
}

impl Restore<'_> {
    pub(super) fn failed(&self, path: &[u8], error: &io::Error) {
        super::bump(&self.counts.failed, 1);
        self.context.observer.event(Event::Unreadable { path, error });
    }

    /// Damage costs one entry, not the restore; anything else ends it.
    pub(super) fn lost(&self, path: &[u8], error: EngineError) -> Result<()> {
        let error = match error {
            EngineError::Repo(error) => error,
            other => return Err(other),
        };
        let mut finding = error.into_finding()?;
        finding.paths.push(path.to_vec());
        finding.snapshots.push(self.browser.snapshot().id);
        super::bump(&self.counts.damaged, 1);
        self.context.observer.event(Event::Finding(&finding));
        Ok(())
    }
}
