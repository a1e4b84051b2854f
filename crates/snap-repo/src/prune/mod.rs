//! Reclaiming space without locks (`docs/format.md` §15, F25 to F35; the argument is in `docs/adr/0014-prune.md`).
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

use std::collections::HashSet;
use std::time::Duration;

use snap_format::{ObjectId, Time, limits};

use crate::{Finding, RepoError, Repository, Sabotage, Snapshot};

pub use live::{LiveSet, Salt};
pub use trees::TreePlaces;

/// Packs wait for so long between mark and deletion unless something else is said: a day, less an hour, so that a job that
/// runs once a day deletes what it marked the day before.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(23 * 3600);

/// Dead bytes that are left where they are, since moving the rest costs more than they are worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Waste {
    /// This share of all bytes of blobs, 0 to 1.
    Share(f64),
    /// This many.
    Bytes(u64),
    /// Any: nothing is moved to free space.
    Unlimited,
}

impl Waste {
    /// Whether so many of all bytes may stay.
    fn allows(self, dead: u64, total: u64) -> bool {
        match self {
            Self::Share(share) => dead as f64 <= share * total as f64,
            Self::Bytes(bytes) => dead <= bytes,
            Self::Unlimited => true,
        }
    }
}

/// What to reclaim.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How long a mark stands before its packs go, by the store's own times.
    pub grace: Duration,
    /// Dead bytes that may stay.
    pub max_waste: Waste,
    /// Only say what would be done.
    pub dry_run: bool,
    /// In a rehearsal: as if these snapshots were forgotten.
    pub without: HashSet<ObjectId>,
    /// Pass over snapshots and index objects that are whole and signed by nobody who may: nothing of them counts.
    pub pass_over_forged: bool,
    /// Take away these packs, which are known to be damaged, and nothing else; at once, since nobody can rely on them. What is
    /// needed of them must lie elsewhere by now.
    pub damaged: HashSet<ObjectId>,
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
            max_waste: Waste::Share(0.05),
            dry_run: false,
            without: HashSet::new(),
            pass_over_forged: false,
            damaged: HashSet::new(),
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
    /// Moving what is needed out of packs; counted in these.
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

    /// Hears of each step, with how many items and bytes it is about, 0 if that is not known; an error stops the prune.
    fn step(&self, _: PruneStep, _items: u64, _bytes: u64) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Hears what of a step is done.
    fn advance(&self, _items: u64, _bytes: u64) {}
}

/// Packs and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackSum {
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
    pub before: PackSum,
    /// Packs in which nothing was needed: marked by this run.
    pub dead: PackSum,
    /// Packs of which the rest was moved: marked by this run.
    pub repacked: PackSum,
    /// Packs of interrupted runs, named by no index: marked by this run.
    pub orphans: PackSum,
    /// Blobs that were moved, dead members of their groups among them.
    pub moved_blobs: u64,
    /// Their sealed bytes.
    pub moved_bytes: u64,
    /// Bytes written: packs, index, marks. 0 in a rehearsal.
    pub stored_bytes: u64,
    /// Packs deleted.
    pub deleted: PackSum,
    /// Packs that are marked and wait for the grace to pass: the next prune deletes them.
    pub waiting: PackSum,
    /// Packs that stay as they are.
    pub kept: PackSum,
    /// Dead bytes in these, within what is allowed.
    pub waste_bytes: u64,
    /// Index objects that were replaced.
    pub index_replaced: u64,
    /// Index objects that replaced them.
    pub index_written: u64,
    /// Old snapshots that were put into bundles.
    pub bundled: u64,
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
