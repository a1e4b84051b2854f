//! Names, attributes, directories.

use std::collections::{HashMap, HashSet};

use rustix::fs::FileType;
use snap_mount::testing::{Attr, Entry, ROOT};
use snap_source::SourceDir;

use super::Bed;
use crate::common::{Lab, odd};
use crate::faithful::Deep;

const ENOTDIR: i32 = 20;
const EINVAL: i32 = 22;
const ESTALE: i32 = 116;

/// What inode(7) calls the type.
fn kind(kind: snap_source::FileType) -> FileType {
    use snap_source::FileType as From;
    match kind {
        From::File => FileType::RegularFile,
        From::Dir => FileType::Directory,
        From::Symlink => FileType::Symlink,
        From::Fifo => FileType::Fifo,
        From::CharDevice => FileType::CharacterDevice,
        From::BlockDevice => FileType::BlockDevice,
        From::Socket => FileType::Socket,
    }
}

/// Compares a directory with what is answered, and all below it; says how many entries there are.
fn compare(bed: &Bed, source: &SourceDir, inode: u64) -> usize {
    let mut waiting = vec![(source.clone(), inode)];
    let (mut links, mut inodes) = (HashMap::new(), HashSet::new());
    let mut count = 0;
    while let Some((source, parent)) = waiting.pop() {
        let mut expected: Vec<_> = source.entries().unwrap().into_iter().map(|it| it.unwrap()).collect();
        expected.retain(|entry| entry.stat.kind != snap_source::FileType::Socket);
        let listed = bed.list(parent, 7);
        assert_eq!(listed.len(), expected.len());
        for (entry, in_list) in expected.iter().zip(&listed) {
            let (stat, name) = (&entry.stat, &entry.name);
            let shown = name.escape_ascii().to_string();
            assert_eq!(*name, in_list.name);
            let attr = bed.inside.lookup(parent, name).unwrap().expect(&shown);
            assert_eq!(bed.inside.attr(attr.inode), Ok(attr.clone()), "{shown}");
            // Perhaps the names of a file were not counted yet.
            assert_eq!(Attr { links: attr.links, ..in_list.attr.clone() }, attr, "{shown}");
            assert_eq!(FileType::from_raw_mode(attr.mode), kind(stat.kind), "{shown}");
            assert_eq!((attr.uid, attr.gid), (stat.uid, stat.gid), "{shown}");
            assert_eq!((attr.mode & 0o7777, attr.mtime), (stat.mode & 0o7777, stat.mtime), "{shown}");
            match stat.kind {
                snap_source::FileType::Dir => waiting.push((source.open_child(name).unwrap(), attr.inode)),
                snap_source::FileType::Symlink => {
                    let target = source.read_link(name).unwrap();
                    assert_eq!(attr.size, target.len() as u64, "{shown}");
                    assert_eq!(bed.inside.target(attr.inode), Ok(target), "{shown}");
                }
                snap_source::FileType::File => {
                    assert_eq!((attr.size, u64::from(attr.links)), (stat.size, stat.links), "{shown}");
                }
                _ => assert_eq!(
                    u64::from(attr.device),
                    rustix::fs::makedev(stat.rdev.0, stat.rdev.1),
                    "{shown}"
                ),
            }
            let xattrs = source.xattrs_child(name).unwrap().into_iter();
            let xattrs: Vec<_> = xattrs.map(|xattr| (xattr.name, xattr.value)).collect();
            assert_eq!(bed.inside.xattrs(attr.inode), Ok(xattrs), "{shown}");
            // Names of one file have one inode, and nobody else has it.
            let is_linked = stat.links > 1 && stat.kind == snap_source::FileType::File;
            let first = if is_linked { *links.entry(stat.inode).or_insert(attr.inode) } else { attr.inode };
            assert!(first == attr.inode && (inodes.insert(attr.inode) || is_linked), "{shown}");
            count += 1;
        }
    }
    count
}

#[test]
fn a_tree_of_everything_has_its_names_and_attributes() {
    let lab = Lab::new();
    odd::make_ordinary(&lab.source(""));
    odd::make_many(&lab.source(""), 3000);
    if odd::is_root() {
        odd::make_privileged(&lab.source(""));
    }
    let _deep = Deep(lab.source(""));
    lab.backup();
    let bed = Bed::new(&lab);
    let top = bed.find(lab.source("")).inode;
    let source = SourceDir::open(&lab.source("")).unwrap();
    assert!(compare(&bed, &source, top) > 3080);
    // Once more, from what is cached by now.
    assert!(compare(&bed, &source, top) > 3080);
    assert_eq!(bed.ear.heard(), [""; 0]);
}

#[test]
fn what_is_not_there() {
    let lab = Lab::new();
    std::fs::write(lab.source("b"), b"b").unwrap();
    std::fs::create_dir(lab.source("d")).unwrap();
    lab.backup();
    let bed = Bed::new(&lab);
    let top = bed.find(lab.source("")).inode;
    for name in [&b"a"[..], b"c", b"bb", b"B", b"", b"\xff", &[b'b'; 300]] {
        assert_eq!(bed.inside.lookup(top, name), Ok(None), "{}", name.escape_ascii());
    }
    let (file, dir) = (bed.find(lab.source("b")).inode, bed.find(lab.source("d")).inode);
    assert_eq!(bed.inside.lookup(file, b"x"), Err(ENOTDIR));
    assert_eq!(bed.inside.page(file, 0, 10), Err(ENOTDIR));
    assert_eq!(bed.inside.target(file), Err(EINVAL));
    assert_eq!(bed.list(dir, 10), []);
    // Inodes that nobody was given, one of them behind the last entry of a directory.
    for inode in [0, 99, 1 << 50, u64::MAX, file | 0x0fff_ff00] {
        assert_eq!(bed.inside.attr(inode), Err(ESTALE), "{inode:x}");
        assert_eq!(bed.inside.lookup(inode, b"x"), Err(ESTALE), "{inode:x}");
        assert_eq!(bed.inside.page(inode, 0, 10), Err(ESTALE), "{inode:x}");
    }
    assert_eq!(bed.ear.heard(), [""; 0]);
}

#[test]
fn a_directory_is_listed_from_any_place() {
    let lab = Lab::new();
    odd::make_many(&lab.source(""), 2500);
    lab.backup();
    let bed = Bed::new(&lab);
    let top = bed.find(lab.source("many")).inode;
    let expected: Vec<Vec<u8>> = (0..2500).map(|number| format!("entry {number:05}").into_bytes()).collect();
    let names = |entries: &[Entry]| entries.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    for room in [1, 3, 1000, 5000] {
        assert!(names(&bed.list(top, room)) == expected, "{room}");
    }
    // As after seekdir(3): each offset leads to what stood behind the entry that gave it.
    let whole = bed.list(top, 100);
    for at in [0, 1, 2, 17, 1023, 1024, 2047, 2400, 2499] {
        let next = bed.inside.page(top, whole[at].next, 1).unwrap();
        assert_eq!(next.first().map(|it| &it.name), expected.get(at + 1), "{at}");
    }
    assert_eq!(bed.inside.page(top, u64::MAX, 1), Ok(Vec::new()));
    let dots =
        |inode: u64| bed.inside.page(inode, 0, 2).unwrap().into_iter().map(|it| (it.name, it.attr.inode));
    let parent = bed.find(lab.source("")).inode;
    assert_eq!(dots(top).collect::<Vec<_>>(), [(b".".to_vec(), top), (b"..".to_vec(), parent)]);
    assert_eq!(dots(ROOT).collect::<Vec<_>>(), [(b".".to_vec(), ROOT), (b"..".to_vec(), ROOT)]);
}

#[test]
fn the_names_of_a_file_are_those_in_the_snapshot() {
    let lab = Lab::new();
    std::fs::write(lab.source("a"), b"three names").unwrap();
    std::fs::create_dir(lab.source("sub")).unwrap();
    for name in ["b", "sub/c"] {
        std::fs::hard_link(lab.source("a"), lab.source(name)).unwrap();
    }
    lab.backup();
    let bed = Bed::new(&lab);
    let all = ["sub/c", "a", "b"].map(|name| bed.find(lab.source(name)));
    assert!(all.iter().all(|attr| (attr.inode, attr.links) == (all[0].inode, 3)), "{all:?}");
    assert_eq!(bed.read(all[0].inode, 0, 100).unwrap(), b"three names");
    // A hard link still, but its other names are elsewhere.
    std::fs::rename(lab.source("sub"), lab.dir.path().join("elsewhere")).unwrap();
    std::fs::remove_file(lab.source("b")).unwrap();
    lab.backup();
    let bed = Bed::new(&lab);
    assert_eq!(bed.names(lab.source("")), ["a"]);
    assert_eq!(bed.find(lab.source("a")).links, 1);
}
