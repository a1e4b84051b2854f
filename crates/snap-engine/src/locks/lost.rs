//! Snapshots that somebody hid from their owner, or wrote over.

use std::collections::{BTreeMap, BTreeSet};

use snap_backend::{ErrorKind, ObjectLock};
use snap_format::ObjectId;
use snap_repo::{Area, RepoError, Repository, object_name, parse_object_name};

use crate::Result;

/// The versions of every object in `snapshots/`, hidden and damaged ones too.
#[derive(Debug, Clone, Default)]
pub struct StoredSnapshots(BTreeMap<ObjectId, Vec<String>>);

/// Snapshots of which a version is there, that are not read any more, and that no record forgot. Whoever hides a snapshot
/// must not make the locks of what it needs lapse.
#[derive(Debug, Clone, Default)]
pub struct LostSnapshots {
    /// Their ids.
    pub snapshots: BTreeSet<ObjectId>,
    /// The objects in which they stand.
    pub objects: BTreeSet<ObjectId>,
}

impl StoredSnapshots {
    /// Lists them. To be done before the snapshots are read, so that one that comes meanwhile is not taken for lost.
    pub fn list(lock: &ObjectLock) -> Result<Self> {
        let mut out = Self::default();
        let listed = lock.list_versions(Area::Snapshots.prefix(), &mut |version| {
            if let (Some((_, id)), false) =
                (parse_object_name(version.name.as_str()), version.is_delete_marker)
            {
                out.0.entry(id).or_default().push(version.version);
            }
            Ok(())
        });
        listed.map_err(RepoError::from)?;
        Ok(out)
    }

    /// Those that are lost. What a cache remembers does not count: the store must have it. Old versions are read of objects
    /// that hold no snapshot now, and are not the name of one that is elsewhere or was forgotten: bundles that were replaced,
    /// and what was hidden.
    pub fn lost(
        &self,
        lock: &ObjectLock,
        repository: &Repository,
        was_forgotten: impl Fn(&ObjectId) -> bool,
    ) -> Result<LostSnapshots> {
        let (mut holders, mut held) = (BTreeSet::new(), BTreeSet::new());
        for (object, snapshots) in repository.snapshot_holders()? {
            if !snapshots.is_empty() {
                holders.insert(object);
            }
            held.extend(snapshots.into_iter().map(|snapshot| snapshot.id));
        }
        let is_known = |id: &ObjectId| held.contains(id) || was_forgotten(id);
        let mut out = LostSnapshots::default();
        for (object, versions) in &self.0 {
            if holders.contains(object) || is_known(object) {
                continue;
            }
            let name = object_name(Area::Snapshots, object);
            for version in versions {
                let bytes = match lock.get(&name, version) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(RepoError::from(error).into()),
                };
                // What is no snapshot by its bytes is none that anybody could lose.
                let Ok(found) = repository.snapshots_in(object, &bytes) else { continue };
                let lost: Vec<ObjectId> = found.into_iter().filter(|id| !is_known(id)).collect();
                if !lost.is_empty() {
                    out.objects.insert(*object);
                    out.snapshots.extend(lost);
                }
            }
        }
        Ok(out)
    }
}
