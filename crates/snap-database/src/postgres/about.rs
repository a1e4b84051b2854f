//! `about.json`: what a database is, in an order that changes only when the database does.

use serde::{Deserialize, Serialize};

/// Version of the page.
pub(super) const VERSION: u32 = 1;

/// What a database is, apart from its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// [`VERSION`].
    pub(super) about: u32,
    /// Always `postgresql`.
    pub(super) kind: String,
    /// As the server tells it.
    pub(super) server_version: String,
    /// Such as 150008.
    pub(super) server_version_num: u32,
    /// Its name.
    pub(super) database: String,
    pub(super) owner: String,
    /// Encoding of the streams, too.
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub(super) locale_provider: String,
    pub(super) locale: Option<String>,
    pub(super) comment: Option<String>,
    /// `name=value`, as `ALTER DATABASE … SET` left them.
    pub(super) settings: Vec<String>,
    pub(super) extensions: Vec<Extension>,
    /// Of the server.
    pub(super) roles: Vec<String>,
    /// With rows of their own, by name.
    pub(super) tables: Vec<Table>,
    /// By name.
    pub(super) sequences: u64,
    pub(super) large_objects: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) schema: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    /// Number in the archive of definitions.
    pub(super) oid: u32,
    /// Path of its rows below the database's directory.
    pub(super) file: String,
    /// Columns in the order of the file.
    pub(super) columns: Vec<String>,
    /// It belongs to an extension, which makes it and fills it: these are rows that were added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) of_extension: bool,
}
