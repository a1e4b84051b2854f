//! The copies of the repository that a run writes to: what one of them fails at does not stop the others.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use snap_format::{BlobId, IndexObject, IndexedPack, ObjectId, ObjectKind};

use super::{WriterStats, lock};
use crate::boxes::seal_box;
use crate::marks::Marks;
use crate::parallel::join;
use crate::{Area, Cache, Index, Keyring, RepoError, Repository, Result, object_name};

/// Packs after which an index object is written: what an interruption costs at most is listing them again.
const PACKS_PER_INDEX: usize = 64;
/// Blobs after which an index object is written: keeps objects near 8 MiB.
pub(crate) const BLOBS_PER_INDEX: usize = 200_000;

/// Some of the members of a run, by their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CopySet(u32);

impl CopySet {
    /// No run has more members.
    pub(crate) const MOST: usize = u32::BITS as usize;

    pub(crate) const fn one(position: usize) -> Self {
        Self(1 << position)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn has(self, position: usize) -> bool {
        self.0 & 1 << position != 0
    }

    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Copies that a run had to leave behind: each by its position among those that were given, with the cause.
#[derive(Debug, Default)]
pub struct Lagging(Mutex<Vec<(usize, RepoError)>>);

impl Lagging {
    /// Notes one.
    pub fn add(&self, copy: usize, why: RepoError) {
        lock(&self.0).push((copy, why));
    }

    /// Those that were noted since the last call.
    pub fn take(&self) -> Vec<(usize, RepoError)> {
        let mut all = std::mem::take(&mut *lock(&self.0));
        all.sort_by_key(|(copy, _)| *copy);
        all
    }
}

/// A copy of the repository in this run.
pub(crate) struct Member {
    /// Its position among the copies that were given.
    pub(super) given: usize,
    pub(crate) repository: Repository,
    pub(super) index: Arc<Index>,
    pub(super) cache: Option<Cache>,
    pub(super) standing: Mutex<Standing>,
    /// By number in the index: marked when the run began, and relied on since.
    pub(super) avoid: Vec<bool>,
    pub(super) used: Vec<AtomicBool>,
    pub(super) written: Written,
}

/// What was seen of the marks and the index when all that the run relies on was last seen to be safe here.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) marks: Marks,
    /// The index objects that all of this was read from, but for own ones; and how many own ones were among them.
    pub(super) relied_on: Vec<ObjectId>,
    pub(super) own_seen: usize,
}

/// What this run has put into a copy.
#[derive(Default)]
pub(crate) struct Written {
    /// Stored packs that no index object names yet.
    unindexed: Mutex<Vec<IndexedPack>>,
    /// All packs, for the looks at the marks, and index objects.
    packs: Mutex<HashSet<ObjectId>>,
    index_objects: Mutex<Vec<ObjectId>>,
    bytes: AtomicU64,
}

impl Written {
    /// Takes a pack, whose blobs were moved, from those that this run has stored.
    pub(super) fn forget_pack(&self, pack: &ObjectId) {
        lock(&self.packs).remove(pack);
    }

    pub(super) fn packs(&self) -> Vec<ObjectId> {
        lock(&self.packs).iter().copied().collect()
    }

    pub(super) fn index_objects(&self) -> Vec<ObjectId> {
        lock(&self.index_objects).clone()
    }

    /// Notes a pack that is there for the next index object.
    pub(super) fn index_later(&self, pack: IndexedPack) {
        lock(&self.unindexed).push(pack);
    }

    /// Of several copies, what the one took that took the most.
    fn count(&self, bytes: u64, stats: &WriterStats) {
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        stats.stored_bytes.fetch_max(all, Ordering::Relaxed);
    }

    /// The packs that no index names are stored; now they may be named.
    pub(super) fn write_index(&self, repository: &Repository, stats: &WriterStats) -> Result<()> {
        let packs = std::mem::take(&mut *lock(&self.unindexed));
        self.write_index_of(repository, packs, stats)
    }

    fn write_index_of(
        &self,
        repository: &Repository,
        packs: Vec<IndexedPack>,
        stats: &WriterStats,
    ) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let payload = IndexObject { packs, replaces: Vec::new() }.encode();
        let bytes = seal_box(repository.keyring(), ObjectKind::Index, &payload)?;
        self.count(bytes.len() as u64, stats);
        let id = ObjectId(snap_crypto::hash(&bytes));
        repository.backend().put(&object_name(Area::Index, &id), bytes.into())?;
        lock(&self.index_objects).push(id);
        Ok(())
    }
}

impl Member {
    /// Whether a blob is stored here; if so the run relies on it from now on.
    pub(super) fn has(&self, domain: &str, id: &BlobId) -> bool {
        self.index.packs_of(domain, id, |pack| {
            let usable = !self.avoid[pack as usize];
            if usable {
                self.used[pack as usize].store(true, Ordering::Relaxed);
            }
            usable
        })
    }

    pub(crate) fn put_pack(&self, pack: &ObjectId, bytes: Bytes) -> Result<()> {
        self.repository.backend().put(&object_name(Area::Packs, pack), bytes)?;
        Ok(())
    }

    /// Whether a pack is there already: one that an interrupted run has put.
    pub(super) fn has_stored(&self, pack: &ObjectId, size: u64) -> bool {
        let meta = self.repository.backend().stat(&object_name(Area::Packs, pack));
        meta.is_ok_and(|meta| meta.size_bytes == size)
    }

    /// Notes a pack that was put, and writes an index if there is enough for one.
    pub(crate) fn note_pack(&self, pack: &IndexedPack, stats: &WriterStats) -> Result<()> {
        lock(&self.written.packs).insert(pack.id);
        self.written.count(pack.size, stats);
        let full = {
            let mut unindexed = lock(&self.written.unindexed);
            unindexed.push(pack.clone());
            let blobs: usize = unindexed.iter().map(|pack| pack.blobs.len()).sum();
            let full = unindexed.len() >= PACKS_PER_INDEX || blobs >= BLOBS_PER_INDEX;
            full.then(|| std::mem::take(&mut *unindexed))
        };
        self.written.write_index_of(&self.repository, full.unwrap_or_default(), stats)
    }

    /// Writes the index of what is left.
    pub(crate) fn flush_index(&self, stats: &WriterStats) -> Result<()> {
        self.written.write_index(&self.repository, stats)
    }
}

/// All members of a run. One that fails, at whatever, leaves it; with the last one the run fails.
pub(crate) struct Members {
    list: Vec<Member>,
    living: AtomicU32,
    lagging: Arc<Lagging>,
    failed: AtomicBool,
    failure: Mutex<Option<RepoError>>,
    pub(crate) stats: Arc<WriterStats>,
}

impl Members {
    pub(super) fn new(list: Vec<Member>, lagging: Arc<Lagging>, stats: Arc<WriterStats>) -> Self {
        let living =
            list.iter().enumerate().fold(CopySet::default(), |all, (at, _)| all.with(CopySet::one(at)));
        Self {
            list,
            living: living.0.into(),
            lagging,
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            stats,
        }
    }

    /// One copy, to which sealed units are moved without asking what it has.
    pub(crate) fn only(repository: &Repository) -> Arc<Self> {
        let member = Member {
            given: 0,
            repository: repository.clone(),
            index: Arc::new(Index::default()),
            cache: None,
            standing: Mutex::default(),
            avoid: Vec::new(),
            used: Vec::new(),
            written: Written::default(),
        };
        Arc::new(Self::new(vec![member], Arc::default(), Arc::default()))
    }

    /// The index objects that were written to the first.
    pub(crate) fn index_objects(&self) -> Vec<ObjectId> {
        self.first().written.index_objects()
    }

    /// Those that have not failed.
    pub(crate) fn living(&self) -> CopySet {
        CopySet(self.living.load(Ordering::Acquire))
    }

    /// The first that has not failed, else the first.
    pub(super) fn first(&self) -> &Member {
        let at = (0..self.list.len()).find(|at| self.living().has(*at)).unwrap_or(0);
        &self.list[at]
    }

    /// All copies have the same keys, and the run one slot.
    pub(crate) fn keyring(&self) -> &Keyring {
        self.list[0].repository.keyring()
    }

    pub(super) fn lagging(&self) -> &Arc<Lagging> {
        &self.lagging
    }

    /// Whoever lacks a blob.
    pub(super) fn lacking(&self, domain: &str, id: &BlobId) -> CopySet {
        let living = self.living();
        let mut lacking = CopySet::default();
        for (at, member) in self.list.iter().enumerate().filter(|(at, _)| living.has(*at)) {
            if !member.has(domain, id) {
                lacking = lacking.with(CopySet::one(at));
            }
        }
        lacking
    }

    /// Does the same with all of `set` that have not failed, at the same time. Fails if none is left.
    pub(crate) fn each(
        &self,
        set: CopySet,
        work: impl Fn(CopySet, &Member) -> Result<()> + Sync,
    ) -> Result<()> {
        self.on_each(set, work);
        self.check()
    }

    /// The same; what fails is left to whoever checks next.
    pub(crate) fn on_each(&self, set: CopySet, work: impl Fn(CopySet, &Member) -> Result<()> + Sync) {
        let set = set.and(self.living());
        let at_work: Vec<usize> = (0..self.list.len()).filter(|at| set.has(*at)).collect();
        let run = |at: usize| {
            if let Err(error) = work(CopySet::one(at), &self.list[at]) {
                self.fail(at, error);
            }
        };
        match at_work[..] {
            [] => {}
            [only] => run(only),
            [first, ref others @ ..] => std::thread::scope(|scope| {
                let run = &run;
                let threads: Vec<_> = others.iter().map(|at| scope.spawn(move || run(*at))).collect();
                run(first);
                threads.into_iter().for_each(join);
            }),
        }
    }

    fn fail(&self, at: usize, error: RepoError) {
        let before = self.living.fetch_and(!CopySet::one(at).0, Ordering::AcqRel);
        if before == CopySet::one(at).0 {
            self.fail_all(error);
        } else if CopySet(before).has(at) {
            self.lagging.add(self.list[at].given, error);
        }
    }

    /// Ends the run.
    pub(crate) fn fail_all(&self, error: RepoError) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    /// Ends the run without a cause: a thread has panicked.
    pub(crate) fn stop(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(crate) fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The failure of the run, if there was one: the first caller gets the cause.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.have_failed() {
            return Ok(());
        }
        let cause = lock(&self.failure).take();
        Err(cause.unwrap_or_else(|| RepoError::Refused("the run was stopped by an earlier failure".into())))
    }
}
