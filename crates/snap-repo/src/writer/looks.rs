//! The looks at what a prune does meanwhile (F27).

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use snap_backend::ErrorKind;
use snap_format::{ObjectId, PackHeader};

use super::{Writer, lock};
use crate::index::check_box_size;
use crate::listing::{Listed, list_area};
use crate::pack::parse_pack;
use crate::{Area, Index, RepoError, Repository, Result, for_each_parallel, object_name};

impl Writer {
    /// Moves the blobs of packs that this run relies on, its own among them, and that a prune has marked meanwhile. True
    /// if there were any.
    pub(super) fn leave_marked_packs(&mut self) -> Result<bool> {
        let now_marked =
            read_marks(&self.repository, list_area(self.repository.backend().as_ref(), Area::Marks)?)?;
        let mut left_any = false;
        for pack in now_marked.difference(&self.marked) {
            let is_used = |number: u32| self.used[number as usize].load(Ordering::Relaxed);
            if self.uploader.has_stored(pack) || self.index.pack_numbers(pack).any(is_used) {
                self.move_pack(pack)?;
                left_any = true;
            }
        }
        self.marked = now_marked;
        if left_any {
            self.flush()?;
        }
        Ok(left_any)
    }

    fn move_pack(&self, id: &ObjectId) -> Result<()> {
        let bytes = match self.repository.backend().get(&object_name(Area::Packs, id)) {
            Ok(bytes) => bytes,
            // Gone, or not for these credentials: the next run stores anew what this one cannot move.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Permission) => {
                return Err(RepoError::Overtaken);
            }
            Err(error) => return Err(error.into()),
        };
        crate::verify::check_name(&object_name(Area::Packs, id), id, &bytes)?;
        let opened = parse_pack(self.repository.keyring(), *id, &bytes)?;
        for unit in PackHeader::units(&opened.pack.blobs) {
            let sealed = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
            let run_key = opened.pack.run_keys[usize::from(unit.blobs[0].run_key)];
            self.push(opened.pack.kind, unit.blobs, run_key, sealed)?;
        }
        Ok(())
    }

    /// F27 d: after the snapshot is there. If index objects vanished, a prune ran: each pack that was relied on must still
    /// be named by an index.
    ///
    /// First the marks, then the index, and not both at once: a prune that has not seen the snapshot put its marks before that, and
    /// takes them away only after the index objects (F26). So either its mark is still listed, or what it did to the index
    /// shows in a listing that begins after that of the marks has ended; in one that is taken meanwhile it need not.
    pub(super) fn last_look(&mut self) -> Result<()> {
        self.leave_marked_packs()?;
        let listed: HashSet<ObjectId> =
            self.repository.list(Area::Index)?.into_iter().map(|(id, _)| id).collect();
        let own = self.uploader.index_objects();
        if self.index.objects().iter().chain(&own).all(|id| listed.contains(id)) {
            return Ok(());
        }
        let (fresh, _) = Index::load(&self.repository)?;
        let relied_on =
            self.index.packs().iter().zip(&self.used).filter(|(_, used)| used.load(Ordering::Relaxed));
        let gone: HashSet<u32> = relied_on
            .filter(|(pack, _)| !fresh.names_pack(&pack.id, &pack.domain))
            .flat_map(|(pack, _)| self.index.pack_numbers(&pack.id))
            .collect();
        let domain = &self.domain.name;
        let is_there = |pack: &ObjectId| self.marked.contains(pack) || fresh.names_pack(pack, domain);
        if !self.uploader.stored_packs().iter().all(is_there) {
            return Err(RepoError::Overtaken);
        }
        let all_elsewhere = gone.is_empty()
            || self
                .index
                .iter(domain)
                .filter(|(id, _)| self.index.packs_of(domain, id, |pack| gone.contains(&pack)))
                .all(|(id, _)| fresh.locate(domain, &id).is_some());
        if all_elsewhere { Ok(()) } else { Err(RepoError::Overtaken) }
    }
}

/// Packs that an owner has marked for deletion. A mark that does not verify is no mark.
pub(super) fn read_marks(repository: &Repository, listing: Vec<Listed>) -> Result<HashSet<ObjectId>> {
    let marked = Mutex::new(HashSet::new());
    for_each_parallel(&listing, repository.backend().parallelism(), |Listed { id, size, .. }| {
        let name = object_name(Area::Marks, id);
        if check_box_size(&name, *size).is_err() {
            return Ok(());
        }
        match repository.backend().get(&name) {
            Ok(bytes) => match repository.parse_mark(id, &bytes) {
                Ok(mark) => lock(&marked).extend(mark.packs),
                // One under keys that came after this run began cannot be read, and must not be passed over.
                Err(RepoError::Damaged(_)) => repository.require_known_epoch(&bytes)?,
                Err(error) => return Err(error),
            },
            // Marks go when their prune has ended.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })?;
    Ok(std::mem::take(&mut *lock(&marked)))
}
