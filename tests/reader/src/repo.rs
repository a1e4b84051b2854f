//! Objects, keys (§4) and signed boxes (§5).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cbor::{Fields, Value};
use crate::crypto::{self, Key, Secret, hex, unhex};
use crate::epochs::{BACKUP, Epoch, OWNER, Slot, check_chain, open_secrets, parse_epoch, read_config};

/// Limit of payloads, and of the objects that hold one (§16).
pub const PAYLOAD: u64 = 64 << 20;
/// Limit of config and epochs (§16).
pub(crate) const MIB: u64 = 1 << 20;

/// Things that are wrong with a repository without stopping a reader.
pub type Findings = Vec<String>;

/// The keys of one epoch that a slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EpochKeys {
    index: Key,
    reader: Option<Key>,
}

/// An opened repository.
pub struct Repo {
    dir: PathBuf,
    /// The repository id.
    pub id: Key,
    /// The valid epochs.
    pub epochs: Vec<Epoch>,
    /// The role of the slot that opened it, in the newest epoch that it opens.
    pub role: u64,
    keys: HashMap<[u8; 16], EpochKeys>,
    master: Option<Key>,
    seeds: HashMap<String, Key>,
}

/// The first 28 bytes of signed boxes and packs.
pub struct Head {
    bytes: [u8; 28],
    /// The kind byte.
    pub kind: u8,
    epoch: [u8; 16],
}

/// The inner part of a box or pack header whose signature holds.
pub struct Signed<'a> {
    /// The slot that signed.
    pub slot: &'a Slot,
    /// What it signed.
    pub payload: Vec<u8>,
    /// Number of zeros behind the stored bytes.
    pub zeros: u64,
}

impl Signed<'_> {
    /// Whether the signer may write in `domain` (F19; packs and snapshots likewise).
    pub fn check_domain(&self, domain: &str) -> Result<()> {
        let own = self.slot.domain.as_deref() == Some(domain);
        ensure!(own || self.slot.role == OWNER, "forged: domain {domain:?} is not its signer's");
        Ok(())
    }

    /// Only owners and backup slots write (F12).
    pub fn check_writer(&self) -> Result<()> {
        ensure!(matches!(self.slot.role, OWNER | BACKUP), "forged: its signer's role may not write it");
        Ok(())
    }
}

/// Refuses a wrong magic and newer versions (F5).
pub fn check_magic(bytes: &[u8], magic: &[u8; 8]) -> Result<()> {
    ensure!(bytes.len() >= 10 && bytes[..8] == *magic, "does not begin with its magic");
    ensure!(bytes[8..10] == [0, 0], "written by a newer snap");
    Ok(())
}

impl Head {
    /// The head of an object.
    pub fn parse(bytes: &[u8], magic: &[u8; 8]) -> Result<Self> {
        check_magic(bytes, magic)?;
        let bytes: [u8; 28] = *bytes.first_chunk().context("ends early")?;
        ensure!(bytes[11] == 0, "reserved byte is not zero");
        let epoch = *bytes.last_chunk().context("ends early")?;
        Ok(Self { bytes, kind: bytes[10], epoch })
    }
}

/// The bytes of a file that must not be larger than `limit`.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let size = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    ensure!(size <= limit, "larger than an object of its kind may be");
    fs::read(path).with_context(|| path.display().to_string())
}

/// The stored bytes of codec 0 or 1, checked against their plain length (F13).
pub fn decompress(codec: u8, stored: &[u8], plain: u64, limit: u64) -> Result<Vec<u8>> {
    ensure!(plain <= limit, "plain length above the limit");
    let plain = usize::try_from(plain)?;
    let bytes = match codec {
        0 => stored.to_vec(),
        1 => {
            let frame = zstd::zstd_safe::find_frame_compressed_size(stored);
            ensure!(frame == Ok(stored.len()), "not exactly one zstd frame");
            zstd::bulk::decompress(stored, plain)?
        }
        _ => bail!("unknown codec {codec}: needs a newer snap"),
    };
    ensure!(bytes.len() == plain, "plain length is wrong");
    Ok(bytes)
}

impl Repo {
    /// Opens the repository in `dir`.
    pub fn open(dir: &Path, secret: &Secret, findings: &mut Findings) -> Result<Self> {
        let config = read_config(dir, findings)?;
        let mut repo = Repo {
            dir: dir.to_owned(),
            id: config.repo,
            epochs: Vec::new(),
            role: 0,
            keys: HashMap::new(),
            master: None,
            seeds: HashMap::new(),
        };
        let mut epochs = Vec::new();
        for name in repo.names("epochs", findings)? {
            match repo.object("epochs", &name, MIB).and_then(|bytes| parse_epoch(&bytes, name, &repo.id)) {
                Ok(epoch) => epochs.push(epoch),
                Err(error) => findings.push(format!("epoch {}: {error:#}", hex(&name))),
            }
        }
        epochs.sort_by_key(|epoch| (epoch.number, std::cmp::Reverse(epoch.name)));

        // The secret may open slots of many epochs. The newest valid one decides on the role and on the
        // root key; every one gives its bundle.
        let mut wraps: HashMap<_, Result<Key>> = HashMap::new();
        let mut opened = Vec::new();
        for (at, epoch) in epochs.iter().enumerate().rev() {
            for slot in epoch.slots.iter().filter(|slot| slot.kind == secret.kind()) {
                let wrap = wraps.entry((slot.id, slot.argon2.clone()));
                match wrap.or_insert_with(|| secret.wrap_key(&slot.id, slot.argon2.as_ref())) {
                    Ok(wrap) => {
                        if let Ok(secrets) = open_secrets(&repo.id, slot, wrap) {
                            opened.push((at, slot.id, secrets));
                        }
                    }
                    Err(error) => findings.push(format!("slot {}: {error:#}", hex(&slot.id))),
                }
            }
        }
        ensure!(!opened.is_empty(), "the secret opens no slot of this repository");
        let (valid, root) = opened
            .iter()
            .find_map(|(at, _, secrets)| {
                let valid = check_chain(&epochs, &secrets.root, &config.first);
                valid[*at].is_ok().then_some((valid, secrets.root))
            })
            .context("no epoch that the secret opens is valid: counterfeit or damaged")?;
        for (epoch, valid) in epochs.iter().zip(&valid) {
            if let Err(error) = valid {
                findings.push(format!("epoch {}: {error:#}", hex(&epoch.name)));
            }
        }
        for (at, id, secrets) in opened.iter().filter(|(at, _, s)| valid[*at].is_ok() && s.root == root) {
            let slot = epochs[*at].slot(id).context("slot")?;
            repo.role = if repo.role == 0 { slot.role } else { repo.role };
            if let Err(error) = repo.open_bundle(&epochs[*at], slot, &secrets.x25519, findings) {
                findings.push(format!("epoch {}: bundle: {error:#}", hex(&epochs[*at].name)));
            }
        }
        ensure!(!repo.keys.is_empty(), "no key bundle opens");
        for (epoch, valid) in epochs.into_iter().zip(valid) {
            if valid.is_ok() {
                repo.epochs.push(epoch);
            }
        }
        repo.open_details(findings);
        Ok(repo)
    }

    fn open_bundle(
        &mut self,
        epoch: &Epoch,
        slot: &Slot,
        secret: &Key,
        findings: &mut Findings,
    ) -> Result<()> {
        let info: [&[u8]; 3] = [b"snap v0 bundle", &self.id, &slot.id];
        let mut bundle = Fields::decode(&crypto::hpke_open(secret, &info, &epoch.id, &slot.bundle)?)?;
        let one = |value: Value| {
            let mut map = value.fields()?;
            let id = map.need(0)?.fixed::<16>()?;
            let keys =
                EpochKeys { index: map.need(1)?.fixed()?, reader: map.opt(2).map(Value::fixed).transpose()? };
            map.end()?;
            Ok((id, keys))
        };
        let domain = |value: Value| {
            let [name, seed] = value.tuple()?;
            Ok((name.text()?, seed.fixed()?))
        };
        let epochs = bundle.need(0)?.array(one)?;
        let master = bundle.opt(1).map(Value::fixed).transpose()?;
        let domains = bundle.opt(2).map(|v| v.array(domain)).transpose()?.unwrap_or_default();
        bundle.end()?;
        for (id, keys) in epochs {
            let known = self.keys.entry(id).or_insert(keys);
            if *known != keys {
                findings.push(format!("two bundles disagree on the keys of epoch id {}", hex(&id)));
            }
        }
        self.master = self.master.or(master);
        self.seeds.extend(domains);
        Ok(())
    }

    /// Opens the slot details, and compares reader keys with their public halves.
    fn open_details(&mut self, findings: &mut Findings) {
        for epoch in &mut self.epochs {
            let Some(keys) = self.keys.get(&epoch.id) else { continue };
            let mut open = || {
                if let Some(reader) = keys.reader {
                    let public = crypto::x25519_public(&reader)?;
                    ensure!(public == epoch.reader, "reader key and its public half differ");
                }
                let ad: [&[u8]; 3] = [b"snap v0 slot details", &self.id, &epoch.id];
                let details = crate::cbor::decode(&crypto::open(&keys.index, &ad, &epoch.details)?)?;
                let domains = details.array(|value| {
                    let mut map = value.fields()?;
                    map.need(0)?.text()?;
                    map.need(2)?.time()?;
                    let domain = map.need(1)?.text()?;
                    map.end()?;
                    Ok(domain)
                })?;
                ensure!(domains.len() == epoch.slots.len(), "slot details are not parallel to the slots");
                for (slot, domain) in epoch.slots.iter_mut().zip(domains) {
                    slot.domain = Some(domain);
                }
                Ok(())
            };
            if let Err(error) = open() {
                findings.push(format!("epoch {}: {error:#}", hex(&epoch.name)));
            }
        }
    }

    /// The path of an object.
    pub fn path(&self, kind: &str, name: &Key) -> PathBuf {
        let name = hex(name);
        match kind {
            "packs" => self.dir.join(kind).join(&name[..2]).join(name),
            _ => self.dir.join(kind).join(name),
        }
    }

    /// The names of the objects of one kind, sorted; files that bear no name are findings.
    pub fn names(&self, kind: &str, findings: &mut Findings) -> Result<Vec<Key>> {
        let mut names = Vec::new();
        let mut dirs = vec![self.dir.join(kind)];
        if kind == "packs" && dirs[0].exists() {
            dirs = fs::read_dir(&dirs[0])?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        }
        for dir in dirs.iter().filter(|dir| dir.exists()) {
            let Ok(entries) = fs::read_dir(dir) else {
                findings.push(format!("{}: not a directory that can be read", dir.display()));
                continue;
            };
            for entry in entries {
                let path = entry?.path();
                let name = path.file_name().and_then(|n| n.to_str()).and_then(unhex);
                match name {
                    Some(name) if self.path(kind, &name) == path => names.push(name),
                    _ => findings.push(format!("{}: not the path of an object", path.display())),
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The bytes of an object, checked against its name (F3).
    pub fn object(&self, kind: &str, name: &Key, limit: u64) -> Result<Vec<u8>> {
        let bytes = read_limited(&self.path(kind, name), limit)?;
        ensure!(crypto::hash(&[&bytes]) == *name, "rotten: the name is not the hash of the bytes");
        Ok(bytes)
    }

    /// Opens something sealed with the index key of the epoch that the head names.
    pub fn open_sealed(&self, head: &Head, purpose: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let keys = self.keys.get(&head.epoch).context("its epoch's keys are not in this slot's bundle")?;
        crypto::open(&keys.index, &[&self.id, &head.bytes, purpose], sealed)
    }

    /// Takes an inner part apart and checks its signature (§5, F12, F13). Roles are left to the caller.
    pub fn inner(&self, head: &Head, inner: &[u8]) -> Result<Signed<'_>> {
        let (fixed, rest) = inner.split_at_checked(89).context("inner part ends early")?;
        let (slot_id, fixed) = fixed.split_first_chunk::<16>().context("slot id")?;
        let (signature, fixed) = fixed.split_first_chunk::<64>().context("signature")?;
        let [codec, lengths @ ..] = fixed else { bail!("inner part ends early") };
        let ([stored, plain], []) = lengths.as_chunks::<4>() else { bail!("inner part ends early") };
        let (stored, plain) = (u32::from_le_bytes(*stored), u32::from_le_bytes(*plain));
        let (stored, zeros) =
            rest.split_at_checked(usize::try_from(stored)?).context("stored bytes end early")?;
        ensure!(zeros.iter().all(|b| *b == 0), "padding that is not zero");
        let epoch = self.epochs.iter().find(|epoch| epoch.id == head.epoch).context("no valid epoch")?;
        let slot = epoch.slot(slot_id).context("forged: its signer is not in its epoch")?;
        let payload = decompress(*codec, stored, plain.into(), PAYLOAD)?;
        let hash = crypto::hash(&[&payload]);
        let message: [&[u8]; 5] = [b"snap v0 box", &self.id, &head.bytes, slot_id, &hash];
        crypto::verify(&slot.ed25519, &message, signature).context("forged")?;
        Ok(Signed { slot, payload, zeros: zeros.len() as u64 })
    }

    /// Reads a signed box of one kind, whoever signed it.
    pub fn signed_box(&self, dir: &str, kind: u8, name: &Key) -> Result<Signed<'_>> {
        let limit = if kind == 1 { 2 * PAYLOAD } else { PAYLOAD }; // An index object has no limit of its own.
        self.open_box(dir, kind, &self.object(dir, name, limit)?)
    }

    /// The same of its bytes.
    pub fn open_box(&self, dir: &str, kind: u8, bytes: &[u8]) -> Result<Signed<'_>> {
        let head = Head::parse(bytes, b"SNAPSBOX")?;
        ensure!(head.kind == kind, "a box of kind {} in {dir}", head.kind);
        self.inner(&head, &self.open_sealed(&head, b"", &bytes[28..])?)
    }

    /// Opens a run key entry (§6).
    pub fn run_key(&self, entry: &[u8; 96]) -> Result<Key> {
        let (epoch, sealed) = entry.split_at(16);
        let keys = self.keys.get(epoch).context("run key of an epoch that this slot does not know")?;
        let reader = keys.reader.context("this slot may back up, not read: it has no reader key")?;
        let key = crypto::hpke_open(&reader, &[b"snap v0 run key", &self.id], epoch, sealed)?;
        key.try_into().ok().context("run key of a wrong length")
    }

    /// The id key of a domain for blobs of a kind (§4).
    pub fn id_key(&self, domain: &str, kind: u8) -> Result<Key> {
        let derived = self.master.map(|m| crypto::derive("snap v0 domain seed", &[&m, domain.as_bytes()]));
        let seed = derived.or_else(|| self.seeds.get(domain).copied());
        let seed = seed.with_context(|| format!("this slot has no key of the domain {domain:?}"))?;
        let context = if kind == 2 { "snap v0 tree id key" } else { "snap v0 data id key" };
        Ok(crypto::derive(context, &[&seed]))
    }

    /// Whether this slot can read what was backed up.
    pub fn can_read(&self) -> bool {
        self.master.is_some() && self.keys.values().any(|keys| keys.reader.is_some())
    }
}
