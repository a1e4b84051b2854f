//! From the bytes of an index object to the packs that its signer may name.

use snap_backend::ObjectName;
use snap_format::{IndexObject, IndexedPack, ObjectId, ObjectKind, Role, SlotId, limits};

use crate::boxes::{Opened, open_box};
use crate::{Area, Finding, FindingCode, RepoError, Repository, Result, object_name};

/// An index object that is believed, and who signed it.
#[derive(Debug)]
pub struct ParsedIndex {
    /// Who signed it.
    pub slot: SlotId,
    /// Label of that slot.
    pub slot_label: String,
    /// The packs that its signer may name.
    pub packs: Vec<IndexedPack>,
    /// What it may not name (F19).
    pub findings: Vec<Finding>,
}

/// No signed box is longer: its payload is bounded, and compression never adds to it (`docs/format.md` §16).
pub const MAX_BOX_BYTES: u64 = limits::PAYLOAD_PLAIN as u64 + (64 << 10);

/// Refuses an object that is larger than its kind may be, before it is read into memory.
pub(crate) fn check_box_size(name: &ObjectName, size: u64) -> Result<()> {
    if size <= MAX_BOX_BYTES { Ok(()) } else { Err(RepoError::corrupt(name.as_str(), "it is too large")) }
}

pub(super) fn load_object(repository: &Repository, id: &ObjectId, size: u64) -> Result<ParsedIndex> {
    let name = object_name(Area::Index, id);
    check_box_size(&name, size)?;
    let bytes = repository.backend().get(&name)?;
    repository.parse_index(id, &bytes)
}

impl Repository {
    /// Verifies the bytes of an index object. Pack maps that its signer may not write are reported and left out (F19).
    pub fn parse_index(&self, id: &ObjectId, bytes: &[u8]) -> Result<ParsedIndex> {
        let name = object_name(Area::Index, id);
        crate::verify::check_name(&name, id, bytes)?;
        let Opened { slot, member, payload, .. } =
            open_box(self.keyring(), name.as_str(), ObjectKind::Index, bytes)?;
        let object =
            IndexObject::decode(&payload).map_err(|error| RepoError::format(name.as_str(), error))?;
        drop(payload);
        let (mut packs, mut findings) = (object.packs, Vec::new());
        packs.retain(|pack| {
            let allowed = member.role == Role::Owner || pack.domain == member.domain;
            if !allowed {
                let why = format!(
                    "the slot {slot} {:?} of the domain {} claims the pack {} for the domain {}",
                    member.label, member.domain, pack.id, pack.domain
                );
                findings.push(Finding::new(FindingCode::Forged, name.as_str(), why));
            }
            allowed
        });
        Ok(ParsedIndex { slot, slot_label: member.label, packs, findings })
    }
}
