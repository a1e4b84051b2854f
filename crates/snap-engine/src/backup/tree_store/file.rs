//! One file of trees: the trees one after the other as they were written, a table of their places, a footer.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use snap_crypto::hash;
use snap_format::{BlobId, RepoId, limits};

use super::places::{ENTRY, Place, Places, Table};

const MAGIC: &[u8; 8] = b"SNAPTREF";
/// Magic, entries of the table, checksum.
const FOOTER: usize = 8 + 8 + 32;
/// What is not finished has a name that begins like this.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Name of a file: drawn at random, so that two processes never mean the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileName(pub(crate) [u8; 16]);

impl FileName {
    fn random() -> io::Result<Self> {
        snap_crypto::random().map(Self).map_err(io::Error::other)
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// A file that is gone when it is closed, however the process ends.
pub(crate) fn create_nameless(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("{TEMPORARY}{}", FileName::random()?.text()));
    let file = create_private(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Puts a small file in the place of another as a whole.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(dir, FileName::random()?);
    let outcome = create_private(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, dir.join(name)));
    if outcome.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    outcome
}

/// Bound to the repository: a file that was copied from the cache of another is none.
fn footer(repository: &RepoId, count: u64, data_len: u64) -> [u8; FOOTER] {
    let mut footer = [0; FOOTER];
    footer[..8].copy_from_slice(MAGIC);
    footer[8..16].copy_from_slice(&count.to_le_bytes());
    let said = [repository.0.as_slice(), &footer[..16], &data_len.to_le_bytes()].concat();
    footer[16..].copy_from_slice(&hash(&said));
    footer
}

/// Reads a tree; `None` if the place cannot be one.
pub(crate) fn read_place(file: &File, place: Place) -> Option<Vec<u8>> {
    let length = place.length as usize;
    let mut plain = vec![0; Some(length).filter(|length| *length <= limits::BLOB_PLAIN)?];
    file.read_exact_at(&mut plain, place.offset).ok()?;
    Some(plain)
}

/// A finished file.
#[derive(Debug)]
pub(crate) struct TreeFile {
    pub(crate) name: FileName,
    pub(crate) file: File,
    pub(crate) table: Table,
    /// Its whole length, bytes.
    pub(crate) size: u64,
}

impl TreeFile {
    /// Opens a file that should be `size` bytes long; `None` if it is not whole or of another repository.
    pub(crate) fn open(dir: &Path, name: FileName, size: u64, repository: &RepoId) -> Option<Self> {
        let file = File::open(dir.join(name.text())).ok()?;
        let footer_at = size.checked_sub(FOOTER as u64)?;
        if file.metadata().ok()?.len() != size {
            return None;
        }
        let mut found = [0; FOOTER];
        file.read_exact_at(&mut found, footer_at).ok()?;
        let count = u64::from_le_bytes(*found[8..].first_chunk()?);
        let data_len = footer_at.checked_sub(count.checked_mul(ENTRY as u64)?)?;
        (found == footer(repository, count, data_len)).then_some(Self {
            name,
            file,
            table: Table { offset: data_len, count },
            size,
        })
    }

    /// Bytes of its trees, which stand at its beginning.
    pub(crate) fn data_len(&self) -> u64 {
        self.table.offset
    }
}

/// A file in the making. Until it is finished it has a temporary name, and is locked: what has such a name and is not locked
/// was left by a process that died.
pub(crate) struct TreeFileWriter {
    dir: PathBuf,
    repository: RepoId,
    name: FileName,
    out: Option<BufWriter<File>>,
    at: u64,
    places: Places,
}

impl TreeFileWriter {
    pub(crate) fn create(dir: &Path, repository: RepoId) -> io::Result<Self> {
        super::make_dir(dir)?;
        let name = FileName::random()?;
        let file = create_private(&temporary_path(dir, name))?;
        // Where there are no locks nothing is cleaned up either.
        let _ = file.try_lock();
        let out = Some(BufWriter::with_capacity(64 << 10, file));
        Ok(Self { dir: dir.to_owned(), repository, name, out, at: 0, places: Places::new() })
    }

    fn out(&mut self) -> &mut BufWriter<File> {
        self.out.as_mut().expect("it is there until the file is finished")
    }

    /// Whether the tree was written, as far as is remembered.
    pub(crate) fn has_lately(&self, id: &BlobId) -> bool {
        self.places.has_lately(id)
    }

    pub(crate) fn add(&mut self, id: BlobId, plain: &[u8]) -> io::Result<()> {
        let length = u32::try_from(plain.len()).map_err(io::Error::other)?;
        self.out().write_all(plain)?;
        self.places.note(id, Place { offset: self.at, length }, &self.dir)?;
        self.at += u64::from(length);
        Ok(())
    }

    /// Takes all trees of a finished file, as they are.
    pub(crate) fn append(&mut self, other: &TreeFile) -> io::Result<()> {
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < other.data_len() {
            let length = (other.data_len() - at).min(piece.len() as u64) as usize;
            other.file.read_exact_at(&mut piece[..length], at)?;
            self.out().write_all(&piece[..length])?;
            at += length as u64;
        }
        let Self { places, dir, at, .. } = self;
        other.table.for_each(&other.file, |id, place| {
            let offset = at.checked_add(place.offset).ok_or(io::ErrorKind::InvalidData)?;
            places.note(id, Place { offset, ..place }, dir)
        })?;
        self.at += other.data_len();
        Ok(())
    }

    /// Writes table and footer, and gives the file its name. It stays locked until it is dropped.
    pub(crate) fn finish(mut self) -> io::Result<TreeFile> {
        let (data_len, repository) = (self.at, self.repository);
        let places = std::mem::replace(&mut self.places, Places::new());
        let count = places.write(self.out())?;
        self.out().write_all(&footer(&repository, count, data_len))?;
        self.out().flush()?;
        let path = temporary_path(&self.dir, self.name);
        std::fs::rename(&path, self.dir.join(self.name.text()))?;
        let out = self.out.take().expect("it is finished once");
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let size = data_len + count * ENTRY as u64 + FOOTER as u64;
        Ok(TreeFile { name: self.name, file, table: Table { offset: data_len, count }, size })
    }
}

impl Drop for TreeFileWriter {
    fn drop(&mut self) {
        if self.out.is_some() {
            let _ = std::fs::remove_file(temporary_path(&self.dir, self.name));
        }
    }
}

fn temporary_path(dir: &Path, name: FileName) -> PathBuf {
    dir.join(format!("{TEMPORARY}{}", name.text()))
}
