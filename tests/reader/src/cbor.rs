//! CBOR in the core deterministic encoding, with integer-keyed maps (§1).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Nesting of arrays and maps, the outermost counted (§16).
const DEPTH: usize = 16;

/// A decoded item. The format has no floats, tags, null or other simple values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An unsigned integer.
    Uint(u64),
    /// The negative integer `-1 - n`.
    Negative(u64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text string.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// A map.
    Map(BTreeMap<u64, Value>),
}

/// `[seconds, nanoseconds]` since 1970-01-01 UTC.
pub type Time = (i64, u32);

/// Decodes exactly one item; anything but the deterministic encoding is refused (F1).
pub fn decode(bytes: &[u8]) -> Result<Value> {
    let mut decoder = Decoder { rest: bytes };
    let value = decoder.item(0)?;
    ensure!(decoder.rest.is_empty(), "bytes after the end of the CBOR");
    Ok(value)
}

struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let (taken, rest) = self.rest.split_at_checked(n).context("CBOR ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    /// Major type and argument.
    fn head(&mut self) -> Result<(u8, u64)> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        ensure!(major < 6, "CBOR with a tag, a float or a simple value");
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let width = 1u64 << (info - 24);
                let value = self.take(width)?.iter().fold(0, |a, b| a << 8 | u64::from(*b));
                let least = if width == 1 { 24 } else { 1 << (width * 4) };
                ensure!(value >= least, "CBOR integer or length not in the shortest form");
                value
            }
            _ => bail!("CBOR of indefinite length"),
        };
        Ok((major, argument))
    }

    fn item(&mut self, depth: usize) -> Result<Value> {
        let (major, n) = self.head()?;
        ensure!(major < 4 || depth < DEPTH, "CBOR nested too deeply");
        Ok(match major {
            0 => Value::Uint(n),
            1 => Value::Negative(n),
            2 => Value::Bytes(self.take(n)?.to_vec()),
            3 => Value::Text(str::from_utf8(self.take(n)?)?.to_owned()),
            4 => Value::Array((0..n).map(|_| self.item(depth + 1)).collect::<Result<_>>()?),
            _ => {
                let mut map = BTreeMap::new();
                for _ in 0..n {
                    let (0, key) = self.head()? else { bail!("CBOR map key that is no unsigned integer") };
                    let last = map.last_key_value().map(|(k, _)| *k);
                    ensure!(last.is_none_or(|last| last < key), "CBOR map keys not ascending");
                    map.insert(key, self.item(depth + 1)?);
                }
                Value::Map(map)
            }
        })
    }
}

impl Value {
    /// An unsigned integer that fits `T`.
    pub fn uint<T: TryFrom<u64>>(self) -> Result<T> {
        let Value::Uint(n) = self else { bail!("expected an unsigned integer") };
        T::try_from(n).ok().context("integer too large")
    }

    /// A signed integer.
    pub fn int(self) -> Result<i64> {
        Ok(match self {
            Value::Uint(n) => i64::try_from(n)?,
            Value::Negative(n) => -1 - i64::try_from(n)?,
            _ => bail!("expected an integer"),
        })
    }

    /// A byte string.
    pub fn bytes(self) -> Result<Vec<u8>> {
        let Value::Bytes(bytes) = self else { bail!("expected a byte string") };
        Ok(bytes)
    }

    /// A byte string of `N` bytes.
    pub fn fixed<const N: usize>(self) -> Result<[u8; N]> {
        let bytes = self.bytes()?;
        bytes.try_into().ok().with_context(|| format!("expected a byte string of {N} bytes"))
    }

    /// Byte strings of `N` bytes, one after another in one byte string.
    pub fn joined<const N: usize>(self) -> Result<Vec<[u8; N]>> {
        let bytes = self.bytes()?;
        let (parts, []) = bytes.as_chunks::<N>() else { bail!("not a multiple of {N} bytes") };
        Ok(parts.to_vec())
    }

    /// A text string.
    pub fn text(self) -> Result<String> {
        let Value::Text(text) = self else { bail!("expected a text") };
        Ok(text)
    }

    /// An array, each item converted.
    pub fn array<T>(self, item: impl Fn(Value) -> Result<T>) -> Result<Vec<T>> {
        let Value::Array(items) = self else { bail!("expected an array") };
        items.into_iter().map(item).collect()
    }

    /// An array of `N` items.
    pub fn tuple<const N: usize>(self) -> Result<[Value; N]> {
        self.array(Ok)?.try_into().ok().with_context(|| format!("expected an array of {N}"))
    }

    /// A time.
    pub fn time(self) -> Result<Time> {
        let [seconds, nanoseconds] = self.tuple()?;
        let time = (seconds.int()?, nanoseconds.uint()?);
        ensure!(time.1 < 1_000_000_000, "nanoseconds out of range");
        Ok(time)
    }

    /// A map.
    pub fn fields(self) -> Result<Fields> {
        let Value::Map(map) = self else { bail!("expected a map") };
        Ok(Fields(map))
    }
}

/// The fields of a map, taken out one by one; [`Fields::end`] looks at what is left.
pub struct Fields(BTreeMap<u64, Value>);

impl Fields {
    /// Decodes an item that must be a map.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes)?.fields()
    }

    /// A field that may be absent.
    pub fn opt(&mut self, key: u64) -> Option<Value> {
        self.0.remove(&key)
    }

    /// A field that must be there.
    pub fn need(&mut self, key: u64) -> Result<Value> {
        self.opt(key).with_context(|| format!("key {key} is missing"))
    }

    /// Refuses keys below 128 that nobody asked for (F2).
    pub fn end(self) -> Result<()> {
        match self.0.first_key_value() {
            Some((key, _)) if *key < 128 => bail!("key {key} is not known: needs a newer snap"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8], why: &str) {
        let error = decode(bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{bytes:02x?}: {error}");
    }

    #[test]
    fn accepts_the_shortest_forms() {
        assert_eq!(decode(&[0x17]).unwrap(), Value::Uint(23));
        assert_eq!(decode(&[0x18, 24]).unwrap(), Value::Uint(24));
        assert_eq!(decode(&[0x19, 1, 0]).unwrap(), Value::Uint(256));
        assert_eq!(decode(&[0x1a, 0, 1, 0, 0]).unwrap(), Value::Uint(65_536));
        assert_eq!(decode(&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]).unwrap(), Value::Uint(1 << 32));
        assert_eq!(decode(&[0x20]).unwrap().int().unwrap(), -1);
        assert_eq!(decode(&[0x82, 0x38, 99, 0x05]).unwrap().time().unwrap(), (-100, 5));
        assert_eq!(decode(&[0x62, 0xc3, 0xa4]).unwrap().text().unwrap(), "ä");
        assert_eq!(decode(&[0x44, 1, 2, 3, 4]).unwrap().joined::<2>().unwrap(), [[1, 2], [3, 4]]);
    }

    #[test]
    fn refuses_everything_else() {
        for long in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255]] {
            refused(long, "shortest");
        }
        refused(&[0x1b, 0, 0, 0, 0, 255, 255, 255, 255], "shortest");
        refused(&[0x58, 1, 0], "shortest");
        refused(&[0x5f, 0x41, 0, 0xff], "indefinite");
        refused(&[0x9f, 0xff], "indefinite");
        refused(&[0xf6], "simple");
        refused(&[0xf5], "simple");
        refused(&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], "float");
        refused(&[0xc1, 0], "tag");
        refused(&[0xa2, 1, 0, 0, 0], "ascending");
        refused(&[0xa2, 0, 0, 0, 0], "ascending");
        refused(&[0xa1, 0x20, 0], "key");
        refused(&[0xa1, 0x61, b'a', 0], "key");
        refused(&[0x00, 0x00], "after the end");
        refused(&[0x82, 0], "ends early");
        refused(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], "ends early");
        refused(&[0x62, 0xff, 0xff], "utf-8");
        assert!(decode(&[0x82, 0x00, 0x1a, 0x3b, 0x9a, 0xca, 0x00]).unwrap().time().is_err());
    }

    #[test]
    fn nesting_ends_at_sixteen() {
        let nested = |n: usize| [vec![0x81; n - 1], vec![0x80]].concat();
        assert!(decode(&nested(16)).is_ok());
        refused(&nested(17), "deeply");
    }

    #[test]
    fn unknown_keys() {
        let mut fields = Fields::decode(&[0xa2, 0x00, 0x01, 0x18, 128, 0x02]).unwrap();
        assert_eq!(fields.need(0).unwrap().uint::<u8>().unwrap(), 1);
        assert!(fields.need(1).is_err());
        fields.end().unwrap();
        let fields = Fields::decode(&[0xa1, 0x18, 127, 0x02]).unwrap();
        assert!(fields.end().unwrap_err().to_string().contains("newer snap"));
    }
}
