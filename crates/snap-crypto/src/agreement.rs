use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{CryptoError, random};

type Suite = X25519HkdfSha256;
type PublicKey = <Suite as Kem>::PublicKey;
type PrivateKey = <Suite as Kem>::PrivateKey;
type EncappedKey = <Suite as Kem>::EncappedKey;

const ENCAPPED: usize = 32;
/// What [`seal_to`] adds to a plaintext, bytes.
pub const HPKE_OVERHEAD: usize = ENCAPPED + 16;

/// The secret half of an X25519 key pair.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AgreementKey([u8; 32]);

impl AgreementKey {
    /// From stored bytes.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// A fresh pair.
    pub fn random() -> Result<Self, CryptoError> {
        random().map(Self)
    }

    /// The secret bytes, to wrap them.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn private(&self) -> Result<PrivateKey, CryptoError> {
        PrivateKey::from_bytes(&self.0).map_err(|_| CryptoError::Authentication)
    }

    /// The public half.
    pub fn public(&self) -> Result<[u8; 32], CryptoError> {
        Ok(Suite::sk_to_pk(&self.private()?).to_bytes().into())
    }

    /// Opens what [`seal_to`] made for the public half.
    pub fn open(&self, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let (encapped, text) = sealed.split_first_chunk::<ENCAPPED>().ok_or(CryptoError::Authentication)?;
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| CryptoError::Authentication)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeR::Base,
            &self.private()?,
            &encapped,
            info,
            text,
            aad,
        )
        .map(Zeroizing::new)
        .map_err(|_| CryptoError::Authentication)
    }
}

/// Seals `plain` to whoever holds the secret half of `public`: HPKE (RFC 9180), base mode, single shot,
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Returns `encapsulated key | ciphertext | tag`.
pub fn seal_to(public: &[u8; 32], info: &[u8], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let public = PublicKey::from_bytes(public).map_err(|_| CryptoError::PublicKey)?;
    let (encapped, text) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Suite>(
        &OpModeS::Base,
        &public,
        info,
        plain,
        aad,
    )
    .map_err(|_| CryptoError::PublicKey)?;
    let mut out = encapped.to_bytes().to_vec();
    out.extend_from_slice(&text);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_holder_opens_and_only_in_context() {
        let key = AgreementKey::random().unwrap();
        let sealed = seal_to(&key.public().unwrap(), b"info", b"aad", b"a key").unwrap();
        assert_eq!(sealed.len(), 5 + HPKE_OVERHEAD);
        assert_eq!(key.open(b"info", b"aad", &sealed).unwrap().as_slice(), b"a key");
        assert!(key.open(b"other", b"aad", &sealed).is_err());
        assert!(key.open(b"info", b"other", &sealed).is_err());
        assert!(AgreementKey::random().unwrap().open(b"info", b"aad", &sealed).is_err());
        assert!(key.open(b"info", b"aad", &sealed[..20]).is_err());
    }

    #[test]
    fn low_order_public_keys_are_refused() {
        assert_eq!(seal_to(&[0; 32], b"", b"", b"x").err(), Some(CryptoError::PublicKey));
    }
}
