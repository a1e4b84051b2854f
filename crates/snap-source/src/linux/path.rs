use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat};
use rustix::io::{Errno, retry_on_intr};

use super::{has_code, open_at, without_atime};

/// Longest piece of a path that is handed to the kernel at once; its own limit is 4,096 with the NUL.
const PIECE_BYTES: usize = 4000;

/// Opens a directory by a path of any length that the user named; symlinks in it are followed.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    walk(path, |dir, piece| {
        without_atime(|extra| open_at(dir, piece, OFlags::RDONLY | OFlags::DIRECTORY | extra, 0))
    })
}

/// Like [`open_directory`] for a handle that can be searched and described, and perhaps not listed.
pub(crate) fn open_search(path: &Path) -> io::Result<OwnedFd> {
    walk(path, |dir, piece| open_at(dir, piece, OFlags::PATH | OFlags::DIRECTORY, 0))
}

fn walk(
    path: &Path,
    open_last: impl Fn(std::os::fd::BorrowedFd<'_>, &[u8]) -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let mut rest = path.as_os_str().as_bytes();
    let mut at: Option<OwnedFd> = None;
    loop {
        let dir = at.as_ref().map_or(CWD, AsFd::as_fd);
        if rest.len() <= PIECE_BYTES {
            return open_last(dir, if rest.is_empty() && at.is_some() { b"." } else { rest });
        }
        let end = rest[..PIECE_BYTES]
            .iter()
            .rposition(|byte| *byte == b'/')
            .ok_or_else(|| io::Error::from(Errno::NAMETOOLONG))?
            + 1;
        let next = open_at(dir, &rest[..end], OFlags::PATH | OFlags::DIRECTORY, 0)?;
        // What follows is relative, however many slashes part it.
        let slashes = rest[end..].iter().take_while(|byte| **byte == b'/').count();
        rest = &rest[end + slashes..];
        at = Some(next);
    }
}

/// Opens a directory, making it and its parents where they are missing. The flag: the last was made.
pub(crate) fn open_or_create(path: &Path, mode: u32) -> io::Result<(OwnedFd, bool)> {
    match open_directory(path) {
        Err(error) if has_code(&error, Errno::NOENT) && !path.as_os_str().is_empty() => {}
        done => return done.map(|fd| (fd, false)),
    }
    let bytes = path.as_os_str().as_bytes();
    let start: &[u8] = if bytes.starts_with(b"/") { b"/" } else { b"." };
    let mut at = open_at(CWD, start, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    let mut created = false;
    for name in bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        at = match open_at(&at, name, flags, 0) {
            Err(error) if has_code(&error, Errno::NOENT) => {
                created = match mkdirat(&at, name, Mode::from_raw_mode(mode)) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false, // by someone else, just now
                    Err(error) => return Err(error.into()),
                };
                open_at(&at, name, flags, 0)?
            }
            found => {
                created = false;
                found?
            }
        };
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    Ok((retry_on_intr(|| rustix::fs::openat(&at, ".", flags | OFlags::CLOEXEC, Mode::empty()))?, created))
}
