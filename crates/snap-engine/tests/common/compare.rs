//! Two trees side by side: by handle and one component at a time, so that neither depth nor odd names matter.

use std::collections::{BTreeSet, HashMap};

use snap_source::{FileType, SourceDir, SourceFile, Stat};

/// What is not compared.
#[derive(Clone, Copy, Default)]
pub struct Leeway {
    /// Owners: an ordinary user cannot set them.
    pub owners: bool,
    /// What files take on disk: a tar holds zeros for holes.
    pub holes: bool,
    /// The two roots themselves.
    pub roots: bool,
    /// Times of directories: they change with what happens inside.
    pub dir_times: bool,
}

/// How far a restored file may take more space than its source: the rest of a block at each end of an extent.
const SLACK: u64 = 64 << 10;

/// Every difference between two trees, in words. Sockets of the first are not expected in the second.
pub fn differences(left: &SourceDir, right: &SourceDir, leeway: Leeway) -> Vec<String> {
    let mut walk = Walk { leeway, found: Vec::new(), links: [HashMap::new(), HashMap::new()] };
    if !leeway.roots {
        walk.stats("/", &left.stat().unwrap(), &right.stat().unwrap());
        if left.xattrs().unwrap() != right.xattrs().unwrap() {
            walk.found.push("/: xattrs differ".into());
        }
    }
    let mut waiting = vec![(String::new(), left.clone(), right.clone())];
    while let Some((path, left, right)) = waiting.pop() {
        walk.directory(&path, &left, &right, &mut waiting);
    }
    let [first, second] = walk.links.map(|links| {
        links.into_values().filter(|names| names.len() > 1).collect::<BTreeSet<BTreeSet<String>>>()
    });
    let torn = first.symmetric_difference(&second);
    walk.found.extend(torn.map(|names| format!("names of one file on one side alone: {names:?}")));
    walk.found
}

/// Fails with all differences, if there are any.
pub fn assert_same(left: &std::path::Path, right: &std::path::Path, leeway: Leeway) {
    let (left, right) = (SourceDir::open(left).unwrap(), SourceDir::open(right).unwrap());
    let found = differences(&left, &right, leeway);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(40)].join("\n"));
}

/// Directories that wait to be compared: path and handles.
type Waiting = Vec<(String, SourceDir, SourceDir)>;

struct Walk {
    leeway: Leeway,
    found: Vec<String>,
    /// The paths of each inode with several names, on either side.
    links: [HashMap<u64, BTreeSet<String>>; 2],
}

fn listing(dir: &SourceDir) -> Vec<(Vec<u8>, Stat)> {
    let entries = dir.entries().unwrap().into_iter().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.name, entry.stat)).collect()
}

impl Walk {
    fn directory(&mut self, path: &str, left: &SourceDir, right: &SourceDir, waiting: &mut Waiting) {
        let mut on_left = listing(left);
        on_left.retain(|(_, stat)| stat.kind != FileType::Socket);
        let on_right = listing(right);
        for (name, _) in &on_right {
            if on_left.binary_search_by(|(known, _)| known.cmp(name)).is_err() {
                self.found.push(format!("{path}/{}: too much", name.escape_ascii()));
            }
        }
        for (name, stat) in on_left {
            let full = format!("{path}/{}", name.escape_ascii());
            let Ok(at) = on_right.binary_search_by(|(known, _)| known.cmp(&name)) else {
                self.found.push(format!("{full}: missing"));
                continue;
            };
            let other = on_right[at].1;
            self.stats(&full, &stat, &other);
            if stat.kind != other.kind {
                continue;
            }
            if left.xattrs_child(&name).unwrap() != right.xattrs_child(&name).unwrap() {
                self.found.push(format!("{full}: xattrs differ"));
            }
            match stat.kind {
                FileType::Dir => {
                    waiting.push((full, left.open_child(&name).unwrap(), right.open_child(&name).unwrap()));
                }
                FileType::Symlink if left.read_link(&name).unwrap() != right.read_link(&name).unwrap() => {
                    self.found.push(format!("{full}: target differs"));
                }
                FileType::File => {
                    let (a, b) = (left.open_file(&name).unwrap(), right.open_file(&name).unwrap());
                    self.content(&full, &a, &b);
                }
                _ => {}
            }
        }
    }

    fn stats(&mut self, path: &str, left: &Stat, right: &Stat) {
        let mut differ = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            self.found.push(format!("{path}: {what}: {a:?} became {b:?}"));
        };
        if left.kind != right.kind {
            return differ("kind", &left.kind, &right.kind);
        }
        if left.mode != right.mode {
            differ("mode", &left.mode, &right.mode);
        }
        if !self.leeway.owners && (left.uid, left.gid) != (right.uid, right.gid) {
            differ("owner", &(left.uid, left.gid), &(right.uid, right.gid));
        }
        if left.mtime != right.mtime && !(self.leeway.dir_times && left.is_dir()) {
            differ("time", &left.mtime, &right.mtime);
        }
        if left.rdev != right.rdev {
            differ("device", &left.rdev, &right.rdev);
        }
        if left.is_dir() || left.kind != FileType::File {
            return;
        }
        if left.size != right.size {
            differ("size", &left.size, &right.size);
        }
        if !self.leeway.holes && right.allocated_bytes > left.allocated_bytes + SLACK {
            differ("space on disk", &left.allocated_bytes, &right.allocated_bytes);
        }
        for (side, stat) in [(0, left), (1, right)] {
            if stat.links > 1 {
                self.links[side].entry(stat.inode).or_default().insert(path.to_owned());
            }
        }
    }

    fn content(&mut self, path: &str, left: &SourceFile, right: &SourceFile) {
        let size = left.opened_stat().size;
        if size != right.opened_stat().size {
            return;
        }
        // Where both have holes there is nothing to read.
        let mut extents = left.data_extents(size, 10_000).unwrap();
        extents.extend(right.data_extents(size, 10_000).unwrap());
        let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        for (mut at, length) in extents {
            let end = at + length;
            while at < end {
                let want = (end - at).min(a.len() as u64) as usize;
                let read = left.read_at(&mut a[..want], at).unwrap();
                if right.read_at(&mut b[..want], at).unwrap() != read || a[..read] != b[..read] {
                    return self.found.push(format!("{path}: content differs at {at} or soon after"));
                }
                at += want as u64;
            }
        }
    }
}
