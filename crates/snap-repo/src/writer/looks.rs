//! The looks at what a prune does meanwhile (F27).

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use snap_backend::ErrorKind;
use snap_format::{ObjectId, PackHeader};

use super::members::Member;
use super::{CopySet, Writer, lock};
use crate::index::check_box_size;
use crate::listing::{Listed, list_area};
use crate::pack::parse_pack;
use crate::{Area, Index, PackInfo, RepoError, Repository, Result, for_each_parallel, object_name};

impl Writer {
    /// Moves the blobs of packs that this run relies on, its own among them, and that a prune has marked meanwhile, in each
    /// copy for itself.
    pub(super) fn leave_marked_packs(&self) -> Result<()> {
        let left_any = AtomicBool::new(false);
        self.members.each(self.members.living(), |to, member| {
            let now_marked = member.marks_now()?;
            let relied_on: Vec<ObjectId> = {
                let marked = lock(&member.marked);
                now_marked.difference(&marked).filter(|pack| member.relies_on(pack)).copied().collect()
            };
            for pack in &relied_on {
                self.move_pack(member, to, pack)?;
                left_any.store(true, Ordering::Relaxed);
            }
            // What is not known because the cache is damaged must not pass for unused.
            member.index.check()?;
            *lock(&member.marked) = now_marked;
            Ok(())
        })?;
        if left_any.into_inner() { self.flush() } else { Ok(()) }
    }

    fn move_pack(&self, member: &Member, to: CopySet, id: &ObjectId) -> Result<()> {
        let bytes = match member.repository.backend().get(&object_name(Area::Packs, id)) {
            Ok(bytes) => bytes,
            // Gone, or not for these credentials: the next run stores anew what this one cannot move.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Permission) => {
                return Err(RepoError::Overtaken);
            }
            Err(error) => return Err(error.into()),
        };
        crate::verify::check_name(&object_name(Area::Packs, id), id, &bytes)?;
        let opened = parse_pack(member.repository.keyring(), *id, &bytes)?;
        for unit in PackHeader::units(&opened.pack.blobs) {
            let sealed = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
            let run_key = opened.pack.run_keys[usize::from(unit.blobs[0].run_key)];
            self.push(opened.pack.kind, unit.blobs, run_key, sealed, to)?;
        }
        Ok(())
    }

    /// F27 d: after the snapshot is there. If index objects vanished, a prune ran: each pack that was relied on must still
    /// be named by an index.
    ///
    /// First the marks, then the index, and not both at once: a prune that has not seen the snapshot put its marks before that, and
    /// takes them away only after the index objects (F26). So either its mark is still listed, or what it did to the index
    /// shows in a listing that begins after that of the marks has ended; in one that is taken meanwhile it need not.
    pub(super) fn last_look(&self) -> Result<()> {
        self.leave_marked_packs()?;
        self.members.each(self.members.living(), |_, member| member.look_at_index(&self.domain.name))
    }
}

impl Member {
    fn marks_now(&self) -> Result<HashSet<ObjectId>> {
        let listing = list_area(self.repository.backend().as_ref(), Area::Marks)?;
        read_marks(&self.repository, listing)
    }

    fn relies_on(&self, pack: &ObjectId) -> bool {
        let is_used = |number: u32| self.used[number as usize].load(Ordering::Relaxed);
        self.written.has_pack(pack) || self.index.pack_numbers(pack).any(is_used)
    }

    fn look_at_index(&self, domain: &str) -> Result<()> {
        let listed: HashSet<ObjectId> =
            self.repository.list(Area::Index)?.into_iter().map(|(id, _)| id).collect();
        let own = self.written.index_objects();
        if self.index.objects().iter().chain(&own).all(|id| listed.contains(id)) {
            return Ok(());
        }
        let (fresh, _) = Index::load(&self.repository, self.cache.as_ref())?;
        let is_used = |pack: &PackInfo| self.used[pack.number as usize].load(Ordering::Relaxed);
        let gone: HashSet<u32> = self
            .index
            .packs()
            .filter(|pack| is_used(pack) && !fresh.names_pack(&pack.id, &pack.domain))
            .flat_map(|pack| self.index.pack_numbers(&pack.id).collect::<Vec<_>>())
            .collect();
        let marked = lock(&self.marked);
        let is_there = |pack: &ObjectId| marked.contains(pack) || fresh.names_pack(pack, domain);
        if !self.written.packs().iter().all(is_there) {
            return Err(RepoError::Overtaken);
        }
        let all_elsewhere = gone.is_empty()
            || self
                .index
                .plain_lens(domain)
                .filter(|(id, _)| self.index.packs_of(domain, id, |pack| gone.contains(&pack)))
                .all(|(id, _)| fresh.plain_len(domain, &id).is_some());
        // What is not known because the cache is damaged is not gone, and not there either.
        self.index.check()?;
        fresh.check()?;
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
