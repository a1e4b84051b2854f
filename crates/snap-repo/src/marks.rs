//! Marks: the packs that a prune is about to delete (`docs/format.md` §12), and whether anything has changed among them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use snap_backend::{ErrorKind, Timestamp};
use snap_format::{Mark, ObjectId, ObjectKind, Time};

use crate::index::check_box_size;
use crate::listing::{Listed, list_area};
use crate::writer::lock;
use crate::{Area, RepoError, Repository, Result, for_each_parallel, object_name};

/// An object in `marks/`.
#[derive(Debug, Clone)]
pub(crate) struct MarkObject {
    /// The store's own time of it.
    pub(crate) stored: Option<Timestamp>,
    /// Time by the clock of whoever wrote it, and the packs; `None` if it does not verify, which makes it no mark.
    pub(crate) mark: Option<(Time, Vec<ObjectId>)>,
}

/// What stood in `marks/` when it was listed last. Every prune that deletes packs leaves an object there that was not there
/// before, until a later prune: so whoever finds nothing changed knows that no prune went by (F27).
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    pub(crate) objects: BTreeMap<ObjectId, MarkObject>,
    packs: HashSet<ObjectId>,
}

impl Marks {
    /// Reads all marks.
    pub(crate) fn read(repository: &Repository) -> Result<Self> {
        Self::of_listing(repository, list_area(repository.backend().as_ref(), Area::Marks)?)
    }

    /// Whether a mark names the pack.
    pub(crate) fn names(&self, pack: &ObjectId) -> bool {
        self.packs.contains(pack)
    }

    /// The packs that marks name.
    pub(crate) fn packs(&self) -> &HashSet<ObjectId> {
        &self.packs
    }

    /// As a listing shows them.
    pub(crate) fn of_listing(repository: &Repository, listing: Vec<Listed>) -> Result<Self> {
        let mut marks = Self::default();
        marks.take(repository, listing)?;
        Ok(marks)
    }

    /// Lists again and reads what is new. Returns whether anything came or went.
    pub(crate) fn refresh(&mut self, repository: &Repository) -> Result<bool> {
        self.take(repository, list_area(repository.backend().as_ref(), Area::Marks)?)
    }

    fn take(&mut self, repository: &Repository, mut listing: Vec<Listed>) -> Result<bool> {
        listing.dedup_by_key(|listed| listed.id);
        if listing.iter().map(|listed| &listed.id).eq(self.objects.keys()) {
            return Ok(false);
        }
        let is_listed = |id: &ObjectId| listing.binary_search_by_key(id, |listed| listed.id).is_ok();
        self.objects.retain(|id, _| is_listed(id));
        listing.retain(|listed| !self.objects.contains_key(&listed.id));
        let new = Mutex::new(&mut self.objects);
        for_each_parallel(&listing, repository.backend().parallelism(), |Listed { id, size, stored }| {
            // One that is gone by now counts as seen: that it was there is what matters.
            let mark = read_mark(repository, id, *size)?.map(|mark| (mark.time, mark.packs));
            lock(&new).insert(*id, MarkObject { stored: *stored, mark });
            Ok::<_, RepoError>(())
        })?;
        let marks = self.objects.values().filter_map(|object| object.mark.as_ref());
        self.packs = marks.flat_map(|(_, packs)| packs.iter().copied()).collect();
        Ok(true)
    }
}

/// A mark; `None` if it is gone, or does not verify.
fn read_mark(repository: &Repository, id: &ObjectId, size: u64) -> Result<Option<Mark>> {
    let name = object_name(Area::Marks, id);
    if check_box_size(&name, size).is_err() {
        return Ok(None);
    }
    match repository.backend().get(&name) {
        Ok(bytes) => match repository.parse_mark(id, &bytes) {
            Ok(mark) => Ok(Some(mark)),
            // One under keys that came after this run began cannot be read, and must not be passed over.
            Err(RepoError::Damaged(_)) => repository.require_known_epoch(&bytes).map(|()| None),
            Err(error) => Err(error),
        },
        // Marks go when their prune has ended.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Repository {
    /// Announces that packs will be deleted; none at all leaves a trace of a prune. Returns the name of the mark.
    pub(crate) fn put_mark(&self, packs: Vec<ObjectId>, time: Time) -> Result<ObjectId> {
        self.put_box(Area::Marks, ObjectKind::Mark, &Mark { time, packs }.encode())
    }
}
