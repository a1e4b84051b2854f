//! SFTP, against the machine's own OpenSSH.
#![allow(clippy::unwrap_used)] // Helpers of tests are test code too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use snap_backend::testing::conformance;
use snap_backend::{Backend, Bytes, ErrorKind, MAX_NAME_BYTES, ObjectName, OpenOptions, PutOutcome, open};
use snap_testkit::SftpServer;

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn connect(uri: &str, create: bool) -> Arc<dyn Backend> {
    open(uri, &OpenOptions { create, retry: None, ..Default::default() }).unwrap()
}

#[test]
fn sftp_conforms() {
    let server = SftpServer::start();
    let next = AtomicUsize::new(0);
    conformance(|| {
        let repository = next.fetch_add(1, Ordering::Relaxed).to_string();
        std::fs::create_dir(server.path(&repository)).unwrap();
        connect(&server.uri(&repository), false)
    });
}

#[test]
fn a_missing_root_is_made_only_when_asked() {
    let server = SftpServer::start();
    let closed = connect(&server.uri("a/b"), false);
    assert_eq!(closed.put(&name("config"), Bytes::new()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(closed.list("", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(closed.list("packs/", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!server.path("a").exists());
    let made = connect(&server.uri("a/b"), true);
    assert_eq!(made.put(&name("config"), Bytes::new()).unwrap(), PutOutcome::Created);
    assert!(server.path("a/b/config").exists());
}

#[test]
fn a_put_leaves_no_temporary_behind() {
    let server = SftpServer::start();
    let backend = connect(&server.uri("r"), true);
    for _ in 0..2 {
        backend.put(&name("packs/ab/c"), Bytes::from_static(b"x")).unwrap();
    }
    assert_eq!(std::fs::read_dir(server.path("r/tmp")).unwrap().count(), 0);
    assert_eq!(backend.sweep_stale_temporaries().unwrap(), 0);
    let old = std::fs::File::create(server.path("r/tmp/old")).unwrap();
    old.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(100_000)).unwrap();
    std::fs::write(server.path("r/tmp/new"), "").unwrap();
    assert_eq!(backend.sweep_stale_temporaries().unwrap(), 1);
    assert!(server.path("r/tmp/new").exists());
}

#[test]
fn the_longest_name_works() {
    let server = SftpServer::start();
    let backend = connect(&server.uri("r"), true);
    let long = name(&["x".repeat(127).as_str(); 4].join("/"));
    assert!(long.as_str().len() == MAX_NAME_BYTES - 1);
    backend.put(&long, Bytes::from_static(b"x")).unwrap();
    assert_eq!(backend.get(&long).unwrap(), "x");
}

#[test]
fn a_broken_connection_is_a_network_error_and_made_anew() {
    let server = SftpServer::start();
    let backend = connect(&server.uri("r"), true);
    backend.put(&name("config"), Bytes::from_static(b"x")).unwrap();
    server.break_connections();
    let error = backend.get(&name("config")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert_eq!(backend.get(&name("config")).unwrap(), "x");
}

#[test]
fn a_server_that_is_not_there_is_a_network_error() {
    let error = connect("sftp://127.0.0.1:1/r", false).get(&name("config")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
}

#[test]
fn an_unknown_host_or_key_is_refused() {
    let server = SftpServer::start();
    let other = SftpServer::start();
    let (key, hosts) = (server.key.display().to_string(), server.known_hosts.display().to_string());
    let wrong_key = server.uri("r").replace(&key, &other.key.display().to_string());
    let wrong_host = server.uri("r").replace(&hosts, &other.known_hosts.display().to_string());
    for uri in [wrong_key, wrong_host] {
        let error = connect(&uri, true).get(&name("config")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    }
}
