//! The walk: from the bottom up, with a stack of its own, since a tree may be deeper than a thread's.

use std::rc::Rc;
use std::vec::IntoIter;

use snap_format::{BlobId, BranchEntry, Node, NodeKind, TreeBlob, limits};
use snap_repo::{Area, Finding, FindingCode, RepoError};

use super::outcome::{Notes, Outcome, Tally};
use super::{Decide, MISSING_TREE, Rewriter, Verdict, mark_missing};
use crate::Result;

/// What the outcome of a tree depends on: the tree, whether all of it goes, and the path, if that counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) tree: BlobId,
    pub(super) dropping: bool,
    path: Option<Vec<u8>>,
}

/// A tree whose parts are being written anew.
struct Frame {
    key: Key,
    path_len: usize,
    level: usize,
    work: Work,
    changed: bool,
    dropped: Tally,
    notes: Notes,
    lost: bool,
}

enum Work {
    Leaf { left: IntoIter<Node>, done: Vec<Node>, waiting: Option<Box<Node>> },
    Branch { left: IntoIter<BranchEntry>, done: Vec<BranchEntry>, waiting: Option<BranchEntry> },
}

/// What a frame needs next.
enum Step {
    /// The outcome of this tree, under this path, one level of branches down or in another directory.
    Below {
        tree: BlobId,
        name: Option<Vec<u8>>,
        dropping: bool,
    },
    Done,
}

impl<D: Decide> Rewriter<'_, D> {
    pub(super) fn run(&mut self, root: BlobId) -> Result<Rc<Outcome>> {
        let mut path = Vec::new();
        let mut stack: Vec<Frame> = Vec::new();
        let mut ready = self.enter(root, &path, 0, false, &mut stack)?;
        loop {
            self.context.check_stop()?;
            let Some(top) = stack.last_mut() else {
                return Ok(ready.expect("the last frame leaves its outcome"));
            };
            path.truncate(top.path_len);
            if let Some(outcome) = ready.take() {
                self.take(top, &outcome)?;
            }
            let (level, dropping_above) = (top.level, top.key.dropping);
            match self.step(top, &mut path)? {
                Step::Below { tree, name, dropping } => {
                    let level = if name.is_some() { 0 } else { level + 1 };
                    if let Some(name) = name {
                        path.push(b'/');
                        path.extend_from_slice(&name);
                    }
                    let dropping = dropping || dropping_above;
                    ready = self.enter(tree, &path, level, dropping, &mut stack)?;
                }
                Step::Done => {
                    let frame = stack.pop().expect("it was just looked at");
                    ready = Some(self.finish(frame)?);
                }
            }
        }
    }

    /// The outcome of a tree if it is known; otherwise a frame for it is on the stack now.
    fn enter(
        &mut self,
        tree: BlobId,
        path: &[u8],
        level: usize,
        dropping: bool,
        stack: &mut Vec<Frame>,
    ) -> Result<Option<Rc<Outcome>>> {
        let by_path = self.decide.by_path() && !dropping;
        let key = Key { tree, dropping, path: by_path.then(|| path.to_vec()) };
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(Rc::clone(known)));
        }
        let read = self.trees.read(&tree).and_then(|read| match read {
            TreeBlob::Content(_) => Err(malformed(tree, "a content list where a directory is expected")),
            TreeBlob::Branch(_) if level >= limits::BRANCH_LEVELS => {
                Err(malformed(tree, "a branch below too many branches"))
            }
            read => Ok(read),
        });
        let work = match read {
            Ok(TreeBlob::Leaf(nodes)) => {
                Work::Leaf { left: nodes.into_iter(), done: Vec::new(), waiting: None }
            }
            Ok(TreeBlob::Branch(entries)) => {
                Work::Branch { left: entries.into_iter(), done: Vec::new(), waiting: None }
            }
            Ok(TreeBlob::Content(_)) => unreachable!("refused above"),
            Err(error) => {
                // What goes need not be readable.
                if !dropping {
                    self.decide.lost(&tree, error)?;
                }
                let outcome = Rc::new(Outcome { lost: !dropping, goes: dropping, ..Outcome::default() });
                self.known.insert(key, Rc::clone(&outcome));
                return Ok(Some(outcome));
            }
        };
        stack.push(Frame {
            key,
            path_len: path.len(),
            level,
            work,
            changed: false,
            dropped: Tally::default(),
            notes: Notes::default(),
            lost: false,
        });
        Ok(None)
    }

    /// Goes on with a frame until it waits for a tree.
    fn step(&mut self, frame: &mut Frame, path: &mut Vec<u8>) -> Result<Step> {
        let dropping = frame.key.dropping;
        match &mut frame.work {
            Work::Branch { left, waiting, .. } => Ok(match left.next() {
                Some(entry) => {
                    let tree = entry.id;
                    *waiting = Some(entry);
                    Step::Below { tree, name: None, dropping: false }
                }
                None => Step::Done,
            }),
            Work::Leaf { left, done, waiting } => {
                for node in left.by_ref() {
                    let verdict = if dropping {
                        Verdict::Drop
                    } else {
                        path.push(b'/');
                        path.extend_from_slice(&node.name);
                        self.decide.node(path, &node, &mut self.trees)?
                    };
                    let concerns = !dropping && self.decide.concerns(path);
                    path.truncate(frame.path_len);
                    let goes = matches!(verdict, Verdict::Drop);
                    if goes {
                        frame.changed = true;
                        frame.dropped.count(&node);
                    }
                    match (verdict, node.tree()) {
                        (Verdict::Replace(new, note), _) => {
                            frame.changed = true;
                            frame.notes.add([b"/", node.name.as_slice()].concat(), note);
                            done.push(*new);
                        }
                        (_, Some(tree)) if goes || concerns => {
                            let name = Some(node.name.clone());
                            *waiting = Some(Box::new(node));
                            return Ok(Step::Below { tree, name, dropping: goes });
                        }
                        _ if goes => {}
                        _ => done.push(node),
                    }
                }
                Ok(Step::Done)
            }
        }
    }

    /// Gives a frame the outcome that it waited for.
    fn take(&mut self, frame: &mut Frame, outcome: &Outcome) -> Result<()> {
        frame.dropped.add(&outcome.dropped);
        match &mut frame.work {
            Work::Branch { done, waiting, .. } => {
                frame.lost |= outcome.lost;
                frame.notes.add_below(b"", &outcome.notes);
                let entry = waiting.take().expect("a branch waits for one of its entries");
                match outcome.tree {
                    Some(tree) if tree == entry.id => done.push(entry),
                    Some(id) => {
                        frame.changed = true;
                        done.push(BranchEntry { first: outcome.first.clone(), id, nodes: outcome.nodes });
                    }
                    None => frame.changed = true,
                }
            }
            Work::Leaf { done, waiting, .. } => {
                let mut node = waiting.take().expect("a leaf waits for one of its directories");
                if outcome.goes {
                    return Ok(());
                }
                let name = [b"/", node.name.as_slice()].concat();
                frame.notes.add_below(&name, &outcome.notes);
                let tree = match outcome.tree {
                    Some(tree) => tree,
                    None => self.trees.add(&TreeBlob::Leaf(Vec::new()))?,
                };
                if outcome.lost {
                    mark_missing(&mut node, MISSING_TREE);
                    frame.notes.add(name, MISSING_TREE.to_owned());
                }
                frame.changed |= outcome.lost || node.tree() != Some(tree);
                node.kind = NodeKind::Dir { tree };
                done.push(*node);
            }
        }
        Ok(())
    }

    fn finish(&mut self, frame: Frame) -> Result<Rc<Outcome>> {
        let Frame { key, work, changed, dropped, notes, lost, .. } = frame;
        let (first, nodes, tree) = match work {
            Work::Leaf { done, .. } => {
                let first = done.first().map(|node| node.name.clone());
                (first, done.len() as u64, TreeBlob::Leaf(done))
            }
            Work::Branch { done, .. } => {
                let nodes = done.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.nodes));
                (done.first().map(|entry| entry.first.clone()), nodes, TreeBlob::Branch(done))
            }
        };
        let id = match first {
            _ if !changed => Some(key.tree),
            // A piece without nodes is none.
            None => None,
            Some(_) if key.dropping => None,
            Some(_) => Some(self.trees.add(&tree)?),
        };
        let first = first.unwrap_or_default();
        let outcome = Rc::new(Outcome { tree: id, first, nodes, dropped, notes, lost, goes: key.dropping });
        self.known.insert(key, Rc::clone(&outcome));
        Ok(outcome)
    }
}

fn malformed(tree: BlobId, why: &str) -> RepoError {
    RepoError::from(Finding::new(FindingCode::Corrupt, Area::Packs.prefix(), why).blob(tree))
}
