//! Reading packs whole: their names, headers, blobs, and what the index says of them.

use std::sync::Mutex;

use snap_format::{IndexedPack, ObjectId};
use snap_repo::{
    Area, BlobReader, Finding, FindingCode, PackReport, RepoError, Repository, object_name, pack_digest,
};

use super::damage::Damage;
use super::store::{Fetched, Store};
use super::structure::{Claim, Structure, slot_name};
use crate::Result;
use crate::work::{Worker, for_each, lock};

/// Reads packs and notes what is wrong with them.
pub(super) struct PackCheck<'a> {
    pub(super) repository: &'a Repository,
    pub(super) store: Store<'a>,
    pub(super) structure: &'a Structure,
    pub(super) reader: &'a BlobReader,
    pub(super) damage: &'a Damage,
    /// Index objects that lie, and objects that only a newer version can judge.
    pub(super) lies: Mutex<Vec<Finding>>,
    pub(super) newer: Mutex<Vec<RepoError>>,
}

impl PackCheck<'_> {
    /// Reads each of `packs`, of the sizes listed.
    pub(super) fn read(&self, packs: &[(ObjectId, u64)]) -> Result<()> {
        let context = self.store.context;
        // A thread holds a pack and a blob, twice; where the store is far, more of them wait than compute.
        let parallelism = match self.repository.backend().local_root() {
            Some(_) => 1,
            None => self.repository.backend().parallelism(),
        };
        let affordable = usize::try_from(context.memory_bytes / (40 << 20)).unwrap_or(usize::MAX);
        let threads = context.threads.max(parallelism.min(affordable));
        for_each(packs, threads, |(id, size), worker| {
            self.examine(*id, *size, worker)?;
            context.progress.add(1, *size);
            Ok(())
        })
    }

    fn examine(&self, id: ObjectId, size: u64, worker: &mut Worker) -> Result<()> {
        let name = object_name(Area::Packs, &id);
        let Worker { scratch, plain, bytes } = worker;
        let bytes = match self.store.fetch(&name, size, bytes)? {
            Fetched::Whole(bytes) => bytes,
            Fetched::Gone if self.structure.claims.contains_key(&id) => {
                let finding = Finding::new(FindingCode::Missing, name.as_str(), "it went away meanwhile");
                self.damage.whole_pack(&id, finding);
                return Ok(());
            }
            Fetched::Gone => return Ok(()),
            Fetched::Damaged(finding) => {
                self.damage.whole_pack(&id, finding);
                return Ok(());
            }
            Fetched::TooLarge(hash) => {
                let finding = Finding::new(FindingCode::Corrupt, name.as_str(), "it is larger than any pack");
                let finding = if hash == id.0 { finding.written_so() } else { finding };
                self.damage.whole_pack(&id, finding);
                return Ok(());
            }
        };
        let is_known = |other: &ObjectId| self.structure.known.contains(other);
        let report = match self.reader.verify_pack(id, bytes, is_known, scratch, plain) {
            Ok(report) => report,
            Err(error) if error.is_newer() => {
                lock(&self.newer).push(error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match report {
            PackReport { is_whole: false, mut findings, .. } => {
                if !self.structure.claims.contains_key(&id) {
                    for finding in &mut findings {
                        finding.why.push_str(", and no index names it: a run that died left it half-written");
                    }
                }
                findings.into_iter().for_each(|finding| self.damage.pack(&id, finding));
                let length = bytes.len();
                let pack = std::mem::take(&mut worker.bytes);
                let outcome = self.find_lost_blobs(id, &pack[..length], worker);
                worker.bytes = pack;
                outcome
            }
            PackReport { pack: None, findings, .. } => {
                findings.into_iter().for_each(|finding| self.damage.whole_pack(&id, finding));
                Ok(())
            }
            PackReport { pack: Some(pack), findings, .. } => {
                self.damage.is_whole(&id);
                for finding in findings {
                    match finding.blob {
                        Some(blob) => self.damage.blob(&id, blob, finding.code, finding.why),
                        None => self.damage.whole_pack(&id, finding),
                    }
                }
                self.compare_claims(&pack);
                Ok(())
            }
        }
    }

    /// Of a damaged pack, tries each blob where the index says it lies: often one alone is lost.
    fn find_lost_blobs(&self, id: ObjectId, bytes: &[u8], worker: &mut Worker) -> Result<()> {
        if !self.repository.keyring().can_read() {
            return Ok(());
        }
        for pack in self.claimed(id, worker)? {
            self.store.context.check_stop()?;
            let Some(domain) = self.repository.keyring().domain(&pack.domain) else { continue };
            let Worker { scratch, plain, .. } = &mut *worker;
            self.reader.open_all(&domain, &pack, bytes, scratch, plain, &mut |blob, opened| {
                if opened.is_err() {
                    let why = "a blob in it does not authenticate".to_owned();
                    self.damage.blob(&id, *blob, FindingCode::Corrupt, why);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What the index says of a pack, read again, since the index in memory does not keep its order.
    fn claimed(&self, id: ObjectId, worker: &mut Worker) -> Result<Vec<IndexedPack>> {
        let mut found: Vec<([u8; 32], IndexedPack)> = Vec::new();
        for Claim { digest, index, .. } in self.structure.claims.get(&id).into_iter().flatten() {
            if found.iter().any(|(known, _)| known == digest) {
                continue;
            }
            let name = object_name(Area::Index, index);
            let size = match self.repository.backend().stat(&name) {
                Ok(meta) => meta.size_bytes,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(RepoError::from(error).into()),
            };
            if let Fetched::Whole(bytes) = self.store.fetch(&name, size, &mut worker.bytes)?
                && let Ok(parsed) = self.repository.parse_index(index, bytes)
            {
                let packs = parsed.packs.into_iter().map(|pack| (pack_digest(&pack), pack));
                found.extend(packs.filter(|(other, pack)| pack.id == id && other == digest));
            }
        }
        Ok(found.into_iter().map(|(_, pack)| pack).collect())
    }

    /// The header is signed and vouches for the pack; an index that says something else was made to mislead.
    fn compare_claims(&self, pack: &IndexedPack) {
        let truth = pack_digest(pack);
        for claim in self.structure.claims.get(&pack.id).into_iter().flatten() {
            if claim.digest != truth {
                let why = format!(
                    "{} says of the pack {} what its header does not: contents, size or domain",
                    claim.signer, pack.id
                );
                let name = object_name(Area::Index, &claim.index);
                lock(&self.lies).push(Finding::new(FindingCode::Forged, name.as_str(), why));
            }
        }
    }

    /// Who wrote a pack, for people.
    pub(super) fn writer_of(&self, pack: &ObjectId) -> Option<String> {
        let size = self.structure.packs.get(pack)?;
        let (slot, _) = self.repository.read_pack_header(*pack, *size).ok()?;
        let slots = self.repository.slots();
        let label = slots.iter().find(|info| info.id == slot).map_or("", |info| &info.label);
        Some(slot_name(slot, label))
    }
}
