//! What snapshots need: all that can be reached from their roots.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snap_format::BlobId;
use snap_repo::{
    BlobReader, DomainKeys, Index, RepoError, Repository, Scratch, Snapshot, Writer, for_each_parallel,
};

use super::children;
use crate::{Context, EngineError, Event, Result};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the target lacks of that.
#[derive(Default)]
pub(super) struct Needed {
    pub(super) ids: HashSet<BlobId>,
    /// A tree could not be read, so what is below is not known.
    pub(super) has_damage: bool,
}

impl Needed {
    /// All that the source has and the target lacks: for who cannot read trees.
    pub(super) fn all_of(index: &Index, domain: &DomainKeys, writer: &Writer) -> Self {
        let lacking = index.plain_lens(&domain.name).map(|(id, _)| id).filter(|id| !writer.knows(id));
        Self { ids: lacking.collect(), has_damage: false }
    }
}

/// Called for each tree with the ids that it is and names, or its own and what is wrong with it.
type Each<'a> = dyn Fn(&[BlobId], Option<EngineError>) -> Result<()> + Sync + 'a;

/// Reads the trees of the source.
pub(super) struct Walk<'a> {
    source: &'a Repository,
    reader: BlobReader,
    domain: &'a DomainKeys,
    scratches: Mutex<Vec<Scratch>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a Repository, index: &Arc<Index>, domain: &'a DomainKeys) -> Self {
        let reader = BlobReader::new(source.clone(), Arc::clone(index));
        Self { source, reader, domain, scratches: Mutex::default() }
    }

    /// What the target lacks of all these snapshots. What is damaged is told, and left out.
    pub(super) fn needed(
        &self,
        snapshots: &[&Snapshot],
        writer: &Writer,
        context: Context<'_>,
    ) -> Result<Needed> {
        let needed = Mutex::new(Needed::default());
        let mut roots = Vec::new();
        for snapshot in snapshots {
            match self.source.open_body(snapshot).map_err(RepoError::into_finding) {
                Ok(body) => roots.push(body.root),
                Err(Ok(finding)) => {
                    context.observer.event(Event::Finding(&finding));
                    lock(&needed).has_damage = true;
                }
                Err(Err(error)) => return Err(error.into()),
            }
        }
        self.visit(roots, context, &|ids, error| {
            let lacking = ids.iter().filter(|id| !writer.knows(id));
            let mut needed = lock(&needed);
            needed.ids.extend(lacking);
            if let Some(error) = error {
                needed.has_damage = true;
                tell(error, context)?;
            }
            Ok(())
        })?;
        Ok(needed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of the snapshots of which the target has everything.
    pub(super) fn complete<'s>(
        &self,
        snapshots: &[&'s Snapshot],
        writer: &Writer,
        context: Context<'_>,
    ) -> Result<Vec<&'s Snapshot>> {
        let mut complete = Vec::new();
        for snapshot in snapshots {
            let Ok(body) = self.source.open_body(snapshot) else { continue };
            let lacks = std::sync::atomic::AtomicBool::new(false);
            self.visit(vec![body.root], context, &|ids, error| {
                if error.is_some() || !ids.iter().all(|id| writer.knows(id)) {
                    lacks.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            })?;
            if !lacks.into_inner() {
                complete.push(*snapshot);
            }
        }
        Ok(complete)
    }

    /// Goes through all trees below `roots`, each once, level by level.
    fn visit(&self, roots: Vec<BlobId>, context: Context<'_>, each: &Each<'_>) -> Result<()> {
        let mut seen: HashSet<BlobId> = HashSet::new();
        let mut level: Vec<BlobId> = roots.into_iter().filter(|root| seen.insert(*root)).collect();
        while !level.is_empty() {
            let below = Mutex::new(Vec::new());
            for_each_parallel(&level, self.source.backend().parallelism(), |id| {
                context.check_stop()?;
                match self.tree(id) {
                    Ok((mut data, mut trees)) => {
                        lock(&below).append(&mut trees);
                        data.push(*id);
                        each(&data, None)
                    }
                    Err(error) => each(&[*id], Some(error)),
                }
            })?;
            let below = below.into_inner().unwrap_or_else(PoisonError::into_inner);
            level = below.into_iter().filter(|id| seen.insert(*id)).collect();
        }
        Ok(())
    }

    fn tree(&self, id: &BlobId) -> Result<(Vec<BlobId>, Vec<BlobId>)> {
        let pooled = lock(&self.scratches).pop();
        let mut scratch = match pooled {
            Some(scratch) => scratch,
            None => Scratch::new(3).map_err(|error| EngineError::io("preparing", b"decompression", error))?,
        };
        let tree = self.reader.tree(self.domain, id, &mut scratch);
        lock(&self.scratches).push(scratch);
        Ok(children(&tree?))
    }
}

/// Damage is told; anything else is a failure.
fn tell(error: EngineError, context: Context<'_>) -> Result<()> {
    match error {
        EngineError::Repo(error) => match error.into_finding() {
            Ok(finding) => {
                context.observer.event(Event::Finding(&finding));
                Ok(())
            }
            Err(error) => Err(error.into()),
        },
        other => Err(other),
    }
}
