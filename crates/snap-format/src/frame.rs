//! The frame that packs and signed boxes share: a 28-byte head in the clear, and the *inner* part that is sealed.

use crate::{EpochId, FormatError, SlotId, VERSION, limits};

/// Length of a [`Head`].
pub const HEAD_LEN: usize = 28;
/// Length of an [`Inner`] without its stored bytes and padding.
pub const INNER_FIXED_LEN: usize = 16 + 64 + 1 + 4 + 4;

const BOX_MAGIC: &[u8; 8] = b"SNAPSBOX";
const PACK_MAGIC: &[u8; 8] = b"SNAPPACK";

/// What an object is; decides where it lies and what its payload means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A pack of data blobs.
    DataPack,
    /// A pack of tree blobs.
    TreePack,
    /// Which blob lies where.
    Index,
    /// A commit point.
    Snapshot,
    /// A forget, check, drill, ….
    Record,
    /// Packs about to be deleted.
    Mark,
    /// Many commit points in one object.
    SnapshotBundle,
}

impl ObjectKind {
    const fn magic_and_code(self) -> (&'static [u8; 8], u8) {
        match self {
            Self::DataPack => (PACK_MAGIC, 1),
            Self::TreePack => (PACK_MAGIC, 2),
            Self::Index => (BOX_MAGIC, 1),
            Self::Snapshot => (BOX_MAGIC, 2),
            Self::Record => (BOX_MAGIC, 3),
            Self::Mark => (BOX_MAGIC, 4),
            Self::SnapshotBundle => (BOX_MAGIC, 5),
        }
    }
}

/// The clear beginning of an object: magic, version, kind, epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the object is.
    pub kind: ObjectKind,
    /// Whose keys seal it.
    pub epoch: EpochId,
}

impl Head {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let (magic, code) = self.kind.magic_and_code();
        let mut out = [0u8; HEAD_LEN];
        out[..8].copy_from_slice(magic);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = code;
        out[12..].copy_from_slice(&self.epoch.0);
        out
    }

    /// Reads the first 28 bytes of an object.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = |why| FormatError::malformed("object head", why);
        let head: &[u8; HEAD_LEN] = bytes.first_chunk().ok_or(bad("ends early"))?;
        let is_pack = &head[..8] == PACK_MAGIC;
        if !is_pack && &head[..8] != BOX_MAGIC {
            return Err(bad("unknown magic"));
        }
        check_version("object", u16::from_le_bytes([head[8], head[9]]))?;
        let kind = match (is_pack, head[10]) {
            (true, 1) => ObjectKind::DataPack,
            (true, 2) => ObjectKind::TreePack,
            (false, 1) => ObjectKind::Index,
            (false, 2) => ObjectKind::Snapshot,
            (false, 3) => ObjectKind::Record,
            (false, 4) => ObjectKind::Mark,
            (false, 5) => ObjectKind::SnapshotBundle,
            (_, other) => return Err(FormatError::Newer { what: "object kind", found: other.into() }),
        };
        if head[11] != 0 {
            return Err(bad("a reserved byte is set"));
        }
        let mut epoch = [0; EpochId::LEN];
        epoch.copy_from_slice(&head[12..]);
        Ok(Self { kind, epoch: EpochId(epoch) })
    }
}

pub(crate) fn check_version(what: &'static str, version: u16) -> Result<(), FormatError> {
    if version > VERSION { Err(FormatError::Newer { what, found: version.into() }) } else { Ok(()) }
}

/// How plaintext is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame (RFC 8878).
    Zstd,
}

impl Codec {
    /// The number that stands for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The reverse of [`Codec::code`].
    pub const fn from_code(code: u8) -> Result<Self, FormatError> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            other => Err(FormatError::Newer { what: "codec", found: other as u64 }),
        }
    }
}

/// The sealed part of a signed box or of a pack's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner<'a> {
    /// Who signs.
    pub slot: SlotId,
    /// Over the payload and its place; see `docs/format.md` §5.
    pub signature: [u8; 64],
    /// How the payload is stored.
    pub codec: Codec,
    /// Length of the payload in bytes, once decompressed.
    pub plain_len: u32,
    /// The payload as it is stored.
    pub stored: &'a [u8],
}

impl<'a> Inner<'a> {
    /// The bytes, followed by `padding` zeros.
    pub fn encode(&self, padding: usize) -> Vec<u8> {
        let stored_len = u32::try_from(self.stored.len()).expect("payloads stay below 64 MiB");
        let mut out = Vec::with_capacity(INNER_FIXED_LEN + self.stored.len() + padding + 16);
        out.extend_from_slice(&self.slot.0);
        out.extend_from_slice(&self.signature);
        out.push(self.codec.code());
        out.extend_from_slice(&stored_len.to_le_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(self.stored);
        out.resize(out.len() + padding, 0);
        out
    }

    /// Reads the bytes; the padding must be zeros, and the plain length within its limit (F13).
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let bad = |why| FormatError::malformed("signed payload", why);
        let (fixed, rest) = bytes.split_first_chunk::<INNER_FIXED_LEN>().ok_or(bad("ends early"))?;
        let (slot, fixed) = fixed.split_first_chunk::<16>().ok_or(bad("ends early"))?;
        let (signature, fixed) = fixed.split_first_chunk::<64>().ok_or(bad("ends early"))?;
        let stored_len = u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]);
        let plain_len = u32::from_le_bytes([fixed[5], fixed[6], fixed[7], fixed[8]]);
        if plain_len as usize > limits::PAYLOAD_PLAIN {
            return Err(FormatError::TooLarge { what: "payload", limit: limits::PAYLOAD_PLAIN as u64 });
        }
        let (stored, padding) = rest.split_at_checked(stored_len as usize).ok_or(bad("ends early"))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(bad("padding that is not zero"));
        }
        let codec = Codec::from_code(fixed[0])?;
        if codec == Codec::Raw && stored_len != plain_len {
            return Err(bad("lengths that contradict each other"));
        }
        Ok(Self { slot: SlotId(*slot), signature: *signature, codec, plain_len, stored })
    }
}

/// The PADMÉ length of `length` (F17): rounded up so that only `O(log log length)` bits of it show.
/// Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (2019), algorithm 1.
pub const fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let mask = match exponent.checked_sub(kept_bits) {
        Some(dropped) => (1u64 << dropped) - 1,
        None => 0,
    };
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_rounds_as_published() {
        // By hand: 1000 = 0b1111101000, E = 9, S = 4, the low 5 bits go: 1024. 100: E = 6, S = 3, low 3 bits: 104.
        for (length, padded) in
            [(0, 0), (1, 1), (2, 2), (9, 10), (100, 104), (1000, 1024), (1_000_000, 1_015_808)]
        {
            assert_eq!(padme(length), padded, "{length}");
        }
        for length in 1..100_000 {
            assert!(
                padme(length) >= length && padme(length) as f64 <= length as f64 * 1.12 + 1.0,
                "{length}"
            );
        }
    }

    #[test]
    fn heads_survive_and_newer_ones_are_named() {
        let head = Head { kind: ObjectKind::Snapshot, epoch: EpochId([7; 16]) };
        let mut bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(head));
        assert_eq!(&bytes[..12], b"SNAPSBOX\x00\x00\x02\x00");
        bytes[8] = 1;
        assert_eq!(Head::decode(&bytes), Err(FormatError::Newer { what: "object", found: 1 }));
        assert!(Head::decode(&bytes[..27]).is_err());
    }

    #[test]
    fn inner_parts_survive_with_padding() {
        let inner = Inner {
            slot: SlotId([1; 16]),
            signature: [2; 64],
            codec: Codec::Raw,
            plain_len: 3,
            stored: b"abc",
        };
        let bytes = inner.encode(5);
        assert_eq!(bytes.len(), INNER_FIXED_LEN + 3 + 5);
        assert_eq!(Inner::decode(&bytes), Ok(inner));
        let mut dirty = bytes.clone();
        dirty[INNER_FIXED_LEN + 3] = 1;
        assert!(Inner::decode(&dirty).is_err());
        let mut huge = bytes;
        huge[85..89].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Inner::decode(&huge), Err(FormatError::TooLarge { .. })));
    }
}
