//! The entries of a directory, one by one: what is unchanged, left out, to be read, to be listed.

use std::sync::Arc;

use snap_format::{Content, Node, NodeKind, TreeBlob};
use snap_repo::Scratch;
use snap_source::{Entry, EntryResult, FileType, SourceDir, Stat};

use super::dir::{Before, DirJob, Open, is_gone};
use super::dir_state::DirState;
use super::files::{FileItem, INLINE_MAX};
use super::run::{FileChange, Run, bump};
use crate::browse::join;

/// The entries of a directory, sorted out.
pub(super) struct Found<'a> {
    run: &'a Run<'a>,
    state: &'a Arc<DirState>,
    dir: &'a SourceDir,
    root_stat: Arc<Stat>,
    before: Before<'a>,
    /// An entry was not in the parent snapshot, or is left out, or its node is another.
    differs: bool,
    /// A place for each entry, filled where it is done.
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) files: Vec<FileItem>,
    pub(super) large: Vec<FileItem>,
    pub(super) dirs: Vec<DirJob>,
}

impl<'a> Found<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        state: &'a Arc<DirState>,
        dir: &'a SourceDir,
        root_stat: Arc<Stat>,
        before: Before<'a>,
    ) -> Self {
        Self {
            run,
            state,
            dir,
            root_stat,
            before,
            differs: false,
            nodes: Vec::new(),
            files: Vec::new(),
            large: Vec::new(),
            dirs: Vec::new(),
        }
    }

    /// Whether the directory is that of the parent snapshot, as far as it is done.
    pub(super) fn is_same(&mut self, scratch: &mut Scratch) -> bool {
        self.before.was_whole(scratch) && !self.differs
    }

    pub(super) fn entry(&mut self, entry: EntryResult, scratch: &mut Scratch) {
        let Entry { name, stat } = match entry {
            Ok(entry) => entry,
            Err((name, error)) => {
                let path = join(&self.state.path, &name);
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
        let mut before = self.before.of(&name, scratch);
        let slot = self.nodes.len();
        let done = match stat.kind {
            FileType::Dir => {
                self.subdirectory(slot, name, stat, before);
                None
            }
            FileType::File => {
                let unchanged = unchanged_file(self.run, &mut before, &stat, scratch);
                self.differs |= unchanged.as_ref().is_some_and(|(_, is_same)| !is_same);
                if unchanged.is_none() {
                    let (profile, is_new) = (before.as_ref().and_then(profile_of), before.is_none());
                    let item = FileItem { slot, name, stored_as: None, stat, profile, is_new };
                    if stat.size > INLINE_MAX { &mut self.large } else { &mut self.files }.push(item);
                }
                unchanged.map(|(node, _)| node)
            }
            _ => self.other(name, &stat, before),
        };
        self.nodes.push(done);
    }

    fn is_left_out(&self, name: &[u8], stat: &Stat) -> bool {
        let run = self.run;
        let path = || join(&self.state.path, name);
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

    fn subdirectory(&mut self, slot: usize, name: Vec<u8>, stat: Stat, before: Option<Node>) {
        self.dirs.push(DirJob {
            above: Some((Arc::clone(self.state), slot)),
            open: Open::Child(self.dir.clone()),
            name,
            stay_out: self.run.filter.crosses_device(&self.root_stat, &stat),
            stat,
            root_stat: Arc::clone(&self.root_stat),
            before: before.map(Box::new),
        });
    }

    /// Links, pipes and devices are done at once.
    fn other(&mut self, name: Vec<u8>, stat: &Stat, before: Option<Node>) -> Option<Node> {
        bump(&self.run.counts.others);
        let before = before.filter(|before| is_same_inode(before, stat) && kind_fits(before, stat));
        if before.is_some() {
            return before;
        }
        self.differs = true;
        other_node(self.run, &self.state.path, self.dir, name, stat)
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

/// Takes the parent's node of a file if the file has not changed and all its blobs are stored, and tells whether the node
/// stays as it is.
pub(super) fn unchanged_file(
    run: &Run<'_>,
    before: &mut Option<Node>,
    stat: &Stat,
    scratch: &mut Scratch,
) -> Option<(Node, bool)> {
    let mut node = before.take_if(|before| is_unchanged_file(run, before, stat, scratch))?;
    let mut is_same = true;
    if let Some(link) = &mut node.link {
        is_same = link.device == stat.device;
        link.device = stat.device;
    }
    run.count_file(stat.size, FileChange::Unchanged);
    Some((node, is_same))
}

fn is_unchanged_file(run: &Run<'_>, before: &Node, stat: &Stat, scratch: &mut Scratch) -> bool {
    if !is_same_inode(before, stat) || before.size() != stat.size {
        return false;
    }
    if before.changed_while_read || before.unreadable || !matches!(before.kind, NodeKind::File { .. }) {
        return false;
    }
    match before.content() {
        Some(Content::Blobs(ids)) => ids.iter().all(|id| run.writer.knows(id)),
        Some(Content::Lists(lists)) => lists.iter().all(|list| {
            run.writer.knows(list)
                && matches!(run.trees.tree(list, scratch),
                    Some(TreeBlob::Content(ids)) if ids.iter().all(|id| run.writer.knows(id)))
        }),
        None => false,
    }
}
