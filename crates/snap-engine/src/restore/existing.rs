//! What of a file is there already, chunk by chunk.

use std::io;

use snap_format::{BlobId, Node, NodeKind};
use snap_source::SourceFile;

use super::Restore;
use super::dirs::Dirs;
use super::plan::FileTask;

/// The mode of a file that a restore has made and not finished.
const UNFINISHED_MODE: u32 = 0o600;
/// Most extents that are asked for; beyond them all counts as data.
const MAX_EXTENTS: usize = 4096;

/// Where the chunks of a file go, around its holes.
pub(super) struct Layout<'a> {
    holes: &'a [(u64, u64)],
    offset: u64,
}

/// Offset and length.
pub(super) type Piece = (u64, u64);

impl<'a> Layout<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        let holes: &[(u64, u64)] = match &node.kind {
            NodeKind::File { holes, .. } => holes,
            _ => &[],
        };
        Self { holes, offset: 0 }
    }

    /// The pieces of the next chunk, of so many bytes; an empty one has none.
    pub(super) fn next(&mut self, mut length: u64) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(1);
        while length > 0 {
            let until = match self.holes {
                [(start, hole), later @ ..] if *start <= self.offset => {
                    (self.offset, self.holes) = (start + hole, later);
                    continue;
                }
                [(start, _), ..] => start - self.offset,
                [] => u64::MAX,
            };
            let now = length.min(until);
            pieces.push((self.offset, now));
            (self.offset, length) = (self.offset + now, length - now);
        }
        pieces
    }
}

/// A regular file that is there.
pub(super) struct Existing<'a> {
    restore: &'a Restore<'a>,
    file: SourceFile,
    buffer: Vec<u8>,
}

impl<'a> Existing<'a> {
    /// `None` if it cannot be read: then nothing of it is right.
    pub(super) fn open(restore: &'a Restore<'a>, dirs: &Dirs, task: &FileTask) -> Option<Self> {
        let file = dirs.open(task.dir).ok()?.as_source().open_file(&task.node.name).ok()?;
        Some(Self { restore, file, buffer: Vec::new() })
    }

    /// Whether this chunk is there, in these places.
    pub(super) fn has(&mut self, id: &BlobId, pieces: &[Piece]) -> bool {
        let length: u64 = pieces.iter().map(|piece| piece.1).sum();
        self.read(pieces).is_ok_and(|read| read as u64 == length)
            && self.restore.browser.domain().data_id.id(&self.buffer) == id.0
    }

    /// Reads the pieces one behind the other; fewer bytes if the file ends in them.
    fn read(&mut self, pieces: &[Piece]) -> io::Result<usize> {
        self.buffer.resize(pieces.iter().map(|piece| piece.1 as usize).sum(), 0);
        let mut filled = 0;
        for (offset, length) in pieces {
            let part = &mut self.buffer[filled..filled + *length as usize];
            let read = self.file.read_at(part, *offset)?;
            filled += read;
            if read as u64 != *length {
                break;
            }
        }
        self.buffer.truncate(filled);
        Ok(filled)
    }

    fn is_zero(&mut self, piece: Piece) -> bool {
        let (mut offset, end) = (piece.0, piece.0 + piece.1);
        while offset < end {
            let length = (end - offset).min(1 << 20);
            match self.read(&[(offset, length)]) {
                Ok(0) => return true, // behind its end
                Ok(_) if self.buffer.iter().any(|byte| *byte != 0) => return false,
                Ok(read) => offset += read as u64,
                Err(_) => return false,
            }
        }
        true
    }
}

/// Whether overwriting a file that was modified after the snapshot loses nothing: because its content is the snapshot's, or
/// because a restore has begun to write it and was broken off. That a restore of this snapshot was broken off is known if
/// the target says so (`resumes`); else what it has begun is known by zeros in place of what is missing.
pub(super) fn loses_nothing(restore: &Restore<'_>, dirs: &Dirs, task: &FileTask, resumes: bool) -> bool {
    let Some(mut existing) = Existing::open(restore, dirs, task) else { return false };
    let stat = *existing.file.opened_stat();
    if existing.file.is_unfinished() {
        return true;
    }
    let is_begun = stat.mode == UNFINISHED_MODE && stat.links == 1;
    if resumes && is_begun && stat.size <= task.node.size() {
        return true;
    }
    if stat.size > task.node.size() || stat.size < task.node.size() && !is_begun {
        return false;
    }
    let (reader, domain) = (restore.browser.reader(), restore.browser.domain());
    let mut layout = Layout::new(&task.node);
    for id in &task.blobs {
        let Some(length) = reader.plain_len(&domain.name, id) else { return false };
        let pieces = layout.next(u64::from(length));
        let is_unwritten =
            |existing: &mut Existing<'_>| is_begun && pieces.iter().all(|piece| existing.is_zero(*piece));
        if !existing.has(id, &pieces) && !is_unwritten(&mut existing) {
            return false;
        }
    }
    holes_are_zero(&mut existing, &task.node, stat.size)
}

/// Whether nothing but zeros stands where the node has holes.
fn holes_are_zero(existing: &mut Existing<'_>, node: &Node, size: u64) -> bool {
    let NodeKind::File { holes, .. } = &node.kind else { return true };
    if holes.is_empty() {
        return true;
    }
    let Ok(extents) = existing.file.data_extents(size, MAX_EXTENTS) else { return false };
    extents.iter().all(|(start, length)| {
        let end = start + length;
        let first = holes.partition_point(|hole| hole.0 + hole.1 <= *start);
        holes[first..].iter().take_while(|hole| hole.0 < end).all(|hole| {
            let (from, to) = (hole.0.max(*start), (hole.0 + hole.1).min(end));
            existing.is_zero((from, to - from))
        })
    })
}

#[cfg(test)]
mod tests {
    use snap_format::{Content, Time};

    use super::*;

    #[test]
    fn chunks_go_around_holes() {
        let kind = NodeKind::File {
            size: 100,
            content: Content::default(),
            holes: vec![(0, 10), (30, 5), (40, 20)],
            profile: 1,
        };
        let node = Node::new(b"f".to_vec(), kind, Time::default());
        let mut layout = Layout::new(&node);
        assert_eq!(layout.next(5), [(10, 5)]);
        assert_eq!(layout.next(0), []);
        assert_eq!(layout.next(22), [(15, 15), (35, 5), (60, 2)]);
        assert_eq!(layout.next(38), [(62, 38)]);
    }
}
