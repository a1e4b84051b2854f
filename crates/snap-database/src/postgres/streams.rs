//! The rows of a dump, by COPY over connections that share a snapshot.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use snap_crypto::Hasher;
use snap_format::Xattr;
use snap_source::EntryStream;

use super::session;
use super::settings::Settings;
use super::wire::{Connection, WireError};
use crate::Stop;
use crate::streams::{ROWS, attribute, checksum};

/// How long a wait may keep a signal waiting.
const LOOK: Duration = Duration::from_millis(200);

/// Where a connection goes when its stream has ended.
pub(super) trait Home: Send + Sync {
    fn give(&self, connection: Connection);

    /// Instead, when the stream did not end well.
    fn lose(&self) {}
}

/// Connections that share one snapshot.
#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    database: String,
    snapshot: String,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(super) fn new(settings: &Settings, database: &str, snapshot: &str) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            database: database.to_owned(),
            snapshot: snapshot.to_owned(),
            idle: Mutex::default(),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that sees the snapshot.
    pub(super) fn take(&self, stop: &Stop) -> io::Result<Connection> {
        if let Some(connection) = self.idle().pop() {
            return Ok(connection);
        }
        let (mut connection, _) =
            session::open(&self.settings, &self.database, stop).map_err(io::Error::other)?;
        connection.execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.snapshot
        ))?;
        Ok(connection)
    }
}

impl Home for Pool {
    fn give(&self, connection: Connection) {
        self.idle().push(connection);
    }
}

/// The connection whose transaction holds snapshot and locks, lent to one at a time. Whoever waits for it does not stop the
/// stream that has it: the pipeline goes on with what is open before it opens more.
#[derive(Debug)]
pub(super) struct Holder {
    state: Mutex<Lent>,
    changed: Condvar,
}

#[derive(Debug)]
enum Lent {
    Here(Box<Connection>),
    Away,
    Lost,
}

impl Holder {
    pub(super) fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(Lent::Here(Box::new(connection))), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, Lent> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, stop: &Stop) -> io::Result<Connection> {
        let mut state = self.state();
        loop {
            match std::mem::replace(&mut *state, Lent::Away) {
                Lent::Here(connection) => return Ok(*connection),
                Lent::Away if stop() => return Err(io::Error::other("interrupted")),
                Lent::Away => {
                    let waited =
                        self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
                    state = waited.0;
                }
                Lent::Lost => {
                    *state = Lent::Lost;
                    return Err(io::Error::other("the transaction of the dump is lost"));
                }
            }
        }
    }

    /// Calls something with it.
    pub(super) fn with<T>(
        &self,
        stop: &Stop,
        call: impl FnOnce(&mut Connection) -> Result<T, WireError>,
    ) -> io::Result<T> {
        let mut connection = self.take(stop)?;
        match call(&mut connection) {
            Ok(value) => {
                self.give(connection);
                Ok(value)
            }
            Err(error) => {
                self.lose();
                Err(error.into())
            }
        }
    }

    fn put(&self, state: Lent) {
        *self.state() = state;
        self.changed.notify_all();
    }
}

impl Home for Holder {
    fn give(&self, connection: Connection) {
        self.put(Lent::Here(Box::new(connection)));
    }

    fn lose(&self) {
        self.put(Lent::Lost);
    }
}

/// Rows on their way from a `COPY … TO STDOUT` that was begun.
pub(super) struct CopyStream {
    /// What is read, for messages.
    what: String,
    /// Goes home when all is read; closed if not.
    connection: Option<Connection>,
    home: Arc<dyn Home>,
    left: usize,
    hasher: Hasher,
    rows: Arc<AtomicU64>,
}

impl CopyStream {
    pub(super) fn boxed(
        what: String,
        connection: Connection,
        home: Arc<dyn Home>,
        rows: Arc<AtomicU64>,
    ) -> Box<dyn EntryStream> {
        let (connection, hasher) = (Some(connection), Hasher::default());
        Box::new(Self { what, connection, home, left: 0, hasher, rows })
    }
}

impl Drop for CopyStream {
    fn drop(&mut self) {
        if self.connection.take().is_some() {
            self.home.lose();
        }
    }
}

/// An error that says on what.
pub(super) fn named(what: &str, error: WireError) -> io::Error {
    let kind = match &error {
        WireError::Io(error) => error.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{what}: {error}"))
}

impl Read for CopyStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let connection = self.connection.as_mut().expect("it is not read after its end");
        match connection.copy_read(&mut self.left, out) {
            Ok(read) => {
                self.hasher.update(&out[..read]);
                Ok(read)
            }
            Err(error) => Err(named(&self.what, error)),
        }
    }
}

impl EntryStream for CopyStream {
    fn finish(&mut self) -> io::Result<Vec<Xattr>> {
        let mut connection = self.connection.take().expect("finish is called once");
        let rows = match connection.copied() {
            Ok(rows) => rows,
            Err(error) => {
                self.home.lose();
                return Err(named(&self.what, error));
            }
        };
        self.home.give(connection);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        Ok(vec![checksum(&self.hasher), attribute(ROWS, rows.to_string())])
    }
}
