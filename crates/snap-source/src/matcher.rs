use std::path::PathBuf;

use crate::filter::FilterError;
use crate::patterns::Patterns;

/// What a restore does with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Restore it. Entries below a directory are asked about again, since they may be excluded.
    Take,
    /// Leave it and all below.
    Skip,
    /// Not wanted itself; something below may be. Only for directories.
    Descend,
}

/// Selects what is restored: everything that some include names, or everything if there is none, less what
/// an exclude names. An include of a directory takes what is below it. Lines are as in
/// [`crate::FilterOptions::exclude`].
#[derive(Debug)]
pub struct PathMatcher {
    include: Patterns,
    exclude: Patterns,
}

impl PathMatcher {
    /// Paths with a slash, but none in front, are relative to the root.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, FilterError> {
        Self::below(&[], include, exclude)
    }

    /// Paths with a slash, but none in front, are relative to each of the absolute `roots`.
    pub fn below(roots: &[PathBuf], include: &[String], exclude: &[String]) -> Result<Self, FilterError> {
        let compile = |lines: &[String]| Patterns::new(lines.iter().map(String::as_str), roots);
        Ok(Self { include: compile(include)?, exclude: compile(exclude)? })
    }

    /// Whether it takes everything.
    pub fn takes_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// The verdict on an absolute path; parents count, so paths may be asked about in any order.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> Verdict {
        if self.exclude.matches_or_parent(path, is_dir) {
            Verdict::Skip
        } else if self.include.is_empty() || self.include.matches_or_parent(path, is_dir) {
            Verdict::Take
        } else if is_dir && self.include.may_match_below(path) {
            Verdict::Descend
        } else {
            Verdict::Skip
        }
    }
}
