use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::decorators::forward_description;
use crate::{Backend, BackendError, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome};

/// When to die, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// At this operation of any kind.
    Operation(u64),
    /// At this put or delete: the only moments at which the store's state depends on the crash.
    Mutation(u64),
}

/// What became of the operation at which it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// It never happened.
    Before,
    /// It happened, and nobody heard of it.
    After,
    /// A put got half of its body into a directory's `tmp/`. Elsewhere, and for other operations: as
    /// `Before`, since a store never shows a part of an object.
    Torn,
}

/// Dies once: the operation at the crash point and all later ones fail with [`ErrorKind::Stopped`].
///
/// What survives is in the inner backend, which the test opens again.
#[derive(Debug)]
pub struct CrashBackend {
    inner: Arc<dyn Backend>,
    point: CrashPoint,
    mode: CrashMode,
    operations: AtomicU64,
    mutations: AtomicU64,
}

/// What an operation meets.
enum Fate {
    Alive,
    Dies,
    Dead,
}

impl CrashBackend {
    /// Decorates `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, point: CrashPoint, mode: CrashMode) -> Self {
        Self { inner, point, mode, operations: AtomicU64::new(0), mutations: AtomicU64::new(0) }
    }

    /// One that never dies: run it once to learn from [`mutations`](Self::mutations) how many crash points
    /// there are.
    #[must_use]
    pub fn immortal(inner: Arc<dyn Backend>) -> Self {
        Self::new(inner, CrashPoint::Operation(u64::MAX), CrashMode::Before)
    }

    /// How many puts and deletes were asked for.
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.mutations.load(Ordering::SeqCst)
    }

    /// How many operations were asked for.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// Whether the crash has happened.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        match self.point {
            CrashPoint::Operation(k) => self.operations() > k,
            CrashPoint::Mutation(k) => self.mutations() > k,
        }
    }

    fn fate(&self, operation: Operation) -> Fate {
        let mutates = matches!(operation, Operation::Put | Operation::Delete);
        let operation = self.operations.fetch_add(1, Ordering::SeqCst);
        let mutations = self.mutations.fetch_add(u64::from(mutates), Ordering::SeqCst);
        let (at, k, counts) = match self.point {
            CrashPoint::Operation(k) => (operation, k, true),
            CrashPoint::Mutation(k) => (mutations, k, mutates),
        };
        match at.cmp(&k) {
            std::cmp::Ordering::Less => Fate::Alive,
            std::cmp::Ordering::Equal if counts => Fate::Dies,
            std::cmp::Ordering::Equal => Fate::Alive,
            std::cmp::Ordering::Greater => Fate::Dead,
        }
    }

    fn stopped(&self, operation: Operation, name: &str) -> BackendError {
        BackendError::new(ErrorKind::Stopped, operation).with_name(name).with_location(self.location())
    }

    fn run<T>(
        &self,
        operation: Operation,
        name: &str,
        request: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        match self.fate(operation) {
            Fate::Alive => return request(),
            Fate::Dies if self.mode == CrashMode::After => {
                request()?;
            }
            Fate::Dies | Fate::Dead => {}
        }
        Err(self.stopped(operation, name))
    }

    fn tear(&self, body: &[u8]) {
        let Some(root) = self.inner.local_root() else { return };
        let temporaries = root.join("tmp");
        // A double: what it cannot leave behind is not there to be found.
        let _ = std::fs::create_dir_all(&temporaries);
        let _ = std::fs::write(temporaries.join("1-torn"), &body[..body.len() / 2]);
    }
}

impl Backend for CrashBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.run(Operation::Get, name.as_str(), || self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.run(Operation::GetRange, name.as_str(), || self.inner.get_range(name, offset, len))
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        match (self.fate(Operation::Put), self.mode) {
            (Fate::Alive, _) => return self.inner.put(name, body),
            (Fate::Dies, CrashMode::After) => {
                self.inner.put(name, body)?;
            }
            (Fate::Dies, CrashMode::Torn) => self.tear(&body),
            (Fate::Dies | Fate::Dead, _) => {}
        }
        Err(self.stopped(Operation::Put, name.as_str()))
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.run(Operation::Stat, name.as_str(), || self.inner.stat(name))
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.run(Operation::List, prefix, || self.inner.list(prefix, each))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.run(Operation::Delete, name.as_str(), || self.inner.delete(name))
    }

    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.run(Operation::Sweep, "", || self.inner.sweep_stale_temporaries())
    }

    forward_description!();
}
