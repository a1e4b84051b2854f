//! Every tree that snapshots reach is read once. What is known of it is one bit: a set of ids would take more memory than all
//! else.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_backend::{Bytes, ErrorKind, ObjectName};
use snap_format::{BlobId, BlobKind, Content, NodeKind, ObjectId, TreeBlob};
use snap_repo::prune::{LiveSet, Salt, TreePlaces};
use snap_repo::{
    Area, DomainKeys, Finding, FindingCode, Located, RepoError, Repository, Snapshot, object_name,
};

use crate::work::{Worker, for_each_growing, lock};
use crate::{Context, Result};

/// Bytes fetched around a tree, half on each side: trees that were written together are wanted together.
const WINDOW: u64 = 512 << 10;
/// Windows kept: 16 MiB.
const WINDOWS: usize = 32;
/// Damaged trees after which no more are looked for: one is enough to delete nothing.
const FINDINGS: usize = 100;

/// What reading trees needs.
struct Reader<'a> {
    repository: &'a Repository,
    trees: &'a TreePlaces,
    domains: Vec<DomainKeys>,
    windows: Mutex<VecDeque<Window>>,
}

struct Window {
    pack: ObjectId,
    offset: u64,
    bytes: Bytes,
}

/// A root: position of its domain, and the tree.
type Root = (usize, BlobId);

/// Adds all that the snapshots reach to `live`; returns what cannot be read.
pub(super) fn walk(
    repository: &Repository,
    snapshots: &[Snapshot],
    trees: &TreePlaces,
    live: &LiveSet,
    context: Context<'_>,
) -> Result<Vec<Finding>> {
    let (reader, roots) = Reader::new(repository, trees, snapshots)?;
    let walk = Walk {
        salts: reader.salts(live),
        seen: (0..trees.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        findings: Mutex::default(),
        reader,
        live,
    };
    let first = roots.into_iter().filter_map(|(domain, id)| walk.enter(domain, &id)).collect();
    // Where the store is far, most threads wait.
    let threads = match repository.backend().local_root() {
        Some(_) => context.threads,
        None => context.threads.max(repository.backend().parallelism()),
    };
    for_each_growing(first, threads, |(domain, number), worker, added| {
        context.check_stop()?;
        walk.visit(domain, number, worker, added)?;
        context.progress.add(1, 0);
        added.reverse(); // the last is taken first: neighbours lie next to each other
        Ok(())
    })?;
    Ok(walk.findings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

struct Walk<'a> {
    reader: Reader<'a>,
    live: &'a LiveSet,
    /// By domain: of trees, and of data.
    salts: Vec<(Salt, Salt)>,
    /// By number of the tree: whether it waits, or was read.
    seen: Vec<AtomicU64>,
    findings: Mutex<Vec<Finding>>,
}

impl Walk<'_> {
    /// Notes that a tree is needed. Its domain and number if it was not met before.
    fn enter(&self, domain: usize, id: &BlobId) -> Option<(usize, u32)> {
        let Some(number) = self.reader.trees.number(&self.reader.domains[domain].name, id) else {
            self.note(dangling(id));
            return None;
        };
        let bit = 1 << (number % 64);
        let is_new = self.seen[number as usize / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0;
        is_new.then(|| {
            self.live.insert(self.salts[domain].0, id);
            (domain, number)
        })
    }

    fn note(&self, finding: Finding) {
        let mut findings = lock(&self.findings);
        if findings.len() < FINDINGS {
            findings.push(finding);
        }
    }

    fn visit(
        &self,
        domain: usize,
        number: u32,
        worker: &mut Worker,
        added: &mut Vec<(usize, u32)>,
    ) -> Result<()> {
        let tree = match self.reader.read(domain, number, worker)? {
            Ok(tree) => tree,
            Err(finding) => {
                self.note(finding);
                return Ok(());
            }
        };
        for_each_child(&tree, |child| match child {
            Child::Data(ids) => ids.iter().for_each(|id| {
                self.live.insert(self.salts[domain].1, id);
            }),
            Child::Tree(id) => added.extend(self.enter(domain, id)),
        });
        Ok(())
    }
}

/// What a tree refers to.
enum Child<'a> {
    Data(&'a [BlobId]),
    Tree(&'a BlobId),
}

fn for_each_child(tree: &TreeBlob, mut each: impl FnMut(Child<'_>)) {
    match tree {
        TreeBlob::Content(ids) => each(Child::Data(ids)),
        TreeBlob::Branch(entries) => entries.iter().for_each(|entry| each(Child::Tree(&entry.id))),
        TreeBlob::Leaf(nodes) => {
            for node in nodes {
                if let NodeKind::Dir { tree } = &node.kind {
                    each(Child::Tree(tree));
                }
                match node.content() {
                    Some(Content::Blobs(ids)) => each(Child::Data(ids)),
                    Some(Content::Lists(lists)) => lists.iter().for_each(|list| each(Child::Tree(list))),
                    None => {}
                }
            }
        }
    }
}

fn dangling(id: &BlobId) -> Finding {
    Finding::new(FindingCode::Dangling, "index", "a snapshot needs this tree, and no index names it")
        .blob(*id)
}

fn corrupt(name: &ObjectName, why: impl Into<String>) -> RepoError {
    RepoError::from(Finding::new(FindingCode::Corrupt, name.as_str(), why))
}

impl<'a> Reader<'a> {
    fn new(
        repository: &'a Repository,
        trees: &'a TreePlaces,
        snapshots: &[Snapshot],
    ) -> Result<(Self, Vec<Root>)> {
        let mut domains: Vec<DomainKeys> = Vec::new();
        let mut roots = Vec::new();
        for snapshot in snapshots {
            let body = repository.open_body(snapshot)?;
            let name = &snapshot.envelope.domain;
            let known = domains.iter().position(|domain| domain.name == *name);
            if known.is_none() {
                domains.push(repository.domain_of(snapshot)?);
            }
            roots.push((known.unwrap_or(domains.len() - 1), body.root));
        }
        Ok((Self { repository, trees, domains, windows: Mutex::default() }, roots))
    }

    fn salts(&self, live: &LiveSet) -> Vec<(Salt, Salt)> {
        let of = |domain: &DomainKeys| {
            (live.salt(&domain.name, BlobKind::Tree), live.salt(&domain.name, BlobKind::Data))
        };
        self.domains.iter().map(of).collect()
    }

    /// A tree from the first of its places that gives it back whole; else what is wrong with that.
    fn read(&self, domain: usize, number: u32, worker: &mut Worker) -> Result<Result<TreeBlob, Finding>> {
        let (_, id) = self.trees.tree(number);
        let mut failure = None;
        for place in self.trees.places(number) {
            let outcome = self.open(domain, &id, &place, worker).and_then(|()| {
                let name = object_name(Area::Packs, &place.pack_id);
                TreeBlob::decode(&worker.plain).map_err(|error| corrupt(&name, error.to_string()))
            });
            match outcome.map_err(RepoError::into_finding) {
                Ok(tree) => return Ok(Ok(tree)),
                Err(Ok(finding)) => failure = failure.or(Some(finding.blob(id))),
                Err(Err(error)) => return Err(error.into()),
            }
        }
        Ok(Err(failure.unwrap_or_else(|| dangling(&id))))
    }

    fn open(
        &self,
        domain: usize,
        id: &BlobId,
        place: &Located,
        worker: &mut Worker,
    ) -> Result<(), RepoError> {
        let sealed = self.fetch(place)?;
        let Worker { scratch, plain, .. } = worker;
        plain.clear();
        let keys = &self.domains[domain];
        self.repository.open_sealed(keys, BlobKind::Tree, id, place, &sealed, scratch, plain)
    }

    fn fetch(&self, place: &Located) -> Result<Bytes, RepoError> {
        let length = u64::from(place.stored_len);
        if let Some(bytes) = self.find_in_windows(place) {
            return Ok(bytes);
        }
        let name = object_name(Area::Packs, &place.pack_id);
        let backend = self.repository.backend();
        let end = place.offset + length;
        let start = place.offset.saturating_sub(WINDOW / 2);
        let window = (end + WINDOW / 2).min(place.pack_size).max(end) - start;
        let bytes = match backend.get_range(&name, start, window) {
            // Shorter than the index says: what is left of a truncated pack is still of use.
            Err(error) if error.kind() == ErrorKind::OutOfRange && window > length => {
                return Ok(backend.get_range(&name, place.offset, length)?);
            }
            bytes => bytes?,
        };
        let at = (place.offset - start) as usize;
        if bytes.len() < at + length as usize {
            return Err(corrupt(&name, "it is shorter than the index says"));
        }
        let wanted = bytes.slice(at..at + length as usize);
        let mut windows = lock(&self.windows);
        windows.truncate(WINDOWS - 1);
        windows.push_front(Window { pack: place.pack_id, offset: start, bytes });
        Ok(wanted)
    }

    fn find_in_windows(&self, place: &Located) -> Option<Bytes> {
        lock(&self.windows).iter().find_map(|window| {
            let start = place.offset.checked_sub(window.offset).filter(|_| window.pack == place.pack_id)?;
            let end = start + u64::from(place.stored_len);
            (end <= window.bytes.len() as u64).then(|| window.bytes.slice(start as usize..end as usize))
        })
    }
}

/// Those of the snapshots that reach one of `lost`, or a tree that cannot be read. Each tree is read once.
pub(super) fn blame(
    repository: &Repository,
    snapshots: &[Snapshot],
    trees: &TreePlaces,
    lost: &LiveSet,
    context: Context<'_>,
) -> Result<Vec<ObjectId>> {
    let (reader, roots) = Reader::new(repository, trees, snapshots)?;
    let salts = reader.salts(lost);
    let mut blame = Blame { verdicts: vec![None; trees.len()], reader, salts, lost };
    let mut worker = Worker::new()?;
    let mut out = Vec::new();
    for (snapshot, (domain, root)) in snapshots.iter().zip(roots) {
        context.check_stop()?;
        if blame.is_hit(domain, &root, &mut worker)? {
            out.push(snapshot.id);
        }
    }
    Ok(out)
}

struct Blame<'a> {
    reader: Reader<'a>,
    lost: &'a LiveSet,
    salts: Vec<(Salt, Salt)>,
    /// By number of the tree: whether it reaches what is lost.
    verdicts: Vec<Option<bool>>,
}

/// A tree whose children are looked at.
struct Frame {
    number: u32,
    children: Vec<BlobId>,
    is_hit: bool,
}

impl Blame<'_> {
    /// Depth first with a stack of its own: paths may be long.
    fn is_hit(&mut self, domain: usize, root: &BlobId, worker: &mut Worker) -> Result<bool> {
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = Some(*root);
        loop {
            let mut verdict = None;
            if let Some(id) = next.take() {
                let name = &self.reader.domains[domain].name;
                match self.reader.trees.number(name, &id) {
                    None => verdict = Some(true),
                    Some(number) => match self.verdicts[number as usize] {
                        Some(known) => verdict = Some(known),
                        None => stack.push(self.open(domain, number, worker)?),
                    },
                }
            }
            let Some(top) = stack.last_mut() else { return Ok(verdict.unwrap_or(true)) };
            top.is_hit |= verdict.unwrap_or(false);
            next = top.children.pop();
            if next.is_none()
                && let Some(done) = stack.pop()
            {
                self.verdicts[done.number as usize] = Some(done.is_hit);
                match stack.last_mut() {
                    Some(above) => above.is_hit |= done.is_hit,
                    None => return Ok(done.is_hit),
                }
            }
        }
    }

    fn open(&self, domain: usize, number: u32, worker: &mut Worker) -> Result<Frame> {
        let (_, id) = self.reader.trees.tree(number);
        let mut frame =
            Frame { number, children: Vec::new(), is_hit: self.lost.contains(self.salts[domain].0, &id) };
        match self.reader.read(domain, number, worker)? {
            Ok(tree) => for_each_child(&tree, |child| match child {
                Child::Data(ids) => {
                    frame.is_hit |= ids.iter().any(|id| self.lost.contains(self.salts[domain].1, id));
                }
                Child::Tree(id) => frame.children.push(*id),
            }),
            Err(_) => frame.is_hit = true,
        }
        Ok(frame)
    }
}
