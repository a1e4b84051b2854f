//! Bringing back what is damaged: bytes that have the hash in a name belong there, whoever had them (F4).

use std::collections::HashSet;
use std::sync::Mutex;

use snap_backend::{Backend, Bytes, ErrorKind, ObjectName};
use snap_crypto::hash;
use snap_format::{
    CONFIG_CHECKSUM_LEN, Config, HEAD_LEN, Head, IndexObject, IndexedPack, ObjectId, ObjectKind, Time, limits,
};

use crate::copies::put_config;
use crate::listing::list_area;
use crate::marks::Marks;
use crate::names::{CONFIG, CONFIG_BACKUP, fixed_name};
use crate::open::read_config;
use crate::pack::parse_pack;
use crate::verify::check_name;
use crate::writer::{BLOBS_PER_INDEX, lock};
use crate::{
    Area, Cache, Index, RepoError, Repository, Result, for_each_parallel, object_name, snapshot_cache,
};

/// Why nobody else may.
const VERB: &str = "bringing back what is damaged";

impl Repository {
    /// Puts an object where it is missing, or where something stands that is not it. False if it is there already.
    pub fn put_back(&self, area: Area, id: &ObjectId, bytes: Bytes) -> Result<bool> {
        self.keyring().require_owner(VERB)?;
        self.save_misnamed(&object_name(area, id), id)?;
        put_back(self.backend().as_ref(), area, id, bytes)
    }

    /// If a whole object stands under the name of another, it gets its own: it may be all that there is of it.
    fn save_misnamed(&self, name: &ObjectName, id: &ObjectId) -> Result<()> {
        let backend = self.backend().as_ref();
        let Some(bytes) = read_object(backend, name)? else { return Ok(()) };
        let own = ObjectId(hash(&bytes));
        let is_snapshot = || {
            let bundle = self.parse_snapshot_bundle(&own, &bytes);
            bundle.is_ok_and(|bundle| bundle.is_some()) || self.parse_snapshot(&own, &bytes).is_ok()
        };
        let area = if own == *id {
            return Ok(());
        } else if parse_pack(self.keyring(), own, &bytes).is_ok() {
            Area::Packs
        } else if is_snapshot() {
            Area::Snapshots
        } else if self.parse_record(&own, &bytes).is_ok() {
            Area::Records
        } else {
            return Ok(());
        };
        put_back(backend, area, &own, bytes).map(drop)
    }

    /// Takes away what stands at a name without having its hash, if that is so. Returns whether nothing is there any more.
    /// Whoever calls answers for it that nobody misses what it was.
    pub fn remove_damaged(&self, area: Area, id: &ObjectId, time: Time) -> Result<bool> {
        self.keyring().require_owner(VERB)?;
        let name = object_name(area, id);
        match state(self.backend().as_ref(), &name, id)? {
            State::Whole => return Ok(false),
            State::Missing => return Ok(true),
            State::Other => {}
        }
        self.save_misnamed(&name, id)?;
        if area == Area::Marks {
            // It may have been the trace of a prune: writers must see that something has changed (F34).
            self.put_mark(Vec::new(), time)?;
        }
        self.backend().delete(&name)?;
        Ok(true)
    }

    /// Marks packs that are known to be damaged, so far as they are there and not marked: from here on no prune takes them for the
    /// home of a blob that lies elsewhere too, and no writer relies on them. To be done before anything is stored in their place.
    pub fn mark_damaged(&self, packs: &HashSet<ObjectId>, time: Time) -> Result<()> {
        self.keyring().require_owner(VERB)?;
        if packs.is_empty() {
            return Ok(());
        }
        let marks = Marks::read(self)?;
        let mut listed: Vec<ObjectId> = self.list(Area::Packs)?.into_iter().map(|(id, _)| id).collect();
        listed.retain(|id| packs.contains(id) && !marks.names(id));
        listed.chunks(limits::ITEMS).try_for_each(|part| self.put_mark(part.to_vec(), time).map(drop))
    }

    /// Whether a damaged object of `snapshots/` was a bundle of which nothing is missed: all snapshots that this machine remembers
    /// of it are here again or were forgotten, and so are those that others name as the ones before.
    pub fn is_replaceable_bundle(&self, id: &ObjectId, cache: Option<&Cache>) -> Result<bool> {
        let name = object_name(Area::Snapshots, id);
        let head = match self.backend().get_range(&name, 0, HEAD_LEN as u64) {
            Ok(bytes) => Head::decode(&bytes).ok(),
            Err(error) if matches!(error.kind(), ErrorKind::OutOfRange | ErrorKind::Truncated) => None,
            Err(error) => return Err(error.into()),
        };
        let members = cache.and_then(|cache| snapshot_cache::bundle_members(self, cache, id));
        if members.is_none() && head.is_none_or(|head| head.kind != ObjectKind::SnapshotBundle) {
            return Ok(false);
        }
        let (set, overlays) = (self.snapshots()?, self.overlays()?);
        let there: HashSet<ObjectId> = set.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let is_known = |id: &ObjectId| there.contains(id) || overlays.ever_forgotten().contains(id);
        let previous = set.snapshots.iter().filter_map(|snapshot| snapshot.envelope.previous.as_ref());
        Ok(previous.chain(members.iter().flatten()).all(is_known))
    }

    /// Writes index objects for all packs that are there, whole as far as their headers tell, not marked, and named by none.
    /// Returns how many these are.
    pub fn index_unnamed(&self) -> Result<u64> {
        self.keyring().require_owner(VERB)?;
        // In this order: what a prune deletes after the marks were read is marked, or will be by one that sees this index.
        let marks = Marks::read(self)?;
        let (index, _) = Index::load(self, None)?;
        let named: HashSet<ObjectId> = index.packs().map(|pack| pack.id).collect();
        index.check()?;
        let mut unnamed = self.list(Area::Packs)?;
        unnamed.retain(|(id, _)| !named.contains(id) && !marks.names(id));
        let found: Mutex<Vec<IndexedPack>> = Mutex::default();
        for_each_parallel(&unnamed, self.backend().parallelism(), |(id, size)| {
            match self.read_pack_header(*id, *size) {
                Ok((_, pack)) => lock(&found).push(pack),
                Err(RepoError::Damaged(_)) => {}
                Err(error) if error.is_newer() => {}
                Err(RepoError::Backend(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        let packs = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = packs.len() as u64;
        let (mut batch, mut blobs) = (Vec::new(), 0);
        for pack in packs {
            blobs += pack.blobs.len();
            batch.push(pack);
            if blobs >= BLOBS_PER_INDEX {
                self.name_packs(std::mem::take(&mut batch))?;
                blobs = 0;
            }
        }
        self.name_packs(batch)?;
        Ok(count)
    }

    fn name_packs(&self, packs: Vec<IndexedPack>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let payload = IndexObject { packs, replaces: Vec::new() }.encode();
        self.put_box(Area::Index, ObjectKind::Index, &payload).map(drop)
    }

    /// Puts the epochs of this repository back into a copy in which they are damaged or missing, and makes its config whole: from
    /// the other of the two, or, if both are lost, anew. Returns the names of what was put. What the copy has beyond that
    /// stays; it is told if that is a fork. Nothing is put into a place that shows no sign of being a copy.
    pub fn put_back_keys(&self, target: &dyn Backend, now: Time) -> Result<Vec<String>> {
        self.keyring().require_owner(VERB)?;
        let is_own = |id: &ObjectId| self.inner.valid.contains(id);
        let has_own = list_area(target, Area::Epochs)?.iter().any(|object| is_own(&object.id));
        if !has_own && !read_config(target).is_ok_and(|config| config.repository == self.id()) {
            return Err(RepoError::NoRepository(target.location()));
        }
        let mut put = self.put_back_config(target, now)?;
        let listed = list_area(target, Area::Epochs)?;
        for id in listed.into_iter().map(|object| object.id).filter(is_own) {
            let name = object_name(Area::Epochs, &id);
            let own = self.backend().get(&name)?;
            if put_back(target, Area::Epochs, &id, own)? {
                put.push(name.to_string());
            }
        }
        let before: HashSet<ObjectId> =
            list_area(target, Area::Epochs)?.into_iter().map(|object| object.id).collect();
        self.bring_epochs(target)?;
        let missing = self.inner.valid.iter().filter(|id| !before.contains(id));
        let there = list_area(target, Area::Epochs)?;
        let is_there = |id: &&ObjectId| there.iter().any(|object| object.id == **id);
        put.extend(missing.filter(is_there).map(|id| object_name(Area::Epochs, id).to_string()));
        Ok(put)
    }

    /// Makes the config of this copy whole again from whichever of the two is. Returns the name of what was put.
    pub fn put_back_own_config(&self, now: Time) -> Result<Vec<String>> {
        self.keyring().require_owner(VERB)?;
        self.put_back_config(self.backend().as_ref(), now)
    }

    fn put_back_config(&self, target: &dyn Backend, now: Time) -> Result<Vec<String>> {
        let mut whole: Vec<(&str, Option<Bytes>)> = Vec::new();
        for name in [CONFIG, CONFIG_BACKUP] {
            let bytes = match target.get(&fixed_name(name)) {
                Ok(bytes) => Some(bytes).filter(|bytes| has_checksum(bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            whole.push((name, bytes));
        }
        let good = whole.iter().find_map(|(_, bytes)| bytes.clone());
        match read_config(target) {
            Ok(_) => {}
            Err(RepoError::Damaged(_) | RepoError::NoRepository(_)) if good.is_none() => {
                [CONFIG, CONFIG_BACKUP].iter().try_for_each(|name| target.delete(&fixed_name(name)))?;
                let config = Config { copy: snap_crypto::random()?, created: now, ..self.config().clone() };
                put_config(target, &config)?;
                return Ok(vec![CONFIG.to_owned(), CONFIG_BACKUP.to_owned()]);
            }
            // Two that differ, or one of a newer version: a person has to judge.
            Err(error) => return Err(error),
        }
        let mut put = Vec::new();
        for (name, _) in whole.iter().filter(|(_, bytes)| bytes.is_none()) {
            if let Some(good) = &good {
                target.delete(&fixed_name(name))?;
                target.put(&fixed_name(name), good.clone())?;
                put.push((*name).to_owned());
            }
        }
        Ok(put)
    }
}

fn has_checksum(config: &[u8]) -> bool {
    config.split_last_chunk::<CONFIG_CHECKSUM_LEN>().is_some_and(|(body, checksum)| hash(body) == *checksum)
}

/// What stands at a name.
enum State {
    Missing,
    Whole,
    Other,
}

fn state(target: &dyn Backend, name: &ObjectName, id: &ObjectId) -> Result<State> {
    match target.exists(name)? {
        false => Ok(State::Missing),
        true => match read_object(target, name)? {
            Some(bytes) if hash(&bytes) == id.0 => Ok(State::Whole),
            _ => Ok(State::Other),
        },
    }
}

/// The bytes of an object, unless it is gone, or too large to be one.
fn read_object(target: &dyn Backend, name: &ObjectName) -> Result<Option<Bytes>> {
    let read = target.stat(name).and_then(|meta| match meta.size_bytes <= limits::PACK {
        true => target.get(name).map(Some),
        false => Ok(None),
    });
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(read?),
    }
}

fn put_back(target: &dyn Backend, area: Area, id: &ObjectId, bytes: Bytes) -> Result<bool> {
    let name = object_name(area, id);
    check_name(&name, id, &bytes)?;
    match state(target, &name, id)? {
        State::Whole => return Ok(false),
        // A put leaves alone what is there.
        State::Other => target.delete(&name)?,
        State::Missing => {}
    }
    target.put(&name, bytes)?;
    Ok(true)
}
