use snap_format::ObjectId;

use crate::listing::{Listed, list_area, list_packs_by_directory};
use crate::{Area, Cache, Repository, Result};

/// With more packs than this a listing is many requests: then it is taken once a day.
pub(crate) const MANY_PACKS: u64 = 10_000;
/// How long a listing of many packs is good for, seconds.
const LOOK_SECS: i64 = 24 * 60 * 60;

const FILE: &str = "packs-look";

/// When this machine listed the packs of a store last, how many the index named then, and by which index objects. Kept by the
/// store's place, so that it is known before the repository is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackLook {
    at_secs: i64,
    packs: u64,
    index: ObjectId,
}

/// Index objects, as a set: those that the look was compared with and those that this machine wrote since. Another one may
/// name packs that are gone: that of a writer which was suspended while a prune took its packs away.
pub(crate) fn index_digest<'a>(objects: impl IntoIterator<Item = &'a ObjectId>) -> ObjectId {
    let mut ids: Vec<ObjectId> = objects.into_iter().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
    ObjectId(snap_crypto::hash(&bytes))
}

impl PackLook {
    fn load(place: &Cache) -> Option<Self> {
        let text = String::from_utf8(place.read(FILE)?).ok()?;
        let [at, packs, index] = text.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            at_secs: at.parse().ok()?,
            packs: packs.parse().ok()?,
            index: ObjectId::from_hex(index)?,
        })
    }

    fn store(self, place: &Cache) {
        // Without a memory the next run looks again.
        let _ = place.write(FILE, format!("{} {} {}\n", self.at_secs, self.packs, self.index).as_bytes());
    }

    /// After a run: the look is good for these index objects as well.
    pub(crate) fn extend(place: &Cache, before: ObjectId, after: ObjectId) {
        if let Some(look) = Self::load(place).filter(|look| look.index == before && look.packs > MANY_PACKS) {
            Self { index: after, ..look }.store(place);
        }
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
    /// Sorted by name.
    Listed(Vec<(ObjectId, u64)>),
    /// This machine looked within a day.
    Trusted,
}

impl StoredPacks {
    /// F27 a. `index` is the digest of the index objects; `must` if the listing is needed for something else, too; `now_secs`
    /// by the caller's clock, without which it is always taken.
    pub(crate) fn look(
        repository: &Repository,
        named: u64,
        index: ObjectId,
        place: Option<&Cache>,
        now_secs: Option<i64>,
        must: bool,
    ) -> Result<Self> {
        let fresh = place
            .and_then(PackLook::load)
            .zip(now_secs)
            .filter(|(look, now)| look.is_fresh(*now) && look.index == index);
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
                PackLook { at_secs, packs: named, index }.store(place);
            }
        }
        Ok(Self::Listed(listed.iter().map(|pack| (pack.id, pack.size)).collect()))
    }

    /// All that were listed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ObjectId, u64)> + '_ {
        let listed = match self {
            Self::Listed(packs) => packs.as_slice(),
            Self::Trusted => &[],
        };
        listed.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_good_for_a_day() {
        let look = PackLook { at_secs: 1000, packs: 20_000, index: ObjectId([0; 32]) };
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
        let look = PackLook { at_secs: -5, packs: MANY_PACKS + 1, index: ObjectId([7; 32]) };
        look.store(&here);
        assert_eq!(PackLook::load(&here), Some(look));
        assert_eq!(PackLook::load(&there), None);
        assert_eq!(areas_of_a_backup(Some(&here)), [Area::Index, Area::Snapshots, Area::Marks]);
        PackLook::extend(&here, ObjectId([8; 32]), ObjectId([9; 32]));
        assert_eq!(PackLook::load(&here), Some(look), "somebody else's index was seen");
        PackLook::extend(&here, ObjectId([7; 32]), ObjectId([9; 32]));
        assert_eq!(PackLook::load(&here), Some(PackLook { index: ObjectId([9; 32]), ..look }));
        here.write(FILE, b"nonsense").unwrap();
        assert_eq!(PackLook::load(&here), None);
    }
}
