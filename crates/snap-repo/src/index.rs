use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use snap_format::{
    BlobId, BlobKind, Codec, IndexObject, IndexedPack, ObjectId, ObjectKind, PackHeader, Role, RunKeyEntry,
};

use crate::boxes::open_box;
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
    /// Offset in the pack, bytes.
    pub offset: u64,
    /// Stored length with nonce and tag, bytes.
    pub stored_len: u32,
    /// Length of the plaintext, bytes.
    pub plain_len: u32,
    /// How it is stored.
    pub codec: Codec,
    /// Opens it.
    pub run_key: RunKeyEntry,
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
    run_keys: Vec<RunKeyEntry>,
}

#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    offset: u32,
    stored_len: u32,
    plain_len: u32,
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
    domains: HashMap<String, Domain>,
    objects: Vec<ObjectId>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} packs)", self.packs.len())
    }
}

impl Index {
    /// Loads every index object. What is damaged or forged is left out and reported.
    pub fn load(repository: &Repository) -> Result<(Self, Vec<Finding>)> {
        let names = repository.list(Area::Index)?;
        let loaded = Mutex::new(Vec::with_capacity(names.len()));
        for_each_parallel(&names, repository.backend().parallelism(), |(id, _)| {
            let outcome = load_object(repository, id).map_err(RepoError::into_finding);
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
                Ok((object, mut forged)) => {
                    object.packs.iter().for_each(|pack| index.insert(pack));
                    findings.append(&mut forged);
                }
                Err(finding) => findings.push(finding),
            }
        }
        Ok((index, findings))
    }

    /// Adds a pack; a pack that is known already stays as it is.
    pub fn insert(&mut self, pack: &IndexedPack) {
        if self.by_id.contains_key(&pack.id) {
            return;
        }
        let number = u32::try_from(self.packs.len()).expect("fewer than four billion packs");
        self.by_id.insert(pack.id, number);
        self.packs.push(PackInfo {
            id: pack.id,
            size: pack.size,
            kind: pack.kind,
            domain: pack.domain.clone(),
            blobs: pack.blobs.len(),
            run_keys: pack.run_keys.clone(),
        });
        let domain = self.domains.entry(pack.domain.clone()).or_default();
        domain.first.reserve(pack.blobs.len());
        for (offset, blob) in PackHeader::offsets(&pack.blobs) {
            let place = Place {
                pack: number,
                offset: offset as u32, // packs are shorter than 4 GiB: checked when tables are decoded
                stored_len: blob.stored_len,
                plain_len: blob.plain_len,
                codec: blob.codec,
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

    /// Position of a pack.
    pub fn pack_number(&self, id: &ObjectId) -> Option<u32> {
        self.by_id.get(id).copied()
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
            codec: place.codec,
            run_key: pack.run_keys[usize::from(place.run_key)],
        }
    }
}

/// Reads one index object. Pack maps that its signer may not write are reported and left out (F19).
pub(crate) fn load_object(repository: &Repository, id: &ObjectId) -> Result<(IndexObject, Vec<Finding>)> {
    let name = object_name(Area::Index, id);
    let bytes = repository.backend().get(&name)?;
    parse_object(repository, id, &bytes)
}

pub(crate) fn parse_object(
    repository: &Repository,
    id: &ObjectId,
    bytes: &[u8],
) -> Result<(IndexObject, Vec<Finding>)> {
    let name = object_name(Area::Index, id);
    crate::verify::check_name(&name, id, bytes)?;
    let opened = open_box(repository.keyring(), name.as_str(), ObjectKind::Index, bytes)?;
    let mut object =
        IndexObject::decode(&opened.payload).map_err(|error| RepoError::format(name.as_str(), error))?;
    let mut findings = Vec::new();
    object.packs.retain(|pack| {
        let allowed = opened.member.role == Role::Owner || pack.domain == opened.member.domain;
        if !allowed {
            let why = format!(
                "the slot {} of the domain {} claims the pack {} for the domain {}",
                opened.slot, opened.member.domain, pack.id, pack.domain
            );
            findings.push(Finding::new(FindingCode::Forged, name.as_str(), why));
        }
        allowed
    });
    Ok((object, findings))
}
