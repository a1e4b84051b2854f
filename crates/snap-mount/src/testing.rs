//! The file system without a kernel, for tests: asked as the kernel asks, on any machine.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType};
use snap_format::Time;
use snap_repo::Repository;

use crate::core::Found;
use crate::error::Reports;
use crate::fs::{SnapFs, each_entry};
use crate::store::Store;
use crate::{MountError, MountObserver, MountOptions, Shown};

/// What would be mounted. Its answers come as those to the kernel do: at once from memory, or from a thread that may wait
/// for the store. Errors are the system's numbers.
pub struct Inside(SnapFs);

/// The inode of the root.
pub const ROOT: u64 = crate::tops::ROOT;

/// What stat(2) says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as there")]
pub struct Attr {
    pub inode: u64,
    /// The type among it.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub device: u32,
    pub size: u64,
    pub blocks: u64,
    pub mtime: Time,
    pub ctime: Time,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub attr: Attr,
    /// The offset behind it.
    pub next: u64,
}

/// What is answered, or the number of an error.
pub type Told<T> = Result<T, i32>;

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inside")
    }
}

impl Inside {
    /// As [`crate::Mount::start`], without a directory.
    pub fn start(
        repository: &Repository,
        shown: Shown,
        options: &MountOptions,
        observer: Arc<dyn MountObserver>,
    ) -> Result<Self, MountError> {
        let store = Store::open(repository.clone(), options.cache.clone(), Reports::new(observer))?;
        let fs = crate::file_system(&Arc::new(store), shown, options)?;
        fs.map(Self).map_err(|source| MountError::Refused { dir: "nowhere".into(), source })
    }

    /// An entry by its name.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Told<Option<Attr>> {
        let name = name.to_vec();
        let ask = move |core: &crate::core::Core, load| core.lookup(parent, &name, load);
        match self.wait(|reply| self.0.answer((), ask, move |_, (), answer| reply(answer)))? {
            Found::Entry(attr, _) => Ok(Some(told(&attr))),
            Found::Nothing(_) => Ok(None),
        }
    }

    /// An inode's attributes.
    pub fn attr(&self, inode: u64) -> Told<Attr> {
        let ask = move |core: &crate::core::Core, load| core.attr(inode, load);
        let found = self.wait(|reply| self.0.answer((), ask, move |_, (), answer| reply(answer)))?;
        Ok(told(&found.0))
    }

    /// A page of a directory from `offset` on, as if there were room for so many entries.
    pub fn page(&self, inode: u64, offset: u64, room: usize) -> Told<Vec<Entry>> {
        let (sender, receiver) = channel();
        self.page_then(inode, offset, room, move |page| drop(sender.send(page)));
        receiver.recv().unwrap_or(Err(Errno::EIO.code()))
    }

    /// The same for who does not wait.
    pub fn page_then(
        &self,
        inode: u64,
        offset: u64,
        room: usize,
        reply: impl FnOnce(Told<Vec<Entry>>) + Send + 'static,
    ) {
        self.0.list(fuser::INodeNo(inode), offset, (), move |core, (), page| {
            let page = page.map(|page| {
                let mut out = Vec::new();
                each_entry(core, inode, offset, &page, &mut |attr, next, name, _| {
                    let is_full = out.len() == room;
                    if !is_full {
                        out.push(Entry { name: name.to_vec(), attr: told(attr), next });
                    }
                    is_full
                });
                out
            });
            reply(page.map_err(Errno::code));
        });
    }

    /// What a symlink leads to.
    pub fn target(&self, inode: u64) -> Told<Vec<u8>> {
        let ask = move |core: &crate::core::Core, load| core.target(inode, load);
        self.wait(|reply| self.0.answer((), ask, move |_, (), answer| reply(answer)))
    }

    /// Names and values of the extended attributes.
    pub fn xattrs(&self, inode: u64) -> Told<Vec<(Vec<u8>, Vec<u8>)>> {
        let ask = move |core: &crate::core::Core, load| {
            let pairs = |node: &snap_format::Node| {
                node.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect()
            };
            core.with_node(inode, load, pairs)
        };
        let found = self.wait(|reply| self.0.answer((), ask, move |_, (), answer| reply(answer)))?;
        Ok(found.unwrap_or_default())
    }

    /// The next data or hole, as lseek(2) finds it; none at the end.
    pub fn seek(&self, inode: u64, offset: u64, is_for_data: bool) -> Told<Option<u64>> {
        let ask = move |core: &crate::core::Core, load| core.map(inode, load);
        let map = self.wait(|reply| self.0.answer((), ask, move |_, (), answer| reply(answer)))?;
        Ok(map.seek(offset, is_for_data))
    }

    /// A range of a file. If everything ends before it is there, the reply is dropped.
    pub fn read(&self, inode: u64, offset: u64, size: u32, reply: impl FnOnce(Told<&[u8]>) + Send + 'static) {
        self.0.answer(
            reply,
            move |core, load| core.map(inode, load),
            move |core, reply, map| match map {
                Ok(map) => {
                    core.read(inode, &map, offset, size, |bytes| reply(bytes.map_err(Errno::code)));
                }
                Err(errno) => reply(Err(errno.code())),
            },
        );
    }

    /// The list of snapshots becomes too old to be believed.
    pub fn be_old(&self) {
        if let Some(refresh) = &self.0.core.refresh {
            refresh.be_old();
        }
    }

    /// Lists the snapshots anew, on this thread.
    pub fn list_anew(&self) {
        if let Some(refresh) = &self.0.core.refresh {
            refresh.update(&self.0.core.store, &self.0.core.tops);
        }
    }

    /// Ends everything, as unmounting does.
    pub fn stop(&self) {
        crate::stop(&self.0.core, &self.0.pool);
    }

    fn wait<T: Send + 'static>(&self, ask: impl FnOnce(Box<dyn FnOnce(Result<T, Errno>) + Send>)) -> Told<T> {
        let (sender, receiver) = channel();
        ask(Box::new(move |answer| drop(sender.send(answer))));
        receiver.recv().unwrap_or(Err(Errno::EIO)).map_err(Errno::code)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop();
    }
}

fn told(attr: &FileAttr) -> Attr {
    // inode(7)
    let kind = match attr.kind {
        FileType::NamedPipe => 0o1,
        FileType::CharDevice => 0o2,
        FileType::Directory => 0o4,
        FileType::BlockDevice => 0o6,
        FileType::RegularFile => 0o10,
        FileType::Symlink => 0o12,
        FileType::Socket => 0o14,
    };
    Attr {
        inode: attr.ino.0,
        mode: kind << 12 | u32::from(attr.perm),
        links: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        device: attr.rdev,
        size: attr.size,
        blocks: attr.blocks,
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
    }
}

fn time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time::new(after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let (secs, nanos) = (before.duration().as_secs() as i64, before.duration().subsec_nanos());
            match nanos {
                0 => Time::new(-secs, 0),
                nanos => Time::new(-secs - 1, 1_000_000_000 - nanos),
            }
        }
    }
}
