//! Bringing a copy up to date: the snapshots that another has and it lacks, with all that they need. Sealed units move as
//! they are; no plaintext is made of data.

pub(crate) mod walk;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, ObjectId, Role, Time};
use snap_repo::{
    Cache, DomainKeys, Epochs, Finding, FindingCode, Index, Overlays, RepoError, Repository, Snapshot,
    Writer, WriterOptions, for_each_parallel,
};

use self::walk::{Walk, all_of};
use crate::{Context, EngineError, Event, Phase, Result};

/// Packs that are in memory at the same time, besides those on their way, are of this length at most.
const PACK_BYTES: u64 = 20 << 20;
/// How often a prune of the target may get in the way.
const ATTEMPTS: usize = 3;

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The time of what is written.
    pub time: Time,
    /// Look only.
    pub dry_run: bool,
    /// These snapshots alone, and no records; without it all that the target lacks.
    pub only: Option<HashSet<ObjectId>>,
    /// Bring them back even if a record of the target cannot be read, which may have forgotten them.
    pub despite_records: bool,
    /// Packs of the target that are known to be damaged.
    pub distrust: HashSet<ObjectId>,
    /// Size at which a pack is finished, bytes.
    pub pack_target: usize,
}

impl CopyOptions {
    /// At this time, with packs as a backup makes them.
    pub fn new(time: Time) -> Self {
        let pack_target = WriterOptions::default().pack_target;
        Self {
            time,
            dry_run: false,
            only: None,
            despite_records: false,
            distrust: HashSet::new(),
            pack_target,
        }
    }
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Snapshots that the target has now and lacked before, oldest first.
    pub snapshots: Vec<ObjectId>,
    /// Snapshots that it still lacks: damaged in the source, or of another domain than the key may write in.
    pub left: Vec<ObjectId>,
    /// Packs that were stored.
    pub packs: u64,
    /// Bytes that were stored in packs and index; of a rehearsal, the bytes of the packs that would be read.
    pub stored_bytes: u64,
    /// Pins and tags that were copied.
    pub records: u64,
}

/// Brings what `source` has and `target` lacks, and has not forgotten itself, to `target`. Both are copies of one repository
/// with the same keys. May be killed at any time and run again.
pub fn copy_snapshots(
    source: &Repository,
    target: &Repository,
    cache: Option<&Cache>,
    options: &CopyOptions,
    context: Context<'_>,
) -> Result<CopyReport> {
    context.progress.begin(Phase::Opening, 0, 0);
    target.keyring().require_writer("copying")?;
    if target.compare_epochs(source)? == Epochs::Ahead {
        return Err(
            RepoError::Refused("the copy lacks keys that the other has: bring these first".into()).into()
        );
    }
    let mut missing = find_missing(source, target, cache, options, context)?;
    if let Some(only) = &options.only {
        missing.retain(|snapshot| only.contains(&snapshot.id));
    }
    let mut report = CopyReport::default();
    let source_index = match missing.is_empty() {
        true => Arc::default(),
        false => {
            let (index, findings) = Index::load(source, cache)?;
            findings.iter().for_each(|finding| context.observer.event(Event::Finding(finding)));
            Arc::new(index)
        }
    };
    let mut domains: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in &missing {
        domains.entry(&snapshot.envelope.domain).or_default().push(snapshot);
    }
    for (domain, snapshots) in domains {
        let Some(domain) = writable_domain(target, domain) else {
            report.left.extend(snapshots.iter().map(|snapshot| snapshot.id));
            continue;
        };
        let job = Job { source, target, cache, options, context, index: &source_index, domain };
        // A prune may take away what was relied on, and leave the snapshots without it: then they are copied again.
        let mut left = ATTEMPTS;
        loop {
            match job.run(&snapshots, &mut report) {
                Err(EngineError::Repo(RepoError::Overtaken)) if left > 1 => left -= 1,
                outcome => break outcome?,
            }
        }
    }
    if !options.dry_run && options.only.is_none() {
        report.records = source.bring_records(target)?;
    }
    Ok(report)
}

/// Writes down in `target` what it never had and others have forgotten, so that nobody misses it there. `others` are all
/// copies beside it: what one of them has is not noted, since it is to come, and nothing while one of them, or the target, cannot
/// say for certain what it has. Owners only. Returns how many these are.
pub fn note_forgotten(others: &[&Repository], target: &Repository, time: Time) -> Result<u64> {
    if target.keyring().role() != Role::Owner {
        return Ok(0);
    }
    let (mut there, mut forgotten) = (HashSet::new(), BTreeSet::new());
    for copy in others.iter().chain([&target]) {
        let (set, overlays) = (copy.snapshots()?, copy.overlays()?);
        if !set.findings.is_empty() || !overlays.unreadable.is_empty() {
            return Ok(0);
        }
        there.extend(set.snapshots.iter().map(|snapshot| snapshot.id));
        match copy.copy_id() == target.copy_id() {
            true => there.extend(overlays.ever_forgotten()),
            false => forgotten.extend(overlays.ever_forgotten().iter().copied()),
        }
    }
    forgotten.retain(|id| !there.contains(id));
    let forgotten: Vec<ObjectId> = forgotten.into_iter().collect();
    target.note_forgotten(&forgotten, time)?;
    Ok(forgotten.len() as u64)
}

/// Owners write in every domain what belongs there, others in their own.
fn writable_domain(target: &Repository, name: &str) -> Option<DomainKeys> {
    let keyring = target.keyring();
    let may = keyring.role() == Role::Owner || keyring.own_domain() == name;
    keyring.domain(name).filter(|_| may)
}

fn find_missing(
    source: &Repository,
    target: &Repository,
    cache: Option<&Cache>,
    options: &CopyOptions,
    context: Context<'_>,
) -> Result<Vec<Snapshot>> {
    let look = |repository: &Repository| -> Result<(Vec<Snapshot>, Overlays), RepoError> {
        // As they were made: tags are records of their own.
        let (set, overlays) = (repository.snapshots()?, repository.overlays()?);
        set.findings.iter().for_each(|finding| context.observer.event(Event::Finding(finding)));
        Ok((set.snapshots, overlays))
    };
    let ((there, there_said), (here, here_said)) = (look(target)?, look(source)?);
    // Unreadable, it may have said that one of them is to go.
    if !options.despite_records {
        there_said.require_complete()?;
    }
    let mut there: HashSet<ObjectId> = there.iter().map(|snapshot| snapshot.id).collect();
    // Put by a copy that did not come to its end: something may have been pruned from under them.
    for id in target.unsettled_snapshots(cache) {
        there.remove(&id);
    }
    let gone_there = there_said.ever_forgotten();
    let lacks = |id: &ObjectId| !there.contains(id) && !gone_there.contains(id);
    // Its deletion was interrupted.
    let gone_here = here_said.ever_forgotten();
    Ok(here.into_iter().filter(|it| lacks(&it.id) && !gone_here.contains(&it.id)).collect())
}

/// The snapshots of one domain.
struct Job<'a> {
    source: &'a Repository,
    target: &'a Repository,
    cache: Option<&'a Cache>,
    options: &'a CopyOptions,
    context: Context<'a>,
    index: &'a Arc<Index>,
    domain: DomainKeys,
}

impl Job<'_> {
    fn run(&self, snapshots: &[&Snapshot], report: &mut CopyReport) -> Result<()> {
        let writer = self.begin()?;
        self.context.progress.begin(Phase::Planning, 0, 0);
        let walk = Walk::new(self.source, self.index, &self.domain);
        let can_read = self.source.keyring().can_read();
        let mut rehearsed = BTreeSet::new();
        let mut is_whole = true;
        let mut take = |needed: &HashSet<BlobId>| -> Result<()> {
            match self.options.dry_run {
                true => rehearsed.append(&mut self.packs_of(needed, &writer, &HashSet::new())),
                false => is_whole &= self.move_all(needed, &writer)?,
            }
            Ok(())
        };
        let is_known = match can_read {
            true => walk.needed(snapshots, &writer, self.context, &mut take)?,
            false => all_of(self.index, &self.domain, &writer, self.context, &mut take).map(|()| true)?,
        };
        if self.options.dry_run {
            let bytes: u64 =
                rehearsed.iter().filter_map(|pack| self.index.pack(*pack)).map(|pack| pack.size).sum();
            report.packs += rehearsed.len() as u64;
            report.stored_bytes += bytes;
            report.snapshots.extend(snapshots.iter().map(|snapshot| snapshot.id));
            return Ok(());
        }
        let complete = match is_whole && is_known {
            true => snapshots.to_vec(),
            false if can_read => walk.complete(snapshots, &writer, self.context)?,
            false => Vec::new(),
        };
        let ids: HashSet<ObjectId> = complete.iter().map(|snapshot| snapshot.id).collect();
        self.context.progress.begin(Phase::Finishing, 0, 0);
        let flushed = writer.finish()?;
        let bytes = self.source.snapshot_bytes(&ids)?;
        // The oldest first.
        let all: Vec<_> = complete
            .iter()
            .filter_map(|snapshot| Some((snapshot.id, bytes.get(&snapshot.id)?.clone())))
            .collect();
        let stats = flushed.commit_sealed(&all)?;
        report.packs += stats.packs;
        report.stored_bytes += stats.stored_bytes;
        report.snapshots.extend(all.iter().map(|(id, _)| *id));
        let is_left = |id: &ObjectId| !all.iter().any(|(copied, _)| copied == id);
        report.left.extend(snapshots.iter().map(|snapshot| snapshot.id).filter(is_left));
        Ok(())
    }

    fn begin(&self) -> Result<Writer> {
        let (index, findings) = Index::load(self.target, self.cache)?;
        findings.iter().for_each(|finding| self.context.observer.event(Event::Finding(finding)));
        let (target, cache) = match self.options.dry_run {
            true => (self.target.rehearsal(), None),
            false => (self.target.clone(), self.cache),
        };
        let options = WriterOptions {
            pack_target: self.options.pack_target,
            domain: Some(self.domain.name.clone()),
            uploads: 1,
            distrust: self.options.distrust.clone(),
            ..WriterOptions::default()
        };
        Ok(Writer::begin(&target, index, cache, options)?)
    }

    /// Numbers of the packs in the source from which what the target still lacks is to be had, but for those that were tried.
    fn packs_of(&self, needed: &HashSet<BlobId>, writer: &Writer, tried: &HashSet<u32>) -> BTreeSet<u32> {
        let mut packs = BTreeSet::new();
        for id in needed.iter().filter(|id| !writer.knows(id)) {
            let places = self.index.locate_all(&self.domain.name, id);
            packs.extend(places.iter().map(|place| place.pack).find(|pack| !tried.contains(pack)));
        }
        packs
    }

    /// Moves what is needed. What is damaged in one place is taken from the next; false if something is in none.
    fn move_all(&self, needed: &HashSet<BlobId>, writer: &Writer) -> Result<bool> {
        let mut tried = HashSet::new();
        loop {
            let packs: Vec<u32> = self.packs_of(needed, writer, &tried).into_iter().collect();
            if packs.is_empty() {
                break;
            }
            self.move_packs(&packs, needed, writer)?;
            tried.extend(packs);
        }
        // What is not known because a cache is damaged is not lost.
        self.index.check()?;
        writer.index().check()?;
        let lost = needed.iter().filter(|id| !writer.knows(id)).count();
        if lost > 0 {
            let why = format!("blobs that snapshots need are in no pack that could be read: {lost}");
            let finding = Finding::new(FindingCode::Missing, "packs", why);
            self.context.observer.event(Event::Finding(&finding));
        }
        Ok(lost == 0)
    }

    fn move_packs(&self, packs: &[u32], needed: &HashSet<BlobId>, writer: &Writer) -> Result<()> {
        let context = self.context;
        let packs: Vec<_> = packs.iter().filter_map(|pack| self.index.pack(*pack)).collect();
        let bytes = packs.iter().map(|pack| pack.size).sum();
        context.progress.begin(Phase::Storing, packs.len() as u64, bytes);
        // Half of the memory for what was fetched, the rest for what is on its way.
        let at_once = (context.memory_bytes / 2 / PACK_BYTES).max(1) as usize;
        let threads = at_once.min(self.source.backend().parallelism()).max(1);
        let findings = Mutex::new(Vec::new());
        for_each_parallel(&packs, threads, |pack| {
            context.check_stop()?;
            match self.source.sealed_pack(&pack.id).map_err(RepoError::into_finding) {
                Ok(sealed) => {
                    writer.take_sealed(&sealed, |id| needed.contains(id))?;
                    context.progress.add(1, sealed.len());
                }
                Err(Ok(finding)) => findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding),
                Err(Err(error)) => return Err(error.into()),
            }
            Ok::<_, EngineError>(())
        })?;
        let findings: Vec<Finding> = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
        findings.iter().for_each(|finding| context.observer.event(Event::Finding(finding)));
        Ok(())
    }
}

/// The blobs of a directory's node or list, as far as they are data, and its trees.
fn children(tree: &snap_format::TreeBlob) -> (Vec<BlobId>, Vec<BlobId>) {
    use snap_format::{Content, TreeBlob};
    let (mut data, mut trees) = (Vec::new(), Vec::new());
    match tree {
        TreeBlob::Leaf(nodes) => {
            for node in nodes {
                trees.extend(node.tree());
                match node.content() {
                    Some(Content::Blobs(ids)) => data.extend(ids.iter().copied()),
                    Some(Content::Lists(lists)) => trees.extend(lists.iter().copied()),
                    None => {}
                }
            }
        }
        TreeBlob::Branch(entries) => trees.extend(entries.iter().map(|entry| entry.id)),
        TreeBlob::Content(ids) => data.extend(ids.iter().copied()),
    }
    (data, trees)
}
