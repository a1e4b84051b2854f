//! The system calls: everything that knows Linux is here. Each call takes a directory handle and one
//! component, so that neither the length of a path nor a symlink in it matters.

pub(crate) mod apply;
pub(crate) mod dir;
pub(crate) mod file;
pub(crate) mod path;
pub(crate) mod remove;
pub(crate) mod xattr;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use snap_format::{Node, Time};

use crate::stat::{FileType, Stat};

/// What was found is not what was listed: the entry was replaced in between.
#[derive(Debug, thiserror::Error)]
#[error("it was replaced by something of another type")]
pub(crate) struct Replaced;

pub(crate) fn replaced() -> io::Error {
    io::Error::other(Replaced)
}

/// Whether an open failed because the entry is no longer of the type it was listed with.
pub(crate) fn was_replaced(error: &io::Error) -> bool {
    let by_code = || {
        matches!(
            error.raw_os_error().map(Errno::from_raw_os_error),
            Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::ISDIR)
        )
    };
    error.get_ref().is_some_and(|inner| inner.is::<Replaced>()) || by_code()
}

/// `name` if it is one plain component; the kernel would take a path.
pub(crate) fn component(name: &[u8]) -> io::Result<&[u8]> {
    if Node::name_is_safe(name) {
        Ok(name)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a single path component"))
    }
}

pub(crate) fn open_at(dir: impl AsFd, name: &[u8], flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(retry_on_intr(|| openat(dir.as_fd(), name, flags, Mode::from_raw_mode(mode)))?)
}

/// A handle that names the inode without opening it, whatever its type or permissions.
pub(crate) fn open_path_only(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    open_at(dir, name, OFlags::PATH | OFlags::NOFOLLOW, 0)
}

/// Opens a directory, symlinks refused; the access time is left alone where that is allowed.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    without_atime(|extra| open_at(dir.as_fd(), name, flags | extra, 0))
}

/// Calls `open` with `O_NOATIME`, and without it when that is not ours to ask.
pub(crate) fn without_atime(open: impl Fn(OFlags) -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    match open(OFlags::NOATIME) {
        Err(error) if has_code(&error, Errno::PERM) => open(OFlags::empty()),
        done => done,
    }
}

pub(crate) fn has_code(error: &io::Error, code: Errno) -> bool {
    error.raw_os_error() == Some(code.raw_os_error())
}

pub(crate) fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    Ok(convert(&fstat(fd)?))
}

/// One system call; a symlink is described, not followed.
pub(crate) fn stat_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    retry_on_intr(|| statat(dir.as_fd(), name, flags)).map(|stat| convert(&stat))
}

/// The name under which the kernel lets a handle be used where it wants a path.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes()
}

/// Whether there is a `/proc` to use handles by; a chroot or a rescue system may have none.
pub(crate) fn has_proc() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| statat(CWD, "/proc/self/fd", AtFlags::empty()).is_ok())
}

pub(crate) fn raise_open_files_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

pub(crate) fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[allow(clippy::unnecessary_cast)] // the fields' types differ between architectures
fn convert(stat: &rustix::fs::Stat) -> Stat {
    use rustix::fs::FileType as Raw;
    let kind = match Raw::from_raw_mode(stat.st_mode) {
        Raw::Directory => FileType::Dir,
        Raw::Symlink => FileType::Symlink,
        Raw::Fifo => FileType::Fifo,
        Raw::CharacterDevice => FileType::CharDevice,
        Raw::BlockDevice => FileType::BlockDevice,
        Raw::Socket => FileType::Socket,
        _ => FileType::File,
    };
    let rdev = match kind {
        FileType::CharDevice | FileType::BlockDevice => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => (0, 0),
    };
    Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: Time::new(stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        ctime: Time::new(stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
        links: stat.st_nlink as u64,
        rdev,
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
    }
}
