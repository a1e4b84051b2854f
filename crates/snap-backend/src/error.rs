//! What can go wrong, where, and whether trying again can help.

use std::error::Error;
use std::fmt;

use crate::ObjectName;

type Source = Box<dyn Error + Send + Sync + 'static>;

/// What went wrong, as far as the caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object of that name, or no repository root at all.
    NotFound,
    /// The store knows the caller and refuses.
    Permission,
    /// No space, or a quota is used up.
    NoSpace,
    /// The store takes no writes.
    ReadOnly,
    /// Fewer (or more) bytes came than were announced: the transfer broke.
    Truncated,
    /// The object is shorter than the range that was asked for.
    OutOfRange,
    /// The store asks for fewer requests.
    Throttled,
    /// No answer in time.
    Timeout,
    /// The connection failed, or the store failed in a way that it calls temporary.
    Network,
    /// The store does not accept the credentials, or got none.
    Unauthenticated,
    /// The name or prefix is malformed.
    InvalidName,
    /// The URI or the options make no sense.
    Config,
    /// The store cannot do this.
    Unsupported,
    /// The caller asked to stop.
    Interrupted,
    /// The backend is gone for good: all later operations fail too.
    Stopped,
    /// Anything else; the source says more.
    Other,
}

impl ErrorKind {
    /// Whether the same request may succeed a little later. The one place that decides it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Truncated | Self::Throttled | Self::Timeout | Self::Network => true,
            Self::NotFound
            | Self::OutOfRange
            | Self::Permission
            | Self::NoSpace
            | Self::ReadOnly
            | Self::Unauthenticated
            | Self::InvalidName
            | Self::Config
            | Self::Unsupported
            | Self::Interrupted
            | Self::Stopped
            | Self::Other => false,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Permission => "permission denied",
            Self::NoSpace => "no space left",
            Self::ReadOnly => "the store is read-only",
            Self::Truncated => "unexpected length",
            Self::OutOfRange => "the range ends past the object",
            Self::Throttled => "the store asks to slow down",
            Self::Timeout => "timed out",
            Self::Network => "the store cannot be reached or failed",
            Self::Unauthenticated => "credentials missing or refused",
            Self::InvalidName => "invalid name",
            Self::Config => "invalid configuration",
            Self::Unsupported => "not supported by this store",
            Self::Interrupted => "interrupted",
            Self::Stopped => "the store is gone",
            Self::Other => "failed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Turning a URI or path into a backend.
    Open,
    /// Checking a name.
    Name,
    /// [`Backend::get`](crate::Backend::get).
    Get,
    /// [`Backend::get_range`](crate::Backend::get_range) and `get_into`.
    GetRange,
    /// [`Backend::put`](crate::Backend::put).
    Put,
    /// [`Backend::stat`](crate::Backend::stat).
    Stat,
    /// [`Backend::list`](crate::Backend::list).
    List,
    /// [`Backend::delete`](crate::Backend::delete).
    Delete,
    /// Sweeping abandoned temporary files.
    Sweep,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Name => "name",
            Self::Get => "get",
            Self::GetRange => "get range",
            Self::Put => "put",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Sweep => "sweep",
        })
    }
}

/// A failed operation: kind, operation, object, redacted location, source.
///
/// Small, since it travels in every `Result`. Its texts never hold a credential: locations are
/// redacted before they get here, and sources come from below the credentials.
#[derive(thiserror::Error)]
#[error("{}", self.message())]
pub struct BackendError(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: Operation,
    name: Option<String>,
    location: Option<String>,
    source: Option<Source>,
}

impl BackendError {
    /// A new error; the `with_…` methods add what is known.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: Operation) -> Self {
        Self(Box::new(Inner { kind, operation, name: None, location: None, source: None }))
    }

    /// The object (or prefix) at hand.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// Where, already redacted.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<String>) -> Self {
        self.0.location = Some(location.into());
        self
    }

    /// The cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The object, prefix or temporary file at hand, if there was one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// The redacted location, if it was known.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.0.location.as_deref()
    }

    /// Whether the same request may succeed a little later: what [`ErrorKind::is_retryable`] says.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// True for [`ErrorKind::NotFound`].
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// The range `offset..offset + len` of an object of only `size` bytes.
    #[must_use]
    pub fn out_of_range(name: &ObjectName, size: u64, offset: u64, len: u64) -> Self {
        Self::new(ErrorKind::OutOfRange, Operation::GetRange)
            .with_name(name.as_str())
            .with_source(format!("{len} bytes from {offset} on, of {size}"))
    }

    /// A body of `found` bytes where `expected` were asked for or announced.
    #[must_use]
    pub fn truncated(operation: Operation, name: &ObjectName, expected: u64, found: u64) -> Self {
        Self::new(ErrorKind::Truncated, operation)
            .with_name(name.as_str())
            .with_source(format!("expected {expected} bytes, found {found}"))
    }

    fn message(&self) -> String {
        let Inner { kind, operation, name, location, source } = &*self.0;
        let mut text = operation.to_string();
        for (joint, part) in [(" ", name), (" in ", location)] {
            if let Some(part) = part {
                text.push_str(joint);
                text.push_str(part);
            }
        }
        text.push_str(": ");
        text.push_str(kind.text());
        if let Some(source) = source {
            text.push_str(&format!(" ({source})"));
        }
        text
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("name", &self.0.name)
            .field("location", &self.0.location)
            .field("source", &self.0.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_why() {
        let error = BackendError::new(ErrorKind::NoSpace, Operation::Put)
            .with_name("packs/ab/cd")
            .with_location("/mnt/backup")
            .with_source("os error 28");
        assert_eq!(error.to_string(), "put packs/ab/cd in /mnt/backup: no space left (os error 28)");
    }

    #[test]
    fn only_what_may_heal_by_itself_is_retried() {
        use ErrorKind::*;
        for kind in [Truncated, Throttled, Timeout, Network] {
            assert!(kind.is_retryable(), "{kind:?}");
        }
        for kind in
            [NotFound, OutOfRange, Permission, NoSpace, ReadOnly, Unauthenticated, Config, Stopped, Other]
        {
            assert!(!kind.is_retryable(), "{kind:?}");
        }
    }

    #[test]
    fn errors_are_one_word() {
        assert_eq!(size_of::<BackendError>(), size_of::<usize>());
    }
}
