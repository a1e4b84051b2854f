//! Trying again.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::forward_description;
use crate::{Backend, BackendError, Clock, ObjectMeta, ObjectName, Operation, PutOutcome};

/// How often and how long to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Attempts in all; 1 tries once.
    pub attempts: u32,
    /// The longest wait before the second attempt; each further wait may be twice as long.
    pub first_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
    /// No attempt begins when this much time has passed since the first began.
    pub deadline: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(20),
            deadline: Duration::from_secs(180),
        }
    }
}

/// A put of at most this length is read back when an earlier attempt may have stored it.
const COMPARED_BYTES: usize = 1 << 20;

/// Repeats what failed in a way that may heal by itself ([`BackendError::is_retryable`]), waiting longer
/// each time, with jitter so that many clients of one store do not come back together.
#[derive(Debug)]
pub struct RetryBackend {
    inner: Arc<dyn Backend>,
    options: RetryOptions,
    clock: Arc<dyn Clock>,
}

/// One call: its attempts so far, and when it began.
struct Attempts<'a> {
    options: &'a RetryOptions,
    clock: &'a dyn Clock,
    made: u32,
    began: Duration,
}

/// Calls `attempt`, with the number of attempts before, until it succeeds or fails for good.
pub(crate) fn repeat<T>(
    options: &RetryOptions,
    clock: &dyn Clock,
    mut attempt: impl FnMut(u32) -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let mut attempts = Attempts { options, clock, made: 0, began: clock.now() };
    loop {
        match attempt(attempts.made) {
            Ok(done) => return Ok(done),
            Err(error) => attempts.wait_or_give_up(error)?,
        }
    }
}

impl RetryBackend {
    /// Decorates `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, options: RetryOptions, clock: Arc<dyn Clock>) -> Self {
        Self { inner, options, clock }
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts { options: &self.options, clock: &*self.clock, made: 0, began: self.clock.now() }
    }

    fn repeat<T>(&self, attempt: impl FnMut(u32) -> Result<T, BackendError>) -> Result<T, BackendError> {
        repeat(&self.options, &*self.clock, attempt)
    }
}

impl Attempts<'_> {
    /// Waits before the next attempt, or hands the error back if there is none.
    fn wait_or_give_up(&mut self, error: BackendError) -> Result<(), BackendError> {
        let RetryOptions { attempts, deadline, .. } = *self.options;
        self.made += 1;
        if !error.is_retryable() || self.made >= attempts {
            return Err(error);
        }
        let delay = self.delay();
        if self.clock.now().saturating_sub(self.began) + delay >= deadline {
            return Err(error);
        }
        self.clock.sleep(delay);
        Ok(())
    }

    /// Between half of the full delay and all of it.
    fn delay(&self) -> Duration {
        let RetryOptions { first_delay, max_delay, .. } = *self.options;
        let doubled = first_delay.saturating_mul(1 << (self.made - 1).min(20));
        let full = doubled.min(max_delay);
        full / 2 + full.mul_f64(random_fraction() / 2.0)
    }
}

/// Jitter need not be good: without the system's randomness there is none.
fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

impl Backend for RetryBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.repeat(|_| self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.repeat(|_| {
            let body = self.inner.get_range(name, offset, len)?;
            if body.len() as u64 == len {
                return Ok(body);
            }
            let found = body.len() as u64;
            Err(BackendError::truncated(Operation::GetRange, name, len, found).with_location(self.location()))
        })
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        self.repeat(|_| self.inner.get_into(name, offset, buffer))
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.repeat(|earlier| {
            let outcome = self.inner.put(name, body.clone())?;
            // An attempt whose answer got lost may have stored it: then this call created it.
            let ours = outcome == PutOutcome::Existed
                && earlier > 0
                && body.len() <= COMPARED_BYTES
                && self.inner.get(name)? == body;
            Ok(if ours { PutOutcome::Created } else { outcome })
        })
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.repeat(|_| self.inner.stat(name))
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut attempts = self.attempts();
        let mut seen = Fingerprints::default();
        loop {
            let mut callers_error = false;
            let listed = self.inner.list(prefix, &mut |meta| {
                if !seen.insert(&meta.name) {
                    return Ok(());
                }
                each(meta).inspect_err(|_| callers_error = true)
            });
            match listed {
                Err(error) if !callers_error => attempts.wait_or_give_up(error)?,
                done => return done,
            }
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.repeat(|_| self.inner.delete(name))
    }

    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.repeat(|_| self.inner.sweep_stale_temporaries())
    }

    forward_description!();
}

/// What a listing has handed out, so that a second attempt goes on rather than begins anew: 16 bytes a
/// name, since a listing may hold millions; 128 bits, since a collision would hide an object.
#[derive(Default)]
struct Fingerprints {
    hashers: [RandomState; 2],
    seen: HashSet<[u64; 2]>,
}

impl Fingerprints {
    fn insert(&mut self, name: &ObjectName) -> bool {
        let [a, b] = &self.hashers;
        self.seen.insert([a.hash_one(name), b.hash_one(name)])
    }
}
