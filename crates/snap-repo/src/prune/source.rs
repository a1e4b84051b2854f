//! Packs out of which units are moved: all of a pack is verified before anything is taken, since what is damaged there must not
//! look whole elsewhere.

use snap_backend::{Bytes, ErrorKind, ObjectName};
use snap_crypto::Hasher;
use snap_format::{BlobKind, IndexedPack, ObjectId, Unit};

use crate::pack::{fetch_header, parse_and_hash, unit_ad};
use crate::{Area, RepoError, Repository, Result, object_name};

/// So much is read at once of a pack that is read piece by piece, bytes.
const PIECE: u64 = 1 << 20;

/// The bytes of a pack.
pub(super) struct Source {
    repository: Repository,
    name: ObjectName,
    size: u64,
    body: Body,
}

enum Body {
    /// All of it in memory: one request.
    Whole(Bytes),
    /// On a disk of this machine it is read twice, in pieces, which takes a sixteenth of the memory: the last one, and where it
    /// begins.
    Pieces(Vec<u8>, u64),
}

impl Source {
    /// A pack whose bytes have the hash in its name, and what its header, which is believed, says of it.
    pub(super) fn open(repository: &Repository, id: ObjectId, size: u64) -> Result<(IndexedPack, Self)> {
        let is_near = repository.backend().local_root().is_some();
        if is_near && size > PIECE {
            let (pack, source) = Self::open_pieces(repository, id, size)?;
            // What is read again must prove itself again.
            if pack.run_keys.iter().all(|entry| repository.run_key(entry).is_some()) {
                return Ok((pack, source));
            }
        }
        Self::open_whole(repository, id, size)
    }

    fn open_whole(repository: &Repository, id: ObjectId, size: u64) -> Result<(IndexedPack, Self)> {
        let name = object_name(Area::Packs, &id);
        let bytes = repository.backend().get(&name).map_err(judge)?;
        let (hash, opened) = parse_and_hash(repository.keyring(), id, &bytes);
        if hash != id {
            crate::verify::check_name(&name, &id, &bytes)?;
        }
        let source = Self { repository: repository.clone(), name, size, body: Body::Whole(bytes) };
        Ok((opened?.pack, source))
    }

    fn open_pieces(repository: &Repository, id: ObjectId, size: u64) -> Result<(IndexedPack, Self)> {
        let name = object_name(Area::Packs, &id);
        let (mut hasher, mut piece) = (Hasher::default(), Vec::new());
        for at in (0..size).step_by(PIECE as usize) {
            piece.resize((size - at).min(PIECE) as usize, 0);
            repository.backend().get_into(&name, at, &mut piece).map_err(judge)?;
            hasher.update(&piece);
        }
        if hasher.finish() != id.0 {
            return Err(RepoError::corrupt(name.as_str(), "its bytes do not have the hash in its name"));
        }
        let header = fetch_header(repository.keyring(), repository.backend().as_ref(), id, size);
        let pack = header.map_err(judge)?.pack;
        let body = Body::Pieces(Vec::new(), 0);
        Ok((pack, Self { repository: repository.clone(), name, size, body }))
    }

    /// The sealed bytes of a unit.
    pub(super) fn sealed(&mut self, unit: &Unit<'_>) -> Result<&[u8]> {
        let (at, length) = (unit.offset, u64::from(unit.stored_len()));
        let (bytes, start): (&[u8], _) = match &mut self.body {
            Body::Whole(bytes) => (bytes, 0),
            Body::Pieces(piece, start) => {
                if at < *start || at + length > *start + piece.len() as u64 {
                    let end = (at + length.max(PIECE)).min(self.size);
                    piece.resize((end - at) as usize, 0);
                    self.repository.backend().get_into(&self.name, at, piece).map_err(judge)?;
                    *start = at;
                }
                (piece, *start)
            }
        };
        Ok(&bytes[(at - start) as usize..][..length as usize])
    }

    /// Whether what [`Source::sealed`] gives was read again since the pack was verified.
    pub(super) const fn is_read_again(&self) -> bool {
        matches!(self.body, Body::Pieces(..))
    }
}

/// A pack that is gone was deleted by another prune; one that is too short is damaged.
fn judge(error: impl Into<RepoError>) -> RepoError {
    match error.into() {
        RepoError::Backend(error) if error.kind() == ErrorKind::NotFound => RepoError::Overtaken,
        error => error.into_finding().map_or_else(|error| error, RepoError::from),
    }
}

/// Opens a unit of a pack: what is inside, compressed as it is, gets into `inside`.
pub(super) fn open_unit(
    repository: &Repository,
    pack: &IndexedPack,
    unit: &Unit<'_>,
    sealed: &[u8],
    inside: &mut Vec<u8>,
) -> Result<()> {
    let corrupt = |why: &str| RepoError::corrupt(object_name(Area::Packs, &pack.id).as_str(), why);
    let entry = &pack.run_keys[usize::from(unit.blobs[0].run_key)];
    let key = repository.run_key(entry).ok_or_else(|| corrupt("a run key in it does not open"))?;
    key.open_into(&ad_of(repository, pack.kind, unit), sealed, inside)
        .map_err(|_| corrupt("a blob in it does not authenticate"))
}

/// The associated data of a unit.
pub(super) fn ad_of(repository: &Repository, kind: BlobKind, unit: &Unit<'_>) -> [u8; 70] {
    let first = &unit.blobs[0];
    let id = (!unit.is_group()).then_some(&first.id);
    // Checked when the table was decoded: no longer than a blob may be.
    unit_ad(repository.id(), kind, id, first.codec, unit.plain_len() as u32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snap_backend::{Backend, LocalBackend, MemoryBackend};
    use snap_format::{PackHeader, Time};

    use super::*;
    use crate::{Index, Scratch, Secret, Writer, WriterOptions};

    /// A pack of almost 3 MiB: groups, blobs alone, and one that is longer than a piece.
    fn fill(backend: Arc<dyn Backend>) -> (Repository, ObjectId, u64) {
        let secret = Secret::random_key_file().unwrap();
        Repository::create(backend.as_ref(), &secret, "owner", Time::new(0, 0)).unwrap();
        let repository = Repository::open(backend, &secret).unwrap();
        let (index, _) = Index::load(&repository, None).unwrap();
        let writer = Writer::begin(&repository, index, None, WriterOptions::default()).unwrap();
        let mut scratch = Scratch::new(1).unwrap();
        let mut state = 1_u64;
        let mut noise = |length: usize| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            (0..length).map(|_| next()).collect()
        };
        let mut lengths = vec![300_000, 1_300_000, 400_000, 400_000];
        lengths.extend((0..40).map(|number| 4000 + 100 * number));
        for length in lengths {
            writer.add(BlobKind::Data, &noise(length), &mut scratch).unwrap();
        }
        writer.finish().unwrap().abandon();
        let [(id, size)] = repository.list(Area::Packs).unwrap()[..] else { panic!("one pack") };
        (repository, id, size)
    }

    #[test]
    fn a_pack_that_is_read_in_pieces_gives_the_same_units() {
        let dir = tempfile::tempdir().unwrap();
        let (repository, id, size) = fill(Arc::new(LocalBackend::new(dir.path(), false)));
        assert!(size > 2 * PIECE);
        let bytes = repository.backend().get(&object_name(Area::Packs, &id)).unwrap();
        let (pack, mut source) = Source::open(&repository, id, size).unwrap();
        assert!(source.is_read_again());
        let (same, mut whole) = Source::open_whole(&repository, id, size).unwrap();
        assert!(!whole.is_read_again() && pack == same);
        // Forwards, and with jumps.
        let units: Vec<_> = PackHeader::units(&pack.blobs).collect();
        assert!(units.len() >= 5 && units.iter().any(Unit::is_group));
        let order = units.iter().chain(units.iter().rev()).chain(units.iter().step_by(2));
        for unit in order {
            let expected = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
            assert_eq!(source.sealed(unit).unwrap(), expected);
            assert_eq!(whole.sealed(unit).unwrap(), expected);
            let mut inside = Vec::new();
            open_unit(&repository, &pack, unit, expected, &mut inside).unwrap();
            assert_eq!(inside.len() + 40, expected.len());
        }
    }

    #[test]
    fn in_memory_and_in_pieces_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let stores: [Arc<dyn Backend>; 2] =
            [Arc::new(LocalBackend::new(dir.path(), false)), Arc::new(MemoryBackend::new())];
        for store in stores {
            let (repository, id, size) = fill(Arc::clone(&store));
            let name = object_name(Area::Packs, &id);
            let whole = store.get(&name).unwrap();
            for at in [0, 30, 1 << 20, whole.len() / 2, whole.len() - 1] {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 4;
                store.delete(&name).unwrap();
                store.put(&name, bytes.into()).unwrap();
                let outcome = Source::open(&repository, id, size).map(|(pack, _)| pack);
                assert!(matches!(&outcome, Err(RepoError::Damaged(_))), "byte {at}: {outcome:?}");
            }
            store.delete(&name).unwrap();
            store.put(&name, whole.slice(..whole.len() - 100)).unwrap();
            let outcome = Source::open(&repository, id, size).map(|(pack, _)| pack);
            assert!(matches!(&outcome, Err(RepoError::Damaged(_))), "{outcome:?}");
            store.delete(&name).unwrap();
            let outcome = Source::open(&repository, id, size).map(|(pack, _)| pack);
            assert!(matches!(&outcome, Err(RepoError::Overtaken)), "{outcome:?}");
        }
    }

    #[test]
    fn what_changes_after_it_was_verified_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (repository, id, size) = fill(Arc::new(LocalBackend::new(dir.path(), false)));
        let name = object_name(Area::Packs, &id);
        let mut bytes = repository.backend().get(&name).unwrap().to_vec();
        let (pack, mut source) = Source::open(&repository, id, size).unwrap();
        let last = PackHeader::units(&pack.blobs).last().unwrap();
        bytes[last.offset as usize + 50] ^= 4;
        repository.backend().delete(&name).unwrap();
        repository.backend().put(&name, bytes.into()).unwrap();
        let sealed = source.sealed(&last).unwrap().to_vec();
        let outcome = open_unit(&repository, &pack, &last, &sealed, &mut Vec::new());
        assert!(matches!(&outcome, Err(RepoError::Damaged(_))), "{outcome:?}");
    }
}
