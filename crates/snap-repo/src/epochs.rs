//! The chain of epochs: verifying it, and making the next one (`docs/format.md` §4).

use std::collections::{HashMap, HashSet};

use snap_backend::Bytes;
use snap_crypto::{AgreementKey, SealKey, SignatureKey, Zeroizing, hash, seal_to, verify};
use snap_format::{
    Bundle, Epoch, EpochId, EpochKeys, KdfParams, ObjectId, RepoId, Role, Slot, SlotDetails, SlotId, Time,
};

use crate::keyring::{Member, OpenEpoch, domain_seed};
use crate::{Area, Finding, FindingCode, RepoError, Result, Secret, object_name};

/// An epoch object with its name.
#[derive(Clone)]
pub(crate) struct StoredEpoch {
    pub(crate) name: ObjectId,
    pub(crate) epoch: Epoch,
}

/// The verified chain.
pub(crate) struct Chain {
    /// Valid epochs by name.
    pub(crate) valid: HashMap<ObjectId, StoredEpoch>,
    /// The valid epoch with the highest number, of several the one with the smallest name (F9).
    pub(crate) head: ObjectId,
    /// What is not valid.
    pub(crate) findings: Vec<Finding>,
}

impl Chain {
    pub(crate) fn head(&self) -> &StoredEpoch {
        &self.valid[&self.head]
    }

    /// The head and all epochs before it.
    pub(crate) fn lineage(&self) -> Vec<ObjectId> {
        self.line_of(self.head).collect()
    }

    /// A valid epoch and all before it.
    pub(crate) fn line_of(&self, name: ObjectId) -> impl Iterator<Item = ObjectId> {
        std::iter::successors(Some(name), |name| self.valid[name].epoch.previous)
    }

    /// Valid epochs, newest first.
    pub(crate) fn newest_first(&self) -> Vec<&StoredEpoch> {
        let mut all: Vec<_> = self.valid.values().collect();
        all.sort_by_key(|stored| (std::cmp::Reverse(stored.epoch.number), stored.name));
        all
    }
}

fn signed_message(signed: &[u8]) -> Vec<u8> {
    [b"snap v0 epoch".as_slice(), &hash(signed)].concat()
}

/// Verifies epochs against each other, starting from `first` (F8). Who signed the first is for the opener to judge (F10).
pub(crate) fn verify_chain(
    repository: RepoId,
    first: ObjectId,
    objects: &[(ObjectId, Bytes)],
) -> Result<Chain> {
    let mut findings = Vec::new();
    let mut decoded = Vec::new();
    let there: HashSet<ObjectId> = objects.iter().map(|(name, _)| *name).collect();
    // What cannot be judged: damaged itself, or in the succession of one that is damaged or missing.
    let mut unsure: HashSet<ObjectId> = HashSet::new();
    for (name, bytes) in objects {
        let path = object_name(Area::Epochs, name).to_string();
        if hash(bytes) != name.0 {
            findings.push(Finding::new(
                FindingCode::Corrupt,
                path,
                "its bytes do not have the hash in its name",
            ));
            unsure.insert(*name);
            continue;
        }
        match Epoch::decode(bytes) {
            Ok((epoch, signed, signature)) if epoch.repository == repository => {
                decoded.push((*name, epoch, signed_message(signed), signature));
            }
            Ok(_) => {
                findings.push(Finding::new(FindingCode::Forged, path, "it belongs to another repository"))
            }
            Err(error) => match RepoError::format(&path, error).into_finding() {
                Ok(finding) => findings.push(finding),
                Err(newer) => return Err(newer),
            },
        }
    }
    decoded.sort_by_key(|(name, epoch, ..)| (epoch.number, *name));
    let mut valid: HashMap<ObjectId, StoredEpoch> = HashMap::new();
    for (name, epoch, message, signature) in decoded {
        if signer_key(&valid, first, name, &epoch)
            .is_some_and(|key| verify(&key, &message, &signature).is_ok())
        {
            valid.insert(name, StoredEpoch { name, epoch });
        } else if epoch.previous.is_some_and(|previous| unsure.contains(&previous)) {
            unsure.insert(name);
        } else if let Some(previous) = epoch.previous.filter(|name| !there.contains(name)) {
            unsure.extend([name, previous]);
            let path = object_name(Area::Epochs, &previous).to_string();
            let why =
                format!("the epoch {name} names it as the one before, and cannot be believed without it");
            findings.push(Finding::new(FindingCode::Missing, path, why));
        } else {
            let path = object_name(Area::Epochs, &name).to_string();
            let why = "it is not signed by an owner of the epoch before it";
            findings.push(Finding::new(FindingCode::Forged, path, why));
        }
    }
    findings.extend(forks(&valid));
    let head = valid.values().min_by_key(|stored| (std::cmp::Reverse(stored.epoch.number), stored.name));
    match head.map(|stored| stored.name) {
        Some(head) => Ok(Chain { valid, head, findings }),
        None => {
            let path = object_name(Area::Epochs, &first).to_string();
            let missing = Finding::new(
                FindingCode::Missing,
                path.clone(),
                "the first epoch, without which no key opens",
            );
            Err(RepoError::from(
                findings.into_iter().find(|finding| finding.object == path).unwrap_or(missing),
            ))
        }
    }
}

/// Epochs that share the previous one: two owners changed the keys at once, or a removed owner is at work (F9).
fn forks(valid: &HashMap<ObjectId, StoredEpoch>) -> Vec<Finding> {
    let mut children: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
    for stored in valid.values() {
        if let Some(previous) = stored.epoch.previous {
            children.entry(previous).or_default().push(stored.name);
        }
    }
    let mut out = Vec::new();
    for mut siblings in children.into_values().filter(|siblings| siblings.len() > 1) {
        siblings.sort();
        for name in siblings {
            let path = object_name(Area::Epochs, &name).to_string();
            let why =
                "another epoch follows the same one: two owners changed keys at once, or a removed owner did";
            out.push(Finding::new(FindingCode::Forged, path, why));
        }
    }
    out
}

fn signer_key(
    valid: &HashMap<ObjectId, StoredEpoch>,
    first: ObjectId,
    name: ObjectId,
    epoch: &Epoch,
) -> Option<[u8; 32]> {
    let table = match epoch.previous {
        None if name == first => &epoch.slots,
        None => return None,
        Some(previous) => {
            let before = &valid.get(&previous)?.epoch;
            if before.number.checked_add(1) != Some(epoch.number) {
                return None;
            }
            &before.slots
        }
    };
    table.iter().find(|slot| slot.id == epoch.signer && slot.role == Role::Owner).map(|slot| slot.verify)
}

/// The secret halves of a slot, unwrapped.
pub(crate) struct SlotSecrets {
    pub(crate) agreement: AgreementKey,
    pub(crate) signature: SignatureKey,
    pub(crate) repository: RepoId,
    pub(crate) root: [u8; 32],
}

fn secrets_ad(repository: RepoId, slot: SlotId, role: Role) -> Vec<u8> {
    [b"snap v0 slot secrets".as_slice(), &repository.0, &slot.0, &[role.code()]].concat()
}

impl SlotSecrets {
    fn wrap(&self, key: &SealKey, slot: SlotId, role: Role) -> Result<Vec<u8>> {
        let plain = Zeroizing::new(
            [self.agreement.expose().as_slice(), self.signature.expose(), &self.repository.0, &self.root]
                .concat(),
        );
        let mut out = Vec::new();
        key.seal_into(&secrets_ad(self.repository, slot, role), &plain, &mut out)?;
        Ok(out)
    }

    /// Unwraps the secrets of `slot`; `None` if `key` is not the right one.
    pub(crate) fn unwrap(key: &SealKey, repository: RepoId, slot: &Slot) -> Option<Self> {
        let plain =
            Zeroizing::new(key.open(&secrets_ad(repository, slot.id, slot.role), &slot.secrets).ok()?);
        let ([agreement, signature, repository, root], []) = plain.as_chunks::<32>() else { return None };
        Some(Self {
            agreement: AgreementKey::new(*agreement),
            signature: SignatureKey::new(*signature),
            repository: RepoId(*repository),
            root: *root,
        })
    }
}

fn bundle_info(repository: RepoId, slot: SlotId) -> Vec<u8> {
    [b"snap v0 bundle".as_slice(), &repository.0, &slot.0].concat()
}

pub(crate) fn open_bundle(secrets: &SlotSecrets, epoch: &Epoch, slot: &Slot) -> Option<Bundle> {
    let info = bundle_info(epoch.repository, slot.id);
    let plain = secrets.agreement.open(&info, &epoch.id.0, &slot.bundle).ok()?;
    Bundle::decode(&plain).ok()
}

fn details_ad(repository: RepoId, epoch: EpochId) -> Vec<u8> {
    [b"snap v0 slot details".as_slice(), &repository.0, &epoch.0].concat()
}

/// An epoch as a holder of its keys sees it; `None` if the details do not open with them.
pub(crate) fn open_epoch(epoch: &Epoch, keys: &EpochKeys) -> Option<OpenEpoch> {
    let index = SealKey::new(keys.index);
    let plain = index.open(&details_ad(epoch.repository, epoch.id), &epoch.details).ok()?;
    let details = Epoch::decode_details(&plain).ok()?;
    if details.len() != epoch.slots.len() {
        return None;
    }
    let members = epoch.slots.iter().zip(details).map(|(slot, details)| {
        let SlotDetails { label, domain, created } = details;
        let member = Member { role: slot.role, kind: slot.kind, verify: slot.verify, domain, label, created };
        (slot.id, member)
    });
    Some(OpenEpoch {
        number: epoch.number,
        reader_public: epoch.reader,
        members: members.collect(),
        index,
        reader: keys.reader.map(AgreementKey::new),
    })
}

/// A slot of an epoch that is being made: the parts that stay the same from epoch to epoch.
#[derive(Clone)]
pub(crate) struct SlotDraft {
    pub(crate) id: SlotId,
    pub(crate) role: Role,
    pub(crate) kind: snap_format::SlotKind,
    pub(crate) kdf: Option<KdfParams>,
    pub(crate) public: [u8; 32],
    pub(crate) verify: [u8; 32],
    pub(crate) secrets: Vec<u8>,
    pub(crate) details: SlotDetails,
}

impl SlotDraft {
    /// A new slot, with fresh key pairs wrapped by `secret`. Returns its signature key for the first epoch.
    /// `root` is `None` only there: the slot's own key becomes the root key.
    pub(crate) fn new(
        repository: RepoId,
        role: Role,
        secret: &Secret,
        details: SlotDetails,
        root: Option<[u8; 32]>,
    ) -> Result<(Self, SignatureKey)> {
        let id = SlotId(snap_crypto::random()?);
        let (agreement, signature) = (AgreementKey::random()?, SignatureKey::random()?);
        let kdf = secret.new_kdf()?;
        let (public, verify) = (agreement.public()?, signature.public());
        let secrets = SlotSecrets { agreement, signature, repository, root: root.unwrap_or(verify) };
        let wrapped = secrets.wrap(&secret.wrap_key(id, kdf.as_ref())?, id, role)?;
        let draft = Self { id, role, kind: secret.kind(), kdf, public, verify, secrets: wrapped, details };
        Ok((draft, secrets.signature))
    }
}

/// What goes into the next epoch.
pub(crate) struct EpochDraft<'a> {
    pub(crate) repository: RepoId,
    pub(crate) previous: Option<(ObjectId, u64)>,
    pub(crate) created: Time,
    pub(crate) slots: Vec<SlotDraft>,
    /// Keys of all earlier epochs that the signer knows.
    pub(crate) earlier: Vec<EpochKeys>,
    pub(crate) master: &'a [u8; 32],
    pub(crate) signer: SlotId,
    pub(crate) key: &'a SignatureKey,
}

impl EpochDraft<'_> {
    /// Draws the epoch's keys, seals them to every slot, signs. Returns the object and its name.
    pub(crate) fn seal(self) -> Result<(ObjectId, Vec<u8>)> {
        let reader = AgreementKey::random()?;
        let id = EpochId(snap_crypto::random()?);
        let index = SealKey::random()?;
        let mut keys = vec![EpochKeys { id, index: *index.expose(), reader: Some(*reader.expose()) }];
        keys.extend(self.earlier.iter().cloned());
        let mut sealed_details = Vec::new();
        let details: Vec<_> = self.slots.iter().map(|slot| slot.details.clone()).collect();
        index.seal_into(
            &details_ad(self.repository, id),
            &Epoch::encode_details(&details),
            &mut sealed_details,
        )?;
        let slots = self.slots.iter().map(|slot| self.seal_slot(slot, id, &keys)).collect::<Result<_>>()?;
        let epoch = Epoch {
            repository: self.repository,
            id,
            number: self.previous.map_or(0, |(_, number)| number + 1),
            previous: self.previous.map(|(name, _)| name),
            created: self.created,
            reader: reader.public()?,
            slots,
            details: sealed_details,
            signer: self.signer,
        };
        let mut bytes = epoch.encode();
        let signature = self.key.sign(&signed_message(&bytes));
        bytes.extend_from_slice(&signature);
        Ok((ObjectId(hash(&bytes)), bytes))
    }

    fn seal_slot(&self, slot: &SlotDraft, epoch: EpochId, keys: &[EpochKeys]) -> Result<Slot> {
        let reads = slot.role != Role::Backup;
        let visible = |keys: &EpochKeys| EpochKeys {
            id: keys.id,
            index: keys.index,
            reader: keys.reader.filter(|_| reads),
        };
        let domain = &slot.details.domain;
        let bundle = Bundle {
            epochs: keys.iter().map(visible).collect(),
            master: reads.then_some(*self.master),
            domains: if reads {
                Vec::new()
            } else {
                vec![(domain.clone(), domain_seed(self.master, domain))]
            },
        };
        let plain = Zeroizing::new(bundle.encode());
        Ok(Slot {
            id: slot.id,
            role: slot.role,
            kind: slot.kind,
            kdf: slot.kdf.clone(),
            public: slot.public,
            verify: slot.verify,
            secrets: slot.secrets.clone(),
            bundle: seal_to(&slot.public, &bundle_info(self.repository, slot.id), &epoch.0, &plain)?,
        })
    }
}
