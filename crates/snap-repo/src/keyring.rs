use std::collections::HashMap;

use snap_crypto::{
    AgreementKey, IdKey, SealKey, SignatureKey, StretchParams, Zeroizing, derive_key, hash, stretch,
};
use snap_format::{EpochId, FormatError, KdfParams, RepoId, Role, SlotId, SlotKind, Time};

use crate::{RepoError, Result};

/// What a user has to open a slot with. No `Debug`.
#[derive(Clone)]
pub enum Secret {
    /// Stretched before use.
    Password(Zeroizing<String>),
    /// Contents of a key file.
    KeyFile(Zeroizing<[u8; 32]>),
    /// A recovery key.
    Recovery(Zeroizing<[u8; 32]>),
}

impl Secret {
    /// Reads the text of a key file.
    pub fn from_key_file(text: &str) -> Result<Self, FormatError> {
        snap_format::decode_key_file(text).map(Self::KeyFile)
    }

    /// Reads a printed recovery key and compares its check digits.
    pub fn from_recovery_key(text: &str) -> Result<Self, FormatError> {
        let (secret, check) = snap_format::decode_recovery_key(text)?;
        if recovery_check(&secret) != check {
            return Err(FormatError::Malformed {
                what: "recovery key",
                why: "a typing error: the check digits do not fit",
            });
        }
        Ok(Self::Recovery(secret))
    }

    /// Fresh key-file secret.
    pub fn random_key_file() -> Result<Self> {
        Ok(Self::KeyFile(Zeroizing::new(snap_crypto::random()?)))
    }

    /// Fresh recovery key.
    pub fn random_recovery() -> Result<Self> {
        Ok(Self::Recovery(Zeroizing::new(snap_crypto::random()?)))
    }

    /// The text to write to a key file or to print; `None` for a password.
    pub fn to_text(&self) -> Option<Zeroizing<String>> {
        match self {
            Self::Password(_) => None,
            Self::KeyFile(secret) => Some(snap_format::encode_key_file(secret)),
            Self::Recovery(secret) => Some(snap_format::encode_recovery_key(secret, recovery_check(secret))),
        }
    }

    /// The kind of slot that it opens.
    pub const fn kind(&self) -> SlotKind {
        match self {
            Self::Password(_) => SlotKind::Password,
            Self::KeyFile(_) => SlotKind::KeyFile,
            Self::Recovery(_) => SlotKind::Recovery,
        }
    }

    /// For messages.
    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::Password(_) => "password",
            Self::KeyFile(_) => "key file",
            Self::Recovery(_) => "recovery key",
        }
    }

    /// Parameters for a new slot with this secret.
    pub(crate) fn new_kdf(&self) -> Result<Option<KdfParams>> {
        let Self::Password(_) = self else { return Ok(None) };
        let StretchParams { memory_kib, passes, lanes } = StretchParams::default();
        let salt = snap_crypto::random::<16>()?.to_vec();
        Ok(Some(KdfParams { memory_kib, passes, lanes, salt }))
    }

    /// The key that wraps the secrets of `slot` (`docs/format.md` §4).
    pub(crate) fn wrap_key(&self, slot: SlotId, kdf: Option<&KdfParams>) -> Result<SealKey> {
        let material = match (self, kdf) {
            (Self::Password(password), Some(kdf)) => {
                let params =
                    StretchParams { memory_kib: kdf.memory_kib, passes: kdf.passes, lanes: kdf.lanes };
                stretch(password.as_bytes(), &kdf.salt, params)?
            }
            (Self::Password(_), None) => return Err(RepoError::WrongKey(self.describe())),
            (Self::KeyFile(secret) | Self::Recovery(secret), _) => secret.clone(),
        };
        Ok(SealKey::new(derive_key("snap v0 slot wrap", &[material.as_slice(), &slot.0])))
    }
}

fn recovery_check(secret: &[u8; 32]) -> [u8; 3] {
    let digest = hash(&[b"snap v0 recovery".as_slice(), secret].concat());
    [digest[0], digest[1], digest[2]]
}

/// A slot as other slots see it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) role: Role,
    pub(crate) kind: SlotKind,
    pub(crate) verify: [u8; 32],
    pub(crate) domain: String,
    pub(crate) label: String,
    pub(crate) created: Time,
}

/// An epoch whose keys are at hand.
pub(crate) struct OpenEpoch {
    pub(crate) number: u64,
    pub(crate) reader_public: [u8; 32],
    pub(crate) index: SealKey,
    pub(crate) reader: Option<AgreementKey>,
    pub(crate) members: HashMap<SlotId, Member>,
}

/// Keys of a deduplication domain.
#[derive(Clone)]
pub struct DomainKeys {
    /// Its name.
    pub name: String,
    /// Names chunks.
    pub data_id: IdKey,
    /// Names trees.
    pub tree_id: IdKey,
    /// Places cuts.
    pub cut: Zeroizing<[u8; 32]>,
}

impl DomainKeys {
    fn from_seed(name: &str, seed: &[u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            data_id: IdKey::new(derive_key("snap v0 data id key", &[seed])),
            tree_id: IdKey::new(derive_key("snap v0 tree id key", &[seed])),
            cut: Zeroizing::new(derive_key("snap v0 cut key", &[seed])),
        }
    }
}

/// All keys that an opened slot gives. No `Debug`.
pub struct Keyring {
    pub(crate) repository: RepoId,
    pub(crate) slot: SlotId,
    pub(crate) role: Role,
    pub(crate) signer: SignatureKey,
    pub(crate) head: EpochId,
    pub(crate) epochs: HashMap<EpochId, OpenEpoch>,
    pub(crate) master: Option<Zeroizing<[u8; 32]>>,
    pub(crate) domains: HashMap<String, Zeroizing<[u8; 32]>>,
}

/// The domain in which owners write.
pub(crate) const MAIN_DOMAIN: &str = "main";

pub(crate) fn domain_seed(master: &[u8; 32], name: &str) -> [u8; 32] {
    derive_key("snap v0 domain seed", &[master, name.as_bytes()])
}

impl Keyring {
    /// Which slot is open.
    pub const fn slot(&self) -> SlotId {
        self.slot
    }

    /// What it may do.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether it may read data and trees.
    pub const fn can_read(&self) -> bool {
        !matches!(self.role, Role::Backup)
    }

    /// Whether it may write snapshots.
    pub const fn can_write(&self) -> bool {
        !matches!(self.role, Role::Restore)
    }

    /// Refuses `verb` unless the role reads.
    pub const fn require_reader(&self, verb: &'static str) -> Result<()> {
        if self.can_read() {
            Ok(())
        } else {
            Err(RepoError::Role { verb, role: self.role, needs: "owner or restore" })
        }
    }

    /// Refuses `verb` unless the role writes.
    pub const fn require_writer(&self, verb: &'static str) -> Result<()> {
        if self.can_write() {
            Ok(())
        } else {
            Err(RepoError::Role { verb, role: self.role, needs: "owner or backup" })
        }
    }

    /// Refuses `verb` unless the role is owner.
    pub fn require_owner(&self, verb: &'static str) -> Result<()> {
        if self.role == Role::Owner {
            Ok(())
        } else {
            Err(RepoError::Role { verb, role: self.role, needs: "owner" })
        }
    }

    pub(crate) fn head(&self) -> &OpenEpoch {
        self.epochs.get(&self.head).expect("a keyring is made with the keys of its head")
    }

    /// The index key of the first epoch, which all slots hold: for checksums of what is cached.
    pub(crate) fn cache_secret(&self) -> &[u8; 32] {
        let first = self.epochs.values().min_by_key(|epoch| epoch.number).unwrap_or_else(|| self.head());
        first.index.expose()
    }

    pub(crate) fn member(&self, epoch: EpochId, slot: SlotId) -> Option<&Member> {
        self.epochs.get(&epoch)?.members.get(&slot)
    }

    /// The domain in which this slot writes.
    pub fn own_domain(&self) -> &str {
        self.head().members.get(&self.slot).map_or(MAIN_DOMAIN, |member| &member.domain)
    }

    /// The keys of a domain, if this slot may have them.
    pub fn domain(&self, name: &str) -> Option<DomainKeys> {
        if let Some(seed) = self.domains.get(name) {
            return Some(DomainKeys::from_seed(name, seed));
        }
        let master = self.master.as_ref()?;
        Some(DomainKeys::from_seed(name, &domain_seed(master, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_key_with_a_typing_error_is_noticed() {
        let secret = Secret::random_recovery().unwrap();
        let text = secret.to_text().unwrap();
        assert!(Secret::from_recovery_key(&text).is_ok());
        let first = if text.starts_with('2') { '3' } else { '2' };
        let typo = format!("{first}{}", &text[1..]);
        assert!(Secret::from_recovery_key(&typo).is_err());
    }

    #[test]
    fn domains_have_their_own_keys() {
        let (a, b) = (domain_seed(&[1; 32], "main"), domain_seed(&[1; 32], "slot-1"));
        let (a, b) = (DomainKeys::from_seed("main", &a), DomainKeys::from_seed("slot-1", &b));
        assert_ne!(a.data_id.id(b"x"), b.data_id.id(b"x"));
        assert_ne!(a.data_id.id(b"x"), a.tree_id.id(b"x"));
        assert_ne!(*a.cut, *b.cut);
    }
}
