//! `find`: first every tree that the snapshots have is looked at once, on all threads, and only where something was found is
//! remembered. Then each snapshot is walked again along the ways that lead there, for the paths.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use snap_crypto::hash;
use snap_format::{BlobId, Node};

use super::history::{History, Past, Piece, without_content};
use super::matcher::{FindOptions, Matcher};
use crate::browse::{join, push_name};
use crate::work::{Worker, for_each_growing, lock};
use crate::{Context, EngineError, Phase, Result};

/// Most trees of which it is remembered whether something is there, about 80 bytes each. What comes after is walked each time.
const MAX_KNOWN: usize = 4 << 20;
/// Bytes of entries that are kept from one snapshot to the next.
const KEPT: usize = 24 << 20;

/// What `find` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FindReport {
    /// Entries found; one that several snapshots have counts for each.
    pub matches: u64,
    /// Trees that were looked at.
    pub trees: u64,
}

/// Called for each match: the snapshot, the full path, the entry without its list of chunks.
pub type EachMatch<'a> = dyn FnMut(&Past, &[u8], &Node) -> Result<()> + 'a;

/// Looks for entries in all snapshots of `history`. Matches come snapshot by snapshot, in the order of names.
pub fn find(
    history: &History,
    options: &FindOptions,
    context: Context<'_>,
    each: &mut EachMatch<'_>,
) -> Result<FindReport> {
    let matcher = Matcher::new(options)?;
    context.progress.begin(Phase::Scanning, 0, 0);
    let known = explore(history, &matcher, context)?;
    let trees = known.visits;
    let alive = known.alive();
    let mut walk = Walk {
        history,
        matcher: &matcher,
        context,
        numbers: known.numbers,
        alive,
        views: HashMap::new(),
        kept: 0,
        matches: 0,
        worker: Worker::new()?,
    };
    for past in history.past() {
        walk.snapshot(past, each)?;
    }
    Ok(FindReport { matches: walk.matches, trees })
}

/// What a tree is known by: its id, and its path if that matters.
type Key = [u8; 32];

fn key(matcher: &Matcher<'_>, tree: &BlobId, path: &[u8]) -> Key {
    if matcher.by_path { hash(&[&tree.0, path].concat()) } else { tree.0 }
}

/// Trees that were looked at, by number.
#[derive(Default)]
struct Known {
    numbers: HashMap<Key, u32>,
    /// Something in the tree itself was found, or it cannot be read.
    hits: Vec<bool>,
    /// A tree, and one that names it.
    above: Vec<(u32, u32)>,
    /// Trees that were read.
    visits: u64,
}

struct Item {
    domain: usize,
    tree: BlobId,
    number: u32,
    level: usize,
    /// Empty if it does not matter.
    path: Vec<u8>,
}

impl Known {
    /// The number of a tree, and whether it is new; none if there are too many.
    fn number(&mut self, key: Key) -> Option<(u32, bool)> {
        if let Some(number) = self.numbers.get(&key) {
            return Some((*number, false));
        }
        let number = u32::try_from(self.hits.len()).ok().filter(|_| self.hits.len() < MAX_KNOWN)?;
        self.numbers.insert(key, number);
        self.hits.push(false);
        Some((number, true))
    }

    /// Trees in or below which something was found.
    fn alive(&self) -> Vec<bool> {
        let mut above = self.above.clone();
        above.sort_unstable();
        above.dedup();
        let mut alive = self.hits.clone();
        let mut waiting: Vec<u32> =
            (0..).zip(&self.hits).filter(|(_, hit)| **hit).map(|(it, _)| it).collect();
        while let Some(number) = waiting.pop() {
            let start = above.partition_point(|(below, _)| *below < number);
            for (_, parent) in above[start..].iter().take_while(|(below, _)| *below == number) {
                if !std::mem::replace(&mut alive[*parent as usize], true) {
                    waiting.push(*parent);
                }
            }
        }
        alive
    }
}

fn explore(history: &History, matcher: &Matcher<'_>, context: Context<'_>) -> Result<Known> {
    let known = Mutex::new(Known::default());
    let mut first = Vec::new();
    for past in history.past().iter().rev() {
        let path = Vec::new();
        if let Some((number, true)) = lock(&known).number(key(matcher, &past.root, &path)) {
            first.push(Item { domain: past.domain, tree: past.root, number, level: 0, path });
        }
    }
    for_each_growing(first, history.threads(context), |item, worker, added| {
        context.check_stop()?;
        context.progress.add(1, 0);
        lock(&known).visits += 1;
        let piece = match history.piece(item.domain, &item.tree, item.level, worker) {
            Ok(piece) => piece,
            Err(EngineError::Repo(error)) => {
                // Told by the walk, which knows the path.
                error.into_finding()?;
                lock(&known).hits[item.number as usize] = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut below: Vec<(BlobId, usize, Vec<u8>)> = Vec::new();
        let mut is_hit = false;
        match piece {
            Piece::Branch(children) => {
                below.extend(children.iter().map(|child| (child.id, item.level + 1, item.path.clone())));
            }
            Piece::Leaf(nodes) => {
                for node in &nodes {
                    let needs_path = matcher.by_path && (node.tree().is_some() || !is_hit);
                    let path = if needs_path { join(&item.path, &node.name) } else { Vec::new() };
                    is_hit = is_hit || matcher.matches(&path, node);
                    if let Some(tree) = node.tree().filter(|_| matcher.may_match_below(&path)) {
                        below.push((tree, 0, path));
                    }
                }
            }
        }
        let keys: Vec<Key> = below.iter().map(|(tree, _, path)| key(matcher, tree, path)).collect();
        let mut known = lock(&known);
        known.hits[item.number as usize] |= is_hit;
        for (key, (tree, level, path)) in keys.into_iter().zip(below) {
            let Some((number, is_new)) = known.number(key) else {
                // Nobody will know: the walk has to go there.
                known.hits[item.number as usize] = true;
                continue;
            };
            known.above.push((number, item.number));
            if is_new {
                added.push(Item { domain: item.domain, tree, number, level, path });
            }
        }
        added.reverse(); // the last is taken first: neighbours lie next to each other
        Ok(())
    })?;
    Ok(known.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What of a tree is of use: entries found, and ways on.
enum View {
    Leaf(Vec<(Node, bool)>),
    Branch(Vec<BlobId>),
}

struct Walk<'a> {
    history: &'a History,
    matcher: &'a Matcher<'a>,
    context: Context<'a>,
    numbers: HashMap<Key, u32>,
    alive: Vec<bool>,
    views: HashMap<Key, Arc<View>>,
    kept: usize,
    matches: u64,
    worker: Worker,
}

/// A tree on the way, with the length of its directory's path.
struct Level {
    path_len: usize,
    view: Arc<View>,
    next: usize,
    level: usize,
}

impl Walk<'_> {
    fn is_alive(&self, key: &Key) -> bool {
        self.numbers.get(key).is_none_or(|number| self.alive[*number as usize])
    }

    fn snapshot(&mut self, past: &Past, each: &mut EachMatch<'_>) -> Result<()> {
        let mut path = Vec::new();
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some((past.root, 0));
        loop {
            if let Some((tree, level)) = next.take() {
                self.context.check_stop()?;
                match self.view(past, &tree, level, &path) {
                    Ok(Some(view)) => levels.push(Level { path_len: path.len(), view, next: 0, level }),
                    Ok(None) => {}
                    Err(error) => self.history.lost(self.context.observer, past, &path, error)?,
                }
            }
            let Some(top) = levels.last_mut() else { return Ok(()) };
            path.truncate(top.path_len);
            let at = top.next;
            top.next += 1;
            let is_done = match &*top.view {
                View::Branch(children) => {
                    next = children.get(at).map(|child| (*child, top.level + 1));
                    next.is_none()
                }
                View::Leaf(nodes) => match nodes.get(at) {
                    Some((node, is_match)) => {
                        push_name(&mut path, &node.name);
                        if *is_match {
                            self.matches += 1;
                            each(past, &path, node)?;
                        }
                        next = node.tree().map(|tree| (tree, 0));
                        false
                    }
                    None => true,
                },
            };
            if is_done {
                levels.pop();
            }
        }
    }

    /// What of a tree is of use; none if nothing.
    fn view(&mut self, past: &Past, tree: &BlobId, level: usize, path: &[u8]) -> Result<Option<Arc<View>>> {
        let own = key(self.matcher, tree, path);
        if !self.is_alive(&own) || !self.matcher.may_match_below(path) {
            return Ok(None);
        }
        if let Some(view) = self.views.get(&own) {
            return Ok(Some(Arc::clone(view)));
        }
        let (view, size) = match self.history.piece(past.domain, tree, level, &mut self.worker)? {
            Piece::Branch(children) => {
                let ids: Vec<BlobId> = children.into_iter().map(|child| child.id).collect();
                let kept: Vec<BlobId> =
                    ids.into_iter().filter(|id| self.is_alive(&key(self.matcher, id, path))).collect();
                let size = kept.len() * size_of::<BlobId>();
                (View::Branch(kept), size)
            }
            Piece::Leaf(nodes) => {
                let mut kept = Vec::new();
                let mut size = 0;
                for node in nodes {
                    let full = if self.matcher.by_path { join(path, &node.name) } else { Vec::new() };
                    let is_match = self.matcher.matches(&full, &node);
                    let leads_on = || {
                        let tree = node.tree()?;
                        self.is_alive(&key(self.matcher, &tree, &full)).then_some(())
                    };
                    if is_match || leads_on().is_some() {
                        size += size_of::<Node>() + node.name.len() + 64;
                        kept.push((without_content(node), is_match));
                    }
                }
                (View::Leaf(kept), size)
            }
        };
        let view = Arc::new(view);
        let size = size + size_of::<Key>() + size_of::<View>() + 64;
        if self.kept + size <= KEPT {
            self.kept += size;
            self.views.insert(own, Arc::clone(&view));
        }
        Ok(Some(view))
    }
}
