use std::ops::Range;
use std::sync::Arc;

use fuser::Errno;
use snap_format::{BlobId, Content, Node, NodeKind, TreeBlob};
use snap_repo::{Finding, FindingCode};

use crate::error::{Answer, Fault};
use crate::snapshots::Snap;
use crate::store::Store;
use crate::trees::{Load, Trees};

/// Where the bytes of a file are.
pub(crate) struct FileMap {
    pub(crate) snap: Arc<Snap>,
    /// Holes included.
    pub(crate) size: u64,
    /// Offset and length, ascending.
    holes: Vec<(u64, u64)>,
    /// Length of all holes before each of them.
    hole_sums: Vec<u64>,
    pub(crate) chunks: Vec<BlobId>,
    /// Where each chunk begins in the data, which leaves the holes out; and where the last one ends.
    starts: Vec<u64>,
}

/// A part of what is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Bytes of zeros.
    Hole(usize),
    /// A range of a chunk.
    Data(usize, Range<usize>),
}

impl FileMap {
    /// Finds all chunks of a file in the index. They must add up to its size.
    pub(crate) fn open(
        store: &Store,
        trees: &Trees,
        snap: &Arc<Snap>,
        node: &Node,
        load: Load,
    ) -> Answer<Self> {
        let holes = match &node.kind {
            NodeKind::File { holes, .. } => holes.clone(),
            _ => Vec::new(),
        };
        let mut sum = 0;
        let mut hole_sums = Vec::with_capacity(holes.len());
        for (_, length) in &holes {
            hole_sums.push(sum);
            sum += length;
        }
        let mut map = Self {
            snap: Arc::clone(snap),
            size: node.size(),
            holes,
            hole_sums,
            chunks: Vec::new(),
            starts: vec![0],
        };
        match node.content() {
            None => {}
            Some(Content::Blobs(ids)) => map.add(store, ids)?,
            Some(Content::Lists(lists)) => {
                for list in lists {
                    match &*trees.tree(snap, list, load)? {
                        TreeBlob::Content(ids) => map.add(store, ids)?,
                        _ => return Err(map.forged(store, node, "a tree where a content list is expected")),
                    }
                }
            }
        }
        if map.data_len().checked_add(sum) != Some(map.size) {
            return Err(map.forged(store, node, "its size is not that of its chunks and holes"));
        }
        Ok(map)
    }

    fn add(&mut self, store: &Store, ids: &[BlobId]) -> Answer<()> {
        let reader = store.reader();
        let mut end = self.data_len();
        for id in ids {
            let Some(length) = reader.index().plain_len(&self.snap.domain.name, id) else {
                return Err(store.not_indexed(id));
            };
            end += u64::from(length);
            // A list may stand there a thousand times: stop before it fills the memory.
            if end > self.size || length == 0 {
                return Err(Errno::EIO.into());
            }
            self.chunks.push(*id);
            self.starts.push(end);
        }
        Ok(())
    }

    fn forged(&self, store: &Store, node: &Node, why: &str) -> Fault {
        let name = String::from_utf8_lossy(&node.name);
        let finding = Finding::new(FindingCode::Forged, "packs", format!("{name}: {why}"));
        store.reports.error(finding.into())
    }

    fn data_len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Roughly what it takes in memory, bytes.
    pub(crate) fn weight(&self) -> u64 {
        (self.chunks.len() * 40 + self.holes.len() * 24 + 200) as u64
    }

    /// What lies from `offset` on, as far as the file goes.
    pub(crate) fn segments(&self, offset: u64, length: usize) -> Vec<Segment> {
        let end = offset.saturating_add(length as u64).min(self.size);
        let mut out = Vec::new();
        let mut at = offset;
        // The first hole that ends behind it.
        let mut hole = self.holes.partition_point(|(start, length)| start + length <= at);
        while at < end {
            let next = self.holes.get(hole).copied();
            if let Some((start, length)) = next.filter(|(start, _)| *start <= at) {
                let until = (start + length).min(end);
                out.push(Segment::Hole((until - at) as usize));
                (at, hole) = (until, hole + 1);
                continue;
            }
            let until = next.map_or(end, |(start, _)| start.min(end));
            self.push_data(at - self.holes_before(hole), until - at, &mut out);
            at = until;
        }
        out
    }

    fn holes_before(&self, hole: usize) -> u64 {
        match self.hole_sums.get(hole) {
            Some(sum) => *sum,
            None => self.holes.last().zip(self.hole_sums.last()).map_or(0, |(hole, sum)| hole.1 + sum),
        }
    }

    fn push_data(&self, mut at: u64, mut length: u64, out: &mut Vec<Segment>) {
        while length > 0 {
            let chunk = self.chunk_at(at);
            let (start, end) = (self.starts[chunk], self.starts[chunk + 1]);
            let now = length.min(end - at);
            let within = (at - start) as usize;
            out.push(Segment::Data(chunk, within..within + now as usize));
            (at, length) = (at + now, length - now);
        }
    }

    /// The chunk at a place in the data.
    fn chunk_at(&self, at: u64) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The chunks of the data that follow `offset` in the file, so many bytes of them.
    pub(crate) fn chunks_after(&self, offset: u64, length: u64) -> Range<usize> {
        if self.chunks.is_empty() {
            return 0..0;
        }
        let hole = self.holes.partition_point(|(start, length)| start + length <= offset);
        let at = offset.saturating_sub(self.holes_before(hole));
        let last = self.data_len() - 1;
        let first = self.chunk_at(at.min(last));
        first..self.chunk_at(at.saturating_add(length).min(last)) + 1
    }

    /// The first place from `offset` on that is data, or a hole; the end of the file is a hole.
    pub(crate) fn seek(&self, offset: u64, is_for_data: bool) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let mut at = offset;
        let from = self.holes.partition_point(|(start, length)| start + length <= at);
        for (start, length) in &self.holes[from..] {
            match (*start <= at, is_for_data) {
                (true, false) | (false, true) => return Some(at),
                (true, true) => at = start + length,
                (false, false) => return Some(*start),
            }
        }
        match is_for_data {
            true => (at < self.size).then_some(at),
            false => Some(self.size),
        }
    }
}
