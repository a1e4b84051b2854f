//! A bound on bytes per second.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::forward_description;
use crate::{Backend, BackendError, Clock, ObjectMeta, ObjectName, PutOutcome};

/// How fast bodies may travel; `None` is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthOptions {
    /// Bytes per second towards the store.
    pub upload_bytes: Option<NonZeroU64>,
    /// Bytes per second from the store.
    pub download_bytes: Option<NonZeroU64>,
}

/// Keeps the average rate of bodies below a bound.
///
/// Bodies travel whole, so the rate holds over several of them, not within one: an upload waits before it
/// starts, a download after it ended, when its length is known.
#[derive(Debug)]
pub struct BandwidthBackend {
    inner: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    upload: Option<Bucket>,
    download: Option<Bucket>,
}

/// How much may pass at once after a pause, in seconds of the full rate.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket, kept as the moment at which all that was admitted would have passed at the full rate.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: NonZeroU64,
    passed_at: Mutex<Duration>,
}

impl Bucket {
    fn new(bytes_per_second: NonZeroU64, clock: &dyn Clock) -> Self {
        Self { bytes_per_second, passed_at: Mutex::new(clock.now()) }
    }

    /// Admits `bytes`, and waits until they may pass.
    fn take(&self, bytes: usize, clock: &dyn Clock) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        let now = clock.now();
        let passed_at = {
            let mut passed_at = self.passed_at.lock().unwrap_or_else(PoisonError::into_inner);
            *passed_at = (*passed_at).max(now.saturating_sub(BURST)) + cost;
            *passed_at
        };
        let wait = passed_at.saturating_sub(now);
        if !wait.is_zero() {
            clock.sleep(wait);
        }
    }
}

impl BandwidthBackend {
    /// Decorates `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, options: BandwidthOptions, clock: Arc<dyn Clock>) -> Self {
        let bucket = |rate: Option<NonZeroU64>| rate.map(|rate| Bucket::new(rate, &*clock));
        let (upload, download) = (bucket(options.upload_bytes), bucket(options.download_bytes));
        Self { inner, clock, upload, download }
    }

    fn uploading(&self, bytes: usize) {
        if let Some(bucket) = &self.upload {
            bucket.take(bytes, &*self.clock);
        }
    }

    fn downloaded(&self, bytes: usize) {
        if let Some(bucket) = &self.download {
            bucket.take(bytes, &*self.clock);
        }
    }
}

impl Backend for BandwidthBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.inner.get(name).inspect(|body| self.downloaded(body.len()))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.inner.get_range(name, offset, len).inspect(|body| self.downloaded(body.len()))
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let bytes = buffer.len();
        self.inner.get_into(name, offset, buffer).inspect(|()| self.downloaded(bytes))
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.uploading(body.len());
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
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
        self.inner.delete(name)
    }

    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.inner.sweep_stale_temporaries()
    }

    forward_description!();
}
