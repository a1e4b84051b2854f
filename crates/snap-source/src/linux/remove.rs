use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx, unlinkat};
use rustix::io::Errno;
use snap_format::Time;

use super::apply::grant_owner;
use super::dir::DirHandle;
use super::{open_dir, replaced, stat_at, stat_fd};
use crate::selection::{Doomed, Protected};
use crate::stat::Stat;

/// A directory on the way down to the one that is being emptied.
struct Level {
    name: Vec<u8>,
    stat: Stat,
    subdirs: Vec<Vec<u8>>,
}

/// Removes an entry and all below it. Links are removed, not followed; a mount point stops it. The depth
/// of the tree costs no handles: the way up is `..`, checked against what the way down has seen.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        // Linux says EISDIR; POSIX, and some file systems, EPERM.
        Err(Errno::ISDIR) => {}
        Err(Errno::PERM) if stat_at(dir, name)?.is_dir() => {}
        done => return Ok(done?),
    }
    let top = stat_fd(dir)?;
    let mut at = enter(dir, name, top.device)?;
    let mut levels = vec![empty_of_files(&at, name.to_vec())?];
    while let Some(level) = levels.last_mut() {
        if let Some(subdir) = level.subdirs.pop() {
            let child = enter(at.as_fd(), &subdir, top.device)?;
            levels.push(empty_of_files(&child, subdir)?);
            at = child;
            continue;
        }
        let done = level.name.clone();
        levels.pop();
        let Some(parent) = levels.last() else {
            break;
        };
        let up = open_dir(&at, b"..")?;
        if !stat_fd(&up)?.is_same_file(&parent.stat) {
            return Err(replaced());
        }
        unlinkat(&up, &done[..], AtFlags::REMOVEDIR)?;
        at = up;
    }
    Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

fn enter(parent: BorrowedFd<'_>, name: &[u8], device: u64) -> io::Result<OwnedFd> {
    // What is about to be removed may be opened up first, by its owner.
    let _ = grant_owner(parent, name);
    let fd = open_dir(parent, name)?;
    if stat_fd(&fd)?.device != device || is_mount_point(fd.as_fd()) {
        return Err(Errno::XDEV.into());
    }
    Ok(fd)
}

/// What [`remove`] would take; what stops it, or is protected, is an error here as well.
pub(crate) fn survey(
    dir: BorrowedFd<'_>,
    name: &[u8],
    since: Time,
    protected: &Protected,
) -> io::Result<Doomed> {
    let mut doomed = Doomed::default();
    let first = stat_at(dir, name)?;
    refuse_protected(&first, protected)?;
    doomed.add(b"", &first, since);
    if !first.is_dir() {
        return Ok(doomed);
    }
    let device = stat_fd(dir)?.device;
    let mut waiting = vec![(Rc::new(dir.try_clone_to_owned()?), name.to_vec(), Vec::new())];
    while let Some((above, name, path)) = waiting.pop() {
        let fd = open_dir(above.as_fd(), &name)?;
        drop(above);
        if stat_fd(&fd)?.device != device || is_mount_point(fd.as_fd()) {
            return Err(Errno::XDEV.into());
        }
        let at = Rc::new(fd.try_clone()?);
        for entry in DirHandle::new(fd).entries()? {
            let entry = entry.map_err(|(_, error)| error)?;
            refuse_protected(&entry.stat, protected)?;
            let path = [&path[..], b"/", &entry.name].concat();
            doomed.add(&path, &entry.stat, since);
            if entry.stat.is_dir() {
                waiting.push((Rc::clone(&at), entry.name, path));
            }
        }
    }
    Ok(doomed)
}

fn refuse_protected(stat: &Stat, protected: &Protected) -> io::Result<()> {
    match protected.contains(&(stat.device, stat.inode)) {
        true => Err(io::Error::new(io::ErrorKind::ResourceBusy, "something of snap's own is in it")),
        false => Ok(()),
    }
}

fn is_mount_point(fd: BorrowedFd<'_>) -> bool {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn empty_of_files(fd: &OwnedFd, name: Vec<u8>) -> io::Result<Level> {
    let stat = stat_fd(fd)?;
    let mut subdirs = Vec::new();
    for (_, child) in DirHandle::new(fd.try_clone()?).names()? {
        match unlinkat(fd, &child[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => subdirs.push(child),
            Err(Errno::PERM) if stat_at(fd, &child)?.is_dir() => subdirs.push(child),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Level { name, stat, subdirs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_known_as_one() {
        let root = open_dir(rustix::fs::CWD, b"/").unwrap();
        assert!(is_mount_point(open_dir(&root, b"proc").unwrap().as_fd()));
        let directory = tempfile::tempdir().unwrap();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(directory.path().as_os_str());
        assert!(!is_mount_point(open_dir(&root, path).unwrap().as_fd()));
        assert_eq!(
            enter(root.as_fd(), b"proc", stat_fd(&root).unwrap().device).unwrap_err().kind(),
            io::ErrorKind::CrossesDevices
        );
    }
}
