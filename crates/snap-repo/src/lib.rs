//! A repository: the only crate that knows in which order objects are written.
//!
//! - [`Repository`]: opened with a [`Secret`]; knows config, epochs, and what its [`Keyring`] may do.
//! - [`Index`]: which blob lies where, loaded from the repository.
//! - [`Writer`]: takes blobs, makes packs, uploads them. [`Writer::finish`] returns an [`IndexFlushed`], the only
//!   thing that can commit a snapshot: packs before index before snapshot, by type (F25).
//! - [`Overlays`]: what owners' records say of snapshots: forgotten, pinned, tagged otherwise.
//! - [`BlobReader`]: gives plaintext, authenticated and re-hashed.
//! - [`repair`]: what puts damaged objects right, from config to packs.
//! - [`Finding`]: a piece of damage, the same in errors, `check` and JSON.
//!
//! Not here: files, directories, databases, command lines, clocks. Times come in as arguments.

mod blob_reader;
mod boxes;
mod cache;
mod cache_table;
mod compress;
mod copies;
mod epochs;
mod error;
mod forget;
mod heal;
mod index;
mod keyring;
mod listing;

mod marks;
mod merge;
mod names;
mod open;
mod overlays;
mod pack;
mod pack_look;
mod parallel;
pub mod prune;
pub mod repair;
mod slots;
mod snapshot_area;
mod snapshot_cache;
mod snapshots;
mod uploader;
mod verify;
mod whole_pack;
mod writer;

pub use blob_reader::{BlobReader, EachBlob, OpenCopies, Rescued};
pub use cache::Cache;
pub use compress::Scratch;
pub use copies::Epochs;
pub use error::{Finding, FindingCode, RepoError};
#[doc(hidden)]
pub use index::scale as index_scale;
pub use index::{InGroup, Index, Located, MAX_BOX_BYTES, PackInfo, ParsedIndex, pack_digest, pack_places};
pub use keyring::{DomainKeys, Keyring, Secret};

pub use merge::{MergePlan, MergeReport, MergeRequest};
pub use names::{Area, object_name, parse_object_name};
pub use open::Repository;
pub use overlays::Overlays;
pub use pack_look::areas_of_a_backup;
pub use parallel::for_each_parallel;
pub use slots::{KeyChange, NewSlot, SlotInfo};
pub use snapshots::{BodiesAndFindings, RecordsAndFindings, Snapshot, SnapshotSet};
pub use verify::{PackReport, verify_object_name};
pub use whole_pack::TreePack;
pub use writer::{
    IndexFlushed, Lagging, NewSnapshot, Sabotage, SealedPack, Stored, Writer, WriterCopy, WriterOptions,
    WriterStats,
};

/// One word for the result of everything here.
pub type Result<T, E = RepoError> = std::result::Result<T, E>;
