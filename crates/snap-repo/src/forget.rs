//! Dropping snapshots: the record first, then the objects (F26).

use snap_format::{ObjectId, RecordBody, Time, limits};

use crate::{Area, Repository, Result, for_each_parallel, object_name};

impl Repository {
    /// Forgets `snapshots`: writes signed records with their names, then deletes them. After an interruption in between they
    /// are still listed, and [`Overlays::was_forgotten`](crate::Overlays::was_forgotten) knows them; `leftovers` are such ones
    /// of earlier runs, which are deleted too. Owners only.
    pub fn forget(&self, snapshots: &[ObjectId], leftovers: &[ObjectId], time: Time) -> Result<()> {
        self.keyring().require_owner("forgetting snapshots")?;
        for part in snapshots.chunks(limits::ITEMS) {
            self.put_record_about(&RecordBody::Forget(part.to_vec()), time)?;
        }
        self.delete_snapshots(&[leftovers, snapshots].concat())
    }

    /// Deletes snapshots that a `forget` record names, which whoever calls this answers for. The one place where snapshots
    /// are deleted.
    pub fn delete_snapshots(&self, snapshots: &[ObjectId]) -> Result<()> {
        self.keyring().require_owner("deleting snapshots")?;
        for_each_parallel(snapshots, self.backend().parallelism(), |id| {
            Ok(self.backend().delete(&object_name(Area::Snapshots, id))?)
        })
    }
}
