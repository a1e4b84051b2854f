//! Object stores, by way of OpenDAL.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::TryStreamExt;
use opendal::options::{ListOptions, ReadOptions};
use opendal::{Buffer, Metadata, Operator};
use tokio::runtime::Handle;

use super::credentials::Secrets;
use super::error::{classify, describe};
use super::runtime::patience;
use crate::backend::check_range;
use crate::name::check_prefix;
use crate::{Backend, BackendError, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome, Timestamp};

/// What the patience for a whole object is measured by, since its length is not known beforehand.
const ASSUMED_BYTES: u64 = 32 << 20;

/// How many requests an object store answers at once without trouble.
const PARALLELISM: usize = 16;

/// An OpenDAL operator, called from threads.
///
/// Object stores make an object visible as a whole, once it is durable, and list it at once; that is all
/// that is asked of them. A name with a `/` is put without looking first; a fixed name is looked for.
pub(super) struct ObjectStore {
    pub operator: Operator,
    pub handle: Handle,
    pub location: String,
    pub secrets: Secrets,
    /// For a request, without its body.
    pub timeout: Duration,
    /// Whether a put may be seen half done (WebDAV), so that it needs a temporary name and a move.
    pub staged: bool,
}

impl std::fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStore").field("location", &self.location).finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// Waits for `request`, which carries a body of `bytes`.
    pub(super) fn wait<T>(
        &self,
        (operation, name): (Operation, &str),
        bytes: u64,
        request: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, BackendError> {
        let limit = patience(self.timeout, bytes);
        let answer = self.handle.block_on(async { tokio::time::timeout(limit, request).await });
        let fail = |kind| BackendError::new(kind, operation).with_name(name).with_location(&self.location);
        match answer {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(fail(classify(&error)).with_source(describe(&error, &self.secrets))),
            Err(_) => Err(fail(ErrorKind::Timeout).with_source(format!("no answer within {limit:?}"))),
        }
    }

    fn read_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Buffer, BackendError> {
        let out_of_range = |error: BackendError| error.with_location(&self.location);
        if len == 0 || offset.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
            // A range header cannot say this, or the store not understand it.
            let size = self.stat(name)?.size_bytes;
            check_range(name, size, offset, len).map_err(out_of_range)?;
            return Ok(Buffer::new());
        }
        let options = ReadOptions { range: (offset..offset + len).into(), ..Default::default() };
        let request = self.operator.read_options(name.as_str(), options);
        let body = self.wait((Operation::GetRange, name.as_str()), len, request);
        match &body {
            Ok(body) if body.len() as u64 == len => {}
            Err(error) if error.kind() != ErrorKind::Truncated => {}
            // Either the object is that short, which is for good, or the transfer broke.
            Ok(_) | Err(_) => {
                let size = self.stat(name)?.size_bytes;
                check_range(name, size, offset, len).map_err(out_of_range)?;
            }
        }
        let body = body?;
        let found = body.len() as u64;
        if found == len {
            return Ok(body);
        }
        Err(BackendError::truncated(Operation::GetRange, name, len, found).with_location(&self.location))
    }

    /// Writes beside, then moves: a reader sees all or nothing.
    fn put_staged(&self, name: &ObjectName, body: Bytes) -> Result<(), BackendError> {
        let what = (Operation::Put, name.as_str());
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| {
            BackendError::new(ErrorKind::Other, Operation::Put)
                .with_name(name.as_str())
                .with_source(error.to_string())
        })?;
        let temporary = format!("tmp/{:016x}", u64::from_le_bytes(random));
        let bytes = body.len() as u64;
        let stored = self.wait(what, bytes, self.operator.write(&temporary, body));
        let moved = stored.and_then(|_| self.wait(what, 0, self.operator.rename(&temporary, name.as_str())));
        if moved.is_err() {
            // It may never have been there.
            let _ = self.wait(what, 0, self.operator.delete(&temporary));
        }
        moved
    }

    fn meta(&self, name: ObjectName, metadata: &Metadata) -> ObjectMeta {
        let modified = metadata.last_modified().map(|time| {
            let time = time.into_inner();
            let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
            Timestamp { unix_seconds: time.as_second(), nanos }
        });
        ObjectMeta { name, size_bytes: metadata.content_length(), modified }
    }
}

impl Backend for ObjectStore {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let request = self.operator.read(name.as_str());
        self.wait((Operation::Get, name.as_str()), ASSUMED_BYTES, request).map(|body| body.to_bytes())
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.read_range(name, offset, len).map(|body| body.to_bytes())
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let mut body = self.read_range(name, offset, buffer.len() as u64)?;
        body.copy_to_slice(buffer);
        Ok(())
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        if (name.is_fixed() || self.staged) && self.exists(name)? {
            return Ok(PutOutcome::Existed);
        }
        if self.staged {
            self.put_staged(name, body)?;
        } else {
            let bytes = body.len() as u64;
            self.wait((Operation::Put, name.as_str()), bytes, self.operator.write(name.as_str(), body))?;
        }
        Ok(PutOutcome::Created)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let metadata = self.wait((Operation::Stat, name.as_str()), 0, self.operator.stat(name.as_str()))?;
        if metadata.is_file() {
            return Ok(self.meta(name.clone(), &metadata));
        }
        Err(BackendError::new(ErrorKind::NotFound, Operation::Stat)
            .with_name(name.as_str())
            .with_location(&self.location))
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        check_prefix(prefix)?;
        let what = (Operation::List, prefix);
        let options = ListOptions { recursive: true, ..Default::default() };
        let opened = self.wait(what, 0, self.operator.lister_options(prefix, options));
        let mut lister = match opened {
            Err(error) if error.is_not_found() && !error.to_string().contains("NoSuchBucket") => {
                return Ok(());
            }
            other => other?,
        };
        // The callback runs outside the runtime, so that it may call this backend.
        while let Some(entry) = self.wait(what, 0, lister.try_next())? {
            let metadata = entry.metadata();
            if !metadata.is_file() || !entry.path().starts_with(prefix) {
                continue;
            }
            if let Ok(name) = ObjectName::new(entry.path()) {
                each(self.meta(name, metadata))?;
            }
        }
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.wait((Operation::Delete, name.as_str()), 0, self.operator.delete(name.as_str()))
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    fn parallelism(&self) -> usize {
        PARALLELISM
    }
}
