use snap_backend::{BackendError, ErrorKind};
use snap_crypto::CryptoError;
use snap_format::{BlobId, FormatError, ObjectId, Role};
use thiserror::Error;

/// What kind of damage was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingCode {
    /// An object that must be there is not: the config, a pack that an index names, a snapshot that its successor names.
    Missing,
    /// Bytes that are there are not what was written.
    Corrupt,
    /// An object whose bytes do not have the hash that its name gives, but are a whole object: it was put in another's place.
    Misnamed,
    /// A pack that no index names: an interrupted run's, or its index is lost.
    Unindexed,
    /// A snapshot needs a blob that no index and no pack names.
    Dangling,
    /// Signed by nobody who may, or by somebody who may not sign this; or whole, and not true.
    Forged,
}

impl FindingCode {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
            Self::Misnamed => "misnamed",
            Self::Unindexed => "unindexed",
            Self::Dangling => "dangling",
            Self::Forged => "forged",
        }
    }
}

/// A piece of damage: which object, which blob, what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What kind.
    pub code: FindingCode,
    /// Name of the object in the repository.
    pub object: String,
    /// The blob in it, if one is meant.
    pub blob: Option<BlobId>,
    /// Expected and found, in words.
    pub why: String,
    /// Snapshots that it touches, if known.
    pub snapshots: Vec<ObjectId>,
    /// Paths that it touches, if known: bytes.
    pub paths: Vec<Vec<u8>>,
}

impl Finding {
    /// A finding about an object.
    pub fn new(code: FindingCode, object: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            code,
            object: object.into(),
            blob: None,
            why: why.into(),
            snapshots: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// The same of an object whose bytes have the hash in its name: rot cannot bring that about, so what is wrong was
    /// written like that.
    #[must_use]
    pub fn written_so(mut self) -> Self {
        if self.code == FindingCode::Corrupt {
            self.code = FindingCode::Forged;
            self.why.push_str("; its bytes have the hash in its name, so it was written like that");
        }
        self
    }

    /// Names the blob.
    #[must_use]
    pub fn blob(mut self, blob: BlobId) -> Self {
        self.blob = Some(blob);
        self
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.code.as_str(), self.object, self.why)?;
        if let Some(blob) = self.blob {
            write!(f, " (blob {blob})")?;
        }
        Ok(())
    }
}

/// Why a repository could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RepoError {
    /// The store failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// There is none at that place.
    #[error("there is no repository at {0}")]
    NoRepository(String),
    /// There is one already.
    #[error("there is a repository at {0} already")]
    AlreadyExists(String),
    /// It is another repository.
    #[error("the repository at {location} is no copy of this one: its id is another")]
    NoCopy {
        /// Where it is.
        location: String,
    },
    /// Each of two copies has keys that do not follow from the other's.
    #[error(
        "the keys of the copies at {here} and {there} have parted: on each of them they were changed without the other's \
         changes"
    )]
    CopiesForked {
        /// One of them.
        here: String,
        /// The other.
        there: String,
    },
    /// No slot opens with this secret.
    #[error("no key slot of this repository opens with the given {0}")]
    WrongKey(&'static str),
    /// The slot was removed.
    #[error("the key slot {slot} was removed from this repository (epoch {epoch})")]
    SlotRemoved {
        /// Which slot, hex.
        slot: String,
        /// The first epoch without it.
        epoch: u64,
    },
    /// The slot opens, but may not do this.
    #[error("this key has the role {role}, and {verb} needs the role {needs}")]
    Role {
        /// What was to be done.
        verb: &'static str,
        /// The role at hand.
        role: Role,
        /// The role or roles that would do.
        needs: &'static str,
    },
    /// The repository that answers is not the one that the key belongs to.
    #[error(
        "the repository at {0} is not the one that this key belongs to: its first epoch was signed by a stranger"
    )]
    Counterfeit(String),
    /// Damage in the way of what was asked.
    #[error("{0}")]
    Damaged(Box<Finding>),
    /// A newer version wrote it.
    #[error("{object}: {source}")]
    Newer {
        /// Name of the object.
        object: String,
        /// What was found.
        source: Box<FormatError>,
    },
    /// Cryptography failed otherwise.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A request that makes no sense, such as removing the last owner.
    #[error("{0}")]
    Refused(String),
    /// An owner changed the keys, and what was written under the new ones bears on this run.
    #[error("the keys of the repository were changed during this run; run it again")]
    KeysChanged,
    /// A prune took away what this run relied on.
    #[error(
        "another machine pruned the repository during this run and removed data that it relied on; run it again"
    )]
    Overtaken,
    /// A prune that would not know what snapshots need.
    #[error("nothing was deleted, since it is uncertain what the snapshots need: {0}")]
    Unprunable(Box<Finding>),
}

impl From<Finding> for RepoError {
    fn from(finding: Finding) -> Self {
        Self::Damaged(Box::new(finding))
    }
}

impl RepoError {
    /// Damage of an object, or a newer version, from what its decoder says.
    pub(crate) fn format(object: &str, source: FormatError) -> Self {
        if source.is_newer() {
            return Self::Newer { object: object.to_owned(), source: Box::new(source) };
        }
        Self::from(Finding::new(FindingCode::Corrupt, object, source.to_string()))
    }

    /// Whether a newer version of the program could go on.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }

    /// Corruption of an object.
    pub(crate) fn corrupt(object: &str, why: impl Into<String>) -> Self {
        Self::from(Finding::new(FindingCode::Corrupt, object, why))
    }

    /// As [`RepoError::into_finding`], for one object among many: whoever can write to the store must not hide the others
    /// by claiming that one is of a newer version.
    pub(crate) fn into_finding_among_many(self) -> Result<Finding, Self> {
        match self {
            Self::Newer { object, source } => {
                Ok(Finding::new(FindingCode::Corrupt, object, source.to_string()))
            }
            other => other.into_finding(),
        }
    }

    /// The finding that this error stands for, if it is about damage; a missing object counts.
    pub fn into_finding(self) -> Result<Finding, Self> {
        match self {
            Self::Damaged(finding) => Ok(*finding),
            Self::Backend(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::Truncated | ErrorKind::OutOfRange
                ) =>
            {
                let code = match error.kind() {
                    ErrorKind::NotFound => FindingCode::Missing,
                    _ => FindingCode::Corrupt,
                };
                let name = error.name().unwrap_or("?").to_owned();
                Ok(Finding::new(code, name, error.kind().to_string()))
            }
            other => Err(other),
        }
    }
}
