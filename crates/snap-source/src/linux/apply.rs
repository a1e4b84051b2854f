use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::fs::{chmodat, chownat, fchmod, futimens, utimensat};
use rustix::io::Errno;
use rustix::process::geteuid;
use snap_format::{Node, NodeKind, Time, Xattr};

use super::xattr::Carrier;
use super::{has_proc, open_at, open_path_only, proc_path, replaced, stat_fd};
use crate::apply::{ApplyNote, ApplyOptions};
use crate::stat::{FileType, Stat};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// An inode that is held, so that nothing below can hit another one.
pub(crate) enum Subject<'a> {
    /// Opened: the calls that take a handle work.
    Open(BorrowedFd<'a>),
    /// The same, opened for this.
    Opened(OwnedFd),
    /// Named by a handle that may not be readable; used by way of `/proc/self/fd`.
    Pinned(OwnedFd),
    /// A symlink: its handle, and where it stands.
    Link(OwnedFd, BorrowedFd<'a>, &'a [u8]),
}

impl<'a> Subject<'a> {
    pub fn child(dir: BorrowedFd<'a>, name: &'a [u8]) -> io::Result<Self> {
        let fd = open_path_only(dir, name)?;
        let stat = stat_fd(&fd)?;
        if stat.kind == FileType::Symlink {
            return Ok(Self::Link(fd, dir, name));
        }
        if !has_proc() && matches!(stat.kind, FileType::File | FileType::Dir) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            if let Ok(opened) = open_at(dir, name, flags, 0)
                && stat_fd(&opened)?.is_same_file(&stat)
            {
                return Ok(Self::Opened(opened));
            }
        }
        Ok(Self::Pinned(fd))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) => *fd,
            Self::Opened(fd) | Self::Pinned(fd) | Self::Link(fd, ..) => fd.as_fd(),
        }
    }

    pub fn carrier(&self) -> Carrier<'_> {
        match self {
            Self::Open(fd) => Carrier::Fd(*fd),
            Self::Opened(fd) => Carrier::Fd(fd.as_fd()),
            Self::Pinned(fd) => Carrier::Behind(proc_path(fd.as_fd())),
            Self::Link(_, dir, name) => Carrier::Itself([&proc_path(*dir)[..], b"/", name].concat()),
        }
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        // The all-ones id means "leave it" to the kernel; a node that asks for it asks for nonsense.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL.into());
        }
        Ok(chownat(self.fd(), "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)?)
    }

    fn chmod(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        Ok(match self {
            Self::Open(_) | Self::Opened(_) => fchmod(self.fd(), mode),
            Self::Pinned(fd) => chmodat(CWD, proc_path(fd.as_fd()), mode, AtFlags::empty()),
            Self::Link(..) => Ok(()),
        }?)
    }

    fn set_mtime(&self, mtime: Time) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) },
        };
        Ok(match self {
            Self::Open(_) | Self::Opened(_) => futimens(self.fd(), &times),
            Self::Pinned(fd) => utimensat(CWD, proc_path(fd.as_fd()), &times, AtFlags::empty()),
            Self::Link(_, dir, name) => utimensat(dir, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }?)
    }
}

/// Lets the owner in: adds what he lacks to read and write. Gives the mode that was there if it changed.
pub(crate) fn grant_owner(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<u32>> {
    let fd = open_path_only(dir, name)?;
    let stat = stat_fd(&fd)?;
    let needed = match stat.kind {
        FileType::Dir => 0o700,
        FileType::Symlink => return Ok(None),
        _ => 0o600,
    };
    let euid = geteuid();
    if euid.is_root() || euid.as_raw() != stat.uid || stat.mode & needed == needed {
        return Ok(None);
    }
    Subject::Pinned(fd).chmod(stat.mode | needed)?;
    Ok(Some(stat.mode))
}

/// Gives the inode what the node says, in the one order that works: a change of owner clears set-id bits
/// and capabilities, writing an attribute needs the permission that the mode may take away, and all of
/// them leave the time of modification alone.
pub(crate) fn apply(subject: &Subject<'_>, node: &Node, options: &ApplyOptions) -> Vec<ApplyNote> {
    let mut run = Run { subject, node, options, notes: Vec::new(), mode_may_differ: false };
    match stat_fd(subject.fd()) {
        Ok(stat) if is_kind(&node.kind, stat.kind) => run.all(&stat),
        Ok(_) => run.note("type", replaced()),
        Err(error) => run.note("status", error),
    }
    run.notes
}

fn is_kind(node: &NodeKind, found: FileType) -> bool {
    matches!(
        (node, found),
        (NodeKind::File { .. } | NodeKind::Object { .. }, FileType::File)
            | (NodeKind::Dir { .. }, FileType::Dir)
            | (NodeKind::Symlink { .. }, FileType::Symlink)
            | (NodeKind::Fifo, FileType::Fifo)
            | (NodeKind::CharDevice { .. }, FileType::CharDevice)
            | (NodeKind::BlockDevice { .. }, FileType::BlockDevice)
    )
}

struct Run<'a> {
    subject: &'a Subject<'a>,
    node: &'a Node,
    options: &'a ApplyOptions,
    notes: Vec<ApplyNote>,
    /// Something was done that may have changed the mode behind our back.
    mode_may_differ: bool,
}

impl Run<'_> {
    fn note(&mut self, what: impl Into<Cow<'static, str>>, error: io::Error) {
        self.notes.push(ApplyNote { what: what.into(), error });
    }

    fn all(&mut self, before: &Stat) {
        let wanted = self.options.owner_of(self.node);
        let owner = if self.options.owner { self.owner(before, wanted) } else { (before.uid, before.gid) };
        let mode = self.safe_mode(before.kind, wanted, owner);
        if self.options.xattrs {
            self.xattrs(before, owner.0);
        }
        if before.kind != FileType::Symlink && (self.mode_may_differ || before.mode != mode) {
            self.mode(mode);
        }
        if before.mtime != self.node.mtime
            && let Err(error) = self.subject.set_mtime(self.node.mtime)
        {
            self.note("time", error);
        }
    }

    /// The owner and group that the entry has afterwards.
    fn owner(&mut self, before: &Stat, (uid, gid): (u32, u32)) -> (u32, u32) {
        if (before.uid, before.gid) == (uid, gid) {
            return (uid, gid);
        }
        self.mode_may_differ = true;
        let Err(error) = self.subject.chown(Some(uid), Some(gid)) else {
            return (uid, gid);
        };
        // An ordinary user may still choose among his own groups.
        let group_set = before.gid == gid || self.subject.chown(None, Some(gid)).is_ok();
        self.note(if before.uid == uid { "group" } else { "owner" }, error);
        (before.uid, if group_set { gid } else { before.gid })
    }

    /// The mode, without a set-id bit that would lend the rights of someone else than on the source.
    fn safe_mode(&mut self, kind: FileType, wanted: (u32, u32), actual: (u32, u32)) -> u32 {
        let mut mode = self.node.mode & 0o7777;
        let mut foreign = 0;
        if kind == FileType::File {
            foreign |= if wanted.0 == actual.0 { 0 } else { SET_UID };
            foreign |= if wanted.1 == actual.1 { 0 } else { SET_GID };
        }
        if mode & foreign != 0 {
            mode &= !foreign;
            let reason = "left out, since the owner or group is not the one of the source";
            self.note("set-id bits", io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        mode
    }

    fn mode(&mut self, mode: u32) {
        if let Err(error) = self.subject.chmod(mode) {
            self.note("mode", error);
        } else if mode & SET_GID != 0
            && !geteuid().is_root()
            && stat_fd(self.subject.fd()).is_ok_and(|stat| stat.mode & SET_GID == 0)
        {
            // The kernel drops the bit without a word for who is not in the group.
            self.note("set-id bits", Errno::PERM.into());
        }
    }

    fn xattrs(&mut self, before: &Stat, uid: u32) {
        let carrier = self.subject.carrier();
        let present = match carrier.names() {
            Ok(names) => names,
            // Without /proc a link's attributes are out of reach, which matters if it has any.
            Err(_) if self.node.xattrs.is_empty() && before.kind == FileType::Symlink => return,
            Err(error) => return self.note("xattrs", error),
        };
        let wanted = &self.node.xattrs;
        if present.is_empty() && wanted.is_empty() {
            return;
        }
        self.let_owner_write(before, uid);
        for name in &present {
            let is_wanted = wanted.binary_search_by(|xattr| xattr.name.cmp(name)).is_ok();
            if !is_wanted && is_superfluous(self.options, name) {
                self.mode_may_differ = true;
                if let Err(error) = carrier.remove(name) {
                    self.note(describe(name), error);
                }
            }
        }
        let mut scratch = Vec::new();
        for xattr in wanted {
            let is_there = present.binary_search(&xattr.name).is_ok()
                && matches!(carrier.value(&xattr.name, &mut scratch), Ok(Some(value)) if value == xattr.value);
            if is_there {
                continue;
            }
            self.mode_may_differ = true;
            if let Err(error) = carrier.set(&xattr.name, &xattr.value) {
                self.note(describe(&xattr.name), error);
            }
        }
    }

    fn let_owner_write(&mut self, before: &Stat, uid: u32) {
        let euid = geteuid();
        if before.kind != FileType::Symlink
            && !euid.is_root()
            && euid.as_raw() == uid
            && before.mode & 0o600 != 0o600
        {
            self.mode_may_differ = true;
            // If this fails, so will the attributes, and they are what is noted.
            let _ = self.subject.chmod((before.mode & 0o777) | 0o600);
        }
    }
}

/// An ACL that the entry inherited or had before would grant what the source did not, and a capability
/// even more; of the others, those that belong to users and administrators go when asked.
fn is_superfluous(options: &ApplyOptions, name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
        || name == b"security.capability"
        || (options.remove_xattrs && (name.starts_with(b"user.") || name.starts_with(b"trusted.")))
}

/// What [`ApplyOptions::would_change`] promises.
pub(crate) fn would_change(options: &ApplyOptions, stat: &Stat, node: &Node) -> bool {
    let is_root = geteuid().is_root();
    let bits = if is_root { 0o7777 } else { 0o7777 & !(SET_UID | SET_GID) };
    let mode_differs = stat.kind != FileType::Symlink && (stat.mode ^ node.mode) & bits != 0;
    mode_differs || options.owner && is_root && (stat.uid, stat.gid) != options.owner_of(node)
}

/// What [`ApplyOptions::would_change_xattrs`] promises.
pub(crate) fn would_change_xattrs(options: &ApplyOptions, found: &[Xattr], wanted: &[Xattr]) -> bool {
    let is_root = geteuid().is_root();
    let can = |name: &[u8]| is_root || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
    let lacks = |xattr: &&Xattr| can(&xattr.name) && found.binary_search(xattr).is_err();
    let goes = |xattr: &&Xattr| {
        let is_wanted = wanted.binary_search_by(|other| other.name.cmp(&xattr.name)).is_ok();
        !is_wanted && can(&xattr.name) && is_superfluous(options, &xattr.name)
    };
    wanted.iter().any(|xattr| lacks(&xattr)) || found.iter().any(|xattr| goes(&xattr))
}

fn describe(name: &[u8]) -> String {
    format!("xattr {}", String::from_utf8_lossy(name))
}
