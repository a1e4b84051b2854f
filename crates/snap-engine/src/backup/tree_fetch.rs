//! The parent's trees out of the repository, when the local cache does not have them: whole packs of trees, each fetched once,
//! several at a time. What is in them goes to a file on local disk that is gone after the run; what belongs to the new
//! root is kept by the commit of the tree store.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use snap_format::{BlobId, TreeBlob};
use snap_repo::{BlobReader, DomainKeys, Scratch, for_each_parallel};

use super::tree_store::{self, Found, Place, Places, Seen, Table, TreeStore};

/// Bytes of packs that are in memory at the same time. A longer one comes by itself.
const IN_MEMORY: u64 = 48 << 20;
/// Trees that wait for their packs before these are fetched: bounds what the walk holds.
const WAITING: usize = 100_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that are in use; whoever wants more than there are waits.
#[derive(Default)]
struct Budget {
    used: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    fn with<T>(&self, bytes: u64, work: impl FnOnce() -> T) -> T {
        let mut used = lock(&self.used);
        while *used > 0 && *used + bytes > IN_MEMORY {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        drop(used);
        let _freed = Freed(self, bytes);
        work()
    }
}

/// Gives bytes back, even if the work panicked.
struct Freed<'a>(&'a Budget, u64);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        *lock(&self.0.used) -= self.1;
        self.0.freed.notify_all();
    }
}

/// The table of one fetched pack, or nothing if it cannot be had.
type Slot = Arc<OnceLock<Option<Table>>>;

/// Trees of packs that were fetched in this run.
pub(super) struct FetchedTrees {
    reader: Arc<BlobReader>,
    domain: DomainKeys,
    level: i32,
    file: File,
    /// End of what is used of the file.
    end: AtomicU64,
    packs: Mutex<HashMap<u32, Slot>>,
    scratches: Mutex<Vec<Scratch>>,
    budget: Budget,
    failure: Mutex<Option<io::Error>>,
}

impl FetchedTrees {
    pub(super) fn new(
        dir: &Path,
        reader: Arc<BlobReader>,
        domain: DomainKeys,
        level: i32,
    ) -> io::Result<Self> {
        Ok(Self {
            reader,
            domain,
            level,
            file: tree_store::create_nameless(dir)?,
            end: AtomicU64::new(0),
            packs: Mutex::default(),
            scratches: Mutex::default(),
            budget: Budget::default(),
            failure: Mutex::default(),
        })
    }

    /// Why the local disk could not take trees, if that happened.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        lock(&self.failure).take()
    }

    /// Finds a tree; fetches its pack first if nobody has.
    pub(super) fn find(&self, id: &BlobId) -> Option<Found> {
        let pack = self.pack_of(id)?;
        self.find_in(pack, self.fetch(pack)?, id)
    }

    /// Finds a tree in what was fetched.
    pub(super) fn find_here(&self, id: &BlobId) -> Option<Found> {
        let pack = self.pack_of(id)?;
        let table = *lock(&self.packs).get(&pack)?.get()?;
        self.find_in(pack, table?, id)
    }

    fn pack_of(&self, id: &BlobId) -> Option<u32> {
        self.reader.index().locate(&self.domain.name, id).map(|place| place.pack)
    }

    fn find_in(&self, pack: u32, table: Table, id: &BlobId) -> Option<Found> {
        let (position, place) = table.find(&self.file, id)?;
        let plain = tree_store::read_place(&self.file, place)?;
        let is_right = self.domain.tree_id.id(&plain) == id.0;
        is_right.then_some(Found { table: pack as usize, count: table.count, position, plain })
    }

    fn slot(&self, pack: u32) -> Slot {
        Arc::clone(lock(&self.packs).entry(pack).or_default())
    }

    fn fetch(&self, pack: u32) -> Option<Table> {
        *self.slot(pack).get_or_init(|| {
            self.budget.with(self.reader.pack_size(pack), || {
                let pooled = lock(&self.scratches).pop();
                let mut scratch = pooled.map_or_else(|| Scratch::new(self.level), Ok).ok()?;
                let table = self.fetch_with(pack, &mut scratch);
                lock(&self.scratches).push(scratch);
                table
            })
        })
    }

    /// What of the pack is damaged is left out: whoever wants it looks for it in its other places.
    fn fetch_with(&self, number: u32, scratch: &mut Scratch) -> Option<Table> {
        let pack = self.reader.tree_pack(&self.domain, number).ok()?;
        let room: u64 = pack.trees().iter().map(|(_, place)| u64::from(place.plain_len)).sum();
        let table_room = (pack.trees().len() * tree_store::ENTRY) as u64;
        let mut at = self.end.fetch_add(room + table_room, Ordering::Relaxed);
        let offset = at + room;
        let mut places = Places::new();
        let mut plain = Vec::new();
        let written = pack.trees().iter().try_for_each(|tree| {
            if self.reader.open_tree(&self.domain, &pack, tree, scratch, &mut plain).is_err() {
                return Ok(());
            }
            self.file.write_all_at(&plain, at)?;
            places.note_here(tree.0, Place { offset: at, length: tree.1.plain_len });
            at += plain.len() as u64;
            Ok(())
        });
        let mut table = Vec::new();
        let written = written.and_then(|()| places.write(&mut table)).and_then(|count| {
            self.file.write_all_at(&table, offset)?;
            Ok(Table { offset, count })
        });
        written.map_err(|error| lock(&self.failure).get_or_insert(error).kind()).ok()
    }

    /// Fetches all packs that hold trees of `root` which `store` does not have, ahead of those who want them, until `enough`.
    /// Each round fetches side by side what the trees fetched so far refer to.
    pub(super) fn fetch_ahead(&self, root: BlobId, store: &TreeStore, enough: &AtomicBool) {
        let is_right = |id: &BlobId, plain: &[u8]| self.domain.tree_id.id(plain) == id.0;
        let mut seen = Seen::default();
        let mut waiting = vec![root];
        while !waiting.is_empty() {
            let mut wanted: BTreeMap<u32, Vec<BlobId>> = BTreeMap::new();
            let mut count = 0;
            while count < WAITING
                && !enough.load(Ordering::Relaxed)
                && let Some(id) = waiting.pop()
            {
                // What the store has it has with all that is below.
                let Some(pack) = self.pack_of(&id).filter(|_| store.find(&id, &is_right).is_none()) else {
                    continue;
                };
                match self.slot(pack).get() {
                    None => {
                        wanted.entry(pack).or_default().push(id);
                        count += 1;
                    }
                    Some(table) => {
                        let found = table.and_then(|table| self.find_in(pack, table, &id));
                        if let Some(found) = found.filter(|found| seen.is_first(found))
                            && let Ok(tree) = TreeBlob::decode(&found.plain)
                        {
                            waiting.extend(tree_store::children(&tree).into_iter().rev());
                        }
                    }
                }
            }
            let packs: Vec<u32> = wanted.keys().copied().collect();
            let parallel = self.reader.repository().backend().parallelism();
            let _ = for_each_parallel(&packs, parallel, |pack| {
                if enough.load(Ordering::Relaxed) {
                    return Err(());
                }
                self.fetch(*pack);
                Ok(())
            });
            if enough.load(Ordering::Relaxed) {
                return;
            }
            waiting.extend(wanted.into_values().flatten());
        }
    }
}
