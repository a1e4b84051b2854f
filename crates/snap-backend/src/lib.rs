//! Storage of named, immutable objects, and nothing more: what `snap` keeps a repository in.
//!
//! [`Backend`] is the trait and its promises; [`open`] turns a path or URI into one, with [`OpenOptions`]
//! for credentials and limits. Underneath are [`LocalBackend`] (a directory, synced before an object counts as
//! stored), [`MemoryBackend`], SFTP, and the object stores of OpenDAL. Around them go [`RetryBackend`],
//! [`ConcurrencyBackend`] and [`BandwidthBackend`]. Every failure is a [`BackendError`], whose
//! [`kind`](BackendError::kind) says what the caller can do about it.
//!
//! [`open_bucket`] opens a [`Bucket`] instead: objects of any name, which others use, for what is restored there.
//!
//! The feature `testing` adds the module `testing`: the conformance suite, and doubles that fail, die and
//! remember.
//!
//! ```
//! use snap_backend::{Bytes, ObjectName, OpenOptions, PutOutcome, open};
//!
//! let dir = tempfile::tempdir()?;
//! let backend = open(dir.path().to_str().expect("UTF-8"), &OpenOptions::default())?;
//! let name = ObjectName::new("packs/ab/abcdef")?;
//! assert_eq!(backend.put(&name, Bytes::from_static(b"sealed"))?, PutOutcome::Created);
//! assert_eq!(backend.get_range(&name, 2, 3)?, "ale");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is not here: what the objects mean, in which order they are written, and whether their bytes are still
//! those that were put. This crate knows neither plaintext nor format. It reads no environment, no home
//! directory and no date; `ssh`, which SFTP runs, reads its own configuration.

mod backend;
mod clock;
mod decorators;
mod error;
mod local;
mod memory;
mod name;
mod open;
mod remote;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::{Backend, ObjectMeta, PutOutcome, Timestamp};
pub use bytes::Bytes;
pub use clock::{Clock, MonotonicClock};
pub use decorators::{BandwidthBackend, BandwidthOptions, ConcurrencyBackend, RetryBackend, RetryOptions};
pub use error::{BackendError, ErrorKind, Operation};
pub use local::LocalBackend;
pub use memory::{MemoryBackend, MemoryState};
pub use name::{MAX_NAME_BYTES, MAX_SEGMENT_BYTES, ObjectName};
pub use open::{Environment, OpenOptions, open, open_bucket, open_object_lock};
pub use remote::{Bucket, BucketObject, BucketWriter, Headers, Listed};
pub use remote::{LockMode, ObjectLock, ObjectVersion, Retention, SCHEMES, Site, redact};
