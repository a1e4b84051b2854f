//! What the cache keeps of snapshots: envelopes that were verified, and bodies that were opened.

use std::collections::HashMap;

use snap_backend::Timestamp;
use snap_crypto::{IdKey, derive_key};
use snap_format::{Body, Envelope, EpochId, ObjectId, SlotId};

use crate::cache_table::CacheTable;
use crate::listing::Listed;
use crate::snapshot_area::SnapshotObject;
use crate::{Cache, Keyring, Repository, Snapshot};

/// Verified objects of `snapshots/`, by name. The key comes from the first epoch's index key, which all slots hold: whoever
/// may use this cache could verify what is in it.
pub(crate) fn objects_table(repository: &Repository, cache: &Cache) -> Option<CacheTable> {
    Some(CacheTable::load(cache, OBJECTS, objects_key(repository)?))
}

const OBJECTS: &str = "snapshots";

fn objects_key(repository: &Repository) -> Option<IdKey> {
    let first = repository.keyring().epochs.values().min_by_key(|epoch| epoch.number)?;
    let material = [first.index.expose().as_slice(), &repository.id().0];
    Some(IdKey::new(derive_key("snap v0 cached snapshots", &material)))
}

/// Keeps a snapshot that was put just now, so that the next run need not fetch it.
pub(crate) fn remember(repository: &Repository, cache: &Cache, bytes: &[u8]) {
    let id = ObjectId(snap_crypto::hash(bytes));
    let (Ok(snapshot), Some(key)) = (repository.parse_snapshot(&id, bytes), objects_key(repository)) else {
        return;
    };
    let listed = Listed { id, size: snapshot.size, stored: None };
    let object = SnapshotObject { listed, is_bundle: false, snapshots: vec![snapshot], findings: Vec::new() };
    CacheTable::add(cache, OBJECTS, &key, &id, &encode(&object));
}

/// Opened bodies, by snapshot. The key comes from the master secret: readers only.
pub(crate) fn bodies_table(repository: &Repository, cache: &Cache) -> Option<CacheTable> {
    let master = repository.keyring().master.as_ref()?;
    let key = IdKey::new(derive_key("snap v0 cached bodies", &[master.as_slice(), &repository.id().0]));
    Some(CacheTable::load(cache, "bodies", key))
}

const ALONE: u8 = 1;
const BUNDLE: u8 = 2;

/// An object as the table keeps it; none with findings is kept.
pub(crate) fn encode(object: &SnapshotObject) -> Vec<u8> {
    let mut out = vec![if object.is_bundle { BUNDLE } else { ALONE }];
    for snapshot in &object.snapshots {
        let stored = snapshot.stored.unwrap_or_default();
        out.extend_from_slice(&snapshot.id.0);
        out.push(u8::from(snapshot.stored.is_some()));
        out.extend_from_slice(&stored.unix_seconds.to_le_bytes());
        out.extend_from_slice(&stored.nanos.to_le_bytes());
        out.extend_from_slice(&snapshot.size.to_le_bytes());
        out.extend_from_slice(&snapshot.slot.0);
        out.extend_from_slice(&snapshot.epoch.0);
        let envelope = snapshot.envelope.encode();
        out.extend_from_slice(&u32::try_from(envelope.len()).expect("below 64 MiB").to_le_bytes());
        out.extend_from_slice(&envelope);
    }
    out
}

/// Reads it; `None` if this slot cannot tell who wrote it, and has to look itself.
pub(crate) fn decode(keyring: &Keyring, listed: Listed, bytes: &[u8]) -> Option<SnapshotObject> {
    let (kind, rest) = bytes.split_first()?;
    let mut rest = Fields(rest);
    let mut snapshots = Vec::new();
    while !rest.0.is_empty() {
        let id = ObjectId(rest.take()?);
        let [has_time] = rest.take()?;
        let at = Timestamp {
            unix_seconds: i64::from_le_bytes(rest.take()?),
            nanos: u32::from_le_bytes(rest.take()?),
        };
        let size = u64::from_le_bytes(rest.take()?);
        let (slot, epoch) = (SlotId(rest.take()?), EpochId(rest.take()?));
        let len = u32::from_le_bytes(rest.take()?) as usize;
        let envelope = Envelope::decode(rest.take_slice(len)?).ok()?;
        let slot_label = keyring.member(epoch, slot)?.label.clone();
        let stored = (has_time == 1).then_some(at);
        snapshots.push(Snapshot { id, envelope, slot, slot_label, epoch, stored, size });
    }
    Some(SnapshotObject { listed, is_bundle: *kind == BUNDLE, snapshots, findings: Vec::new() })
}

/// The snapshots of a bundle that was verified on this machine.
pub(crate) fn bundle_members(repository: &Repository, cache: &Cache, id: &ObjectId) -> Option<Vec<ObjectId>> {
    let table = objects_table(repository, cache)?;
    let listed = Listed { id: *id, size: 0, stored: None };
    let object = decode(repository.keyring(), listed, table.get(id)?)?;
    object.is_bundle.then(|| object.snapshots.iter().map(|snapshot| snapshot.id).collect())
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn take_slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Bodies that the cache knows.
pub(crate) fn known_bodies(table: Option<&CacheTable>, snapshots: &[Snapshot]) -> HashMap<ObjectId, Body> {
    let body = |snapshot: &Snapshot| Some((snapshot.id, Body::decode(table?.get(&snapshot.id)?).ok()?));
    snapshots.iter().filter_map(body).collect()
}
