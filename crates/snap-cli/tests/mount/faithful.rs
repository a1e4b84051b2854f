//! What is seen through the mount is what was backed up.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{SeekFrom, XattrFlags};

use crate::common::compare::{Leeway, assert_same};
use crate::common::{Lab, odd};
use crate::{all, can_mount, mount_latest, mount_over};

const EXACT: Leeway = Leeway { owners: false, holes: false, roots: false, dir_times: false };

/// Removes what a temporary directory cannot remove by path.
pub struct Deep(pub std::path::PathBuf);

impl Drop for Deep {
    fn drop(&mut self) {
        odd::remove_deep(&self.0, "d".repeat(250).as_bytes());
    }
}

#[test]
fn a_tree_of_everything_is_as_it_was() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    odd::make_ordinary(&lab.source(""));
    odd::make_many(&lab.source(""), 5000);
    if odd::is_root() {
        odd::make_privileged(&lab.source(""));
    }
    let _deep = Deep(lab.source(""));
    lab.backup();
    let (mounted, top) = mount_latest(&lab);
    assert_same(&lab.source(""), &top, EXACT);
    // Once more, from what is cached by now.
    assert_same(&lab.source(""), &top, EXACT);
    assert_eq!(mounted.ear.heard(), [""; 0]);
}

#[test]
fn attributes_that_a_comparison_of_trees_leaves_out() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let source = lab.source("");
    std::fs::write(source.join("a"), b"three names").unwrap();
    std::fs::create_dir(source.join("sub")).unwrap();
    std::fs::hard_link(source.join("a"), source.join("b")).unwrap();
    std::fs::hard_link(source.join("a"), source.join("sub/c")).unwrap();
    odd::set_time(&source.join("a"), -86_401, 999_999_999);
    odd::sparse(
        &source.join("holes"),
        6 << 20,
        &[(1 << 20, odd::noise(1, 1 << 20)), (4 << 20, odd::noise(2, 5000))],
    );
    let acl = odd::acl(12_345);
    std::fs::write(source.join("acl"), b"x").unwrap();
    odd::set_xattr(&source.join("acl"), "system.posix_acl_access", &acl);
    odd::set_xattr(&source.join("acl"), "user.empty", b"");
    if odd::is_root() {
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o620));
        let number = rustix::fs::makedev(259, 70_000);
        rustix::fs::mknodat(rustix::fs::CWD, source.join("device"), kind, mode, number).unwrap();
        odd::set_mode(&source.join("device"), 0o620);
    }
    lab.backup();
    let (_mounted, top) = mount_latest(&lab);
    let stat = |name: &str| top.join(name).symlink_metadata().unwrap();

    let [a, b, c] = ["a", "b", "sub/c"].map(stat);
    assert_eq!((a.ino(), a.ino()), (b.ino(), c.ino()));
    assert_eq!([a.nlink(), b.nlink(), c.nlink()], [3; 3]);
    assert_eq!((a.mtime(), a.mtime_nsec()), (-86_401, 999_999_999));
    assert_ne!(a.ino(), stat("acl").ino());

    if odd::is_root() {
        let device = stat("device");
        assert!(device.file_type().is_char_device());
        assert_eq!((device.rdev(), device.mode()), (rustix::fs::makedev(259, 70_000), 0o020_620));
    }

    let mut value = [0; 200];
    let length = rustix::fs::getxattr(top.join("acl"), "system.posix_acl_access", &mut value[..]).unwrap();
    assert_eq!(value[..length], acl);
    assert_eq!(rustix::fs::getxattr(top.join("acl"), "user.empty", &mut value[..]), Ok(0));
    assert_eq!(
        rustix::fs::getxattr(top.join("acl"), "user.x", &mut value[..]),
        Err(rustix::io::Errno::NODATA)
    );

    let places = |path: &Path| {
        let file = std::fs::File::open(path).unwrap();
        let mut found = Vec::new();
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
            found.push((data, at));
        }
        found
    };
    assert_eq!(places(&source.join("holes")), [(1 << 20, 2 << 20), (4 << 20, (4 << 20) + 8192)]);
    assert_eq!(places(&top.join("holes")), places(&source.join("holes")));
    assert!(stat("holes").blocks() * 512 < 2 << 20);
}

#[test]
fn nothing_can_be_written() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    std::fs::write(lab.source("a"), b"a").unwrap();
    lab.backup();
    let (_mounted, top) = mount_latest(&lab);
    let refused = |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(30), "{error}"); // EROFS
    refused(std::fs::write(top.join("new"), b"").unwrap_err());
    refused(std::fs::File::options().write(true).open(top.join("a")).unwrap_err());
    refused(std::fs::remove_file(top.join("a")).unwrap_err());
    refused(std::fs::create_dir(top.join("d")).unwrap_err());
    refused(std::fs::rename(top.join("a"), top.join("b")).unwrap_err());
    let set = rustix::fs::setxattr(top.join("a"), "user.x", b"", XattrFlags::empty());
    assert_eq!(set, Err(rustix::io::Errno::ROFS));
}

#[test]
fn inodes_stay_the_same_when_the_kernel_has_forgotten_them() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    odd::make_many(&lab.source(""), 300);
    lab.backup();
    let dir = lab.dir.path().join("mnt");
    let _mounted = mount_over(&lab.backend, &lab.secret, &dir, all);
    let inodes = || {
        let output =
            std::process::Command::new("find").arg(&dir).args(["-printf", "%i %p\n"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let before = inodes();
    assert!(before.lines().count() > 1200);
    // Where that is not allowed, the kernel has forgotten nothing, and `inside` alone tests it.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "2");
    assert_eq!(inodes(), before);
}
