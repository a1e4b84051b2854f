use snap_format::Time;

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Socket; it has no meaning without its process and is not stored.
    Socket,
}

/// What the file system says of an entry without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type.
    pub kind: FileType,
    /// Permission, set-id and sticky bits: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; of a symlink, the length of its target.
    pub size: u64,
    /// Last modification of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Inode number.
    pub inode: u64,
    /// Device that holds the entry.
    pub device: u64,
    /// Number of names.
    pub links: u64,
    /// Major and minor number of a device node, else zeros.
    pub rdev: (u32, u32),
    /// What the entry takes on disk; less than `size` where the file has holes.
    pub allocated_bytes: u64,
}

impl Stat {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Dir
    }

    /// Whether both are the same inode of the same device.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether the file may have holes.
    pub fn may_have_holes(&self) -> bool {
        self.kind == FileType::File && self.allocated_bytes < self.size
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A single component, as raw bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub stat: Stat,
}
