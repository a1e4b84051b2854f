//! Index objects that were just parsed, sorted as a table is.

use std::collections::BTreeMap;
use std::sync::Arc;

use snap_format::{IndexedPack, ObjectId, RunKeyEntry};

use super::block::{Damaged, Page, Read};
use super::entry::{self, Place, Record};
use super::pack_digest;
use super::table::{Absorbed, Source};

/// Takes index objects, then is merged into a table.
#[derive(Default)]
pub(super) struct Batch {
    objects: Vec<Absorbed>,
    packs: Vec<(ObjectId, IndexedPack)>,
    blobs: usize,
}

impl Batch {
    pub(super) fn push(&mut self, object: Absorbed, packs: Vec<IndexedPack>) {
        self.objects.push(object);
        self.blobs += packs.iter().map(|pack| pack.blobs.len() + 1).sum::<usize>();
        self.packs.extend(packs.into_iter().map(|pack| (object.id, pack)));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Blobs and packs.
    pub(super) const fn len(&self) -> usize {
        self.blobs
    }

    /// In order, ready to be merged.
    pub(super) fn sort(mut self) -> SortedBatch {
        self.objects.sort_unstable();
        let object_of = |id: &ObjectId| self.objects.partition_point(|object| object.id < *id) as u32;
        let mut packs: Vec<_> = self
            .packs
            .into_iter()
            .map(|(object, pack)| (pack.id, pack_digest(&pack), object_of(&object), pack))
            .collect();
        packs.sort_unstable_by_key(|(id, digest, object, _)| (*id, *digest, *object));
        let mut domains: BTreeMap<Arc<str>, Vec<Place>> = BTreeMap::new();
        for (_, _, _, pack) in &packs {
            domains.entry(pack.domain.as_str().into()).or_default();
        }
        let names: Vec<Arc<str>> = domains.keys().cloned().collect();
        let (mut records, mut keys) = (Vec::<Record>::with_capacity(packs.len()), Vec::new());
        for (number, (id, digest, object, pack)) in packs.into_iter().enumerate() {
            let is_first = records.last().is_none_or(|last| (last.id, last.digest) != (id, digest));
            records.push(Record {
                id,
                digest,
                size: pack.size,
                keys_at: keys.len() as u32,
                keys: pack.run_keys.len() as u16,
                kind: pack.kind,
                blobs: pack.blobs.len() as u32,
                domain: names.partition_point(|name| **name < *pack.domain) as u32,
                object,
                is_first,
            });
            keys.extend_from_slice(&pack.run_keys);
            // What is said twice has its blobs once.
            if is_first && let Some(places) = domains.get_mut(pack.domain.as_str()) {
                places.extend(entry::places(number as u32, &pack.blobs));
            }
        }
        let mut domains: Vec<_> = domains.into_iter().collect();
        domains.iter_mut().for_each(|(_, places)| places.sort_unstable_by_key(Place::sort_key));
        SortedBatch { objects: self.objects, records, keys, domains }
    }
}

/// A batch in order.
pub(super) struct SortedBatch {
    objects: Vec<Absorbed>,
    records: Vec<Record>,
    keys: Vec<RunKeyEntry>,
    domains: Vec<(Arc<str>, Vec<Place>)>,
}

impl Source for SortedBatch {
    fn objects(&self) -> &[Absorbed] {
        &self.objects
    }

    fn domains(&self) -> Vec<(Arc<str>, u64)> {
        self.domains.iter().map(|(name, places)| (Arc::clone(name), places.len() as u64)).collect()
    }

    fn records(&self) -> u32 {
        self.records.len() as u32
    }

    fn record(&self, number: u32, _: &mut Page) -> Read<Record> {
        self.records.get(number as usize).copied().ok_or(Damaged)
    }

    fn keys(&self, record: &Record, _: &mut Page) -> Read<Vec<RunKeyEntry>> {
        let first = record.keys_at as usize;
        self.keys.get(first..first + usize::from(record.keys)).map(<[_]>::to_vec).ok_or(Damaged)
    }

    fn place(&self, domain: usize, number: u64, _: &mut Page) -> Read<Place> {
        self.domains[domain].1.get(number as usize).copied().ok_or(Damaged)
    }
}
