//! Adding and removing slots: each is a new epoch with fresh keys.

use snap_crypto::Zeroizing;
use snap_format::{EpochKeys, Role, SlotDetails, SlotId, SlotKind, Time};

use crate::epochs::{EpochDraft, SlotDraft};
use crate::{Area, RepoError, Repository, Result, Secret, object_name};

/// A slot to be added.
pub struct NewSlot<'a> {
    /// What it may do.
    pub role: Role,
    /// What opens it.
    pub secret: &'a Secret,
    /// For people.
    pub label: String,
    /// Deduplication domain of a backup slot; its own by default.
    pub domain: Option<String>,
}

/// A slot as `key list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Which.
    pub id: SlotId,
    /// What it may do.
    pub role: Role,
    /// What opens it.
    pub kind: SlotKind,
    /// For people.
    pub label: String,
    /// Where it writes.
    pub domain: String,
    /// When it was made.
    pub created: Time,
    /// Number of the epoch that the table is of.
    pub epoch: u64,
    /// Whether it is the one in use.
    pub current: bool,
}

impl Repository {
    /// The slots of the head epoch, in the order of their making.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let keyring = self.keyring();
        let head = keyring.head();
        let mut out: Vec<_> = head
            .members
            .iter()
            .map(|(id, member)| SlotInfo {
                id: *id,
                role: member.role,
                kind: member.kind,
                label: member.label.clone(),
                domain: member.domain.clone(),
                created: member.created,
                epoch: head.number,
                current: *id == keyring.slot,
            })
            .collect();
        out.sort_by_key(|slot| (slot.created, slot.id));
        out
    }

    /// Adds a slot. The repository must be opened again to see it.
    pub fn add_slot(&self, new: NewSlot<'_>, now: Time) -> Result<SlotId> {
        self.keyring().require_owner("adding a key")?;
        let (mut slots, slot) = (self.drafts()?, self.draft(new, now)?);
        let id = slot.id;
        slots.push(slot);
        self.put_epoch(slots, now)?;
        Ok(id)
    }

    /// Removes a slot. What is written from now on it cannot open.
    pub fn remove_slot(&self, id: SlotId, now: Time) -> Result<()> {
        self.keyring().require_owner("removing a key")?;
        let mut slots = self.drafts()?;
        let before = slots.len();
        slots.retain(|slot| slot.id != id);
        if slots.len() == before {
            return Err(RepoError::Refused(format!("there is no key slot {id}")));
        }
        if !slots.iter().any(|slot| slot.role == Role::Owner) {
            return Err(RepoError::Refused(
                "this is the last owner; without one nobody can manage the repository".into(),
            ));
        }
        self.put_epoch(slots, now)
    }

    /// Replaces every recovery key by a fresh one, which is returned.
    pub fn replace_recovery(&self, now: Time) -> Result<(SlotId, Secret)> {
        self.keyring().require_owner("making a recovery key")?;
        let secret = Secret::random_recovery()?;
        let new = NewSlot { role: Role::Owner, secret: &secret, label: "recovery".into(), domain: None };
        let mut slots = self.drafts()?;
        slots.retain(|slot| slot.kind != SlotKind::Recovery);
        let slot = self.draft(new, now)?;
        let id = slot.id;
        slots.push(slot);
        self.put_epoch(slots, now)?;
        Ok((id, secret))
    }

    fn draft(&self, new: NewSlot<'_>, now: Time) -> Result<SlotDraft> {
        let NewSlot { role, secret, label, domain } = new;
        let details = SlotDetails { label, domain: domain.clone().unwrap_or_default(), created: now };
        let (mut slot, _) = SlotDraft::new(self.id(), role, secret, details, Some(self.inner.root))?;
        slot.details.domain = match (role, domain) {
            (Role::Backup, Some(domain)) => domain,
            (Role::Backup, None) => format!("slot-{}", &slot.id.to_hex()[..8]),
            _ => crate::keyring::MAIN_DOMAIN.to_owned(),
        };
        Ok(slot)
    }

    /// The slots of the head as drafts of the next epoch.
    fn drafts(&self) -> Result<Vec<SlotDraft>> {
        let members = &self.keyring().head().members;
        let drafts = self.inner.head.epoch.slots.iter().map(|slot| {
            let member = members.get(&slot.id).expect("members are made from the slots");
            let details = SlotDetails {
                label: member.label.clone(),
                domain: member.domain.clone(),
                created: member.created,
            };
            SlotDraft {
                id: slot.id,
                role: slot.role,
                kind: slot.kind,
                kdf: slot.kdf.clone(),
                public: slot.public,
                verify: slot.verify,
                secrets: slot.secrets.clone(),
                details,
            }
        });
        Ok(drafts.collect())
    }

    fn put_epoch(&self, slots: Vec<SlotDraft>, now: Time) -> Result<()> {
        let keyring = self.keyring();
        let master: &Zeroizing<[u8; 32]> = keyring.master.as_ref().expect("owners hold the master secret");
        let earlier = keyring
            .epochs
            .iter()
            .map(|(id, open)| EpochKeys {
                id: *id,
                index: *open.index.expose(),
                reader: open.reader.as_ref().map(|key| *key.expose()),
            })
            .collect();
        let head = &self.inner.head;
        let draft = EpochDraft {
            repository: self.id(),
            previous: Some((head.name, head.epoch.number)),
            created: now,
            slots,
            earlier,
            master,
            signer: keyring.slot,
            key: &keyring.signer,
        };
        let (name, bytes) = draft.seal()?;
        self.backend().put(&object_name(Area::Epochs, &name), bytes.into())?;
        Ok(())
    }
}
