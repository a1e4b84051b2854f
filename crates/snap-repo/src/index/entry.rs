//! The lines of a table: blobs and packs, of fixed sizes.

use snap_format::{BlobEntry, BlobId, BlobKind, Codec, ObjectId, PackHeader, line_codec};

use super::InGroup;
use super::block::{Damaged, Read};

/// A line that says where a blob lies. Lines are sorted by all of it, the id first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: BlobId,
    /// Number of the pack, in the table or in the index.
    pub(super) pack: u32,
    /// Of the sealed unit, as its length is.
    pub(super) offset: u32,
    pub(super) stored_len: u32,
    pub(super) plain_len: u32,
    pub(super) group: Option<InGroup>,
    pub(super) codec: Codec,
    pub(super) run_key: u8,
}

/// Length of a line for a blob, bytes.
pub(super) const PLACE_LEN: usize = 58;

/// Where the blobs of a blob table lie, in its order.
pub(super) fn places(pack: u32, blobs: &[BlobEntry]) -> impl Iterator<Item = Place> {
    PackHeader::units(blobs).flat_map(move |unit| {
        let unit_len = unit.plain_len() as u32; // at most that of a blob: checked when tables are decoded
        unit.members().map(move |(offset, blob)| Place {
            id: blob.id,
            pack,
            offset: unit.offset as u32, // packs are shorter than 4 GiB: checked, too
            stored_len: unit.stored_len(),
            plain_len: blob.plain_len,
            group: unit.is_group().then_some(InGroup { offset, plain_len: unit_len }),
            codec: blob.codec,
            run_key: blob.run_key,
        })
    })
}

impl Place {
    /// What is equal in it is equal in all: a group may name a blob twice, and lie about one of them.
    pub(super) fn sort_key(&self) -> (BlobId, u32, u32, u32, u32) {
        (self.id, self.pack, self.offset, self.group.map_or(0, |group| group.offset), self.plain_len)
    }

    pub(super) fn encode(&self) -> [u8; PLACE_LEN] {
        let mut out = [0; PLACE_LEN];
        out[..32].copy_from_slice(&self.id.0);
        let (within, unit_len) = self.group.map_or((0, 0), |group| (group.offset, group.plain_len));
        let numbers = [self.pack, self.offset, self.stored_len, self.plain_len, within, unit_len];
        out[32..56].as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(to, n)| *to = n.to_le_bytes());
        out[56] = line_codec(self.codec, self.group.is_some());
        out[57] = self.run_key;
        out
    }

    pub(super) fn decode(line: &[u8]) -> Read<Self> {
        let mut fields = Fields(line);
        let id = BlobId(fields.take()?);
        let mut number = || fields.take().map(u32::from_le_bytes);
        let (pack, offset, stored_len, plain_len) = (number()?, number()?, number()?, number()?);
        let group = InGroup { offset: number()?, plain_len: number()? };
        let [code, run_key] = fields.take()?;
        let codecs = [(Codec::Raw, false), (Codec::Zstd, false), (Codec::Raw, true), (Codec::Zstd, true)];
        let same = |(codec, grouped): &(Codec, bool)| line_codec(*codec, *grouped) == code;
        let (codec, grouped) = codecs.into_iter().find(same).ok_or(Damaged)?;
        Ok(Self { id, pack, offset, stored_len, plain_len, group: grouped.then_some(group), codec, run_key })
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
            group: Some(InGroup { offset: 0x0708_090a, plain_len: 0x0b0c_0d0e }),
            codec: Codec::Zstd,
            run_key: 255,
        };
        let line = place.encode();
        for (group, codec) in
            [(place.group, Codec::Raw), (place.group, Codec::Zstd), (None, Codec::Raw), (None, Codec::Zstd)]
        {
            let place = Place { group, codec, ..place };
            assert_eq!(Place::decode(&place.encode()), Ok(place));
        }
        assert_eq!(Place::decode(&line[..57]), Err(Damaged));
        let mut strange = line;
        strange[56] = 4;
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
