//! Doing what is to be done, in an order that loses nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use snap_format::{BlobId, Body, ObjectId};
use snap_repo::repair::Salvage;
use snap_repo::{
    Area, BlobReader, Finding, FindingCode, Overlays, RepoError, Repository, Scratch, Snapshot, object_name,
};

use super::diagnose::Diagnosis;
use super::mend::Mend;
use super::{Action, Ill, Lost, REPAIRED, RepairOptions, RepairReport};
use crate::rewrite::{Change, Leftovers, Request, Rewriter, Rewritten, replace_all, snapshots_to_rewrite};
use crate::{Context, EngineError, Phase, Result};

/// Files that a report lists; of more the number is said.
const LOST_LISTED: usize = 100_000;

pub(super) fn carry_out(
    repository: &Repository,
    mut found: Diagnosis,
    options: &RepairOptions,
    context: Context<'_>,
) -> Result<RepairReport> {
    let mut report = RepairReport { newer: std::mem::take(&mut found.newer), ..RepairReport::default() };
    let writes = !options.dry_run;
    let moved = salvage(repository, &found, writes, &mut report, context)?;
    let mut marks = Vec::new();
    if writes {
        repository.put_index(found.spare.clone(), &[])?;
        // What of damaged packs is to be had lies elsewhere; no writer relies on the rest any more.
        let unusable: Vec<ObjectId> = found.bad_packs.keys().chain(&found.missing_packs).copied().collect();
        marks = repository.mark_packs(&unusable, options.now)?;
    }
    report.actions = std::mem::take(&mut found.actions);
    mend_chain(repository, &found, options, &mut report)?;
    mend_snapshots(repository, &found, &moved, options, &mut report, context)?;
    report.duplicates = duplicates(&found);
    if writes {
        context.check_stop()?;
        rewrite_index(repository, &found)?;
        let bad: Vec<ObjectId> = found.bad_packs.keys().copied().collect();
        repository.delete_objects(Area::Packs, &bad)?;
        let bad_marks = bad_objects(&found, Area::Marks);
        repository.delete_objects(Area::Marks, &[bad_marks, marks].concat())?;
        report.temporaries = repository.backend().sweep_stale_temporaries().map_err(RepoError::from)?;
    }
    report.actions.sort_by(|a, b| (a.ill, &a.finding).cmp(&(b.ill, &b.finding)));
    Ok(report)
}

fn bad_objects(found: &Diagnosis, area: Area) -> Vec<ObjectId> {
    found.boxes.bad.iter().filter(|(of, ..)| *of == area).map(|(_, id, _)| *id).collect()
}

/// Moves what can be had out of damaged packs, and indexes it.
fn salvage(
    repository: &Repository,
    found: &Diagnosis,
    writes: bool,
    report: &mut RepairReport,
    context: Context<'_>,
) -> Result<HashSet<(String, BlobId)>> {
    let reader = BlobReader::new(repository.clone(), found.index.clone());
    let mut salvage = Salvage::new(repository, &reader, writes);
    let mut scratch = Scratch::new(1).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
    let mut plain = Vec::new();
    for (id, tables) in &found.bad_packs {
        context.check_stop()?;
        let Ok(bytes) = repository.backend().get(&object_name(Area::Packs, id)) else { continue };
        for table in tables {
            let Some(domain) = repository.keyring().domain(&table.domain) else { continue };
            report.moved_blobs += salvage.take(&domain, table, &bytes, &mut scratch, &mut plain)?;
        }
    }
    let (packs, moved) = salvage.finish()?;
    if writes {
        repository.put_index(packs, &[])?;
    }
    Ok(moved)
}

/// Snapshots and records that are none: a record says that they went, so that the chain has no gap.
fn mend_chain(
    repository: &Repository,
    found: &Diagnosis,
    options: &RepairOptions,
    report: &mut RepairReport,
) -> Result<()> {
    let set = repository.snapshots()?;
    let (bad_snapshots, bad_records) =
        (bad_objects(found, Area::Snapshots), bad_objects(found, Area::Records));
    let bad_members: BTreeMap<ObjectId, HashSet<ObjectId>> = found
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
    if options.dry_run {
        return Ok(());
    }
    let gone: Vec<ObjectId> = gone.into_iter().filter(|id| !forgotten.contains(id)).collect();
    repository.record_forgotten(&gone, options.now)?;
    for (bundle, members) in &bad_members {
        repository.trim_bundle(bundle, members)?;
    }
    repository.delete_objects(Area::Snapshots, &bad_snapshots)?;
    Ok(repository.delete_objects(Area::Records, &bad_records)?)
}

/// Writes snapshots anew of which something is lost.
fn mend_snapshots(
    repository: &Repository,
    found: &Diagnosis,
    moved: &HashSet<(String, BlobId)>,
    options: &RepairOptions,
    report: &mut RepairReport,
    context: Context<'_>,
) -> Result<()> {
    let (set, overlays) = repository.snapshots_with_overlays()?;
    let unusable: HashSet<ObjectId> = found.boxes.bad_members.values().flatten().map(|(id, _)| *id).collect();
    let all = set.snapshots.into_iter().filter(|snapshot| !unusable.contains(&snapshot.id)).collect();
    let (snapshots, leftovers) = snapshots_to_rewrite(all, &overlays);
    tell_risen(&leftovers, report);
    let ill = find_lost(repository, found, moved, &snapshots, report, context)?;
    if options.dry_run {
        report.rewritten = ill.iter().map(|snapshot| (snapshot.id, snapshot.id)).collect();
        return Ok(());
    }
    rewrite(repository, found, moved, (ill, &leftovers, &overlays), options, report, context)
}

fn tell_risen(leftovers: &Leftovers, report: &mut RepairReport) {
    for id in &leftovers.forgotten {
        let why =
            "a record forgot it, and it is there: its deletion was interrupted, or somebody put it back";
        let finding = Finding::new(FindingCode::Forged, object_name(Area::Snapshots, id).as_str(), why);
        report.actions.push(Action { ill: Ill::RisenSnapshot, finding, does: "removed".into() });
    }
}

/// Walks all snapshots. Returns those of which something is lost.
fn find_lost<'s>(
    repository: &Repository,
    found: &Diagnosis,
    moved: &HashSet<(String, BlobId)>,
    snapshots: &'s [Snapshot],
    report: &mut RepairReport,
    context: Context<'_>,
) -> Result<Vec<&'s Snapshot>> {
    context.progress.begin(Phase::Checking, snapshots.len() as u64, 0);
    let reader = BlobReader::new(repository.clone(), found.index.clone());
    let mut domains: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        domains.entry(&snapshot.envelope.domain).or_default().push(snapshot);
    }
    let mut ill = Vec::new();
    for (name, snapshots) in domains {
        let domain = repository.domain_of(snapshots[0])?;
        let mend = Mend { found, moved, domain: name.to_owned() };
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

fn rewrite<'s>(
    repository: &Repository,
    found: &Diagnosis,
    moved: &HashSet<(String, BlobId)>,
    (ill, leftovers, overlays): (Vec<&'s Snapshot>, &Leftovers, &Overlays),
    options: &RepairOptions,
    report: &mut RepairReport,
    context: Context<'_>,
) -> Result<()> {
    if ill.is_empty() {
        return Ok(repository.delete_snapshots(&leftovers.forgotten)?);
    }
    let request = Request {
        snapshots: ill,
        dropped: Vec::new(),
        leftovers,
        overlays,
        reason: "repaired: what is lost became holes",
        now: options.now,
    };
    fn change<'a>(old: &'a Snapshot, body: Body, new: &Rewritten) -> Option<Change<'a>> {
        let mut tags = old.envelope.tags.clone();
        if !tags.iter().any(|tag| tag == REPAIRED) {
            tags.push(REPAIRED.to_owned());
        }
        let summary = old.envelope.summary;
        (new.root != body.root).then(|| Change { old, root: new.root, paths: body.paths, tags, summary })
    }
    let decide = |domain: &str| Mend { found, moved, domain: domain.to_owned() };
    report.rewritten = replace_all(repository, &request, decide, change, context)?;
    Ok(())
}

/// Index objects that say something that is not so are replaced by others without that; unreadable ones go.
fn rewrite_index(repository: &Repository, found: &Diagnosis) -> Result<()> {
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
    Ok(repository.delete_objects(Area::Index, &old)?)
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
