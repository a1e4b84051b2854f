//! The rule again, a byte at a time, from its definition and from other crates' parts alone; and the
//! inputs that every implementation must agree on.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;

use snap_chunker::{Chunker, CutKey, Params, Profile};

/// The lengths into which the rule cuts `data`.
pub fn naive(key: [u8; 32], params: Params, data: &[u8]) -> Vec<u32> {
    let (gear, _) = fastcdc::v2020::get_gear_with_seed(0);
    let (min, normal, max) = (params.min() as usize, params.normal() as usize, params.max() as usize);
    let bits = params.candidate_bits();
    let below = (1u128 << (62 + bits)) / normal as u128;
    let from = (1u128 << (66 + bits)) / normal as u128;
    // The same windows come back in periodic data; the definition stays quick enough for a test.
    let mut answers: HashMap<[u8; 64], u64> = HashMap::new();
    let mut cuts = Vec::new();
    let mut start = 0;
    for i in 0..data.len() {
        let len = i + 1 - start;
        if len < min {
            continue;
        }
        let window: [u8; 64] = data[i + 1 - 64..=i].try_into().unwrap();
        let hash = (0..64).fold(0u64, |sum, j| sum.wrapping_add(gear[data[i - j] as usize] << j));
        let cut = len == max || {
            hash >> (64 - bits) == 0 && {
                let answer = *answers.entry(window).or_insert_with(|| {
                    let hash = blake3::keyed_hash(&key, &window);
                    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
                });
                u128::from(answer) < if len < normal { below } else { from }
            }
        };
        if cut {
            cuts.push(len as u32);
            start = i + 1;
        }
    }
    if start < data.len() {
        cuts.push((data.len() - start) as u32);
    }
    cuts
}

/// The same for a profile.
pub fn naive_profile(key: [u8; 32], profile: Profile, data: &[u8]) -> Vec<u32> {
    match profile.params() {
        Some(params) => naive(key, params, data),
        None => data.chunks(64 << 10).map(|chunk| chunk.len() as u32).collect(),
    }
}

/// The first `len` bytes of the extended output of BLAKE3 over `seed`.
pub fn stream(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// All cuts in one call.
pub fn whole(chunker: &mut Chunker, data: &[u8]) -> Vec<u32> {
    let mut cuts = Vec::new();
    assert_eq!(chunker.cut(data, true, &mut cuts), data.len());
    cuts
}

/// The cuts when the buffer grows by the lengths in `steps`, over and over.
pub fn in_steps(chunker: &mut Chunker, data: &[u8], steps: &[usize]) -> Vec<u32> {
    let (mut cuts, mut start, mut end) = (Vec::new(), 0, 0);
    for &step in steps.iter().cycle() {
        end = data.len().min(end + step);
        let consumed = chunker.cut(&data[start..end], end == data.len(), &mut cuts);
        start += consumed;
        assert!(end - start < chunker.max_len());
        if end == data.len() {
            break;
        }
    }
    assert_eq!(start, data.len());
    cuts
}

pub fn chunker(key: [u8; 32], params: Params) -> Chunker {
    Chunker::with_params(&CutKey::new(key), params)
}

/// Data whose positions are candidates as often as a greedy choice of the next byte can make them: with
/// few candidate bits every position is one.
pub fn dense(candidate_bits: u32, seed: u64, len: usize) -> Vec<u8> {
    let (gear, _) = fastcdc::v2020::get_gear_with_seed(0);
    let limit = 1u64 << (64 - candidate_bits);
    let mut state = seed | 1;
    let mut data = Vec::with_capacity(len);
    let mut hash = 0u64;
    while data.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let first = (state >> 56) as u8;
        let next = |hash: u64, byte: u8| (hash << 1).wrapping_add(gear[byte as usize]);
        // Prefer a candidate from which a candidate follows; then a candidate; then the least hash.
        let best = (0..=255u8)
            .map(|offset| first.wrapping_add(offset))
            .min_by_key(|&byte| {
                let after = next(hash, byte);
                let candidate = after < limit;
                let leads_on = candidate && (0..=255).any(|byte| next(after, byte) < limit);
                (!candidate, !leads_on, if candidate { 0 } else { after })
            })
            .unwrap();
        hash = next(hash, best);
        data.push(best);
    }
    data
}
