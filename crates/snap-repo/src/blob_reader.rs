use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use snap_backend::{BackendError, Bytes, ErrorKind, Operation};
use snap_format::{BlobId, BlobKind, TreeBlob};

use crate::pack::blob_ad;
use crate::{
    Area, DomainKeys, Finding, FindingCode, Index, Located, RepoError, Repository, Result, Scratch,
    object_name,
};

/// Bytes fetched around a tree, half on each side: trees that were written together are read together.
const WINDOW: u64 = 512 << 10;
/// Windows kept: 8 MiB.
const WINDOWS: usize = 16;

struct Window {
    pack: u32,
    offset: u64,
    bytes: Bytes,
}

/// Gives the plaintext of blobs: authenticated, decompressed, and hashed again before anyone sees it (F14).
pub struct BlobReader {
    repository: Repository,
    index: Arc<Index>,
    windows: Mutex<VecDeque<Window>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({:?})", self.repository)
    }
}

impl BlobReader {
    /// Reads blobs of `repository` where `index` says they lie.
    pub fn new(repository: Repository, index: Arc<Index>) -> Self {
        Self { repository, index, windows: Mutex::default() }
    }

    /// The index in use.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Reads a blob from the first of its places that gives it back whole.
    pub fn read(
        &self,
        domain: &DomainKeys,
        kind: BlobKind,
        id: &BlobId,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut failure = None;
        for place in self.index.locate_all(&domain.name, id) {
            let outcome = self
                .fetch(&place)
                .and_then(|sealed| self.open_sealed(domain, kind, id, &place, &sealed, scratch, out));
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            let why = "no index names it";
            RepoError::from(Finding::new(FindingCode::Missing, "index", why).blob(*id))
        }))
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
        let size = self.index.packs()[place.pack as usize].size;
        let end = place.offset + length;
        let start = place.offset.saturating_sub(WINDOW / 2);
        let window = (end + WINDOW / 2).min(size).max(end) - start;
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

    /// Opens a sealed blob that the caller fetched from `place`. Damage is named by pack and blob.
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

impl Repository {
    /// Opens a sealed blob that was fetched from `place`; readers only. Damage is named by pack and blob.
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
        let damaged = |why: &str| {
            let object = object_name(Area::Packs, &place.pack_id).to_string();
            RepoError::from(Finding::new(FindingCode::Corrupt, object, why).blob(*id))
        };
        if place.kind != kind {
            return Err(damaged("a tree where data is expected, or the other way round"));
        }
        let key = self.run_key(&place.run_key).ok_or_else(|| damaged("its run key does not open"))?;
        let ad = blob_ad(self.id(), kind, id, place.codec, place.plain_len);
        let mut opened = std::mem::take(&mut scratch.opened);
        let outcome = key
            .open_into(&ad, sealed, &mut opened)
            .map_err(|_| damaged("it does not authenticate"))
            .and_then(|()| {
                scratch
                    .unpack(place.codec, &mut opened, place.plain_len as usize, out)
                    .map_err(|error| damaged(&error.to_string()))
            });
        scratch.opened = opened;
        outcome?;
        let id_key = match kind {
            BlobKind::Data => &domain.data_id,
            BlobKind::Tree => &domain.tree_id,
        };
        if id_key.id(out) == id.0 {
            return Ok(());
        }
        let object = object_name(Area::Packs, &place.pack_id).to_string();
        let why = "its plaintext does not have its id: whoever wrote it lied";
        Err(RepoError::from(Finding::new(FindingCode::Forged, object, why).blob(*id)))
    }
}
