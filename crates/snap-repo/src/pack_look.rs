use std::collections::HashMap;

use snap_format::ObjectId;

use crate::listing::{Listed, list_area, list_packs_by_directory};
use crate::{Area, Cache, PackInfo, Repository, Result};

/// With more packs than this a listing is many requests: then it is taken once a day.
pub(crate) const MANY_PACKS: u64 = 10_000;
/// How long a listing of many packs is good for, seconds.
const LOOK_SECS: i64 = 24 * 60 * 60;

const FILE: &str = "packs-look";

/// When this machine listed the packs of a store last, and how many the index named then. Kept by the store's place, so that
/// it is known before the repository is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackLook {
    at_secs: i64,
    packs: u64,
}

impl PackLook {
    fn load(place: &Cache) -> Option<Self> {
        let text = String::from_utf8(place.read(FILE)?).ok()?;
        let (at, packs) = text.trim().split_once(' ')?;
        Some(Self { at_secs: at.parse().ok()?, packs: packs.parse().ok()? })
    }

    fn store(self, place: &Cache) {
        // Without a memory the next run looks again.
        let _ = place.write(FILE, format!("{} {}\n", self.at_secs, self.packs).as_bytes());
    }

    /// A clock that was put back makes a look old, never young.
    const fn is_fresh(self, now_secs: i64) -> bool {
        self.at_secs <= now_secs && now_secs - self.at_secs < LOOK_SECS
    }
}

/// What a backup to a store at `place` lists at its beginning, for [`Repository::open_with`]: not the packs, if there are very many.
pub fn areas_of_a_backup(place: Option<&Cache>) -> Vec<Area> {
    let has_many = place.and_then(PackLook::load).is_some_and(|look| look.packs > MANY_PACKS);
    let mut areas = vec![Area::Index, Area::Snapshots, Area::Marks];
    if !has_many {
        areas.push(Area::Packs);
    }
    areas
}

/// The packs that are there with their sizes, as far as anybody looked.
pub(crate) enum StoredPacks {
    Listed(HashMap<ObjectId, u64>),
    /// This machine looked within a day.
    Trusted,
}

impl StoredPacks {
    /// F27 a. `must` if the listing is needed for something else, too; `now_secs` by the caller's clock, without which it is
    /// always taken.
    pub(crate) fn look(
        repository: &Repository,
        named: u64,
        place: Option<&Cache>,
        now_secs: Option<i64>,
        must: bool,
    ) -> Result<Self> {
        let fresh = place.and_then(PackLook::load).zip(now_secs).filter(|(look, now)| look.is_fresh(*now));
        let prefetched = repository.prefetched(Area::Packs);
        if named > MANY_PACKS && fresh.is_some() && prefetched.is_none() && !must {
            return Ok(Self::Trusted);
        }
        let backend = repository.backend().as_ref();
        let listed: Vec<Listed> = match prefetched {
            Some(listed) => listed,
            None if named > MANY_PACKS => list_packs_by_directory(backend)?,
            None => list_area(backend, Area::Packs)?,
        };
        if let (Some(place), Some(at_secs)) = (place, now_secs) {
            let many = named > MANY_PACKS;
            if many || PackLook::load(place).is_some() {
                PackLook { at_secs, packs: named }.store(place);
            }
        }
        Ok(Self::Listed(listed.iter().map(|pack| (pack.id, pack.size)).collect()))
    }

    /// Whether a pack is there in the length that the index gives.
    pub(crate) fn has(&self, pack: &PackInfo) -> bool {
        match self {
            Self::Listed(packs) => packs.get(&pack.id) == Some(&pack.size),
            Self::Trusted => true,
        }
    }

    /// All that were listed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ObjectId, u64)> + '_ {
        let listed = match self {
            Self::Listed(packs) => Some(packs.iter().map(|(id, size)| (*id, *size))),
            Self::Trusted => None,
        };
        listed.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_good_for_a_day() {
        let look = PackLook { at_secs: 1000, packs: 20_000 };
        let day = 86_400;
        for (now, fresh) in [(1000, true), (999 + day, true), (1000 + day, false), (999, false)] {
            assert_eq!(look.is_fresh(now), fresh, "{now}");
        }
    }

    #[test]
    fn it_is_remembered_by_place() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (Cache::of_place(dir.path(), "here"), Cache::of_place(dir.path(), "there"));
        assert_eq!(areas_of_a_backup(Some(&here)).last(), Some(&Area::Packs));
        PackLook { at_secs: -5, packs: MANY_PACKS + 1 }.store(&here);
        assert_eq!(PackLook::load(&here), Some(PackLook { at_secs: -5, packs: MANY_PACKS + 1 }));
        assert_eq!(PackLook::load(&there), None);
        assert_eq!(areas_of_a_backup(Some(&here)), [Area::Index, Area::Snapshots, Area::Marks]);
        here.write(FILE, b"nonsense").unwrap();
        assert_eq!(PackLook::load(&here), None);
    }
}
