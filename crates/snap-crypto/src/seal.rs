use chacha20poly1305::aead::{AeadInOut, KeyInit, Nonce, Tag};
use chacha20poly1305::{Key, XChaCha20Poly1305};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{CryptoError, random};

const NONCE: usize = 24;
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

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(self.0))
    }

    /// Appends `nonce | ciphertext | tag` to `out`: [`OVERHEAD`] bytes more than `plain`.
    pub fn seal_into(&self, ad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.seal_with(&random()?, ad, plain, out)
    }

    pub(crate) fn seal_with(
        &self,
        nonce: &[u8; NONCE],
        ad: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        out.reserve(plain.len() + OVERHEAD);
        out.extend_from_slice(nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let nonce = Nonce::<XChaCha20Poly1305>::from(*nonce);
        let tag = self
            .cipher()
            .encrypt_inout_detached(&nonce, ad, (&mut out[start..]).into())
            .map_err(|_| CryptoError::Authentication)?;
        out.extend_from_slice(&tag);
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
        let nonce = Nonce::<XChaCha20Poly1305>::from(*nonce);
        let tag = Tag::<XChaCha20Poly1305>::from(*tag);
        let opened = self.cipher().decrypt_inout_detached(&nonce, ad, out.as_mut_slice().into(), &tag);
        opened.map_err(|_| {
            out.clear();
            CryptoError::Authentication
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
