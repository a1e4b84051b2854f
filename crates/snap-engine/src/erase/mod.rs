//! Taking paths, or whole snapshots, out of a repository: a plan, shown, then carried out.
//!
//! Snapshots are written anew without what is erased, and the old ones forgotten; one of which nothing would be left goes.
//! What no snapshot needs any more is still there until it is pruned.

mod reach;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, Body, Node, ObjectId, Time};
use snap_repo::{BlobReader, Index, Overlays, RepoError, Repository, Snapshot};

use crate::rewrite::{
    Change, Decide, Leftovers, Request, Rewriter, Rewritten, Tally, TreeStore, Verdict, replace_all,
    snapshots_to_rewrite,
};
use crate::{Context, EngineError, Phase, Result};

/// What to erase, and how.
#[derive(Debug, Clone)]
pub struct EraseOptions {
    /// Absolute paths, raw bytes; without any, the snapshots as they are.
    pub paths: Vec<Vec<u8>>,
    /// Pinned snapshots too.
    pub pinned: bool,
    /// For the record.
    pub reason: String,
    /// The time, for records.
    pub now: Time,
}

/// A snapshot from which something is erased.
#[derive(Debug)]
pub struct Erased {
    /// It.
    pub snapshot: Snapshot,
    /// Nothing would be left of it: it goes.
    pub goes: bool,
    /// What is taken out.
    pub taken: Tally,
}

/// What will be erased. Nothing is done before [`ErasePlan::execute`].
#[derive(Debug)]
#[must_use]
pub struct ErasePlan {
    erased: Vec<Erased>,
    leftovers: Leftovers,
    overlays: Overlays,
    options: EraseOptions,
    freed_bytes: u64,
}

/// Drops paths; remembers which it met, and what it dropped.
struct Without<'a> {
    paths: &'a [Vec<u8>],
    met: &'a Mutex<BTreeSet<Vec<u8>>>,
    dropped: &'a Mutex<Vec<Node>>,
}

impl Decide for Without<'_> {
    fn by_path(&self) -> bool {
        true
    }

    fn concerns(&self, path: &[u8]) -> bool {
        is_above_any(path, self.paths)
    }

    fn node(&mut self, path: &[u8], node: &Node, _: &mut TreeStore<'_>) -> Result<Verdict> {
        if !self.paths.iter().any(|erased| erased == path) {
            return Ok(Verdict::Keep);
        }
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_vec());
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(node.clone());
        Ok(Verdict::Drop)
    }

    fn lost(&mut self, _: &BlobId, error: RepoError) -> Result<()> {
        Err(error.into())
    }
}

/// Whether `path` lies at or below `above`.
fn is_within(path: &[u8], above: &[u8]) -> bool {
    above == b"/" || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether one of `paths` lies below `path`, which is empty for the root.
fn is_above_any(path: &[u8], paths: &[Vec<u8>]) -> bool {
    paths.iter().any(|erased| erased != path && is_within(erased, path))
}

impl ErasePlan {
    /// Looks what there is to erase in those of `all`, every snapshot that there is, that `is_meant` names. Refused if a path is
    /// in none of them, if one of them is pinned and that was not reckoned with, or if a record cannot be read, which may be a
    /// pin. Owners only.
    pub fn new(
        repository: &Repository,
        all: Vec<Snapshot>,
        overlays: Overlays,
        is_meant: impl Fn(&Snapshot) -> bool,
        mut options: EraseOptions,
        context: Context<'_>,
    ) -> Result<Self> {
        repository.keyring().require_owner("erasing")?;
        overlays.require_complete()?;
        simplify(&mut options.paths);
        let (snapshots, leftovers) = snapshots_to_rewrite(all, &overlays);
        context.progress.begin(Phase::Scanning, snapshots.len() as u64, 0);
        let (index, _) = Index::load(repository, None)?;
        let reader = BlobReader::new(repository.clone(), Arc::new(index));
        let mut domains: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
        for snapshot in snapshots {
            domains.entry(snapshot.envelope.domain.clone()).or_default().push(snapshot);
        }
        let met = Mutex::new(BTreeSet::new());
        let (mut erased, mut freed_bytes) = (Vec::new(), 0);
        for snapshots in domains.into_values() {
            let domain = repository.domain_of(&snapshots[0])?;
            let dropped = Mutex::new(Vec::new());
            let without = Without { paths: &options.paths, met: &met, dropped: &dropped };
            let mut rewriter = Rewriter::new(&reader, &domain, None, without, context)?;
            let (mut gone_roots, mut stay) = (Vec::new(), Vec::new());
            for snapshot in snapshots {
                let body = repository.open_body(&snapshot)?;
                context.progress.add(1, 0);
                if !is_meant(&snapshot) {
                    stay.push((body.root, false));
                    continue;
                }
                let summary = snapshot.envelope.summary;
                if nothing_is_left(&body, &options.paths) {
                    let sources = body.paths.iter();
                    let is_met = |path: &&Vec<u8>| sources.clone().any(|source| is_within(source, path));
                    let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
                    met.extend(options.paths.iter().filter(is_met).cloned());
                    gone_roots.push(body.root);
                    let taken = Tally {
                        files: summary.files,
                        dirs: summary.dirs,
                        others: summary.others,
                        source_bytes: summary.source_bytes,
                    };
                    erased.push(Erased { snapshot, goes: true, taken });
                    continue;
                }
                let new = rewriter.tree(body.root)?;
                stay.push((body.root, new.root != body.root));
                if new.root != body.root {
                    erased.push(Erased { snapshot, goes: false, taken: new.dropped });
                }
            }
            drop(rewriter);
            let dropped = dropped.into_inner().unwrap_or_else(PoisonError::into_inner);
            freed_bytes +=
                reach::freed(&reader, &domain, &gone_roots, &dropped, &stay, &options.paths, context)?;
        }
        let met = met.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = options.paths.iter().find(|path| !met.contains(*path)) {
            let path = String::from_utf8_lossy(path);
            return Err(EngineError::NoSnapshot(format!("{path} is in no snapshot that is meant")));
        }
        if erased.is_empty() {
            return Err(EngineError::NoSnapshot("there is no snapshot that fits".into()));
        }
        erased.sort_by_key(|erased| (erased.snapshot.envelope.time, erased.snapshot.id));
        let is_pinned = |erased: &&Erased| overlays.pin(&erased.snapshot.id, options.now).is_some();
        if let Some(pinned) = erased.iter().find(is_pinned).filter(|_| !options.pinned) {
            let id = &pinned.snapshot.id.to_hex()[..12];
            let message = format!("the snapshot {id} is pinned: --pinned erases from it nevertheless");
            return Err(EngineError::Pinned(message));
        }
        Ok(Self { erased, leftovers, overlays, options, freed_bytes })
    }

    /// The snapshots from which something is erased, oldest first.
    pub fn erased(&self) -> &[Erased] {
        &self.erased
    }

    /// About what no snapshot will need any more: stored bytes that a prune frees.
    pub const fn freed_bytes(&self) -> u64 {
        self.freed_bytes
    }

    /// Writes the snapshots anew, then forgets the old ones. Returns ids, old and new. Killed anywhere, nothing is lost, and
    /// the same again finishes it.
    pub fn execute(self, repository: &Repository, context: Context<'_>) -> Result<Vec<(ObjectId, ObjectId)>> {
        let Self { erased, leftovers, overlays, options, .. } = self;
        let (met, dropped) = (Mutex::default(), Mutex::default());
        let taken: HashMap<ObjectId, bool> =
            erased.iter().map(|erased| (erased.snapshot.id, erased.goes)).collect();
        let rewritten = erased.iter().filter(|erased| !erased.goes).map(|erased| &erased.snapshot);
        let request = Request {
            snapshots: rewritten.collect(),
            dropped: taken.iter().filter(|(_, goes)| **goes).map(|(id, _)| *id).collect(),
            leftovers: &leftovers,
            overlays: &overlays,
            reason: &options.reason,
            now: options.now,
        };
        let paths = &options.paths;
        let decide = |_: &str| Without { paths, met: &met, dropped: &dropped };
        replace_all(repository, &request, decide, |old, body, new| change(old, body, new, paths), context)
    }
}

fn change<'a>(old: &'a Snapshot, body: Body, new: &Rewritten, erased: &[Vec<u8>]) -> Option<Change<'a>> {
    if new.root == body.root {
        return None;
    }
    let mut paths = body.paths;
    paths.retain(|path| !erased.iter().any(|erased| is_within(path, erased)));
    let summary = new.dropped.taken_from(&old.envelope.summary);
    Some(Change { old, root: new.root, paths, tags: old.envelope.tags.clone(), summary })
}

/// Whether a snapshot goes as a whole: no path is given, or all its sources lie within those that are.
fn nothing_is_left(body: &Body, paths: &[Vec<u8>]) -> bool {
    let is_erased = |source: &Vec<u8>| paths.iter().any(|path| is_within(source, path));
    let no_source = !body.paths.is_empty() && body.paths.iter().all(is_erased);
    paths.is_empty() || paths.iter().any(|path| path == b"/") || no_source
}

/// Leaves out paths that lie within others.
fn simplify(paths: &mut Vec<Vec<u8>>) {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && is_within(path, other)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_what_is_within_them() {
        assert!(is_within(b"/a/b", b"/a") && is_within(b"/a", b"/a") && is_within(b"/a", b"/"));
        assert!(!is_within(b"/ab", b"/a") && !is_within(b"/a", b"/a/b"));
        let erased = [b"/srv/app".to_vec()];
        assert!(is_above_any(b"", &erased) && is_above_any(b"/srv", &erased));
        assert!(!is_above_any(b"/srv/app", &erased) && !is_above_any(b"/sr", &erased));
        let mut paths = [&b"/b"[..], b"/a/x", b"/a", b"/b", b"/ab"].map(<[u8]>::to_vec).to_vec();
        simplify(&mut paths);
        assert_eq!(paths, [&b"/a"[..], b"/ab", b"/b"]);
    }
}
