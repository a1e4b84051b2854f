//! Where trees lie: all that a walk over them needs, in 60 bytes a tree.

use snap_format::{BlobId, BlobKind, Codec, IndexedPack, ObjectId, RunKeyEntry};

use crate::{InGroup, Located, pack_places};

/// A pack of trees.
struct TreePack {
    id: ObjectId,
    size: u64,
    run_keys: Vec<RunKeyEntry>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    domain: u16,
    id: BlobId,
    pack: u32,
    offset: u32,
    stored_len: u32,
    plain_len: u32,
    /// Where it stands in the plaintext of its unit, and the length of that.
    within: u32,
    unit_len: u32,
    is_grouped: bool,
    codec: u8,
    run_key: u8,
}

/// The trees that packs hold, by domain and id. A tree's number is the position of its first place.
#[derive(Default)]
pub struct TreePlaces {
    domains: Vec<String>,
    packs: Vec<TreePack>,
    entries: Vec<Entry>,
}

impl std::fmt::Debug for TreePlaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TreePlaces({} in {} packs)", self.entries.len(), self.packs.len())
    }
}

impl TreePlaces {
    /// Takes the trees of a pack. [`TreePlaces::sort`] comes before the next search.
    pub(super) fn add(&mut self, pack: &IndexedPack) {
        let known = self.domains.iter().position(|domain| *domain == pack.domain);
        let domain = known.unwrap_or_else(|| {
            self.domains.push(pack.domain.clone());
            self.domains.len() - 1
        });
        let domain = u16::try_from(domain).expect("an epoch has at most 1,024 slots, each with one domain");
        let number = u32::try_from(self.packs.len()).expect("fewer than four billion packs");
        self.packs.push(TreePack { id: pack.id, size: pack.size, run_keys: pack.run_keys.clone() });
        self.entries.extend(pack_places(pack).map(|(blob, place)| Entry {
            domain,
            id: blob.id,
            pack: number,
            offset: place.offset as u32, // packs are shorter than 4 GiB: checked when tables are decoded
            stored_len: place.stored_len,
            plain_len: place.plain_len,
            within: place.within().start as u32, // a unit is as long as a blob may be
            unit_len: place.unit_len(),
            is_grouped: place.group.is_some(),
            codec: blob.codec.code(),
            run_key: blob.run_key,
        }));
    }

    pub(super) fn sort(&mut self) {
        self.entries.sort_unstable();
    }

    /// Number of places; all numbers of trees are below.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of a tree; `None` if no pack has it.
    pub fn number(&self, domain: &str, id: &BlobId) -> Option<u32> {
        let domain = self.domains.iter().position(|known| known == domain)? as u16;
        let at = self.entries.partition_point(|entry| (entry.domain, entry.id) < (domain, *id));
        self.entries.get(at).filter(|entry| (entry.domain, entry.id) == (domain, *id))?;
        u32::try_from(at).ok()
    }

    /// The tree of a number: its domain and id.
    pub fn tree(&self, number: u32) -> (&str, BlobId) {
        let entry = &self.entries[number as usize];
        (&self.domains[usize::from(entry.domain)], entry.id)
    }

    /// Every place of the tree of a number.
    pub fn places(&self, number: u32) -> impl Iterator<Item = Located> + '_ {
        let first = &self.entries[number as usize];
        let same = |entry: &&Entry| (entry.domain, entry.id) == (first.domain, first.id);
        self.entries[number as usize..].iter().take_while(same).map(|entry| self.located(entry))
    }

    fn located(&self, entry: &Entry) -> Located {
        let pack = &self.packs[entry.pack as usize];
        Located {
            pack: entry.pack,
            pack_id: pack.id,
            pack_size: pack.size,
            kind: BlobKind::Tree,
            offset: u64::from(entry.offset),
            stored_len: entry.stored_len,
            plain_len: entry.plain_len,
            group: entry.is_grouped.then_some(InGroup { offset: entry.within, plain_len: entry.unit_len }),
            codec: Codec::from_code(entry.codec).expect("it was made from a codec"),
            run_key: pack.run_keys[usize::from(entry.run_key)],
        }
    }
}
