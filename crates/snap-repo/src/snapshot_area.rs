//! What lies in `snapshots/`: snapshots by themselves, and bundles of them (`docs/format.md` §10).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use snap_backend::{Bytes, ErrorKind, Timestamp};
use snap_format::{Head, ObjectId, ObjectKind, SnapshotBundle};

use crate::boxes::open_box;
use crate::cache_table::CacheTable;
use crate::index::check_box_size;
use crate::listing::Listed;
use crate::snapshot_cache::{self, objects_table};
use crate::writer::lock;
use crate::{Area, Finding, RepoError, Repository, Result, Snapshot, for_each_parallel, object_name};

/// How often an area is listed before what is listed and not there counts as missing: a merge deletes what it has replaced.
const LISTINGS: usize = 3;

/// What need not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// All is read from the store.
    Nothing,
    /// What this machine has verified before.
    FromCache,
}

/// An object of the area, and the snapshots in it that are believed.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotObject {
    pub(crate) listed: Listed,
    pub(crate) is_bundle: bool,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) findings: Vec<Finding>,
}

/// Members of a bundle are verified in parts of this size: one bundle is work for all threads.
const MEMBERS_AT_ONCE: usize = 256;

/// An object whose bytes were fetched.
enum Fetched {
    Done(SnapshotObject),
    Bundle(Listed, SnapshotBundle),
}

impl Repository {
    /// Opens a snapshot bundle; `None` if the object is of another kind. Its members are to be judged one by one.
    pub fn parse_snapshot_bundle(&self, id: &ObjectId, bytes: &[u8]) -> Result<Option<SnapshotBundle>> {
        let name = object_name(Area::Snapshots, id);
        crate::verify::check_name(&name, id, bytes)?;
        if !Head::decode(bytes).is_ok_and(|head| head.kind == ObjectKind::SnapshotBundle) {
            return Ok(None);
        }
        let opened = open_box(self.keyring(), name.as_str(), ObjectKind::SnapshotBundle, bytes)?;
        let bundle = SnapshotBundle::decode(&opened.payload);
        bundle.map(Some).map_err(|error| RepoError::format(name.as_str(), error))
    }

    /// Verifies the bytes of a member of the bundle `bundle`; what is wrong with it is said of the bundle.
    pub fn parse_bundled_snapshot(
        &self,
        bundle: &ObjectId,
        stored_secs: i64,
        bytes: &[u8],
    ) -> Result<Snapshot> {
        let id = ObjectId(snap_crypto::hash(bytes));
        match self.parse_snapshot(&id, bytes).map_err(RepoError::into_finding_among_many) {
            Ok(mut snapshot) => {
                snapshot.stored = Some(Timestamp { unix_seconds: stored_secs, nanos: 0 });
                Ok(snapshot)
            }
            Err(Ok(mut finding)) => {
                finding.object = object_name(Area::Snapshots, bundle).to_string();
                finding.why = format!("its member {id}: {}", finding.why);
                finding.snapshots.push(id);
                Err(RepoError::from(finding.written_so()))
            }
            Err(Err(error)) => Err(error),
        }
    }

    /// The objects in which snapshots stand, read from the store itself and no cache, and the believed snapshots in each. What
    /// is damaged holds none.
    pub fn snapshot_holders(&self) -> Result<Vec<(ObjectId, Vec<Snapshot>)>> {
        let objects = self.read_snapshot_area(Known::Nothing)?;
        Ok(objects.into_iter().map(|object| (object.listed.id, object.snapshots)).collect())
    }

    /// The ids of the believed snapshots in an object of `snapshots/`, by its bytes: itself, or the members of a bundle. An
    /// error if the bytes do not fit the name `id`, or are nothing of that kind.
    pub fn snapshots_in(&self, id: &ObjectId, bytes: &[u8]) -> Result<Vec<ObjectId>> {
        let Some(bundle) = self.parse_snapshot_bundle(id, bytes)? else {
            return Ok(vec![self.parse_snapshot(id, bytes)?.id]);
        };
        let member = |it: &snap_format::BundledSnapshot| {
            self.parse_bundled_snapshot(id, it.stored_secs, &it.bytes).ok().map(|snapshot| snapshot.id)
        };
        Ok(bundle.members.iter().filter_map(member).collect())
    }

    /// Reads the area. What vanishes between listing and reading was merged or forgotten: then it is listed again.
    pub(crate) fn read_snapshot_area(&self, trust: Known) -> Result<Vec<SnapshotObject>> {
        let cache = self.inner.cache.get();
        let table = cache.and_then(|cache| objects_table(self, cache));
        let mut known: HashMap<ObjectId, SnapshotObject> = HashMap::new();
        let mut fresh: Vec<(ObjectId, Vec<u8>)> = Vec::new();
        for left in (0..LISTINGS).rev() {
            let listing = self.take_listing(Area::Snapshots)?;
            if let Some(table) = table.as_ref().filter(|_| trust == Known::FromCache) {
                self.take_known(table, &listing, &mut known);
            }
            let new: Vec<Listed> =
                listing.iter().filter(|object| !known.contains_key(&object.id)).copied().collect();
            let (read, vanished) = self.read_snapshot_objects(&new)?;
            if let Some(table) = &table {
                let is_new = |object: &&SnapshotObject| {
                    object.findings.is_empty() && table.get(&object.listed.id).is_none()
                };
                fresh.extend(
                    read.iter()
                        .filter(is_new)
                        .map(|object| (object.listed.id, snapshot_cache::encode(object))),
                );
            }
            known.extend(read.into_iter().map(|object| (object.listed.id, object)));
            if vanished.is_empty() || left == 0 {
                if let (Some(table), Some(cache)) = (table, cache) {
                    let listed: HashSet<ObjectId> = listing.iter().map(|object| object.id).collect();
                    table.store(cache, &fresh, |id| listed.contains(id));
                }
                let missing = vanished.into_iter().map(|listed| SnapshotObject {
                    listed,
                    is_bundle: false,
                    snapshots: Vec::new(),
                    findings: vec![missing(&listed.id)],
                });
                let found = listing.iter().filter_map(|object| known.remove(&object.id));
                return Ok(found.chain(missing).collect());
            }
        }
        unreachable!("the last round returns")
    }

    /// Takes what is listed and was verified before.
    fn take_known(
        &self,
        table: &CacheTable,
        listing: &[Listed],
        known: &mut HashMap<ObjectId, SnapshotObject>,
    ) {
        known.reserve(listing.len());
        for listed in listing {
            if !known.contains_key(&listed.id)
                && let Some(bytes) = table.get(&listed.id)
                && let Some(mut object) = snapshot_cache::decode(self.keyring(), *listed, bytes)
            {
                if !object.is_bundle {
                    // As the store says now: not every store says each time.
                    object.snapshots.iter_mut().for_each(|snapshot| snapshot.stored = listed.stored);
                }
                known.insert(listed.id, object);
            }
        }
    }

    /// Reads and verifies objects; returns those that are not there apart.
    fn read_snapshot_objects(&self, new: &[Listed]) -> Result<(Vec<SnapshotObject>, Vec<Listed>)> {
        let (fetched, vanished) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let threads = self.backend().parallelism();
        for_each_parallel(new, threads, |listed| {
            match self.fetch_snapshot_object(listed)? {
                Some(object) => lock(&fetched).push(object),
                None => lock(&vanished).push(*listed),
            }
            Ok::<_, RepoError>(())
        })?;
        let (mut done, mut bundles) = (Vec::new(), Vec::new());
        for object in std::mem::take(&mut *lock(&fetched)) {
            match object {
                Fetched::Done(object) => done.push(object),
                Fetched::Bundle(listed, bundle) => bundles.push((listed, bundle)),
            }
        }
        let parts: Vec<(usize, usize)> = bundles
            .iter()
            .enumerate()
            .flat_map(|(number, (_, bundle))| {
                (0..bundle.members.len()).step_by(MEMBERS_AT_ONCE).map(move |from| (number, from))
            })
            .collect();
        let parsed = Mutex::new(BTreeMap::new());
        for_each_parallel(&parts, threads, |(number, from)| {
            let (listed, bundle) = &bundles[*number];
            let mut part = (Vec::new(), Vec::new());
            for member in bundle.members.iter().skip(*from).take(MEMBERS_AT_ONCE) {
                match self.parse_bundled_snapshot(&listed.id, member.stored_secs, &member.bytes) {
                    Ok(snapshot) => part.0.push(snapshot),
                    Err(error) => part.1.push(error.into_finding_among_many()?),
                }
            }
            lock(&parsed).insert((*number, *from), part);
            Ok::<_, RepoError>(())
        })?;
        let mut opened: Vec<SnapshotObject> = bundles
            .iter()
            .map(|(listed, _)| SnapshotObject {
                listed: *listed,
                is_bundle: true,
                snapshots: Vec::new(),
                findings: Vec::new(),
            })
            .collect();
        for ((number, _), (mut snapshots, mut findings)) in std::mem::take(&mut *lock(&parsed)) {
            opened[number].snapshots.append(&mut snapshots);
            opened[number].findings.append(&mut findings);
        }
        done.append(&mut opened);
        Ok((done, std::mem::take(&mut *lock(&vanished))))
    }

    /// `None` if it is not there.
    fn fetch_snapshot_object(&self, listed: &Listed) -> Result<Option<Fetched>> {
        let outcome = self.get_snapshot_object(listed).and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(None) };
            if let Some(bundle) = self.parse_snapshot_bundle(&listed.id, &bytes)? {
                return Ok(Some(Fetched::Bundle(*listed, bundle)));
            }
            let mut snapshot = self.parse_snapshot(&listed.id, &bytes)?;
            snapshot.stored = listed.stored;
            Ok(Some(Fetched::Done(SnapshotObject {
                listed: *listed,
                is_bundle: false,
                snapshots: vec![snapshot],
                findings: Vec::new(),
            })))
        });
        match outcome.map_err(RepoError::into_finding_among_many) {
            Ok(fetched) => Ok(fetched),
            Err(Ok(finding)) => Ok(Some(Fetched::Done(SnapshotObject {
                listed: *listed,
                is_bundle: false,
                snapshots: Vec::new(),
                findings: vec![finding],
            }))),
            Err(Err(error)) => Err(error),
        }
    }

    /// The bytes of an object of the area; `None` if it is not there.
    pub(crate) fn get_snapshot_object(&self, listed: &Listed) -> Result<Option<Bytes>> {
        let name = object_name(Area::Snapshots, &listed.id);
        check_box_size(&name, listed.size)?;
        match self.backend().get(&name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn missing(id: &ObjectId) -> Finding {
    let name = object_name(Area::Snapshots, id);
    Finding::new(crate::FindingCode::Missing, name.as_str(), "it is listed, and not there when it is read")
}

/// The snapshots of all objects, each once (F29), oldest first.
pub(crate) fn distinct(objects: impl IntoIterator<Item = SnapshotObject>) -> (Vec<Snapshot>, Vec<Finding>) {
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let mut findings = Vec::new();
    for mut object in objects {
        snapshots.append(&mut object.snapshots);
        findings.append(&mut object.findings);
    }
    // Where the store does not say when it took something, nothing is known: that comes last.
    let age = |snapshot: &Snapshot| (snapshot.stored.is_none(), snapshot.stored);
    snapshots.sort_by(|a, b| (a.envelope.time, a.id).cmp(&(b.envelope.time, b.id)).then(age(a).cmp(&age(b))));
    snapshots.dedup_by_key(|snapshot| snapshot.id);
    findings.sort();
    (snapshots, findings)
}
