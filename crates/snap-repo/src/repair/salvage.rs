//! Moving what is to stay out of packs that go: whole sealed units that still authenticate, and of groups that are whole no more
//! the members that are, sealed anew.

use std::collections::{BTreeMap, HashSet};

use snap_crypto::SealKey;
use snap_format::{
    BlobEntry, BlobId, BlobKind, IndexedPack, ObjectId, PackHeader, RunKeyEntry, TreeBlob, limits,
};

use crate::pack::{Group, PackBuilder, parse_pack};
use crate::{Area, BlobReader, DomainKeys, Located, Repository, Result, Scratch, object_name, pack_places};

/// Blobs that were moved, each with its domain.
pub type Moved = HashSet<(String, BlobId)>;

/// Makes new packs of what is left of others.
pub struct Salvage<'a> {
    repository: &'a Repository,
    reader: &'a BlobReader,
    /// Stores nothing if not.
    writes: bool,
    /// For what is sealed anew.
    run: Option<(SealKey, RunKeyEntry)>,
    open: BTreeMap<(String, u8), PackBuilder>,
    stored: Vec<IndexedPack>,
    moved: Moved,
}

impl<'a> Salvage<'a> {
    /// Begins; in a rehearsal nothing is stored.
    pub fn new(repository: &'a Repository, reader: &'a BlobReader, writes: bool) -> Self {
        let (open, stored, moved) = (BTreeMap::new(), Vec::new(), HashSet::new());
        Self { repository, reader, writes, run: None, open, stored, moved }
    }

    /// Takes what is `wanted` of a whole pack. Damage if it is not whole.
    pub fn empty(
        &mut self,
        domain: &DomainKeys,
        pack: &ObjectId,
        wanted: impl Fn(&BlobId) -> bool,
        scratch: &mut Scratch,
    ) -> Result<u64> {
        let name = object_name(Area::Packs, pack);
        let bytes = self.repository.backend().get(&name)?;
        crate::verify::check_name(&name, pack, &bytes)?;
        let opened = parse_pack(self.repository.keyring(), *pack, &bytes)?;
        self.take(domain, &opened.pack, &bytes, wanted, scratch)
    }

    /// Takes what authenticates, and whose plaintexts have the ids that `pack` says, of the bytes that are left, as far as it is
    /// `wanted`. Returns how many blobs that are.
    pub fn take(
        &mut self,
        domain: &DomainKeys,
        pack: &IndexedPack,
        bytes: &[u8],
        wanted: impl Fn(&BlobId) -> bool,
        scratch: &mut Scratch,
    ) -> Result<u64> {
        let places: Vec<(&BlobEntry, Located)> = pack_places(pack).collect();
        let mut places = places.as_slice();
        let (mut moved, mut plain) = (0, Vec::new());
        for unit in PackHeader::units(&pack.blobs) {
            let members;
            (members, places) = places.split_at(unit.blobs.len());
            let is_new = |id: &BlobId| !self.moved.contains(&(pack.domain.clone(), *id));
            if !unit.blobs.iter().any(|blob| is_new(&blob.id) && wanted(&blob.id)) {
                continue;
            }
            let start = unit.offset as usize;
            let Some(sealed) = bytes.get(start..start + unit.stored_len() as usize) else { continue };
            plain.clear();
            let (first, place) = &members[0];
            let opened = self.reader.open_unit(pack.kind, &first.id, place, sealed, scratch, &mut plain);
            match opened {
                Ok(()) => {}
                Err(error) => {
                    error.into_finding()?;
                    continue;
                }
            }
            let is_good = |(blob, place): &&(&BlobEntry, Located)| {
                wanted(&blob.id)
                    && self
                        .reader
                        .member(domain, &blob.id, place, &plain)
                        .is_ok_and(|plain| !is_no_tree(pack.kind, plain))
            };
            let good: Vec<_> = members.iter().filter(is_good).collect();
            moved += good.len() as u64;
            self.moved.extend(good.iter().map(|(blob, _)| (pack.domain.clone(), blob.id)));
            if good.len() == members.len() {
                let run_key = pack.run_keys[usize::from(unit.blobs[0].run_key)];
                self.push(&pack.domain, pack.kind, unit.blobs, run_key, sealed)?;
            } else if !good.is_empty() && self.writes {
                let mut group = Group::default();
                good.iter().for_each(|(blob, place)| group.push(blob.id, &plain[place.within()]));
                if self.run.is_none() {
                    self.run = Some(self.repository.new_run_key()?);
                }
                let (key, entry) = self.run.as_ref().expect("it was just drawn");
                let lines = group.seal(self.repository.id(), pack.kind, key, scratch)?;
                let entry = *entry;
                self.push(&pack.domain, pack.kind, &lines, entry, &scratch.sealed)?;
            }
        }
        Ok(moved)
    }

    fn push(
        &mut self,
        domain: &str,
        kind: BlobKind,
        lines: &[BlobEntry],
        run_key: RunKeyEntry,
        sealed: &[u8],
    ) -> Result<()> {
        if !self.writes {
            return Ok(());
        }
        let key = (domain.to_owned(), kind.code());
        let keyring = self.repository.keyring();
        let new_pack = || PackBuilder::new(keyring, kind, Vec::new());
        let mut builder = self.open.remove(&key).unwrap_or_else(new_pack);
        let position = match builder.run_key(&run_key) {
            Some(position) => position,
            None => {
                self.store(domain, std::mem::replace(&mut builder, new_pack()))?;
                builder.run_key(&run_key).expect("an empty list has room")
            }
        };
        builder.push(lines, position, sealed);
        if builder.len() >= limits::PACK_TARGET {
            return self.store(domain, builder);
        }
        self.open.insert(key, builder);
        Ok(())
    }

    fn store(&mut self, domain: &str, builder: PackBuilder) -> Result<()> {
        let (indexed, bytes) = builder.finish(self.repository.keyring(), domain)?;
        self.repository.backend().put(&object_name(Area::Packs, &indexed.id), bytes.into())?;
        self.stored.push(indexed);
        Ok(())
    }

    /// Stores what is left; the packs are to be indexed.
    pub fn finish(mut self) -> Result<(Vec<IndexedPack>, Moved)> {
        for ((domain, _), builder) in std::mem::take(&mut self.open) {
            self.store(&domain, builder)?;
        }
        Ok((self.stored, self.moved))
    }
}

/// A tree that is none was written so: moved, it would only be found again.
fn is_no_tree(kind: BlobKind, plain: &[u8]) -> bool {
    kind == BlobKind::Tree && TreeBlob::decode(plain).is_err_and(|error| !error.is_newer())
}

impl std::fmt::Debug for Salvage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Salvage({} blobs)", self.moved.len())
    }
}
