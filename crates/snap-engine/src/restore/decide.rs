//! What to do with an entry, given what is there: the table of the modes.

use snap_format::{Node, NodeKind};
use snap_source::{FileType, Stat};

use super::dirs::Dirs;
use super::{Overwrite, Restore};

/// What to do with an entry, given what is there.
pub(super) enum Decision {
    Create,
    /// It is there and right, but for its attributes.
    Adjust,
    Overwrite,
    /// What is there stays; whether it looks like the snapshot's.
    Skip {
        is_same: bool,
    },
}

/// Decides about an entry that is no directory.
pub(super) fn decide(
    restore: &Restore<'_>,
    dirs: &Dirs,
    dir: u32,
    node: &Node,
    existing: Option<&Stat>,
) -> Decision {
    let Some(stat) = existing else { return Decision::Create };
    let is_same = match (&node.kind, stat.kind) {
        (NodeKind::File { .. } | NodeKind::Object { .. }, FileType::File) => {
            stat.size == node.size() && stat.mtime == node.mtime
        }
        (NodeKind::Symlink { target }, FileType::Symlink) => {
            let read = dirs.open(dir).and_then(|dir| dir.as_source().read_link(&node.name));
            read.is_ok_and(|read| read == *target)
        }
        (NodeKind::Fifo, FileType::Fifo) => true,
        (NodeKind::CharDevice { major, minor }, FileType::CharDevice)
        | (NodeKind::BlockDevice { major, minor }, FileType::BlockDevice) => stat.rdev == (*major, *minor),
        _ => false,
    };
    match restore.options.overwrite {
        overwrite if overwrite.leaves(node, stat) => Decision::Skip { is_same },
        Overwrite::IfChanged | Overwrite::IfNewer if is_same => Decision::Adjust,
        _ => Decision::Overwrite,
    }
}

impl Overwrite {
    /// Whether what is there stays whatever it is.
    pub(super) fn leaves(self, node: &Node, stat: &Stat) -> bool {
        match self {
            Self::Never => true,
            Self::IfNewer => node.mtime <= stat.mtime,
            Self::IfChanged | Self::Always => false,
        }
    }
}
