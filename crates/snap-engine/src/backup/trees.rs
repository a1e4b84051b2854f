//! Turning the nodes of a directory, or the blobs of a long file, into tree blobs.

use snap_crypto::hash;
use snap_format::{BlobId, BlobKind, BranchEntry, Content, LeafCutter, Node, NodeKind, TreeBlob, limits};
use snap_repo::{Scratch, Writer};

use super::tree_cache::Trees;
use crate::Result;

/// Stores a directory whose nodes are sorted by name; returns the root of its tree.
pub(super) fn store_directory(
    writer: &Writer,
    nodes: &[Node],
    trees: &Trees,
    scratch: &mut Scratch,
) -> Result<BlobId> {
    let mut level = Vec::new();
    let mut cutter = LeafCutter::default();
    let mut start = 0;
    for (at, node) in nodes.iter().enumerate() {
        if cutter.push(rough_size(node), name_hash(&node.name)) {
            level.push(store_leaf(writer, &nodes[start..=at], trees, scratch)?);
            start = at + 1;
        }
    }
    if start < nodes.len() || nodes.is_empty() {
        level.push(store_leaf(writer, &nodes[start..], trees, scratch)?);
    }
    while level.len() > 1 {
        let groups = std::mem::take(&mut level);
        for group in groups.chunks(LeafCutter::BRANCH) {
            let nodes = group.iter().map(|entry| entry.nodes).sum();
            let plain = TreeBlob::Branch(group.to_vec()).encode();
            let id = store_tree(writer, plain, trees, scratch)?;
            level.push(BranchEntry { first: group[0].first.clone(), id, nodes });
        }
    }
    Ok(level[0].id)
}

fn store_leaf(writer: &Writer, nodes: &[Node], trees: &Trees, scratch: &mut Scratch) -> Result<BranchEntry> {
    let id = store_tree(writer, TreeBlob::encode_leaf(nodes), trees, scratch)?;
    let first = nodes.first().map(|node| node.name.clone()).unwrap_or_default();
    Ok(BranchEntry { first, id, nodes: nodes.len() as u64 })
}

fn store_tree(writer: &Writer, plain: Vec<u8>, trees: &Trees, scratch: &mut Scratch) -> Result<BlobId> {
    let (id, is_new) = writer.add(BlobKind::Tree, &plain, scratch)?;
    trees.remember(id, &plain, is_new);
    Ok(id)
}

/// The content of a file: its blobs, or lists of them if they are many.
pub(super) fn store_content(
    writer: &Writer,
    ids: Vec<BlobId>,
    trees: &Trees,
    scratch: &mut Scratch,
) -> Result<Content> {
    if ids.len() <= limits::INLINE_CONTENT {
        return Ok(Content::Blobs(ids));
    }
    let lists = ids
        .chunks(limits::CONTENT_LIST)
        .map(|ids| store_tree(writer, TreeBlob::Content(ids.to_vec()).encode(), trees, scratch));
    Ok(Content::Lists(lists.collect::<Result<_>>()?))
}

fn name_hash(name: &[u8]) -> u32 {
    let digest = hash(name);
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Near the encoded size of a node; decides where leaves end, so it is part of what makes trees alike, not of the format.
fn rough_size(node: &Node) -> usize {
    let content = match &node.kind {
        NodeKind::File { content: Content::Blobs(ids) | Content::Lists(ids), holes, .. } => {
            ids.len() * 32 + holes.len() * 12
        }
        NodeKind::Symlink { target } => target.len(),
        _ => 0,
    };
    let xattrs: usize = node.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 8).sum();
    96 + node.name.len() + content + xattrs
}
