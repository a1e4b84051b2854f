//! Writing snapshots anew, with some nodes taken out or others in their place.
//!
//! - [`Decide`] says what becomes of each node; [`Rewriter`] makes the new trees of one domain. A tree in which nothing changes
//!   keeps its id; none is read twice, unless it depends on the path what becomes of it.
//! - [`replace_all`] puts the new snapshots, each a [`Change`] of an old one, and forgets the old ones once all are there.
//!
//! Without a writer nothing is stored, and the ids come out the same: so a plan is made.

mod frames;
mod outcome;
mod replace;

use std::collections::HashMap;
use std::rc::Rc;

use snap_format::{BlobId, BlobKind, Node, TreeBlob, Xattr};
use snap_repo::{BlobReader, DomainKeys, RepoError, Scratch, Writer};

use crate::{Context, EngineError, Result};
use frames::Key;
use outcome::Outcome;

pub use outcome::{Notes, Tally};
pub(crate) use replace::announce;
pub use replace::{Change, Leftovers, Request, forget_old, replace_all, snapshots_to_rewrite, write_all};

/// The extended attribute of a node of which something is missing: `offset+len,…`, in bytes, or `tree` for a directory.
pub const MISSING: &[u8] = b"user.snap.missing";
/// What it says of a directory.
pub const MISSING_TREE: &str = "tree";

/// What becomes of a node.
#[derive(Debug)]
pub enum Verdict {
    /// It stays; what is below a directory is decided one by one.
    Keep,
    /// It goes, with all that is below.
    Drop,
    /// Another stands in its place: of the same name, and no directory. The text goes to [`Notes`].
    Replace(Box<Node>, String),
}

/// Decides what becomes of nodes. Paths are absolute, raw bytes.
pub trait Decide {
    /// Whether something may be decided otherwise under another path.
    fn by_path(&self) -> bool;

    /// Whether anything below this directory may change; if not, its tree is not read.
    fn concerns(&self, path: &[u8]) -> bool;

    /// What becomes of a node.
    fn node(&mut self, path: &[u8], node: &Node, trees: &mut TreeStore<'_>) -> Result<Verdict>;

    /// A tree cannot be read. An error ends it; otherwise its directory is kept without what was in that tree, and marked.
    fn lost(&mut self, tree: &BlobId, error: RepoError) -> Result<()>;
}

/// Trees of one domain: those that are there, and those that are new.
pub struct TreeStore<'a> {
    /// Gives what is there.
    pub reader: &'a BlobReader,
    /// Names them.
    pub domain: &'a DomainKeys,
    /// Takes what is new; without it, nothing is stored.
    pub writer: Option<&'a Writer>,
    /// Buffers.
    pub scratch: Scratch,
}

impl TreeStore<'_> {
    /// Reads a tree.
    pub fn read(&mut self, id: &BlobId) -> Result<TreeBlob, RepoError> {
        self.reader.tree(self.domain, id, &mut self.scratch)
    }

    /// Stores a tree.
    pub fn add(&mut self, tree: &TreeBlob) -> Result<BlobId> {
        let plain = tree.encode();
        match self.writer {
            Some(writer) => Ok(writer.add(BlobKind::Tree, &plain, &mut self.scratch)?.0),
            None => Ok(BlobId(self.domain.tree_id.id(&plain))),
        }
    }
}

/// A tree, written anew.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// Its id now; the same if nothing changed.
    pub root: BlobId,
    /// What went.
    pub dropped: Tally,
    /// What was said of nodes that others stand in place of, and of directories that lost something.
    pub notes: Notes,
}

/// Makes new trees of old ones.
pub struct Rewriter<'a, D> {
    trees: TreeStore<'a>,
    decide: D,
    context: Context<'a>,
    known: HashMap<Key, Rc<Outcome>>,
}

impl<'a, D: Decide> Rewriter<'a, D> {
    /// For snapshots of one domain; `writer`, if there is one, must write in it.
    pub fn new(
        reader: &'a BlobReader,
        domain: &'a DomainKeys,
        writer: Option<&'a Writer>,
        decide: D,
        context: Context<'a>,
    ) -> Result<Self> {
        let scratch = Scratch::new(3).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        let trees = TreeStore { reader, domain, writer, scratch };
        Ok(Self { trees, decide, context, known: HashMap::new() })
    }

    /// What decides, with what it has learnt.
    pub const fn decide(&self) -> &D {
        &self.decide
    }

    /// Trees that were read and that others stand in place of, so far. Elsewhere in a snapshot they may have stayed.
    pub fn replaced_trees(&self) -> impl Iterator<Item = BlobId> + '_ {
        let is_replaced = |key: &Key, outcome: &Outcome| !key.dropping && outcome.tree != Some(key.tree);
        self.known.iter().filter(move |(key, outcome)| is_replaced(key, outcome)).map(|(key, _)| key.tree)
    }

    /// Writes the tree of a snapshot's root anew.
    pub fn tree(&mut self, root: BlobId) -> Result<Rewritten> {
        let outcome = self.run(root)?;
        let mut notes = outcome.notes.clone();
        if outcome.lost {
            notes.add(b"/".to_vec(), MISSING_TREE.to_owned());
        }
        let root = match outcome.tree {
            Some(tree) => tree,
            None => self.trees.add(&TreeBlob::Leaf(Vec::new()))?,
        };
        Ok(Rewritten { root, dropped: outcome.dropped, notes })
    }
}

/// Marks a node as one of which something is missing. It loses what tells that it has not changed: the next backup must not
/// take it over.
pub fn mark_missing(node: &mut Node, value: &str) {
    (node.ctime, node.inode) = (None, None);
    node.xattrs.retain(|xattr| xattr.name != MISSING);
    let at = node.xattrs.partition_point(|xattr| xattr.name.as_slice() < MISSING);
    node.xattrs.insert(at, Xattr { name: MISSING.to_vec(), value: value.as_bytes().to_vec() });
}
