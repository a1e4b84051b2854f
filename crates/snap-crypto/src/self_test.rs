//! Vectors that run at program start: a build or a machine that computes wrong results must not write a repository.

use crate::{CryptoError, IdKey, SealKey, hash};

/// BLAKE3 of the empty input, from the reference's test vectors.
const HASH_OF_NOTHING: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b,
    0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// Keyed BLAKE3 of the empty input under the reference's test key.
const KEYED_HASH_OF_NOTHING: [u8; 32] = [
    0x92, 0xb2, 0xb7, 0x56, 0x04, 0xed, 0x3c, 0x76, 0x1f, 0x9d, 0x6f, 0x62, 0x39, 0x2c, 0x8a, 0x92, 0x27,
    0xad, 0x0e, 0xa3, 0xf0, 0x95, 0x73, 0xe7, 0x83, 0xf1, 0x49, 0x8a, 0x4e, 0xd6, 0x0d, 0x26,
];

/// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
const SEAL_PLAIN: &[u8] =
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
future, sunscreen would be it.";
const SEAL_AD: [u8; 12] = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
const SEAL_TEXT_BEGINS: [u8; 16] =
    [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b, 0x95, 0x76, 0x57, 0x94, 0x93, 0xc0, 0xe9, 0x39];
const SEAL_TAG: [u8; 16] =
    [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49];

/// Checks hash, keyed hash and cipher against published vectors; microseconds. Fails closed: call it first.
pub fn self_test() -> Result<(), CryptoError> {
    if hash(b"") != HASH_OF_NOTHING {
        return Err(CryptoError::SelfTest("BLAKE3"));
    }
    if IdKey::new(*b"whats the Elvish word for friend").id(b"") != KEYED_HASH_OF_NOTHING {
        return Err(CryptoError::SelfTest("keyed BLAKE3"));
    }
    let cipher = CryptoError::SelfTest("XChaCha20-Poly1305");
    let key = SealKey::new(std::array::from_fn(|i| 0x80 + i as u8));
    let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
    let mut sealed = Vec::new();
    key.seal_with(&nonce, &SEAL_AD, SEAL_PLAIN, &mut sealed).map_err(|_| cipher)?;
    let opens = key.open(&SEAL_AD, &sealed).is_ok_and(|plain| plain == SEAL_PLAIN);
    let as_published = sealed[24..40] == SEAL_TEXT_BEGINS && sealed.ends_with(&SEAL_TAG);
    sealed[30] ^= 1;
    let refuses = key.open(&SEAL_AD, &sealed).is_err();
    if opens && as_published && refuses { Ok(()) } else { Err(cipher) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes_here() {
        assert_eq!(super::self_test(), Ok(()));
    }
}
