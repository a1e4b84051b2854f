//! A split-block Bloom filter, as in the Parquet format (`BloomFilter.md` of apache/parquet-format): one cache line a look-up.

use snap_format::BlobId;

/// Keys that share 256 bits: about 11 bits a key, and one in a hundred and fifty strangers passes.
const KEYS_PER_BLOCK: u64 = 24;
/// Bytes of a block of the filter.
pub(super) const FILTER_BLOCK: usize = 32;

/// The constants of Parquet, which spread the bits.
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

#[derive(Clone, Copy)]
#[repr(align(32))]
struct Lanes([u32; 8]);

/// Says of a blob that it is certainly not there, or that it may be.
pub(super) struct Filter(Vec<Lanes>);

fn mask(id: &BlobId) -> Lanes {
    let x = id.0[16..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    Lanes(SALT.map(|salt| 1 << (x.wrapping_mul(salt) >> 27)))
}

impl Filter {
    /// For up to `keys` keys.
    pub(super) fn new(keys: u64) -> Self {
        Self(vec![Lanes([0; 8]); Self::blocks(keys) as usize])
    }

    /// An empty one, with room for `blocks` that are [`Filter::push`]ed.
    pub(super) fn with_room(blocks: u64) -> Self {
        Self(Vec::with_capacity(blocks as usize))
    }

    /// Number of blocks for so many keys.
    pub(super) const fn blocks(keys: u64) -> u64 {
        keys.div_ceil(KEYS_PER_BLOCK)
    }

    fn block(&self, id: &BlobId) -> usize {
        let hash = id.0[8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }

    pub(super) fn insert(&mut self, id: &BlobId) {
        let (block, mask) = (self.block(id), mask(id));
        if let Some(lanes) = self.0.get_mut(block) {
            lanes.0.iter_mut().zip(mask.0).for_each(|(lane, bit)| *lane |= bit);
        }
    }

    pub(super) fn may_hold(&self, id: &BlobId) -> bool {
        let mask = mask(id);
        self.0.get(self.block(id)).is_some_and(|lanes| {
            lanes.0.iter().zip(mask.0).fold(0, |missing, (lane, bit)| missing | (bit & !lane)) == 0
        })
    }

    /// Its blocks as bytes.
    pub(super) fn encode(&self) -> impl Iterator<Item = [u8; FILTER_BLOCK]> + '_ {
        self.0.iter().map(|lanes| {
            let mut out = [0; FILTER_BLOCK];
            out.as_chunks_mut().0.iter_mut().zip(lanes.0).for_each(|(to, lane)| *to = lane.to_le_bytes());
            out
        })
    }

    /// Adds a block as it was encoded.
    pub(super) fn push(&mut self, bytes: &[u8; FILTER_BLOCK]) {
        let mut lanes = [0; 8];
        lanes.iter_mut().zip(bytes.as_chunks().0).for_each(|(lane, from)| *lane = u32::from_le_bytes(*from));
        self.0.push(Lanes(lanes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BlobId {
        BlobId(snap_crypto::hash(&number.to_le_bytes()))
    }

    #[test]
    fn members_pass_and_few_strangers_do() {
        let mut filter = Filter::new(20_000);
        (0..20_000).for_each(|number| filter.insert(&id(number)));
        let mut copy = Filter::with_room(0);
        filter.encode().for_each(|block| copy.push(&block));
        for filter in [filter, copy] {
            assert!((0..20_000).all(|number| filter.may_hold(&id(number))));
            let strangers = (20_000..120_000).filter(|number| filter.may_hold(&id(*number))).count();
            assert!(strangers < 1500, "{strangers} of 100,000");
        }
        assert!(!Filter::new(0).may_hold(&id(1)));
    }
}
