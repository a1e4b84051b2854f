//! Writing: blobs into packs, packs into the store, then the index, then the snapshot (F25), with the looks at marks that
//! make a concurrent prune harmless (F27).

mod adopt;
mod commit;
mod looks;
mod members;
mod sealed;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snap_crypto::SealKey;
use snap_format::{BlobEntry, BlobId, BlobKind, ObjectId, RunKeyEntry, Time, limits};

use self::adopt::{adopt, compare};
pub use self::commit::{IndexFlushed, NewSnapshot};
pub use self::looks::Sabotage;
pub(crate) use self::members::BLOBS_PER_INDEX;
pub use self::members::Lagging;
pub(crate) use self::members::{CopySet, Members};
use self::members::{Member, Standing, Written};
pub use self::sealed::{SealedPack, Stored};
use crate::index::Fresh;
use crate::marks::Marks;
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
    /// The domain to write in; without it the slot's own. Owners may name another's, to move what is sealed already.
    pub domain: Option<String>,
    /// The time, by which very many packs are listed once a day; without it, each time.
    pub now: Option<Time>,
    /// Chunks shorter than this may be sealed in groups, bytes; 0: each is sealed alone.
    pub group_below: usize,
    /// Packs that are known to be damaged: what lies in them is not known.
    pub distrust: HashSet<ObjectId>,
    /// Test-only.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            pack_target: limits::PACK_TARGET,
            uploads: 2,
            level: 3,
            domain: None,
            now: None,
            group_below: Group::MEMBER_MAX,
            distrust: HashSet::new(),
            sabotage: Sabotage::None,
        }
    }
}

/// Counters that grow while a run goes on.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Plain bytes of blobs that were new.
    pub added_bytes: AtomicU64,
    /// Bytes written to the store; of several copies, to the one that took the most.
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

/// Packs of data that are in the making at the same time, if there are several copies: what all lack, and what one lacks.
const OPEN_PACKS: usize = 2;

/// Takes blobs from many threads.
pub struct Writer {
    members: Arc<Members>,
    cache: Option<Cache>,
    domain: DomainKeys,
    run: (SealKey, RunKeyEntry),
    fresh: Fresh,
    /// By kind, for whom.
    open: [Mutex<Vec<(CopySet, PackBuilder)>>; 2],
    open_most: usize,
    /// Groups of small blobs that are not full: about as many as there are threads.
    groups: Mutex<Vec<(CopySet, Group)>>,
    uploader: Uploader,
    options: WriterOptions,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({:?})", self.repository())
    }
}

/// A file in the cache that stands while a run of this slot may have stored packs in this copy that no index names.
fn pending_name(repository: &Repository) -> String {
    format!("pending-{}", of_slot_and_copy(repository))
}

fn settled_name(repository: &Repository) -> String {
    format!("settled-{}", of_slot_and_copy(repository))
}

fn of_slot_and_copy(repository: &Repository) -> String {
    format!("{}-{}", repository.keyring().slot(), repository.copy_id())
}

/// A copy that a run is to write to.
pub struct WriterCopy {
    /// Its position among the copies that the run is about, by which [`Lagging`] names it.
    pub position: usize,
    /// The copy, opened with the same slot as the others.
    pub repository: Repository,
    /// Its index.
    pub index: Index,
}

impl Writer {
    /// Begins a run: looks at the marks and at the packs that are there (F27 a), and takes over packs that an interrupted
    /// run of this slot left (F28). That reads headers, unless the cache knows that the last run ended well.
    /// What lies in a pack that is gone, or not as long as the index says, counts as unknown and is stored again.
    ///
    /// The listings may have been taken ahead, together with that of the index and in whatever order
    /// ([`Repository::prefetch`]), but for the packs: they are listed after the marks, unless there are none. A prune that
    /// began before, or since, is met by the looks that come later: what it takes away, it first takes from the index
    /// (F26), and F27 d compares the index objects.
    pub fn begin(
        repository: &Repository,
        index: Index,
        cache: Option<&Cache>,
        options: WriterOptions,
    ) -> Result<Self> {
        let only = WriterCopy { position: 0, repository: repository.clone(), index };
        Self::begin_all(vec![only], Arc::default(), cache, options)
    }

    /// The same for several copies at once. What fails in one of them is noted in `lagging`, and the run goes on with the
    /// others; what fails in the last one is the failure of the run.
    pub fn begin_all(
        copies: Vec<WriterCopy>,
        lagging: Arc<Lagging>,
        cache: Option<&Cache>,
        options: WriterOptions,
    ) -> Result<Self> {
        let Some(first) = copies.first().map(|copy| copy.repository.clone()) else {
            return Err(RepoError::Refused("there is no copy to write to".into()));
        };
        if copies.len() > CopySet::MOST {
            return Err(RepoError::Refused(format!("a run writes to {} copies at most", CopySet::MOST)));
        }
        let keyring = first.keyring();
        keyring.require_writer("backup")?;
        let domain = options.domain.as_deref().unwrap_or_else(|| keyring.own_domain());
        if domain != keyring.own_domain() {
            keyring.require_owner("writing in another domain")?;
        }
        let domain = keyring.domain(domain).ok_or(RepoError::Role {
            verb: "backup",
            role: keyring.role(),
            needs: "owner or backup",
        })?;
        let stats = Arc::<WriterStats>::default();
        let began = begin_members(copies, &first, cache, &options, &stats);
        let (mut list, mut failed) = (Vec::new(), Vec::new());
        for (position, member) in began {
            match member {
                Ok(member) => list.push(member),
                Err(error) => failed.push((position, error)),
            }
        }
        if list.is_empty()
            && let Some((_, last)) = failed.pop()
        {
            failed.into_iter().for_each(|(position, error)| lagging.add(position, error));
            return Err(last);
        }
        failed.into_iter().for_each(|(position, error)| lagging.add(position, error));
        let run = first.new_run_key()?;
        let open_most = if list.len() == 1 { 1 } else { OPEN_PACKS };
        let members = Arc::new(Members::new(list, lagging, stats));
        let uploader = Uploader::start(&members, &domain.name, open_most, &options);
        Ok(Self {
            members,
            cache: cache.cloned(),
            domain,
            run,
            fresh: Fresh::new(&first, cache),
            open: Default::default(),
            open_most,
            groups: Mutex::default(),
            uploader,
            options,
        })
    }

    /// The keys under which this run names blobs and cuts.
    pub fn domain(&self) -> &DomainKeys {
        &self.domain
    }

    /// The repository that is written to: of several copies the first that has not failed.
    pub fn repository(&self) -> &Repository {
        &self.members.first().repository
    }

    /// The index as it was when the run began, adopted packs included: that of the same copy.
    pub fn index(&self) -> &Arc<Index> {
        &self.members.first().index
    }

    /// Counters.
    pub fn stats(&self) -> &WriterStats {
        &self.members.stats
    }

    /// Copies that the run has left behind so far.
    pub fn lagging(&self) -> Arc<Lagging> {
        Arc::clone(self.members.lagging())
    }

    /// Whether a blob is stored, or on its way, in this domain and in every copy; if so the run relies on it from now on.
    pub fn knows(&self, id: &BlobId) -> bool {
        self.lacking(id).is_empty() || self.fresh.contains(id)
    }

    fn lacking(&self, id: &BlobId) -> CopySet {
        self.members.lacking(&self.domain.name, id)
    }

    /// Stores a blob unless it is known. Returns its id and whether it was new.
    pub fn add(&self, kind: BlobKind, plain: &[u8], scratch: &mut Scratch) -> Result<(BlobId, bool)> {
        let key = match kind {
            BlobKind::Data => &self.domain.data_id,
            BlobKind::Tree => &self.domain.tree_id,
        };
        let id = BlobId(key.id(plain));
        let to = self.lacking(&id);
        if to.is_empty() || !self.fresh.insert(id) {
            return Ok((id, false));
        }
        let is_member =
            kind == BlobKind::Data && plain.len() < self.options.group_below && scratch.may_shrink(plain);
        if is_member {
            // The one that was used last: its members come from the same place.
            let mut group = self.take_group(to);
            group.push(id, plain);
            if group.is_full() {
                self.store_group(&mut group, to, scratch)?;
            }
            lock(&self.groups).push((to, group));
        } else {
            let (codec, stored_len) =
                seal_unit(self.members.keyring().repository, kind, Some(&id), plain, &self.run.0, scratch)?;
            let plain_len = plain.len() as u32; // checked when it was sealed
            let line = BlobEntry { id, stored_len, plain_len, codec, grouped: false, run_key: 0 };
            self.push(kind, &[line], self.run.1, &scratch.sealed, to)?;
        }
        let stats = self.stats();
        stats.added_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
        stats.blobs.fetch_add(1, Ordering::Relaxed);
        Ok((id, true))
    }

    fn take_group(&self, to: CopySet) -> Group {
        let mut groups = lock(&self.groups);
        let found = groups.iter().rposition(|(set, _)| *set == to);
        found.map(|at| groups.remove(at).1).unwrap_or_default()
    }

    fn store_group(&self, group: &mut Group, to: CopySet, scratch: &mut Scratch) -> Result<()> {
        let repository = self.members.keyring().repository;
        let lines = group.seal(repository, BlobKind::Data, &self.run.0, scratch)?;
        self.push(BlobKind::Data, &lines, self.run.1, &scratch.sealed, to)
    }

    /// Puts a sealed unit into the open pack of its kind for these copies; a pack that is full goes on its way.
    fn push(
        &self,
        kind: BlobKind,
        lines: &[BlobEntry],
        run_key: RunKeyEntry,
        sealed: &[u8],
        to: CopySet,
    ) -> Result<()> {
        self.members.check()?;
        let mut open = lock(&self.open[usize::from(kind == BlobKind::Tree)]);
        let new_pack = || PackBuilder::new(self.members.keyring(), kind, self.uploader.buffer(kind));
        let at = match open.iter().position(|(set, _)| *set == to) {
            Some(at) => at,
            None => {
                // Before another takes a buffer: those that are open would wait for one another.
                if open.len() >= self.open_most
                    && let Some(largest) = (0..open.len()).max_by_key(|at| open[*at].1.len())
                {
                    let (set, pack) = open.swap_remove(largest);
                    self.uploader.send(pack, set)?;
                }
                open.push((to, new_pack()));
                open.len() - 1
            }
        };
        let pack = &mut open[at].1;
        let position = match pack.run_key(&run_key) {
            Some(position) => position,
            None => {
                // The list of run keys is full: only moved blobs, of more than 256 runs, come here.
                let full = std::mem::replace(pack, new_pack());
                self.uploader.send(full, to)?;
                pack.run_key(&run_key).expect("an empty list has room")
            }
        };
        pack.push(lines, position, sealed);
        // Not before it has reached the target: a pack below it would be padded (F17), each by up to a sixteenth.
        if pack.len() >= self.options.pack_target {
            let (_, full) = open.swap_remove(at);
            self.uploader.send(full, to)?;
        }
        Ok(())
    }

    /// Stores what is left, and the index. Nothing can be added after that.
    pub fn finish(self) -> Result<IndexFlushed> {
        self.flush()?;
        // F27 b: marks that came since the run began.
        if self.options.sabotage != Sabotage::NoLookBeforeSnapshot {
            self.look()?;
        }
        Ok(IndexFlushed { writer: self })
    }

    fn flush(&self) -> Result<()> {
        let groups = std::mem::take(&mut *lock(&self.groups));
        if groups.iter().any(|(_, group)| !group.is_empty()) {
            let mut scratch = Scratch::new(self.options.level)
                .map_err(|error| RepoError::Refused(format!("no memory to compress: {error}")))?;
            for (to, mut group) in groups.into_iter().filter(|(_, group)| !group.is_empty()) {
                self.store_group(&mut group, to, &mut scratch)?;
            }
        }
        for open in &self.open {
            let packs = std::mem::take(&mut *lock(open));
            for (to, pack) in packs.into_iter().filter(|(_, pack)| !pack.is_empty()) {
                self.uploader.send(pack, to)?;
            }
        }
        self.uploader.drain()
    }
}

/// Begins with all copies at the same time.
fn begin_members(
    copies: Vec<WriterCopy>,
    first: &Repository,
    cache: Option<&Cache>,
    options: &WriterOptions,
    stats: &WriterStats,
) -> Vec<(usize, Result<Member>)> {
    let begin = |copy: WriterCopy| {
        let position = copy.position;
        let same = first.has_same_keys(&copy.repository);
        (position, same.and_then(|()| Member::begin(copy, cache, options, stats)))
    };
    if copies.len() == 1 {
        return copies.into_iter().map(begin).collect();
    }
    std::thread::scope(|scope| {
        let begin = &begin;
        let threads: Vec<_> = copies.into_iter().map(|copy| scope.spawn(move || begin(copy))).collect();
        threads.into_iter().map(join).collect()
    })
}

impl Member {
    fn begin(
        copy: WriterCopy,
        cache: Option<&Cache>,
        options: &WriterOptions,
        stats: &WriterStats,
    ) -> Result<Self> {
        let WriterCopy { position, repository, mut index } = copy;
        let settled = cache.is_some_and(|cache| {
            cache.has(&settled_name(&repository)) && !cache.has(&pending_name(&repository))
        });
        let place = cache.map(|cache| cache.place(&repository.backend().location()));
        let (count, now) = (index.pack_limit() as u64, options.now.map(|now| now.secs));
        let seen = index_digest(index.objects());
        let marks = Marks::of_listing(&repository, repository.take_listing(Area::Marks)?)?;
        if !marks.objects.is_empty() {
            // A prune may have gone by between a listing of the packs that was taken ahead and that of the marks.
            let _ = repository.prefetched(Area::Packs);
        }
        let stored = StoredPacks::look(&repository, count, seen, place.as_ref(), now, !settled)?;
        // What is listed from here on must not have been listed before.
        repository.drop_listings();
        let (mut avoid, named) = compare(&index, &stored, marks.packs(), repository.keyring().own_domain());
        for pack in index.packs().filter(|pack| options.distrust.contains(&pack.id)) {
            avoid[pack.number as usize] = true;
        }
        index.check()?;
        let written = Written::default();
        if !settled {
            let unnamed = stored.iter().zip(&named).filter(|(_, named)| !**named).map(|(pack, _)| pack);
            adopt(&repository, &mut index, unnamed, marks.packs(), &written, stats)?;
            // What was adopted is there, and not marked.
            avoid.resize(index.pack_limit(), false);
        }
        if let Some(cache) = cache {
            let _ = cache.write(&pending_name(&repository), b"");
        }
        if options.sabotage == Sabotage::NoListOfPacks {
            avoid.fill(false);
        }
        let relied_on = index.objects().to_vec();
        Ok(Self {
            given: position,
            cache: cache.cloned(),
            used: avoid.iter().map(|_| AtomicBool::new(false)).collect(),
            index: Arc::new(index),
            standing: Mutex::new(Standing { marks, relied_on, own_seen: 0 }),
            avoid,
            repository,
            written,
        })
    }
}
