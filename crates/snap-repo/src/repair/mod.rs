//! What repairs a repository, without knowing files: config and epochs before it can be opened, then index, packs and
//! bundles. The order is up to whoever calls: what is new is durable before anything goes, and what goes goes by F26.

mod foundations;
mod salvage;
mod survey;

use std::collections::HashSet;

use snap_format::{
    BLOB_ENTRY_LEN, IndexObject, IndexedPack, Mark, ObjectId, ObjectKind, RUN_KEY_ENTRY_LEN, SnapshotBundle,
    Time, limits,
};

use crate::{Area, Repository, Result, for_each_parallel, object_name};

pub use foundations::{Foundations, Patch};
pub use salvage::Salvage;
pub use survey::{Boxes, PackState};

/// Payload at which an index object is ended, bytes.
const INDEX_TARGET: usize = 8 << 20;

impl Repository {
    /// Writes index objects that name these packs, in place of `replaces`, which stay until they are deleted.
    pub fn put_index(&self, packs: Vec<IndexedPack>, replaces: &[ObjectId]) -> Result<Vec<ObjectId>> {
        self.keyring().require_owner("writing the index anew")?;
        let replaces = &replaces[..replaces.len().min(limits::ITEMS)];
        let (mut out, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for pack in packs {
            let more = pack.blobs.len() * BLOB_ENTRY_LEN + pack.run_keys.len() * RUN_KEY_ENTRY_LEN + 128;
            if !batch.is_empty() && (bytes + more > INDEX_TARGET || batch.len() >= limits::ITEMS) {
                out.push(self.put_index_object(std::mem::take(&mut batch), replaces)?);
                bytes = 0;
            }
            bytes += more;
            batch.push(pack);
        }
        if !batch.is_empty() {
            out.push(self.put_index_object(batch, replaces)?);
        }
        Ok(out)
    }

    fn put_index_object(&self, packs: Vec<IndexedPack>, replaces: &[ObjectId]) -> Result<ObjectId> {
        let payload = IndexObject { packs, replaces: replaces.to_vec() }.encode();
        self.put_box(Area::Index, ObjectKind::Index, &payload)
    }

    /// Announces that packs go: writers do not rely on them any more (F27).
    pub fn mark_packs(&self, packs: &[ObjectId], time: Time) -> Result<Vec<ObjectId>> {
        self.keyring().require_owner("marking packs")?;
        let put = |part: &[ObjectId]| {
            let payload = Mark { time, packs: part.to_vec() }.encode();
            self.put_box(Area::Marks, ObjectKind::Mark, &payload)
        };
        packs.chunks(limits::ITEMS).map(put).collect()
    }

    /// Deletes objects that whoever calls answers for. Owners only; never epochs, and snapshots as [`Repository::forget`] does.
    pub fn delete_objects(&self, area: Area, ids: &[ObjectId]) -> Result<()> {
        self.keyring().require_owner("deleting objects")?;
        assert!(area != Area::Epochs, "epochs are never deleted");
        for_each_parallel(ids, self.backend().parallelism(), |id| {
            Ok(self.backend().delete(&object_name(area, id))?)
        })
    }

    /// Writes a bundle anew without the members of these ids, then deletes the old one (F30).
    pub fn trim_bundle(&self, id: &ObjectId, without: &HashSet<ObjectId>) -> Result<()> {
        self.keyring().require_owner("writing a bundle anew")?;
        let bytes = self.backend().get(&object_name(Area::Snapshots, id))?;
        if let Some(mut bundle) = self.parse_snapshot_bundle(id, &bytes)? {
            bundle.members.retain(|member| !without.contains(&ObjectId(snap_crypto::hash(&member.bytes))));
            if !bundle.members.is_empty() {
                let payload = SnapshotBundle { members: bundle.members }.encode();
                let new = self.put_box(Area::Snapshots, ObjectKind::SnapshotBundle, &payload)?;
                if !self.list(Area::Snapshots)?.iter().any(|(listed, _)| *listed == new) {
                    return Err(crate::RepoError::Overtaken);
                }
            }
        }
        Ok(self.backend().delete(&object_name(Area::Snapshots, id))?)
    }
}
