//! What chunk sizes cost and save on a database dump: the table behind the text profile.
//!
//! Two versions of a generated dump, one row in a thousand changed in the second; both cut with various
//! sizes, every chunk compressed by itself (zstd, level 3) and charged what it costs besides its bytes.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a table for people, run by hand")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::HashSet;
use std::fmt::Write as _;

use common::{chunker, whole};
use snap_chunker::{Params, Profile};

const KEY: [u8; 32] = [0xc7; 32];
const ROWS: u32 = 1_000_000;
/// Bytes that a blob costs in pack header, index and tree.
const OVERHEAD: usize = 125;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A row: id, branch, balance, status, time, a token of random hex, a note. `version` tells changed rows.
fn row(out: &mut String, id: u32, version: u64, hex_len: usize) {
    const STATUS: [&str; 6] = ["active", "active", "active", "suspended", "pending", "closed"];
    let mut random = Random((u64::from(id) << 8) | version);
    let r = random.next();
    let balance = (r % 2_000_000) as i64 - 1_000_000;
    let (second, minute, hour, day) = (r % 60, (r >> 8) % 60, (r >> 16) % 24, 1 + (r >> 24) % 28);
    let status = STATUS[(r >> 32) as usize % STATUS.len()];
    let mut hex = String::new();
    while hex.len() < hex_len {
        write!(hex, "{:016x}", random.next()).unwrap();
    }
    hex.truncate(hex_len);
    writeln!(
        out,
        "{id}\t{}\t{balance}\t{status}\t2024-{:02}-{day:02} {hour:02}:{minute:02}:{second:02}+00\t{hex}\tcustomer account, opened at branch {}",
        id / 100_000 + 1, 1 + (r >> 40) % 12, (r >> 48) % 100,
    )
    .unwrap();
}

/// Two versions of a dump; in the second, `changed` of the rows are different.
fn dumps(hex_len: usize, changed: u64) -> [Vec<u8>; 2] {
    let mut random = Random(42);
    let mut dumps = [String::new(), String::new()];
    for id in 1..=ROWS {
        let version = u64::from(random.next() % 1_000_000 < changed);
        row(&mut dumps[0], id, 0, hex_len);
        row(&mut dumps[1], id, version, hex_len);
    }
    dumps.map(String::into_bytes)
}

struct Stored {
    chunks: usize,
    bytes: usize,
}

/// What the chunks of `data` add to those of `known`.
fn store(known: &mut HashSet<[u8; 32]>, params: Params, data: &[u8]) -> Stored {
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    let mut stored = Stored { chunks: 0, bytes: 0 };
    let mut rest = data;
    for len in whole(&mut chunker(KEY, params), data) {
        let (chunk, behind) = rest.split_at(len as usize);
        rest = behind;
        if known.insert(*blake3::hash(chunk).as_bytes()) {
            stored.chunks += 1;
            stored.bytes += zstd.compress(chunk).unwrap().len() + OVERHEAD;
        }
    }
    stored
}

fn table(hex_len: usize, changed: u64) {
    let [old, new] = dumps(hex_len, changed);
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    let baseline: usize = old.chunks(1 << 20).map(|chunk| zstd.compress(chunk).unwrap().len()).sum();
    println!(
        "\nDump of {:.1} MB, rows of {:.0} bytes, {:.2} % of them changed; in 1 MiB chunks {:.1} MB (ratio {:.2})\n",
        old.len() as f64 / 1e6,
        old.len() as f64 / f64::from(ROWS),
        changed as f64 / 1e4,
        baseline as f64 / 1e6,
        baseline as f64 / old.len() as f64,
    );
    println!(
        "| min KiB | normal KiB | max KiB | bits | chunks | mean KiB | first / baseline | second / first |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let text = Profile::Text.params().unwrap();
    let general = Profile::General.params().unwrap();
    let mut all = vec![general];
    for [min, normal, max, bits] in [
        [32, 64, 256, 10],
        [16, 32, 128, 9],
        [8, 32, 128, 9],
        [8, 24, 96, 7],
        [4, 32, 128, 9],
        [8, 24, 96, 9],
        [4, 24, 96, 9],
        [8, 20, 96, 9],
        [8, 16, 64, 9],
        [4, 16, 64, 9],
        [2, 16, 64, 9],
        [4, 12, 48, 9],
        [4, 8, 32, 8],
    ] {
        all.push(Params::new(min << 10, normal << 10, max << 10, bits).unwrap());
    }
    for params in all {
        let mut known = HashSet::new();
        let first = store(&mut known, params, &old);
        let second = store(&mut known, params, &new);
        println!(
            "| {} | {} | {} | {} | {} | {:.1} | {:.4} | {:.3} |{}",
            params.min() >> 10,
            params.normal() >> 10,
            params.max() >> 10,
            params.candidate_bits(),
            first.chunks,
            old.len() as f64 / first.chunks as f64 / 1024.0,
            first.bytes as f64 / baseline as f64,
            second.bytes as f64 / first.bytes as f64,
            if params == text { " the text profile" } else { "" },
        );
    }
}

/// How the lengths of chunks of random data are spread, beside those of the `fastcdc` crate.
fn distribution() {
    let data = common::stream("distribution", 512 << 20);
    println!(
        "\nLengths in KiB, random data\n\n| | chunks | mean | 1 % | 10 % | 50 % | 90 % | 99 % | at the maximum |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for profile in [Profile::General, Profile::Text] {
        let params = profile.params().unwrap();
        let [min, normal, max] = [params.min(), params.normal(), params.max()].map(|len| len as usize);
        let theirs = fastcdc::v2020::FastCDC::new(&data, min, normal, max).map(|chunk| chunk.length as u32);
        let lists = [("snap", whole(&mut chunker(KEY, params), &data)), ("fastcdc", theirs.collect())];
        for (name, mut lens) in lists {
            lens.sort_unstable();
            let kib = |len: u32| f64::from(len) / 1024.0;
            let at = |percent: usize| kib(lens[lens.len() * percent / 100]);
            println!(
                "| {name} {profile:?} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
                lens.len(),
                data.len() as f64 / lens.len() as f64 / 1024.0,
                at(1),
                at(10),
                at(50),
                at(90),
                at(99),
                lens.iter().filter(|&&len| len as usize == max).count(),
            );
        }
    }
}

fn main() {
    distribution();
    // Rows that compress to half, to a third, and shorter ones, which make more changes a megabyte.
    for hex_len in [128, 48, 16] {
        table(hex_len, 1000);
    }
}
