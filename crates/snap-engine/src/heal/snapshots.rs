//! Snapshots that are gone, and records that can be read no more.

use std::collections::{HashMap, HashSet};

use snap_format::ObjectId;
use snap_repo::{Area, Overlays, Repository};

use super::Heal;
use crate::{CopyOptions, EngineError, Result, copy_snapshots};

/// What another copy says of snapshots.
struct Said {
    /// Those that it has, each with the one before it.
    there: HashMap<ObjectId, Option<ObjectId>>,
    overlays: Overlays,
    /// Nothing of that is damaged.
    is_whole: bool,
}

impl Said {
    fn of(repository: &Repository) -> Result<Self> {
        let (set, overlays) = (repository.snapshots()?, repository.overlays()?);
        let is_whole = set.findings.is_empty() && overlays.unreadable.is_empty();
        let there = set.snapshots.iter().map(|it| (it.id, it.envelope.previous)).collect();
        Ok(Self { there, overlays, is_whole })
    }
}

impl Heal<'_> {
    /// Copies snapshots that are gone, and, if nobody knows which these are, all that others have.
    pub(super) fn snapshots(&mut self) -> Result<()> {
        let unreadable = self.damage.of_area(Area::Snapshots);
        let records = self.damage.of_area(Area::Records);
        if self.damage.gone.is_empty() && unreadable.is_empty() && records.is_empty() {
            return Ok(());
        }
        let (mut others, mut all_answered) = (Vec::new(), self.options.has_all_copies);
        for sibling in self.siblings {
            match Said::of(&sibling.repository) {
                Ok(said) => {
                    all_answered &= said.is_whole;
                    others.push((sibling, said));
                }
                Err(error) => {
                    all_answered = false;
                    self.warn(&format!(
                        "the copy {} cannot be asked for its snapshots: {error}",
                        sibling.name
                    ));
                }
            }
        }
        all_answered &= !others.is_empty();
        let gone = self.missing(others.iter().map(|(_, said)| said))?;
        let options = CopyOptions {
            only: unreadable.is_empty().then_some(gone),
            despite_records: true,
            distrust: self.bad.clone(),
            pack_target: self.options.pack_target,
            ..CopyOptions::new(self.options.time)
        };
        for (sibling, _) in &others {
            match copy_snapshots(&sibling.repository, self.repository, None, &options, self.context) {
                Ok(copied) => {
                    all_answered &= copied.left.is_empty();
                    self.report.snapshots.extend(copied.snapshots);
                }
                Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
                Err(error) => {
                    all_answered = false;
                    self.warn(&format!("snapshots of the copy {} were not copied: {error}", sibling.name));
                }
            }
        }
        if !all_answered {
            return Ok(());
        }
        for id in unreadable {
            if self.repository.is_replaceable_bundle(&id, self.cache)? {
                self.remove(Area::Snapshots, &id)?;
            }
        }
        self.note_forgotten(others.iter().map(|(_, said)| said), &records)
    }

    /// The snapshots that are gone, and those before them that others have: which of these were forgotten here a record may have
    /// said that is lost.
    fn missing<'s>(&self, others: impl Iterator<Item = &'s Said>) -> Result<HashSet<ObjectId>> {
        let own = Said::of(self.repository)?;
        let mut before: HashMap<ObjectId, Option<ObjectId>> = HashMap::new();
        others.for_each(|said| before.extend(&said.there));
        let is_known =
            |id: &ObjectId| own.there.contains_key(id) || own.overlays.ever_forgotten().contains(id);
        let mut gone = HashSet::new();
        for id in &self.damage.gone {
            let mut next = Some(*id);
            while let Some(id) = next.filter(|id| !is_known(id)) {
                if !gone.insert(id) {
                    break;
                }
                next = before.get(&id).copied().flatten();
            }
        }
        Ok(gone)
    }

    /// Notes what is missed here, was forgotten elsewhere and is in no copy. Then records that cannot be read go, unless something is
    /// missed still: it may be that they forgot it.
    fn note_forgotten<'s>(
        &mut self,
        others: impl Iterator<Item = &'s Said> + Clone,
        records: &[ObjectId],
    ) -> Result<()> {
        let own = Said::of(self.repository)?;
        let is_known =
            |id: &ObjectId| own.there.contains_key(id) || own.overlays.ever_forgotten().contains(id);
        let previous = own.there.values().flatten();
        let mut missed: Vec<ObjectId> = previous.filter(|id| !is_known(id)).copied().collect();
        missed.sort_unstable();
        missed.dedup();
        let is_gone = |id: &ObjectId| {
            others.clone().all(|said| !said.there.contains_key(id))
                && others.clone().any(|said| said.overlays.ever_forgotten().contains(id))
        };
        let (gone, missed): (Vec<ObjectId>, Vec<ObjectId>) = missed.into_iter().partition(is_gone);
        self.repository.note_forgotten(&gone, self.options.time)?;
        self.report.forgotten = gone;
        if missed.is_empty() {
            for id in records {
                self.remove(Area::Records, id)?;
            }
        }
        Ok(())
    }
}
