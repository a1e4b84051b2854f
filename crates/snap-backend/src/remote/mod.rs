//! Stores that are reached over a network.
//!
//! Everything async stays below this module: a small runtime does the waiting, and the threads that call
//! [`Backend`](crate::Backend) block on it.

mod bucket;
mod credentials;
mod error;
mod object_lock;
mod object_store;
mod runtime;
mod services;
mod sftp;
mod site;
mod uri;

pub use bucket::{Bucket, BucketObject, BucketWriter, Headers, Listed};
pub(crate) use credentials::Credentials;
pub use object_lock::{LockMode, ObjectLock, ObjectVersion, Retention};
pub use services::SCHEMES;
pub(crate) use services::{open, open_bucket, open_object_lock};
pub use site::Site;
pub use uri::redact;
pub(crate) use uri::{Uri, looks_like_uri};
