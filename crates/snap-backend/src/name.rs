//! Names of objects.

use std::fmt;

use crate::{BackendError, ErrorKind, Operation};

/// The longest segment of a name, in bytes: below the 255 of common file systems, with room for a
/// temporary suffix of a store.
pub const MAX_SEGMENT_BYTES: usize = 128;

/// The longest name, in bytes: below the 1,024 of object stores, with room for a prefix.
pub const MAX_NAME_BYTES: usize = 512;

/// The validated name of a stored object: `config`, `packs/ab/abcdef…`.
///
/// Relative, `/`-separated, each segment `[a-z0-9._-]{1,128}`, at most 512 bytes in all, no `.` or
/// `..`, and not starting with `tmp`, which is where a directory keeps unfinished files. The alphabet
/// is what every store, and a file system that folds case, keeps apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Box<str>);

impl ObjectName {
    /// Checks `name`; what fails is of kind [`ErrorKind::InvalidName`].
    pub fn new(name: impl Into<String>) -> Result<Self, BackendError> {
        let name = name.into();
        match violation(&name) {
            None => Ok(Self(name.into_boxed_str())),
            Some(why) => Err(BackendError::new(ErrorKind::InvalidName, Operation::Name)
                .with_name(name.escape_default().to_string())
                .with_source(why)),
        }
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for a name without `/`: `config`, not `packs/ab/abcdef…`.
    ///
    /// Such names are fixed words rather than hashes of the content, so a store that cannot refuse an
    /// overwrite looks before it writes one.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        !self.0.contains('/')
    }
}

/// Whether `name` is well-formed, without the cost of building an error.
pub(crate) fn is_valid(name: &str) -> bool {
    violation(name).is_none()
}

/// Checks the prefix of a listing: empty, or a well-formed name and a final `/`.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), BackendError> {
    if prefix.is_empty() || prefix.strip_suffix('/').is_some_and(is_valid) {
        return Ok(());
    }
    Err(BackendError::new(ErrorKind::InvalidName, Operation::List)
        .with_name(prefix.escape_default().to_string())
        .with_source("a prefix is empty or a name that ends with `/`"))
}

fn violation(name: &str) -> Option<&'static str> {
    if name.len() > MAX_NAME_BYTES {
        return Some("longer than 512 bytes");
    }
    if name.starts_with("tmp") {
        return Some("starts with `tmp`, which is reserved");
    }
    name.split('/').find_map(segment_violation)
}

fn segment_violation(segment: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    match segment {
        "" => Some("an empty segment"),
        "." | ".." => Some("a `.` or `..` segment"),
        s if s.len() > MAX_SEGMENT_BYTES => Some("a segment longer than 128 bytes"),
        s if !s.bytes().all(allowed) => Some("a character outside [a-z0-9._-]"),
        _ => None,
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_repository_uses() {
        for good in ["config", "packs/ab/abcdef", "a.b_c-d", "..a", "x/tmp", &"a".repeat(128)] {
            assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn refuses_what_could_escape_or_collide() {
        let long = ["a"; 300].join("/");
        let wide = "a".repeat(129);
        for bad in [
            "", "/a", "a/", "a//b", ".", "a/../b", "A", "a b", "tmp", "tmp/x", "tmpx", "a\0", "é", &long,
            &wide,
        ] {
            let error = ObjectName::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{bad:?}");
        }
    }

    #[test]
    fn prefixes_end_with_a_slash() {
        assert!(check_prefix("").is_ok());
        assert!(check_prefix("packs/ab/").is_ok());
        for bad in ["packs", "/", "../", "tmp/"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
