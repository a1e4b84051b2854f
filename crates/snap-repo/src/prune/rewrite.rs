//! The index without what goes: few objects for many, the new ones before the old ones go (F26).

use std::collections::HashSet;
use std::sync::Mutex;

use snap_format::{
    BLOB_ENTRY_LEN, IndexObject, IndexedPack, ObjectId, ObjectKind, RUN_KEY_ENTRY_LEN, limits,
};

use super::inventory::{IndexObjectInfo, Inventory};
use crate::writer::BLOBS_PER_INDEX;
use crate::writer::lock;
use crate::{Area, Repository, Result, for_each_parallel, object_name};

/// Index objects below this many blobs are small.
const SMALL_BLOBS: usize = BLOBS_PER_INDEX / 8;
/// Small ones are merged when there are as many.
const SMALL_OBJECTS: usize = 8;
/// Payload at which an object is ended, bytes.
const TARGET: usize = 8 << 20;

/// The index objects to be replaced: those that name a pack of `going`, or one that is not there, and small ones if there are
/// many.
pub(super) fn to_replace(inventory: &Inventory, going: &HashSet<ObjectId>) -> Vec<ObjectId> {
    let goes = |id: &ObjectId| going.contains(id) || !inventory.there.contains_key(id);
    let is_small = |info: &IndexObjectInfo| info.blobs < SMALL_BLOBS;
    let small = inventory.objects.values().filter(|info| is_small(info)).count();
    let mut out: Vec<ObjectId> = inventory
        .objects
        .iter()
        .filter(|(_, info)| info.packs.iter().any(goes) || small >= SMALL_OBJECTS && is_small(info))
        .map(|(id, _)| *id)
        .collect();
    out.sort_unstable();
    out
}

#[derive(Default)]
struct Batch {
    packs: Vec<IndexedPack>,
    bytes: usize,
    /// Packs that some batch has.
    done: HashSet<ObjectId>,
    written: Vec<ObjectId>,
}

/// Writes objects that name what `old` ones name, but for packs of `going` and those that are not there. Returns the names.
pub(super) fn put_merged(
    inventory: &Inventory,
    old: &[ObjectId],
    going: &HashSet<ObjectId>,
) -> Result<Vec<ObjectId>> {
    let repository = &inventory.repository;
    let batch = Mutex::new(Batch::default());
    inventory.stream(old, |_, _, pack| {
        if going.contains(&pack.id) || !inventory.there.contains_key(&pack.id) {
            return Ok(());
        }
        let mut guard = lock(&batch);
        if !guard.done.insert(pack.id) {
            return Ok(());
        }
        guard.bytes += pack.blobs.len() * BLOB_ENTRY_LEN + pack.run_keys.len() * RUN_KEY_ENTRY_LEN + 128;
        guard.packs.push(pack);
        if guard.bytes < TARGET {
            return Ok(());
        }
        guard.bytes = 0;
        let packs = std::mem::take(&mut guard.packs);
        drop(guard);
        let id = put(repository, packs, old)?;
        lock(&batch).written.push(id);
        Ok(())
    })?;
    let Batch { packs, mut written, .. } =
        batch.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !packs.is_empty() {
        written.push(put(repository, packs, old)?);
    }
    Ok(written)
}

fn put(repository: &Repository, mut packs: Vec<IndexedPack>, old: &[ObjectId]) -> Result<ObjectId> {
    packs.sort_unstable_by_key(|pack| pack.id);
    let replaces = old[..old.len().min(limits::ITEMS)].to_vec();
    repository.put_box(Area::Index, ObjectKind::Index, &IndexObject { packs, replaces }.encode())
}

/// Deletes objects of one area.
pub(super) fn delete(repository: &Repository, area: Area, ids: &[ObjectId]) -> Result<()> {
    for_each_parallel(ids, repository.backend().parallelism(), |id| {
        Ok(repository.backend().delete(&object_name(area, id))?)
    })
}
