use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use snap_format::{BlobId, BlobKind, BranchEntry, Node, NodeKind, TreeBlob, limits};
use snap_repo::{
    BlobReader, Cache, DomainKeys, Finding, FindingCode, Index, OpenCopies, RepoError, Repository, Snapshot,
};

use crate::backup::tree_look::LocalTrees;
use crate::work::{Worker, lock};
use crate::{Context, EngineError, Event, Observer, Result};

/// A snapshot opened for reading.
#[derive(Debug)]
pub struct Past {
    /// It.
    pub snapshot: Snapshot,
    /// Its source paths.
    pub paths: Vec<Vec<u8>>,
    pub(super) root: BlobId,
    /// Position in [`History::domains`].
    pub(super) domain: usize,
}

/// Keys of one domain, and its trees on local disk.
struct Domain {
    keys: DomainKeys,
    local: Option<LocalTrees>,
}

/// Snapshots opened for reading, in the order in which they were given, and their trees.
pub struct History {
    reader: Arc<BlobReader>,
    domains: Vec<Domain>,
    past: Vec<Past>,
    /// Damage that was told; once is enough.
    told: Mutex<HashSet<(String, Option<BlobId>)>>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "History({} snapshots)", self.past.len())
    }
}

/// A tree that is a directory, or a piece of one.
pub(super) enum Piece {
    Leaf(Vec<Node>),
    Branch(Vec<BranchEntry>),
}

impl History {
    /// Opens snapshots; readers only. One that is damaged is told and left out.
    pub fn open(
        repository: &Repository,
        index: Arc<Index>,
        snapshots: &[Snapshot],
        observer: &dyn Observer,
    ) -> Result<Self> {
        let reader = Arc::new(BlobReader::new(repository.clone(), index));
        let mut out = Self { reader, domains: Vec::new(), past: Vec::new(), told: Mutex::default() };
        for snapshot in snapshots {
            let opened =
                repository.open_body(snapshot).and_then(|body| Ok((body, repository.domain_of(snapshot)?)));
            match opened {
                Ok((body, keys)) => {
                    let domain = out.domain(keys);
                    let snapshot = snapshot.clone();
                    out.past.push(Past { snapshot, paths: body.paths, root: body.root, domain });
                }
                Err(error) => {
                    let mut finding = error.into_finding()?;
                    finding.snapshots.push(snapshot.id);
                    out.tell(observer, &finding);
                }
            }
        }
        Ok(out)
    }

    fn domain(&mut self, keys: DomainKeys) -> usize {
        match self.domains.iter().position(|domain| domain.keys.name == keys.name) {
            Some(known) => known,
            None => {
                self.domains.push(Domain { keys, local: None });
                self.domains.len() - 1
            }
        }
    }

    /// Reads what this copy cannot give from the first of the others that can. To be said before anything else.
    #[must_use]
    pub fn with_others(mut self, open: Box<OpenCopies>) -> Self {
        let reader = Arc::into_inner(self.reader).expect("nothing reads yet");
        self.reader = Arc::new(reader.with_others(open));
        self
    }

    /// Takes trees from the local cache where it has them. For who wants most of all trees: if the store is far, what the
    /// cache lacks comes in whole packs.
    #[must_use]
    pub fn with_cache(mut self, cache: Option<&Cache>) -> Self {
        let Some(cache) = cache else { return self };
        let is_far = self.reader.repository().backend().local_root().is_none();
        for (number, domain) in self.domains.iter_mut().enumerate() {
            // The newest first: its trees are what was kept last.
            let of_domain = self.past.iter().rev().filter(|past| past.domain == number);
            let mut groups: Vec<(&str, &str)> = Vec::new();
            for Past { snapshot, .. } in of_domain {
                let group = (&*snapshot.envelope.dataset, &*snapshot.envelope.host);
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            domain.local = Some(LocalTrees::open(cache, groups, &self.reader, &domain.keys, is_far));
        }
        self
    }

    /// Gives their blobs.
    pub fn reader(&self) -> &BlobReader {
        &self.reader
    }

    /// The snapshots.
    pub fn past(&self) -> &[Past] {
        &self.past
    }

    /// Pieces of damage that were told so far.
    pub fn damaged(&self) -> u64 {
        lock(&self.told).len() as u64
    }

    /// Threads to read with, where so many compute: if the store is far, more of them wait.
    pub(super) fn threads(&self, context: Context<'_>) -> usize {
        let backend = self.reader.repository().backend();
        match backend.local_root() {
            Some(_) => context.threads,
            None => context.threads.max(backend.parallelism().min(8)),
        }
    }

    /// A directory (`level` 0) or a piece of one that lies so many branches below it.
    pub(super) fn piece(
        &self,
        domain: usize,
        id: &BlobId,
        level: usize,
        worker: &mut Worker,
    ) -> Result<Piece> {
        match self.tree(domain, id, worker)? {
            TreeBlob::Leaf(nodes) => Ok(Piece::Leaf(nodes)),
            TreeBlob::Branch(children) if level < limits::BRANCH_LEVELS => Ok(Piece::Branch(children)),
            _ => Err(self.malformed(id, "a tree where a directory is expected")),
        }
    }

    fn tree(&self, domain: usize, id: &BlobId, worker: &mut Worker) -> Result<TreeBlob> {
        let Domain { keys, local } = &self.domains[domain];
        // What does not decode is read again, for an error that names its pack.
        if let Some(plain) = local.as_ref().and_then(|local| local.find(id))
            && let Ok(tree) = TreeBlob::decode(&plain)
        {
            return Ok(tree);
        }
        let Worker { scratch, plain, .. } = worker;
        self.reader.read(keys, BlobKind::Tree, id, scratch, plain)?;
        match TreeBlob::decode(plain) {
            Ok(tree) => Ok(tree),
            Err(_) => Ok(self.reader.tree(keys, id, scratch)?),
        }
    }

    pub(super) fn malformed(&self, tree: &BlobId, why: &str) -> EngineError {
        RepoError::from(Finding::new(FindingCode::Corrupt, "packs", why).blob(*tree)).into()
    }

    /// The node of `name` in a directory.
    fn child(
        &self,
        domain: usize,
        tree: &BlobId,
        level: usize,
        name: &[u8],
        worker: &mut Worker,
    ) -> Result<Option<Node>> {
        match self.piece(domain, tree, level, worker)? {
            Piece::Leaf(mut nodes) => {
                let at = nodes.binary_search_by(|node| node.name.as_slice().cmp(name));
                Ok(at.ok().map(|at| nodes.swap_remove(at)))
            }
            Piece::Branch(children) => {
                let after = children.partition_point(|child| child.first.as_slice() <= name);
                match after.checked_sub(1) {
                    Some(at) => self.child(domain, &children[at].id, level + 1, name, worker),
                    None => Ok(None),
                }
            }
        }
    }

    /// The node of `name` in the directory `tree`, `None` if it is not there.
    pub(super) fn entry(
        &self,
        domain: usize,
        tree: &BlobId,
        name: &[u8],
        worker: &mut Worker,
    ) -> Result<Option<Node>> {
        self.child(domain, tree, 0, name, worker)
    }

    /// Damage costs what it hides, not the look; anything else ends it.
    pub fn lost(&self, observer: &dyn Observer, past: &Past, path: &[u8], error: EngineError) -> Result<()> {
        let error = match error {
            EngineError::Repo(error) => error,
            other => return Err(other),
        };
        let mut finding = error.into_finding()?;
        finding.paths.push(if path.is_empty() { b"/".to_vec() } else { path.to_vec() });
        finding.snapshots.push(past.snapshot.id);
        self.tell(observer, &finding);
        Ok(())
    }

    fn tell(&self, observer: &dyn Observer, finding: &Finding) {
        if lock(&self.told).insert((finding.object.clone(), finding.blob)) {
            observer.event(Event::Finding(finding));
        }
    }
}

/// The components of a path.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// What of a node is shown, without the list of its chunks.
pub(super) fn without_content(mut node: Node) -> Node {
    if let NodeKind::File { content, holes, .. } = &mut node.kind {
        (*content, *holes) = Default::default();
    }
    if let NodeKind::Object { content, .. } = &mut node.kind {
        *content = Default::default();
    }
    node
}
