use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use fuser::Errno;
use snap_format::{BlobId, BranchEntry, Content, Node, NodeKind, TreeBlob, limits};
use snap_repo::{Finding, FindingCode};

use crate::error::{Answer, Fault};
use crate::lru::Lru;
use crate::snapshots::Snap;
use crate::store::Store;

/// Whether a request may wait for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// No: it is asked again by a thread that may.
    Cached,
    /// Yes.
    Fetch,
}

/// A tree blob, decoded. Its id is one within a domain.
type TreeKey = (u32, BlobId);

/// Decoded trees, bounded: whatever directory they belong to.
pub(crate) struct Trees {
    store: Arc<Store>,
    cache: Mutex<Lru<TreeKey, Arc<TreeBlob>>>,
    /// What some thread is fetching.
    loading: Mutex<HashSet<TreeKey>>,
    loaded: Condvar,
}

/// A place in a directory.
pub(crate) struct At {
    leaf: Arc<TreeBlob>,
    /// Of the first node of the leaf in the directory.
    base: u64,
    index: usize,
}

impl At {
    /// The node there; none behind the last one.
    pub(crate) fn node(&self) -> Option<&Node> {
        self.rest().next().map(|(_, node)| node)
    }

    /// Its position in the directory.
    pub(crate) fn position(&self) -> u64 {
        // A branch may lie; what comes of that is no inode.
        self.base.saturating_add(self.index as u64)
    }

    /// The nodes of the leaf from there on, with their positions.
    pub(crate) fn rest(&self) -> impl Iterator<Item = (u64, &Node)> {
        let nodes = nodes(&self.leaf).get(self.index..).unwrap_or_default();
        nodes.iter().enumerate().map(|(at, node)| (self.position().saturating_add(at as u64), node))
    }

    /// The trees of the directories from there on.
    pub(crate) fn subtrees(&self) -> impl Iterator<Item = BlobId> {
        self.rest().filter_map(|(_, node)| node.tree())
    }
}

fn nodes(tree: &TreeBlob) -> &[Node] {
    match tree {
        TreeBlob::Leaf(nodes) => nodes,
        _ => &[],
    }
}

/// What a branch says of one of its children; of a directory's own tree nothing is known.
#[derive(Clone, Copy, Default)]
struct Expected<'a> {
    nodes: Option<u64>,
    first: Option<&'a [u8]>,
    /// All names come before this.
    end: Option<&'a [u8]>,
}

impl Trees {
    pub(crate) fn new(store: Arc<Store>, memory_bytes: u64) -> Self {
        Self {
            store,
            cache: Mutex::new(Lru::new(memory_bytes)),
            loading: Mutex::default(),
            loaded: Condvar::new(),
        }
    }

    /// A tree, from the cache or fetched; several threads that want the same one fetch it once.
    pub(crate) fn tree(&self, snap: &Snap, id: &BlobId, load: Load) -> Answer<Arc<TreeBlob>> {
        let key = (snap.domain_number, *id);
        if let Some(tree) = self.cached(&key) {
            return Ok(tree);
        }
        if load == Load::Cached {
            return Err(Fault::NotCached);
        }
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        while !loading.insert(key) {
            loading = self.loaded.wait(loading).unwrap_or_else(PoisonError::into_inner);
            if let Some(tree) = self.cached(&key) {
                return Ok(tree);
            }
        }
        drop(loading);
        let _done = Done { trees: self, key };
        // Somebody may have put it there between the look and the claim.
        if let Some(tree) = self.cached(&key) {
            return Ok(tree);
        }
        let tree = Arc::new(self.store.tree(&snap.domain, id)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(key, Arc::clone(&tree), weight(&tree), drop);
        Ok(tree)
    }

    fn cached(&self, key: &TreeKey) -> Option<Arc<TreeBlob>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    /// The entry at a position of a directory, or behind its last one.
    pub(crate) fn at(&self, snap: &Snap, root: &BlobId, position: u64, load: Load) -> Answer<At> {
        self.descend(snap, root, load, &|children, base| {
            let mut start = base;
            let holds = |child: &&BranchEntry| {
                start = start.saturating_add(child.nodes);
                position >= start
            };
            children.iter().take_while(holds).count().min(children.len() - 1)
        })
        .map(|(leaf, base)| {
            let index = (position - base).min(nodes(&leaf).len() as u64) as usize;
            At { leaf, base, index }
        })
    }

    /// The entry of a name.
    pub(crate) fn find(&self, snap: &Snap, root: &BlobId, name: &[u8], load: Load) -> Answer<Option<At>> {
        let (leaf, base) = self.descend(snap, root, load, &|children, _| {
            children.partition_point(|child| child.first.as_slice() <= name).saturating_sub(1)
        })?;
        let found = nodes(&leaf).binary_search_by(|node| node.name.as_slice().cmp(name));
        Ok(found.ok().map(|index| At { leaf, base, index }))
    }

    /// From the tree of a directory to the leaf that `choose` leads to, and the position of its first node. What branches
    /// say is compared with what is there, since positions stand for files.
    fn descend(
        &self,
        snap: &Snap,
        root: &BlobId,
        load: Load,
        choose: &dyn Fn(&[BranchEntry], u64) -> usize,
    ) -> Answer<(Arc<TreeBlob>, u64)> {
        let mut tree = self.tree(snap, root, load)?;
        let mut base = 0;
        for _ in 0..=limits::BRANCH_LEVELS {
            let TreeBlob::Branch(children) = &*tree else {
                return match &*tree {
                    TreeBlob::Leaf(_) => Ok((tree, base)),
                    _ => Err(self.malformed(*root, "a tree where a directory is expected")),
                };
            };
            let chosen = choose(children, base);
            let child = &children[chosen];
            base = children[..chosen].iter().fold(base, |sum, child| sum.saturating_add(child.nodes));
            let expected = Expected {
                nodes: Some(child.nodes),
                first: Some(&child.first),
                end: children.get(chosen + 1).map(|next| next.first.as_slice()),
            };
            let below = self.tree(snap, &child.id, load)?;
            if !expected.fits(&below) {
                return Err(self.malformed(child.id, "it is not what the branch above it says"));
            }
            tree = below;
        }
        Err(self.malformed(*root, "its branches are too deep"))
    }

    fn malformed(&self, tree: BlobId, why: &str) -> Fault {
        self.store.reports.finding(&Finding::new(FindingCode::Corrupt, "packs", why).blob(tree));
        Errno::EIO.into()
    }
}

impl Expected<'_> {
    fn fits(&self, tree: &TreeBlob) -> bool {
        let (count, first, last) = match tree {
            TreeBlob::Leaf(nodes) => {
                let name = |node: &'_ Node| node.name.clone();
                (Some(nodes.len() as u64), nodes.first().map(name), nodes.last().map(name))
            }
            TreeBlob::Branch(children) => {
                let count = children.iter().try_fold(0_u64, |sum, child| sum.checked_add(child.nodes));
                let name = |child: &BranchEntry| child.first.clone();
                (count, children.first().map(name), children.last().map(name))
            }
            TreeBlob::Content(_) => return false,
        };
        count.is_some()
            && (self.nodes.is_none() || self.nodes == count)
            && (self.first.is_none() || self.first == first.as_deref())
            && self.end.zip(last.as_deref()).is_none_or(|(end, last)| last < end)
    }
}

/// Says that a tree is not being fetched any more, however that ended.
struct Done<'a> {
    trees: &'a Trees,
    key: TreeKey,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.trees.loading.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.trees.loaded.notify_all();
    }
}

/// Roughly what a decoded tree takes, bytes.
fn weight(tree: &TreeBlob) -> u64 {
    let bytes = match tree {
        TreeBlob::Leaf(nodes) => nodes.iter().map(node_weight).sum(),
        TreeBlob::Branch(children) => {
            children.iter().map(|child| size_of_val(child) + child.first.len()).sum()
        }
        TreeBlob::Content(ids) => size_of_val(&ids[..]),
    };
    bytes as u64 + 128
}

fn node_weight(node: &Node) -> usize {
    let content = match node.content() {
        Some(Content::Blobs(ids) | Content::Lists(ids)) => size_of_val(&ids[..]),
        None => 0,
    };
    let special = match &node.kind {
        NodeKind::Symlink { target } => target.len(),
        NodeKind::File { holes, .. } => size_of_val(&holes[..]),
        _ => 0,
    };
    let xattrs: usize = node.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 80).sum();
    // Names of users and groups, and what the allocator adds.
    size_of::<Node>() + node.name.len() + content + special + xattrs + 80
}
