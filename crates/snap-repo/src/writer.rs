//! Writing: blobs into packs, packs into the store, then the index, then the snapshot (F25), with the looks at marks that
//! make a concurrent prune harmless (F27).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snap_backend::{Bytes, ErrorKind};
use snap_crypto::SealKey;
use snap_format::{
    BlobEntry, BlobId, BlobKind, Body, Envelope, ObjectId, ObjectKind, PackHeader, RunKeyEntry, Summary,
    Time, limits,
};

use crate::boxes::seal_box;
use crate::index::{Fresh, check_box_size};
use crate::listing::{Listed, list_area};
use crate::pack::{Group, PackBuilder, parse_pack, seal_unit};
use crate::pack_look::{PackLook, StoredPacks, index_digest};
use crate::parallel::join;
use crate::snapshot_cache;
use crate::snapshots::body_ad;
use crate::uploader::Uploader;
use crate::{
    Area, Cache, DomainKeys, Index, PackInfo, RepoError, Repository, Result, Scratch, for_each_parallel,
    object_name,
};

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
    /// Write in this domain instead of the slot's own. Owners only: their keys are those of every domain.
    pub domain: Option<String>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { pack_target: limits::PACK_TARGET, uploads: 2, level: 3, now: None, domain: None }
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

/// Takes blobs from many threads.
pub struct Writer {
    repository: Repository,
    cache: Option<Cache>,
    index: Arc<Index>,
    domain: DomainKeys,
    run: (SealKey, RunKeyEntry),
    marked: HashSet<ObjectId>,
    /// By number in the index: marked when the run began, and relied on since.
    avoid: Vec<bool>,
    used: Vec<AtomicBool>,
    fresh: Fresh,
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
        let own = repository.keyring().own_domain();
        let name = options.domain.clone().unwrap_or_else(|| own.to_owned());
        if name != own {
            repository.keyring().require_owner("writing in another domain")?;
        }
        let domain = repository.keyring().domain(&name).ok_or(RepoError::Role {
            verb: "backup",
            role: repository.keyring().role(),
            needs: "owner or backup",
        })?;
        let settled = cache.is_some_and(|cache| {
            cache.has(&settled_name(repository)) && !cache.has(&pending_name(repository))
        });
        let place = cache.map(|cache| cache.place(&repository.backend().location()));
        let (count, now) = (index.pack_limit() as u64, options.now.map(|now| now.secs));
        let seen = index_digest(index.objects());
        let (marked, stored) = std::thread::scope(|scope| {
            let marked = scope.spawn(|| read_marks(repository, repository.take_listing(Area::Marks)?));
            let stored = StoredPacks::look(repository, count, seen, place.as_ref(), now, !settled);
            (join(marked), stored)
        });
        let (marked, stored) = (marked?, stored?);
        // What is listed from here on must not have been listed before.
        repository.drop_listings();
        let (mut avoid, named) = compare(&index, &stored, &marked, repository.keyring().own_domain());
        index.check()?;
        let run = repository.new_run_key()?;
        let uploader = Uploader::start(repository, &domain.name, &options);
        if !settled {
            let unnamed = stored.iter().zip(&named).filter(|(_, named)| !**named).map(|(pack, _)| pack);
            adopt(repository, &mut index, unnamed, &marked, &uploader)?;
            // What was adopted is there, and not marked.
            avoid.resize(index.pack_limit(), false);
        }
        if let Some(cache) = cache {
            let _ = cache.write(&pending_name(repository), b"");
        }
        Ok(Self {
            repository: repository.clone(),
            cache: cache.cloned(),
            used: avoid.iter().map(|_| AtomicBool::new(false)).collect(),
            index: Arc::new(index),
            domain,
            run,
            marked,
            avoid,
            fresh: Fresh::new(repository, cache),
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
        self.is_stored(id) || self.fresh.contains(id)
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
        if self.is_stored(&id) || !self.fresh.insert(id) {
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

    /// Moves the blobs of packs that this run relies on, its own among them, and that a prune has marked meanwhile. True
    /// if there were any.
    fn leave_marked_packs(&mut self) -> Result<bool> {
        let now_marked =
            read_marks(&self.repository, list_area(self.repository.backend().as_ref(), Area::Marks)?)?;
        let mut left_any = false;
        for pack in now_marked.difference(&self.marked) {
            let is_used = |number: u32| self.used[number as usize].load(Ordering::Relaxed);
            if self.uploader.has_stored(pack) || self.index.pack_numbers(pack).any(is_used) {
                self.move_pack(pack)?;
                left_any = true;
            }
        }
        // What is not known because the cache is damaged must not pass for unused.
        self.index.check()?;
        self.marked = now_marked;
        if left_any {
            self.flush()?;
        }
        Ok(left_any)
    }

    fn move_pack(&self, id: &ObjectId) -> Result<()> {
        let bytes = match self.repository.backend().get(&object_name(Area::Packs, id)) {
            Ok(bytes) => bytes,
            // Gone, or not for these credentials: the next run stores anew what this one cannot move.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Permission) => {
                return Err(RepoError::Overtaken);
            }
            Err(error) => return Err(error.into()),
        };
        crate::verify::check_name(&object_name(Area::Packs, id), id, &bytes)?;
        let opened = parse_pack(self.repository.keyring(), *id, &bytes)?;
        for unit in PackHeader::units(&opened.pack.blobs) {
            let sealed = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
            let run_key = opened.pack.run_keys[usize::from(unit.blobs[0].run_key)];
            self.push(opened.pack.kind, unit.blobs, run_key, sealed)?;
        }
        Ok(())
    }

    /// F27 d: after the snapshot is there. If index objects vanished, a prune ran: each pack that was relied on must still
    /// be named by an index.
    ///
    /// First the marks, then the index, and not both at once: a prune that has not seen the snapshot put its marks before that, and
    /// takes them away only after the index objects (F26). So either its mark is still listed, or what it did to the index
    /// shows in a listing that begins after that of the marks has ended; in one that is taken meanwhile it need not.
    fn last_look(&mut self) -> Result<()> {
        self.leave_marked_packs()?;
        let listed: HashSet<ObjectId> =
            self.repository.list(Area::Index)?.into_iter().map(|(id, _)| id).collect();
        let own = self.uploader.index_objects();
        if self.index.objects().iter().chain(&own).all(|id| listed.contains(id)) {
            return Ok(());
        }
        let (fresh, _) = Index::load(&self.repository, self.cache.as_ref())?;
        let is_used = |pack: &PackInfo| self.used[pack.number as usize].load(Ordering::Relaxed);
        let gone: HashSet<u32> = self
            .index
            .packs()
            .filter(|pack| is_used(pack) && !fresh.names_pack(&pack.id, &pack.domain))
            .flat_map(|pack| self.index.pack_numbers(&pack.id).collect::<Vec<_>>())
            .collect();
        let domain = &self.domain.name;
        let is_there = |pack: &ObjectId| self.marked.contains(pack) || fresh.names_pack(pack, domain);
        if !self.uploader.stored_packs().iter().all(is_there) {
            return Err(RepoError::Overtaken);
        }
        let all_elsewhere = gone.is_empty()
            || self
                .index
                .plain_lens(domain)
                .filter(|(id, _)| self.index.packs_of(domain, id, |pack| gone.contains(&pack)))
                .all(|(id, _)| fresh.plain_len(domain, &id).is_some());
        // What is not known because the cache is damaged is not gone, and not there either.
        self.index.check()?;
        fresh.check()?;
        if all_elsewhere { Ok(()) } else { Err(RepoError::Overtaken) }
    }
}

/// Proof that all packs and the index that names them are stored: the only thing that commits a snapshot.
#[must_use = "a run that is not committed leaves nothing to restore"]
#[derive(Debug)]
pub struct IndexFlushed {
    writer: Writer,
}

/// A snapshot to be committed.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // as in `Envelope` and `Body`
pub struct NewSnapshot {
    pub time: Time,
    pub dataset: String,
    pub host: String,
    pub previous: Option<ObjectId>,
    pub tags: Vec<String>,
    pub label: String,
    pub summary: Summary,
    pub root: BlobId,
    pub paths: Vec<Vec<u8>>,
}

impl IndexFlushed {
    /// Bytes written so far and other counters.
    pub fn stats(&self) -> &WriterStats {
        self.writer.stats()
    }

    /// Ends the run without a snapshot: what was stored stays known to the next.
    pub fn abandon(self) {
        self.writer.settle();
    }

    /// Puts the snapshot and looks once more. Only then is it a success.
    pub fn commit(mut self, new: NewSnapshot) -> Result<ObjectId> {
        let (id, bytes) = self.seal_snapshot(new, None)?;
        self.put_snapshots(&[(id, bytes)])?;
        Ok(id)
    }

    /// The same of snapshots that stand in place of others: `announce` hears their ids before the first of them is there. They
    /// keep what of the old ones a [`NewSnapshot`] does not say.
    pub fn commit_replacements(
        mut self,
        new: Vec<(NewSnapshot, &Envelope)>,
        announce: impl FnOnce(&[ObjectId]) -> Result<()>,
    ) -> Result<Vec<ObjectId>> {
        let sealed: Vec<_> =
            new.into_iter().map(|(new, old)| self.seal_snapshot(new, Some(old))).collect::<Result<_>>()?;
        let ids: Vec<ObjectId> = sealed.iter().map(|(id, _)| *id).collect();
        announce(&ids)?;
        self.put_snapshots(&sealed)?;
        Ok(ids)
    }

    fn seal_snapshot(&self, new: NewSnapshot, old: Option<&Envelope>) -> Result<(ObjectId, Bytes)> {
        let writer = &self.writer;
        let mut body = Vec::new();
        let plain = Body { root: new.root, paths: new.paths }.encode();
        writer.run.0.seal_into(&body_ad(&writer.repository), &plain, &mut body)?;
        let envelope = Envelope {
            time: new.time,
            dataset: new.dataset,
            host: new.host,
            domain: writer.domain.name.clone(),
            previous: new.previous,
            tags: new.tags,
            label: new.label,
            summary: new.summary,
            run_key: writer.run.1,
            body,
            set: old.and_then(|old| old.set),
            log_segments: old.map(|old| old.log_segments.clone()).unwrap_or_default(),
        };
        let keyring = writer.repository.keyring();
        let bytes: Bytes = seal_box(keyring, ObjectKind::Snapshot, &envelope.encode())?.into();
        Ok((ObjectId(snap_crypto::hash(&bytes)), bytes))
    }

    fn put_snapshots(&mut self, sealed: &[(ObjectId, Bytes)]) -> Result<()> {
        let writer = &mut self.writer;
        for (id, bytes) in sealed {
            writer.repository.backend().put(&object_name(Area::Snapshots, id), bytes.clone())?;
        }
        writer.last_look()?;
        if let Some(cache) = &writer.cache {
            sealed.iter().for_each(|(_, bytes)| snapshot_cache::remember(&writer.repository, cache, bytes));
        }
        writer.settle();
        Ok(())
    }
}

impl Writer {
    /// Tells the next run that nothing of this one is left to adopt.
    fn settle(&self) {
        if let Some(cache) = &self.cache
            && cache.write(&settled_name(&self.repository), b"").is_ok()
        {
            cache.remove(&pending_name(&self.repository));
            let (before, own) = (self.index.objects(), self.uploader.index_objects());
            if !own.is_empty() {
                let place = cache.place(&self.repository.backend().location());
                PackLook::extend(&place, index_digest(before), index_digest(before.iter().chain(&own)));
            }
        }
    }
}

/// Compares the index with the packs that are there in one pass. Returns, by number, which packs are not to be relied on; and,
/// by position in `stored`, which the index names as packs of `domain`.
fn compare(
    index: &Index,
    stored: &StoredPacks,
    marked: &HashSet<ObjectId>,
    domain: &str,
) -> (Vec<bool>, Vec<bool>) {
    let mut avoid = vec![true; index.pack_limit()];
    let mut named = vec![false; stored.iter().count()];
    for pack in index.packs() {
        let is_whole = match stored {
            StoredPacks::Trusted => true,
            StoredPacks::Listed(packs) => {
                packs.binary_search_by_key(&pack.id, |(id, _)| *id).is_ok_and(|position| {
                    named[position] |= *pack.domain == *domain;
                    packs[position].1 == pack.size
                })
            }
        };
        avoid[pack.number as usize] = !is_whole || marked.contains(&pack.id);
    }
    (avoid, named)
}

/// Indexes packs of this slot that no index names; the index gets them, and so does the store, before anything relies on
/// them. Packs of other slots, damaged ones, and those that a prune is about to delete are left alone.
fn adopt(
    repository: &Repository,
    index: &mut Index,
    unnamed: impl Iterator<Item = (ObjectId, u64)>,
    marked: &HashSet<ObjectId>,
    uploader: &Uploader,
) -> Result<()> {
    let unreadable = &uploader.stats().unreadable_packs;
    for (id, size) in unnamed.filter(|(id, _)| !marked.contains(id)) {
        if unreadable.load(Ordering::Relaxed) > 0 {
            unreadable.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        match repository.read_pack_header(id, size).map_err(RepoError::into_finding) {
            // An owner's may be of another domain than his own, and indexed there.
            Ok((slot, pack))
                if slot == repository.keyring().slot() && !index.names_pack(&id, &pack.domain) =>
            {
                index.insert(&pack);
                uploader.stats().adopted_packs.fetch_add(1, Ordering::Relaxed);
                uploader.index_later(pack);
            }
            Ok(_) | Err(Ok(_)) => {}
            Err(Err(error)) if error.is_newer() => {}
            // The least credentials of a backup slot do not read packs, and need not.
            Err(Err(RepoError::Backend(error))) if error.kind() == ErrorKind::Permission => {
                unreadable.fetch_add(1, Ordering::Relaxed);
            }
            Err(Err(error)) => return Err(error),
        }
    }
    uploader.flush_index()
}

/// Packs that an owner has marked for deletion. A mark that does not verify is no mark.
fn read_marks(repository: &Repository, listing: Vec<Listed>) -> Result<HashSet<ObjectId>> {
    let marked = Mutex::new(HashSet::new());
    for_each_parallel(&listing, repository.backend().parallelism(), |Listed { id, size, .. }| {
        let name = object_name(Area::Marks, id);
        if check_box_size(&name, *size).is_err() {
            return Ok(());
        }
        match repository.backend().get(&name) {
            Ok(bytes) => match repository.parse_mark(id, &bytes) {
                Ok(mark) => lock(&marked).extend(mark.packs),
                // One under keys that came after this run began cannot be read, and must not be passed over.
                Err(RepoError::Damaged(_)) => repository.require_known_epoch(&bytes)?,
                Err(error) => return Err(error),
            },
            // Marks go when their prune has ended.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })?;
    Ok(std::mem::take(&mut *lock(&marked)))
}
