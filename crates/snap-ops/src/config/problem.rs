//! What is wrong with a file, and on which line.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

use crate::names::did_you_mean;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file makes no sense.
    #[error("{}", lines(file, problems))]
    Invalid {
        /// Which.
        file: PathBuf,
        /// All that was found, in the order of the file. Holds no secret.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

fn lines(file: &std::path::Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{}:{}: {}", file.display(), problem.line, problem.message);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The line in which a byte of `text` stands.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// What the parser refuses. Its own rendering shows the line, which may hold a secret, so only the message is taken.
pub(super) fn of_parser(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    Problem { line: line_of(text, span.start), message: explain(error.message(), text.get(span)) }
}

/// The message of serde or the parser, in the words of the guide and without values.
fn explain(message: &str, at: Option<&str>) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown(rest);
    }
    if message == "duplicate key" {
        return match at.map(|key| key.trim_matches(['"', '\''])) {
            Some(key) => format!("`{key}` is given twice"),
            None => message.to_owned(),
        };
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("{rest} is missing");
    }
    // `invalid type: string "…", expected a map`: the value may be a secret.
    if message.starts_with("invalid type: ") || message.starts_with("invalid value: ") {
        let found = message.split(": ").nth(1).unwrap_or_default().split(' ').next().unwrap_or_default();
        if let Some((_, expected)) = message.rsplit_once(", expected ") {
            return format!("{} is here, expected {}", article(found), plain(expected));
        }
    }
    message.to_owned()
}

fn article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if vowel { "an" } else { "a" })
}

fn plain(expected: &str) -> String {
    let expected = expected.replace("u32", "a whole number that is not negative");
    let expected = expected.replace("a sequence", "a list").replace("a map", "a table");
    match expected.split_once("struct ") {
        Some(_) => "a table".to_owned(),
        None => expected,
    }
}

/// `` `keyfile`, expected one of `uri`, `key-file` ``.
fn unknown(rest: &str) -> String {
    let mut words = rest.split('`').skip(1).step_by(2);
    let word = words.next().unwrap_or_default();
    not_allowed("key", word, &words.collect::<Vec<_>>())
}

/// A word that is none of those allowed.
pub(super) fn not_allowed(what: &str, word: &str, allowed: &[&str]) -> String {
    let mut out = format!("unknown {what} `{word}`");
    if let Some(meant) = did_you_mean(word, allowed.iter().copied()) {
        out.push_str(&format!("; did you mean `{meant}`?"));
    }
    match allowed {
        [] => out.push_str("; there are none"),
        _ => out.push_str(&format!("; known are {}", allowed.join(", "))),
    }
    out
}

/// Collects what is wrong with a file that could be parsed.
pub(super) struct Problems<'a> {
    text: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push(Problem { line: line_of(self.text, span.start), message: message.into() });
    }

    /// In the order of the file.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort();
        self.found.dedup();
        self.found
    }
}
