use std::collections::HashMap;
use std::sync::Mutex;

use snap_backend::{Backend, Timestamp};
use snap_format::ObjectId;

use crate::writer::lock;
use crate::{Area, Repository, Result, for_each_parallel, parse_object_name};

/// An object as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) id: ObjectId,
    /// Bytes.
    pub(crate) size: u64,
    /// By the store's own clock.
    pub(crate) stored: Option<Timestamp>,
}

/// Listings that were taken ahead and that nobody has used yet.
pub(crate) type Listings = Mutex<HashMap<Area, Vec<Listed>>>;

/// The objects of an area, sorted; names that are not of the format are left out.
pub(crate) fn list_area(backend: &dyn Backend, area: Area) -> Result<Vec<Listed>> {
    list_prefix(backend, area.prefix())
}

fn list_prefix(backend: &dyn Backend, prefix: &str) -> Result<Vec<Listed>> {
    let mut out = Vec::new();
    backend.list(prefix, &mut |meta| {
        if let Some((_, id)) = parse_object_name(meta.name.as_str()) {
            out.push(Listed { id, size: meta.size_bytes, stored: meta.modified });
        }
        Ok(())
    })?;
    out.sort_unstable();
    Ok(out)
}

/// The packs, by the directories in which they lie: a store gives 1,000 names at a time, so one listing of very many is a
/// long sequence of requests.
pub(crate) fn list_packs_by_directory(backend: &dyn Backend) -> Result<Vec<Listed>> {
    let directories: Vec<String> = (0..=0xff).map(|n| format!("{}{n:02x}/", Area::Packs.prefix())).collect();
    let packs = Mutex::new(Vec::new());
    for_each_parallel(&directories, backend.parallelism(), |prefix| {
        let mut listed = list_prefix(backend, prefix)?;
        lock(&packs).append(&mut listed);
        Ok::<_, crate::RepoError>(())
    })?;
    let mut packs = std::mem::take(&mut *lock(&packs));
    packs.sort_unstable();
    Ok(packs)
}

/// Lists several areas at once.
pub(crate) fn list_all(backend: &dyn Backend, areas: &[Area], into: &Listings) -> Result<()> {
    for_each_parallel(areas, areas.len(), |area| {
        let listed = list_area(backend, *area)?;
        lock(into).insert(*area, listed);
        Ok(())
    })
}

impl Repository {
    /// Ids of the objects in an area, with their sizes; names that are not of the format are left out.
    pub fn list(&self, area: Area) -> Result<Vec<(ObjectId, u64)>> {
        let listed = list_area(self.backend().as_ref(), area)?;
        Ok(listed.iter().map(|object| (object.id, object.size)).collect())
    }

    /// Lists areas in one round trip, unless [`Repository::open_with`] has done so. The next who reads an area uses the
    /// listing, once.
    pub fn prefetch(&self, areas: &[Area]) -> Result<()> {
        let wanted: Vec<Area> = {
            let held = lock(&self.listings);
            areas.iter().filter(|area| !held.contains_key(area)).copied().collect()
        };
        list_all(self.backend().as_ref(), &wanted, &self.listings)
    }

    /// The listing that was taken ahead, else a fresh one.
    pub(crate) fn take_listing(&self, area: Area) -> Result<Vec<Listed>> {
        match self.prefetched(area) {
            Some(listing) => Ok(listing),
            None => list_area(self.backend().as_ref(), area),
        }
    }

    pub(crate) fn prefetched(&self, area: Area) -> Option<Vec<Listed>> {
        lock(&self.listings).remove(&area)
    }

    /// What is listed from now on is fresh.
    pub(crate) fn drop_listings(&self) {
        lock(&self.listings).clear();
    }
}
