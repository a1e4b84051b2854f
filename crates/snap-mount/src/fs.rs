use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use crate::core::{Core, FOR_EVER, FOR_NOW, Found, Page};
use crate::error::{Answer, Fault};
use crate::pool::Pool;
use crate::trees::Load;
use crate::{attr, dirs};

/// Requests for what is not asked for directly that the kernel may have open.
const MOST_IN_BACKGROUND: u16 = 64;
/// Directories that are fetched ahead when the one above them is listed.
const SUBTREES_AHEAD: usize = 64;

/// Answers the kernel: at once what is in memory, by a thread of the pool what has to be fetched. So a store that stalls stops
/// only those who want something from it.
pub(crate) struct SnapFs {
    pub(crate) core: Arc<Core>,
    pub(crate) pool: Pool,
    /// The kernel compares modes, owners and ACLs with who asks.
    pub(crate) checks_permissions: bool,
    /// `fusermount3` opens the root to see whether anybody still answers.
    pub(crate) is_watched: bool,
}

impl SnapFs {
    /// Has `ask` answered from memory, or else by the pool, and the answer sent by `send`.
    pub(crate) fn answer<R: Send + 'static, T: 'static>(
        &self,
        reply: R,
        ask: impl Fn(&Core, Load) -> Answer<T> + Send + 'static,
        send: impl FnOnce(&Arc<Core>, R, Result<T, Errno>) + Send + 'static,
    ) {
        match ask(&self.core, Load::Cached) {
            Err(Fault::NotCached) => {
                let core = Arc::clone(&self.core);
                self.pool.run(move || {
                    let answer = ask(&core, Load::Fetch).map_err(Fault::errno);
                    send(&core, reply, answer);
                });
            }
            answer => send(&self.core, reply, answer.map_err(Fault::errno)),
        }
    }

    /// Gives a page of a directory, and has those below it fetched: they will be looked into next.
    pub(crate) fn list<R: Send + 'static>(
        &self,
        ino: INodeNo,
        offset: u64,
        reply: R,
        send: impl FnOnce(&Core, R, Result<Page, Errno>) + Send + 'static,
    ) {
        let pool = self.pool.clone();
        self.answer(
            reply,
            move |core, load| core.page(ino.0, offset, load),
            move |core, reply, page| {
                if let Ok(page) = &page
                    && offset <= 2
                {
                    look_ahead(core, &pool, page);
                }
                send(core, reply, page);
            },
        );
    }
}

fn look_ahead(core: &Arc<Core>, pool: &Pool, page: &Page) {
    let Page::Nodes { dir, at, .. } = page else { return };
    let trees: Vec<_> = at.subtrees().take(SUBTREES_AHEAD).collect();
    if !trees.is_empty() {
        let (core, dir) = (Arc::clone(core), Arc::clone(dir));
        pool.run_later(move || core.fetch_subtrees(&dir, &trees));
    }
}

impl Filesystem for SnapFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_NO_OPEN_SUPPORT;
        if !self.is_watched {
            wanted |= InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        }
        if self.checks_permissions {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        let _ = config.add_capabilities(wanted & config.capabilities());
        // As much as the kernel lets us; it says how much that is.
        if let Err(most) = config.set_max_readahead(u32::MAX) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MOST_IN_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (parent.0, name.as_bytes().to_vec());
        self.answer(
            reply,
            move |core, load| core.lookup(parent, &name, load),
            |_, reply, found| match found {
                Ok(Found::Entry(attr, ttl)) => reply.entry(&ttl, &attr, Generation(0)),
                // The kernel remembers that there is none.
                Ok(Found::Nothing(ttl)) => reply.entry(&ttl, &nothing(), Generation(0)),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(
            reply,
            move |core, load| core.attr(ino.0, load),
            |_, reply, answer| match answer {
                Ok((attr, ttl)) => reply.attr(&ttl, &attr),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer(
            reply,
            move |core, load| core.target(ino.0, load),
            |_, reply, answer| match answer {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            },
        );
    }

    /// Nothing is kept for an open file, so the kernel need not ask: it keeps what it has read, too.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.is_watched {
            // A kernel that does not ask opens what is dead, too.
            true => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR),
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.answer(
            reply,
            move |core, load| core.map(ino.0, load),
            move |core, reply, map| match map {
                Ok(map) => core.read(ino.0, &map, offset, size, move |bytes| match bytes {
                    Ok(bytes) => reply.data(bytes),
                    Err(errno) => reply.error(errno),
                }),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        // The kernel asks for these two only (lseek(2)).
        let is_for_data = match whence {
            3 => true,
            4 => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.answer(
            reply,
            move |core, load| core.map(ino.0, load),
            move |_, reply, map| match map.map(|map| map.seek(from, is_for_data)) {
                Ok(Some(offset)) => reply.offset(offset as i64),
                Ok(None) => reply.error(Errno::ENXIO),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(ino, offset, reply, move |core, mut reply, page| match page {
            Err(errno) => reply.error(errno),
            Ok(page) => {
                each_entry(core, ino.0, offset, &page, &mut |attr, next, name, _| {
                    reply.add(attr.ino, next, attr.kind, OsStr::from_bytes(name))
                });
                reply.ok();
            }
        });
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list(ino, offset, reply, move |core, mut reply, page| match page {
            Err(errno) => reply.error(errno),
            Ok(page) => {
                each_entry(core, ino.0, offset, &page, &mut |attr, next, name, ttl| {
                    reply.add(attr.ino, next, OsStr::from_bytes(name), &ttl, attr, Generation(0))
                });
                reply.ok();
            }
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        let value = move |core: &Core, load| {
            let value = core.with_node(ino.0, load, |node| {
                let found = node.xattrs.iter().find(|xattr| xattr.name == name);
                found.map(|xattr| xattr.value.clone())
            })?;
            value.flatten().ok_or(Errno::NO_XATTR.into())
        };
        self.answer(reply, value, move |_, reply, value| send_xattr(reply, size, value));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = move |core: &Core, load| {
            let names = core.with_node(ino.0, load, |node| {
                let mut out = Vec::new();
                for xattr in &node.xattrs {
                    out.extend_from_slice(&xattr.name);
                    out.push(0);
                }
                out
            })?;
            Ok(names.unwrap_or_default())
        };
        self.answer(reply, names, move |_, reply, names| send_xattr(reply, size, names));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }
}

/// Takes an entry, the offset behind it, its name, and how long it may be believed; says whether there is no more room.
pub(crate) type AddEntry<'a> = dyn FnMut(&FileAttr, u64, &[u8], Duration) -> bool + 'a;

/// Gives the entries of a page, with the offsets behind them, until it is told that there is no more room.
pub(crate) fn each_entry(core: &Core, ino: u64, offset: u64, page: &Page, add: &mut AddEntry<'_>) {
    let dots: [(&[u8], u64); 2] = [(b".", ino), (b"..", core.parent(ino, page))];
    for (at, (name, ino)) in (0..).zip(dots).skip(offset as usize) {
        let attr = attr::of_top(ino, FileType::Directory, snap_format::Time::default(), core.owner, 0);
        if add(&attr, at + 1, name, FOR_NOW) {
            return;
        }
    }
    match page {
        Page::Tops(entries) => {
            for (attr, next, name) in entries {
                if add(attr, *next, name, FOR_NOW) {
                    return;
                }
            }
        }
        Page::Nodes { dir, number, at } => {
            for (position, node) in at.rest() {
                let Some(ino) = dirs::join(*number, position) else { return };
                let (attr, ttl) = core.node_attr(dir, ino, node, false);
                // What is not known yet is asked for again.
                let ttl = if ttl == FOR_EVER { ttl } else { Duration::ZERO };
                if add(&attr, position + 3, &node.name, ttl) {
                    return;
                }
            }
        }
    }
}

fn send_xattr(reply: ReplyXattr, size: u32, bytes: Result<Vec<u8>, Errno>) {
    match bytes {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32), // the kernel bounds them at 64 KiB
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}

/// An entry that is not there.
fn nothing() -> FileAttr {
    attr::of_top(0, FileType::RegularFile, snap_format::Time::default(), (0, 0), 0)
}
