//! The findings as they leave: each damage once, with what it touches.

use std::collections::BTreeMap;

use snap_format::ObjectId;
use snap_repo::{Area, Finding, FindingCode, RepoError, Repository, object_name};

use super::damage::Damage;
use super::structure::unindexed;
use super::trace::{Touched, trace};
use super::trees::{Blame, Trees};
use crate::work::lock;
use crate::{Context, EngineError, Event, Result};

/// Blobs that nothing names and that are reported one by one; of more, the number is said.
const DANGLING_NAMED: usize = 1000;

/// Findings so far.
#[derive(Default)]
pub(super) struct Findings {
    /// Those that are complete.
    pub(super) objects: Vec<Finding>,
    /// What only a newer version can judge.
    pub(super) newer: Vec<RepoError>,
}

impl Findings {
    /// What was met when the repository was opened, unless the store has told the same in more detail since.
    pub(super) fn add_opening(&mut self, repository: &Repository) {
        for finding in repository.findings() {
            if !self.objects.iter().any(|other| other.object == finding.object) {
                self.objects.push(finding.clone());
            }
        }
    }

    /// Damage of packs, and references that lead nowhere, with the snapshots and paths that they touch.
    pub(super) fn add_traced(&mut self, trees: &Trees<'_>, damage: &Damage) -> Result<()> {
        let is_torn = *lock(&trees.is_torn);
        let mut touched = match is_torn || !damage.packs().is_empty() {
            true => trace(trees)?,
            false => BTreeMap::new(),
        };
        for (pack, finding) in damage.findings() {
            let touched = touched.remove(&Blame::Pack(pack)).unwrap_or_default();
            self.objects.push(with(finding, touched));
        }
        let mut dangling = 0;
        for (blame, touched) in touched {
            match blame {
                Blame::Pack(_) => {}
                Blame::Unindexed(pack) => self.objects.push(with(unindexed(&pack), touched)),
                Blame::Dangling(blob) => {
                    dangling += 1;
                    if dangling <= DANGLING_NAMED {
                        let why = "it needs a blob that neither an index nor a pack names";
                        let finding =
                            Finding::new(FindingCode::Dangling, first_snapshot(&touched), why).blob(blob);
                        self.objects.push(with(finding, touched));
                    }
                }
            }
        }
        if let Some(more) = dangling.checked_sub(DANGLING_NAMED).filter(|more| *more > 0) {
            let why = format!("and {more} more blobs that neither an index nor a pack names");
            self.objects.push(Finding::new(FindingCode::Dangling, Area::Snapshots.prefix(), why));
        }
        Ok(())
    }

    /// Sorts them and tells the observer.
    pub(super) fn finish(mut self, context: Context<'_>) -> Result<Vec<Finding>> {
        self.objects.sort();
        self.objects.dedup();
        self.objects.iter().for_each(|finding| context.observer.event(Event::Finding(finding)));
        for error in &self.newer {
            context.observer.event(Event::Warning { text: &error.to_string() });
        }
        match self.newer.into_iter().next() {
            Some(error) if self.objects.is_empty() => Err(EngineError::from(error)),
            _ => Ok(self.objects),
        }
    }
}

fn first_snapshot(touched: &Touched) -> String {
    let id: Option<&ObjectId> = touched.snapshots.first();
    id.map_or_else(String::new, |id| object_name(Area::Snapshots, id).to_string())
}

fn with(mut finding: Finding, touched: Touched) -> Finding {
    finding.snapshots = touched.snapshots.into_iter().collect();
    finding.paths = touched.paths.into_iter().collect();
    finding
}
