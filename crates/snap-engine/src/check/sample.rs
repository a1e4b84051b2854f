//! Which packs to read.

use snap_format::ObjectId;

use super::ReadData;
use crate::{EngineError, Result};

/// Place of a pack in the order that `seed` draws.
fn drawn(seed: u64, id: &ObjectId) -> [u8; 32] {
    snap_crypto::hash(&[seed.to_le_bytes().as_slice(), &id.0].concat())
}

fn part_of(id: &ObjectId, of: u64) -> u64 {
    let first = id.0.first_chunk().expect("an id is 32 bytes long");
    u64::from_be_bytes(*first) % of
}

/// The packs of `all` (with their sizes) that are to be read.
pub(super) fn select(read: ReadData, mut all: Vec<(ObjectId, u64)>) -> Result<Vec<(ObjectId, u64)>> {
    match read {
        ReadData::None => all.clear(),
        ReadData::All => {}
        ReadData::Part { number, of } => {
            if number == 0 || number > of {
                return Err(EngineError::Usage(format!("there is no part {number} of {of}")));
            }
            all.retain(|(id, _)| part_of(id, of) == number - 1);
        }
        ReadData::Percent { percent, seed } => {
            if !(0.0..=100.0).contains(&percent) {
                return Err(EngineError::Usage(format!("{percent} is no share from 0 to 100 percent")));
            }
            all.sort_by_cached_key(|(id, _)| drawn(seed, id));
            all.truncate((all.len() as f64 * percent / 100.0).ceil() as usize);
        }
        ReadData::Bytes { bytes, seed } => {
            all.sort_by_cached_key(|(id, _)| drawn(seed, id));
            let mut taken = 0u64;
            let enough = all.iter().position(|(_, size)| {
                let full = taken >= bytes;
                taken = taken.saturating_add(*size);
                full
            });
            all.truncate(enough.unwrap_or(all.len()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn packs() -> Vec<(ObjectId, u64)> {
        (0..200u64).map(|n| (ObjectId(snap_crypto::hash(&n.to_le_bytes())), 10)).collect()
    }

    fn ids(read: ReadData) -> BTreeSet<ObjectId> {
        select(read, packs()).unwrap().into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn parts_cover_everything_once() {
        let parts: Vec<_> = (1..=7).map(|number| ids(ReadData::Part { number, of: 7 })).collect();
        assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), 200);
        assert_eq!(parts.iter().flatten().collect::<BTreeSet<_>>().len(), 200);
        for (number, of) in [(0, 1), (2, 1), (1, 0)] {
            assert!(select(ReadData::Part { number, of }, packs()).is_err());
        }
    }

    #[test]
    fn shares_and_sizes_are_drawn_by_the_seed() {
        let tenth = |seed| ids(ReadData::Percent { percent: 10.0, seed });
        assert_eq!((tenth(1).len(), tenth(1)), (20, tenth(1)));
        assert_ne!(tenth(1), tenth(2));
        assert_eq!(ids(ReadData::Percent { percent: 0.1, seed: 0 }).len(), 1);
        assert_eq!(ids(ReadData::Percent { percent: 0.0, seed: 0 }).len(), 0);
        assert_eq!(ids(ReadData::Percent { percent: 100.0, seed: 0 }).len(), 200);
        assert!(select(ReadData::Percent { percent: f64::NAN, seed: 0 }, packs()).is_err());
        let some = |bytes| ids(ReadData::Bytes { bytes, seed: 3 }).len();
        assert_eq!([0, 1, 10, 11, 2000, u64::MAX].map(some), [0, 1, 1, 2, 200, 200]);
    }
}
