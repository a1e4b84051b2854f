//! Nodes of which something is lost: what is missing becomes a hole.

use std::sync::Mutex;

use snap_format::{BlobId, BlobKind, Content, Node, NodeKind, TreeBlob, limits};
use snap_repo::RepoError;
use snap_repo::repair::Moved;

use super::diagnose::Diagnosis;
use crate::Result;
use crate::rewrite::{Decide, MISSING, TreeStore, Verdict, mark_missing};
use crate::work::lock;

/// Length at which the list of what is missing ends; the last range covers all that follows.
const LIST_MAX: usize = 4000;

/// Decides by what is lost.
pub(super) struct Mend<'a> {
    pub(super) found: &'a Diagnosis,
    /// What was moved out of damaged packs.
    pub(super) moved: &'a Moved,
    pub(super) domain: String,
    pub(super) lost: LostTrees<'a>,
}

/// Trees that cannot be read: found out once, and no others become lost after that.
#[derive(Clone, Copy)]
pub(super) enum LostTrees<'a> {
    /// Those that are met are noted.
    Note(&'a Mutex<Moved>),
    /// These, and no others: what was readable a moment ago was moved, and is not lost.
    Known(&'a Moved),
}

/// A piece of a file's content: a blob, or a list of them that is lost.
struct Piece {
    id: Option<BlobId>,
    /// As far as anything knows it.
    len: Option<u64>,
    lost: bool,
}

impl Decide for Mend<'_> {
    fn by_path(&self) -> bool {
        false
    }

    fn concerns(&self, _: &[u8]) -> bool {
        true
    }

    fn node(&mut self, _: &[u8], node: &Node, trees: &mut TreeStore<'_>) -> Result<Verdict> {
        let Some(content) = node.content() else { return Ok(Verdict::Keep) };
        let holes = match &node.kind {
            NodeKind::File { holes, .. } => holes.clone(),
            _ => Vec::new(),
        };
        let pieces = self.pieces(content, trees)?;
        let data_len = node.size().saturating_sub(holes.iter().map(|(_, length)| length).sum());
        let Some((missing, kept)) = missing(&pieces, data_len) else { return Ok(Verdict::Keep) };
        let missing = in_file(&missing, &holes, node.size());
        let mut new = node.clone();
        let profile = match &node.kind {
            NodeKind::File { profile, .. } | NodeKind::Object { profile, .. } => *profile,
            _ => 1,
        };
        let holes = union(&holes, &missing);
        new.kind = NodeKind::File { size: node.size(), content: store(kept, trees)?, holes, profile };
        let before = node.xattrs.iter().find(|xattr| xattr.name == MISSING);
        let before = before.map(|xattr| parse(&xattr.value)).unwrap_or_default();
        let text = describe(&union(&before, &missing));
        mark_missing(&mut new, &text);
        Ok(Verdict::Replace(Box::new(new), text))
    }

    fn lost(&mut self, tree: &BlobId, error: RepoError) -> Result<()> {
        error.into_finding()?;
        self.note_lost(tree)
    }
}

impl Mend<'_> {
    fn note_lost(&self, tree: &BlobId) -> Result<()> {
        let tree = (self.domain.clone(), *tree);
        match self.lost {
            LostTrees::Note(trees) => {
                lock(trees).insert(tree);
                Ok(())
            }
            LostTrees::Known(trees) if trees.contains(&tree) => Ok(()),
            LostTrees::Known(_) => Err(RepoError::Overtaken.into()),
        }
    }

    fn pieces(&self, content: &Content, trees: &mut TreeStore<'_>) -> Result<Vec<Piece>> {
        let lists = match content {
            Content::Blobs(ids) => return Ok(ids.iter().map(|id| self.piece(id)).collect()),
            Content::Lists(lists) => lists,
        };
        let mut out = Vec::new();
        for list in lists {
            match trees.read(list) {
                Ok(TreeBlob::Content(ids)) => out.extend(ids.iter().map(|id| self.piece(id))),
                Ok(_) => out.push(Piece { id: None, len: None, lost: true }),
                Err(error) => {
                    error.into_finding()?;
                    self.note_lost(list)?;
                    out.push(Piece { id: None, len: None, lost: true });
                }
            }
        }
        Ok(out)
    }

    fn piece(&self, id: &BlobId) -> Piece {
        let moved = self.moved.contains(&(self.domain.clone(), *id));
        let is_there = moved || self.found.has(&self.domain, BlobKind::Data, id);
        let len = self.found.index.plain_len(&self.domain, id).map(u64::from);
        Piece { id: Some(*id), len, lost: !is_there }
    }
}

/// Offsets and lengths, bytes.
type Ranges = Vec<(u64, u64)>;

/// What of a content of `data_len` bytes, holes not counted, is missing, and the blobs that are kept; nothing if it is whole.
/// Where lengths are lost, what lies between them is given up too, since nobody knows where it belongs.
fn missing(pieces: &[Piece], data_len: u64) -> Option<(Ranges, Vec<BlobId>)> {
    let sum =
        |pieces: &[Piece]| pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.len.unwrap_or(0)));
    let unknown = |piece: &Piece| piece.len.is_none();
    let (from, to) = match pieces.iter().position(unknown) {
        Some(first) => (first, pieces.iter().rposition(unknown).map_or(first, |last| last) + 1),
        None => (pieces.len(), pieces.len()),
    };
    let (before, after) = (&pieces[..from], &pieces[to..]);
    let all = (vec![(0, data_len)], Vec::new());
    let (Some(front), Some(back)) = (sum(before), sum(after)) else { return Some(all) };
    let fits = match from == to {
        true => front == data_len,
        false => front.checked_add(back).is_some_and(|known| known <= data_len),
    };
    if !fits {
        // It contradicts itself: whoever wrote it lied.
        return Some(all);
    }
    let (mut out, mut kept, mut at) = (Vec::new(), Vec::new(), 0);
    let mut walk = |pieces: &[Piece], at: &mut u64, out: &mut Vec<(u64, u64)>| {
        for piece in pieces {
            let len = piece.len.unwrap_or(0);
            match piece.id {
                Some(id) if !piece.lost => kept.push(id),
                _ => out.push((*at, len)),
            }
            *at += len;
        }
    };
    walk(before, &mut at, &mut out);
    if from < to {
        out.push((front, data_len - front - back));
        at = data_len - back;
    }
    walk(after, &mut at, &mut out);
    out.retain(|(_, length)| *length > 0);
    let is_whole = out.is_empty() && pieces.iter().all(|piece| !piece.lost);
    (!is_whole).then(|| (union(&out, &[]), kept))
}

/// From positions in the content, which has no holes, to positions in the file.
fn in_file(ranges: &[(u64, u64)], holes: &[(u64, u64)], size: u64) -> Ranges {
    // The stretches of the file that hold data: where they begin in the content, in the file, and how long they are.
    let mut stretches = Vec::new();
    let (mut data, mut at) = (0u64, 0u64);
    for (offset, length) in holes.iter().copied().chain([(size, 0)]) {
        let len = offset.saturating_sub(at);
        if len > 0 {
            stretches.push((data, at, len));
        }
        data += len;
        at = offset.saturating_add(length);
    }
    let mut out = Vec::new();
    for (from, length) in ranges {
        let to = from + length;
        for (data, file, len) in &stretches {
            let (begin, end) = ((*from).max(*data), to.min(data + len));
            if begin < end {
                out.push((file + (begin - data), end - begin));
            }
        }
    }
    union(&out, &[])
}

/// Both together: ascending, not touching, none empty.
fn union(a: &[(u64, u64)], b: &[(u64, u64)]) -> Ranges {
    let mut all: Vec<(u64, u64)> = a.iter().chain(b).copied().filter(|(_, length)| *length > 0).collect();
    all.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::with_capacity(all.len());
    for (offset, length) in all {
        match out.last_mut() {
            Some((start, len)) if offset <= start.saturating_add(*len) => {
                *len = (*len).max(offset.saturating_add(length) - *start);
            }
            _ => out.push((offset, length)),
        }
    }
    out
}

/// `offset+len,…`.
fn describe(ranges: &[(u64, u64)]) -> String {
    let mut out = String::new();
    for (at, (offset, length)) in ranges.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        if out.len() > LIST_MAX {
            let end = ranges.last().map_or(0, |(offset, length)| offset + length);
            out.push_str(&format!("{comma}{offset}+{}", end - offset));
            break;
        }
        out.push_str(&format!("{comma}{offset}+{length}"));
    }
    out
}

/// What a node said before; what is none is passed over.
fn parse(value: &[u8]) -> Ranges {
    let text = String::from_utf8_lossy(value);
    let range = |part: &str| {
        let (offset, length) = part.split_once('+')?;
        let (offset, length): (u64, u64) = (offset.parse().ok()?, length.parse().ok()?);
        offset.checked_add(length).map(|_| (offset, length))
    };
    text.split(',').filter_map(range).collect()
}

fn store(ids: Vec<BlobId>, trees: &mut TreeStore<'_>) -> Result<Content> {
    if ids.len() <= limits::INLINE_CONTENT {
        return Ok(Content::Blobs(ids));
    }
    let lists = ids.chunks(limits::CONTENT_LIST).map(|ids| trees.add(&TreeBlob::Content(ids.to_vec())));
    Ok(Content::Lists(lists.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(id: u8, len: Option<u64>, lost: bool) -> Piece {
        Piece { id: Some(BlobId([id; 32])), len, lost }
    }

    fn ids(ids: &[u8]) -> Vec<BlobId> {
        ids.iter().map(|id| BlobId([*id; 32])).collect()
    }

    #[test]
    fn what_is_missing_is_where_it_was() {
        let (good, lost) = (|id| piece(id, Some(10), false), |id| piece(id, Some(10), true));
        let gone = |id| piece(id, None, true);
        assert!(missing(&[good(1), good(2)], 20).is_none());
        assert!(missing(&[], 0).is_none());
        let cases = [
            (vec![good(1), lost(2), lost(3), good(4)], 40, vec![(10, 20)], vec![1, 4]),
            (vec![lost(1)], 10, vec![(0, 10)], vec![]),
            (vec![good(1), gone(2), good(3)], 33, vec![(10, 13)], vec![1, 3]),
            (vec![gone(1), good(2), gone(3), good(4)], 47, vec![(0, 37)], vec![4]),
            (vec![lost(1), good(2), gone(3)], 25, vec![(0, 10), (20, 5)], vec![2]),
            // Those that do not add up.
            (vec![good(1), good(2)], 21, vec![(0, 21)], vec![]),
            (vec![good(1), gone(2), good(3)], 19, vec![(0, 19)], vec![]),
        ];
        for (pieces, len, expected, kept) in cases {
            assert_eq!(missing(&pieces, len), Some((expected, ids(&kept))));
        }
    }

    #[test]
    fn holes_shift_what_is_missing() {
        // Content of 30 bytes in a file of 60 with holes at 5..15 and 40..60.
        let holes = [(5, 10), (40, 20)];
        assert_eq!(in_file(&[(0, 3)], &holes, 60), [(0, 3)]);
        assert_eq!(in_file(&[(3, 10)], &holes, 60), [(3, 2), (15, 8)]);
        assert_eq!(in_file(&[(25, 5)], &holes, 60), [(35, 5)]);
        assert_eq!(union(&holes, &[(3, 2), (15, 8)]), [(3, 20), (40, 20)]);
        assert_eq!(union(&[(0, 5)], &[(2, 1), (9, 1)]), [(0, 5), (9, 1)]);
    }

    #[test]
    fn a_long_list_ends_with_a_range_that_covers_the_rest() {
        assert_eq!(describe(&[(0, 1), (5, 6)]), "0+1,5+6");
        assert_eq!(parse(b"0+1,5+6,tree,x+1"), [(0, 1), (5, 6)]);
        let many: Vec<(u64, u64)> = (0..5000).map(|at| (at * 10, 3)).collect();
        let text = describe(&many);
        assert!(text.len() < 4100);
        let last = *parse(text.as_bytes()).last().unwrap();
        assert_eq!(last.0 + last.1, 49_993);
    }
}
