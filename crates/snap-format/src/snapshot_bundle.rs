use crate::cbor::{self, Dec, Enc};
use crate::{FormatError, limits};

const WHAT: &str = "snapshot bundle";

/// A snapshot in a [`SnapshotBundle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledSnapshot {
    /// When the object of its own was stored, by the store's clock: seconds since 1970-01-01 UTC.
    pub stored_secs: i64,
    /// The whole object, signed box and all; its hash is the snapshot's id.
    pub bytes: Vec<u8>,
}

/// Many snapshots in one object, each with its own signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBundle {
    /// They, in any order; at least one.
    pub members: Vec<BundledSnapshot>,
}

impl SnapshotBundle {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.map(1).uint(0).array(self.members.len());
        for member in &self.members {
            enc.array(2).int(member.stored_secs).bytes(&member.bytes);
        }
        enc.finish()
    }

    /// Reads the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut members = None;
        let mut dec = cbor::open(bytes, WHAT)?;
        dec.map(|dec, key| {
            if key == 0 {
                members = Some(dec.array(take_member)?);
            }
            Ok(key == 0)
        })?;
        let members: Vec<_> = dec.required(members)?;
        if members.is_empty() { Err(dec.error("it is empty")) } else { Ok(Self { members }) }
    }

    /// What a member of `len` bytes adds to the payload, at most.
    pub const fn member_len(len: usize) -> usize {
        len + 1 + 9 + 9
    }

    /// Whether a bundle of so many members may have one more (`docs/format.md` §16).
    pub const fn has_room(members: usize) -> bool {
        members < limits::ITEMS
    }
}

fn take_member(dec: &mut Dec<'_>) -> Result<BundledSnapshot, FormatError> {
    dec.fixed_array(2)?;
    Ok(BundledSnapshot { stored_secs: dec.int()?, bytes: dec.bytes()?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_survive() {
        let member = |stored_secs, len| BundledSnapshot { stored_secs, bytes: vec![7; len] };
        let bundle = SnapshotBundle { members: vec![member(1_700_000_000, 3), member(-1, 0)] };
        assert_eq!(SnapshotBundle::decode(&bundle.encode()), Ok(bundle.clone()));
        let by_hand = [0xa1, 0, 0x82, 0x82, 0x1a, 0x65, 0x53, 0xf1, 0, 0x43, 7, 7, 7, 0x82, 0x20, 0x40];
        assert_eq!(bundle.encode(), by_hand);
        assert!(SnapshotBundle::decode(&[0xa1, 0, 0x80]).is_err(), "an empty one");
    }

    #[test]
    fn a_member_is_no_longer_than_said() {
        for len in [0, 23, 24, 255, 256, 65_536] {
            let one = SnapshotBundle {
                members: vec![BundledSnapshot { stored_secs: i64::MIN, bytes: vec![0; len] }],
            };
            // Around it: a map, its key, an array.
            assert!(one.encode().len() <= 3 + SnapshotBundle::member_len(len), "{len}");
        }
    }
}
