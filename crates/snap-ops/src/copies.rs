use std::path::PathBuf;

use crate::{Credentials, Interval, Price, Retention, SecretText, SecretUri};

/// The name of a repository that has no other.
pub const MAIN_COPY: &str = "main";

/// One of the sibling repositories that hold the same data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedCopy {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub uri: SecretUri,
    /// What it is kept on: `disk`, `object-store`, `tape`, …
    pub media: Option<String>,
    /// Where that stands: `onsite`, `aws:eu-central-1`, …
    pub location: Option<String>,
    /// Whose it is: who takes this account over can delete the copy.
    pub account: Option<String>,
    /// Somebody says that nothing in it can be deleted.
    pub immutable: bool,
    /// How long what is needed is locked there.
    pub lock: Option<LockConfig>,
    /// How to reach it.
    pub credentials: Credentials,
    /// What is kept here, in place of what the dataset says.
    pub retention: Option<Retention>,
    /// What reading from it costs.
    pub price: Option<Price>,
    /// How to open it; those of `[repository]` where it has none of its own.
    pub keys: KeyConfig,
}

impl ResolvedCopy {
    /// A repository of which nothing is known but where it is.
    pub fn plain(uri: impl Into<String>) -> Self {
        Self {
            name: MAIN_COPY.to_owned(),
            uri: SecretUri::new(uri),
            media: None,
            location: None,
            account: None,
            immutable: false,
            lock: None,
            credentials: Credentials::default(),
            retention: None,
            price: None,
            keys: KeyConfig::default(),
        }
    }
}

/// How long the owner's runs lock what snapshots need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockConfig {
    /// At least so long, from the end of each run.
    pub length: Interval,
    /// In compliance mode: nobody can end it. Else in governance mode.
    pub is_final: bool,
}

/// The keys that a configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyConfig {
    /// For everything, if there is no other.
    pub key: Option<KeyRef>,
    /// For what reads stored data; may lie on another host only.
    pub read_key_file: Option<PathBuf>,
}

impl KeyConfig {
    /// What is given here, else what `other` gives.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        // A copy that has a key has slots of its own: another's reader is a stranger there.
        if self.key.is_some() || self.read_key_file.is_some() { self } else { other.clone() }
    }
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// A key file.
    File(PathBuf),
    /// A file that holds a password.
    PasswordFile(PathBuf),
    /// A command line that prints a password, to be split into words as by a shell.
    PasswordCommand(SecretText),
    /// The same in words.
    PasswordWords(Vec<SecretText>),
}

/// The copies that a run is about, in the order of preference. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedCopies(Vec<ResolvedCopy>);

impl ResolvedCopies {
    /// All of these; none if there are none.
    pub fn new(copies: Vec<ResolvedCopy>) -> Option<Self> {
        (!copies.is_empty()).then_some(Self(copies))
    }

    /// The one that is read.
    pub fn first(&self) -> &ResolvedCopy {
        &self.0[0]
    }

    /// The one called `name` alone.
    pub fn only(&self, name: &str) -> Option<Self> {
        let copy = self.0.iter().find(|copy| copy.name == name)?;
        Some(Self(vec![copy.clone()]))
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        self.iter().map(|copy| copy.name.as_str()).collect()
    }

    /// All of them, the first first.
    pub fn iter(&self) -> std::slice::Iter<'_, ResolvedCopy> {
        self.0.iter()
    }

    /// Whether there are several.
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }
}

impl<'a> IntoIterator for &'a ResolvedCopies {
    type Item = &'a ResolvedCopy;
    type IntoIter = std::slice::Iter<'a, ResolvedCopy>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<ResolvedCopy> for ResolvedCopies {
    fn from(copy: ResolvedCopy) -> Self {
        Self(vec![copy])
    }
}
