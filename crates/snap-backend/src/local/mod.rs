//! A directory, with the durability that a repository needs.
//!
//! An object is written to `tmp/`, synced, moved to its name without ever replacing another, and its
//! directory is synced; only then has the put happened. A directory that was met for the first time is
//! synced into its parent as well, whoever made it: another process may have died between the two.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;

use crate::backend::check_range;
use crate::name::{check_prefix, is_valid};
use crate::{Backend, BackendError, ErrorKind, ObjectMeta, ObjectName, Operation, PutOutcome};

#[cfg(test)]
mod journal;
mod unix;

use unix::{Dir, Entry, EntryType, Placed, Stat};

/// The directory of unfinished files, below the root; no object name begins with it.
const TEMPORARIES: &str = "tmp";

/// How old an unfinished file must be before nobody can be writing it.
const STALE_SECONDS: i64 = 24 * 60 * 60;

/// A directory of objects, each a file of its name.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    create: bool,
    /// Directories whose own entry this process has synced, `""` being the root.
    synced: Mutex<HashSet<String>>,
}

impl LocalBackend {
    /// The directory `root`. It need not exist; with `create` the first put makes it.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, create: bool) -> Self {
        Self { root: root.into(), create, synced: Mutex::default() }
    }

    fn error(&self, operation: Operation, errno: Errno) -> BackendError {
        BackendError::new(classify(errno), operation)
            .with_location(self.location())
            .with_source(std::io::Error::from(errno))
    }

    fn named(&self, operation: Operation, name: &ObjectName, errno: Errno) -> BackendError {
        self.error(operation, errno).with_name(name.as_str())
    }

    fn open_object(
        &self,
        operation: Operation,
        name: &ObjectName,
    ) -> Result<(unix::File, u64), BackendError> {
        let opened = Dir::open(&self.root).and_then(|root| {
            let (parents, leaf) = split(name.as_str());
            root.descend(parents)?.open_file(leaf)
        });
        let (file, stat) = opened.map_err(|errno| self.named(operation, name, errno))?;
        Ok((file, stat.size_bytes))
    }

    /// Reads exactly `len` bytes, or says how many there were.
    fn read(
        &self,
        operation: Operation,
        name: &ObjectName,
        file: &unix::File,
        (offset, len): (u64, u64),
    ) -> Result<Bytes, BackendError> {
        let want = usize::try_from(len).map_err(|_| self.named(operation, name, Errno::NOMEM))?;
        let mut body = Vec::new();
        body.try_reserve_exact(want).map_err(|_| self.named(operation, name, Errno::NOMEM))?;
        file.read_exact_at(&mut body, offset, want).map_err(|errno| self.named(operation, name, errno))?;
        if body.len() != want {
            return Err(self.short(operation, name, len, body.len() as u64));
        }
        Ok(body.into())
    }

    fn short(&self, operation: Operation, name: &ObjectName, expected: u64, found: u64) -> BackendError {
        BackendError::truncated(operation, name, expected, found).with_location(self.location())
    }

    /// The root, made if it may be.
    fn writable_root(&self) -> Result<Dir, Errno> {
        match Dir::open(&self.root) {
            Err(Errno::NOENT) if self.create => {
                unix::create_directories(&self.root)?;
                Dir::open(&self.root)
            }
            other => other,
        }
    }

    /// Opens `parents` below `root`, making what is missing and syncing each new name into its parent.
    fn writable_dir(&self, root: &Dir, parents: &str) -> Result<Dir, Errno> {
        let mut dir = root.duplicate()?;
        let mut path = String::with_capacity(parents.len());
        for segment in segments(parents) {
            let created = dir.make_dir(segment)?;
            path.push_str(segment);
            if created || !self.is_synced(&path) {
                dir.sync()?;
                self.note_synced(&path);
            }
            dir = dir.open_dir(segment)?;
            path.push('/');
        }
        Ok(dir)
    }

    fn is_synced(&self, path: &str) -> bool {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn note_synced(&self, path: &str) {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    }

    fn store(&self, name: &ObjectName, body: &[u8]) -> Result<PutOutcome, Errno> {
        let root = self.writable_root()?;
        let (parents, leaf) = split(name.as_str());
        let target = self.writable_dir(&root, parents)?;
        if target.stat(leaf).is_ok() {
            // Another process may have placed it and not have synced the directory yet.
            target.sync()?;
            return Ok(PutOutcome::Existed);
        }
        root.make_dir(TEMPORARIES)?;
        let temporaries = root.open_dir(TEMPORARIES)?;
        let temporary = temporaries.create_temporary()?;
        let placed = temporary.write(body).and_then(|()| temporary.place(&target, leaf))?;
        target.sync()?;
        Ok(match placed {
            Placed::Created => PutOutcome::Created,
            Placed::Existed => PutOutcome::Existed,
        })
    }

    fn walk(
        &self,
        dir: &Dir,
        path: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let fail = |errno| self.error(Operation::List, errno).with_name(path);
        for entry in dir.entries().map_err(fail)? {
            let Entry { name, kind } = entry.map_err(fail)?;
            let Some(full) = name.to_str().map(|leaf| format!("{path}{leaf}")).filter(|full| is_valid(full))
            else {
                continue;
            };
            match self.look(dir, &name, kind).map_err(fail)? {
                Some(Looked::Dir(below)) => self.walk(&below, &format!("{full}/"), each)?,
                Some(Looked::Object(stat)) => {
                    let name = ObjectName::new(full).expect("checked above");
                    each(meta(name, stat))?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What an entry of a listing is; nothing, if it went away meanwhile or is neither file nor directory.
    fn look(&self, dir: &Dir, name: &std::ffi::OsStr, kind: EntryType) -> Result<Option<Looked>, Errno> {
        let looked = match kind {
            EntryType::Other => return Ok(None),
            EntryType::Directory => dir.open_dir(name).map(|below| Some(Looked::Dir(below))),
            EntryType::File => dir.stat(name).map(|stat| stat.is_file.then_some(Looked::Object(stat))),
            EntryType::Unknown => match dir.stat(name) {
                Ok(stat) if stat.is_file => Ok(Some(Looked::Object(stat))),
                Ok(stat) if stat.is_dir => return self.look(dir, name, EntryType::Directory),
                Ok(_) => Ok(None),
                Err(errno) => Err(errno),
            },
        };
        match looked {
            Err(Errno::NOENT) => Ok(None),
            other => other,
        }
    }

    fn sweep(&self) -> Result<u64, Errno> {
        let temporaries = match Dir::open(&self.root).and_then(|root| root.open_dir(TEMPORARIES)) {
            Err(Errno::NOENT) => return Ok(0),
            other => other?,
        };
        // A file written now tells what time the store thinks it is.
        let now = temporaries.create_temporary()?.modified()?.unix_seconds;
        let mut removed = 0;
        for entry in temporaries.entries()? {
            let Entry { name, .. } = entry?;
            let Ok(stat) = temporaries.stat(&name) else { continue };
            if stat.is_file && now.saturating_sub(stat.modified.unix_seconds) > STALE_SECONDS {
                removed += u64::from(temporaries.remove(&name)?);
            }
        }
        Ok(removed)
    }
}

enum Looked {
    Dir(Dir),
    Object(Stat),
}

impl Backend for LocalBackend {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let (file, size) = self.open_object(Operation::Get, name)?;
        self.read(Operation::Get, name, &file, (0, size))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let (file, size) = self.open_object(Operation::GetRange, name)?;
        check_range(name, size, offset, len).map_err(|error| error.with_location(self.location()))?;
        self.read(Operation::GetRange, name, &file, (offset, len))
    }

    fn get_into(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let operation = Operation::GetRange;
        let (file, size) = self.open_object(operation, name)?;
        let want = buffer.len() as u64;
        check_range(name, size, offset, want).map_err(|error| error.with_location(self.location()))?;
        let found =
            file.read_into(buffer, offset).map_err(|errno| self.named(operation, name, errno))? as u64;
        if found == want { Ok(()) } else { Err(self.short(operation, name, want, found)) }
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.store(name, &body).map_err(|errno| self.named(Operation::Put, name, errno))
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let (parents, leaf) = split(name.as_str());
        let found = Dir::open(&self.root).and_then(|root| root.descend(parents)?.stat(leaf));
        match found {
            Ok(stat) if stat.is_file => Ok(meta(name.clone(), stat)),
            Ok(stat) if stat.is_dir => Err(self.named(Operation::Stat, name, Errno::NOENT)),
            Ok(_) => Err(self.named(Operation::Stat, name, Errno::LOOP)),
            Err(errno) => Err(self.named(Operation::Stat, name, errno)),
        }
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        check_prefix(prefix)?;
        let root = Dir::open(&self.root).map_err(|errno| self.error(Operation::List, errno))?;
        match root.descend(prefix.trim_end_matches('/')) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(self.error(Operation::List, errno).with_name(prefix)),
            Ok(dir) => self.walk(&dir, prefix, each),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        let (parents, leaf) = split(name.as_str());
        let deleted = Dir::open(&self.root).and_then(|root| {
            let dir = root.descend(parents)?;
            // Deletion has an order too: what was deleted first must not come back after a crash.
            if dir.remove(leaf)? { dir.sync() } else { Ok(()) }
        });
        match deleted {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(|errno| self.named(Operation::Delete, name, errno)),
        }
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn local_root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn sweep_stale_temporaries(&self) -> Result<u64, BackendError> {
        self.sweep().map_err(|errno| self.error(Operation::Sweep, errno))
    }
}

fn meta(name: ObjectName, stat: Stat) -> ObjectMeta {
    ObjectMeta { name, size_bytes: stat.size_bytes, modified: Some(stat.modified) }
}

/// A name as its directories and its last segment.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn classify(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::ISDIR => ErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM => ErrorKind::Permission,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        Errno::ROFS => ErrorKind::ReadOnly,
        Errno::TIMEDOUT => ErrorKind::Timeout,
        // What a network file system says when its server went away or was replaced.
        Errno::STALE | Errno::HOSTDOWN | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNRESET => {
            ErrorKind::Network
        }
        Errno::OPNOTSUPP | Errno::NOSYS => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests;
