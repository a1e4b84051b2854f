use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use snap_format::{BlobId, Link, NodeKind, TreeBlob};
use snap_repo::{DomainKeys, Repository, Result, Snapshot};

use crate::error::Answer;
use crate::store::Store;

/// More files with several names than this are not counted, for the memory that it takes.
const MOST_LINKS: usize = 2_000_000;
/// How long a question for the number of a file's names waits for the count.
const COUNT_WITHIN: Duration = Duration::from_secs(1);

/// A snapshot that can be looked into.
pub(crate) struct Snap {
    pub(crate) domain: DomainKeys,
    /// Stands for the domain in keys of caches.
    pub(crate) domain_number: u32,
    pub(crate) root: BlobId,
    links: Mutex<Counting>,
    counted: Condvar,
}

#[derive(Default)]
enum Counting {
    #[default]
    NotBegun,
    Since(Instant),
    /// `None` if there are too many, or a tree could not be read.
    Done(Option<Arc<HashMap<Link, u32>>>),
}

/// How many names a file has in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Known(u32),
    /// It is being counted.
    NotYet,
}

impl Snap {
    pub(crate) fn open(repository: &Repository, snapshot: &Snapshot, domain_number: u32) -> Result<Self> {
        Ok(Self {
            domain: repository.domain_of(snapshot)?,
            domain_number,
            root: repository.open_body(snapshot)?.root,
            links: Mutex::default(),
            counted: Condvar::new(),
        })
    }

    /// The number of a file's names; who may wait does so for a moment.
    pub(crate) fn names(self: &Arc<Self>, link: &Link, store: &Arc<Store>, may_wait: bool) -> Names {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*links, Counting::NotBegun) {
            *links = Counting::Since(Instant::now());
            let (snap, store) = (Arc::clone(self), Arc::clone(store));
            let started = std::thread::Builder::new().name("links".into()).spawn(move || snap.count(&store));
            if started.is_err() {
                *links = Counting::Done(None);
            }
        }
        loop {
            let since = match &*links {
                // Two at least: it was noted since there was another name.
                Counting::Done(None) | Counting::NotBegun => return Names::Known(2),
                Counting::Done(Some(counts)) => return Names::Known(counts.get(link).copied().unwrap_or(1)),
                Counting::Since(began) => *began,
            };
            let left = COUNT_WITHIN.saturating_sub(since.elapsed());
            if !may_wait || left.is_zero() {
                return Names::NotYet;
            }
            links = self.counted.wait_timeout(links, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn count(&self, store: &Store) {
        let counts = self.count_below(store).ok().flatten();
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = Counting::Done(counts.map(Arc::new));
        self.counted.notify_all();
    }

    /// Every tree of the snapshot, the latest found first: no more are remembered than stand beside the way down.
    fn count_below(&self, store: &Store) -> Answer<Option<HashMap<Link, u32>>> {
        let mut counts: HashMap<Link, u32> = HashMap::new();
        let mut trees = vec![self.root];
        while let Some(id) = trees.pop() {
            match store.tree(&self.domain, &id)? {
                TreeBlob::Branch(children) => trees.extend(children.iter().map(|child| child.id)),
                TreeBlob::Content(_) => {}
                TreeBlob::Leaf(nodes) => {
                    for node in nodes {
                        if let Some(link) = node.link {
                            *counts.entry(link).or_default() += 1;
                        }
                        if let NodeKind::Dir { tree } = node.kind {
                            trees.push(tree);
                        }
                    }
                }
            }
            if counts.len() > MOST_LINKS || store.is_closed() {
                return Ok(None);
            }
        }
        Ok(Some(counts))
    }
}

/// A snapshot at one of the places where it is shown: each has inodes of its own, since a directory can be in one place only.
pub(crate) struct Instance {
    pub(crate) snap: Arc<Snap>,
    /// The inode of each file with several names: that of the name that was seen first.
    inodes: Mutex<HashMap<Link, u64>>,
}

impl Instance {
    pub(crate) fn new(snap: Arc<Snap>) -> Self {
        Self { snap, inodes: Mutex::default() }
    }

    /// The inode of a file with several names, which is `ino` if none of them was seen before.
    pub(crate) fn inode(&self, link: Link, ino: u64) -> u64 {
        *self.inodes.lock().unwrap_or_else(PoisonError::into_inner).entry(link).or_insert(ino)
    }
}
