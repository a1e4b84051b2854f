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

/// About how many stored bytes nothing needs once the roots `gone` and the nodes `dropped` are erased. `stay` are the other
/// roots, and whether `paths` are taken out of them.
pub(super) fn freed(
    reader: &BlobReader,
    domain: &DomainKeys,
    gone: &[BlobId],
    dropped: &[Node],
    stay: &[(BlobId, bool)],
    paths: &[Vec<u8>],
    context: Context<'_>,
) -> Result<u64> {
    let walk = || -> Result<Walk<'_>> {
        let scratch = Scratch::new(1).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        Ok(Walk { reader, domain, scratch, context, seen: HashSet::new() })
    };
    let mut only = HashSet::new();
    let mut first = walk()?;
    let mut add = |id| {
        only.insert(id);
    };
    for root in gone {
        first.tree(*root, &[], &mut add)?;
    }
    for node in dropped {
        first.node(node, &mut add)?;
    }
    let mut second = walk()?;
    for (root, changes) in stay {
        if only.is_empty() {
            break;
        }
        let skip = if *changes { paths } else { &[] };
        second.tree(*root, skip, &mut |id| {
            only.remove(&id);
        })?;
    }
    Ok(only.iter().filter_map(|id| stored(reader, domain, id)).sum())
}

/// The share that a blob has of what it is stored in.
fn stored(reader: &BlobReader, domain: &DomainKeys, id: &BlobId) -> Option<u64> {
    let place = reader.index().locate(&domain.name, id)?;
    let (unit, all) = (u64::from(place.stored_len), u64::from(place.unit_len()).max(1));
    Some(if place.group.is_some() { unit * u64::from(place.plain_len) / all } else { unit })
}

impl Walk<'_> {
    fn tree(&mut self, root: BlobId, skip: &[Vec<u8>], each: &mut dyn FnMut(BlobId)) -> Result<()> {
        // With a path where something below is left out.
        let mut waiting = vec![(root, (!skip.is_empty()).then(Vec::new))];
        while let Some((tree, path)) = waiting.pop() {
            self.context.check_stop()?;
            if path.is_none() && !self.seen.insert(tree) {
                continue;
            }
            each(tree);
            match self.reader.tree(self.domain, &tree, &mut self.scratch)? {
                TreeBlob::Branch(entries) => {
                    waiting.extend(entries.into_iter().map(|entry| (entry.id, path.clone())));
                }
                TreeBlob::Content(ids) => ids.into_iter().for_each(&mut *each),
                TreeBlob::Leaf(nodes) => {
                    for node in nodes {
                        let below = path.as_ref().map(|path| [path.as_slice(), b"/", &node.name].concat());
                        if below.as_ref().is_some_and(|below| skip.contains(below)) {
                            continue;
                        }
                        match node.tree() {
                            Some(tree) => {
                                waiting.push((tree, below.filter(|below| is_above_any(below, skip))));
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
            (Some(tree), _) => self.tree(tree, &[], each),
            (None, Some(Content::Blobs(ids))) => {
                ids.iter().for_each(|id| each(*id));
                Ok(())
            }
            (None, Some(Content::Lists(lists))) => {
                lists.iter().try_for_each(|list| self.tree(*list, &[], each))
            }
            (None, None) => Ok(()),
        }
    }
}
