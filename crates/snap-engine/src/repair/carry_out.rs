//! Doing what is to be done, in an order that loses nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, Body, ObjectId};
use snap_repo::repair::{Moved, Salvage};
use snap_repo::{
    Area, BlobReader, Cache, Finding, FindingCode, RepoError, Repository, Scratch, Snapshot, object_name,
};

use super::diagnose::Diagnosis;
use super::mend::{LostTrees, Mend};
use super::{Action, Ill, Lost, REPAIRED, RepairOptions, RepairReport};
use crate::rewrite::{Change, Leftovers, Request, Rewriter, Rewritten, replace_all, snapshots_to_rewrite};
use crate::work::lock;
use crate::{Context, EngineError, Phase, Result};

/// Files that a report lists; of more the number is said.
const LOST_LISTED: usize = 100_000;

/// What is needed to do it.
struct Job<'a> {
    repository: &'a Repository,
    cache: Option<&'a Cache>,
    found: Diagnosis,
    options: &'a RepairOptions,
    context: Context<'a>,
}

pub(super) fn carry_out(
    repository: &Repository,
    cache: Option<&Cache>,
    mut found: Diagnosis,
    options: &RepairOptions,
    context: Context<'_>,
) -> Result<RepairReport> {
    let mut report = RepairReport { newer: std::mem::take(&mut found.newer), ..RepairReport::default() };
    report.actions = std::mem::take(&mut found.actions);
    let writes = !options.dry_run;
    let repository = &repository.without(found.boxes.unreadable.clone());
    let mut job = Job { repository, cache, found, options, context };
    let moved = job.salvage(&mut report)?;
    let mut marks = Vec::new();
    if writes {
        repository.put_index(job.found.spare.clone(), &[])?;
        // What of damaged packs is to be had lies elsewhere; no writer relies on the rest any more.
        let unusable = job.found.bad_packs.keys().chain(&job.found.missing_packs);
        marks = repository.mark_packs(&unusable.copied().collect::<Vec<_>>(), options.now)?;
    }
    job.mend_chain(&mut report)?;
    job.mend_snapshots(&moved, &mut report)?;
    report.duplicates = duplicates(&job.found);
    if writes {
        context.check_stop()?;
        job.delete(&marks)?;
        report.temporaries = repository.backend().sweep_stale_temporaries().map_err(RepoError::from)?;
    }
    report.actions.sort_by(|a, b| (a.ill, &a.finding).cmp(&(b.ill, &b.finding)));
    Ok(report)
}

impl Job<'_> {
    fn bad_objects(&self, area: Area) -> Vec<ObjectId> {
        self.found.boxes.bad.iter().filter(|(of, ..)| *of == area).map(|(_, id, _)| *id).collect()
    }

    /// Moves what can be had out of damaged packs, and indexes it.
    fn salvage(&self, report: &mut RepairReport) -> Result<Moved> {
        let (repository, found) = (self.repository, &self.found);
        let reader = BlobReader::new(repository.clone(), found.index.clone());
        let mut salvage = Salvage::new(repository, &reader, !self.options.dry_run);
        let mut scratch = Scratch::new(3).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        for (id, tables) in &found.bad_packs {
            self.context.check_stop()?;
            let bytes = repository.read_what_is_left(id)?;
            for table in tables {
                let Some(domain) = repository.keyring().domain(&table.domain) else { continue };
                // What a whole pack has too stays there.
                let wanted = |id: &BlobId| !found.has(&table.domain, table.kind, id);
                report.moved_blobs += salvage.take(&domain, table, &bytes, wanted, &mut scratch)?;
            }
        }
        let (packs, moved) = salvage.finish()?;
        if !self.options.dry_run {
            let ids: Vec<ObjectId> = packs.iter().map(|pack| pack.id).collect();
            repository.put_index(packs, &[])?;
            repository.require_safe(&ids)?;
        }
        Ok(moved)
    }

    /// Snapshots and records that are none: a record says that they went, so that the chain has no gap.
    fn mend_chain(&self, report: &mut RepairReport) -> Result<()> {
        let repository = self.repository;
        let set = repository.snapshots()?;
        let (bad_snapshots, bad_records) =
            (self.bad_objects(Area::Snapshots), self.bad_objects(Area::Records));
        let bad_members: BTreeMap<ObjectId, HashSet<ObjectId>> = self
            .found
            .boxes
            .bad_members
            .iter()
            .map(|(bundle, members)| (*bundle, members.iter().map(|(id, _)| *id).collect()))
            .collect();
        let mut forgotten: HashSet<ObjectId> = HashSet::new();
        for (_, record) in repository.records()?.0 {
            forgotten.extend(record.forgotten().unwrap_or_default());
        }
        let mut gone: BTreeSet<ObjectId> = bad_snapshots.iter().chain(&bad_records).copied().collect();
        gone.extend(bad_members.values().flatten());
        let there: HashSet<ObjectId> =
            set.snapshots.iter().map(|snapshot| snapshot.id).filter(|id| !gone.contains(id)).collect();
        for snapshot in set.snapshots.iter().filter(|snapshot| there.contains(&snapshot.id)) {
            let Some(previous) = snapshot.envelope.previous else { continue };
            if there.contains(&previous) || forgotten.contains(&previous) || !gone.insert(previous) {
                continue;
            }
            let why = format!("the snapshot {} names it as the one before, and it is nowhere", snapshot.id);
            let name = object_name(Area::Snapshots, &previous);
            let finding = Finding::new(FindingCode::Missing, name.as_str(), why);
            let does = "a record says that it is gone".to_owned();
            report.actions.push(Action { ill: Ill::LostSnapshot, finding, does });
        }
        if self.options.dry_run {
            return Ok(());
        }
        let gone: Vec<ObjectId> = gone.into_iter().filter(|id| !forgotten.contains(id)).collect();
        repository.record_forgotten(&gone, self.options.now)?;
        for (bundle, members) in &bad_members {
            repository.trim_bundle(bundle, members)?;
        }
        self.delete_bad(Area::Snapshots, &bad_snapshots)?;
        self.delete_bad(Area::Records, &bad_records)
    }

    /// Writes snapshots anew of which something is lost: of those that were there before packs were listed, since what later
    /// ones need is not known.
    fn mend_snapshots(&mut self, moved: &Moved, report: &mut RepairReport) -> Result<()> {
        let (set, overlays) = self.repository.snapshots_with_overlays()?;
        let known = &self.found.boxes.snapshots;
        let all = set.snapshots.into_iter().filter(|snapshot| known.contains(&snapshot.id)).collect();
        let (snapshots, leftovers) = snapshots_to_rewrite(all, &overlays);
        tell_risen(&leftovers, report);
        let lost_trees = Mutex::default();
        let mut losses = RepairReport::default();
        let mut ill = self.find_lost(moved, &snapshots, &lost_trees, &mut losses)?;
        if !ill.is_empty() && self.take_reserve(report)? {
            losses = RepairReport::default();
            lock(&lost_trees).clear();
            ill = self.find_lost(moved, &snapshots, &lost_trees, &mut losses)?;
        }
        report.actions.append(&mut losses.actions);
        (report.lost, report.lost_count) = (losses.lost, losses.lost_count);
        // What is unknown since the cache is damaged is not lost, nor is what a prune has moved.
        self.found.index.check()?;
        self.found.require_undisturbed(self.repository)?;
        if self.options.dry_run {
            report.rewritten = ill.iter().map(|snapshot| (snapshot.id, snapshot.id)).collect();
            return Ok(());
        }
        if ill.is_empty() {
            return Ok(self.repository.delete_snapshots(&leftovers.forgotten)?);
        }
        let request = Request {
            snapshots: ill,
            dropped: Vec::new(),
            leftovers: &leftovers,
            overlays: &overlays,
            reason: "repaired: what is lost became holes",
            now: self.options.now,
            cache: self.cache,
        };
        let lost_trees = lost_trees.into_inner().unwrap_or_else(PoisonError::into_inner);
        let decide = |domain: &str| self.mend(moved, domain, LostTrees::Known(&lost_trees));
        report.rewritten = replace_all(self.repository, &request, decide, change, self.context)?;
        Ok(())
    }

    /// What is lost may lie in packs that wait for their deletion: these are named again. False if there are none.
    fn take_reserve(&mut self, report: &mut RepairReport) -> Result<bool> {
        let packs = std::mem::take(&mut self.found.reserve);
        if packs.is_empty() {
            return Ok(false);
        }
        let index = Arc::get_mut(&mut self.found.index).expect("nobody else reads now");
        packs.iter().for_each(|pack| index.insert(pack));
        report.actions.extend(packs.iter().map(Action::unindexed));
        if !self.options.dry_run {
            self.repository.put_index(packs, &[])?;
        }
        Ok(true)
    }

    fn mend<'b>(&'b self, moved: &'b Moved, domain: &str, lost: LostTrees<'b>) -> Mend<'b> {
        Mend { found: &self.found, moved, domain: domain.to_owned(), lost }
    }

    /// Walks all snapshots. Returns those of which something is lost.
    fn find_lost<'s>(
        &self,
        moved: &Moved,
        snapshots: &'s [Snapshot],
        lost_trees: &Mutex<Moved>,
        report: &mut RepairReport,
    ) -> Result<Vec<&'s Snapshot>> {
        let (repository, context) = (self.repository, self.context);
        context.progress.begin(Phase::Checking, snapshots.len() as u64, 0);
        let reader = BlobReader::new(repository.clone(), self.found.index.clone());
        let mut domains: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
        for snapshot in snapshots {
            domains.entry(&snapshot.envelope.domain).or_default().push(snapshot);
        }
        let mut ill = Vec::new();
        for (name, snapshots) in domains {
            let domain = repository.domain_of(snapshots[0])?;
            let mend = self.mend(moved, name, LostTrees::Note(lost_trees));
            let mut rewriter = Rewriter::new(&reader, &domain, None, mend, context)?;
            for snapshot in snapshots {
                let body = repository.open_body(snapshot)?;
                let new = rewriter.tree(body.root)?;
                context.progress.add(1, 0);
                if new.root != body.root {
                    tell_lost(snapshot, &new, report);
                    ill.push(snapshot);
                }
            }
        }
        Ok(ill)
    }

    /// What nothing needs any more: index, packs, marks (F26).
    fn delete(&self, marks: &[ObjectId]) -> Result<()> {
        let (repository, found) = (self.repository, &self.found);
        self.rewrite_index()?;
        let bad: Vec<ObjectId> = found.bad_packs.keys().copied().collect();
        self.delete_bad(Area::Packs, &bad)?;
        self.delete_bad(Area::Marks, &self.bad_objects(Area::Marks))?;
        Ok(repository.withdraw_marks(marks, self.options.now)?)
    }

    /// Index objects that say something that is not so are replaced by others without that; unreadable ones go.
    fn rewrite_index(&self) -> Result<()> {
        let (repository, found) = (self.repository, &self.found);
        let old: Vec<ObjectId> = found.false_index.iter().chain(&found.bad_index).copied().collect();
        let mut packs = Vec::new();
        for id in &found.false_index {
            let name = object_name(Area::Index, id);
            let bytes = match repository.backend().get(&name) {
                Ok(bytes) => bytes,
                // A prune replaced it meanwhile.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(RepoError::from(error).into()),
            };
            packs.extend(found.true_claims(repository.parse_index(id, &bytes)?.packs));
        }
        packs.sort_by_key(|pack| pack.id);
        packs.dedup();
        repository.put_index(packs, &old)?;
        let false_ones: Vec<ObjectId> = found.false_index.iter().copied().collect();
        repository.delete_objects(Area::Index, &false_ones)?;
        self.delete_bad(Area::Index, &found.bad_index)
    }

    /// What somebody has made whole meanwhile stays.
    fn delete_bad(&self, area: Area, ids: &[ObjectId]) -> Result<()> {
        let (torn, others): (Vec<ObjectId>, Vec<ObjectId>) =
            ids.iter().partition(|id| self.found.boxes.torn.contains(id));
        self.repository.delete_torn(area, &torn)?;
        Ok(self.repository.delete_objects(area, &others)?)
    }
}

fn tell_risen(leftovers: &Leftovers, report: &mut RepairReport) {
    for id in &leftovers.forgotten {
        let why =
            "a record forgot it, and it is there: its deletion was interrupted, or somebody put it back";
        let finding = Finding::new(FindingCode::Forged, object_name(Area::Snapshots, id).as_str(), why);
        report.actions.push(Action { ill: Ill::RisenSnapshot, finding, does: "removed".into() });
    }
}

fn tell_lost(snapshot: &Snapshot, new: &Rewritten, report: &mut RepairReport) {
    let room = LOST_LISTED.saturating_sub(report.lost.len());
    let listed = new.notes.list.iter().take(room);
    report.lost.extend(listed.map(|(path, missing)| Lost {
        snapshot: snapshot.id,
        path: path.clone(),
        missing: missing.clone(),
    }));
    report.lost_count = report.lost_count.saturating_add(new.notes.count);
    let why = format!("it needs data that is nowhere, for {} of its files and directories", new.notes.count);
    let name = object_name(Area::Snapshots, &snapshot.id);
    let mut finding = Finding::new(FindingCode::Dangling, name.as_str(), why);
    finding.snapshots.push(snapshot.id);
    finding.paths = new.notes.list.iter().take(100).map(|(path, _)| path.clone()).collect();
    let does = format!("written anew with holes, each marked by an attribute; tagged `{REPAIRED}`");
    report.actions.push(Action { ill: Ill::LostBlobs, finding, does });
}

fn change<'a>(old: &'a Snapshot, body: Body, new: &Rewritten) -> Option<Change<'a>> {
    if new.root == body.root {
        return None;
    }
    let mut tags = old.envelope.tags.clone();
    if !tags.iter().any(|tag| tag == REPAIRED) {
        tags.push(REPAIRED.to_owned());
    }
    let summary = old.envelope.summary;
    Some(Change { old, root: new.root, paths: body.paths, details: body.details, tags, summary })
}

/// Blobs that more than one whole pack holds.
fn duplicates(found: &Diagnosis) -> u64 {
    let index = &found.index;
    let domains = index.domains();
    let double = |domain: &str, id: &BlobId| {
        let places = index.locate_all(domain, id);
        let packs: BTreeSet<ObjectId> =
            places.iter().map(|place| place.pack_id).filter(|pack| found.truth.contains_key(pack)).collect();
        packs.len() > 1
    };
    domains.iter().map(|domain| index.iter(domain).filter(|(id, _)| double(domain, id)).count() as u64).sum()
}
