//! Taking paths, or whole snapshots, out of a repository: a plan, shown, then carried out.
//!
//! Snapshots are written anew without what is erased, and the old ones forgotten; one of which nothing would be left goes.
//! Then all else that lies in the packs that hold what was erased moves to new ones, out of groups too, and the old ones are
//! marked: the first prune after its grace deletes them.

mod carry_out;
mod reach;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use snap_format::{BlobId, Body, Node, Time};
use snap_repo::{BlobReader, Cache, Index, Overlays, RepoError, Repository, Snapshot};

use self::reach::TakenOut;
use crate::rewrite::{Decide, Leftovers, Rewriter, Tally, TreeStore, Verdict, snapshots_to_rewrite};
use crate::work::lock;
use crate::{Context, EngineError, Phase, Result};

pub use carry_out::Erasure;

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
    /// The root of the one in its place.
    root: Option<BlobId>,
}

/// What will be erased. Nothing is done before [`ErasePlan::execute`].
#[derive(Debug)]
#[must_use]
pub struct ErasePlan {
    erased: Vec<Erased>,
    met: BTreeSet<Vec<u8>>,
    leftovers: Leftovers,
    overlays: Overlays,
    options: EraseOptions,
    /// By domain, what nothing needs any more.
    unneeded: BTreeMap<String, HashSet<BlobId>>,
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
        lock(self.met).insert(path.to_vec());
        lock(self.dropped).push(node.clone());
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
    /// Looks what there is to erase in those of `all`, every snapshot that there is, that `is_meant` names. Refused if one of
    /// them is pinned and that was not reckoned with, or if a record cannot be read, which may be a pin. Owners only.
    pub fn new(
        repository: &Repository,
        cache: Option<&Cache>,
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
        let (index, _) = Index::load(repository, cache)?;
        let reader = BlobReader::new(repository.clone(), Arc::new(index));
        let mut domains: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
        for snapshot in snapshots {
            domains.entry(snapshot.envelope.domain.clone()).or_default().push(snapshot);
        }
        let met = Mutex::default();
        let (erased, unneeded, freed_bytes) = (Vec::new(), BTreeMap::new(), 0);
        let mut plan =
            Self { erased, met: BTreeSet::new(), leftovers, overlays, options, unneeded, freed_bytes };
        for (domain, snapshots) in domains {
            let unneeded = plan.look_at(&reader, snapshots, &is_meant, &met, context)?;
            plan.unneeded.insert(domain, unneeded);
        }
        reader.index().check()?;
        plan.met = met.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        plan.erased.sort_by_key(|erased| (erased.snapshot.envelope.time, erased.snapshot.id));
        let is_pinned = |erased: &&Erased| plan.overlays.pin(&erased.snapshot.id, plan.options.now).is_some();
        if let Some(pinned) = plan.erased.iter().find(is_pinned).filter(|_| !plan.options.pinned) {
            let id = &pinned.snapshot.id.to_hex()[..12];
            let message = format!("the snapshot {id} is pinned: --pinned erases from it nevertheless");
            return Err(EngineError::Pinned(message));
        }
        Ok(plan)
    }

    /// Looks at all snapshots of one domain. Returns what nothing needs then.
    fn look_at(
        &mut self,
        reader: &BlobReader,
        snapshots: Vec<Snapshot>,
        is_meant: &impl Fn(&Snapshot) -> bool,
        met: &Mutex<BTreeSet<Vec<u8>>>,
        context: Context<'_>,
    ) -> Result<HashSet<BlobId>> {
        let (repository, paths) = (reader.repository(), &self.options.paths);
        let domain = repository.domain_of(&snapshots[0])?;
        let dropped = Mutex::default();
        let without = Without { paths, met, dropped: &dropped };
        let mut rewriter = Rewriter::new(reader, &domain, None, without, context)?;
        let (mut taken_out, mut stay) = (TakenOut::default(), Vec::new());
        for snapshot in snapshots {
            let body = repository.open_body(&snapshot)?;
            context.progress.add(1, 0);
            if !is_meant(&snapshot) {
                stay.push((body.root, false));
                continue;
            }
            if nothing_is_left(&body, paths) {
                let sources = body.paths.iter();
                let is_met = |path: &&Vec<u8>| sources.clone().any(|source| is_within(source, path));
                lock(met).extend(paths.iter().filter(is_met).cloned());
                taken_out.roots.push(body.root);
                let summary = snapshot.envelope.summary;
                let taken = Tally {
                    files: summary.files,
                    dirs: summary.dirs,
                    others: summary.others,
                    source_bytes: summary.source_bytes,
                };
                self.erased.push(Erased { snapshot, goes: true, taken, root: None });
                continue;
            }
            let new = rewriter.tree(body.root)?;
            stay.push((body.root, new.root != body.root));
            if new.root != body.root {
                let root = Some(new.root);
                self.erased.push(Erased { snapshot, goes: false, taken: new.dropped, root });
            }
        }
        taken_out.replaced = rewriter.replaced_trees().collect();
        drop(rewriter);
        taken_out.nodes = dropped.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unneeded = reach::unneeded(reader, &domain, &taken_out, &stay, paths, context)?;
        self.freed_bytes += reach::stored_bytes(reader, &domain, &unneeded);
        Ok(unneeded)
    }

    /// Nothing is to be erased here.
    pub fn is_empty(&self) -> bool {
        self.erased.is_empty()
    }

    /// The paths that are in some snapshot that is meant; those that lie within others are left out.
    pub fn met(&self) -> &BTreeSet<Vec<u8>> {
        &self.met
    }

    /// Without those that lie within others, all paths.
    pub fn paths(&self) -> &[Vec<u8>] {
        &self.options.paths
    }

    /// The snapshots from which something is erased, oldest first.
    pub fn erased(&self) -> &[Erased] {
        &self.erased
    }

    /// About what no snapshot will need any more: stored bytes that a prune frees.
    pub const fn freed_bytes(&self) -> u64 {
        self.freed_bytes
    }
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
