//! Where something can be mounted, and what is mounted.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{MountError, PointProblem};

/// The name under which the system lists our mounts.
pub(crate) const NAME: &str = "snap";

/// Refuses what is no empty directory of its own; gives its whole path.
pub(crate) fn check(dir: &Path) -> Result<PathBuf, MountError> {
    let refuse = |why| Err(MountError::Point { dir: dir.to_owned(), why });
    let found = match dir.metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return refuse(PointProblem::Missing),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return refuse(PointProblem::Stale),
        Err(error) => return refuse(PointProblem::Unreadable(error)),
    };
    if !found.is_dir() {
        return refuse(PointProblem::NotADirectory);
    }
    let whole = match dir.canonicalize() {
        Ok(whole) => whole,
        Err(error) => return refuse(PointProblem::Unreadable(error)),
    };
    let mounts = mountinfo();
    if mounts.lines().filter_map(Mounted::parse).any(|mount| mount.point == whole) {
        return refuse(PointProblem::Mounted);
    }
    match std::fs::read_dir(&whole).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(whole),
        Ok(false) => refuse(PointProblem::NotEmpty),
        Err(error) => refuse(PointProblem::Unreadable(error)),
    }
}

/// Device and inode of the root of everything that a `snap mount` shows on this machine. None of them is touched: one whose
/// store stalls cannot hold up who asks.
pub fn mounted() -> Vec<(u64, u64)> {
    let mounts = mountinfo();
    let ours = mounts.lines().filter_map(Mounted::parse).filter(|mount| mount.is_ours);
    ours.map(|mount| (mount.device, crate::tops::ROOT)).collect()
}

/// Whether a path leads into what a `snap mount` shows.
pub fn is_in_a_mount(path: &Path) -> bool {
    let devices: Vec<u64> = mounted().into_iter().map(|(device, _)| device).collect();
    !devices.is_empty() && path.metadata().is_ok_and(|found| devices.contains(&found.dev()))
}

/// What is mounted; without /proc that is not known.
fn mountinfo() -> String {
    String::from_utf8_lossy(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()).into_owned()
}

/// A line of `/proc/self/mountinfo` (proc(5)).
struct Mounted {
    device: u64,
    point: PathBuf,
    is_ours: bool,
}

impl Mounted {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (major, minor) = before.next()?.split_once(':')?;
        let point = unescape(before.nth(1)?);
        let mut after = after.split(' ');
        let (kind, source) = (after.next()?, after.next()?);
        let is_ours = kind == "fuse.snap" || (kind == "fuse" && source == NAME);
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        Some(Self { device, point, is_ours })
    }
}

/// Spaces, tabs, newlines and backslashes stand as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_recognised() {
        let line =
            |rest: &str| Mounted::parse(&format!("36 35 0:98 / /mnt/a\\040b rw,noatime master:1 - {rest}"));
        let ours = line("fuse snap ro,user_id=0").unwrap();
        assert_eq!((ours.point, ours.device), (PathBuf::from("/mnt/a b"), 98));
        assert!(ours.is_ours && line("fuse.snap snap ro").unwrap().is_ours);
        assert!(!line("fuse sshfs ro").unwrap().is_ours && !line("ext4 snap rw").unwrap().is_ours);
        assert!(Mounted::parse("nonsense").is_none());
    }
}
