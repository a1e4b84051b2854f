//! The scan for candidates: public, unkeyed, and the part that touches every byte.

use crate::WINDOW;
use crate::gear::GEAR;

/// The bytes before a position on which its gear hash hangs.
pub(crate) const WARM: usize = WINDOW - 1;

/// A position whose gear hash is below the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The offset of the window's last byte in the scanned buffer.
    pub(crate) at: usize,
    /// The gear hash there.
    pub(crate) hash: u64,
}

/// Four hash chains over four adjoining parts of a range.
///
/// A gear hash waits for the one before it; four chains that know nothing of each other fill that wait.
#[derive(Default)]
pub(crate) struct Lanes {
    found: [Vec<Candidate>; 4],
}

#[inline(always)]
fn step(hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(GEAR[byte as usize])
}

/// Eight adjoining bytes, whose length the compiler knows.
#[inline(always)]
fn eight(bytes: &[u8]) -> &[u8; 8] {
    bytes.try_into().expect("lanes are cut into groups of eight bytes")
}

fn warm(buf: &[u8], at: usize) -> u64 {
    buf[at - WARM..at].iter().fold(0, |hash, &byte| step(hash, byte))
}

impl Lanes {
    /// Appends the candidates in `from..to` to `out`, in order. `from` is at least [`WARM`].
    pub(crate) fn scan(&mut self, buf: &[u8], from: usize, to: usize, limit: u64, out: &mut Vec<Candidate>) {
        let lane = (to - from) / 4 / 8 * 8;
        let done = if lane >= 4 * WINDOW {
            self.scan_lanes(buf, from, lane, limit, out);
            from + 4 * lane
        } else {
            from
        };
        if done < to {
            scan_one(buf, done, to, limit, out);
        }
    }

    fn scan_lanes(&mut self, buf: &[u8], from: usize, lane: usize, limit: u64, out: &mut Vec<Candidate>) {
        let starts: [usize; 4] = core::array::from_fn(|k| from + k * lane);
        let [mut h0, mut h1, mut h2, mut h3] = starts.map(|at| warm(buf, at));
        let [b0, b1, b2, b3] = starts.map(|at| buf[at..at + lane].chunks_exact(8));
        for (index, (((b0, b1), b2), b3)) in b0.zip(b1).zip(b2).zip(b3).enumerate() {
            let (b0, b1, b2, b3) = (eight(b0), eight(b1), eight(b2), eight(b3));
            let before = [h0, h1, h2, h3];
            let mut least = u64::MAX;
            for j in 0..8 {
                h0 = step(h0, b0[j]);
                h1 = step(h1, b1[j]);
                h2 = step(h2, b2[j]);
                h3 = step(h3, b3[j]);
                least = least.min(h0.min(h1)).min(h2.min(h3));
            }
            if least < limit {
                self.collect(starts.map(|start| start + 8 * index), before, [b0, b1, b2, b3], limit);
            }
        }
        for found in &mut self.found {
            out.append(found);
        }
    }

    /// Goes again over a group that holds a candidate, and notes which. Out of the way of the scan, whose
    /// chains fill the registers.
    #[cold]
    #[inline(never)]
    fn collect(&mut self, starts: [usize; 4], before: [u64; 4], groups: [&[u8; 8]; 4], limit: u64) {
        for (((found, start), mut hash), group) in self.found.iter_mut().zip(starts).zip(before).zip(groups) {
            for (j, &byte) in group.iter().enumerate() {
                hash = step(hash, byte);
                if hash < limit {
                    found.push(Candidate { at: start + j, hash });
                }
            }
        }
    }
}

fn scan_one(buf: &[u8], from: usize, to: usize, limit: u64, out: &mut Vec<Candidate>) {
    let mut hash = warm(buf, from);
    for (at, &byte) in buf.iter().enumerate().take(to).skip(from) {
        hash = step(hash, byte);
        if hash < limit {
            out.push(Candidate { at, hash });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_find_what_one_chain_finds() {
        let mut buf = vec![0; 40_000];
        blake3::Hasher::new().update(b"lanes").finalize_xof().fill(&mut buf);
        for (from, to) in [(63, 40_000), (63, 63), (100, 101), (64, 64 + 1024), (777, 39_999), (63, 1_100)] {
            for bits in [1, 4, 8] {
                let (mut one, mut four) = (Vec::new(), Vec::new());
                scan_one(&buf, from, to, 1 << (64 - bits), &mut one);
                Lanes::default().scan(&buf, from, to, 1 << (64 - bits), &mut four);
                assert_eq!(one, four, "{from}..{to}, {bits} bits");
            }
        }
    }
}
