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
/// Takes 9 to 18 bytes a blob.
pub struct LiveSet {
    state: RandomState,
    shards: Vec<Mutex<HashSet<u64, BuildHasherDefault<AsItIs>>>>,
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
        lock(&self.shards[shard(key)]).insert(key)
    }

    /// Whether a blob is needed.
    pub fn contains(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        lock(&self.shards[shard(key)]).contains(&key)
    }

    /// Number of distinct keys.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys, to be counted; the set stays as it is.
    pub(super) fn counts(&self) -> Counts {
        let shards = self.shards.iter().map(|shard| {
            let mut keys: Vec<u64> = lock(shard).iter().copied().collect();
            keys.sort_unstable();
            let seen = vec![0; keys.len()];
            Mutex::new(Shard { keys, seen })
        });
        Counts { shards: shards.collect() }
    }

    /// The blobs of `keys` alone, with the same salts.
    pub(super) fn subset(&self, keys: &[u64]) -> Self {
        let set = Self { state: self.state.clone(), ..Self::default() };
        keys.iter().for_each(|key| {
            lock(&set.shards[shard(*key)]).insert(*key);
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

/// How often each needed blob is stored: nowhere, once, or more often.
pub(super) struct Counts {
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    keys: Vec<u64>,
    seen: Vec<u8>,
}

impl Counts {
    /// Counts a place of a blob; false if nobody needs it.
    pub(super) fn add(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        let mut shard = lock(&self.shards[shard(key)]);
        let Ok(at) = shard.keys.binary_search(&key) else { return false };
        shard.seen[at] = (shard.seen[at] + 1).min(2);
        true
    }

    /// Whether a needed blob was seen at several places.
    pub(super) fn is_double(&self, salt: Salt, id: &BlobId) -> bool {
        let key = key(salt, id);
        let shard = lock(&self.shards[shard(key)]);
        shard.keys.binary_search(&key).is_ok_and(|at| shard.seen[at] > 1)
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
            missing.extend(
                shard.keys.iter().zip(&shard.seen).filter(|(_, seen)| **seen == 0).map(|(key, _)| *key),
            );
        }
        missing
    }
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
        let counts = live.counts();
        assert_eq!(counts.missing().len(), 2);
        assert!(counts.add(main, &id(1)) && !counts.add(slot, &id(1)) && !counts.has_doubles());
        assert!(
            counts.add(main, &id(1)) && counts.is_double(main, &id(1)) && !counts.is_double(main, &id(2))
        );
        let lost = live.subset(&counts.missing());
        assert!(lost.contains(main, &id(2)) && !lost.contains(main, &id(1)));
    }
}
