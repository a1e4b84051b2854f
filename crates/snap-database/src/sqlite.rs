//! SQLite: a copy by its online backup, checked, and then read like any file.
//!
//! The copy holds the pages as they are, those in the write-ahead log among them; so pages that did not change deduplicate,
//! which those of a `VACUUM INTO` would not. A read transaction is open meanwhile: nothing begins anew because somebody writes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use snap_crypto::Hasher;
use snap_format::{Details, Xattr};
use snap_source::{EntryStream, StoredFiles, StreamSource};

use crate::names::encode;
use crate::streams::{BytesStream, checksum};
use crate::uri::percent_decode;
use crate::{DatabaseError, Options};

const SCHEME: &str = "sqlite://";
/// Pages that are copied before looking up.
const STEP: i32 = 4096;
/// How long to wait for whoever writes.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// Name of the copy in the tree.
const FILE: &str = "database.sqlite";

/// Whether a URI is one of ours.
pub fn is_sqlite(uri: &str) -> bool {
    uri.starts_with(SCHEME)
}

/// The file of `sqlite:///srv/app.db` or `sqlite://app.db`.
pub fn path(uri: &str) -> Result<PathBuf, DatabaseError> {
    let path = uri.strip_prefix(SCHEME).map(percent_decode).unwrap_or_default();
    if path.is_empty() || path.ends_with('/') {
        return Err(DatabaseError::Uri(format!("{uri} names no file")));
    }
    Ok(path.into())
}

/// What a database is, apart from its rows.
#[derive(Debug, Serialize)]
struct About {
    about: u32,
    kind: &'static str,
    database: String,
    page_bytes: u64,
    encoding: String,
    journal_mode: String,
    user_version: i64,
    application_id: i64,
    /// By name; no count for a virtual table whose module is not here.
    tables: BTreeMap<String, Option<u64>>,
}

/// A checked copy of a database.
#[derive(Debug)]
pub struct Database {
    name: String,
    file: PathBuf,
    about: About,
    schema: String,
    /// Last, so that the copy is there as long as it is read.
    _temporary: tempfile::TempDir,
}

fn failed(what: String) -> impl FnOnce(rusqlite::Error) -> DatabaseError {
    move |error| DatabaseError::failed(what, error)
}

impl Database {
    /// Copies a database and checks the copy.
    pub fn make(source: &Path, options: &Options) -> Result<Self, DatabaseError> {
        let shown = source.display().to_string();
        let name = source.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| DatabaseError::Uri(format!("{shown} names no file")))?;
        let directory = options.directory()?;
        let file = directory.path().join(FILE);
        let journal_mode = copy(source, &file, options)?;
        let copied = open(&file).map_err(failed(format!("cannot open the copy of {shown}")))?;
        check(&copied, &shown)?;
        let about = about(&copied, name.clone(), journal_mode);
        let about = about.map_err(failed(format!("cannot look into {shown}")))?;
        let schema = schema(&copied).map_err(failed(format!("cannot read the schema of {shown}")))?;
        Ok(Self { name, file, about, schema, _temporary: directory })
    }

    /// The name of the file.
    pub fn database(&self) -> &str {
        &self.name
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

/// Copies all pages of one moment, and tells the journal mode.
fn copy(source: &Path, target: &Path, options: &Options) -> Result<String, DatabaseError> {
    let shown = source.display();
    let from = open(source).map_err(failed(format!("cannot open {shown}")))?;
    // The first look begins the transaction whose moment is copied.
    let begin = || -> rusqlite::Result<String> {
        from.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
        from.query_row("PRAGMA journal_mode", [], |row| row.get(0))
    };
    let mode = begin().map_err(failed(format!("cannot read {shown}")))?;
    let what = || format!("cannot copy {shown}");
    let mut to = Connection::open(target).map_err(failed(what()))?;
    to.execute_batch("PRAGMA synchronous = off; PRAGMA journal_mode = off").map_err(failed(what()))?;
    let backup = Backup::new(&from, &mut to).map_err(failed(what()))?;
    loop {
        if (options.stop)() {
            return Err(DatabaseError::Interrupted);
        }
        match backup.step(STEP).map_err(failed(what()))? {
            StepResult::Done => return Ok(mode),
            StepResult::More => {}
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// A copy of what is damaged is no backup.
fn check(copied: &Connection, shown: &str) -> Result<(), DatabaseError> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut statement = copied.prepare("PRAGMA integrity_check(5)")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let said = ask().map_err(failed(format!("cannot check the copy of {shown}")))?;
    if said == ["ok"] {
        return Ok(());
    }
    Err(DatabaseError::failed(
        format!("{shown} is damaged: PRAGMA integrity_check finds faults"),
        said.join("; "),
    ))
}

fn about(copied: &Connection, database: String, journal_mode: String) -> rusqlite::Result<About> {
    let number = |pragma: &str| copied.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let encoding = copied.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    let mut statement = copied.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let count = |name: &String| {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        copied
            .query_row(&sql, [], |row| row.get::<_, i64>(0))
            .ok()
            .and_then(|count| u64::try_from(count).ok())
    };
    Ok(About {
        about: 1,
        kind: "sqlite",
        database,
        page_bytes: u64::try_from(number("page_size")?).unwrap_or_default(),
        encoding,
        journal_mode,
        user_version: number("user_version")?,
        application_id: number("application_id")?,
        tables: names.into_iter().map(|name| (name.clone(), count(&name))).collect(),
    })
}

/// The statements that made it, for people.
fn schema(copied: &Connection) -> rusqlite::Result<String> {
    let mut statement = copied
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type <> 'table', name")?;
    let statements: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(statements.into_iter().map(|sql| sql + ";\n").collect())
}

impl StreamSource for Database {
    fn entries(&self) -> Vec<Vec<u8>> {
        let top = encode(&self.name);
        [FILE, "schema.sql", "about.json"].iter().map(|name| format!("/{top}/{name}").into_bytes()).collect()
    }

    fn open(&self, entry: usize) -> io::Result<Box<dyn EntryStream>> {
        Ok(match entry {
            0 => Box::new(Hashed { file: File::open(&self.file)?, hasher: Hasher::default() }),
            1 => BytesStream::boxed(self.schema.clone().into_bytes()),
            _ => {
                let mut text = serde_json::to_vec_pretty(&self.about)?;
                text.push(b'\n');
                BytesStream::boxed(text)
            }
        })
    }

    fn finish(&self) -> io::Result<Details> {
        let rows: u64 = self.about.tables.values().flatten().sum();
        let facts = [
            ("server_version", rusqlite::version().to_owned()),
            ("database", self.name.clone()),
            ("tables", self.about.tables.len().to_string()),
            ("rows", rows.to_string()),
            ("database_bytes", fs::metadata(&self.file)?.len().to_string()),
        ];
        let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Details { kind: self.about.kind.to_owned(), facts })
    }
}

struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Read for Hashed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(out)?;
        self.hasher.update(&out[..read]);
        Ok(read)
    }
}

impl EntryStream for Hashed {
    fn finish(&mut self) -> io::Result<Vec<Xattr>> {
        Ok(vec![checksum(&self.hasher)])
    }
}

/// Writes a database to a file that is not there yet, and checks it. Returns its bytes.
pub fn restore(stored: &dyn StoredFiles, path: &[u8], target: &Path) -> Result<u64, DatabaseError> {
    let shown = target.display();
    let unreadable = |error| DatabaseError::failed("cannot read the database in the snapshot", error);
    let end = format!("/{FILE}");
    let files = stored.files(path).map_err(unreadable)?;
    let mut found = files.iter().filter(|file| file.path.ends_with(end.as_bytes()));
    let (Some(file), None) = (found.next(), found.next()) else {
        let why = format!("{} holds no single database of SQLite", String::from_utf8_lossy(path));
        return Err(DatabaseError::Refused(why));
    };
    if target.symlink_metadata().is_ok() {
        return Err(DatabaseError::Refused(format!("{shown} is there already")));
    }
    let cannot = |error: io::Error| DatabaseError::failed(format!("cannot write {shown}"), error);
    let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut written = tempfile::Builder::new().prefix(".snap-").tempfile_in(above).map_err(cannot)?;
    stored.read(&file.path, written.as_file_mut()).map_err(unreadable)?;
    written.as_file().sync_all().map_err(cannot)?;
    let restored = Connection::open(written.path()).map_err(failed(format!("cannot open {shown}")))?;
    check(&restored, &shown.to_string())?;
    restored.close().map_err(|(_, error)| failed(format!("cannot close {shown}"))(error))?;
    written.persist_noclobber(target).map_err(|error| cannot(error.error))?;
    File::open(above).and_then(|above| above.sync_all()).map_err(cannot)?;
    Ok(file.size_bytes)
}
