//! Every decorator and double under the conformance suite, and what each adds to it.
#![allow(clippy::unwrap_used)] // Helpers of tests are test code too.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use snap_backend::testing::{
    CrashBackend, CrashMode, CrashPoint, Fault, FaultBackend, FaultOptions, ManualClock, MemoryBackend,
    Recorded, RecordingBackend, conformance,
};
use snap_backend::{
    Backend, BackendError, BandwidthBackend, BandwidthOptions, Bytes, Clock, ConcurrencyBackend, ErrorKind,
    LocalBackend, MAX_NAME_BYTES, ObjectMeta, ObjectName, Operation, PutOutcome, RetryBackend, RetryOptions,
};

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn memory() -> Arc<dyn Backend> {
    Arc::new(MemoryBackend::new())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new())
}

fn faulty(
    inner: Arc<dyn Backend>,
    one_in: u64,
    faults: Vec<Fault>,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Backend> {
    Arc::new(FaultBackend::new(inner, FaultOptions { one_in, faults, seed: 7 }, clock))
}

#[test]
fn memory_conforms() {
    conformance(memory);
}

#[test]
fn local_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let next = AtomicUsize::new(0);
    conformance(|| {
        let root = dir.path().join(next.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&root).unwrap();
        Arc::new(LocalBackend::new(root, false))
    });
}

#[test]
fn local_conforms_when_it_makes_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let next = AtomicUsize::new(0);
    let promises = snap_backend::testing::CASES.iter().filter(|case| !case.name.starts_with("list_"));
    for case in promises {
        let root = dir.path().join(format!("a/{}", next.fetch_add(1, Ordering::Relaxed)));
        let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(root, true));
        if !case.name.contains("delete") {
            backend.put(&name("marks/first"), Bytes::new()).unwrap();
            backend.delete(&name("marks/first")).unwrap();
        }
        (case.run)(&backend);
    }
}

#[test]
fn retry_conforms_on_a_store_that_fails() {
    conformance(|| {
        let inner = faulty(memory(), 3, FaultOptions::default().faults, clock());
        let options =
            RetryOptions { attempts: 40, deadline: Duration::from_secs(9999), ..Default::default() };
        Arc::new(RetryBackend::new(inner, options, clock()))
    });
}

#[test]
fn a_fault_backend_without_faults_conforms() {
    conformance(|| faulty(memory(), 0, vec![], clock()));
}

#[test]
fn concurrency_limit_conforms() {
    conformance(|| Arc::new(ConcurrencyBackend::new(memory(), NonZeroUsize::new(1).unwrap())));
}

#[test]
fn bandwidth_limit_conforms() {
    let rate = NonZeroU64::new(1000);
    conformance(|| {
        let options = BandwidthOptions { upload_bytes: rate, download_bytes: rate };
        Arc::new(BandwidthBackend::new(memory(), options, clock()))
    });
}

#[test]
fn recording_conforms() {
    conformance(|| Arc::new(RecordingBackend::new(memory())));
}

#[test]
fn a_crash_backend_that_lives_conforms() {
    conformance(|| Arc::new(CrashBackend::immortal(memory())));
}

#[test]
fn names_may_be_512_bytes_long() {
    let dir = tempfile::tempdir().unwrap();
    let long = name(&["x".repeat(127), "y".repeat(127), "z".repeat(127), "w".repeat(128)].join("/"));
    assert_eq!(long.as_str().len(), MAX_NAME_BYTES);
    for backend in [memory(), Arc::new(LocalBackend::new(dir.path(), false))] {
        backend.put(&long, Bytes::from_static(b"x")).unwrap();
        assert_eq!(backend.get(&long).unwrap(), "x");
    }
}

#[test]
fn retry_waits_longer_each_time_and_then_gives_up() {
    let clock = clock();
    let inner = faulty(memory(), 1, vec![Fault::Refused(ErrorKind::Throttled)], clock.clone());
    let options = RetryOptions {
        attempts: 6,
        first_delay: Duration::from_secs(1),
        max_delay: Duration::from_secs(4),
        deadline: Duration::from_secs(60),
    };
    let error = RetryBackend::new(inner, options, clock.clone()).get(&name("config")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let sleeps = clock.sleeps();
    assert_eq!(sleeps.len(), 5);
    for (sleep, full) in sleeps.iter().zip([1, 2, 4, 4, 4].map(Duration::from_secs)) {
        assert!(*sleep >= full / 2 && *sleep <= full, "{sleep:?} of {full:?}");
    }
}

#[test]
fn retry_keeps_its_deadline() {
    let clock = clock();
    let inner = faulty(memory(), 1, vec![Fault::Slow(Duration::from_secs(50))], clock.clone());
    let inner = faulty(inner, 1, vec![Fault::LostAnswer], clock.clone());
    let retry = RetryBackend::new(inner, RetryOptions::default(), clock.clone());
    assert_eq!(retry.put(&name("config"), Bytes::new()).unwrap_err().kind(), ErrorKind::Network);
    assert!(clock.now() < Duration::from_secs(240));
}

#[test]
fn retry_leaves_what_cannot_heal() {
    let clock = clock();
    let inner = faulty(memory(), 1, vec![Fault::Refused(ErrorKind::Permission)], clock.clone());
    let retry = RetryBackend::new(inner, RetryOptions::default(), clock.clone());
    assert_eq!(retry.get(&name("config")).unwrap_err().kind(), ErrorKind::Permission);
    assert!(clock.sleeps().is_empty());
}

#[test]
fn a_put_whose_answer_was_lost_is_still_ours() {
    #[derive(Debug)]
    struct LosesFirst(MemoryBackend, AtomicUsize);
    impl Backend for LosesFirst {
        fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
            self.0.get(name)
        }
        fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
            self.0.get_range(name, offset, len)
        }
        fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
            let outcome = self.0.put(name, body)?;
            if self.1.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err(BackendError::new(ErrorKind::Network, Operation::Put));
            }
            Ok(outcome)
        }
        fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
            self.0.stat(name)
        }
        fn list(
            &self,
            prefix: &str,
            each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
        ) -> Result<(), BackendError> {
            self.0.list(prefix, each)
        }
        fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
            self.0.delete(name)
        }
        fn location(&self) -> String {
            self.0.location()
        }
    }
    let store = MemoryBackend::new();
    let losing = Arc::new(LosesFirst(store.clone(), AtomicUsize::new(0)));
    let retry = RetryBackend::new(losing, RetryOptions::default(), clock());
    assert_eq!(retry.put(&name("config"), Bytes::from_static(b"mine")).unwrap(), PutOutcome::Created);
    assert_eq!(retry.put(&name("config"), Bytes::from_static(b"mine")).unwrap(), PutOutcome::Existed);
}

#[test]
fn bandwidth_holds_over_many_bodies() {
    let clock = clock();
    let options =
        BandwidthOptions { upload_bytes: NonZeroU64::new(1000), download_bytes: NonZeroU64::new(2000) };
    let limited = BandwidthBackend::new(memory(), options, clock.clone());
    for i in 0..10 {
        limited.put(&name(&format!("packs/{i}")), Bytes::from(vec![0; 1000])).unwrap();
    }
    assert_eq!(clock.now(), Duration::from_secs(10));
    clock.advance(Duration::from_secs(3600));
    let before = clock.now();
    for i in 0..10 {
        limited.get(&name(&format!("packs/{i}"))).unwrap();
    }
    // One second's worth passes at once after a pause.
    assert_eq!(clock.now() - before, Duration::from_secs(4));
}

#[test]
fn concurrency_is_bounded() {
    #[derive(Debug, Default)]
    struct Gauge(AtomicUsize, AtomicUsize);
    impl Clock for Gauge {
        fn now(&self) -> Duration {
            Duration::ZERO
        }
        fn sleep(&self, _: Duration) {
            let running = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.1.fetch_max(running, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let gauge = Arc::new(Gauge::default());
    let slow = faulty(memory(), 1, vec![Fault::Slow(Duration::ZERO)], gauge.clone());
    let limited = ConcurrencyBackend::new(slow, NonZeroUsize::new(3).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| limited.exists(&name("config")).unwrap());
        }
    });
    assert!((1..=3).contains(&gauge.1.load(Ordering::SeqCst)));
}

#[test]
fn recording_tells_exactly_what_was_asked() {
    let recording = RecordingBackend::new(memory());
    recording.put(&name("packs/a"), Bytes::from_static(b"abc")).unwrap();
    recording.get_range(&name("packs/a"), 1, 2).unwrap();
    recording.get(&name("absent")).unwrap_err();
    recording.list("packs/", &mut |_| Ok(())).unwrap();
    let recorded = |operation, name: &str, amount| Recorded { operation, name: name.to_owned(), amount };
    let expected = [
        recorded(Operation::Put, "packs/a", 3),
        recorded(Operation::GetRange, "packs/a", 2),
        recorded(Operation::Get, "absent", 0),
        recorded(Operation::List, "packs/", 1),
    ];
    assert_eq!(recording.take(), expected);
    assert!(recording.take().is_empty());
}

#[test]
fn a_crash_takes_everything_after_it() {
    for (mode, survivors) in [(CrashMode::Before, 1), (CrashMode::After, 2), (CrashMode::Torn, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let local: Arc<dyn Backend> = Arc::new(LocalBackend::new(dir.path(), false));
        let crashing = CrashBackend::new(local.clone(), CrashPoint::Mutation(1), mode);
        crashing.put(&name("packs/a"), Bytes::from_static(b"abc")).unwrap();
        crashing.get(&name("packs/a")).unwrap();
        let died = crashing.put(&name("packs/b"), Bytes::from_static(b"defg")).unwrap_err();
        assert_eq!(died.kind(), ErrorKind::Stopped);
        assert_eq!(crashing.get(&name("packs/a")).unwrap_err().kind(), ErrorKind::Stopped);
        assert!(crashing.is_dead());
        let mut left = 0;
        let mut each = |_| {
            left += 1;
            Ok(())
        };
        local.list("", &mut each).unwrap();
        assert_eq!(left, survivors, "{mode:?}");
        assert_eq!(dir.path().join("tmp/1-torn").exists(), mode == CrashMode::Torn);
    }
}

#[test]
fn a_memory_backend_goes_back_in_time() {
    let backend = MemoryBackend::new();
    backend.put(&name("config"), Bytes::from_static(b"abc")).unwrap();
    let before = backend.snapshot();
    backend.advance(Duration::from_secs(60));
    assert!(backend.damage(&name("config"), |bytes| bytes[0] ^= 1));
    backend.put(&name("marks/a"), Bytes::new()).unwrap();
    assert_ne!(backend.get(&name("config")).unwrap(), "abc");
    let at = |object: &str| backend.stat(&name(object)).unwrap().modified.unwrap().unix_seconds;
    assert_eq!(at("marks/a") - at("config"), 60);
    backend.restore(before.clone());
    assert_eq!(backend.get(&name("config")).unwrap(), "abc");
    assert_eq!(MemoryBackend::from_state(before).len(), 1);
}
