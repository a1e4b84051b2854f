//! What is known without a table: what this run inserts, and everything where there is no cache. 75 to 150 bytes a blob, by how
//! full the hash table is.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use snap_format::{BlobId, IndexedPack, ObjectId, RunKeyEntry};

use super::PackInfo;
use super::entry::{self, Place};

/// A place that is found by its id.
struct ById(Place);

impl Borrow<BlobId> for ById {
    fn borrow(&self) -> &BlobId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

#[derive(Default)]
struct Domain {
    first: HashSet<ById>,
    /// Further places of blobs that are stored more than once.
    more: HashMap<BlobId, Vec<Place>>,
}

/// Packs and blobs in hash tables. Numbers of packs begin at 0.
#[derive(Default)]
pub(super) struct Memory {
    packs: Vec<(PackInfo, Vec<RunKeyEntry>)>,
    by_id: HashMap<ObjectId, u32>,
    /// Further numbers of packs of which several things are said.
    twins: HashMap<ObjectId, Vec<u32>>,
    domains: HashMap<Arc<str>, Domain>,
}

impl Memory {
    pub(super) fn insert(&mut self, pack: &IndexedPack, digest: [u8; 32]) {
        let number = u32::try_from(self.packs.len()).expect("fewer than four billion packs");
        if let Some(first) = self.by_id.insert(pack.id, number) {
            self.by_id.insert(pack.id, first);
            self.twins.entry(pack.id).or_default().push(number);
        }
        let name: Arc<str> = match self.domains.get_key_value(pack.domain.as_str()) {
            Some((name, _)) => Arc::clone(name),
            None => pack.domain.as_str().into(),
        };
        let info = PackInfo {
            number,
            id: pack.id,
            size: pack.size,
            kind: pack.kind,
            domain: Arc::clone(&name),
            blobs: pack.blobs.len(),
            digest,
        };
        self.packs.push((info, pack.run_keys.clone()));
        let domain = self.domains.entry(name).or_default();
        domain.first.reserve(pack.blobs.len());
        for place in entry::places(number, &pack.blobs) {
            // The older one stays first: its neighbours are more likely wanted with it.
            if !domain.first.insert(ById(place)) {
                domain.more.entry(place.id).or_default().push(place);
            }
        }
    }

    pub(super) fn packs(&self) -> u32 {
        self.packs.len() as u32
    }

    pub(super) fn pack(&self, number: u32) -> Option<&PackInfo> {
        self.packs.get(number as usize).map(|(info, _)| info)
    }

    pub(super) fn key(&self, pack: u32, key: u8) -> Option<RunKeyEntry> {
        self.packs.get(pack as usize)?.1.get(usize::from(key)).copied()
    }

    pub(super) fn pack_numbers(&self, id: &ObjectId) -> impl Iterator<Item = u32> + '_ {
        let twins = self.twins.get(id).into_iter().flatten();
        self.by_id.get(id).into_iter().chain(twins).copied()
    }

    pub(super) fn domains(&self) -> impl Iterator<Item = &Arc<str>> {
        self.domains.keys()
    }

    /// All places of a blob, the preferred one first.
    pub(super) fn find(&self, domain: &str, id: &BlobId) -> impl Iterator<Item = &Place> {
        let domain = self.domains.get(domain);
        let more = domain.and_then(|domain| domain.more.get(id)).into_iter().flatten();
        domain.and_then(|domain| domain.first.get(id)).map(|by_id| &by_id.0).into_iter().chain(more)
    }

    /// The preferred places of the blobs of a domain, in no particular order.
    pub(super) fn places(&self, domain: &str) -> impl Iterator<Item = &Place> {
        self.domains.get(domain).into_iter().flat_map(|domain| domain.first.iter().map(|by_id| &by_id.0))
    }
}
