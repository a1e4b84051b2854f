//! Walking the candidates to the cuts.

use crate::WINDOW;
use crate::params::{PAGES_LEN, Params, Profile};
use crate::prf::{CutKey, Prf};
use crate::scan::{Candidate, Lanes};

/// Cuts one file after another, all with one key and one profile.
///
/// Feed it a buffer that starts where a chunk starts; see [`cut`](Self::cut). It holds no plaintext but
/// for the windows that it remembers (about 75 KiB, allocated when first needed), so one may be kept per
/// thread and profile.
pub struct Chunker {
    rule: Rule,
}

enum Rule {
    Fixed(u32),
    Content(Box<Content>),
}

impl Chunker {
    /// A chunker for files of that profile.
    pub fn new(key: &CutKey, profile: Profile) -> Self {
        match profile.params() {
            Some(params) => Self::with_params(key, params),
            None => Self { rule: Rule::Fixed(PAGES_LEN) },
        }
    }

    /// A content-defined chunker with sizes of the caller's own, for measurements and tests.
    pub fn with_params(key: &CutKey, params: Params) -> Self {
        Self { rule: Rule::Content(Box::new(Content::new(key, params))) }
    }

    /// The largest chunk, in bytes. A buffer of at least this length always holds a complete chunk.
    pub fn max_len(&self) -> usize {
        match &self.rule {
            Rule::Fixed(len) => *len as usize,
            Rule::Content(content) => content.params.max() as usize,
        }
    }

    /// Appends the lengths of all complete chunks in `buf`, which begins at a chunk start, to `cuts`, and
    /// returns the number of bytes that they cover.
    ///
    /// The rest, shorter than [`max_len`](Self::max_len), must be presented again at the start of the next
    /// buffer, with more data behind it. With `last`, the end of `buf` is the end of the file: all is
    /// consumed (an empty file has no chunk) and the chunker is ready for another file. How a file is
    /// split into calls does not change its cuts.
    ///
    /// A file that is given up before `last` needs a [`reset`](Self::reset).
    pub fn cut(&mut self, buf: &[u8], last: bool, cuts: &mut Vec<u32>) -> usize {
        match &mut self.rule {
            Rule::Fixed(len) => cut_fixed(*len, buf, last, cuts),
            Rule::Content(content) => content.cut(buf, last, cuts),
        }
    }

    /// Forgets a file that was not cut to its end.
    pub fn reset(&mut self) {
        if let Rule::Content(content) = &mut self.rule {
            content.clean = None;
        }
    }
}

fn cut_fixed(len: u32, buf: &[u8], last: bool, cuts: &mut Vec<u32>) -> usize {
    let tail = buf.len() % len as usize;
    cuts.resize(cuts.len() + buf.len() / len as usize, len);
    if last && tail > 0 {
        cuts.push(tail as u32);
        return buf.len();
    }
    buf.len() - tail
}

struct Content {
    params: Params,
    /// How many bytes are scanned at a time: little beside a chunk, since what was scanned behind a cut
    /// may be scanned in vain; much beside a window, which each lane reads twice.
    stride: usize,
    prf: Prf,
    lanes: Lanes,
    found: Vec<Candidate>,
    clean: Option<Clean>,
}

/// The tail of the last call, searched already: its length, and its end to know it by.
struct Clean {
    len: usize,
    end: [u8; WINDOW],
}

impl Content {
    fn new(key: &CutKey, params: Params) -> Self {
        Self {
            params,
            stride: (params.normal() as usize / 4).clamp(8 << 10, 32 << 10),
            prf: Prf::new(key),
            lanes: Lanes::default(),
            found: Vec::new(),
            clean: None,
        }
    }

    fn cut(&mut self, buf: &[u8], last: bool, cuts: &mut Vec<u32>) -> usize {
        let mut walk = Walk { scanned: 0, next: 0 };
        self.found.clear();
        let mut start = 0;
        let mut from = self.resume(buf);
        while start < buf.len() {
            match self.next_cut(buf, start, from, &mut walk) {
                Some(end) => {
                    cuts.push((end - start) as u32);
                    start = end;
                    from = 0;
                }
                None if last => {
                    cuts.push((buf.len() - start) as u32);
                    start = buf.len();
                }
                None => {
                    self.clean = Clean::of(&buf[start..]);
                    break;
                }
            }
        }
        start
    }

    /// How much of the buffer's first chunk is known to hold no cut.
    fn resume(&mut self, buf: &[u8]) -> usize {
        self.clean.take().filter(|clean| clean.is_of(buf)).map_or(0, |clean| clean.len)
    }

    /// The end of the chunk that begins at `start`, if it lies in the buffer. The chunk's first `clean`
    /// bytes end no chunk.
    fn next_cut(&mut self, buf: &[u8], start: usize, clean: usize, walk: &mut Walk) -> Option<usize> {
        let max = self.params.max() as usize;
        let normal = start + self.params.normal() as usize;
        let end = buf.len().min(start + max);
        // The first byte that may be the last of the chunk.
        let first = start + (self.params.min() as usize - 1).max(clean);
        if first < end {
            walk.skip_to(first, &mut self.found);
            loop {
                while let Some(&candidate) = self.found.get(walk.next).filter(|found| found.at < end) {
                    walk.next += 1;
                    if candidate.at < first {
                        continue;
                    }
                    let after = candidate.at + 1;
                    let threshold =
                        if after < normal { self.params.below_normal() } else { self.params.from_normal() };
                    if self.prf.answer(candidate.hash, window(buf, candidate.at)) < threshold {
                        return Some(after);
                    }
                }
                if walk.scanned >= end {
                    break;
                }
                self.found.clear();
                let to = end.min(walk.scanned + self.stride);
                let limit = self.params.candidate_limit();
                self.lanes.scan(buf, walk.scanned, to, limit, &mut self.found);
                *walk = Walk { scanned: to, next: 0 };
            }
        }
        (end == start + max).then_some(end)
    }
}

/// How far the scan and the walk over its candidates have come. A candidate hangs on its window alone,
/// so those found behind a cut serve the next chunk.
struct Walk {
    /// Positions below this were scanned, or need not be.
    scanned: usize,
    /// The candidate to look at next.
    next: usize,
}

impl Walk {
    fn skip_to(&mut self, first: usize, found: &mut Vec<Candidate>) {
        if first >= self.scanned {
            found.clear();
            *self = Self { scanned: first, next: 0 };
        }
    }
}

impl Clean {
    fn of(tail: &[u8]) -> Option<Self> {
        tail.last_chunk().map(|end| Self { len: tail.len(), end: *end })
    }

    fn is_of(&self, buf: &[u8]) -> bool {
        buf.get(..self.len).is_some_and(|head| head.ends_with(&self.end))
    }
}

fn window(buf: &[u8], at: usize) -> &[u8; WINDOW] {
    buf[..=at].last_chunk().expect("a candidate lies at or behind the minimum, which is a window or more")
}
