use snap_format::{BlobId, BranchEntry, Node};

use super::history::{History, Piece};
use crate::Result;
use crate::work::Worker;

/// The entries of a directory in order, read piece by piece, so that a piece can be left out unread.
pub(super) struct DirCursor {
    domain: usize,
    levels: Vec<Level>,
    /// The last name so far: names ascend across pieces, too.
    last: Option<Vec<u8>>,
}

enum Level {
    Leaf(std::vec::IntoIter<Node>),
    /// With the level of its children.
    Branch(std::vec::IntoIter<BranchEntry>, usize),
}

/// What comes next.
pub(super) enum Head<'a> {
    Node(&'a Node),
    /// A piece that has not been read.
    Piece(&'a BranchEntry),
    End,
}

impl Head<'_> {
    /// The name that comes next; none at the end.
    pub(super) fn name(&self) -> Option<&[u8]> {
        match self {
            Head::Node(node) => Some(&node.name),
            Head::Piece(piece) => Some(&piece.first),
            Head::End => None,
        }
    }
}

impl DirCursor {
    /// A directory without entries.
    pub(super) const fn empty() -> Self {
        Self { domain: 0, levels: Vec::new(), last: None }
    }

    /// Begins a directory.
    pub(super) fn open(history: &History, domain: usize, tree: &BlobId, worker: &mut Worker) -> Result<Self> {
        let mut out = Self { domain, levels: Vec::new(), last: None };
        out.enter(history, tree, None, 0, worker)?;
        Ok(out)
    }

    fn enter(
        &mut self,
        history: &History,
        tree: &BlobId,
        first: Option<&[u8]>,
        level: usize,
        worker: &mut Worker,
    ) -> Result<()> {
        match history.piece(self.domain, tree, level, worker)? {
            Piece::Leaf(nodes) => {
                let begins = nodes.first().map(|node| node.name.as_slice());
                let is_behind = self.last.as_deref() < begins || begins.is_none();
                if !is_behind || first.is_some_and(|first| begins != Some(first)) {
                    return Err(history.malformed(tree, "its names are not those that belong there"));
                }
                if let Some(end) = nodes.last() {
                    self.last = Some(end.name.clone());
                }
                self.levels.push(Level::Leaf(nodes.into_iter()));
            }
            Piece::Branch(children) => {
                if first.is_some_and(|first| children[0].first != first) {
                    return Err(history.malformed(tree, "its names are not those that belong there"));
                }
                self.levels.push(Level::Branch(children.into_iter(), level + 1));
            }
        }
        Ok(())
    }

    /// What comes next.
    pub(super) fn head(&mut self) -> Head<'_> {
        while let Some(level) = self.levels.last() {
            let is_done = match level {
                Level::Leaf(nodes) => nodes.as_slice().is_empty(),
                Level::Branch(children, _) => children.as_slice().is_empty(),
            };
            if !is_done {
                break;
            }
            self.levels.pop();
        }
        match self.levels.last() {
            None => Head::End,
            Some(Level::Leaf(nodes)) => Head::Node(&nodes.as_slice()[0]),
            Some(Level::Branch(children, _)) => Head::Piece(&children.as_slice()[0]),
        }
    }

    /// Leaves out the piece that comes next.
    pub(super) fn skip_piece(&mut self) {
        if let Some(Level::Branch(children, _)) = self.levels.last_mut() {
            children.next();
        }
    }

    /// Reads the piece that comes next. If that fails, it is left out.
    pub(super) fn open_piece(&mut self, history: &History, worker: &mut Worker) -> Result<()> {
        let Some(Level::Branch(children, level)) = self.levels.last_mut() else { return Ok(()) };
        let level = *level;
        match children.next() {
            Some(child) => self.enter(history, &child.id, Some(&child.first), level, worker),
            None => Ok(()),
        }
    }

    /// Takes the node that comes next.
    pub(super) fn take(&mut self) -> Option<Node> {
        match self.levels.last_mut() {
            Some(Level::Leaf(nodes)) => nodes.next(),
            _ => None,
        }
    }

    /// Leaves out what is before `name`, or everything.
    pub(super) fn skip_until(
        &mut self,
        history: &History,
        name: Option<&[u8]>,
        worker: &mut Worker,
    ) -> Result<()> {
        loop {
            let head = self.head();
            match (&head, head.name()) {
                (_, None) => return Ok(()),
                (_, Some(head)) if name.is_some_and(|name| head >= name) => return Ok(()),
                (Head::Piece(_), _) if name.is_none() => self.skip_piece(),
                (Head::Piece(_), _) => self.open_piece(history, worker)?,
                _ => drop(self.take()),
            }
        }
    }
}
