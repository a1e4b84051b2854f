//! A store some of whose objects no listing shows.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use snap_backend::{Backend, BackendError, Bytes, ObjectMeta, ObjectName, PutOutcome};

#[derive(Debug)]
pub(super) struct Hidden {
    inner: Arc<dyn Backend>,
    names: HashSet<ObjectName>,
}

impl Hidden {
    pub(super) fn over(inner: &Arc<dyn Backend>, names: HashSet<ObjectName>) -> Arc<dyn Backend> {
        Arc::new(Self { inner: Arc::clone(inner), names })
    }
}

impl Backend for Hidden {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
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
        self.inner.list(prefix, &mut |meta| match self.names.contains(&meta.name) {
            true => Ok(()),
            false => each(meta),
        })
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

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.inner.sweep_stale_temporaries()
    }
}
