//! Which packs a tree needs, itself and by everything below it. Packs of trees are fetched whole, each once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use snap_format::{BlobId, BlobKind, Content, NodeKind, ObjectId, TreeBlob};
use snap_repo::{BlobReader, DomainKeys, RepoError};

use crate::work::{Worker, for_each, lock};
use crate::{Context, Event, Phase, Result};

/// A tree and where it leads. Numbers, since there may be millions: about 100 bytes for each directory that is not like
/// another one.
struct Tree {
    children: Box<[u32]>,
    /// Packs that hold it, and the data of its files.
    packs: Box<[u32]>,
}

/// A tree as it was read: by names, not yet by numbers.
struct Found {
    domain: usize,
    id: BlobId,
    children: Vec<BlobId>,
    packs: Vec<ObjectId>,
}

/// The trees below some roots.
#[derive(Default)]
pub(super) struct Graph {
    domains: Vec<DomainKeys>,
    numbers: HashMap<(usize, BlobId), u32>,
    names: Vec<(usize, BlobId)>,
    /// By number; none where the tree cannot be had.
    trees: Vec<Option<Tree>>,
    pack_numbers: HashMap<ObjectId, u32>,
    packs: Vec<ObjectId>,
    fetched: HashSet<ObjectId>,
}

impl Graph {
    /// A root, of which nothing is read yet.
    pub(super) fn root(&mut self, keys: DomainKeys, tree: BlobId) -> u32 {
        let known = self.domains.iter().position(|domain| domain.name == keys.name);
        let domain = known.unwrap_or_else(|| {
            self.domains.push(keys);
            self.domains.len() - 1
        });
        self.number(domain, tree)
    }

    /// Reads everything below `roots`. What is damaged is told, and stays unknown.
    pub(super) fn grow(&mut self, reader: &BlobReader, roots: &[u32], context: Context<'_>) -> Result<()> {
        context.progress.begin(Phase::Checking, 0, 0);
        let (mut waiting, mut reached) = (roots.to_vec(), HashSet::new());
        loop {
            let mut unread: BTreeSet<u32> = BTreeSet::new();
            while let Some(number) = waiting.pop() {
                match &self.trees[number as usize] {
                    None => drop(unread.insert(number)),
                    Some(tree) if reached.insert(number) => waiting.extend(&tree.children),
                    Some(_) => {}
                }
            }
            let packs = self.packs_to_read(reader, &unread);
            if packs.is_empty() {
                return Ok(());
            }
            for found in self.read(reader, &packs, context)? {
                self.take(found);
            }
            self.fetched.extend(packs.into_iter().map(|(_, id, _)| id));
            waiting.extend(unread);
        }
    }

    /// The next pack to try for each of these trees: domain, name, position in the index.
    fn packs_to_read(&self, reader: &BlobReader, trees: &BTreeSet<u32>) -> BTreeSet<(usize, ObjectId, u32)> {
        let mut out = BTreeSet::new();
        for number in trees {
            let (domain, id) = self.names[*number as usize];
            let places = reader.index().locate_all(&self.domains[domain].name, &id);
            let is_new = |pack: &ObjectId| !self.fetched.contains(pack);
            let next = places.iter().find(|it| it.kind == BlobKind::Tree && is_new(&it.pack_id));
            out.extend(next.map(|place| (domain, place.pack_id, place.pack)));
        }
        out
    }

    fn read(
        &self,
        reader: &BlobReader,
        packs: &BTreeSet<(usize, ObjectId, u32)>,
        context: Context<'_>,
    ) -> Result<Vec<Found>> {
        let packs: Vec<_> = packs.iter().copied().collect();
        let out = Mutex::new(Vec::new());
        for_each(&packs, context.threads, |(domain, _, pack), worker| {
            context.check_stop()?;
            let keys = &self.domains[*domain];
            match read_pack(reader, keys, *domain, *pack, worker) {
                Ok(mut found) => lock(&out).append(&mut found),
                Err(error) => context.observer.event(Event::Finding(&error.into_finding()?)),
            }
            context.progress.add(1, 0);
            Ok(())
        })?;
        Ok(out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn take(&mut self, found: Found) {
        let children = found.children.iter().map(|id| self.number(found.domain, *id)).collect();
        let packs = found.packs.iter().map(|id| self.pack_number(*id)).collect();
        let number = self.number(found.domain, found.id);
        self.trees[number as usize] = Some(Tree { children, packs });
    }

    fn number(&mut self, domain: usize, id: BlobId) -> u32 {
        let next = u32::try_from(self.names.len()).expect("fewer than four billion trees");
        let number = *self.numbers.entry((domain, id)).or_insert(next);
        if number == next {
            self.names.push((domain, id));
            self.trees.push(None);
        }
        number
    }

    fn pack_number(&mut self, id: ObjectId) -> u32 {
        let next = u32::try_from(self.packs.len()).expect("fewer than four billion packs");
        let number = *self.pack_numbers.entry(id).or_insert(next);
        if number == next {
            self.packs.push(id);
        }
        number
    }

    /// Every pack that `roots` need, and whether that is all: whether every tree could be had.
    pub(super) fn packs_below(&self, roots: &[u32]) -> (BTreeSet<ObjectId>, bool) {
        let (mut waiting, mut reached, mut packs) = (roots.to_vec(), HashSet::new(), BTreeSet::new());
        let mut is_all = true;
        while let Some(number) = waiting.pop() {
            let Some(tree) = &self.trees[number as usize] else {
                is_all = false;
                continue;
            };
            if reached.insert(number) {
                waiting.extend(&tree.children);
                packs.extend(tree.packs.iter().map(|pack| self.packs[*pack as usize]));
            }
        }
        (packs, is_all)
    }

    /// What `of` gives for each pack that a root needs, put together by `join`, for each of `roots`; `unknown` stands for a
    /// tree that cannot be had. Each tree is visited once, however many roots lead to it.
    pub(super) fn fold<T: Clone>(
        &self,
        roots: &[u32],
        of: impl Fn(&ObjectId) -> T,
        join: impl Fn(T, T) -> T,
        unknown: &T,
    ) -> Vec<Option<T>> {
        let of_packs: Vec<T> = self.packs.iter().map(of).collect();
        let mut known: Vec<Option<Option<T>>> = vec![None; self.trees.len()];
        for root in roots {
            let mut waiting = vec![*root];
            while let Some(number) = waiting.last().copied() {
                let at = number as usize;
                if known[at].is_some() {
                    waiting.pop();
                    continue;
                }
                let Some(tree) = &self.trees[at] else {
                    known[at] = Some(Some(unknown.clone()));
                    continue;
                };
                // Children first; a tree is named by its contents, so none is below itself.
                let open: Vec<u32> =
                    tree.children.iter().copied().filter(|child| known[*child as usize].is_none()).collect();
                if open.is_empty() {
                    let below = tree.children.iter().filter_map(|child| known[*child as usize].clone()?);
                    let own = tree.packs.iter().map(|pack| of_packs[*pack as usize].clone());
                    known[at] = Some(below.chain(own).reduce(&join));
                } else {
                    waiting.extend(open);
                }
            }
        }
        roots.iter().map(|root| known[*root as usize].clone().flatten()).collect()
    }
}

/// All trees of a pack. Not all of them need be wanted.
fn read_pack(
    reader: &BlobReader,
    keys: &DomainKeys,
    domain: usize,
    pack: u32,
    worker: &mut Worker,
) -> Result<Vec<Found>, RepoError> {
    let fetched = reader.tree_pack(keys, pack)?;
    let mut out = Vec::with_capacity(fetched.trees().len());
    for tree in fetched.trees() {
        reader.open_tree(keys, &fetched, tree, &mut worker.scratch, &mut worker.plain)?;
        // One that does not parse is left out, and so unknown: whoever checks is told why.
        let Ok(parsed) = TreeBlob::decode(&worker.plain) else { continue };
        let id = tree.0;
        let (mut children, mut data) = (Vec::new(), Vec::new());
        match parsed {
            TreeBlob::Leaf(nodes) => {
                for node in nodes {
                    match node.content() {
                        Some(Content::Blobs(ids)) => data.extend_from_slice(ids),
                        Some(Content::Lists(ids)) => children.extend_from_slice(ids),
                        None => {}
                    }
                    if let NodeKind::Dir { tree } = node.kind {
                        children.push(tree);
                    }
                }
            }
            TreeBlob::Branch(entries) => children.extend(entries.iter().map(|entry| entry.id)),
            TreeBlob::Content(ids) => data = ids,
        }
        children.sort_unstable();
        children.dedup();
        // Any place may serve; all of them are taken, so that no copy of a blob lapses before another.
        let places = data.iter().chain([&id]).flat_map(|blob| reader.index().locate_all(&keys.name, blob));
        let packs: BTreeSet<ObjectId> = places.map(|place| place.pack_id).collect();
        let nowhere = data.iter().any(|blob| reader.index().locate(&keys.name, blob).is_none());
        if nowhere {
            continue; // it needs what nobody has: unknown
        }
        out.push(Found { domain, id, children, packs: packs.into_iter().collect() });
    }
    Ok(out)
}
