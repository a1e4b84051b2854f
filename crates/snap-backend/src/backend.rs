//! The trait, and what it promises.

use std::path::Path;

use bytes::Bytes;

use crate::{BackendError, ErrorKind, ObjectName, Operation};

/// A point in time by the clock of the store, never by that of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub unix_seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// What a store tells about an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object.
    pub name: ObjectName,
    /// Its length.
    pub size_bytes: u64,
    /// When it was stored, by the store's own clock; not every store says.
    pub modified: Option<Timestamp>,
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PutOutcome {
    /// The object is stored now.
    Created,
    /// An object of that name was there before, and is left as it was.
    ///
    /// It says nothing about the bytes of that object; who needs to know asks [`Backend::stat`] or
    /// reads it.
    Existed,
}

/// Storage of named, immutable objects.
///
/// Every promise below is a case of the conformance suite (`testing::conformance`, behind the feature
/// `testing`), which each backend and each decorator passes. All methods may be called from many threads
/// at once, and block.
///
/// A name is either an object or the beginning of other names, never both: where there is `packs/ab`, there
/// can be no `packs`.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// The whole object. [`ErrorKind::NotFound`] if there is none.
    ///
    /// The caller that distrusts the store bounds what it asks for by [`Backend::stat`] or
    /// [`Backend::get_range`].
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError>;

    /// Exactly `len` bytes from `offset` on.
    ///
    /// A range that reaches past the end is [`ErrorKind::OutOfRange`]; an empty range within the object,
    /// its end included, is an empty body.
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError>;

    /// Fills `buffer` from `offset` on, for callers that pool their buffers; otherwise as
    /// [`Backend::get_range`]. After an error the content of `buffer` is unspecified.
    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let body = self.get_range(name, offset, buffer.len() as u64)?;
        if body.len() != buffer.len() {
            let (expected, found) = (buffer.len() as u64, body.len() as u64);
            return Err(BackendError::truncated(Operation::GetRange, name, expected, found));
        }
        buffer.copy_from_slice(&body);
        Ok(())
    }

    /// Stores an object; it is durable, whole and listed when this returns.
    ///
    /// Never damages what is there: a put of a name that exists either leaves that object alone
    /// ([`PutOutcome::Existed`]) or, on a store that cannot tell, replaces it by the same bytes, since
    /// names with a `/` are derived from the content. Names without one ([`ObjectName::is_fixed`]) are
    /// never replaced by a put that starts after another has ended. A failed put may have stored the
    /// object nevertheless; no reader ever sees a part of one.
    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError>;

    /// Size and time of an object. [`ErrorKind::NotFound`] if there is none.
    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError>;

    /// Calls `each` for every object whose name begins with `prefix`, recursively, in any order.
    ///
    /// `prefix` is empty or ends with `/`. Nothing below it is an empty listing, not an error. What was
    /// stored before the call is listed, and nothing is listed twice; what comes or goes meanwhile may be
    /// listed or not. Names that [`ObjectName::new`] refuses are skipped. The first error of `each` ends
    /// the listing and is returned.
    ///
    /// A directory whose root is missing is [`ErrorKind::NotFound`]: a disk that is not mounted must not
    /// look like a repository without snapshots.
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError>;

    /// Removes an object, durably; success if there is none.
    fn delete(&self, name: &ObjectName) -> Result<(), BackendError>;

    /// Where this is, for messages: holds no credential.
    fn location(&self) -> String;

    /// The directory, if this is one: a repository is not backed up into itself.
    fn local_root(&self) -> Option<&Path> {
        None
    }

    /// How many concurrent requests make sense.
    fn parallelism(&self) -> usize {
        4
    }

    /// Removes what interrupted puts left behind, where the store shows such leftovers, and counts it.
    ///
    /// Only what is more than a day old by the store's own clock goes: a put may be at work on the rest.
    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        Ok(0)
    }

    /// Whether there is an object of that name.
    fn exists(&self, name: &ObjectName) -> Result<bool, BackendError> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Where an object of `size` bytes yields the range `offset..offset + len`, or why it cannot.
pub(crate) fn check_range(name: &ObjectName, size: u64, offset: u64, len: u64) -> Result<(), BackendError> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(BackendError::out_of_range(name, size, offset, len)),
    }
}
