//! Reading a file system: every type, odd names, long paths, and what changes under the reader.

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{acl, is_root, names, node, set_xattr, target, within_seconds};
use rustix::fs::{RenameFlags, renameat_with};
use snap_format::{NodeKind, Xattr};
use snap_source::{FileType, Located, SourceDir, TargetDir, was_replaced};

#[test]
fn every_type_is_told_and_sorted_by_bytes() {
    let (directory, made) = target();
    let path = directory.path();
    fs::write(path.join("file"), b"12345").unwrap();
    fs::create_dir(path.join("dir")).unwrap();
    symlink("a target\nof two lines", path.join("link")).unwrap();
    made.mknod(b"pipe", &node("pipe", NodeKind::Fifo, 0o600)).unwrap();
    let _socket = UnixListener::bind(path.join("socket")).unwrap();
    let device = node("device", NodeKind::CharDevice { major: 1, minor: 3 }, 0o600);
    let made_device = made.mknod(b"device", &device);

    let source = SourceDir::open(path).unwrap();
    let mut expected = vec![
        (&b"dir"[..], FileType::Dir),
        (b"file", FileType::File),
        (b"link", FileType::Symlink),
        (b"pipe", FileType::Fifo),
        (b"socket", FileType::Socket),
    ];
    if is_root() {
        made_device.unwrap();
        expected.insert(0, (b"device", FileType::CharDevice));
        assert_eq!(source.stat_child(b"device").unwrap().rdev, (1, 3));
    } else {
        assert_eq!(made_device.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    let found = source.entries().unwrap();
    let found: Vec<_> = found.iter().flatten().map(|entry| (&entry.name[..], entry.stat.kind)).collect();
    assert_eq!(found, expected);
    assert_eq!(source.stat_child(b"file").unwrap().size, 5);
    assert_eq!(source.read_link(b"link").unwrap(), b"a target\nof two lines");
}

#[test]
fn names_are_bytes() {
    let (_directory, made) = target();
    let longest = [b'x'; 255];
    let odd: [&[u8]; 6] = [b"\n", b" ", b"-rf", b"\xff\xfe", &longest, "é\u{202e}".as_bytes()];
    for name in odd {
        made.create_file(name).unwrap();
    }
    let mut sorted = odd.to_vec();
    sorted.sort_unstable();
    let source = made.as_source();
    for _ in 0..2 {
        assert_eq!(names(&source.entries().unwrap()), sorted, "a directory can be listed again");
    }
    for name in odd {
        source.open_file(name).unwrap();
    }
}

#[test]
fn a_name_is_one_component() {
    let (_directory, made) = target();
    let source = made.as_source();
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b"] {
        assert_eq!(source.stat_child(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(source.open_child(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(source.open_file(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(source.xattrs_child(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(made.create_file(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(made.remove(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_path_of_six_thousand_bytes_is_walked_opened_made_and_removed() {
    let (directory, made) = target();
    let component = "p".repeat(239);
    let mut path = PathBuf::from(directory.path());
    let mut at = made.clone();
    for _ in 0..25 {
        at = at.make_child(component.as_bytes()).unwrap().0;
        path.push(&component);
    }
    assert!(path.as_os_str().len() > 6000);
    at.create_file(b"bottom").unwrap().write_at(b"deep", 0).unwrap();

    let source = SourceDir::open(&path).unwrap();
    assert_eq!(names(&source.entries().unwrap()), [b"bottom"]);
    let mut buffer = [0; 9];
    assert_eq!(source.open_file(b"bottom").unwrap().read_at(&mut buffer, 0).unwrap(), 4);
    assert_eq!(&buffer[..4], b"deep");
    assert!(SourceDir::open_search(&path).unwrap().stat().unwrap().is_same_file(&source.stat().unwrap()));
    assert!(matches!(SourceDir::locate(&path.join("bottom")), Ok(Located::Entry { .. })));

    let (deeper, created) = TargetDir::open_or_create(&path.join("x/y"), 0o700).unwrap();
    assert!(created);
    assert_eq!(deeper.stat().unwrap().mode, 0o700);
    made.remove(component.as_bytes()).unwrap();
    assert!(made.entries().unwrap().is_empty());
}

#[test]
fn a_named_path_is_followed_and_nothing_below_it() {
    let (directory, _) = target();
    let path = directory.path();
    fs::create_dir(path.join("real")).unwrap();
    fs::write(path.join("real/file"), b"x").unwrap();
    symlink("real", path.join("to-dir")).unwrap();
    symlink("to-dir/file", path.join("to-file")).unwrap();
    symlink("loop", path.join("loop")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();

    let source = SourceDir::open(path).unwrap();
    assert!(was_replaced(&source.open_child(b"to-dir").unwrap_err()));
    assert!(was_replaced(&source.open_file(b"to-file").unwrap_err()));
    assert_eq!(names(&SourceDir::open(&path.join("to-dir")).unwrap().entries().unwrap()), [b"file"]);
    match SourceDir::locate(&path.join("to-file")).unwrap() {
        Located::Entry { dir, name, stat } => {
            assert_eq!((&name[..], stat.size), (&b"file"[..], 1));
            assert!(dir.open_file(&name).is_ok());
        }
        Located::Dir(_) => panic!("it is a file"),
    }
    for directory in ["to-dir", "to-dir/", "real/.", "real/.."] {
        assert!(matches!(SourceDir::locate(&path.join(directory)), Ok(Located::Dir(_))), "{directory}");
    }
    assert!(SourceDir::locate(&path.join("to-file/")).is_err());
    assert!(SourceDir::locate(&path.join("loop")).is_err());
    assert_eq!(SourceDir::locate(&path.join("dangling")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(matches!(SourceDir::locate("/".as_ref()), Ok(Located::Dir(_))));
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hang() {
    let (_directory, made) = target();
    made.create_file(b"entry").unwrap();
    let source = made.as_source();
    assert_eq!(source.entries().unwrap()[0].as_ref().unwrap().stat.kind, FileType::File);
    made.remove(b"entry").unwrap();
    made.mknod(b"entry", &node("entry", NodeKind::Fifo, 0o600)).unwrap();
    let error = within_seconds(10, move || source.open_file(b"entry")).unwrap_err();
    assert!(was_replaced(&error), "{error}");
    let error = within_seconds(10, move || made.open_existing(b"entry")).unwrap_err();
    assert!(was_replaced(&error), "{error}");
}

#[test]
fn a_link_in_place_of_a_directory_is_never_followed() {
    let (directory, made) = target();
    let (outside, _) = target();
    fs::write(outside.path().join("secret"), b"x").unwrap();
    fs::create_dir(directory.path().join("inner")).unwrap();
    symlink(outside.path(), directory.path().join("link")).unwrap();
    let outside = SourceDir::open(outside.path()).unwrap().stat().unwrap();
    let root = fs::File::open(directory.path()).unwrap();
    let done = AtomicBool::new(false);
    let (mut refused, mut followed) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(&root, "inner", &root, "link", RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..20_000 {
            let opened = made.as_source().open_child(b"inner").and_then(|opened| opened.stat());
            let reached = made.make_child(b"inner").and_then(|(opened, _)| opened.stat());
            for result in [opened, reached] {
                match result {
                    Ok(stat) => followed += usize::from(stat.is_same_file(&outside)),
                    Err(error) => refused += usize::from(was_replaced(&error)),
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(followed, 0);
    assert!(refused > 0, "the race was never met");
}

#[test]
fn attributes_are_read_from_every_type() {
    let (directory, made) = target();
    let path = directory.path();
    fs::write(path.join("file"), b"").unwrap();
    fs::create_dir(path.join("dir")).unwrap();
    symlink("file", path.join("link")).unwrap();
    made.mknod(b"pipe", &node("pipe", NodeKind::Fifo, 0o600)).unwrap();
    let large = vec![b'v'; 3000];
    for name in ["file", "dir"] {
        set_xattr(&path.join(name), "user.b", &large);
        set_xattr(&path.join(name), "user.a", b"");
        set_xattr(&path.join(name), "system.posix_acl_access", &acl());
    }
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.into() };
    let expected = [xattr("system.posix_acl_access", &acl()), xattr("user.a", b""), xattr("user.b", &large)];
    let source = SourceDir::open(path).unwrap();
    assert_eq!(source.xattrs_child(b"file").unwrap(), expected);
    assert_eq!(source.xattrs_child(b"dir").unwrap(), expected);
    assert_eq!(source.open_file(b"file").unwrap().xattrs().unwrap(), expected);
    assert_eq!(source.open_child(b"dir").unwrap().xattrs().unwrap(), expected);
    assert_eq!(SourceDir::open_search(&path.join("dir")).unwrap().xattrs().unwrap(), expected);
    assert_eq!(source.xattrs_child(b"link").unwrap(), [], "not those of its target");
    assert_eq!(source.xattrs_child(b"pipe").unwrap(), []);
    assert_eq!(SourceDir::open("/proc/self".as_ref()).unwrap().xattrs().unwrap(), [], "none supported");
    if is_root() {
        set_xattr(&path.join("link"), "trusted.of_the_link", b"1");
        assert_eq!(source.xattrs_child(b"link").unwrap(), [xattr("trusted.of_the_link", b"1")]);
    }
}

#[test]
fn more_attributes_than_a_small_buffer_holds_are_read() {
    let (directory, made) = target();
    made.create_file(b"file").unwrap();
    for number in 0..40 {
        let name = format!("user.{}{number:03}", "n".repeat(40));
        set_xattr(&directory.path().join("file"), &name, b"v");
    }
    let found = made.as_source().xattrs_child(b"file").unwrap();
    assert_eq!(found.len(), 40);
    assert!(found.is_sorted());
}

#[test]
fn holes_are_found_and_the_count_is_bounded() {
    const MIB: u64 = 1 << 20;
    let (directory, made) = target();
    let file = fs::File::create(directory.path().join("sparse")).unwrap();
    for segment in [2_u64, 5, 7] {
        file.write_all_at(&[1; 4096], segment * MIB).unwrap();
    }
    file.set_len(10 * MIB).unwrap();
    file.sync_all().unwrap();
    let opened = made.as_source().open_file(b"sparse").unwrap();
    assert!(opened.opened_stat().may_have_holes());
    let found = opened.data_extents(10 * MIB, 100).unwrap();
    assert_eq!(found, [(2 * MIB, 4096), (5 * MIB, 4096), (7 * MIB, 4096)]);
    assert_eq!(opened.data_extents(10 * MIB, 2).unwrap(), [(2 * MIB, 4096), (5 * MIB, 5 * MIB)]);
    assert_eq!(opened.data_extents(6 * MIB, 100).unwrap(), [(2 * MIB, 4096), (5 * MIB, 4096)]);
    file.set_len(0).unwrap();
    assert_eq!(opened.data_extents(10 * MIB, 100).unwrap(), []);

    let made = made.create_file(b"punched").unwrap();
    made.write_at(&vec![1; 3 * 65536], 0).unwrap();
    made.punch_hole(65536, 65536).unwrap();
    made.sync().unwrap();
    assert_eq!(made.data_extents(3 * 65536, 9).unwrap(), [(0, 65536), (2 * 65536, 65536)]);
}

#[test]
fn reading_fills_the_buffer_and_stops_at_the_end() {
    let (directory, made) = target();
    let content: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    fs::write(directory.path().join("file"), &content).unwrap();
    let file = made.as_source().open_file(b"file").unwrap();
    file.advise_sequential();
    let mut buffer = vec![0; 150_000];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 150_000);
    assert_eq!(buffer, content[..150_000]);
    assert_eq!(file.read_at(&mut buffer, 150_000).unwrap(), 50_000);
    assert_eq!(buffer[..50_000], content[150_000..]);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    assert!(file.is_cached(0));
    file.drop_cache(0, 200_000);
    assert_eq!(file.stat().unwrap(), *file.opened_stat());
    fs::write(directory.path().join("file"), b"other").unwrap();
    assert_ne!(file.stat().unwrap(), *file.opened_stat());
}

#[test]
fn what_denies_itself_is_an_error_of_its_own() {
    let (directory, made) = target();
    let path = directory.path();
    fs::create_dir_all(path.join("unsearchable/dir")).unwrap();
    fs::create_dir(path.join("unreadable")).unwrap();
    fs::write(path.join("file"), b"").unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("unsearchable", 0o600);
    set("unreadable", 0o300);
    set("file", 0);
    let source = made.as_source();
    assert_eq!(source.entries().unwrap().iter().flatten().count(), 3);
    let listed = source.open_child(b"unsearchable").unwrap().entries().unwrap();
    let unreadable = source.open_child(b"unreadable");
    let file = source.open_file(b"file");
    if is_root() {
        assert!(listed[0].is_ok() && unreadable.is_ok() && file.is_ok());
    } else {
        let (name, error) = listed[0].as_ref().unwrap_err();
        assert_eq!((&name[..], error.kind()), (&b"dir"[..], io::ErrorKind::PermissionDenied));
        assert_eq!(unreadable.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(file.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let search = SourceDir::open_search(&path.join("unreadable")).unwrap();
        assert_eq!(search.stat().unwrap().mode, 0o300);
        assert_eq!(search.xattrs().unwrap(), []);
    }
    set("unsearchable", 0o700);
}

#[test]
fn what_vanishes_is_not_found() {
    let (directory, made) = target();
    fs::create_dir(directory.path().join("dir")).unwrap();
    let dir = made.as_source().open_child(b"dir").unwrap();
    assert!(dir.entries().unwrap().is_empty());
    fs::remove_dir(directory.path().join("dir")).unwrap();
    assert!(dir.entries().unwrap().is_empty());
    for error in [
        made.as_source().open_child(b"dir").unwrap_err(),
        made.as_source().open_file(b"dir").unwrap_err(),
        made.as_source().stat_child(b"dir").unwrap_err(),
        made.as_source().xattrs_child(b"dir").unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!was_replaced(&error));
    }
}

#[test]
fn many_threads_may_list_one_handle() {
    let (_directory, made) = target();
    for number in 0..3000 {
        made.create_file(format!("{number:04}").as_bytes()).unwrap();
    }
    let source = made.as_source();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(source.clone().entries().unwrap().len(), 3000);
                }
            });
        }
    });
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
    let limit = snap_source::raise_open_files_limit().unwrap();
    assert_eq!(snap_source::raise_open_files_limit().unwrap(), limit);
    assert_eq!(
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX),
        limit
    );
}
