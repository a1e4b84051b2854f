//! What was there and is gone: the live file system beside all trees that the snapshots have had at the same path.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use snap_format::{BlobId, Node, NodeKind, Time};
use snap_source::{FileType, Located, SourceDir};

use super::history::{History, Piece, components, without_content};
use super::versions::{Found, everywhere};
use crate::browse::join;
use crate::work::{Worker, for_each_growing, lock};
use crate::{Context, Event, Phase, Result};

/// An entry that some snapshot has and the file system does not. What is in a directory is not named again, as far as the
/// directory brings it back.
#[derive(Debug)]
pub struct Vanished {
    /// Full path.
    pub path: Vec<u8>,
    /// What it was, without its list of chunks.
    pub node: Node,
    /// Position in the history of the last snapshot that has it.
    pub last: usize,
    /// Something that is no directory stands where a directory was.
    pub replaced: bool,
}

/// What `deleted` found.
#[derive(Debug, Default)]
pub struct DeletedReport {
    /// Sorted by path.
    pub vanished: Vec<Vanished>,
    /// Live directories that could not be read: what is gone from them is not known.
    pub unreadable: u64,
    /// Given paths that no snapshot has.
    pub unknown: Vec<Vec<u8>>,
}

/// The trees that a directory has had: the last snapshot with each, the last of all first.
type Trees = Vec<(usize, BlobId)>;

/// A live directory, opened when its turn comes.
enum Live {
    /// There is none.
    Gone,
    Open(SourceDir),
    Child(SourceDir, Vec<u8>),
    /// A source path that is a link is followed.
    Link,
}

struct Item {
    path: Vec<u8>,
    live: Live,
    trees: Trees,
}

struct Look<'a> {
    history: &'a History,
    context: Context<'a>,
    /// Source paths of the snapshots.
    sources: HashSet<&'a [u8]>,
    report: Mutex<DeletedReport>,
}

/// Compares what is at `paths`, absolute, with the snapshots of `history`, which are sorted oldest first.
pub fn deleted(history: &History, paths: &[Vec<u8>], context: Context<'_>) -> Result<DeletedReport> {
    context.progress.begin(Phase::Scanning, 0, 0);
    let sources = history.past().iter().flat_map(|past| past.paths.iter().map(Vec::as_slice)).collect();
    let look = Look { history, context, sources, report: Mutex::default() };
    let mut first = Vec::new();
    for path in paths {
        first.extend(look.start(path)?);
    }
    first.reverse();
    for_each_growing(first, history.threads(context), |item, worker, added| {
        context.check_stop()?;
        context.progress.add(1, 0);
        look.directory(item, worker, added)?;
        added.reverse();
        Ok(())
    })?;
    let mut report = look.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.vanished.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

/// What the snapshots have had under one name.
#[derive(Default)]
struct Had {
    /// The newest, unless the live entry answers to it.
    newest: Option<(usize, Node)>,
    /// The newest directory, if the newest is none.
    directory: Option<(usize, Node)>,
    trees: Trees,
}

impl Had {
    fn add(&mut self, last: usize, node: Node, keeps_node: bool) {
        if let Some(tree) = node.tree()
            && !self.trees.iter().any(|(_, known)| *known == tree)
        {
            self.trees.push((last, tree));
        }
        if keeps_node && self.newest.is_none() {
            self.newest = Some((last, without_content(node)));
        } else if keeps_node && node.tree().is_some() {
            let newest_is_dir = self.newest.as_ref().is_some_and(|(_, node)| node.tree().is_some());
            if !newest_is_dir && self.directory.is_none() {
                self.directory = Some((last, node));
            }
        }
    }
}

impl Look<'_> {
    fn start(&self, path: &[u8]) -> Result<Option<Item>> {
        let mut had = Had::default();
        if components(path).next().is_none() {
            for (number, past) in self.history.past().iter().enumerate().rev() {
                let kind = NodeKind::Dir { tree: past.root };
                had.add(number, Node::new(Vec::new(), kind, Time::default()), true);
            }
        } else {
            for (number, found) in everywhere(self.history, path, self.context)?.into_iter().enumerate().rev()
            {
                if let Found::Node(node) = found {
                    had.add(number, *node, true);
                }
            }
        }
        let Some((last, node)) = had.newest.take() else {
            lock(&self.report).unknown.push(path.to_vec());
            return Ok(None);
        };
        let live = match SourceDir::locate(Path::new(OsStr::from_bytes(path))) {
            Ok(Located::Dir(dir)) => Some(Live::Open(dir)),
            Ok(Located::Entry { .. }) => None,
            Err(error) if is_gone(&error) => Some(Live::Gone),
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(None);
            }
        };
        let live = match live {
            // What came from a stream was never in a file system.
            Some(Live::Gone) if node.inode.is_none() && node.content().is_some() => return Ok(None),
            Some(Live::Gone) => {
                self.vanished(path, node, last, false);
                Live::Gone
            }
            None if node.tree().is_some() => {
                self.vanished(path, node, last, true);
                Live::Gone
            }
            Some(live) => live,
            None => return Ok(None),
        };
        Ok(item_of(path.to_vec(), live, had.trees))
    }

    fn unreadable(&self, path: &[u8], error: &io::Error) {
        lock(&self.report).unreadable += 1;
        self.context.observer.event(Event::Unreadable { path, error });
    }

    fn vanished(&self, path: &[u8], node: Node, last: usize, replaced: bool) {
        lock(&self.report).vanished.push(Vanished { path: path.to_vec(), node, last, replaced });
    }

    fn directory(&self, item: Item, worker: &mut Worker, added: &mut Vec<Item>) -> Result<()> {
        let Item { path, live, trees } = item;
        let opened = match &live {
            Live::Gone => None,
            Live::Open(dir) => Some(Ok(dir.clone())),
            Live::Child(dir, name) => Some(dir.open_child(name)),
            Live::Link => Some(SourceDir::open(Path::new(OsStr::from_bytes(&path)))),
        };
        let listed = opened.map(|dir| dir.and_then(|dir| Ok((dir.types()?, dir)))).transpose();
        let listed = match listed {
            Ok(listed) => listed,
            // Gone a moment ago: who lists its parent again finds that.
            Err(error) if is_gone(&error) || snap_source::was_replaced(&error) => return Ok(()),
            Err(error) => {
                self.unreadable(&path, &error);
                return Ok(());
            }
        };
        let (entries, dir) = match listed {
            Some((entries, dir)) => (entries, Some(dir)),
            None => (Vec::new(), None),
        };
        let kind_of = |name: &[u8]| {
            let at = entries.binary_search_by(|(known, _)| known.as_slice().cmp(name)).ok()?;
            Some(entries[at].1)
        };
        // Of a directory that is gone, the newest tree comes back as a whole.
        let back = if dir.is_none() { trees.first().map(|(last, _)| *last) } else { None };
        for (name, had) in self.gather(&path, &trees, &kind_of, worker)? {
            let full = join(&path, &name);
            let live = match (kind_of(&name), &dir) {
                (Some(FileType::Dir), Some(dir)) => Live::Child(dir.clone(), name),
                (Some(_), _) if self.sources.contains(full.as_slice()) => Live::Link,
                (kind, _) => {
                    if let Some((last, node)) = had.newest
                        && back != Some(last)
                    {
                        self.vanished(&full, node, last, kind.is_some());
                    }
                    // A directory whose place something else took, and that is gone, too.
                    if let Some((last, node)) = had.directory {
                        self.vanished(&full, node, last, true);
                    }
                    Live::Gone
                }
            };
            added.extend(item_of(full, live, had.trees));
        }
        Ok(())
    }

    /// What the trees have that the live directory lacks, and directories that both have.
    fn gather(
        &self,
        path: &[u8],
        trees: &Trees,
        kind_of: &dyn Fn(&[u8]) -> Option<FileType>,
        worker: &mut Worker,
    ) -> Result<BTreeMap<Vec<u8>, Had>> {
        let mut out: BTreeMap<Vec<u8>, Had> = BTreeMap::new();
        let mut seen: HashSet<BlobId> = HashSet::new();
        for (last, tree) in trees {
            let past = &self.history.past()[*last];
            let mut waiting = vec![(*tree, 0)];
            while let Some((id, level)) = waiting.pop() {
                // A piece that a later snapshot has, too, was there.
                if !seen.insert(id) {
                    continue;
                }
                let nodes = match self.history.piece(past.domain, &id, level, worker) {
                    Ok(Piece::Leaf(nodes)) => nodes,
                    Ok(Piece::Branch(children)) => {
                        waiting.extend(children.iter().map(|child| (child.id, level + 1)));
                        continue;
                    }
                    Err(error) => {
                        self.history.lost(self.context.observer, past, path, error)?;
                        continue;
                    }
                };
                for node in nodes {
                    let is_dir = node.tree().is_some();
                    let kind = kind_of(&node.name);
                    let keeps_node = match kind {
                        None => true,
                        Some(FileType::Dir) => false,
                        Some(_) => is_dir,
                    };
                    if keeps_node || is_dir {
                        out.entry(node.name.clone()).or_default().add(*last, node, keeps_node);
                    }
                }
            }
        }
        Ok(out)
    }
}

/// A directory is worth a look if it is there, or has had several trees.
fn item_of(path: Vec<u8>, live: Live, trees: Trees) -> Option<Item> {
    let least = if matches!(live, Live::Gone) { 2 } else { 1 };
    (trees.len() >= least).then_some(Item { path, live, trees })
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory
}
