use std::io;

use snap_repo::RepoError;
use thiserror::Error;

/// Why a verb failed. Paths are rendered with what is not UTF-8 replaced.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The file system at `path`.
    #[error("{what} {path}")]
    Io {
        /// What was being done, such as "reading".
        what: &'static str,
        /// Where.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// None of the sources is there.
    #[error("none of the given paths can be read: {0}")]
    NoSource(String),
    /// A pattern that is none.
    #[error("{0}")]
    Pattern(String),
    /// The command whose output was to be backed up failed.
    #[error("the command failed: {0}; no snapshot was made")]
    Command(String),
    /// An entry of a database, or the database itself.
    #[error("cannot back up {what}; no snapshot was made")]
    Stream {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// No snapshot answers to the name.
    #[error("{0}")]
    NoSnapshot(String),
    /// A prefix that several snapshots share.
    #[error("{name} names several snapshots: {matches}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Short ids.
        matches: String,
    },
    /// What remains after the filters spans several datasets or hosts, and one is needed.
    #[error("{name} could mean snapshots of several datasets or hosts: {groups}")]
    SeveralGroups {
        /// What was asked for.
        name: String,
        /// `dataset@host` of each.
        groups: String,
    },
    /// The path is not in the snapshot.
    #[error("{path} is not in the snapshot {snapshot}")]
    NoPath {
        /// What was asked for.
        path: String,
        /// Short id.
        snapshot: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Entries that were modified after the snapshot would be lost; nothing was touched.
    #[error("{}", newer(*overwritten, *deleted, *of))]
    Newer {
        /// So many would be overwritten.
        overwritten: u64,
        /// So many would be deleted.
        deleted: u64,
        /// Of so many entries that would be overwritten or deleted in all.
        of: u64,
        /// A few of their paths, below the target.
        examples: Vec<String>,
    },
    /// What would be overwritten or deleted cannot be saved first; nothing was touched.
    #[error("what would be overwritten or deleted cannot be saved first, so nothing was touched")]
    NotSaved {
        /// Why.
        source: Box<EngineError>,
    },
    /// A target or plan that would do harm; nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// A policy that would drop a whole group, `dataset@host`; nothing was touched.
    #[error("the policy would keep nothing of {0}")]
    KeepsNothing(String),
    /// A pinned snapshot is not forgotten; nothing was touched.
    #[error("{0}")]
    Pinned(String),
    /// Stopped from outside.
    #[error("interrupted")]
    Interrupted,
}

impl EngineError {
    pub(crate) fn io(what: &'static str, path: &[u8], source: io::Error) -> Self {
        Self::Io { what, path: String::from_utf8_lossy(path).into_owned(), source }
    }
}

fn newer(overwritten: u64, deleted: u64, of: u64) -> String {
    let verbs = match (overwritten, deleted) {
        (_, 0) => "overwritten",
        (0, _) => "deleted",
        _ => "overwritten or deleted",
    };
    let newer = overwritten + deleted;
    format!(
        "{newer} of {of} entries that would be {verbs} were modified after the snapshot; nothing was touched"
    )
}
