//! Sessions whose output is the same everywhere, and what differs between versions of the server.

use super::settings::Settings;
use super::wire::{Connection, WireError};
use crate::{DatabaseError, Stop};

/// The oldest server: generated columns are known from there on.
pub(super) const OLDEST: u32 = 12;

/// Said in every session: what a server's or a user's settings must not change.
const SETUP: &str = "\
SELECT pg_catalog.set_config('search_path', '', false);
SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET extra_float_digits = 3;
SET bytea_output = 'hex'; SET standard_conforming_strings = on; SET xmloption = content;
SET synchronize_seqscans = off; SET row_security = off; SET check_function_bodies = off;
SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;";

/// The same for what newer servers know, by the first version that does.
const NEWER_SETUP: [(u32, &str); 2] =
    [(14, "SET idle_session_timeout = 0;"), (17, "SET transaction_timeout = 0;")];

/// The column of `pg_database` that holds the name of a locale that is not libc's.
pub(super) fn locale_column(major: u32) -> &'static str {
    match major {
        ..15 => "NULL",
        15 | 16 => "d.daticulocale",
        _ => "d.datlocale",
    }
}

/// The column that says whose locale it is.
pub(super) fn provider_column(major: u32) -> &'static str {
    if major < 15 { "'c'" } else { "d.datlocprovider" }
}

/// Opens a session, and tells the server's version, such as 150008.
pub(super) fn open(
    settings: &Settings,
    database: &str,
    stop: &Stop,
) -> Result<(Connection, u32), DatabaseError> {
    let mut connection = Connection::open(settings, database, Stop::clone(stop))
        .map_err(|error| refused(settings, database, error))?;
    let set_up = |connection: &mut Connection| -> Result<u32, WireError> {
        let rows = connection.query("SHOW server_version_num")?;
        let version = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        let version: u32 = version.ok_or_else(|| WireError::protocol("its version"))?;
        connection.execute(SETUP)?;
        for (first, setup) in NEWER_SETUP {
            if version / 10_000 >= first {
                connection.execute(setup)?;
            }
        }
        Ok(version)
    };
    let version = set_up(&mut connection).map_err(|error| refused(settings, database, error))?;
    if version / 10_000 < OLDEST {
        let why = format!(
            "{settings} is PostgreSQL {}: {OLDEST} is the oldest that can be backed up",
            version / 10_000
        );
        return Err(DatabaseError::Connect(why));
    }
    Ok((connection, version))
}

fn refused(settings: &Settings, database: &str, error: WireError) -> DatabaseError {
    let what = match &error {
        WireError::Io(error) if error.to_string().contains(&settings.to_string()) => error.to_string(),
        WireError::Login(why) => why.clone(),
        WireError::Io(error) => format!("{settings}: {error}"),
        _ => format!("{settings} does not let {} into the database {database}: {error}", settings.user),
    };
    DatabaseError::Connect(what)
}
