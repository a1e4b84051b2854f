//! Taking what another copy has sealed: bytes are moved, and never opened (F15).

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use snap_backend::Bytes;
use snap_format::{BlobId, IndexedPack, ObjectId, PackHeader};

use super::{IndexFlushed, Writer, lock};
use crate::pack::parse_and_hash;
use crate::{Area, RepoError, Repository, Result, object_name};

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

impl IndexFlushed {
    /// Puts snapshots of another copy, byte for byte, and looks once more. Only then is it a success.
    pub fn commit_sealed(self, snapshots: &[(ObjectId, Bytes)]) -> Result<()> {
        let writer = &self.writer;
        for (id, bytes) in snapshots {
            let name = object_name(Area::Snapshots, id);
            writer.members.each(writer.members.living(), |_, member| {
                member.repository.backend().put(&name, bytes.clone())?;
                Ok(())
            })?;
        }
        writer.last_look()?;
        writer.settle();
        Ok(())
    }
}
