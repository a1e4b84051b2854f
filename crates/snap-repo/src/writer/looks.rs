//! A writer's looks at what prunes do (F27), in each copy for itself: nothing that a run relies on may go unnoticed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use snap_backend::ErrorKind;
use snap_format::{BlobId, ObjectId, PackHeader};

use super::members::{Member, Standing};
use super::{CopySet, Writer, lock};
use crate::listing::list_area;
use crate::marks::Marks;
use crate::pack::parse_pack;
use crate::{Area, Index, PackInfo, RepoError, Result, object_name};

/// Prunes that may get in the way of one look before the run gives up.
const MOST_LOOKS: usize = 16;

/// Test-only: takes a part of the protocol out, to see that the tests notice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing: the protocol as it is.
    #[default]
    None,
    /// The writer does not look at the marks between index and snapshot (F27 b).
    NoLookBeforeSnapshot,
    /// The writer does not look once more after its snapshot (F27 d).
    NoLastLook,
    /// The writer does not list the packs that are there when it begins (F27 a).
    NoListOfPacks,
    /// The prune deletes its marks before the packs.
    MarksFirst,
    /// The prune leaves no trace in the marks.
    NoTrace,
    /// The prune lists the snapshots before its marks stand, and not again.
    SnapshotsBeforeMarks,
}

/// Where the blobs of a run are safe: in packs that are there, not marked, and named by the index.
struct Ground<'a> {
    index: Index,
    there: Vec<(ObjectId, u64)>,
    marks: &'a Marks,
    distrust: &'a HashSet<ObjectId>,
}

impl Ground<'_> {
    fn is_there(&self, pack: &ObjectId) -> bool {
        self.there.binary_search_by_key(pack, |(id, _)| *id).is_ok()
    }

    fn is_safe(&self, pack: &ObjectId) -> bool {
        self.is_there(pack) && !self.marks.names(pack) && !self.distrust.contains(pack)
    }

    fn has_safe_place(&self, domain: &str, id: &BlobId) -> bool {
        self.index.locate_all(domain, id).iter().any(|place| self.is_safe(&place.pack_id))
    }
}

impl Writer {
    /// Looks at the marks until nothing has changed since everything was last seen to be safe (F27 b).
    pub(super) fn look(&self) -> Result<()> {
        self.members.each(self.members.living(), |to, member| {
            self.look_at_marks(member, to, &mut lock(&member.standing))
        })
    }

    /// Looks once more at the marks, then at the index (F27 d).
    ///
    /// In this order, and not both at once. A prune that has not seen the snapshot put its marks before that. Either they are
    /// still listed, or what it did to the index before it took them away (F26) shows in a listing that begins when that
    /// of the marks has ended. A listing is not taken in one moment, and that of the marks alone could miss a mark that
    /// goes and the trace that comes meanwhile.
    pub(super) fn last_look(&self) -> Result<()> {
        self.members.each(self.members.living(), |to, member| {
            let standing = &mut *lock(&member.standing);
            for _ in 0..MOST_LOOKS {
                self.look_at_marks(member, to, standing)?;
                let listed = list_area(member.repository.backend().as_ref(), Area::Index)?;
                let is_listed = |id: &ObjectId| listed.binary_search_by_key(id, |listed| listed.id).is_ok();
                let own = member.written.index_objects();
                if standing.relied_on.iter().chain(&own[standing.own_seen..]).all(is_listed) {
                    return Ok(());
                }
                self.seek_safe_ground(member, to, standing)?;
            }
            Err(RepoError::Overtaken)
        })
    }

    fn look_at_marks(&self, member: &Member, to: CopySet, standing: &mut Standing) -> Result<()> {
        for _ in 0..MOST_LOOKS {
            if !standing.marks.refresh(&member.repository)? {
                return Ok(());
            }
            self.seek_safe_ground(member, to, standing)?;
        }
        Err(RepoError::Overtaken)
    }

    fn seek_safe_ground(&self, member: &Member, to: CopySet, standing: &mut Standing) -> Result<()> {
        // Twice: what a prune takes away between the lists and the reads is elsewhere by then.
        if self.stand_on_safe_ground(member, to, standing)?
            || self.stand_on_safe_ground(member, to, standing)?
        {
            Ok(())
        } else {
            Err(RepoError::Overtaken)
        }
    }

    /// Sees to it that all blobs of this run lie in packs that stay: those in packs that a prune has marked are moved.
    /// False if some could not be had.
    fn stand_on_safe_ground(&self, member: &Member, to: CopySet, standing: &mut Standing) -> Result<bool> {
        // Those of before: what is moved now goes into packs that the lists below do not show.
        let stored = member.written.packs();
        let own_seen = member.written.index_objects().len();
        // In this order: a pack that is deleted after the marks were read was marked then, or is by a prune that will see
        // the snapshot; one that was deleted before is not listed.
        let (index, _) = Index::load(&member.repository, member.cache.as_ref())?;
        let there = member.repository.list(Area::Packs)?;
        let ground = Ground { index, there, marks: &standing.marks, distrust: &self.options.distrust };
        let domain = &self.domain.name;
        let mut moves: HashMap<ObjectId, HashSet<BlobId>> = HashMap::new();
        let is_all_there = member.find_endangered(domain, &ground, &mut moves);
        // What is not known because the cache is damaged is not gone, and not there either.
        member.index.check()?;
        ground.index.check()?;
        if !is_all_there {
            return Ok(false);
        }
        for (pack, blobs) in &moves {
            if !self.move_blobs(member, to, pack, |id| blobs.contains(id))? {
                return Ok(false);
            }
        }
        for pack in stored {
            let is_safe = ground.is_safe(&pack) && ground.index.names_pack(&pack, domain);
            if !is_safe && !self.move_blobs(member, to, &pack, |id| !ground.has_safe_place(domain, id))? {
                return Ok(false);
            }
            if !is_safe {
                member.written.forget_pack(&pack);
            }
        }
        ground.index.check()?;
        self.flush()?;
        let relied_on = ground.index.objects().to_vec();
        (standing.relied_on, standing.own_seen) = (relied_on, own_seen);
        Ok(true)
    }

    /// Moves the sealed units of a pack that hold a blob that `wanted` picks into new packs of the same copy. False if the
    /// pack is gone.
    fn move_blobs(
        &self,
        member: &Member,
        to: CopySet,
        id: &ObjectId,
        wanted: impl Fn(&BlobId) -> bool,
    ) -> Result<bool> {
        let name = object_name(Area::Packs, id);
        let bytes = match member.repository.backend().get(&name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            // A slot that may not read packs cannot move them: the next run stores anew what this one cannot move.
            Err(error) if error.kind() == ErrorKind::Permission => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        crate::verify::check_name(&name, id, &bytes)?;
        let opened = parse_pack(member.repository.keyring(), *id, &bytes)?;
        for unit in PackHeader::units(&opened.pack.blobs) {
            if unit.blobs.iter().any(|blob| wanted(&blob.id)) {
                let sealed = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
                let run_key = opened.pack.run_keys[usize::from(unit.blobs[0].run_key)];
                self.push(opened.pack.kind, unit.blobs, run_key, sealed, to)?;
            }
        }
        Ok(true)
    }
}

impl Member {
    /// Blobs in packs that this run relied on and that are no longer safe, by the pack from which they can be had. False if
    /// one is nowhere.
    fn find_endangered(
        &self,
        domain: &str,
        ground: &Ground<'_>,
        moves: &mut HashMap<ObjectId, HashSet<BlobId>>,
    ) -> bool {
        let is_used = |pack: &PackInfo| self.used[pack.number as usize].load(Ordering::Relaxed);
        let is_endangered = |id: &ObjectId| !ground.is_safe(id) || !ground.index.names_pack(id, domain);
        let endangered: HashSet<u32> = self
            .index
            .packs()
            .filter(|pack| is_used(pack) && is_endangered(&pack.id))
            .flat_map(|pack| self.index.pack_numbers(&pack.id).collect::<Vec<_>>())
            .collect();
        if endangered.is_empty() {
            return true;
        }
        for (id, _) in self.index.plain_lens(domain) {
            if !self.index.packs_of(domain, &id, |pack| endangered.contains(&pack))
                || ground.has_safe_place(domain, &id)
            {
                continue;
            }
            let places = self.index.locate_all(domain, &id);
            // From wherever it still lies, marked or not.
            let Some(place) = places.iter().find(|place| ground.is_there(&place.pack_id)) else {
                return false;
            };
            moves.entry(place.pack_id).or_default().insert(id);
        }
        true
    }
}
