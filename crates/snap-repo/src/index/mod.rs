//! Which blob lies where: sorted tables in the cache, so that memory does not grow with the repository, and hash tables for
//! what has no table (`docs/adr/0013-index-tables.md`).

mod absorb;
mod batch;
mod block;
mod entry;
mod filter;
mod fresh;
mod home;
mod load;
mod memory;
mod merge;
mod parse;
pub mod scale;
mod slot;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobEntry, BlobId, BlobKind, Codec, IndexObject, IndexedPack, ObjectId, RunKeyEntry};

use self::absorb::judge;
use self::block::Page;
use self::entry::Place;
pub(crate) use self::fresh::Fresh;
use self::home::Home;
use self::memory::Memory;
pub(crate) use self::parse::check_box_size;
use self::parse::load_object;
pub use self::parse::{MAX_BOX_BYTES, ParsedIndex};
use self::slot::{Mender, Slot, Walk};
use crate::{Area, Cache, Finding, RepoError, Repository, Result, for_each_parallel};

/// Where a blob lies, ready to be fetched and opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Number of the pack.
    pub pack: u32,
    /// Name of the pack.
    pub pack_id: ObjectId,
    /// Size of the pack in bytes, as the index has it.
    pub pack_size: u64,
    /// Data or tree.
    pub kind: BlobKind,
    /// Offset in the pack of the sealed unit that holds it, bytes.
    pub offset: u64,
    /// Stored length of that unit with nonce and tag, bytes.
    pub stored_len: u32,
    /// Length of the blob's plaintext, bytes.
    pub plain_len: u32,
    /// If it was sealed together with others.
    pub group: Option<InGroup>,
    /// How it is stored.
    pub codec: Codec,
    /// Opens it.
    pub run_key: RunKeyEntry,
}

/// Where a blob stands in the plaintext of the group that it was sealed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InGroup {
    /// Where it begins, bytes.
    pub offset: u32,
    /// Length of the group's plaintext, bytes.
    pub plain_len: u32,
}

impl Located {
    /// Length of the plaintext of the sealed unit, bytes.
    pub fn unit_len(&self) -> u32 {
        self.group.map_or(self.plain_len, |group| group.plain_len)
    }

    /// Where the blob stands in the plaintext of its unit.
    pub fn within(&self) -> std::ops::Range<usize> {
        let start = self.group.map_or(0, |group| group.offset as usize);
        start..start + self.plain_len as usize
    }
}

/// A pack, without its blobs.
#[derive(Debug, Clone)]
pub struct PackInfo {
    /// Its number, which stays while the index is in use.
    pub number: u32,
    /// Its name.
    pub id: ObjectId,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds.
    pub kind: BlobKind,
    /// Its domain.
    pub domain: Arc<str>,
    /// Blobs in it.
    pub blobs: usize,
    /// Stands for everything that the index says of it ([`pack_digest`]).
    pub digest: [u8; 32],
}

/// A hash over all that an index or a header says of a pack: two that agree have the same.
pub fn pack_digest(pack: &IndexedPack) -> [u8; 32] {
    let one = IndexObject { packs: vec![pack.clone()], replaces: Vec::new() };
    snap_crypto::hash(&one.encode())
}

/// Every blob of a pack and where it lies; the number of the pack is left 0.
pub fn pack_places(pack: &IndexedPack) -> impl Iterator<Item = (&BlobEntry, Located)> {
    pack.blobs.iter().zip(entry::places(0, &pack.blobs)).map(|(blob, place)| {
        let run_key = pack.run_keys[usize::from(blob.run_key)];
        (blob, place.located(pack.id, pack.size, pack.kind, run_key))
    })
}

impl Place {
    const fn located(
        &self,
        pack_id: ObjectId,
        pack_size: u64,
        kind: BlobKind,
        run_key: RunKeyEntry,
    ) -> Located {
        Located {
            pack: self.pack,
            pack_id,
            pack_size,
            kind,
            offset: self.offset as u64,
            stored_len: self.stored_len,
            plain_len: self.plain_len,
            group: self.group,
            codec: self.codec,
            run_key,
        }
    }
}

/// All believed index entries, by domain (F19).
///
/// With a cache they are in sorted tables there, and memory holds about 12 bits for each blob. A cache that is damaged, or
/// another repository's, is never believed: what is lost is read from the store again, during a look-up if it shows only then.
#[derive(Default)]
pub struct Index {
    /// In the cache, the largest first.
    slots: Vec<Slot>,
    mender: Option<Mender>,
    /// Everything else; its packs are numbered after those of the slots.
    memory: Memory,
    objects: Vec<ObjectId>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} tables, {} packs in memory)", self.slots.len(), self.memory.packs())
    }
}

/// How often the index is listed before what is listed and not there counts as missing.
const LISTINGS: usize = 3;

impl Index {
    /// Loads every index object: from the tables in `cache`, which are brought up to date, and else from the store. What is
    /// damaged or forged is left out and reported. If a listed object is gone when it is read, a prune has replaced it, and
    /// all is listed again.
    pub fn load(repository: &Repository, cache: Option<&Cache>) -> Result<(Self, Vec<Finding>)> {
        for _ in 1..LISTINGS {
            let (index, findings) = Self::load_in_batches(repository, cache, None)?;
            if findings.iter().all(|finding| finding.code != crate::FindingCode::Missing) {
                return Ok((index, findings));
            }
        }
        Self::load_in_batches(repository, cache, None)
    }

    fn load_in_batches(
        repository: &Repository,
        cache: Option<&Cache>,
        batch_len: Option<usize>,
    ) -> Result<(Self, Vec<Finding>)> {
        let listed = repository.take_listing(Area::Index)?;
        let names: Vec<_> = listed.into_iter().map(|object| (object.id, object.size)).collect();
        let Some(cache) = cache else { return Self::load_in_memory(repository, &names) };
        let home = Home::new(repository, cache);
        let (slots, findings) = load::load(&home, &names, batch_len)?;
        let objects = names.into_iter().map(|(id, _)| id).collect();
        let index = Self { slots, mender: Some(Mender::new(home)), memory: Memory::default(), objects };
        Ok((index, findings.into_iter().map(|(_, finding)| finding).collect()))
    }

    fn load_in_memory(repository: &Repository, names: &[(ObjectId, u64)]) -> Result<(Self, Vec<Finding>)> {
        let loaded = Mutex::new(Vec::with_capacity(names.len()));
        for_each_parallel(names, repository.backend().parallelism(), |(id, size)| {
            let outcome = judge(load_object(repository, id, *size))?;
            loaded.lock().unwrap_or_else(PoisonError::into_inner).push((*id, outcome));
            Ok::<_, RepoError>(())
        })?;
        let mut loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
        loaded.sort_by_key(|(id, _)| *id);
        let mut index = Self::default();
        let mut findings = Vec::new();
        for (id, outcome) in loaded {
            index.objects.push(id);
            match outcome {
                Ok(mut object) => {
                    object.packs.iter().for_each(|pack| index.insert(pack));
                    findings.append(&mut object.findings);
                }
                Err(finding) => findings.push(finding),
            }
        }
        Ok((index, findings))
    }

    /// Adds a pack, unless the same was said of it before. What contradicts an earlier entry stands beside it, so that a
    /// slot that lies about another's pack hides nothing.
    pub fn insert(&mut self, pack: &IndexedPack) {
        let digest = pack_digest(pack);
        let is_same = |number| self.pack(number).is_some_and(|pack| pack.digest == digest);
        if !self.pack_numbers(&pack.id).any(is_same) {
            self.memory.insert(pack, digest);
        }
    }

    /// Fails if the cache was damaged and what it held could not be read again. Until somebody asks, look-ups say of what was
    /// in it that it is not there: ask before that is taken for damage of the repository.
    pub fn check(&self) -> Result<()> {
        self.mender.as_ref().map_or(Ok(()), Mender::check)
    }

    /// If the cache could not be written: why, and what that costs. The index is right all the same.
    pub fn cache_failure(&self) -> Option<String> {
        let why = self.mender.as_ref()?.home.failure()?;
        let held: u64 = self.slots.iter().map(|slot| slot.table.blocks.held_bytes()).sum();
        Some(format!(
            "the index cannot be written to the local cache ({why}): {} MiB of it are in memory during this run, \
             and the next one reads it again",
            held >> 20
        ))
    }

    /// The slots, and what makes damaged ones anew.
    fn slots(&self) -> impl Iterator<Item = (&Slot, &Mender)> {
        self.slots.iter().flat_map(|slot| self.mender.iter().map(move |mender| (slot, mender)))
    }

    /// Where the numbers of packs in memory begin.
    fn memory_base(&self) -> u32 {
        self.slots.last().map_or(0, |slot| slot.base + slot.count())
    }

    /// The slot that a number belongs to, and the number there; none for what is in memory.
    fn slot_of(&self, number: u32) -> Option<(&Slot, &Mender, u32)> {
        let after = self.slots.partition_point(|slot| slot.base <= number);
        let slot = self.slots.get(after.checked_sub(1)?)?;
        let here = number - slot.base;
        (here < slot.count()).then_some((slot, self.mender.as_ref()?, here))
    }

    /// Above all numbers of packs. Not each number below it is a pack's.
    pub fn pack_limit(&self) -> usize {
        self.memory_base() as usize + self.memory.packs() as usize
    }

    /// The packs, by name within each table. What several index objects say alike comes once.
    pub fn packs(&self) -> impl Iterator<Item = PackInfo> + '_ {
        let mut page = Page::default();
        (0..self.pack_limit() as u32).filter_map(move |number| {
            let pack = self.pack_through(number, &mut page)?;
            let is_known = self.slots.len() > 1 && self.is_known_before(&pack);
            (!is_known).then_some(pack)
        })
    }

    fn is_known_before(&self, pack: &PackInfo) -> bool {
        self.slots().take_while(|(slot, _)| slot.base + slot.count() <= pack.number).any(|(slot, mender)| {
            slot.pack_numbers(mender, &pack.id)
                .into_iter()
                .any(|number| self.pack(number).is_some_and(|other| other.digest == pack.digest))
        })
    }

    /// What is known of a pack, by its number.
    pub fn pack(&self, number: u32) -> Option<PackInfo> {
        self.pack_through(number, &mut Page::default())
    }

    fn pack_through(&self, number: u32, page: &mut Page) -> Option<PackInfo> {
        if let Some((slot, mender, here)) = self.slot_of(number) {
            return slot.pack(mender, here, page);
        }
        let pack = self.memory.pack(number.checked_sub(self.memory_base())?)?;
        Some(PackInfo { number, ..pack.clone() })
    }

    /// Number of a pack, the first if several things are said of it.
    pub fn pack_number(&self, id: &ObjectId) -> Option<u32> {
        self.pack_numbers(id).next()
    }

    /// All numbers of a pack: one, unless somebody lies about it or it is indexed twice.
    pub fn pack_numbers(&self, id: &ObjectId) -> impl Iterator<Item = u32> + '_ {
        let base = self.memory_base();
        let id = *id;
        let in_slots = self.slots().flat_map(move |(slot, mender)| slot.pack_numbers(mender, &id));
        in_slots.chain(self.memory.pack_numbers(&id).map(move |number| base + number).collect::<Vec<_>>())
    }

    /// Whether a pack is named as one of `domain`.
    pub fn names_pack(&self, id: &ObjectId, domain: &str) -> bool {
        self.pack_numbers(id).any(|number| self.pack(number).is_some_and(|pack| *pack.domain == *domain))
    }

    /// Names of the index objects that were there when it was loaded, sorted.
    pub fn objects(&self) -> &[ObjectId] {
        &self.objects
    }

    /// Number of distinct blobs. Reads all of them.
    pub fn blobs(&self) -> usize {
        self.domains().iter().map(|domain| self.places(domain).count()).sum()
    }

    /// The blobs of a domain with their plain lengths in bytes, by id.
    pub fn plain_lens<'a>(&'a self, domain: &'a str) -> impl Iterator<Item = (BlobId, u32)> + 'a {
        self.places(domain).map(|place| (place.id, place.plain_len))
    }

    /// The blobs of a domain with their preferred places, by id.
    pub fn iter<'a>(&'a self, domain: &'a str) -> impl Iterator<Item = (BlobId, Located)> + 'a {
        self.places(domain).filter_map(|place| Some((place.id, self.located(&place)?)))
    }

    fn places<'a>(&'a self, domain: &'a str) -> impl Iterator<Item = Place> + 'a {
        let mut walks: Vec<_> =
            self.slots().map(|(slot, mender)| (Walk::new(slot, domain), mender, None::<Place>)).collect();
        walks.iter_mut().for_each(|(walk, mender, head)| *head = walk.next(mender));
        let base = self.memory_base();
        let mut in_memory: Vec<Place> = self.memory.places(domain).copied().collect();
        in_memory.iter_mut().for_each(|place| place.pack += base);
        // Merging with tables wants it sorted; without them nobody does.
        if !walks.is_empty() {
            in_memory.sort_unstable_by_key(|place| place.id);
        }
        let mut in_memory = in_memory.into_iter().peekable();
        std::iter::from_fn(move || {
            let heads = walks.iter().filter_map(|(_, _, head)| *head);
            let least = heads.min_by_key(|head| head.id);
            let Some(least) = least.filter(|least| in_memory.peek().is_none_or(|other| least.id <= other.id))
            else {
                return in_memory.next();
            };
            for (walk, mender, head) in &mut walks {
                if head.is_some_and(|head| head.id == least.id) {
                    *head = walk.next(mender);
                }
            }
            in_memory.next_if(|other| other.id == least.id);
            Some(least)
        })
    }

    /// Names of all domains, sorted.
    pub fn domains(&self) -> Vec<Arc<str>> {
        let in_slots = self.slots.iter().flat_map(|slot| &slot.table.sections).map(|section| &section.domain);
        let mut domains: Vec<_> = in_slots.chain(self.memory.domains()).cloned().collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    /// Calls `each` for the places of a blob, the preferred one first, until it is content. It may be called twice for a place.
    fn find(&self, domain: &str, id: &BlobId, mut each: impl FnMut(Place) -> bool) -> bool {
        for (slot, mender) in self.slots() {
            if slot.find(mender, domain, id, &mut each) {
                return true;
            }
        }
        let base = self.memory_base();
        self.memory.find(domain, id).any(|place| each(Place { pack: base + place.pack, ..*place }))
    }

    /// Every place of a blob of `domain`, the preferred one first.
    pub fn locate_all(&self, domain: &str, id: &BlobId) -> Vec<Located> {
        let mut all: Vec<Located> = Vec::new();
        for located in self.claims(domain, id) {
            let is_same =
                |other: &Located| (other.pack_id, other.offset) == (located.pack_id, located.offset);
            // Two index objects may say the same, and two that differ stand side by side.
            if !all
                .iter()
                .any(|other| is_same(other) && Located { pack: located.pack, ..other.clone() } == located)
            {
                all.push(located);
            }
        }
        all
    }

    /// The places of a blob as each description of a pack gives them: what two say that differ elsewhere is there twice.
    pub fn claims(&self, domain: &str, id: &BlobId) -> Vec<Located> {
        let mut places = Vec::new();
        self.find(domain, id, |place| {
            places.push(place);
            false
        });
        places.iter().filter_map(|place| self.located(place)).collect()
    }

    /// The preferred place of a blob.
    pub fn locate(&self, domain: &str, id: &BlobId) -> Option<Located> {
        self.first(domain, id).and_then(|place| self.located(&place))
    }

    fn first(&self, domain: &str, id: &BlobId) -> Option<Place> {
        let mut first = None;
        self.find(domain, id, |place| {
            first = Some(place);
            true
        });
        first
    }

    /// Numbers of the packs that hold a blob, until `each` is content: cheaper than [`Index::locate_all`]. It may be called
    /// twice for a pack.
    pub fn packs_of(&self, domain: &str, id: &BlobId, mut each: impl FnMut(u32) -> bool) -> bool {
        self.find(domain, id, |place| each(place.pack))
    }

    /// Plain length of a blob, bytes.
    pub fn plain_len(&self, domain: &str, id: &BlobId) -> Option<u32> {
        self.first(domain, id).map(|place| place.plain_len)
    }

    fn located(&self, place: &Place) -> Option<Located> {
        let pack = self.pack(place.pack)?;
        let run_key = match self.slot_of(place.pack) {
            Some((slot, mender, number)) => slot.key(mender, number, place.run_key)?,
            None => self.memory.key(place.pack - self.memory_base(), place.run_key)?,
        };
        Some(place.located(pack.id, pack.size, pack.kind, run_key))
    }
}
