//! Blobs that snapshots need and that lie in no whole pack.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use snap_format::{BlobId, BlobKind};
use snap_repo::{
    BlobReader, DomainKeys, Index, OpenCopies, RepoError, Repository, Snapshot, Writer, WriterOptions,
};

use super::Heal;
use crate::backup::tree_look::LocalTrees;
use crate::copy::walk::Walk;
use crate::work::{Worker, for_each, lock};
use crate::{EngineError, Phase, Result};

/// Blobs that are stored before more trees are read.
const AT_ONCE: usize = 1 << 16;

/// A blob that is wanted.
pub(super) type Wanted = (BlobKind, BlobId);

/// What is being stored again, for the snapshots of one domain.
pub(super) struct Job<'a> {
    pub(super) writer: Writer,
    pub(super) domain: &'a DomainKeys,
    pub(super) lost: Mutex<HashSet<Wanted>>,
    stored: Mutex<u64>,
}

impl Heal<'_> {
    pub(super) fn blobs_of(&mut self, snapshots: &[Snapshot]) -> Result<()> {
        let Some(first) = snapshots.first() else { return Ok(()) };
        let domain = self.repository.domain_of(first)?;
        // From the store itself: what a cache remembers of the index may be what is lost.
        let (index, _) = Index::load(self.repository, None)?;
        let options = WriterOptions {
            domain: Some(domain.name.clone()),
            pack_target: self.options.pack_target,
            uploads: 1,
            distrust: self.bad.clone(),
            ..WriterOptions::default()
        };
        let writer = Writer::begin(self.repository, index, None, options)?;
        let job = Job { writer, domain: &domain, lost: Mutex::default(), stored: Mutex::default() };
        let walk = self.walk(&job, snapshots, &domain);
        self.store_missing(&job, &walk, snapshots)?;
        self.report.blobs += *lock(&job.stored);
        self.report.file_blobs += self.look_into_files(&job, snapshots)?;
        let lost = std::mem::take(&mut *lock(&job.lost));
        self.report.lost += lost.len() as u64;
        let index = Arc::clone(job.writer.index());
        job.writer.finish()?.abandon();
        Ok(index.check()?)
    }

    /// Reads trees wherever they are whole.
    fn walk<'d>(&self, job: &Job<'_>, snapshots: &[Snapshot], domain: &'d DomainKeys) -> Walk<'d> {
        let reader = || self.reader(Arc::clone(job.writer.index()));
        let walk = Walk::over(reader(), domain);
        match self.cache {
            Some(cache) => {
                let groups = snapshots.iter().rev().map(|it| (&*it.envelope.dataset, &*it.envelope.host));
                let groups: HashSet<(&str, &str)> = groups.collect();
                walk.with_local(LocalTrees::open(cache, groups, &Arc::new(reader()), domain, false))
            }
            None => walk,
        }
    }

    /// Reads blobs of this copy, and from others what it cannot give.
    pub(super) fn reader(&self, index: Arc<Index>) -> BlobReader {
        BlobReader::new(self.repository.clone(), index).with_others(self.others())
    }

    pub(super) fn others(&self) -> Box<OpenCopies> {
        let (siblings, cache) = (self.siblings.to_vec(), self.cache.cloned());
        Box::new(move || {
            let open = |sibling: &super::Sibling| -> Option<(String, Repository, Arc<Index>)> {
                let (index, _) = Index::load(&sibling.repository, cache.as_ref()).ok()?;
                Some((sibling.name.clone(), sibling.repository.clone(), Arc::new(index)))
            };
            siblings.iter().filter_map(open).collect()
        })
    }

    /// Walks all that the snapshots need; what is in no whole pack is read from wherever it can be had, and stored.
    fn store_missing(&self, job: &Job<'_>, walk: &Walk<'_>, snapshots: &[Snapshot]) -> Result<()> {
        self.context.progress.begin(Phase::Moving, 0, 0);
        let mut roots = Vec::new();
        for snapshot in snapshots {
            match self.repository.open_body(snapshot).map_err(RepoError::into_finding) {
                Ok(body) => roots.push(body.root),
                // That is told by the check.
                Err(Ok(_)) => {}
                Err(Err(error)) => return Err(error.into()),
            }
        }
        let missing: Mutex<Vec<Wanted>> = Mutex::default();
        let each = |tree: &BlobId, data: Result<&[BlobId]>| -> Result<()> {
            let data = match data.map_err(finding_of) {
                Ok(data) => data,
                Err(None) => &[],
                Err(Some(error)) => return Err(error),
            };
            let all =
                data.iter().map(|id| (BlobKind::Data, *id)).chain(std::iter::once((BlobKind::Tree, *tree)));
            lock(&missing).extend(all.filter(|(_, id)| !job.writer.knows(id)));
            Ok(())
        };
        walk.visit(roots, self.context, &each, &mut || {
            if lock(&missing).len() < AT_ONCE {
                return Ok(());
            }
            let wanted = std::mem::take(&mut *lock(&missing));
            self.store(job, walk, &wanted)
        })?;
        let wanted = std::mem::take(&mut *lock(&missing));
        self.store(job, walk, &wanted)
    }

    fn store(&self, job: &Job<'_>, walk: &Walk<'_>, wanted: &[Wanted]) -> Result<()> {
        for_each(wanted, self.context.threads, |(kind, id), worker| {
            self.context.check_stop()?;
            let Worker { scratch, plain, .. } = worker;
            match walk.blob(*kind, id, scratch, plain).map_err(finding_of) {
                Ok(()) => {
                    let (_, is_new) = job.writer.add(*kind, plain, scratch)?;
                    *lock(&job.stored) += u64::from(is_new);
                    self.context.progress.add(u64::from(is_new), plain.len() as u64);
                }
                Err(None) => drop(lock(&job.lost).insert((*kind, *id))),
                Err(Some(error)) => return Err(error),
            }
            Ok(())
        })
    }
}

/// Nothing if the error is about damage, which is what this is about; else the error.
pub(super) fn finding_of(error: EngineError) -> Option<EngineError> {
    match error {
        EngineError::Repo(error) => error.into_finding().err().map(EngineError::from),
        other => Some(other),
    }
}
