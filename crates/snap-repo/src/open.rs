use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use snap_backend::{Backend, BackendError, Bytes, ErrorKind, ObjectMeta, ObjectName, PutOutcome};
use snap_crypto::{SealKey, SignatureKey, Zeroizing, hash};
use snap_format::{
    CONFIG_CHECKSUM_LEN, Config, Epoch, EpochKeys, Head, ObjectId, RepoId, Role, RunKeyEntry, SlotDetails,
    SlotId, Time, limits,
};

use crate::copies::put_config;
use crate::epochs::{
    Chain, EpochDraft, SlotDraft, SlotSecrets, StoredEpoch, open_bundle, open_epoch, verify_chain,
};
use crate::keyring::MAIN_DOMAIN;
use crate::listing::{Listed, Listings, list_all, list_area};
use crate::names::{CONFIG, CONFIG_BACKUP, fixed_name};
use crate::parallel::join;
use crate::writer::lock;
use crate::{
    Area, Cache, Finding, FindingCode, Keyring, RepoError, Result, Secret, for_each_parallel, object_name,
};

/// Where the cache remembers the newest epoch.
pub(crate) const HEAD_FILE: &str = "head";

/// An opened repository. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
    pub(crate) backend: Arc<dyn Backend>,
    /// Of this store: another way to it has its own.
    pub(crate) listings: Arc<Listings>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) keyring: Keyring,
    pub(crate) head: StoredEpoch,
    pub(crate) root: [u8; 32],
    /// The head and all before it.
    pub(crate) lineage: Vec<ObjectId>,
    /// All valid epochs, the oldest first.
    pub(crate) valid: Vec<ObjectId>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) run_keys: Mutex<HashMap<RunKeyEntry, SealKey>>,
    pub(crate) cache: OnceLock<Cache>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.backend.location())
    }
}

impl Repository {
    /// Makes a repository with one owner slot for `secret` and one for a fresh recovery key, which is returned.
    pub fn create(
        backend: &dyn Backend,
        secret: &Secret,
        label: &str,
        now: Time,
    ) -> Result<(RepoId, Secret)> {
        for name in [CONFIG, CONFIG_BACKUP] {
            if backend.exists(&fixed_name(name))? {
                return Err(RepoError::AlreadyExists(backend.location()));
            }
        }
        let repository = RepoId(snap_crypto::random()?);
        let recovery = Secret::random_recovery()?;
        let details = |label: &str| SlotDetails {
            label: label.to_owned(),
            domain: MAIN_DOMAIN.to_owned(),
            created: now,
        };
        let (owner, key) = SlotDraft::new(repository, Role::Owner, secret, details(label), None)?;
        let root = Some(key.public());
        let (spare, _) = SlotDraft::new(repository, Role::Owner, &recovery, details("recovery"), root)?;
        let master = Zeroizing::new(snap_crypto::random()?);
        let signer = owner.id;
        let draft = EpochDraft {
            repository,
            previous: None,
            created: now,
            slots: vec![owner, spare],
            earlier: Vec::new(),
            master: &master,
            signer,
            key: &key,
        };
        let (first_epoch, bytes) = draft.seal()?;
        backend.put(&object_name(Area::Epochs, &first_epoch), bytes.into())?;
        let config = Config {
            repository,
            copy: snap_crypto::random()?,
            created: now,
            first_epoch,
            required: Vec::new(),
            optional: Vec::new(),
        };
        put_config(backend, &config)?;
        Ok((repository, recovery))
    }

    /// Opens a repository with whatever slot `secret` opens.
    pub fn open(backend: Arc<dyn Backend>, secret: &Secret) -> Result<Self> {
        Self::open_with(backend, secret, &[])
    }

    /// As [`Repository::open`], and lists `prefetch` on the way: config, epochs and these listings are one round trip. The
    /// next who reads one of these areas uses the listing, once.
    pub fn open_with(backend: Arc<dyn Backend>, secret: &Secret, prefetch: &[Area]) -> Result<Self> {
        let listings = Listings::default();
        let (configs, listed) = std::thread::scope(|scope| {
            let configs = [CONFIG, CONFIG_BACKUP].map(|name| {
                let backend = &backend;
                (name, scope.spawn(move || backend.get(&fixed_name(name))))
            });
            let areas: Vec<Area> = prefetch.iter().copied().chain([Area::Epochs]).collect();
            let listed = list_all(backend.as_ref(), &areas, &listings);
            (configs.map(|(name, thread)| (name, join(thread))), listed)
        });
        let (config, mut findings) = choose_config(configs, &backend.location())?;
        listed?;
        let epochs = lock(&listings).remove(&Area::Epochs).unwrap_or_default();
        let objects = read_epochs(backend.as_ref(), &epochs, &mut findings)?;
        let mut chain = verify_chain(config.repository, config.first_epoch, &objects)?;
        findings.append(&mut chain.findings);
        let (keyring, root) = unlock(&config, &chain, secret, &backend.location())?;
        let (head, lineage) = (chain.head().clone(), chain.lineage());
        let valid = chain.newest_first().iter().rev().map(|stored| stored.name).collect();
        let (run_keys, cache) = (Mutex::default(), OnceLock::new());
        let inner = Inner { config, keyring, head, root, lineage, valid, findings, run_keys, cache };
        Ok(Self { inner: Arc::new(inner), backend, listings: Arc::new(listings) })
    }

    /// The chain of epochs as the store shows it now.
    pub(crate) fn chain_now(&self) -> Result<Chain> {
        let listed = list_area(self.backend().as_ref(), Area::Epochs)?;
        let objects = read_epochs(self.backend().as_ref(), &listed, &mut Vec::new())?;
        verify_chain(self.id(), self.inner.config.first_epoch, &objects)
    }

    /// Refuses an object under an epoch that follows from this one's head: it came after the repository was opened, and
    /// its keys are not at hand. An epoch of another line, or of none, is another matter: forged.
    pub(crate) fn require_known_epoch(&self, object: &[u8]) -> Result<()> {
        let Ok(head) = Head::decode(object) else { return Ok(()) };
        if self.keyring().epochs.contains_key(&head.epoch) {
            return Ok(());
        }
        let chain = self.chain_now()?;
        let is_later = |stored: &&StoredEpoch| {
            stored.epoch.id == head.epoch
                && chain.line_of(stored.name).any(|name| name == self.inner.head.name)
        };
        if chain.valid.values().any(|stored| is_later(&stored)) {
            Err(RepoError::KeysChanged)
        } else {
            Ok(())
        }
    }

    /// Compares the head with the one that this machine saw last (F9), and remembers it. Returns a finding, and
    /// remembers nothing, if the store shows an older state or a branch that a removed owner may have made: reading
    /// is safe then, writing is not.
    pub fn accept_head(&self, cache: &Cache) -> Option<Finding> {
        self.keep_epochs(cache);
        let head = self.inner.head.name;
        let seen = cache.read(HEAD_FILE).and_then(|hex| ObjectId::from_hex(std::str::from_utf8(&hex).ok()?));
        if seen == Some(head) {
            return None;
        }
        if let Some(seen) = seen.filter(|seen| !self.inner.lineage.contains(seen)) {
            let why = "this machine saw this epoch, and the newest one does not follow from it: the store was rolled \
                       back, or somebody who was removed has forked it";
            let name = object_name(Area::Epochs, &seen).to_string();
            return Some(Finding::new(FindingCode::Missing, name, why));
        }
        // Without a memory the next run is no worse off than a first one.
        let _ = cache.write(HEAD_FILE, head.to_hex().as_bytes());
        None
    }

    /// Keeps the bytes of the epochs, which are public and signed, so that this machine can bring one back that is lost.
    fn keep_epochs(&self, cache: &Cache) {
        for id in &self.inner.lineage {
            let name = object_name(Area::Epochs, id);
            if !cache.has(name.as_str())
                && let Ok(bytes) = self.backend().get(&name)
                && hash(&bytes) == id.0
            {
                // Without them there is still what other copies have.
                let _ = cache.write(name.as_str(), &bytes);
            }
        }
    }

    /// From now on verified snapshots are kept in `cache`, and not verified again. The first cache counts.
    pub fn remember_in(&self, cache: &Cache) {
        let _ = self.inner.cache.set(cache.clone());
    }

    /// Its id, shared by its copies.
    pub fn id(&self) -> RepoId {
        self.inner.config.repository
    }

    /// The id that it has among its copies, hex.
    pub fn copy_id(&self) -> String {
        SlotId(self.inner.config.copy).to_hex()
    }

    /// What it was made as.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What the opened slot may do.
    pub fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    /// The store.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The same repository, opened, over another way to its store.
    #[must_use]
    pub fn over(&self, backend: Arc<dyn Backend>) -> Self {
        Self { inner: Arc::clone(&self.inner), backend, listings: Arc::default() }
    }

    /// The same repository, opened, over a store that takes every put and keeps none: for rehearsals.
    pub fn rehearsal(&self) -> Self {
        Self { backend: Arc::new(Forgetful(Arc::clone(&self.backend))), ..self.clone() }
    }

    /// Damage of config and epochs that was met, and got around, while opening.
    pub fn findings(&self) -> &[Finding] {
        &self.inner.findings
    }

    /// The run key behind an entry; readers only. Opened once.
    pub(crate) fn run_key(&self, entry: &RunKeyEntry) -> Option<SealKey> {
        let mut known = self.inner.run_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(entry) {
            return Some(key.clone());
        }
        let reader = self.keyring().epochs.get(&entry.epoch)?.reader.as_ref()?;
        let plain = reader.open(&run_key_info(self.id()), &entry.epoch.0, &entry.sealed).ok()?;
        let key = SealKey::new(plain.as_slice().try_into().ok()?);
        known.insert(*entry, key.clone());
        Some(key)
    }

    /// A fresh run key, sealed to the head's reader key.
    pub(crate) fn new_run_key(&self) -> Result<(SealKey, RunKeyEntry)> {
        let key = SealKey::random()?;
        let epoch = self.keyring().head;
        let public = self.keyring().head().reader_public;
        let sealed = snap_crypto::seal_to(&public, &run_key_info(self.id()), &epoch.0, key.expose())?;
        let sealed = sealed.as_slice().try_into().expect("HPKE of 32 bytes is 80 bytes");
        let entry = RunKeyEntry { epoch, sealed };
        self.inner.run_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(entry, key.clone());
        Ok((key, entry))
    }
}

fn run_key_info(repository: RepoId) -> Vec<u8> {
    [b"snap v0 run key".as_slice(), &repository.0].concat()
}

/// The config of the repository at `backend`, of which no key is known.
pub(crate) fn read_config(backend: &dyn Backend) -> Result<Config> {
    let configs = [CONFIG, CONFIG_BACKUP].map(|name| (name, backend.get(&fixed_name(name))));
    choose_config(configs, &backend.location()).map(|(config, _)| config)
}

/// Takes whichever of the two configs verifies (F6).
pub(crate) fn choose_config(
    read: [(&'static str, Result<Bytes, BackendError>); 2],
    location: &str,
) -> Result<(Config, Vec<Finding>)> {
    let mut findings = Vec::new();
    let mut configs = Vec::new();
    let mut newer = None;
    for (name, read) in read {
        match read {
            Ok(bytes) => match parse_config(name, &bytes) {
                Ok(config) => configs.push(config),
                Err(NotThisConfig { error, is_whole: true }) if error.is_newer() => return Err(error),
                Err(NotThisConfig { error, .. }) => match error.into_finding() {
                    Ok(finding) => findings.push(finding),
                    // A flipped bit can look like another version: the other config decides.
                    Err(error) if error.is_newer() => {
                        let why = "its checksum does not fit";
                        findings.push(Finding::new(FindingCode::Corrupt, name, why));
                        newer.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                },
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                findings.push(Finding::new(FindingCode::Missing, name, "it is not there"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut configs = configs.into_iter();
    match (configs.next(), configs.next()) {
        (Some(first), Some(second)) if first != second => Err(RepoError::corrupt(
            CONFIG,
            "it differs from config.bak, and both are whole: do not trust either",
        )),
        (Some(config), _) => Ok((config, findings)),
        (None, _) if newer.is_some() => Err(newer.expect("it was just looked at")),
        (None, _) if findings.iter().all(|finding| finding.code == FindingCode::Missing) => {
            Err(RepoError::NoRepository(location.to_owned()))
        }
        (None, _) => Err(RepoError::from(findings.swap_remove(0))),
    }
}

/// Why one of the two configs is of no use, and whether its checksum fits nevertheless.
struct NotThisConfig {
    error: RepoError,
    is_whole: bool,
}

fn parse_config(name: &str, bytes: &[u8]) -> Result<Config, NotThisConfig> {
    let damaged = |why| NotThisConfig { error: RepoError::corrupt(name, why), is_whole: false };
    if bytes.len() > limits::CONFIG {
        return Err(damaged("it is too large"));
    }
    let (body, checksum) =
        bytes.split_last_chunk::<CONFIG_CHECKSUM_LEN>().ok_or_else(|| damaged("it is too short"))?;
    let is_whole = hash(body) == *checksum;
    match Config::decode(body).map_err(|error| RepoError::format(name, error)) {
        // A newer version may have another checksum: say "newer" rather than "corrupt" where the head says so.
        Err(error) if is_whole || error.is_newer() => Err(NotThisConfig { error, is_whole }),
        Ok(config) if is_whole => Ok(config),
        _ => Err(damaged("its checksum does not fit")),
    }
}

pub(crate) fn read_epochs(
    backend: &dyn Backend,
    names: &[Listed],
    findings: &mut Vec<Finding>,
) -> Result<Vec<(ObjectId, Bytes)>> {
    let objects = Mutex::new(Vec::new());
    let problems = Mutex::new(Vec::new());
    for_each_parallel(names, backend.parallelism(), |Listed { id, size, .. }| {
        let path = object_name(Area::Epochs, id);
        if *size > limits::EPOCH as u64 {
            let finding = Finding::new(FindingCode::Corrupt, path.to_string(), "it is too large");
            problems.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
            return Ok(());
        }
        let bytes = backend.get(&path)?;
        objects.lock().unwrap_or_else(PoisonError::into_inner).push((*id, bytes));
        Ok::<_, RepoError>(())
    })?;
    findings.append(&mut problems.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(objects.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Finds the slot that `secret` opens, in the head or, to tell a removed slot from a wrong secret, in an older epoch.
fn unlock(config: &Config, chain: &Chain, secret: &Secret, location: &str) -> Result<(Keyring, [u8; 32])> {
    for stored in chain.newest_first() {
        for slot in stored.epoch.slots.iter().filter(|slot| slot.kind == secret.kind()) {
            let in_head = chain.head().epoch.slots.iter().any(|head| head.id == slot.id);
            if stored.name != chain.head && in_head {
                continue; // was tried in the head: secrets do not change
            }
            let key = secret.wrap_key(slot.id, slot.kdf.as_ref())?;
            let Some(secrets) = SlotSecrets::unwrap(&key, config.repository, slot) else { continue };
            if stored.name != chain.head {
                let epoch = stored.epoch.number + 1;
                return Err(RepoError::SlotRemoved { slot: slot.id.to_hex(), epoch });
            }
            check_root(config, chain, &secrets, location)?;
            let root = secrets.root;
            return Ok((open_keyring(chain, slot, secrets)?, root));
        }
    }
    Err(RepoError::WrongKey(secret.describe()))
}

/// The first epoch must be signed by the root key that the wrapped secrets name (F10).
fn check_root(config: &Config, chain: &Chain, secrets: &SlotSecrets, location: &str) -> Result<()> {
    let first = &chain.valid[&config.first_epoch].epoch;
    let signer = first.slots.iter().find(|slot| slot.id == first.signer);
    let genuine =
        secrets.repository == config.repository && signer.is_some_and(|slot| slot.verify == secrets.root);
    if genuine { Ok(()) } else { Err(RepoError::Counterfeit(location.to_owned())) }
}

/// The keys of an epoch beside the head's line, of which the head's bundle knows nothing: a run that took it for the head
/// may have written under it (F9).
fn own_keys(secrets: &SlotSecrets, id: SlotId, epoch: &Epoch) -> Option<EpochKeys> {
    let slot = epoch.slots.iter().find(|slot| slot.id == id)?;
    let bundle = open_bundle(secrets, epoch, slot)?;
    bundle.epochs.iter().find(|keys| keys.id == epoch.id).cloned()
}

fn open_keyring(chain: &Chain, slot: &snap_format::Slot, secrets: SlotSecrets) -> Result<Keyring> {
    let head = chain.head();
    let path = object_name(Area::Epochs, &head.name).to_string();
    let bundle = open_bundle(&secrets, &head.epoch, slot)
        .ok_or_else(|| RepoError::corrupt(&path, "the key bundle of this slot does not open"))?;
    let mut epochs = HashMap::new();
    for stored in chain.valid.values() {
        let epoch = &stored.epoch;
        let keys = bundle.epochs.iter().find(|keys| keys.id == epoch.id).cloned();
        if let Some(open) =
            keys.or_else(|| own_keys(&secrets, slot.id, epoch)).and_then(|keys| open_epoch(epoch, &keys))
        {
            epochs.insert(epoch.id, open);
        }
    }
    if !epochs.contains_key(&head.epoch.id) {
        return Err(RepoError::corrupt(&path, "its slot details do not open with its own keys"));
    }
    let signer: SignatureKey = secrets.signature;
    Ok(Keyring {
        repository: head.epoch.repository,
        slot: slot.id,
        role: slot.role,
        signer,
        head: head.epoch.id,
        epochs,
        master: bundle.master.map(Zeroizing::new),
        domains: bundle.domains.iter().map(|(name, seed)| (name.clone(), Zeroizing::new(*seed))).collect(),
    })
}

/// Reads go through; puts and deletes are said to have worked.
#[derive(Debug)]
struct Forgetful(Arc<dyn Backend>);

impl Backend for Forgetful {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.0.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.0.get_range(name, offset, len)
    }

    fn put(&self, _: &ObjectName, _: Bytes) -> Result<PutOutcome, BackendError> {
        Ok(PutOutcome::Created)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.0.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.0.list(prefix, each)
    }

    fn delete(&self, _: &ObjectName) -> Result<(), BackendError> {
        Ok(())
    }

    fn location(&self) -> String {
        self.0.location()
    }

    fn local_root(&self) -> Option<&Path> {
        self.0.local_root()
    }

    fn parallelism(&self) -> usize {
        self.0.parallelism()
    }
}
