//! Reclaiming space without locks (`docs/format.md` §15, F25 to F35; the argument is in `docs/adr/0018-prune.md`).
//!
//! [`prune`] computes which blobs the snapshots need, moves those that lie among many dead ones, announces by a *mark* which
//! packs will go, and deletes those whose mark has stood for the grace: first the index objects that name them, then the
//! packs, then the marks. It can be killed anywhere; any later prune, anybody's, goes on.
//!
//! What needs trees is asked of the [`Walk`], since this crate knows no files.

mod inventory;
mod live;
mod plan;
mod repack;
mod rewrite;
mod run;
mod trees;

use std::time::Duration;

use snap_format::{ObjectId, Time, limits};

use crate::{Finding, RepoError, Repository, Sabotage, Snapshot};

pub use live::{LiveSet, Salt};
pub use trees::TreePlaces;

/// Packs wait for so long between mark and deletion unless something else is said: a day, less an hour, so that a job that
/// runs once a day deletes what it marked the day before.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(23 * 3600);

/// What to reclaim.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How long a mark stands before its packs go, by the store's own times.
    pub grace: Duration,
    /// Share of dead bytes that may stay, 0 to 1.
    pub max_waste: f64,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Pass over snapshots and index objects that are whole and signed by nobody who may: nothing of them counts.
    pub pass_over_forged: bool,
    /// The time now, for the mark. Nothing relies on it.
    pub time: Time,
    /// Size at which a new pack is finished, bytes.
    pub pack_target: usize,
    /// Test-only.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl PruneOptions {
    /// The defaults, at a time.
    pub fn at(time: Time) -> Self {
        Self {
            grace: DEFAULT_GRACE,
            max_waste: 0.05,
            dry_run: false,
            pass_over_forged: false,
            time,
            pack_target: limits::PACK_TARGET,
            sabotage: Sabotage::None,
        }
    }
}

/// What a prune is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneStep {
    /// Reading index and snapshots.
    Looking,
    /// Walking trees.
    Walking,
    /// Moving blobs; counted in packs and bytes.
    Moving,
    /// Writing the index and deleting.
    Deleting,
}

/// What a prune asks of whoever knows trees.
pub trait Walk: Sync {
    /// How it fails.
    type Error: From<RepoError>;

    /// Adds every blob, trees among them, that the snapshots reach to `live`. Each distinct tree need be read once. Returns
    /// what cannot be read: then nothing is deleted.
    fn walk(
        &self,
        snapshots: &[Snapshot],
        trees: &TreePlaces,
        live: &LiveSet,
    ) -> Result<Vec<Finding>, Self::Error>;

    /// Those of the snapshots that reach one of `lost`, or something that cannot be read.
    fn blame(
        &self,
        snapshots: &[Snapshot],
        trees: &TreePlaces,
        lost: &LiveSet,
    ) -> Result<Vec<ObjectId>, Self::Error>;

    /// Hears of each step, with what of it is done: items and bytes of so many; an error stops the prune.
    fn step(&self, _: PruneStep, _done: (u64, u64), _of: (u64, u64)) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Packs and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingPacks {
    /// How many.
    pub packs: u64,
    /// Their size in the store.
    pub bytes: u64,
}

/// What a prune did, or, of a rehearsal, would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Snapshots whose blobs were kept.
    pub snapshots: u64,
    /// Distinct blobs that they need.
    pub live_blobs: u64,
    /// Packs in the store before.
    pub before: WaitingPacks,
    /// Packs in which nothing was needed: marked by this run.
    pub dead: WaitingPacks,
    /// Packs of which the rest was moved: marked by this run.
    pub repacked: WaitingPacks,
    /// Packs of interrupted runs, named by no index: marked by this run.
    pub orphans: WaitingPacks,
    /// Blobs that were moved, and their sealed bytes.
    pub moved_blobs: u64,
    /// Bytes of these.
    pub moved_bytes: u64,
    /// Bytes written: packs, index, marks. 0 in a rehearsal.
    pub stored_bytes: u64,
    /// Packs deleted.
    pub deleted: WaitingPacks,
    /// Packs that are marked and wait for the grace to pass: the next prune deletes them.
    pub waiting: WaitingPacks,
    /// Dead bytes that stay, within what is allowed.
    pub waste_bytes: u64,
    /// Index objects that were replaced.
    pub index_replaced: u64,
    /// Index objects that replaced them.
    pub index_written: u64,
    /// Snapshots that a record had forgotten, and that an interrupted run had left.
    pub forgotten: u64,
    /// What is worth saying.
    pub notes: Vec<Finding>,
}

/// Marks what can go, deletes what has waited for the grace. Owners only. Deletes nothing if it is uncertain what snapshots
/// need ([`RepoError::Unprunable`]).
pub fn prune<W: Walk>(
    repository: &Repository,
    options: &PruneOptions,
    walk: &W,
) -> Result<PruneReport, W::Error> {
    repository.keyring().require_owner("prune")?;
    run::run(repository, options, walk)
}
