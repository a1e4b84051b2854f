//! What `find` looks for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use regex::bytes::{RegexSet, RegexSetBuilder};
use snap_format::{Node, NodeKind, Time};

use crate::{EngineError, Result};

/// What an entry is, as it can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryType {
    File,
    Dir,
    Symlink,
    Fifo,
    Char,
    Block,
    Object,
}

impl EntryType {
    /// Of a node.
    pub const fn of(kind: &NodeKind) -> Self {
        match kind {
            NodeKind::File { .. } => Self::File,
            NodeKind::Dir { .. } => Self::Dir,
            NodeKind::Symlink { .. } => Self::Symlink,
            NodeKind::Fifo => Self::Fifo,
            NodeKind::CharDevice { .. } => Self::Char,
            NodeKind::BlockDevice { .. } => Self::Block,
            NodeKind::Object { .. } => Self::Object,
        }
    }
}

/// What is looked for: entries that some pattern names, if there is any, and that everything else fits.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// Globs: a name at any depth; with a slash in it, the end of a path; with one in front, a whole path. `*` and `?` stop at
    /// slashes, `**` does not. A slash at the end asks for directories.
    pub patterns: Vec<String>,
    /// The patterns are regular expressions instead, looked for anywhere in the path.
    pub regex: bool,
    /// Case does not matter.
    pub ignore_case: bool,
    /// Any of these types; none given: all.
    pub types: Vec<EntryType>,
    /// Least and most bytes of a file.
    pub size_bytes: Option<(u64, u64)>,
    /// Modified at this time or later.
    pub newer: Option<Time>,
    /// Modified at this time or earlier.
    pub older: Option<Time>,
}

/// Globs, some of which only directories answer to.
struct Globs {
    any: GlobSet,
    dirs: GlobSet,
}

impl Globs {
    fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.any.is_match(path) || (is_dir && self.dirs.is_match(path))
    }
}

/// Compiled [`FindOptions`].
pub(super) struct Matcher<'a> {
    options: &'a FindOptions,
    names: Globs,
    paths: Globs,
    regexes: RegexSet,
    /// Whether the answer depends on more than the last component.
    pub(super) by_path: bool,
    /// What the paths of all matches begin with, as components; none if there is no such thing.
    anchors: Option<Vec<Vec<u8>>>,
}

fn wrong(pattern: &str, error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Usage(format!("{pattern:?} is not a pattern: {error}"))
}

fn globs(patterns: &[String], ignore_case: bool) -> Result<Globs> {
    let (mut any, mut dirs) = (GlobSetBuilder::new(), GlobSetBuilder::new());
    for pattern in patterns {
        let bare = pattern.trim_end_matches('/');
        let glob = GlobBuilder::new(bare).literal_separator(true).case_insensitive(ignore_case).build();
        let glob = glob.map_err(|error| wrong(pattern, &error.kind()))?;
        let set = if bare.len() < pattern.len() { &mut dirs } else { &mut any };
        set.add(glob);
    }
    let build = |set: GlobSetBuilder| set.build().map_err(|error| wrong(&patterns.join(" "), &error));
    Ok(Globs { any: build(any)?, dirs: build(dirs)? })
}

impl<'a> Matcher<'a> {
    pub(super) fn new(options: &'a FindOptions) -> Result<Self> {
        if let Some(empty) = options.patterns.iter().find(|pattern| pattern.trim_matches('/').is_empty()) {
            return Err(EngineError::Usage(format!("{empty:?} names nothing that could be found")));
        }
        let is_path = |pattern: &&String| pattern.trim_end_matches('/').contains('/');
        let given = if options.regex { &[][..] } else { &options.patterns };
        let (paths, names): (Vec<&String>, Vec<&String>) = given.iter().partition(is_path);
        let names: Vec<String> = names.into_iter().cloned().collect();
        // Paths are compared without the slash in front.
        let anchored = |pattern: &&String| match pattern.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None => format!("**/{pattern}"),
        };
        let paths: Vec<String> = paths.iter().map(anchored).collect();
        let all_anchored = !options.regex && names.is_empty() && !paths.is_empty() && !options.ignore_case;
        let regexes = if options.regex { &options.patterns[..] } else { &[] };
        let regexes = RegexSetBuilder::new(regexes)
            .case_insensitive(options.ignore_case)
            .build()
            .map_err(|error| wrong(&options.patterns.join(" "), &error))?;
        Ok(Self {
            options,
            by_path: !paths.is_empty() || options.regex,
            anchors: all_anchored.then(|| paths.iter().map(|path| literal_start(path)).collect()),
            names: globs(&names, options.ignore_case)?,
            paths: globs(&paths, options.ignore_case)?,
            regexes,
        })
    }

    /// Whether the entry at the absolute `path` is one. If [`Matcher::by_path`] is false, the path is not looked at.
    pub(super) fn matches(&self, path: &[u8], node: &Node) -> bool {
        let options = self.options;
        let fits_type = options.types.is_empty() || options.types.contains(&EntryType::of(&node.kind));
        let fits_size = || match options.size_bytes {
            Some((least, most)) => node.content().is_some() && (least..=most).contains(&node.size()),
            None => true,
        };
        fits_type
            && options.newer.is_none_or(|newer| node.mtime >= newer)
            && options.older.is_none_or(|older| node.mtime <= older)
            && fits_size()
            && self.names(path, node)
    }

    fn names(&self, path: &[u8], node: &Node) -> bool {
        if self.options.patterns.is_empty() {
            return true;
        }
        let is_dir = node.tree().is_some();
        self.names.matches(&node.name, is_dir)
            || (self.by_path
                && (self.regexes.is_match(path)
                    || self.paths.matches(path.strip_prefix(b"/").unwrap_or(path), is_dir)))
    }

    /// Whether something below the directory `path` can be one.
    pub(super) fn may_match_below(&self, path: &[u8]) -> bool {
        let Some(anchors) = &self.anchors else { return true };
        let path = path.strip_prefix(b"/").unwrap_or(path);
        anchors.iter().any(|anchor| is_within(path, anchor) || is_within(anchor, path))
    }
}

/// Whether `path` is `parent` or below it; the empty path is the root.
fn is_within(path: &[u8], parent: &[u8]) -> bool {
    match path.strip_prefix(parent) {
        Some(rest) => rest.is_empty() || parent.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// The components before the first one with a wildcard.
fn literal_start(pattern: &str) -> Vec<u8> {
    let pattern = pattern.trim_end_matches('/');
    let literal = match pattern.find(['*', '?', '[', '{', '\\']) {
        Some(at) => pattern[..at].rfind('/').map_or("", |slash| &pattern[..slash]),
        None => pattern,
    };
    literal.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_format::{BlobId, Content};

    fn node(path: &str, is_dir: bool) -> Node {
        let kind = match is_dir {
            true => NodeKind::Dir { tree: BlobId([0; 32]) },
            false => NodeKind::File { size: 100, content: Content::default(), holes: Vec::new(), profile: 1 },
        };
        Node::new(path.rsplit('/').next().unwrap().into(), kind, Time::new(1000, 0))
    }

    fn found(options: &FindOptions, path: &str) -> bool {
        let (is_dir, path) = (path.ends_with('/'), path.trim_end_matches('/'));
        Matcher::new(options).unwrap().matches(path.as_bytes(), &node(path, is_dir))
    }

    fn glob(pattern: &str) -> FindOptions {
        FindOptions { patterns: vec![pattern.to_owned()], ..FindOptions::default() }
    }

    #[test]
    fn globs_name_what_they_say() {
        let cases = [
            ("*.txt", "/a/b.txt", true),
            ("*.txt", "/a.txt/b", false),
            ("b", "/a/b", true),
            ("b", "/a/bc", false),
            ("B", "/a/b", false),
            ("a/b", "/x/a/b", true),
            ("a/b", "/a/b", true),
            ("a/b", "/xa/b", false),
            ("a/*", "/x/a/b/c", false),
            ("a/**", "/x/a/b/c", true),
            ("/a/*.txt", "/a/b.txt", true),
            ("/a/*.txt", "/x/a/b.txt", false),
            ("/a", "/a", true),
            ("/a/**/z", "/a/b/c/z", true),
            ("/a/**/z", "/a/z", true),
            ("b/", "/a/b", false),
            ("b/", "/a/b/", true),
            ("/a/b/", "/a/b/", true),
            ("[ab]?.{c,d}", "/x/b1.d", true),
            ("\\*", "/x/*", true),
            ("\\*", "/x/y", false),
            ("a\nb", "/x/a\nb", true),
        ];
        for (pattern, path, is_found) in cases {
            assert_eq!(found(&glob(pattern), path), is_found, "{pattern} {path}");
        }
        let folded = FindOptions { ignore_case: true, ..glob("*.TXT") };
        assert!(found(&folded, "/a.txt"));
        for bad in ["[", "", "/", "a{b"] {
            assert!(Matcher::new(&glob(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_have_names_too() {
        let options = glob("a*z");
        let matcher = Matcher::new(&options).unwrap();
        let mut odd = node("x", false);
        odd.name = b"a\xff\nz".to_vec();
        assert!(matcher.matches(b"/a\xff\nz", &odd));
        let options = FindOptions { regex: true, ..glob("(?s-u)/a.\nz$") };
        assert!(Matcher::new(&options).unwrap().matches(b"/a\xff\nz", &odd));
    }

    #[test]
    fn regular_expressions_see_the_path() {
        let regex = |text| FindOptions { regex: true, ..glob(text) };
        assert!(found(&regex("a/.*b$"), "/x/a/y/b"));
        assert!(!found(&regex("^b"), "/x/b"));
        assert!(Matcher::new(&regex("(")).is_err());
    }

    #[test]
    fn everything_else_must_fit_too() {
        let base = FindOptions { types: vec![EntryType::File], ..FindOptions::default() };
        assert!(found(&base, "/a") && !found(&base, "/a/"));
        for (size, is_found) in [((100, 100), true), ((0, 99), false), ((101, u64::MAX), false)] {
            assert_eq!(found(&FindOptions { size_bytes: Some(size), ..base.clone() }, "/a"), is_found);
        }
        let any_size = FindOptions { size_bytes: Some((0, u64::MAX)), ..FindOptions::default() };
        assert!(!found(&any_size, "/a/")); // a directory has no size
        for (secs, newer, older) in [(999, true, false), (1000, true, true), (1001, false, true)] {
            let time = Some(Time::new(secs, 0));
            assert_eq!(found(&FindOptions { newer: time, ..base.clone() }, "/a"), newer);
            assert_eq!(found(&FindOptions { older: time, ..base.clone() }, "/a"), older);
        }
    }

    #[test]
    fn a_whole_path_says_where_not_to_look() {
        let cases = [
            ("/a/b/*.txt", "/a", true),
            ("/a/b/*.txt", "/a/b/c", true),
            ("/a/b/*.txt", "/ab", false),
            ("/a/b/*.txt", "/a/c", false),
            ("/a/b/*.txt", "", true),
            ("/a/*/x", "/a/c", true),
            ("*.txt", "/a/c", true),
            ("b/x", "/a/c", true),
        ];
        for (pattern, dir, may) in cases {
            let options = glob(pattern);
            let matcher = Matcher::new(&options).unwrap();
            assert_eq!(matcher.may_match_below(dir.as_bytes()), may, "{pattern} {dir}");
        }
    }
}
