//! Speed of the cut against the `fastcdc` crate, on ordinary data and on data made to be slow.
#![allow(missing_docs, reason = "criterion's macros define undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop where it fails")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use common::{dense, stream, whole};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastcdc::v2020::FastCDC;
use snap_chunker::{Chunker, CutKey, Params, Profile};

const KEY: [u8; 32] = [0xc7; 32];
const LEN: usize = 16 << 20;

fn chunker(profile: Profile) -> Chunker {
    Chunker::new(&CutKey::new(KEY), profile)
}

fn ordinary(c: &mut Criterion) {
    let random = stream("speed", LEN);
    let mut group = c.benchmark_group("random");
    group.throughput(Throughput::Bytes(LEN as u64));
    for profile in [Profile::General, Profile::Text] {
        let params = profile.params().unwrap();
        let mut chunker = chunker(profile);
        group.bench_function(format!("snap {profile:?}"), |b| {
            b.iter(|| black_box(whole(&mut chunker, &random)));
        });
        let mut chunker_in_steps = self::chunker(profile);
        group.bench_function(format!("snap {profile:?}, 1 MiB at a time"), |b| {
            b.iter(|| black_box(common::in_steps(&mut chunker_in_steps, &random, &[1 << 20])));
        });
        group.bench_function(format!("fastcdc {profile:?}"), |b| {
            let [min, normal, max] = [params.min(), params.normal(), params.max()].map(|len| len as usize);
            b.iter(|| black_box(FastCDC::new(&random, min, normal, max).count()));
        });
    }
    group.finish();
}

fn hostile(c: &mut Criterion) {
    let mut group = c.benchmark_group("hostile");
    group.throughput(Throughput::Bytes(LEN as u64));
    let [general, text] = [Profile::General, Profile::Text].map(|profile| profile.params().unwrap());
    // With seven bits a byte can always be found that makes the next position a candidate too: worse than
    // any profile, where some positions must lie between.
    let all = Params::new(text.min(), text.normal(), text.max(), 7).unwrap();
    for (name, params) in [("General", general), ("Text", text), ("all candidates", all)] {
        let inputs = [
            ("constant", vec![b'L'; LEN]),
            ("fresh", dense(params.candidate_bits(), 1, LEN)),
            ("period 500", periodic(params, 500)),
            ("period 3000", periodic(params, 3000)),
        ];
        for (input, data) in inputs {
            let mut chunker = common::chunker(KEY, params);
            group.bench_function(format!("{name}, {input}"), |b| {
                b.iter(|| black_box(whole(&mut chunker, &data)));
            });
        }
    }
    group.finish();
}

/// What one who can watch the cuts may find: a period of candidates of which none cuts below the normal
/// size, so that they are asked about for as long as possible.
fn periodic(params: Params, period: usize) -> Vec<u8> {
    (0..)
        .map(|seed| dense(params.candidate_bits(), seed, period))
        .map(|unit| unit.into_iter().cycle().take(LEN).collect::<Vec<_>>())
        .find(|data| {
            let cuts = whole(&mut common::chunker(KEY, params), &data[..4 * params.normal() as usize]);
            cuts[..cuts.len() - 1].iter().all(|&len| len >= params.normal())
        })
        .unwrap()
}

fn start(c: &mut Criterion) {
    c.bench_function("self-test", |b| b.iter(|| assert!(snap_chunker::self_test())));
    c.bench_function("new and 4 KiB", |b| {
        let file = stream("small", 4096);
        b.iter(|| black_box(whole(&mut chunker(Profile::General), &file)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    targets = ordinary, hostile, start
}
criterion_main!(benches);
