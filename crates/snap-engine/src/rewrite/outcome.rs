use snap_format::{BlobId, Node, NodeKind, Summary};

/// Notes that are kept of one tree; of more only the number is known. A hostile writer can nest directories so that their
/// paths double at each level.
const NOTES_KEPT: usize = 100_000;

/// Nodes that were taken out, by what the summary of a snapshot counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // as in `Summary`
pub struct Tally {
    pub files: u64,
    pub dirs: u64,
    pub others: u64,
    pub source_bytes: u64,
}

impl Tally {
    pub(super) fn count(&mut self, node: &Node) {
        let number = match node.kind {
            NodeKind::File { .. } | NodeKind::Object { .. } => &mut self.files,
            NodeKind::Dir { .. } => &mut self.dirs,
            _ => &mut self.others,
        };
        *number = number.saturating_add(1);
        self.source_bytes = self.source_bytes.saturating_add(node.size());
    }

    /// Adds what else went.
    pub fn add(&mut self, other: &Self) {
        self.files = self.files.saturating_add(other.files);
        self.dirs = self.dirs.saturating_add(other.dirs);
        self.others = self.others.saturating_add(other.others);
        self.source_bytes = self.source_bytes.saturating_add(other.source_bytes);
    }

    /// The summary of a snapshot without these. What it says of the run stays.
    #[must_use]
    pub const fn taken_from(&self, summary: &Summary) -> Summary {
        Summary {
            files: summary.files.saturating_sub(self.files),
            dirs: summary.dirs.saturating_sub(self.dirs),
            others: summary.others.saturating_sub(self.others),
            source_bytes: summary.source_bytes.saturating_sub(self.source_bytes),
            ..*summary
        }
    }
}

/// What was said of nodes, by path.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Path and text.
    pub list: Vec<(Vec<u8>, String)>,
    /// How many there are, those that were not kept included.
    pub count: u64,
}

impl Notes {
    pub(super) fn add(&mut self, path: Vec<u8>, text: String) {
        self.count = self.count.saturating_add(1);
        if self.list.len() < NOTES_KEPT {
            self.list.push((path, text));
        }
    }

    /// Takes those of a piece, whose paths begin below `prefix`.
    pub(super) fn add_below(&mut self, prefix: &[u8], other: &Self) {
        self.count = self.count.saturating_add(other.count);
        let room = NOTES_KEPT - self.list.len();
        let below = other.list.iter().take(room);
        self.list.extend(below.map(|(path, text)| ([prefix, path].concat(), text.clone())));
    }
}

/// A piece of a directory, written anew. Paths are relative to the directory, with a slash before them.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Nothing, if it holds no node any more.
    pub(super) tree: Option<BlobId>,
    pub(super) first: Vec<u8>,
    pub(super) nodes: u64,
    pub(super) dropped: Tally,
    pub(super) notes: Notes,
    /// A tree of this directory could not be read.
    pub(super) lost: bool,
    /// All of it goes, and its directory too.
    pub(super) goes: bool,
}
