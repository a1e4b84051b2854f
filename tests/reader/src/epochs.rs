//! Config (§3), epochs and slots (§4).

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cbor::{Fields, Value};
use crate::crypto::{self, Argon2Parameters, Key};
use crate::repo::{Findings, MIB, check_magic, read_limited};

/// Role of a slot.
pub const OWNER: u64 = 1;
/// Role of a slot.
pub const BACKUP: u64 = 2;

/// A slot of an epoch.
pub struct Slot {
    /// Its id.
    pub id: [u8; 16],
    /// 1 owner, 2 backup, 3 restore.
    pub role: u64,
    pub(crate) kind: u64,
    pub(crate) argon2: Option<Argon2Parameters>,
    pub(crate) x25519: Key,
    pub(crate) ed25519: Key,
    pub(crate) secrets: Vec<u8>,
    pub(crate) bundle: Vec<u8>,
    /// From the slot details, if those could be opened.
    pub domain: Option<String>,
}

/// One state of the slot table.
pub struct Epoch {
    /// Its name.
    pub name: Key,
    /// Its id.
    pub id: [u8; 16],
    pub(crate) number: u64,
    previous: Option<Key>,
    pub(crate) reader: Key,
    /// Its slots.
    pub slots: Vec<Slot>,
    pub(crate) details: Vec<u8>,
    signer: [u8; 16],
    signed: Key,
    signature: [u8; 64],
}

pub(crate) struct Config {
    pub(crate) repo: Key,
    pub(crate) first: Key,
}

fn parse_config(bytes: &[u8]) -> Result<Config> {
    check_magic(bytes, b"SNAPCONF")?;
    let (before, sum) = bytes.split_last_chunk::<32>().context("ends early")?;
    ensure!(crypto::hash(&[before]) == *sum, "checksum is wrong");
    let mut map = Fields::decode(before.get(10..).context("ends early")?)?;
    let config = Config { repo: map.need(0)?.fixed()?, first: map.need(3)?.fixed()? };
    map.need(1)?.fixed::<16>()?;
    map.need(2)?.time()?;
    let features = map.opt(4).map(|v| v.array(Value::text)).transpose()?.unwrap_or_default();
    ensure!(features.is_empty(), "features {features:?} are not known: needs a newer snap"); // F7
    map.opt(5).map(|v| v.array(Value::text)).transpose()?;
    map.end()?;
    Ok(config)
}

/// F6: whichever of the two verifies; two that verify and differ are damage.
pub(crate) fn read_config(dir: &Path, findings: &mut Findings) -> Result<Config> {
    let [first, second] = ["config", "config.bak"].map(|file| {
        let bytes = read_limited(&dir.join(file), MIB)?;
        Ok((parse_config(&bytes).with_context(|| file.to_owned())?, bytes))
    });
    match (first, second) {
        (Ok((config, a)), Ok((_, b))) => {
            ensure!(a == b, "config and config.bak both verify and differ");
            Ok(config)
        }
        (Ok((config, _)), Err(error)) | (Err(error), Ok((config, _))) => {
            findings.push(format!("{error:#}"));
            Ok(config)
        }
        (Err(error), Err(_)) => Err(error),
    }
}

fn parse_slot(value: Value) -> Result<Slot> {
    let mut map = value.fields()?;
    let argon2 = |v: Value| {
        let [memory, passes, lanes, salt] = v.tuple()?;
        Ok::<_, anyhow::Error>((memory.uint()?, passes.uint()?, lanes.uint()?, salt.bytes()?))
    };
    let slot = Slot {
        id: map.need(0)?.fixed()?,
        role: map.need(1)?.uint()?,
        kind: map.need(2)?.uint()?,
        argon2: map.opt(3).map(argon2).transpose()?,
        x25519: map.need(4)?.fixed()?,
        ed25519: map.need(5)?.fixed()?,
        secrets: map.need(6)?.bytes()?,
        bundle: map.need(7)?.bytes()?,
        domain: None,
    };
    map.end()?;
    Ok(slot)
}

pub(crate) fn parse_epoch(bytes: &[u8], name: Key, repo: &Key) -> Result<Epoch> {
    check_magic(bytes, b"SNAPEPOC")?;
    let (before, signature) = bytes.split_last_chunk::<64>().context("ends early")?;
    let mut map = Fields::decode(before.get(10..).context("ends early")?)?;
    ensure!(map.need(0)?.fixed()? == *repo, "belongs to another repository");
    let epoch = Epoch {
        name,
        id: map.need(1)?.fixed()?,
        number: map.need(2)?.uint()?,
        previous: map.opt(3).map(Value::fixed).transpose()?,
        reader: map.need(5)?.fixed()?,
        slots: map.need(6)?.array(parse_slot)?,
        details: map.need(7)?.bytes()?,
        signer: map.need(8)?.fixed()?,
        signed: crypto::hash(&[before]),
        signature: *signature,
    };
    map.need(4)?.time()?;
    map.end()?;
    ensure!(epoch.slots.len() <= 1024, "too many slots");
    ensure!(epoch.slots.iter().any(|s| s.role == OWNER), "no owner among the slots");
    for (i, slot) in epoch.slots.iter().enumerate() {
        ensure!(epoch.slots[..i].iter().all(|s| s.id != slot.id), "two slots with one id");
    }
    Ok(epoch)
}

impl Epoch {
    pub(crate) fn slot(&self, id: &[u8; 16]) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == *id)
    }

    /// Whether an owner of `previous`, or for the first epoch the root key, signed this one (F8).
    fn check(&self, previous: Option<&Epoch>, root: &Key, first: &Key) -> Result<()> {
        match previous {
            None => ensure!(
                self.number == 0 && self.name == *first,
                "not the first, and its previous is not valid"
            ),
            Some(previous) => ensure!(previous.number.checked_add(1) == Some(self.number), "number is wrong"),
        }
        let owner = previous.unwrap_or(self).slot(&self.signer).filter(|slot| slot.role == OWNER);
        let owner = owner.context("forged: not signed by an owner")?;
        ensure!(previous.is_some() || owner.ed25519 == *root, "forged: not signed by the root key");
        crypto::verify(&owner.ed25519, &[b"snap v0 epoch", &self.signed], &self.signature).context("forged")
    }
}

/// What the wrapped secrets of a slot hold.
pub(crate) struct SlotSecrets {
    pub(crate) x25519: Key,
    pub(crate) root: Key,
}

pub(crate) fn open_secrets(repo: &Key, slot: &Slot, wrap: &Key) -> Result<SlotSecrets> {
    let role = [u8::try_from(slot.role)?];
    let plain = crypto::open(wrap, &[b"snap v0 slot secrets", repo, &slot.id, &role], &slot.secrets)?;
    let ([x25519, seed, inside, root], []) = plain.as_chunks::<32>() else {
        bail!("wrapped secrets of a wrong length")
    };
    ensure!(inside == repo, "counterfeit: the slot belongs to another repository");
    ensure!(crypto::x25519_public(x25519)? == slot.x25519, "slot secrets and X25519 public key differ");
    ensure!(crypto::ed25519_public(seed) == slot.ed25519, "slot secrets and Ed25519 public key differ");
    Ok(SlotSecrets { x25519: *x25519, root: *root })
}

/// The validity of each epoch under a root key; `epochs` ascend by number.
pub(crate) fn check_chain(epochs: &[Epoch], root: &Key, first: &Key) -> Vec<Result<()>> {
    let mut valid: Vec<Result<()>> = Vec::new();
    for epoch in epochs {
        let previous = (0..valid.len()).find(|&i| valid[i].is_ok() && Some(epochs[i].name) == epoch.previous);
        let again = (0..valid.len()).any(|i| valid[i].is_ok() && epochs[i].id == epoch.id);
        valid.push(match previous {
            _ if again => Err(anyhow!("the id of another epoch")),
            None if epoch.previous.is_some() => Err(anyhow!("its previous epoch is missing or not valid")),
            previous => epoch.check(previous.map(|i| &epochs[i]), root, first),
        });
    }
    valid
}
