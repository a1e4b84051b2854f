//! A directory on another machine, over SFTP.
//!
//! One `ssh` process carries the requests of all threads; after a failure the next request starts another.
//! An object is written to `tmp/`, synced (`fsync@openssh.com`), and linked to its name
//! (`hardlink@openssh.com`), which never replaces another. What SFTP cannot do is sync a directory: a power
//! failure of the server may take the last names with it. On a server without these extensions (they are
//! OpenSSH's) the data is as durable as the server makes it, and a name is looked at before it is renamed to.

mod connection;
mod files;

use std::collections::HashSet;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openssh_sftp_client::Error;
use openssh_sftp_client::error::SftpErrorKind;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::runtime::{self, patience};
use crate::name::check_prefix;
use crate::{Backend, BackendError, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome};
use connection::Connection;
pub(crate) use connection::Target;
use files::Files;

/// How many requests an ordinary server answers at once without trouble, all over one connection.
const PARALLELISM: usize = 8;

/// What the patience for a whole object is measured by, since its length is not known beforehand.
const ASSUMED_BYTES: u64 = 32 << 20;

/// See the module.
pub(super) struct SftpBackend {
    target: Target,
    root: String,
    location: String,
    create: bool,
    timeout: Duration,
    handle: Handle,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// Directories that are known to be there.
    made: Mutex<HashSet<String>>,
}

/// Why an operation failed, before it is known where.
enum Failure {
    Sftp(Error),
    Kind(ErrorKind, String),
    /// The object is shorter than the range that was asked for.
    Short {
        size: u64,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sftp(error)
    }
}

type Outcome<T> = Result<T, Failure>;

impl Failure {
    fn not_found(why: &str) -> Self {
        Self::Kind(ErrorKind::NotFound, why.to_owned())
    }

    fn is(&self, kind: SftpErrorKind) -> bool {
        matches!(self, Self::Sftp(Error::SftpError(found, _)) if discriminant(found) == discriminant(&kind))
    }

    /// Whether the connection is of no more use.
    fn is_broken(&self) -> bool {
        matches!(self, Self::Sftp(error) if !matches!(error, Error::SftpError(..) | Error::UnsupportedExtension(_)))
    }
}

fn kind_of(error: &Error) -> ErrorKind {
    match error {
        Error::SftpError(SftpErrorKind::NoSuchFile, _) => ErrorKind::NotFound,
        Error::SftpError(SftpErrorKind::PermDenied, _) => ErrorKind::Permission,
        Error::SftpError(SftpErrorKind::OpUnsupported, _)
        | Error::UnsupportedExtension(_)
        | Error::UnsupportedSftpProtocol { .. } => ErrorKind::Unsupported,
        // The server's word for everything else, a full disk included.
        Error::SftpError(..) => ErrorKind::Other,
        _ => ErrorKind::Network,
    }
}

impl SftpBackend {
    pub fn new(
        target: Target,
        root: &str,
        location: String,
        create: bool,
        timeout: Duration,
    ) -> Result<Self, BackendError> {
        let handle = runtime::handle()
            .map_err(|error| BackendError::new(ErrorKind::Other, Operation::Open).with_source(error))?;
        let (root, connection, made) = (root.to_owned(), tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { target, root, location, create, timeout, handle, connection, made })
    }

    async fn connect(&self) -> Outcome<Arc<Connection>> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let connection = self.target.connect().await.map_err(|(kind, why)| Failure::Kind(kind, why))?;
        Ok(held.insert(Arc::new(connection)).clone())
    }

    /// Forgets a connection that failed, unless another thread has replaced it already.
    async fn disconnect(&self, broken: &Arc<Connection>) {
        let mut held = self.connection.lock().await;
        if held.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, broken)) {
            *held = None;
        }
    }

    /// Runs one operation, which carries a body of `bytes`.
    fn run<T>(
        &self,
        (operation, name): (Operation, &str),
        bytes: u64,
        work: impl AsyncFnOnce(&Files<'_>) -> Outcome<T>,
    ) -> Result<T, BackendError> {
        let limit = patience(self.timeout, bytes);
        let late = || Failure::Kind(ErrorKind::Timeout, format!("no answer within {limit:?}"));
        let result = self.handle.block_on(async {
            let connection = timeout(limit, self.connect()).await.map_err(|_| (late(), String::new()))?;
            let connection = connection.map_err(|failure| (failure, String::new()))?;
            let files = Files { backend: self, sftp: &connection.sftp };
            let done = timeout(limit, work(&files)).await;
            // A connection that let us wait is as bad as one that broke.
            if done.as_ref().is_err() || matches!(&done, Ok(Err(failure)) if failure.is_broken()) {
                self.disconnect(&connection).await;
            }
            done.unwrap_or_else(|_| Err(late())).map_err(|failure| (failure, connection.complaints()))
        });
        result.map_err(|(failure, complaints)| self.error(operation, name, failure, &complaints))
    }

    fn error(&self, operation: Operation, name: &str, failure: Failure, complaints: &str) -> BackendError {
        let broken = failure.is_broken();
        let (kind, mut why) = match failure {
            Failure::Sftp(error) => (kind_of(&error), error.to_string()),
            Failure::Kind(kind, why) => (kind, why),
            Failure::Short { size } => (ErrorKind::OutOfRange, format!("the object has {size} bytes")),
        };
        if broken && !complaints.is_empty() {
            why = format!("{why} ({complaints})");
        }
        BackendError::new(kind, operation).with_name(name).with_location(&self.location).with_source(why)
    }

    fn knows(&self, dir: &str) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(dir)
    }

    fn learn(&self, dir: &str) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
    }

    fn forget_directories(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The objects directly below `dir`, and the directories.
    fn read_dir(
        &self,
        dir: &str,
        missing_is_empty: bool,
    ) -> Result<(Vec<ObjectMeta>, Vec<String>), BackendError> {
        let listed = self.run((Operation::List, dir), 0, async |files| files.list(dir).await);
        match listed {
            Err(error) if error.is_not_found() && missing_is_empty => Ok(Default::default()),
            other => other,
        }
    }
}

impl Backend for SftpBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let work = async |files: &Files<'_>| files.get(name.as_str(), None).await;
        self.run((Operation::Get, name.as_str()), ASSUMED_BYTES, work)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let work = async |files: &Files<'_>| files.get(name.as_str(), Some((offset, len))).await;
        // A range that cannot be will not be waited for either.
        self.run((Operation::GetRange, name.as_str()), len.min(1 << 40), work)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        let work = async |files: &Files<'_>| files.put(name.as_str(), &body).await;
        self.run((Operation::Put, name.as_str()), body.len() as u64, work)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let work = async |files: &Files<'_>| files.stat(name).await;
        self.run((Operation::Stat, name.as_str()), 0, work)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        check_prefix(prefix)?;
        if !prefix.is_empty() {
            self.run((Operation::List, ""), 0, async |files| files.root_is_there().await)?;
        }
        let mut waiting = vec![prefix.to_owned()];
        while let Some(dir) = waiting.pop() {
            let (objects, below) = self.read_dir(&dir, !dir.is_empty())?;
            waiting.extend(below);
            // The callback runs outside the runtime, so that it may call this backend.
            objects.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.run((Operation::Delete, name.as_str()), 0, async |files| files.delete(name.as_str()).await)
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    fn parallelism(&self) -> usize {
        PARALLELISM
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.run((Operation::Sweep, ""), 0, async |files| files.sweep().await)
    }
}

impl std::fmt::Debug for SftpBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SftpBackend").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Drop for SftpBackend {
    fn drop(&mut self) {
        // The session's tasks and the process belong to the runtime.
        let _runtime = self.handle.enter();
        *self.connection.get_mut() = None;
    }
}
