use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use snap_backend::ObjectName;
use snap_format::{
    BlobEntry, BlobId, BlobKind, Codec, IndexObject, IndexedPack, ObjectId, ObjectKind, PackHeader, Role,
    RunKeyEntry, SlotId, limits,
};

use crate::boxes::open_box;
use crate::listing::Listed;
use crate::{Area, Finding, FindingCode, RepoError, Repository, Result, for_each_parallel, object_name};

/// Where a blob lies, ready to be fetched and opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Position of the pack in [`Index::packs`].
    pub pack: u32,
    /// Name of the pack.
    pub pack_id: ObjectId,
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
    /// Its name.
    pub id: ObjectId,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds.
    pub kind: BlobKind,
    /// Its domain.
    pub domain: String,
    /// Blobs in it.
    pub blobs: usize,
    /// Stands for everything that the index says of it ([`pack_digest`]).
    pub digest: [u8; 32],
    run_keys: Vec<RunKeyEntry>,
}

/// A hash over all that an index or a header says of a pack: two that agree have the same.
pub fn pack_digest(pack: &IndexedPack) -> [u8; 32] {
    let one = IndexObject { packs: vec![pack.clone()], replaces: Vec::new() };
    snap_crypto::hash(&one.encode())
}

/// Every blob of a pack and where it lies; the position of the pack is left 0.
pub fn pack_places(pack: &IndexedPack) -> impl Iterator<Item = (&BlobEntry, Located)> {
    PackHeader::units(&pack.blobs).flat_map(move |unit| {
        let plain_len = unit.plain_len() as u32; // at most that of a blob: checked when tables are decoded
        unit.members().map(move |(offset, blob)| {
            let place = Located {
                pack: 0,
                pack_id: pack.id,
                kind: pack.kind,
                offset: unit.offset,
                stored_len: unit.stored_len(),
                plain_len: blob.plain_len,
                group: unit.is_group().then_some(InGroup { offset, plain_len }),
                codec: blob.codec,
                run_key: pack.run_keys[usize::from(blob.run_key)],
            };
            (blob, place)
        })
    })
}

#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    offset: u32,
    stored_len: u32,
    plain_len: u32,
    group: Option<InGroup>,
    codec: Codec,
    run_key: u8,
}

#[derive(Default)]
struct Domain {
    first: HashMap<BlobId, Place>,
    /// Further places of blobs that are stored more than once.
    more: HashMap<BlobId, Vec<Place>>,
}

/// All believed index entries, by domain (F19). In memory: about 70 bytes a blob.
#[derive(Default)]
pub struct Index {
    packs: Vec<PackInfo>,
    by_id: HashMap<ObjectId, u32>,
    /// Further positions of packs of which several things are said.
    twins: HashMap<ObjectId, Vec<u32>>,
    domains: HashMap<String, Domain>,
    objects: Vec<ObjectId>,
}

/// How often the index is listed before what is listed and not there counts as missing.
const LISTINGS: usize = 3;

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} packs)", self.packs.len())
    }
}

impl Index {
    /// Loads every index object. What is damaged or forged is left out and reported. If a listed object is gone when it is
    /// read, a prune has replaced it, and all is listed again.
    pub fn load(repository: &Repository) -> Result<(Self, Vec<Finding>)> {
        for _ in 1..LISTINGS {
            let (index, findings) = Self::load_listed(repository)?;
            if findings.iter().all(|finding| finding.code != FindingCode::Missing) {
                return Ok((index, findings));
            }
        }
        Self::load_listed(repository)
    }

    fn load_listed(repository: &Repository) -> Result<(Self, Vec<Finding>)> {
        let names = repository.take_listing(Area::Index)?;
        let loaded = Mutex::new(Vec::with_capacity(names.len()));
        for_each_parallel(&names, repository.backend().parallelism(), |Listed { id, size, .. }| {
            let outcome = load_object(repository, id, *size).map_err(RepoError::into_finding_among_many);
            let outcome = match outcome {
                Ok(loaded) => Ok(loaded),
                Err(Ok(finding)) => Err(finding),
                Err(Err(error)) => return Err(error),
            };
            loaded.lock().unwrap_or_else(PoisonError::into_inner).push((*id, outcome));
            Ok(())
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
        if self.pack_numbers(&pack.id).any(|number| self.packs[number as usize].digest == digest) {
            return;
        }
        let number = u32::try_from(self.packs.len()).expect("fewer than four billion packs");
        if let Some(first) = self.by_id.insert(pack.id, number) {
            self.by_id.insert(pack.id, first);
            self.twins.entry(pack.id).or_default().push(number);
        }
        self.packs.push(PackInfo {
            id: pack.id,
            size: pack.size,
            kind: pack.kind,
            domain: pack.domain.clone(),
            blobs: pack.blobs.len(),
            digest,
            run_keys: pack.run_keys.clone(),
        });
        let domain = self.domains.entry(pack.domain.clone()).or_default();
        domain.first.reserve(pack.blobs.len());
        for (blob, place) in pack_places(pack) {
            let place = Place {
                pack: number,
                offset: place.offset as u32, // packs are shorter than 4 GiB: checked when tables are decoded
                stored_len: place.stored_len,
                plain_len: place.plain_len,
                group: place.group,
                codec: place.codec,
                run_key: blob.run_key,
            };
            if let Some(first) = domain.first.insert(blob.id, place) {
                // Keep the older one first: its neighbours are more likely wanted with it.
                domain.first.insert(blob.id, first);
                domain.more.entry(blob.id).or_default().push(place);
            }
        }
    }

    /// Packs, in no particular order; positions are those of [`Located::pack`].
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// Position of a pack, the first if several things are said of it.
    pub fn pack_number(&self, id: &ObjectId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// All positions of a pack: one, unless somebody lies about it.
    pub fn pack_numbers(&self, id: &ObjectId) -> impl Iterator<Item = u32> + '_ {
        let twins = self.twins.get(id).into_iter().flatten();
        self.by_id.get(id).into_iter().chain(twins).copied()
    }

    /// Whether a pack is named as one of `domain`.
    pub fn names_pack(&self, id: &ObjectId, domain: &str) -> bool {
        self.pack_numbers(id).any(|number| self.packs[number as usize].domain == domain)
    }

    /// Names of the index objects that were there when it was loaded.
    pub fn objects(&self) -> &[ObjectId] {
        &self.objects
    }

    /// Number of distinct blobs.
    pub fn blobs(&self) -> usize {
        self.domains.values().map(|domain| domain.first.len()).sum()
    }

    /// The blobs of a domain with their plain lengths, in no particular order.
    pub fn iter(&self, domain: &str) -> impl Iterator<Item = (BlobId, Located)> + '_ {
        let blobs = self.domains.get(domain).into_iter().flat_map(|domain| domain.first.iter());
        blobs.map(|(id, place)| (*id, self.located(place)))
    }

    /// Names of all domains.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// Every place of a blob of `domain`, the preferred one first.
    pub fn locate_all(&self, domain: &str, id: &BlobId) -> Vec<Located> {
        let Some(domain) = self.domains.get(domain) else { return Vec::new() };
        let more = domain.more.get(id).into_iter().flatten();
        domain.first.get(id).into_iter().chain(more).map(|place| self.located(place)).collect()
    }

    /// The preferred place of a blob.
    pub fn locate(&self, domain: &str, id: &BlobId) -> Option<Located> {
        self.domains.get(domain)?.first.get(id).map(|place| self.located(place))
    }

    /// Positions of the packs that hold a blob: cheaper than [`Index::locate_all`].
    pub(crate) fn packs_of(&self, domain: &str, id: &BlobId, mut each: impl FnMut(u32) -> bool) -> bool {
        let Some(domain) = self.domains.get(domain) else { return false };
        domain.first.get(id).is_some_and(|place| each(place.pack))
            || domain.more.get(id).is_some_and(|more| more.iter().any(|place| each(place.pack)))
    }

    /// Plain length of a blob, bytes.
    pub fn plain_len(&self, domain: &str, id: &BlobId) -> Option<u32> {
        self.domains.get(domain)?.first.get(id).map(|place| place.plain_len)
    }

    fn located(&self, place: &Place) -> Located {
        let pack = &self.packs[place.pack as usize];
        Located {
            pack: place.pack,
            pack_id: pack.id,
            kind: pack.kind,
            offset: u64::from(place.offset),
            stored_len: place.stored_len,
            plain_len: place.plain_len,
            group: place.group,
            codec: place.codec,
            run_key: pack.run_keys[usize::from(place.run_key)],
        }
    }
}

/// An index object that is believed, and who signed it.
#[derive(Debug)]
pub struct ParsedIndex {
    /// Who signed it.
    pub slot: SlotId,
    /// Label of that slot.
    pub slot_label: String,
    /// The packs that its signer may name.
    pub packs: Vec<IndexedPack>,
    /// What it may not name (F19).
    pub findings: Vec<Finding>,
}

/// No signed box is longer: its payload is bounded, and compression never adds to it (`docs/format.md` §16).
pub const MAX_BOX_BYTES: u64 = limits::PAYLOAD_PLAIN as u64 + (64 << 10);

/// Refuses an object that is larger than its kind may be, before it is read into memory.
pub(crate) fn check_box_size(name: &ObjectName, size: u64) -> Result<()> {
    if size <= MAX_BOX_BYTES { Ok(()) } else { Err(RepoError::corrupt(name.as_str(), "it is too large")) }
}

fn load_object(repository: &Repository, id: &ObjectId, size: u64) -> Result<ParsedIndex> {
    let name = object_name(Area::Index, id);
    check_box_size(&name, size)?;
    let bytes = repository.backend().get(&name)?;
    repository.parse_index(id, &bytes)
}

impl Repository {
    /// Verifies the bytes of an index object. Pack maps that its signer may not write are reported and left out (F19).
    pub fn parse_index(&self, id: &ObjectId, bytes: &[u8]) -> Result<ParsedIndex> {
        let name = object_name(Area::Index, id);
        crate::verify::check_name(&name, id, bytes)?;
        let opened = open_box(self.keyring(), name.as_str(), ObjectKind::Index, bytes)?;
        let object =
            IndexObject::decode(&opened.payload).map_err(|error| RepoError::format(name.as_str(), error))?;
        let (slot, member) = (opened.slot, opened.member);
        let (mut packs, mut findings) = (object.packs, Vec::new());
        packs.retain(|pack| {
            let allowed = member.role == Role::Owner || pack.domain == member.domain;
            if !allowed {
                let why = format!(
                    "the slot {slot} {:?} of the domain {} claims the pack {} for the domain {}",
                    member.label, member.domain, pack.id, pack.domain
                );
                findings.push(Finding::new(FindingCode::Forged, name.as_str(), why));
            }
            allowed
        });
        Ok(ParsedIndex { slot, slot_label: member.label, packs, findings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(domain: &str, blob: u8) -> IndexedPack {
        IndexedPack {
            id: ObjectId([7; 32]),
            size: 1000,
            kind: BlobKind::Data,
            domain: domain.to_owned(),
            run_keys: vec![RunKeyEntry { epoch: snap_format::EpochId([0; 16]), sealed: [0; 80] }],
            blobs: vec![BlobEntry {
                id: BlobId([blob; 32]),
                stored_len: 50,
                plain_len: 10,
                codec: Codec::Raw,
                grouped: false,
                run_key: 0,
            }],
        }
    }

    #[test]
    fn a_lie_about_a_pack_does_not_hide_the_truth() {
        let mut index = Index::default();
        index.insert(&pack("slot-1", 1));
        index.insert(&pack("main", 1));
        index.insert(&pack("main", 2));
        index.insert(&pack("main", 2));
        assert_eq!(index.pack_numbers(&ObjectId([7; 32])).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(index.names_pack(&ObjectId([7; 32]), "main") && !index.names_pack(&ObjectId([7; 32]), "x"));
        assert_eq!(index.locate("main", &BlobId([1; 32])).map(|place| place.pack), Some(1));
        assert_eq!(index.locate("main", &BlobId([2; 32])).map(|place| place.pack), Some(2));
        assert_eq!(index.locate("slot-1", &BlobId([2; 32])), None);
    }
}
