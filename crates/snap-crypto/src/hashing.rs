use zeroize::{Zeroize, ZeroizeOnDrop};

/// BLAKE3 of `bytes`.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// BLAKE3 in key derivation mode over the concatenation of `material`. `context` is a constant of the format.
pub fn derive_key(context: &str, material: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    material.iter().for_each(|part| {
        hasher.update(part);
    });
    let key = *hasher.finalize().as_bytes();
    hasher.zeroize();
    key
}

/// BLAKE3 as the bytes come; a clone can be finished while the original goes on.
#[derive(Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// A key that names blobs: the same plaintext has the same name under one key, and names say nothing without it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdKey([u8; 32]);

impl IdKey {
    /// From derived key material.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Keyed BLAKE3 of `plain`.
    pub fn id(&self, plain: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, plain).as_bytes()
    }
}
