//! Dropping snapshots: the record first, then the objects (F26).

use std::collections::HashSet;

use snap_format::{ObjectId, RecordBody, Time, limits};

use crate::merge::MergeRequest;
use crate::snapshot_area::Known;
use crate::{Area, Repository, Result, for_each_parallel, object_name};

impl Repository {
    /// Forgets `snapshots`: writes signed records with their names, then deletes them. After an interruption in between they
    /// are still listed, and [`Overlays::was_forgotten`](crate::Overlays::was_forgotten) knows them; `leftovers` are such ones
    /// of earlier runs, which are deleted too. Owners only.
    pub fn forget(&self, snapshots: &[ObjectId], leftovers: &[ObjectId], time: Time) -> Result<()> {
        self.keyring().require_owner("forgetting snapshots")?;
        self.record_forgotten(snapshots, time)?;
        self.delete_snapshots(&[leftovers, snapshots].concat())
    }

    /// Says of snapshots that they are gone, or about to go: the chain has no gap where they were. Owners only.
    pub fn record_forgotten(&self, snapshots: &[ObjectId], time: Time) -> Result<()> {
        for part in snapshots.chunks(limits::ITEMS) {
            self.put_record_about(&RecordBody::Forget(part.to_vec()), time)?;
        }
        Ok(())
    }

    /// Deletes snapshots that a `forget` record names, which whoever calls this answers for. The one place where snapshots
    /// are deleted: objects of their own go, bundles are written without them (F30).
    pub fn delete_snapshots(&self, snapshots: &[ObjectId]) -> Result<()> {
        self.keyring().require_owner("deleting snapshots")?;
        if snapshots.is_empty() {
            return Ok(());
        }
        let drop: HashSet<ObjectId> = snapshots.iter().copied().collect();
        let objects = self.read_snapshot_area(Known::FromCache)?;
        let is_bundled = objects.iter().any(|object| {
            object.is_bundle && object.snapshots.iter().any(|member| drop.contains(&member.id))
        });
        if is_bundled {
            return self.merge_snapshots(&MergeRequest { stored_before_secs: i64::MIN, drop }).map(|_| ());
        }
        for_each_parallel(snapshots, self.backend().parallelism(), |id| {
            Ok(self.backend().delete(&object_name(Area::Snapshots, id))?)
        })
    }
}
