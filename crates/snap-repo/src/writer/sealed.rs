//! Taking what another copy has sealed: bytes are moved, and never opened (F15).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_backend::Bytes;
use snap_format::{BlobId, IndexedPack, ObjectId, PackHeader};

use super::{IndexFlushed, Writer, lock};
use crate::pack::parse_and_hash;
use crate::{Area, Cache, RepoError, Repository, Result, object_name};

/// A pack of another copy, whose bytes have the hash in its name and whose header is believed.
pub struct SealedPack {
    pack: IndexedPack,
    bytes: Bytes,
}

impl Repository {
    /// Fetches a pack to be moved, and verifies it: what is damaged here must not look whole elsewhere.
    pub fn sealed_pack(&self, id: &ObjectId) -> Result<SealedPack> {
        let name = object_name(Area::Packs, id);
        let bytes = self.backend().get(&name)?;
        let (hash, opened) = parse_and_hash(self.keyring(), *id, &bytes);
        if hash != *id {
            return Err(RepoError::corrupt(name.as_str(), "its bytes do not have the hash in its name"));
        }
        Ok(SealedPack { pack: opened?.pack, bytes })
    }
}

impl SealedPack {
    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its length, bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Never: a pack has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Writer {
    /// Stores those blobs of a pack that are `wanted` and not known, each with the whole unit that it was sealed in: as they are
    /// in new packs, or, if all of them are to be stored, the pack as it is. Nothing is taken of another domain.
    pub fn take_sealed(&self, sealed: &SealedPack, wanted: impl Fn(&BlobId) -> bool) -> Result<()> {
        let SealedPack { pack, bytes } = sealed;
        if pack.domain != self.domain.name {
            return Ok(());
        }
        let claim = |id: &BlobId| self.fresh.insert(*id);
        let is_new = |id: &BlobId| wanted(id) && !self.lacking(id).is_empty() && claim(id);
        let new: HashSet<BlobId> = pack.blobs.iter().map(|blob| blob.id).filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let stats = self.stats();
        stats.blobs.fetch_add(new.len() as u64, Ordering::Relaxed);
        let all = self.members.living();
        if new.len() == pack.blobs.len() && !self.is_marked(&pack.id) {
            self.members.each(all, |_, member| {
                if !member.has_stored(&pack.id, pack.size) {
                    member.put_pack(&pack.id, bytes.clone())?;
                }
                member.note_pack(pack, stats)
            })?;
            stats.packs.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        for unit in PackHeader::units(&pack.blobs) {
            if unit.blobs.iter().any(|blob| new.contains(&blob.id)) {
                let stored = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
                let run_key = pack.run_keys[usize::from(unit.blobs[0].run_key)];
                self.push(pack.kind, unit.blobs, run_key, stored, all)?;
            }
        }
        Ok(())
    }

    fn is_marked(&self, pack: &ObjectId) -> bool {
        lock(&self.members.first().standing).marks.names(pack)
    }
}

/// What a run has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Packs.
    pub packs: u64,
    /// Bytes of packs and index.
    pub stored_bytes: u64,
}

impl IndexFlushed {
    /// What the run has stored.
    pub fn stored(&self) -> Stored {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = self.stats();
        Stored { packs: count(&stats.packs), stored_bytes: count(&stats.stored_bytes) }
    }

    /// Puts snapshots of another copy, byte for byte, and looks once more. Only then is it a success. Until then the cache has
    /// their names ([`Repository::unsettled_snapshots`]).
    pub fn commit_sealed(self, snapshots: &[(ObjectId, Bytes)]) -> Result<Stored> {
        let writer = &self.writer;
        let (repository, cache) = (writer.repository(), writer.cache.as_ref());
        let ids: HashSet<ObjectId> = snapshots.iter().map(|(id, _)| *id).collect();
        let earlier = repository.unsettled_snapshots(cache);
        repository.note_unsettled(cache, earlier.union(&ids));
        for (id, bytes) in snapshots {
            let name = object_name(Area::Snapshots, id);
            writer.members.each(writer.members.living(), |_, member| {
                member.repository.backend().put(&name, bytes.clone())?;
                Ok(())
            })?;
        }
        writer.last_look()?;
        repository.note_unsettled(cache, earlier.difference(&ids));
        writer.settle();
        Ok(self.stored())
    }
}

fn unsettled_name(repository: &Repository) -> String {
    format!("unsettled-{}", repository.copy_id())
}

impl Repository {
    /// Snapshots that this machine has put here from another copy without coming to the last look: a prune may have taken
    /// something from under them.
    pub fn unsettled_snapshots(&self, cache: Option<&Cache>) -> HashSet<ObjectId> {
        let bytes = cache.and_then(|cache| cache.read(&unsettled_name(self))).unwrap_or_default();
        bytes.as_chunks::<32>().0.iter().map(|id| ObjectId(*id)).collect()
    }

    fn note_unsettled<'a>(&self, cache: Option<&Cache>, ids: impl Iterator<Item = &'a ObjectId>) {
        let Some(cache) = cache else { return };
        let bytes: Vec<u8> = ids.flat_map(|id| id.0).collect();
        match bytes.is_empty() {
            true => cache.remove(&unsettled_name(self)),
            // What fails here costs a look at what is there.
            false => drop(cache.write(&unsettled_name(self), &bytes)),
        }
    }
}
