//! What a repository says of itself, read without its packs: every epoch, index object, snapshot, record and mark.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use snap_format::{HEAD_LEN, Head, ObjectId, ObjectKind, RecordBody, SlotId};
use snap_repo::{
    Area, Finding, FindingCode, Index, MAX_BOX_BYTES, ParsedIndex, RepoError, Repository, Snapshot,
    object_name, pack_digest, parse_object_name, verify_object_name,
};

use super::store::{Fetched, Store};
use crate::work::{Worker, for_each, lock};
use crate::{Phase, Result};

/// Listings are taken in this order, so that whatever a run stored before its snapshot is in a later listing (F25), and
/// whatever a prune deletes goes after the marks that announce it (F26).
const LISTING_ORDER: [Area; 6] =
    [Area::Snapshots, Area::Records, Area::Epochs, Area::Index, Area::Marks, Area::Packs];

/// What one index object says of a pack.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Stands for what is said.
    pub(super) digest: [u8; 32],
    /// The index object.
    pub(super) index: ObjectId,
    /// Who signed it, for people.
    pub(super) signer: Arc<str>,
}

/// The objects of a repository but its packs' bodies, and what is wrong with them.
#[derive(Default)]
pub(super) struct Structure {
    /// Every listed object.
    pub(super) known: HashSet<ObjectId>,
    /// Listed packs with their sizes.
    pub(super) packs: BTreeMap<ObjectId, u64>,
    /// Believed snapshots that were not forgotten, oldest first.
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) index: Arc<Index>,
    /// By pack, what is said of it; often once, rarely more.
    pub(super) claims: HashMap<ObjectId, Vec<Claim>>,
    /// Packs that no index names and whose headers verify, as if one did.
    pub(super) spare: Arc<Index>,
    /// Packs that the index names and that are not there.
    pub(super) missing: BTreeSet<ObjectId>,
    /// Packs that must be read whole to say what is wrong with them.
    pub(super) suspects: BTreeSet<ObjectId>,
    pub(super) findings: Vec<Finding>,
    pub(super) objects: u64,
    /// Objects that only a newer version can judge.
    pub(super) newer: Vec<RepoError>,
    marked: HashSet<ObjectId>,
    forgotten: HashMap<ObjectId, ObjectId>,
    /// By snapshot, the objects in which it stands, by itself or with others.
    places: HashMap<ObjectId, Vec<ObjectId>>,
    gone: Vec<(Area, ObjectId)>,
}

/// The name by which findings call a slot.
pub(super) fn slot_name(slot: SlotId, label: &str) -> String {
    format!("the slot {slot} {label:?}")
}

impl Structure {
    /// Reads it all. If a prune ran meanwhile, so that what an index named may be gone for good reason, it is read again.
    pub(super) fn gather(repository: &Repository, store: Store<'_>) -> Result<Self> {
        let mut left = 3;
        loop {
            let mut structure = Self::default();
            structure.read(repository, store)?;
            left -= 1;
            if left == 0 || !structure.was_overtaken(repository)? {
                structure.find_spare(repository, store)?;
                structure.check_chain(repository)?;
                return Ok(structure);
            }
        }
    }

    fn read(&mut self, repository: &Repository, store: Store<'_>) -> Result<()> {
        let mut boxes = Vec::new();
        for area in LISTING_ORDER {
            let mut strangers = Vec::new();
            repository
                .backend()
                .list(area.prefix(), &mut |meta| {
                    match parse_object_name(meta.name.as_str()) {
                        Some((_, id)) => {
                            self.known.insert(id);
                            match area {
                                Area::Packs => {
                                    self.packs.insert(id, meta.size_bytes);
                                }
                                _ => boxes.push((area, id, meta.size_bytes, meta.modified)),
                            }
                        }
                        None => strangers.push(meta.name),
                    }
                    Ok(())
                })
                .map_err(RepoError::from)?;
            for name in strangers {
                store.context.note(name.as_str().as_bytes(), "not an object of a repository: left alone");
            }
        }
        self.objects = (boxes.len() + self.packs.len()) as u64;
        let bytes = boxes.iter().map(|(_, _, size, _)| size).sum();
        store.context.progress.begin(Phase::Checking, boxes.len() as u64, bytes);
        let threads = store.context.threads.max(repository.backend().parallelism());
        let known = std::mem::take(&mut self.known);
        let gathered = Mutex::new((std::mem::take(self), Index::default()));
        for_each(&boxes, threads, |(area, id, size, modified), worker| {
            let outcome = read_box(repository, store, &known, (*area, *id, *size), worker)?;
            let mut guard = lock(&gathered);
            let (structure, index) = &mut *guard;
            match outcome {
                Ok(Parsed::Index(parsed)) => structure.take_index(*id, parsed, index),
                Ok(Parsed::Snapshot(mut snapshot)) => {
                    snapshot.stored = *modified;
                    structure.places.entry(snapshot.id).or_default().push(*id);
                    structure.snapshots.push(*snapshot);
                }
                Ok(Parsed::Bundle(snapshots, mut findings)) => {
                    for snapshot in &snapshots {
                        structure.places.entry(snapshot.id).or_default().push(*id);
                    }
                    structure.snapshots.extend(snapshots);
                    structure.findings.append(&mut findings);
                }
                Ok(Parsed::Forgotten(ids)) => {
                    structure.forgotten.extend(ids.into_iter().map(|snapshot| (snapshot, *id)));
                }
                Ok(Parsed::Marked(ids)) => structure.marked.extend(ids),
                Ok(Parsed::Nothing) => {}
                Ok(Parsed::Gone) => structure.gone.push((*area, *id)),
                Err(RepoError::Damaged(finding)) => structure.findings.push(*finding),
                Err(error) => structure.newer.push(error),
            }
            drop(guard);
            store.context.progress.add(1, *size);
            Ok(())
        })?;
        let (gathered, index) = gathered.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        *self = Self { known, index: Arc::new(index), ..gathered };
        self.snapshots.sort_by_key(|snapshot| (snapshot.envelope.time, snapshot.id));
        // One that stands alone and in bundles is one (F29).
        self.snapshots.dedup_by_key(|snapshot| snapshot.id);
        for pack in self.index.packs() {
            match self.packs.get(&pack.id) {
                None => self.missing.insert(pack.id),
                // Of two who say different things of a pack one lies.
                Some(size) if *size != pack.size || self.index.pack_numbers(&pack.id).nth(1).is_some() => {
                    self.suspects.insert(pack.id)
                }
                Some(_) => continue,
            };
        }
        Ok(())
    }

    fn take_index(&mut self, id: ObjectId, mut parsed: ParsedIndex, index: &mut Index) {
        let signer: Arc<str> = slot_name(parsed.slot, &parsed.slot_label).into();
        for pack in &parsed.packs {
            index.insert(pack);
            let claim = Claim { digest: pack_digest(pack), index: id, signer: Arc::clone(&signer) };
            self.claims.entry(pack.id).or_default().push(claim);
        }
        self.findings.append(&mut parsed.findings);
    }

    /// Whether index objects vanished while the rest was read, and that could explain what is missing.
    fn was_overtaken(&self, repository: &Repository) -> Result<bool> {
        let gone = self.gone.iter().any(|(area, _)| matches!(area, Area::Index | Area::Snapshots));
        if gone {
            return Ok(true);
        }
        if self.was_merged(repository)? {
            return Ok(true);
        }
        if self.missing.is_empty() {
            return Ok(false);
        }
        let now: HashSet<ObjectId> = repository.list(Area::Index)?.into_iter().map(|(id, _)| id).collect();
        let claims = self.missing.iter().filter_map(|pack| self.claims.get(pack)).flatten();
        Ok(claims.into_iter().any(|claim| !now.contains(&claim.index)))
    }

    /// Whether there are bundles that were not there: what they replaced, the listing may have passed over (F30).
    fn was_merged(&self, repository: &Repository) -> Result<bool> {
        for (id, _) in repository.list(Area::Snapshots)? {
            if self.known.contains(&id) {
                continue;
            }
            let name = object_name(Area::Snapshots, &id);
            match repository.backend().get_range(&name, 0, HEAD_LEN as u64) {
                Ok(head) if Head::decode(&head).is_ok_and(|head| head.kind == ObjectKind::SnapshotBundle) => {
                    return Ok(true);
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Reads the headers of packs that no index names (F28). Those that a prune is about to delete are nobody's concern.
    fn find_spare(&mut self, repository: &Repository, store: Store<'_>) -> Result<()> {
        let unnamed: Vec<_> = self
            .packs
            .iter()
            .filter(|(id, _)| !self.claims.contains_key(*id) && !self.marked.contains(*id))
            .map(|(id, size)| (*id, *size))
            .collect();
        let found = Mutex::new((Index::default(), BTreeSet::new()));
        let threads = store.context.threads.max(repository.backend().parallelism());
        for_each(&unnamed, threads, |(id, size), _| {
            store.context.check_stop()?;
            match repository.read_pack_header(*id, *size) {
                Ok((_, pack)) => lock(&found).0.insert(&pack),
                // A flipped bit can look like another version: its name tells.
                Err(error) if error.is_newer() => {
                    lock(&found).1.insert(*id);
                }
                Err(error) => match error.into_finding() {
                    Ok(finding) if finding.code == FindingCode::Missing => {}
                    Ok(_) => {
                        lock(&found).1.insert(*id);
                    }
                    Err(error) => return Err(error.into()),
                },
            }
            Ok(())
        })?;
        let (spare, mut broken) = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.suspects.append(&mut broken);
        self.spare = Arc::new(spare);
        Ok(())
    }

    /// Each snapshot's predecessor is there, or an owner forgot it; what was forgotten stays away.
    fn check_chain(&mut self, repository: &Repository) -> Result<()> {
        let mut lost: BTreeMap<ObjectId, Vec<&Snapshot>> = BTreeMap::new();
        for snapshot in &self.snapshots {
            if let Some(previous) = snapshot.envelope.previous
                && !self.known.contains(&previous)
                && !self.places.contains_key(&previous)
                && !self.forgotten.contains_key(&previous)
            {
                lost.entry(previous).or_default().push(snapshot);
            }
        }
        for (previous, successors) in lost {
            let first = successors[0];
            let why = format!(
                "the snapshot {} of {} names it as the one before, and no owner forgot it",
                first.id,
                slot_name(first.slot, &first.slot_label)
            );
            let mut finding =
                Finding::new(FindingCode::Missing, object_name(Area::Snapshots, &previous).as_str(), why);
            finding.snapshots = successors.iter().map(|snapshot| snapshot.id).collect();
            self.findings.push(finding);
        }
        let risen: Vec<ObjectId> = self
            .snapshots
            .iter()
            .map(|snapshot| snapshot.id)
            .filter(|id| self.forgotten.contains_key(id))
            .collect();
        for id in &risen {
            // Its deletion may have been under way when it was listed.
            for place in &self.places[id] {
                let name = object_name(Area::Snapshots, place);
                if !repository.backend().exists(&name).map_err(RepoError::from)? {
                    continue;
                }
                let why = format!(
                    "it is back, or was never deleted, although the record {} forgot it",
                    self.forgotten[id]
                );
                let mut finding = Finding::new(FindingCode::Forged, name.as_str(), why);
                finding.snapshots.push(*id);
                self.findings.push(finding);
                break;
            }
        }
        // What it needs may be pruned: that is no further damage.
        self.snapshots.retain(|snapshot| !risen.contains(&snapshot.id));
        Ok(())
    }

    /// Whole packs that no index names, but for those that findings are about.
    pub(super) fn leftovers(&self, findings: &[Finding]) -> Vec<ObjectId> {
        let named: HashSet<&str> = findings.iter().map(|finding| finding.object.as_str()).collect();
        let is_left = |id: &ObjectId| !named.contains(object_name(Area::Packs, id).as_str());
        let mut out: Vec<ObjectId> = self.spare.packs().map(|pack| pack.id).filter(is_left).collect();
        out.sort_unstable();
        out
    }

    /// Places of blobs in packs that the index names, beyond one for each.
    pub(super) fn duplicates(&self) -> u64 {
        let places: u64 = self.index.packs().map(|pack| pack.blobs as u64).sum();
        places.saturating_sub(self.index.blobs() as u64)
    }

    /// For who cannot walk trees: packs of runs whose snapshots are there were indexed once, so that index is lost. What an
    /// interrupted run left has a run key that no snapshot names.
    pub(super) fn packs_of_committed_runs(&self) -> Vec<Finding> {
        let keys: HashSet<_> = self.snapshots.iter().map(|snapshot| snapshot.envelope.run_key).collect();
        let spare = &self.spare;
        let domains = spare.domains();
        let lost: BTreeSet<ObjectId> = domains
            .iter()
            .flat_map(|domain| spare.iter(domain).map(move |(id, place)| (&**domain, id, place)))
            .filter(|(domain, id, place)| {
                keys.contains(&place.run_key) && self.index.locate(domain, id).is_none()
            })
            .map(|(_, _, place)| place.pack_id)
            .collect();
        lost.iter().map(unindexed).collect()
    }
}

/// The finding of a pack whose index is lost.
pub(super) fn unindexed(pack: &ObjectId) -> Finding {
    let why = "no index names it, and snapshots need it: the index that did is lost";
    Finding::new(FindingCode::Unindexed, object_name(Area::Packs, pack).as_str(), why)
}

enum Parsed {
    Index(ParsedIndex),
    Snapshot(Box<Snapshot>),
    /// The believed members of a bundle, and what is wrong with the others.
    Bundle(Vec<Snapshot>, Vec<Finding>),
    Forgotten(Vec<ObjectId>),
    Marked(Vec<ObjectId>),
    Nothing,
    Gone,
}

/// Reads and verifies one object; the inner error is damage, or a newer version.
fn read_box(
    repository: &Repository,
    store: Store<'_>,
    known: &HashSet<ObjectId>,
    (area, id, size): (Area, ObjectId, u64),
    worker: &mut Worker,
) -> Result<Result<Parsed, RepoError>> {
    let name = object_name(area, &id);
    let of_snapshot = |mut finding: Finding| {
        if area == Area::Snapshots {
            finding.snapshots.push(id);
        }
        Ok(Err(RepoError::from(finding)))
    };
    let too_large = || Finding::new(FindingCode::Corrupt, name.as_str(), "it is too large");
    if size > MAX_BOX_BYTES {
        return of_snapshot(too_large());
    }
    let bytes = match store.fetch(&name, size, &mut worker.bytes)? {
        Fetched::Whole(bytes) => bytes,
        Fetched::Gone => return Ok(Ok(Parsed::Gone)),
        Fetched::Damaged(finding) => return of_snapshot(finding),
        Fetched::TooLarge(_) => return of_snapshot(too_large()),
    };
    if let Some(finding) = verify_object_name(&name, &id, bytes, |other| known.contains(other)) {
        return of_snapshot(finding);
    }
    let parsed = match area {
        Area::Index => repository.parse_index(&id, bytes).map(Parsed::Index),
        Area::Snapshots => read_snapshots(repository, &id, bytes),
        Area::Records => {
            repository.parse_record(&id, bytes).and_then(|record| match record.about_snapshots() {
                Ok(Some(RecordBody::Forget(ids))) => Ok(Parsed::Forgotten(ids)),
                Ok(_) => Ok(Parsed::Nothing),
                Err(error) if error.is_newer() => {
                    Err(RepoError::Newer { object: name.to_string(), source: Box::new(error) })
                }
                Err(error) => {
                    Err(RepoError::from(Finding::new(FindingCode::Corrupt, name.as_str(), error.to_string())))
                }
            })
        }
        Area::Marks => repository.parse_mark(&id, bytes).map(|mark| Parsed::Marked(mark.packs)),
        // Opening the repository has judged the epochs; here their bytes were compared with their names.
        Area::Epochs | Area::Packs => Ok(Parsed::Nothing),
    };
    match parsed {
        Ok(parsed) => Ok(Ok(parsed)),
        Err(error) if error.is_newer() => Ok(Err(error)),
        Err(error) => match error.into_finding() {
            Ok(finding) => of_snapshot(finding.written_so()),
            Err(error) => Err(error.into()),
        },
    }
}

/// Verifies a snapshot or a bundle of them, with the bodies if the role may read them.
fn read_snapshots(repository: &Repository, id: &ObjectId, bytes: &[u8]) -> Result<Parsed, RepoError> {
    let open_body = |snapshot: &Snapshot| match repository.keyring().can_read() {
        true => repository.open_body(snapshot).map(drop),
        false => Ok(()),
    };
    let Some(bundle) = repository.parse_snapshot_bundle(id, bytes)? else {
        let snapshot = repository.parse_snapshot(id, bytes)?;
        open_body(&snapshot)?;
        return Ok(Parsed::Snapshot(Box::new(snapshot)));
    };
    let (mut snapshots, mut findings) = (Vec::new(), Vec::new());
    for member in &bundle.members {
        let parsed = repository.parse_bundled_snapshot(id, member.stored_secs, &member.bytes);
        let parsed = parsed.and_then(|snapshot| open_body(&snapshot).map(|()| snapshot));
        match parsed.map_err(RepoError::into_finding) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(Ok(finding)) => findings.push(finding.written_so()),
            Err(Err(error)) => return Err(error),
        }
    }
    Ok(Parsed::Bundle(snapshots, findings))
}
