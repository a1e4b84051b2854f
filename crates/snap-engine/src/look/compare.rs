use snap_format::{Node, NodeKind};

use super::matcher::EntryType;

/// How an entry differs from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Change {
    Added,
    Removed,
    /// Another content or target.
    Modified,
    /// The same content with another mode, owner, time or extended attribute.
    Metadata,
    /// Another type.
    Type,
}

impl Change {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Modified => "modified",
            Self::Metadata => "metadata",
            Self::Type => "type",
        }
    }
}

/// What became of `before`. Inode and change time say nothing of an entry; the time of a directory says nothing that its
/// entries do not. `same_domain` is whether equal chunks have equal ids: if not, size and time are all there is to compare.
pub(super) fn change(before: &Node, after: &Node, same_domain: bool) -> Option<Change> {
    if EntryType::of(&before.kind) != EntryType::of(&after.kind) {
        return Some(Change::Type);
    }
    if let (Some(old), Some(new)) = (before.tree(), after.tree()) {
        let looks_same = has_same_attributes(before, after) && (old != new || before.mtime == after.mtime);
        return (!looks_same).then_some(Change::Metadata);
    }
    if !has_same_content(before, after, same_domain) {
        return Some(Change::Modified);
    }
    let looks_same = has_same_attributes(before, after) && before.mtime == after.mtime;
    (!looks_same).then_some(Change::Metadata)
}

/// Whether nothing that a restore brings back tells them apart, whatever a directory has in it.
pub(super) fn is_same_version(one: &Node, other: &Node, same_domain: bool) -> bool {
    let same_tree = !same_domain || one.tree() == other.tree();
    change(one, other, same_domain).is_none() && same_tree && one.mtime == other.mtime
}

fn has_same_content(before: &Node, after: &Node, same_domain: bool) -> bool {
    match (&before.kind, &after.kind) {
        (
            NodeKind::File { size, content, holes, .. },
            NodeKind::File { size: new_size, content: new_content, holes: new_holes, .. },
        ) => {
            let same_chunks = if same_domain {
                content == new_content && holes == new_holes
            } else {
                before.mtime == after.mtime
            };
            size == new_size && same_chunks && before.unreadable == after.unreadable
        }
        (
            NodeKind::Object { size, content, .. },
            NodeKind::Object { size: new_size, content: new_content, .. },
        ) => {
            let same_chunks = if same_domain { content == new_content } else { before.mtime == after.mtime };
            size == new_size && same_chunks
        }
        (before, after) => before == after,
    }
}

fn has_same_attributes(before: &Node, after: &Node) -> bool {
    let metadata = |node: &Node| match &node.kind {
        NodeKind::Object { metadata, .. } => Some(metadata.clone()),
        _ => None,
    };
    (before.mode, before.uid, before.gid) == (after.mode, after.uid, after.gid)
        && before.xattrs == after.xattrs
        && metadata(before) == metadata(after)
}
