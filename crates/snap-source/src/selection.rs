use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::stat::Stat;

/// Entries of a tree, as they were when they were looked at: what is to be saved, and nothing else. It takes some 20 bytes an
/// entry, since it keeps keyed hashes instead of paths; two paths with the same hash would be saved both.
#[derive(Debug, Default)]
pub struct Selection {
    hasher: RandomState,
    /// Paths, and what stood there; 0 for a directory that only leads to something.
    entries: HashMap<u64, u64>,
    /// Directories that are meant with everything in them, and the digest of that.
    whole: HashMap<u64, u64>,
}

impl Selection {
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the entry at an absolute path, and the directories that lead to it.
    pub fn add(&mut self, path: &[u8], stat: &Stat) {
        let state = self.state(stat);
        self.entries.insert(self.hasher.hash_one(path), state);
        self.add_ancestors(path);
    }

    /// Adds the entry at an absolute path with everything below; `digest` stands for what that is.
    pub fn add_whole(&mut self, path: &[u8], digest: u64) {
        self.whole.insert(self.hasher.hash_one(path), digest);
        self.entries.entry(self.hasher.hash_one(path)).or_insert(0);
        self.add_ancestors(path);
    }

    fn add_ancestors(&mut self, path: &[u8]) {
        for above in ancestors(path) {
            let key = self.hasher.hash_one(above);
            if self.entries.contains_key(&key) {
                return; // and those above it
            }
            self.entries.insert(key, 0);
        }
    }

    /// Whether the entry at this absolute path was added, leads to one that was, or lies in one that was added whole.
    pub fn takes(&self, path: &[u8]) -> bool {
        let is_in = |set: &HashMap<u64, u64>, path: &[u8]| set.contains_key(&self.hasher.hash_one(path));
        is_in(&self.entries, path)
            || !self.whole.is_empty() && ancestors(path).any(|above| is_in(&self.whole, above))
    }

    /// Whether the entry was added, and is still what it was.
    pub fn has(&self, path: &[u8], stat: &Stat) -> bool {
        self.entries.get(&self.hasher.hash_one(path)).is_some_and(|state| *state == self.state(stat))
    }

    /// Whether the entry was added whole, with this digest.
    pub fn has_whole(&self, path: &[u8], digest: u64) -> bool {
        self.whole.get(&self.hasher.hash_one(path)) == Some(&digest)
    }

    /// What an edit changes. Not the time of the inode: another name that comes or goes changes it.
    fn state(&self, stat: &Stat) -> u64 {
        let state = (stat.kind, stat.device, stat.inode, stat.size, stat.mtime);
        self.hasher.hash_one(state).max(1)
    }
}

/// The directories that lead to an absolute path, the nearest first.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at.max(1)]).filter(move |above| above.len() < path.len())
}

/// What is in a directory that is about to be removed, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Entries, itself included.
    pub entries: u64,
    /// Those that were modified later than asked.
    pub newer: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Differs when anything comes, goes or is edited.
    pub digest: u64,
}

impl Doomed {
    /// Counts an entry, whatever the order.
    pub(crate) fn add(&mut self, path: &[u8], stat: &Stat, since: snap_format::Time) {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        (path, stat.kind, stat.device, stat.inode).hash(&mut hasher);
        self.entries += 1;
        if !stat.is_dir() {
            (stat.size, stat.mtime).hash(&mut hasher);
            self.newer += u64::from(stat.mtime > since);
            self.bytes += stat.size;
        }
        self.digest = self.digest.wrapping_add(hasher.finish());
    }
}

/// Device and inode of what nothing may touch.
pub(crate) type Protected = HashSet<(u64, u64)>;

#[cfg(test)]
mod tests {
    use snap_format::Time;

    use super::*;
    use crate::stat::FileType;

    fn stat(inode: u64, size: u64) -> Stat {
        Stat {
            kind: FileType::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime: Time::new(1, 2),
            ctime: Time::new(3, 4),
            inode,
            device: 1,
            links: 1,
            rdev: (0, 0),
            allocated_bytes: 0,
        }
    }

    #[test]
    fn what_was_added_is_taken_with_what_leads_to_it() {
        let mut selection = Selection::default();
        assert!(selection.is_empty() && !selection.takes(b"/"));
        selection.add(b"/a/b/file", &stat(1, 10));
        selection.add_whole(b"/a/gone", 77);
        for taken in ["/", "/a", "/a/b", "/a/b/file", "/a/gone", "/a/gone/x", "/a/gone/x/y"] {
            assert!(selection.takes(taken.as_bytes()), "{taken}");
        }
        for left in ["/a/b/other", "/a/c", "/b", "/a/gonex", "/a/b/file/x", ""] {
            assert!(!selection.takes(left.as_bytes()), "{left}");
        }
    }

    #[test]
    fn an_edit_is_seen_and_another_name_is_none() {
        let mut selection = Selection::default();
        selection.add(b"/f", &stat(1, 10));
        selection.add_whole(b"/d", 77);
        let linked = Stat { ctime: Time::new(9, 9), links: 2, mode: 0o600, ..stat(1, 10) };
        assert!(selection.has(b"/f", &linked) && !selection.has(b"/g", &linked));
        let touched = Stat { mtime: Time::new(1, 3), ..stat(1, 10) };
        for edited in [stat(2, 10), stat(1, 11), touched] {
            assert!(!selection.has(b"/f", &edited));
        }
        assert!(selection.has_whole(b"/d", 77) && !selection.has_whole(b"/d", 78));
        // What only leads to something was not added itself.
        assert!(!selection.has(b"/", &stat(1, 10)) && !selection.has(b"/d", &stat(1, 10)));
    }
}
