//! A vector small enough to run at every program start.

use crate::{Chunker, CutKey, Params};

/// Cuts a small fixed input and compares with the known cuts: `false` means that this build must not
/// write a repository. Takes less than 100 µs.
///
/// The input, 5000 bytes that look random and zeros behind them, passes through the four lanes and the
/// single one, both thresholds, the maximum and the tail.
pub fn self_test() -> bool {
    const KEY: [u8; 32] = [0x5a; 32];
    const RANDOM_LEN: usize = 5000;
    const CUTS: [u32; 9] = [675, 621, 580, 643, 556, 813, 808, 2048, 1448];
    let Ok(params) = Params::new(64, 512, 2048, 4) else { return false };
    let mut input = [0; 8192];
    blake3::Hasher::new().update(b"snap-chunker self-test").finalize_xof().fill(&mut input[..RANDOM_LEN]);
    let mut cuts = Vec::with_capacity(CUTS.len() + 1);
    let consumed = Chunker::with_params(&CutKey::new(KEY), params).cut(&input, true, &mut cuts);
    consumed == input.len() && cuts == CUTS
}
