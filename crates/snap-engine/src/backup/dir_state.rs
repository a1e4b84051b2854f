//! Directories whose entries are on their way, and putting them together when all below is done.

use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, Node, NodeKind};
use snap_repo::Scratch;

use super::run::Run;
use super::trees::store_directory;
use crate::Result;

/// The node that stands for a tree until its directory is finished.
pub(super) const NO_TREE: NodeKind = NodeKind::Dir { tree: BlobId([0; 32]) };

/// A directory whose entries are on their way.
pub(super) struct DirState {
    /// Absolute path as stored.
    pub(super) path: Vec<u8>,
    above: Option<(Arc<DirState>, usize)>,
    pending: Mutex<Pending>,
}

/// What a directory waits for.
#[derive(Default)]
pub(super) struct Expected {
    /// A place for each entry, in the order of names; filled where the entry is done.
    pub(super) nodes: Vec<Option<Node>>,
    /// How many are not done.
    pub(super) waiting: usize,
    /// The tree of the parent snapshot, if no entry that is done differs from it.
    pub(super) same_as: Option<BlobId>,
    /// The directory's own node in the parent snapshot.
    pub(super) before: Option<Box<Node>>,
}

impl Expected {
    /// So many entries, none of them done.
    pub(super) fn waiting(entries: usize) -> Self {
        Self { nodes: vec![None; entries], waiting: entries, ..Self::default() }
    }
}

#[derive(Default)]
struct Pending {
    /// The directory's own node; its tree comes last.
    node: Option<Node>,
    expected: Expected,
}

/// How an entry ended.
pub(super) enum Outcome {
    /// Its node is that of the parent snapshot.
    Same(Node),
    Differs(Node),
    LeftOut,
}

impl From<Option<Node>> for Outcome {
    fn from(node: Option<Node>) -> Self {
        node.map_or(Self::LeftOut, Self::Differs)
    }
}

impl DirState {
    pub(super) fn new(path: Vec<u8>, above: Option<(Arc<Self>, usize)>) -> Arc<Self> {
        Arc::new(Self { path, above, pending: Mutex::default() })
    }

    /// Sets what results are to come and the directory's own node. One result more is owed: that of whoever lists.
    pub(super) fn expect(&self, mut expected: Expected, node: Option<Node>) {
        expected.waiting += 1;
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Pending { node, expected };
    }

    /// Takes a result, or that all have been asked for. Returns what to finish if it was the last.
    fn take(&self, result: Option<(usize, Outcome)>) -> Option<Pending> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = &mut pending.expected;
        match result {
            Some((slot, Outcome::Same(node))) => expected.nodes[slot] = Some(node),
            Some((slot, Outcome::Differs(node))) => {
                expected.nodes[slot] = Some(node);
                expected.same_as = None;
            }
            Some((_, Outcome::LeftOut)) => expected.same_as = None,
            None => {}
        }
        expected.waiting -= 1;
        (expected.waiting == 0).then(|| std::mem::take(&mut *pending))
    }
}

/// Gives a directory the result of one entry; finishes it, and what is above it, if that was the last.
pub(super) fn complete(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    slot: usize,
    outcome: impl Into<Outcome>,
    scratch: &mut Scratch,
) -> Result<()> {
    finish_upwards(run, Arc::clone(dir), Some((slot, outcome.into())), scratch)
}

/// Tells that a directory has been listed.
pub(super) fn listed(run: &Run<'_>, dir: &Arc<DirState>, scratch: &mut Scratch) -> Result<()> {
    finish_upwards(run, Arc::clone(dir), None, scratch)
}

fn finish_upwards(
    run: &Run<'_>,
    mut dir: Arc<DirState>,
    mut result: Option<(usize, Outcome)>,
    scratch: &mut Scratch,
) -> Result<()> {
    while let Some(Pending { node, expected }) = dir.take(result) {
        let tree = match expected.same_as {
            Some(tree) => tree,
            None => {
                let nodes: Vec<Node> = expected.nodes.into_iter().flatten().collect();
                store_directory(&run.writer, &nodes, &run.trees, scratch)?
            }
        };
        let Some((above, slot)) = dir.above.clone() else {
            run.set_root(tree);
            return Ok(());
        };
        let mut own = node.expect("every directory but the root has a node");
        own.kind = NodeKind::Dir { tree };
        let is_same = expected.before.is_some_and(|before| *before == own);
        let outcome = if is_same { Outcome::Same(own) } else { Outcome::Differs(own) };
        (dir, result) = (above, Some((slot, outcome)));
    }
    Ok(())
}
