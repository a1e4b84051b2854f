//! The chunker agrees with the definition, however its input is split.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use common::{chunker, dense, in_steps, naive, naive_profile, stream, whole};
use proptest::prelude::*;
use snap_chunker::{Chunker, CutKey, Params, Profile};

const KEY: [u8; 32] = [0xc7; 32];

fn small() -> Params {
    Params::new(64, 256, 2048, 3).unwrap()
}

/// Sizes for which a stride of the scan covers several chunks, and others for which it does not.
fn all_params() -> [Params; 4] {
    [
        small(),
        Params::new(100, 1000, 1001, 5).unwrap(),
        Params::new(2048, 8192, 65_536, 6).unwrap(),
        Params::new(30_000, 50_000, 200_000, 8).unwrap(),
    ]
}

fn assert_agrees(params: Params, data: &[u8]) {
    let expected = naive(KEY, params, data);
    let mut chunker = chunker(KEY, params);
    assert_eq!(whole(&mut chunker, data), expected, "{params:?}, in one call");
    for steps in [&[997][..], &[1, 70_000], &[4096, 63, 64, 65]] {
        assert_eq!(in_steps(&mut chunker, data, steps), expected, "{params:?}, in steps of {steps:?}");
    }
}

#[test]
fn random_data() {
    for params in all_params() {
        assert_agrees(params, &stream("random", 700_001));
    }
}

#[test]
fn constant_data() {
    for params in all_params() {
        for byte in [0, b' ', b'L', 0xff] {
            assert_agrees(params, &vec![byte; 300_000]);
        }
    }
}

#[test]
fn a_constant_run_whose_every_position_is_a_candidate() {
    // 64 times 'L' hashes to -GEAR['L'] = 0x01d0...: seven zero bits. With six asked for, all positions
    // behind the first window are candidates, and one answer decides for all of them.
    let params = Params::new(64, 4096, 8192, 6).unwrap();
    let data = vec![b'L'; 100_000];
    for key in 0..=255 {
        assert_eq!(whole(&mut chunker([key; 32], params), &data), naive([key; 32], params, &data));
    }
}

#[test]
fn periodic_data() {
    for params in all_params() {
        for period in [2, 3, 7, 64, 65, 511, 1024, 5000] {
            let data: Vec<u8> = stream("period", period).into_iter().cycle().take(300_000).collect();
            assert_agrees(params, &data);
        }
    }
}

#[test]
fn dense_candidates() {
    for params in all_params() {
        let data = dense(params.candidate_bits(), 1, 150_000);
        assert_agrees(params, &data);
        let again: Vec<u8> = data[..3000].iter().copied().cycle().take(300_000).collect();
        assert_agrees(params, &again);
    }
}

#[test]
fn every_profile() {
    let mut data = stream("profile", 9_000_003);
    data.extend(vec![0; 5_000_000]);
    for profile in Profile::ALL {
        let expected = naive_profile(KEY, profile, &data);
        let mut chunker = Chunker::new(&CutKey::new(KEY), profile);
        assert_eq!(chunker.max_len(), profile.max_len());
        assert_eq!(whole(&mut chunker, &data), expected);
        assert_eq!(in_steps(&mut chunker, &data, &[1 << 20, 1, 77_777]), expected);
    }
}

#[test]
fn lengths_around_the_limits() {
    let data = stream("limits", 2100);
    for len in (0..300).chain(1000..1100).chain(2040..2100) {
        assert_agrees(small(), &data[..len]);
        assert_agrees(small(), &vec![0; len]);
    }
}

#[test]
fn an_empty_file_has_no_chunk_and_a_small_one_has_one() {
    for profile in Profile::ALL {
        let mut chunker = Chunker::new(&CutKey::new(KEY), profile);
        assert_eq!(whole(&mut chunker, &[]), [0u32; 0]);
        assert_eq!(whole(&mut chunker, b"x"), [1]);
        let least = profile.params().map_or(64 << 10, |params| params.min());
        assert_eq!(whole(&mut chunker, &stream("least", least as usize)), [least]);
    }
}

#[test]
fn a_file_given_up_leaves_no_trace_after_a_reset() {
    let params = Params::new(2048, 8192, 65_536, 6).unwrap();
    let data = stream("given up", 200_000);
    let expected = whole(&mut chunker(KEY, params), &data);
    let mut chunker = chunker(KEY, params);
    // Without one, a tail with another end is noticed too.
    let mut cuts = Vec::new();
    chunker.cut(&vec![0; 60_000], false, &mut cuts);
    assert_eq!(whole(&mut chunker, &data), expected);
    // A tail that only looks the same is what the reset is for.
    let mut lookalike = vec![0; 7000];
    lookalike.extend_from_slice(&data[7000..7064]);
    chunker.cut(&lookalike, false, &mut cuts);
    chunker.reset();
    assert_eq!(whole(&mut chunker, &data), expected);
}

#[test]
fn another_key_cuts_elsewhere() {
    let data = stream("keys", 1 << 20);
    let ends = |key| {
        let cuts = whole(&mut chunker(key, small()), &data);
        cuts.into_iter().scan(0, |end, len| Some(*end + len).inspect(|next| *end = *next)).collect::<Vec<_>>()
    };
    let (one, two) = (ends([1; 32]), ends([2; 32]));
    let shared = one.iter().filter(|end| two.binary_search(end).is_ok()).count();
    assert!(shared < one.len() / 10, "{shared} of {}", one.len());
}

#[test]
fn cuts_come_back_after_an_insertion() {
    let data = stream("insertion", 1 << 20);
    let mut changed = b"inserted".to_vec();
    changed.extend_from_slice(&data);
    let old = whole(&mut chunker(KEY, small()), &data);
    let new = whole(&mut chunker(KEY, small()), &changed);
    let common = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    assert!(common > old.len() - 20, "{common} of {}", old.len());
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        (any::<u8>(), 0..3000usize).prop_map(|(byte, len)| vec![byte; len]),
        (prop::collection::vec(any::<u8>(), 1..200), 0..30usize).prop_map(|(unit, times)| unit.repeat(times)),
        (any::<u64>(), 0..600usize).prop_map(|(seed, len)| dense(3, seed, len)),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_data_in_any_steps(
        data in pieces(),
        steps in prop::collection::vec(1..5000usize, 1..8),
        key in any::<[u8; 32]>(),
    ) {
        let expected = naive(key, small(), &data);
        let mut chunker = chunker(key, small());
        prop_assert_eq!(&whole(&mut chunker, &data), &expected);
        prop_assert_eq!(&in_steps(&mut chunker, &data, &steps), &expected);
    }
}
