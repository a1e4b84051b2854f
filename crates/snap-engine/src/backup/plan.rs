//! From the paths a user names to the tree that is stored: sources below the directories that lead to them.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use snap_format::{Content, Node, NodeKind, Time};
use snap_source::{FileType, Located, SourceDir, Stat};

use super::dir::{DirJob, Open};
use super::dir_state::{DirState, Expected, NO_TREE, Outcome, complete, listed};
use super::entries::{other_node, profile_of, unchanged_file};
use super::files::{FileItem, FilesJob};
use super::run::{Run, Worker};
use crate::{EngineError, Event, Result};

/// Makes a path absolute without asking the file system: `.` and `..` are resolved by their names.
pub(super) fn absolute(path: &Path, working_dir: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in working_dir.join(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

/// A directory on the way to a source, or a source.
#[derive(Default)]
struct Branch {
    source: Option<Located>,
    below: BTreeMap<Vec<u8>, Branch>,
}

/// All sources of a run.
pub(super) struct Plan {
    root: Branch,
    /// Absolute stored paths, sorted.
    pub(super) paths: Vec<Vec<u8>>,
    /// Given and not there, or not accessible.
    pub(super) missing: Vec<Vec<u8>>,
}

impl Plan {
    /// Looks at every source. A source inside another is part of it.
    pub(super) fn new(
        paths: &[PathBuf],
        working_dir: &Path,
        as_path: Option<&Path>,
        observer: &dyn crate::Observer,
    ) -> Result<Self> {
        let mut plan = Self { root: Branch::default(), paths: Vec::new(), missing: Vec::new() };
        let mut reasons = Vec::new();
        for path in paths {
            let real = absolute(path, working_dir);
            let stored = as_path.map_or_else(|| real.clone(), |path| absolute(path, Path::new("/")));
            match SourceDir::locate(&real) {
                Ok(located) => plan.add(&stored, located)?,
                Err(error) => {
                    observer.event(Event::Unreadable { path: real.as_os_str().as_bytes(), error: &error });
                    reasons.push(format!("{}: {error}", real.display()));
                    plan.missing.push(real.as_os_str().as_bytes().to_vec());
                }
            }
        }
        if plan.paths.is_empty() {
            return Err(EngineError::NoSource(reasons.join(", ")));
        }
        plan.paths.sort();
        plan.paths.dedup();
        Ok(plan)
    }

    fn add(&mut self, stored: &Path, located: Located) -> Result<()> {
        let mut branch = &mut self.root;
        for component in stored.components() {
            if branch.source.is_some() {
                return Ok(()); // inside a source that is there already
            }
            if let Component::Normal(name) = component {
                branch = branch.below.entry(name.as_bytes().to_vec()).or_default();
            }
        }
        if stored == Path::new("/") && !matches!(located, Located::Dir(_)) {
            return Err(EngineError::Usage("only a directory can be stored as /".into()));
        }
        let stored = stored.as_os_str().as_bytes();
        let inside = |path: &Vec<u8>| {
            path.starts_with(stored) && (stored == b"/" || path.get(stored.len()) == Some(&b'/'))
        };
        self.paths.retain(|path| !inside(path));
        branch.below.clear();
        branch.source = Some(located);
        self.paths.push(stored.to_vec());
        Ok(())
    }

    /// Puts the sources on the queue.
    pub(super) fn start(self, run: &Run<'_>, parent_root: Option<Node>, worker: &mut Worker) -> Result<()> {
        match self.root.source {
            // The file system's root has no node of its own: its entries are the root tree.
            Some(Located::Dir(dir)) => start_root(run, dir, parent_root),
            _ => {
                let top = DirState::new(b"/".to_vec(), None);
                start_branch(run, &top, self.root.below, parent_root, None, worker)
            }
        }
    }
}

fn start_root(run: &Run<'_>, dir: SourceDir, before: Option<Node>) -> Result<()> {
    let stat = dir.stat().map_err(|error| EngineError::io("reading", b"/", error))?;
    let open = Open::Handle(dir);
    let (root_stat, before) = (Arc::new(stat), before.map(Box::new));
    let job = DirJob { above: None, open, name: Vec::new(), stat, root_stat, before, stay_out: false };
    run.queue.push_found(Vec::new(), vec![job]);
    Ok(())
}

/// One level of directories that lead to sources.
fn start_branch(
    run: &Run<'_>,
    state: &Arc<DirState>,
    below: BTreeMap<Vec<u8>, Branch>,
    before: Option<Node>,
    node: Option<Node>,
    worker: &mut Worker,
) -> Result<()> {
    state.expect(Expected::waiting(below.len()), node);
    let before = before.and_then(|node| node.tree()).and_then(|tree| nodes_of(run, tree, worker));
    for (slot, (name, branch)) in below.into_iter().enumerate() {
        let before = before.iter().flatten().find(|node| node.name == name).cloned();
        let path = crate::browse::join(&state.path, &name);
        let above = Some((Arc::clone(state), slot));
        match branch.source {
            None => {
                let node = ancestor(run, &path, name);
                let child = DirState::new(path, above);
                start_branch(run, &child, branch.below, before, Some(node), worker)?;
            }
            Some(Located::Dir(dir)) => {
                let stat = dir.stat().map_err(|error| EngineError::io("reading", &path, error))?;
                let open = Open::Handle(dir);
                let (root_stat, before) = (Arc::new(stat), before.map(Box::new));
                let job = DirJob { above, open, name, stat, root_stat, before, stay_out: false };
                run.queue.push_found(Vec::new(), vec![job]);
            }
            Some(Located::Entry { dir, name: real_name, stat }) => {
                start_entry(run, state, slot, (dir, real_name), name, stat, before, worker)?;
            }
        }
    }
    listed(run, state, &mut worker.scratch)
}

fn nodes_of(run: &Run<'_>, tree: snap_format::BlobId, worker: &mut Worker) -> Option<Vec<Node>> {
    match run.trees.tree(&tree, &mut worker.scratch)? {
        snap_format::TreeBlob::Leaf(nodes) => Some(nodes),
        _ => None, // more than a thousand sources side by side: compare nothing rather than read it all
    }
}

/// The node of a directory that leads to a source, with that directory's own mode, owner and attributes where it exists.
fn ancestor(run: &Run<'_>, path: &[u8], name: Vec<u8>) -> Node {
    super::run::bump(&run.counts.dirs);
    let opened = SourceDir::open_search(Path::new(std::ffi::OsStr::from_bytes(path)));
    match opened.and_then(|dir| Ok((dir.stat()?, dir))) {
        Ok((stat, dir)) => {
            let mut node = run.node(name, NO_TREE, &stat);
            node.xattrs = run.xattrs(path, dir.xattrs());
            // Its times and inode change with things that are not backed up, and would make every snapshot differ.
            (node.mtime, node.ctime, node.inode) = (Time::default(), None, None);
            node
        }
        Err(_) => {
            let mut node = Node::new(name, NO_TREE, Time::default());
            node.mode = 0o755;
            node
        }
    }
}

#[allow(clippy::too_many_arguments)] // an entry, its place in the tree, and its place on disk
fn start_entry(
    run: &Run<'_>,
    state: &Arc<DirState>,
    slot: usize,
    (dir, real_name): (SourceDir, Vec<u8>),
    name: Vec<u8>,
    stat: Stat,
    mut before: Option<Node>,
    worker: &mut Worker,
) -> Result<()> {
    if stat.kind == FileType::File {
        if let Some((node, _)) = unchanged_file(run, &mut before, &stat, &mut worker.scratch) {
            return complete(run, state, slot, Outcome::Differs(node), &mut worker.scratch);
        }
        let profile = before.as_ref().and_then(profile_of);
        // A source that was reached through a link is opened by its real name and stored under the given one.
        let item = FileItem {
            slot,
            name: real_name,
            stored_as: Some(name),
            stat,
            profile,
            is_new: before.is_none(),
        };
        run.queue.push_found(vec![FilesJob::new(state, &dir, vec![item])], Vec::new());
        return Ok(());
    }
    let mut node = None;
    if stat.kind == FileType::Socket {
        run.context.note(&crate::browse::join(&state.path, &name), "left out: a socket has no content");
    } else {
        super::run::bump(&run.counts.others);
        node = other_node(run, &state.path, &dir, real_name, &stat);
    }
    if let Some(node) = &mut node {
        node.name = name;
    }
    complete(run, state, slot, node, &mut worker.scratch)
}

/// The entry of a stream: an ordinary file of whoever runs this.
pub(super) fn stream_item(name: &[u8], time: Time, owner: (u32, u32)) -> FileItem {
    let stat = Stat {
        kind: FileType::File,
        mode: 0o644,
        uid: owner.0,
        gid: owner.1,
        size: 0,
        mtime: time,
        ctime: time,
        inode: 0,
        device: 0,
        links: 1,
        rdev: (0, 0),
        allocated_bytes: 0,
    };
    FileItem { slot: 0, name: name.to_vec(), stored_as: None, stat, profile: None, is_new: true }
}

/// The profile of the stream of the same name in the parent, so that it does not flip.
pub(super) fn stream_profile(
    run: &Run<'_>,
    root: Option<&Node>,
    name: &str,
    worker: &mut Worker,
) -> Option<u8> {
    let nodes = nodes_of(run, root?.tree()?, worker)?;
    match nodes.into_iter().find(|node| node.name == name.as_bytes())?.kind {
        NodeKind::File { profile, content: Content::Blobs(_) | Content::Lists(_), .. } => Some(profile),
        _ => None,
    }
}
