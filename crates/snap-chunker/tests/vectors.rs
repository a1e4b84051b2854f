//! Known answers. Key: the bytes 0, 1, ... 31. Data: BLAKE3's extended output over an ASCII seed, or a
//! beginning of it repeated. The lengths were computed once with the byte-at-a-time reference.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use common::{naive_profile, stream, whole};
use snap_chunker::{Chunker, CutKey, Profile};

const SEED: &str = "snap-chunker vector";

fn assert_vector(profile: Profile, data: &[u8], expected: &[u32]) {
    let key = core::array::from_fn(|index| index as u8);
    assert_eq!(naive_profile(key, profile, data), expected, "the reference");
    assert_eq!(whole(&mut Chunker::new(&CutKey::new(key), profile), data), expected, "the chunker");
}

fn repeated(unit: usize, len: usize) -> Vec<u8> {
    stream(SEED, unit).into_iter().cycle().take(len).collect()
}

#[test]
fn general() {
    assert_vector(
        Profile::General,
        &stream(SEED, 12 << 20),
        &[
            1_016_798, 846_787, 1_178_808, 1_109_497, 1_293_510, 1_538_537, 1_496_833, 2_526_996, 1_238_509,
            336_637,
        ],
    );
}

#[test]
fn general_repeated() {
    assert_vector(
        Profile::General,
        &repeated(600_000, 6_000_000),
        &[1_089_995, 600_000, 600_000, 600_000, 600_000, 600_000, 600_000, 600_000, 600_000, 110_005],
    );
}

#[test]
fn general_zeros() {
    assert_vector(Profile::General, &vec![0; 10_000_000], &[4_194_304, 4_194_304, 1_611_392]);
}

#[test]
fn text() {
    assert_vector(
        Profile::Text,
        &stream(SEED, 400_000),
        &[
            26_313, 29_616, 26_579, 13_887, 29_832, 41_605, 25_986, 12_501, 24_698, 23_617, 26_083, 22_871,
            27_057, 28_823, 25_842, 14_470, 220,
        ],
    );
}

#[test]
fn text_repeated() {
    assert_vector(
        Profile::Text,
        &repeated(10_000, 400_000),
        &[
            30_260, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000,
            30_000, 9_740,
        ],
    );
}

#[test]
fn pages() {
    assert_vector(Profile::Pages, &stream(SEED, 200_000), &[65_536, 65_536, 65_536, 3_392]);
}

#[test]
fn the_self_test_passes() {
    assert!(snap_chunker::self_test());
}
