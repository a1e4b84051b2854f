//! PostgreSQL 12 and newer, by its own protocol for rows and by its own `pg_dump` for everything else.
//!
//! A [`Dump`] holds one transaction whose snapshot all connections and `pg_dump` share. [`restore`] is the way back.

mod about;
mod archive;
mod catalog;
mod dump;
mod login;
mod restore;
mod roles;
mod session;
mod settings;
mod sql;
mod streams;
mod tls;
mod toc;
mod tools;
mod transport;
mod wire;

pub use dump::Dump;
pub use restore::{RestoreOptions, RestoreReport, restore};
pub use settings::{Host, Settings, TlsMode, is_postgres};
pub use wire::{Connection, ServerError, WireError};
