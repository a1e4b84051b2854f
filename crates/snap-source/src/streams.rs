//! Sources that are no file system, and the way back. A database is a set of named streams that belong together: a
//! [`StreamSource`] is read by several threads side by side, and makes one snapshot or none. What is restored into a database
//! is read from [`StoredFiles`].

use std::io::{self, Read, Write};

use snap_format::{Details, Xattr};

/// Named streams that make one snapshot.
pub trait StreamSource: Send + Sync {
    /// The absolute path of every entry, in the order in which they are to be begun; none lies below another. They are known
    /// before the first is opened.
    fn entries(&self) -> Vec<Vec<u8>>;

    /// Opens the entry of this position. Called once for each, from any thread; no more are open at a time than threads work.
    fn open(&self, entry: usize) -> io::Result<Box<dyn EntryStream>>;

    /// Called when all streams have ended well: what is known of the whole. An error means that no snapshot is made.
    fn finish(&self) -> io::Result<Details>;
}

/// The bytes of an entry, and whether they are all. An error of either kind means that no snapshot is made.
pub trait EntryStream: Read + Send {
    /// Called after the last byte: what is known of the entry, as attributes sorted by name.
    fn finish(&mut self) -> io::Result<Vec<Xattr>>;
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// What is known of it.
    pub xattrs: Vec<Xattr>,
}

/// Files of a snapshot, for a restore that asks for them in an order of its own.
pub trait StoredFiles: Sync {
    /// All files at and below an absolute path, in the order of names. Fails if nothing is there.
    fn files(&self, path: &[u8]) -> io::Result<Vec<StoredFile>>;

    /// Writes a whole file; every byte was authenticated before. May be called from several threads.
    fn read(&self, path: &[u8], out: &mut dyn Write) -> io::Result<()>;
}
