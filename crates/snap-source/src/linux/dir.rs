use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{RawDir, RawDirEntry, SeekFrom, seek};
use rustix::io::Errno;

use super::stat_at;
use crate::stat::{Entry, FileType};

/// One entry, or the name of one that could not be looked at.
pub type EntryResult = Result<Entry, (Vec<u8>, io::Error)>;

/// An open directory. The kernel keeps one position per handle, hence the lock around a listing.
#[derive(Debug)]
pub(crate) struct DirHandle {
    fd: OwnedFd,
    listed_before: Mutex<bool>,
}

/// Enough for about a thousand names a call.
const LISTING_BYTES: usize = 64 << 10;

thread_local! {
    static LISTING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl DirHandle {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, listed_before: Mutex::new(false) }
    }

    /// What the directory itself says of its entries, without `.` and `..`.
    fn listing<T>(&self, each: impl Fn(&RawDirEntry<'_>) -> T) -> io::Result<Vec<T>> {
        let mut listed_before = self.listed_before.lock().unwrap_or_else(PoisonError::into_inner);
        if *listed_before {
            seek(&self.fd, SeekFrom::Start(0))?;
        }
        *listed_before = true;
        LISTING.with_borrow_mut(|buffer| {
            buffer.reserve_exact(LISTING_BYTES);
            let mut found = Vec::new();
            let mut listing = RawDir::new(&self.fd, buffer.spare_capacity_mut());
            while let Some(entry) = listing.next() {
                let entry = match entry {
                    Err(Errno::INTR) => continue,
                    // Removed while it was open: it has no entries any more.
                    Err(Errno::NOENT) => break,
                    other => other?,
                };
                match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    _ => found.push(each(&entry)),
                }
            }
            Ok(found)
        })
    }

    /// Inode numbers and names, as the directory has them.
    pub fn names(&self) -> io::Result<Vec<(u64, Vec<u8>)>> {
        self.listing(|entry| (entry.ino(), entry.file_name().to_bytes().to_vec()))
    }

    /// Names and types, sorted by name. Entries are looked at only where the directory does not say what they are.
    pub fn types(&self) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        let listed = self.listing(|entry| {
            let kind = match entry.file_type() {
                rustix::fs::FileType::RegularFile => Some(FileType::File),
                rustix::fs::FileType::Directory => Some(FileType::Dir),
                rustix::fs::FileType::Symlink => Some(FileType::Symlink),
                rustix::fs::FileType::Fifo => Some(FileType::Fifo),
                rustix::fs::FileType::CharacterDevice => Some(FileType::CharDevice),
                rustix::fs::FileType::BlockDevice => Some(FileType::BlockDevice),
                rustix::fs::FileType::Socket => Some(FileType::Socket),
                rustix::fs::FileType::Unknown => None,
            };
            (entry.file_name().to_bytes().to_vec(), kind)
        })?;
        let mut found = Vec::with_capacity(listed.len());
        for (name, kind) in listed {
            let kind = match kind {
                Some(kind) => kind,
                None => match stat_at(&self.fd, &name) {
                    Ok(stat) => stat.kind,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            found.push((name, kind));
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.dedup_by(|later, first| later.0 == first.0);
        Ok(found)
    }

    /// Every entry with its status, sorted by name. An entry that vanished meanwhile comes as its error.
    pub fn entries(&self) -> io::Result<Vec<EntryResult>> {
        let mut names = self.names()?;
        // In the order of the inode table: on a cold cache and a big directory this is many times faster.
        names.sort_unstable_by_key(|(inode, _)| *inode);
        let mut entries: Vec<EntryResult> = names
            .into_iter()
            .map(|(_, name)| match stat_at(&self.fd, &name) {
                Ok(stat) => Ok(Entry { name, stat }),
                Err(error) => Err((name, error.into())),
            })
            .collect();
        entries.sort_unstable_by(|a, b| entry_name(a).cmp(entry_name(b)));
        // A name may be listed twice while files are renamed in; two alike would make a tree that no reader takes.
        entries.dedup_by(|later, first| entry_name(later) == entry_name(first));
        Ok(entries)
    }
}

impl AsFd for DirHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The name of an entry, readable or not.
pub fn entry_name(entry: &EntryResult) -> &[u8] {
    match entry {
        Ok(entry) => &entry.name,
        Err((name, _)) => name,
    }
}
