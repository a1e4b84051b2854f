//! Secrets on their way from the caller to a store.

use crate::{BackendError, ErrorKind, OpenOptions, Operation};

/// Looks credentials up, and remembers which of them are secret, so that no error repeats them.
pub(crate) struct Credentials<'a> {
    options: &'a OpenOptions<'a>,
    secrets: Vec<String>,
}

/// Shorter values are no secrets, and would be cut out of ordinary words.
const SHORTEST_SECRET: usize = 6;

impl<'a> Credentials<'a> {
    pub fn new(options: &'a OpenOptions<'a>) -> Self {
        Self { options, secrets: Vec::new() }
    }

    /// What is no secret: an account, a region.
    pub fn plain(&self, names: &[&str]) -> Option<String> {
        let lookup = |name: &&str| {
            let given = self.options.credentials.get(*name).cloned();
            given.or_else(|| self.options.env.and_then(|env| env(name)))
        };
        names.iter().find_map(lookup).filter(|value| !value.is_empty())
    }

    /// A secret, under the first of its names that is set.
    pub fn secret(&mut self, names: &[&str]) -> Option<String> {
        let value = self.plain(names)?;
        self.hide(&value);
        Some(value)
    }

    pub fn hide(&mut self, secret: &str) {
        if secret.len() >= SHORTEST_SECRET {
            self.secrets.push(secret.to_owned());
        }
    }

    pub fn ambient(&self) -> bool {
        self.options.ambient_credentials
    }

    pub fn options(&self) -> &'a OpenOptions<'a> {
        self.options
    }

    pub fn into_secrets(self) -> Secrets {
        Secrets(self.secrets)
    }
}

/// The error for credentials that are needed and not given.
pub(super) fn missing(names: &str) -> BackendError {
    BackendError::new(ErrorKind::Unauthenticated, Operation::Open)
        .with_source(format!("no credentials: set {names}"))
}

/// What must never be shown.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// `text` without them.
    pub fn scrub(&self, mut text: String) -> String {
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "[redacted]");
            }
        }
        text
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
