//! Stores with one fault each.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

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

/// Holds each request until all of its round trip have been asked for: what waits for another request's answer is not of
/// the same round trip, and would wait for ever.
#[derive(Debug)]
pub struct Rounds {
    inner: Arc<dyn Backend>,
    expected: Vec<Vec<String>>,
    state: Mutex<RoundsState>,
    all_there: Condvar,
}

#[derive(Debug, Default)]
struct RoundsState {
    done: usize,
    arrived: Vec<String>,
    failure: Option<String>,
}

/// How long a request waits for the others of its round trip, before the test fails.
const ROUND_LIMIT: Duration = Duration::from_secs(20);

/// An operation and its object, ids cut off.
pub fn request(operation: Operation, name: &str) -> String {
    match name.split_once('/') {
        Some((area, rest)) if !rest.is_empty() => format!("{operation:?} {area}/…"),
        _ => format!("{operation:?} {name}"),
    }
}

impl Rounds {
    pub fn new(inner: Arc<dyn Backend>, expected: &[&[&str]]) -> Arc<Self> {
        let sorted = |round: &[&str]| {
            let mut round: Vec<String> = round.iter().map(|request| (*request).to_owned()).collect();
            round.sort();
            round
        };
        let expected = expected.iter().map(|round| sorted(round)).collect();
        Arc::new(Self { inner, expected, state: Mutex::default(), all_there: Condvar::new() })
    }

    /// Fails unless everything came as expected.
    pub fn finish(&self) {
        let state = self.state.lock().unwrap();
        assert_eq!(state.failure, None);
        assert_eq!(state.done, self.expected.len(), "round trips");
    }

    fn arrive(&self, operation: Operation, name: &str) {
        let mut state = self.state.lock().unwrap();
        if state.failure.is_some() {
            return;
        }
        let round = state.done;
        state.arrived.push(request(operation, name));
        state.arrived.sort();
        let expected = self.expected.get(round).map_or(&[][..], Vec::as_slice);
        if state.arrived == expected {
            state.arrived.clear();
            state.done += 1;
            self.all_there.notify_all();
        } else if state.arrived.len() >= expected.len() {
            state.failure = Some(format!("round trip {round}: {:?}, not {expected:?}", state.arrived));
            self.all_there.notify_all();
        } else {
            let waits = |state: &mut RoundsState| state.done == round && state.failure.is_none();
            let (mut state, late) = self.all_there.wait_timeout_while(state, ROUND_LIMIT, waits).unwrap();
            if late.timed_out() {
                let why = format!("round trip {round}: {:?} and no more, of {expected:?}", state.arrived);
                state.failure.get_or_insert(why);
                self.all_there.notify_all();
            }
        }
    }
}

impl Backend for Rounds {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.arrive(Operation::Get, name.as_str());
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.arrive(Operation::GetRange, name.as_str());
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.arrive(Operation::Put, name.as_str());
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.arrive(Operation::Stat, name.as_str());
        self.inner.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.arrive(Operation::List, prefix);
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.arrive(Operation::Delete, name.as_str());
        self.inner.delete(name)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn parallelism(&self) -> usize {
        64
    }
}
