//! Runs a property over its corpus, and over the corpus with small damage. For the everyday tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Fewest characters of a hash that libFuzzer names a file by.
const HASH_NAME: usize = 40;

/// Where the samples of a target lie.
pub fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The samples that have a name, and their bytes, sorted; and those that a fuzzer left behind, without.
pub fn samples(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = directory(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut samples: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("the directory can be read").path();
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("the sample can be read"))
        })
        .collect();
    samples.sort();
    samples
}

/// Every sample of `target`: those called `valid-…` must be accepted, those called `refused-…` must not, others
/// (`found-…`) may be either; and none of them, truncated or damaged in one of up to `positions` places, may break the
/// property.
pub fn run(target: &str, property: fn(&[u8]) -> bool, positions: usize) {
    let mut valid = 0;
    for (name, sample) in samples(target) {
        let accepted = property(&sample);
        match name.split('-').next() {
            Some("valid") => assert!(accepted, "{target}/{name} is refused"),
            Some("refused") => assert!(!accepted, "{target}/{name} is accepted"),
            _ => {}
        }
        valid += usize::from(accepted);
        if name.len() < HASH_NAME {
            damage(&sample, property, positions);
        }
    }
    assert!(valid > 0, "{target} has no sample that is valid: its corpus says nothing");
}

fn damage(sample: &[u8], property: fn(&[u8]) -> bool, positions: usize) {
    let step = sample.len().div_ceil(positions).max(1);
    let mut bytes = sample.to_vec();
    for at in (0..sample.len()).step_by(step) {
        property(&sample[..at]);
        // One bit of a value, the next type of an item, everything.
        for mask in [0x01, 0x20, 0xff] {
            bytes[at] ^= mask;
            property(&bytes);
            bytes[at] ^= mask;
        }
        let removed = bytes.remove(at);
        property(&bytes);
        bytes.insert(at, removed);
        bytes.insert(at, removed);
        property(&bytes);
        bytes.remove(at);
    }
    bytes.extend_from_slice(sample);
    property(&bytes);
}
