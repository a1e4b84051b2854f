//! What the usual things cost: the exact list of requests, on a warm cache.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::stores::{Rounds, request};
use common::{Lab, odd};
use snap_backend::testing::RecordingBackend;
use snap_backend::{Backend, MemoryBackend, ObjectName, Operation};
use snap_engine::browse::Browser;
use snap_engine::{RestoreOptions, RestoreTarget};
use snap_format::BlobKind;
use snap_repo::{Area, Cache, Index, Repository, areas_of_a_backup, object_name};

/// A repository with two snapshots of an unchanged source, and the cache of who made them.
struct Scene {
    lab: Lab,
    recording: RecordingBackend,
    cache: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let recording = RecordingBackend::new(Arc::new(MemoryBackend::new()));
        let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
        odd::make_many(&lab.source(""), 500);
        std::fs::write(lab.source("large"), odd::noise(1, 30 << 20)).unwrap();
        std::fs::write(lab.source("small"), b"small").unwrap();
        let cache = lab.dir.path().join("cache");
        let scene = Self { lab, recording, cache };
        scene.backup();
        scene.backup();
        let _ = scene.recording.take();
        scene
    }

    fn backup(&self) -> snap_engine::BackupReport {
        self.backup_over(Arc::new(self.recording.clone()), &self.cache)
    }

    /// As the program does.
    fn backup_over(&self, backend: Arc<dyn Backend>, cache: &Path) -> snap_engine::BackupReport {
        let place = Cache::of_place(cache, &backend.location());
        let store = Cache::wrap_below(cache, backend);
        let areas = areas_of_a_backup(Some(&place));
        let repository = Repository::open_with(store, &self.lab.secret, &areas).unwrap();
        let cache = Cache::new(cache, repository.id());
        snap_engine::backup(&repository, Some(&cache), self.lab.options(), self.lab.context()).unwrap()
    }

    fn open(&self) -> (Repository, Option<Cache>) {
        let backend = Arc::new(self.recording.clone());
        self.lab.open_over(backend, &self.lab.secret, Some(&self.cache)).unwrap()
    }

    /// What was asked of the store since the last call: each operation with its name, ids cut off, in the order in which
    /// they ended.
    fn requests(&self) -> Vec<String> {
        self.recording.take().iter().map(|call| request(call.operation, &call.name)).collect()
    }

    /// The same, sorted.
    fn sorted_requests(&self) -> Vec<String> {
        let mut requests = self.requests();
        requests.sort();
        requests
    }
}

/// Both copies of the config, and the names of the epochs: the epochs themselves are cached.
const OPEN: [&str; 3] = ["Get config", "Get config.bak", "List epochs/"];

/// The requests of several round trips, sorted.
fn sorted(parts: &[&[&str]]) -> Vec<String> {
    let mut all: Vec<_> = parts.concat().into_iter().map(str::to_owned).collect();
    all.sort();
    all
}

/// Opening, and F27 a: marks and packs before deduplicating.
const BEGIN: [&str; 7] = [
    "Get config",
    "Get config.bak",
    "List epochs/",
    "List index/",
    "List snapshots/",
    "List marks/",
    "List packs/",
];

/// F27 b, c and d: marks after the index; after the snapshot first marks, then index.
const END: [&[&str]; 4] = [&["List marks/"], &["Put snapshots/…"], &["List marks/"], &["List index/"]];

#[test]
fn an_unchanged_backup_puts_one_object_in_five_round_trips() {
    let scene = Scene::new();
    let rounds = [&[&BEGIN[..]][..], &END].concat();
    let store = Rounds::new(Arc::new(scene.recording.clone()), &rounds);
    let report = scene.backup_over(store.clone(), &scene.cache);
    store.finish();
    assert_eq!((report.summary.files_unchanged, report.summary.stored_bytes), (502, 0));
    assert_eq!(scene.sorted_requests(), sorted(&rounds));
    // However long the repository lives.
    for _ in 0..5 {
        scene.backup();
        assert_eq!(scene.sorted_requests(), sorted(&rounds));
    }
}

#[test]
fn an_unchanged_backup_without_a_cache_is_eight_round_trips() {
    let scene = Scene::new();
    // What is new: first what the keys are in, then what they open; then all trees of the parent, which lie side by side; and
    // the header of each pack that nobody has adopted, were there any.
    let new = ["Get index/…", "Get snapshots/…", "Get snapshots/…"];
    let middle: [&[&str]; 3] = [&["Get epochs/…"], &new, &["GetRange packs/…"]];
    let rounds = [&[&BEGIN[..]][..], &middle, &END].concat();
    let store = Rounds::new(Arc::new(scene.recording.clone()), &rounds);
    let report = scene.backup_over(store.clone(), &scene.lab.dir.path().join("another cache"));
    store.finish();
    assert_eq!((report.summary.files_unchanged, report.summary.stored_bytes), (502, 0));
}

#[test]
fn who_wants_less_asks_for_less() {
    let scene = Scene::new();
    let open = |areas: &[Area]| {
        let store = Cache::wrap_below(&scene.cache, Arc::new(scene.recording.clone()));
        let repository = Repository::open_with(store, &scene.lab.secret, areas).unwrap();
        repository.remember_in(&Cache::new(&scene.cache, repository.id()));
        repository
    };
    let repository = open(&[]);
    assert_eq!(scene.sorted_requests(), sorted(&[&OPEN]));
    assert_eq!(repository.snapshots().unwrap().snapshots.len(), 2);
    assert_eq!(scene.requests(), ["List snapshots/"]);
    // What was listed ahead is used once: who asks again gets what is there then.
    let repository = open(&[Area::Snapshots]);
    assert_eq!(scene.sorted_requests(), sorted(&[&OPEN, &["List snapshots/"]]));
    assert_eq!(repository.snapshots().unwrap().snapshots.len(), 2);
    assert_eq!(scene.requests(), [""; 0]);
    scene.backup();
    let _ = scene.requests();
    assert_eq!(repository.snapshots().unwrap().snapshots.len(), 3);
    assert_eq!(scene.requests(), ["List snapshots/"]);
}

#[test]
fn a_changed_file_puts_four() {
    let scene = Scene::new();
    std::fs::write(scene.lab.source("small"), b"changed").unwrap();
    scene.backup();
    let mut requests = scene.requests();
    requests.retain(|request| request.starts_with("Put"));
    requests[..2].sort();
    assert_eq!(requests, ["Put packs/…", "Put packs/…", "Put index/…", "Put snapshots/…"]);
    // What this machine stored it does not fetch.
    scene.backup();
    assert!(scene.requests().iter().all(|request| !request.starts_with("Get index/")));
}

#[test]
fn looking_at_snapshots_lists_them() {
    let scene = Scene::new();
    let (repository, _) = scene.open();
    let set = repository.snapshots().unwrap();
    let paths: Vec<_> =
        set.snapshots.iter().map(|snapshot| repository.open_body(snapshot).unwrap().paths).collect();
    assert_eq!(paths.len(), 2);
    assert_eq!(scene.sorted_requests(), sorted(&[&OPEN, &["List snapshots/"]]));
    // One written by another host is fetched once.
    let (repository, _) =
        scene.lab.open_over(Arc::new(scene.recording.clone()), &scene.lab.secret, None).unwrap();
    snap_engine::backup(&repository, None, scene.lab.options(), scene.lab.context()).unwrap();
    let _ = scene.requests();
    for gets in [1, 0] {
        let (repository, _) = scene.open();
        assert_eq!(repository.snapshots().unwrap().snapshots.len(), 3);
        let expected = sorted(&[&OPEN, &["List snapshots/"], &vec!["Get snapshots/…"; gets]]);
        assert_eq!(scene.sorted_requests(), expected);
    }
}

#[test]
fn one_file_costs_its_trees_and_its_bytes() {
    let scene = Scene::new();
    let restore = |name: &str| {
        let (repository, cache) = scene.open();
        let set = repository.snapshots().unwrap();
        let (index, _) = Index::load(&repository, cache.as_ref()).unwrap();
        let browser = Browser::open(&repository, Arc::new(index), set.snapshots.last().unwrap()).unwrap();
        let target = tempfile::tempdir_in(scene.lab.dir.path()).unwrap();
        let from = scene.lab.source(name);
        let to = RestoreTarget::Dir(target.path().to_owned());
        let from = Some(from.to_str().unwrap().as_bytes());
        let options = RestoreOptions::default();
        snap_engine::restore(&browser, from, to, &options, scene.lab.context()).unwrap()
    };
    let before_packs: &[&str] = &["List snapshots/", "List index/"];
    let report = restore("small");
    assert_eq!((report.restored, report.requests), (1, 1));
    // The trees lie side by side in one small pack, and come in one request; then the content.
    let trees_and_content: &[&str] = &["GetRange packs/…", "GetRange packs/…"];
    assert_eq!(scene.sorted_requests(), sorted(&[&OPEN, before_packs, trees_and_content]));
    // A large file comes in requests of 4 MiB at most, and no byte of it twice.
    let report = restore("large");
    let calls = scene.recording.take();
    let data: Vec<_> = calls.iter().filter(|call| call.operation == Operation::GetRange).skip(1).collect();
    assert_eq!(data.len() as u64, report.requests);
    assert!((8..=16).contains(&data.len()), "{}", data.len());
    // Or of one chunk, if that is longer once it is sealed.
    assert!(data.iter().all(|call| call.amount <= (4 << 20) + 40));
    let fetched: u64 = data.iter().map(|call| call.amount).sum();
    assert_eq!(fetched, report.fetched_bytes);
    assert!((30 << 20..31 << 20).contains(&fetched));
}

#[test]
fn a_directory_of_small_files_is_a_few_requests() {
    let scene = Scene::new();
    let (repository, cache) = scene.open();
    let (index, _) = Index::load(&repository, cache.as_ref()).unwrap();
    let set = repository.snapshots().unwrap();
    let browser = Browser::open(&repository, Arc::new(index), set.snapshots.last().unwrap()).unwrap();
    let _ = scene.requests();
    let target = tempfile::tempdir_in(scene.lab.dir.path()).unwrap();
    let from = scene.lab.source("many");
    let to = RestoreTarget::Dir(target.path().to_owned());
    let from = Some(from.to_str().unwrap().as_bytes());
    let report =
        snap_engine::restore(&browser, from, to, &RestoreOptions::default(), scene.lab.context()).unwrap();
    assert_eq!(report.restored, 500);
    let requests = scene.requests();
    assert!(requests.len() <= 4, "{requests:?}");
}

/// Packs by what they hold.
fn tree_packs(lab: &Lab) -> Vec<ObjectName> {
    let (index, _) = Index::load(&lab.repository(), None).unwrap();
    let trees = index.packs().filter(|pack| pack.kind == BlobKind::Tree);
    let mut names: Vec<_> = trees.map(|pack| object_name(Area::Packs, &pack.id)).collect();
    names.sort();
    names
}

#[test]
fn without_a_local_cache_each_pack_of_trees_is_read_once() {
    const PACK: usize = 4 << 10;
    let recording = RecordingBackend::new(Arc::new(MemoryBackend::new()));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    for number in 0..500 {
        let dir = lab.source(&format!("{}/{number}", number % 10));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..4 {
            std::fs::write(dir.join(format!("{file}")), format!("{number} {file}")).unwrap();
        }
    }
    let caches = [lab.dir.path().join("a"), lab.dir.path().join("b")];
    let backup = |cache: &PathBuf| {
        let store = Arc::new(recording.clone());
        lab.backup_over(store, Some(cache), lab.options(), lab.context(), PACK).unwrap()
    };
    let packs_read = || {
        let calls = recording.take();
        let reads =
            calls.iter().filter(|call| matches!(call.operation, Operation::Get | Operation::GetRange));
        let mut names: Vec<_> =
            reads.map(|call| call.name.clone()).filter(|name| name.starts_with("packs/")).collect();
        names.sort();
        names
    };
    backup(&caches[0]);
    let of_first = tree_packs(&lab);
    // More than a reader keeps pieces of.
    assert!(of_first.len() > 25, "{}", of_first.len());
    std::fs::write(lab.source("3/33/0"), b"changed").unwrap();
    backup(&caches[0]);
    assert_eq!(packs_read(), [""; 0]);
    // What the second run wrote as well, since the unchanged rest is in the packs of the first.
    let all = tree_packs(&lab);
    assert!(all.len() > of_first.len());
    let report = backup(&caches[1]);
    assert_eq!((report.summary.files_unchanged, report.summary.added_bytes), (2000, 0));
    // None twice. The last pack of the first run may hold nothing that is not outdated.
    let read = packs_read();
    assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "{read:?}");
    assert!(read.len() + 1 >= all.len(), "{} of {}", read.len(), all.len());
    // They are kept.
    backup(&caches[1]);
    assert_eq!(packs_read(), [""; 0]);
    assert_eq!(lab.heard(), [""; 0]);
    // What is in one that is gone is read again from the source. Not the one with the root: the second run's.
    std::fs::remove_dir_all(&caches[1]).unwrap();
    let size = |name: &&ObjectName| lab.backend.stat(name).unwrap().size_bytes;
    lab.backend.delete(of_first.iter().max_by_key(size).unwrap()).unwrap();
    let report = backup(&caches[1]);
    assert!(report.summary.files_unchanged > 0 && report.summary.stored_bytes > 0);
    let target = lab.dir.path().join("restored");
    assert_eq!(lab.restore(&target, &RestoreOptions::default()).restored, 2000 + 510);
}
