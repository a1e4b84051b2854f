//! Objects in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::backend::check_range;
use crate::name::check_prefix;
use crate::{Backend, BackendError, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome, Timestamp};

/// A backend that forgets everything when its last clone is dropped.
///
/// Clones share their objects. Tests take its whole state with [`snapshot`](Self::snapshot), put it back
/// with [`restore`](Self::restore), and damage single objects with [`replace`](Self::replace) and
/// [`damage`](Self::damage). Its clock stands still until [`advance`](Self::advance) moves it.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    state: Arc<Mutex<MemoryState>>,
}

/// All objects of a [`MemoryBackend`], and its clock. Bodies are shared, so a copy is cheap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    objects: BTreeMap<ObjectName, (Bytes, Duration)>,
    clock: Duration,
}

/// The clock of a new backend, so that times look like times: 2024-01-01.
const EPOCH_SECONDS: i64 = 1_704_067_200;

impl MemoryBackend {
    /// An empty backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state as it is now.
    #[must_use]
    pub fn snapshot(&self) -> MemoryState {
        self.lock().clone()
    }

    /// Puts an earlier state back.
    pub fn restore(&self, state: MemoryState) {
        *self.lock() = state;
    }

    /// A backend of its own that starts from `state`.
    #[must_use]
    pub fn from_state(state: MemoryState) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Moves the store's clock on: objects put from now on are that much younger.
    pub fn advance(&self, by: Duration) {
        self.lock().clock += by;
    }

    /// The names of all objects, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<ObjectName> {
        self.lock().objects.keys().cloned().collect()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// True if nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of all bodies together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.lock().objects.values().map(|(body, _)| body.len() as u64).sum()
    }

    /// Sets the bytes of an object behind the trait's back, whether it was there or not.
    pub fn replace(&self, name: &ObjectName, body: impl Into<Bytes>) {
        let mut state = self.lock();
        let modified = state.objects.get(name).map_or(state.clock, |(_, modified)| *modified);
        state.objects.insert(name.clone(), (body.into(), modified));
    }

    /// Lets `change` edit the bytes of an object in place; false if there is none.
    pub fn damage(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.lock();
        let Some((body, _)) = state.objects.get_mut(name) else { return false };
        let mut bytes = body.to_vec();
        change(&mut bytes);
        *body = bytes.into();
        true
    }

    /// Removes an object; true if it was there.
    pub fn remove(&self, name: &ObjectName) -> bool {
        self.lock().objects.remove(name).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        // A panic in `damage`'s closure leaves a whole state behind: nothing is half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self, operation: Operation, name: &ObjectName) -> Result<Bytes, BackendError> {
        match self.lock().objects.get(name) {
            Some((body, _)) => Ok(body.clone()),
            None => Err(BackendError::new(ErrorKind::NotFound, operation)
                .with_name(name.as_str())
                .with_location(self.location())),
        }
    }
}

fn meta(name: &ObjectName, body: &Bytes, modified: Duration) -> ObjectMeta {
    let seconds = EPOCH_SECONDS.saturating_add(i64::try_from(modified.as_secs()).unwrap_or(i64::MAX));
    let modified = Timestamp { unix_seconds: seconds, nanos: modified.subsec_nanos() };
    ObjectMeta { name: name.clone(), size_bytes: body.len() as u64, modified: Some(modified) }
}

impl Backend for MemoryBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.body(Operation::Get, name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let body = self.body(Operation::GetRange, name)?;
        check_range(name, body.len() as u64, offset, len)?;
        // Both fit: they lie within a body that is in memory.
        Ok(body.slice(offset as usize..(offset + len) as usize))
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let mut state = self.lock();
        if state.objects.contains_key(name) {
            return Ok(PutOutcome::Existed);
        }
        let clock = state.clock;
        state.objects.insert(name.clone(), (body, clock));
        Ok(PutOutcome::Created)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let state = self.lock();
        match state.objects.get(name) {
            Some((body, modified)) => Ok(meta(name, body, *modified)),
            None => Err(BackendError::new(ErrorKind::NotFound, Operation::Stat)
                .with_name(name.as_str())
                .with_location(self.location())),
        }
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        check_prefix(prefix)?;
        // Collected first, so that `each` may call the backend.
        let found: Vec<_> = {
            let state = self.lock();
            let under = state.objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
            under.map(|(name, (body, modified))| meta(name, body, *modified)).collect()
        };
        found.into_iter().try_for_each(each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.remove(name);
        Ok(())
    }

    fn location(&self) -> String {
        "memory:".to_owned()
    }
}

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBackend").field("objects", &self.len()).finish()
    }
}

impl std::fmt::Debug for MemoryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes = self.objects.iter().map(|(name, (body, _))| (name, body.len()));
        f.debug_map().entries(sizes).finish()
    }
}
