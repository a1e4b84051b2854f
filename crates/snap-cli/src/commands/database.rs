//! Databases: as the source of a backup, and as the target of a restore.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::json;
use snap_database::postgres::{self, Dump, RestoreOptions, Settings};
use snap_database::sqlite::{self, Database};
use snap_database::{DatabaseError, Options};
use snap_engine::{BackupSource, SnapshotFiles};

use super::ls::{browse, tell_rescued};
use super::{Done, Outcome};
use crate::app::App;
use crate::args::{RestoreArgs, values};
use crate::exit::{Exit, Failure};
use crate::render::{json, text};
use crate::{repo, select, system};

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let (exit, hint) = match &error {
            DatabaseError::Uri(_) => (
                Exit::Usage,
                Some("a database is named as postgres://user@host:port/database or sqlite:///path/of/file"),
            ),
            DatabaseError::Connect(_) => (
                Exit::Failed,
                Some("does psql reach it with the same URI? The password comes from PGPASSWORD or ~/.pgpass"),
            ),
            DatabaseError::Refused(_) => (
                Exit::Failed,
                Some("nothing was touched; restore into a new database: name one that is not there"),
            ),
            DatabaseError::Interrupted => (Exit::Interrupted, None),
            _ => (Exit::Failed, None),
        };
        let mut failure = Self::new(exit, error.to_string());
        if let DatabaseError::Failed { source, .. } = &error {
            failure = failure.cause(source.to_string());
        }
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Whether a source or target is a database that can be backed up and restored.
pub fn is_database(uri: &str) -> bool {
    postgres::is_postgres(uri) || sqlite::is_sqlite(uri)
}

/// The URIs that are.
pub const KINDS: &str = "postgres://user@host:port/database and sqlite:///path/of/file";

fn settings(app: &App, uri: &str) -> Result<Settings, Failure> {
    Ok(Settings::parse(uri, &|name| app.env.text(name))?)
}

fn options(app: &App) -> Options {
    let signals = app.signals.clone();
    let stop = Arc::new(move || signals.stop().load(Ordering::Relaxed));
    Options { temporary: std::env::temp_dir(), stop }
}

/// The name of a dataset for a database.
pub fn dataset(app: &App, uri: &str) -> Option<String> {
    if sqlite::is_sqlite(uri) {
        let path = sqlite::path(uri).ok()?;
        return Some(values::dataset_of_stream(&path.file_stem()?.to_string_lossy()));
    }
    let settings = Settings::parse(uri, &|name| app.env.text(name)).ok()?;
    Some(values::dataset_of_stream(&settings.database.unwrap_or(settings.user)))
}

/// A database as a source, its transaction begun.
pub fn source(app: &App, uri: &str) -> Result<BackupSource, Failure> {
    let (options, _graceful) = (options(app), app.signals.graceful());
    if sqlite::is_sqlite(uri) {
        return Ok(BackupSource::Streams(Arc::new(Database::make(&sqlite::path(uri)?, &options)?)));
    }
    let dump = Dump::begin(&settings(app, uri)?, &options)?;
    for note in dump.notes() {
        app.out.note(note);
    }
    Ok(BackupSource::Streams(Arc::new(dump)))
}

/// `restore --target URI`.
pub fn restore(app: &App, args: &RestoreArgs, uri: &str) -> Outcome {
    validate(args)?;
    let began = Instant::now();
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("restore")?;
    let chosen = select::choose(app, &opened, &args.filter, &args.snapshot.snapshot)?;
    if !chosen.groups.is_empty() {
        select::tell(app, &chosen);
    }
    let browser = browse(app, &opened, &chosen.snapshot)?;
    let path = args.snapshot.path.as_deref().unwrap_or(b"/");
    let (stored, _graceful) = (SnapshotFiles::new(&browser), app.signals.graceful());
    if sqlite::is_sqlite(uri) {
        let target = sqlite::path(uri)?;
        let restored = sqlite::restore(&stored, path, &target);
        tell_rescued(app, &opened, browser.reader());
        let bytes = restored?;
        app.out.done(&format!("snapshot {} to {}", select::describe(&chosen.snapshot), target.display()));
        app.out.done(&format!("restored {}; {}", text::bytes(bytes), text::duration(began.elapsed())));
        return Ok(Done::with(json::object(json!({
            "snapshot": chosen.snapshot.id.to_hex(),
            "restored": 1,
            "restored_bytes": bytes,
            "seconds": began.elapsed().as_secs_f64(),
        }))));
    }
    let options = RestoreOptions { no_owner: args.no_owner, jobs: system::threads(), options: options(app) };
    let settings = settings(app, uri)?;
    let note = |text: &str| app.out.note(text);
    let restored = postgres::restore(&stored, path, &settings, &options, &note);
    tell_rescued(app, &opened, browser.reader());
    let report = restored?;
    app.out.done(&format!(
        "snapshot {} to {}, database {}",
        select::describe(&chosen.snapshot),
        settings,
        report.database
    ));
    app.out.done(&format!(
        "restored {} with {}, {}; {}",
        text::counted(report.tables, "table", "tables"),
        text::counted(report.rows, "row", "rows"),
        text::bytes(report.bytes),
        text::duration(began.elapsed())
    ));
    Ok(Done::with(json::object(json!({
        "snapshot": chosen.snapshot.id.to_hex(),
        "database": report.database,
        "created": report.created,
        "tables": report.tables,
        "rows": report.rows,
        "restored": report.tables,
        "restored_bytes": report.bytes,
        "seconds": began.elapsed().as_secs_f64(),
    }))))
}

fn validate(args: &RestoreArgs) -> Result<(), Failure> {
    let is_plain = args.include.is_empty()
        && args.exclude.is_empty()
        && args.overwrite.is_none()
        && args.safety_dir.is_none()
        && !(args.missing_only || args.no_overwrite_newer || args.delete || args.verify || args.dry_run)
        && args.map_owner.is_empty()
        && args.map_group.is_empty()
        && !args.owners_by_name;
    if is_plain {
        return Ok(());
    }
    Err(Failure::usage("a restore into a database takes no patterns, --overwrite, --delete, --safety-dir, --verify, --dry-run or owners")
        .hint("it goes into an empty database, or adds tables that are not there; a part is named behind the snapshot: \
               latest:/shop/tables/public"))
}
