//! The file system asked directly, as the kernel asks it: these tests need no FUSE, so they run on any machine.

mod content;
mod entries;
mod forged;
mod lists;
mod stores;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use snap_mount::testing::{Attr, Entry, Inside, ROOT, Told};
use snap_mount::{MountOptions, Shown};
use snap_repo::Repository;

use crate::common::Lab;
use crate::{Ear, latest, options};

/// Far longer than anything takes that comes at all.
pub const SOON: Duration = Duration::from_secs(60);

pub const EIO: i32 = 5;

/// What would be mounted of a lab.
pub struct Bed {
    pub inside: Inside,
    pub ear: Arc<Ear>,
}

impl Bed {
    /// The latest snapshot.
    pub fn new(lab: &Lab) -> Self {
        Self::with(lab, latest, &options())
    }

    pub fn with(lab: &Lab, shown: impl FnOnce(&Repository) -> Shown, options: &MountOptions) -> Self {
        let (repository, ear) = (lab.repository(), Arc::new(Ear::default()));
        let shown = shown(&repository);
        let inside = Inside::start(&repository, shown, options, Arc::clone(&ear) as _).unwrap();
        Self { inside, ear }
    }

    /// What a path below `from` leads to; links are not followed.
    pub fn below(&self, from: u64, path: &Path) -> Attr {
        let mut found = self.inside.attr(from).unwrap();
        for name in path.strip_prefix("/").unwrap_or(path) {
            let entry = self.inside.lookup(found.inode, name.as_bytes()).unwrap();
            found = entry.unwrap_or_else(|| panic!("no {name:?} of {}", path.display()));
        }
        found
    }

    /// What a path below the root leads to.
    pub fn find(&self, path: impl AsRef<Path>) -> Attr {
        self.below(ROOT, path.as_ref())
    }

    /// A whole directory, in pages of so many entries, without `.` and `..`.
    pub fn list(&self, inode: u64, room: usize) -> Vec<Entry> {
        let mut out: Vec<Entry> = Vec::new();
        loop {
            let page = self.inside.page(inode, out.last().map_or(0, |entry| entry.next), room).unwrap();
            if page.is_empty() {
                return out.split_off(2);
            }
            out.extend(page);
        }
    }

    /// The names in a directory.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = self.list(self.find(path).inode, 100).into_iter();
        entries.map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    }

    /// Begins to read; the answer comes some time.
    pub fn ask(&self, inode: u64, offset: u64, size: u32) -> Receiver<Told<Vec<u8>>> {
        let (sender, receiver) = channel();
        let reply = move |bytes: Told<&[u8]>| drop(sender.send(bytes.map(<[u8]>::to_vec)));
        self.inside.read(inode, offset, size, reply);
        receiver
    }

    pub fn read(&self, inode: u64, offset: u64, size: u32) -> Told<Vec<u8>> {
        self.ask(inode, offset, size).recv_timeout(SOON).expect("an answer comes")
    }
}
