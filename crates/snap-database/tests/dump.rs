//! What happens to a database while it is being read.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snap_database::postgres::{Dump, Settings};
use snap_database::{Options, ROWS};
use snap_source::{EntryStream, StreamSource};
use snap_testkit::PostgresServer;

fn begin(server: &PostgresServer, user: &str, database: &str) -> Dump {
    let settings = Settings::parse(&server.uri(user, database), &|_| None).unwrap();
    let options = Options { temporary: std::env::temp_dir(), stop: Arc::new(|| false) };
    Dump::begin(&settings, &options).unwrap()
}

fn open(dump: &Dump, name: &str) -> Box<dyn EntryStream> {
    let end = format!("/{name}.copy");
    let at = dump.entries().iter().position(|path| path.ends_with(end.as_bytes())).unwrap();
    dump.open(at).unwrap()
}

/// All of a stream, and its row count.
fn read(stream: &mut dyn EntryStream) -> (String, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let attributes = stream.finish().unwrap();
    let rows = attributes.into_iter().find(|attribute| attribute.name == ROWS.as_bytes()).unwrap();
    (text, String::from_utf8(rows.value).unwrap())
}

fn wait_for(server: &PostgresServer, question: &str) {
    let began = Instant::now();
    while server.run("postgres", question).trim() != "t" {
        assert!(began.elapsed() < Duration::from_secs(30), "{question}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_table_that_is_dropped_meanwhile_is_read_whole() {
    let server = PostgresServer::shared();
    server.create("dropped");
    server.run(
        "dropped",
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n; CREATE TABLE u AS SELECT 1 AS n",
    );
    let dump = begin(server, "postgres", "dropped");
    // Half of one is read before, the other is asked for while somebody waits to drop both.
    let mut first = open(&dump, "t");
    let mut head = [0; 1000];
    first.read_exact(&mut head).unwrap();
    std::thread::scope(|scope| {
        let dropping = scope.spawn(|| server.run("dropped", "DROP TABLE u, t"));
        wait_for(
            server,
            "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'",
        );
        assert_eq!(read(&mut *open(&dump, "u")), ("1\n".to_owned(), "1".to_owned()));
        let (rest, rows) = read(&mut *first);
        let whole = String::from_utf8(head.to_vec()).unwrap() + &rest;
        assert_eq!((whole.lines().count(), rows.as_str()), (100_000, "100000"));
        let details = dump.finish().unwrap();
        assert_eq!((details.kind.as_str(), details.facts["rows"].as_str()), ("postgresql", "100001"));
        drop(first);
        drop(dump);
        dropping.join().unwrap();
    });
    assert_eq!(
        server.run("dropped", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").trim(),
        "0"
    );
}

#[test]
fn a_connection_that_is_cut_names_the_table() {
    let server = PostgresServer::shared();
    server.create("cut");
    server.run("postgres", "CREATE ROLE victim LOGIN SUPERUSER");
    server.run(
        "cut",
        "CREATE TABLE big AS SELECT n, repeat('x', 1000) AS pad FROM generate_series(1, 50000) n",
    );
    let dump = begin(server, "victim", "cut");
    let mut stream = open(&dump, "big");
    let mut head = [0; 1000];
    stream.read_exact(&mut head).unwrap();
    server.disconnect("victim");
    let error = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err().to_string();
    assert!(error.contains("\"public\".\"big\""), "{error}");
    drop(stream);
    // The transaction is gone, too: nothing of it can be called whole.
    assert!(dump.finish().is_err());
}

#[test]
fn a_stream_that_is_not_read_to_its_end_gives_nothing_back() {
    let server = PostgresServer::shared();
    server.create("half");
    server.run(
        "half",
        "CREATE TABLE big AS SELECT n FROM generate_series(1, 500000) n; CREATE TABLE small AS SELECT 1 AS n",
    );
    let dump = begin(server, "postgres", "half");
    let mut stream = open(&dump, "big");
    stream.read_exact(&mut [0; 10]).unwrap();
    drop(stream);
    // What was left in that connection is not taken for another table's.
    assert_eq!(read(&mut *open(&dump, "small")).0, "1\n");
}

#[test]
fn rows_that_come_later_are_not_seen() {
    let server = PostgresServer::shared();
    server.create("later");
    server.run("later", "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    let dump = begin(server, "postgres", "later");
    server.run("later", "INSERT INTO t VALUES (2); CREATE TABLE v (n int)");
    assert_eq!(read(&mut *open(&dump, "t")).0, "1\n");
    assert!(!dump.entries().iter().any(|path| path.ends_with(b"/v.copy")));
}
