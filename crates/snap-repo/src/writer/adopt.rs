//! Packs that an interrupted run left (F28).

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use snap_backend::ErrorKind;
use snap_format::ObjectId;

use super::WriterStats;
use super::members::Written;
use crate::pack_look::StoredPacks;
use crate::{Index, RepoError, Repository, Result};

/// Indexes packs of this slot that no index names; the index gets them, and so does the store, before anything relies on
/// them. Packs of other slots, damaged ones, and those that a prune is about to delete are left alone.
pub(super) fn adopt(
    repository: &Repository,
    index: &mut Index,
    stored: &StoredPacks,
    marked: &HashSet<ObjectId>,
    written: &Written,
    stats: &WriterStats,
) -> Result<()> {
    let mut denied = 0;
    for (id, size) in stored.iter() {
        if index.names_pack(&id, repository.keyring().own_domain()) || marked.contains(&id) {
            continue;
        }
        if denied > 0 {
            denied += 1;
            continue;
        }
        match repository.read_pack_header(id, size).map_err(RepoError::into_finding) {
            // An owner may have packed for another domain.
            Ok((slot, pack))
                if slot == repository.keyring().slot() && !index.names_pack(&id, &pack.domain) =>
            {
                index.insert(&pack);
                stats.adopted_packs.fetch_add(1, Ordering::Relaxed);
                written.index_later(pack);
            }
            Ok(_) | Err(Ok(_)) => {}
            Err(Err(error)) if error.is_newer() => {}
            // The least credentials of a backup slot do not read packs, and need not.
            Err(Err(RepoError::Backend(error))) if error.kind() == ErrorKind::Permission => {
                denied = 1;
            }
            Err(Err(error)) => return Err(error),
        }
    }
    stats.unreadable_packs.fetch_add(denied, Ordering::Relaxed);
    written.write_index(repository, stats)
}
