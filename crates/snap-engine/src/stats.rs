use snap_repo::{Area, Index, Repository};

use crate::Result;

/// How large a repository is and what it saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct RepositoryStats {
    pub snapshots: u64,
    pub packs: u64,
    pub blobs: u64,
    pub index_objects: u64,
    /// All objects together.
    pub stored_bytes: u64,
    /// Plain size of the distinct blobs.
    pub plain_bytes: u64,
    /// Sum of the source sizes of all snapshots.
    pub source_bytes: u64,
}

/// Counts; reads index and snapshots, no packs.
pub fn stats(repository: &Repository, index: &Index) -> Result<RepositoryStats> {
    let set = repository.snapshots()?;
    let mut out = RepositoryStats {
        snapshots: set.snapshots.len() as u64,
        packs: index.packs().count() as u64,
        index_objects: index.objects().len() as u64,
        source_bytes: set.snapshots.iter().map(|snapshot| snapshot.envelope.summary.source_bytes).sum(),
        ..RepositoryStats::default()
    };
    for domain in index.domains() {
        for (_, length) in index.plain_lens(&domain) {
            out.blobs += 1;
            out.plain_bytes += u64::from(length);
        }
    }
    index.check()?;
    for area in Area::ALL {
        out.stored_bytes += repository.list(area)?.iter().map(|(_, size)| size).sum::<u64>();
    }
    Ok(out)
}
