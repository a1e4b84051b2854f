//! Writing: blobs into packs, packs into the store, then the index, then the snapshot (F25), with the looks at marks that
//! make a concurrent prune harmless (F27).

mod adopt;
mod commit;
mod looks;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snap_crypto::SealKey;
use snap_format::{BlobEntry, BlobId, BlobKind, ObjectId, RunKeyEntry, Time, limits};

use self::adopt::adopt;
pub use self::commit::{IndexFlushed, NewSnapshot};
use self::looks::read_marks;
use crate::pack::{Group, PackBuilder, seal_unit};
use crate::pack_look::{StoredPacks, index_digest};
use crate::parallel::join;
use crate::uploader::Uploader;
use crate::{Area, Cache, DomainKeys, Index, RepoError, Repository, Result, Scratch};

/// How to write.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Size at which a pack is finished, bytes.
    pub pack_target: usize,
    /// Packs on their way at the same time; each takes `pack_target` of memory.
    pub uploads: usize,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// The time, by which very many packs are listed once a day; without it, each time.
    pub now: Option<Time>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { pack_target: limits::PACK_TARGET, uploads: 2, level: 3, now: None }
    }
}

/// Counters that grow while a run goes on.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Plain bytes of blobs that were new.
    pub added_bytes: AtomicU64,
    /// Bytes written to the store.
    pub stored_bytes: AtomicU64,
    /// New blobs.
    pub blobs: AtomicU64,
    /// Packs stored.
    pub packs: AtomicU64,
    /// Packs of an earlier, interrupted run that were taken over.
    pub adopted_packs: AtomicU64,
    /// Packs that no index names and that the store does not let this run look into: their blobs are stored again.
    pub unreadable_packs: AtomicU64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 16;

/// Takes blobs from many threads.
pub struct Writer {
    repository: Repository,
    cache: Option<Cache>,
    index: Arc<Index>,
    domain: DomainKeys,
    run: (SealKey, RunKeyEntry),
    marked: HashSet<ObjectId>,
    /// By position in the index: marked when the run began, and relied on since.
    avoid: Vec<bool>,
    used: Vec<AtomicBool>,
    fresh: [Mutex<HashSet<BlobId>>; SHARDS],
    open: [Mutex<Option<PackBuilder>>; 2],
    /// Groups of small blobs that are not full: about as many as there are threads.
    groups: Mutex<Vec<Group>>,
    uploader: Uploader,
    options: WriterOptions,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({:?})", self.repository)
    }
}

/// A file in the cache that stands while a run of this slot may have stored packs that no index names.
fn pending_name(repository: &Repository) -> String {
    format!("pending-{}", repository.keyring().slot())
}

fn settled_name(repository: &Repository) -> String {
    format!("settled-{}", repository.keyring().slot())
}

impl Writer {
    /// Begins a run: looks at the marks and at the packs that are there (F27 a), and takes over packs that an interrupted
    /// run of this slot left (F28). That reads headers, unless the cache knows that the last run ended well.
    /// What lies in a pack that is gone, or not as long as the index says, counts as unknown and is stored again.
    ///
    /// The listings may have been taken ahead, together with that of the index and in whatever order
    /// ([`Repository::prefetch`]). A prune that began before them, or since, is met by the looks that come later: what it takes
    /// away, it first takes from the index (F26), and F27 d compares the index objects.
    pub fn begin(
        repository: &Repository,
        mut index: Index,
        cache: Option<&Cache>,
        options: WriterOptions,
    ) -> Result<Self> {
        repository.keyring().require_writer("backup")?;
        let name = repository.keyring().own_domain().to_owned();
        let domain = repository.keyring().domain(&name).ok_or(RepoError::Role {
            verb: "backup",
            role: repository.keyring().role(),
            needs: "owner or backup",
        })?;
        let settled = cache.is_some_and(|cache| {
            cache.has(&settled_name(repository)) && !cache.has(&pending_name(repository))
        });
        let place = cache.map(|cache| cache.place(&repository.backend().location()));
        let (named, now) = (index.packs().len() as u64, options.now.map(|now| now.secs));
        let seen = index_digest(index.objects());
        let (marked, stored) = std::thread::scope(|scope| {
            let marked = scope.spawn(|| read_marks(repository, repository.take_listing(Area::Marks)?));
            let stored = StoredPacks::look(repository, named, seen, place.as_ref(), now, !settled);
            (join(marked), stored)
        });
        let (marked, stored) = (marked?, stored?);
        // What is listed from here on must not have been listed before.
        repository.drop_listings();
        let run = repository.new_run_key()?;
        let uploader = Uploader::start(repository, &domain.name, &options);
        if !settled {
            adopt(repository, &mut index, &stored, &marked, &uploader)?;
        }
        if let Some(cache) = cache {
            let _ = cache.write(&pending_name(repository), b"");
        }
        let avoid: Vec<bool> =
            index.packs().iter().map(|pack| marked.contains(&pack.id) || !stored.has(pack)).collect();
        Ok(Self {
            repository: repository.clone(),
            cache: cache.cloned(),
            used: avoid.iter().map(|_| AtomicBool::new(false)).collect(),
            index: Arc::new(index),
            domain,
            run,
            marked,
            avoid,
            fresh: Default::default(),
            open: Default::default(),
            groups: Mutex::default(),
            uploader,
            options,
        })
    }

    /// The keys under which this run names blobs and cuts.
    pub fn domain(&self) -> &DomainKeys {
        &self.domain
    }

    /// The repository that is written to.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The index as it was when the run began, adopted packs included.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Counters.
    pub fn stats(&self) -> &WriterStats {
        self.uploader.stats()
    }

    /// Whether a blob is stored, or on its way, in this domain; if so the run relies on it from now on.
    pub fn knows(&self, id: &BlobId) -> bool {
        self.is_stored(id) || lock(&self.fresh[usize::from(id.0[0]) % SHARDS]).contains(id)
    }

    fn is_stored(&self, id: &BlobId) -> bool {
        self.index.packs_of(&self.domain.name, id, |pack| {
            let usable = !self.avoid[pack as usize];
            if usable {
                self.used[pack as usize].store(true, Ordering::Relaxed);
            }
            usable
        })
    }

    /// Stores a blob unless it is known. Returns its id and whether it was new.
    pub fn add(&self, kind: BlobKind, plain: &[u8], scratch: &mut Scratch) -> Result<(BlobId, bool)> {
        let key = match kind {
            BlobKind::Data => &self.domain.data_id,
            BlobKind::Tree => &self.domain.tree_id,
        };
        let id = BlobId(key.id(plain));
        if self.is_stored(&id) || !lock(&self.fresh[usize::from(id.0[0]) % SHARDS]).insert(id) {
            return Ok((id, false));
        }
        let is_member =
            kind == BlobKind::Data && plain.len() < Group::MEMBER_MAX && scratch.may_shrink(plain);
        if is_member {
            // The one that was used last: its members come from the same place.
            let mut group = lock(&self.groups).pop().unwrap_or_default();
            group.push(id, plain);
            if group.is_full() {
                self.store_group(&mut group, scratch)?;
            }
            lock(&self.groups).push(group);
        } else {
            let (codec, stored_len) =
                seal_unit(self.repository.id(), kind, Some(&id), plain, &self.run.0, scratch)?;
            let plain_len = plain.len() as u32; // checked when it was sealed
            let line = BlobEntry { id, stored_len, plain_len, codec, grouped: false, run_key: 0 };
            self.push(kind, &[line], self.run.1, &scratch.sealed)?;
        }
        let stats = self.uploader.stats();
        stats.added_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
        stats.blobs.fetch_add(1, Ordering::Relaxed);
        Ok((id, true))
    }

    fn store_group(&self, group: &mut Group, scratch: &mut Scratch) -> Result<()> {
        let lines = group.seal(self.repository.id(), BlobKind::Data, &self.run.0, scratch)?;
        self.push(BlobKind::Data, &lines, self.run.1, &scratch.sealed)
    }

    /// Puts a sealed unit into the open pack of its kind; a pack that is full goes on its way.
    fn push(&self, kind: BlobKind, lines: &[BlobEntry], run_key: RunKeyEntry, sealed: &[u8]) -> Result<()> {
        self.uploader.check()?;
        let mut open = lock(&self.open[usize::from(kind == BlobKind::Tree)]);
        let keyring = self.repository.keyring();
        let new_pack = || PackBuilder::new(keyring, kind, self.uploader.buffer(kind));
        let pack = open.get_or_insert_with(new_pack);
        let position = match pack.run_key(&run_key) {
            Some(position) => position,
            None => {
                // The list of run keys is full: only moved blobs, of more than 256 runs, come here.
                let full = std::mem::replace(pack, new_pack());
                self.uploader.send(full)?;
                pack.run_key(&run_key).expect("an empty list has room")
            }
        };
        pack.push(lines, position, sealed);
        // Not before it has reached the target: a pack below it would be padded (F17), each by up to a sixteenth.
        if pack.len() >= self.options.pack_target
            && let Some(full) = open.take()
        {
            self.uploader.send(full)?;
        }
        Ok(())
    }

    /// Stores what is left, and the index. Nothing can be added after that.
    pub fn finish(mut self) -> Result<IndexFlushed> {
        self.flush()?;
        // F27 b: marks that came since the run began.
        self.leave_marked_packs()?;
        Ok(IndexFlushed { writer: self })
    }

    fn flush(&self) -> Result<()> {
        let groups = std::mem::take(&mut *lock(&self.groups));
        if groups.iter().any(|group| !group.is_empty()) {
            let mut scratch = Scratch::new(self.options.level)
                .map_err(|error| RepoError::Refused(format!("no memory to compress: {error}")))?;
            for mut group in groups.into_iter().filter(|group| !group.is_empty()) {
                self.store_group(&mut group, &mut scratch)?;
            }
        }
        for open in &self.open {
            if let Some(pack) = lock(open).take().filter(|pack| !pack.is_empty()) {
                self.uploader.send(pack)?;
            }
        }
        self.uploader.drain()
    }
}
