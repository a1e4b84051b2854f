//! Looking into a snapshot without restoring it.

use std::io::Write;
use std::sync::Arc;

use snap_format::{BlobId, BlobKind, Content, Node, NodeKind, TreeBlob, limits};
use snap_repo::{BlobReader, DomainKeys, Index, RepoError, Repository, Scratch, Snapshot};

use crate::{EngineError, Result};

/// A snapshot opened for reading.
pub struct Browser {
    reader: BlobReader,
    domain: DomainKeys,
    snapshot: Snapshot,
    root: BlobId,
    paths: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Browser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Browser({})", self.snapshot.id)
    }
}

/// What a path in a snapshot leads to.
#[derive(Debug, Clone)]
pub enum Found {
    /// The root, which has no node of its own.
    Root,
    /// An entry.
    Node(Box<Node>),
}

impl Browser {
    /// Opens a snapshot; readers only.
    pub fn open(repository: &Repository, index: Arc<Index>, snapshot: &Snapshot) -> Result<Self> {
        let body = repository.open_body(snapshot)?;
        let domain = repository.domain_of(snapshot)?;
        let reader = BlobReader::new(repository.clone(), index);
        Ok(Self { reader, domain, snapshot: snapshot.clone(), root: body.root, paths: body.paths })
    }

    /// Gives its blobs.
    pub fn reader(&self) -> &BlobReader {
        &self.reader
    }

    /// The keys of its blobs.
    pub fn domain(&self) -> &DomainKeys {
        &self.domain
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Its source paths.
    pub fn paths(&self) -> &[Vec<u8>] {
        &self.paths
    }

    /// The tree of its root.
    pub fn root(&self) -> BlobId {
        self.root
    }

    /// Nodes of a directory, in order; a directory of any size is given piece by piece.
    pub fn entries(
        &self,
        tree: BlobId,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(Node, &mut Scratch) -> Result<()>,
    ) -> Result<()> {
        self.entries_below(tree, 0, scratch, each)
    }

    fn entries_below(
        &self,
        tree: BlobId,
        level: usize,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(Node, &mut Scratch) -> Result<()>,
    ) -> Result<()> {
        match self.reader.tree(&self.domain, &tree, scratch)? {
            TreeBlob::Leaf(nodes) => nodes.into_iter().try_for_each(|node| each(node, scratch)),
            TreeBlob::Branch(children) if level < limits::BRANCH_LEVELS => {
                children.iter().try_for_each(|child| self.entries_below(child.id, level + 1, scratch, each))
            }
            _ => Err(self.malformed(tree, "a tree where a directory is expected")),
        }
    }

    fn malformed(&self, tree: BlobId, why: &str) -> EngineError {
        let finding = snap_repo::Finding::new(snap_repo::FindingCode::Corrupt, "packs", why).blob(tree);
        RepoError::from(finding).into()
    }

    /// The node of `name` in a directory.
    fn child(&self, tree: BlobId, level: usize, name: &[u8], scratch: &mut Scratch) -> Result<Option<Node>> {
        match self.reader.tree(&self.domain, &tree, scratch)? {
            TreeBlob::Leaf(mut nodes) => {
                let at = nodes.binary_search_by(|node| node.name.as_slice().cmp(name));
                Ok(at.ok().map(|at| nodes.swap_remove(at)))
            }
            TreeBlob::Branch(children) if level < limits::BRANCH_LEVELS => {
                let after = children.partition_point(|child| child.first.as_slice() <= name);
                match after.checked_sub(1) {
                    Some(at) => self.child(children[at].id, level + 1, name, scratch),
                    None => Ok(None),
                }
            }
            _ => Err(self.malformed(tree, "a tree where a directory is expected")),
        }
    }

    /// Follows an absolute path; no symlink is followed.
    pub fn find(&self, path: &[u8], scratch: &mut Scratch) -> Result<Found> {
        let mut found = Found::Root;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            let tree = match &found {
                Found::Root => Some(self.root),
                Found::Node(node) => node.tree(),
            };
            let node = match tree {
                Some(tree) => self.child(tree, 0, name, scratch)?,
                None => None,
            };
            found = Found::Node(Box::new(node.ok_or_else(|| self.no_path(path))?));
        }
        Ok(found)
    }

    pub(crate) fn no_path(&self, path: &[u8]) -> EngineError {
        let path = String::from_utf8_lossy(path).into_owned();
        EngineError::NoPath { path, snapshot: self.snapshot.id.to_hex()[..12].to_owned() }
    }

    /// Visits `tree` and everything below it, depth first, parents before children. `path` is the path of the directory; the
    /// callback gets the full path of each node and says whether to go into a directory.
    pub fn walk(
        &self,
        path: &[u8],
        tree: BlobId,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(&[u8], &Node) -> Result<bool>,
    ) -> Result<()> {
        // Directories wait here with their paths, so that a deep tree does not exhaust the stack.
        let mut waiting = vec![(path.to_vec(), tree)];
        while let Some((path, tree)) = waiting.pop() {
            let mut below = Vec::new();
            self.entries(tree, scratch, &mut |node, _| {
                let full = join(&path, &node.name);
                if each(&full, &node)?
                    && let NodeKind::Dir { tree } = node.kind
                {
                    below.push((full, tree));
                }
                Ok(())
            })?;
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// The data blobs of a file, in order.
    pub fn blobs(&self, content: &Content, scratch: &mut Scratch) -> Result<Vec<BlobId>> {
        let lists = match content {
            Content::Blobs(ids) => return Ok(ids.clone()),
            Content::Lists(lists) => lists,
        };
        let mut out = Vec::new();
        for list in lists {
            match self.reader.tree(&self.domain, list, scratch)? {
                TreeBlob::Content(mut ids) => out.append(&mut ids),
                _ => return Err(self.malformed(*list, "a tree where a content list is expected")),
            }
        }
        Ok(out)
    }

    /// Writes a file's bytes, holes as zeros.
    pub fn cat(&self, node: &Node, out: &mut dyn Write, scratch: &mut Scratch) -> Result<()> {
        let Some(content) = node.content() else {
            return Err(EngineError::Usage(format!("{} is not a file", String::from_utf8_lossy(&node.name))));
        };
        let holes: &[(u64, u64)] = match &node.kind {
            NodeKind::File { holes, .. } => holes,
            _ => &[],
        };
        let failed = |error| EngineError::io("writing", b"the output", error);
        let mut reader = FileReader::new(self, self.blobs(content, scratch)?, scratch);
        let mut file = snap_source::WithHoles::new(&mut reader, holes, node.size());
        let copied = std::io::copy(&mut file, &mut WriteTagged(out));
        match (reader.failure.take(), copied) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(failed(error)),
            (None, Ok(_)) => Ok(()),
        }
    }
}

struct WriteTagged<'a>(&'a mut dyn Write);

impl Write for WriteTagged<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A file's chunks as a stream.
pub(crate) struct FileReader<'a> {
    browser: &'a Browser,
    ids: std::vec::IntoIter<BlobId>,
    chunk: Vec<u8>,
    at: usize,
    scratch: &'a mut Scratch,
    /// The error behind an `io::Error` that was returned.
    pub(crate) failure: Option<EngineError>,
}

impl<'a> FileReader<'a> {
    pub(crate) fn new(browser: &'a Browser, ids: Vec<BlobId>, scratch: &'a mut Scratch) -> Self {
        Self { browser, ids: ids.into_iter(), chunk: Vec::new(), at: 0, scratch, failure: None }
    }
}

impl std::io::Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.chunk.len() {
            let Some(id) = self.ids.next() else { return Ok(0) };
            let Browser { reader, domain, .. } = self.browser;
            if let Err(error) = reader.read(domain, BlobKind::Data, &id, self.scratch, &mut self.chunk) {
                self.failure = Some(error.into());
                self.chunk.clear();
                return Err(std::io::Error::other("damaged"));
            }
            self.at = 0;
        }
        let length = out.len().min(self.chunk.len() - self.at);
        out[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// `directory/name`; the root is empty or `/`.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(directory.len() + name.len() + 1);
    out.extend_from_slice(directory);
    if !directory.ends_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(name);
    out
}
