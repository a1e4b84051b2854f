use std::sync::{Mutex, PoisonError};

use snap_backend::Timestamp;
use snap_format::{Body, Envelope, ObjectId, ObjectKind, Record, RecordBody, Role, SlotId, Time};

use crate::boxes::open_box;
use crate::index::check_box_size;
use crate::{
    Area, DomainKeys, Finding, FindingCode, RepoError, Repository, Result, for_each_parallel, object_name,
    parse_object_name,
};

/// Clocks of writer and store may differ by this much, seconds, before a snapshot counts as from the future.
const CLOCK_TOLERANCE_SECS: i64 = 300;

/// A believed snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id, the name of the object.
    pub id: ObjectId,
    /// What every slot may know.
    pub envelope: Envelope,
    /// Who wrote it.
    pub slot: SlotId,
    /// Label of that slot.
    pub slot_label: String,
    /// The store's own time of it.
    pub stored: Option<Timestamp>,
    /// Size of the object in bytes.
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

/// Records by id, and what could not be read.
pub type RecordsAndFindings = (Vec<(ObjectId, Record)>, Vec<Finding>);

impl Repository {
    /// Reads all snapshots. A garbage snapshot is a finding; it does not hide the others.
    pub fn snapshots(&self) -> Result<SnapshotSet> {
        let mut names = Vec::new();
        self.backend().list(Area::Snapshots.prefix(), &mut |meta| {
            if let Some((_, id)) = parse_object_name(meta.name.as_str()) {
                names.push((id, meta.size_bytes, meta.modified));
            }
            Ok(())
        })?;
        let set = Mutex::new(SnapshotSet::default());
        for_each_parallel(&names, self.backend().parallelism(), |(id, size, stored)| {
            let outcome = self.load_snapshot(id, *size, *stored).map_err(RepoError::into_finding_among_many);
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(snapshot) => set.snapshots.push(snapshot),
                Err(Ok(finding)) => set.findings.push(finding),
                Err(Err(error)) => return Err(error),
            }
            Ok(())
        })?;
        let mut set = set.into_inner().unwrap_or_else(PoisonError::into_inner);
        set.snapshots.sort_by_key(|snapshot| (snapshot.envelope.time, snapshot.id));
        set.findings.sort();
        Ok(set)
    }

    fn load_snapshot(&self, id: &ObjectId, size: u64, stored: Option<Timestamp>) -> Result<Snapshot> {
        let name = object_name(Area::Snapshots, id);
        check_box_size(&name, size)?;
        let bytes = self.backend().get(&name)?;
        let mut snapshot = self.parse_snapshot(id, &bytes)?;
        (snapshot.size, snapshot.stored) = (size, stored);
        Ok(snapshot)
    }

    /// Verifies a snapshot's bytes, but for its body.
    pub fn parse_snapshot(&self, id: &ObjectId, bytes: &[u8]) -> Result<Snapshot> {
        let name = object_name(Area::Snapshots, id);
        crate::verify::check_name(&name, id, bytes)?;
        let opened = open_box(self.keyring(), name.as_str(), ObjectKind::Snapshot, bytes)?;
        let envelope =
            Envelope::decode(&opened.payload).map_err(|error| RepoError::format(name.as_str(), error))?;
        if envelope.domain != opened.member.domain {
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
            .open(&body_ad(self), &envelope.body)
            .map_err(|_| RepoError::corrupt(name.as_str(), "its body does not authenticate"))?;
        Body::decode(&plain).map_err(|error| RepoError::format(name.as_str(), error))
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

    /// Verifies a record's bytes. Only owners forget, pin and tag.
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

pub(crate) fn body_ad(repository: &Repository) -> Vec<u8> {
    [repository.id().0.as_slice(), b"snapshot body"].concat()
}
