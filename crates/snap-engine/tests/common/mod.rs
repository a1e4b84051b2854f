//! A repository in a temporary directory, and the verbs on it with as little ceremony as possible.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

pub mod compare;
pub mod life;
pub mod odd;
pub mod scene;
pub mod stores;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use snap_backend::{Backend, OpenOptions};
use snap_engine::browse::Browser;
use snap_engine::{
    BackupOptions, BackupReport, BackupSource, Context, Event, Observer, Progress, RestoreOptions,
    RestoreReport, RestoreTarget,
};
use snap_format::Time;
use snap_repo::{Cache, Index, Repository, Secret, Snapshot};
use snap_source::FilterOptions;

/// Keeps what it hears.
#[derive(Default)]
pub struct Ear(pub Mutex<Vec<String>>);

impl Observer for Ear {
    fn event(&self, event: Event<'_>) {
        let text = match event {
            Event::Unreadable { path, error } => {
                format!("unreadable {}: {error}", String::from_utf8_lossy(path))
            }
            Event::Note { path, text } => format!("note {}: {text}", String::from_utf8_lossy(path)),
            Event::Warning { text } => format!("warning {text}"),
            Event::Finding(finding) => format!("finding {finding}"),
            _ => return,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

/// `cp -a`.
pub fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-aT").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// A repository in memory.
pub fn in_memory() -> (Lab, Arc<snap_backend::MemoryBackend>) {
    let memory = Arc::new(snap_backend::MemoryBackend::new());
    (Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&memory) as _), memory)
}

/// Runs `work` on a thread of its own and fails if it hangs.
pub fn within<T: Send + 'static>(limit: std::time::Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(work());
    });
    match receiver.recv_timeout(limit) {
        Ok(done) => done,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub backend: Arc<dyn Backend>,
    pub id: snap_format::RepoId,
    pub secret: Secret,
    pub recovery: Secret,
    pub ear: Ear,
    pub progress: Progress,
    pub stop: AtomicBool,
    clock: AtomicI64,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        let backend = snap_backend::open(repo.to_str().unwrap(), &options).unwrap();
        Self::over(dir, backend)
    }

    pub fn over(dir: tempfile::TempDir, backend: Arc<dyn Backend>) -> Self {
        std::fs::create_dir(dir.path().join("source")).unwrap();
        let secret = Secret::random_key_file().unwrap();
        let created = Repository::create(backend.as_ref(), &secret, "test", Time::new(1_000_000, 0));
        let (id, recovery) = created.unwrap();
        Self {
            id,
            recovery,
            dir,
            backend,
            secret,
            ear: Ear::default(),
            progress: Progress::default(),
            stop: AtomicBool::new(false),
            clock: AtomicI64::new(1_000_001),
        }
    }

    pub fn source(&self, path: &str) -> PathBuf {
        self.dir.path().join("source").join(path)
    }

    pub fn repository(&self) -> Repository {
        Repository::open(Arc::clone(&self.backend), &self.secret).unwrap()
    }

    pub fn context(&self) -> Context<'_> {
        Context {
            observer: &self.ear,
            progress: &self.progress,
            stop: &self.stop,
            threads: 2,
            memory_bytes: 160 << 20,
        }
    }

    pub fn cache(&self) -> Cache {
        Cache::new(&self.dir.path().join("cache"), self.repository().id())
    }

    pub fn options(&self) -> BackupOptions {
        BackupOptions {
            source: BackupSource::Paths {
                paths: vec![self.source("")],
                working_dir: PathBuf::from("/"),
                filter: FilterOptions::default(),
                as_path: None,
            },
            dataset: "files".into(),
            host: "lab".into(),
            tags: Vec::new(),
            label: String::new(),
            time: Time::new(self.clock.fetch_add(1, Ordering::Relaxed), 0),
            level: 3,
            readers: None,
            skip_if_unchanged: false,
            dry_run: false,
        }
    }

    pub fn backup(&self) -> BackupReport {
        self.backup_with(self.options()).unwrap()
    }

    pub fn backup_with(&self, options: BackupOptions) -> snap_engine::Result<BackupReport> {
        snap_engine::backup(&self.repository(), Some(&self.cache()), options, self.context())
    }

    /// Backs up into `backend`, opened with the cache at `cache` as a program would, in packs of `pack_target` bytes.
    pub fn backup_over(
        &self,
        backend: Arc<dyn Backend>,
        cache: Option<&Path>,
        options: BackupOptions,
        context: Context<'_>,
        pack_target: usize,
    ) -> snap_engine::Result<BackupReport> {
        let (repository, cache) = self.open_over(backend, &self.secret, cache)?;
        snap_engine::backup::backup_in_packs(&[repository], cache.as_ref(), options, context, pack_target)
    }

    pub fn open_over(
        &self,
        backend: Arc<dyn Backend>,
        secret: &Secret,
        cache: Option<&Path>,
    ) -> snap_engine::Result<(Repository, Option<Cache>)> {
        let cache = cache.map(|base| Cache::new(base, self.id));
        let backend =
            cache.as_ref().map_or_else(|| Arc::clone(&backend), |cache| cache.wrap(backend.clone()));
        let repository = Repository::open(backend, secret)?;
        if let Some(cache) = &cache {
            repository.remember_in(cache);
        }
        Ok((repository, cache))
    }

    /// Restores the source directory as it is in the snapshot at `number`, oldest first, of `backend`.
    pub fn restore_over(&self, backend: &Arc<dyn Backend>, number: usize, to: &Path) -> RestoreReport {
        let repository = Repository::open(Arc::clone(backend), &self.secret).unwrap();
        let (index, findings) = Index::load(&repository, None).unwrap();
        assert_eq!(findings, []);
        let set = repository.snapshots().unwrap();
        let browser = Browser::open(&repository, Arc::new(index), &set.snapshots[number]).unwrap();
        let from = self.source("");
        let from = from.to_str().unwrap().as_bytes();
        let (to, options) = (RestoreTarget::Dir(to.to_owned()), RestoreOptions::default());
        snap_engine::restore(&browser, Some(from), to, &options, self.context()).unwrap()
    }

    /// Reads everything in `backend` and fails if anything is wrong with it.
    pub fn check_over(&self, backend: &Arc<dyn Backend>) {
        let repository = Repository::open(Arc::clone(backend), &self.secret).unwrap();
        assert_eq!(repository.findings(), []);
        let options = snap_engine::CheckOptions { read_data: snap_engine::ReadData::All };
        let report = snap_engine::check(&repository, &options, self.context()).unwrap();
        assert_eq!(report.findings, []);
    }

    /// A copy of the source as it is now, made by `cp -a`.
    pub fn keep(&self, name: &str) -> PathBuf {
        let copy = self.dir.path().join(name);
        copy_tree(&self.source(""), &copy);
        copy
    }

    pub fn latest(&self) -> Snapshot {
        self.repository().snapshots().unwrap().snapshots.pop().unwrap()
    }

    pub fn browser(&self) -> Browser {
        let repository = self.repository();
        let (index, findings) = Index::load(&repository, None).unwrap();
        assert_eq!(findings, []);
        Browser::open(&repository, Arc::new(index), &self.latest()).unwrap()
    }

    /// Restores the source directory of the latest snapshot into `to`.
    pub fn restore(&self, to: &Path, options: &RestoreOptions) -> RestoreReport {
        let from = self.source("");
        let from = from.to_str().unwrap().trim_end_matches('/').to_owned();
        let target = RestoreTarget::Dir(to.to_owned());
        snap_engine::restore(&self.browser(), Some(from.as_bytes()), target, options, self.context()).unwrap()
    }

    pub fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.ear.0.lock().unwrap())
    }
}
