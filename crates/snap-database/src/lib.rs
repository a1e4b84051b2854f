//! Databases as sources, and as targets of a restore.
//!
//! - [`postgres::Dump`] is a [`snap_source::StreamSource`]: a stream for each table, all of one moment.
//! - [`postgres::restore`] brings a database, a schema or a table back from [`snap_source::StoredFiles`].
//! - [`sqlite::Database`] is a checked copy of a file in use, [`sqlite::restore`] the way back.
//!
//! A database is a directory in a snapshot, so that `ls`, `cat`, `diff` and a restore into a directory work on it as on files:
//!
//! ```text
//! /shop/about.json                    what it is: server, encoding, extensions, roles, each table's file and columns
//! /shop/globals.sql                   roles and tablespaces of the server
//! /shop/schema.dump, schema.sql       everything but rows, as pg_restore takes it and for people
//! /shop/sequences.copy                where each sequence stands
//! /shop/tables/public/orders.copy     rows, as COPY writes them; attributes hold row count and checksum
//! /shop/large-objects/0000001.copy    large objects, 65,536 numbers a file
//! ```
//!
//! Not here: chunks, trees and snapshots (`snap-engine`); environment and terminal (`snap-cli`), which hands in what it knows.

mod names;
pub mod postgres;
pub mod sqlite;
mod streams;
mod uri;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

pub use streams::{CHECKSUM, ROWS};

/// Asked now and then whether to give up.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// What every verb needs of its caller.
#[derive(Clone)]
pub struct Options {
    /// A directory for files that last as long as the run: definitions of PostgreSQL, a copy of SQLite.
    pub temporary: PathBuf,
    /// Asked now and then whether to give up.
    pub stop: Stop,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({})", self.temporary.display())
    }
}

impl Options {
    /// A directory of one's own, gone when it is dropped.
    fn directory(&self) -> Result<tempfile::TempDir, DatabaseError> {
        let made = tempfile::Builder::new().prefix("snap-").tempdir_in(&self.temporary);
        made.map_err(|error| {
            DatabaseError::failed(format!("cannot write to {}", self.temporary.display()), error)
        })
    }
}

/// Why a database could not be opened, read or filled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// A URI that makes no sense.
    #[error("{0}")]
    Uri(String),
    /// The server cannot be reached, or lets nobody in.
    #[error("{0}")]
    Connect(String),
    /// Something in the database, or a permission.
    #[error("{what}")]
    Failed {
        /// What failed, and on which object.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program of the server that is needed, is missing, or is too old.
    #[error("{0}")]
    Tool(String),
    /// The target is not fit for it; nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// Stopped from outside.
    #[error("interrupted")]
    Interrupted,
}

impl DatabaseError {
    pub(crate) fn failed(
        what: impl Into<String>,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { what: what.into(), source: why.into() }
    }
}
