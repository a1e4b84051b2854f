//! What a long life costs: a repository is made on disk as many small runs would leave it, then listed and backed up to,
//! with a local cache and without. Prints a table: as it was left, after its snapshots are merged into bundles,
//! and after a prune, beside one of ten runs.
//!
//! ```sh
//! cargo run --release -p snap-benches --bin repository-scale -- --runs 100000 --dir /mnt/roomy
//! ```
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark may stop where it fails, and tells"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use snap_backend::{Backend, BackendError, Bytes, LocalBackend, ObjectMeta, ObjectName, PutOutcome};
use snap_benches::{Lab, rows};
use snap_engine::{Context, NullObserver, Progress};
use snap_format::{BlobKind, Node, NodeKind, Summary, Time, TreeBlob};
use snap_repo::prune::PruneOptions;
use snap_repo::{
    Cache, Index, MergeRequest, NewSnapshot, Repository, Scratch, Secret, Writer, WriterOptions,
};

/// Runs of the repository that the others are compared with.
const YOUNG: u64 = 10;
/// Seconds from one run to the next.
const INTERVAL: i64 = 300;
/// In seconds.
const YEAR: i64 = 31_557_600;
/// Each figure is the median of so many.
const ROUNDS: usize = 5;

fn main() {
    let (mut runs, mut dir) = (10_000, std::env::temp_dir());
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().expect("a value after each option");
        match name.as_str() {
            "--runs" => runs = value.parse().expect("a number of runs"),
            "--dir" => dir = PathBuf::from(value),
            other => panic!("there is no {other}: --runs N, --dir DIR"),
        }
    }
    let dir = tempfile::tempdir_in(dir).expect("a directory to work in");
    let source = dir.path().join("source");
    snap_benches::write_tree(&source, 20 << 20);
    println!(
        "{:<24} {:>9} {:>22} {:>22} {:>22} {:>22}",
        "", "snapshots", "list, no cache", "list", "back up, no cache", "back up, unchanged"
    );
    let young = Life::new(dir.path().join("young"), YOUNG);
    young.measure("young", &source);
    let old = Life::new(dir.path().join("old"), runs);
    old.measure("old, nothing merged", &source);
    old.merge();
    old.measure("old, bundles", &source);
    let (seconds, requests) = old.timed(|store| old.prune(store));
    old.measure("old, pruned", &source);
    println!("the prune itself took {seconds:.1} s and {requests} requests");
}

/// A repository, and what opens it.
struct Life {
    root: PathBuf,
    secret: Secret,
    now: i64,
}

impl Life {
    /// Each run stores two blobs, that is two packs, an index object and a snapshot.
    fn new(root: PathBuf, runs: u64) -> Self {
        std::fs::create_dir_all(&root).expect("room on the disk");
        let secret = Secret::random_key_file().expect("the system gives random bytes");
        let quick = Arc::new(Quick { root: root.clone(), recent: Mutex::default() });
        Repository::create(quick.as_ref(), &secret, "bench", Time::new(1, 0)).expect("room on the disk");
        let repository =
            Repository::open(Arc::new(LocalBackend::new(&root, false)), &secret).expect("just made");
        drop(repository);
        let repository = Repository::open(Arc::clone(&quick) as _, &secret).expect("it was just made");
        let mut scratch = Scratch::new(3).expect("memory");
        let text = rows(1, 4 << 20);
        let mut previous = None;
        for run in 0..runs {
            quick.recent.lock().expect("one thread").clear();
            let time = Time::new(1_600_000_000 + run as i64 * INTERVAL, 0);
            let (index, _) = Index::load(&repository, None).expect("an empty listing");
            let writer = Writer::begin(&repository, index, None, WriterOptions::default()).expect("an owner");
            let at = run as usize * 997 % (text.len() - 4096);
            let mut data = text[at..at + 2048].to_vec();
            data.extend_from_slice(&run.to_le_bytes());
            writer.add(BlobKind::Data, &data, &mut scratch).expect("room on the disk");
            let node = Node::new(run.to_string().into_bytes(), NodeKind::Fifo, time);
            let tree = TreeBlob::encode_leaf(std::slice::from_ref(&node));
            let (root, _) = writer.add(BlobKind::Tree, &tree, &mut scratch).expect("room on the disk");
            let flushed = writer.finish().expect("room on the disk");
            let new = NewSnapshot {
                time,
                dataset: "life".into(),
                host: "bench".into(),
                previous,
                tags: Vec::new(),
                label: String::new(),
                summary: Summary::default(),
                root,
                paths: vec![b"/source".to_vec()],
                details: None,
            };
            previous = Some(flushed.commit(new).expect("room on the disk"));
        }
        Self { root, secret, now: 1_600_000_000 + runs as i64 * INTERVAL }
    }

    fn merge(&self) {
        let repository = Repository::open(Arc::new(LocalBackend::new(&self.root, false)), &self.secret);
        let request = MergeRequest { stored_before_secs: i64::MAX, ..MergeRequest::default() };
        repository.expect("it is there").merge_snapshots(&request).expect("room on the disk");
    }

    /// Without a grace: everything was stored a moment ago, although its snapshots say otherwise.
    fn prune(&self, store: &Arc<Counting>) {
        let repository = Repository::open(Arc::clone(store) as _, &self.secret).expect("it is there");
        let time = Time::new(self.now + YEAR, 0);
        let options = PruneOptions { grace: Duration::ZERO, ..PruneOptions::at(time) };
        snap_engine::prune(&repository, &options, context(&Progress::default())).expect("a disk answers");
    }

    fn measure(&self, name: &str, source: &Path) {
        let caches =
            tempfile::tempdir_in(self.root.parent().expect("a directory")).expect("room on the disk");
        let fresh = |number: usize| caches.path().join(number.to_string());
        let mut snapshots = 0;
        let mut list = |cache: &Path| self.timed(|store| snapshots = self.list(store, cache));
        let cold_list = median((0..ROUNDS).map(|round| list(&fresh(round))).collect());
        let warm_list = median((0..ROUNDS).map(|_| list(&fresh(0))).collect());
        // The first stores the source.
        self.back_up(&Arc::new(Counting::new(&self.root)), &fresh(ROUNDS), source, 0);
        let backup = |cache: &Path, run: i64| self.timed(|store| self.back_up(store, cache, source, run));
        let cold = median((1..=ROUNDS).map(|round| backup(&fresh(ROUNDS + round), round as i64)).collect());
        let warm = median((0..ROUNDS).map(|round| backup(&fresh(ROUNDS), 10 + round as i64)).collect());
        let cell = |(seconds, requests): (f64, u64)| format!("{seconds:.3} s {requests:>7} req");
        println!(
            "{name:<24} {snapshots:>9} {:>22} {:>22} {:>22} {:>22}",
            cell(cold_list),
            cell(warm_list),
            cell(cold),
            cell(warm)
        );
    }

    fn timed(&self, work: impl FnOnce(&Arc<Counting>)) -> (f64, u64) {
        let store = Arc::new(Counting::new(&self.root));
        let began = Instant::now();
        work(&store);
        (began.elapsed().as_secs_f64(), store.requests.load(Ordering::Relaxed))
    }

    fn list(&self, store: &Arc<Counting>, cache: &Path) -> usize {
        let areas = [snap_repo::Area::Snapshots];
        let repository =
            Repository::open_with(Arc::clone(store) as _, &self.secret, &areas).expect("it opens");
        repository.remember_in(&Cache::new(cache, repository.id()));
        let set = repository.snapshots().expect("a disk answers");
        assert!(set.findings.is_empty(), "{:?}", set.findings);
        set.snapshots.len()
    }

    fn back_up(&self, store: &Arc<Counting>, cache: &Path, source: &Path, run: i64) {
        let place = Cache::of_place(cache, &store.location());
        let areas = snap_repo::areas_of_a_backup(Some(&place));
        let repository =
            Repository::open_with(Arc::clone(store) as _, &self.secret, &areas).expect("it opens");
        let cache = Cache::new(cache, repository.id());
        let options = Lab::options(source, self.now + run);
        snap_engine::backup(&repository, Some(&cache), options, context(&Progress::default()))
            .expect("a disk answers");
    }
}

fn context(progress: &Progress) -> Context<'_> {
    static RUN_ON: AtomicBool = AtomicBool::new(false);
    Context {
        observer: &NullObserver,
        progress,
        stop: &RUN_ON,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: 160 << 20,
    }
}

/// By time; the requests are those of the same round.
fn median(mut figures: Vec<(f64, u64)>) -> (f64, u64) {
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    figures[figures.len() / 2]
}

/// A directory that syncs nothing, and lists only what the run at hand has put: making a repository so takes minutes
/// instead of days.
#[derive(Debug)]
struct Quick {
    root: PathBuf,
    recent: Mutex<Vec<ObjectMeta>>,
}

impl Quick {
    fn disk(&self) -> LocalBackend {
        LocalBackend::new(&self.root, false)
    }
}

impl Backend for Quick {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.disk().get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.disk().get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let path = self.root.join(name.as_str());
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("room on the disk");
        std::fs::write(path, &body).expect("room on the disk");
        let meta = ObjectMeta { name: name.clone(), size_bytes: body.len() as u64, modified: None };
        self.recent.lock().expect("one thread").push(meta);
        Ok(PutOutcome::Created)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.disk().stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        if prefix == "epochs/" {
            return self.disk().list(prefix, each);
        }
        let recent = self.recent.lock().expect("one thread");
        recent.iter().filter(|meta| meta.name.as_str().starts_with(prefix)).cloned().try_for_each(each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.disk().delete(name)
    }

    fn location(&self) -> String {
        self.disk().location()
    }
}

/// Counts requests as an object store would bill them: a listing is one for each thousand names.
#[derive(Debug)]
struct Counting {
    disk: LocalBackend,
    requests: AtomicU64,
}

impl Counting {
    fn new(root: &Path) -> Self {
        Self { disk: LocalBackend::new(root, false), requests: AtomicU64::new(0) }
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Backend for Counting {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.count();
        self.disk.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.count();
        self.disk.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.count();
        self.disk.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.count();
        self.disk.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.count();
        let mut names = 0_u64;
        self.disk.list(prefix, &mut |meta| {
            names += 1;
            if names.is_multiple_of(1000) {
                self.count();
            }
            each(meta)
        })
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.count();
        self.disk.delete(name)
    }

    fn location(&self) -> String {
        self.disk.location()
    }

    fn parallelism(&self) -> usize {
        self.disk.parallelism()
    }
}
