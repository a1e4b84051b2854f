//! A table in use: which of its packs are still named, and what takes its place if it is damaged.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use snap_format::{BlobId, ObjectId, RunKeyEntry};

use super::PackInfo;
use super::absorb::{BATCH, absorb, not_made};
use super::block::{Damaged, Page, Read};
use super::entry::{Place, Record};
use super::home::{Home, Keep};
use super::table::{Source, Table};
use crate::{Area, RepoError, Result};

/// Stands for a pack that nobody names any more.
const DEAD: u32 = u32::MAX;

/// Of a table that was made of index objects of which some are gone: the lines that a table of the others would have.
pub(super) struct Live {
    /// By object of the table: whether it is there.
    objects: Vec<bool>,
    /// By line of the table: the number of the first line that says the same.
    numbers: Vec<u32>,
    /// By number: the line.
    lines: Vec<u32>,
}

impl Live {
    /// None if every object is there.
    pub(super) fn find(table: &Table, is_alive: &dyn Fn(&ObjectId) -> bool) -> Read<Option<Self>> {
        let alive: Vec<bool> = table.objects.iter().map(|object| is_alive(&object.id)).collect();
        if alive.iter().all(|alive| *alive) {
            return Ok(None);
        }
        let numbers = vec![DEAD; table.records() as usize];
        let mut live = Self { objects: alive, numbers, lines: Vec::new() };
        let mut page = Page::default();
        let mut group: Option<(ObjectId, [u8; 32])> = None;
        let (mut group_line, mut first) = (0, DEAD);
        for line in 0..table.records() {
            let record = table.record(line, &mut page)?;
            if group != Some((record.id, record.digest)) {
                (group, group_line, first) = (Some((record.id, record.digest)), line, DEAD);
            }
            if live.objects[record.object as usize] {
                if first == DEAD {
                    first = live.lines.len() as u32;
                    live.numbers[group_line as usize..line as usize].fill(first);
                }
                live.lines.push(line);
            }
            live.numbers[line as usize] = first;
        }
        Ok(Some(live))
    }

    /// Whether so much is dead that the table is written anew.
    pub(super) const fn is_wasteful(&self) -> bool {
        (self.numbers.len() - self.lines.len()) * 4 >= self.numbers.len()
    }
}

/// Makes damaged tables anew.
pub(super) struct Mender {
    pub(super) home: Home,
    /// Why one could not be made.
    failure: Mutex<Option<RepoError>>,
}

impl Mender {
    pub(super) const fn new(home: Home) -> Self {
        Self { home, failure: Mutex::new(None) }
    }

    fn fail(&self, error: RepoError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The first failure; who asks again is told so.
    pub(super) fn check(&self) -> Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let again = || RepoError::Refused("the cached index is damaged, and could not be made anew".into());
        match failure.as_mut() {
            None => Ok(()),
            Some(error) => Err(std::mem::replace(error, again())),
        }
    }

    fn mend(&self, slot: &Slot) -> Option<Table> {
        match self.try_mend(slot) {
            Ok(table) => Some(table),
            Err(error) => {
                self.replace(slot, None);
                self.fail(error);
                None
            }
        }
    }

    /// Reads the index objects again that the table was made of: the same lines come out of them.
    fn try_mend(&self, slot: &Slot) -> Result<Table> {
        let wanted: HashSet<&ObjectId> = slot.objects().collect();
        let mut objects = self.home.repository.list(Area::Index)?;
        objects.retain(|(id, _)| wanted.contains(id));
        let absorbed = absorb(&self.home, Keep::Private, BATCH, &objects)?;
        let gone = || {
            let why =
                "the cached index is damaged, and index objects that it was made of are gone: run it again";
            RepoError::Refused(why.into())
        };
        if objects.len() < wanted.len() || !absorbed.broken.is_empty() {
            return Err(gone());
        }
        let sources: Vec<&dyn Source> = absorbed.tables.iter().map(|table| table as &dyn Source).collect();
        let table = self.home.make_or_hold(&sources, &|_| true, Keep::Listed).map_err(not_made)?;
        if table.records() != slot.count() {
            self.home.discard(&table.id);
            return Err(gone());
        }
        self.replace(slot, Some(&table));
        Ok(table)
    }

    /// Lists `new` in place of the damaged table, if that is possible now; else it stays private.
    fn replace(&self, slot: &Slot, new: Option<&Table>) {
        let lock = self.home.lock();
        let mut listed = self.home.listed();
        let position = listed.iter().position(|id| *id == slot.table.id);
        match (&lock, position, new) {
            (Some(lock), Some(position), Some(new)) if self.home.has(&new.id) => {
                listed[position] = new.id;
                self.home.publish(lock, &listed);
            }
            (Some(lock), Some(position), _) => {
                listed.remove(position);
                self.home.publish(lock, &listed);
            }
            (_, _, Some(new)) => self.home.discard(&new.id),
            _ => {}
        }
    }
}

/// A table, and where the numbers of its packs begin.
pub(super) struct Slot {
    pub(super) base: u32,
    pub(super) table: Table,
    live: Option<Live>,
    spare: OnceLock<Option<Table>>,
}

impl Slot {
    pub(super) const fn new(base: u32, table: Table, live: Option<Live>) -> Self {
        Self { base, table, live, spare: OnceLock::new() }
    }

    /// How many numbers its packs take.
    pub(super) fn count(&self) -> u32 {
        self.live.as_ref().map_or_else(|| self.table.records(), |live| live.lines.len() as u32)
    }

    /// The index objects that vouch for what is in it.
    fn objects(&self) -> impl Iterator<Item = &ObjectId> {
        let alive = self.live.as_ref().map(|live| &live.objects);
        let objects = self.table.objects.iter().enumerate();
        objects
            .filter(move |(number, _)| alive.is_none_or(|alive| alive[*number]))
            .map(|(_, object)| &object.id)
    }

    /// Does `work` on the table, or, if that is damaged, on another that is made now. `None` if that failed, too; the
    /// mender knows why.
    fn with<T>(&self, mender: &Mender, mut work: impl FnMut(&Table, Option<&Live>) -> Read<T>) -> Option<T> {
        if self.spare.get().is_none()
            && let Ok(found) = work(&self.table, self.live.as_ref())
        {
            return Some(found);
        }
        let spare = self.spare.get_or_init(|| mender.mend(self)).as_ref()?;
        let found = work(spare, None);
        if found.is_err() {
            mender.fail(RepoError::Refused("the cached index was damaged twice during this run".into()));
        }
        found.ok()
    }

    /// Calls `each` for the places of a blob until it is content. It may be called twice for a place.
    pub(super) fn find(
        &self,
        mender: &Mender,
        domain: &str,
        id: &BlobId,
        mut each: impl FnMut(Place) -> bool,
    ) -> bool {
        let work = |table: &Table, live: Option<&Live>| {
            table.find(domain, id, |place| Ok(self.translate(table, live, place)?.is_some_and(&mut each)))
        };
        self.with(mender, work).unwrap_or(false)
    }

    /// A line as the index knows it; none if nobody names its pack.
    fn translate(&self, table: &Table, live: Option<&Live>, mut place: Place) -> Read<Option<Place>> {
        if place.pack >= table.records() {
            return Err(Damaged);
        }
        if let Some(live) = live {
            place.pack = live.numbers[place.pack as usize];
            if place.pack == DEAD {
                return Ok(None);
            }
        }
        place.pack += self.base;
        Ok(Some(place))
    }

    /// The line of a pack; the number counts from the slot's base. None if another line says the same.
    fn record(
        &self,
        table: &Table,
        live: Option<&Live>,
        number: u32,
        page: &mut Page,
    ) -> Read<Option<Record>> {
        let Some(live) = live else {
            return table.record(number, page).map(|record| record.is_first.then_some(record));
        };
        let line = *live.lines.get(number as usize).ok_or(Damaged)?;
        let record = table.record(line, page)?;
        Ok((live.numbers[line as usize] == number).then_some(record))
    }

    /// What is known of a pack; `number` counts from the slot's base.
    pub(super) fn pack(&self, mender: &Mender, number: u32, page: &mut Page) -> Option<PackInfo> {
        self.with(mender, |table, live| {
            let record = self.record(table, live, number, page)?;
            Ok(record.map(|record| PackInfo {
                number: self.base + number,
                id: record.id,
                size: record.size,
                kind: record.kind,
                domain: table.sections[record.domain as usize].domain.clone(),
                blobs: record.blobs as usize,
                digest: record.digest,
            }))
        })
        .flatten()
    }

    pub(super) fn key(&self, mender: &Mender, number: u32, key: u8) -> Option<RunKeyEntry> {
        self.with(mender, |table, live| {
            let record = self.record(table, live, number, &mut Page::default())?;
            record.map(|record| table.key(&record, key)).transpose()
        })
        .flatten()
    }

    /// Numbers of the packs of this name.
    pub(super) fn pack_numbers(&self, mender: &Mender, id: &ObjectId) -> Vec<u32> {
        self.with(mender, |table, live| {
            let mut numbers = Vec::new();
            table.find_pack(id, |line, record| {
                let number = match live {
                    None if record.is_first => line,
                    Some(live) if live.lines.get(live.numbers[line as usize] as usize) == Some(&line) => {
                        live.numbers[line as usize]
                    }
                    _ => return,
                };
                numbers.push(self.base + number);
            })?;
            Ok(numbers)
        })
        .unwrap_or_default()
    }
}

/// Goes through the blobs of a domain in a slot, by id; of several places of a blob only the first counts.
pub(super) struct Walk<'a> {
    slot: &'a Slot,
    domain: &'a str,
    page: Page,
    /// In which table `next` is a line.
    position: Option<(super::block::TableId, u64)>,
    last: Option<BlobId>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(slot: &'a Slot, domain: &'a str) -> Self {
        Self { slot, domain, page: Page::default(), position: None, last: None }
    }

    pub(super) fn next(&mut self, mender: &Mender) -> Option<Place> {
        let Self { slot, domain, page, position, last } = self;
        let found = slot.with(mender, |table, live| {
            let Some(section) = table.section(domain) else { return Ok(None) };
            let mut next = match (*position, *last) {
                (Some((id, next)), _) if id == table.id => next,
                // Another table came in its place: go on after the last blob.
                (_, Some(last)) => table.lower_bound(section, &last, page)?,
                (_, None) => 0,
            };
            while next < table.sections[section].places.count {
                let place = table.place(section, next, page)?;
                next += 1;
                *position = Some((table.id, next));
                if *last != Some(place.id)
                    && let Some(place) = slot.translate(table, live, place)?
                {
                    *last = Some(place.id);
                    return Ok(Some(place));
                }
            }
            Ok(None)
        });
        found.flatten()
    }
}
