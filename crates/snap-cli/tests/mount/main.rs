//! Real mounts, looked at by the programs that people use. Without /dev/fuse they fail: they are not skipped.
#![allow(clippy::unwrap_used, missing_docs)] // helpers of tests fail as tests do

#[path = "../../../snap-engine/tests/common/mod.rs"]
mod common;
mod faithful;
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
