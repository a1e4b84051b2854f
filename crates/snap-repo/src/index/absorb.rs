//! Reading index objects into tables, a batch at a time.

use std::sync::{Mutex, PoisonError};

use snap_format::ObjectId;

use super::batch::Batch;
use super::home::{Home, Keep};
use super::merge::MergeError;
use super::parse::load_object;
use super::table::{Absorbed, Source, Table};
use crate::{Finding, RepoError, Result, for_each_parallel};

/// Blobs and packs of parsed index objects that are held until they become a table: about 100 MB.
pub(super) const BATCH: usize = 1 << 20;
/// Small tables that are held open before they are merged.
const SMALL_TABLES: usize = 64;

/// What is wrong with an index object.
pub(super) type Found = (ObjectId, Finding);

/// What came of reading index objects.
#[derive(Default)]
pub(super) struct Absorption {
    batch: Batch,
    pub(super) tables: Vec<Table>,
    pub(super) findings: Vec<Found>,
    /// Objects of which nothing is believed.
    pub(super) broken: Vec<ObjectId>,
}

/// Whether an object was read, or what is wrong with it.
pub(super) fn judge<T>(outcome: Result<T>) -> Result<Result<T, Finding>> {
    match outcome.map_err(RepoError::into_finding_among_many) {
        Ok(good) => Ok(Ok(good)),
        Err(Ok(finding)) => Ok(Err(finding)),
        Err(Err(error)) => Err(error),
    }
}

/// Reads `objects`, given with their sizes, into tables. Where none can be written they stay in memory.
pub(super) fn absorb(
    home: &Home,
    keep: Keep,
    batch_len: usize,
    objects: &[(ObjectId, u64)],
) -> Result<Absorption> {
    let repository = &home.repository;
    let state = Mutex::new(Absorption::default());
    for_each_parallel(objects, repository.backend().parallelism(), |(id, size)| {
        let outcome = judge(load_object(repository, id, *size))?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(parsed) => {
                let has_findings = !parsed.findings.is_empty();
                state.findings.extend(parsed.findings.into_iter().map(|finding| (*id, finding)));
                state.batch.push(Absorbed { id: *id, has_findings }, parsed.packs);
            }
            Err(finding) => {
                state.findings.push((*id, finding));
                state.broken.push(*id);
            }
        }
        if state.batch.len() >= batch_len {
            // The others wait, so that what is parsed is bounded.
            state.flush(home, keep)?;
        }
        Ok::<_, RepoError>(())
    })?;
    let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.flush(home, keep)?;
    Ok(state)
}

impl Absorption {
    fn flush(&mut self, home: &Home, keep: Keep) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let batch = batch.sort();
        self.tables.push(home.make_or_hold(&[&batch], &|_| true, keep).map_err(not_made)?);
        if self.tables.len() >= SMALL_TABLES {
            let sources: Vec<&dyn Source> = self.tables.iter().map(|table| table as &dyn Source).collect();
            // If one of them is damaged already, that is met again when it is asked.
            if let Ok(merged) = home.make_or_hold(&sources, &|_| true, keep) {
                self.tables.iter().for_each(|table| home.discard(&table.id));
                self.tables = vec![merged];
            }
        }
        Ok(())
    }
}

/// A table in memory fails only if what is in it is too much for its numbers.
pub(super) fn not_made(error: MergeError) -> RepoError {
    let why = match error {
        MergeError::Source(_) => "a part of it is damaged".to_owned(),
        MergeError::Write(error) => error.to_string(),
    };
    RepoError::Refused(format!("the index cannot be sorted: {why}"))
}
