use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use snap_backend::{BackendError, Bytes, ErrorKind, Operation};
use snap_format::{BlobId, BlobKind, IndexedPack, TreeBlob};

use crate::pack::unit_ad;
use crate::{
    Area, DomainKeys, Finding, FindingCode, Index, Located, RepoError, Repository, Result, Scratch,
    object_name, pack_places,
};

/// Bytes fetched around a tree, half on each side: trees that were written together are read together.
const WINDOW: u64 = 512 << 10;
/// Windows kept: 8 MiB.
const WINDOWS: usize = 16;
/// Opened groups kept: about 3 MiB.
const GROUPS: usize = 8;

struct Window {
    pack: u32,
    offset: u64,
    bytes: Bytes,
}

/// Called for each blob of a pack with its plaintext, or why there is none.
pub type EachBlob<'a> = dyn FnMut(&BlobId, Result<&[u8]>) -> Result<()> + 'a;

/// The plaintext of a group that was opened lately: its members are wanted one after the other.
struct OpenGroup {
    pack: u32,
    offset: u64,
    plain: Arc<Vec<u8>>,
}

/// Opens other copies of the repository, with their names, when they are first needed: those that answer.
pub type OpenCopies = dyn Fn() -> Vec<(String, Repository, Arc<Index>)> + Send + Sync;

/// Damaged objects that are named; of a copy that has lost everything, the rest is as well known.
const RESCUES_NAMED: usize = 100;

/// What was damaged or missing in a copy, and given by another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescued {
    /// What is wrong, once for each object, and the copy that helped.
    pub named: BTreeMap<String, String>,
    /// There was more than is named.
    pub has_more: bool,
}

/// Other copies, for what is damaged or missing in this one.
struct Others {
    open: Box<OpenCopies>,
    opened: OnceLock<Vec<(String, BlobReader)>>,
    used: Mutex<Rescued>,
}

/// In the numbers of packs that only another copy knows: no index has so many.
const ELSEWHERE: u32 = 1 << 31;

/// Gives the plaintext of blobs: authenticated, decompressed, and hashed again before anyone sees it (F14).
pub struct BlobReader {
    repository: Repository,
    index: Arc<Index>,
    windows: Mutex<VecDeque<Window>>,
    groups: Mutex<VecDeque<OpenGroup>>,
    others: Option<Others>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({:?})", self.repository)
    }
}

impl BlobReader {
    /// Reads blobs of `repository` where `index` says they lie.
    pub fn new(repository: Repository, index: Arc<Index>) -> Self {
        Self { repository, index, windows: Mutex::default(), groups: Mutex::default(), others: None }
    }

    /// Reads what this copy cannot give from the first of the others that can.
    #[must_use]
    pub fn with_others(self, open: Box<OpenCopies>) -> Self {
        let others = Others { open, opened: OnceLock::new(), used: Mutex::default() };
        Self { others: Some(others), ..self }
    }

    /// What was damaged or missing in this copy, and which copy gave it instead.
    pub fn rescued(&self) -> Rescued {
        let used = |others: &Others| others.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.others.as_ref().map(used).unwrap_or_default()
    }

    fn others(&self) -> &[(String, Self)] {
        let Some(others) = &self.others else { return &[] };
        others.opened.get_or_init(|| {
            let opened = (others.open)().into_iter();
            opened.map(|(name, repository, index)| (name, Self::new(repository, index))).collect()
        })
    }

    /// The preferred place of a blob. If this copy names none, that in another: what is fetched from this copy's store is not
    /// there then, and [`BlobReader::read_onto`] finds it.
    pub fn locate(&self, domain: &str, id: &BlobId) -> Option<Located> {
        self.index.locate(domain, id).or_else(|| {
            let place = self.others().iter().find_map(|(_, other)| other.index.locate(domain, id))?;
            Some(Located { pack: place.pack | ELSEWHERE, ..place })
        })
    }

    /// Plain length of a blob in bytes, whichever copy knows it.
    pub fn plain_len(&self, domain: &str, id: &BlobId) -> Option<u32> {
        let elsewhere = || self.others().iter().find_map(|(_, other)| other.index.plain_len(domain, id));
        self.index.plain_len(domain, id).or_else(elsewhere)
    }

    /// The index in use.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Reads a blob from the first of its places that gives it back whole, into `out`, whose former content goes.
    pub fn read(
        &self,
        domain: &DomainKeys,
        kind: BlobKind,
        id: &BlobId,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        self.read_onto(domain, kind, id, scratch, out)
    }

    /// As [`BlobReader::read`], behind what is in `out`; on failure `out` is as it was.
    pub fn read_onto(
        &self,
        domain: &DomainKeys,
        kind: BlobKind,
        id: &BlobId,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut failure = None;
        for place in self.index.locate_all(&domain.name, id) {
            match self.read_at(domain, kind, id, &place, scratch, out) {
                Ok(()) => return Ok(()),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.index.check()?;
        let failure = failure.unwrap_or_else(|| {
            let why = "no index names it";
            RepoError::from(Finding::new(FindingCode::Missing, "index", why).blob(*id))
        });
        for (name, other) in self.others() {
            if other.read_onto(domain, kind, id, scratch, out).is_ok() {
                self.note_rescue(failure, name);
                return Ok(());
            }
        }
        Err(failure)
    }

    fn note_rescue(&self, failure: RepoError, copy: &str) {
        let Some(others) = &self.others else { return };
        // Each damaged object once, whatever its blobs.
        let what = match failure.into_finding() {
            Ok(finding) => format!("{}: {}", finding.object, finding.why),
            Err(error) => error.to_string(),
        };
        let mut used = others.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.named.contains_key(&what) {
            return;
        }
        match used.named.len() < RESCUES_NAMED {
            true => drop(used.named.insert(what, copy.to_owned())),
            false => used.has_more = true,
        }
    }

    fn read_at(
        &self,
        domain: &DomainKeys,
        kind: BlobKind,
        id: &BlobId,
        place: &Located,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(group) = place.group else {
            return self.open_sealed(domain, kind, id, place, &self.fetch(place)?, scratch, out);
        };
        let plain = match self.opened_group(place) {
            Some(plain) => plain,
            None => {
                let mut plain = Vec::with_capacity(group.plain_len as usize);
                self.open_unit(kind, id, place, &self.fetch(place)?, scratch, &mut plain)?;
                let plain = Arc::new(plain);
                let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
                groups.truncate(GROUPS - 1);
                let open = OpenGroup { pack: place.pack, offset: place.offset, plain: Arc::clone(&plain) };
                groups.push_front(open);
                plain
            }
        };
        out.extend_from_slice(self.member(domain, id, place, &plain)?);
        Ok(())
    }

    fn opened_group(&self, place: &Located) -> Option<Arc<Vec<u8>>> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let found = groups.iter().find(|open| open.pack == place.pack && open.offset == place.offset)?;
        Some(Arc::clone(&found.plain))
    }

    /// Reads and decodes a tree.
    pub fn tree(&self, domain: &DomainKeys, id: &BlobId, scratch: &mut Scratch) -> Result<TreeBlob> {
        let mut plain = Vec::new();
        self.read(domain, BlobKind::Tree, id, scratch, &mut plain)?;
        TreeBlob::decode(&plain).map_err(|error| match self.index.locate(&domain.name, id) {
            Some(place) => {
                match RepoError::format(object_name(Area::Packs, &place.pack_id).as_str(), error) {
                    RepoError::Damaged(finding) => RepoError::from(finding.blob(*id)),
                    newer => newer,
                }
            }
            None => RepoError::format("tree", error),
        })
    }

    fn fetch(&self, place: &Located) -> Result<Bytes> {
        let name = object_name(Area::Packs, &place.pack_id);
        let length = u64::from(place.stored_len);
        if place.kind == BlobKind::Data {
            return Ok(self.repository.backend().get_range(&name, place.offset, length)?);
        }
        if let Some(bytes) = self.find_in_windows(place) {
            return Ok(bytes);
        }
        // On both sides: directories are written from the bottom up and read from the top down.
        let end = place.offset + length;
        let start = place.offset.saturating_sub(WINDOW / 2);
        let window = (end + WINDOW / 2).min(place.pack_size).max(end) - start;
        let backend = self.repository.backend();
        let bytes = match backend.get_range(&name, start, window) {
            Ok(bytes) => bytes,
            // Shorter than the index says: what is left of a truncated pack is still of use.
            Err(error) if error.kind() == ErrorKind::OutOfRange && window > length => {
                return Ok(backend.get_range(&name, place.offset, length)?);
            }
            Err(error) => return Err(error.into()),
        };
        let at = (place.offset - start) as usize;
        if bytes.len() as u64 != window {
            let error = BackendError::new(ErrorKind::Truncated, Operation::GetRange);
            return Err(error.with_name(name.as_str()).with_location(backend.location()).into());
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() == WINDOWS {
            windows.pop_front();
        }
        let wanted = bytes.slice(at..at + length as usize);
        windows.push_back(Window { pack: place.pack, offset: start, bytes });
        Ok(wanted)
    }

    fn find_in_windows(&self, place: &Located) -> Option<Bytes> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.iter().rev().find_map(|window| {
            let start = place.offset.checked_sub(window.offset).filter(|_| window.pack == place.pack)?;
            let end = start + u64::from(place.stored_len);
            (end <= window.bytes.len() as u64).then(|| window.bytes.slice(start as usize..end as usize))
        })
    }

    /// Opens every blob of a pack of which `bytes` are all that is there, each unit once.
    pub fn open_all(
        &self,
        domain: &DomainKeys,
        pack: &IndexedPack,
        bytes: &[u8],
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
        each: &mut EachBlob<'_>,
    ) -> Result<()> {
        let mut opened_at = None;
        for (blob, place) in pack_places(pack) {
            let start = place.offset as usize;
            let mut outcome = Ok(());
            if opened_at != Some(start) {
                opened_at = None;
                plain.clear();
                outcome = match bytes.get(start..start + place.stored_len as usize) {
                    Some(sealed) => self.open_unit(pack.kind, &blob.id, &place, sealed, scratch, plain),
                    None => Err(damaged(FindingCode::Corrupt, &blob.id, &place, "the pack ends before it")),
                };
                if outcome.is_ok() {
                    opened_at = Some(start);
                }
            }
            each(&blob.id, outcome.and_then(|()| self.member(domain, &blob.id, &place, plain)))?;
        }
        Ok(())
    }

    /// [`Repository::open_unit`].
    pub fn open_unit(
        &self,
        kind: BlobKind,
        id: &BlobId,
        place: &Located,
        sealed: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.repository.open_unit(kind, id, place, sealed, scratch, out)
    }

    /// [`Repository::member`].
    pub fn member<'a>(
        &self,
        domain: &DomainKeys,
        id: &BlobId,
        place: &Located,
        unit: &'a [u8],
    ) -> Result<&'a [u8]> {
        self.repository.member(domain, id, place, unit)
    }

    /// [`Repository::open_sealed`].
    #[allow(clippy::too_many_arguments)] // what it is, where it is, and two buffers
    pub fn open_sealed(
        &self,
        domain: &DomainKeys,
        kind: BlobKind,
        id: &BlobId,
        place: &Located,
        sealed: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.repository.open_sealed(domain, kind, id, place, sealed, scratch, out)
    }
}

/// Opening what was fetched, wherever it is known to lie.
impl Repository {
    /// Opens the sealed unit (readers only) that the caller fetched from `place`: `out` gets, behind what is in it, the plaintext of the blob
    /// `id`, or of the group that it is a member of, authenticated, but not hashed yet: [`Repository::member`] does that.
    /// Damage is named by pack and blob; `out` is as it was then.
    pub fn open_unit(
        &self,
        kind: BlobKind,
        id: &BlobId,
        place: &Located,
        sealed: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let damaged = |why: &str| Err(damaged(FindingCode::Corrupt, id, place, why));
        if place.kind != kind {
            return damaged("a tree where data is expected, or the other way round");
        }
        let Some(key) = self.run_key(&place.run_key) else {
            return damaged("its run key does not open");
        };
        let alone = place.group.is_none().then_some(id);
        let ad = unit_ad(self.id(), kind, alone, place.codec, place.unit_len());
        let mut opened = std::mem::take(&mut scratch.opened);
        let outcome = match key.open_into(&ad, sealed, &mut opened) {
            Ok(()) => scratch
                .unpack(place.codec, &opened, place.unit_len() as usize, out)
                .or_else(|error| damaged(&error.to_string())),
            Err(_) => damaged("it does not authenticate"),
        };
        scratch.opened = opened;
        outcome
    }

    /// The plaintext of a blob in that of its unit, hashed again (F14).
    pub fn member<'a>(
        &self,
        domain: &DomainKeys,
        id: &BlobId,
        place: &Located,
        unit: &'a [u8],
    ) -> Result<&'a [u8]> {
        let id_key = match place.kind {
            BlobKind::Data => &domain.data_id,
            BlobKind::Tree => &domain.tree_id,
        };
        match unit.get(place.within()) {
            Some(plain) if id_key.id(plain) == id.0 => Ok(plain),
            _ => {
                let why = "its plaintext does not have its id: whoever wrote it lied";
                Err(damaged(FindingCode::Forged, id, place, why))
            }
        }
    }

    /// Opens a sealed blob that the caller fetched from `place`, behind what is in `out`; on failure `out` is as it was. Damage
    /// is named by pack and blob.
    #[allow(clippy::too_many_arguments)] // what it is, where it is, and two buffers
    pub fn open_sealed(
        &self,
        domain: &DomainKeys,
        kind: BlobKind,
        id: &BlobId,
        place: &Located,
        sealed: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let start = out.len();
        self.open_unit(kind, id, place, sealed, scratch, out)?;
        if let Err(error) = self.member(domain, id, place, &out[start..]) {
            out.truncate(start);
            return Err(error);
        }
        let within = place.within();
        out.truncate(start + within.end);
        out.drain(start..start + within.start);
        Ok(())
    }
}

fn damaged(code: FindingCode, id: &BlobId, place: &Located, why: &str) -> RepoError {
    let object = object_name(Area::Packs, &place.pack_id).to_string();
    RepoError::from(Finding::new(code, object, why).blob(*id))
}
