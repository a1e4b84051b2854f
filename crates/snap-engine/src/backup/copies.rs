//! The copies that a run writes to.

use std::error::Error;
use std::sync::Arc;

use snap_backend::Backend;
use snap_repo::{
    Cache, Finding, Index, Lagging, RepoError, Repository, SnapshotSet, WriterCopy, WriterOptions,
    areas_of_a_backup,
};

use super::{queue, segments};
use crate::{Context, Result};

/// A copy that a run had to leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// Its position among those that were given.
    pub copy: usize,
    /// What failed there, with its causes.
    pub why: String,
}

/// What was noted so far.
pub(super) fn told(lagging: &Lagging) -> Vec<Lag> {
    lagging.take().into_iter().map(|(copy, error)| Lag { copy, why: with_causes(&error) }).collect()
}

fn with_causes(error: &RepoError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The copies that answer.
pub(super) struct Loaded {
    /// The first of them, which is compared with.
    pub(super) first: Repository,
    pub(super) members: Vec<WriterCopy>,
    /// The snapshots of the first.
    pub(super) set: SnapshotSet,
    pub(super) findings: Vec<Finding>,
}

/// What is read of a copy before a run begins.
type Read = (Index, Vec<Finding>, Option<SnapshotSet>);

fn load(repository: &Repository, cache: Option<&Cache>, wants_snapshots: bool) -> Result<Read, RepoError> {
    let place = cache.map(|cache| cache.place(&repository.backend().location()));
    repository.prefetch(&areas_of_a_backup(place.as_ref()))?;
    std::thread::scope(|scope| {
        let set = wants_snapshots.then(|| scope.spawn(|| repository.snapshots()));
        let index = Index::load(repository, cache);
        let set = set.map(|set| set.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let (index, findings) = index?;
        Ok((index, findings, set.transpose()?))
    })
}

/// Reads what a run has to know of its copies, all at the same time. Fails if none can be read.
pub(super) fn load_all(copies: &[Repository], cache: Option<&Cache>, lagging: &Lagging) -> Result<Loaded> {
    let read: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> =
            copies.iter().skip(1).map(|copy| scope.spawn(|| load(copy, cache, false))).collect();
        let first = copies.first().map(|copy| load(copy, cache, true));
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        first.into_iter().chain(others.into_iter().map(join)).collect()
    });
    let (mut members, mut found, mut all_findings) = (Vec::new(), None, Vec::new());
    let mut failed = Vec::new();
    for (position, (repository, read)) in copies.iter().zip(read).enumerate() {
        let whole = read.and_then(|(index, findings, set)| {
            // Of those that are not the first, the snapshots are wanted only if the first has failed.
            let set = match set {
                None if found.is_none() => Some(repository.snapshots()?),
                set => set,
            };
            Ok((index, findings, set))
        });
        match whole {
            Ok((index, mut findings, set)) => {
                all_findings.append(&mut findings);
                found = found.or_else(|| Some((repository.clone(), set?)));
                members.push(WriterCopy { position, repository: repository.clone(), index });
            }
            Err(error) => failed.push((position, error)),
        }
    }
    let last = if found.is_none() { failed.pop() } else { None };
    failed.into_iter().for_each(|(position, error)| lagging.add(position, error));
    match (found, last) {
        (Some((first, set)), _) => Ok(Loaded { first, members, set, findings: all_findings }),
        (None, Some((_, error))) => Err(error.into()),
        (None, None) => Err(RepoError::Refused("there is no copy to write to".into()).into()),
    }
}

/// Memory goes to packs on their way, after what the workers need. To a disk one goes while the next is filled: it is hardly
/// slower, and two would be 16 MiB more.
pub(super) fn writer_options(
    stores: &[Arc<dyn Backend>],
    context: Context<'_>,
    threads: usize,
) -> WriterOptions {
    let defaults = WriterOptions::default();
    let workers = segments(context, threads) as u64 * queue::SEGMENT as u64;
    let packs = context.memory_bytes.saturating_sub(workers) / (defaults.pack_target as u64 + (2 << 20));
    // In the making: one, or two if copies may lack different things.
    let open = if stores.len() > 1 { 2 } else { 1 };
    let wanted = |store: &Arc<dyn Backend>| match store.local_root() {
        Some(_) => 1,
        None => store.parallelism(),
    };
    let wanted = stores.iter().map(wanted).max().unwrap_or(1);
    WriterOptions {
        uploads: wanted.min(usize::try_from(packs.saturating_sub(open)).unwrap_or(1)).max(1),
        ..defaults
    }
}
