use thiserror::Error;

/// Why bytes are not what they should be. Always damage or a newer version, never a bug of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end early, run on, or break a rule of the encoding.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The structure being read.
        what: &'static str,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A bound of `docs/format.md` §16 is exceeded.
    #[error("{what} exceeds its limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound, in the unit of the thing.
        limit: u64,
    },
    /// A version or a mandatory field that this reader does not know.
    #[error("{what} was written by a newer snap (version or field {found}); upgrade snap to read it")]
    Newer {
        /// The structure being read.
        what: &'static str,
        /// The version or field number found.
        found: u64,
    },
    /// Config features that this reader must understand and does not.
    #[error("the repository needs features that this snap does not have: {0}; upgrade snap to read it")]
    Features(String),
}

impl FormatError {
    pub(crate) const fn malformed(what: &'static str, why: &'static str) -> Self {
        Self::Malformed { what, why }
    }

    /// Whether a newer version of the program could read it.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Features(_))
    }
}
