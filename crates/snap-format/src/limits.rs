//! Upper bounds that a reader enforces before it allocates or decompresses (`docs/format.md` §16).

/// Plain length of a blob, bytes.
pub const BLOB_PLAIN: usize = 16 << 20;
/// Plain length of a signed box's payload, bytes.
pub const PAYLOAD_PLAIN: usize = 64 << 20;
/// Size of a pack, bytes.
pub const PACK: u64 = (64 << 20) + (16 << 20);
/// Size at which a writer finishes a pack, bytes; shorter packs are padded.
pub const PACK_TARGET: usize = 16 << 20;
/// Size of an epoch, bytes.
pub const EPOCH: usize = 16 << 20;
/// Size of a config, bytes.
pub const CONFIG: usize = 1 << 20;
/// Blobs in a pack.
pub const PACK_BLOBS: usize = 1 << 20;
/// Run key entries in a pack.
pub const RUN_KEYS: usize = 256;
/// Slots in an epoch.
pub const SLOTS: usize = 1024;
/// Nesting of a CBOR structure.
pub const CBOR_DEPTH: usize = 16;
/// Levels of branches below a directory.
pub const BRANCH_LEVELS: usize = 8;
/// BlobIds that stand in a node itself; more go into content lists.
pub const INLINE_CONTENT: usize = 4096;
/// BlobIds in one content list that a writer makes.
pub const CONTENT_LIST: usize = 8192;
/// Items of an array: packs of an index object, members of a snapshot bundle, nodes of a leaf, tags, …. A byte of input must not become much memory.
pub const ITEMS: usize = 1 << 16;
/// Reason of a pin or a replacement, bytes.
pub const PIN_REASON: usize = 4096;
