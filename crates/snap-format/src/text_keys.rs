//! Secrets as text: key files and the printed recovery key (`docs/format.md` §4).

use zeroize::Zeroizing;

use crate::FormatError;

const KEY_FILE_PREFIX: &str = "snap-key-v0";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 7;
const SYMBOLS: usize = 56;
const LENGTH: &str = "it has 56 letters and digits";

/// The text of a key file, with a newline.
pub fn encode_key_file(secret: &[u8; 32]) -> Zeroizing<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    Zeroizing::new(format!("{KEY_FILE_PREFIX} {}\n", Zeroizing::new(hex).as_str()))
}

/// Reads a key file.
pub fn decode_key_file(text: &str) -> Result<Zeroizing<[u8; 32]>, FormatError> {
    let bad = |why| FormatError::malformed("key file", why);
    let rest =
        text.trim().strip_prefix(KEY_FILE_PREFIX).ok_or(bad("it does not begin with 'snap-key-v0'"))?;
    let id = rest
        .strip_prefix(' ')
        .and_then(crate::BlobId::from_hex)
        .ok_or(bad("it needs a space and 64 hexadecimal digits after 'snap-key-v0'"))?;
    Ok(Zeroizing::new(id.0))
}

/// Prints a recovery key. `check` is the first three bytes of the hash that the format gives.
pub fn encode_recovery_key(secret: &[u8; 32], check: [u8; 3]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 35]);
    bytes[..32].copy_from_slice(secret);
    bytes[32..].copy_from_slice(&check);
    let mut out = Zeroizing::new(String::with_capacity(SYMBOLS + SYMBOLS / GROUP));
    for (number, group) in bytes.as_chunks::<5>().0.iter().enumerate() {
        let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        for symbol in 0..8 {
            let at = number * 8 + symbol;
            if at > 0 && at.is_multiple_of(GROUP) {
                out.push('-');
            }
            out.push(char::from(ALPHABET[(bits >> (35 - 5 * symbol) & 31) as usize]));
        }
    }
    out
}

/// Reads a printed recovery key; returns the secret and the three check bytes, which the caller compares.
pub fn decode_recovery_key(text: &str) -> Result<(Zeroizing<[u8; 32]>, [u8; 3]), FormatError> {
    let bad = |why| FormatError::malformed("recovery key", why);
    let mut values = Zeroizing::new(Vec::with_capacity(SYMBOLS));
    for symbol in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let symbol = match symbol.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let value = ALPHABET
            .iter()
            .position(|c| char::from(*c) == symbol)
            .ok_or(bad("a letter that it cannot hold"))?;
        if values.len() == SYMBOLS {
            return Err(bad(LENGTH)); // before the list grows and leaves a copy behind
        }
        values.push(value as u64);
    }
    if values.len() != SYMBOLS {
        return Err(bad(LENGTH));
    }
    let mut bytes = Zeroizing::new([0u8; 35]);
    for (group, out) in values.chunks_exact(8).zip(bytes.as_chunks_mut::<5>().0) {
        let bits = group.iter().fold(0u64, |bits, value| bits << 5 | value);
        out.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    let mut secret = Zeroizing::new([0u8; 32]);
    secret.copy_from_slice(&bytes[..32]);
    Ok((secret, [bytes[32], bytes[33], bytes[34]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_survive() {
        let text = encode_key_file(&[0xab; 32]);
        assert_eq!(text.as_str(), format!("snap-key-v0 {}\n", "ab".repeat(32)));
        assert_eq!(*decode_key_file(&text).unwrap(), [0xab; 32]);
        for bad in ["", "snap-key-v0", "snap-key-v0 abcd", "password"] {
            assert!(decode_key_file(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn recovery_keys_survive_careless_typing() {
        let secret: [u8; 32] = std::array::from_fn(|i| i as u8 * 8 + 1);
        let printed = encode_recovery_key(&secret, [1, 2, 3]);
        assert_eq!(printed.len(), 56 + 7);
        assert_eq!(printed.split('-').map(str::len).collect::<Vec<_>>(), [7; 8]);
        // The first five bytes 01 09 11 19 21 are 00000 00100 00100 10001 00010 00110 01001 00001.
        assert_eq!(printed.replace('-', "")[..8], *"044H2691");
        let careless = printed.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");
        let (read, check) = decode_recovery_key(&careless).unwrap();
        assert_eq!((*read, check), (secret, [1, 2, 3]));
        assert!(decode_recovery_key(&printed[1..]).is_err());
        assert!(decode_recovery_key("U").is_err());
    }
}
