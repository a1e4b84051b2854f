use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use snap_format::{BlobId, BlobKind, TreeBlob};
use snap_repo::{BlobReader, Cache, DomainKeys, Finding, FindingCode, Index, RepoError, Repository, Scratch};

use crate::error::{Answer, Fault, Reports};

/// The index is not loaded more often than this because something is missing.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// The repository as it is now: its index grows, and prune moves what is stored.
pub(crate) struct Store {
    repository: Repository,
    cache: Option<Cache>,
    reader: RwLock<Arc<BlobReader>>,
    loaded: Mutex<Instant>,
    scratches: Mutex<Vec<Scratch>>,
    pub(crate) reports: Reports,
    closed: AtomicBool,
}

impl Store {
    pub(crate) fn open(
        repository: Repository,
        cache: Option<Cache>,
        reports: Reports,
    ) -> Result<Self, RepoError> {
        let reader = load(&repository, cache.as_ref(), &reports)?;
        Ok(Self {
            repository,
            cache,
            reader: RwLock::new(Arc::new(reader)),
            loaded: Mutex::new(Instant::now()),
            scratches: Mutex::default(),
            reports,
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Long work ends early from here on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn reader(&self) -> Arc<BlobReader> {
        Arc::clone(&self.reader.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads the index anew.
    pub(crate) fn reload(&self) -> Result<(), RepoError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = Arc::new(load(&self.repository, self.cache.as_ref(), &self.reports)?);
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
        *loaded = Instant::now();
        Ok(())
    }

    /// A chunk that the index does not name: damage, unless the index itself cannot be read.
    pub(crate) fn not_indexed(&self, id: &BlobId) -> Fault {
        let error = match self.reader().index().check() {
            Ok(()) => Finding::new(FindingCode::Missing, "index", "no index names it").blob(*id).into(),
            Err(error) => error,
        };
        self.reports.error(error)
    }

    /// Buffers for decompression, lent to `work`.
    pub(crate) fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> Answer<T> {
        let spare = self.scratches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = match spare.map_or_else(|| Scratch::new(1), Ok) {
            Ok(scratch) => scratch,
            Err(error) => {
                self.reports.warning(&format!("cannot decompress: {error}"));
                return Err(fuser::Errno::EIO.into());
            }
        };
        let out = work(&mut scratch);
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        Ok(out)
    }

    /// A tree, fetched.
    pub(crate) fn tree(&self, domain: &DomainKeys, id: &BlobId) -> Answer<TreeBlob> {
        self.with_reload(|reader, scratch| reader.tree(domain, id, scratch))
    }

    /// A chunk, from whichever of its places has it.
    pub(crate) fn chunk(&self, domain: &DomainKeys, id: &BlobId) -> Answer<Vec<u8>> {
        self.with_reload(|reader, scratch| {
            let mut out = Vec::new();
            reader.read(domain, BlobKind::Data, id, scratch, &mut out).map(|()| out)
        })
    }

    /// What is missing was perhaps moved by a prune: the index is loaded once more.
    fn with_reload<T>(&self, work: impl Fn(&BlobReader, &mut Scratch) -> Result<T, RepoError>) -> Answer<T> {
        let reader = self.reader();
        let failed = match self.with_scratch(|scratch| work(&reader, scratch))? {
            Ok(done) => return Ok(done),
            Err(error) => error.into_finding(),
        };
        let finding = match failed {
            Ok(finding) => finding,
            Err(error) => return Err(self.reports.error(error)),
        };
        if finding.code == FindingCode::Missing && (self.age() > RELOAD_EVERY && self.reload().is_ok()) {
            let reader = self.reader();
            let again = self.with_scratch(|scratch| work(&reader, scratch))?;
            return again.map_err(|error| self.reports.error(error));
        }
        Err(self.reports.error(finding.into()))
    }

    fn age(&self) -> Duration {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// A reader with the index as it is now; what is wrong with that is told.
fn load(repository: &Repository, cache: Option<&Cache>, reports: &Reports) -> Result<BlobReader, RepoError> {
    let (index, findings) = Index::load(repository, cache)?;
    findings.iter().for_each(|finding| reports.finding(finding));
    if let Some(text) = index.cache_failure() {
        reports.warning(&text);
    }
    Ok(BlobReader::new(repository.clone(), Arc::new(index)))
}
