//! Backup and restore from end to end, over a store in memory: 50 MB of small files, uploads and a dump.
#![allow(missing_docs, reason = "criterion's macros define undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop where it fails")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use snap_benches::{Lab, write_tree};
use snap_engine::browse::Browser;
use snap_engine::{CheckOptions, ReadData, RestoreOptions, RestoreTarget};
use snap_repo::Cache;

const LEN: usize = 50_000_000;

fn verbs(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    write_tree(&source, LEN);
    let mut group = c.benchmark_group("50 MB in memory");
    group.throughput(Throughput::Bytes(LEN as u64));

    group.bench_function("backup, first", |b| {
        b.iter_batched(
            Lab::new,
            |lab| {
                let options = Lab::options(&source, 1_000_001);
                snap_engine::backup(&lab.repository(), None, options, lab.context()).unwrap();
                lab
            },
            BatchSize::PerIteration,
        );
    });

    let lab = Lab::new();
    let cache = Cache::new(&dir.path().join("cache"), lab.repository().id());
    let mut time = 1_000_001;
    let mut backup = || {
        time += 1;
        let options = Lab::options(&source, time);
        snap_engine::backup(&lab.repository(), Some(&cache), options, lab.context()).unwrap();
    };
    backup();
    group.bench_function("backup, nothing changed", |b| b.iter(&mut backup));

    group.bench_function("restore", |b| {
        let latest = lab.repository().snapshots().unwrap().snapshots.pop().unwrap();
        b.iter_batched(
            || tempfile::tempdir_in(dir.path()).unwrap(),
            |target| {
                let browser = Browser::open(&lab.repository(), Arc::new(lab.index()), &latest).unwrap();
                let to = RestoreTarget::Dir(target.path().to_owned());
                let report =
                    snap_engine::restore(&browser, None, to, &RestoreOptions::default(), lab.context());
                report.unwrap();
                target
            },
            BatchSize::PerIteration,
        );
    });

    group.bench_function("check, reading all data", |b| {
        let options = CheckOptions { read_data: ReadData::All };
        b.iter(|| snap_engine::check(&lab.repository(), &options, lab.context()).unwrap());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_secs(1));
    targets = verbs
}
criterion_main!(benches);
