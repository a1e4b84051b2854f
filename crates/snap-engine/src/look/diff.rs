//! What differs between two snapshots: both trees side by side, name by name; what has one id on both sides is left out unread.

use std::cmp::Ordering;

use snap_format::{BlobId, Node};

use super::compare::{Change, change};
use super::cursor::{DirCursor, Head};
use super::history::{History, Past, components};
use crate::browse::{join, push_name};
use crate::work::Worker;
use crate::{Context, EngineError, Phase, Result};

/// One side of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct DiffSide<'a> {
    /// The snapshot, one of the history's.
    pub past: &'a Past,
    /// A path in it; `None` for all of it.
    pub path: Option<&'a [u8]>,
}

/// An entry that differs.
#[derive(Debug)]
pub struct Differing<'a> {
    /// The full path, on the later side unless it was removed there.
    pub path: &'a [u8],
    /// How.
    pub change: Change,
    /// What it was.
    pub before: Option<&'a Node>,
    /// What it is.
    pub after: Option<&'a Node>,
}

/// How many entries differ, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DiffReport {
    pub added: u64,
    pub removed: u64,
    pub modified: u64,
    pub metadata: u64,
    /// Of another type.
    pub retyped: u64,
    /// Size of the files that came, or have another content now.
    pub added_bytes: u64,
    /// Size of the files that went, or had another content.
    pub removed_bytes: u64,
}

/// Called for each entry that differs.
pub type EachChange<'a> = dyn FnMut(Differing<'_>) -> Result<()> + 'a;

/// Compares, in the order of names; what is in a directory comes after it.
pub fn diff(
    history: &History,
    before: DiffSide<'_>,
    after: DiffSide<'_>,
    context: Context<'_>,
    each: &mut EachChange<'_>,
) -> Result<DiffReport> {
    context.progress.begin(Phase::Scanning, 0, 0);
    let mut walk = Walk {
        history,
        past: [before.past, after.past],
        same_domain: before.past.domain == after.past.domain,
        context,
        worker: Worker::new()?,
        report: DiffReport::default(),
        each,
    };
    let starts = [walk.start(before)?, walk.start(after)?];
    let paths = [before, after].map(|side| {
        components(side.path.unwrap_or_default()).fold(Vec::new(), |path, name| join(&path, name))
    });
    let trees = match starts {
        [Start::Root(old), Start::Root(new)] => [Some(old), Some(new)],
        [Start::Root(old), Start::Node(node)] => [Some(old), node.tree()],
        [Start::Node(node), Start::Root(new)] => [node.tree(), Some(new)],
        [Start::Node(old), Start::Node(new)] => {
            if let Some(change) = change(&old, &new, walk.same_domain) {
                walk.tell(&paths[1], change, Some(&old), Some(&new))?;
            }
            [old.tree(), new.tree()]
        }
    };
    walk.below(paths, trees)?;
    Ok(walk.report)
}

/// What a path leads to.
enum Start {
    Root(BlobId),
    Node(Box<Node>),
}

struct Walk<'a, 'e> {
    history: &'a History,
    past: [&'a Past; 2],
    same_domain: bool,
    context: Context<'a>,
    worker: Worker,
    report: DiffReport,
    each: &'a mut EachChange<'e>,
}

/// A pair of directories that is being compared.
struct Level {
    /// Lengths of their paths.
    path_lens: [usize; 2],
    sides: [DirCursor; 2],
}

const BEFORE: usize = 0;
const AFTER: usize = 1;

impl Walk<'_, '_> {
    fn start(&mut self, side: DiffSide<'_>) -> Result<Start> {
        let DiffSide { past, path } = side;
        let mut found = Start::Root(past.root);
        for name in components(path.unwrap_or_default()) {
            let tree = match &found {
                Start::Root(root) => Some(*root),
                Start::Node(node) => node.tree(),
            };
            let node = match tree {
                Some(tree) => self.history.entry(past.domain, &tree, name, &mut self.worker)?,
                None => None,
            };
            let missing = || EngineError::NoPath {
                path: String::from_utf8_lossy(path.unwrap_or_default()).into_owned(),
                snapshot: past.snapshot.id.to_hex()[..12].to_owned(),
            };
            found = Start::Node(Box::new(node.ok_or_else(missing)?));
        }
        Ok(found)
    }

    fn tell(
        &mut self,
        path: &[u8],
        change: Change,
        before: Option<&Node>,
        after: Option<&Node>,
    ) -> Result<()> {
        let count = match change {
            Change::Added => &mut self.report.added,
            Change::Removed => &mut self.report.removed,
            Change::Modified => &mut self.report.modified,
            Change::Metadata => &mut self.report.metadata,
            Change::Type => &mut self.report.retyped,
        };
        *count += 1;
        if change != Change::Metadata {
            self.report.removed_bytes += before.map_or(0, Node::size);
            self.report.added_bytes += after.map_or(0, Node::size);
        }
        (self.each)(Differing { path, change, before, after })
    }

    /// Compares what is below two directories, one of which may be missing.
    fn below(&mut self, mut paths: [Vec<u8>; 2], trees: [Option<BlobId>; 2]) -> Result<()> {
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(trees);
        loop {
            if let Some(trees) = next.take()
                && let Some(level) = self.enter(&paths, trees)?
            {
                levels.push(level);
            }
            let Some(Level { path_lens, sides }) = levels.last_mut() else { return Ok(()) };
            for (path, len) in paths.iter_mut().zip(path_lens) {
                path.truncate(*len);
            }
            let (old, new) = match self.step(sides, &paths)? {
                Step::Again => continue,
                Step::End => {
                    levels.pop();
                    continue;
                }
                Step::Pair(pair) => *pair,
            };
            let name = old.as_ref().or(new.as_ref()).map(|node| node.name.clone()).unwrap_or_default();
            paths.iter_mut().for_each(|path| push_name(path, &name));
            let found = match (&old, &new) {
                (Some(old), Some(new)) => change(old, new, self.same_domain),
                (Some(_), None) => Some(Change::Removed),
                _ => Some(Change::Added),
            };
            if let Some(found) = found {
                let path = if new.is_some() { &paths[AFTER] } else { &paths[BEFORE] };
                self.tell(path, found, old.as_ref(), new.as_ref())?;
            }
            next = Some([old.and_then(|node| node.tree()), new.and_then(|node| node.tree())]);
        }
    }

    /// Opens two directories; none if there is nothing to compare.
    fn enter(&mut self, paths: &[Vec<u8>; 2], trees: [Option<BlobId>; 2]) -> Result<Option<Level>> {
        let is_same = self.same_domain && trees[BEFORE] == trees[AFTER];
        if is_same || trees == [None, None] {
            return Ok(None);
        }
        self.context.check_stop()?;
        let mut sides = [DirCursor::empty(), DirCursor::empty()];
        for (number, tree) in trees.iter().enumerate() {
            let Some(tree) = tree else { continue };
            self.context.progress.add(1, 0);
            match DirCursor::open(self.history, self.past[number].domain, tree, &mut self.worker) {
                Ok(cursor) => sides[number] = cursor,
                Err(error) => {
                    // What cannot be listed is neither there nor gone.
                    self.lost(number, &paths[number], error)?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(Level { path_lens: [paths[BEFORE].len(), paths[AFTER].len()], sides }))
    }

    fn lost(&self, side: usize, path: &[u8], error: EngineError) -> Result<()> {
        self.history.lost(self.context.observer, self.past[side], path, error)
    }

    fn step(&mut self, sides: &mut [DirCursor; 2], paths: &[Vec<u8>; 2]) -> Result<Step> {
        let [old, new] = sides;
        let (old_head, new_head) = (old.head(), new.head());
        let order = match (old_head.name(), new_head.name()) {
            (None, None) => return Ok(Step::End),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        let (opens_old, opens_new) = match (&old_head, &new_head) {
            (Head::Piece(one), Head::Piece(other)) if self.same_domain && one.id == other.id => {
                old.skip_piece();
                new.skip_piece();
                return Ok(Step::Again);
            }
            (old, new) => (
                matches!(old, Head::Piece(_)) && order.is_le(),
                matches!(new, Head::Piece(_)) && order.is_ge(),
            ),
        };
        if opens_old || opens_new {
            for (side, opens) in [(BEFORE, opens_old), (AFTER, opens_new)] {
                if !opens {
                    continue;
                }
                self.context.progress.add(1, 0);
                if let Err(error) = sides[side].open_piece(self.history, &mut self.worker) {
                    self.lost(side, &paths[side], error)?;
                    // Whether the names that may be in it came or went cannot be told.
                    let until = sides[side].head().name().map(<[u8]>::to_vec);
                    let other = 1 - side;
                    while let Err(error) =
                        sides[other].skip_until(self.history, until.as_deref(), &mut self.worker)
                    {
                        self.lost(other, &paths[other], error)?;
                    }
                    break;
                }
            }
            return Ok(Step::Again);
        }
        Ok(Step::Pair(Box::new(match order {
            Ordering::Less => (old.take(), None),
            Ordering::Greater => (None, new.take()),
            Ordering::Equal => (old.take(), new.take()),
        })))
    }
}

enum Step {
    Again,
    End,
    /// The same name on both sides, or on one.
    Pair(Box<(Option<Node>, Option<Node>)>),
}
