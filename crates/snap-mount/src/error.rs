use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuser::Errno;
use snap_repo::{Finding, RepoError};
use thiserror::Error;

/// Why there is no mount.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The repository refuses or fails.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The directory is not one to mount on.
    #[error("cannot mount on {}: {why}", dir.display())]
    Point {
        /// Which.
        dir: PathBuf,
        /// What is wrong with it.
        why: PointProblem,
    },
    /// The machine has no FUSE.
    #[error("there is no FUSE here: /dev/fuse cannot be opened")]
    NoFuse(#[source] io::Error),
    /// The system refuses.
    #[error("cannot mount on {}", dir.display())]
    Refused {
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection to the kernel broke.
    #[error("the mount on {} broke off", dir.display())]
    Broken {
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a mount point.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PointProblem {
    /// There is none.
    #[error("there is no such directory")]
    Missing,
    /// A file, or something else.
    #[error("it is not a directory")]
    NotADirectory,
    /// What is in it would be hidden.
    #[error("it is not empty")]
    NotEmpty,
    /// Something else is mounted there.
    #[error("something is mounted on it already")]
    Mounted,
    /// What was mounted there has died.
    #[error("it is what a mount whose program died has left")]
    Stale,
    /// It cannot be read.
    #[error("it cannot be looked into: {0}")]
    Unreadable(io::Error),
}

/// Hears of everything that goes wrong while it is mounted. Called from many threads.
pub trait MountObserver: Send + Sync {
    /// Damage that was met; each piece is told once.
    fn finding(&self, finding: &Finding);
    /// Something else, in words.
    fn warning(&self, text: &str);
}

/// Why a request cannot be answered, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It would have to be fetched.
    NotCached,
    /// The program gets this.
    Errno(Errno),
}

impl Fault {
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::NotCached => Errno::EIO,
            Self::Errno(errno) => errno,
        }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// One word for what requests give.
pub(crate) type Answer<T> = Result<T, Fault>;

/// How long the same trouble is not told again.
const SILENCE: Duration = Duration::from_secs(60);
/// How many different things are remembered to have been told.
const MOST_TOLD: usize = 10_000;

/// Tells each piece of damage once, and other trouble once in a while.
pub(crate) struct Reports {
    observer: Arc<dyn MountObserver>,
    told: Mutex<HashMap<String, Option<Instant>>>,
}

impl Reports {
    pub(crate) fn new(observer: Arc<dyn MountObserver>) -> Self {
        Self { observer, told: Mutex::default() }
    }

    /// Tells what happened; programs get EIO.
    pub(crate) fn error(&self, error: RepoError) -> Fault {
        match error.into_finding() {
            Ok(finding) => self.finding(&finding),
            Err(error) => self.warning(&chain(&error)),
        }
        Errno::EIO.into()
    }

    pub(crate) fn finding(&self, finding: &Finding) {
        if self.is_news(finding.to_string(), None) {
            self.observer.finding(finding);
        }
    }

    pub(crate) fn warning(&self, text: &str) {
        if self.is_news(text.to_owned(), Some(Instant::now())) {
            self.observer.warning(text);
        }
    }

    fn is_news(&self, text: String, now: Option<Instant>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = match (told.get(&text), now) {
            (Some(Some(then)), Some(now)) => now.duration_since(*then) < SILENCE,
            (known, _) => known.is_some(),
        };
        if !is_known && told.len() < MOST_TOLD {
            told.insert(text, now);
        }
        !is_known
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}
