//! Bringing the tables of the cache up to date with the index objects in the store.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use snap_format::ObjectId;

use super::absorb::{BATCH, Found, absorb, judge};
use super::block::TableId;
use super::home::{Home, Keep, Lock};
use super::merge::MergeError;
use super::parse::load_object;
use super::slot::{Live, Slot};
use super::table::{Source, Table};
use crate::{RepoError, Result, for_each_parallel};

/// Up to which size tables count as equal, blobs: to write one of them costs as much as another.
const SMALL: u64 = 4096;
/// How often damage that is met while tables are merged is read again.
const ATTEMPTS: usize = 3;

/// A table, and what lives of it.
struct Opened {
    table: Table,
    live: Option<Live>,
}

pub(super) struct Loader<'a> {
    home: &'a Home,
    /// The index objects in the store, sorted by name, with their sizes.
    names: &'a [(ObjectId, u64)],
    lock: Option<Lock>,
    listed: Vec<TableId>,
    tables: Vec<Opened>,
    findings: Vec<Found>,
    /// Objects of which nothing is believed.
    broken: HashSet<ObjectId>,
    batch_len: usize,
}

/// Tables for all of `names`, the largest first, and what is wrong with some of them.
pub(super) fn load(
    home: &Home,
    names: &[(ObjectId, u64)],
    batch_len: Option<usize>,
) -> Result<(Vec<Slot>, Vec<Found>)> {
    let mut loader = Loader {
        home,
        names,
        lock: None,
        listed: Vec::new(),
        tables: Vec::new(),
        findings: Vec::new(),
        broken: HashSet::new(),
        batch_len: batch_len.unwrap_or(BATCH),
    };
    loader.open();
    if !loader.is_settled() {
        loader.lock = home.lock();
        // Another process may have done it meanwhile.
        if loader.lock.is_some() && home.listed() != loader.listed {
            loader.open();
        }
    }
    loader.read_findings_again()?;
    for attempt in 0.. {
        loader.absorb()?;
        if loader.compact()? || attempt == ATTEMPTS {
            break;
        }
    }
    loader.publish();
    Ok(loader.slots())
}

impl Loader<'_> {
    fn is_alive(&self, id: &ObjectId) -> bool {
        self.names.binary_search_by_key(id, |(name, _)| *name).is_ok()
    }

    /// Opens what the manifest lists and what is whole.
    fn open(&mut self) {
        self.listed = self.home.listed();
        self.tables = self.listed.iter().filter_map(|id| self.opened(self.home.open(*id)?)).collect();
        // No object twice: of two tables that were made of it one will do.
        let mut seen = HashSet::new();
        self.tables.retain(|opened| {
            let is_new = opened.table.objects.iter().all(|object| !seen.contains(&object.id));
            if is_new {
                seen.extend(opened.table.objects.iter().map(|object| object.id));
            }
            is_new
        });
    }

    fn opened(&self, table: Table) -> Option<Opened> {
        let live = Live::find(&table, &|id| self.is_alive(id)).ok()?;
        Some(Opened { table, live })
    }

    /// The objects that no table was made of.
    fn pending(&self) -> Vec<(ObjectId, u64)> {
        let absorbed = self.tables.iter().flat_map(|opened| &opened.table.objects).map(|object| object.id);
        let absorbed: HashSet<ObjectId> = absorbed.collect();
        let is_pending = |id: &ObjectId| !absorbed.contains(id) && !self.broken.contains(id);
        self.names.iter().filter(|(id, _)| is_pending(id)).copied().collect()
    }

    /// Whether nothing is to be done.
    fn is_settled(&self) -> bool {
        self.tables.len() == self.listed.len() && self.pending().is_empty() && self.to_merge().is_empty()
    }

    /// What is wrong with objects that were absorbed in part is said each time.
    fn read_findings_again(&mut self) -> Result<()> {
        let objects = self.tables.iter().flat_map(|opened| &opened.table.objects);
        let marked: HashSet<ObjectId> =
            objects.filter(|object| object.has_findings).map(|object| object.id).collect();
        let objects: Vec<_> = self.names.iter().filter(|(id, _)| marked.contains(id)).collect();
        let found = Mutex::new(Vec::new());
        let repository = &self.home.repository;
        for_each_parallel(&objects, repository.backend().parallelism(), |(id, size)| {
            let findings = match judge(load_object(repository, id, *size))? {
                Ok(parsed) => parsed.findings,
                Err(finding) => vec![finding],
            };
            let findings = findings.into_iter().map(|finding| (*id, finding));
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(findings);
            Ok::<_, RepoError>(())
        })?;
        self.findings = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    const fn keep(&self) -> Keep {
        if self.lock.is_some() { Keep::Listed } else { Keep::Private }
    }

    fn absorb(&mut self) -> Result<()> {
        let pending = self.pending();
        let absorbed = absorb(self.home, self.keep(), self.batch_len, &pending)?;
        self.tables.extend(absorbed.tables.into_iter().map(|table| Opened { table, live: None }));
        // An object may be read again because the table that it was in is damaged.
        self.findings.retain(|(id, _)| pending.binary_search_by_key(id, |(name, _)| *name).is_err());
        self.findings.extend(absorbed.findings);
        self.broken.extend(absorbed.broken);
        Ok(())
    }

    /// Which tables become one: those of which so much is dead that they are written anew, and the smallest, as long as
    /// the next is not much larger than all before it. Each that stays is more than twice as large as all smaller ones
    /// together, so that there are few.
    fn to_merge(&self) -> Vec<usize> {
        let mut by_size: Vec<usize> = (0..self.tables.len()).collect();
        let size = |number: &usize| self.tables[*number].table.len().max(SMALL);
        by_size.sort_by_key(size);
        let (mut sum, mut merged) = (0, 0);
        for (position, number) in by_size.iter().enumerate() {
            if position > 0 && size(number) <= 2 * sum {
                merged = position + 1;
            }
            sum += size(number);
        }
        let is_wasteful = |number: &usize| self.tables[*number].live.as_ref().is_some_and(Live::is_wasteful);
        let (mut chosen, others) = (by_size[..merged].to_vec(), &by_size[merged..]);
        chosen.extend(others.iter().copied().filter(is_wasteful));
        chosen
    }

    /// Merges. False if a table turned out to be damaged: its objects are to be read again.
    fn compact(&mut self) -> Result<bool> {
        let mut chosen = self.to_merge();
        if chosen.is_empty() || self.lock.is_none() {
            return Ok(true);
        }
        let sources: Vec<&dyn Source> =
            chosen.iter().map(|number| &self.tables[*number].table as &dyn Source).collect();
        let outcome = self.home.make(&sources, &|id| self.is_alive(id), self.keep());
        match outcome {
            Ok(table) => {
                chosen.sort_unstable();
                for number in chosen.iter().rev() {
                    let old = self.tables.remove(*number).table.id;
                    // Listed ones go when the manifest does not list them any more.
                    if !self.listed.contains(&old) {
                        self.home.discard(&old);
                    }
                }
                self.tables.push(Opened { table, live: None });
                Ok(true)
            }
            Err(MergeError::Source(position)) => {
                self.tables.remove(chosen[position]);
                Ok(false)
            }
            // No room: they do as they are.
            Err(MergeError::Write(error)) => {
                self.home.note_failure(&error);
                Ok(true)
            }
        }
    }

    fn publish(&mut self) {
        let Some(lock) = self.lock.take() else { return };
        let tables: Vec<TableId> =
            self.tables.iter().map(|opened| opened.table.id).filter(|id| self.home.has(id)).collect();
        if tables != self.listed {
            self.home.publish(&lock, &tables);
        }
    }

    /// The largest table first: it is the most likely to know a blob.
    fn slots(mut self) -> (Vec<Slot>, Vec<Found>) {
        self.tables.sort_by_key(|opened| std::cmp::Reverse(opened.table.len()));
        let mut base = 0_u32;
        let slots = self.tables.into_iter().map(|Opened { table, live }| {
            let slot = Slot::new(base, table, live);
            base = base.checked_add(slot.count()).expect("fewer than four billion packs");
            slot
        });
        let slots = slots.collect();
        self.findings.sort_by_key(|(id, _)| *id);
        (slots, self.findings)
    }
}
