//! What repairs a repository, without knowing files: config and epochs before it can be opened, then index, packs and
//! bundles. The order is up to whoever calls: what is new is durable before anything goes, and what goes goes by F26.

mod foundations;
mod hidden;
mod salvage;
mod survey;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use snap_backend::{BackendError, Bytes, ErrorKind, ObjectName};
use snap_format::{
    BLOB_ENTRY_LEN, IndexObject, IndexedPack, ObjectId, ObjectKind, RUN_KEY_ENTRY_LEN, SnapshotBundle, Time,
    limits,
};

use crate::marks::Marks;
use crate::writer::lock;
use crate::{Area, RepoError, Repository, Result, for_each_parallel, object_name};

pub use foundations::{Foundations, Patch};
pub use salvage::{Moved, Salvage};
pub use survey::{Boxes, PackState};

/// Payload at which an index object is ended, bytes.
const INDEX_TARGET: usize = 8 << 20;
/// What is read at a time of an object that cannot be read as a whole, bytes.
const PIECE: usize = 64 << 10;

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

    /// Announces that packs go: writers do not rely on them any more (F27), and prunes move what they hold.
    pub fn mark_packs(&self, packs: &[ObjectId], time: Time) -> Result<Vec<ObjectId>> {
        self.keyring().require_owner("marking packs")?;
        packs.chunks(limits::ITEMS).map(|part| self.put_mark(part.to_vec(), time)).collect()
    }

    /// Takes marks away whose packs are gone. A trace stays in their place (F34).
    pub fn withdraw_marks(&self, marks: &[ObjectId], time: Time) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        self.put_mark(Vec::new(), time)?;
        self.delete_objects(Area::Marks, marks)
    }

    /// Fails if one of these packs, which are named by now, is not there or marked: a prune took it for a leftover before it
    /// was named, and may be about to delete it.
    pub fn require_safe(&self, packs: &[ObjectId]) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let marks = Marks::read(self)?;
        let there = self.list(Area::Packs)?;
        let is_safe =
            |pack: &ObjectId| there.binary_search_by_key(pack, |(id, _)| *id).is_ok() && !marks.names(pack);
        if packs.iter().all(is_safe) { Ok(()) } else { Err(RepoError::Overtaken) }
    }

    /// As if these objects were not there: no listing shows them.
    #[must_use]
    pub fn without(&self, hidden: HashSet<ObjectName>) -> Self {
        if hidden.is_empty() {
            return self.clone();
        }
        self.over(hidden::Hidden::over(self.backend(), hidden))
    }

    /// Deletes objects that whoever calls answers for. Owners only; never epochs, and snapshots as [`Repository::forget`] does.
    pub fn delete_objects(&self, area: Area, ids: &[ObjectId]) -> Result<()> {
        self.keyring().require_owner("deleting objects")?;
        assert!(area != Area::Epochs, "epochs are never deleted");
        for_each_parallel(ids, self.backend().parallelism(), |id| {
            Ok(self.backend().delete(&object_name(area, id))?)
        })
    }

    /// The same of objects whose bytes do not have the hash in their name. One that has it by now was not written to its end
    /// when it was read, or somebody brought it back: it stays.
    pub fn delete_torn(&self, area: Area, ids: &[ObjectId]) -> Result<()> {
        let torn: Mutex<Vec<ObjectId>> = Mutex::default();
        for_each_parallel(ids, self.backend().parallelism(), |id| {
            let name = object_name(area, id);
            match self.backend().stat(&name) {
                Ok(meta) if meta.size_bytes <= limits::PACK && self.is_whole(&name, id)? => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(RepoError::from(error)),
                Ok(_) => lock(&torn).push(*id),
            }
            Ok(())
        })?;
        let torn = torn.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.delete_objects(area, &torn)
    }

    fn is_whole(&self, name: &ObjectName, id: &ObjectId) -> Result<bool> {
        match self.backend().get(name) {
            Ok(bytes) => Ok(snap_crypto::hash(&bytes) == id.0),
            Err(error) if self.is_damage(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an error says that bytes are lost, and not that the store does not answer: what else fails on a disk is the disk.
    fn is_damage(&self, error: &BackendError) -> bool {
        match error.kind() {
            ErrorKind::Truncated | ErrorKind::OutOfRange => true,
            ErrorKind::Other => self.backend().local_root().is_some(),
            _ => false,
        }
    }

    /// What can be read of a pack, as much as a pack may be long; zeros stand where nothing can. Empty if it is gone.
    pub fn read_what_is_left(&self, pack: &ObjectId) -> Result<Bytes> {
        let name = object_name(Area::Packs, pack);
        let size = match self.backend().stat(&name) {
            Err(error) if error.is_not_found() => return Ok(Bytes::new()),
            meta => meta?.size_bytes.min(limits::PACK),
        };
        match self.backend().get_range(&name, 0, size) {
            Err(error) if error.is_not_found() => return Ok(Bytes::new()),
            Err(error) if self.is_damage(&error) => {}
            read => return Ok(read?),
        }
        let mut out = vec![0; size as usize];
        for (at, piece) in (0..).step_by(PIECE).zip(out.chunks_mut(PIECE)) {
            match self.backend().get_range(&name, at as u64, piece.len() as u64) {
                Ok(bytes) => piece.copy_from_slice(&bytes),
                Err(error) if self.is_damage(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(out.into())
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
                    return Err(RepoError::Overtaken);
                }
            }
        }
        Ok(self.backend().delete(&object_name(Area::Snapshots, id))?)
    }
}
