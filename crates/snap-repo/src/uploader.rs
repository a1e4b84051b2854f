//! Packs on their way to the store, and the index that follows them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use snap_format::{BlobKind, IndexObject, IndexedPack, ObjectId, ObjectKind};

use crate::pack::PackBuilder;
use crate::writer::{WriterOptions, lock};
use crate::{Area, RepoError, Repository, Result, WriterStats, object_name};

/// Packs after which an index object is written: what an interruption costs at most is listing them again.
const PACKS_PER_INDEX: usize = 64;
/// Blobs after which an index object is written: keeps objects near 8 MiB.
pub(crate) const BLOBS_PER_INDEX: usize = 200_000;
/// Room for the last blob, header, padding and trailer beyond the target size.
const BUFFER_SLACK: usize = 5 << 20;

/// How often a thread that waits for a buffer looks whether it waits in vain.
const FAILURE_POLL: Duration = Duration::from_millis(50);

/// Threads that finish packs and put them. Memory is bounded by a fixed number of pooled buffers: who wants another
/// waits until an upload has ended.
pub(crate) struct Uploader {
    shared: Arc<Shared>,
    sender: Option<Sender<PackBuilder>>,
    buffers: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    repository: Repository,
    domain: String,
    stats: WriterStats,
    failed: AtomicBool,
    failure: Mutex<Option<RepoError>>,
    /// Stored packs that no index object names yet.
    unindexed: Mutex<Vec<IndexedPack>>,
    /// All packs of this run, for its looks at the marks, and its index objects.
    stored: Mutex<HashSet<ObjectId>>,
    index_objects: Mutex<Vec<ObjectId>>,
    under_way: Mutex<usize>,
    idle: Condvar,
    pool: Sender<Vec<u8>>,
}

/// A pack's bytes, shared with the store.
struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Uploader {
    pub(crate) fn start(repository: &Repository, domain: &str, options: &WriterOptions) -> Self {
        let uploads = options.uploads.max(1);
        let (pool, buffers) = unbounded();
        // One is being filled while the others are on their way. Their memory is touched when they are first used.
        for _ in 0..=uploads {
            let _ = pool.send(Vec::with_capacity(options.pack_target + BUFFER_SLACK));
        }
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            domain: domain.to_owned(),
            stats: WriterStats::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            unindexed: Mutex::default(),
            stored: Mutex::default(),
            index_objects: Mutex::default(),
            under_way: Mutex::new(0),
            idle: Condvar::new(),
            pool,
        });
        let (sender, receiver) = bounded::<PackBuilder>(1);
        let threads = (0..uploads)
            .map(|_| {
                let (shared, receiver) = (Arc::clone(&shared), receiver.clone());
                std::thread::spawn(move || receiver.iter().for_each(|pack| shared.upload(pack)))
            })
            .collect();
        Self { shared, sender: Some(sender), buffers, threads }
    }

    pub(crate) fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }

    /// Space for a pack. Trees are few: their packs grow as they need.
    pub(crate) fn buffer(&self, kind: BlobKind) -> Vec<u8> {
        match kind {
            BlobKind::Tree => Vec::new(),
            BlobKind::Data => loop {
                match self.buffers.recv_timeout(FAILURE_POLL) {
                    Ok(buffer) => break buffer,
                    // After a failure buffers are lost; whoever waits goes on, and meets the failure at the next step.
                    Err(_) if self.shared.failed.load(Ordering::Acquire) => break Vec::new(),
                    Err(_) => {}
                }
            },
        }
    }

    /// The failure of an upload, if there was one: the first caller gets the cause.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let cause = lock(&self.shared.failure).take();
        Err(cause.unwrap_or_else(|| RepoError::Refused("the run was stopped by an earlier failure".into())))
    }

    pub(crate) fn send(&self, pack: PackBuilder) -> Result<()> {
        self.check()?;
        *lock(&self.shared.under_way) += 1;
        let sender = self.sender.as_ref().expect("the sender lives until the uploader is dropped");
        sender.send(pack).expect("the upload threads live as long as the sender");
        Ok(())
    }

    /// Waits for all packs, then writes the index that names them.
    pub(crate) fn drain(&self) -> Result<()> {
        let mut under_way = lock(&self.shared.under_way);
        while *under_way > 0 {
            under_way = self.shared.idle.wait(under_way).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(under_way);
        self.check()?;
        self.flush_index()
    }

    /// Takes a pack, whose blobs were moved, from those that this run has stored.
    pub(crate) fn forget_pack(&self, pack: &ObjectId) {
        lock(&self.shared.stored).remove(pack);
    }

    /// The packs that this run has stored.
    pub(crate) fn stored_packs(&self) -> Vec<ObjectId> {
        lock(&self.shared.stored).iter().copied().collect()
    }

    /// The index objects that this run has stored.
    pub(crate) fn index_objects(&self) -> Vec<ObjectId> {
        lock(&self.shared.index_objects).clone()
    }

    /// Notes a stored pack for the next index object.
    pub(crate) fn index_later(&self, pack: IndexedPack) {
        lock(&self.shared.unindexed).push(pack);
    }

    pub(crate) fn flush_index(&self) -> Result<()> {
        let packs = std::mem::take(&mut *lock(&self.shared.unindexed));
        self.shared.write_index(packs)
    }
}

/// Counts an upload as ended, even if the store panicked: whoever drains would wait for ever.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
        let mut under_way = lock(&self.0.under_way);
        *under_way -= 1;
        if *under_way == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn upload(&self, pack: PackBuilder) {
        let _ended = Ended(self);
        if !self.failed.load(Ordering::Acquire)
            && let Err(error) = self.try_upload(pack)
        {
            lock(&self.failure).get_or_insert(error);
            self.failed.store(true, Ordering::Release);
        }
    }

    fn try_upload(&self, pack: PackBuilder) -> Result<()> {
        let kind = pack.kind;
        let (indexed, bytes) = pack.finish(self.repository.keyring(), &self.domain)?;
        let size = bytes.len() as u64;
        let name = object_name(Area::Packs, &indexed.id);
        let bytes = Arc::new(bytes);
        let outcome = self.repository.backend().put(&name, Bytes::from_owner(Lent(Arc::clone(&bytes))));
        if kind == BlobKind::Data {
            // A store that keeps the bytes, in memory, must not keep the run from going on.
            let buffer = Arc::try_unwrap(bytes).unwrap_or_default();
            let _ = self.pool.send(buffer);
        }
        outcome?;
        lock(&self.stored).insert(indexed.id);
        self.stats.stored_bytes.fetch_add(size, Ordering::Relaxed);
        self.stats.packs.fetch_add(1, Ordering::Relaxed);
        let full = {
            let mut unindexed = lock(&self.unindexed);
            unindexed.push(indexed);
            let blobs: usize = unindexed.iter().map(|pack| pack.blobs.len()).sum();
            let full = unindexed.len() >= PACKS_PER_INDEX || blobs >= BLOBS_PER_INDEX;
            full.then(|| std::mem::take(&mut *unindexed))
        };
        self.write_index(full.unwrap_or_default())
    }

    /// The packs are stored; now they may be named.
    fn write_index(&self, packs: Vec<IndexedPack>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let payload = IndexObject { packs, replaces: Vec::new() }.encode();
        let bytes = crate::boxes::seal_box(self.repository.keyring(), ObjectKind::Index, &payload)?;
        self.stats.stored_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let id = ObjectId(snap_crypto::hash(&bytes));
        self.repository.backend().put(&object_name(Area::Index, &id), bytes.into())?;
        lock(&self.index_objects).push(id);
        Ok(())
    }
}
