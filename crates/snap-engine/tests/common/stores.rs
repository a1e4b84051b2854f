//! Stores with one fault each.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_backend::{Backend, BackendError, Bytes, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome};

/// Everything but `put` goes to `inner`.
macro_rules! all_but_put {
    () => {
        fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
            self.inner.get(name)
        }

        fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
            self.inner.get_range(name, offset, len)
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

        fn location(&self) -> String {
            self.inner.location()
        }

        fn local_root(&self) -> Option<&Path> {
            self.inner.local_root()
        }

        fn parallelism(&self) -> usize {
            self.inner.parallelism()
        }
    };
}

/// What happens to a put that does not fit.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    Fails(ErrorKind),
    Panics,
}

/// Takes so many bytes; further puts are refused.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn Backend>,
    pub left_bytes: AtomicU64,
    refusal: Refusal,
}

impl Limited {
    pub fn new(inner: Arc<dyn Backend>, bytes: u64, refusal: Refusal) -> Arc<Self> {
        Arc::new(Self { inner, left_bytes: bytes.into(), refusal })
    }
}

impl Backend for Limited {
    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let size = body.len() as u64;
        let fits = |left: u64| left.checked_sub(size);
        match (self.left_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits), self.refusal) {
            (Ok(_), _) => self.inner.put(name, body),
            (Err(_), Refusal::Panics) => panic!("the store panics"),
            (Err(_), Refusal::Fails(kind)) => {
                Err(BackendError::new(kind, Operation::Put).with_name(name.as_str()).with_location("limited"))
            }
        }
    }

    all_but_put!();
}

/// Called before each put with its number, from 0.
type Hook = Box<dyn Fn(u64) + Send + Sync>;

/// Does something else before each put: what happens meanwhile, at a known moment.
pub struct Hooked {
    inner: Arc<dyn Backend>,
    puts: AtomicU64,
    hook: Hook,
}

impl Hooked {
    pub fn new(inner: Arc<dyn Backend>, hook: impl Fn(u64) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { inner, puts: 0.into(), hook: Box::new(hook) })
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooked({:?})", self.inner)
    }
}

impl Backend for Hooked {
    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        (self.hook)(self.puts.fetch_add(1, Ordering::SeqCst));
        self.inner.put(name, body)
    }

    all_but_put!();
}
