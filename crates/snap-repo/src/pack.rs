//! Making packs and reading their headers (`docs/format.md` §7).

use snap_backend::Backend;
use snap_crypto::{Hasher, SealKey, hash};
use snap_format::{
    BlobEntry, BlobId, BlobKind, Codec, HEAD_LEN, Head, IndexedPack, ObjectId, ObjectKind, PackHeader,
    RepoId, RunKeyEntry, SEAL_OVERHEAD, SlotId, TRAILER_LEN, limits, padme,
};

use crate::boxes::{open_inner, signed_inner};
use crate::keyring::Member;
use crate::{Area, Finding, FindingCode, Keyring, RepoError, Result, Scratch, object_name};

/// Associated data of a sealed blob: everything that must not change, but not where it lies (F15). A group has no id of
/// its own: zeros stand there, and the codes of its codecs are others.
pub(crate) fn unit_ad(
    repository: RepoId,
    kind: BlobKind,
    id: Option<&BlobId>,
    codec: Codec,
    plain_len: u32,
) -> [u8; 70] {
    let mut ad = [0; 70];
    ad[..32].copy_from_slice(&repository.0);
    ad[32] = kind.code();
    if let Some(id) = id {
        ad[33..65].copy_from_slice(&id.0);
    }
    ad[65] = snap_format::line_codec(codec, id.is_none());
    ad[66..].copy_from_slice(&plain_len.to_le_bytes());
    ad
}

fn part_ad(repository: RepoId, head: &[u8; HEAD_LEN], part: &str) -> Vec<u8> {
    [repository.0.as_slice(), head, part.as_bytes()].concat()
}

/// Compresses and seals one blob, or a group without an id of its own, into `scratch.sealed`. Returns how it is stored, and
/// its length there.
pub(crate) fn seal_unit(
    repository: RepoId,
    kind: BlobKind,
    id: Option<&BlobId>,
    plain: &[u8],
    key: &SealKey,
    scratch: &mut Scratch,
) -> Result<(Codec, u32)> {
    let plain_len = u32::try_from(plain.len())
        .ok()
        .filter(|len| *len as usize <= limits::BLOB_PLAIN)
        .ok_or_else(|| RepoError::Refused(format!("a blob of {} bytes is too large", plain.len())))?;
    // What does not shrink is not taken into groups.
    let codec = if id.is_some() { scratch.pack(plain) } else { scratch.pack_unseen(plain) };
    key.seal_in_place(&unit_ad(repository, kind, id, codec, plain_len), &mut scratch.sealed)?;
    let stored_len =
        u32::try_from(scratch.sealed.len()).expect("a sealed blob is at most 40 bytes above its limit");
    Ok((codec, stored_len))
}

/// Small blobs on their way into one sealed unit: together they compress better, and cost one seal.
#[derive(Default)]
pub(crate) struct Group {
    plain: Vec<u8>,
    members: Vec<(BlobId, u32)>,
}

impl Group {
    /// A blob that is as long is sealed alone, unless something else is asked for.
    pub(crate) const MEMBER_MAX: usize = 128 << 10;
    /// Length of the plaintext at which a group is sealed: more would compress little better, and all of it is opened to
    /// read one member.
    const TARGET: usize = 256 << 10;

    pub(crate) fn push(&mut self, id: BlobId, plain: &[u8]) {
        self.plain.extend_from_slice(plain);
        self.members.push((id, plain.len() as u32)); // below MEMBER_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.plain.len() >= Self::TARGET
    }

    /// Seals the group into `scratch.sealed`, and empties it. Returns the lines of the blob table.
    pub(crate) fn seal(
        &mut self,
        repository: RepoId,
        kind: BlobKind,
        key: &SealKey,
        scratch: &mut Scratch,
    ) -> Result<Vec<BlobEntry>> {
        let alone = match self.members.as_slice() {
            [(id, _)] => Some(*id),
            _ => None,
        };
        let (codec, stored_len) = seal_unit(repository, kind, alone.as_ref(), &self.plain, key, scratch)?;
        self.plain.clear();
        let members = self.members.drain(..).enumerate();
        let lines = members.map(|(at, (id, plain_len))| BlobEntry {
            id,
            stored_len: if at == 0 { stored_len } else { 0 },
            plain_len,
            codec,
            grouped: alone.is_none(),
            run_key: 0,
        });
        Ok(lines.collect())
    }
}

/// A pack in the making. The buffer is a parameter so that its space can be used again.
pub(crate) struct PackBuilder {
    pub(crate) kind: BlobKind,
    head: [u8; HEAD_LEN],
    buffer: Vec<u8>,
    run_keys: Vec<RunKeyEntry>,
    blobs: Vec<BlobEntry>,
}

impl PackBuilder {
    pub(crate) fn new(keyring: &Keyring, kind: BlobKind, mut buffer: Vec<u8>) -> Self {
        let object = match kind {
            BlobKind::Data => ObjectKind::DataPack,
            BlobKind::Tree => ObjectKind::TreePack,
        };
        let head = Head { kind: object, epoch: keyring.head }.encode();
        buffer.clear();
        buffer.extend_from_slice(&head);
        Self { kind, head, buffer, run_keys: Vec::new(), blobs: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Position of a run key, which is added if it is new; `None` if the list is full.
    pub(crate) fn run_key(&mut self, entry: &RunKeyEntry) -> Option<u8> {
        let known = self.run_keys.iter().position(|known| known == entry);
        let at = match known {
            Some(at) => at,
            None if self.run_keys.len() < limits::RUN_KEYS => {
                self.run_keys.push(*entry);
                self.run_keys.len() - 1
            }
            None => return None,
        };
        u8::try_from(at).ok()
    }

    /// Takes a sealed unit: the lines of its blobs, and the position of its run key in this pack.
    pub(crate) fn push(&mut self, lines: &[BlobEntry], run_key: u8, sealed: &[u8]) {
        debug_assert_eq!(lines[0].stored_len as usize, sealed.len());
        self.buffer.extend_from_slice(sealed);
        self.blobs.extend(lines.iter().map(|line| BlobEntry { run_key, ..*line }));
    }

    /// Adds header, padding and trailer. Returns what the index needs, and the object.
    pub(crate) fn finish(self, keyring: &Keyring, domain: &str) -> Result<(IndexedPack, Vec<u8>)> {
        let Self { kind, head, mut buffer, run_keys, blobs } = self;
        let mut hasher = Hasher::default();
        hasher.update(&buffer);
        let body_len = buffer.len();
        let header = PackHeader { domain: domain.to_owned(), run_keys, blobs, body_hash: hasher.finish() };
        let inner = signed_inner(keyring, &keyring.signer, &head, &header.encode(), |inner_len| {
            let length = body_len + inner_len + SEAL_OVERHEAD + TRAILER_LEN;
            if length < limits::PACK_TARGET { padme(length as u64) as usize - length } else { 0 }
        });
        let index_key = &keyring.head().index;
        index_key.seal_into(&part_ad(keyring.repository, &head, "header"), &inner, &mut buffer)?;
        let header_len = u32::try_from(buffer.len() - body_len).expect("a header is at most 64 MiB");
        let mut trailer = [0; 8];
        trailer[..4].copy_from_slice(&header_len.to_le_bytes());
        index_key.seal_into(&part_ad(keyring.repository, &head, "trailer"), &trailer, &mut buffer)?;
        hasher.update(&buffer[body_len..]);
        let id = ObjectId(hasher.finish());
        let PackHeader { domain, run_keys, blobs, .. } = header;
        Ok((IndexedPack { id, size: buffer.len() as u64, kind, domain, run_keys, blobs }, buffer))
    }
}

/// A pack's header, opened and believed: the signature fits.
pub(crate) struct OpenedHeader {
    pub(crate) slot: SlotId,
    pub(crate) member: Member,
    pub(crate) pack: IndexedPack,
    pub(crate) body_hash: [u8; 32],
}

/// Gives bytes of a pack from an offset on.
type ReadAt<'a> = dyn FnMut(u64, u64) -> Result<Vec<u8>> + 'a;

/// Reads and verifies the header of a pack, of which `read` gives any range.
fn read_header(keyring: &Keyring, id: ObjectId, size: u64, read: &mut ReadAt<'_>) -> Result<OpenedHeader> {
    let object = object_name(Area::Packs, &id).to_string();
    let too_short = || RepoError::corrupt(&object, "it is too short for a pack");
    let head_len = HEAD_LEN as u64;
    if size > limits::PACK {
        return Err(RepoError::corrupt(&object, "it is larger than any pack"));
    }
    let trailer_at =
        size.checked_sub(TRAILER_LEN as u64).filter(|at| *at > head_len).ok_or_else(too_short)?;
    let head_bytes = read(0, head_len)?;
    let head = Head::decode(&head_bytes).map_err(|error| RepoError::format(&object, error))?;
    let kind = match head.kind {
        ObjectKind::DataPack => BlobKind::Data,
        ObjectKind::TreePack => BlobKind::Tree,
        other => {
            let why = format!("it is of kind {other:?}, not a pack");
            return Err(RepoError::from(Finding::new(FindingCode::Misnamed, object, why)));
        }
    };
    let head_bytes = head.encode();
    let unknown_epoch = || Finding::new(FindingCode::Forged, &object, "sealed under an unknown epoch");
    let epoch = keyring.epochs.get(&head.epoch).ok_or_else(|| RepoError::from(unknown_epoch()))?;
    let trailer = read(trailer_at, TRAILER_LEN as u64)?;
    let trailer = epoch
        .index
        .open(&part_ad(keyring.repository, &head_bytes, "trailer"), &trailer)
        .map_err(|_| RepoError::corrupt(&object, "its trailer does not authenticate"))?;
    let header_len = match trailer.first_chunk::<4>() {
        Some(len) if trailer[4..] == [0; 4] => u64::from(u32::from_le_bytes(*len)),
        _ => return Err(RepoError::corrupt(&object, "its trailer is malformed")),
    };
    let header_at = trailer_at.checked_sub(header_len).filter(|at| *at >= head_len).ok_or_else(too_short)?;
    let sealed = read(header_at, header_len)?;
    let ad = part_ad(keyring.repository, &head_bytes, "header");
    let opened = open_inner(keyring, &object, &head_bytes, head.epoch, &ad, &sealed)?;
    let header = PackHeader::decode(&opened.payload).map_err(|error| RepoError::format(&object, error))?;
    if PackHeader::body_end(&header.blobs) != header_at {
        return Err(RepoError::corrupt(&object, "its blob table does not add up to its length"));
    }
    let PackHeader { domain, run_keys, blobs, body_hash } = header;
    let may_write = match opened.member.role {
        snap_format::Role::Owner => true,
        snap_format::Role::Backup => opened.member.domain == domain,
        snap_format::Role::Restore => false,
    };
    if !may_write {
        let why = format!("signed by the slot {}, which may not write in the domain {domain}", opened.slot);
        return Err(RepoError::from(Finding::new(FindingCode::Forged, object, why)));
    }
    let pack = IndexedPack { id, size, kind, domain, run_keys, blobs };
    Ok(OpenedHeader { slot: opened.slot, member: opened.member, pack, body_hash })
}

/// Reads the header of a stored pack in three small requests.
pub(crate) fn fetch_header(
    keyring: &Keyring,
    backend: &dyn Backend,
    id: ObjectId,
    size: u64,
) -> Result<OpenedHeader> {
    let name = object_name(Area::Packs, &id);
    read_header(keyring, id, size, &mut |offset, len| Ok(backend.get_range(&name, offset, len)?.to_vec()))
}

/// Reads the header of a pack that is in memory, and compares the hash of head and body with what it says.
pub(crate) fn parse_pack(keyring: &Keyring, id: ObjectId, bytes: &[u8]) -> Result<OpenedHeader> {
    parse_and_hash(keyring, id, bytes).1
}

/// As [`parse_pack`], and the name that the bytes should have: one pass over them gives both hashes.
pub(crate) fn parse_and_hash(
    keyring: &Keyring,
    id: ObjectId,
    bytes: &[u8],
) -> (ObjectId, Result<OpenedHeader>) {
    let mut hasher = Hasher::default();
    let opened = header_in(keyring, id, bytes).and_then(|opened| {
        let (body, rest) = bytes.split_at(PackHeader::body_end(&opened.pack.blobs) as usize);
        hasher.update(body);
        let body_hash = hasher.finish();
        hasher.update(rest);
        if body_hash == opened.body_hash {
            return Ok(opened);
        }
        let object = object_name(Area::Packs, &id);
        Err(RepoError::corrupt(object.as_str(), "its body does not have the hash that its header names"))
    });
    match &opened {
        Ok(_) => (ObjectId(hasher.finish()), opened),
        Err(_) => (ObjectId(hash(bytes)), opened),
    }
}

fn header_in(keyring: &Keyring, id: ObjectId, bytes: &[u8]) -> Result<OpenedHeader> {
    read_header(keyring, id, bytes.len() as u64, &mut |offset, len| {
        let range = offset as usize..(offset + len) as usize;
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| {
            RepoError::corrupt(object_name(Area::Packs, &id).as_str(), "it is shorter than its header says")
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snap_backend::{Backend, MemoryBackend};
    use snap_format::{EpochId, Time};

    use super::*;
    use crate::{Repository, Secret};

    #[test]
    fn a_pack_takes_no_more_run_keys_than_a_reader_accepts() {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let secret = Secret::random_key_file().unwrap();
        Repository::create(backend.as_ref(), &secret, "owner", Time::new(0, 0)).unwrap();
        let repository = Repository::open(backend, &secret).unwrap();
        let mut pack = PackBuilder::new(repository.keyring(), BlobKind::Data, Vec::new());
        let entry = |number: u8| RunKeyEntry { epoch: EpochId([0; 16]), sealed: [number; 80] };
        for number in 0..=255 {
            assert_eq!(pack.run_key(&entry(number)), Some(number));
        }
        let one_more = RunKeyEntry { epoch: EpochId([1; 16]), sealed: [0; 80] };
        assert_eq!((pack.run_key(&one_more), pack.run_key(&entry(9))), (None, Some(9)));
        let (indexed, bytes) = pack.finish(repository.keyring(), "main").unwrap();
        assert_eq!(parse_pack(repository.keyring(), indexed.id, &bytes).unwrap().pack, indexed);
    }
}
