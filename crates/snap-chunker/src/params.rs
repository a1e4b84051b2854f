//! Chunk sizes, and the profiles that name them.

use thiserror::Error;

/// The sizes of one content-defined profile, in bytes, and the density of its candidates.
///
/// The two thresholds that the keyed function is compared with follow from them (see
/// [`below_normal`](Self::below_normal) and [`from_normal`](Self::from_normal)): a cut is a quarter as
/// likely below the normal size, and four times as likely from there on, as a cut every `normal` bytes.
/// That is FastCDC's normalised chunking, level 2, and it puts the mean size near `normal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    min: u32,
    normal: u32,
    max: u32,
    candidate_bits: u32,
}

/// Why [`Params::new`] refused its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// The sizes do not satisfy `64 <= min < normal < max <= 64 MiB`.
    #[error("chunk sizes must satisfy 64 <= min < normal < max <= {max_allowed}: {min}, {normal}, {max}", max_allowed = Params::LARGEST)]
    Sizes {
        /// The minimum, in bytes.
        min: u32,
        /// The normal size, in bytes.
        normal: u32,
        /// The maximum, in bytes.
        max: u32,
    },
    /// The candidates are too rare for the normal size: `1 <= bits` and `2^(bits + 2) < normal` must hold.
    #[error("{bits} candidate bits do not suit a normal size of {normal} bytes")]
    CandidateBits {
        /// The candidate bits.
        bits: u32,
        /// The normal size, in bytes.
        normal: u32,
    },
}

impl Params {
    /// The smallest minimum: the window of a candidate, so that a window never reaches out of its chunk.
    pub const SMALLEST: u32 = crate::WINDOW as u32;
    /// The largest maximum, 64 MiB.
    pub const LARGEST: u32 = 64 << 20;

    /// Checks the sizes (bytes) and the candidate bits (one position in `2^bits` is a candidate).
    pub const fn new(min: u32, normal: u32, max: u32, candidate_bits: u32) -> Result<Self, ParamsError> {
        if min < Self::SMALLEST || min >= normal || normal >= max || max > Self::LARGEST {
            return Err(ParamsError::Sizes { min, normal, max });
        }
        if candidate_bits == 0 || candidate_bits > 24 || (4u64 << candidate_bits) >= normal as u64 {
            return Err(ParamsError::CandidateBits { bits: candidate_bits, normal });
        }
        Ok(Self { min, normal, max, candidate_bits })
    }

    /// The smallest chunk, in bytes, but for the last of a file.
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// The size around which chunks gather, in bytes.
    pub const fn normal(&self) -> u32 {
        self.normal
    }

    /// The largest chunk, in bytes.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// How many high bits of the gear hash are zero at a candidate.
    pub const fn candidate_bits(&self) -> u32 {
        self.candidate_bits
    }

    /// `2^(64 - candidate_bits)`: a position is a candidate when its gear hash is below this.
    pub const fn candidate_limit(&self) -> u64 {
        1 << (64 - self.candidate_bits)
    }

    /// T1 = floor(2^(62 + candidate_bits) / normal): the keyed function of a candidate that would end a
    /// chunk shorter than `normal` is compared with this.
    pub const fn below_normal(&self) -> u64 {
        ((1u128 << (62 + self.candidate_bits)) / self.normal as u128) as u64
    }

    /// T2 = floor(2^(66 + candidate_bits) / normal): the same for a chunk of `normal` bytes or more.
    pub const fn from_normal(&self) -> u64 {
        ((1u128 << (66 + self.candidate_bits)) / self.normal as u128) as u64
    }
}

const fn known_good(min: u32, normal: u32, max: u32, candidate_bits: u32) -> Params {
    match Params::new(min, normal, max, candidate_bits) {
        Ok(params) => params,
        Err(_) => panic!("a profile's sizes are valid"),
    }
}

const GENERAL: Params = known_good(512 << 10, 1 << 20, 4 << 20, 10);
const TEXT: Params = known_good(8 << 10, 24 << 10, 96 << 10, 9);

/// The chunk length of [`Profile::Pages`], in bytes: a multiple of every common page size.
pub(crate) const PAGES_LEN: u32 = 64 << 10;

/// How a file is cut. Recorded with the file, so that later versions are cut alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// Anything not known better: chunks of about 1 MiB.
    General,
    /// Large line-structured text such as a database dump: chunks of about 24 KiB, so that rows which
    /// changed here and there do not make everything new.
    Text,
    /// Pages rewritten in place (database files, disk images): 64 KiB each, whatever they hold.
    Pages,
}

impl Profile {
    /// Every profile, in the order of the codes.
    pub const ALL: [Self; 3] = [Self::General, Self::Text, Self::Pages];

    /// The code by which the format names this profile. Codes are never reused.
    pub const fn code(self) -> u8 {
        match self {
            Self::General => 1,
            Self::Text => 2,
            Self::Pages => 3,
        }
    }

    /// The profile with that code, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::General),
            2 => Some(Self::Text),
            3 => Some(Self::Pages),
            _ => None,
        }
    }

    /// The sizes of a content-defined profile; `None` where chunks have a fixed length.
    pub const fn params(self) -> Option<Params> {
        match self {
            Self::General => Some(GENERAL),
            Self::Text => Some(TEXT),
            Self::Pages => None,
        }
    }

    /// The largest chunk, in bytes.
    pub const fn max_len(self) -> usize {
        match self.params() {
            Some(params) => params.max as usize,
            None => PAGES_LEN as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_go_both_ways() {
        assert_eq!(Profile::ALL.map(Profile::code), [1, 2, 3]);
        for code in 0..=u8::MAX {
            assert_eq!(Profile::from_code(code).map_or(code, Profile::code), code);
        }
        assert_eq!(Profile::from_code(0), None);
        assert_eq!(Profile::from_code(4), None);
    }

    #[test]
    fn sizes_out_of_order_or_out_of_range_are_refused() {
        for (min, normal, max) in
            [(63, 256, 1024), (256, 256, 1024), (64, 1024, 1024), (64, 256, Params::LARGEST + 1)]
        {
            assert!(matches!(Params::new(min, normal, max, 2), Err(ParamsError::Sizes { .. })));
        }
        assert!(Params::new(64, 256, Params::LARGEST, 2).is_ok());
    }

    #[test]
    fn candidate_bits_leave_room_for_both_thresholds() {
        assert!(Params::new(64, 256, 1024, 5).is_ok());
        for bits in [0, 6, 7, 64, u32::MAX] {
            assert!(matches!(Params::new(64, 256, 1024, bits), Err(ParamsError::CandidateBits { .. })));
        }
    }

    #[test]
    fn thresholds_are_the_published_ones() {
        assert_eq!((GENERAL.below_normal(), GENERAL.from_normal()), (1 << 52, 1 << 56));
        assert_eq!((TEXT.below_normal(), TEXT.from_normal()), (0x0155_5555_5555_5555, 0x1555_5555_5555_5555));
    }
}
