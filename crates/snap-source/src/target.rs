use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, mknodat, renameat, symlinkat};
use rustix::io::Errno;
use snap_format::{Node, NodeKind, Time};

use crate::apply::{ApplyNote, ApplyOptions};
use crate::linux::apply::{Subject, apply, grant_owner};
use crate::linux::dir::{DirHandle, EntryResult};
use crate::linux::remove::{remove, survey};
use crate::linux::xattr::Carrier;
use crate::linux::{self, component, file, has_code, path};
use crate::selection::Doomed;
use crate::source::SourceDir;
use crate::stat::{FileType, Stat};

/// An open directory of a target. Clones share the handle. Every name is a single component, and no
/// symlink is followed: nothing leaves the target, whatever stands in it.
#[derive(Debug, Clone)]
pub struct TargetDir {
    handle: Arc<DirHandle>,
}

impl TargetDir {
    /// Opens the directory that the user named, links followed, or makes it and its missing parents with
    /// `mode` less the umask. The flag: it was made.
    pub fn open_or_create(path: &Path, mode: u32) -> io::Result<(Self, bool)> {
        path::open_or_create(path, mode).map(|(fd, created)| (Self::new(fd), created))
    }

    fn new(fd: OwnedFd) -> Self {
        Self { handle: Arc::new(DirHandle::new(fd)) }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// The same directory as something to read from.
    pub fn as_source(&self) -> SourceDir {
        SourceDir { handle: Arc::clone(&self.handle) }
    }

    /// Opens a directory in this one; a symlink is refused.
    pub fn open_child(&self, name: &[u8]) -> io::Result<Self> {
        linux::open_dir(self.fd(), component(name)?).map(Self::new)
    }

    /// Opens a directory in this one, made with mode 0700 if nothing was there. The flag: it was made. If
    /// something else stands there, a symlink to a directory included, the error is
    /// [`io::ErrorKind::NotADirectory`].
    pub fn make_child(&self, name: &[u8]) -> io::Result<(Self, bool)> {
        let created = match mkdirat(self.fd(), component(name)?, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        match self.open_child(name) {
            Err(error) if has_code(&error, Errno::LOOP) => Err(Errno::NOTDIR.into()),
            done => done.map(|dir| (dir, created)),
        }
    }

    /// What this directory is.
    pub fn stat(&self) -> io::Result<Stat> {
        linux::stat_fd(self.fd())
    }

    /// As [`SourceDir::entries`].
    pub fn entries(&self) -> io::Result<Vec<EntryResult>> {
        self.handle.entries()
    }

    /// What stands under that name, if anything; a symlink is not followed.
    pub fn stat_child(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match linux::stat_at(self.fd(), component(name)?) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a new, empty file with mode 0600; [`io::ErrorKind::AlreadyExists`] if the name is taken.
    pub fn create_file(&self, name: &[u8]) -> io::Result<TargetFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        linux::open_at(self.fd(), component(name)?, flags, 0o600).map(|fd| TargetFile { fd })
    }

    /// Opens a regular file for reading and writing in place. A file with other names is refused with
    /// [`io::ErrorKind::InvalidInput`]: what is written here would show there.
    pub fn open_existing(&self, name: &[u8]) -> io::Result<TargetFile> {
        let file = self.open_existing_linked(name)?;
        if file.stat()?.links > 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file has other names"));
        }
        Ok(file)
    }

    /// As [`Self::open_existing`], other names or not.
    pub fn open_existing_linked(&self, name: &[u8]) -> io::Result<TargetFile> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let name = component(name)?;
        let fd = match linux::open_at(self.fd(), name, flags, 0) {
            // Read-only, and ours: the mode is set anew when the content is there.
            Err(error) if has_code(&error, Errno::ACCESS) && grant_owner(self.fd(), name)?.is_some() => {
                linux::open_at(self.fd(), name, flags, 0)?
            }
            done => done?,
        };
        let file = TargetFile { fd };
        if file.stat()?.kind == FileType::File { Ok(file) } else { Err(linux::replaced()) }
    }

    /// Lets an ordinary user into an entry of his own that denies it to him, as restored read-only
    /// directories do; gives the mode that was there, if it had to be changed. For root there is no need.
    pub fn grant_owner(&self, name: &[u8]) -> io::Result<Option<u32>> {
        grant_owner(self.fd(), component(name)?)
    }

    /// Makes a symlink.
    pub fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(symlinkat(target, self.fd(), component(name)?)?)
    }

    /// Makes a pipe or a device node, mode 0600; other nodes are invalid input.
    pub fn mknod(&self, name: &[u8], node: &Node) -> io::Result<()> {
        use rustix::fs::{FileType as Raw, makedev};
        let (kind, device) = match node.kind {
            NodeKind::Fifo => (Raw::Fifo, 0),
            NodeKind::CharDevice { major, minor } => (Raw::CharacterDevice, makedev(major, minor)),
            NodeKind::BlockDevice { major, minor } => (Raw::BlockDevice, makedev(major, minor)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a pipe nor a device")),
        };
        Ok(mknodat(self.fd(), component(name)?, kind, Mode::from_raw_mode(0o600), device)?)
    }

    /// Gives an entry of this directory another name.
    pub fn link(&self, existing: &[u8], into: &Self, name: &[u8]) -> io::Result<()> {
        Ok(linkat(self.fd(), component(existing)?, into.fd(), component(name)?, AtFlags::empty())?)
    }

    /// Removes an entry and everything below it. Symlinks are removed, not followed, and a mount point on
    /// the way stops it with [`io::ErrorKind::CrossesDevices`], what was before it being gone.
    pub fn remove(&self, name: &[u8]) -> io::Result<()> {
        remove(self.fd(), component(name)?)
    }

    /// What [`Self::remove`] would take, modified later than `since` or not. What would stop it is an error here already, and
    /// so is [`io::ErrorKind::ResourceBusy`] what holds one of the inodes that are `protected`, as device and number.
    pub fn survey_removal(
        &self,
        name: &[u8],
        since: Time,
        protected: &HashSet<(u64, u64)>,
    ) -> io::Result<Doomed> {
        survey(self.fd(), component(name)?, since, protected)
    }

    /// Marks this directory as one that is being restored into from `what`, where the file system can, until
    /// [`Self::set_finished`].
    pub fn set_unfinished(&self, what: &[u8]) {
        let _ = Carrier::Fd(self.fd()).set(UNFINISHED, what);
    }

    /// Takes the mark away.
    pub fn set_finished(&self) {
        let _ = Carrier::Fd(self.fd()).remove(UNFINISHED);
    }

    /// Whether it has the mark: a restore from `what` was broken off.
    pub fn is_unfinished(&self, what: &[u8]) -> bool {
        unfinished(&Carrier::Fd(self.fd())).is_some_and(|mark| mark == what)
    }

    /// Moves an entry, in place of what has the new name.
    pub fn rename(&self, from: &[u8], into: &Self, to: &[u8]) -> io::Result<()> {
        Ok(renameat(self.fd(), component(from)?, into.fd(), component(to)?)?)
    }

    /// Gives an entry of any type the owner, attributes, mode and time of `node`. What could not be set
    /// is returned.
    #[must_use = "what could not be set has to be told"]
    pub fn apply_child(&self, name: &[u8], node: &Node, options: &ApplyOptions) -> Vec<ApplyNote> {
        match component(name).and_then(|name| Subject::child(self.fd(), name)) {
            Ok(subject) => apply(&subject, node, options),
            Err(error) => vec![ApplyNote { what: "status".into(), error }],
        }
    }

    /// As [`Self::apply_child`] for this directory; after its entries, which change its time.
    #[must_use = "what could not be set has to be told"]
    pub fn apply_self(&self, node: &Node, options: &ApplyOptions) -> Vec<ApplyNote> {
        apply(&Subject::Open(self.fd()), node, options)
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.fd())?)
    }
}

/// The attribute of what a restore has begun and not finished.
const UNFINISHED: &[u8] = b"user.snap.unfinished";

/// From what a restore has begun with it and not finished.
pub(crate) fn unfinished(carrier: &Carrier<'_>) -> Option<Vec<u8>> {
    carrier.value(UNFINISHED, &mut Vec::new()).ok().flatten()
}

/// A regular file of a target, open for reading and writing.
#[derive(Debug)]
pub struct TargetFile {
    fd: OwnedFd,
}

impl TargetFile {
    /// What the file is now.
    pub fn stat(&self) -> io::Result<Stat> {
        linux::stat_fd(&self.fd)
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        file::write_at(self.fd.as_fd(), bytes, offset)
    }

    /// As [`Self::write_at`], for large files, which need not stay in the page cache: memory that it takes for the first time
    /// costs more than the writing.
    pub fn write_at_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        file::write_at_uncached(self.fd.as_fd(), bytes, offset)
    }

    /// As [`crate::SourceFile::read_at`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file::read_at(self.fd.as_fd(), buffer, offset)
    }

    /// As [`crate::SourceFile::data_extents`].
    pub fn data_extents(&self, size: u64, max: usize) -> io::Result<Vec<(u64, u64)>> {
        file::data_extents(self.fd.as_fd(), size, max)
    }

    /// Cuts the file or lengthens it by a hole.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.fd, size))?)
    }

    /// Turns a range into a hole; where the file system has none, writes zeros.
    pub fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        file::punch_hole(self.fd.as_fd(), offset, length)
    }

    /// Marks a file that is about to be written to, where the file system can, until [`Self::apply`] takes the mark away as
    /// an attribute that the node does not have.
    pub fn set_unfinished(&self) {
        let _ = Carrier::Fd(self.fd.as_fd()).set(UNFINISHED, b"");
    }

    /// Reserves space for `size` bytes, so that a full disk shows before the work. A file system that
    /// cannot is no error; the length stays as it is.
    pub fn preallocate(&self, size: u64) -> io::Result<()> {
        file::preallocate(self.fd.as_fd(), size)
    }

    /// Lets the kernel forget pages; those not yet written to disk stay.
    pub fn drop_cache(&self, offset: u64, length: u64) {
        file::drop_cache(self.fd.as_fd(), offset, length);
    }

    /// As [`TargetDir::apply_child`]; after the last write, which changes the time and clears set-id bits.
    #[must_use = "what could not be set has to be told"]
    pub fn apply(&self, node: &Node, options: &ApplyOptions) -> Vec<ApplyNote> {
        apply(&Subject::Open(self.fd.as_fd()), node, options)
    }

    /// Makes content and metadata durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}
