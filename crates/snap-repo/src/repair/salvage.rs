//! Moving what is left of a damaged pack: whole sealed units that still authenticate.

use std::collections::{BTreeMap, HashSet};

use snap_format::{BlobId, BlobKind, IndexedPack, PackHeader, TreeBlob, limits};

use crate::pack::PackBuilder;
use crate::{Area, BlobReader, DomainKeys, Repository, Result, Scratch, object_name, pack_places};

/// Makes new packs of what is left of others.
pub struct Salvage<'a> {
    repository: &'a Repository,
    reader: &'a BlobReader,
    /// Stores nothing if not.
    writes: bool,
    open: BTreeMap<(String, u8), PackBuilder>,
    stored: Vec<IndexedPack>,
    /// Blobs that were moved, by domain.
    pub moved: HashSet<(String, BlobId)>,
}

impl<'a> Salvage<'a> {
    /// Begins; in a rehearsal nothing is stored.
    pub fn new(repository: &'a Repository, reader: &'a BlobReader, writes: bool) -> Self {
        let (open, stored, moved) = (BTreeMap::new(), Vec::new(), HashSet::new());
        Self { repository, reader, writes, open, stored, moved }
    }

    /// Takes what authenticates, and whose plaintexts have the ids that `pack` says, of the bytes that are left. Returns how
    /// many blobs that are.
    pub fn take(
        &mut self,
        domain: &DomainKeys,
        pack: &IndexedPack,
        bytes: &[u8],
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
    ) -> Result<u64> {
        let mut good: HashSet<u64> = pack_places(pack).map(|(_, place)| place.offset).collect();
        let offsets: Vec<u64> = pack_places(pack).map(|(_, place)| place.offset).collect();
        let mut at = 0;
        self.reader.open_all(domain, pack, bytes, scratch, plain, &mut |_, opened| {
            // A tree that is none was written so: moved, it would only be found again.
            let is_none = |plain: &[u8]| {
                pack.kind == BlobKind::Tree && TreeBlob::decode(plain).is_err_and(|error| !error.is_newer())
            };
            if opened.is_err() || opened.is_ok_and(is_none) {
                good.remove(&offsets[at]);
            }
            at += 1;
            Ok(())
        })?;
        let mut moved = 0;
        for unit in PackHeader::units(&pack.blobs).filter(|unit| good.contains(&unit.offset)) {
            let is_new = |id: &BlobId| !self.moved.contains(&(pack.domain.clone(), *id));
            if !unit.blobs.iter().any(|blob| is_new(&blob.id)) {
                continue;
            }
            moved += unit.blobs.len() as u64;
            self.moved.extend(unit.blobs.iter().map(|blob| (pack.domain.clone(), blob.id)));
            let sealed = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
            let run_key = pack.run_keys[usize::from(unit.blobs[0].run_key)];
            let key = (pack.domain.clone(), pack.kind.code());
            let keyring = self.repository.keyring();
            let new_pack = || PackBuilder::new(keyring, pack.kind, Vec::new());
            let mut builder = self.open.remove(&key).unwrap_or_else(new_pack);
            let position = match builder.run_key(&run_key) {
                Some(position) => position,
                None => {
                    self.store(&key.0, std::mem::replace(&mut builder, new_pack()))?;
                    builder.run_key(&run_key).expect("an empty list has room")
                }
            };
            builder.push(unit.blobs, position, sealed);
            if builder.len() >= limits::PACK_TARGET {
                self.store(&key.0, builder)?;
            } else {
                self.open.insert(key, builder);
            }
        }
        Ok(moved)
    }

    fn store(&mut self, domain: &str, builder: PackBuilder) -> Result<()> {
        if self.writes {
            let (indexed, bytes) = builder.finish(self.repository.keyring(), domain)?;
            self.repository.backend().put(&object_name(Area::Packs, &indexed.id), bytes.into())?;
            self.stored.push(indexed);
        }
        Ok(())
    }

    /// Stores what is left; the packs are to be indexed.
    pub fn finish(mut self) -> Result<(Vec<IndexedPack>, HashSet<(String, BlobId)>)> {
        for ((domain, _), builder) in std::mem::take(&mut self.open) {
            self.store(&domain, builder)?;
        }
        Ok((self.stored, self.moved))
    }
}

impl std::fmt::Debug for Salvage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Salvage({} blobs)", self.moved.len())
    }
}
