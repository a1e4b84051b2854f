//! Packs that an interrupted run left (F28).

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use snap_backend::ErrorKind;
use snap_format::ObjectId;

use super::WriterStats;
use super::members::Written;
use crate::pack_look::StoredPacks;
use crate::{Index, RepoError, Repository, Result};

/// Compares the index with the packs that are there in one pass. Returns, by number, which packs are not to be relied on; and,
/// by position in `stored`, which the index names as packs of `domain`.
pub(super) fn compare(
    index: &Index,
    stored: &StoredPacks,
    marked: &HashSet<ObjectId>,
    domain: &str,
) -> (Vec<bool>, Vec<bool>) {
    let mut avoid = vec![true; index.pack_limit()];
    let mut named = vec![false; stored.iter().count()];
    for pack in index.packs() {
        let is_whole = match stored {
            StoredPacks::Trusted => true,
            StoredPacks::Listed(packs) => {
                packs.binary_search_by_key(&pack.id, |(id, _)| *id).is_ok_and(|position| {
                    named[position] |= *pack.domain == *domain;
                    packs[position].1 == pack.size
                })
            }
        };
        avoid[pack.number as usize] = !is_whole || marked.contains(&pack.id);
    }
    (avoid, named)
}

/// Indexes packs of this slot that no index names; the index gets them, and so does the store, before anything relies on
/// them. Packs of other slots, damaged ones, and those that a prune is about to delete are left alone.
pub(super) fn adopt(
    repository: &Repository,
    index: &mut Index,
    unnamed: impl Iterator<Item = (ObjectId, u64)>,
    marked: &HashSet<ObjectId>,
    written: &Written,
    stats: &WriterStats,
) -> Result<()> {
    let mut denied = 0;
    for (id, size) in unnamed.filter(|(id, _)| !marked.contains(id)) {
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
