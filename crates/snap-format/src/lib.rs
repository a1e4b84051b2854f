//! The repository format: what the stored bytes mean.
//!
//! Types and codecs for everything in `docs/format.md`, and nothing else. The types that matter:
//!
//! - ids: [`BlobId`] (plaintext, keyed), [`ObjectId`] (stored bytes), [`RepoId`], [`EpochId`], [`SlotId`];
//! - [`Node`] and [`TreeBlob`]: one entry of a directory, and the blobs a directory is stored as;
//! - [`PackHeader`], [`IndexObject`], [`Envelope`], [`Epoch`], [`Config`]: the objects;
//! - [`Head`] and [`Inner`]: the frame that packs and signed boxes share.
//!
//! ```
//! use snap_format::{Node, NodeKind, Time, TreeBlob};
//! let node = Node::new(b"hello".to_vec(), NodeKind::Symlink { target: b"world".to_vec() }, Time::new(1, 0));
//! let bytes = TreeBlob::Leaf(vec![node.clone()]).encode();
//! assert_eq!(TreeBlob::decode(&bytes).unwrap(), TreeBlob::Leaf(vec![node]));
//! ```
//!
//! Not here: I/O, clocks, randomness, and every algorithm that has a name (those are in `snap-crypto`).
//! A decoder here takes hostile bytes: it bounds every length and never panics.

mod cbor;
mod config;
mod epoch;
mod error;
mod frame;
mod ids;
mod index;
pub mod limits;
mod node;
mod pack;
mod record;
mod snapshot;
mod snapshot_bundle;
mod text_keys;
mod tree;

pub use config::{CONFIG_CHECKSUM_LEN, Config};
pub use epoch::{Bundle, Epoch, EpochKeys, KdfParams, Role, Slot, SlotDetails, SlotKind};
pub use error::FormatError;
pub use frame::{Codec, HEAD_LEN, Head, INNER_FIXED_LEN, Inner, ObjectKind, padme};
pub use ids::{BlobId, EpochId, ObjectId, RepoId, SlotId};
pub use index::{IndexObject, IndexedPack};
pub use node::{BlobIds, Content, Link, Node, NodeKind, ObjectMetadata, Time, Xattr};
pub use pack::{
    BLOB_ENTRY_LEN, BlobEntry, BlobKind, PackHeader, RUN_KEY_ENTRY_LEN, RunKeyEntry, SEAL_OVERHEAD,
    TRAILER_LEN, Unit, line_codec,
};
pub use record::{Mark, Pin, Record, RecordBody, Replacement};
pub use snapshot::{Body, Details, Envelope, Summary};
pub use snapshot_bundle::{BundledSnapshot, SnapshotBundle};
pub use text_keys::{decode_key_file, decode_recovery_key, encode_key_file, encode_recovery_key};
pub use tree::{BranchEntry, LeafCutter, TreeBlob};

/// The version that this crate writes, and the highest that it reads.
pub const VERSION: u16 = 0;
