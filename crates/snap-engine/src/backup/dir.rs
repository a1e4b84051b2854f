//! Directories: listing them and comparing with the parent.

use std::io;
use std::iter::Peekable;
use std::sync::Arc;

use snap_format::{BlobId, Node, TreeBlob, limits};
use snap_repo::Scratch;
use snap_source::{EntryResult, SourceDir, Stat};

use super::dir_state::{DirState, Expected, NO_TREE, complete, listed};
use super::entries::Found;
use super::files::FilesJob;
use super::run::{Run, Worker, bump};
use crate::browse::join;
use crate::{Event, Result};

/// Most files of one job, and most bytes: small enough to spread over threads, large enough not to feel the queue.
const FILES_PER_JOB: usize = 64;
const BYTES_PER_JOB: u64 = 1 << 20;

/// How to get at a directory.
pub(super) enum Open {
    Handle(SourceDir),
    /// By its name in this one.
    Child(SourceDir),
}

/// A directory to be listed. There may be a million of them side by side.
pub(super) struct DirJob {
    /// What it is in, and its place there; nothing is above the root.
    pub(super) above: Option<(Arc<DirState>, usize)>,
    pub(super) open: Open,
    /// Name under which it is stored.
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// Of the source root that it belongs to.
    pub(super) root_stat: Arc<Stat>,
    /// Its node in the parent snapshot.
    pub(super) before: Option<Box<Node>>,
    /// List nothing: it lies on another file system.
    pub(super) stay_out: bool,
}

impl DirJob {
    pub(super) fn run(self, run: &Run<'_>, worker: &mut Worker) -> Result<()> {
        let opened = match &self.open {
            Open::Handle(dir) => Ok(dir.clone()),
            Open::Child(above) => above.open_child(&self.name),
        };
        let listing = opened.and_then(|dir| {
            let entries = if self.stay_out { Vec::new() } else { dir.entries()? };
            Ok((dir, entries))
        });
        match listing {
            Ok((dir, entries)) => self.visit(run, worker, &dir, entries),
            Err(error) => self.unreadable(run, worker, &error),
        }
    }

    fn path(&self) -> Vec<u8> {
        self.above.as_ref().map_or_else(|| b"/".to_vec(), |(above, _)| join(&above.path, &self.name))
    }

    /// A directory that cannot be listed is stored empty and flagged; one that is gone is left out.
    fn unreadable(self, run: &Run<'_>, worker: &mut Worker, error: &io::Error) -> Result<()> {
        if is_gone(error) {
            run.vanished(&self.path());
            let (above, slot) = self.above.expect("the root is not opened by name");
            return complete(run, &above, slot, None, &mut worker.scratch);
        }
        run.unreadable(&self.path(), error);
        let state = DirState::new(self.path(), self.above);
        let mut node = run.node(self.name, NO_TREE, &self.stat);
        node.unreadable = true;
        bump(&run.counts.dirs);
        state.expect(Expected::default(), Some(node));
        listed(run, &state, &mut worker.scratch)
    }

    fn visit(
        self,
        run: &Run<'_>,
        worker: &mut Worker,
        dir: &SourceDir,
        mut entries: Vec<EntryResult>,
    ) -> Result<()> {
        if let Some(marker) = run.filter.marker(dir, &entries) {
            entries.retain(|entry| snap_source::entry_name(entry) == marker);
        }
        let state = DirState::new(self.path(), self.above);
        let mut node = run.node(self.name, NO_TREE, &self.stat);
        node.xattrs = match &self.before {
            Some(before)
                if before.ctime == Some(self.stat.ctime) && before.inode == Some(self.stat.inode) =>
            {
                before.xattrs.clone()
            }
            _ => run.xattrs(&state.path, dir.xattrs()),
        };
        bump(&run.counts.dirs);
        let tree = self.before.as_ref().and_then(|before| before.tree());
        let mut found = Found::new(run, &state, dir, self.root_stat, Before::new(run, tree));
        found.nodes.reserve_exact(entries.len());
        entries.into_iter().for_each(|entry| found.entry(entry, &mut worker.scratch));
        let is_same = found.is_same(&mut worker.scratch);
        let Found { nodes, files, dirs, large, .. } = found;
        let waiting = files.len() + dirs.len() + large.len();
        let same_as = tree.filter(|_| is_same);
        state.expect(Expected { nodes, waiting, same_as, before: self.before }, Some(node));
        let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for file in files {
            bytes += file.stat.size;
            batch.push(file);
            if batch.len() >= FILES_PER_JOB || bytes >= BYTES_PER_JOB {
                batches.push(FilesJob::new(&state, dir, std::mem::take(&mut batch)));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            batches.push(FilesJob::new(&state, dir, batch));
        }
        run.queue.push_found(batches, dirs);
        for file in large {
            super::stream::start_file(run, &state, dir, file, worker)?;
        }
        listed(run, &state, &mut worker.scratch)
    }
}

/// Whether an entry went away, or became something else, between listing and opening.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || snap_source::was_replaced(error)
}

/// The nodes of a directory of the parent snapshot in order, a leaf at a time; its blobs must be stored still.
pub(super) struct Before<'a> {
    run: &'a Run<'a>,
    /// Blobs not yet read, the next one last.
    waiting: Vec<(BlobId, usize)>,
    leaf: Peekable<std::vec::IntoIter<Node>>,
    /// Every node so far was asked for.
    is_whole: bool,
}

impl<'a> Before<'a> {
    pub(super) fn new(run: &'a Run<'a>, tree: Option<BlobId>) -> Self {
        let waiting: Vec<_> = tree.into_iter().map(|tree| (tree, 0)).collect();
        let is_whole = !waiting.is_empty();
        Self { run, waiting, leaf: Vec::new().into_iter().peekable(), is_whole }
    }

    /// Makes the next node the next of the leaf, if there is any.
    fn advance(&mut self, scratch: &mut Scratch) {
        while self.leaf.peek().is_none()
            && let Some((id, level)) = self.waiting.pop()
        {
            match self.run.trees.tree(&id, scratch) {
                Some(TreeBlob::Leaf(leaf)) if self.run.writer.knows(&id) => {
                    self.leaf = leaf.into_iter().peekable();
                }
                Some(TreeBlob::Branch(children))
                    if level < limits::BRANCH_LEVELS && self.run.writer.knows(&id) =>
                {
                    self.waiting.extend(children.iter().rev().map(|child| (child.id, level + 1)));
                }
                _ => {
                    self.waiting.clear();
                    self.is_whole = false;
                }
            }
        }
    }

    /// The node of this name; names are asked for in ascending order.
    pub(super) fn of(&mut self, name: &[u8], scratch: &mut Scratch) -> Option<Node> {
        loop {
            self.advance(scratch);
            if self.leaf.next_if(|node| node.name.as_slice() < name).is_none() {
                return self.leaf.next_if(|node| node.name == name);
            }
            self.is_whole = false;
        }
    }

    /// Whether all nodes could be read and were asked for.
    pub(super) fn was_whole(&mut self, scratch: &mut Scratch) -> bool {
        self.advance(scratch);
        self.is_whole && self.leaf.peek().is_none()
    }
}

impl Run<'_> {
    pub(super) fn vanished(&self, path: &[u8]) {
        bump(&self.counts.vanished);
        self.context.note(path, "vanished while the backup ran");
    }

    pub(super) fn unreadable(&self, path: &[u8], error: &io::Error) {
        bump(&self.counts.unreadable);
        self.context.observer.event(Event::Unreadable { path, error });
    }
}
