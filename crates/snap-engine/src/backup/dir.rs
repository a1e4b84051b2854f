//! Directories: listing them, comparing with the parent, and putting them together when all below is done.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, Content, Node, NodeKind, TreeBlob, limits};
use snap_repo::Scratch;
use snap_source::{Entry, EntryResult, FileType, SourceDir, Stat};

use super::files::{FileItem, FilesJob};
use super::run::{Run, Worker, bump};
use super::trees::store_directory;
use crate::browse::join;
use crate::{Event, Result};

/// Most files of one job, and most bytes: small enough to spread over threads, large enough not to feel the queue.
const FILES_PER_JOB: usize = 64;
const BYTES_PER_JOB: u64 = 1 << 20;

/// A directory whose entries are on their way.
pub(super) struct DirState {
    /// Absolute path as stored.
    pub(super) path: Vec<u8>,
    above: Option<(Arc<DirState>, usize)>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// The directory's own node; its tree comes last.
    node: Option<Node>,
    nodes: Vec<Option<Node>>,
    remaining: usize,
    /// What the parent snapshot had here, until something is found to differ from it.
    same_as: Option<(BlobId, Vec<Node>)>,
}

/// The node that stands for a tree until its directory is finished.
const NO_TREE: NodeKind = NodeKind::Dir { tree: BlobId([0; 32]) };

impl DirState {
    pub(super) fn new(path: Vec<u8>, above: Option<(Arc<Self>, usize)>) -> Arc<Self> {
        Arc::new(Self { path, above, pending: Mutex::default() })
    }

    /// Makes room for `entries` results and sets the directory's own node. One result more is owed: that of whoever lists.
    pub(super) fn expect(&self, node: Option<Node>, entries: usize, same_as: Option<(BlobId, Vec<Node>)>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = Pending { node, nodes: vec![None; entries], remaining: entries + 1, same_as };
    }

    /// Takes a result, or `None` for an entry that is left out. Returns what to finish if it was the last.
    fn take(&self, slot: Option<usize>, node: Option<Node>) -> Option<Pending> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slot {
            pending.nodes[slot] = node;
        }
        pending.remaining -= 1;
        (pending.remaining == 0).then(|| std::mem::take(&mut *pending))
    }
}

/// Gives a directory the node of one entry; finishes it, and what is above it, if that was the last.
pub(super) fn complete(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    slot: usize,
    node: Option<Node>,
    scratch: &mut Scratch,
) -> Result<()> {
    finish_upwards(run, Arc::clone(dir), Some(slot), node, scratch)
}

/// Tells that a directory has been listed.
pub(super) fn listed(run: &Run<'_>, dir: &Arc<DirState>, scratch: &mut Scratch) -> Result<()> {
    finish_upwards(run, Arc::clone(dir), None, None, scratch)
}

fn finish_upwards(
    run: &Run<'_>,
    mut dir: Arc<DirState>,
    mut slot: Option<usize>,
    mut node: Option<Node>,
    scratch: &mut Scratch,
) -> Result<()> {
    while let Some(done) = dir.take(slot, node) {
        let nodes: Vec<Node> = done.nodes.into_iter().flatten().collect();
        let tree = match done.same_as {
            Some((tree, before)) if before == nodes && run.writer.knows(&tree) => tree,
            _ => store_directory(&run.writer, &nodes, &run.new_trees, scratch)?,
        };
        let Some((above, at)) = dir.above.clone() else {
            run.set_root(tree);
            return Ok(());
        };
        let mut own = done.node.expect("every directory but the root has a node");
        own.kind = NodeKind::Dir { tree };
        (dir, slot, node) = (above, Some(at), Some(own));
    }
    Ok(())
}

/// How to get at a directory.
pub(super) enum Open {
    Handle(SourceDir),
    Child(SourceDir, Vec<u8>),
}

/// A directory to be listed.
pub(super) struct DirJob {
    pub(super) state: Arc<DirState>,
    pub(super) open: Open,
    /// Name under which it is stored.
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// Of the source root that it belongs to.
    pub(super) root_stat: Stat,
    /// Its node in the parent snapshot.
    pub(super) before: Option<Node>,
    /// List nothing: it lies on another file system.
    pub(super) stay_out: bool,
}

impl DirJob {
    pub(super) fn run(self, run: &Run<'_>, worker: &mut Worker) -> Result<()> {
        let opened = match &self.open {
            Open::Handle(dir) => Ok(dir.clone()),
            Open::Child(above, name) => above.open_child(name),
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

    /// A directory that cannot be listed is stored empty and flagged; one that is gone is left out.
    fn unreadable(self, run: &Run<'_>, worker: &mut Worker, error: &io::Error) -> Result<()> {
        if is_gone(error) {
            run.vanished(&self.state.path);
            let (above, slot) = self.state.above.clone().expect("the root is not opened by name");
            return complete(run, &above, slot, None, &mut worker.scratch);
        }
        run.unreadable(&self.state.path, error);
        let mut node = run.node(self.name, NO_TREE, &self.stat);
        node.unreadable = true;
        bump(&run.counts.dirs);
        self.state.expect(Some(node), 0, None);
        listed(run, &self.state, &mut worker.scratch)
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
        let mut node = run.node(self.name.clone(), NO_TREE, &self.stat);
        node.xattrs = match &self.before {
            Some(before)
                if before.ctime == Some(self.stat.ctime) && before.inode == Some(self.stat.inode) =>
            {
                before.xattrs.clone()
            }
            _ => run.xattrs(&self.state.path, dir.xattrs()),
        };
        bump(&run.counts.dirs);
        let tree = self.before.as_ref().and_then(Node::tree);
        let before = tree.and_then(|tree| parent_nodes(run, &tree, &mut worker.scratch));
        let mut found = Found::new(run, &self, dir, before.as_deref().unwrap_or_default());
        entries.into_iter().for_each(|entry| found.entry(entry, &mut worker.scratch));
        let Found { nodes, files, dirs, large, .. } = found;
        self.state.expect(Some(node), nodes.len(), tree.zip(before));
        let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for file in files {
            bytes += file.stat.size;
            batch.push(file);
            if batch.len() >= FILES_PER_JOB || bytes >= BYTES_PER_JOB {
                batches.push(FilesJob::new(&self.state, dir, std::mem::take(&mut batch)));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            batches.push(FilesJob::new(&self.state, dir, batch));
        }
        for (slot, node) in nodes.into_iter().enumerate() {
            if let Some(node) = node {
                complete(run, &self.state, slot, node, &mut worker.scratch)?;
            }
        }
        run.queue.push_found(batches, dirs);
        for file in large {
            super::stream::start_file(run, &self.state, dir, file, worker)?;
        }
        listed(run, &self.state, &mut worker.scratch)
    }
}

/// Whether an entry went away, or became something else, between listing and opening.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || snap_source::was_replaced(error)
}

/// All nodes of a directory of the parent snapshot; its blobs must be stored still.
fn parent_nodes(run: &Run<'_>, tree: &BlobId, scratch: &mut Scratch) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    let mut waiting = vec![(*tree, 0)];
    while let Some((id, level)) = waiting.pop() {
        match run.parent.tree(&id, scratch)? {
            _ if !run.writer.knows(&id) => return None,
            TreeBlob::Leaf(mut leaf) => nodes.append(&mut leaf),
            TreeBlob::Branch(children) if level < limits::BRANCH_LEVELS => {
                waiting.extend(children.iter().rev().map(|child| (child.id, level + 1)));
            }
            _ => return None,
        }
    }
    Some(nodes)
}

/// The entries of a directory, sorted out.
struct Found<'a> {
    run: &'a Run<'a>,
    job: &'a DirJob,
    dir: &'a SourceDir,
    /// What is not yet passed of the parent's nodes; both lists are sorted.
    before: &'a [Node],
    /// A place for each entry: `Some` if it is done, with `None` inside if it is left out.
    nodes: Vec<Option<Option<Node>>>,
    files: Vec<FileItem>,
    large: Vec<FileItem>,
    dirs: Vec<DirJob>,
}

impl<'a> Found<'a> {
    fn new(run: &'a Run<'a>, job: &'a DirJob, dir: &'a SourceDir, before: &'a [Node]) -> Self {
        Self {
            run,
            job,
            dir,
            before,
            nodes: Vec::new(),
            files: Vec::new(),
            large: Vec::new(),
            dirs: Vec::new(),
        }
    }

    fn entry(&mut self, entry: EntryResult, scratch: &mut Scratch) {
        let Entry { name, stat } = match entry {
            Ok(entry) => entry,
            Err((name, error)) => {
                let path = join(&self.job.state.path, &name);
                if is_gone(&error) {
                    self.run.vanished(&path)
                } else {
                    self.run.unreadable(&path, &error)
                }
                return;
            }
        };
        if self.is_left_out(&name, &stat) {
            return;
        }
        let before = self.before_of(&name);
        let slot = self.nodes.len();
        let done = match stat.kind {
            FileType::Dir => {
                self.subdirectory(slot, name, stat, before);
                None
            }
            FileType::File => match unchanged_file(self.run, before, &stat, scratch) {
                Some(node) => Some(Some(node)),
                None => {
                    let (profile, is_new) = (before.and_then(profile_of), before.is_none());
                    let item = FileItem { slot, name, stored_as: None, stat, profile, is_new };
                    let list =
                        if stat.size > super::files::INLINE_MAX { &mut self.large } else { &mut self.files };
                    list.push(item);
                    None
                }
            },
            _ => Some(self.other(name, &stat, before)),
        };
        self.nodes.push(done);
    }

    fn is_left_out(&self, name: &[u8], stat: &Stat) -> bool {
        let run = self.run;
        let path = || join(&self.job.state.path, name);
        if run.filter.has_patterns() && run.filter.excludes(&path(), stat.is_dir()) {
            return true;
        }
        if run.filter.is_protected(stat) {
            run.context.note(&path(), "left out: it belongs to snap itself");
            return true;
        }
        if stat.kind == FileType::Socket {
            run.context.note(&path(), "left out: a socket has no content");
            return true;
        }
        false
    }

    fn before_of(&mut self, name: &[u8]) -> Option<&'a Node> {
        let passed = self.before.iter().take_while(|node| node.name.as_slice() < name).count();
        self.before = &self.before[passed..];
        self.before.first().filter(|node| node.name == name)
    }

    fn subdirectory(&mut self, slot: usize, name: Vec<u8>, stat: Stat, before: Option<&Node>) {
        let path = join(&self.job.state.path, &name);
        self.dirs.push(DirJob {
            state: DirState::new(path, Some((Arc::clone(&self.job.state), slot))),
            open: Open::Child(self.dir.clone(), name.clone()),
            name,
            stay_out: self.run.filter.crosses_device(&self.job.root_stat, &stat),
            stat,
            root_stat: self.job.root_stat,
            before: before.cloned(),
        });
    }

    /// Links, pipes and devices are done at once.
    fn other(&self, name: Vec<u8>, stat: &Stat, before: Option<&Node>) -> Option<Node> {
        bump(&self.run.counts.others);
        if let Some(before) = before.filter(|before| is_same_inode(before, stat) && kind_fits(before, stat)) {
            return Some(before.clone());
        }
        other_node(self.run, &self.job.state.path, self.dir, name, stat)
    }
}

/// The node of a link, pipe or device.
pub(super) fn other_node(
    run: &Run<'_>,
    directory: &[u8],
    dir: &SourceDir,
    name: Vec<u8>,
    stat: &Stat,
) -> Option<Node> {
    let path = join(directory, &name);
    let (major, minor) = stat.rdev;
    let kind = match stat.kind {
        FileType::Symlink => match dir.read_link(&name) {
            Ok(target) => NodeKind::Symlink { target },
            Err(error) => {
                if is_gone(&error) {
                    run.vanished(&path)
                } else {
                    run.unreadable(&path, &error)
                }
                return None;
            }
        },
        FileType::CharDevice => NodeKind::CharDevice { major, minor },
        FileType::BlockDevice => NodeKind::BlockDevice { major, minor },
        _ => NodeKind::Fifo,
    };
    let xattrs = run.xattrs(&path, dir.xattrs_child(&name));
    let mut node = run.node(name, kind, stat);
    node.xattrs = xattrs;
    Some(node)
}

pub(super) fn profile_of(node: &Node) -> Option<u8> {
    match node.kind {
        NodeKind::File { profile, .. } => Some(profile),
        _ => None,
    }
}

/// Nothing about the inode changed: the change time says so for content, mode, owner and attributes alike.
fn is_same_inode(before: &Node, stat: &Stat) -> bool {
    before.ctime == Some(stat.ctime)
        && before.inode == Some(stat.inode)
        && before.mtime == stat.mtime
        && before.link.is_some() == (stat.links > 1)
}

fn kind_fits(before: &Node, stat: &Stat) -> bool {
    matches!(
        (&before.kind, stat.kind),
        (NodeKind::Symlink { .. }, FileType::Symlink)
            | (NodeKind::Fifo, FileType::Fifo)
            | (NodeKind::CharDevice { .. }, FileType::CharDevice)
            | (NodeKind::BlockDevice { .. }, FileType::BlockDevice)
    )
}

/// The parent's node of a file that has not changed and all of whose blobs are stored.
pub(super) fn unchanged_file(
    run: &Run<'_>,
    before: Option<&Node>,
    stat: &Stat,
    scratch: &mut Scratch,
) -> Option<Node> {
    let before = before.filter(|before| is_same_inode(before, stat) && before.size() == stat.size)?;
    if before.changed_while_read || before.unreadable || !matches!(before.kind, NodeKind::File { .. }) {
        return None;
    }
    let all_known = match before.content()? {
        Content::Blobs(ids) => ids.iter().all(|id| run.writer.knows(id)),
        Content::Lists(lists) => lists.iter().all(|list| {
            run.writer.knows(list)
                && matches!(run.parent.tree(list, scratch),
                    Some(TreeBlob::Content(ids)) if ids.iter().all(|id| run.writer.knows(id)))
        }),
    };
    if !all_known {
        return None;
    }
    let mut node = before.clone();
    if let Some(link) = &mut node.link {
        link.device = stat.device;
    }
    run.count_file(stat.size, super::run::FileChange::Unchanged);
    Some(node)
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
