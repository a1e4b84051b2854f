//! How much memory a prune of very many blobs takes.
//!
//! ```sh
//! cargo run --release -p snap-engine --example many_blobs -- make DIR 10000000
//! cargo run --release -p snap-engine --example many_blobs -- prune DIR
//! ```
//!
//! `make` writes a repository with so many blobs of a few bytes, each sealed alone, and two snapshots; the first one, of all blobs, is
//! forgotten. The second one needs all blobs of a third of the packs, every other one of another third, and none of the rest. `prune`
//! frees what can be freed, and prints the peak of its memory.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for the terminal

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use snap_backend::{Backend, LocalBackend};
use snap_engine::{Context, NullObserver, Progress, prune};
use snap_format::{BlobId, BlobKind, BranchEntry, Summary, Time, TreeBlob};
use snap_repo::prune::{PruneOptions, Waste};
use snap_repo::{Index, NewSnapshot, Repository, Scratch, Secret, Writer, WriterOptions};

/// Blobs that one tree names.
const PER_TREE: u64 = 1000;
/// Blobs in a stretch of which all, every other one or none are needed: those of a pack.
const STRETCH: u64 = 1 << 16;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", dir, blobs] => make(Path::new(dir), blobs.parse().unwrap()),
        ["prune", dir] => prune_it(Path::new(dir)),
        _ => println!("many_blobs make DIR BLOBS | many_blobs prune DIR"),
    }
}

fn is_needed(number: u64) -> bool {
    match number / STRETCH % 3 {
        0 => true,
        1 => number.is_multiple_of(2),
        _ => false,
    }
}

fn make(dir: &Path, blobs: u64) {
    std::fs::create_dir_all(dir).unwrap();
    let secret = Secret::random_key_file().unwrap();
    std::fs::write(dir.join("key"), secret.to_text().unwrap().as_bytes()).unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(dir.join("repo"), true));
    Repository::create(backend.as_ref(), &secret, "bench", Time::new(1, 0)).unwrap();
    let repository = Repository::open(backend, &secret).unwrap();
    let first = back_up(&repository, blobs, |_| true);
    back_up(&repository, blobs, is_needed);
    repository.forget(&[first], &[], Time::new(2, 0)).unwrap();
}

/// Snapshots without files: a branch of content lists.
fn back_up(repository: &Repository, blobs: u64, wanted: impl Fn(u64) -> bool) -> snap_format::ObjectId {
    let (index, _) = Index::load(repository, None).unwrap();
    let options = WriterOptions { group_below: 0, ..WriterOptions::default() };
    let writer = Writer::begin(repository, index, None, options).unwrap();
    let mut scratch = Scratch::new(1).unwrap();
    let mut entries = Vec::new();
    for from in (0..blobs).step_by(PER_TREE as usize) {
        let mut ids: Vec<BlobId> = Vec::new();
        for number in (from..(from + PER_TREE).min(blobs)).filter(|number| wanted(*number)) {
            ids.push(writer.add(BlobKind::Data, &number.to_le_bytes(), &mut scratch).unwrap().0);
        }
        if ids.is_empty() {
            continue;
        }
        let nodes = ids.len() as u64;
        let (id, _) = writer.add(BlobKind::Tree, &TreeBlob::Content(ids).encode(), &mut scratch).unwrap();
        entries.push(BranchEntry { first: format!("{from:020}").into_bytes(), id, nodes });
    }
    let (root, _) = writer.add(BlobKind::Tree, &TreeBlob::Branch(entries).encode(), &mut scratch).unwrap();
    let snapshot = NewSnapshot {
        time: Time::new(2, 0),
        dataset: "files".into(),
        host: "bench".into(),
        previous: None,
        tags: Vec::new(),
        label: String::new(),
        summary: Summary::default(),
        root,
        paths: Vec::new(),
        details: None,
    };
    writer.finish().unwrap().commit(snapshot).unwrap()
}

fn prune_it(dir: &Path) {
    let secret = Secret::from_key_file(&std::fs::read_to_string(dir.join("key")).unwrap()).unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(dir.join("repo"), true));
    let repository = Repository::open(backend, &secret).unwrap();
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    let context = Context {
        observer: &NullObserver,
        progress: &progress,
        stop: &stop,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: 160 << 20,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let options = PruneOptions {
        grace: Duration::ZERO,
        max_waste: Waste::Bytes(0),
        ..PruneOptions::at(Time::new(now as i64, 0))
    };
    let began = Instant::now();
    let report = prune(&repository, &options, context).unwrap();
    println!("{report:#?}\n{:.1} s", began.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("RssAnon"))
        .for_each(|line| println!("{line}"));
}
