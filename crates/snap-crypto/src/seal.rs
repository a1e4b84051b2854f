use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{CryptoError, random};

/// Length of the nonce, with which a sealed message begins, bytes.
pub const NONCE: usize = 24;
const TAG: usize = 16;
/// What sealing adds to a plaintext, bytes.
pub const OVERHEAD: usize = NONCE + TAG;

/// A key for XChaCha20-Poly1305. Every seal draws its own 192-bit nonce, so no counter is kept anywhere
/// and a key may seal any number of messages.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// From key material.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// A fresh key.
    pub fn random() -> Result<Self, CryptoError> {
        random().map(Self)
    }

    /// The key material, to seal it to somebody.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// XChaCha20 is HChaCha20, which makes a key of the first 16 bytes of the nonce, and ChaCha20 under it with the other 8
    /// (draft-irtf-cfrg-xchacha-03, section 2.3). So the fast ChaCha20-Poly1305 of `ring` does the work. It does not clear
    /// that key, which opens this one message.
    fn cipher(&self, nonce: &[u8; NONCE]) -> (LessSafeKey, Nonce) {
        let (input, rest) = nonce.split_first_chunk::<16>().expect("24 bytes are more than 16");
        let key = Zeroizing::new(<[u8; 32]>::from(hchacha::<R20>(&self.0.into(), &(*input).into())));
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("the key is of 32 bytes");
        let mut short = [0; 12];
        short[4..].copy_from_slice(rest);
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(short))
    }

    /// Appends `nonce | ciphertext | tag` to `out`: [`OVERHEAD`] bytes more than `plain`.
    pub fn seal_into(&self, ad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.seal_with(&random()?, ad, plain, out)
    }

    /// Seals in place what stands behind the first [`NONCE`] bytes of `message`: they become the nonce, and the tag comes last.
    pub fn seal_in_place(&self, ad: &[u8], message: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.seal_from(0, &random()?, ad, message)
    }

    pub(crate) fn seal_with(
        &self,
        nonce: &[u8; NONCE],
        ad: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        out.reserve(plain.len() + OVERHEAD);
        let start = out.len();
        out.extend_from_slice(&[0; NONCE]);
        out.extend_from_slice(plain);
        self.seal_from(start, nonce, ad, out)
    }

    fn seal_from(
        &self,
        start: usize,
        nonce: &[u8; NONCE],
        ad: &[u8],
        message: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let place = message[start..].first_chunk_mut::<NONCE>().ok_or(CryptoError::Authentication)?;
        *place = *nonce;
        let (key, nonce) = self.cipher(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(ad), &mut message[start + NONCE..])
            .map_err(|_| CryptoError::Authentication)?;
        message.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens what [`SealKey::seal_into`] made.
    pub fn open(&self, ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut out = Vec::new();
        self.open_into(ad, sealed, &mut out)?;
        Ok(out)
    }

    /// Opens into `out`, whose former content goes and whose space is reused. On failure `out` is empty.
    pub fn open_into(&self, ad: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        out.clear();
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(CryptoError::Authentication)?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(CryptoError::Authentication)?;
        out.extend_from_slice(text);
        let (key, nonce) = self.cipher(nonce);
        let opened = key.open_in_place_separate_tag(nonce, Aad::from(ad), Tag::from(*tag), out, 0..);
        if opened.is_err() {
            out.clear();
            return Err(CryptoError::Authentication);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::XChaCha20Poly1305;
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};

    use super::*;

    /// Lengths around the blocks, and the batches of blocks, of either implementation.
    #[test]
    fn another_implementation_agrees() {
        for length in (0..700).chain([1023, 4096, 65_537, 1 << 20]) {
            let plain: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
            let (bytes, ad) = ([length as u8; 32], &plain[..length.min(70)]);
            let (ours, other) = (SealKey::new(bytes), XChaCha20Poly1305::new(&bytes.into()));
            let mut sealed = Vec::new();
            ours.seal_into(ad, &plain, &mut sealed).unwrap();
            let nonce = <[u8; NONCE]>::try_from(&sealed[..NONCE]).unwrap();
            let theirs = other.encrypt(&nonce.into(), Payload { msg: &plain, aad: ad }).unwrap();
            assert!(sealed[NONCE..] == theirs, "{length} bytes");
            let mut in_place = [&[0; NONCE], &plain[..]].concat();
            ours.seal_in_place(ad, &mut in_place).unwrap();
            assert_ne!(in_place[..NONCE], nonce);
            assert!(ours.open(ad, &in_place).unwrap() == plain, "{length} bytes");
            assert!(ours.open(ad, &sealed).unwrap() == plain, "{length} bytes");
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let key = SealKey::random().unwrap();
        let mut sealed = Vec::new();
        key.seal_into(b"ad", b"hello", &mut sealed).unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(key.open(b"ad", &damaged), Err(CryptoError::Authentication), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(b"ad", &sealed[..length]).is_err(), "cut to {length}");
        }
        assert!(SealKey::random().unwrap().open(b"ad", &sealed).is_err());
        assert_eq!(key.open(b"ad", &sealed).unwrap(), b"hello");
    }

    #[test]
    fn nonces_are_fresh() {
        let key = SealKey::random().unwrap();
        let nonces: std::collections::HashSet<Vec<u8>> = (0..1000)
            .map(|_| {
                let mut sealed = Vec::new();
                key.seal_into(b"", b"same", &mut sealed).unwrap();
                sealed[..NONCE].to_vec()
            })
            .collect();
        assert_eq!(nonces.len(), 1000);
    }
}
