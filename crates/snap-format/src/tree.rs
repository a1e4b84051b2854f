use crate::cbor::{self, Enc};
use crate::node::take_ids;
use crate::{BlobId, BlobIds, FormatError, Node};

const WHAT: &str = "tree";

/// A blob of kind *tree*: a piece of a directory, or of a long file's list of blobs (`docs/format.md` §9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeBlob {
    /// Nodes sorted by name.
    Leaf(Vec<Node>),
    /// Leaves or further branches, in order.
    Branch(Vec<BranchEntry>),
    /// Data blobs of a long file.
    Content(BlobIds),
}

/// One child of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchEntry {
    /// Name of the first node below.
    pub first: Vec<u8>,
    /// A leaf or a branch.
    pub id: BlobId,
    /// Nodes below.
    pub nodes: u64,
}

impl TreeBlob {
    /// The blob's plaintext. Nodes must be sorted by name already.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        match self {
            Self::Leaf(nodes) => return Self::encode_leaf(nodes),
            Self::Branch(entries) => {
                enc.map(1).uint(1).array(entries.len());
                for entry in entries {
                    enc.array(3).bytes(&entry.first).bytes(&entry.id.0).uint(entry.nodes);
                }
            }
            Self::Content(ids) => {
                let flat: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
                enc.map(1).uint(2).bytes(&flat);
            }
        }
        enc.finish()
    }

    /// The plaintext of a leaf, from borrowed nodes.
    pub fn encode_leaf(nodes: &[Node]) -> Vec<u8> {
        let mut enc = Enc::new();
        let mut scratch = Vec::new();
        enc.map(1).uint(0).array(nodes.len());
        nodes.iter().for_each(|node| node.put(&mut enc, &mut scratch));
        enc.finish()
    }

    /// Reads a blob's plaintext; checks order and uniqueness of names.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut dec = cbor::open(bytes, WHAT)?;
        let mut tree = None;
        dec.map(|dec, key| {
            if tree.is_some() && key <= 2 {
                return Err(dec.error("more than one key"));
            }
            tree = Some(match key {
                0 => Self::Leaf(dec.array(Node::take)?),
                1 => Self::Branch(dec.array(|dec| {
                    dec.fixed_array(3)?;
                    Ok(BranchEntry {
                        first: dec.bytes()?.to_vec(),
                        id: BlobId(dec.fixed()?),
                        nodes: dec.uint()?,
                    })
                })?),
                2 => Self::Content(take_ids(dec)?),
                _ => return Ok(false),
            });
            Ok(true)
        })?;
        let tree = dec.required(tree)?;
        let sorted = match &tree {
            Self::Leaf(nodes) => nodes.is_sorted_by(|a, b| a.name < b.name),
            Self::Branch(entries) => !entries.is_empty() && entries.is_sorted_by(|a, b| a.first < b.first),
            Self::Content(_) => true,
        };
        if sorted { Ok(tree) } else { Err(FormatError::malformed(WHAT, "names out of order")) }
    }
}

/// Decides where a writer ends a leaf (`docs/format.md` §9), so that a directory that gains one entry changes one leaf.
#[derive(Debug, Default)]
pub struct LeafCutter {
    nodes: usize,
    bytes: usize,
}

impl LeafCutter {
    /// Fewest nodes of a leaf that is not the last.
    pub const MIN_NODES: usize = 128;
    /// Most nodes of a leaf.
    pub const MAX_NODES: usize = 2048;
    /// Size at which a leaf ends, bytes.
    pub const MAX_BYTES: usize = 1 << 20;
    /// Most children of a branch.
    pub const BRANCH: usize = 1024;

    /// Takes a node's rough encoded size and the first four bytes of the hash of its name; true if the leaf ends
    /// after it.
    pub fn push(&mut self, bytes: usize, name_hash: u32) -> bool {
        self.nodes += 1;
        self.bytes += bytes;
        let ends = (self.nodes >= Self::MIN_NODES && name_hash.is_multiple_of(512))
            || self.nodes >= Self::MAX_NODES
            || self.bytes >= Self::MAX_BYTES;
        if ends {
            *self = Self::default();
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Link, NodeKind, ObjectMetadata, Time, Xattr};

    fn node(name: &[u8], kind: NodeKind) -> Node {
        Node::new(name.to_vec(), kind, Time::new(-5, 7))
    }

    fn one_of_each() -> Vec<Node> {
        let mut full = node(
            b"b\xff\n",
            NodeKind::File {
                size: 100_000,
                content: Content::Blobs(vec![BlobId([1; 32]), BlobId([2; 32])]),
                holes: vec![(0, 4096), (8192, 4096)],
                profile: 2,
            },
        );
        full.mode = 0o6755;
        full.uid = 1000;
        full.gid = 100;
        full.user = Some("ann".into());
        full.group = Some("users".into());
        full.ctime = Some(Time::new(i64::MAX, 999_999_999));
        full.inode = Some(u64::MAX);
        full.link = Some(Link { device: 1, inode: 2 });
        full.xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![] }];
        full.changed_while_read = true;
        full.unknown = vec![(200, vec![0x01])];
        let metadata = ObjectMetadata {
            content_type: Some("text/plain".into()),
            etag: Some("e".into()),
            version: Some("v".into()),
            user: vec![("a".into(), "b".into())],
        };
        vec![
            node(b"a", NodeKind::Dir { tree: BlobId([9; 32]) }),
            full,
            node(b"c", NodeKind::Symlink { target: b"../\xfe".to_vec() }),
            node(b"d", NodeKind::Fifo),
            node(b"e", NodeKind::CharDevice { major: 1, minor: 3 }),
            node(b"f", NodeKind::BlockDevice { major: 8, minor: 1 << 19 }),
            node(
                b"g",
                NodeKind::Object {
                    size: 3,
                    content: Content::Lists(vec![BlobId([3; 32])]),
                    profile: 1,
                    metadata,
                },
            ),
        ]
    }

    #[test]
    fn every_kind_of_node_survives() {
        let tree = TreeBlob::Leaf(one_of_each());
        assert_eq!(TreeBlob::decode(&tree.encode()), Ok(tree));
        let branch = TreeBlob::Branch(vec![
            BranchEntry { first: b"a".to_vec(), id: BlobId([1; 32]), nodes: 3 },
            BranchEntry { first: b"b".to_vec(), id: BlobId([2; 32]), nodes: u64::MAX },
        ]);
        assert_eq!(TreeBlob::decode(&branch.encode()), Ok(branch));
        let list = TreeBlob::Content(vec![BlobId([5; 32]); 3]);
        assert_eq!(TreeBlob::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn a_leaf_of_one_fifo_has_these_bytes() {
        let mut fifo = node(b"p", NodeKind::Fifo);
        fifo.mode = 0o600;
        let expected = [
            0xa1, 0x00, 0x81, // {0: [
            0xa4, 0x00, 0x41, b'p', // {0: h'70',
            0x01, 0x03, // 1: 3,
            0x02, 0x19, 0x01, 0x80, // 2: 384,
            0x07, 0x82, 0x24, 0x07, // 7: [-5, 7]}]}
        ];
        assert_eq!(TreeBlob::Leaf(vec![fifo]).encode(), expected);
    }

    #[test]
    fn hostile_trees_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            let bytes = TreeBlob::Leaf(vec![node(name, NodeKind::Fifo)]).encode();
            assert!(TreeBlob::decode(&bytes).is_err(), "{name:?}");
        }
        let unsorted = [node(b"b", NodeKind::Fifo), node(b"a", NodeKind::Fifo)];
        assert!(TreeBlob::decode(&TreeBlob::encode_leaf(&unsorted)).is_err());
        let twice = [node(b"a", NodeKind::Fifo), node(b"a", NodeKind::Fifo)];
        assert!(TreeBlob::decode(&TreeBlob::encode_leaf(&twice)).is_err());
        for holes in
            [vec![(0, 0)], vec![(4, 4), (0, 2)], vec![(0, 4), (4, 4)], vec![(90, 11)], vec![(u64::MAX, 2)]]
        {
            let file = NodeKind::File { size: 100, content: Content::default(), holes, profile: 1 };
            assert!(
                TreeBlob::decode(&TreeBlob::encode_leaf(&[node(b"f", file.clone())])).is_err(),
                "{file:?}"
            );
        }
    }

    #[test]
    fn leaves_end_by_name_and_by_size() {
        let mut cutter = LeafCutter::default();
        let cut_at: Vec<usize> =
            (0..600).filter(|i| cutter.push(10, if *i == 5 || *i == 300 { 512 } else { 1 })).collect();
        assert_eq!(cut_at, [300]);
        assert!((0..LeafCutter::MAX_NODES * 2).filter(|_| cutter.push(1, 1)).count() == 2);
        assert!(LeafCutter::default().push(LeafCutter::MAX_BYTES, 1));
    }
}
