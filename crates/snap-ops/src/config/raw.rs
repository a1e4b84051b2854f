//! The file as it is written. Names and values are judged in `build`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::{Interval, Price, Retention, SecretText};

type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default)]
    pub repository: Option<Spanned<RawRepository>>,
    #[serde(default)]
    pub dataset: BTreeMap<Text, RawDataset>,
    #[serde(default)]
    pub app: BTreeMap<Text, RawApp>,
    #[serde(default)]
    pub alerts: Option<RawAlerts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRepository {
    pub uri: Option<Text>,
    pub path: Option<Text>,
    pub media: Option<Text>,
    pub location: Option<Text>,
    pub account: Option<Text>,
    pub immutable: Option<Spanned<bool>>,
    pub lock: Option<Spanned<Interval>>,
    pub lock_mode: Option<Text>,
    pub price: Option<Spanned<Price>>,
    #[serde(default)]
    pub credentials: BTreeMap<Text, SecretText>,
    pub key_file: Option<Text>,
    pub read_key_file: Option<Text>,
    pub password_file: Option<Text>,
    pub password_command: Option<Spanned<RawCommand>>,
    #[serde(default)]
    pub copies: Vec<Spanned<RawCopy>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawCopy {
    pub name: Text,
    pub uri: Option<Text>,
    pub path: Option<Text>,
    pub media: Option<Text>,
    pub location: Option<Text>,
    pub account: Option<Text>,
    #[serde(default)]
    pub immutable: bool,
    pub lock: Option<Spanned<Interval>>,
    pub lock_mode: Option<Text>,
    pub price: Option<Spanned<Price>>,
    #[serde(default)]
    pub credentials: BTreeMap<Text, SecretText>,
    pub retention: Option<Spanned<Retention>>,
    pub key_file: Option<Text>,
    pub read_key_file: Option<Text>,
    pub password_file: Option<Text>,
    pub password_command: Option<Spanned<RawCommand>>,
}

/// `"pass show snap"` or `["pass", "show", "snap"]`.
pub(super) enum RawCommand {
    Line(String),
    Words(Vec<String>),
}

impl<'de> Deserialize<'de> for RawCommand {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = RawCommand;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a command, or a list of its words")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawCommand, E> {
                Ok(RawCommand::Line(text.to_owned()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<RawCommand, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(RawCommand::Words(words))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawDataset {
    pub source: Option<Text>,
    pub paths: Option<Spanned<Vec<Text>>>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub exclude_file: Vec<Text>,
    #[serde(default)]
    pub exclude_if_present: Vec<String>,
    #[serde(default)]
    pub exclude_caches: bool,
    #[serde(default)]
    pub one_file_system: bool,
    #[serde(default)]
    pub tags: Vec<Text>,
    pub location: Option<Text>,
    pub account: Option<Text>,
    pub rpo: Option<Interval>,
    pub rto: Option<Interval>,
    pub schedule: Option<Text>,
    #[serde(default)]
    pub pitr: bool,
    pub retention: Option<Spanned<Retention>>,
    pub drill: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApp {
    pub datasets: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAlerts {
    pub webhook: Option<SecretText>,
    pub email: Option<RawEmail>,
    #[serde(default)]
    pub command: Vec<SecretText>,
    pub ping: Option<SecretText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmail {
    pub to: String,
    pub smtp: SecretText,
}
