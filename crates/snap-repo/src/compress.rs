//! Compression with its safeguards: cheap refusal of what will not shrink, and proof that it comes back (a broken
//! encoder must not cost data).

use std::io::Cursor;

use snap_crypto::{NONCE, OVERHEAD};
use snap_format::{Codec, FormatError};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

/// A blob shorter than this is compressed without looking at samples first.
const SAMPLED_FROM: usize = 32 << 10;
const SAMPLE: usize = 4 << 10;
/// Share that compression must save to be worth a reader's time: one part in 32.
const MIN_GAIN: usize = 32;

/// Level 3 with smaller tables, and with one shortest match for all lengths: a tenth faster, some thousandths larger
/// (docs/performance.md). Other levels are as zstd has them.
const TUNED_LEVEL: i32 = 3;
const TUNED: [CParameter; 3] = [CParameter::HashLog(16), CParameter::ChainLog(14), CParameter::MinMatch(5)];

fn compressor(level: i32) -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    if level == TUNED_LEVEL {
        TUNED.into_iter().try_for_each(|parameter| compressor.set_parameter(parameter))?;
    }
    Ok(compressor)
}

/// What one thread needs to compress, decompress and seal; its buffers are reused from blob to blob.
pub struct Scratch {
    compressor: Compressor<'static>,
    sampler: Compressor<'static>,
    decompressor: Decompressor<'static>,
    sample: Vec<u8>,
    check: Vec<u8>,
    /// A blob on its way: room for the nonce, then what is stored of it, which is sealed in place.
    pub(crate) sealed: Vec<u8>,
    pub(crate) opened: Vec<u8>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

impl Scratch {
    /// For a zstd level from 1 to 19.
    pub fn new(level: i32) -> std::io::Result<Self> {
        Ok(Self {
            compressor: compressor(level)?,
            sampler: Compressor::new(1)?,
            decompressor: Decompressor::new()?,
            sample: Vec::new(),
            check: Vec::new(),
            sealed: Vec::new(),
            opened: Vec::new(),
        })
    }

    /// As [`Scratch::pack`], without looking at samples first.
    pub(crate) fn pack_unseen(&mut self, plain: &[u8]) -> Codec {
        if self.compress(plain) { Codec::Zstd } else { self.leave(plain) }
    }

    /// Puts into `sealed`, behind room for the nonce, what to store of `plain`: itself, or a frame that has been decompressed
    /// and compared.
    pub(crate) fn pack(&mut self, plain: &[u8]) -> Codec {
        if self.shrinks(plain) { self.pack_unseen(plain) } else { self.leave(plain) }
    }

    fn leave(&mut self, plain: &[u8]) -> Codec {
        self.sealed.truncate(NONCE);
        self.sealed.resize(NONCE, 0);
        self.sealed.reserve(plain.len() + OVERHEAD);
        self.sealed.extend_from_slice(plain);
        Codec::Raw
    }

    /// Whether it may compress well among others.
    pub(crate) fn may_shrink(&mut self, plain: &[u8]) -> bool {
        plain.len() < SAMPLED_FROM || self.shrinks(plain)
    }

    /// Compresses three small samples; random bytes, media and archives show here at a hundredth of the cost.
    fn shrinks(&mut self, plain: &[u8]) -> bool {
        if plain.len() < SAMPLED_FROM {
            return plain.len() > 16;
        }
        let last = plain.len() - SAMPLE;
        [last / 8, last / 2, last - last / 8].into_iter().any(|at| {
            self.sample.clear();
            self.sample.reserve(SAMPLE + 1024);
            let sample = &plain[at..at + SAMPLE];
            self.sampler
                .compress_to_buffer(sample, &mut self.sample)
                .is_ok_and(|len| len < SAMPLE - SAMPLE / MIN_GAIN)
        })
    }

    fn compress(&mut self, plain: &[u8]) -> bool {
        self.sealed.truncate(NONCE);
        self.sealed.resize(NONCE, 0);
        self.sealed.reserve(zstd::zstd_safe::compress_bound(plain.len()) + OVERHEAD);
        let mut end = Cursor::new(&mut self.sealed);
        end.set_position(NONCE as u64);
        let Ok(length) = self.compressor.compress_to_buffer(plain, &mut end) else { return false };
        if length + plain.len() / MIN_GAIN >= plain.len() {
            return false;
        }
        self.check.clear();
        self.check.reserve(plain.len());
        let packed = &self.sealed[NONCE..];
        self.decompressor.decompress_to_buffer(packed, &mut self.check).is_ok() && self.check == plain
    }

    /// Appends the plaintext of `stored`, exactly `plain_len` bytes, which the caller has bounded (F13). On failure `out` is
    /// as it was.
    pub(crate) fn unpack(
        &mut self,
        codec: Codec,
        stored: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let start = out.len();
        let outcome = match codec {
            Codec::Raw if stored.len() == plain_len => {
                out.extend_from_slice(stored);
                Ok(())
            }
            Codec::Raw => Err("it has another length than stated"),
            Codec::Zstd => {
                out.reserve(plain_len);
                let mut end = Cursor::new(&mut *out);
                end.set_position(start as u64);
                match self.decompressor.decompress_to_buffer(stored, &mut end) {
                    Ok(length) if length == plain_len => Ok(()),
                    Ok(_) => Err("it has another length than stated"),
                    Err(_) => Err("it does not decompress"),
                }
            }
        };
        outcome.map_err(|why| {
            out.truncate(start);
            FormatError::Malformed { what: "zstd frame", why }
        })
    }
}

/// Compresses a payload once, off the hot path.
pub(crate) fn compress_payload(payload: &[u8]) -> Option<Vec<u8>> {
    let packed = zstd::bulk::compress(payload, 3).ok()?;
    let returns = zstd::bulk::decompress(&packed, payload.len()).is_ok_and(|plain| plain == payload);
    (returns && packed.len() < payload.len()).then_some(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    fn round_trip(plain: &[u8]) -> Codec {
        let mut scratch = Scratch::new(3).unwrap();
        let codec = scratch.pack(plain);
        let stored = scratch.sealed[NONCE..].to_vec();
        let mut out = b"before ".to_vec();
        scratch.unpack(codec, &stored, plain.len(), &mut out).unwrap();
        assert!(out.strip_prefix(b"before ") == Some(plain));
        codec
    }

    #[test]
    fn noise_stays_and_text_shrinks() {
        assert_eq!(round_trip(&noise(100_000)), Codec::Raw);
        assert_eq!(round_trip(&noise(1000)), Codec::Raw);
        assert_eq!(round_trip(b""), Codec::Raw);
        assert_eq!(round_trip(&b"all work and no play ".repeat(10_000)), Codec::Zstd);
        let mixed = [noise(500_000), b"text ".repeat(100_000)].concat();
        assert_eq!(round_trip(&mixed), Codec::Zstd);
    }

    #[test]
    fn a_frame_that_lies_about_its_length_is_refused() {
        let mut scratch = Scratch::new(3).unwrap();
        let bomb = zstd::bulk::compress(&vec![0; 8 << 20], 3).unwrap();
        for claimed in [10, (8 << 20) - 1, (8 << 20) + 1] {
            let mut out = Vec::new();
            assert!(scratch.unpack(Codec::Zstd, &bomb, claimed, &mut out).is_err(), "{claimed}");
            assert!(out.capacity() <= claimed.max(64), "{claimed}");
            let mut out = Vec::with_capacity(9 << 20);
            out.extend_from_slice(b"before");
            assert!(scratch.unpack(Codec::Zstd, &bomb, claimed, &mut out).is_err(), "{claimed}");
            assert_eq!(out, b"before", "{claimed}");
        }
    }
}
