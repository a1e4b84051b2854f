//! What snapshots need: all that can be reached from their roots.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snap_format::{BlobId, BlobKind, TreeBlob};
use snap_repo::{
    BlobReader, DomainKeys, Index, RepoError, Repository, Scratch, Snapshot, Writer, for_each_parallel,
};

use super::children;
use crate::backup::tree_look::LocalTrees;
use crate::{Context, EngineError, Event, Result};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that an id takes among those that are to be moved.
const ID_BYTES: u64 = 64;
/// Trees that are read between looks at how many that are.
const SLICE: usize = 1024;

/// Is given ids of which the target lacks the blobs, and moves them: all at once, or as many as memory allows.
pub(super) type Take<'a> = dyn FnMut(&HashSet<BlobId>) -> Result<()> + 'a;

/// How many ids are collected before what they name is moved.
fn most_ids(context: Context<'_>) -> usize {
    usize::try_from(context.memory_bytes / 4 / ID_BYTES).unwrap_or(usize::MAX).max(SLICE)
}

/// All that the source has and the target lacks: for who cannot read trees.
pub(super) fn all_of(
    index: &Index,
    domain: &DomainKeys,
    writer: &Writer,
    context: Context<'_>,
    take: &mut Take<'_>,
) -> Result<()> {
    let most = most_ids(context);
    let mut ids = HashSet::new();
    for (id, _) in index.plain_lens(&domain.name).filter(|(id, _)| !writer.knows(id)) {
        ids.insert(id);
        if ids.len() >= most {
            take(&std::mem::take(&mut ids))?;
        }
    }
    take(&ids)
}

/// Called for each tree with its id, and the ids of data that it names, or what is wrong with it.
pub(crate) type Each<'a> = dyn Fn(&BlobId, Result<&[BlobId], EngineError>) -> Result<()> + Sync + 'a;

/// Reads the trees of the source.
pub(crate) struct Walk<'a> {
    reader: BlobReader,
    /// Trees that this machine keeps, for what no copy gives.
    local: Option<LocalTrees>,
    domain: &'a DomainKeys,
    scratches: Mutex<Vec<Scratch>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &Repository, index: &Arc<Index>, domain: &'a DomainKeys) -> Self {
        Self::over(BlobReader::new(source.clone(), Arc::clone(index)), domain)
    }

    /// Reads trees of this domain.
    pub(crate) fn over(reader: BlobReader, domain: &'a DomainKeys) -> Self {
        Self { reader, local: None, domain, scratches: Mutex::default() }
    }

    /// Takes trees that cannot be read from those that this machine keeps.
    pub(crate) fn with_local(self, local: LocalTrees) -> Self {
        Self { local: Some(local), ..self }
    }

    /// Reads a blob from wherever it is whole.
    pub(crate) fn blob(
        &self,
        kind: BlobKind,
        id: &BlobId,
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let Err(error) = self.reader.read(self.domain, kind, id, scratch, plain) else { return Ok(()) };
        match self.local.as_ref().filter(|_| kind == BlobKind::Tree).and_then(|local| local.find(id)) {
            Some(kept) => {
                *plain = kept;
                Ok(())
            }
            None => Err(error.into()),
        }
    }

    /// Gives what the target lacks of all these snapshots to `take`. What is damaged is told, and left out: then the answer is
    /// false, since what lies below is not known.
    pub(super) fn needed(
        &self,
        snapshots: &[&Snapshot],
        writer: &Writer,
        context: Context<'_>,
        take: &mut Take<'_>,
    ) -> Result<bool> {
        let mut is_known = true;
        let mut roots = Vec::new();
        for snapshot in snapshots {
            match self.reader.repository().open_body(snapshot).map_err(RepoError::into_finding) {
                Ok(body) => roots.push(body.root),
                Err(Ok(finding)) => {
                    context.observer.event(Event::Finding(&finding));
                    is_known = false;
                }
                Err(Err(error)) => return Err(error.into()),
            }
        }
        let most = most_ids(context);
        let ids = Mutex::new(HashSet::new());
        let has_damage = AtomicBool::new(false);
        let each = |tree: &BlobId, data: Result<&[BlobId], EngineError>| -> Result<()> {
            let (data, error) = data.map_or_else(|error| (&[][..], Some(error)), |data| (data, None));
            let lacking = data.iter().chain([tree]).filter(|id| !writer.knows(id));
            lock(&ids).extend(lacking.copied());
            if let Some(error) = error {
                has_damage.store(true, Ordering::Relaxed);
                tell(error, context)?;
            }
            Ok(())
        };
        self.visit(roots, context, &each, &mut || {
            if lock(&ids).len() < most {
                return Ok(());
            }
            let full = std::mem::take(&mut *lock(&ids));
            take(&full)
        })?;
        take(&ids.into_inner().unwrap_or_else(PoisonError::into_inner))?;
        Ok(is_known && !has_damage.into_inner())
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
            let Ok(body) = self.reader.repository().open_body(snapshot) else { continue };
            let lacks = AtomicBool::new(false);
            let each = |tree: &BlobId, data: Result<&[BlobId], EngineError>| -> Result<()> {
                let knows = |data: &[BlobId]| data.iter().chain([tree]).all(|id| writer.knows(id));
                if !data.is_ok_and(knows) {
                    lacks.store(true, Ordering::Relaxed);
                }
                Ok(())
            };
            self.visit(vec![body.root], context, &each, &mut || Ok(()))?;
            if !lacks.into_inner() {
                complete.push(*snapshot);
            }
        }
        Ok(complete)
    }

    /// Goes through all trees below `roots`, each once, level by level; calls `between` now and then.
    pub(crate) fn visit(
        &self,
        roots: Vec<BlobId>,
        context: Context<'_>,
        each: &Each<'_>,
        between: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut seen: HashSet<BlobId> = HashSet::new();
        let mut level: Vec<BlobId> = roots.into_iter().filter(|root| seen.insert(*root)).collect();
        while !level.is_empty() {
            let mut next = Vec::new();
            for slice in level.chunks(SLICE) {
                let below = Mutex::new(Vec::new());
                for_each_parallel(slice, self.reader.repository().backend().parallelism(), |id| {
                    context.check_stop()?;
                    match self.tree(id) {
                        Ok((data, mut trees)) => {
                            lock(&below).append(&mut trees);
                            each(id, Ok(&data))
                        }
                        Err(error) => each(id, Err(error)),
                    }
                })?;
                let below = below.into_inner().unwrap_or_else(PoisonError::into_inner);
                next.extend(below.into_iter().filter(|id| seen.insert(*id)));
                between()?;
            }
            level = next;
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
        let error = match tree {
            Ok(tree) => return Ok(children(&tree)),
            Err(error) => error,
        };
        let kept = self.local.as_ref().and_then(|local| TreeBlob::decode(&local.find(id)?).ok());
        kept.map(|tree| children(&tree)).ok_or_else(|| error.into())
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
