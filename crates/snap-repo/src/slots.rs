//! Adding and removing slots, and rotating: each is a new epoch with fresh keys.

use snap_crypto::Zeroizing;
use snap_format::{EpochKeys, ObjectId, Role, SlotDetails, SlotId, SlotKind, Time};

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

/// What a change of the keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The name of the epoch that was written.
    pub name: ObjectId,
    /// Number of the epoch that was written.
    pub epoch: u64,
    /// Slots in it.
    pub slots: usize,
    /// Epochs that follow the same one as it does: another owner changed the keys at the same moment, a fork (F9).
    pub rivals: Vec<ObjectId>,
    /// Whether it is the head. If not, a rival's slot table holds, and what was asked for is not in it.
    pub counts: bool,
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
    pub fn add_slot(&self, new: NewSlot<'_>, now: Time) -> Result<(SlotId, KeyChange)> {
        self.keyring().require_owner("adding a key")?;
        let (mut slots, slot) = (self.drafts(), self.draft(new, now)?);
        let id = slot.id;
        slots.push(slot);
        Ok((id, self.put_epoch(slots, now)?))
    }

    /// Fresh keys for the same slots; no secret but that of the opened one is needed. What was written before stays
    /// readable, under the keys that it has.
    pub fn rotate_keys(&self, now: Time) -> Result<KeyChange> {
        self.keyring().require_owner("rotating keys")?;
        self.put_epoch(self.drafts(), now)
    }

    /// Removes a slot. What is written from now on it cannot open.
    pub fn remove_slot(&self, id: SlotId, now: Time) -> Result<KeyChange> {
        self.keyring().require_owner("removing a key")?;
        let mut slots = self.drafts();
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

    /// Replaces every recovery key by `secret`, a fresh one. If this fails on its way to the store, it may have happened
    /// nevertheless: the caller still has the secret, and shows it.
    pub fn replace_recovery(&self, secret: &Secret, now: Time) -> Result<(SlotId, KeyChange)> {
        self.keyring().require_owner("making a recovery key")?;
        let new = NewSlot { role: Role::Owner, secret, label: "recovery".into(), domain: None };
        let mut slots = self.drafts();
        slots.retain(|slot| slot.kind != SlotKind::Recovery);
        let slot = self.draft(new, now)?;
        let id = slot.id;
        slots.push(slot);
        Ok((id, self.put_epoch(slots, now)?))
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
    fn drafts(&self) -> Vec<SlotDraft> {
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
        drafts.collect()
    }

    fn put_epoch(&self, slots: Vec<SlotDraft>, now: Time) -> Result<KeyChange> {
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
        let (epoch, count) = (head.epoch.number + 1, slots.len());
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
        // Of two owners at once, whoever looks last sees both.
        let chain = self.chain_now()?;
        let is_rival = |rival: &ObjectId| *rival != name && *rival != head.name;
        let rivals = chain.valid.values().filter(|other| other.epoch.previous == Some(head.name));
        let mut rivals: Vec<_> = rivals.map(|other| other.name).filter(is_rival).collect();
        rivals.sort_unstable();
        // Another owner may have gone on from here already.
        let counts = chain.lineage().contains(&name);
        Ok(KeyChange { name, epoch, slots: count, rivals, counts })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snap_backend::{Backend, MemoryBackend};

    use super::*;
    use crate::{Cache, FindingCode};

    const NOW: Time = Time { secs: 1, nanos: 0 };

    fn backup_slot<'a>(secret: &'a Secret, domain: Option<&str>) -> NewSlot<'a> {
        NewSlot { role: Role::Backup, secret, label: "web1".into(), domain: domain.map(str::to_owned) }
    }

    fn made() -> (Arc<dyn Backend>, Secret, Secret) {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let owner = Secret::random_key_file().unwrap();
        let (_, recovery) = Repository::create(backend.as_ref(), &owner, "first", NOW).unwrap();
        (backend, owner, recovery)
    }

    fn open(backend: &Arc<dyn Backend>, secret: &Secret) -> Result<Repository> {
        Repository::open(Arc::clone(backend), secret)
    }

    #[test]
    fn slots_come_and_go_and_the_removed_one_is_told_so() {
        let (backend, owner, recovery) = made();
        let (writer, other) = (Secret::random_key_file().unwrap(), Secret::random_key_file().unwrap());
        let (id, _) = open(&backend, &owner).unwrap().add_slot(backup_slot(&writer, None), NOW).unwrap();
        assert!(matches!(open(&backend, &other), Err(RepoError::WrongKey(_))));
        let opened = open(&backend, &writer).unwrap();
        assert_eq!(opened.keyring().role(), Role::Backup);
        assert_eq!(opened.keyring().own_domain(), format!("slot-{}", &id.to_hex()[..8]));
        assert!(opened.keyring().domain("main").is_none());
        assert!(matches!(opened.add_slot(backup_slot(&other, None), NOW), Err(RepoError::Role { .. })));
        // The recovery key opens as owner and may remove.
        open(&backend, &recovery).unwrap().remove_slot(id, NOW).unwrap();
        assert!(matches!(open(&backend, &writer), Err(RepoError::SlotRemoved { epoch: 2, .. })));
        let owner = open(&backend, &owner).unwrap();
        assert_eq!(owner.slots().iter().map(|slot| slot.epoch).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(owner.keyring().epochs.len(), 3);
    }

    #[test]
    fn the_last_owner_stays() {
        let (backend, owner, recovery) = made();
        let opened = open(&backend, &owner).unwrap();
        let slots = opened.slots();
        let spare = slots.iter().find(|slot| slot.kind == SlotKind::Recovery).unwrap();
        opened.remove_slot(spare.id, NOW).unwrap();
        assert!(matches!(open(&backend, &recovery), Err(RepoError::SlotRemoved { .. })));
        let opened = open(&backend, &owner).unwrap();
        assert!(matches!(opened.remove_slot(opened.keyring().slot(), NOW), Err(RepoError::Refused(_))));
        assert!(matches!(opened.remove_slot(SlotId([9; 16]), NOW), Err(RepoError::Refused(_))));
        let fresh = Secret::random_recovery().unwrap();
        opened.replace_recovery(&fresh, NOW).unwrap();
        assert_eq!(open(&backend, &fresh).unwrap().keyring().role(), Role::Owner);
    }

    #[test]
    fn a_fork_is_a_finding_and_who_saw_the_other_branch_stops() {
        let (backend, owner, _) = made();
        let (first, second) = (open(&backend, &owner).unwrap(), open(&backend, &owner).unwrap());
        let (a, b) = (Secret::random_key_file().unwrap(), Secret::random_key_file().unwrap());
        first.add_slot(backup_slot(&a, None), NOW).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), first.id());
        assert_eq!(open(&backend, &owner).unwrap().accept_head(&cache), None);
        // As a removed owner would: another branch from the old head, and longer.
        second.add_slot(backup_slot(&b, None), NOW).unwrap();
        let forked = open(&backend, &owner).unwrap();
        assert_eq!(forked.findings().iter().filter(|finding| finding.code == FindingCode::Forged).count(), 2);
        let heads = [open(&backend, &a).is_ok(), open(&backend, &b).is_ok()];
        assert_eq!(heads.iter().filter(|is_head| **is_head).count(), 1);
        assert_eq!(forked.accept_head(&cache).is_none(), heads[0]);
    }

    #[test]
    fn a_rolled_back_store_is_refused_by_who_remembers() {
        let memory = MemoryBackend::new();
        let backend: Arc<dyn Backend> = Arc::new(memory.clone());
        let owner = Secret::random_key_file().unwrap();
        Repository::create(backend.as_ref(), &owner, "first", NOW).unwrap();
        let old = memory.snapshot();
        let opened = open(&backend, &owner).unwrap();
        opened.add_slot(backup_slot(&Secret::random_key_file().unwrap(), None), NOW).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), opened.id());
        assert_eq!(open(&backend, &owner).unwrap().accept_head(&cache), None);
        memory.restore(old);
        let rolled_back = open(&backend, &owner).unwrap();
        assert_eq!(rolled_back.accept_head(&cache).unwrap().code, FindingCode::Missing);
    }

    #[test]
    fn a_counterfeit_repository_is_refused() {
        // The attacker copies the public rows of the victim's slot into a chain of his own.
        let (backend, owner, _) = made();
        let (fake, attacker, _) = made();
        let victim = open(&backend, &owner).unwrap();
        let mut row = victim.drafts().remove(0);
        row.role = Role::Owner;
        let attacking = open(&fake, &attacker).unwrap();
        let mut slots = attacking.drafts();
        slots.push(row);
        attacking.put_epoch(slots, NOW).unwrap();
        assert!(matches!(open(&fake, &owner), Err(RepoError::WrongKey(_) | RepoError::Counterfeit(_))));
    }
}
