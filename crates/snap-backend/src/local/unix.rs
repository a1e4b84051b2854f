//! The system calls of [`LocalBackend`](super::LocalBackend), relative to open directories and without
//! following a symbolic link below the root.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::{self, Errno, retry_on_intr};

#[cfg(test)]
use super::journal::{self, Event};
use super::segments;
use crate::Timestamp;

/// Tells the tests what happened, in order; nothing otherwise.
macro_rules! note {
    ($event:expr) => {
        #[cfg(test)]
        journal::note($event);
    };
}

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Bytes from which on an object leaves the page cache when it is written.
const LARGE: usize = 4 << 20;

/// An open directory.
pub(super) struct Dir(OwnedFd);

/// An open object.
pub(super) struct File(OwnedFd);

/// What is asked of an inode.
pub(super) struct Stat {
    pub is_file: bool,
    pub is_dir: bool,
    pub size_bytes: u64,
    pub modified: Timestamp,
}

/// How a file came to its name.
pub(super) enum Placed {
    Created,
    Existed,
}

pub(super) struct Entry {
    pub name: OsString,
    pub kind: EntryType,
}

#[derive(Clone, Copy)]
pub(super) enum EntryType {
    File,
    Directory,
    Unknown,
    Other,
}

impl Stat {
    fn new(stat: &fs::Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        Self {
            is_file: kind == FileType::RegularFile,
            is_dir: kind == FileType::Directory,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Timestamp {
                unix_seconds: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        }
    }
}

impl Dir {
    /// Opens a root; it may be a symbolic link itself.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        retry_on_intr(|| fs::open(path, DIR_FLAGS, Mode::empty())).map(Self)
    }

    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self, Errno> {
        let name = name.as_ref();
        retry_on_intr(|| fs::openat(&self.0, name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty())).map(Self)
    }

    /// Opens a directory some levels down; `""` is this one.
    pub fn descend(&self, path: &str) -> Result<Self, Errno> {
        segments(path).try_fold(self.duplicate()?, |dir, segment| dir.open_dir(segment))
    }

    pub fn duplicate(&self) -> Result<Self, Errno> {
        io::fcntl_dupfd_cloexec(&self.0, 0).map(Self)
    }

    pub fn open_file(&self, name: &str) -> Result<(File, Stat), Errno> {
        // Without NONBLOCK, opening a pipe that somebody put there would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = retry_on_intr(|| fs::openat(&self.0, name, flags, Mode::empty()))?;
        let stat = Stat::new(&fs::fstat(&file)?);
        if stat.is_file { Ok((File(file), stat)) } else { Err(Errno::ISDIR) }
    }

    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Stat, Errno> {
        let name = name.as_ref();
        fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Stat::new(&stat))
    }

    /// Makes a directory; false if it was there.
    pub fn make_dir(&self, name: &str) -> Result<bool, Errno> {
        match fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => {
                note!(Event::Named { dir: journal::id(&self.0), name: name.to_owned(), file: None });
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Makes names placed in this directory survive a power failure.
    pub fn sync(&self) -> Result<(), Errno> {
        note!(Event::SyncedDir(journal::id(&self.0)));
        match retry_on_intr(|| fs::fsync(&self.0)) {
            // Some network file systems cannot sync a directory, and have nothing to sync.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => Ok(()),
            other => other,
        }
    }

    /// Removes a file; false if there was none.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<bool, Errno> {
        match fs::unlinkat(&self.0, name.as_ref(), AtFlags::empty()) {
            Ok(()) => {
                note!(Event::Removed(journal::id(&self.0)));
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    pub fn entries(&self) -> Result<impl Iterator<Item = Result<Entry, Errno>>, Errno> {
        let entries = fs::Dir::read_from(&self.0)?;
        Ok(entries.filter(|entry| !entry.as_ref().is_ok_and(is_dots)).map(|entry| {
            let entry = entry?;
            let kind = match entry.file_type() {
                FileType::RegularFile => EntryType::File,
                FileType::Directory => EntryType::Directory,
                FileType::Unknown => EntryType::Unknown,
                _ => EntryType::Other,
            };
            Ok(Entry { name: OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(), kind })
        }))
    }

    /// A new file under a name that nobody else uses; it goes away unless it is placed.
    pub fn create_temporary(&self) -> Result<Temporary<'_>, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let mut random = [0; 12];
            getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
            let name = format!("{}-{:x}", std::process::id(), Hex(&random));
            match retry_on_intr(|| fs::openat(&self.0, &name, flags, Mode::RUSR | Mode::WUSR)) {
                Ok(file) => return Ok(Temporary { dir: self, name, file, gone: false.into() }),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn is_dots(entry: &fs::DirEntry) -> bool {
    matches!(entry.file_name().to_bytes(), b"." | b"..")
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl File {
    /// Appends up to `want` bytes to `body`, fewer only at the end of the file.
    pub fn read_exact_at(&self, body: &mut Vec<u8>, offset: u64, want: usize) -> Result<(), Errno> {
        while body.len() < want {
            let at = offset + body.len() as u64;
            if retry_on_intr(|| io::pread(&self.0, spare_capacity(body), at))? == 0 {
                break;
            }
        }
        // The allocator may have given more than was asked for.
        body.truncate(want);
        Ok(())
    }

    /// Fills `buffer`, and says how much there was.
    pub fn read_into(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            match retry_on_intr(|| io::pread(&self.0, &mut *rest, offset + filled as u64))? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }
}

/// A file that has no name of its own yet.
pub(super) struct Temporary<'a> {
    dir: &'a Dir,
    name: String,
    file: OwnedFd,
    gone: std::cell::Cell<bool>,
}

impl Temporary<'_> {
    /// Writes the whole body and syncs it.
    pub fn write(&self, mut body: &[u8]) -> Result<(), Errno> {
        let length = body.len();
        while !body.is_empty() {
            match retry_on_intr(|| io::write(&self.file, body))? {
                0 => return Err(Errno::IO),
                written => body = &body[written..],
            }
        }
        retry_on_intr(|| fs::fsync(&self.file))?;
        note!(Event::SyncedFile(journal::id(&self.file)));
        // Nobody reads a pack soon: its pages are used for the next one, which is faster than taking new ones, and what others
        // need stays in memory.
        if length >= LARGE {
            let _ = fs::fadvise(&self.file, 0, None, fs::Advice::DontNeed);
        }
        Ok(())
    }

    pub fn modified(&self) -> Result<Timestamp, Errno> {
        fs::fstat(&self.file).map(|stat| Stat::new(&stat).modified)
    }

    /// Gives the file its name, unless that is taken.
    pub fn place(&self, target: &Dir, leaf: &str) -> Result<Placed, Errno> {
        match self.place_by_rename(target, leaf) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return other,
        }
        match fs::linkat(&self.dir.0, &self.name, &target.0, leaf, AtFlags::empty()) {
            Ok(()) => {
                note!(self.named(target, leaf));
                return Ok(Placed::Created);
            }
            Err(Errno::EXIST) => return Ok(Placed::Existed),
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {}
            Err(errno) => return Err(errno),
        }
        // Neither is there (FAT, some FUSE file systems). Two writers that pass this check together
        // write the same bytes, since such names are hashes of the content.
        if target.stat(leaf).is_ok() {
            return Ok(Placed::Existed);
        }
        fs::renameat(&self.dir.0, &self.name, &target.0, leaf)?;
        note!(self.named(target, leaf));
        self.gone.set(true);
        Ok(Placed::Created)
    }

    #[cfg(test)]
    fn named(&self, target: &Dir, leaf: &str) -> Event {
        let (dir, file) = (journal::id(&target.0), Some(journal::id(&self.file)));
        Event::Named { dir, name: leaf.to_owned(), file }
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn place_by_rename(&self, target: &Dir, leaf: &str) -> Result<Placed, Errno> {
        match fs::renameat_with(&self.dir.0, &self.name, &target.0, leaf, fs::RenameFlags::NOREPLACE) {
            Ok(()) => {
                note!(self.named(target, leaf));
                self.gone.set(true);
                Ok(Placed::Created)
            }
            Err(Errno::EXIST) => Ok(Placed::Existed),
            Err(errno) => Err(errno),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn place_by_rename(&self, _: &Dir, _: &str) -> Result<Placed, Errno> {
        Err(Errno::NOSYS)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.gone.get() {
            // What cannot be removed now is swept later.
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// Makes `path` and its missing ancestors, each synced into its parent.
pub(super) fn create_directories(path: &Path) -> Result<(), Errno> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir = match Dir::open(parent) {
        Err(Errno::NOENT) => {
            create_directories(parent)?;
            Dir::open(parent)?
        }
        other => other?,
    };
    match fs::mkdir(path, Mode::RWXU) {
        Ok(()) => {
            note!(Event::Named { dir: journal::id(&dir.0), name: path.display().to_string(), file: None });
        }
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    dir.sync()
}
