//! Verifying single objects, from the outside in: name, frame, signature, blobs.

use snap_backend::ObjectName;
use snap_crypto::hash;
use snap_format::{BlobKind, Head, IndexedPack, Mark, ObjectId, ObjectKind, SlotId, TreeBlob};

use crate::boxes::open_box;
use crate::pack::{fetch_header, parse_and_hash};
use crate::{
    Area, BlobReader, DomainKeys, Finding, FindingCode, RepoError, Repository, Result, Scratch, object_name,
};

/// Compares an object's bytes with its name (F3). A whole object under a wrong name is *misnamed*, anything else *corrupt*.
pub(crate) fn check_name(name: &ObjectName, id: &ObjectId, bytes: &[u8]) -> Result<()> {
    match verify_object_name(name, id, bytes, |_| false) {
        None => Ok(()),
        Some(finding) => Err(RepoError::from(finding)),
    }
}

/// The keyless check of one object. `is_known` says whether an object of that name exists: then the bytes belong there.
pub fn verify_object_name(
    name: &ObjectName,
    id: &ObjectId,
    bytes: &[u8],
    is_known: impl Fn(&ObjectId) -> bool,
) -> Option<Finding> {
    judge_name(name, id, ObjectId(hash(bytes)), bytes, is_known)
}

fn judge_name(
    name: &ObjectName,
    id: &ObjectId,
    found: ObjectId,
    bytes: &[u8],
    is_known: impl Fn(&ObjectId) -> bool,
) -> Option<Finding> {
    if found == *id {
        return None;
    }
    let finding = if is_known(&found) {
        Finding::new(
            FindingCode::Misnamed,
            name.as_str(),
            format!("it holds the bytes of the object {found}"),
        )
    } else if bytes.is_empty() {
        Finding::new(FindingCode::Corrupt, name.as_str(), "it is empty")
    } else if Head::decode(bytes).is_err() && bytes.iter().all(|byte| *byte == 0) {
        Finding::new(FindingCode::Corrupt, name.as_str(), "it holds nothing but zeros")
    } else {
        Finding::new(FindingCode::Corrupt, name.as_str(), "its bytes do not have the hash in its name")
    };
    Some(finding)
}

/// What verifying a pack gave.
#[derive(Debug)]
pub struct PackReport {
    /// Who wrote it, if its header opens.
    pub slot: Option<SlotId>,
    /// Whether its bytes have the hash in its name.
    pub is_whole: bool,
    /// Its contents, if its header opens.
    pub pack: Option<IndexedPack>,
    /// Blobs opened and hashed again.
    pub blobs: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Repository {
    /// Verifies the header of a pack in the store without reading its body. Returns its contents.
    pub fn read_pack_header(&self, id: ObjectId, size: u64) -> Result<(SlotId, IndexedPack)> {
        let opened = fetch_header(self.keyring(), self.backend().as_ref(), id, size)?;
        Ok((opened.slot, opened.pack))
    }

    /// Verifies a mark's bytes; only an owner's is one.
    pub fn parse_mark(&self, id: &ObjectId, bytes: &[u8]) -> Result<Mark> {
        let name = object_name(Area::Marks, id);
        check_name(&name, id, bytes)?;
        let opened = open_box(self.keyring(), name.as_str(), ObjectKind::Mark, bytes)?;
        Mark::decode(&opened.payload).map_err(|error| RepoError::format(name.as_str(), error))
    }
}

impl BlobReader {
    /// Verifies a whole pack: name, header, signature, body hash and, if the role reads, every blob. `is_known` is as in
    /// [`verify_object_name`].
    pub fn verify_pack(
        &self,
        id: ObjectId,
        bytes: &[u8],
        is_known: impl Fn(&ObjectId) -> bool,
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
    ) -> Result<PackReport> {
        let mut report =
            PackReport { slot: None, is_whole: true, pack: None, blobs: 0, findings: Vec::new() };
        let (found, opened) = parse_and_hash(self.repository().keyring(), id, bytes);
        if let Some(finding) = judge_name(&object_name(Area::Packs, &id), &id, found, bytes, is_known) {
            report.is_whole = false;
            report.findings.push(finding);
            return Ok(report);
        }
        let opened = match opened.map_err(RepoError::into_finding) {
            Ok(opened) => opened,
            Err(Ok(finding)) => {
                report.findings.push(finding.written_so());
                return Ok(report);
            }
            Err(Err(error)) => return Err(error),
        };
        report.slot = Some(opened.slot);
        if self.repository().keyring().can_read() {
            match self.repository().keyring().domain(&opened.pack.domain) {
                Some(domain) => {
                    self.verify_blobs(&domain, &opened.pack, bytes, scratch, plain, &mut report)?
                }
                None => {
                    let name = object_name(Area::Packs, &id).to_string();
                    let why = format!("its domain {} has no keys", opened.pack.domain);
                    report.findings.push(Finding::new(FindingCode::Forged, name, why));
                }
            }
            // A liar is named: blobs that are not what they claim to be came from whoever signed the pack.
            for finding in report.findings.iter_mut().filter(|finding| finding.code == FindingCode::Forged) {
                finding.why = format!(
                    "{} (written by the slot {} {:?})",
                    finding.why, opened.slot, opened.member.label
                );
            }
        }
        report.pack = Some(opened.pack);
        Ok(report)
    }

    fn verify_blobs(
        &self,
        domain: &DomainKeys,
        pack: &IndexedPack,
        bytes: &[u8],
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
        report: &mut PackReport,
    ) -> Result<()> {
        self.open_all(domain, pack, bytes, scratch, plain, &mut |id, opened| {
            match opened {
                Ok(plain) => {
                    report.blobs += 1;
                    if pack.kind == BlobKind::Tree
                        && let Err(error) = TreeBlob::decode(plain)
                    {
                        let object = object_name(Area::Packs, &pack.id);
                        let finding = RepoError::format(object.as_str(), error).into_finding()?;
                        report.findings.push(finding.written_so().blob(*id));
                    }
                }
                // The pack is signed and whole, so what does not open was sealed wrongly on purpose.
                Err(RepoError::Damaged(finding)) => {
                    report.findings.push(Finding { code: FindingCode::Forged, ..*finding });
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }
}
