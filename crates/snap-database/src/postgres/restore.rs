//! Bringing a database back, or a schema or a table of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use snap_source::{StoredFile, StoredFiles};

use super::about::{self, About, Table};
use super::settings::Settings;
use super::sql::{columns, copy_fields, ident, literal, qualified};
use super::tools::{Running, Tools};
use super::wire::{Connection, WireError};
use super::{roles, session, toc};
use crate::names::encode;
use crate::streams::ROWS;
use crate::{DatabaseError, Options, Stop};

/// The longest page about a database.
const ABOUT_MAX: u64 = 256 << 20;
/// Databases that a server has in any case.
const ANY_DATABASE: [&str; 2] = ["postgres", "template1"];
/// SQLSTATE of a database that is not there.
const NO_DATABASE: &str = "3D000";

/// What a restore needs of its caller.
pub struct RestoreOptions {
    /// Leave owners and privileges as they come.
    pub no_owner: bool,
    /// Tables that are filled, and indexes that are built, at a time.
    pub jobs: usize,
    /// As for a backup.
    pub options: Options,
}

impl std::fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RestoreOptions({} jobs, no_owner: {})", self.jobs, self.no_owner)
    }
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// The database that was filled.
    pub database: String,
    /// Whether it was made for that.
    pub created: bool,
    /// Tables that were filled.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of rows and large objects.
    pub bytes: u64,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// Directory name of a schema.
    Schema(String),
    /// File name below the database.
    Table(String),
}

/// Restores what lies at `path` in a snapshot into the database that the settings name, which is made if it is not there. A whole
/// database goes into an empty one; a table, or the tables of a schema, must not be there. Nothing is overwritten.
///
/// # Errors
/// [`DatabaseError::Refused`] before anything was touched. After any other error the target may hold a part.
pub fn restore(
    stored: &dyn StoredFiles,
    path: &[u8],
    settings: &Settings,
    options: &RestoreOptions,
    note: &(dyn Fn(&str) + Sync),
) -> Result<RestoreReport, DatabaseError> {
    let (top, part) = parse_path(stored, path)?;
    let files = stored.files(top.as_bytes()).map_err(|error| unreadable(&top, error))?;
    let files: BTreeMap<Vec<u8>, StoredFile> =
        files.into_iter().map(|file| (file.path.clone(), file)).collect();
    let source = Source { stored, top, files };
    let about = source.about()?;
    let name = settings.database.clone().ok_or_else(|| {
        DatabaseError::Refused(format!(
            "{settings}: the target names no database: postgres://…/{}",
            about.database
        ))
    })?;
    let directory = options.options.directory()?;
    let archive = directory.path().join("schema.dump");
    fs::File::create(&archive)
        .and_then(|mut file| stored.read(source.path("schema.dump").as_bytes(), &mut file))
        .map_err(|error| unreadable("schema.dump", error))?;
    let ((connection, tools), created) = open_or_create(settings, &name, &about, &options.options.stop)?;
    let mut restorer = Restorer {
        source,
        about,
        settings,
        options,
        note,
        tools,
        connection,
        archive,
        report: RestoreReport { database: name, created, ..RestoreReport::default() },
    };
    let outcome = match part {
        Part::Whole => restorer.whole(),
        part => restorer.part(&part, directory.path()),
    };
    outcome.map(|()| restorer.report)
}

fn unreadable(what: &str, error: io::Error) -> DatabaseError {
    DatabaseError::failed(format!("cannot read {what} in the snapshot"), error)
}

/// The directory of the database, and what is asked for in it.
fn parse_path(stored: &dyn StoredFiles, path: &[u8]) -> Result<(String, Part), DatabaseError> {
    let refused = |why: &str| DatabaseError::Refused(format!("{}: {why}", String::from_utf8_lossy(path)));
    let text = std::str::from_utf8(path).map_err(|_| refused("not a path in a database"))?;
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    let Some(first) = names.first() else {
        let files = stored.files(b"/").map_err(|error| unreadable("the snapshot", error))?;
        let tops: BTreeSet<_> =
            files.iter().filter_map(|file| file.path.strip_suffix(b"/about.json")).collect();
        return match tops.into_iter().collect::<Vec<_>>()[..] {
            [] => Err(DatabaseError::Refused("the snapshot holds no database of PostgreSQL".into())),
            [only] => Ok((String::from_utf8_lossy(only).into_owned(), Part::Whole)),
            _ => Err(DatabaseError::Refused(
                "the snapshot holds several databases: name one, SNAPSHOT:/DATABASE".into(),
            )),
        };
    };
    let part = match names[1..] {
        [] => Part::Whole,
        ["tables", schema] => Part::Schema(schema.to_owned()),
        ["tables", _, _] => Part::Table(names[1..].join("/")),
        _ => {
            return Err(refused(
                "restore a database, /DB, a schema, /DB/tables/SCHEMA, or a table, /DB/tables/SCHEMA/TABLE.copy",
            ));
        }
    };
    Ok((format!("/{first}"), part))
}

/// The files of one database.
struct Source<'a> {
    stored: &'a dyn StoredFiles,
    top: String,
    files: BTreeMap<Vec<u8>, StoredFile>,
}

impl Source<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.top)
    }

    fn file(&self, name: &str) -> Result<&StoredFile, DatabaseError> {
        let path = self.path(name);
        let file = self.files.get(path.as_bytes());
        file.ok_or_else(|| {
            DatabaseError::failed(
                format!("{path} is not in the snapshot"),
                "it holds no whole dump of PostgreSQL",
            )
        })
    }

    fn text(&self, name: &str) -> Result<String, DatabaseError> {
        let file = self.file(name)?;
        if file.size_bytes > ABOUT_MAX {
            return Err(DatabaseError::failed(format!("cannot read {name}"), "it is too long"));
        }
        let mut bytes = Vec::new();
        self.stored.read(&file.path, &mut bytes).map_err(|error| unreadable(name, error))?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn about(&self) -> Result<About, DatabaseError> {
        let text = self.text("about.json")?;
        let about: About = serde_json::from_str(&text).map_err(|error| {
            DatabaseError::failed(format!("{} is not understood", self.path("about.json")), error)
        })?;
        if about.about != about::VERSION || about.kind != "postgresql" {
            let why = format!("version {} of {}", about.about, about.kind);
            return Err(DatabaseError::failed("the dump is of a kind that this snap does not know", why));
        }
        Ok(about)
    }
}

type Opened = (Connection, Tools);

/// Opens the target, or makes it first.
fn open_or_create(
    settings: &Settings,
    name: &str,
    about: &About,
    stop: &Stop,
) -> Result<(Opened, bool), DatabaseError> {
    let with_tools = |(connection, version): (Connection, u32)| -> Result<Opened, DatabaseError> {
        let needed = (version / 10_000).max(about.server_version_num / 10_000);
        if version / 10_000 < about.server_version_num / 10_000 {
            return Err(DatabaseError::Refused(format!(
                "{settings} is PostgreSQL {}, older than the {} that was backed up",
                version / 10_000,
                about.server_version
            )));
        }
        Ok((connection, Tools::find(needed)?))
    };
    match Connection::open(settings, name, Stop::clone(stop)) {
        Err(error) if error.has_code(NO_DATABASE) => {}
        _ => return Ok((with_tools(session::open(settings, name, stop)?)?, false)),
    }
    let mut failure = None;
    for any in ANY_DATABASE {
        match session::open(settings, any, stop) {
            Ok(opened) => {
                let version = opened.1;
                let (mut connection, _) = with_tools(opened)?;
                connection.execute(&create_database(name, about, version / 10_000)).map_err(|error| {
                    DatabaseError::failed(format!("cannot make the database {name}"), error)
                })?;
                return Ok((with_tools(session::open(settings, name, stop)?)?, true));
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("there are databases to try"))
}

fn create_database(name: &str, about: &About, major: u32) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        ident(name),
        literal(&about.encoding),
        literal(&about.collate),
        literal(&about.ctype)
    );
    if let Some(locale) = about.locale.as_ref().filter(|_| major >= 15) {
        let (provider, option) = match about.locale_provider.as_str() {
            "i" => ("icu", "ICU_LOCALE"),
            "b" => ("builtin", "BUILTIN_LOCALE"),
            _ => return sql,
        };
        sql.push_str(&format!(" LOCALE_PROVIDER {provider} {option} {}", literal(locale)));
    }
    sql
}

struct Restorer<'a> {
    source: Source<'a>,
    about: About,
    settings: &'a Settings,
    options: &'a RestoreOptions,
    note: &'a (dyn Fn(&str) + Sync),
    tools: Tools,
    connection: Connection,
    archive: PathBuf,
    report: RestoreReport,
}

impl Restorer<'_> {
    fn whole(&mut self) -> Result<(), DatabaseError> {
        let occupied = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS ( \
              SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
              AND d.objid = c.oid AND d.deptype = 'e') LIMIT 1";
        let database = self.report.database.clone();
        if let Some([Some(schema), Some(name)]) = self.query(occupied)?.first().map(Vec::as_slice) {
            let name = qualified(schema, name);
            return Err(DatabaseError::Refused(format!(
                "the database {database} is not empty: it has {name}"
            )));
        }
        let tables: Vec<Table> = self.about.tables.clone();
        for table in &tables {
            self.source.file(&table.file)?;
        }
        if !self.options.no_owner {
            let (globals, schema) = (self.source.text("globals.sql")?, self.source.text("schema.sql")?);
            let outcome =
                roles::restore(&mut self.connection, &globals, &self.about.roles, &schema, self.note);
            outcome.map_err(|error| DatabaseError::failed("cannot restore roles", error))?;
        }
        self.run(&["--section=pre-data", "--exit-on-error"])?;
        self.fill(&tables)?;
        let sequences = self.sequences()?;
        self.set_sequences(&sequences)?;
        self.large_objects()?;
        let jobs = format!("--jobs={}", self.options.jobs.max(1));
        self.run(&["--section=post-data", "--exit-on-error", &jobs])?;
        if self.report.created { self.describe_database() } else { Ok(()) }
    }

    fn part(&mut self, part: &Part, directory: &Path) -> Result<(), DatabaseError> {
        let items = toc::parse(&self.listed("--verbose")?);
        let wanted: BTreeSet<u32> = match part {
            Part::Whole => unreachable!("the whole is no part"),
            Part::Table(file) => {
                let table = self.about.tables.iter().find(|table| table.file == *file);
                let oid = table.map(|table| table.oid).ok_or_else(|| {
                    DatabaseError::Refused(format!("{} is no table of the snapshot", self.source.path(file)))
                })?;
                items.iter().filter(|item| item.table() == Some(oid)).map(|item| item.id).collect()
            }
            Part::Schema(directory) => {
                let schema = self.about.tables.iter().find(|table| encode(&table.schema) == *directory);
                let schema = schema.map(|table| format!("--schema={}", table.schema)).ok_or_else(|| {
                    DatabaseError::Refused(format!("the snapshot has no schema {directory} with tables"))
                })?;
                // Without --verbose, which lists what was not chosen, too.
                toc::parse(&self.listed(&schema)?).into_iter().map(|item| item.id).collect()
            }
        };
        let mut choice = toc::choose(&items, &wanted);
        let chosen: BTreeSet<u32> = items
            .iter()
            .filter(|item| choice.chosen.contains(&item.id))
            .filter_map(toc::Item::table)
            .collect();
        let (mut fresh, mut occupied) = (Vec::new(), Vec::new());
        for table in self.about.tables.clone().into_iter().filter(|table| choice.tables.contains(&table.oid))
        {
            let name = qualified(&table.schema, &table.name);
            if !self.exists(&name)? {
                self.source.file(&table.file)?;
                fresh.push(table);
            } else if chosen.contains(&table.oid) {
                occupied.push(name);
            }
        }
        if !occupied.is_empty() {
            let names = occupied.join(", ");
            let why = format!("{} has {names} already; nothing was touched", self.report.database);
            return Err(DatabaseError::Refused(why));
        }
        for table in &fresh {
            if !self.has_schema(&table.schema)? {
                choice.describe_schema(&items, &table.schema);
            }
        }
        let sequences = self.sequences()?;
        let mut new_sequences = Vec::new();
        for sequence in sequences {
            if !self.exists(&sequence.0)? {
                new_sequences.push(sequence);
            }
        }
        for left_out in &choice.left_out {
            (self.note)(&format!("left out, since it needs what is not restored: {left_out}"));
        }
        let lists = [("needed", &choice.needed), ("chosen", &choice.chosen)].map(|(name, ids)| {
            let file = directory.join(name);
            fs::write(&file, toc::list(&items, ids)).map(|()| format!("--use-list={}", file.display()))
        });
        let [needed, chosen] =
            lists.map(|list| list.map_err(|error| DatabaseError::failed("cannot write a list", error)));
        // What the target has already makes errors, and they are welcome.
        if let Err(DatabaseError::Failed { source, .. }) = self.run(&["--section=pre-data", &needed?]) {
            for line in source
                .to_string()
                .lines()
                .filter(|line| line.contains("ERROR: ") && !line.contains("already exists"))
            {
                (self.note)(line);
            }
        }
        let chosen = chosen?;
        self.run(&["--section=pre-data", "--exit-on-error", &chosen])?;
        self.fill(&fresh)?;
        let mut made = Vec::new();
        for sequence in new_sequences {
            if self.exists(&sequence.0)? {
                made.push(sequence);
            }
        }
        self.set_sequences(&made)?;
        self.run(&["--section=post-data", "--exit-on-error", &chosen])
    }

    fn query(&mut self, sql: &str) -> Result<Vec<Vec<super::wire::Value>>, DatabaseError> {
        let failed = |error| {
            DatabaseError::failed(format!("cannot look into the database {}", self.report.database), error)
        };
        self.connection.query(sql).map_err(failed)
    }

    fn exists(&mut self, name: &str) -> Result<bool, DatabaseError> {
        let rows =
            self.query(&format!("SELECT pg_catalog.to_regclass({})::pg_catalog.oid", literal(name)))?;
        Ok(rows.first().is_some_and(|row| row.first().is_some_and(Option::is_some)))
    }

    fn has_schema(&mut self, name: &str) -> Result<bool, DatabaseError> {
        let ask = format!("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = {}", literal(name));
        Ok(!self.query(&ask)?.is_empty())
    }

    /// Runs `pg_restore` into the target.
    fn run(&self, arguments: &[&str]) -> Result<(), DatabaseError> {
        let mut command = self.tools.command("pg_restore", self.settings, &self.report.database)?;
        let name = self.report.database.replace('\\', "\\\\").replace('\'', "\\'");
        command.arg(format!("--dbname=dbname='{name}'")).args(arguments);
        if self.options.no_owner {
            command.args(["--no-owner", "--no-privileges"]);
        }
        command.arg(&self.archive);
        Running::start(command)?.finish(&self.options.options.stop).map(drop)
    }

    fn listed(&self, argument: &str) -> Result<String, DatabaseError> {
        let mut command = self.tools.command("pg_restore", self.settings, &self.report.database)?;
        command.args(["--list", argument]).arg(&self.archive);
        let said = Running::start(command)?.finish(&self.options.options.stop)?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }

    /// Fills tables side by side, the largest first.
    fn fill(&mut self, tables: &[Table]) -> Result<(), DatabaseError> {
        let mut order: Vec<(&Table, &StoredFile)> = Vec::new();
        for table in tables {
            order.push((table, self.source.file(&table.file)?));
        }
        order.sort_by_key(|(_, file)| std::cmp::Reverse(file.size_bytes));
        let (next, rows, bytes) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let failure: Mutex<Option<DatabaseError>> = Mutex::default();
        let has_failed = || failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let work = || -> Result<(), DatabaseError> {
            let mut connection = None;
            while let Some((table, file)) =
                order.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !has_failed())
            {
                let open = match connection.take() {
                    Some(connection) => connection,
                    None => {
                        session::open(self.settings, &self.report.database, &self.options.options.stop)?.0
                    }
                };
                let (filled, back) = fill_table(self.source.stored, open, table, file, &self.about.encoding)?;
                connection = Some(back);
                rows.fetch_add(filled, Ordering::Relaxed);
                bytes.fetch_add(file.size_bytes, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..self.options.jobs.clamp(1, order.len().max(1)) {
                scope.spawn(|| {
                    if let Err(error) = work() {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let (rows, bytes) = (rows.into_inner(), bytes.into_inner());
        self.report.tables += order.len() as u64;
        self.report.rows += rows;
        self.report.bytes += bytes;
        Ok(())
    }

    /// Quoted name, value and whether it was given out, of each.
    fn sequences(&self) -> Result<Vec<(String, String, String)>, DatabaseError> {
        let text = self.source.text("sequences.copy")?;
        let sequence = |line: &str| match copy_fields(line).as_slice() {
            [Some(schema), Some(name), Some(value), Some(called)]
                if value.parse::<i64>().is_ok() && called.parse::<bool>().is_ok() =>
            {
                Ok((qualified(schema, name), value.clone(), called.clone()))
            }
            _ => Err(DatabaseError::failed("cannot read sequences.copy", format!("{line:?} is no sequence"))),
        };
        text.lines().map(sequence).collect()
    }

    fn set_sequences(&mut self, sequences: &[(String, String, String)]) -> Result<(), DatabaseError> {
        for (name, value, called) in sequences {
            let set = format!("SELECT pg_catalog.setval({}, {value}, {called})", literal(name));
            self.connection
                .execute(&set)
                .map_err(|error| DatabaseError::failed(format!("cannot set the sequence {name}"), error))?;
        }
        Ok(())
    }

    /// The contents of large objects, which exist by now.
    fn large_objects(&mut self) -> Result<(), DatabaseError> {
        let above = self.source.path("large-objects/").into_bytes();
        let files: Vec<_> =
            self.source.files.values().filter(|file| file.path.starts_with(&above)).cloned().collect();
        for file in files {
            let failed = |error: WireError| DatabaseError::failed("cannot restore large objects", error);
            let connection = &mut self.connection;
            connection
                .execute("BEGIN; CREATE TEMPORARY TABLE snap_large_objects (number oid, at bigint, piece bytea) ON COMMIT DROP")
                .map_err(failed)?;
            connection.copy_in("COPY pg_temp.snap_large_objects FROM STDIN").map_err(failed)?;
            let mut sink = Sink { connection, failure: None };
            let read = self.source.stored.read(&file.path, &mut sink);
            sink.settle(read, "large objects")?;
            connection.copy_end().map_err(failed)?;
            connection
                .execute("SELECT count(pg_catalog.lo_put(number, at, piece)) FROM pg_temp.snap_large_objects; COMMIT")
                .map_err(failed)?;
            self.report.bytes += file.size_bytes;
        }
        Ok(())
    }

    /// What belongs to the database as a whole and is in no archive that leaves its name open.
    fn describe_database(&mut self) -> Result<(), DatabaseError> {
        /// Their values are lists of quoted words already.
        const LISTS: [&str; 5] = [
            "local_preload_libraries",
            "search_path",
            "session_preload_libraries",
            "temp_tablespaces",
            "unix_socket_directories",
        ];
        let database = ident(&self.report.database);
        let mut statements: Vec<String> = Vec::new();
        for (name, value) in self.about.settings.iter().filter_map(|setting| setting.split_once('=')) {
            let value = if LISTS.contains(&name) { value.to_owned() } else { literal(value) };
            let name = name.split('.').map(ident).collect::<Vec<_>>().join(".");
            statements.push(format!("ALTER DATABASE {database} SET {name} TO {value}"));
        }
        if let Some(comment) = &self.about.comment {
            statements.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
        }
        if !self.options.no_owner && !self.about.owner.is_empty() {
            statements.push(format!("ALTER DATABASE {database} OWNER TO {}", ident(&self.about.owner)));
        }
        for statement in statements {
            if let Err(error) = self.connection.execute(&statement) {
                (self.note)(&format!("{statement}: {error}"));
            }
        }
        Ok(())
    }
}

/// Takes the bytes of a file into a COPY, and keeps why that failed.
struct Sink<'a> {
    connection: &'a mut Connection,
    failure: Option<WireError>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.connection.copy_write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink<'_> {
    fn settle(self, read: io::Result<()>, what: &str) -> Result<(), DatabaseError> {
        match (self.failure, read) {
            (Some(error), _) => Err(DatabaseError::failed(format!("cannot restore {what}"), error)),
            (None, Err(error)) => Err(unreadable(what, error)),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Fills a table that was just made. The rows must be as many as were backed up.
fn fill_table(
    stored: &dyn StoredFiles,
    mut connection: Connection,
    table: &Table,
    file: &StoredFile,
    encoding: &str,
) -> Result<(u64, Connection), DatabaseError> {
    let name = qualified(&table.schema, &table.name);
    let what = format!("table {name}");
    let failed = |error: WireError| DatabaseError::failed(format!("cannot restore {what}"), error);
    let (columns, encoding) = (columns(&table.columns), literal(encoding));
    // Truncated in the same transaction, rows are frozen at once, and need no log where that is not kept. An extension's table
    // has rows of the extension's own.
    let begin = match table.of_extension {
        true => format!("BEGIN; COPY {name} {columns} FROM STDIN (ENCODING {encoding})"),
        false => format!(
            "BEGIN; TRUNCATE TABLE ONLY {name}; COPY {name} {columns} FROM STDIN (ENCODING {encoding}, FREEZE)"
        ),
    };
    connection.copy_in(&begin).map_err(failed)?;
    let mut sink = Sink { connection: &mut connection, failure: None };
    let read = stored.read(&file.path, &mut sink);
    sink.settle(read, &what)?;
    let rows = connection.copy_end().map_err(failed)?;
    let recorded = file.xattrs.iter().find(|xattr| xattr.name == ROWS.as_bytes());
    let recorded = recorded.map(|xattr| String::from_utf8_lossy(&xattr.value).into_owned());
    if recorded.as_ref().is_some_and(|recorded| *recorded != rows.to_string()) {
        let why = format!("{rows} rows came, {} were backed up", recorded.unwrap_or_default());
        return Err(DatabaseError::failed(format!("cannot restore {what}"), why));
    }
    connection.execute("COMMIT").map_err(failed)?;
    Ok((rows, connection))
}
