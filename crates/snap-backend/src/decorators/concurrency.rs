//! A bound on concurrent requests.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use super::forward_description;
use crate::{Backend, BackendError, ObjectMeta, ObjectName, PutOutcome};

/// Lets at most so many requests through at once; the others wait.
///
/// A listing does not count: its callback may use the same backend, and would wait for ever.
#[derive(Debug)]
pub struct ConcurrencyBackend {
    inner: Arc<dyn Backend>,
    limit: NonZeroUsize,
    running: Mutex<usize>,
    ended: Condvar,
}

struct Permit<'a>(&'a ConcurrencyBackend);

impl ConcurrencyBackend {
    /// Decorates `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, limit: NonZeroUsize) -> Self {
        Self { inner, limit, running: Mutex::new(0), ended: Condvar::new() }
    }

    fn permit(&self) -> Permit<'_> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |running: &mut usize| *running >= self.limit.get();
        *self.ended.wait_while(running, full).unwrap_or_else(PoisonError::into_inner) += 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_one();
    }
}

impl Backend for ConcurrencyBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let _permit = self.permit();
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let _permit = self.permit();
        self.inner.get_range(name, offset, len)
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let _permit = self.permit();
        self.inner.get_into(name, offset, buffer)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let _permit = self.permit();
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let _permit = self.permit();
        self.inner.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        let _permit = self.permit();
        self.inner.delete(name)
    }

    fn parallelism(&self) -> usize {
        self.limit.get().min(self.inner.parallelism())
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.inner.sweep_stale_temporaries()
    }

    forward_description!();
}
