//! A repository: the only crate that knows in which order objects are written.
//!
//! - [`Repository`]: opened with a [`Secret`]; knows config, epochs, and what its [`Keyring`] may do.
//! - [`Index`]: which blob lies where, loaded from the repository.
//! - [`Writer`]: takes blobs, makes packs, uploads them. [`Writer::finish`] returns an [`IndexFlushed`], the only
//!   thing that can commit a snapshot: packs before index before snapshot, by type (F25).
//! - [`BlobReader`]: gives plaintext, authenticated and re-hashed.
//! - [`Finding`]: a piece of damage, the same in errors, `check` and JSON.
//!
//! Not here: files, directories, databases, command lines, clocks. Times come in as arguments.

mod blob_reader;
mod boxes;
mod cache;
mod compress;
mod epochs;
mod error;
mod index;
mod keyring;
mod look;
mod marks;
mod names;
mod open;
mod pack;
mod parallel;
pub mod prune;
mod slots;
mod snapshots;
mod uploader;
mod verify;
mod writer;

pub use blob_reader::BlobReader;
pub use cache::Cache;
pub use compress::Scratch;
pub use error::{Finding, FindingCode, RepoError};
pub use index::{Index, Located, MAX_BOX_BYTES, PackInfo, ParsedIndex, pack_digest};
pub use keyring::{DomainKeys, Keyring, Secret};
pub use look::Sabotage;
pub use names::{Area, object_name, parse_object_name};
pub use open::Repository;
pub use parallel::for_each_parallel;
pub use slots::{NewSlot, SlotInfo};
pub use snapshots::{RecordsAndFindings, Snapshot, SnapshotSet};
pub use verify::{PackReport, verify_object_name};
pub use writer::{IndexFlushed, NewSnapshot, Writer, WriterOptions, WriterStats};

/// One word for the result of everything here.
pub type Result<T, E = RepoError> = std::result::Result<T, E>;
