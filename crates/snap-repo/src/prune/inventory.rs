//! What the store holds, as its index objects say: packs in memory, their blobs streamed from the index when they are needed.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use snap_backend::{ErrorKind, Timestamp};
use snap_format::{BlobKind, IndexedPack, ObjectId, Role};

use super::trees::TreePlaces;
use crate::index::check_box_size;
use crate::writer::lock;
use crate::{
    Area, Finding, FindingCode, ParsedIndex, RepoError, Repository, Result, for_each_parallel, object_name,
    pack_digest, parse_object_name,
};

/// An object as a listing shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub(super) size: u64,
    pub(super) stored: Option<Timestamp>,
}

/// Lists an area.
pub(super) fn list(repository: &Repository, area: Area) -> Result<HashMap<ObjectId, Listed>> {
    let mut out = HashMap::new();
    repository.backend().list(area.prefix(), &mut |meta| {
        if let Some((_, id)) = parse_object_name(meta.name.as_str()) {
            out.insert(id, Listed { size: meta.size_bytes, stored: meta.modified });
        }
        Ok(())
    })?;
    Ok(out)
}

/// A pack that an index object names.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) id: ObjectId,
    pub(super) size: u64,
    pub(super) kind: BlobKind,
    pub(super) domain: String,
    /// Of what is believed of it.
    pub(super) digest: [u8; 32],
    /// Whether several things are said of it.
    contested: bool,
    /// Whether an owner, or the pack itself, says so.
    pub(super) vouched: bool,
    /// Run keys that it lists.
    pub(super) run_keys: usize,
    /// Sealed units, bytes.
    pub(super) body_bytes: u64,
    /// Sealed units that stay: of at least one blob in each, snapshots need it and it lies nowhere better.
    pub(super) live: Tally,
}

/// Sealed units that are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All blobs in them.
    pub(super) blobs: u64,
    /// Their sealed bytes.
    pub(super) bytes: u64,
}

impl Pack {
    /// Bytes of units of which nobody needs anything: what moving the rest would free. A dead member of a group that stays
    /// is not waste: nothing but sealing its group anew could take it out.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.body_bytes.saturating_sub(self.live.bytes)
    }
}

/// An index object.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexObjectInfo {
    pub(super) blobs: usize,
    pub(super) packs: Vec<ObjectId>,
}

/// The index and the packs of a repository at one time.
pub(super) struct Inventory {
    pub(super) repository: Repository,
    pub(super) packs: Vec<Pack>,
    by_id: HashMap<ObjectId, u32>,
    pub(super) objects: HashMap<ObjectId, IndexObjectInfo>,
    /// Every pack in the store.
    pub(super) there: HashMap<ObjectId, Listed>,
    /// Packs whose bytes turned out to be damaged: nothing in them counts as stored.
    pub(super) bad: HashSet<ObjectId>,
    pub(super) trees: TreePlaces,
}

impl Inventory {
    /// Reads all of the index. Fails on anything that is damaged; what is forged is an error unless it is to be passed over.
    pub(super) fn read(repository: &Repository, pass_over_forged: bool) -> Result<Self> {
        let mut inventory = Self {
            repository: repository.clone(),
            packs: Vec::new(),
            by_id: HashMap::new(),
            objects: HashMap::new(),
            there: HashMap::new(),
            bad: HashSet::new(),
            trees: TreePlaces::default(),
        };
        inventory.refresh(pass_over_forged, &HashSet::new())?;
        Ok(inventory)
    }

    /// Lists again and reads what is new. Returns whether others changed anything: `own` are index objects of this run.
    pub(super) fn refresh(&mut self, pass_over_forged: bool, own: &HashSet<ObjectId>) -> Result<bool> {
        // The index first: a pack that it names was there before it (F25).
        let listed = list(&self.repository, Area::Index)?;
        let there = list(&self.repository, Area::Packs)?;
        let mut changed = self.objects.keys().any(|id| !listed.contains_key(id));
        changed |= self.there.keys().any(|id| !there.contains_key(id));
        self.there = there;
        self.objects.retain(|id, _| listed.contains_key(id));
        let new: Vec<(ObjectId, u64)> = listed
            .iter()
            .filter(|(id, _)| !self.objects.contains_key(*id))
            .map(|(id, listed)| (*id, listed.size))
            .collect();
        changed |= new.iter().any(|(id, _)| !own.contains(id));
        if new.is_empty() {
            return Ok(changed);
        }
        let taken = Mutex::new((&mut *self, Ok(())));
        let repository = taken.lock().expect("nobody else has it").0.repository.clone();
        for_each_parallel(&new, at_once(&repository), |(id, size)| {
            let parsed = fetch(&repository, id, *size, pass_over_forged)?;
            let mut guard = lock(&taken);
            let (inventory, outcome) = &mut *guard;
            if outcome.is_ok() {
                *outcome = inventory.take(*id, parsed);
            }
            Ok::<_, RepoError>(())
        })?;
        taken.into_inner().expect("no thread panicked").1?;
        self.trees.sort();
        Ok(changed)
    }

    fn take(&mut self, id: ObjectId, parsed: Option<ParsedIndex>) -> Result<()> {
        let Some(parsed) = parsed else { return Ok(()) };
        let mut info = IndexObjectInfo::default();
        let is_owner = self.repository.keyring().is_owner(parsed.slot);
        for pack in &parsed.packs {
            info.blobs += pack.blobs.len();
            info.packs.push(pack.id);
            self.take_pack(pack, is_owner)?;
        }
        self.objects.insert(id, info);
        Ok(())
    }

    fn take_pack(&mut self, pack: &IndexedPack, is_owner: bool) -> Result<()> {
        let digest = pack_digest(pack);
        if let Some(number) = self.by_id.get(&pack.id).copied() {
            let known = &mut self.packs[number as usize];
            if known.digest == digest {
                known.vouched |= is_owner;
            } else if !known.contested {
                return self.settle_dispute(number);
            }
            return Ok(());
        }
        let number = u32::try_from(self.packs.len()).expect("fewer than four billion packs");
        self.by_id.insert(pack.id, number);
        self.packs.push(Pack { vouched: is_owner, ..describe(pack, digest) });
        if pack.kind == BlobKind::Tree && self.is_there(&self.packs[number as usize]) {
            self.trees.add(pack);
        }
        Ok(())
    }

    /// Several things are said of a pack: its header decides (F18).
    fn settle_dispute(&mut self, number: u32) -> Result<()> {
        let (id, size) = {
            let pack = &mut self.packs[number as usize];
            pack.contested = true;
            (pack.id, self.there.get(&pack.id).map(|listed| listed.size))
        };
        // Of one that is not there nothing matters.
        let Some(size) = size else { return Ok(()) };
        let (_, truth) = self.repository.read_pack_header(id, size)?;
        let digest = pack_digest(&truth);
        if self.packs[number as usize].digest != digest && truth.kind == BlobKind::Tree {
            self.trees.add(&truth);
        }
        self.packs[number as usize] = Pack { contested: true, vouched: true, ..describe(&truth, digest) };
        Ok(())
    }

    /// Whether a pack is in the store with its full length, and not known to be damaged.
    pub(super) fn is_there(&self, pack: &Pack) -> bool {
        self.there.get(&pack.id).is_some_and(|listed| listed.size == pack.size)
            && !self.bad.contains(&pack.id)
    }

    /// The number of a pack that the index names.
    pub(super) fn number(&self, id: &ObjectId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// Whether the index names a pack.
    pub(super) fn is_named(&self, id: &ObjectId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Reads index objects again, and calls `each` for every pack in them of which the believed thing is said, on several
    /// threads. A pack that stands in several objects comes several times. An object that is gone means that another
    /// prune is at work.
    pub(super) fn stream(
        &self,
        objects: &[ObjectId],
        each: impl Fn(&ObjectId, u32, IndexedPack) -> Result<()> + Sync,
    ) -> Result<()> {
        for_each_parallel(objects, at_once(&self.repository), |id| {
            let bytes = match self.repository.backend().get(&object_name(Area::Index, id)) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(RepoError::Overtaken),
                Err(error) => return Err(error.into()),
            };
            for pack in self.repository.parse_index(id, &bytes)?.packs {
                let Some(number) = self.number(&pack.id) else { continue };
                let known = &self.packs[number as usize];
                if !known.contested || pack_digest(&pack) == known.digest {
                    each(id, number, pack)?;
                }
            }
            Ok(())
        })
    }

    /// Streams each pack that is there exactly once.
    pub(super) fn stream_packs(&self, each: impl Fn(u32, IndexedPack) + Sync) -> Result<()> {
        let objects: Vec<ObjectId> = self.objects.keys().copied().collect();
        let done = Mutex::new(vec![false; self.packs.len()]);
        self.stream(&objects, |_, number, pack| {
            let is_first = !std::mem::replace(&mut lock(&done)[number as usize], true);
            if is_first && self.is_there(&self.packs[number as usize]) {
                each(number, pack);
            }
            Ok(())
        })
    }
}

fn describe(pack: &IndexedPack, digest: [u8; 32]) -> Pack {
    Pack {
        id: pack.id,
        size: pack.size,
        kind: pack.kind,
        domain: pack.domain.clone(),
        digest,
        contested: false,
        vouched: false,
        run_keys: pack.run_keys.len(),
        body_bytes: pack.blobs.iter().map(|blob| u64::from(blob.stored_len)).sum(),
        live: Tally::default(),
    }
}

/// Index objects that are read at the same time: a full one takes some 30 MB while it is looked at.
fn at_once(repository: &Repository) -> usize {
    repository.backend().parallelism().min(4)
}

/// An index object, whole; `None` if it is forged and that is to be passed over.
fn fetch(
    repository: &Repository,
    id: &ObjectId,
    size: u64,
    pass_over_forged: bool,
) -> Result<Option<ParsedIndex>> {
    let name = object_name(Area::Index, id);
    check_box_size(&name, size)?;
    let bytes = match repository.backend().get(&name) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(RepoError::Overtaken),
        Err(error) => return Err(error.into()),
    };
    match repository.parse_index(id, &bytes) {
        Ok(mut parsed) => match parsed.findings.pop() {
            Some(finding) if !pass_over_forged => Err(RepoError::from(finding)),
            _ => Ok(Some(parsed)),
        },
        Err(RepoError::Damaged(finding))
            if pass_over_forged && is_surely_forged(repository, &finding, &bytes) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether an object is whole, of an epoch that is known, and signed by nobody who may: nothing of it counts (F12). One of
/// an unknown epoch may be of keys that are newer than those at hand.
pub(super) fn is_surely_forged(repository: &Repository, finding: &Finding, bytes: &[u8]) -> bool {
    let is_known = snap_format::Head::decode(bytes)
        .is_ok_and(|head| repository.keyring().epochs.contains_key(&head.epoch));
    finding.code == FindingCode::Forged && is_known
}

impl crate::Keyring {
    /// Whether a slot is an owner's in any epoch that is known.
    pub(super) fn is_owner(&self, slot: snap_format::SlotId) -> bool {
        let members = self.epochs.values().filter_map(|epoch| epoch.members.get(&slot));
        members.into_iter().any(|member| member.role == Role::Owner)
    }
}
