//! What there is in a database, read in the transaction of the dump.

use super::about::{self, About, Extension};
use super::session::{locale_column, provider_column};
use super::sql::qualified;
use super::wire::{Connection, Value, WireError};
use crate::DatabaseError;
use crate::names::encode;

/// Large objects share a file if their numbers are the same but for so many low bits.
pub(super) const LARGE_OBJECT_BITS: u32 = 16;

/// Tables whose rows are dumped. Temporary ones are somebody's own; those of an extension are made by it, unless it says that
/// users add rows.
const TABLES: &str = "\
SELECT c.oid, n.nspname, c.relname, coalesce(pg_catalog.pg_relation_size(c.oid), 0),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.row_security_active(c.oid),
       c.oid = ANY (e.config) IS TRUE, e.conditions[array_position(e.config, c.oid)]
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend d
       ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
LEFT JOIN (SELECT oid, extconfig AS config, extcondition AS conditions FROM pg_catalog.pg_extension) e ON e.oid = d.refobjid
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (d.objid IS NULL OR c.oid = ANY (e.config))
ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"";

/// The columns that COPY gives and takes: generated ones are computed.
const COLUMNS: &str = "\
SELECT a.attrelid, a.attname
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attrelid, a.attnum";

const SEQUENCES: &str = "\
SELECT n.nspname, c.relname, pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend d
       ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (d.objid IS NULL OR c.oid = ANY (e.extconfig))
ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"";

const EXTENSIONS: &str = "\
SELECT e.extname, e.extversion, n.nspname
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
ORDER BY e.extname COLLATE \"C\"";

const ROLES: &str =
    "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE \"C\"";

const DATABASE_SETTINGS: &str = "\
SELECT pg_catalog.unnest(s.setconfig)
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0";

/// A table whose rows are dumped.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) about: about::Table,
    /// Quoted, with its schema.
    pub(super) name: String,
    pub(super) size_bytes: u64,
    /// `WHERE …`: which rows of an extension's table are not its own.
    pub(super) condition: String,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) about: About,
    pub(super) tables: Vec<Table>,
    /// Schema and name of each.
    pub(super) sequences: Vec<(String, String)>,
    /// Numbers without their low bits.
    pub(super) large_objects: Vec<u32>,
    pub(super) is_superuser: bool,
    pub(super) database_bytes: u64,
}

fn text(row: &[Value], at: usize) -> Result<String, WireError> {
    let value = row.get(at).cloned().flatten();
    value.ok_or_else(|| WireError::protocol(format!("column {at} of a catalog")))
}

fn number<T: std::str::FromStr>(row: &[Value], at: usize) -> Result<T, WireError> {
    text(row, at)?.parse().map_err(|_| WireError::protocol(format!("column {at} of a catalog is no number")))
}

fn is_true(row: &[Value], at: usize) -> bool {
    row.get(at).is_some_and(|value| value.as_deref() == Some("t"))
}

/// Reads it. Fails, naming all of them, if there are tables that this user may not read whole.
pub(super) fn read(connection: &mut Connection, version: u32) -> Result<Catalog, DatabaseError> {
    let failed = |error: WireError| DatabaseError::failed("cannot read the catalogs", error);
    let mut about = database(connection, version).map_err(failed)?;
    let rows = connection.query(TABLES).map_err(failed)?;
    let tables = tables(connection, &rows).map_err(failed)?;
    let sequences = connection.query(SEQUENCES).map_err(failed)?;
    refuse_forbidden(&tables, &rows, &sequences)?;
    about.tables = tables.iter().map(|table| table.about.clone()).collect();
    let rest = |connection: &mut Connection| -> Result<Catalog, WireError> {
        let names = |row: &Vec<Value>| Ok::<_, WireError>((text(row, 0)?, text(row, 1)?));
        let sequences = sequences.iter().map(names).collect::<Result<Vec<_>, _>>()?;
        let buckets = format!(
            "SELECT oid::bigint >> {LARGE_OBJECT_BITS}, count(*) FROM pg_catalog.pg_largeobject_metadata GROUP BY 1 ORDER BY 1"
        );
        let buckets = connection.query(&buckets)?;
        about.sequences = sequences.len() as u64;
        for bucket in &buckets {
            about.large_objects += number::<u64>(bucket, 1)?;
        }
        let large_objects = buckets.iter().map(|row| number(row, 0)).collect::<Result<_, _>>()?;
        let row = connection.query(
            "SELECT r.rolsuper, pg_catalog.pg_database_size(pg_catalog.current_database()) \
             FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
        )?;
        let row = row.first().ok_or_else(|| WireError::protocol("no current user"))?;
        let (is_superuser, database_bytes) = (is_true(row, 0), number(row, 1)?);
        Ok(Catalog { about, tables, sequences, large_objects, is_superuser, database_bytes })
    };
    rest(connection).map_err(failed)
}

fn database(connection: &mut Connection, version: u32) -> Result<About, WireError> {
    let (locale, provider) = (locale_column(version / 10_000), provider_column(version / 10_000));
    let rows = connection.query(&format!(
        "SELECT pg_catalog.current_setting('server_version'), d.datname, r.rolname, \
         pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, {provider}, {locale}, \
         pg_catalog.shobj_description(d.oid, 'pg_database') \
         FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.datdba \
         WHERE d.datname = pg_catalog.current_database()"
    ))?;
    let row = rows.first().ok_or_else(|| WireError::protocol("the database is not in its catalog"))?;
    let optional = |at: usize| row.get(at).cloned().flatten();
    let first =
        |rows: Vec<Vec<Value>>| rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    let extension = |row: &Vec<Value>| {
        Ok::<_, WireError>(Extension { name: text(row, 0)?, version: text(row, 1)?, schema: text(row, 2)? })
    };
    Ok(About {
        about: about::VERSION,
        kind: "postgresql".to_owned(),
        server_version: text(row, 0)?,
        server_version_num: version,
        database: text(row, 1)?,
        owner: optional(2).unwrap_or_default(),
        encoding: text(row, 3)?,
        collate: text(row, 4)?,
        ctype: text(row, 5)?,
        locale_provider: text(row, 6)?,
        locale: optional(7),
        comment: optional(8),
        settings: first(connection.query(DATABASE_SETTINGS)?),
        extensions: connection.query(EXTENSIONS)?.iter().map(extension).collect::<Result<_, _>>()?,
        roles: first(connection.query(ROLES)?),
        ..About::default()
    })
}

fn tables(connection: &mut Connection, rows: &[Vec<Value>]) -> Result<Vec<Table>, WireError> {
    let mut columns = std::collections::HashMap::<u32, Vec<String>>::new();
    for row in connection.query(COLUMNS)? {
        columns.entry(number(&row, 0)?).or_default().push(text(&row, 1)?);
    }
    let table = |row: &Vec<Value>| {
        let (oid, schema, name) = (number(row, 0)?, text(row, 1)?, text(row, 2)?);
        let file = format!("tables/{}/{}.copy", encode(&schema), encode(&name));
        let (quoted, of_extension) = (qualified(&schema, &name), is_true(row, 6));
        let columns = columns.remove(&oid).unwrap_or_default();
        let about = about::Table { schema, name, oid, file, columns, of_extension };
        let condition = row.get(7).cloned().flatten().unwrap_or_default();
        Ok(Table { about, name: quoted, size_bytes: number(row, 3)?, condition })
    };
    rows.iter().map(table).collect()
}

/// A backup that leaves something out must not look whole.
fn refuse_forbidden(
    tables: &[Table],
    rows: &[Vec<Value>],
    sequences: &[Vec<Value>],
) -> Result<(), DatabaseError> {
    let of = |chosen: &dyn Fn(&[Value]) -> bool| -> Vec<String> {
        let both = tables.iter().zip(rows).filter(|(_, row)| chosen(row));
        both.map(|(table, _)| table.name.clone()).collect()
    };
    let mut unreadable = of(&|row| !is_true(row, 4));
    for row in sequences.iter().filter(|row| !is_true(row, 2)) {
        let (schema, name) = (row[0].as_deref().unwrap_or_default(), row[1].as_deref().unwrap_or_default());
        unreadable.push(qualified(schema, name));
    }
    if !unreadable.is_empty() {
        let why = "the role lacks SELECT on them; GRANT it, or the role pg_read_all_data";
        return Err(DatabaseError::failed(format!("permission denied for {}", some(&unreadable)), why));
    }
    let hidden = of(&|row| is_true(row, 5));
    if !hidden.is_empty() {
        let why = "row-level security applies to the role; it needs BYPASSRLS, or must be a superuser";
        return Err(DatabaseError::failed(format!("rows would be left out of {}", some(&hidden)), why));
    }
    Ok(())
}

/// Names, not more than a message can bear.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
