//! The trees of the last run, kept locally in plain: what a `backup` slot compares with, which cannot read the repository, and
//! what saves everyone else the reading. Each tree is hashed again before use, and that a blob is stored is never taken from here.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snap_crypto::hash;
use snap_format::{BlobId, BlobKind, ObjectId, TreeBlob};
use snap_repo::{BlobReader, Cache, DomainKeys, Scratch, Writer};

use super::tree_fetch::FetchedTrees;
use super::tree_store::{TreeFileWriter, TreeStore};

/// The directory of one dataset and host in the cache.
pub(super) fn cache_name(dataset: &str, host: &str) -> String {
    let digest = hash([dataset.as_bytes(), b"@", host.as_bytes()].concat().as_slice());
    let hex: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("trees/{hex}")
}

/// The trees of this run that are to be kept, on their way to disk.
#[derive(Default)]
enum NewTrees {
    #[default]
    None,
    Some(TreeFileWriter),
    Failed(io::Error),
}

/// Where the parent's trees come from, and where new ones are kept: the cache, and the repository if the role may read it.
pub(super) struct Trees {
    store: Option<TreeStore>,
    fetched: Option<FetchedTrees>,
    reader: Option<Arc<BlobReader>>,
    domain: DomainKeys,
    new: Mutex<NewTrees>,
}

impl Trees {
    /// Opens what the cache has. Nothing of it is written before there is something to keep.
    pub(super) fn open(cache: Option<&Cache>, name: &str, writer: &Writer) -> Self {
        let repository = writer.repository();
        let store = cache.map(|cache| TreeStore::open(cache.root().join(name), repository.id()));
        let domain = writer.domain().clone();
        let reader = repository
            .keyring()
            .can_read()
            .then(|| Arc::new(BlobReader::new(repository.clone(), Arc::clone(writer.index()))));
        Self { store, fetched: None, reader, domain, new: Mutex::default() }
    }

    /// The snapshot and the root that the cached trees belong to.
    pub(super) fn cached(&self) -> Option<(ObjectId, BlobId)> {
        self.store.as_ref()?.state()
    }

    /// Prepares for a parent of which the cache does not have everything: its trees will come in whole packs.
    pub(super) fn expect(&mut self, root: Option<BlobId>, level: i32) {
        if let (Some(store), Some(reader), Some(root)) = (&self.store, &self.reader, root)
            && self.in_store(&root).is_none()
        {
            let fetched = store
                .dir()
                .and_then(|dir| FetchedTrees::new(dir, Arc::clone(reader), self.domain.clone(), level));
            match fetched {
                Ok(fetched) => self.fetched = Some(fetched),
                Err(error) => *self.lock_new() = NewTrees::Failed(error),
            }
        }
    }

    /// Fetches ahead what the cache does not have of `root`, until `enough`.
    pub(super) fn fetch_ahead(&self, root: Option<BlobId>, enough: &AtomicBool) {
        if let (Some(store), Some(fetched), Some(root)) = (&self.store, &self.fetched, root) {
            fetched.fetch_ahead(root, store, enough);
        }
    }

    fn lock_new(&self) -> MutexGuard<'_, NewTrees> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_right(&self, id: &BlobId, plain: &[u8]) -> bool {
        self.domain.tree_id.id(plain) == id.0
    }

    fn in_store(&self, id: &BlobId) -> Option<Vec<u8>> {
        self.store.as_ref()?.find(id, &|id, plain| self.is_right(id, plain))
    }

    /// A tree of the parent; `None` if it cannot be had, which only costs reading files again.
    pub(super) fn tree(&self, id: &BlobId, scratch: &mut Scratch) -> Option<TreeBlob> {
        let fetched = || Some(self.fetched.as_ref()?.find(id)?.plain);
        let plain = self.in_store(id).or_else(fetched).or_else(|| {
            let mut plain = Vec::new();
            self.reader.as_ref()?.read(&self.domain, BlobKind::Tree, id, scratch, &mut plain).ok()?;
            self.keep(id, &plain);
            Some(plain)
        })?;
        TreeBlob::decode(&plain).ok()
    }

    /// Keeps a tree of this run, unless it is here already.
    pub(super) fn remember(&self, id: BlobId, plain: &[u8], is_new: bool) {
        if is_new || self.in_store(&id).is_none() {
            self.keep(&id, plain);
        }
    }

    fn keep(&self, id: &BlobId, plain: &[u8]) {
        let Some(store) = &self.store else { return };
        let mut new = self.lock_new();
        if matches!(*new, NewTrees::None) {
            *new = store.writer().map_or_else(NewTrees::Failed, NewTrees::Some);
        }
        if let NewTrees::Some(writer) = &mut *new
            && !writer.has_lately(id)
            && let Err(error) = writer.add(*id, plain)
        {
            *new = NewTrees::Failed(error);
        }
    }

    /// Makes the cached trees those of `root`.
    pub(super) fn commit(mut self, snapshot: ObjectId, root: BlobId) -> io::Result<()> {
        let Some(store) = self.store.take() else { return Ok(()) };
        let new = match std::mem::take(&mut *self.lock_new()) {
            NewTrees::None => None,
            NewTrees::Some(writer) => Some(writer),
            NewTrees::Failed(error) => return Err(error),
        };
        if let Some(error) = self.fetched.as_ref().and_then(FetchedTrees::take_failure) {
            return Err(error);
        }
        let is_current = store.state().is_some_and(|(_, cached)| cached == root);
        if new.is_none() && self.fetched.is_none() && is_current {
            return Ok(());
        }
        let is_right = |id: &BlobId, plain: &[u8]| self.is_right(id, plain);
        match &self.fetched {
            Some(fetched) => {
                store.commit(new, Some(&|id| fetched.find_here(id)), (snapshot, root), &is_right)
            }
            None => store.commit(new, None, (snapshot, root), &is_right),
        }
    }
}

/// Tells a helper that there is nothing left to help with, however its user ends.
pub(super) struct Enough<'a>(pub(super) &'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
