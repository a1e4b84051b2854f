//! Objects of any name, which others use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use opendal::options::{ListOptions, ReadOptions, WriteOptions};
use opendal::{Entry, Metadata, Writer};

use super::object_store::ObjectStore;
use crate::decorators::repeat;
use crate::{
    BackendError, Clock, ErrorKind, MonotonicClock, OpenOptions, Operation, RetryOptions, Timestamp,
};

/// The longest key, in bytes: what S3 takes, with room for the prefix.
const MAX_KEY_BYTES: usize = 900;

/// How many requests at once make sense.
const PARALLELISM: usize = 16;

/// Parts of a large object, in bytes: 10,000 of them, which is as many as S3 takes, make 156 GiB.
const PART_BYTES: usize = 16 << 20;

/// A bucket, or what is below a prefix of it, whose objects are others' and may have any name that [`Bucket::check_key`]
/// takes. Unlike a [`Backend`](crate::Backend) it replaces what is there, and promises nothing about it but what the store does:
/// an object is seen as a whole once it is finished.
#[derive(Debug)]
pub struct Bucket {
    store: ObjectStore,
    retry: Option<RetryOptions>,
    clock: Arc<dyn Clock>,
}

/// What goes with an object's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// MIME type.
    pub content_type: Option<String>,
    /// User metadata; only where [`Bucket::keeps_metadata`].
    pub metadata: BTreeMap<String, String>,
}

/// An object as the store describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketObject {
    /// Its length.
    pub size_bytes: u64,
    /// When it was stored, by the store's clock, if it says.
    pub modified: Option<Timestamp>,
    /// Empty in a listing.
    pub headers: Headers,
}

/// What stands at one level of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object with this last component.
    Object(String, BucketObject),
    /// Objects whose names go on behind this component and a slash.
    Prefix(String),
}

impl Bucket {
    pub(super) fn new(store: ObjectStore, options: &OpenOptions<'_>) -> Self {
        Self { store, retry: options.retry.clone(), clock: Arc::new(MonotonicClock::new()) }
    }

    /// Where this is, for messages: holds no credential.
    pub fn location(&self) -> &str {
        &self.store.location
    }

    /// How many concurrent requests make sense.
    pub fn parallelism(&self) -> usize {
        PARALLELISM
    }

    /// Whether the store keeps user metadata with an object.
    pub fn keeps_metadata(&self) -> bool {
        self.store.operator.info().capability().write_with_user_metadata
    }

    /// Whether there can be an object of that name, and if not, why.
    pub fn check_key(key: &str) -> Result<(), &'static str> {
        if key.len() > MAX_KEY_BYTES {
            return Err("the name is too long for a bucket");
        }
        // Control characters cannot be listed; blanks at the ends would be cut off on the way.
        if key.chars().any(char::is_control) || key.trim() != key {
            return Err("its name has control characters, or blanks at an end, which a bucket does not keep");
        }
        match key.split('/').any(|name| matches!(name, "" | "." | "..")) {
            true => Err("its name has an empty part"),
            false => Ok(()),
        }
    }

    /// Repeats what fails in a way that may heal by itself, as the options said when this was opened.
    pub fn repeat<T>(&self, mut attempt: impl FnMut() -> Result<T, BackendError>) -> Result<T, BackendError> {
        match &self.retry {
            Some(retry) => repeat(retry, &*self.clock, |_| attempt()),
            None => attempt(),
        }
    }

    /// The object of that name, if there is one.
    pub fn stat(&self, key: &str) -> Result<Option<BucketObject>, BackendError> {
        self.check(Operation::Stat, key)?;
        let stat = || self.store.wait((Operation::Stat, key), 0, self.store.operator.stat(key));
        match self.repeat(stat) {
            Ok(metadata) if metadata.is_file() => Ok(Some(object(&metadata))),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What stands directly below `prefix`, which is empty or ends with a slash, in the order of names.
    pub fn list(&self, prefix: &str) -> Result<Vec<Listed>, BackendError> {
        let mut found = self.entries(prefix, false)?;
        found.sort_by(|a, b| a.path().cmp(b.path()));
        let listed = |entry: &Entry| {
            let name = entry.path().strip_prefix(prefix)?;
            let (metadata, plain) = (entry.metadata(), name.trim_end_matches('/'));
            match plain {
                "" => None, // the marker of the prefix itself
                _ if metadata.is_file() => Some(Listed::Object(name.to_owned(), object(metadata))),
                _ => Some(Listed::Prefix(plain.to_owned())),
            }
        };
        Ok(found.iter().filter_map(listed).collect())
    }

    /// Every object below `prefix`, with its whole key.
    pub fn list_all(&self, prefix: &str) -> Result<Vec<(String, BucketObject)>, BackendError> {
        let found = self.entries(prefix, true)?;
        let files = found.iter().filter(|entry| entry.metadata().is_file());
        Ok(files.map(|entry| (entry.path().to_owned(), object(entry.metadata()))).collect())
    }

    fn entries(&self, prefix: &str, recursive: bool) -> Result<Vec<Entry>, BackendError> {
        let what = (Operation::List, prefix);
        self.repeat(|| {
            let options = ListOptions { recursive, ..Default::default() };
            let opened = self.store.wait(what, 0, self.store.operator.lister_options(prefix, options));
            let mut lister = match opened {
                Err(error) if error.is_not_found() && !error.to_string().contains("NoSuchBucket") => {
                    return Ok(Vec::new());
                }
                other => other?,
            };
            let mut found = Vec::new();
            while let Some(entry) = self.store.wait(what, 0, lister.try_next())? {
                if entry.path().starts_with(prefix) {
                    found.push(entry);
                }
            }
            Ok(found)
        })
    }

    /// Exactly `len` bytes of an object from `offset` on.
    pub fn read(&self, key: &str, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.check(Operation::GetRange, key)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        self.repeat(|| {
            let options = ReadOptions { range: (offset..offset + len).into(), ..Default::default() };
            let request = self.store.operator.read_options(key, options);
            let body = self.store.wait((Operation::GetRange, key), len, request)?;
            match body.len() as u64 == len {
                true => Ok(body.to_bytes()),
                false => Err(self.error(ErrorKind::Truncated, Operation::GetRange, key)),
            }
        })
    }

    /// Begins an object in place of the one of that name; it is there when [`BucketWriter::finish`] returns. Nothing is
    /// repeated here: who can, begins anew ([`Bucket::repeat`]).
    pub fn write(&self, key: &str, headers: &Headers) -> Result<BucketWriter<'_>, BackendError> {
        self.check(Operation::Put, key)?;
        let capability = self.store.operator.info().capability();
        let content_type = headers.content_type.clone().filter(|_| capability.write_with_content_type);
        let metadata = (capability.write_with_user_metadata && !headers.metadata.is_empty())
            .then(|| headers.metadata.clone().into_iter().collect());
        let chunk = capability.write_can_multi.then_some(PART_BYTES);
        let options = WriteOptions { content_type, user_metadata: metadata, chunk, ..Default::default() };
        let what = (Operation::Put, key);
        let writer = self.store.wait(what, 0, self.store.operator.writer_options(key, options))?;
        Ok(BucketWriter { bucket: self, key: key.to_owned(), writer })
    }

    /// Removes an object; success if there is none.
    pub fn delete(&self, key: &str) -> Result<(), BackendError> {
        self.check(Operation::Delete, key)?;
        self.repeat(|| self.store.wait((Operation::Delete, key), 0, self.store.operator.delete(key)))
    }

    fn check(&self, operation: Operation, key: &str) -> Result<(), BackendError> {
        let refuse = |why| self.error(ErrorKind::InvalidName, operation, key).with_source(why);
        Self::check_key(key).map_err(refuse)
    }

    fn error(&self, kind: ErrorKind, operation: Operation, key: &str) -> BackendError {
        BackendError::new(kind, operation).with_name(key).with_location(self.location())
    }
}

/// An object on its way.
#[must_use = "an object is there when it is finished"]
pub struct BucketWriter<'a> {
    bucket: &'a Bucket,
    key: String,
    writer: Writer,
}

impl std::fmt::Debug for BucketWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BucketWriter({})", self.key)
    }
}

impl BucketWriter<'_> {
    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), BackendError> {
        let length = (bytes.len() + PART_BYTES) as u64;
        self.bucket.store.wait((Operation::Put, &self.key), length, self.writer.write(bytes))
    }

    /// Makes it an object.
    pub fn finish(mut self) -> Result<(), BackendError> {
        let closing = self.writer.close();
        self.bucket.store.wait((Operation::Put, &self.key), PART_BYTES as u64, closing).map(drop)
    }

    /// Gives it up: what was there stays. What the store has of it already may cost money until it is told so.
    pub fn abandon(mut self) {
        let aborting = self.writer.abort();
        let _ = self.bucket.store.wait((Operation::Put, &self.key), 0, aborting);
    }
}

fn object(metadata: &Metadata) -> BucketObject {
    let modified = metadata.last_modified().map(|time| {
        let time = time.into_inner();
        let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
        Timestamp { unix_seconds: time.as_second(), nanos }
    });
    let user = metadata.user_metadata().into_iter().flatten();
    let headers = Headers {
        content_type: metadata.content_type().map(str::to_owned),
        metadata: user.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    BucketObject { size_bytes: metadata.content_length(), modified, headers }
}
