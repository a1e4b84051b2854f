//! Doing it, in an order in which the same again finishes what was interrupted: as long as an old snapshot is there, it is
//! known what is to be erased.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use snap_format::{BlobId, Body, ObjectId};
use snap_repo::repair::Salvage;
use snap_repo::{BlobReader, Cache, Finding, Index, RepoError, Repository, Scratch, Snapshot};

use super::{ErasePlan, Erased, Without, is_within};
use crate::rewrite::{Change, Request, Rewritten, announce, forget_old, write_all};
use crate::{Context, CopyOptions, EngineError, Phase, Result, copy_snapshots};

/// What came of erasing.
#[derive(Debug, Default)]
pub struct Erasure {
    /// Snapshots that others stand in place of: ids, old and new.
    pub replaced: Vec<(ObjectId, ObjectId)>,
    /// Packs that hold what was erased and nothing else that is needed. They are marked: prunes delete them.
    pub packs: Vec<ObjectId>,
    /// Packs that hold it too, and are damaged: nothing could be moved out of them.
    pub damaged: Vec<Finding>,
}

impl ErasePlan {
    /// Writes the snapshots anew, empties the packs that hold what is erased, then forgets the old snapshots. Where a copy
    /// of the repository has put the same in the place of a snapshot already, that is taken over: `copies` are those that
    /// were done before. Killed anywhere, nothing is lost, and the same again finishes it.
    pub fn execute(
        self,
        repository: &Repository,
        cache: Option<&Cache>,
        copies: &[&Repository],
        context: Context<'_>,
    ) -> Result<Erasure> {
        let mut replaced = Vec::new();
        for copy in copies {
            let open: Vec<&Erased> = self.open(&replaced).collect();
            if !open.is_empty() {
                replaced.extend(self.take_over(&open, copy, repository, cache, context)?);
            }
        }
        let goes = self.erased.iter().filter(|erased| erased.goes).map(|erased| erased.snapshot.id);
        let request = Request {
            snapshots: self.open(&replaced).map(|erased| &erased.snapshot).collect(),
            dropped: goes.collect(),
            leftovers: &self.leftovers,
            overlays: &self.overlays,
            reason: &self.options.reason,
            now: self.options.now,
            cache,
        };
        let paths = &self.options.paths;
        let (met, dropped) = (Mutex::default(), Mutex::default());
        let decide = |_: &str| Without { paths, met: &met, dropped: &dropped };
        let change = |old, body, new: &Rewritten| change(old, body, new, paths);
        let written = write_all(repository, &request, decide, change, context)?;
        let (packs, damaged) = self.empty_packs(repository, cache, context)?;
        replaced.extend(written);
        forget_old(repository, &request, &replaced)?;
        Ok(Erasure { replaced, packs, damaged })
    }

    /// The snapshots that are still to be written anew.
    fn open(&self, replaced: &[(ObjectId, ObjectId)]) -> impl Iterator<Item = &Erased> {
        let done: HashSet<ObjectId> = replaced.iter().map(|(old, _)| *old).collect();
        self.erased.iter().filter(move |erased| !erased.goes && !done.contains(&erased.snapshot.id))
    }

    /// Brings here what a copy has put in the place of these snapshots, where that holds the same. Returns ids, old and new.
    fn take_over(
        &self,
        open: &[&Erased],
        copy: &Repository,
        repository: &Repository,
        cache: Option<&Cache>,
        context: Context<'_>,
    ) -> Result<Vec<(ObjectId, ObjectId)>> {
        let (set, overlays) = copy.snapshots_with_overlays()?;
        let mut replacements: HashMap<ObjectId, Vec<&Snapshot>> = HashMap::new();
        for snapshot in &set.snapshots {
            if let Some(pair) = overlays.replacement(&snapshot.id) {
                replacements.entry(pair.old).or_default().push(snapshot);
            }
        }
        let is_same = |erased: &Erased, new: &Snapshot| -> Result<bool, RepoError> {
            let domains = [&erased.snapshot, new].map(|snapshot| &snapshot.envelope.domain);
            Ok(domains[0] == domains[1] && Some(copy.open_body(new)?.root) == erased.root)
        };
        let mut pairs = Vec::new();
        for erased in open {
            for new in replacements.get(&erased.snapshot.id).into_iter().flatten() {
                if is_same(erased, new)? {
                    pairs.push((&erased.snapshot, new.id));
                    break;
                }
            }
        }
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        announce(repository, &pairs, &self.overlays, &self.options.reason, self.options.now)?;
        let only = Some(pairs.iter().map(|(_, new)| *new).collect());
        let options = CopyOptions { only, ..CopyOptions::new(self.options.now) };
        copy_snapshots(copy, repository, cache, &options, context)?;
        let there: HashSet<ObjectId> =
            repository.snapshots()?.snapshots.iter().map(|snapshot| snapshot.id).collect();
        pairs.retain(|(_, new)| there.contains(new));
        Ok(pairs.into_iter().map(|(old, new)| (old.id, new)).collect())
    }

    /// Moves all else out of the packs that hold what is erased, and marks them. What of it is needed after all, since a
    /// backup has stored it again meanwhile, the prune that deletes them moves. Returns them, and what is wrong with those
    /// that could not be read.
    fn empty_packs(
        &self,
        repository: &Repository,
        cache: Option<&Cache>,
        context: Context<'_>,
    ) -> Result<(Vec<ObjectId>, Vec<Finding>)> {
        let (index, _) = Index::load(repository, cache)?;
        let mut packs: BTreeMap<ObjectId, (&str, u64)> = BTreeMap::new();
        for (domain, ids) in &self.unneeded {
            for place in ids.iter().flat_map(|id| index.locate_all(domain, id)) {
                packs.insert(place.pack_id, (domain, place.pack_size));
            }
        }
        index.check()?;
        let bytes = packs.values().map(|(_, size)| size).sum();
        context.progress.begin(Phase::Storing, packs.len() as u64, bytes);
        let reader = BlobReader::new(repository.clone(), Arc::new(index));
        let mut salvage = Salvage::new(repository, &reader, true);
        let mut scratch = Scratch::new(3).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        let (mut emptied, mut damaged) = (Vec::new(), Vec::new());
        for (pack, (name, size)) in &packs {
            context.check_stop()?;
            let Some(domain) = repository.keyring().domain(name) else { continue };
            let wanted = |id: &BlobId| !self.unneeded[*name].contains(id);
            match salvage.empty(&domain, pack, wanted, &mut scratch) {
                Ok(_) => emptied.push(*pack),
                // A prune took it.
                Err(RepoError::Backend(error)) if error.is_not_found() => {}
                Err(error) => damaged.push(error.into_finding()?),
            }
            context.progress.add(1, *size);
        }
        let (stored, _) = salvage.finish()?;
        let new: Vec<ObjectId> = stored.iter().map(|pack| pack.id).collect();
        repository.put_index(stored, &[])?;
        repository.require_safe(&new)?;
        repository.mark_packs(&emptied, self.options.now)?;
        Ok((emptied, damaged))
    }
}

fn change<'a>(old: &'a Snapshot, body: Body, new: &Rewritten, erased: &[Vec<u8>]) -> Option<Change<'a>> {
    if new.root == body.root {
        return None;
    }
    let mut paths = body.paths;
    paths.retain(|path| !erased.iter().any(|erased| is_within(path, erased)));
    let summary = new.dropped.taken_from(&old.envelope.summary);
    let (tags, details) = (old.envelope.tags.clone(), body.details);
    Some(Change { old, root: new.root, paths, details, tags, summary })
}
