use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cbor::{self, Dec, Enc};
use crate::frame::check_version;
use crate::{EpochId, FormatError, ObjectId, RepoId, SlotId, Time, VERSION, limits};

const MAGIC: &[u8; 8] = b"SNAPEPOC";
const SIGNATURE_LEN: usize = 64;

/// What a slot may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Owner,
    /// Write, and see what is there without its content.
    Backup,
    /// Read.
    Restore,
}

impl Role {
    /// The number that stands for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Owner => 1,
            Self::Backup => 2,
            Self::Restore => 3,
        }
    }

    fn from_code(code: u64) -> Result<Self, FormatError> {
        match code {
            1 => Ok(Self::Owner),
            2 => Ok(Self::Backup),
            3 => Ok(Self::Restore),
            other => Err(FormatError::Newer { what: "role", found: other }),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Backup => "backup",
            Self::Restore => "restore",
        })
    }
}

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// Stretched with Argon2id.
    Password,
    /// 32 random bytes in a file.
    KeyFile,
    /// 32 random bytes on paper.
    Recovery,
}

impl SlotKind {
    const fn code(self) -> u64 {
        match self {
            Self::Password => 1,
            Self::KeyFile => 2,
            Self::Recovery => 3,
        }
    }

    fn from_code(code: u64) -> Result<Self, FormatError> {
        match code {
            1 => Ok(Self::Password),
            2 => Ok(Self::KeyFile),
            3 => Ok(Self::Recovery),
            other => Err(FormatError::Newer { what: "slot kind", found: other }),
        }
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password => "password",
            Self::KeyFile => "key-file",
            Self::Recovery => "recovery",
        })
    }
}

/// Argon2id parameters. Decoding refuses what would run away (F11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// At least 8 bytes.
    pub salt: Vec<u8>,
}

impl KdfParams {
    /// Most memory that a reader will spend, KiB.
    pub const MAX_MEMORY_KIB: u32 = 1 << 20;
    /// Most passes.
    pub const MAX_PASSES: u32 = 64;
    /// Most lanes.
    pub const MAX_LANES: u32 = 16;

    fn take(dec: &mut Dec<'_>) -> Result<Self, FormatError> {
        dec.fixed_array(4)?;
        let (memory_kib, passes, lanes) = (dec.uint32()?, dec.uint32()?, dec.uint32()?);
        let salt = dec.bytes()?.to_vec();
        for (what, value, limit) in [
            ("Argon2 memory (KiB)", memory_kib, Self::MAX_MEMORY_KIB),
            ("Argon2 passes", passes, Self::MAX_PASSES),
            ("Argon2 lanes", lanes, Self::MAX_LANES),
            ("Argon2 salt (bytes)", salt.len() as u32, 64),
        ] {
            if value > limit {
                return Err(FormatError::TooLarge { what, limit: limit.into() });
            }
        }
        if passes == 0 || lanes == 0 || memory_kib < 8 * lanes || salt.len() < 8 {
            return Err(dec.error("Argon2 parameters too small"));
        }
        Ok(Self { memory_kib, passes, lanes, salt })
    }
}

/// A line of the slot table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Which slot.
    pub id: SlotId,
    /// What it may do.
    pub role: Role,
    /// What opens it.
    pub kind: SlotKind,
    /// For passwords.
    pub kdf: Option<KdfParams>,
    /// X25519.
    pub public: [u8; 32],
    /// Ed25519.
    pub verify: [u8; 32],
    /// The secret halves, wrapped by what opens the slot.
    pub secrets: Vec<u8>,
    /// The epoch's keys, sealed to `public`.
    pub bundle: Vec<u8>,
}

/// What of a slot is known to slots only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotDetails {
    /// Given by the user.
    pub label: String,
    /// Deduplication domain.
    pub domain: String,
    /// When the slot was made.
    pub created: Time,
}

/// One state of the slot table, with its own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Whose.
    pub repository: RepoId,
    /// Drawn at random.
    pub id: EpochId,
    /// 0 for the first.
    pub number: u64,
    /// The epoch before.
    pub previous: Option<ObjectId>,
    /// When it was made.
    pub created: Time,
    /// X25519 key to which run keys are sealed.
    pub reader: [u8; 32],
    /// The slot table.
    pub slots: Vec<Slot>,
    /// Sealed array of [`SlotDetails`], parallel to `slots`.
    pub details: Vec<u8>,
    /// Who signed.
    pub signer: SlotId,
}

impl Epoch {
    /// All of the stored bytes but the signature, which the caller appends.
    pub fn encode(&self) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        let mut enc = Enc::with_buffer(head);
        enc.map(8 + usize::from(self.previous.is_some()));
        enc.uint(0).bytes(&self.repository.0).uint(1).bytes(&self.id.0).uint(2).uint(self.number);
        if let Some(previous) = &self.previous {
            enc.uint(3).bytes(&previous.0);
        }
        self.created.put(enc.uint(4));
        enc.uint(5).bytes(&self.reader).uint(6).array(self.slots.len());
        for slot in &self.slots {
            enc.map(7 + usize::from(slot.kdf.is_some()));
            enc.uint(0)
                .bytes(&slot.id.0)
                .uint(1)
                .uint(slot.role.code().into())
                .uint(2)
                .uint(slot.kind.code());
            if let Some(kdf) = &slot.kdf {
                enc.uint(3)
                    .array(4)
                    .uint(kdf.memory_kib.into())
                    .uint(kdf.passes.into())
                    .uint(kdf.lanes.into());
                enc.bytes(&kdf.salt);
            }
            enc.uint(4).bytes(&slot.public).uint(5).bytes(&slot.verify);
            enc.uint(6).bytes(&slot.secrets).uint(7).bytes(&slot.bundle);
        }
        enc.uint(7).bytes(&self.details).uint(8).bytes(&self.signer.0);
        enc.finish()
    }

    /// Reads the stored bytes. Returns the epoch, the bytes that are signed, and the signature, unverified.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8], [u8; SIGNATURE_LEN]), FormatError> {
        let bad = |why| FormatError::malformed("epoch", why);
        if bytes.len() > limits::EPOCH {
            return Err(FormatError::TooLarge { what: "epoch", limit: limits::EPOCH as u64 });
        }
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(bad("ends early"))?;
        let rest = signed.strip_prefix(MAGIC).ok_or(bad("unknown magic"))?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(bad("ends early"))?;
        check_version("epoch", u16::from_le_bytes(*version))?;
        Ok((Self::take(rest)?, signed, *signature))
    }

    fn take(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut repository, mut id, mut number, mut previous) = (None, None, None, None);
        let (mut created, mut reader, mut slots, mut details, mut signer) = (None, None, None, None, None);
        let mut dec = cbor::open(bytes, "epoch")?;
        dec.map(|dec, key| {
            match key {
                0 => repository = Some(RepoId(dec.fixed()?)),
                1 => id = Some(EpochId(dec.fixed()?)),
                2 => number = Some(dec.uint()?),
                3 => previous = Some(ObjectId(dec.fixed()?)),
                4 => created = Some(Time::take(dec)?),
                5 => reader = Some(dec.fixed()?),
                6 => slots = Some(dec.array(take_slot)?),
                7 => details = Some(dec.bytes()?.to_vec()),
                8 => signer = Some(SlotId(dec.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let epoch = Self {
            repository: dec.required(repository)?,
            id: dec.required(id)?,
            number: dec.required(number)?,
            previous,
            created: dec.required(created)?,
            reader: dec.required(reader)?,
            slots: dec.required(slots)?,
            details: dec.required(details)?,
            signer: dec.required(signer)?,
        };
        if epoch.slots.len() > limits::SLOTS {
            return Err(FormatError::TooLarge { what: "slots", limit: limits::SLOTS as u64 });
        }
        if (epoch.number == 0) != epoch.previous.is_none() {
            return Err(dec.error("number and previous epoch contradict each other"));
        }
        Ok(epoch)
    }

    /// The plaintext of [`Epoch::details`].
    pub fn encode_details(details: &[SlotDetails]) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.array(details.len());
        for slot in details {
            enc.map(3).uint(0).text(&slot.label).uint(1).text(&slot.domain);
            slot.created.put(enc.uint(2));
        }
        enc.finish()
    }

    /// Reads it.
    pub fn decode_details(bytes: &[u8]) -> Result<Vec<SlotDetails>, FormatError> {
        cbor::open(bytes, "slot details")?.array(|dec| {
            let (mut label, mut domain, mut created) = (None, None, None);
            dec.map(|dec, key| {
                match key {
                    0 => label = Some(dec.text()?.to_owned()),
                    1 => domain = Some(dec.text()?.to_owned()),
                    2 => created = Some(Time::take(dec)?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(SlotDetails {
                label: dec.required(label)?,
                domain: dec.required(domain)?,
                created: dec.required(created)?,
            })
        })
    }
}

fn take_slot(dec: &mut Dec<'_>) -> Result<Slot, FormatError> {
    let (mut id, mut role, mut kind, mut kdf) = (None, None, None, None);
    let (mut public, mut verify, mut secrets, mut bundle) = (None, None, None, None);
    dec.map(|dec, key| {
        match key {
            0 => id = Some(SlotId(dec.fixed()?)),
            1 => role = Some(Role::from_code(dec.uint()?)?),
            2 => kind = Some(SlotKind::from_code(dec.uint()?)?),
            3 => kdf = Some(KdfParams::take(dec)?),
            4 => public = Some(dec.fixed()?),
            5 => verify = Some(dec.fixed()?),
            6 => secrets = Some(dec.bytes()?.to_vec()),
            7 => bundle = Some(dec.bytes()?.to_vec()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let kind = dec.required(kind)?;
    if (kind == SlotKind::Password) != kdf.is_some() {
        return Err(dec.error("a password slot without KDF parameters, or another with them"));
    }
    Ok(Slot {
        id: dec.required(id)?,
        role: dec.required(role)?,
        kind,
        kdf,
        public: dec.required(public)?,
        verify: dec.required(verify)?,
        secrets: dec.required(secrets)?,
        bundle: dec.required(bundle)?,
    })
}

/// Keys of one epoch.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct EpochKeys {
    /// Which epoch.
    #[zeroize(skip)]
    pub id: EpochId,
    /// Opens headers, index, marks, envelopes.
    pub index: [u8; 32],
    /// Opens run keys; readers only.
    pub reader: Option<[u8; 32]>,
}

/// What a slot is given: the plaintext of [`Slot::bundle`]. No `Debug`: it is all secrets.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Bundle {
    /// This epoch's keys and those of the ones before.
    pub epochs: Vec<EpochKeys>,
    /// Owner and restore: derives every domain.
    pub master: Option<[u8; 32]>,
    /// Backup: its own domain, name and seed.
    pub domains: Vec<(String, [u8; 32])>,
}

impl Bundle {
    /// The plaintext.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.map(1 + usize::from(self.master.is_some()) + usize::from(!self.domains.is_empty()));
        enc.uint(0).array(self.epochs.len());
        for epoch in &self.epochs {
            enc.map(2 + usize::from(epoch.reader.is_some()));
            enc.uint(0).bytes(&epoch.id.0).uint(1).bytes(&epoch.index);
            if let Some(reader) = &epoch.reader {
                enc.uint(2).bytes(reader);
            }
        }
        if let Some(master) = &self.master {
            enc.uint(1).bytes(master);
        }
        if !self.domains.is_empty() {
            enc.uint(2).array(self.domains.len());
            for (name, seed) in &self.domains {
                enc.array(2).text(name).bytes(seed);
            }
        }
        enc.finish()
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut epochs, mut master, mut domains) = (None, None, Vec::new());
        let mut dec = cbor::open(bytes, "key bundle")?;
        dec.map(|dec, key| {
            match key {
                0 => epochs = Some(dec.array(take_epoch_keys)?),
                1 => master = Some(dec.fixed()?),
                2 => {
                    domains = dec.array(|dec| {
                        dec.fixed_array(2)?;
                        Ok((dec.text()?.to_owned(), dec.fixed()?))
                    })?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { epochs: dec.required(epochs)?, master, domains })
    }
}

fn take_epoch_keys(dec: &mut Dec<'_>) -> Result<EpochKeys, FormatError> {
    let (mut id, mut index, mut reader) = (None, None, None);
    dec.map(|dec, key| {
        match key {
            0 => id = Some(EpochId(dec.fixed()?)),
            1 => index = Some(dec.fixed()?),
            2 => reader = Some(dec.fixed()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(EpochKeys { id: dec.required(id)?, index: dec.required(index)?, reader })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Epoch {
        let slot = Slot {
            id: SlotId([1; 16]),
            role: Role::Owner,
            kind: SlotKind::Password,
            kdf: Some(KdfParams { memory_kib: 65536, passes: 3, lanes: 1, salt: vec![9; 16] }),
            public: [2; 32],
            verify: [3; 32],
            secrets: vec![4; 200],
            bundle: vec![5; 300],
        };
        let key_file = Slot { kind: SlotKind::KeyFile, kdf: None, role: Role::Backup, ..slot.clone() };
        Epoch {
            repository: RepoId([6; 32]),
            id: EpochId([7; 16]),
            number: 1,
            previous: Some(ObjectId([8; 32])),
            created: Time::new(1, 1),
            reader: [9; 32],
            slots: vec![slot, key_file],
            details: vec![10; 80],
            signer: SlotId([1; 16]),
        }
    }

    fn stored(epoch: &Epoch) -> Vec<u8> {
        let mut bytes = epoch.encode();
        bytes.extend_from_slice(&[0xee; 64]);
        bytes
    }

    #[test]
    fn epochs_survive() {
        let epoch = epoch();
        let bytes = stored(&epoch);
        let (read, signed, signature) = Epoch::decode(&bytes).unwrap();
        assert_eq!((read, signed.len(), signature), (epoch, bytes.len() - 64, [0xee; 64]));
        let details = vec![SlotDetails { label: "l".into(), domain: "d".into(), created: Time::new(0, 0) }];
        assert_eq!(Epoch::decode_details(&Epoch::encode_details(&details)), Ok(details));
    }

    #[test]
    fn hostile_kdf_parameters_are_refused() {
        let hostile: [fn(&mut KdfParams); 6] = [
            |kdf| kdf.memory_kib = u32::MAX,
            |kdf| kdf.passes = 65,
            |kdf| kdf.passes = 0,
            |kdf| kdf.lanes = 17,
            |kdf| kdf.salt = vec![0; 65],
            |kdf| kdf.salt = vec![0; 7],
        ];
        for (number, hostile) in hostile.iter().enumerate() {
            let mut epoch = epoch();
            hostile(epoch.slots[0].kdf.as_mut().unwrap());
            assert!(Epoch::decode(&stored(&epoch)).is_err(), "case {number}");
        }
    }

    #[test]
    fn bundles_survive() {
        let keys = |reader| EpochKeys { id: EpochId([1; 16]), index: [2; 32], reader };
        let owner = Bundle { epochs: vec![keys(Some([3; 32]))], master: Some([4; 32]), domains: vec![] };
        let writer =
            Bundle { epochs: vec![keys(None)], master: None, domains: vec![("slot-1".into(), [5; 32])] };
        for bundle in [owner, writer] {
            assert!(Bundle::decode(&bundle.encode()).unwrap() == bundle);
        }
    }
}
