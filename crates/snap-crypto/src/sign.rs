use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{CryptoError, random};

/// The secret half of an Ed25519 key pair (its 32-byte seed).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SignatureKey([u8; 32]);

impl SignatureKey {
    /// From stored bytes.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// A fresh pair.
    pub fn random() -> Result<Self, CryptoError> {
        random().map(Self)
    }

    /// The seed, to wrap it.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        SigningKey::from_bytes(&self.0).verifying_key().to_bytes()
    }

    /// Signs `message` (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        SigningKey::from_bytes(&self.0).sign(message).to_bytes()
    }
}

/// Verifies strictly: small-order keys and non-canonical signatures fail.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), CryptoError> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| CryptoError::PublicKey)?;
    key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| CryptoError::Authentication)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_bind_key_and_message() {
        let key = SignatureKey::random().unwrap();
        let signature = key.sign(b"message");
        assert_eq!(verify(&key.public(), b"message", &signature), Ok(()));
        assert!(verify(&key.public(), b"massage", &signature).is_err());
        assert!(verify(&SignatureKey::random().unwrap().public(), b"message", &signature).is_err());
        assert!(verify(&[0; 32], b"message", &[0; 64]).is_err());
    }
}
