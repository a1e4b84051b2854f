//! Looking into a snapshot without restoring it.

use std::io::Write;
use std::sync::Arc;

use snap_format::{BlobId, BranchEntry, Content, Node, NodeKind, TreeBlob, limits};
use snap_repo::{BlobReader, DomainKeys, Index, RepoError, Repository, Scratch, Snapshot};

use crate::read_ahead::ReadAhead;
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

    /// Reads what this copy cannot give from the first of the others that can.
    #[must_use]
    pub fn with_others(self, open: Box<snap_repo::OpenCopies>) -> Self {
        Self { reader: self.reader.with_others(open), ..self }
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
        self.entries_below(tree, 0, &mut None, scratch, each)
    }

    fn entries_below(
        &self,
        tree: BlobId,
        level: usize,
        last: &mut Option<Vec<u8>>,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(Node, &mut Scratch) -> Result<()>,
    ) -> Result<()> {
        match self.cursor(tree, level, last, scratch)? {
            Cursor::Leaf(mut nodes) => nodes.try_for_each(|node| each(node, scratch)),
            Cursor::Branch(mut children, _) => {
                children.try_for_each(|child| self.entries_below(child.id, level + 1, last, scratch, each))
            }
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

    /// Visits `tree` and everything below it: what is in a directory comes right after it, in the order of names. `path` is
    /// the path of the directory; the callback gets the full path of each node and says whether to go into a directory.
    pub fn walk(
        &self,
        path: &[u8],
        tree: BlobId,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(&[u8], &Node) -> Result<bool>,
    ) -> Result<()> {
        self.walk_past(path, tree, scratch, each, &mut |_, error| Err(error))
    }

    /// As [`Browser::walk`]; a tree that cannot be read is told to `lost`, with the path of its directory, and what is not below
    /// it is visited all the same.
    pub fn walk_past(
        &self,
        path: &[u8],
        tree: BlobId,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(&[u8], &Node) -> Result<bool>,
        lost: &mut dyn FnMut(&[u8], EngineError) -> Result<()>,
    ) -> Result<()> {
        let mut path = path.to_vec();
        // One tree a level, with the length of its directory's path: a deep snapshot does not exhaust the stack, nor a wide one
        // the memory.
        let mut levels: Vec<(usize, Cursor)> = Vec::new();
        // The last name of each directory on the way.
        let mut last: Vec<Option<Vec<u8>>> = Vec::new();
        let mut next = Some((tree, 0));
        loop {
            if let Some((tree, level)) = next.take() {
                if level == 0 {
                    last.push(None);
                }
                let last_name = last.last_mut().expect("a directory is pushed at level 0");
                match self.cursor(tree, level, last_name, scratch) {
                    Ok(cursor) => levels.push((path.len(), cursor)),
                    Err(error) => {
                        lost(&path, error)?;
                        if level == 0 {
                            last.pop();
                        }
                    }
                }
            }
            let Some((length, cursor)) = levels.last_mut() else { return Ok(()) };
            path.truncate(*length);
            let is_done = match cursor {
                Cursor::Branch(children, level) => match children.next() {
                    Some(child) => {
                        next = Some((child.id, *level + 1));
                        false
                    }
                    None => true,
                },
                Cursor::Leaf(nodes) => match nodes.next() {
                    Some(node) => {
                        push_name(&mut path, &node.name);
                        if each(&path, &node)?
                            && let NodeKind::Dir { tree } = node.kind
                        {
                            next = Some((tree, 0));
                        }
                        false
                    }
                    None => true,
                },
            };
            if is_done {
                levels.pop();
                // The last tree of a directory leaves another one, or none, on top.
                if levels.last().is_none_or(|(_, cursor)| matches!(cursor, Cursor::Leaf(_))) {
                    last.pop();
                }
            }
        }
    }

    /// Opens a tree of a directory whose trees so far end with the name `last`: names ascend across them, too.
    fn cursor(
        &self,
        tree: BlobId,
        level: usize,
        last: &mut Option<Vec<u8>>,
        scratch: &mut Scratch,
    ) -> Result<Cursor> {
        match self.reader.tree(&self.domain, &tree, scratch)? {
            TreeBlob::Leaf(nodes) => {
                if let Some((first, end)) = nodes.first().zip(nodes.last()) {
                    if last.as_ref().is_some_and(|last| *last >= first.name) {
                        return Err(self.malformed(tree, "its names are not behind those before it"));
                    }
                    *last = Some(end.name.clone());
                }
                Ok(Cursor::Leaf(nodes.into_iter()))
            }
            TreeBlob::Branch(children) if level < limits::BRANCH_LEVELS => {
                Ok(Cursor::Branch(children.into_iter(), level))
            }
            _ => Err(self.malformed(tree, "a tree where a directory is expected")),
        }
    }

    /// The data blobs of a file, in order.
    pub fn blobs(&self, content: &Content, scratch: &mut Scratch) -> Result<Vec<BlobId>> {
        let lists = match content {
            Content::Blobs(ids) => return Ok(ids.clone()),
            Content::Lists(lists) => lists,
        };
        let mut out = Vec::new();
        for list in lists {
            out.append(&mut self.content_list(list, scratch)?);
        }
        Ok(out)
    }

    /// The data blobs of a file or object, in order, once it is certain that they are indexed and add up to its size, with its
    /// holes (F21): whoever believed a size that does not fit would write for ever.
    pub fn file_blobs(&self, node: &Node, scratch: &mut Scratch) -> Result<Vec<BlobId>> {
        let holes = match &node.kind {
            NodeKind::File { holes, .. } => holes.iter().map(|hole| hole.1).sum(),
            _ => 0,
        };
        let mut content = Adding { browser: self, size: node.size(), ids: Vec::new(), sum: holes };
        let fits = match node.content() {
            None => true,
            Some(Content::Blobs(ids)) => content.add(ids)?,
            Some(Content::Lists(lists)) => lists.iter().try_fold(true, |fits, list| match fits {
                // A list may stand there a thousand times: stop before it fills the memory.
                false => Ok(false),
                true => content.add(&self.content_list(list, scratch)?),
            })?,
        };
        if fits && content.sum == node.size() {
            return Ok(content.ids);
        }
        let name = String::from_utf8_lossy(&node.name);
        let why = format!("the size of {name} is not that of its chunks and holes");
        Err(RepoError::from(snap_repo::Finding::new(snap_repo::FindingCode::Forged, "packs", why)).into())
    }

    fn content_list(&self, list: &BlobId, scratch: &mut Scratch) -> Result<Vec<BlobId>> {
        match self.reader.tree(&self.domain, list, scratch)? {
            TreeBlob::Content(ids) => Ok(ids),
            _ => Err(self.malformed(*list, "a tree where a content list is expected")),
        }
    }

    /// Threads to read with, where so many compute: if the store is far, more of them wait.
    pub(crate) fn reading_threads(&self, threads: usize) -> usize {
        let backend = self.reader.repository().backend();
        match backend.local_root() {
            Some(_) => threads,
            None => threads.max(backend.parallelism().min(8)),
        }
    }

    /// Writes a file's bytes, holes as zeros, on this thread alone.
    pub fn cat(&self, node: &Node, out: &mut dyn Write, scratch: &mut Scratch) -> Result<()> {
        self.cat_with_threads(node, out, scratch, 0, 0)
    }

    /// As [`Browser::cat`]; so many threads read ahead, and hold so many bytes of the file.
    pub fn cat_with_threads(
        &self,
        node: &Node,
        out: &mut dyn Write,
        scratch: &mut Scratch,
        threads: usize,
        memory_bytes: u64,
    ) -> Result<()> {
        if node.content().is_none() {
            return Err(EngineError::Usage(format!("{} is not a file", String::from_utf8_lossy(&node.name))));
        }
        let holes: &[(u64, u64)] = match &node.kind {
            NodeKind::File { holes, .. } => holes,
            _ => &[],
        };
        let ids = self.file_blobs(node, scratch)?;
        let threads = if threads == 0 { 0 } else { self.reading_threads(threads) };
        ReadAhead::scope(self, threads, memory_bytes, |ahead| {
            let mut file = ahead.file(ids);
            let mut out = WithHoles { out, holes, position: 0 };
            loop {
                let piece = file.next_piece()?;
                out.write(piece)?;
                if piece.is_empty() {
                    return Ok(());
                }
            }
        })
    }
}

/// Puts zeros where the holes are.
struct WithHoles<'a> {
    out: &'a mut dyn Write,
    holes: &'a [(u64, u64)],
    position: u64,
}

impl WithHoles<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let failed = |error| EngineError::io("writing", b"the output", error);
        while let Some(((start, length), later)) = self.holes.split_first() {
            let before = start.saturating_sub(self.position);
            if before > bytes.len() as u64 {
                break;
            }
            let (now, rest) = bytes.split_at(before as usize);
            self.out.write_all(now).map_err(failed)?;
            self.zeros(*length).map_err(failed)?;
            (self.position, self.holes, bytes) = (start + length, later, rest);
        }
        self.position += bytes.len() as u64;
        self.out.write_all(bytes).map_err(failed)
    }

    fn zeros(&mut self, mut length: u64) -> std::io::Result<()> {
        let block = [0; 64 << 10];
        while length > 0 {
            let now = length.min(block.len() as u64);
            self.out.write_all(&block[..now as usize])?;
            length -= now;
        }
        Ok(())
    }
}

/// The blobs of a file so far, and how much of its size they are.
struct Adding<'a> {
    browser: &'a Browser,
    size: u64,
    ids: Vec<BlobId>,
    sum: u64,
}

impl Adding<'_> {
    /// False if they are more than the file can hold.
    fn add(&mut self, ids: &[BlobId]) -> Result<bool> {
        let reader = &self.browser.reader;
        for id in ids {
            let Some(length) = reader.plain_len(&self.browser.domain.name, id) else {
                reader.index().check()?;
                let why = "no index names it";
                let finding = snap_repo::Finding::new(snap_repo::FindingCode::Missing, "index", why);
                return Err(RepoError::from(finding.blob(*id)).into());
            };
            let Some(sum) = self.sum.checked_add(u64::from(length)) else { return Ok(false) };
            self.sum = sum;
        }
        self.ids.extend_from_slice(ids);
        Ok(self.sum <= self.size && self.ids.len() as u64 <= self.size)
    }
}

/// What is left of a tree that is being walked.
enum Cursor {
    Leaf(std::vec::IntoIter<Node>),
    Branch(std::vec::IntoIter<BranchEntry>, usize),
}

/// `directory/name`; the root is empty or `/`.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(directory.len() + name.len() + 1);
    out.extend_from_slice(directory);
    push_name(&mut out, name);
    out
}

pub(crate) fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
