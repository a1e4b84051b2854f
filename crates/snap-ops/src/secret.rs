//! What must not be shown: URIs that may hold a password, and credentials.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use thiserror::Error;
use zeroize::Zeroizing;

/// A path or URI. Shown without password, and without the values of query keys that might hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUri(String);

impl SecretUri {
    /// Takes what the user wrote.
    pub fn new(uri: impl Into<String>) -> Self {
        Self(uri.into())
    }

    /// All of it, for whoever connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The directory, unless it is a URI.
    pub fn as_local(&self) -> Option<&Path> {
        match self.0.strip_prefix("file://") {
            Some(path) => Some(Path::new(path)),
            None if self.0.contains("://") => None,
            None => Some(Path::new(&self.0)),
        }
    }
}

impl fmt::Display for SecretUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&snap_backend::redact(&self.0))
    }
}

impl fmt::Debug for SecretUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&snap_backend::redact(&self.0), f)
    }
}

/// A text that is a secret, or may hold one. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: a variable of the caller's environment.
    Env(String),
    /// `file:PATH`: a file; one trailing newline is no part of it.
    File(PathBuf),
    /// The text itself.
    Literal(SecretText),
}

/// The longest credential that is read, bytes.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Why a credential cannot be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the variable {0} is not set")]
    Unset(String),
    /// The file cannot be read, or holds no text.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SecretRef {
    /// Gets it.
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Zeroizing<String>, SecretError> {
        match self {
            Self::Literal(text) => Ok(text.0.clone()),
            Self::Env(name) => env(name).map(Zeroizing::new).ok_or_else(|| SecretError::Unset(name.clone())),
            Self::File(path) => read(path).map_err(|source| SecretError::File { path: path.clone(), source }),
        }
    }

    /// Where it comes from; not what it is.
    pub fn shown(&self) -> String {
        match self {
            Self::Env(name) => format!("env:{name}"),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Literal(_) => "[redacted]".to_owned(),
        }
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any credential"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// What the credentials of a kind of store are called in `snap.toml`, and the variables that they stand for.
pub(crate) const KINDS: &[(&str, &[(&str, &str)])] = &[
    (
        "s3",
        &[
            ("access-key-id", "AWS_ACCESS_KEY_ID"),
            ("secret-access-key", "AWS_SECRET_ACCESS_KEY"),
            ("session-token", "AWS_SESSION_TOKEN"),
        ],
    ),
    ("gcs", &[("key-file", "GOOGLE_APPLICATION_CREDENTIALS"), ("access-token", "GOOGLE_OAUTH_ACCESS_TOKEN")]),
    (
        "azblob",
        &[
            ("account", "AZURE_STORAGE_ACCOUNT"),
            ("key", "AZURE_STORAGE_KEY"),
            ("sas-token", "AZURE_STORAGE_SAS_TOKEN"),
        ],
    ),
    ("b2", &[("application-key-id", "B2_APPLICATION_KEY_ID"), ("application-key", "B2_APPLICATION_KEY")]),
    (
        "webdav",
        &[("username", "WEBDAV_USERNAME"), ("password", "WEBDAV_PASSWORD"), ("token", "WEBDAV_TOKEN")],
    ),
    ("sftp", &[("key", "SNAP_SFTP_KEY"), ("known-hosts", "SNAP_SFTP_KNOWN_HOSTS")]),
];

/// Names of credentials that a store of this scheme takes, and their variables.
pub(crate) fn credential_names(scheme: &str) -> &'static [(&'static str, &'static str)] {
    KINDS.iter().find(|(name, _)| *name == scheme).map_or(&[], |(_, names)| names)
}

/// What the credential of a variable is called in `snap.toml`.
pub(crate) fn credential_name(variable: &str) -> Option<&'static str> {
    let mut all = KINDS.iter().flat_map(|(_, names)| names.iter());
    all.find(|(_, other)| *other == variable).map(|(name, _)| *name)
}

/// The credentials of one store, by the names of the usual variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials(pub(crate) BTreeMap<&'static str, SecretRef>);

impl Credentials {
    /// Whether none are given, so that those of the environment hold.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By variable, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &SecretRef)> {
        self.0.iter().map(|(variable, secret)| (*variable, secret))
    }

    /// Gets them all, by variable.
    pub fn resolve(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, String>, SecretError> {
        self.iter()
            .map(|(variable, secret)| Ok((variable.to_owned(), secret.resolve(env)?.to_string())))
            .collect()
    }

    /// Whether a variable of the environment must not count, because credentials of its kind are given here: half of
    /// one pair and half of another open nothing.
    pub fn hides(&self, variable: &str) -> bool {
        let has = |name: &str| self.0.contains_key(name);
        let group = |names: &&[(&str, &'static str)]| names.iter().any(|(_, other)| *other == variable);
        KINDS
            .iter()
            .map(|(_, names)| *names)
            .find(group)
            .is_some_and(|names| names.iter().any(|(_, it)| has(it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_they_are_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3");
        std::fs::write(&path, "from file\n").unwrap();
        let env = |name: &str| (name == "KEY").then(|| "from env".to_owned());
        let get = |secret: SecretRef| secret.resolve(&env).map(|text| text.to_string());
        assert_eq!(get(SecretRef::Env("KEY".into())).unwrap(), "from env");
        assert_eq!(get(SecretRef::File(path)).unwrap(), "from file");
        assert_eq!(get(SecretRef::Literal("x".to_owned().into())).unwrap(), "x");
        assert!(matches!(get(SecretRef::Env("OTHER".into())), Err(SecretError::Unset(_))));
        assert!(matches!(get(SecretRef::File(dir.path().join("none"))), Err(SecretError::File { .. })));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let uri = SecretUri::new("webdav://me:hunter2@h/p");
        let literal = SecretRef::Literal("hunter2".to_owned().into());
        let credentials = Credentials(BTreeMap::from([("WEBDAV_PASSWORD", literal.clone())]));
        let shown = format!("{uri} {uri:?} {literal:?} {} {credentials:?}", literal.shown());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(uri.expose(), "webdav://me:hunter2@h/p");
    }

    #[test]
    fn given_credentials_hide_those_of_their_kind() {
        let given = BTreeMap::from([("AWS_ACCESS_KEY_ID", SecretRef::Env("X".into()))]);
        let credentials = Credentials(given);
        assert!(credentials.hides("AWS_SESSION_TOKEN") && credentials.hides("AWS_SECRET_ACCESS_KEY"));
        assert!(!credentials.hides("AWS_REGION") && !credentials.hides("WEBDAV_PASSWORD"));
        assert!(!Credentials::default().hides("AWS_SECRET_ACCESS_KEY"));
    }
}
