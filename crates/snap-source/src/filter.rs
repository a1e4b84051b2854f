use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::linux::dir::{EntryResult, entry_name};
use crate::patterns::Patterns;
use crate::selection::Selection;
use crate::source::SourceDir;
use crate::stat::{FileType, Stat};

/// Name and start of the file that marks a cache: <https://bford.info/cachedir/>.
const CACHEDIR_TAG: (&str, &str) = ("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");

/// Longest header of a marker file.
const MAX_HEADER_BYTES: usize = 4096;

/// What a backup leaves out.
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    /// The source roots, absolute: what relative patterns are relative to. None: the file system's root.
    pub roots: Vec<PathBuf>,
    /// Gitignore lines: a name at any depth, a path with a slash below the roots, an absolute path.
    pub exclude: Vec<String>,
    /// Files of such lines; they come before `exclude`, so that `exclude` can take back.
    pub exclude_files: Vec<PathBuf>,
    /// `NAME` or `NAME:HEADER`: a directory that holds such a file is stored with that file alone.
    pub exclude_if_present: Vec<String>,
    /// The same for `CACHEDIR.TAG` with its standard signature.
    pub cachedir_tag: bool,
    /// Do not enter other file systems.
    pub one_file_system: bool,
    /// Device and inode of what is never entered: the repository, its cache, mounts of it.
    pub protected: Vec<(u64, u64)>,
    /// Nothing but this.
    pub only: Option<Arc<Selection>>,
}

/// A filter that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A line is not a pattern.
    #[error("the exclude pattern {line:?} is not valid: {reason}")]
    Pattern {
        /// The line.
        line: String,
        /// What the parser says.
        reason: String,
    },
    /// A file of patterns cannot be read, or is not UTF-8.
    #[error("the exclude file {} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A marker is not a plain file name.
    #[error("{marker:?} is not a file name, optionally with a colon and the start of the file")]
    Marker {
        /// As given.
        marker: String,
    },
}

/// A file whose presence leaves out its directory.
#[derive(Debug)]
struct Marker {
    name: Vec<u8>,
    header: Vec<u8>,
}

/// Decides what of a source is left out.
#[derive(Debug)]
pub struct Filter {
    patterns: Patterns,
    markers: Vec<Marker>,
    one_file_system: bool,
    protected: HashSet<(u64, u64)>,
    only: Option<Arc<Selection>>,
}

impl Filter {
    /// Reads the files and compiles the patterns.
    pub fn new(options: FilterOptions) -> Result<Self, FilterError> {
        let mut texts = Vec::new();
        for path in &options.exclude_files {
            let text = fs::read_to_string(path)
                .map_err(|source| FilterError::File { path: path.clone(), source })?;
            texts.push(text);
        }
        let from_files = texts.iter().flat_map(|text| text.trim_start_matches('\u{feff}').lines());
        let lines = from_files.chain(options.exclude.iter().map(String::as_str));
        let mut markers =
            options.exclude_if_present.iter().map(|given| marker(given)).collect::<Result<Vec<_>, _>>()?;
        if options.cachedir_tag {
            let (name, header) = CACHEDIR_TAG;
            markers.push(Marker { name: name.into(), header: header.into() });
        }
        Ok(Self {
            patterns: Patterns::new(lines, &options.roots)?,
            markers,
            one_file_system: options.one_file_system,
            protected: options.protected.into_iter().collect(),
            only: options.only,
        })
    }

    /// Whether a pattern, or a selection, leaves out the entry at this absolute path, and with it all below.
    /// Parents are not looked at: a walk does not come to what is below an excluded directory.
    pub fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.patterns.matches(path, is_dir) || self.only.as_ref().is_some_and(|only| !only.takes(path))
    }

    /// Whether there is any pattern or selection; without one, paths need not be put together.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty() || self.only.is_some()
    }

    /// Whether this is the repository, its cache or a mount of it.
    pub fn is_protected(&self, stat: &Stat) -> bool {
        !self.protected.is_empty() && self.protected.contains(&(stat.device, stat.inode))
    }

    /// Whether a marker file leaves out the contents of `dir`, which has these entries.
    pub fn marks_excluded(&self, dir: &SourceDir, entries: &[EntryResult]) -> bool {
        self.marker(dir, entries).is_some()
    }

    /// The name of the marker file that leaves out the contents of `dir`: the one entry that is kept.
    pub fn marker(&self, dir: &SourceDir, entries: &[EntryResult]) -> Option<&[u8]> {
        let stands = |marker: &&Marker| {
            let found = entries.binary_search_by(|entry| entry_name(entry).cmp(&marker.name));
            let is_there = found.is_ok_and(|at| {
                entries[at]
                    .as_ref()
                    .is_ok_and(|entry| marker.header.is_empty() || entry.stat.kind == FileType::File)
            });
            is_there && starts_with_header(dir, marker)
        };
        self.markers.iter().find(stands).map(|marker| &marker.name[..])
    }

    /// Whether the entry lies on another file system than its source root and is not to be entered.
    pub fn crosses_device(&self, root: &Stat, stat: &Stat) -> bool {
        self.one_file_system && root.device != stat.device
    }
}

fn marker(given: &str) -> Result<Marker, FilterError> {
    let (name, header) = given.split_once(':').unwrap_or((given, ""));
    if !snap_format::Node::name_is_safe(name.as_bytes()) || header.len() > MAX_HEADER_BYTES {
        return Err(FilterError::Marker { marker: given.into() });
    }
    Ok(Marker { name: name.into(), header: header.into() })
}

/// A marker that cannot be read does not leave anything out: better too much than too little.
fn starts_with_header(dir: &SourceDir, marker: &Marker) -> bool {
    if marker.header.is_empty() {
        return true;
    }
    let mut start = vec![0; marker.header.len()];
    dir.open_file(&marker.name)
        .and_then(|file| file.read_at(&mut start, 0))
        .is_ok_and(|length| start[..length] == marker.header)
}
