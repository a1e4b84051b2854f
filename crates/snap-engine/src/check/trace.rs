//! From damaged blobs to the snapshots and paths that they touch. Walked only if something is damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use snap_format::{BlobId, BlobKind, Content, Node, NodeKind, ObjectId, TreeBlob};

use super::trees::{Blame, Trees};
use crate::Result;
use crate::work::{Worker, lock};

/// Paths that are named for one finding.
const PATHS_NAMED: usize = 100;
/// Times that a damaged directory met again under another path is walked again for more paths. Without an end to it, a
/// hostile writer could nest directories so that their paths double at each level.
const REVISITS: usize = 10_000;

/// What one cause of damage touches.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) snapshots: BTreeSet<ObjectId>,
    pub(super) paths: BTreeSet<Vec<u8>>,
}

/// A directory, or a piece of one, whose parts are being traced.
struct Frame {
    tree: BlobId,
    path_len: usize,
    below: std::vec::IntoIter<(Vec<u8>, BlobId)>,
    blames: BTreeSet<Blame>,
}

/// Trees of a domain that were traced.
#[derive(Default)]
struct Known {
    clean: HashSet<BlobId>,
    /// With the hash of the path under which it was met first.
    tainted: HashMap<BlobId, (Vec<Blame>, [u8; 32])>,
}

struct Tracer<'a, 't> {
    trees: &'t Trees<'a>,
    domain: usize,
    known: Vec<Known>,
    touched: BTreeMap<Blame, Touched>,
    revisits: usize,
    worker: Worker,
}

/// Snapshots and paths by what is to blame.
pub(super) fn trace(trees: &Trees<'_>) -> Result<BTreeMap<Blame, Touched>> {
    let known = trees.domains.iter().map(|_| Known::default()).collect();
    let (touched, worker) = (BTreeMap::new(), Worker::new()?);
    let mut tracer = Tracer { trees, domain: 0, known, touched, revisits: REVISITS, worker };
    for root in &trees.roots {
        tracer.domain = root.domain;
        for blame in tracer.trace_tree(root.tree)? {
            tracer.touched.entry(blame).or_default().snapshots.insert(root.snapshot);
        }
    }
    Ok(tracer.touched)
}

enum Entered {
    Known(Vec<Blame>),
    New(Frame),
}

impl Tracer<'_, '_> {
    fn trace_tree(&mut self, root: BlobId) -> Result<Vec<Blame>> {
        let mut path = Vec::new();
        let mut stack = match self.enter(root, &path)? {
            Entered::Known(blames) => return Ok(blames),
            Entered::New(frame) => vec![frame],
        };
        while let Some(frame) = stack.last_mut() {
            path.truncate(frame.path_len);
            if let Some((name, tree)) = frame.below.next() {
                extend(&mut path, &name);
                match self.enter(tree, &path)? {
                    Entered::Known(blames) => frame.blames.extend(blames),
                    Entered::New(frame) => stack.push(frame),
                }
                continue;
            }
            let Some(Frame { tree, blames, .. }) = stack.pop() else { break };
            self.remember(tree, &blames, &path);
            match stack.last_mut() {
                Some(above) => above.blames.extend(blames),
                None => return Ok(blames.into_iter().collect()),
            }
        }
        Ok(Vec::new())
    }

    fn remember(&mut self, tree: BlobId, blames: &BTreeSet<Blame>, path: &[u8]) {
        let known = &mut self.known[self.domain];
        if blames.is_empty() {
            known.clean.insert(tree);
        } else {
            let met = || (blames.iter().copied().collect(), snap_crypto::hash(path));
            known.tainted.entry(tree).or_insert_with(met);
        }
    }

    fn enter(&mut self, tree: BlobId, path: &[u8]) -> Result<Entered> {
        self.trees.check.store.context.check_stop()?;
        let known = &self.known[self.domain];
        if known.clean.contains(&tree) {
            return Ok(Entered::Known(Vec::new()));
        }
        if let Some((blames, first_path)) = known.tainted.get(&tree) {
            let wants_paths = |blame| {
                self.touched.get(blame).is_none_or(|touched: &Touched| touched.paths.len() < PATHS_NAMED)
            };
            if *first_path == snap_crypto::hash(path) || self.revisits == 0 || !blames.iter().any(wants_paths)
            {
                return Ok(Entered::Known(blames.clone()));
            }
            self.revisits -= 1;
        }
        let mut blames = BTreeSet::new();
        let blame = self.trees.blame(self.domain, &tree, BlobKind::Tree);
        if let Some(blame) = blame {
            self.touch(blame, path);
            blames.insert(blame);
        }
        let mut below = Vec::new();
        if matches!(blame, None | Some(Blame::Unindexed(_)))
            && let Some(content) = self.trees.load(self.domain, &tree, &mut self.worker)?
        {
            self.take_accusations(&tree, path, &mut blames);
            match content {
                TreeBlob::Leaf(nodes) => {
                    for node in nodes {
                        self.trace_node(&node, path, &mut blames)?;
                        if let NodeKind::Dir { tree } = node.kind {
                            below.push((node.name, tree));
                        }
                    }
                }
                TreeBlob::Branch(entries) => {
                    below.extend(entries.into_iter().map(|entry| (Vec::new(), entry.id)));
                }
                TreeBlob::Content(_) => {}
            }
        }
        Ok(Entered::New(Frame { tree, path_len: path.len(), below: below.into_iter(), blames }))
    }

    /// What the walk before has found to contradict itself in this tree.
    fn take_accusations(&mut self, tree: &BlobId, path: &[u8], blames: &mut BTreeSet<Blame>) {
        let accused = lock(&self.trees.liars).get(tree).cloned();
        let Some((pack, names)) = accused else { return };
        let blame = Blame::Pack(pack);
        blames.insert(blame);
        if names.is_empty() {
            self.touch(blame, path);
        }
        for name in names {
            let mut full = path.to_vec();
            extend(&mut full, &name);
            self.touch(blame, &full);
        }
    }

    fn trace_node(&mut self, node: &Node, path: &[u8], blames: &mut BTreeSet<Blame>) -> Result<()> {
        let mut found = BTreeSet::new();
        match node.content() {
            Some(Content::Blobs(ids)) => self.blame_data(ids, &mut found),
            Some(Content::Lists(lists)) => {
                for list in lists {
                    self.trace_list(list, &mut found)?;
                }
            }
            None => {}
        }
        if !found.is_empty() {
            let mut full = path.to_vec();
            extend(&mut full, &node.name);
            found.iter().for_each(|blame| self.touch(*blame, &full));
            blames.append(&mut found);
        }
        Ok(())
    }

    fn trace_list(&mut self, list: &BlobId, found: &mut BTreeSet<Blame>) -> Result<()> {
        let known = &self.known[self.domain];
        if known.clean.contains(list) {
            return Ok(());
        }
        if let Some((blames, _)) = known.tainted.get(list) {
            found.extend(blames);
            return Ok(());
        }
        let mut here = BTreeSet::new();
        let blame = self.trees.blame(self.domain, list, BlobKind::Tree);
        here.extend(blame);
        if matches!(blame, None | Some(Blame::Unindexed(_))) {
            match self.trees.load(self.domain, list, &mut self.worker)? {
                Some(TreeBlob::Content(ids)) => self.blame_data(&ids, &mut here),
                Some(_) => {
                    let accused = lock(&self.trees.liars).get(list).map(|(pack, _)| *pack);
                    here.extend(accused.map(Blame::Pack));
                }
                None => {}
            }
        }
        self.remember(*list, &here, b"");
        found.append(&mut here);
        Ok(())
    }

    fn blame_data(&self, ids: &[BlobId], found: &mut BTreeSet<Blame>) {
        found.extend(ids.iter().filter_map(|id| self.trees.blame(self.domain, id, BlobKind::Data)));
    }

    fn touch(&mut self, blame: Blame, path: &[u8]) {
        let touched = self.touched.entry(blame).or_default();
        if touched.paths.len() < PATHS_NAMED {
            touched.paths.insert(if path.is_empty() { b"/".to_vec() } else { path.to_vec() });
        }
    }
}

/// Goes one name down; a piece of the same directory has none.
fn extend(path: &mut Vec<u8>, name: &[u8]) {
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
}
