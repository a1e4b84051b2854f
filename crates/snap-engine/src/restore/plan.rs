//! Planning: what of the snapshot goes where, compared with what is there. Directories and links are made on the way, files are
//! left for [`super::data`], some at a time, so that memory does not grow with their number. A rehearsal goes the same way,
//! touches nothing, and takes down what would become of what is there; a restore that followed one does no more than that.

use std::collections::{HashMap, HashSet};
use std::io;

use snap_format::{BlobId, Link, Node, NodeKind};
use snap_repo::Scratch;
use snap_source::{PathMatcher, Stat, TargetDir, Verdict};

use super::Restore;
use super::changes::Changes;
use super::decide::{Decision, decide};
use super::dirs::Dirs;
use super::existing::loses_nothing;
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
    /// What becomes of what is there; a rehearsal takes it down.
    pub(super) changes: Changes,
    /// The target bears a mark until the restore is done; else each file does.
    pub(super) is_marked: bool,
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

pub(super) struct Planner<'a, 'b> {
    pub(super) restore: &'a Restore<'b>,
    pub(super) matcher: PathMatcher,
    pub(super) plan: Plan,
    first_names: HashMap<Link, (u32, Vec<u8>)>,
    do_files: &'a mut DoFiles<'a>,
    /// A restore into this target was broken off.
    pub(super) resumes: bool,
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
    let resumes = handle.as_ref().is_some_and(|handle| existed && handle.is_unfinished(&restore.mark()));
    let planner = |node| {
        let plan = Plan {
            dirs: Dirs::new(handle, node, existed),
            files: Vec::new(),
            links: Vec::new(),
            lost: HashSet::new(),
            replaced: HashSet::new(),
            changes: Changes::new(restore.top.clone(), restore.browser.snapshot().envelope.time),
            is_marked: false,
            weight: 0,
        };
        Planner { restore, matcher, plan, first_names: HashMap::new(), do_files, resumes }
    };
    let mut planner = match found {
        Found::Root => {
            let mut planner = planner(None);
            planner.begin();
            planner.directory(path, restore.browser.root(), scratch)?;
            planner
        }
        Found::Node(node) => match node.tree() {
            Some(tree) => {
                let mut planner = planner(Some(*node));
                planner.begin();
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
    /// Decides about the target itself, which is there by now.
    fn begin(&mut self) {
        let Ok(handle) = self.plan.dirs.open(0) else { return };
        if self.plan.dirs.infos[0].existed
            && let Some(node) = self.plan.dirs.infos[0].node.clone()
        {
            let ending = self.ending(0, &handle, &node, None);
            self.plan.dirs.infos[0].ending = ending;
        }
        if !self.restore.is_rehearsal() {
            handle.set_unfinished(&self.restore.mark());
            self.plan.is_marked = true;
        }
    }

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

    /// Whether an entry that is there may be overwritten: in a rehearsal always, after one only what it found.
    pub(super) fn is_approved(&self, dir: u32, name: &[u8], stat: &Stat) -> bool {
        let approved = self.restore.approved;
        approved.is_none_or(|changes| changes.has(&self.plan.dirs.path(dir, name), stat))
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
        let link = node.link.filter(|_| matches!(node.kind, NodeKind::File { .. }));
        if let Some(first) = link.and_then(|link| self.first_names.get(&link)) {
            self.plan.links.push(LinkTask { dir, node, first: first.clone() });
            return Ok(());
        }
        let decision = decide(self.restore, &self.plan.dirs, dir, &node, existing.as_ref());
        // What stays as it is, and is another's, is no first name: the next one gets the content.
        if let Some(link) = link.filter(|_| !matches!(decision, Decision::Skip { is_same: false })) {
            self.first_names.insert(link, (dir, node.name.clone()));
        }
        match (&node.kind, decision) {
            (_, Decision::Skip { .. }) => self.restore.count_skipped(),
            (_, Decision::Adjust) => {
                self.restore.count_skipped();
                self.adjust(dir, &node, existing.as_ref());
            }
            (NodeKind::File { .. } | NodeKind::Object { .. }, _) => {
                self.file(dir, full, node, existing, scratch)?;
            }
            (_, _) => self.special(dir, full, &node, existing.as_ref()),
        }
        Ok(())
    }

    /// Plans a file that gets content.
    fn file(
        &mut self,
        dir: u32,
        full: &[u8],
        node: Node,
        existing: Option<Stat>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let blobs = match self.restore.browser.file_blobs(&node, scratch) {
            Ok(blobs) => blobs,
            Err(error) => return self.restore.lost(full, error),
        };
        let task = FileTask { dir, node, blobs, existing };
        if let Some(stat) = existing.filter(|stat| !stat.is_dir()) {
            let loses = || !loses_nothing(self.restore, &self.plan.dirs, &task, self.resumes);
            let is_newer = self.restore.is_rehearsal() && self.plan.changes.is_newer(&stat) && loses();
            if !self.overwrites(dir, full, &task.node.name, &stat, is_newer) {
                return Ok(());
            }
        }
        self.plan.weight += FILE_WEIGHT + CHUNK_WEIGHT * task.blobs.len() as u64;
        self.plan.files.push(task);
        if self.plan.weight > self.restore.context.memory_bytes / 8 {
            (self.do_files)(&mut self.plan)?;
        }
        Ok(())
    }

    /// Takes down that an entry is overwritten or, where that was done before, asks whether it was. If not, that is said.
    pub(super) fn overwrites(
        &mut self,
        dir: u32,
        full: &[u8],
        name: &[u8],
        stat: &Stat,
        is_newer: bool,
    ) -> bool {
        if self.restore.is_rehearsal() {
            self.plan.changes.overwrite(&self.plan.dirs.path(dir, name), stat, is_newer);
            return true;
        }
        let is_approved = self.is_approved(dir, name, stat);
        if !is_approved {
            self.restore.failed(full, &changed_meanwhile(stat));
        }
        is_approved
    }

    fn existing(&self, dir: u32, name: &[u8]) -> io::Result<Option<Stat>> {
        if !self.plan.dirs.infos[dir as usize].existed {
            return Ok(None);
        }
        self.plan.dirs.open(dir)?.stat_child(name)
    }

    /// Gives an entry that is right its attributes.
    fn adjust(&mut self, dir: u32, node: &Node, existing: Option<&Stat>) {
        let handle = match self.plan.dirs.open(dir) {
            Ok(handle) => handle,
            Err(error) => return self.restore.failed(&self.plan.dirs.path(dir, &node.name), &error),
        };
        if !self.restore.is_rehearsal() {
            return self.restore.apply(&handle, &self.plan.dirs, dir, node);
        }
        let xattrs = || handle.as_source().xattrs_child(&node.name);
        if let Some(stat) = existing.filter(|stat| self.restore.would_adjust(stat, node, xattrs)) {
            self.plan.changes.adjust(&self.plan.dirs.path(dir, &node.name), stat);
        }
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

/// Of an entry that the plan did not find as it is now, or not at all.
pub(super) fn changed_meanwhile(stat: &Stat) -> io::Error {
    if stat.is_dir() {
        return directory_in_the_way();
    }
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "it changed while the restore was prepared; it stays as it is",
    )
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
