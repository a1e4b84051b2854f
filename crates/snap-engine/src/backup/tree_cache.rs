//! The trees of the last run, kept locally in plain: what a `backup` slot compares with, which cannot read the repository, and
//! what saves everyone else the reading. Each tree is hashed again before use, and that a blob is stored is never taken from here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use snap_crypto::hash;
use snap_format::{BlobId, ObjectId, TreeBlob};
use snap_repo::{BlobReader, Cache, DomainKeys, Scratch};

const MAGIC: &[u8; 8] = b"SNAPTRE0";

/// Trees of this run, by id.
#[derive(Default)]
pub(super) struct NewTrees(Mutex<HashMap<BlobId, Vec<u8>>>);

impl NewTrees {
    pub(super) fn remember(&self, id: BlobId, plain: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, plain);
    }
}

/// The file of one dataset and host in the cache.
pub(super) fn cache_name(dataset: &str, host: &str) -> String {
    let digest = hash([dataset.as_bytes(), b"@", host.as_bytes()].concat().as_slice());
    let hex: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("trees/{hex}")
}

/// What the file holds: the snapshot it belongs to, its root, and all its trees.
pub(super) struct CachedTrees {
    pub(super) snapshot: ObjectId,
    pub(super) root: BlobId,
    bytes: Vec<u8>,
    places: HashMap<BlobId, (usize, usize)>,
}

impl CachedTrees {
    /// Reads the file; anything odd about it means that there is none.
    pub(super) fn load(cache: &Cache, name: &str) -> Option<Self> {
        let bytes = cache.read(name)?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (snapshot, rest) = rest.split_first_chunk::<32>()?;
        let (root, _) = rest.split_first_chunk::<32>()?;
        let (snapshot, root) = (ObjectId(*snapshot), BlobId(*root));
        let mut places = HashMap::new();
        let mut at = MAGIC.len() + 64;
        while at < bytes.len() {
            let head: &[u8; 36] = bytes.get(at..)?.first_chunk()?;
            let length = u32::from_le_bytes([head[32], head[33], head[34], head[35]]) as usize;
            let start = at + head.len();
            bytes.get(start..start.checked_add(length)?)?;
            places.insert(BlobId::from_slice(&head[..32])?, (start, length));
            at = start + length;
        }
        Some(Self { snapshot, root, bytes, places })
    }

    fn plain(&self, id: &BlobId) -> Option<&[u8]> {
        self.places.get(id).map(|(start, length)| &self.bytes[*start..start + length])
    }

    /// Writes the trees below `root`: those of this run, and those of the last that still belong to it.
    pub(super) fn store(
        cache: &Cache,
        name: &str,
        old: Option<&Self>,
        new: &NewTrees,
        snapshot: ObjectId,
        root: BlobId,
    ) -> std::io::Result<()> {
        let new = new.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&snapshot.0);
        out.extend_from_slice(&root.0);
        let mut written = std::collections::HashSet::new();
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            let plain = new.get(&id).map(Vec::as_slice).or_else(|| old.and_then(|old| old.plain(&id)));
            let Some(plain) = plain.filter(|_| written.insert(id)) else { continue };
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
            out.extend_from_slice(plain);
            if let Ok(tree) = TreeBlob::decode(plain) {
                waiting.extend(children(&tree));
            }
        }
        cache.write(name, &out)
    }
}

fn children(tree: &TreeBlob) -> Vec<BlobId> {
    match tree {
        TreeBlob::Leaf(nodes) => nodes
            .iter()
            .flat_map(|node| {
                let lists = match node.content() {
                    Some(snap_format::Content::Lists(lists)) => lists.clone(),
                    _ => Vec::new(),
                };
                node.tree().into_iter().chain(lists)
            })
            .collect(),
        TreeBlob::Branch(entries) => entries.iter().map(|entry| entry.id).collect(),
        TreeBlob::Content(_) => Vec::new(),
    }
}

/// Where the parent's trees come from: the cache, else the repository if the role may read it.
pub(super) struct ParentTrees {
    pub(super) cached: Option<CachedTrees>,
    pub(super) reader: Option<BlobReader>,
    pub(super) domain: DomainKeys,
}

impl ParentTrees {
    /// A tree of the parent; `None` if it cannot be had, which only costs reading files again.
    pub(super) fn tree(&self, id: &BlobId, scratch: &mut Scratch) -> Option<TreeBlob> {
        let cached = self.cached.as_ref().and_then(|cached| cached.plain(id));
        if let Some(plain) = cached.filter(|plain| self.domain.tree_id.id(plain) == id.0) {
            return TreeBlob::decode(plain).ok();
        }
        self.reader.as_ref()?.tree(&self.domain, id, scratch).ok()
    }
}
