//! The keyed function that decides, and its memory.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::WINDOW;

/// The secret that places the cuts: one a deduplication domain, used for nothing else.
///
/// Whoever lacks it cannot foretell where a known text will be cut, nor learn the key from cuts. It does
/// not make lengths harmless: that every cut falls on a candidate can be checked without it, so lengths
/// that are seen confirm a guessed file, by [`candidate_bits`](crate::Params::candidate_bits) bits a cut.
/// It is wiped when dropped and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CutKey([u8; 32]);

impl CutKey {
    /// Takes 32 uniformly random (or derived) bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CutKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CutKey(..)")
    }
}

/// How many windows are remembered.
const SLOTS: usize = 1024;

#[derive(Clone, Copy)]
struct Slot {
    window: [u8; WINDOW],
    answer: u64,
}

/// Keyed BLAKE3 of a window, its first eight bytes read little-endian, with the answers for windows
/// lately seen kept in a direct-mapped table.
///
/// The gear hash picks the slot; whether the slot answers is decided by comparing all 64 bytes, so the
/// table changes the speed of constant and periodic data and never a result.
pub(crate) struct Prf {
    key: CutKey,
    /// Empty until the first question: most files are smaller than a minimum chunk and ask none.
    slots: Vec<Option<Slot>>,
}

impl Prf {
    pub(crate) fn new(key: &CutKey) -> Self {
        Self { key: key.clone(), slots: Vec::new() }
    }

    pub(crate) fn answer(&mut self, gear_hash: u64, window: &[u8; WINDOW]) -> u64 {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        // The low bits of a gear hash hang on the last few bytes alone, and the high ones are zero at a
        // candidate: a multiplication brings all of them into the index.
        let slot = (gear_hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SLOTS;
        match &self.slots[slot] {
            Some(known) if known.window == *window => known.answer,
            _ => {
                let answer = prf(&self.key, window);
                self.slots[slot] = Some(Slot { window: *window, answer });
                answer
            }
        }
    }
}

fn prf(key: &CutKey, window: &[u8; WINDOW]) -> u64 {
    let hash = blake3::keyed_hash(&key.0, window);
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
