//! The blobs that this run has stored: in memory, and, when they are many, in private tables.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, BlobKind, Codec, ObjectId, RunKeyEntry};

use super::block::{Damaged, Page, Read};
use super::entry::{Place, Record};
use super::home::{Home, Keep};
use super::table::{Absorbed, Source, Table};
use crate::{Cache, Repository};

const SHARDS: usize = 16;
/// Ids of a shard in memory: a million in all.
const SHARD_LEN: usize = 1 << 16;

/// A set of blob ids that many threads add to. Without a cache it grows in memory.
pub(crate) struct Fresh {
    home: Option<Home>,
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    ids: HashSet<BlobId>,
    limit: usize,
    /// The largest first.
    tables: Vec<Table>,
}

/// A list of ids as a merge reads it; of packs it knows nothing.
struct Ids(Vec<BlobId>, [Absorbed; 1]);

impl Source for Ids {
    fn objects(&self) -> &[Absorbed] {
        &self.1
    }

    fn domains(&self) -> Vec<(Arc<str>, u64)> {
        vec![("".into(), self.0.len() as u64)]
    }

    fn records(&self) -> u32 {
        1
    }

    fn record(&self, _: u32, _: &mut Page) -> Read<Record> {
        Ok(Record {
            id: self.1[0].id,
            digest: [0; 32],
            size: 0,
            keys_at: 0,
            keys: 0,
            kind: BlobKind::Data,
            blobs: 0,
            domain: 0,
            object: 0,
            is_first: true,
        })
    }

    fn keys(&self, _: &Record, _: &mut Page) -> Read<Vec<RunKeyEntry>> {
        Ok(Vec::new())
    }

    fn place(&self, _: usize, number: u64, _: &mut Page) -> Read<Place> {
        let id = *self.0.get(number as usize).ok_or(Damaged)?;
        Ok(Place {
            id,
            pack: 0,
            offset: 0,
            stored_len: 0,
            plain_len: 0,
            group: None,
            codec: Codec::Raw,
            run_key: 0,
        })
    }
}

impl Shard {
    /// What a damaged table held counts as new: it is stored twice.
    fn contains(&self, id: &BlobId) -> bool {
        self.ids.contains(id) || self.tables.iter().any(|table| table.find("", id, |_| Ok(true)) == Ok(true))
    }

    fn spill(&mut self, home: &Home) {
        let mut ids: Vec<BlobId> = self.ids.iter().copied().collect();
        ids.sort_unstable();
        let nowhere = Absorbed { id: ObjectId([0; 32]), has_findings: false };
        let make = |sources: &[&dyn Source]| home.make(sources, &|_| true, Keep::Private);
        let Ok(table) = make(&[&Ids(ids, [nowhere])]) else {
            // No room: they stay in memory, and the next attempt is far.
            self.limit *= 2;
            return;
        };
        self.ids.clear();
        self.tables.push(table);
        while let [.., large, small] = self.tables.as_slice()
            && large.len() <= 2 * small.len()
            && let Ok(merged) = make(&[large, small])
        {
            self.tables.truncate(self.tables.len() - 2);
            self.tables.push(merged);
        }
    }
}

impl Fresh {
    /// An empty set that has room in `cache`.
    pub(crate) fn new(repository: &Repository, cache: Option<&Cache>) -> Self {
        Self::with_limit(cache.map(|cache| Home::new(repository, cache)), SHARD_LEN)
    }

    fn with_limit(home: Option<Home>, limit: usize) -> Self {
        let shard = |_| Mutex::new(Shard { ids: HashSet::new(), limit, tables: Vec::new() });
        Self { home, shards: std::array::from_fn(shard) }
    }

    fn shard(&self, id: &BlobId) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was added before.
    pub(crate) fn contains(&self, id: &BlobId) -> bool {
        self.shard(id).contains(id)
    }

    /// Adds an id; false if it was there.
    pub(crate) fn insert(&self, id: BlobId) -> bool {
        let mut shard = self.shard(&id);
        if shard.contains(&id) {
            return false;
        }
        shard.ids.insert(id);
        if let Some(home) = &self.home
            && shard.ids.len() >= shard.limit
        {
            shard.spill(home);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use snap_backend::MemoryBackend;
    use snap_format::Time;

    use super::*;
    use crate::Secret;

    #[test]
    fn ids_are_known_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (backend, secret) = (Arc::new(MemoryBackend::new()), Secret::random_key_file().unwrap());
        Repository::create(backend.as_ref(), &secret, "test", Time::new(1, 0)).unwrap();
        let repository = Repository::open(backend, &secret).unwrap();
        let cache = Cache::new(dir.path(), repository.id());
        let id = |number: u64| BlobId(snap_crypto::hash(&number.to_le_bytes()));
        let no_dir = Cache::new(std::path::Path::new("/proc/none"), repository.id());
        for (place, spills) in [(Some(&cache), true), (Some(&no_dir), false), (None, false)] {
            let fresh = Fresh::with_limit(place.map(|cache| Home::new(&repository, cache)), 10);
            for number in 0..5000 {
                assert!(!fresh.contains(&id(number)), "{number}");
                assert!(fresh.insert(id(number)), "{number}");
                assert!(!fresh.insert(id(number / 2)), "{number}");
            }
            assert!((0..5000).all(|number| fresh.contains(&id(number))));
            for shard in &fresh.shards {
                let shard = shard.lock().unwrap();
                assert_eq!((shard.ids.len() < 10, !shard.tables.is_empty()), (spills, spills));
                assert!(shard.tables.len() < 7, "{}", shard.tables.len());
            }
            // They have no names.
            let files = std::fs::read_dir(cache.root().join("tables").join(repository.copy_id()))
                .map_or(0, Iterator::count);
            assert_eq!(files, 0);
        }
    }
}
