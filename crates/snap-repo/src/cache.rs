use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use snap_backend::{Backend, BackendError, Bytes, ObjectMeta, ObjectName, PutOutcome};
use snap_crypto::hash;
use snap_format::{CONFIG_CHECKSUM_LEN, Config, ObjectId, RepoId, SlotId};

use crate::names::{CONFIG, CONFIG_BACKUP};
use crate::parse_object_name;

/// The local cache of one repository: a directory that may be deleted at any time without loss. Whatever goes wrong with it
/// only costs time.
#[derive(Debug, Clone)]
pub struct Cache {
    base: PathBuf,
    root: PathBuf,
}

impl Cache {
    /// The cache of `repository` below `base`.
    pub fn new(base: &Path, repository: RepoId) -> Self {
        Self { base: base.to_owned(), root: base.join(&repository.to_hex()[..32]) }
    }

    /// What this machine knows of a store's place, whatever repository is there: hints at how to ask, nothing to rely on.
    pub fn of_place(base: &Path, location: &str) -> Self {
        let hex = ObjectId(hash(location.as_bytes())).to_hex();
        Self { base: base.to_owned(), root: base.join("places").join(&hex[..32]) }
    }

    /// As [`Cache::of_place`], below the same directory as this cache.
    pub fn place(&self, location: &str) -> Self {
        Self::of_place(&self.base, location)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads a file of the cache.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.root.join(name)).ok()
    }

    /// Replaces a file of the cache as a whole; readers see the old or the new one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.root.join(name);
        let parent = path.parent().expect("names in the cache are relative");
        make_private_dir(parent)?;
        let unique = SlotId(snap_crypto::random().map_err(std::io::Error::other)?);
        let temporary = parent.join(format!(".tmp-{unique}"));
        let outcome = write_private(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
        if outcome.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        outcome
    }

    /// Removes a file of the cache.
    pub fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.root.join(name));
    }

    /// Whether a file is there.
    pub fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// A backend that keeps small immutable objects in this cache. Their bytes are compared with their names on each use.
    pub fn wrap(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Caching { base: self.base.clone(), cache: OnceLock::from(self.clone()), backend })
    }

    /// The same for a repository that is not known yet: from its config on, objects are kept in its cache below `base`. The
    /// config only names a directory; whether it is true shows when the repository is opened.
    pub fn wrap_below(base: &Path, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Caching { base: base.to_owned(), cache: OnceLock::new(), backend })
    }
}

/// Makes a directory, and those above it, for this user alone.
#[cfg(unix)]
pub(crate) fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(unix)]
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    create_private(path)?.write_all(bytes)
}

/// Makes a new file for this user alone, to be written and read.
#[cfg(unix)]
pub(crate) fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[derive(Debug)]
struct Caching {
    base: PathBuf,
    cache: OnceLock<Cache>,
    backend: Arc<dyn Backend>,
}

/// Objects that are small and read by every run.
fn is_cached(name: &ObjectName) -> bool {
    // Not snapshots: they stand in a table (`snapshot_cache`).
    ["epochs/", "marks/"].iter().any(|prefix| name.as_str().starts_with(prefix)) || is_index(name)
}

/// Kept from when this machine stores it until the next run has absorbed it; others are absorbed when they are read.
fn is_index(name: &ObjectName) -> bool {
    name.as_str().starts_with("index/")
}

fn is_genuine(name: &ObjectName, bytes: &[u8]) -> bool {
    parse_object_name(name.as_str()).is_some_and(|(_, id)| hash(bytes) == id.0)
}

impl Caching {
    /// Learns from a config whose cache this is.
    fn meet_config(&self, bytes: &[u8]) {
        let body = bytes.len().checked_sub(CONFIG_CHECKSUM_LEN).and_then(|len| bytes.get(..len));
        if self.cache.get().is_none()
            && let Some(config) = body.and_then(|body| Config::decode(body).ok())
        {
            let _ = self.cache.set(Cache::new(&self.base, config.repository));
        }
    }
}

impl Backend for Caching {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let Some(cache) = self.cache.get().filter(|_| is_cached(name)) else {
            let bytes = self.backend.get(name)?;
            if [CONFIG, CONFIG_BACKUP].contains(&name.as_str()) {
                self.meet_config(&bytes);
            }
            return Ok(bytes);
        };
        if let Some(bytes) = cache.read(name.as_str()) {
            if is_genuine(name, &bytes) {
                return Ok(bytes.into());
            }
            cache.remove(name.as_str());
        }
        let bytes = self.backend.get(name)?;
        if !is_index(name) && is_genuine(name, &bytes) {
            let _ = cache.write(name.as_str(), &bytes);
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.backend.get_range(name, offset, len)
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        self.backend.get_into(name, offset, buffer)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let outcome = self.backend.put(name, body.clone())?;
        if let Some(cache) = self.cache.get().filter(|_| is_cached(name)) {
            let _ = cache.write(name.as_str(), &body);
        }
        Ok(outcome)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.backend.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.backend.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        if let Some(cache) = self.cache.get() {
            cache.remove(name.as_str());
        }
        self.backend.delete(name)
    }

    fn location(&self) -> String {
        self.backend.location()
    }

    fn local_root(&self) -> Option<&Path> {
        self.backend.local_root()
    }

    fn parallelism(&self) -> usize {
        self.backend.parallelism()
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.backend.sweep_stale_temporaries()
    }
}
