use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs as sys;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use snap_format::Xattr;

/// The kernel's limit for one value (XATTR_SIZE_MAX) and for one list (XATTR_LIST_MAX).
const LIMIT_BYTES: usize = 64 << 10;

/// What carries the attributes.
pub(crate) enum Carrier<'a> {
    /// An open file or directory.
    Fd(BorrowedFd<'a>),
    /// A path whose last component is what is meant, link or not.
    Itself(Vec<u8>),
    /// A path that the kernel is to follow: `/proc/self/fd/N` of a handle that is not open for reading.
    Behind(Vec<u8>),
}

impl Carrier<'_> {
    fn list_into(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Fd(fd) => sys::flistxattr(fd, buffer),
            Self::Itself(path) => sys::llistxattr(&path[..], buffer),
            Self::Behind(path) => sys::listxattr(&path[..], buffer),
        }
    }

    fn get_into(&self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Fd(fd) => sys::fgetxattr(fd, name, buffer),
            Self::Itself(path) => sys::lgetxattr(&path[..], name, buffer),
            Self::Behind(path) => sys::getxattr(&path[..], name, buffer),
        }
    }

    pub fn set(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let flags = XattrFlags::empty();
        Ok(match self {
            Self::Fd(fd) => sys::fsetxattr(fd, name, value, flags),
            Self::Itself(path) => sys::lsetxattr(&path[..], name, value, flags),
            Self::Behind(path) => sys::setxattr(&path[..], name, value, flags),
        }?)
    }

    pub fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(match self {
            Self::Fd(fd) => sys::fremovexattr(fd, name),
            Self::Itself(path) => sys::lremovexattr(&path[..], name),
            Self::Behind(path) => sys::removexattr(&path[..], name),
        }?)
    }

    /// Names, sorted; none where the file system has no attributes.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut small = [0_u8; 1024];
        let mut large = Vec::new();
        let list = match self.list_into(&mut small) {
            Ok(length) => &small[..length],
            Err(Errno::RANGE) => {
                large.resize(LIMIT_BYTES, 0);
                let length = self.list_into(&mut large)?;
                &large[..length]
            }
            Err(Errno::NOTSUP | Errno::NOSYS) => &[],
            Err(error) => return Err(error.into()),
        };
        let mut names: Vec<Vec<u8>> =
            list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The value, or nothing if it is gone or not for us to read.
    pub fn value(&self, name: &[u8], scratch: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        scratch.resize(LIMIT_BYTES, 0);
        match self.get_into(name, scratch) {
            Ok(length) => Ok(Some(scratch[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            // Labels and such are listed to all and shown to some.
            Err(Errno::PERM | Errno::ACCESS) if !name.starts_with(b"user.") => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All that can be read, sorted by name.
    pub fn read_all(&self) -> io::Result<Vec<Xattr>> {
        let mut found = Vec::new();
        let mut scratch = Vec::new();
        for name in self.names()? {
            if let Some(value) = self.value(&name, &mut scratch)? {
                found.push(Xattr { name, value });
            }
        }
        Ok(found)
    }
}
