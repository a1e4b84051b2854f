use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Lower-case hexadecimal.
            pub fn to_hex(self) -> String {
                self.to_string()
            }

            /// From exactly the right number of bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// From lower-case hexadecimal of exactly the right length.
            pub fn from_hex(hex: &str) -> Option<Self> {
                let digits = hex.as_bytes();
                if digits.len() != 2 * $len {
                    return None;
                }
                let mut out = [0u8; $len];
                for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
                }
                Some(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

id!(
    /// Keyed hash of a blob's plaintext; says nothing to whoever lacks the domain's id key.
    BlobId,
    32
);
id!(
    /// Hash of a stored object's bytes, which is its name: a pack, an index object, a snapshot, an epoch, ….
    ObjectId,
    32
);
id!(
    /// A repository; shared by its copies.
    RepoId,
    32
);
id!(
    /// An epoch; drawn at random when it is made.
    EpochId,
    16
);
id!(
    /// A key slot.
    SlotId,
    16
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_lower_case_and_of_full_length() {
        let hex = "00ff10a5".repeat(4);
        let id = SlotId::from_hex(&hex).unwrap();
        assert_eq!(id.0[..4], [0x00, 0xff, 0x10, 0xa5]);
        assert_eq!(id.to_hex(), hex);
        assert_eq!(SlotId::from_hex(&hex.to_uppercase()), None);
        assert_eq!(SlotId::from_hex(&hex[2..]), None);
    }
}
