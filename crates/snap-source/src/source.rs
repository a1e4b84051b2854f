use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snap_format::Xattr;

use crate::linux::dir::{DirHandle, EntryResult};
use crate::linux::xattr::Carrier;
use crate::linux::{self, file, path, proc_path};
use crate::stat::{FileType, Stat};

/// An open directory of a source. Clones share the handle.
#[derive(Debug, Clone)]
pub struct SourceDir {
    pub(crate) handle: Arc<DirHandle>,
}

/// What a path that the user named turned out to be, after following the links in it.
#[derive(Debug)]
pub enum Located {
    /// A directory.
    Dir(SourceDir),
    /// Anything else: by its directory, its name there, and what it is.
    Entry {
        /// The directory; it can be searched, and perhaps not listed.
        dir: SourceDir,
        /// The component in `dir`.
        name: Vec<u8>,
        /// Never a symlink or a directory.
        stat: Stat,
    },
}

/// As the kernel: more links than this in a row are a loop.
const MAX_LINKS: usize = 40;

impl SourceDir {
    /// Opens a source root. Symlinks in `path`, the last component included, are followed, and it may be of
    /// any length; below the root no link is.
    pub fn open(path: &Path) -> io::Result<Self> {
        path::open_directory(path).map(Self::new)
    }

    /// Opens a directory only to describe and to search it, which needs less permission: [`Self::stat`],
    /// [`Self::xattrs`] and everything by name work, [`Self::entries`] does not.
    pub fn open_search(path: &Path) -> io::Result<Self> {
        path::open_search(path).map(Self::new)
    }

    /// Follows `path` to what it names.
    pub fn locate(path: &Path) -> io::Result<Located> {
        let mut path = PathBuf::from(path);
        for _ in 0..MAX_LINKS {
            // A path that ends in `..`, `.` or the root is a directory.
            let Some(name) = path.file_name().filter(|_| !ends_in_dot(&path)) else {
                return Self::open(&path).map(Located::Dir);
            };
            let name = name.as_bytes().to_vec();
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let dir = Self::open_search(parent.unwrap_or(Path::new(".")))?;
            let stat = dir.stat_child(&name)?;
            match stat.kind {
                FileType::Dir => return Self::open(&path).map(Located::Dir),
                FileType::Symlink => {
                    let target = dir.read_link(&name)?;
                    path.pop();
                    path.push(std::ffi::OsStr::from_bytes(&target));
                }
                _ => return Ok(Located::Entry { dir, name, stat }),
            }
        }
        Err(rustix::io::Errno::LOOP.into())
    }

    fn new(fd: OwnedFd) -> Self {
        Self { handle: Arc::new(DirHandle::new(fd)) }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Opens a directory in this one; a symlink is refused.
    pub fn open_child(&self, name: &[u8]) -> io::Result<Self> {
        linux::open_dir(self.fd(), linux::component(name)?).map(Self::new)
    }

    /// What this directory is.
    pub fn stat(&self) -> io::Result<Stat> {
        linux::stat_fd(self.fd())
    }

    /// All entries, sorted bytewise by name, `.` and `..` left out; one system call an entry. An entry that
    /// cannot be looked at comes as its name and the error, which is "not found" if it has just vanished.
    pub fn entries(&self) -> io::Result<Vec<EntryResult>> {
        self.handle.entries()
    }

    /// Names and types of all entries, sorted bytewise by name, `.` and `..` left out: what the directory itself says, as a
    /// rule without looking at the entries.
    pub fn types(&self) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        self.handle.types()
    }

    /// What the entry is; a symlink is not followed.
    pub fn stat_child(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(linux::stat_at(self.fd(), linux::component(name)?)?)
    }

    /// Opens a regular file. Anything else that took its place fails, at once, as [`was_replaced`].
    ///
    /// [`was_replaced`]: crate::was_replaced
    pub fn open_file(&self, name: &[u8]) -> io::Result<SourceFile> {
        let (fd, opened) = file::open_for_reading(self.fd(), linux::component(name)?)?;
        Ok(SourceFile { fd, opened })
    }

    /// The target of a symlink, as raw bytes.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self.fd(), linux::component(name)?, Vec::new())?.into_bytes())
    }

    /// Extended attributes of this directory, sorted by name, ACLs among them.
    pub fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        match Carrier::Fd(self.fd()).read_all() {
            // A handle from `open_search`.
            Err(error) if linux::has_code(&error, rustix::io::Errno::BADF) => {
                if linux::has_proc() {
                    Carrier::Behind(proc_path(self.fd())).read_all()
                } else {
                    Carrier::Fd(linux::open_dir(self.fd(), b".")?.as_fd()).read_all()
                }
            }
            done => done,
        }
    }

    /// Extended attributes of an entry of any type, sorted by name; of a symlink, its own. Where there is
    /// no `/proc`, those of files and directories alone; others are [`io::ErrorKind::Unsupported`].
    pub fn xattrs_child(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        let name = linux::component(name)?;
        if linux::has_proc() {
            return Carrier::Itself([&proc_path(self.fd())[..], b"/", name].concat()).read_all();
        }
        match self.stat_child(name)?.kind {
            FileType::File => self.open_file(name)?.xattrs(),
            FileType::Dir => self.open_child(name)?.xattrs(),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "out of reach without /proc")),
        }
    }
}

fn ends_in_dot(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

/// Which pieces of a file were in the page cache: someone's working set, which should survive being read.
#[derive(Debug)]
pub struct Residency {
    /// Bytes of a piece.
    piece: u64,
    cached: Vec<bool>,
}

impl Residency {
    const SMALLEST_PIECE: u64 = 1 << 20;
    const MOST_PIECES: u64 = 1 << 16;
}

/// An open regular file of a source.
#[derive(Debug)]
pub struct SourceFile {
    fd: OwnedFd,
    opened: Stat,
}

impl SourceFile {
    /// What the file was when it was opened.
    pub fn opened_stat(&self) -> &Stat {
        &self.opened
    }

    /// What the file is now; compare with [`Self::opened_stat`] to see whether it changed while it was read.
    pub fn stat(&self) -> io::Result<Stat> {
        linux::stat_fd(&self.fd)
    }

    /// Fills `buffer` from `offset` on. Fewer bytes come only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file::read_at(self.fd.as_fd(), buffer, offset)
    }

    /// As [`Self::read_at`]; the second number says how many of the bytes, from the first on, were in the page cache before.
    /// The others were nobody's working set, and may go with [`Self::drop_cache`]. For small files: of a large one the kernel
    /// reads on by itself. Where the file system cannot tell, all of them were.
    pub fn read_at_noting_cache(&self, buffer: &mut [u8], offset: u64) -> io::Result<(usize, usize)> {
        file::read_at_noting_cache(self.fd.as_fd(), buffer, offset)
    }

    /// Extended attributes, sorted by name.
    pub fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Carrier::Fd(self.fd.as_fd()).read_all()
    }

    /// Where the first `size` bytes hold data, as (offset, length), ascending; the rest are holes. At most
    /// `max` segments: the last one reaches to `size` if there are more. Worth asking when
    /// [`Stat::may_have_holes`].
    pub fn data_extents(&self, size: u64, max: usize) -> io::Result<Vec<(u64, u64)>> {
        file::data_extents(self.fd.as_fd(), size, max)
    }

    /// Tells the kernel that the file is about to be read from front to back.
    pub fn advise_sequential(&self) {
        file::advise_sequential(self.fd.as_fd());
    }

    /// What of the first `size` bytes is in the page cache: one byte of each piece is asked for. To be called before reading.
    pub fn residency(&self, size: u64) -> Residency {
        file::advise_random(self.fd.as_fd());
        let piece = (size / Residency::MOST_PIECES).next_power_of_two().max(Residency::SMALLEST_PIECE);
        let pieces = usize::try_from(size.div_ceil(piece)).unwrap_or(0);
        Residency { piece, cached: (0..pieces).map(|number| self.is_cached(number as u64 * piece)).collect() }
    }

    /// Lets the kernel forget those pieces of what was read from `offset` on that were not in the page cache `before`.
    pub fn drop_what_came(&self, before: &Residency, offset: u64, length: u64) {
        let (piece, end) = (before.piece, offset + length);
        for number in offset / piece..end.div_ceil(piece) {
            // From its start, since a page, or several together, go only as a whole.
            let (start, stop) = (number * piece, end.min((number + 1) * piece));
            if before.cached.get(number as usize) == Some(&false) {
                self.drop_cache(start, stop - start);
            }
        }
    }

    /// Whether the byte at `offset` is in the page cache. If not, the kernel may begin to read there.
    pub fn is_cached(&self, offset: u64) -> bool {
        file::is_cached(self.fd.as_fd(), offset)
    }

    /// Lets the kernel forget pages that were read.
    pub fn drop_cache(&self, offset: u64, length: u64) {
        file::drop_cache(self.fd.as_fd(), offset, length);
    }
}
