use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::decorators::forward_description;
use crate::{Backend, BackendError, Clock, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome};

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request never reaches the store; the error has this kind.
    Refused(ErrorKind),
    /// The store does it, and the answer is lost: a [`ErrorKind::Network`] error.
    LostAnswer,
    /// A body ends early, without an error. On a request without a body in the answer: as `Refused`, of
    /// kind [`ErrorKind::Truncated`].
    ShortBody,
    /// It takes this much longer.
    Slow(Duration),
}

/// Which requests fail, and how.
#[derive(Clone, Debug)]
pub struct FaultOptions {
    /// One request in so many is hit, on average; 0 hits none.
    pub one_in: u64,
    /// One of these each time.
    pub faults: Vec<Fault>,
    /// The same seed and the same order of requests give the same faults.
    pub seed: u64,
}

impl Default for FaultOptions {
    fn default() -> Self {
        let faults = vec![
            Fault::Refused(ErrorKind::Network),
            Fault::Refused(ErrorKind::Throttled),
            Fault::LostAnswer,
            Fault::ShortBody,
        ];
        Self { one_in: 4, faults, seed: 1 }
    }
}

/// A store on a bad day.
///
/// Under [`RetryBackend`](crate::RetryBackend) it passes the conformance suite, except that a short body of
/// a whole-object [`Backend::get`] is reported as [`ErrorKind::Truncated`] rather than handed out: every
/// real backend knows the announced length.
#[derive(Debug)]
pub struct FaultBackend {
    inner: Arc<dyn Backend>,
    options: FaultOptions,
    clock: Arc<dyn Clock>,
    state: Mutex<u64>,
}

impl FaultBackend {
    /// Decorates `inner`; `clock` is what slow requests wait on.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, options: FaultOptions, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(options.seed);
        Self { inner, options, clock, state }
    }

    /// SplitMix64 (Steele, Lea and Flood 2014).
    fn random(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn draw(&self) -> Option<Fault> {
        let FaultOptions { one_in, faults, .. } = &self.options;
        if faults.is_empty() || *one_in == 0 || !self.random().is_multiple_of(*one_in) {
            return None;
        }
        Some(faults[(self.random() % faults.len() as u64) as usize])
    }

    fn error(&self, kind: ErrorKind, operation: Operation, name: &str) -> BackendError {
        BackendError::new(kind, operation)
            .with_name(name)
            .with_location(self.location())
            .with_source("injected")
    }

    /// Runs `request` under the next fault; `shorten` cuts what it answers.
    fn run<T>(
        &self,
        (operation, name): (Operation, &str),
        request: impl FnOnce() -> Result<T, BackendError>,
        shorten: impl FnOnce(T) -> Option<T>,
    ) -> Result<T, BackendError> {
        match self.draw() {
            None => request(),
            Some(Fault::Refused(kind)) => Err(self.error(kind, operation, name)),
            Some(Fault::LostAnswer) => {
                request()?;
                Err(self.error(ErrorKind::Network, operation, name))
            }
            Some(Fault::ShortBody) => {
                shorten(request()?).ok_or_else(|| self.error(ErrorKind::Truncated, operation, name))
            }
            Some(Fault::Slow(by)) => {
                self.clock.sleep(by);
                request()
            }
        }
    }
}

impl Backend for FaultBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.run((Operation::Get, name.as_str()), || self.inner.get(name), |_| None)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let half = |body: Bytes| Some(body.slice(..body.len() / 2));
        self.run((Operation::GetRange, name.as_str()), || self.inner.get_range(name, offset, len), half)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.run((Operation::Put, name.as_str()), || self.inner.put(name, body), |_| None)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.run((Operation::Stat, name.as_str()), || self.inner.stat(name), |_| None)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.run((Operation::List, prefix), || self.inner.list(prefix, each), |()| None)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.run((Operation::Delete, name.as_str()), || self.inner.delete(name), |()| None)
    }

    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }

    forward_description!();
}
