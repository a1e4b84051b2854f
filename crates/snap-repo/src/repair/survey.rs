//! Every object, judged by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use snap_backend::{BackendError, ErrorKind, ObjectName};
use snap_format::{EpochId, HEAD_LEN, Head, IndexedPack, ObjectId, limits};

use crate::index::check_box_size;
use crate::pack::{fetch_header, parse_and_hash};
use crate::verify::verify_object_name;
use crate::writer::lock;
use crate::{
    Area, BlobReader, Finding, FindingCode, PackReport, RepoError, Repository, Result, Scratch,
    for_each_parallel, object_name, pack_digest,
};

/// Index objects, snapshots, records and marks, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Boxes {
    /// Objects of which nothing can be used.
    pub bad: Vec<(Area, ObjectId, Finding)>,
    /// Those of them whose bytes do not have the hash in their name.
    pub torn: HashSet<ObjectId>,
    /// Those of them that the disk cannot read.
    pub unreadable: HashSet<ObjectName>,
    /// Bundles of which some members cannot be used: these, and why.
    pub bad_members: BTreeMap<ObjectId, Vec<(ObjectId, Finding)>>,
    /// Objects of a newer version, which are left alone.
    pub newer: Vec<RepoError>,
    /// What index objects say of packs: the object, and a digest.
    pub claims: HashMap<ObjectId, Vec<(ObjectId, [u8; 32])>>,
    /// Index objects that say of packs what their signers may not.
    pub lies: BTreeMap<ObjectId, Finding>,
    /// Index objects that can be used.
    pub index: BTreeSet<ObjectId>,
    /// Snapshots that can be used.
    pub snapshots: HashSet<ObjectId>,
    /// Packs that marks name.
    pub marked: HashSet<ObjectId>,
    /// Epochs that are not here, with the whole objects that are sealed under them.
    pub unknown_epochs: BTreeMap<EpochId, BTreeSet<String>>,
}

/// A pack that was read whole.
#[derive(Debug)]
pub enum PackState {
    /// As it should be; the digest of its contents.
    Whole([u8; 32]),
    /// Not as its name says; with its contents, if its header still verifies.
    Torn(Finding, Option<Box<IndexedPack>>),
    /// Written so, and not believable; with its contents, if its header says some.
    Bad(Finding, Option<Box<IndexedPack>>),
    /// Of a newer version: left alone.
    Newer(RepoError),
    /// It went away meanwhile.
    Gone,
}

fn unreadable(name: &ObjectName, error: &BackendError) -> Finding {
    Finding::new(FindingCode::Corrupt, name.as_str(), format!("it cannot be read: {error}"))
}

impl Repository {
    /// Reads every object but packs and epochs, in the order that makes what is seen belong together (F31): packs that are
    /// listed after it are all that what was seen may need.
    pub fn survey_boxes(&self) -> Result<Boxes> {
        self.drop_listings();
        let out = Mutex::new(Boxes::default());
        for area in [Area::Marks, Area::Snapshots, Area::Records, Area::Index] {
            let listed = self.list(area)?;
            for_each_parallel(&listed, self.backend().parallelism(), |(id, size)| {
                self.survey_box(area, id, *size, &out)
            })?;
        }
        let mut out = out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        out.bad.sort_by_key(|(area, id, _)| (*area, *id));
        Ok(out)
    }

    fn survey_box(&self, area: Area, id: &ObjectId, size: u64, out: &Mutex<Boxes>) -> Result<()> {
        let name = object_name(area, id);
        let torn = |finding: Finding| {
            let mut out = lock(out);
            out.torn.insert(*id);
            out.bad.push((area, *id, finding));
        };
        let bytes =
            match check_box_size(&name, size).and_then(|()| Ok(self.backend().get_range(&name, 0, size)?)) {
                Ok(bytes) => bytes,
                Err(RepoError::Backend(error)) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(RepoError::Backend(error)) if self.is_damage(&error) => {
                    torn(unreadable(&name, &error));
                    lock(out).unreadable.insert(name);
                    return Ok(());
                }
                Err(error) => {
                    torn(error.into_finding()?);
                    return Ok(());
                }
            };
        if let Some(finding) = verify_object_name(&name, id, &bytes, |_| false) {
            torn(finding);
            return Ok(());
        }
        if let Ok(head) = Head::decode(&bytes)
            && !self.keyring().epochs.contains_key(&head.epoch)
        {
            lock(out).unknown_epochs.entry(head.epoch).or_default().insert(name.to_string());
        }
        let bad = |finding: Finding| lock(out).bad.push((area, *id, finding.written_so()));
        let judged = match area {
            Area::Index => self.parse_index(id, &bytes).map(|parsed| {
                let mut out = lock(out);
                out.index.insert(*id);
                for pack in &parsed.packs {
                    out.claims.entry(pack.id).or_default().push((*id, pack_digest(pack)));
                }
                out.lies.extend(parsed.findings.into_iter().next().map(|finding| (*id, finding)));
            }),
            Area::Snapshots => self.survey_snapshots(id, &bytes, out),
            Area::Records => self.parse_record(id, &bytes).and_then(|record| {
                record.about_snapshots().map(drop).map_err(|error| RepoError::format(name.as_str(), error))
            }),
            _ => self.parse_mark(id, &bytes).map(|mark| lock(out).marked.extend(mark.packs)),
        };
        match judged {
            Ok(()) => {}
            Err(error) if error.is_newer() => lock(out).newer.push(error),
            Err(error) => bad(error.into_finding()?),
        }
        Ok(())
    }

    fn survey_snapshots(&self, id: &ObjectId, bytes: &[u8], out: &Mutex<Boxes>) -> Result<()> {
        let Some(bundle) = self.parse_snapshot_bundle(id, bytes)? else {
            let snapshot = self.parse_snapshot(id, bytes)?;
            self.open_body(&snapshot)?;
            lock(out).snapshots.insert(snapshot.id);
            return Ok(());
        };
        for member in &bundle.members {
            let parsed = self.parse_bundled_snapshot(id, member.stored_secs, &member.bytes);
            match parsed.and_then(|snapshot| self.open_body(&snapshot).map(|_| snapshot.id)) {
                Ok(id) => {
                    lock(out).snapshots.insert(id);
                }
                Err(error) if error.is_newer() => lock(out).newer.push(error),
                Err(error) => {
                    let member = ObjectId(snap_crypto::hash(&member.bytes));
                    let finding = error.into_finding()?.written_so();
                    lock(out).bad_members.entry(*id).or_default().push((member, finding));
                }
            }
        }
        Ok(())
    }

    /// Reads a pack whole and judges it.
    pub fn survey_pack(
        &self,
        reader: &BlobReader,
        (id, size): (ObjectId, u64),
        known: &HashSet<ObjectId>,
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
    ) -> Result<PackState> {
        let name = object_name(Area::Packs, &id);
        if size > limits::PACK {
            let finding = Finding::new(FindingCode::Corrupt, name.as_str(), "it is larger than any pack");
            return Ok(PackState::Torn(finding, None));
        }
        let bytes = match self.backend().get(&name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(PackState::Gone),
            Err(error) if self.is_damage(&error) => {
                let header = fetch_header(self.keyring(), self.backend().as_ref(), id, size);
                let header = header.ok().map(|opened| Box::new(opened.pack));
                return Ok(PackState::Torn(unreadable(&name, &error), header));
            }
            Err(error) => return Err(error.into()),
        };
        let report = match reader.verify_pack(id, &bytes, |other| known.contains(other), scratch, plain) {
            Ok(report) => report,
            Err(error) if error.is_newer() => return Ok(PackState::Newer(error)),
            Err(error) => return Err(error),
        };
        let state = match report {
            PackReport { is_whole: true, pack: Some(pack), findings, .. } if findings.is_empty() => {
                PackState::Whole(pack_digest(&pack))
            }
            PackReport { is_whole: true, pack: Some(pack), mut findings, .. } => {
                PackState::Bad(findings.swap_remove(0), Some(Box::new(pack)))
            }
            PackReport { is_whole, mut findings, .. } => {
                // The header is sealed and signed by itself: it may have outlived the body.
                let header = parse_and_hash(self.keyring(), id, &bytes).1.map(|opened| opened.pack);
                let header = header.or_else(|_| {
                    fetch_header(self.keyring(), self.backend().as_ref(), id, bytes.len() as u64)
                        .map(|opened| opened.pack)
                });
                let finding = match findings.is_empty() {
                    true => Finding::new(FindingCode::Corrupt, name.as_str(), "its header does not open"),
                    false => findings.swap_remove(0),
                };
                let header = header.ok().map(Box::new);
                if is_whole { PackState::Bad(finding, header) } else { PackState::Torn(finding, header) }
            }
        };
        Ok(state)
    }

    /// The same of packs: their heads are readable without a key.
    pub fn unknown_epochs_of_packs(&self) -> Result<BTreeMap<EpochId, BTreeSet<String>>> {
        let out: Mutex<BTreeMap<EpochId, BTreeSet<String>>> = Mutex::default();
        let listed = self.list(Area::Packs)?;
        for_each_parallel(&listed, self.backend().parallelism(), |(id, size)| {
            let name = object_name(Area::Packs, id);
            if !(HEAD_LEN as u64..=limits::PACK).contains(size) {
                return Ok(());
            }
            let is_unknown = |head: &Head| !self.keyring().epochs.contains_key(&head.epoch);
            let look = || -> Result<(), BackendError> {
                let head = Head::decode(&self.backend().get_range(&name, 0, HEAD_LEN as u64)?);
                if let Ok(head) = head.as_ref()
                    && is_unknown(head)
                    && snap_crypto::hash(&self.backend().get(&name)?) == id.0
                {
                    lock(&out).entry(head.epoch).or_default().insert(name.to_string());
                }
                Ok(())
            };
            match look() {
                Err(error) if !error.is_not_found() && !self.is_damage(&error) => Err(RepoError::from(error)),
                _ => Ok(()),
            }
        })?;
        Ok(out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
