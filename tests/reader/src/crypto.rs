//! The primitives of §1, the secrets of §4 and the length rule of F17.

use anyhow::{Context, Result, anyhow, bail, ensure};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, Serializable};

/// A key, a hash, a name.
pub type Key = [u8; 32];

/// BLAKE3 of the concatenation of `parts`.
pub fn hash(parts: &[&[u8]]) -> Key {
    *blake3::hash(&parts.concat()).as_bytes()
}

/// BLAKE3 in key derivation mode.
pub fn derive(context: &str, material: &[&[u8]]) -> Key {
    blake3::derive_key(context, &material.concat())
}

/// BLAKE3 in keyed mode.
pub fn keyed(key: &Key, bytes: &[u8]) -> Key {
    *blake3::keyed_hash(key, bytes).as_bytes()
}

/// Opens `seal(key, ad, …)`; `ad` is the concatenation of its parts.
pub fn open(key: &Key, ad: &[&[u8]], sealed: &[u8]) -> Result<Vec<u8>> {
    let (nonce, text) = sealed.split_at_checked(24).context("sealed bytes end early")?;
    let payload = Payload { msg: text, aad: &ad.concat() };
    let opened = XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::try_from(nonce)?, payload);
    opened.map_err(|_| anyhow!("sealed bytes do not open"))
}

/// Opens `hpke(public of secret, info, aad, …)`.
pub fn hpke_open(secret: &Key, info: &[&[u8]], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let (encapsulated, text) = sealed.split_at_checked(32).context("HPKE message ends early")?;
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret);
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated);
    let (Ok(secret), Ok(encapsulated)) = (secret, encapsulated) else { bail!("bad X25519 key") };
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        &info.concat(),
        text,
        aad,
    )
    .map_err(|_| anyhow!("HPKE message does not open"))
}

/// The X25519 public key of a secret key.
pub fn x25519_public(secret: &Key) -> Result<Key> {
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret).map_err(|e| anyhow!("{e}"))?;
    Ok(X25519HkdfSha256::sk_to_pk(&secret).to_bytes().into())
}

/// The Ed25519 public key of a seed.
pub fn ed25519_public(seed: &Key) -> Key {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// Verifies a signature strictly.
pub fn verify(public: &Key, message: &[&[u8]], signature: &[u8; 64]) -> Result<()> {
    // y must be below 2^255 - 19.
    let canonical = public[31] & 0x7f != 0x7f || public[1..31].iter().any(|b| *b != 0xff) || public[0] < 0xed;
    ensure!(canonical, "public key not in its canonical encoding");
    let signature = Signature::from_bytes(signature);
    let verified = VerifyingKey::from_bytes(public)?.verify_strict(&message.concat(), &signature);
    verified.context("signature does not verify")
}

/// What an operator holds.
pub enum Secret {
    /// A password.
    Password(Vec<u8>),
    /// The 32 bytes of a key file.
    KeyFile(Key),
    /// The 32 bytes of a recovery key.
    Recovery(Key),
}

/// `[memory KiB, passes, lanes, salt]`.
pub type Argon2Parameters = (u32, u32, u32, Vec<u8>);

impl Secret {
    /// The kind of slot it may open.
    pub fn kind(&self) -> u64 {
        match self {
            Secret::Password(_) => 1,
            Secret::KeyFile(_) => 2,
            Secret::Recovery(_) => 3,
        }
    }

    /// The text of a key file.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let digits = text.trim().strip_prefix("snap-key-v0 ").context("not a key file")?;
        ensure!(digits.len() == 64 && digits.is_ascii(), "a key file has 64 hex digits");
        Ok(Secret::KeyFile(unhex(digits).context("a key file has 64 hex digits")?))
    }

    /// The printed form of a recovery key.
    pub fn from_recovery_key(text: &str) -> Result<Self> {
        let mut bytes = Vec::new();
        let (mut bits, mut held) = (0u32, 0);
        for symbol in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let symbol = match symbol.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let value = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(symbol);
            let value = value.with_context(|| format!("{symbol:?} is no symbol of a recovery key"))?;
            bits = bits << 5 | u32::try_from(value)?;
            held += 5;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 255)?);
            }
        }
        let bytes: [u8; 35] = bytes.try_into().ok().filter(|_| held == 0).context("needs 56 symbols")?;
        let (secret, check) = bytes.split_at(32);
        ensure!(hash(&[b"snap v0 recovery", secret])[..3] == *check, "recovery key is mistyped");
        Ok(Secret::Recovery(secret.try_into()?))
    }

    /// The key that opens the secrets of a slot.
    pub fn wrap_key(&self, slot: &[u8; 16], parameters: Option<&Argon2Parameters>) -> Result<Key> {
        let material = match self {
            Secret::KeyFile(secret) | Secret::Recovery(secret) => *secret,
            Secret::Password(password) => {
                let (memory, passes, lanes, salt) = parameters.context("no Argon2id parameters")?;
                let small = *memory <= 1 << 20 && *passes <= 64 && *lanes <= 16;
                ensure!(small, "Argon2id parameters above the limits"); // F11
                let parameters =
                    Params::new(*memory, *passes, *lanes, Some(32)).map_err(|e| anyhow!("{e}"))?;
                let mut out = [0; 32];
                Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
                    .hash_password_into(password, salt, &mut out)
                    .map_err(|e| anyhow!("{e}"))?;
                out
            }
        };
        Ok(derive("snap v0 slot wrap", &[&material, slot]))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// 64 hexadecimal digits of either case.
pub fn unhex(digits: &str) -> Option<Key> {
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let pair = digits.get(2 * i..2 * i + 2).filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    (digits.len() == 64).then_some(bytes)
}

/// The PADMÉ length of `length` (F17).
pub fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let e = length.ilog2();
    let s = e.ilog2() + 1;
    length.next_multiple_of(1 << (e - s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_by_hand() {
        // 9: E 3, S 2, steps of 2. 100: E 6, S 3, of 8. 1000: E 9, S 4, of 32. 10^6: E 19, S 5, of 2^14.
        let lengths = [(2, 2), (9, 10), (100, 104), (1000, 1024), (1_000_000, 62 << 14), (1 << 24, 1 << 24)];
        for (length, padded) in lengths {
            assert_eq!(padme(length), padded, "{length}");
            assert_eq!(padme(padded), padded, "{length}");
        }
        assert_eq!(padme((1 << 24) - 1), 1 << 24);
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(unhex(&hex(&[0xa5; 32])), Some([0xa5; 32]));
        assert_eq!(unhex(&"g0".repeat(32)), None);
        assert_eq!(unhex(&"+1".repeat(32)), None);
        assert_eq!(unhex("00"), None);
        assert_eq!(unhex(&"00".repeat(33)), None);
    }

    #[test]
    fn key_file() {
        let text = format!("\n snap-key-v0 {}\n", "0F".repeat(32));
        assert!(matches!(Secret::from_key_file(&text), Ok(Secret::KeyFile(key)) if key == [15; 32]));
        assert!(Secret::from_key_file(&"0f".repeat(32)).is_err());
        assert!(Secret::from_key_file("snap-key-v0 0f").is_err());
    }

    /// Packs 35 bytes into 56 symbols the slow way, bit by bit.
    fn printed(secret: &Key) -> String {
        let check = hash(&[b"snap v0 recovery", secret]);
        let bytes = [&secret[..], &check[..3]].concat();
        let bit = |i: usize| usize::from(bytes[i / 8] >> (7 - i % 8) & 1);
        let symbol = |i: usize| (0..5).fold(0, |a, b| a << 1 | bit(5 * i + b));
        let symbols: Vec<u8> = (0..56).map(|i| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[symbol(i)]).collect();
        symbols.chunks(7).map(|group| str::from_utf8(group).unwrap()).collect::<Vec<_>>().join("-")
    }

    #[test]
    fn recovery_key() {
        let secret: Key = std::array::from_fn(|i| (i * 37 + 5) as u8);
        let text = printed(&secret);
        assert_eq!(text.len(), 63);
        let reads =
            |text: &str| matches!(Secret::from_recovery_key(text), Ok(Secret::Recovery(s)) if s == secret);
        assert!(reads(&text));
        assert!(reads(&text.to_lowercase().replace('-', " \n")));
        assert!(reads(&text.replace('0', "o").replace('1', "l")));
        assert!(reads(&text.replace('0', "O").replace('1', "i")));
        assert!(!reads(&text[1..]));
        assert!(!reads(&text.replacen(|c: char| c != '-', "U", 1)), "U is no symbol");
        let wrong = if text.starts_with('Z') { "Y" } else { "Z" };
        assert!(!reads(&text.replacen(|c: char| c != '-', wrong, 1)), "the check must fail");
    }

    #[test]
    fn argon2_limits() {
        let secret = Secret::Password(b"x".to_vec());
        for parameters in [(1 << 21, 1, 1), (8, 65, 1), (1024, 1, 17)] {
            let parameters = (parameters.0, parameters.1, parameters.2, vec![0; 16]);
            assert!(secret.wrap_key(&[0; 16], Some(&parameters)).is_err());
        }
        assert!(secret.wrap_key(&[0; 16], Some(&(8, 1, 1, vec![0; 16]))).is_ok());
    }

    #[test]
    fn strict_signatures() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signature = ed25519_dalek::Signer::sign(&key, b"ab").to_bytes();
        let public = ed25519_public(&[7; 32]);
        verify(&public, &[b"a", b"b"], &signature).unwrap();
        assert!(verify(&public, &[b"ab", b"c"], &signature).is_err());
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(verify(&identity, &[b"ab"], &[0; 64]).is_err());
        let mut not_canonical = [0xff; 32];
        not_canonical[31] = 0x7f;
        let error = verify(&not_canonical, &[b"ab"], &signature).unwrap_err();
        assert!(error.to_string().contains("canonical"));
    }
}
