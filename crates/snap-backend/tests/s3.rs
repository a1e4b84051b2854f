//! S3, against a real server within the process.
#![allow(clippy::unwrap_used)] // Helpers of tests are test code too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use snap_backend::testing::{ManualClock, conformance};
use snap_backend::{
    Backend, Bytes, ErrorKind, ObjectName, OpenOptions, PutOutcome, RetryBackend, RetryOptions, open,
};
use snap_testkit::S3Server;

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn options(server: &S3Server) -> OpenOptions<'static> {
    let credentials = server.credentials().map(|(name, value)| (name.to_owned(), value)).into();
    OpenOptions { credentials, retry: None, ..Default::default() }
}

/// A fresh prefix of the server's bucket each time.
fn fresh(server: &S3Server) -> impl Fn() -> Arc<dyn Backend> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    move || {
        open(&server.uri(&format!("p{}", NEXT.fetch_add(1, Ordering::Relaxed))), &options(server)).unwrap()
    }
}

fn retrying(inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let options = RetryOptions { attempts: 30, deadline: Duration::from_secs(9999), ..Default::default() };
    Arc::new(RetryBackend::new(inner, options, Arc::new(ManualClock::new())))
}

#[test]
fn s3_conforms() {
    let server = S3Server::start();
    conformance(fresh(&server));
}

#[test]
fn s3_conforms_on_a_server_that_fails() {
    let server = S3Server::start();
    server.faults().slow_down_one_in.store(9, Ordering::Relaxed);
    server.faults().internal_error_one_in.store(7, Ordering::Relaxed);
    server.faults().cut_one_in.store(5, Ordering::Relaxed);
    let make = fresh(&server);
    conformance(|| retrying(make()));
}

#[test]
fn answers_of_the_server_have_kinds() {
    let server = S3Server::start();
    let backend = fresh(&server)();
    backend.put(&name("packs/a"), Bytes::from(vec![7; 100_000])).unwrap();
    let faults = server.faults();
    let always = |fault: &std::sync::atomic::AtomicU64, kind| {
        fault.store(1, Ordering::Relaxed);
        assert_eq!(backend.get(&name("packs/a")).unwrap_err().kind(), kind);
        fault.store(0, Ordering::Relaxed);
    };
    always(&faults.slow_down_one_in, ErrorKind::Throttled);
    always(&faults.internal_error_one_in, ErrorKind::Network);
    faults.cut_one_in.store(1, Ordering::Relaxed);
    assert!(backend.get(&name("packs/a")).unwrap_err().is_retryable());
    assert!(backend.get_range(&name("packs/a"), 5, 50_000).unwrap_err().is_retryable());
}

#[test]
fn a_put_whose_answer_was_lost_is_created() {
    let server = S3Server::start();
    let backend = retrying(fresh(&server)());
    server.faults().lost_answer_one_in.store(2, Ordering::Relaxed);
    for i in 0..8 {
        let object = name(&format!("config{i}"));
        assert_eq!(backend.put(&object, Bytes::from_static(b"x")).unwrap(), PutOutcome::Created);
        assert_eq!(backend.put(&object, Bytes::from_static(b"y")).unwrap(), PutOutcome::Existed);
        assert_eq!(backend.get(&object).unwrap(), "x");
    }
}

#[test]
fn each_put_carries_a_checksum_and_asks_nothing_first() {
    let server = S3Server::start();
    let backend = fresh(&server)();
    let before = server.requests();
    backend.put(&name("packs/ab/a"), Bytes::from(vec![1; 1 << 20])).unwrap();
    assert_eq!(server.requests() - before, 1);
    assert_eq!(server.puts_with_checksum(), 1);
    backend.put(&name("config"), Bytes::from_static(b"x")).unwrap();
    assert_eq!(server.requests() - before, 3);
}

#[test]
fn an_operation_ends_in_time() {
    let server = S3Server::start();
    server.faults().latency_ms.store(3_000, Ordering::Relaxed);
    let options = OpenOptions { request_timeout: Duration::from_millis(100), ..options(&server) };
    let backend = open(&server.uri("late"), &options).unwrap();
    assert_eq!(backend.stat(&name("config")).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn refused_credentials_are_told_and_not_repeated() {
    let server = S3Server::start();
    for (id, secret) in
        [(server.access.as_str(), "a-wrong-secret-key"), ("SOMEBODYELSE", "a-wrong-secret-key")]
    {
        let pairs = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)];
        let credentials = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = OpenOptions { credentials, ..Default::default() };
        let backend = open(&server.uri("p"), &options).unwrap();
        let error = backend.get(&name("config")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        for shown in
            [format!("{error} {error:?}"), format!("{backend:?}"), format!("{options:?}"), backend.location()]
        {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn a_missing_bucket_is_not_found() {
    let server = S3Server::start();
    let uri = format!("s3://absent/p?endpoint={}", server.endpoint);
    let backend = open(&uri, &options(&server)).unwrap();
    assert_eq!(backend.get(&name("config")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_server_that_is_not_there_is_a_network_error() {
    let server = S3Server::start();
    let backend = fresh(&server)();
    let options = OpenOptions { retry: None, ..options(&server) };
    let nobody = open("s3://bucket/p?endpoint=http://127.0.0.1:1", &options).unwrap();
    assert_eq!(nobody.get(&name("config")).unwrap_err().kind(), ErrorKind::Network);
    drop(backend);
}
