//! SQLite files that are in use, damaged or in the way.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use snap_database::sqlite::{Database, restore};
use snap_database::{DatabaseError, Options};
use snap_source::{StoredFile, StoredFiles, StreamSource};

fn options() -> Options {
    Options { temporary: std::env::temp_dir(), stop: Arc::new(|| false) }
}

/// What a snapshot would hold.
struct Stored(Vec<(Vec<u8>, Vec<u8>)>);

impl Stored {
    fn of(database: &Database) -> Self {
        let read = |(at, path): (usize, Vec<u8>)| {
            let (mut stream, mut bytes) = (database.open(at).unwrap(), Vec::new());
            stream.read_to_end(&mut bytes).unwrap();
            stream.finish().unwrap();
            (path, bytes)
        };
        Self(database.entries().into_iter().enumerate().map(read).collect())
    }

    fn text(&self, end: &str) -> String {
        let found = self.0.iter().find(|(path, _)| path.ends_with(end.as_bytes())).unwrap();
        String::from_utf8(found.1.clone()).unwrap()
    }
}

impl StoredFiles for Stored {
    fn files(&self, path: &[u8]) -> io::Result<Vec<StoredFile>> {
        let below = self.0.iter().filter(|file| file.0.starts_with(path));
        Ok(below
            .map(|(path, bytes)| StoredFile {
                path: path.clone(),
                size_bytes: bytes.len() as u64,
                xattrs: Vec::new(),
            })
            .collect())
    }

    fn read(&self, path: &[u8], out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0.iter().find(|file| file.0 == path).unwrap().1)
    }
}

fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_only_in_the_log_is_copied_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b%.db");
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; PRAGMA user_version = 7; \
             CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB); CREATE INDEX by_x ON t (x); CREATE VIRTUAL TABLE words USING fts5(w); \
             INSERT INTO t (x) VALUES (x'00ff'), (NULL), (1.5); INSERT INTO words VALUES ('found')",
        )
        .unwrap();
    let stored = Stored::of(&Database::make(&path, &options()).unwrap());
    assert!(stored.0.iter().all(|(path, _)| path.starts_with(b"/a b%25.db/")));
    let about = stored.text("about.json");
    assert!(
        about.contains("\"t\": 3") && about.contains("\"user_version\": 7") && about.contains("wal"),
        "{about}"
    );
    assert!(stored.text("schema.sql").contains("CREATE INDEX by_x ON t (x);"));

    let target = directory.path().join("back.db");
    restore(&stored, b"/", &target).unwrap();
    assert_eq!(number(&target, "SELECT count(*) FROM t"), 3);
    assert_eq!(number(&target, "SELECT count(*) FROM words WHERE words MATCH 'found'"), 1);
    // What is there stays.
    let before = fs::read(&target).unwrap();
    assert!(matches!(restore(&stored, b"/", &target), Err(DatabaseError::Refused(_))));
    assert_eq!(fs::read(&target).unwrap(), before);
    // The same pages, the same bytes.
    assert_eq!(Stored::of(&Database::make(&path, &options()).unwrap()).0, stored.0);
}

#[test]
fn a_copy_is_of_one_moment() {
    for mode in ["wal", "delete"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("moving.db");
        let writer = Connection::open(&path).unwrap();
        let make = "CREATE TABLE a (id INTEGER PRIMARY KEY, n INT, pad TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY, n INT); \
             WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) INSERT INTO a SELECT n, 10, hex(randomblob(200)) FROM s; \
             INSERT INTO b SELECT id, 10 FROM a";
        writer.execute_batch(&format!("PRAGMA journal_mode = {mode}; {make}")).unwrap();
        writer.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        let stop = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut at = 1;
                while !stop.load(Ordering::Relaxed) {
                    at = at % 20_000 + 1;
                    let step = "BEGIN IMMEDIATE; UPDATE a SET n = n - 1 WHERE id = ?; UPDATE b SET n = n + 1 WHERE id = ?; COMMIT";
                    writer.execute_batch(&step.replace('?', &at.to_string())).unwrap();
                }
            });
            for round in 0..3 {
                let stored = Stored::of(&Database::make(&path, &options()).unwrap());
                let target = directory.path().join(format!("back {round}"));
                restore(&stored, b"/moving.db", &target).unwrap();
                let sum = number(&target, "SELECT (SELECT sum(n) FROM a) + (SELECT sum(n) FROM b)");
                assert_eq!(sum, 400_000, "{mode}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn what_is_damaged_or_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.db");
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX i ON t (x); \
             WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 5000) INSERT INTO t SELECT n, hex(randomblob(50)) FROM s")
        .unwrap();
    drop(writer);
    Database::make(&path, &options()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let error = Database::make(&path, &options()).unwrap_err().to_string();
    assert!(error.contains("bad.db"), "{error}");

    fs::write(&path, "no database at all, but long enough to be read as the head of one: ".repeat(20))
        .unwrap();
    assert!(Database::make(&path, &options()).is_err());
    let missing = directory.path().join("missing.db");
    assert!(Database::make(&missing, &options()).is_err());
    assert!(!missing.exists());
}
