use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::filter::FilterError;

/// Gitignore lines over absolute paths.
///
/// A line that starts with `/` is an absolute path; one with another slash in it is relative to each of the
/// roots; one without matches a name at any depth. The rest is as in gitignore: `!` takes back, a trailing
/// `/` means directories only, the last line that matches decides.
#[derive(Debug)]
pub(crate) struct Patterns {
    matcher: Gitignore,
    /// The lines as they were given to the matcher, each anchored or a bare name.
    lines: Vec<String>,
}

impl Patterns {
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a str>, roots: &[PathBuf]) -> Result<Self, FilterError> {
        let mut builder = GitignoreBuilder::new("");
        let mut kept = Vec::new();
        for line in lines {
            let wrong =
                |error: ignore::Error| FilterError::Pattern { line: line.into(), reason: error.to_string() };
            for anchored in anchor(line, roots) {
                builder.add_line(None, &anchored).map_err(wrong)?;
                kept.push(anchored);
            }
        }
        let wrong =
            |error: ignore::Error| FilterError::Pattern { line: String::new(), reason: error.to_string() };
        Ok(Self { matcher: builder.build().map_err(wrong)?, lines: kept })
    }

    pub fn is_empty(&self) -> bool {
        self.matcher.is_empty()
    }

    /// What the last matching line says of this very path.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        !self.is_empty() && self.matcher.matched(relative(path), is_dir).is_ignore()
    }

    /// What is said of the path, or else of the nearest parent of which something is said.
    pub fn matches_or_parent(&self, path: &[u8], is_dir: bool) -> bool {
        let found = self.matcher.matched_path_or_any_parents(relative(path), is_dir);
        matches!(found, Match::Ignore(_))
    }

    /// Whether something below the directory `path` can match.
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        let path = relative(path).as_os_str().as_bytes();
        self.lines.iter().filter(|line| !line.starts_with('!')).any(|line| {
            let Some(anchored) = line.strip_prefix('/') else {
                return true;
            };
            let (literal, has_more) = literal_start(anchored);
            is_within(literal.as_bytes(), path) || (has_more && is_within(path, literal.as_bytes()))
        })
    }
}

fn relative(path: &[u8]) -> &Path {
    let start = path.iter().take_while(|byte| **byte == b'/').count();
    Path::new(OsStr::from_bytes(&path[start..]))
}

/// Whether `path` is `parent` or below it; the empty path is the root.
fn is_within(path: &[u8], parent: &[u8]) -> bool {
    match path.strip_prefix(parent) {
        Some(rest) => rest.is_empty() || parent.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// The components before the first one with a wildcard, and whether there is one.
fn literal_start(pattern: &str) -> (&str, bool) {
    let pattern = pattern.trim_end().trim_end_matches('/');
    match pattern.find(['*', '?', '[', '{', '\\']) {
        Some(at) => (pattern[..at].rfind('/').map_or("", |slash| &pattern[..slash]), true),
        None => (pattern, false),
    }
}

/// The line with relative paths written out below each root.
fn anchor(line: &str, roots: &[PathBuf]) -> Vec<String> {
    if line.starts_with('#') || line.trim_end().is_empty() {
        return Vec::new();
    }
    let (sign, body) = match line.strip_prefix('!') {
        Some(body) => ("!", body),
        None => ("", line),
    };
    let is_path = body.trim_end().trim_end_matches('/').contains('/');
    if body.starts_with('/') || !is_path {
        return vec![line.to_owned()];
    }
    if roots.is_empty() {
        return vec![format!("{sign}/{body}")];
    }
    roots.iter().map(|root| format!("{sign}{}/{body}", escape(root))).collect()
}

/// A path as a pattern that matches just it. Bytes that no pattern can name match any character.
fn escape(root: &Path) -> String {
    let mut escaped = String::new();
    for part in root.as_os_str().as_bytes().utf8_chunks() {
        for char in part.valid().chars() {
            if matches!(char, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!') {
                escaped.push('\\');
            }
            escaped.push(char);
        }
        escaped.extend(part.invalid().iter().map(|_| '?'));
    }
    escaped.truncate(escaped.trim_end_matches('/').len());
    escaped
}
