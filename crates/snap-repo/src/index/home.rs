//! Where tables are kept: files in the cache, and the manifest that lists them.
//!
//! A file is written once under a random name and never changed; the manifest is replaced as a whole, by whoever holds the
//! lock. Who does not get the lock works with files that have no name. So two processes do not disturb each other, and what a
//! killed one leaves is removed by the next that changes the manifest.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use snap_crypto::{IdKey, Zeroizing, derive_key};
use snap_format::ObjectId;

use super::block::{Blocks, Damaged, Medium, Read, Sink, TableId};
use super::entry::Fields;
use super::merge::{MergeError, NewTable, merge};
use super::table::{Source, Table};
use crate::cache::{create_private, make_private_dir};
use crate::{Cache, Repository};

/// Of each copy for itself: each has another index.
const DIR: &str = "tables";
const MANIFEST: &str = "manifest";
const LOCK: &str = "lock";
const MANIFEST_MAGIC: [u8; 8] = *b"snapidxm";
/// More tables than merging ever leaves.
const MAX_TABLES: usize = 1 << 12;

/// The tables of a repository in its cache.
#[derive(Clone)]
pub(super) struct Home {
    pub(super) repository: Repository,
    cache: Cache,
    /// Where the tables of this copy are in the cache.
    dir: String,
    key: Zeroizing<[u8; 32]>,
    /// Why the cache could not be written.
    failure: Arc<Mutex<Option<String>>>,
}

/// What becomes of a new table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It has a name, and the manifest will list it.
    Listed,
    /// It is gone when this process ends.
    Private,
    /// The same, and needs no disk.
    InMemory,
}

/// Who holds it may change the manifest. Released with the process, however it ends.
pub(super) struct Lock(#[allow(dead_code)] Option<File>);

impl Home {
    pub(super) fn new(repository: &Repository, cache: &Cache) -> Self {
        let secret = repository.keyring().cache_secret();
        let key = derive_key("snap v0 cached index", &[secret, &repository.id().0]);
        Self {
            repository: repository.clone(),
            cache: cache.clone(),
            dir: format!("{DIR}/{}", repository.copy_id()),
            key: Zeroizing::new(key),
            failure: Arc::default(),
        }
    }

    /// Notes why the cache could not be written; the first time counts.
    pub(super) fn note_failure(&self, error: &std::io::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.to_string());
    }

    /// Why the cache could not be written, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn manifest(&self) -> String {
        format!("{}/{MANIFEST}", self.dir)
    }

    fn path(&self, id: &TableId) -> PathBuf {
        self.cache.root().join(&self.dir).join(hex(id))
    }

    fn table_key(&self, id: &TableId) -> IdKey {
        IdKey::new(derive_key("snap v0 cached index table", &[self.key.as_slice(), id]))
    }

    /// None if another process holds it. Where there are no locks, everybody has it: races cost time only.
    pub(super) fn lock(&self) -> Option<Lock> {
        let dir = self.cache.root().join(&self.dir);
        let file = make_private_dir(&dir).and_then(|()| File::create(dir.join(LOCK)));
        match file.map(|file| (file.try_lock(), file)) {
            Ok((Ok(()), file)) => Some(Lock(Some(file))),
            Ok((Err(TryLockError::WouldBlock), _)) => None,
            _ => Some(Lock(None)),
        }
    }

    /// The tables that the manifest lists; none if it is not whole, or another repository's.
    pub(super) fn listed(&self) -> Vec<TableId> {
        let size = std::fs::metadata(self.cache.root().join(self.manifest())).map_or(0, |meta| meta.len());
        if size > (MAX_TABLES as u64 + 4) * 16 {
            return Vec::new();
        }
        self.cache
            .read(&self.manifest())
            .and_then(|bytes| self.parse_manifest(&bytes).ok())
            .unwrap_or_default()
    }

    fn parse_manifest(&self, bytes: &[u8]) -> Read<Vec<TableId>> {
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(Damaged)?;
        let mut fields = Fields(body);
        if IdKey::new(*self.key).id(body) != *checksum || fields.take()? != MANIFEST_MAGIC {
            return Err(Damaged);
        }
        (0..fields.count(16)?).map(|_| fields.take()).collect()
    }

    /// Lists these tables and no others, and removes every file that is not listed. Only for who holds the lock.
    pub(super) fn publish(&self, _: &Lock, tables: &[TableId]) {
        let mut bytes = MANIFEST_MAGIC.to_vec();
        bytes.extend_from_slice(&(tables.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&tables.concat());
        let checksum = IdKey::new(*self.key).id(&bytes);
        bytes.extend_from_slice(&checksum);
        if let Err(error) = self.cache.write(&self.manifest(), &bytes) {
            // Files of this run stay behind: the next one that can write removes them.
            self.note_failure(&error);
            return;
        }
        let kept: HashSet<_> =
            tables.iter().map(hex).chain([LOCK.to_owned(), "manifest".to_owned()]).collect();
        for file in std::fs::read_dir(self.cache.root().join(&self.dir)).into_iter().flatten().flatten() {
            if file.file_name().to_str().is_none_or(|name| !kept.contains(name)) {
                let _ = std::fs::remove_file(file.path());
            }
        }
        // Index objects that were kept as files are in the tables now.
        let _ = std::fs::remove_dir_all(self.cache.root().join("index"));
    }

    /// None if it is not there or not whole.
    pub(super) fn open(&self, id: TableId) -> Option<Table> {
        let file = File::open(self.path(&id)).ok()?;
        let blocks = Blocks::open(Medium::File(file), id, self.table_key(&id)).ok()?;
        Table::open(id, blocks).ok()
    }

    fn create(&self, path: &Path) -> std::io::Result<File> {
        let file = create_private(path)?;
        #[cfg(test)]
        if self.cache.has("full") {
            return std::fs::OpenOptions::new().read(true).write(true).open("/dev/full");
        }
        Ok(file)
    }

    /// Merges `sources` into a new table.
    pub(super) fn make(
        &self,
        sources: &[&dyn Source],
        is_alive: &dyn Fn(&ObjectId) -> bool,
        keep: Keep,
    ) -> Result<Table, MergeError> {
        let id: TableId = snap_crypto::random().map_err(std::io::Error::other)?;
        let path = self.path(&id);
        let sink = if keep == Keep::InMemory {
            Sink::Memory(Vec::new())
        } else {
            make_private_dir(&self.cache.root().join(&self.dir))?;
            Sink::File(self.create(&path)?)
        };
        if keep == Keep::Private {
            // Whoever publishes just now may have done it already.
            let _ = std::fs::remove_file(&path);
        }
        let outcome = merge(sources, is_alive, NewTable { id, key: self.table_key(&id), sink });
        if outcome.is_err() && keep == Keep::Listed {
            let _ = std::fs::remove_file(&path);
        }
        outcome
    }

    /// As [`Home::make`], in memory if it cannot be written.
    pub(super) fn make_or_hold(
        &self,
        sources: &[&dyn Source],
        is_alive: &dyn Fn(&ObjectId) -> bool,
        keep: Keep,
    ) -> Result<Table, MergeError> {
        match self.make(sources, is_alive, keep) {
            Err(MergeError::Write(error)) => {
                self.note_failure(&error);
                self.make(sources, is_alive, Keep::InMemory)
            }
            other => other,
        }
    }

    /// Whether a table has a file with a name.
    pub(super) fn has(&self, id: &TableId) -> bool {
        self.path(id).exists()
    }

    /// Removes the file of a table that is not wanted after all.
    pub(super) fn discard(&self, id: &TableId) {
        let _ = std::fs::remove_file(self.path(id));
    }
}

fn hex(id: &TableId) -> String {
    snap_format::SlotId(*id).to_hex()
}
