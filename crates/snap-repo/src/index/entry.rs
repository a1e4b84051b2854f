//! The lines of a table: blobs and packs, of fixed sizes.

use snap_format::{BlobEntry, BlobId, BlobKind, Codec, ObjectId};

use super::block::{Damaged, Read};

/// A line that says where a blob lies. Lines are sorted by all of it, the id first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: BlobId,
    /// Number of the pack, in the table or in the index.
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) stored_len: u32,
    pub(super) plain_len: u32,
    pub(super) codec: Codec,
    pub(super) run_key: u8,
}

/// Length of a line for a blob, bytes.
pub(super) const PLACE_LEN: usize = 50;

impl Place {
    /// `offset` is that of the blob in the pack.
    pub(super) const fn new(pack: u32, offset: u64, blob: &BlobEntry) -> Self {
        Self {
            id: blob.id,
            pack,
            offset: offset as u32, // packs are shorter than 4 GiB: checked when their tables are decoded
            stored_len: blob.stored_len,
            plain_len: blob.plain_len,
            codec: blob.codec,
            run_key: blob.run_key,
        }
    }

    pub(super) const fn sort_key(&self) -> (BlobId, u32, u32) {
        (self.id, self.pack, self.offset)
    }

    pub(super) fn encode(&self) -> [u8; PLACE_LEN] {
        let mut out = [0; PLACE_LEN];
        out[..32].copy_from_slice(&self.id.0);
        let numbers = [self.pack, self.offset, self.stored_len, self.plain_len];
        out[32..48].as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(to, n)| *to = n.to_le_bytes());
        out[48] = self.codec.code();
        out[49] = self.run_key;
        out
    }

    pub(super) fn decode(line: &[u8]) -> Read<Self> {
        let mut fields = Fields(line);
        Ok(Self {
            id: BlobId(fields.take()?),
            pack: u32::from_le_bytes(fields.take()?),
            offset: u32::from_le_bytes(fields.take()?),
            stored_len: u32::from_le_bytes(fields.take()?),
            plain_len: u32::from_le_bytes(fields.take()?),
            codec: Codec::from_code(fields.take::<1>()?[0]).map_err(|_| Damaged)?,
            run_key: fields.take::<1>()?[0],
        })
    }
}

/// A line that says what one index object says of a pack. Lines are sorted by pack, digest and object; the first of those
/// that say the same is the one that blobs refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: ObjectId,
    pub(super) digest: [u8; 32],
    pub(super) size: u64,
    /// Position of its first run key entry.
    pub(super) keys_at: u32,
    pub(super) keys: u16,
    pub(super) kind: BlobKind,
    pub(super) blobs: u32,
    /// Position of its domain in the table's list.
    pub(super) domain: u32,
    /// Position of the index object in the table's list.
    pub(super) object: u32,
    /// Whether it is the first that says this.
    pub(super) is_first: bool,
}

/// Length of a line for a pack, bytes.
pub(super) const RECORD_LEN: usize = 92;

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        out[..32].copy_from_slice(&self.id.0);
        out[32..64].copy_from_slice(&self.digest);
        out[64..72].copy_from_slice(&self.size.to_le_bytes());
        let numbers = [self.keys_at, self.blobs, self.domain, self.object];
        out[72..88].as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(to, n)| *to = n.to_le_bytes());
        out[88..90].copy_from_slice(&self.keys.to_le_bytes());
        out[90] = self.kind.code();
        out[91] = u8::from(self.is_first);
        out
    }

    pub(super) fn decode(line: &[u8]) -> Read<Self> {
        let mut fields = Fields(line);
        let (id, digest) = (ObjectId(fields.take()?), fields.take()?);
        let size = u64::from_le_bytes(fields.take()?);
        let mut number = || fields.take().map(u32::from_le_bytes);
        let (keys_at, blobs, domain, object) = (number()?, number()?, number()?, number()?);
        let keys = u16::from_le_bytes(fields.take()?);
        let kind = BlobKind::from_code(fields.take::<1>()?[0].into()).map_err(|_| Damaged)?;
        let is_first = fields.take::<1>()?[0] == 1;
        Ok(Self { id, digest, size, keys_at, keys, kind, blobs, domain, object, is_first })
    }
}

/// Fields of fixed sizes, one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Read<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(field)
    }

    /// A number of things that follow, each at least `least` bytes long: never more than there are bytes for.
    pub(super) fn count(&mut self, least: usize) -> Read<usize> {
        let count = u32::from_le_bytes(self.take()?) as usize;
        if count.checked_mul(least).is_some_and(|bytes| bytes <= self.0.len()) {
            Ok(count)
        } else {
            Err(Damaged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_and_strange_ones_are_refused() {
        let place = Place {
            id: BlobId([1; 32]),
            pack: 2,
            offset: u32::MAX,
            stored_len: 0x0304_0506,
            plain_len: 7,
            codec: Codec::Zstd,
            run_key: 255,
        };
        let line = place.encode();
        assert_eq!(Place::decode(&line), Ok(place));
        assert_eq!(Place::decode(&line[..49]), Err(Damaged));
        let mut strange = line;
        strange[48] = 9;
        assert_eq!(Place::decode(&strange), Err(Damaged));
        let record = Record {
            id: ObjectId([1; 32]),
            digest: [2; 32],
            size: 1 << 40,
            keys_at: 3,
            keys: 256,
            kind: BlobKind::Tree,
            blobs: 4,
            domain: 5,
            object: 6,
            is_first: true,
        };
        assert_eq!(Record::decode(&record.encode()), Ok(record));
        assert_eq!(Record::decode(&record.encode()[..91]), Err(Damaged));
    }
}
