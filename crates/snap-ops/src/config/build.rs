//! From what is written to what is meant. Everything that is wrong is found at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use snap_backend::{OpenOptions, Site};
use toml::Spanned;

use super::problem::{Problem, Problems, not_allowed};
use super::raw::{Raw, RawAlerts, RawApp, RawCommand, RawCopy, RawDataset, RawRepository};
use super::{Alerts, App, Config, Dataset, DatasetSource, Unread};
use crate::copies::MAIN_COPY;
use crate::names::{DATASET_RULE, NAME_RULE, did_you_mean, is_dataset_name, is_name};
use crate::secret::credential_names;
use crate::{
    Credentials, Interval, KeyConfig, KeyRef, LockConfig, ResolvedCopy, Retention, SecretRef, SecretText,
    SecretUri,
};

type Text = Spanned<String>;

/// The longest lock that may be asked for: a slip of the pen must not cost ten years of storage.
const MAX_LOCK_SECS: u64 = 366 * 86_400;

struct Builder<'a> {
    /// The directory of the file.
    base: &'a Path,
    problems: Problems<'a>,
}

pub(super) fn build(raw: Raw, text: &str, file: &Path) -> Result<Config, Vec<Problem>> {
    let base = file.parent().unwrap_or(Path::new("/"));
    let mut builder = Builder { base, problems: Problems::new(text) };
    let (copies, keys) = match raw.repository {
        Some(repository) => builder.repository(repository),
        None => Default::default(),
    };
    let datasets: BTreeMap<_, _> =
        raw.dataset.into_iter().map(|(name, raw)| builder.dataset(name, raw)).collect();
    let apps = raw.app.into_iter().map(|(name, raw)| builder.app(name, raw, &datasets)).collect();
    let problems = builder.problems.into_sorted();
    if !problems.is_empty() {
        return Err(problems);
    }
    let alerts = raw.alerts.map(alerts).unwrap_or_default();
    Ok(Config { file: file.to_owned(), copies, keys, datasets, apps, alerts })
}

/// The keys that one table names.
struct RawKeys {
    key_file: Option<Text>,
    read_key_file: Option<Text>,
    password_file: Option<Text>,
    password_command: Option<Spanned<RawCommand>>,
}

impl Builder<'_> {
    fn repository(&mut self, raw: Spanned<RawRepository>) -> (Vec<ResolvedCopy>, KeyConfig) {
        let span = raw.span();
        let raw = raw.into_inner();
        let keys = self.keys(RawKeys {
            key_file: raw.key_file,
            read_key_file: raw.read_key_file,
            password_file: raw.password_file,
            password_command: raw.password_command,
        });
        let other_span = raw.lock.as_ref().map(Spanned::span);
        let other_span = other_span.or_else(|| raw.price.as_ref().map(Spanned::span));
        let single = RawCopy {
            name: Spanned::new(span.clone(), MAIN_COPY.to_owned()),
            uri: raw.uri,
            path: raw.path,
            media: raw.media,
            location: raw.location,
            account: raw.account,
            immutable: raw.immutable.as_ref().is_some_and(|it| *it.get_ref()),
            lock: raw.lock,
            lock_mode: raw.lock_mode,
            price: raw.price,
            credentials: raw.credentials,
            retention: None,
            key_file: None,
            read_key_file: None,
            password_file: None,
            password_command: None,
        };
        let first_of_single =
            [&single.uri, &single.path, &single.media, &single.location, &single.account, &single.lock_mode];
        let first_of_single = first_of_single.into_iter().flatten().map(Spanned::span).next();
        let first_of_single = first_of_single.or_else(|| raw.immutable.as_ref().map(Spanned::span));
        let first_of_single = first_of_single.or(other_span);
        let first_of_single = first_of_single.or_else(|| single.credentials.keys().next().map(Spanned::span));
        if raw.copies.is_empty() {
            let is_named = single.uri.is_some() || single.path.is_some();
            if let (false, Some(span)) = (is_named, first_of_single) {
                self.problems.add(span, "this describes a repository, and none is named: add uri or path");
            }
            let copies = if is_named { self.copy(single, span, &keys) } else { None };
            return (copies.into_iter().collect(), keys);
        }
        if let Some(span) = first_of_single {
            self.problems.add(span, "[[repository.copies]] are given: this belongs to one of them");
        }
        (self.copies(raw.copies, &keys), keys)
    }

    fn copies(&mut self, raw: Vec<Spanned<RawCopy>>, keys: &KeyConfig) -> Vec<ResolvedCopy> {
        let mut out: Vec<ResolvedCopy> = Vec::new();
        for raw in raw {
            let span = raw.span();
            let raw = raw.into_inner();
            let name_span = raw.name.span();
            let uri_span = raw.uri.as_ref().or(raw.path.as_ref()).map_or(span.clone(), Spanned::span);
            let Some(copy) = self.copy(raw, span, keys) else { continue };
            if out.iter().any(|other| other.name == copy.name) {
                self.problems.add(name_span, format!("there are two copies called `{}`", copy.name));
            }
            if let Some(other) = out.iter().find(|other| is_same_place(&other.uri, &copy.uri)) {
                let both = format!("the copies `{}` and `{}` lie in the same place", other.name, copy.name);
                self.problems.add(uri_span, format!("{both}: that is one copy"));
            }
            out.push(copy);
        }
        out
    }

    fn copy(&mut self, raw: RawCopy, span: Range<usize>, keys: &KeyConfig) -> Option<ResolvedCopy> {
        if !is_name(raw.name.get_ref()) {
            self.problems.add(raw.name.span(), format!("`{}`: {NAME_RULE}", raw.name.get_ref()));
        }
        let own = self.keys(RawKeys {
            key_file: raw.key_file,
            read_key_file: raw.read_key_file,
            password_file: raw.password_file,
            password_command: raw.password_command,
        });
        let retention = self.retention(raw.retention);
        let uri = match (raw.uri, raw.path) {
            (Some(uri), None) => self.store(&uri),
            (None, Some(path)) => self.text_path(&path),
            (Some(_), Some(path)) => {
                self.problems.add(path.span(), "uri and path both say where it is: give one of them");
                None
            }
            (None, None) => {
                self.problems.add(span, "it is not said where the copy is: add uri or path");
                None
            }
        };
        let uri = SecretUri::new(uri?);
        let lock = self.lock(raw.lock, raw.lock_mode, &uri);
        Some(ResolvedCopy {
            name: raw.name.into_inner(),
            credentials: self.credentials(raw.credentials, &uri),
            uri,
            media: self.label(raw.media),
            location: self.label(raw.location),
            account: self.label(raw.account),
            immutable: raw.immutable,
            lock,
            retention,
            price: raw.price.map(Spanned::into_inner),
            keys: own.or(keys),
        })
    }

    /// A path or URI of a store, checked as far as that goes without asking it.
    fn store(&mut self, uri: &Text) -> Option<String> {
        if !uri.get_ref().contains("://") {
            return self.text_path(uri);
        }
        match Site::of(uri.get_ref(), &OpenOptions::default()) {
            Ok(site) if site.scheme == "file" || snap_backend::SCHEMES.contains(&site.scheme.as_str()) => {
                Some(uri.get_ref().clone())
            }
            Ok(site) => {
                let message = not_allowed("kind of store", &site.scheme, snap_backend::SCHEMES);
                self.problems.add(uri.span(), message);
                None
            }
            Err(error) => {
                self.problems.add(uri.span(), error.to_string());
                None
            }
        }
    }

    /// A path, absolute by way of the directory of the file.
    fn path(&mut self, path: &Text) -> Option<PathBuf> {
        match path.get_ref().as_str() {
            "" => self.problems.add(path.span(), "an empty path"),
            home if home.starts_with('~') => {
                self.problems
                    .add(path.span(), "`~` is not expanded: write the whole path, or ./~ for that name");
            }
            text => {
                let is_plain = |part: &Component<'_>| !matches!(part, Component::CurDir);
                return Some(self.base.join(text).components().filter(is_plain).collect());
            }
        }
        None
    }

    fn text_path(&mut self, path: &Text) -> Option<String> {
        let absolute = self.path(path)?;
        let text = absolute.to_str().map(str::to_owned);
        if text.is_none() {
            self.problems.add(path.span(), "the directory of this file is not UTF-8: write the whole path");
        }
        text
    }

    fn keys(&mut self, raw: RawKeys) -> KeyConfig {
        let mut given: Vec<(Range<usize>, &str, Option<KeyRef>)> = Vec::new();
        if let Some(path) = raw.key_file {
            given.push((path.span(), "key-file", self.path(&path).map(KeyRef::File)));
        }
        if let Some(path) = raw.password_file {
            given.push((path.span(), "password-file", self.path(&path).map(KeyRef::PasswordFile)));
        }
        if let Some(command) = raw.password_command {
            let span = command.span();
            let key = match command.into_inner() {
                RawCommand::Line(line) => KeyRef::PasswordCommand(line.into()),
                RawCommand::Words(words) => {
                    KeyRef::PasswordWords(words.into_iter().map(SecretText::from).collect())
                }
            };
            if matches!(&key, KeyRef::PasswordWords(words) if words.is_empty()) {
                self.problems.add(span.clone(), "an empty command");
            }
            given.push((span, "password-command", Some(key)));
        }
        if let [(_, first, _), (span, second, _), ..] = &given[..] {
            self.problems
                .add(span.clone(), format!("{first} and {second} both name a key: give one of them"));
        }
        let key = given.into_iter().next().and_then(|(_, _, key)| key);
        KeyConfig { key, read_key_file: raw.read_key_file.and_then(|path| self.path(&path)) }
    }

    fn credentials(&mut self, raw: BTreeMap<Text, SecretText>, uri: &SecretUri) -> Credentials {
        let scheme = uri.expose().split_once("://").map_or("file", |(scheme, _)| scheme).to_ascii_lowercase();
        let names = credential_names(&scheme);
        let mut out = BTreeMap::new();
        for (key, value) in raw {
            let Some((_, variable)) = names.iter().find(|(name, _)| name == key.get_ref()) else {
                let message = match names {
                    [] => "a directory takes no credentials".to_owned(),
                    _ => {
                        let allowed: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                        not_allowed(&format!("credential of {scheme}://"), key.get_ref(), &allowed)
                    }
                };
                self.problems.add(key.span(), message);
                continue;
            };
            if let Some(secret) = self.secret(&key, value) {
                out.insert(*variable, secret);
            }
        }
        Credentials(out)
    }

    fn secret(&mut self, key: &Text, value: SecretText) -> Option<SecretRef> {
        let text = value.expose();
        if let Some(name) = text.strip_prefix("env:") {
            let is_variable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(is_variable) {
                self.problems.add(key.span(), format!("`{}`: behind env: stands a variable", key.get_ref()));
                return None;
            }
            return Some(SecretRef::Env(name.to_owned()));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return self.path(&Spanned::new(key.span(), path.to_owned())).map(SecretRef::File);
        }
        if text.is_empty() {
            self.problems.add(key.span(), format!("`{}` is empty", key.get_ref()));
            return None;
        }
        Some(SecretRef::Literal(value))
    }

    fn label(&mut self, raw: Option<Text>) -> Option<String> {
        let raw = raw?;
        if raw.get_ref().trim().is_empty() || raw.get_ref().chars().any(char::is_control) {
            self.problems.add(raw.span(), "it is empty, or has control characters");
        }
        Some(raw.into_inner().trim().to_owned())
    }

    fn lock(
        &mut self,
        length: Option<Spanned<Interval>>,
        mode: Option<Text>,
        uri: &SecretUri,
    ) -> Option<LockConfig> {
        let is_final = match mode.as_ref().map(|mode| mode.get_ref().as_str()) {
            None | Some("compliance") => true,
            Some("governance") => false,
            Some(other) => {
                let message = not_allowed("lock-mode", other, &["compliance", "governance"]);
                self.problems.add(mode.as_ref()?.span(), message);
                return None;
            }
        };
        let Some(length) = length else {
            if let Some(mode) = mode {
                self.problems.add(mode.span(), "lock-mode says how, and nothing says how long: add lock");
            }
            return None;
        };
        let locks = uri.expose().to_ascii_lowercase().starts_with("s3://");
        if !locks {
            self.problems.add(length.span(), "only s3:// has locks");
        } else if length.get_ref().seconds() > MAX_LOCK_SECS {
            let message =
                "a lock longer than a year: nobody could shorten it. Runs make locks longer as time goes on";
            self.problems.add(length.span(), message);
        }
        Some(LockConfig { length: length.into_inner(), is_final })
    }

    fn retention(&mut self, raw: Option<Spanned<Retention>>) -> Option<Retention> {
        let raw = raw?;
        if raw.get_ref().keeps_nothing() {
            let message = "this retention keeps nothing: give at least one of last, hourly, daily, weekly, monthly, \
                           yearly, within, or leave it out to keep everything";
            self.problems.add(raw.span(), message);
        }
        Some(raw.into_inner())
    }

    fn dataset(&mut self, name: Text, raw: RawDataset) -> (String, Dataset) {
        if !is_dataset_name(name.get_ref()) {
            self.problems.add(name.span(), format!("`{}`: {DATASET_RULE}", name.get_ref()));
        }
        let source = self.source(raw.source, raw.paths);
        let dataset = Dataset {
            source,
            exclude: raw.exclude,
            exclude_files: raw.exclude_file.iter().filter_map(|path| self.path(path)).collect(),
            exclude_if_present: raw.exclude_if_present,
            exclude_caches: raw.exclude_caches,
            one_file_system: raw.one_file_system,
            tags: raw.tags.into_iter().filter_map(|tag| self.label(Some(tag))).collect(),
            location: self.label(raw.location),
            account: self.label(raw.account),
            rpo: raw.rpo,
            rto: raw.rto,
            schedule: self.label(raw.schedule),
            pitr: raw.pitr,
            retention: self.retention(raw.retention),
            drill: raw.drill.map(Unread),
        };
        (name.into_inner(), dataset)
    }

    fn source(&mut self, source: Option<Text>, paths: Option<Spanned<Vec<Text>>>) -> Option<DatasetSource> {
        match (source, paths) {
            (Some(source), Some(_)) => {
                self.problems.add(source.span(), "source and paths both say what it is: give one of them");
                None
            }
            (None, Some(paths)) => {
                if paths.get_ref().is_empty() {
                    self.problems.add(paths.span(), "paths is empty");
                }
                let paths = paths.get_ref().iter().filter_map(|path| self.path(path));
                Some(DatasetSource::Paths(paths.collect()))
            }
            (Some(source), None) => match source.get_ref().strip_prefix("file://") {
                Some(path) => {
                    let path = Spanned::new(source.span(), path.to_owned());
                    self.path(&path).map(|path| DatasetSource::Paths(vec![path]))
                }
                None if source.get_ref().contains("://") => {
                    if let Err(error) = Site::of(source.get_ref(), &OpenOptions::default()) {
                        self.problems.add(source.span(), error.to_string());
                    }
                    Some(DatasetSource::Uri(SecretUri::new(source.into_inner())))
                }
                None => self.path(&source).map(|path| DatasetSource::Paths(vec![path])),
            },
            (None, None) => None,
        }
    }

    fn app(&mut self, name: Text, raw: RawApp, datasets: &BTreeMap<String, Dataset>) -> (String, App) {
        if !is_name(name.get_ref()) {
            self.problems.add(name.span(), format!("`{}`: {NAME_RULE}", name.get_ref()));
        }
        if raw.datasets.get_ref().is_empty() {
            self.problems.add(raw.datasets.span(), "an application without datasets");
        }
        let mut members: Vec<String> = Vec::new();
        for member in raw.datasets.into_inner() {
            let known = || datasets.keys().map(String::as_str);
            if !datasets.contains_key(member.get_ref()) {
                let mut message = format!("there is no [dataset.{}]", member.get_ref());
                if let Some(meant) = did_you_mean(member.get_ref(), known()) {
                    message.push_str(&format!("; did you mean `{meant}`?"));
                }
                self.problems.add(member.span(), message);
            } else if members.contains(member.get_ref()) {
                self.problems.add(member.span(), format!("`{}` is listed twice", member.get_ref()));
            }
            members.push(member.into_inner());
        }
        (name.into_inner(), App { datasets: members })
    }
}

/// Whether two stores are one, however they are written.
fn is_same_place(one: &SecretUri, other: &SecretUri) -> bool {
    let place = |uri: &SecretUri| {
        let site = Site::of(uri.expose(), &OpenOptions::default()).ok()?;
        // The region and the account are ways to a bucket, not parts of its name.
        Some((site.scheme, site.bucket, site.host, site.path))
    };
    place(one).is_some_and(|place_of_one| Some(place_of_one) == place(other))
}

fn alerts(raw: RawAlerts) -> Alerts {
    let RawAlerts { webhook, email, command, ping } = raw;
    Alerts { webhook, email: email.map(|email| (email.to, email.smtp)), command, ping }
}
