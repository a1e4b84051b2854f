use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, FallocateFlags, OFlags, SeekFrom, fadvise, fallocate, fstatvfs, seek};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, pwritev2, retry_on_intr};
use rustix::process::geteuid;

use super::{has_code, open_at, open_path_only, proc_path, replaced, stat_fd, without_atime};
use crate::stat::{FileType, Stat};

/// Opens a regular file for reading without following a link or waiting for a writer of a pipe.
pub(crate) fn open_for_reading(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = match without_atime(|extra| open_at(dir, name, flags | extra, 0)) {
        Err(error) if has_code(&error, Errno::AGAIN) => open_leased(dir, name),
        done => done,
    };
    let fd = opened?;
    let stat = stat_fd(&fd)?;
    if stat.kind == FileType::File { Ok((fd, stat)) } else { Err(replaced()) }
}

/// A lease (a file server's oplock) refuses opens that do not wait; a regular file may be waited for.
fn open_leased(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let handle = open_path_only(dir, name)?;
    if stat_fd(&handle)?.kind != FileType::File {
        return Err(replaced());
    }
    open_at(rustix::fs::CWD, &proc_path(handle.as_fd()), OFlags::RDONLY, 0)
}

/// Fills `buffer` from `offset` on; less only at the end of the file.
pub(crate) fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match retry_on_intr(|| pread(fd, &mut buffer[filled..], offset + filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// As [`read_at`]; the second number says how many bytes, from the first on, were in the page cache before. Where the file
/// system cannot tell: all of them.
pub(crate) fn read_at_noting_cache(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<(usize, usize)> {
    let mut slices = [io::IoSliceMut::new(buffer)];
    let cached = match preadv2(fd, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(count) => count,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(_) => return read_at(fd, buffer, offset).map(|read| (read, read)),
    };
    let rest = read_at(fd, &mut buffer[cached..], offset + cached as u64)?;
    Ok((cached + rest, cached))
}

/// As [`write_at`], for bytes that nobody reads soon: where the kernel can (`RWF_DONTCACHE`, since Linux 6.14), they go to
/// the disk at once and their pages are used again.
pub(crate) fn write_at_uncached(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    let dont_cache = ReadWriteFlags::from_bits_retain(0x80);
    while !bytes.is_empty() {
        match retry_on_intr(|| pwritev2(fd, &[io::IoSlice::new(bytes)], offset, dont_cache)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return write_at(fd, bytes, offset),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn write_at(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry_on_intr(|| pwrite(fd, bytes, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Segments of data as offset and length; what is not in them is a hole. Beyond `max` segments the rest
/// counts as data. A file system that cannot tell says: all data.
pub(crate) fn data_extents(fd: BorrowedFd<'_>, size: u64, max: usize) -> io::Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match retry_on_intr(|| seek(fd, SeekFrom::Data(position))) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP) => position,
            Err(error) => return Err(error.into()),
        };
        let end = if extents.len() + 1 >= max {
            size
        } else {
            match retry_on_intr(|| seek(fd, SeekFrom::Hole(start))) {
                Ok(end) => end.min(size),
                Err(Errno::INVAL | Errno::NOTSUP) => size,
                Err(Errno::NXIO) => break, // cut shorter meanwhile
                Err(error) => return Err(error.into()),
            }
        };
        extents.push((start, end - start));
        position = end;
    }
    Ok(extents)
}

pub(crate) fn advise_sequential(fd: BorrowedFd<'_>) {
    let _ = fadvise(fd, 0, None, Advice::Sequential);
}

/// Keeps the kernel from reading more than it is asked for.
pub(crate) fn advise_random(fd: BorrowedFd<'_>) {
    let _ = fadvise(fd, 0, None, Advice::Random);
}

pub(crate) fn drop_cache(fd: BorrowedFd<'_>, offset: u64, length: u64) {
    if let Some(length) = NonZeroU64::new(length) {
        let _ = fadvise(fd, offset, Some(length), Advice::DontNeed);
    }
}

/// Whether the byte at `offset` could be read without waiting for the disk; where the file system cannot tell, yes.
pub(crate) fn is_cached(fd: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = [0_u8];
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    preadv2(fd, &mut slices, offset, ReadWriteFlags::NOWAIT) != Err(Errno::AGAIN)
}

/// Reserves space. "Cannot" is not an error; "no space" is, and is known before anything is taken: some
/// file systems would fill the disk first.
pub(crate) fn preallocate(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    let missing = size.saturating_sub(stat_fd(fd)?.allocated_bytes);
    if missing == 0 {
        return Ok(());
    }
    let space = fstatvfs(fd)?;
    let free = if geteuid().is_root() { space.f_bfree } else { space.f_bavail };
    if space.f_blocks > 0 && free.saturating_mul(space.f_frsize) < missing {
        return Err(Errno::NOSPC.into());
    }
    match retry_on_intr(|| fallocate(fd, FallocateFlags::KEEP_SIZE, 0, size)) {
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) fn punch_hole(fd: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match retry_on_intr(|| fallocate(fd, flags, offset, length)) {
        Err(Errno::NOTSUP | Errno::NOSYS) => write_zeros(fd, offset, length),
        other => Ok(other?),
    }
}

fn write_zeros(fd: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    let zeros = [0_u8; 16 << 10];
    let end = offset + length;
    let mut at = offset;
    while at < end {
        let count = usize::try_from(end - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        write_at(fd, &zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}
