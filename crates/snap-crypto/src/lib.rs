//! The algorithms. This is the only crate that names one; it does not know what it seals.
//!
//! - [`hash`], [`Hasher`]: BLAKE3, which names objects; [`IdKey`]: keyed BLAKE3, which names blobs; [`derive_key`].
//! - [`SealKey`]: XChaCha20-Poly1305 with random nonces.
//! - [`AgreementKey`], [`seal_to`]: HPKE over X25519, to hand a key to whoever holds a key pair.
//! - [`SignatureKey`], [`verify`]: Ed25519.
//! - [`stretch`][]: Argon2id.
//! - [`self_test`][]: run once at program start; nothing else may be used if it fails.
//!
//! ```
//! use snap_crypto::SealKey;
//! let key = SealKey::random().unwrap();
//! let mut sealed = Vec::new();
//! key.seal_into(b"where it belongs", b"secret", &mut sealed).unwrap();
//! assert_eq!(key.open(b"where it belongs", &sealed).unwrap(), b"secret");
//! assert!(key.open(b"elsewhere", &sealed).is_err());
//! ```
//!
//! Not here: what the bytes mean, which key belongs to whom, and where keys are kept.

mod agreement;
mod hashing;
mod password;
mod seal;
mod self_test;
mod sign;

pub use agreement::{AgreementKey, HPKE_OVERHEAD, seal_to};
pub use hashing::{Hasher, IdKey, derive_key, hash};
pub use password::{StretchParams, stretch};
pub use seal::{NONCE, OVERHEAD, SealKey};
pub use self_test::self_test;
pub use sign::{SignatureKey, verify};
pub use zeroize::{Zeroize, Zeroizing};

use thiserror::Error;

/// What can go wrong here. Says nothing about keys or plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The key is wrong, or the bytes are not what was sealed.
    #[error("does not authenticate: wrong key or damaged bytes")]
    Authentication,
    /// A public key that is none.
    #[error("not a valid public key")]
    PublicKey,
    /// Password stretching was given impossible parameters.
    #[error("invalid password stretching parameters")]
    Parameters,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness,
    /// [`self_test`] found this algorithm computing wrong results.
    #[error(
        "self-test of {0} failed: this machine or this build computes wrong results; nothing was read or written"
    )]
    SelfTest(&'static str),
}

/// Fresh random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|_| CryptoError::Randomness)?;
    Ok(out)
}
