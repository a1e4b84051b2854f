//! Deterministic CBOR (RFC 8949 §4.2.1): a checker that refuses everything else (F1), and thin wrappers over
//! `minicbor` that speak in the format's own terms: maps with small integer keys, known and unknown fields (F2).

use minicbor::{Decoder, Encoder};

use crate::{FormatError, limits};

/// Keys from here up may be ignored by a reader (F2).
const FIRST_OPTIONAL_KEY: u64 = 128;

/// A field that this reader does not know: its key and its value's bytes.
pub(crate) type Unknown = (u64, Vec<u8>);

/// Writes CBOR into memory; nothing here can fail.
pub(crate) struct Enc(Encoder<Vec<u8>>);

macro_rules! infallible {
    ($call:expr) => {{
        $call.expect("writing to a vector cannot fail");
    }};
}

impl Enc {
    pub(crate) fn new() -> Self {
        Self(Encoder::new(Vec::new()))
    }

    pub(crate) fn with_buffer(buffer: Vec<u8>) -> Self {
        Self(Encoder::new(buffer))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }

    pub(crate) fn map(&mut self, fields: usize) -> &mut Self {
        infallible!(self.0.map(fields as u64));
        self
    }

    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        infallible!(self.0.array(items as u64));
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        infallible!(self.0.u64(value));
        self
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        infallible!(self.0.i64(value));
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        infallible!(self.0.bytes(value));
        self
    }

    /// A byte string of `len` bytes, which `fill` appends.
    pub(crate) fn long_bytes(&mut self, len: usize, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        infallible!(self.0.bytes_len(len as u64));
        let out = self.0.writer_mut();
        out.reserve(len);
        let end = out.len() + len;
        fill(out);
        debug_assert_eq!(out.len(), end);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        infallible!(self.0.str(value));
        self
    }

    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.0.writer_mut().extend_from_slice(value);
        self
    }
}

/// Reads CBOR that [`open`] has found to be deterministic.
pub(crate) struct Dec<'b> {
    inner: Decoder<'b>,
    what: &'static str,
}

/// Starts reading `bytes`, after checking the encoding and that exactly one item is there.
pub(crate) fn open<'b>(bytes: &'b [u8], what: &'static str) -> Result<Dec<'b>, FormatError> {
    let end = check_item(bytes, 0, 0).map_err(|why| FormatError::malformed(what, why))?;
    if end != bytes.len() {
        return Err(FormatError::malformed(what, "bytes after the end"));
    }
    Ok(Dec { inner: Decoder::new(bytes), what })
}

impl<'b> Dec<'b> {
    pub(crate) fn error(&self, why: &'static str) -> FormatError {
        FormatError::malformed(self.what, why)
    }

    fn typed<T>(&self, result: Result<T, minicbor::decode::Error>) -> Result<T, FormatError> {
        result.map_err(|_| self.error("a field has the wrong type or size"))
    }

    /// Reads a map, calling `field` for each key. `field` returns false for a key that it does not know;
    /// then the key is refused or, if it may be ignored, returned with its value.
    pub(crate) fn map(
        &mut self,
        mut field: impl FnMut(&mut Self, u64) -> Result<bool, FormatError>,
    ) -> Result<Vec<Unknown>, FormatError> {
        let count = self.typed_map()?;
        let mut unknown = Vec::new();
        for _ in 0..count {
            let key = self.uint()?;
            if field(self, key)? {
                continue;
            }
            if key < FIRST_OPTIONAL_KEY {
                return Err(FormatError::Newer { what: self.what, found: key });
            }
            unknown.push((key, self.skip()?.to_vec()));
        }
        Ok(unknown)
    }

    fn typed_map(&mut self) -> Result<u64, FormatError> {
        let count = self.inner.map();
        self.typed(count)?.ok_or_else(|| self.error("indefinite length"))
    }

    /// Reads an array of any length with `item`. Space is not reserved on the word of the input.
    pub(crate) fn array<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.array_len()?;
        if count > limits::ITEMS {
            return Err(FormatError::TooLarge { what: self.what, limit: limits::ITEMS as u64 });
        }
        let mut out = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            out.push(item(self)?);
        }
        Ok(out)
    }

    pub(crate) fn array_len(&mut self) -> Result<usize, FormatError> {
        let count = self.inner.array();
        let count = self.typed(count)?.ok_or_else(|| self.error("indefinite length"))?;
        usize::try_from(count).map_err(|_| self.error("array too long"))
    }

    pub(crate) fn fixed_array(&mut self, expected: usize) -> Result<(), FormatError> {
        if self.array_len()? == expected { Ok(()) } else { Err(self.error("array of the wrong length")) }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, FormatError> {
        let value = self.inner.u64();
        self.typed(value)
    }

    pub(crate) fn uint32(&mut self) -> Result<u32, FormatError> {
        let value = self.inner.u32();
        self.typed(value)
    }

    pub(crate) fn int(&mut self) -> Result<i64, FormatError> {
        let value = self.inner.i64();
        self.typed(value)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], FormatError> {
        let value = self.inner.bytes();
        self.typed(value)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.bytes()?.try_into().map_err(|_| self.error("byte string of the wrong length"))
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, FormatError> {
        let value = self.inner.str();
        self.typed(value)
    }

    /// Steps over one item and returns its bytes.
    pub(crate) fn skip(&mut self) -> Result<&'b [u8], FormatError> {
        let start = self.inner.position();
        let skipped = self.inner.skip();
        self.typed(skipped)?;
        Ok(&self.inner.input()[start..self.inner.position()])
    }

    /// Steps over one item, which must be a map, and returns its bytes.
    pub(crate) fn skip_map(&mut self) -> Result<&'b [u8], FormatError> {
        let item = self.skip()?;
        let is_map = item.first().is_some_and(|first| first >> 5 == 5);
        if is_map { Ok(item) } else { Err(self.error("a field that should be a map")) }
    }

    /// `value` or the complaint that a mandatory field is missing.
    pub(crate) fn required<T>(&self, value: Option<T>) -> Result<T, FormatError> {
        value.ok_or_else(|| self.error("a mandatory field is missing"))
    }
}

/// Checks one item at `at`; returns where it ends.
fn check_item(bytes: &[u8], at: usize, depth: usize) -> Result<usize, &'static str> {
    if depth > limits::CBOR_DEPTH {
        return Err("nested too deeply");
    }
    let (major, value, mut at) = read_head(bytes, at)?;
    match major {
        0 | 1 => Ok(at),
        2 | 3 => {
            let end = usize::try_from(value)
                .ok()
                .and_then(|length| at.checked_add(length))
                .filter(|end| *end <= bytes.len())
                .ok_or("a string runs past the end")?;
            if major == 3 && std::str::from_utf8(&bytes[at..end]).is_err() {
                return Err("text that is not UTF-8");
            }
            Ok(end)
        }
        4 => {
            for _ in 0..value {
                at = check_item(bytes, at, depth + 1)?;
            }
            Ok(at)
        }
        5 => {
            let mut last = None;
            for _ in 0..value {
                let (key_major, key, after) = read_head(bytes, at)?;
                if key_major != 0 {
                    return Err("a map key that is not an unsigned integer");
                }
                if last.is_some_and(|last| key <= last) {
                    return Err("map keys out of order");
                }
                last = Some(key);
                at = check_item(bytes, after, depth + 1)?;
            }
            Ok(at)
        }
        _ => Err("a tag, float or simple value"),
    }
}

/// Reads the head of an item: major type, argument, position after it. Only shortest forms pass.
fn read_head(bytes: &[u8], at: usize) -> Result<(u8, u64, usize), &'static str> {
    let first = *bytes.get(at).ok_or("ends early")?;
    let (major, info) = (first >> 5, first & 0x1f);
    let width = match info {
        0..=23 => return Ok((major, u64::from(info), at + 1)),
        24..=27 => 1usize << (info - 24),
        _ => return Err("indefinite or reserved length"),
    };
    let tail = bytes.get(at + 1..at + 1 + width).ok_or("ends early")?;
    let value = tail.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let shortest = match width {
        1 => value >= 24,
        2 => value > 0xff,
        4 => value > 0xffff,
        _ => value > 0xffff_ffff,
    };
    if shortest {
        Ok((major, value, at + 1 + width))
    } else {
        Err("an integer that is not in its shortest form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bytes: &[u8]) -> Result<(), FormatError> {
        open(bytes, "test").map(|_| ())
    }

    #[test]
    fn what_is_not_deterministic_is_refused() {
        for (bytes, why) in [
            (&[0x18, 0x17][..], "an integer that is not in its shortest form"),
            (&[0x19, 0x00, 0xff], "an integer that is not in its shortest form"),
            (&[0x5f, 0xff], "indefinite or reserved length"),
            (&[0xa2, 0x01, 0x00, 0x00, 0x00], "map keys out of order"),
            (&[0xa2, 0x01, 0x00, 0x01, 0x00], "map keys out of order"),
            (&[0xa1, 0x20, 0x00], "a map key that is not an unsigned integer"),
            (&[0xf6], "a tag, float or simple value"),
            (&[0xc0, 0x00], "a tag, float or simple value"),
            (&[0x61, 0xff], "text that is not UTF-8"),
            (&[0x42, 0x00], "a string runs past the end"),
            (&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "a string runs past the end"),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "ends early"),
            (&[0x00, 0x00], "bytes after the end"),
            (&[], "ends early"),
            (&[0x81; 40], "nested too deeply"),
        ] {
            assert_eq!(verdict(bytes), Err(FormatError::malformed("test", why)), "{bytes:02x?}");
        }
        assert_eq!(verdict(&[0xa2, 0x00, 0x18, 0x18, 0x18, 0x80, 0x61, 0x61]), Ok(()));
    }

    #[test]
    fn unknown_low_keys_stop_and_high_keys_pass() {
        let read = |bytes: &[u8]| open(bytes, "test").and_then(|mut dec| dec.map(|_, _| Ok(false)));
        assert_eq!(read(&[0xa1, 0x05, 0x00]), Err(FormatError::Newer { what: "test", found: 5 }));
        assert_eq!(read(&[0xa1, 0x18, 0x80, 0x41, 0x07]), Ok(vec![(128, vec![0x41, 0x07])]));
    }
}
