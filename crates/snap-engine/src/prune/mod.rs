//! Which blobs the snapshots of a repository of files need, for [`snap_repo::prune`], which does the rest.

mod trees;

use snap_format::ObjectId;
use snap_repo::prune::{LiveSet, PruneOptions, PruneReport, PruneStep, TreePlaces, Walk};
use snap_repo::{Finding, Repository, Snapshot};

use crate::{Context, EngineError, Phase, Result};

/// Marks what can go and deletes what has waited for the grace, as [`snap_repo::prune::prune`] says. Owners only.
pub fn prune(repository: &Repository, options: &PruneOptions, context: Context<'_>) -> Result<PruneReport> {
    context.check_stop()?;
    snap_repo::prune::prune(repository, options, &Trees { repository, context })
}

/// Walks the trees of snapshots.
struct Trees<'a> {
    repository: &'a Repository,
    context: Context<'a>,
}

impl Walk for Trees<'_> {
    type Error = EngineError;

    fn walk(&self, snapshots: &[Snapshot], trees: &TreePlaces, live: &LiveSet) -> Result<Vec<Finding>> {
        trees::walk(self.repository, snapshots, trees, live, self.context)
    }

    fn blame(&self, snapshots: &[Snapshot], trees: &TreePlaces, lost: &LiveSet) -> Result<Vec<ObjectId>> {
        trees::blame(self.repository, snapshots, trees, lost, self.context)
    }

    fn step(&self, step: PruneStep, items: u64, bytes: u64) -> Result<()> {
        self.context.check_stop()?;
        let phase = match step {
            PruneStep::Looking => Phase::Opening,
            PruneStep::Walking => Phase::Scanning,
            PruneStep::Moving => Phase::Moving,
            PruneStep::Deleting => Phase::Deleting,
        };
        self.context.progress.begin(phase, items, bytes);
        Ok(())
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.context.progress.add(items, bytes);
    }
}
