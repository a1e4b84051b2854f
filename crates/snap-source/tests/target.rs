//! Restoring: what is made, what is replaced, and that metadata arrives in the order that keeps it.

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use common::{acl, dir_kind, file_kind, is_root, kind_of, names, node, node_of, set_xattr, target};
use snap_format::{NodeKind, Time, Xattr};
use snap_source::{ApplyNote, ApplyOptions, FileType, Names, TargetDir};

fn whats(notes: &[ApplyNote]) -> Vec<&str> {
    notes.iter().map(|note| &*note.what).collect()
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.into(), value: value.into() }
}

#[test]
fn missing_parents_are_made_and_links_in_the_given_path_followed() {
    let (directory, _) = target();
    let path = directory.path();
    fs::create_dir(path.join("real")).unwrap();
    symlink("real", path.join("link")).unwrap();
    let (made, created) = TargetDir::open_or_create(&path.join("link/a//b/"), 0o700).unwrap();
    assert!(created && path.join("real/a/b").is_dir());
    let (again, created) = TargetDir::open_or_create(&path.join("real/a/b"), 0o700).unwrap();
    assert!(!created && made.stat().unwrap().is_same_file(&again.stat().unwrap()));
    fs::write(path.join("file"), b"").unwrap();
    for blocked in ["file", "file/below"] {
        let error = TargetDir::open_or_create(&path.join(blocked), 0o700).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}

#[test]
fn directories_are_entered_or_made_and_nothing_else_passes_for_one() {
    let (directory, made) = target();
    fs::create_dir(directory.path().join("real")).unwrap();
    symlink("real", directory.path().join("link")).unwrap();
    fs::write(directory.path().join("file"), b"").unwrap();
    assert!(!made.make_child(b"real").unwrap().1);
    let (new, created) = made.make_child(b"new").unwrap();
    assert!(created);
    assert_eq!(new.stat().unwrap().mode, 0o700);
    for name in [&b"link"[..], b"file"] {
        assert_eq!(made.make_child(name).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(made.open_child(name).is_err());
    }
    assert!(made.stat_child(b"nothing").unwrap().is_none());
}

#[test]
fn files_are_made_once_and_written_in_place() {
    let (directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    assert_eq!(file.stat().unwrap().mode, 0o600);
    assert_eq!(made.create_file(b"file").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    file.preallocate(1 << 20).unwrap();
    assert_eq!(file.stat().unwrap().size, 0);
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello ", 0).unwrap();
    file.set_len(20).unwrap();
    let again = made.open_existing(b"file").unwrap();
    let mut buffer = [1; 30];
    assert_eq!(again.read_at(&mut buffer, 0).unwrap(), 20);
    assert_eq!(&buffer[..20], b"hello world\0\0\0\0\0\0\0\0\0");
    again.sync().unwrap();
    made.sync().unwrap();

    made.link(b"file", &made, b"other").unwrap();
    assert_eq!(made.open_existing(b"file").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    made.open_existing_linked(b"file").unwrap().write_at(b"H", 0).unwrap();
    assert_eq!(fs::read(directory.path().join("other")).unwrap()[0], b'H');
    symlink("other", directory.path().join("link")).unwrap();
    assert!(made.open_existing(b"link").is_err());
    assert!(made.create_file(b"link").is_err());
}

#[test]
fn a_full_disk_says_so_before_anything_is_written() {
    let (_directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    assert_eq!(file.preallocate(1 << 60).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.stat().unwrap().allocated_bytes, 0);
}

#[test]
fn a_read_only_file_of_ones_own_can_be_rewritten() {
    let (directory, made) = target();
    let path = directory.path().join("file");
    fs::write(&path, b"old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    made.open_existing(b"file").unwrap().write_at(b"new", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");

    fs::create_dir(directory.path().join("dir")).unwrap();
    fs::set_permissions(directory.path().join("dir"), fs::Permissions::from_mode(0o050)).unwrap();
    let granted = made.grant_owner(b"dir").unwrap();
    assert_eq!(granted, (!is_root()).then_some(0o050));
    made.open_child(b"dir").unwrap().create_file(b"inside").unwrap();
    assert_eq!(made.grant_owner(b"dir").unwrap(), None);
}

#[test]
fn every_type_is_made() {
    let (_directory, made) = target();
    let (dir, _) = made.make_child(b"dir").unwrap();
    made.symlink(b"../\xff\n", b"link").unwrap();
    assert_eq!(made.as_source().read_link(b"link").unwrap(), b"../\xff\n");
    made.mknod(b"pipe", &node("pipe", NodeKind::Fifo, 0o640)).unwrap();
    made.create_file(b"file").unwrap();
    made.link(b"file", &dir, b"linked").unwrap();
    let (one, two) =
        (made.stat_child(b"file").unwrap().unwrap(), dir.stat_child(b"linked").unwrap().unwrap());
    assert!(one.is_same_file(&two) && one.links == 2);
    made.rename(b"file", &dir, b"linked-not").unwrap();
    assert!(made.stat_child(b"file").unwrap().is_none());
    assert_eq!(
        made.mknod(b"x", &node("x", file_kind(0), 0)).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    let devices = [
        (&b"char"[..], NodeKind::CharDevice { major: 1, minor: 3 }, FileType::CharDevice),
        (b"block", NodeKind::BlockDevice { major: 259, minor: 70_000 }, FileType::BlockDevice),
    ];
    for (name, kind, expected) in devices {
        let device = node("device", kind.clone(), 0o640);
        let result = made.mknod(name, &device);
        if is_root() {
            result.unwrap();
            assert!(made.apply_child(name, &device, &ApplyOptions::default()).is_empty());
            let stat = made.stat_child(name).unwrap().unwrap();
            assert_eq!((stat.kind, stat.mode, stat.mtime), (expected, 0o640, device.mtime));
            assert!(matches!(kind, NodeKind::CharDevice { major, minor }
                | NodeKind::BlockDevice { major, minor } if (major, minor) == stat.rdev));
        } else {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }
}

#[test]
fn removal_takes_everything_below_and_nothing_beside() {
    let (directory, made) = target();
    let (outside, kept) = target();
    kept.create_file(b"kept").unwrap();
    let (dir, _) = made.make_child(b"dir").unwrap();
    symlink(outside.path(), directory.path().join("dir/link")).unwrap();
    for name in [&b"a"[..], b"b", b"c"] {
        let (inner, _) = dir.make_child(name).unwrap();
        inner.create_file(b"file").unwrap();
        inner.make_child(b"deeper").unwrap().0.create_file(b"file").unwrap();
    }
    fs::set_permissions(directory.path().join("dir/b"), fs::Permissions::from_mode(0o000)).unwrap();
    made.create_file(b"file").unwrap();
    symlink(outside.path(), directory.path().join("link")).unwrap();
    for name in [&b"dir"[..], b"file", b"link"] {
        made.remove(name).unwrap();
    }
    assert_eq!(made.remove(b"dir").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(made.entries().unwrap().is_empty());
    assert_eq!(names(&kept.entries().unwrap()), [b"kept"]);
}

#[test]
fn removal_is_not_bounded_by_open_files() {
    let (_directory, made) = target();
    let mut at = made.clone();
    for _ in 0..1500 {
        at.create_file(b"f").unwrap();
        at = at.make_child(b"d").unwrap().0;
    }
    drop(at);
    made.remove(b"d").unwrap();
    assert_eq!(names(&made.entries().unwrap()), [b"f"]);
}

#[test]
fn times_survive_far_from_now() {
    let (_directory, made) = target();
    let options = ApplyOptions::default();
    let file = made.create_file(b"file").unwrap();
    made.symlink(b"file", b"link").unwrap();
    let (dir, _) = made.make_child(b"dir").unwrap();
    made.mknod(b"pipe", &node("pipe", NodeKind::Fifo, 0o600)).unwrap();
    for mtime in [Time::new(-1_000_000_000, 999_999_999), Time::new(5_000_000_000, 1), Time::new(0, 0)] {
        let with_time = |kind, mode| {
            let mut node = node("x", kind, mode);
            node.mtime = mtime;
            node
        };
        let target = NodeKind::Symlink { target: b"file".to_vec() };
        assert!(file.apply(&with_time(file_kind(0), 0o644), &options).is_empty());
        assert!(made.apply_child(b"link", &with_time(target, 0o777), &options).is_empty());
        assert!(dir.apply_self(&with_time(dir_kind(), 0o755), &options).is_empty());
        assert!(made.apply_child(b"pipe", &with_time(NodeKind::Fifo, 0o622), &options).is_empty());
        for name in [&b"file"[..], b"link", b"dir", b"pipe"] {
            assert_eq!(made.stat_child(name).unwrap().unwrap().mtime, mtime);
        }
    }
    assert_eq!(made.stat_child(b"pipe").unwrap().unwrap().mode, 0o622);
}

#[test]
fn a_set_id_bit_survives_the_change_of_owner_that_clears_it() {
    let (_directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    let mut wanted = node("file", file_kind(0), 0o6755);
    assert!(file.apply(&wanted, &ApplyOptions::default()).is_empty());
    assert_eq!(file.stat().unwrap().mode, 0o6755);

    (wanted.uid, wanted.gid) = (12_345, 54_321);
    let notes = file.apply(&wanted, &ApplyOptions::default());
    let stat = file.stat().unwrap();
    if is_root() {
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!((stat.uid, stat.gid, stat.mode), (12_345, 54_321, 0o6755));
    } else {
        assert_eq!(whats(&notes), ["owner", "set-id bits"]);
        assert_eq!((stat.mode, stat.mtime), (0o755, wanted.mtime));
    }
}

#[test]
fn a_set_id_bit_is_not_lent_to_another_owner() {
    let (_directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    let mut wanted = node("file", file_kind(0), 0o6711);
    wanted.uid += 1;
    let options = ApplyOptions { owner: false, ..ApplyOptions::default() };
    let notes = file.apply(&wanted, &options);
    assert_eq!(whats(&notes), ["set-id bits"]);
    assert_eq!(file.stat().unwrap().mode, 0o2711);

    let mut wanted = node("dir", dir_kind(), 0o2775);
    wanted.uid += 1;
    let (dir, _) = made.make_child(b"dir").unwrap();
    assert!(dir.apply_self(&wanted, &options).is_empty(), "on a directory it lends nothing");
    assert_eq!(dir.stat().unwrap().mode, 0o2775);
}

#[test]
fn owners_go_by_name_where_the_name_is_known() {
    let mut wanted = node("x", NodeKind::Fifo, 0o600);
    (wanted.uid, wanted.gid) = (70_001, 70_002);
    wanted.user = Some("root".into());
    wanted.group = Some("no such group".into());
    let names = Some(Arc::new(Names::new()));
    assert_eq!(ApplyOptions { names, ..ApplyOptions::default() }.owner_of(&wanted), (0, 70_002));
    assert_eq!(ApplyOptions::default().owner_of(&wanted), (70_001, 70_002));
}

#[test]
fn the_owner_of_a_link_is_its_own() {
    let (_directory, made) = target();
    made.create_file(b"file").unwrap();
    made.symlink(b"file", b"link").unwrap();
    let mut wanted = node("link", NodeKind::Symlink { target: b"file".to_vec() }, 0o777);
    wanted.uid = 4321;
    let notes = made.apply_child(b"link", &wanted, &ApplyOptions::default());
    let owner = |name| made.stat_child(name).unwrap().unwrap().uid;
    assert_eq!(whats(&notes), if is_root() { vec![] } else { vec!["owner"] });
    assert_eq!(owner(b"link") == 4321, is_root());
    assert_ne!(owner(b"file"), 4321);
    wanted.uid = u32::MAX;
    assert_eq!(whats(&made.apply_child(b"link", &wanted, &ApplyOptions::default())), ["owner"]);
}

#[test]
fn attributes_are_set_before_the_mode_forbids_it() {
    let (_directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    let (dir, _) = made.make_child(b"dir").unwrap();
    let xattrs = vec![xattr("system.posix_acl_access", &acl()), xattr("user.a", b""), xattr("user.b", b"1")];
    for round in 0..2 {
        let mut wanted = node("file", file_kind(0), 0o440);
        wanted.xattrs = xattrs.clone();
        let notes = if round == 0 {
            file.apply(&wanted, &ApplyOptions::default())
        } else {
            // The mode forbids writing by now.
            wanted.xattrs[2].value = b"2".to_vec();
            made.apply_child(b"file", &wanted, &ApplyOptions::default())
        };
        assert!(notes.is_empty(), "{notes:?}");
        let stat = file.stat().unwrap();
        assert_eq!((stat.mode, stat.mtime), (0o440, wanted.mtime));
        let found = made.as_source().xattrs_child(b"file").unwrap();
        assert_eq!(found[1..], wanted.xattrs[1..]);
    }
    let mut wanted = node("dir", dir_kind(), 0o555);
    wanted.xattrs = xattrs;
    wanted.xattrs.insert(1, xattr("system.posix_acl_default", &acl()));
    assert!(dir.apply_self(&wanted, &ApplyOptions::default()).is_empty());
    assert_eq!(dir.as_source().xattrs().unwrap().len(), 4);
}

#[test]
fn attributes_that_the_node_lacks_go_when_asked_and_acls_always() {
    let (directory, made) = target();
    set_xattr(directory.path(), "system.posix_acl_default", &acl());
    let file = made.create_file(b"file").unwrap();
    let path = directory.path().join("file");
    set_xattr(&path, "user.extra", b"1");
    set_xattr(&path, "user.same", b"1");
    let mut wanted = node("file", file_kind(0), 0o664);
    wanted.xattrs = vec![xattr("user.same", b"1")];
    assert_eq!(made.as_source().xattrs_child(b"file").unwrap().len(), 3, "the ACL is inherited");
    let left_alone = ApplyOptions { xattrs: false, ..ApplyOptions::default() };
    assert!(file.apply(&wanted, &left_alone).is_empty());
    assert_eq!(made.as_source().xattrs_child(b"file").unwrap().len(), 3);
    assert!(file.apply(&wanted, &ApplyOptions::default()).is_empty());
    let found = made.as_source().xattrs_child(b"file").unwrap();
    assert_eq!(found, [xattr("user.extra", b"1"), xattr("user.same", b"1")]);
    assert_eq!(file.stat().unwrap().mode, 0o664);
    let all = ApplyOptions { remove_xattrs: true, ..ApplyOptions::default() };
    assert!(made.apply_child(b"file", &wanted, &all).is_empty());
    assert_eq!(made.as_source().xattrs_child(b"file").unwrap(), wanted.xattrs);
}

#[test]
fn an_attribute_that_may_not_be_set_is_a_note() {
    let (_directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    let mut wanted = node("file", file_kind(0), 0o644);
    wanted.xattrs = vec![xattr("trusted.x", b"1"), xattr("unheard.of", b"1"), xattr("user.x", b"1")];
    let notes = file.apply(&wanted, &ApplyOptions::default());
    let expected =
        if is_root() { vec!["xattr unheard.of"] } else { vec!["xattr trusted.x", "xattr unheard.of"] };
    assert_eq!(whats(&notes), expected);
    assert!(made.as_source().xattrs_child(b"file").unwrap().contains(&wanted.xattrs[2]));
    assert_eq!(file.stat().unwrap().mtime, wanted.mtime);

    made.symlink(b"file", b"link").unwrap();
    let mut link = node("link", NodeKind::Symlink { target: b"file".to_vec() }, 0o777);
    link.xattrs = vec![xattr("trusted.x", b"2")];
    let notes = made.apply_child(b"link", &link, &ApplyOptions::default());
    if is_root() {
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(made.as_source().xattrs_child(b"link").unwrap(), link.xattrs);
    } else {
        assert_eq!(whats(&notes), ["xattr trusted.x"]);
    }
}

#[test]
fn what_is_as_it_should_be_is_not_touched() {
    let (_directory, made) = target();
    let file = made.create_file(b"file").unwrap();
    let mut wanted = node("file", file_kind(0), 0o644);
    wanted.xattrs = vec![xattr("user.a", b"1")];
    assert!(file.apply(&wanted, &ApplyOptions::default()).is_empty());
    let before = file.stat().unwrap();
    assert!(file.apply(&wanted, &ApplyOptions::default()).is_empty());
    assert!(made.apply_child(b"file", &wanted, &ApplyOptions::default()).is_empty());
    assert_eq!(file.stat().unwrap(), before, "the time of change included");
}

#[test]
fn a_node_is_not_applied_to_something_of_another_type() {
    let (directory, made) = target();
    let (outside, _) = target();
    let before = fs::metadata(outside.path()).unwrap().permissions().mode();
    symlink(outside.path(), directory.path().join("entry")).unwrap();
    let notes = made.apply_child(b"entry", &node("entry", dir_kind(), 0o777), &ApplyOptions::default());
    assert_eq!(whats(&notes), ["type"]);
    assert_eq!(fs::metadata(outside.path()).unwrap().permissions().mode(), before);
    let notes = made.apply_child(b"gone", &node("gone", file_kind(0), 0o777), &ApplyOptions::default());
    assert_eq!(notes[0].error.kind(), io::ErrorKind::NotFound);
    assert_eq!(kind_of(&made, b"entry"), FileType::Symlink);
    let stat = made.stat().unwrap();
    assert!(made.apply_self(&node_of("root", &stat, dir_kind()), &ApplyOptions::default()).is_empty());
}

#[test]
fn what_a_removal_would_take_is_summed_up() {
    let (directory, made) = target();
    let path = directory.path();
    let nobody = Default::default();
    fs::create_dir_all(path.join("doomed/below")).unwrap();
    for (name, time) in [("doomed/old", 1_000), ("doomed/below/new", 3_000)] {
        let file = fs::File::create(path.join(name)).unwrap();
        io::Write::write_all(&mut &file, b"12345").unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time)).unwrap();
    }
    let survey = |name: &[u8]| made.survey_removal(name, Time::new(2_000, 0), &nobody);
    let found = survey(b"doomed").unwrap();
    assert_eq!((found.entries, found.newer, found.bytes), (4, 1, 10));
    assert_eq!(survey(b"doomed").unwrap(), found);
    // A link is itself, wherever it leads.
    symlink("doomed", path.join("link")).unwrap();
    assert_eq!(survey(b"link").unwrap().entries, 1);
    assert_eq!(survey(b"nothing").unwrap_err().kind(), io::ErrorKind::NotFound);
    // Whatever comes, goes or is edited shows.
    fs::write(path.join("doomed/below/more"), b"").unwrap();
    let more = survey(b"doomed").unwrap();
    assert_ne!(more.digest, found.digest);
    fs::remove_file(path.join("doomed/below/more")).unwrap();
    assert_eq!(survey(b"doomed").unwrap().digest, found.digest);
    fs::write(path.join("doomed/old"), b"54321").unwrap();
    assert_ne!(survey(b"doomed").unwrap().digest, found.digest);
    // What is protected protects all that it is in.
    let below = fs::metadata(path.join("doomed/below")).unwrap();
    let inode = (std::os::unix::fs::MetadataExt::dev(&below), std::os::unix::fs::MetadataExt::ino(&below));
    let refused = made.survey_removal(b"doomed", Time::default(), &[inode].into());
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
}

#[test]
fn what_is_unfinished_says_so_until_it_is_done() {
    let (_directory, made) = target();
    assert!(!made.is_unfinished(b"this"));
    made.set_unfinished(b"this");
    assert!(made.is_unfinished(b"this") && !made.is_unfinished(b"that"));
    made.set_finished();
    assert!(!made.is_unfinished(b"this"));
    let file = made.create_file(b"file").unwrap();
    let is_unfinished = || made.as_source().open_file(b"file").unwrap().is_unfinished();
    assert!(!is_unfinished());
    file.set_unfinished();
    assert!(is_unfinished());
    let options = ApplyOptions { remove_xattrs: true, ..ApplyOptions::default() };
    assert_eq!(whats(&file.apply(&node("file", file_kind(0), 0o644), &options)), [""; 0]);
    assert!(!is_unfinished());
}
