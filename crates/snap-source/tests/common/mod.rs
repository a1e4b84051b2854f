#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use snap_format::{BlobId, Content, Node, NodeKind, Time};
use snap_source::{EntryResult, FileType, Stat, TargetDir, entry_name};
use tempfile::TempDir;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn target() -> (TempDir, TargetDir) {
    let directory = tempfile::tempdir().unwrap();
    let (target, created) = TargetDir::open_or_create(directory.path(), 0o755).unwrap();
    assert!(!created);
    (directory, target)
}

pub fn names(entries: &[EntryResult]) -> Vec<&[u8]> {
    entries.iter().map(entry_name).collect()
}

pub fn file_kind(size: u64) -> NodeKind {
    NodeKind::File { size, content: Content::default(), holes: Vec::new(), profile: 1 }
}

pub fn dir_kind() -> NodeKind {
    NodeKind::Dir { tree: BlobId([0; BlobId::LEN]) }
}

/// A node of the user who runs the tests.
pub fn node(name: &str, kind: NodeKind, mode: u32) -> Node {
    Node {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..Node::new(name.into(), kind, Time::new(1_600_000_000, 123_456_789))
    }
}

/// The node of an entry as it stands.
pub fn node_of(name: &str, stat: &Stat, kind: NodeKind) -> Node {
    Node { mode: stat.mode, uid: stat.uid, gid: stat.gid, ..Node::new(name.into(), kind, stat.mtime) }
}

pub fn kind_of(target: &TargetDir, name: &[u8]) -> FileType {
    target.stat_child(name).unwrap().unwrap().kind
}

/// Fails instead of hanging.
pub fn within_seconds<T: Send + 'static>(seconds: u64, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(run()));
    receive.recv_timeout(Duration::from_secs(seconds)).expect("it hangs")
}

/// The bytes of an access ACL: owner rw, user 1 r, group r, mask r, others nothing.
pub fn acl() -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(0x01_u16, 6_u16, NO_ID), (0x02, 4, 1), (0x04, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)]
    {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}
