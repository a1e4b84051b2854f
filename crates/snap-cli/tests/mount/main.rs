//! Mounts: real ones, looked at by the programs that people use, and what answers the kernel, asked directly. Where nothing can
//! be mounted the former fail, unless somebody who will say so sets `SNAP_TEST_NO_FUSE=1`.
#![allow(clippy::unwrap_used, missing_docs)] // helpers of tests fail as tests do

#[path = "../../../snap-engine/tests/common/mod.rs"]
mod common;
mod faithful;
mod inside;
mod lists;
mod program;
mod programs;
mod readers;
mod stores;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::Lab;
use snap_backend::Backend;
use snap_mount::{Mount, MountObserver, MountOptions, Shown};
use snap_repo::{Finding, Repository, Secret, SnapshotSet};

/// Whether this test is to mount something. It is, but where `scripts/test` has found that it cannot be.
pub fn can_mount() -> bool {
    if std::env::var_os("SNAP_TEST_NO_FUSE").is_some_and(|value| value == "1") {
        return false;
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        panic!(
            "no mount can be tested: /dev/fuse cannot be opened: {error}. A container needs --device /dev/fuse \
             --cap-add SYS_ADMIN; SNAP_TEST_NO_FUSE=1 leaves these tests out"
        );
    }
    true
}

/// Takes a mount away as a user would.
pub fn unmount(dir: &Path) {
    let (program, options) =
        if common::odd::is_root() { ("umount", &[][..]) } else { ("fusermount3", &["-u"][..]) };
    let status = std::process::Command::new(program).args(options).arg(dir).status().unwrap();
    assert!(status.success());
}

/// Keeps what it hears.
#[derive(Default)]
pub struct Ear(Mutex<Vec<String>>);

impl Ear {
    pub fn heard(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl MountObserver for Ear {
    fn finding(&self, finding: &Finding) {
        self.0.lock().unwrap().push(format!("finding {finding}"));
    }

    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(format!("warning {text}"));
    }
}

/// A mount, and what is said of it.
pub struct Mounted {
    pub mount: Mount,
    pub ear: Arc<Ear>,
}

pub fn options() -> MountOptions {
    MountOptions {
        cache: None,
        threads: 2,
        memory_bytes: 64 << 20,
        allow_other: false,
        check_permissions: false,
        auto_unmount: false,
    }
}

/// Mounts what is in a store.
pub fn mount_over(
    backend: &Arc<dyn Backend>,
    secret: &Secret,
    dir: &Path,
    shown: impl FnOnce(&Repository) -> Shown,
) -> Mounted {
    std::fs::create_dir_all(dir).unwrap();
    let repository = Repository::open(Arc::clone(backend), secret).unwrap();
    let ear = Arc::new(Ear::default());
    let shown = shown(&repository);
    let mount = Mount::start(&repository, shown, dir, &options(), Arc::clone(&ear) as _).unwrap();
    Mounted { mount, ear }
}

pub fn latest(repository: &Repository) -> Shown {
    Shown::One(Box::new(repository.snapshots().unwrap().snapshots.pop().unwrap()))
}

pub fn all(repository: &Repository) -> Shown {
    let repository = repository.clone();
    Shown::All(Box::new(move || repository.snapshots().map(|set: SnapshotSet| set)))
}

/// The latest snapshot of a lab, mounted; and where its source is in there.
pub fn mount_latest(lab: &Lab) -> (Mounted, PathBuf) {
    let dir = lab.dir.path().join("mnt");
    let mounted = mount_over(&lab.backend, &lab.secret, &dir, latest);
    let source = lab.source("");
    (mounted, dir.join(source.strip_prefix("/").unwrap()))
}
