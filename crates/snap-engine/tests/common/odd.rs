//! A tree with every kind of entry that a backup can meet.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use snap_source::SourceDir;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Bytes that no compressor shrinks; the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Lines of text, each different.
pub fn text(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    let mut line = 0u64;
    while out.len() < length {
        out.extend_from_slice(
            format!("line {line} of a file that shrinks well {}\n", line * 7919).as_bytes(),
        );
        line += 1;
    }
    out.truncate(length);
    out
}

pub fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// `user::rw-,user:UID:r--,group::r--,mask::r--,other::---` in the kernel's form.
pub fn acl(uid: u32) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    let undefined = u32::MAX;
    for (tag, permissions, id) in
        [(1u16, 6u16, undefined), (2, 4, uid), (4, 4, undefined), (0x10, 4, undefined), (0x20, 0, undefined)]
    {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&permissions.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

fn node(path: &Path, kind: rustix::fs::FileType, mode: u32, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device).unwrap();
}

pub fn fifo(path: &Path) {
    node(path, rustix::fs::FileType::Fifo, 0o640, (0, 0));
}

/// A file of `size` with `pieces` of data at offsets, and holes between.
pub fn sparse(path: &Path, size: u64, pieces: &[(u64, Vec<u8>)]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset).unwrap();
    }
}

/// Directories below `top` whose path is longer than the kernel takes in one call, a file at the end.
pub fn deep_path(top: &Path, levels: usize, name_length: usize) {
    let mut dir: OwnedFd = rustix::fs::open(top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let name = "d".repeat(name_length);
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, name.as_str(), Mode::from_raw_mode(0o750)).unwrap();
        dir = rustix::fs::openat(&dir, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(dir.as_fd(), "at the end", flags, Mode::from_raw_mode(0o600)).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
}

/// Removes what [`deep_path`] made: recursion by path cannot.
pub fn remove_deep(top: &Path, name: &[u8]) {
    let (dir, _) = snap_source::TargetDir::open_or_create(top, 0o700).unwrap();
    dir.remove(name).unwrap();
}

/// Contents, links, names, modes, times, attributes, holes: what any user can make.
pub fn make_ordinary(top: &Path) {
    for (name, length) in [("empty", 0), ("one", 1), ("hundred", 100), ("medium", 300_000)] {
        std::fs::write(top.join(name), noise(length as u64, length)).unwrap();
    }
    std::fs::write(top.join("text"), text(1_500_000)).unwrap();
    std::fs::write(top.join("large"), noise(9, 9 << 20)).unwrap();
    std::fs::write(top.join("larger"), text(20 << 20)).unwrap();
    make_names(top);
    make_links(top);
    make_attributes(top);
    make_sparse(top);
    std::fs::create_dir_all(top.join("bare/of/everything")).unwrap();
    fifo(&top.join("fifo"));
    drop(UnixListener::bind(top.join("socket")).unwrap());
    deep_path(top, 24, 250);
    let closed = top.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("inside"), b"behind a read-only door").unwrap();
    std::fs::create_dir(closed.join("too")).unwrap();
    set_mode(&closed.join("too"), 0o500);
    set_mode(&closed, 0o555);
    set_time(&closed, 1_234_567_890, 5);
}

fn make_names(top: &Path) {
    let names = top.join("names");
    std::fs::create_dir(&names).unwrap();
    let long = [b'n'; 255];
    for name in [
        &b"not \xff\xfe UTF-8"[..],
        b"a\nnewline",
        b" ",
        b"-rf",
        b"...",
        b"*?[a]",
        b"tab\tand \x1b[31mred",
        "\u{fc}ml\u{e4}ut".as_bytes(),
        &long,
    ] {
        std::fs::write(names.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
}

fn make_links(top: &Path) {
    symlink("nowhere/at/all", top.join("dangling")).unwrap();
    symlink("/etc/passwd", top.join("absolute")).unwrap();
    symlink("..", top.join("up")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"\xff\n"), top.join("odd target")).unwrap();
    symlink("x".repeat(4000), top.join("long target")).unwrap();
    set_time(&top.join("dangling"), 1_000_000_000, 123_456_789);
    let dir = top.join("links/below");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("third"), noise(3, 5000)).unwrap();
    std::fs::hard_link(dir.join("third"), top.join("a first name")).unwrap();
    std::fs::hard_link(dir.join("third"), top.join("links/second")).unwrap();
    std::fs::write(dir.join("big"), noise(33, 2 << 20)).unwrap();
    std::fs::hard_link(dir.join("big"), top.join("zzz big again")).unwrap();
    std::fs::write(dir.join("nothing"), b"").unwrap();
    std::fs::hard_link(dir.join("nothing"), dir.join("nothing too")).unwrap();
}

fn make_attributes(top: &Path) {
    let dir = top.join("attributes");
    std::fs::create_dir(&dir).unwrap();
    for mode in [0o400, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o1777] {
        let path = dir.join(format!("mode {mode:o}"));
        std::fs::write(&path, b"m").unwrap();
        set_mode(&path, mode);
    }
    for (mode, name) in [(0o1777, "sticky"), (0o2775, "setgid"), (0o711, "searchable")] {
        std::fs::create_dir(dir.join(name)).unwrap();
        set_mode(&dir.join(name), mode);
    }
    for (name, seconds, nanos) in [
        ("epoch", 0, 0),
        ("before", -1_234_567, 987_654_321),
        ("just before", -1, 999_999_999),
        ("after 2038", 2_200_000_000, 1),
        ("after 2106", 5_000_000_000, 999_999_999),
    ] {
        std::fs::write(dir.join(name), name).unwrap();
        set_time(&dir.join(name), seconds, nanos);
    }
    std::fs::create_dir(dir.join("old")).unwrap();
    set_time(&dir.join("old"), -86_400, 1);
    let path = dir.join("xattrs");
    std::fs::write(&path, b"x").unwrap();
    set_xattr(&path, "user.empty", b"");
    set_xattr(&path, "user.binary", &[0, 255, 10, 0]);
    set_xattr(&path, "user.\u{fc}ber=%", b"name");
    set_xattr(&path, "user.large", &noise(1, 3000));
    set_xattr(&dir.join("old"), "user.of a directory", b"yes");
    set_time(&dir.join("old"), -86_400, 1);
    let path = dir.join("acl");
    std::fs::write(&path, b"x").unwrap();
    set_xattr(&path, "system.posix_acl_access", &acl(4242));
    let path = dir.join("default acl");
    std::fs::create_dir(&path).unwrap();
    set_xattr(&path, "system.posix_acl_default", &acl(4343));
    std::fs::create_dir(path.join("without")).unwrap();
    rustix::fs::lremovexattr(path.join("without"), "system.posix_acl_default").unwrap();
}

fn make_sparse(top: &Path) {
    let dir = top.join("sparse");
    std::fs::create_dir(&dir).unwrap();
    let gib = 1 << 30;
    sparse(&dir.join("hole"), 100 * gib, &[]);
    sparse(&dir.join("data hole data"), 64 << 20, &[(0, noise(4, 3 << 20)), (60 << 20, noise(5, 4 << 20))]);
    sparse(&dir.join("hole at the end"), gib, &[(0, noise(6, 100_000))]);
    sparse(&dir.join("hole in front"), 10 << 20, &[((10 << 20) - 5, b"end!!".to_vec())]);
    let many: Vec<_> = (0..300).map(|i| (i * 32_768 + 8192, noise(i, 4096))).collect();
    sparse(&dir.join("many holes"), 300 * 32_768 + 100, &many);
    // Zeros that are stored as such are no hole.
    std::fs::write(dir.join("zeros"), vec![0; 3 << 20]).unwrap();
}

/// What only root can make.
pub fn make_privileged(top: &Path) {
    let dir = top.join("privileged");
    std::fs::create_dir(&dir).unwrap();
    node(&dir.join("null"), rustix::fs::FileType::CharacterDevice, 0o666, (1, 3));
    node(&dir.join("disk"), rustix::fs::FileType::BlockDevice, 0o660, (259, 70_000));
    let owned = |name: &str, uid, gid| {
        let path = dir.join(name);
        std::fs::write(&path, name).unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        path
    };
    owned("another's", 4242, 4343);
    owned("a large id", 4_294_967_000, 3_000_000_000);
    let path = owned("set-id of another", 4242, 4343);
    set_mode(&path, 0o6755);
    let path = owned("trusted", 0, 0);
    set_xattr(&path, "trusted.note", b"administrators only");
    // cap_net_raw+ep, version 2
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&path, "security.capability", &capability);
    symlink("elsewhere", dir.join("link of another")).unwrap();
    std::os::unix::fs::lchown(dir.join("link of another"), Some(4242), Some(4343)).unwrap();
    std::fs::create_dir(dir.join("directory of another")).unwrap();
    std::os::unix::fs::chown(dir.join("directory of another"), Some(4242), Some(4343)).unwrap();
    set_mode(&dir.join("directory of another"), 0o2750);
}

/// Enough entries that the tree is split.
pub fn make_many(top: &Path, count: usize) {
    let dir = top.join("many");
    std::fs::create_dir(&dir).unwrap();
    for number in 0..count {
        std::fs::write(dir.join(format!("entry {number:05}")), number.to_le_bytes()).unwrap();
    }
}

/// How many directories, files and other entries are below `top`, sockets left out.
pub fn count(top: &Path) -> (u64, u64, u64) {
    use snap_source::FileType;
    let (mut dirs, mut files, mut others) = (0, 0, 0);
    let mut waiting = vec![SourceDir::open(top).unwrap()];
    while let Some(dir) = waiting.pop() {
        dirs += 1;
        for entry in dir.entries().unwrap() {
            let entry = entry.unwrap();
            match entry.stat.kind {
                FileType::Dir => waiting.push(dir.open_child(&entry.name).unwrap()),
                FileType::File => files += 1,
                FileType::Socket => {}
                _ => others += 1,
            }
        }
    }
    (dirs, files, others)
}

/// Bytes that a file takes on disk.
pub fn allocated(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().blocks() * 512
}

/// When root runs the tests, runs this one test again as an ordinary user, in a process of its own; true if it did so.
pub fn as_ordinary_user(test: &str) -> bool {
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return false;
    }
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    set_mode(&program, 0o755);
    let mut command = std::process::Command::new(&program);
    command.args(["--exact", test]).uid(12_345).gid(12_345).current_dir("/");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    true
}
