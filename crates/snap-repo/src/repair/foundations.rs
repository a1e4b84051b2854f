//! What must be there before a key opens anything: the config, and the chain of epochs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use snap_backend::{Backend, BackendError, Bytes, ErrorKind, ObjectMeta, ObjectName, PutOutcome};
use snap_crypto::hash;
use snap_format::{Config, Epoch, ObjectId, RepoId, limits};

use crate::names::{CONFIG, CONFIG_BACKUP, fixed_name};
use crate::open::{HEAD_FILE, choose_config};
use crate::{Area, Cache, Finding, FindingCode, RepoError, Repository, Result, Secret, object_name};

/// An object that is to be written again.
#[derive(Debug, Clone)]
pub struct Patch {
    /// Its name.
    pub name: ObjectName,
    /// Its bytes.
    pub bytes: Bytes,
    /// What is wrong with the one that is there, or that there is none.
    pub finding: Finding,
    /// Where the bytes come from.
    pub source: &'static str,
}

/// Config and epochs as they should be.
#[derive(Debug, Default)]
pub struct Foundations {
    /// What is to be written.
    pub patches: Vec<Patch>,
    /// Objects in `epochs/` whose bytes are not what their names say, and that nothing names.
    pub stray_epochs: Vec<ObjectId>,
    give_up: bool,
}

/// What was read.
struct Found {
    config: Option<Config>,
    whole: Option<Bytes>,
    bad_configs: Vec<Finding>,
    epochs: BTreeMap<ObjectId, (Bytes, Epoch)>,
    damaged: BTreeSet<ObjectId>,
}

impl Foundations {
    /// Looks at config and epochs, and finds out how to bring back what is lost: a config from its twin or from the epochs, an
    /// epoch from the caches below `caches`. A config from epochs is believed if `secret` opens what it leads to. With `give_up`
    /// it goes on without epochs that something names and that are nowhere, but for the first: whoever can write to the store
    /// can make up names.
    pub fn examine(
        backend: &Arc<dyn Backend>,
        secret: &Secret,
        caches: Option<&Path>,
        give_up: bool,
    ) -> Result<Self> {
        let mut found = read(backend.as_ref())?;
        let mut out = Self { give_up, ..Self::default() };
        if let (Some(config), Some(bytes)) = (found.config.clone(), found.whole.clone()) {
            out.restore_configs(&found, &bytes, "the other one");
            out.restore_epochs(&mut found, config.repository, config.first_epoch, caches)?;
            return Ok(out);
        }
        if found.epochs.is_empty() && found.bad_configs.iter().all(|bad| bad.code == FindingCode::Missing) {
            return Err(RepoError::NoRepository(backend.location()));
        }
        for config in configs_of(&found.epochs)? {
            let mut attempt = Self { give_up, ..Self::default() };
            let mut bytes = config.encode();
            bytes.extend_from_slice(&hash(&bytes));
            attempt.restore_configs(
                &found,
                &bytes.into(),
                "the first epoch; the id of the copy is a new one",
            );
            if attempt.restore_epochs(&mut found, config.repository, config.first_epoch, caches).is_err() {
                continue;
            }
            match Repository::open(attempt.over(backend), secret) {
                Ok(_) => return Ok(attempt),
                Err(RepoError::Backend(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let why = "config and config.bak are both lost, and no epoch that is here leads to a repository that this key opens: \
                   copy `config` from another copy of this repository (it may be any copy), then run this again";
        Err(RepoError::from(Finding::new(FindingCode::Missing, CONFIG, why)))
    }

    fn restore_configs(&mut self, found: &Found, bytes: &Bytes, source: &'static str) {
        for finding in &found.bad_configs {
            let name = if finding.object == CONFIG { CONFIG } else { CONFIG_BACKUP };
            let (name, finding) = (fixed_name(name), finding.clone());
            self.patches.push(Patch { name, bytes: bytes.clone(), finding, source });
        }
    }

    /// Every epoch from the first to the newest that is known must be there.
    fn restore_epochs(
        &mut self,
        found: &mut Found,
        repository: RepoId,
        first: ObjectId,
        caches: Option<&Path>,
    ) -> Result<()> {
        let cache = caches.map(|base| Cache::new(base, repository));
        let seen = cache.as_ref().and_then(|cache| cache.read(HEAD_FILE));
        let seen = seen.and_then(|hex| ObjectId::from_hex(std::str::from_utf8(&hex).ok()?));
        let named = found.epochs.values().filter_map(|(_, epoch)| epoch.previous);
        let mut wanted: Vec<ObjectId> = named.chain([first]).chain(seen).collect();
        let mut lost: HashMap<ObjectId, Finding> = HashMap::new();
        while let Some(id) = wanted.pop() {
            if found.epochs.contains_key(&id) || lost.contains_key(&id) {
                continue;
            }
            let name = object_name(Area::Epochs, &id);
            let finding = match found.damaged.remove(&id) {
                true => Finding::new(
                    FindingCode::Corrupt,
                    name.as_str(),
                    "its bytes do not have the hash in its name",
                ),
                false => Finding::new(
                    FindingCode::Missing,
                    name.as_str(),
                    "the config, a later epoch or this machine names it",
                ),
            };
            let cached = cache.as_ref().and_then(|cache| cache.read(name.as_str()));
            let cached = cached.filter(|bytes| hash(bytes) == id.0);
            match cached.and_then(|bytes| Some((Epoch::decode(&bytes).ok()?.0, Bytes::from(bytes)))) {
                Some((epoch, bytes)) => {
                    wanted.extend(epoch.previous);
                    found.epochs.insert(id, (bytes.clone(), epoch));
                    self.patches.push(Patch { name, bytes, finding, source: "this machine's cache" });
                }
                None => {
                    lost.insert(id, finding);
                }
            }
        }
        if self.give_up {
            lost.retain(|id, _| *id == first);
        }
        match lost.into_values().min() {
            Some(mut finding) => {
                finding.why = format!(
                    "{}; the cache of this machine does not have it, and what was written under its keys cannot be read \
                     without it: copy this object from another copy of the repository, or run `snap repair` on a machine \
                     that has used the repository since, then run this again",
                    finding.why
                );
                Err(RepoError::from(finding))
            }
            None => {
                self.stray_epochs = found.damaged.iter().copied().collect();
                Ok(())
            }
        }
    }

    /// The store as it is when this is done; nothing is written.
    pub fn over(&self, backend: &Arc<dyn Backend>) -> Arc<dyn Backend> {
        if self.patches.is_empty() {
            return Arc::clone(backend);
        }
        let patches = self.patches.iter().map(|patch| (patch.name.clone(), patch.bytes.clone())).collect();
        Arc::new(Patched { inner: Arc::clone(backend), patches })
    }

    /// Removes objects that are no epochs and that nothing names. That nothing is sealed under a lost epoch is up to whoever
    /// calls.
    pub fn remove_strays(&self, repository: &Repository) -> Result<()> {
        repository.keyring().require_owner("removing a damaged epoch")?;
        for id in &self.stray_epochs {
            repository.backend().delete(&object_name(Area::Epochs, id))?;
        }
        Ok(())
    }

    /// Writes what is lost; a damaged object gives way to it.
    pub fn write(&self, backend: &dyn Backend) -> Result<()> {
        for Patch { name, bytes, finding, .. } in &self.patches {
            if finding.code != FindingCode::Missing {
                backend.delete(name)?;
            }
            backend.put(name, bytes.clone())?;
        }
        Ok(())
    }
}

fn read(backend: &dyn Backend) -> Result<Found> {
    let mut found = Found {
        config: None,
        whole: None,
        bad_configs: Vec::new(),
        epochs: BTreeMap::new(),
        damaged: BTreeSet::new(),
    };
    let configs = [CONFIG, CONFIG_BACKUP].map(|name| (name, backend.get(&fixed_name(name))));
    let bytes: Vec<Bytes> = configs.iter().filter_map(|(_, read)| read.as_ref().ok().cloned()).collect();
    match choose_config(configs, &backend.location()) {
        Ok((config, bad)) => {
            found.whole = bytes.iter().find(|bytes| is_whole(bytes)).cloned();
            (found.config, found.bad_configs) = (Some(config), bad);
        }
        Err(RepoError::NoRepository(_)) => {
            let missing = |name| Finding::new(FindingCode::Missing, name, "it is not there");
            found.bad_configs = vec![missing(CONFIG), missing(CONFIG_BACKUP)];
        }
        // Both are whole, and differ: nobody but a person can tell which is right.
        Err(RepoError::Damaged(_)) if bytes.len() == 2 && bytes.iter().all(|bytes| is_whole(bytes)) => {
            let why = "it differs from config.bak, and both are whole: remove the one that does not belong to this \
                       repository";
            return Err(RepoError::from(Finding::new(FindingCode::Corrupt, CONFIG, why)));
        }
        Err(RepoError::Damaged(_)) => {
            for name in [CONFIG, CONFIG_BACKUP] {
                let finding = match backend.exists(&fixed_name(name))? {
                    true => Finding::new(FindingCode::Corrupt, name, "its checksum does not fit"),
                    false => Finding::new(FindingCode::Missing, name, "it is not there"),
                };
                found.bad_configs.push(finding);
            }
        }
        Err(error) => return Err(error),
    }
    for listed in crate::listing::list_area(backend, Area::Epochs)? {
        let name = object_name(Area::Epochs, &listed.id);
        if listed.size > limits::EPOCH as u64 {
            found.damaged.insert(listed.id);
            continue;
        }
        let bytes = match backend.get(&name) {
            Ok(bytes) if hash(&bytes) == listed.id.0 => bytes,
            Ok(_) => {
                found.damaged.insert(listed.id);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        match Epoch::decode(&bytes) {
            Ok((epoch, ..)) => {
                found.epochs.insert(listed.id, (bytes.clone(), epoch));
            }
            Err(error) if error.is_newer() => {
                return Err(RepoError::Newer { object: name.to_string(), source: Box::new(error) });
            }
            // Whole, and no epoch: nobody needs it, and opening says so.
            Err(_) => {}
        }
    }
    Ok(found)
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<32>().is_some_and(|(body, checksum)| hash(body) == *checksum)
}

/// Every config to which the epochs may belong; the key tells which it is.
fn configs_of(epochs: &BTreeMap<ObjectId, (Bytes, Epoch)>) -> Result<Vec<Config>> {
    let mut firsts: BTreeMap<(RepoId, ObjectId), snap_format::Time> = BTreeMap::new();
    for (id, (_, epoch)) in epochs {
        match epoch.number {
            0 => firsts.insert((epoch.repository, *id), epoch.created),
            1 => epoch.previous.and_then(|first| {
                firsts.entry((epoch.repository, first)).or_insert(epoch.created);
                None
            }),
            _ => None,
        };
    }
    let copy = snap_crypto::random()?;
    let config = |((repository, first_epoch), created)| Config {
        repository,
        copy,
        created,
        first_epoch,
        required: Vec::new(),
        optional: Vec::new(),
    };
    Ok(firsts.into_iter().map(config).collect())
}

/// A store in which some objects are others than those that are there.
#[derive(Debug)]
struct Patched {
    inner: Arc<dyn Backend>,
    patches: HashMap<ObjectName, Bytes>,
}

impl Backend for Patched {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.patches.get(name).cloned().map_or_else(|| self.inner.get(name), Ok)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        match self.patches.get(name) {
            Some(bytes) if offset.checked_add(len).is_some_and(|end| end <= bytes.len() as u64) => {
                Ok(bytes.slice(offset as usize..(offset + len) as usize))
            }
            _ => self.inner.get_range(name, offset, len),
        }
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        match self.patches.get(name) {
            Some(bytes) => {
                Ok(ObjectMeta { name: name.clone(), size_bytes: bytes.len() as u64, modified: None })
            }
            None => self.inner.stat(name),
        }
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        for (name, bytes) in self.patches.iter().filter(|(name, _)| name.as_str().starts_with(prefix)) {
            each(ObjectMeta { name: name.clone(), size_bytes: bytes.len() as u64, modified: None })?;
        }
        self.inner.list(prefix, &mut |meta| match self.patches.contains_key(&meta.name) {
            true => Ok(()),
            false => each(meta),
        })
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.inner.delete(name)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn local_root(&self) -> Option<&Path> {
        self.inner.local_root()
    }

    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.inner.sweep_stale_temporaries()
    }
}
