//! A cache as a repository of any size would have it, made without the repository: for the benchmark of the index.

use std::sync::Arc;

use snap_format::{BlobId, BlobKind, Codec, EpochId, ObjectId, RunKeyEntry};

use super::block::{Page, Read};
use super::entry::{Place, Record};
use super::home::{Home, Keep};
use super::table::{Absorbed, Source};
use crate::{Cache, RepoError, Repository, Result};

/// Runs that wrote the packs.
const RUNS: u64 = 1000;

/// How large, and which index objects it comes from.
#[derive(Debug)]
pub struct Scale {
    /// Distinct blobs, all of the domain `main`.
    pub blobs: u64,
    /// Packs that hold them.
    pub packs: u64,
    /// Index objects in the store, sorted.
    pub objects: Vec<ObjectId>,
}

/// The finalizer of SplitMix64.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The id at `number` of `count` in order; `salt` tells sequences apart.
fn id_at(number: u64, count: u64, salt: u64) -> [u8; 32] {
    let step = u64::MAX / count.max(1);
    let mut out = [0; 32];
    let seed = mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt);
    let words = [number * step + seed % step, mix(seed ^ 1), mix(seed ^ 2), mix(seed ^ 3)];
    out.as_chunks_mut().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_be_bytes());
    out
}

impl Scale {
    /// A blob that is there, `number` below `blobs`.
    pub fn known(&self, number: u64) -> BlobId {
        BlobId(id_at(number, self.blobs, 1))
    }

    /// One that is not.
    pub fn unknown(&self, number: u64) -> BlobId {
        BlobId(id_at(number % self.blobs, self.blobs, 2 + number))
    }

    /// Makes it the cached index of `repository`: one table, written by what merges.
    pub fn write(&self, repository: &Repository, cache: &Cache) -> Result<()> {
        let home = Home::new(repository, cache);
        let absorbed = |id: &ObjectId| Absorbed { id: *id, has_findings: false };
        let source = Synthetic { scale: self, objects: self.objects.iter().map(absorbed).collect() };
        let table = home.make(&[&source], &|_| true, Keep::Listed).map_err(super::absorb::not_made)?;
        let lock = home.lock().ok_or_else(|| RepoError::Refused("the cache is in use".into()))?;
        home.publish(&lock, &[table.id]);
        Ok(())
    }
}

struct Synthetic<'a> {
    scale: &'a Scale,
    objects: Vec<Absorbed>,
}

impl Source for Synthetic<'_> {
    fn objects(&self) -> &[Absorbed] {
        &self.objects
    }

    fn domains(&self) -> Vec<(Arc<str>, u64)> {
        vec![("main".into(), self.scale.blobs)]
    }

    fn records(&self) -> u32 {
        self.scale.packs as u32
    }

    fn record(&self, number: u32, _: &mut Page) -> Read<Record> {
        let id = ObjectId(id_at(number.into(), self.scale.packs, 3));
        Ok(Record {
            id,
            digest: id.0,
            size: 17 << 20,
            keys_at: number % RUNS as u32,
            keys: 1,
            kind: BlobKind::Data,
            blobs: (self.scale.blobs / self.scale.packs) as u32,
            domain: 0,
            object: (u64::from(number) % self.objects.len() as u64) as u32,
            is_first: true,
        })
    }

    fn keys(&self, record: &Record, _: &mut Page) -> Read<Vec<RunKeyEntry>> {
        let mut sealed = [0; 80];
        sealed[..4].copy_from_slice(&record.keys_at.to_le_bytes());
        Ok(vec![RunKeyEntry { epoch: EpochId([0; 16]), sealed }])
    }

    fn place(&self, _: usize, number: u64, _: &mut Page) -> Read<Place> {
        Ok(Place {
            id: self.scale.known(number),
            pack: (mix(number) % self.scale.packs) as u32,
            offset: mix(number) as u32 >> 8,
            stored_len: 300_000,
            plain_len: 600_000,
            group: None,
            codec: Codec::Zstd,
            run_key: 0,
        })
    }
}
