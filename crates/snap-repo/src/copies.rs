//! Copies: sibling repositories that share repository id, epochs, keys and ids (`docs/format.md` §2).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use snap_backend::{Backend, Bytes, PutOutcome};
use snap_crypto::hash;
use snap_format::{Config, ObjectId, RecordBody, Time, limits};

use crate::index::check_box_size;
use crate::listing::list_area;
use crate::names::{CONFIG, CONFIG_BACKUP, fixed_name};
use crate::open::{read_config, read_epochs};
use crate::snapshot_area::Known;
use crate::{Area, RepoError, Repository, Result, for_each_parallel, object_name};

/// How the epochs of a copy stand to those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epochs {
    /// The same.
    Same,
    /// It lacked so many of the other's, and has them now, or is to get them.
    Behind(usize),
    /// It has later ones.
    Ahead,
}

impl Repository {
    /// Fails unless `other` is a copy of this repository, opened with the same slot under the same keys.
    pub(crate) fn has_same_keys(&self, other: &Self) -> Result<()> {
        let (own, others) = (self.keyring(), other.keyring());
        if self.id() != other.id() || self.inner.config.first_epoch != other.inner.config.first_epoch {
            return Err(RepoError::NoCopy { location: other.backend().location() });
        }
        if own.head != others.head || own.slot != others.slot {
            return Err(RepoError::Refused(format!(
                "the copy at {} is open with another key, or has other keys",
                other.backend().location()
            )));
        }
        Ok(())
    }

    /// How the epochs of an opened copy stand to those of this one.
    pub fn compare_epochs(&self, copy: &Self) -> Result<Epochs> {
        if self.id() != copy.id() || self.inner.config.first_epoch != copy.inner.config.first_epoch {
            return Err(RepoError::NoCopy { location: copy.backend().location() });
        }
        if self.inner.head.name == copy.inner.head.name {
            return Ok(Epochs::Same);
        }
        if let Some(behind) = self.inner.lineage.iter().position(|name| *name == copy.inner.head.name) {
            return Ok(Epochs::Behind(behind));
        }
        if copy.inner.lineage.contains(&self.inner.head.name) {
            return Ok(Epochs::Ahead);
        }
        Err(RepoError::CopiesForked { here: self.backend().location(), there: copy.backend().location() })
    }

    /// Puts the epochs of this repository that the copy at `target` lacks there, byte for byte, oldest first. Whoever may put
    /// objects may do so: they are signed. What the copy has beyond them stays; it is told if that is a fork.
    pub fn bring_epochs(&self, target: &dyn Backend) -> Result<Epochs> {
        let config = read_config(target)?;
        if config.repository != self.id() || config.first_epoch != self.inner.config.first_epoch {
            return Err(RepoError::NoCopy { location: target.location() });
        }
        let listed = list_area(target, Area::Epochs)?;
        let there: HashSet<ObjectId> = listed.iter().map(|object| object.id).collect();
        let own: HashSet<ObjectId> = self.inner.valid.iter().copied().collect();
        let objects = read_epochs(target, &listed, &mut Vec::new())?;
        let chain = crate::epochs::verify_chain(config.repository, config.first_epoch, &objects);
        // A chain that cannot be verified without what is missing is repaired by bringing it.
        if let Ok(chain) = chain {
            let beyond = chain.valid.keys().any(|name| !own.contains(name));
            if beyond && chain.lineage().contains(&self.inner.head.name) {
                return Ok(Epochs::Ahead);
            }
            if beyond {
                return Err(RepoError::CopiesForked {
                    here: self.backend().location(),
                    there: target.location(),
                });
            }
        }
        let missing: Vec<ObjectId> =
            self.inner.valid.iter().filter(|name| !there.contains(name)).copied().collect();
        for name in &missing {
            self.put_epoch_into(name, target)?;
        }
        Ok(if missing.is_empty() { Epochs::Same } else { Epochs::Behind(missing.len()) })
    }

    /// Puts an epoch of this repository into a copy that has all before it.
    pub fn bring_epoch(&self, epoch: &ObjectId, target: &dyn Backend) -> Result<()> {
        self.put_epoch_into(epoch, target)
    }

    fn put_epoch_into(&self, id: &ObjectId, target: &dyn Backend) -> Result<()> {
        let name = object_name(Area::Epochs, id);
        let bytes = self.backend().get(&name)?;
        crate::verify::check_name(&name, id, &bytes)?;
        target.put(&name, bytes)?;
        Ok(())
    }

    /// Makes a copy of this repository at `target`, without any data yet: the epochs, then a config of its own (F6). Refuses a
    /// place where a repository is.
    pub fn create_copy(&self, target: &dyn Backend, now: Time) -> Result<()> {
        for name in [CONFIG, CONFIG_BACKUP] {
            if target.exists(&fixed_name(name))? {
                return Err(RepoError::AlreadyExists(target.location()));
            }
        }
        for name in &self.inner.valid {
            self.put_epoch_into(name, target)?;
        }
        let config = Config { copy: snap_crypto::random()?, created: now, ..self.config().clone() };
        put_config(target, &config)
    }
}

/// What is moved from copy to copy besides blobs.
impl Repository {
    /// The bytes of snapshots of this copy, wherever they stand.
    pub fn snapshot_bytes(&self, wanted: &HashSet<ObjectId>) -> Result<HashMap<ObjectId, Bytes>> {
        let mut out = HashMap::new();
        for object in self.read_snapshot_area(Known::FromCache)? {
            if !object.snapshots.iter().any(|it| wanted.contains(&it.id) && !out.contains_key(&it.id)) {
                continue;
            }
            let Some(bytes) = self.get_snapshot_object(&object.listed)? else { continue };
            match self.parse_snapshot_bundle(&object.listed.id, &bytes)? {
                Some(bundle) => {
                    for member in bundle.members {
                        let id = ObjectId(hash(&member.bytes));
                        if wanted.contains(&id) {
                            out.insert(id, member.bytes.into());
                        }
                    }
                }
                None => {
                    self.parse_snapshot(&object.listed.id, &bytes)?;
                    out.insert(object.listed.id, bytes);
                }
            }
        }
        Ok(out)
    }

    /// Puts the pins and tags of this copy into another that lacks them, byte for byte. Returns how many there were.
    pub fn bring_records(&self, target: &Self) -> Result<u64> {
        let there: HashSet<ObjectId> = target.list(Area::Records)?.into_iter().map(|(id, _)| id).collect();
        let mut missing = self.list(Area::Records)?;
        missing.retain(|(id, _)| !there.contains(id));
        let brought = AtomicU64::new(0);
        for_each_parallel(&missing, self.backend().parallelism(), |(id, size)| {
            let name = object_name(Area::Records, id);
            if check_box_size(&name, *size).is_err() {
                return Ok(());
            }
            let bytes = self.backend().get(&name)?;
            // What is damaged or forged stays where it is, for `check` to tell of.
            let kind = self.parse_record(id, &bytes).map(|record| record.kind);
            if kind.is_ok_and(|kind| ["pin", "unpin", "tag"].contains(&kind.as_str())) {
                target.backend().put(&name, bytes)?;
                brought.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, RepoError>(())
        })?;
        Ok(brought.into_inner())
    }

    /// Writes down that snapshots which this copy never had were forgotten elsewhere. Owners only.
    pub fn note_forgotten(&self, snapshots: &[ObjectId], time: Time) -> Result<()> {
        for part in snapshots.chunks(limits::ITEMS) {
            self.put_record_about(&RecordBody::Forget(part.to_vec()), time)?;
        }
        Ok(())
    }
}

/// Writes the config, both times; fails if somebody else has made a repository there meanwhile.
pub(crate) fn put_config(backend: &dyn Backend, config: &Config) -> Result<()> {
    let mut bytes = config.encode();
    bytes.extend_from_slice(&hash(&bytes));
    let bytes = Bytes::from(bytes);
    if backend.put(&fixed_name(CONFIG), bytes.clone())? == PutOutcome::Existed {
        return Err(RepoError::AlreadyExists(backend.location()));
    }
    backend.put(&fixed_name(CONFIG_BACKUP), bytes)?;
    Ok(())
}
