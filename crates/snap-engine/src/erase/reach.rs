//! What only the erased parts need.

use std::collections::HashSet;

use snap_format::{BlobId, Content, Node, TreeBlob};
use snap_repo::{BlobReader, DomainKeys, Scratch};

use super::is_above_any;
use crate::{Context, EngineError, Result};

struct Walk<'a> {
    reader: &'a BlobReader,
    domain: &'a DomainKeys,
    scratch: Scratch,
    context: Context<'a>,
    /// Trees that were walked as a whole.
    seen: HashSet<BlobId>,
}

/// What was taken out of the snapshots of a domain.
#[derive(Default)]
pub(super) struct TakenOut {
    /// Roots of snapshots that go.
    pub(super) roots: Vec<BlobId>,
    /// Nodes that were dropped.
    pub(super) nodes: Vec<Node>,
    /// Trees that others stand in place of.
    pub(super) replaced: HashSet<BlobId>,
}

/// The blobs that nothing needs any more once all of `taken` is gone. `stay` are the other roots as they were, and whether
/// `paths` are taken out of them.
pub(super) fn unneeded(
    reader: &BlobReader,
    domain: &DomainKeys,
    taken: &TakenOut,
    stay: &[(BlobId, bool)],
    paths: &[Vec<u8>],
    context: Context<'_>,
) -> Result<HashSet<BlobId>> {
    let walk = || -> Result<Walk<'_>> {
        let scratch = Scratch::new(1).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        Ok(Walk { reader, domain, scratch, context, seen: HashSet::new() })
    };
    let mut only = taken.replaced.clone();
    let mut first = walk()?;
    let mut add = |id| {
        only.insert(id);
    };
    for root in &taken.roots {
        first.tree(*root, Skip::default(), &mut add)?;
    }
    for node in &taken.nodes {
        first.node(node, &mut add)?;
    }
    let mut second = walk()?;
    for (root, changes) in stay {
        if only.is_empty() {
            break;
        }
        let skip = if *changes { Skip { paths, replaced: Some(&taken.replaced) } } else { Skip::default() };
        second.tree(*root, skip, &mut |id| {
            only.remove(&id);
        })?;
    }
    Ok(only)
}

/// Their stored bytes, about.
pub(super) fn stored_bytes(reader: &BlobReader, domain: &DomainKeys, ids: &HashSet<BlobId>) -> u64 {
    ids.iter().filter_map(|id| stored(reader, domain, id)).sum()
}

/// The share that a blob has of what it is stored in.
fn stored(reader: &BlobReader, domain: &DomainKeys, id: &BlobId) -> Option<u64> {
    let place = reader.index().locate(&domain.name, id)?;
    let (unit, all) = (u64::from(place.stored_len), u64::from(place.unit_len()).max(1));
    Some(if place.group.is_some() { unit * u64::from(place.plain_len) / all } else { unit })
}

/// What a walk passes over.
#[derive(Default, Clone, Copy)]
struct Skip<'a> {
    /// With all that is below.
    paths: &'a [Vec<u8>],
    /// Above these paths others stand in place of these trees.
    replaced: Option<&'a HashSet<BlobId>>,
}

impl Walk<'_> {
    fn tree(&mut self, root: BlobId, skip: Skip<'_>, each: &mut dyn FnMut(BlobId)) -> Result<()> {
        // With a path where something below is left out.
        let mut waiting = vec![(root, (!skip.paths.is_empty()).then(Vec::new))];
        while let Some((tree, path)) = waiting.pop() {
            self.context.check_stop()?;
            if path.is_none() && !self.seen.insert(tree) {
                continue;
            }
            let is_replaced = |replaced: &HashSet<BlobId>| path.is_some() && replaced.contains(&tree);
            if !skip.replaced.is_some_and(is_replaced) {
                each(tree);
            }
            match self.reader.tree(self.domain, &tree, &mut self.scratch)? {
                TreeBlob::Branch(entries) => {
                    waiting.extend(entries.into_iter().map(|entry| (entry.id, path.clone())));
                }
                TreeBlob::Content(ids) => ids.into_iter().for_each(&mut *each),
                TreeBlob::Leaf(nodes) => {
                    for node in nodes {
                        let below = path.as_ref().map(|path| [path.as_slice(), b"/", &node.name].concat());
                        if below.as_ref().is_some_and(|below| skip.paths.contains(below)) {
                            continue;
                        }
                        match node.tree() {
                            Some(tree) => {
                                waiting.push((tree, below.filter(|below| is_above_any(below, skip.paths))));
                            }
                            None => self.node(&node, each)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, each: &mut dyn FnMut(BlobId)) -> Result<()> {
        match (node.tree(), node.content()) {
            (Some(tree), _) => self.tree(tree, Skip::default(), each),
            (None, Some(Content::Blobs(ids))) => {
                ids.iter().for_each(|id| each(*id));
                Ok(())
            }
            (None, Some(Content::Lists(lists))) => {
                lists.iter().try_for_each(|list| self.tree(*list, Skip::default(), each))
            }
            (None, None) => Ok(()),
        }
    }
}
