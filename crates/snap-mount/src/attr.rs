use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use snap_format::{Node, NodeKind, Time};

/// Unit of `st_blocks`, bytes.
const BLOCK: u64 = 512;

/// The attributes of a node as they were when it was backed up; the time of access, which is not kept, is that of change.
pub(crate) fn of_node(ino: u64, node: &Node, names: u32) -> FileAttr {
    let mtime = system_time(node.mtime);
    let holes: u64 = match &node.kind {
        NodeKind::File { holes, .. } => holes.iter().map(|hole| hole.1).sum(),
        _ => 0,
    };
    let size = match &node.kind {
        NodeKind::Symlink { target } => target.len() as u64,
        _ => node.size(),
    };
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: node.size().saturating_sub(holes).div_ceil(BLOCK),
        atime: mtime,
        mtime,
        ctime: node.ctime.map_or(mtime, system_time),
        crtime: mtime,
        kind: kind(&node.kind),
        perm: node.mode as u16, // at most 0o7777: checked when nodes are decoded
        nlink: names,
        uid: node.uid,
        gid: node.gid,
        rdev: match node.kind {
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                device(major, minor)
            }
            _ => 0,
        },
        blksize: 4096,
        flags: 0,
    }
}

/// The attributes of what is not in a snapshot: directories above them, and their roots.
pub(crate) fn of_top(ino: u64, kind: FileType, time: Time, (uid, gid): (u32, u32), size: u64) -> FileAttr {
    let time = system_time(time);
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: if kind == FileType::Symlink { 0o777 } else { 0o555 },
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// What a node is to the kernel; an object of a bucket is a file.
pub(crate) const fn kind(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::File { .. } | NodeKind::Object { .. } => FileType::RegularFile,
        NodeKind::Dir { .. } => FileType::Directory,
        NodeKind::Symlink { .. } => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::CharDevice { .. } => FileType::CharDevice,
        NodeKind::BlockDevice { .. } => FileType::BlockDevice,
    }
}

/// As the kernel's `new_encode_dev` has it.
const fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Times that the system cannot express become the nearest that it can.
fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole = match time.secs < 0 {
        true => UNIX_EPOCH.checked_sub(seconds),
        false => UNIX_EPOCH.checked_add(seconds),
    };
    let exact = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into())));
    exact.or(whole).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_nanoseconds() {
        let time = system_time(Time::new(-5, 250));
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::new(4, 999_999_750));
        let late = system_time(Time::new(32_503_680_000, 1));
        assert_eq!(late.duration_since(UNIX_EPOCH).unwrap(), Duration::new(32_503_680_000, 1));
        system_time(Time::new(i64::MIN, 0));
        system_time(Time::new(i64::MAX, 999_999_999));
    }

    #[test]
    fn device_numbers_are_the_kernels() {
        // As stat shows them on Linux: makedev(8, 1), makedev(259, 1 << 19).
        assert_eq!(device(8, 1), 0x801);
        assert_eq!(device(259, 1 << 19), 0x8001_0300);
    }
}
