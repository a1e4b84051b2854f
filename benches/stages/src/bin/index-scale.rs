//! What an index costs that is larger than anybody wants to make: a cache is made as a repository of so many blobs would
//! have it, then opened and asked. Prints one line for each figure.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark may stop where it fails, and tells"
)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use snap_backend::{Backend, MemoryBackend};
use snap_benches::Random;
use snap_format::{ObjectId, Time};
use snap_repo::index_scale::Scale;
use snap_repo::{Area, Cache, Index, Repository, Secret, object_name};

/// Packs that one index object names.
const PACKS_PER_OBJECT: u64 = 64;
/// Look-ups on a warm page cache, and on a cold one.
const WARM: u64 = 5_000_000;
const COLD: u64 = 50_000;
/// Look-ups that are prepared at once.
const PORTION: usize = 10_000;

fn main() {
    let (mut blobs, mut packs, mut dir) = (10_000_000, None, std::env::temp_dir());
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().expect("a value after each option");
        match name.as_str() {
            "--blobs" => blobs = value.parse().expect("a number of blobs"),
            "--packs" => packs = Some(value.parse().expect("a number of packs")),
            "--dir" => dir = PathBuf::from(value),
            other => panic!("there is no {other}: --blobs N, --packs N, --dir DIR"),
        }
    }
    run(blobs, packs.unwrap_or(blobs / 50).max(1), &dir);
}

fn run(blobs: u64, packs: u64, dir: &Path) {
    let dir = tempfile::tempdir_in(dir).expect("a directory to work in");
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    let secret = Secret::random_key_file().expect("the system gives random bytes");
    Repository::create(backend.as_ref(), &secret, "bench", Time::new(1, 0)).expect("memory takes it");
    let mut random = Random::new(1);
    let mut objects: Vec<ObjectId> = (0..packs.div_ceil(PACKS_PER_OBJECT))
        .map(|_| ObjectId(snap_crypto::hash(&random.next().to_le_bytes())))
        .collect();
    objects.sort_unstable();
    for object in &objects {
        backend.put(&object_name(Area::Index, object), vec![0; 32].into()).expect("memory takes it");
    }
    let repository = Repository::open(backend, &secret).expect("it was just made");
    let cache = Cache::new(dir.path(), repository.id());
    let scale = Scale { blobs, packs, objects };
    println!("{blobs} blobs in {packs} packs, named by {} index objects", scale.objects.len());

    let before = Instant::now();
    scale.write(&repository, &cache).expect("room on the disk");
    println!("write the table          {:>10.2} s", before.elapsed().as_secs_f64());
    let table =
        std::fs::read_dir(cache.root().join("tables").join(repository.copy_id())).expect("it was just made");
    let table = table.map(|file| file.expect("it is listed").path()).max_by_key(|path| size(path));
    let table = table.expect("a table was made");
    println!(
        "on disk                  {:>10} bytes, {:.1} a blob",
        size(&table),
        size(&table) as f64 / blobs as f64
    );

    forget(&table);
    let (index, seconds) = open(&repository, &cache);
    println!("open, page cache cold    {seconds:>10.3} s");
    drop(index);
    std::io::copy(&mut File::open(&table).expect("it is there"), &mut std::io::sink()).expect("it is read");
    let before_opening = rss_anon();
    let cpu_before = cpu();
    let (index, seconds) = open(&repository, &cache);
    println!("open, page cache warm    {seconds:>10.3} s, {:.3} s of CPU time", cpu() - cpu_before);
    let after_opening = rss_anon();
    println!(
        "RssAnon                  {after_opening:>10} KiB, {} of them since before it was opened",
        after_opening.saturating_sub(before_opening)
    );

    for (what, hits_in_ten, count) in [
        ("warm, nine misses to a hit", 1, WARM),
        ("warm, misses only", 0, WARM),
        ("warm, hits only", 10, WARM / 5),
    ] {
        report(what, &index, &scale, hits_in_ten, count);
    }
    for (what, hits_in_ten) in [("cold, nine misses to a hit", 1), ("cold, hits only", 10)] {
        forget(&table);
        report(what, &index, &scale, hits_in_ten, COLD);
    }
    let before = Instant::now();
    let found = index.packs().count() as u64;
    assert_eq!(found, packs, "all packs are there");
    println!("go through all packs     {:>10.3} s", before.elapsed().as_secs_f64());
    index.check().expect("nothing was damaged");
    println!("RssAnon at the end       {:>10} KiB", rss_anon());
}

fn open(repository: &Repository, cache: &Cache) -> (Index, f64) {
    let before = Instant::now();
    let (index, findings) = Index::load(repository, Some(cache)).expect("the cache is whole");
    let seconds = before.elapsed().as_secs_f64();
    assert!(findings.is_empty(), "nothing was read from the store: {findings:?}");
    (index, seconds)
}

/// Look-ups on one thread, as a writer makes them.
fn report(what: &str, index: &Index, scale: &Scale, hits_in_ten: u64, count: u64) {
    let mut random = Random::new(count);
    let asked = |number: u64, r: u64| match number % 10 < hits_in_ten {
        true => scale.known(r % scale.blobs),
        false => scale.unknown(r),
    };
    let (mut seconds, mut cpu_seconds, mut hits) = (0.0, 0.0, 0);
    for first in (0..count).step_by(PORTION) {
        // They are drawn before the clock runs, and none is asked twice.
        let ids: Vec<_> =
            (first..count.min(first + PORTION as u64)).map(|n| asked(n, random.next())).collect();
        let (before, cpu_before) = (Instant::now(), cpu());
        hits += ids.iter().filter(|id| index.packs_of("main", id, |_| true)).count() as u64;
        cpu_seconds += cpu() - cpu_before;
        seconds += before.elapsed().as_secs_f64();
    }
    assert_eq!(hits, count * hits_in_ten / 10, "known blobs are found, and no others");
    let (wall, cpu) = (count as f64 / seconds, count as f64 / cpu_seconds);
    println!("{what:<28} {wall:>12.0} look-ups a second, {cpu:>10.0} a second of CPU time");
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").size()
}

/// Drops a file from the page cache.
fn forget(path: &Path) {
    let file = File::open(path).expect("it is there");
    file.sync_all().expect("the disk takes it");
    fadvise(&file, 0, None, Advice::DontNeed).expect("the kernel takes advice");
}

/// Time that this thread was on a processor, seconds: what other programs do does not add to it.
fn cpu() -> f64 {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos: u64 = status.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number");
    nanos as f64 / 1e9
}

fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5 or later");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
