//! A database as streams, all of one moment.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_format::Details;
use snap_source::{EntryStream, StreamSource};

use super::archive::{Archive, without_random};
use super::catalog::{self, Catalog, LARGE_OBJECT_BITS, Table};
use super::session;
use super::settings::Settings;
use super::sql::{columns, copy_line, list, literal, qualified};
use super::streams::{CopyStream, Holder, Home, Pool, named};
use super::tools::{Running, Tools};
use super::wire::{Connection, WireError};
use crate::names::encode;
use crate::streams::BytesStream;
use crate::{DatabaseError, Options, Stop};

/// Tables that are locked, and sequences that are read, with one statement.
const BATCH: usize = 200;
/// How often a table may be dropped between looking and locking.
const ATTEMPTS: usize = 5;
/// A piece of a large object, which is a row.
const LARGE_OBJECT_PIECE: u32 = 256 << 10;

/// SQLSTATEs that mean something here.
mod code {
    pub(super) const UNDEFINED_TABLE: &str = "42P01";
    pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    Table(usize),
    LargeObjects(u32),
    SchemaDump,
    SchemaText,
    Globals,
    Sequences,
    About,
}

/// A database whose tables are locked against changes of their definitions, not of their rows.
pub struct Dump {
    settings: Settings,
    database: String,
    catalog: Catalog,
    entries: Vec<Entry>,
    position: String,
    pool: Arc<Pool>,
    /// Holds the snapshot and the locks. Also reads the tables that no other may lock.
    holder: Arc<Holder>,
    archive: Archive,
    tools: Tools,
    rows: Arc<AtomicU64>,
    stop: Stop,
    notes: Vec<String>,
    /// Last, so that it is there until `pg_dump` is gone.
    _temporary: tempfile::TempDir,
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dump({} of {})", self.database, self.settings)
    }
}

/// A transaction whose snapshot others may share.
struct Held {
    connection: Connection,
    snapshot: String,
    position: String,
    catalog: Catalog,
}

impl Dump {
    /// Takes the snapshot, and locks every table. Fails if anything could not be read whole.
    pub fn begin(settings: &Settings, options: &Options) -> Result<Self, DatabaseError> {
        let stop = Stop::clone(&options.stop);
        let database = settings.database.clone().unwrap_or_else(|| settings.user.clone());
        let (mut connection, version) = session::open(settings, &database, &stop)?;
        let tools = Tools::find(version / 10_000)?;
        let mut attempt = 0;
        let held = loop {
            attempt += 1;
            match hold(&mut connection, version) {
                Ok((snapshot, position, catalog)) => break Held { connection, snapshot, position, catalog },
                Err(Hold::Vanished) if attempt < ATTEMPTS => {
                    let again = connection.execute("ROLLBACK");
                    again.map_err(|error| DatabaseError::failed("cannot begin again", error))?;
                }
                Err(Hold::Vanished) => {
                    return Err(DatabaseError::failed(
                        "cannot lock the tables",
                        "they are dropped and made all the time",
                    ));
                }
                Err(Hold::Failed(error)) => return Err(error),
            }
        };
        let directory = options.directory()?;
        let archive = Archive::start(
            &tools,
            settings,
            &database,
            &held.snapshot,
            text_encoding(&held.catalog.about.encoding),
            directory.path(),
        )?;
        let mut notes = Vec::new();
        if !held.catalog.is_superuser {
            notes.push(format!(
                "{} is no superuser: passwords of roles are not part of the backup",
                settings.user
            ));
        }
        Ok(Self {
            entries: entries(&held.catalog),
            pool: Pool::new(settings, &database, &held.snapshot),
            settings: settings.clone(),
            database,
            catalog: held.catalog,
            position: held.position,
            holder: Holder::new(held.connection),
            archive,
            tools,
            rows: Arc::default(),
            stop,
            notes,
            _temporary: directory,
        })
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// What its user should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn path(&self, entry: Entry) -> String {
        let name = match entry {
            Entry::Table(at) => self.catalog.tables[at].about.file.clone(),
            Entry::LargeObjects(bucket) => format!("large-objects/{bucket:05}.copy"),
            Entry::SchemaDump => "schema.dump".to_owned(),
            Entry::SchemaText => "schema.sql".to_owned(),
            Entry::Globals => "globals.sql".to_owned(),
            Entry::Sequences => "sequences.copy".to_owned(),
            Entry::About => "about.json".to_owned(),
        };
        format!("/{}/{name}", encode(&self.database))
    }

    fn table(&self, table: &Table) -> io::Result<Box<dyn EntryStream>> {
        let what = format!("table {}", table.name);
        let copy = copy_table(table, &self.catalog.about.encoding);
        let lock = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT; {copy}", table.name);
        let mut connection = self
            .pool
            .take(&self.stop)
            .map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))?;
        match connection.copy_out(&lock) {
            Ok(()) => {}
            // Somebody waits for us to let go of it. Who holds the lock already gets it once more, whoever waits.
            Err(error) if error.has_code(code::LOCK_NOT_AVAILABLE) => {
                drop(connection);
                let mut connection = self.holder.take(&self.stop)?;
                if let Err(error) = connection.copy_out(&copy) {
                    self.holder.lose();
                    return Err(named(&what, error));
                }
                let home = Arc::clone(&self.holder);
                return Ok(CopyStream::boxed(what, connection, home, Arc::clone(&self.rows)));
            }
            Err(error) => return Err(named(&what, error)),
        }
        let home = Arc::clone(&self.pool);
        Ok(CopyStream::boxed(what, connection, home, Arc::clone(&self.rows)))
    }

    fn large_objects(&self, bucket: u32) -> io::Result<Box<dyn EntryStream>> {
        let what = format!("large objects {bucket}");
        let (first, after) =
            (u64::from(bucket) << LARGE_OBJECT_BITS, (u64::from(bucket) + 1) << LARGE_OBJECT_BITS);
        // The size of each: opened for reading (0x40000), its end sought, closed.
        let copy = format!(
            "COPY (SELECT m.oid, p.at, pg_catalog.lo_get(m.oid, p.at, {LARGE_OBJECT_PIECE}) \
             FROM (SELECT oid FROM pg_catalog.pg_largeobject_metadata \
                   WHERE oid::bigint >= {first} AND oid::bigint < {after} ORDER BY oid) m, \
             LATERAL (SELECT pg_catalog.lo_open(m.oid, 262144) AS fd OFFSET 0) o, \
             LATERAL (SELECT (ARRAY[pg_catalog.lo_lseek64(o.fd, 0, 2), pg_catalog.lo_close(o.fd)])[1] AS size OFFSET 0) s, \
             LATERAL pg_catalog.generate_series(0, greatest(s.size - 1, 0), {LARGE_OBJECT_PIECE}) p(at)) TO STDOUT"
        );
        let mut connection = self.pool.take(&self.stop)?;
        connection.copy_out(&copy).map_err(|error| named(&what, error))?;
        let home = Arc::clone(&self.pool);
        Ok(CopyStream::boxed(what, connection, home, Arc::default()))
    }

    fn globals(&self) -> io::Result<Vec<u8>> {
        let mut command =
            self.tools.command("pg_dumpall", &self.settings, &self.database).map_err(io::Error::other)?;
        command
            .arg("--globals-only")
            .args(plain_name(&self.database).map(|name| format!("--database={name}")));
        command.args(
            text_encoding(&self.catalog.about.encoding).map(|encoding| format!("--encoding={encoding}")),
        );
        if !self.catalog.is_superuser {
            command.arg("--no-role-passwords");
        }
        let said = Running::start(command).and_then(|running| running.finish(&self.stop)).map_err(in_full)?;
        Ok(without_random(&said.stdout))
    }

    fn schema_text(&self) -> io::Result<Vec<u8>> {
        let archive = self.archive.wait(&self.stop).map_err(in_full)?;
        let mut command =
            self.tools.command("pg_restore", &self.settings, &self.database).map_err(io::Error::other)?;
        command.args(["--file", "-"]).arg(archive);
        let said = Running::start(command).and_then(|running| running.finish(&self.stop)).map_err(in_full)?;
        Ok(without_random(&said.stdout))
    }

    fn sequences(&self) -> io::Result<Vec<u8>> {
        let mut out = String::new();
        for batch in self.catalog.sequences.chunks(BATCH) {
            let one = |(at, (schema, name)): (usize, &(String, String))| {
                let (text, quoted) = ((literal(schema), literal(name)), qualified(schema, name));
                format!(
                    "SELECT {at} AS at, {}, {}, last_value::text, is_called::text FROM {quoted}",
                    text.0, text.1
                )
            };
            let query: Vec<_> = batch.iter().enumerate().map(one).collect();
            let query = format!("{} ORDER BY at", query.join(" UNION ALL "));
            let rows = self.holder.with(&self.stop, |connection| connection.query(&query));
            for row in rows.map_err(|error| io::Error::new(error.kind(), format!("sequences: {error}")))? {
                out.push_str(&copy_line(&row[1..]));
            }
        }
        Ok(out.into_bytes())
    }

    fn about(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(&self.catalog.about)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// The encoding of definitions and roles: one that people can read, unless the database's bytes mean nothing in particular.
fn text_encoding(encoding: &str) -> Option<&'static str> {
    (encoding != "SQL_ASCII").then_some("UTF8")
}

/// A database's name where a program would take anything else for a whole way to log in. It finds another database by itself.
fn plain_name(name: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (!name.is_empty() && name.bytes().all(is_plain)).then_some(name)
}

/// A failure with its cause in one line.
fn in_full(error: DatabaseError) -> io::Error {
    match error {
        DatabaseError::Failed { what, source } => io::Error::other(format!("{what}: {source}")),
        error => io::Error::other(error),
    }
}

impl StreamSource for Dump {
    fn entries(&self) -> Vec<Vec<u8>> {
        self.entries.iter().map(|entry| self.path(*entry).into_bytes()).collect()
    }

    fn open(&self, entry: usize) -> io::Result<Box<dyn EntryStream>> {
        let bytes = match self.entries[entry] {
            Entry::Table(at) => return self.table(&self.catalog.tables[at]),
            Entry::LargeObjects(bucket) => return self.large_objects(bucket),
            Entry::SchemaDump => fs::read(self.archive.wait(&self.stop).map_err(in_full)?)?,
            Entry::SchemaText => self.schema_text()?,
            Entry::Globals => self.globals()?,
            Entry::Sequences => self.sequences()?,
            Entry::About => self.about()?,
        };
        Ok(BytesStream::boxed(bytes))
    }

    fn finish(&self) -> io::Result<Details> {
        // Were the snapshot lost on the way, this would say so.
        self.holder.with(&self.stop, |connection| connection.execute("COMMIT"))?;
        let about = &self.catalog.about;
        let facts = [
            ("server_version", about.server_version.clone()),
            ("database", about.database.clone()),
            ("log_position", self.position.clone()),
            ("tables", about.tables.len().to_string()),
            ("rows", self.rows.load(Ordering::Relaxed).to_string()),
            ("sequences", about.sequences.to_string()),
            ("large_objects", about.large_objects.to_string()),
            ("database_bytes", self.catalog.database_bytes.to_string()),
        ];
        let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Details { kind: about.kind.clone(), facts })
    }
}

/// The largest tables first, so that none is left over at the end; then what takes no time.
fn entries(catalog: &Catalog) -> Vec<Entry> {
    let mut tables: Vec<usize> = (0..catalog.tables.len()).collect();
    tables.sort_by_key(|at| std::cmp::Reverse(catalog.tables[*at].size_bytes));
    let mut out: Vec<Entry> = catalog.large_objects.iter().copied().map(Entry::LargeObjects).collect();
    out.extend(tables.into_iter().map(Entry::Table));
    out.extend([Entry::Globals, Entry::Sequences, Entry::SchemaDump, Entry::SchemaText, Entry::About]);
    out
}

fn copy_table(table: &Table, encoding: &str) -> String {
    let (name, encoding) = (&table.name, literal(encoding));
    if table.condition.is_empty() {
        return format!("COPY {name} {} TO STDOUT (ENCODING {encoding})", columns(&table.about.columns));
    }
    let columns = list(&table.about.columns);
    format!("COPY (SELECT {columns} FROM {name} {}) TO STDOUT (ENCODING {encoding})", table.condition)
}

enum Hold {
    /// A table went away between looking and locking.
    Vanished,
    Failed(DatabaseError),
}

/// Begins the transaction, exports its snapshot, reads the catalogs and locks what is to be read.
fn hold(connection: &mut Connection, version: u32) -> Result<(String, String, Catalog), Hold> {
    let failed =
        |what: &'static str| move |error: WireError| Hold::Failed(DatabaseError::failed(what, error));
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    connection.execute(begin).map_err(failed("cannot begin a transaction"))?;
    let rows = connection
        .query(
            "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
             ELSE pg_catalog.pg_current_wal_lsn() END, pg_catalog.pg_export_snapshot()",
        )
        .map_err(failed("cannot export a snapshot"))?;
    let row = rows.into_iter().next().unwrap_or_default();
    let mut row = row.into_iter().map(Option::unwrap_or_default);
    let (position, snapshot) = (row.next().unwrap_or_default(), row.next().unwrap_or_default());
    let catalog = catalog::read(connection, version).map_err(Hold::Failed)?;
    for batch in catalog.tables.chunks(BATCH) {
        let names: Vec<_> = batch.iter().map(|table| format!("ONLY {}", table.name)).collect();
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        match connection.execute(&lock) {
            Err(error) if error.has_code(code::UNDEFINED_TABLE) => return Err(Hold::Vanished),
            outcome => outcome.map_err(failed("cannot lock the tables"))?,
        }
    }
    Ok((snapshot, position, catalog))
}
