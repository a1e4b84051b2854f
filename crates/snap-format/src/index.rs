use crate::cbor::{self, Dec, Enc};
use crate::pack::{check_tables, put_tables, take_blobs, take_run_keys};
use crate::{BLOB_ENTRY_LEN, BlobEntry, BlobKind, FormatError, ObjectId, RunKeyEntry};

const WHAT: &str = "index";
/// About what a pack takes beside its blobs, bytes.
const PACK_LEN: usize = 256;

/// A pack as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedPack {
    /// Its name.
    pub id: ObjectId,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds.
    pub kind: BlobKind,
    /// Whose id keys made the BlobIds.
    pub domain: String,
    /// As in the pack.
    pub run_keys: Vec<RunKeyEntry>,
    /// As in the pack.
    pub blobs: Vec<BlobEntry>,
}

/// Payload of an index object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexObject {
    /// The packs.
    pub packs: Vec<IndexedPack>,
    /// Index objects that this one replaces.
    pub replaces: Vec<ObjectId>,
}

impl IndexObject {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        Self::encode_parts(&self.packs.iter().collect::<Vec<_>>(), &self.replaces)
    }

    /// The payload of an object of these parts.
    pub fn encode_parts(packs: &[&IndexedPack], replaces: &[ObjectId]) -> Vec<u8> {
        let lines: usize = packs.iter().map(|pack| pack.blobs.len()).sum();
        let mut enc = Enc::with_buffer(Vec::with_capacity(lines * BLOB_ENTRY_LEN + packs.len() * PACK_LEN));
        enc.map(if replaces.is_empty() { 1 } else { 2 }).uint(0).array(packs.len());
        for pack in packs {
            enc.map(6).uint(0).bytes(&pack.id.0).uint(1).uint(pack.size);
            enc.uint(2).uint(pack.kind.code().into()).uint(3).text(&pack.domain);
            put_tables(&mut enc, 4, &pack.run_keys, &pack.blobs);
        }
        if !replaces.is_empty() {
            enc.uint(1).array(replaces.len());
            replaces.iter().for_each(|id| {
                enc.bytes(&id.0);
            });
        }
        enc.finish()
    }

    /// Reads the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut packs, mut replaces) = (None, Vec::new());
        let mut dec = cbor::open(bytes, WHAT)?;
        dec.map(|dec, key| {
            match key {
                0 => packs = Some(dec.array(take_pack)?),
                1 => replaces = dec.array(|dec| dec.fixed().map(ObjectId))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { packs: dec.required(packs)?, replaces })
    }
}

fn take_pack(dec: &mut Dec<'_>) -> Result<IndexedPack, FormatError> {
    let (mut id, mut size, mut kind, mut domain) = (None, None, None, None);
    let (mut run_keys, mut blobs) = (None, None);
    dec.map(|dec, key| {
        match key {
            0 => id = Some(ObjectId(dec.fixed()?)),
            1 => size = Some(dec.uint()?),
            2 => kind = Some(BlobKind::from_code(dec.uint()?)?),
            3 => domain = Some(dec.text()?.to_owned()),
            4 => run_keys = Some(take_run_keys(dec)?),
            5 => blobs = Some(take_blobs(dec)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (run_keys, blobs) = (dec.required(run_keys)?, dec.required(blobs)?);
    check_tables(&run_keys, &blobs)?;
    Ok(IndexedPack {
        id: dec.required(id)?,
        size: dec.required(size)?,
        kind: dec.required(kind)?,
        domain: dec.required(domain)?,
        run_keys,
        blobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobId, Codec, EpochId};

    #[test]
    fn index_objects_survive() {
        let index = IndexObject {
            packs: vec![IndexedPack {
                id: ObjectId([1; 32]),
                size: 1 << 40,
                kind: BlobKind::Tree,
                domain: "slot-00".into(),
                run_keys: vec![RunKeyEntry { epoch: EpochId([2; 16]), sealed: [3; 80] }],
                blobs: vec![BlobEntry {
                    id: BlobId([4; 32]),
                    stored_len: 50,
                    plain_len: 10,
                    codec: Codec::Raw,
                    grouped: false,
                    run_key: 0,
                }],
            }],
            replaces: vec![ObjectId([5; 32])],
        };
        assert_eq!(IndexObject::decode(&index.encode()), Ok(index));
        assert_eq!(IndexObject::default().encode(), [0xa1, 0x00, 0x80]);
        let mut unknown_field = IndexObject::default().encode();
        unknown_field[0] = 0xa2;
        unknown_field.extend_from_slice(&[0x18, 0x7f, 0x00]);
        assert_eq!(IndexObject::decode(&unknown_field), Err(FormatError::Newer { what: WHAT, found: 127 }));
    }
}
