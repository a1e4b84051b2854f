//! What all kinds of databases share: bytes that are there already, and what is known of a stream.

use std::io::{self, Cursor, Read};

use snap_crypto::Hasher;
use snap_format::Xattr;
use snap_source::EntryStream;

/// Attribute of a stream: how many rows it has.
pub const ROWS: &str = "user.snap.rows";
/// Attribute of a stream: BLAKE3 of its bytes, 64 hexadecimal digits.
pub const CHECKSUM: &str = "user.snap.blake3";

pub(crate) fn attribute(name: &str, value: String) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.into_bytes() }
}

/// [`CHECKSUM`], of all that was hashed.
pub(crate) fn checksum(hasher: &Hasher) -> Xattr {
    let hex = hasher.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    attribute(CHECKSUM, hex)
}

/// Bytes that are there.
pub(crate) struct BytesStream(Cursor<Vec<u8>>);

impl BytesStream {
    pub(crate) fn boxed(bytes: Vec<u8>) -> Box<dyn EntryStream> {
        Box::new(Self(Cursor::new(bytes)))
    }
}

impl Read for BytesStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl EntryStream for BytesStream {
    fn finish(&mut self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }
}
