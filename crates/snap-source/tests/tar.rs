//! The archives, read back by GNU tar.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use common::{acl, dir_kind, file_kind, is_root, node, target};
use snap_format::{Content, Link, Node, NodeKind, Time, Xattr};
use snap_source::{FileType, SourceDir, TarError, TarWriter};

fn tar(arguments: &[&str], archive: &Path, into: &Path) -> Output {
    let done = Command::new("tar")
        .args(arguments)
        .arg("-f")
        .arg(archive)
        .current_dir(into)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .expect("GNU tar is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done
}

fn nodes() -> Vec<(Vec<u8>, Node, &'static [u8])> {
    let sparse = NodeKind::File {
        size: 9000,
        content: Content::default(),
        holes: vec![(0, 5), (8, 8990)],
        profile: 1,
    };
    let linked = |name| Node { link: Some(Link { device: 1, inode: 7 }), ..node(name, file_kind(6), 0o640) };
    let at = |mut node: Node, secs, nanos| {
        node.mtime = Time::new(secs, nanos);
        node
    };
    let mut with_xattrs = node("xattrs", file_kind(1), 0o640);
    with_xattrs.xattrs = vec![
        Xattr { name: b"system.posix_acl_access".to_vec(), value: acl() },
        Xattr { name: b"user.a=b%c".to_vec(), value: b"\0binary\n\xff".to_vec() },
        Xattr { name: b"user.empty".to_vec(), value: Vec::new() },
    ];
    let long = [&b"dir/"[..], &[b'l'; 200], b"/", &[0xfe; 40]].concat();
    let long_dir = long[..204].to_vec();
    let link = NodeKind::Symlink { target: [b't'; 300].to_vec() };
    vec![
        (b"/dir".to_vec(), at(node("dir", dir_kind(), 0o2750), 1_700_000_000, 5), b""),
        (b"dir/one".to_vec(), linked("one"), b"linked"),
        (b"dir/two".to_vec(), linked("two"), b"linked"),
        (b"dir/\xff\n name".to_vec(), node("odd", file_kind(3), 0o644), b"odd"),
        (long_dir, node("long", dir_kind(), 0o755), b""),
        (long, at(node("long", file_kind(512), 0o644), -1_000_000_001, 500_000_000), &[7; 512]),
        (b"sparse".to_vec(), at(node("sparse", sparse, 0o600), 5_000_000_000, 1), b"abcde"),
        (b"link".to_vec(), node("link", link, 0o777), b""),
        (b"pipe".to_vec(), node("pipe", NodeKind::Fifo, 0o620), b""),
        (b"xattrs".to_vec(), with_xattrs, b"x"),
    ]
}

fn archive(path: &Path, nodes: &[(Vec<u8>, Node, &'static [u8])]) {
    let mut writer = TarWriter::new(io::BufWriter::new(fs::File::create(path).unwrap()));
    for (path, node, content) in nodes {
        writer.append(path, node, node.size(), &mut &content[..]).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn gnu_tar_extracts_what_was_appended() {
    let (directory, made) = target();
    let (work, _) = target();
    let file = work.path().join("a.tar");
    let mut all = nodes();
    if is_root() {
        let device = NodeKind::BlockDevice { major: 8, minor: 300 };
        all.push((b"device".to_vec(), Node { uid: 3_000_000_000, ..node("device", device, 0o600) }, b""));
    }
    archive(&file, &all);
    let done = tar(
        &["-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp"],
        &file,
        directory.path(),
    );
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");

    let source = made.as_source();
    for (path, node, content) in &all {
        let path =
            directory.path().join(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
        let parent = SourceDir::open(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().as_bytes();
        let stat = parent.stat_child(name).unwrap();
        assert_eq!(stat.mtime, node.mtime, "{}", path.display());
        assert_eq!((stat.uid, stat.gid), (node.uid, node.gid));
        assert_eq!(parent.xattrs_child(name).unwrap(), node.xattrs);
        if stat.kind != FileType::Symlink {
            assert_eq!(stat.mode, node.mode, "{}", path.display());
        }
        if let NodeKind::File { holes, .. } = &node.kind
            && holes.is_empty()
        {
            assert_eq!(fs::read(&path).unwrap(), *content);
        }
    }
    let sparse = fs::read(directory.path().join("sparse")).unwrap();
    assert_eq!((&sparse[..10], sparse.len()), (&b"\0\0\0\0\0abc\0\0"[..], 9000));
    assert_eq!(&sparse[8998..], b"de");
    assert_eq!(source.stat_child(b"pipe").unwrap().kind, FileType::Fifo);
    assert_eq!(source.read_link(b"link").unwrap(), [b't'; 300]);
    let dir = source.open_child(b"dir").unwrap();
    assert!(dir.stat_child(b"one").unwrap().is_same_file(&dir.stat_child(b"two").unwrap()));
    if is_root() {
        assert_eq!(source.stat_child(b"device").unwrap().rdev, (8, 300));
    }
}

#[test]
fn gnu_tar_lists_owners_and_devices() {
    let (work, _) = target();
    let file = work.path().join("a.tar");
    let mut device = node("null", NodeKind::CharDevice { major: 1, minor: 3 }, 0o666);
    (device.uid, device.gid) = (3_000_000_000, 7);
    device.user = Some("a-user-name-of-more-than-thirty-two-bytes".into());
    device.group = Some("staff".into());
    device.mtime = Time::new(0, 0);
    archive(&file, &[(b"null".to_vec(), device, b"")]);
    let listed = String::from_utf8(tar(&["-tv"], &file, work.path()).stdout).unwrap();
    let expected = "crw-rw-rw- a-user-name-of-more-than-thirty-two-bytes/staff 1,3 1970-01-01 00:00 null\n";
    assert_eq!(
        listed.split_whitespace().collect::<Vec<_>>(),
        expected.split_whitespace().collect::<Vec<_>>()
    );
    let listed = String::from_utf8(tar(&["-tv", "--numeric-owner"], &file, work.path()).stdout).unwrap();
    assert!(listed.contains("3000000000/7"), "{listed}");
}

/// Yields some bytes, then fails.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("damaged"));
        }
        let count = self.0.min(buffer.len());
        self.0 -= count;
        buffer[..count].fill(b'x');
        Ok(count)
    }
}

#[test]
fn content_that_fails_leaves_the_archive_whole() {
    let (directory, _) = target();
    let file = directory.path().join("a.tar");
    let mut writer = TarWriter::new(fs::File::create(&file).unwrap());
    let appended =
        writer.append(b"broken", &node("b", file_kind(70_000), 0o600), 70_000, &mut Broken(66_000));
    assert!(matches!(appended, Err(TarError::Content(error)) if error.to_string() == "damaged"));
    for (name, content) in [("short", &b"ab"[..]), ("long", b"abcd")] {
        let node = node(name, file_kind(3), 0o600);
        let appended = writer.append(name.as_bytes(), &node, 3, &mut &content[..]);
        assert!(matches!(appended, Err(TarError::Content(_))), "{name}");
    }
    let device = node("device", NodeKind::CharDevice { major: u32::MAX, minor: 0 }, 0o600);
    let appended = writer.append(b"device", &device, 0, &mut io::empty());
    assert!(matches!(appended, Err(TarError::Unfit(_))));
    writer.append(b"good", &node("g", file_kind(4), 0o600), 4, &mut &b"good"[..]).unwrap();
    writer.finish().unwrap();
    tar(&["-x"], &file, directory.path());
    let broken = fs::read(directory.path().join("broken")).unwrap();
    assert!(broken[..66_000].iter().all(|byte| *byte == b'x') && broken[66_000..] == [0; 4000]);
    assert_eq!(fs::read(directory.path().join("short")).unwrap(), b"ab\0");
    assert_eq!(fs::read(directory.path().join("good")).unwrap(), b"good");
}

#[test]
fn an_archive_that_cannot_be_written_is_an_error_of_its_own() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut writer = TarWriter::new(full);
    let appended = writer.append(b"a", &node("a", file_kind(1), 0o600), 1, &mut &b"a"[..]);
    assert!(matches!(&appended, Err(TarError::Output(error)) if error.kind() == io::ErrorKind::StorageFull));
}
