use crate::cbor::{self, Dec, Enc};
use crate::{BlobId, Codec, EpochId, FormatError, HEAD_LEN, limits};

const WHAT: &str = "pack header";

/// What sealing adds to a plaintext: nonce and tag, bytes.
pub const SEAL_OVERHEAD: usize = 40;
/// The sealed trailer at the end of a pack, bytes.
pub const TRAILER_LEN: usize = SEAL_OVERHEAD + 8;
/// A line of the blob table, bytes.
pub const BLOB_ENTRY_LEN: usize = 42;
/// A run key entry, bytes.
pub const RUN_KEY_ENTRY_LEN: usize = 96;

/// Data of files, or trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlobKind {
    /// A chunk of a file.
    Data,
    /// A [`crate::TreeBlob`].
    Tree,
}

impl BlobKind {
    /// The number that stands for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
        }
    }

    /// The reverse of [`BlobKind::code`].
    pub const fn from_code(code: u64) -> Result<Self, FormatError> {
        match code {
            1 => Ok(Self::Data),
            2 => Ok(Self::Tree),
            other => Err(FormatError::Newer { what: "blob kind", found: other }),
        }
    }
}

/// A run key, sealed to the reader key of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunKeyEntry {
    /// Whose reader key opens it.
    pub epoch: EpochId,
    /// HPKE: encapsulated key, ciphertext, tag.
    pub sealed: [u8; 80],
}

impl RunKeyEntry {
    /// The 96 bytes.
    pub fn encode(&self) -> [u8; RUN_KEY_ENTRY_LEN] {
        let mut out = [0; RUN_KEY_ENTRY_LEN];
        out[..16].copy_from_slice(&self.epoch.0);
        out[16..].copy_from_slice(&self.sealed);
        out
    }

    /// From 96 bytes.
    pub fn decode(bytes: &[u8; RUN_KEY_ENTRY_LEN]) -> Self {
        let (mut epoch, mut sealed) = ([0; 16], [0; 80]);
        epoch.copy_from_slice(&bytes[..16]);
        sealed.copy_from_slice(&bytes[16..]);
        Self { epoch: EpochId(epoch), sealed }
    }
}

/// A line of a blob table: a blob in a pack, sealed alone or as a member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobEntry {
    /// Which blob.
    pub id: BlobId,
    /// Length in the pack with nonce and tag, bytes: of the blob, or of the group that begins with it. 0: a member of the
    /// same group as the entry before.
    pub stored_len: u32,
    /// Length of the plaintext of this blob, bytes.
    pub plain_len: u32,
    /// How the plaintext, of the whole group if it is a member of one, is stored.
    pub codec: Codec,
    /// A member of a group.
    pub grouped: bool,
    /// Position of its run key in the list of run key entries.
    pub run_key: u8,
}

/// Added to the code of a codec in the line of a member of a group.
const GROUPED: u8 = 2;

/// The code of a codec in a line of a blob table, and in the associated data of what it names.
pub const fn line_codec(codec: Codec, grouped: bool) -> u8 {
    codec.code() + if grouped { GROUPED } else { 0 }
}

impl BlobEntry {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(&[line_codec(self.codec, self.grouped), self.run_key]);
    }

    /// Whether it begins a sealed unit, as all but the further members of a group do.
    pub const fn begins_unit(&self) -> bool {
        self.stored_len > 0
    }

    fn decode(line: &[u8; BLOB_ENTRY_LEN]) -> Result<Self, FormatError> {
        let mut id = [0; 32];
        id.copy_from_slice(&line[..32]);
        let length = |at: usize| u32::from_le_bytes([line[at], line[at + 1], line[at + 2], line[at + 3]]);
        let grouped = (GROUPED..2 * GROUPED).contains(&line[40]);
        let entry = Self {
            id: BlobId(id),
            stored_len: length(32),
            plain_len: length(36),
            codec: Codec::from_code(if grouped { line[40] - GROUPED } else { line[40] })?,
            grouped,
            run_key: line[41],
        };
        match entry.stored_len as usize {
            0 if grouped => Ok(entry),
            length if length < SEAL_OVERHEAD => {
                Err(FormatError::malformed("blob table", "a blob shorter than its seal"))
            }
            _ => Ok(entry),
        }
    }
}

/// What was sealed in one piece: a blob, or a group of them.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// Where it begins in the pack.
    pub offset: u64,
    /// Its blobs in the order in which their plaintexts stand in it; at least one.
    pub blobs: &'a [BlobEntry],
}

impl<'a> Unit<'a> {
    /// Length in the pack, bytes.
    pub const fn stored_len(&self) -> u32 {
        self.blobs[0].stored_len
    }

    /// Length of its plaintext, bytes: that of all its blobs.
    pub fn plain_len(&self) -> u64 {
        self.blobs.iter().map(|blob| u64::from(blob.plain_len)).sum()
    }

    /// Whether it is a group.
    pub const fn is_group(&self) -> bool {
        self.blobs[0].grouped
    }

    /// Its blobs, each with the offset of its plaintext in that of the unit.
    pub fn members(&self) -> impl Iterator<Item = (u32, &'a BlobEntry)> + use<'a> {
        self.blobs.iter().scan(0, |at, blob| {
            let offset = *at;
            *at += blob.plain_len;
            Some((offset, blob))
        })
    }

    fn check(&self) -> Result<(), FormatError> {
        let first = &self.blobs[0];
        let plain_len = self.plain_len();
        if plain_len > limits::BLOB_PLAIN as u64 {
            return Err(FormatError::TooLarge { what: "blob", limit: limits::BLOB_PLAIN as u64 });
        }
        if !first.begins_unit() {
            return Err(FormatError::malformed("blob table", "a group without a beginning"));
        }
        let same = |blob: &BlobEntry| {
            (blob.grouped, blob.codec, blob.run_key) == (first.grouped, first.codec, first.run_key)
        };
        if !self.blobs.iter().all(same) {
            return Err(FormatError::malformed("blob table", "a group whose members differ"));
        }
        if first.codec == Codec::Raw && u64::from(first.stored_len) != plain_len + SEAL_OVERHEAD as u64 {
            return Err(FormatError::malformed("blob table", "lengths that contradict each other"));
        }
        Ok(())
    }
}

/// The contents of a pack: the payload of its header; most of it stands in the index again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackHeader {
    /// Whose id keys made the BlobIds.
    pub domain: String,
    /// At most 256.
    pub run_keys: Vec<RunKeyEntry>,
    /// In the order in which the blobs lie.
    pub blobs: Vec<BlobEntry>,
    /// BLAKE3 of head and body.
    pub body_hash: [u8; 32],
}

impl PackHeader {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.map(4).uint(0).text(&self.domain);
        put_tables(&mut enc, 1, &self.run_keys, &self.blobs);
        enc.uint(3).bytes(&self.body_hash);
        enc.finish()
    }

    /// Reads the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut domain, mut run_keys, mut blobs, mut body_hash) = (None, None, None, None);
        let mut dec = cbor::open(bytes, WHAT)?;
        dec.map(|dec, key| {
            match key {
                0 => domain = Some(dec.text()?.to_owned()),
                1 => run_keys = Some(take_run_keys(dec)?),
                2 => blobs = Some(take_blobs(dec)?),
                3 => body_hash = Some(dec.fixed()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (run_keys, blobs) = (dec.required(run_keys)?, dec.required(blobs)?);
        check_tables(&run_keys, &blobs)?;
        Ok(Self { domain: dec.required(domain)?, run_keys, blobs, body_hash: dec.required(body_hash)? })
    }

    /// What was sealed in one piece, in the order of the pack.
    pub fn units(mut blobs: &[BlobEntry]) -> impl Iterator<Item = Unit<'_>> {
        let mut at = HEAD_LEN as u64;
        std::iter::from_fn(move || {
            let first = blobs.first()?;
            let more = blobs[1..].iter().take_while(|blob| !blob.begins_unit()).count();
            let (unit, rest) = blobs.split_at(1 + more);
            blobs = rest;
            let offset = at;
            at += u64::from(first.stored_len);
            Some(Unit { offset, blobs: unit })
        })
    }

    /// Length of head and body, bytes: where the sealed header begins.
    pub fn body_end(blobs: &[BlobEntry]) -> u64 {
        HEAD_LEN as u64 + blobs.iter().map(|blob| u64::from(blob.stored_len)).sum::<u64>()
    }
}

pub(crate) fn put_tables(enc: &mut Enc, first_key: u64, run_keys: &[RunKeyEntry], blobs: &[BlobEntry]) {
    let keys: Vec<u8> = run_keys.iter().flat_map(RunKeyEntry::encode).collect();
    enc.uint(first_key).bytes(&keys).uint(first_key + 1);
    enc.long_bytes(blobs.len() * BLOB_ENTRY_LEN, |out| blobs.iter().for_each(|blob| blob.encode_into(out)));
}

pub(crate) fn take_run_keys(dec: &mut Dec<'_>) -> Result<Vec<RunKeyEntry>, FormatError> {
    let (keys, rest) = dec.bytes()?.as_chunks::<RUN_KEY_ENTRY_LEN>();
    if !rest.is_empty() || keys.len() > limits::RUN_KEYS {
        return Err(dec.error("a broken list of run keys"));
    }
    Ok(keys.iter().map(RunKeyEntry::decode).collect())
}

pub(crate) fn take_blobs(dec: &mut Dec<'_>) -> Result<Vec<BlobEntry>, FormatError> {
    let (lines, rest) = dec.bytes()?.as_chunks::<BLOB_ENTRY_LEN>();
    if !rest.is_empty() {
        return Err(dec.error("a broken blob table"));
    }
    if lines.len() > limits::PACK_BLOBS {
        return Err(FormatError::TooLarge { what: "blob table", limit: limits::PACK_BLOBS as u64 });
    }
    lines.iter().map(BlobEntry::decode).collect()
}

/// What the two tables must agree on: each blob names a run key that is there, and the pack stays within its limit.
pub(crate) fn check_tables(run_keys: &[RunKeyEntry], blobs: &[BlobEntry]) -> Result<(), FormatError> {
    if blobs.iter().any(|blob| usize::from(blob.run_key) >= run_keys.len()) {
        return Err(FormatError::malformed("blob table", "a blob without a run key"));
    }
    PackHeader::units(blobs).try_for_each(|unit| unit.check())?;
    if PackHeader::body_end(blobs) > limits::PACK {
        return Err(FormatError::TooLarge { what: "pack", limit: limits::PACK });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> PackHeader {
        let blob = |n: u8, codec| BlobEntry {
            id: BlobId([n; 32]),
            stored_len: 140,
            plain_len: 100,
            codec,
            grouped: false,
            run_key: 0,
        };
        PackHeader {
            domain: "main".into(),
            run_keys: vec![RunKeyEntry { epoch: EpochId([4; 16]), sealed: [5; 80] }],
            blobs: vec![blob(1, Codec::Raw), blob(2, Codec::Zstd)],
            body_hash: [6; 32],
        }
    }

    /// A blob alone, a group of three, a blob alone.
    fn grouped(codec: Codec) -> PackHeader {
        let mut header = header();
        let member = |n: u8, stored_len| BlobEntry {
            id: BlobId([n; 32]),
            stored_len,
            plain_len: u32::from(n),
            codec,
            grouped: true,
            run_key: 0,
        };
        header.blobs.splice(1..1, [member(10, 100), member(20, 0), member(30, 0)]);
        header
    }

    #[test]
    fn headers_survive() {
        let header = header();
        assert_eq!(PackHeader::decode(&header.encode()), Ok(header.clone()));
        let offsets: Vec<u64> = PackHeader::units(&header.blobs).map(|unit| unit.offset).collect();
        assert_eq!(offsets, [28, 168]);
        assert_eq!(PackHeader::body_end(&header.blobs), 308);
    }

    #[test]
    fn groups_survive() {
        let header = grouped(Codec::Raw);
        assert_eq!(PackHeader::decode(&header.encode()), Ok(header.clone()));
        let units: Vec<_> = PackHeader::units(&header.blobs).collect();
        let facts = |unit: &Unit<'_>| (unit.offset, unit.stored_len(), unit.plain_len(), unit.is_group());
        let facts: Vec<_> = units.iter().map(facts).collect();
        assert_eq!(facts, [(28, 140, 100, false), (168, 100, 60, true), (268, 140, 100, false)]);
        let members: Vec<_> = units[1].members().map(|(at, blob)| (at, blob.id.0[0])).collect();
        assert_eq!(members, [(0, 10), (10, 20), (30, 30)]);
        assert_eq!(PackHeader::body_end(&header.blobs), 408);
    }

    #[test]
    fn groups_that_lie_are_refused() {
        let damage: [fn(&mut PackHeader); 7] = [
            |h| drop(h.blobs.drain(..2)),
            |h| h.blobs[2].codec = Codec::Raw,
            |h| h.blobs[2].grouped = false,
            |h| h.blobs[4].stored_len = 0,
            |h| h.blobs[1].grouped = false,
            |h| h.blobs[3].run_key = 1,
            |h| h.blobs[3].plain_len = limits::BLOB_PLAIN as u32,
        ];
        for (number, damage) in damage.iter().enumerate() {
            let mut header = grouped(Codec::Zstd);
            header.run_keys.push(header.run_keys[0]);
            assert!(PackHeader::decode(&header.encode()).is_ok());
            damage(&mut header);
            assert!(PackHeader::decode(&header.encode()).is_err(), "damage {number}");
        }
        let mut header = grouped(Codec::Raw);
        header.blobs[2].plain_len += 1;
        assert!(PackHeader::decode(&header.encode()).is_err(), "a raw group of another length");
    }

    #[test]
    fn tables_that_lie_are_refused() {
        let damage: [fn(&mut PackHeader); 5] = [
            |h| h.run_keys.clear(),
            |h| h.blobs[0].plain_len = 99,
            |h| h.blobs[1].stored_len = 39,
            |h| h.blobs[1].plain_len = u32::MAX,
            |h| h.blobs[1].stored_len = u32::MAX,
        ];
        for (number, damage) in damage.iter().enumerate() {
            let mut header = header();
            damage(&mut header);
            assert!(PackHeader::decode(&header.encode()).is_err(), "damage {number}");
        }
    }
}
