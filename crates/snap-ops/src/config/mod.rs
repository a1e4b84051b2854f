//! `snap.toml`: what it says, judged. Every key is in `docs/guide/config.md`.

mod build;
mod problem;
mod raw;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use problem::{ConfigError, Problem};

use crate::{Interval, KeyConfig, ResolvedCopy, Retention, SecretText, SecretUri};

/// A commented `snap.toml`, in which nothing is switched on.
pub const EXAMPLE: &str = include_str!("example.toml");

/// A configuration that makes sense. Relative paths in the file are relative to it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where it was read.
    pub file: PathBuf,
    /// Where backups go, in the order of the file; empty if none is named.
    pub copies: Vec<ResolvedCopy>,
    /// The keys of `[repository]`.
    pub keys: KeyConfig,
    /// What is protected, by name.
    pub datasets: BTreeMap<String, Dataset>,
    /// Datasets that are brought back to one point, by the name of their application.
    pub apps: BTreeMap<String, App>,
    /// Who is told; nothing uses it yet.
    pub alerts: Alerts,
}

/// Something that must come back.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Where it is read; none if each run names it.
    pub source: Option<DatasetSource>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Files with such patterns.
    pub exclude_files: Vec<PathBuf>,
    /// Directories that hold such a file are left out but for their names.
    pub exclude_if_present: Vec<String>,
    /// The same for a CACHEDIR.TAG.
    pub exclude_caches: bool,
    /// Other file systems are not entered.
    pub one_file_system: bool,
    /// Tags of its snapshots.
    pub tags: Vec<String>,
    /// Where the source is, if not where its URI says, or here.
    pub location: Option<String>,
    /// The account that the source is in.
    pub account: Option<String>,
    /// How old the newest recoverable point may be.
    pub rpo: Option<Interval>,
    /// How long bringing it back may take.
    pub rto: Option<Interval>,
    /// When it is backed up; nothing uses it yet.
    pub schedule: Option<String>,
    /// Whether its change log is kept; nothing uses it yet.
    pub pitr: bool,
    /// What is kept.
    pub retention: Option<Retention>,
    /// How its return is rehearsed, unread so far.
    pub drill: Option<Unread>,
}

/// Where a dataset is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatasetSource {
    /// Files and directories, absolute.
    Paths(Vec<PathBuf>),
    /// A database or a bucket.
    Uri(SecretUri),
}

/// Datasets that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Their names, all of them configured.
    pub datasets: Vec<String>,
}

/// Who is told what went wrong. URIs of services hold secrets.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    /// Gets a POST.
    pub webhook: Option<SecretText>,
    /// Gets a mail: to, and the server.
    pub email: Option<(String, SecretText)>,
    /// Is run: program and arguments.
    pub command: Vec<SecretText>,
    /// Is asked after each success.
    pub ping: Option<SecretText>,
}

/// A table that is kept as it is for a part of the program that comes later.
#[derive(Clone, PartialEq)]
pub struct Unread(pub toml::Table);

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may hold anything.
        f.write_str("[unread]")
    }
}

/// The largest file that is read, bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads a file; `file` is absolute.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = read(file).map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    /// Reads a text that stands in `file`, which is absolute.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let invalid = |problems| ConfigError::Invalid { file: file.to_owned(), problems };
        let raw = toml::from_str(text).map_err(|error| invalid(vec![problem::of_parser(text, &error)]))?;
        build::build(raw, text, file).map_err(invalid)
    }

    /// The dataset of that name.
    pub fn dataset(&self, name: &str) -> Option<&Dataset> {
        self.datasets.get(name)
    }

    /// What it says, as TOML, every secret replaced by `[redacted]`.
    pub fn shown(&self) -> String {
        toml::to_string(&show::table(self)).expect("a table of plain values can be written")
    }

    /// The same for JSON.
    pub fn shown_value(&self) -> impl serde::Serialize {
        show::table(self)
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any configuration"));
    }
    Ok(text)
}
