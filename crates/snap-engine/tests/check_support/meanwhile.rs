//! A store to which somebody else comes in the middle of one's work.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use snap_backend::{Backend, BackendError, Bytes, ObjectMeta, ObjectName, PutOutcome};

type Act = Box<dyn FnOnce() + Send>;

/// Before one of its operations somebody else does something.
pub struct Meanwhile {
    inner: Arc<dyn Backend>,
    operations: AtomicU64,
    before: u64,
    act: Mutex<Option<Act>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meanwhile({})", self.before)
    }
}

impl Meanwhile {
    /// Operations are counted from 0.
    pub fn new(inner: Arc<dyn Backend>, before: u64, act: impl FnOnce() + Send + 'static) -> Self {
        let act: Act = Box::new(act);
        Self { inner, operations: AtomicU64::new(0), before, act: Mutex::new(Some(act)) }
    }

    /// Whether it came to that.
    pub fn has_acted(&self) -> bool {
        self.act.lock().unwrap().is_none()
    }

    /// So many there were.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    fn count(&self) {
        if self.operations.fetch_add(1, Ordering::Relaxed) == self.before
            && let Some(act) = self.act.lock().unwrap().take()
        {
            act();
        }
    }
}

impl Backend for Meanwhile {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.count();
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.count();
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.count();
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.count();
        self.inner.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.count();
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.count();
        self.inner.delete(name)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn local_root(&self) -> Option<&Path> {
        None
    }
}
