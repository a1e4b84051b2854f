//! New snapshots in the place of old ones, in an order that loses nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use snap_format::{BlobId, Body, Details, ObjectId, Replacement, Summary, Time};
use snap_repo::{
    BlobReader, Cache, Index, NewSnapshot, Overlays, RepoError, Repository, Snapshot, Writer, WriterOptions,
};

use super::{Decide, Rewriter, Rewritten};
use crate::{Context, Result};

/// Which snapshots are written anew, and why.
#[derive(Debug)]
pub struct Request<'a> {
    /// They, with the tags that they have now.
    pub snapshots: Vec<&'a Snapshot>,
    /// Snapshots that go without another in their place.
    pub dropped: Vec<ObjectId>,
    /// What earlier runs left.
    pub leftovers: &'a Leftovers,
    /// What records say of them.
    pub overlays: &'a Overlays,
    /// For the `replace` record.
    pub reason: &'a str,
    /// The time, for records.
    pub now: Time,
    /// The local cache.
    pub cache: Option<&'a Cache>,
}

/// Writes snapshots anew, domain by domain, then forgets the old ones. `change` says what is new about a snapshot, or nothing
/// if it stays. Killed anywhere, nothing is lost, and the same again finishes it. Returns ids, old and new. Owners only.
pub fn replace_all<'a, D: Decide>(
    repository: &Repository,
    request: &Request<'a>,
    decide: impl Fn(&str) -> D,
    change: impl FnMut(&'a Snapshot, Body, &Rewritten) -> Option<Change<'a>>,
    context: Context<'_>,
) -> Result<Vec<(ObjectId, ObjectId)>> {
    let replaced = write_all(repository, request, decide, change, context)?;
    forget_old(repository, request, &replaced)?;
    Ok(replaced)
}

/// The first half of [`replace_all`]: old and new ones are there when this returns.
pub fn write_all<'a, D: Decide>(
    repository: &Repository,
    request: &Request<'a>,
    decide: impl Fn(&str) -> D,
    mut change: impl FnMut(&'a Snapshot, Body, &Rewritten) -> Option<Change<'a>>,
    context: Context<'_>,
) -> Result<Vec<(ObjectId, ObjectId)>> {
    repository.keyring().require_owner("writing snapshots anew")?;
    request.overlays.require_complete()?;
    let mut domains: BTreeMap<&str, Vec<&'a Snapshot>> = BTreeMap::new();
    for snapshot in &request.snapshots {
        domains.entry(&snapshot.envelope.domain).or_default().push(snapshot);
    }
    let mut replaced = Vec::new();
    for (name, snapshots) in domains {
        let (index, _) = Index::load(repository, request.cache)?;
        let options = WriterOptions { domain: Some(name.to_owned()), ..WriterOptions::default() };
        let writer = Writer::begin(repository, index, request.cache, options)?;
        let reader = BlobReader::new(repository.clone(), Arc::clone(writer.index()));
        let mut changes = Vec::new();
        let domain = writer.domain().clone();
        let mut rewriter = Rewriter::new(&reader, &domain, Some(&writer), decide(name), context)?;
        for snapshot in snapshots {
            let body = repository.open_body(snapshot)?;
            let rewritten = rewriter.tree(body.root)?;
            changes.extend(change(snapshot, body, &rewritten));
        }
        drop(rewriter);
        let new = match changes.is_empty() {
            true => Vec::new(),
            false => commit(writer, &changes, request.overlays, request.reason, request.now)?,
        };
        replaced.extend(changes.iter().map(|change| change.old.id).zip(new));
    }
    Ok(replaced)
}

/// The other half: the old ones go, those that are dropped, and what earlier runs left. None of the new ones in `replaced` does.
pub fn forget_old(
    repository: &Repository,
    request: &Request<'_>,
    replaced: &[(ObjectId, ObjectId)],
) -> Result<()> {
    let gone = replaced.iter().map(|(old, _)| *old).chain(request.dropped.iter().copied());
    let stays: HashSet<ObjectId> = replaced.iter().map(|(_, new)| *new).collect();
    let gone = gone.flat_map(|old| request.leftovers.with(old)).filter(|id| !stays.contains(id));
    let gone: Vec<ObjectId> = gone.collect();
    Ok(repository.forget(&gone, &request.leftovers.forgotten, request.now)?)
}

/// A snapshot, and what is new about the one in its place.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The old one, with the tags that it has now.
    pub old: &'a Snapshot,
    /// Its new root.
    pub root: BlobId,
    /// Its source paths.
    pub paths: Vec<Vec<u8>>,
    /// What is known of a database.
    pub details: Option<Details>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its counters.
    pub summary: Summary,
}

/// Puts snapshots in the place of others, and gives them their pins. The `replace` record comes first, so that whatever an
/// interruption leaves is known ([`snapshots_to_rewrite`]). The old ones are still there when this returns.
fn commit(
    writer: Writer,
    changes: &[Change<'_>],
    overlays: &Overlays,
    reason: &str,
    now: Time,
) -> Result<Vec<ObjectId>> {
    let repository = writer.repository().clone();
    let flushed = writer.finish()?;
    let new = changes.iter().map(|change| {
        let old = &change.old.envelope;
        let new = NewSnapshot {
            time: old.time,
            dataset: old.dataset.clone(),
            host: old.host.clone(),
            previous: old.previous,
            tags: change.tags.clone(),
            label: old.label.clone(),
            summary: change.summary,
            root: change.root,
            paths: change.paths.clone(),
            details: change.details.clone(),
        };
        (new, old)
    });
    let ids = flushed.commit_replacements(new.collect(), |ids| {
        let pairs: Vec<(&Snapshot, ObjectId)> =
            changes.iter().map(|change| change.old).zip(ids.iter().copied()).collect();
        announce(&repository, &pairs, overlays, reason, now)
    })?;
    Ok(ids)
}

/// Says of snapshots that these will stand in their place, and gives them their pins.
pub(crate) fn announce(
    repository: &Repository,
    pairs: &[(&Snapshot, ObjectId)],
    overlays: &Overlays,
    reason: &str,
    now: Time,
) -> Result<(), RepoError> {
    let replacements: Vec<Replacement> =
        pairs.iter().map(|(old, new)| replacement(old, *new, overlays)).collect();
    repository.put_replacements(&replacements, reason, now)?;
    for (old, new) in pairs {
        if let Some(pin) = overlays.pin(&old.id, now) {
            repository.pin(&[*new], pin, overlays.time_after(now))?;
        }
    }
    Ok(())
}

/// Of one that was itself a replacement, the record says what it said of the one at the beginning.
fn replacement(old: &Snapshot, new: ObjectId, overlays: &Overlays) -> Replacement {
    match overlays.replacement(&old.id) {
        Some(before) => Replacement { old: old.id, new, ..*before },
        None => {
            let stored_secs = old.stored.map(|stored| stored.unix_seconds);
            Replacement { old: old.id, new, slot: old.slot, stored_secs }
        }
    }
}

/// What earlier runs left that were interrupted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Snapshots that a record forgot.
    pub forgotten: Vec<ObjectId>,
    /// Replacements of snapshots that are still there, by these: they go when another one is there.
    replacements: HashMap<ObjectId, Vec<ObjectId>>,
}

impl Leftovers {
    /// All that is to be forgotten with `old`: it, and what an interrupted run put in its place.
    pub fn with(&self, old: ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        [old].into_iter().chain(self.replacements.get(&old).into_iter().flatten().copied())
    }
}

/// The snapshots that stand for themselves: not those that a record forgot, nor those that were put in the place of one that is
/// still there.
pub fn snapshots_to_rewrite(all: Vec<Snapshot>, overlays: &Overlays) -> (Vec<Snapshot>, Leftovers) {
    let mut left = Leftovers::default();
    let (forgotten, mut live): (Vec<Snapshot>, Vec<Snapshot>) =
        all.into_iter().partition(|snapshot| overlays.was_forgotten(&snapshot.id));
    left.forgotten = forgotten.iter().map(|snapshot| snapshot.id).collect();
    let there: HashSet<ObjectId> = live.iter().map(|snapshot| snapshot.id).collect();
    // At most as many steps as there are snapshots: what hostile records might say ends too.
    let beginning = |id: &ObjectId| {
        let before = |id: &ObjectId| {
            overlays.replacement(id).map(|pair| pair.old).filter(|old| there.contains(old) && old != id)
        };
        std::iter::successors(Some(*id), before).take(there.len()).last().unwrap_or(*id)
    };
    live.retain(|snapshot| {
        let old = beginning(&snapshot.id);
        let stands = old == snapshot.id;
        if !stands {
            left.replacements.entry(old).or_default().push(snapshot.id);
        }
        stands
    });
    (live, left)
}
