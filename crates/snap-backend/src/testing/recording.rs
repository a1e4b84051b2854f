use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::decorators::forward_description;
use crate::{Backend, BackendError, ObjectMeta, ObjectName, Operation, PutOutcome};

/// One operation, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recorded {
    /// Which.
    pub operation: Operation,
    /// The object, or the prefix of a listing.
    pub name: String,
    /// Length of the body that travelled, or the number of objects listed; 0 if it failed.
    pub amount: u64,
}

/// Remembers the exact list of operations, in the order in which they ended.
#[derive(Clone, Debug)]
pub struct RecordingBackend {
    inner: Arc<dyn Backend>,
    log: Arc<Mutex<Vec<Recorded>>>,
}

impl RecordingBackend {
    /// Decorates `inner`; clones share the record.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, log: Arc::default() }
    }

    /// What was recorded since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, operation: Operation, name: &str, amount: u64) {
        let recorded = Recorded { operation, name: name.to_owned(), amount };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }
}

impl Backend for RecordingBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let result = self.inner.get(name);
        self.note(Operation::Get, name.as_str(), result.as_ref().map_or(0, |body| body.len() as u64));
        result
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let result = self.inner.get_range(name, offset, len);
        self.note(Operation::GetRange, name.as_str(), result.as_ref().map_or(0, |body| body.len() as u64));
        result
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let amount = buffer.len() as u64;
        let result = self.inner.get_into(name, offset, buffer);
        self.note(Operation::GetRange, name.as_str(), result.as_ref().map_or(0, |()| amount));
        result
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let amount = body.len() as u64;
        let result = self.inner.put(name, body);
        self.note(Operation::Put, name.as_str(), result.as_ref().map_or(0, |_| amount));
        result
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let result = self.inner.stat(name);
        self.note(Operation::Stat, name.as_str(), 0);
        result
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut listed = 0;
        let result = self.inner.list(prefix, &mut |meta| {
            listed += 1;
            each(meta)
        });
        self.note(Operation::List, prefix, listed);
        result
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        let result = self.inner.delete(name);
        self.note(Operation::Delete, name.as_str(), 0);
        result
    }

    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        let result = self.inner.sweep_stale_temporaries();
        self.note(Operation::Sweep, "", result.as_ref().map_or(0, |removed| *removed));
        result
    }

    forward_description!();
}
