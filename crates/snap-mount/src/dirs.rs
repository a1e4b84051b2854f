use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use snap_format::BlobId;

use crate::snapshots::Instance;

/// Bits of an inode number that are the position in the directory: 268 million entries.
const POSITION_BITS: u32 = 28;

/// A directory of a snapshot that was looked into.
pub(crate) struct Dir {
    pub(crate) ino: u64,
    pub(crate) parent: u64,
    pub(crate) tree: BlobId,
    pub(crate) instance: Arc<Instance>,
}

/// The directories that were looked into, numbered. An inode number is that of the directory and a position in it, so that
/// files cost no memory, and what the kernel has forgotten has the same number when it comes back. About 150 bytes a directory.
#[derive(Default)]
pub(crate) struct Dirs(RwLock<Table>);

#[derive(Default)]
struct Table {
    numbers: HashMap<u64, u64>,
    list: Vec<Arc<Dir>>,
}

/// Whether an inode stands above the snapshots, or is the root of one.
pub(crate) const fn is_top(ino: u64) -> bool {
    ino >> POSITION_BITS == 0
}

/// The number of a directory and a position in it; a number is never 0.
pub(crate) const fn split(ino: u64) -> (u64, u64) {
    (ino >> POSITION_BITS, ino & ((1 << POSITION_BITS) - 1))
}

/// The inode of an entry; none if there are too many.
pub(crate) const fn join(number: u64, position: u64) -> Option<u64> {
    if position >> POSITION_BITS == 0 { Some((number << POSITION_BITS) | position) } else { None }
}

impl Dirs {
    /// A directory that was looked into before.
    pub(crate) fn of(&self, ino: u64) -> Option<(u64, Arc<Dir>)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let number = *table.numbers.get(&ino)?;
        Some((number, Arc::clone(&table.list[number as usize - 1])))
    }

    /// The directory in which an inode lies.
    pub(crate) fn holding(&self, ino: u64) -> Option<Arc<Dir>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.list.get((split(ino).0 as usize).checked_sub(1)?).cloned()
    }

    /// Takes a directory in.
    pub(crate) fn insert(&self, dir: Dir) -> (u64, Arc<Dir>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = table.numbers.get(&dir.ino) {
            let number = *number;
            return (number, Arc::clone(&table.list[number as usize - 1]));
        }
        let dir = Arc::new(dir);
        table.list.push(Arc::clone(&dir));
        let number = table.list.len() as u64;
        table.numbers.insert(dir.ino, number);
        (number, dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_are_a_directory_and_a_position() {
        assert_eq!(join(1, 0), Some(0x1000_0000));
        assert_eq!(join(5, 7).map(split), Some((5, 7)));
        assert_eq!(join(5, 1 << 28), None);
        assert!(is_top(1) && is_top(0x0fff_ffff) && !is_top(0x1000_0000));
    }
}
