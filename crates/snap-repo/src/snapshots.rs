use std::collections::HashMap;
use std::sync::Mutex;

use snap_backend::Timestamp;
use snap_format::{
    Body, Envelope, EpochId, ObjectId, ObjectKind, Record, RecordBody, RepoId, Role, SlotId, Time,
};

use crate::boxes::open_box;
use crate::index::check_box_size;
use crate::snapshot_area::{Known, distinct};
use crate::snapshot_cache::{bodies_table, known_bodies};
use crate::writer::lock;
use crate::{
    Area, DomainKeys, Finding, FindingCode, RepoError, Repository, Result, for_each_parallel, object_name,
};

/// Clocks of writer and store may differ by this much, seconds, before a snapshot counts as from the future.
const CLOCK_TOLERANCE_SECS: i64 = 300;

/// How many listings may differ before [`Repository::settled_snapshots`] gives up.
const SETTLING: usize = 8;

/// A believed snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id: the hash of its bytes, and the name of the object if it stands alone.
    pub id: ObjectId,
    /// What every slot may know.
    pub envelope: Envelope,
    /// Who wrote it.
    pub slot: SlotId,
    /// Label of that slot.
    pub slot_label: String,
    /// Under whose keys.
    pub epoch: EpochId,
    /// The store's own time of it; of one in a bundle, what the owner who put it there says.
    pub stored: Option<Timestamp>,
    /// Size of its bytes.
    pub size: u64,
}

impl Snapshot {
    /// Whether its time lies ahead of the store's: a broken clock, or an attempt to be `latest`.
    pub fn is_from_the_future(&self) -> bool {
        self.stored.is_some_and(|stored| self.envelope.time.secs > stored.unix_seconds + CLOCK_TOLERANCE_SECS)
    }

    /// Whether some entries could not be read.
    pub fn is_incomplete(&self) -> bool {
        self.envelope.summary.unreadable > 0
    }
}

/// All snapshots, oldest first, and what is wrong with the rest.
#[derive(Debug, Default)]
pub struct SnapshotSet {
    /// Those that are believed.
    pub snapshots: Vec<Snapshot>,
    /// Damage and forgery.
    pub findings: Vec<Finding>,
}

/// Bodies by snapshot, and what could not be opened.
pub type BodiesAndFindings = (HashMap<ObjectId, Body>, Vec<Finding>);

/// Records by id, and what could not be read.
pub type RecordsAndFindings = (Vec<(ObjectId, Record)>, Vec<Finding>);

impl Repository {
    /// Reads all snapshots, whether they stand alone or in bundles. What is garbage is a finding; it does not hide the
    /// others.
    pub fn snapshots(&self) -> Result<SnapshotSet> {
        let (snapshots, findings) = distinct(self.read_snapshot_area(Known::FromCache)?);
        Ok(SnapshotSet { snapshots, findings })
    }

    /// As [`Repository::snapshots`], for who deletes data because no snapshot needs it: no merge that runs meanwhile can
    /// hide a snapshot (F30), since two listings in sequence have shown the same.
    pub fn settled_snapshots(&self) -> Result<SnapshotSet> {
        let mut before = self.list(Area::Snapshots)?;
        for _ in 0..SETTLING {
            let objects = self.read_snapshot_area(Known::FromCache)?;
            let mut names: Vec<_> =
                objects.iter().map(|object| (object.listed.id, object.listed.size)).collect();
            names.sort_unstable();
            if names == before {
                let (snapshots, findings) = distinct(objects);
                return Ok(SnapshotSet { snapshots, findings });
            }
            before = names;
        }
        Err(RepoError::Refused("snapshots come and go too fast to be sure of them: try again later".into()))
    }

    /// Verifies a snapshot's bytes, but for its body.
    pub fn parse_snapshot(&self, id: &ObjectId, bytes: &[u8]) -> Result<Snapshot> {
        let name = object_name(Area::Snapshots, id);
        crate::verify::check_name(&name, id, bytes)?;
        let opened = open_box(self.keyring(), name.as_str(), ObjectKind::Snapshot, bytes)?;
        let envelope =
            Envelope::decode(&opened.payload).map_err(|error| RepoError::format(name.as_str(), error))?;
        // F24: owners stand in for others when they write a snapshot anew.
        if envelope.domain != opened.member.domain && opened.member.role != Role::Owner {
            let why = format!(
                "the slot {} of the domain {} wrote a snapshot for the domain {}",
                opened.slot, opened.member.domain, envelope.domain
            );
            return Err(RepoError::from(Finding::new(FindingCode::Forged, name.as_str(), why)));
        }
        let slot_label = opened.member.label;
        Ok(Snapshot {
            id: *id,
            envelope,
            slot: opened.slot,
            slot_label,
            epoch: opened.epoch,
            stored: None,
            size: bytes.len() as u64,
        })
    }

    /// Opens the part of a snapshot that only readers may know.
    pub fn open_body(&self, snapshot: &Snapshot) -> Result<Body> {
        self.keyring().require_reader("reading a snapshot's content")?;
        let name = object_name(Area::Snapshots, &snapshot.id);
        let envelope = &snapshot.envelope;
        let key = self
            .run_key(&envelope.run_key)
            .ok_or_else(|| RepoError::corrupt(name.as_str(), "its run key does not open"))?;
        let plain = key
            .open(&body_ad(self.id()), &envelope.body)
            .map_err(|_| RepoError::corrupt(name.as_str(), "its body does not authenticate"))?;
        Body::decode(&plain).map_err(|error| RepoError::format(name.as_str(), error))
    }

    /// Opens the bodies of many snapshots; what was opened before comes from the cache.
    pub fn open_bodies(&self, snapshots: &[Snapshot]) -> Result<BodiesAndFindings> {
        self.keyring().require_reader("reading snapshots' content")?;
        let table = self.inner.cache.get().and_then(|cache| bodies_table(self, cache));
        let mut bodies = known_bodies(table.as_ref(), snapshots);
        let new: Vec<&Snapshot> =
            snapshots.iter().filter(|snapshot| !bodies.contains_key(&snapshot.id)).collect();
        let (opened, findings) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        for_each_parallel(&new, self.backend().parallelism(), |snapshot| {
            match self.open_body(snapshot).map_err(RepoError::into_finding) {
                Ok(body) => lock(&opened).push((snapshot.id, body)),
                Err(Ok(finding)) => lock(&findings).push(finding),
                Err(Err(error)) => return Err(error),
            }
            Ok(())
        })?;
        let opened = std::mem::take(&mut *lock(&opened));
        if let (Some(table), Some(cache)) = (table, self.inner.cache.get()) {
            let fresh: Vec<_> = opened.iter().map(|(id, body)| (*id, body.encode())).collect();
            // Snapshots that were filtered out are none the less there.
            table.store(cache, &fresh, |_| true);
        }
        bodies.extend(opened);
        let mut findings = std::mem::take(&mut *lock(&findings));
        findings.sort();
        Ok((bodies, findings))
    }

    /// The keys of the domain in which a snapshot was written.
    pub fn domain_of(&self, snapshot: &Snapshot) -> Result<DomainKeys> {
        self.keyring().require_reader("reading a snapshot's content")?;
        self.keyring().domain(&snapshot.envelope.domain).ok_or(RepoError::Role {
            verb: "reading this snapshot",
            role: self.keyring().role(),
            needs: "owner or restore",
        })
    }

    /// Reads all records that can be read; the rest are findings.
    pub fn records(&self) -> Result<RecordsAndFindings> {
        let (mut records, mut findings) = (Vec::new(), Vec::new());
        for (id, size) in self.list(Area::Records)? {
            match self.load_record(&id, size).map_err(RepoError::into_finding_among_many) {
                Ok(record) => records.push((id, record)),
                Err(Ok(finding)) => findings.push(finding),
                Err(Err(error)) => return Err(error),
            }
        }
        Ok((records, findings))
    }

    fn load_record(&self, id: &ObjectId, size: u64) -> Result<Record> {
        let name = object_name(Area::Records, id);
        check_box_size(&name, size)?;
        let bytes = self.backend().get(&name)?;
        self.parse_record(id, &bytes)
    }

    /// Verifies a record's bytes. Only owners forget, pin, tag and replace.
    pub fn parse_record(&self, id: &ObjectId, bytes: &[u8]) -> Result<Record> {
        self.parse_signed_record(id, bytes).map(|(_, record)| record)
    }

    /// The same, and who signed it.
    pub(crate) fn parse_signed_record(&self, id: &ObjectId, bytes: &[u8]) -> Result<(SlotId, Record)> {
        let name = object_name(Area::Records, id);
        crate::verify::check_name(&name, id, bytes)?;
        let opened = open_box(self.keyring(), name.as_str(), ObjectKind::Record, bytes)?;
        let record =
            Record::decode(&opened.payload).map_err(|error| RepoError::format(name.as_str(), error))?;
        if RecordBody::is_owners(&record.kind) && opened.member.role != Role::Owner {
            let why = format!("a `{}` record of the slot {}, which is no owner", record.kind, opened.slot);
            return Err(RepoError::from(Finding::new(FindingCode::Forged, name.as_str(), why)));
        }
        Ok((opened.slot, record))
    }

    /// Writes a record.
    pub fn put_record(&self, kind: &str, time: Time, body: Vec<u8>) -> Result<ObjectId> {
        let payload = Record { kind: kind.to_owned(), time, body }.encode();
        self.put_box(Area::Records, ObjectKind::Record, &payload)
    }

    pub(crate) fn put_box(&self, area: Area, kind: ObjectKind, payload: &[u8]) -> Result<ObjectId> {
        let bytes = crate::boxes::seal_box(self.keyring(), kind, payload)?;
        let id = ObjectId(snap_crypto::hash(&bytes));
        self.backend().put(&object_name(area, &id), bytes.into())?;
        Ok(id)
    }
}

pub(crate) fn body_ad(repository: RepoId) -> Vec<u8> {
    [repository.0.as_slice(), b"snapshot body"].concat()
}
