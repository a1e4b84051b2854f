//! Which blobs snapshots need: 64 bits of each, in memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Mutex;

use snap_format::{BlobId, BlobKind};

use crate::writer::lock;

/// What a key is mixed with, so that no blob stands for one of another domain or kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    pub(super) const fn bits(self) -> u64 {
        self.0
    }
}

/// The blobs that snapshots need. Each is known by 64 bits: two that share them are both kept, so it errs on one side only.
/// Takes 9 to 18 bytes a blob while trees are walked, and 9 when they are counted.
pub struct LiveSet {
    state: RandomState,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    /// What was there when counting began, sorted, and how often each was seen: not, once, more often.
    sorted: Vec<u64>,
    seen: Vec<u8>,
    /// What came since.
    new: HashSet<u64, BuildHasherDefault<AsItIs>>,
}

impl Shard {
    fn position(&self, key: u64) -> Option<usize> {
        self.sorted.binary_search(&key).ok()
    }

    fn contains(&self, key: u64) -> bool {
        self.new.contains(&key) || self.position(key).is_some()
    }

    fn len(&self) -> usize {
        self.sorted.len() + self.new.len()
    }

    fn sort(&mut self) {
        let new = std::mem::take(&mut self.new);
        self.sorted.reserve_exact(new.len());
        self.sorted.extend(new);
        self.sorted.sort_unstable();
        self.seen.clear();
        self.seen.resize(self.sorted.len(), 0);
        self.seen.shrink_to_fit();
    }
}

/// Ids are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Many, so that few threads meet, and so that one grows at a time.
const SHARDS: usize = 256;

impl Default for LiveSet {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { state: RandomState::new(), shards }
    }
}

impl std::fmt::Debug for LiveSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveSet({} blobs)", self.len())
    }
}

impl LiveSet {
    /// What goes with the blobs of a domain and kind.
    pub fn salt(&self, domain: &str, kind: BlobKind) -> Salt {
        Salt(self.state.hash_one((domain, kind)))
    }

    /// Adds a blob; whether it was new.
    pub fn insert(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        let mut shard = lock(&self.shards[shard(key)]);
        shard.position(key).is_none() && shard.new.insert(key)
    }

    /// Whether a blob is needed.
    pub fn contains(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        lock(&self.shards[shard(key)]).contains(key)
    }

    /// Number of distinct keys.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins to count how often each is stored.
    pub(super) fn begin_count(&self) {
        self.shards.iter().for_each(|shard| lock(shard).sort());
    }

    /// Counts a place of a blob; false if nobody needs it. What came since the count began is not counted.
    pub(super) fn count(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        let mut shard = lock(&self.shards[shard(key)]);
        let Some(at) = shard.position(key) else { return false };
        shard.seen[at] = (shard.seen[at] + 1).min(2);
        true
    }

    /// Whether a needed blob was seen at several places.
    pub(super) fn is_double(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        let shard = lock(&self.shards[shard(key)]);
        shard.position(key).is_some_and(|at| shard.seen[at] > 1)
    }

    /// Whether any was.
    pub(super) fn has_doubles(&self) -> bool {
        self.shards.iter().any(|shard| lock(shard).seen.iter().any(|seen| *seen > 1))
    }

    /// Needed blobs that were not seen.
    pub(super) fn missing(&self) -> Vec<u64> {
        let mut missing = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let unseen = shard.sorted.iter().zip(&shard.seen).filter(|(_, seen)| **seen == 0);
            missing.extend(unseen.map(|(key, _)| *key));
        }
        missing
    }

    /// The blobs of `keys` alone, with the same salts.
    pub(super) fn subset(&self, keys: &[u64]) -> Self {
        let set = Self { state: self.state.clone(), ..Self::default() };
        keys.iter().for_each(|key| {
            lock(&set.shards[shard(*key)]).new.insert(*key);
        });
        set
    }
}

fn key(salt: Salt, id: &BlobId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ salt.0
}

const fn shard(key: u64) -> usize {
    // The low bits choose the place inside of a set, the highest seven its tags.
    (key >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_told_apart_by_domain_and_kind() {
        let live = LiveSet::default();
        let (main, slot) = (live.salt("main", BlobKind::Data), live.salt("slot", BlobKind::Data));
        let trees = live.salt("main", BlobKind::Tree);
        let id = |n: u8| BlobId([n; 32]);
        assert!(live.insert(main, &id(1)) && !live.insert(main, &id(1)));
        assert!(!live.contains(slot, &id(1)) && !live.contains(trees, &id(1)) && live.contains(main, &id(1)));
        assert!(live.insert(main, &id(2)));
        live.begin_count();
        assert_eq!(live.missing().len(), 2);
        assert!(!live.insert(main, &id(1)) && live.contains(main, &id(1)) && live.len() == 2);
        assert!(live.count(main, &id(1)) && !live.count(slot, &id(1)) && !live.has_doubles());
        assert!(live.count(main, &id(1)) && live.is_double(main, &id(1)) && !live.is_double(main, &id(2)));
        let lost = live.subset(&live.missing());
        assert!(lost.contains(main, &id(2)) && !lost.contains(main, &id(1)));
        // What comes later is counted the next time.
        assert!(live.insert(main, &id(3)) && live.contains(main, &id(3)) && !live.count(main, &id(3)));
        live.begin_count();
        assert_eq!((live.missing().len(), live.len(), live.has_doubles()), (3, 3, false));
    }
}
