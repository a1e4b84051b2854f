//! What is known to be wrong with packs while a check goes on: one record a pack, so that each damage is named once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use snap_format::{BlobId, ObjectId};
use snap_repo::{Area, Finding, FindingCode, Located, object_name};

use crate::work::lock;

/// What is wrong with one pack.
#[derive(Debug)]
struct Record {
    code: FindingCode,
    why: String,
    /// None of its blobs can be had.
    all: bool,
    /// The blobs that cannot be had, or cannot be believed.
    blobs: BTreeSet<BlobId>,
    /// A blob that can be had and says what is not so.
    liar: Option<BlobId>,
}

/// Damage by pack. Shared by threads.
#[derive(Debug, Default)]
pub(super) struct Damage {
    packs: Mutex<BTreeMap<ObjectId, Record>>,
}

/// Of two judgements on one pack the one that explains more stands.
fn weight(code: FindingCode) -> u8 {
    match code {
        FindingCode::Missing => 4,
        FindingCode::Misnamed => 3,
        FindingCode::Forged => 2,
        _ => 1,
    }
}

impl Damage {
    fn with(&self, pack: &ObjectId, code: FindingCode, why: String, change: impl FnOnce(&mut Record)) {
        let mut packs = lock(&self.packs);
        let fresh = || Record { code, why: why.clone(), all: false, blobs: BTreeSet::new(), liar: None };
        let record = packs.entry(*pack).or_insert_with(fresh);
        if weight(code) > weight(record.code) {
            (record.code, record.why) = (code, why);
        }
        change(record);
    }

    /// A pack is damaged in a way that need not touch a blob.
    pub(super) fn pack(&self, pack: &ObjectId, finding: Finding) {
        self.with(pack, finding.code, finding.why, |_| {});
    }

    /// Nothing of a pack can be had.
    pub(super) fn whole_pack(&self, pack: &ObjectId, finding: Finding) {
        self.with(pack, finding.code, finding.why, |record| record.all = true);
    }

    /// A blob of a pack cannot be had.
    pub(super) fn blob(&self, pack: &ObjectId, blob: BlobId, code: FindingCode, why: String) {
        self.with(pack, code, why, |record| {
            record.blobs.insert(blob);
        });
    }

    /// A blob of a pack is what its writer made it, and contradicts itself.
    pub(super) fn liar(&self, pack: &ObjectId, blob: BlobId, why: String) {
        self.with(pack, FindingCode::Forged, why, |record| {
            record.liar.get_or_insert(blob);
        });
    }

    /// A pack has turned out whole; what could not be read in it before was looked for in the wrong place.
    pub(super) fn is_whole(&self, pack: &ObjectId) {
        if let Some(record) = lock(&self.packs).get_mut(pack)
            && record.code == FindingCode::Corrupt
        {
            record.code = FindingCode::Forged;
            record.why = "it is whole, and the index gives the wrong places for its blobs".to_owned();
        }
    }

    /// Whether a place gives nothing.
    pub(super) fn is_bad(&self, place: &Located, blob: &BlobId) -> bool {
        lock(&self.packs).get(&place.pack_id).is_some_and(|record| record.all || record.blobs.contains(blob))
    }

    /// Packs that something is wrong with.
    pub(super) fn packs(&self) -> Vec<ObjectId> {
        lock(&self.packs).keys().copied().collect()
    }

    /// One finding a pack, without snapshots and paths.
    pub(super) fn findings(&self) -> Vec<(ObjectId, Finding)> {
        let finding = |(pack, record): (&ObjectId, &Record)| {
            let mut why = record.why.clone();
            if record.blobs.len() > 1 {
                why.push_str(&format!("; {} blobs of it are lost", record.blobs.len()));
            }
            let mut finding = Finding::new(record.code, object_name(Area::Packs, pack).as_str(), why);
            finding.blob = record.blobs.first().copied().filter(|_| record.blobs.len() == 1).or(record.liar);
            (*pack, finding)
        };
        lock(&self.packs).iter().map(finding).collect()
    }
}
