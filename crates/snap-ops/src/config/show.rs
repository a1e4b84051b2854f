//! The configuration as it was understood, without its secrets.

use std::path::Path;

use toml::{Table, Value};

use super::{Alerts, Config, Dataset, DatasetSource};
use crate::secret::credential_name;
use crate::{Credentials, KeyConfig, KeyRef, Price, ResolvedCopy, Retention, SecretText};

const REDACTED: &str = "[redacted]";

/// A table in which what is absent, false or empty is left out.
#[derive(Default)]
struct Fields(Table);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn text(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(name, value.to_string());
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.put(name, true);
        }
    }

    fn list(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<Value> = values.into_iter().map(Value::from).collect();
        if !values.is_empty() {
            self.put(name, values);
        }
    }

    fn table(&mut self, name: &str, table: Table) {
        if !table.is_empty() {
            self.put(name, table);
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn table(config: &Config) -> Table {
    let mut repository = Fields::default();
    keys(&mut repository, &config.keys);
    let copies: Vec<Value> = config.copies.iter().map(|it| copy(it, &config.keys).into()).collect();
    if !copies.is_empty() {
        repository.put("copies", copies);
    }
    let datasets = config.datasets.iter().map(|(name, it)| (name.clone(), dataset(it).into())).collect();
    let app = |datasets: &[String]| {
        let mut out = Fields::default();
        out.list("datasets", datasets.to_vec());
        Value::from(out.0)
    };
    let apps = config.apps.iter().map(|(name, it)| (name.clone(), app(&it.datasets))).collect();
    let mut out = Fields::default();
    out.table("repository", repository.0);
    out.table("dataset", datasets);
    out.table("app", apps);
    out.table("alerts", alerts(&config.alerts));
    out.0
}

fn keys(out: &mut Fields, keys: &KeyConfig) {
    match &keys.key {
        None => {}
        Some(KeyRef::File(path)) => out.put("key-file", shown(path)),
        Some(KeyRef::PasswordFile(path)) => out.put("password-file", shown(path)),
        Some(KeyRef::PasswordCommand(_)) => out.put("password-command", REDACTED),
        Some(KeyRef::PasswordWords(words)) => out.list("password-command", command(words)),
    }
    out.text("read-key-file", keys.read_key_file.as_deref().map(shown));
}

/// The program is worth seeing; an argument may be a secret.
fn command(words: &[SecretText]) -> impl Iterator<Item = String> {
    let shown = |(at, word): (usize, &SecretText)| if at == 0 { word.expose() } else { REDACTED }.to_owned();
    words.iter().enumerate().map(shown)
}

fn copy(copy: &ResolvedCopy, of_repository: &KeyConfig) -> Table {
    let mut out = Fields::default();
    out.put("name", copy.name.clone());
    out.put("uri", copy.uri.to_string());
    out.text("media", copy.media.as_ref());
    out.text("location", copy.location.as_ref());
    out.text("account", copy.account.as_ref());
    out.flag("immutable", copy.immutable);
    out.text("lock", copy.lock.map(|lock| lock.length));
    out.text("lock-mode", copy.lock.filter(|lock| !lock.is_final).map(|_| "governance"));
    out.table("credentials", credentials(&copy.credentials));
    out.table("retention", copy.retention.as_ref().map(retention).unwrap_or_default());
    out.table("price", copy.price.as_ref().map(price).unwrap_or_default());
    if copy.keys != *of_repository {
        keys(&mut out, &copy.keys);
    }
    out.0
}

fn price(price: &Price) -> Table {
    let mut out = Fields::default();
    out.put("per-gb", price.of(1_000_000_000, 0));
    out.put("per-1000-requests", price.of(0, 1000));
    out.put("currency", price.currency.clone());
    out.0
}

fn credentials(credentials: &Credentials) -> Table {
    let name = |variable| credential_name(variable).unwrap_or(variable).to_owned();
    credentials.iter().map(|(variable, secret)| (name(variable), secret.shown().into())).collect()
}

fn retention(retention: &Retention) -> Table {
    let mut out = Fields::default();
    for (name, count) in retention.counts().into_iter().filter(|(_, count)| *count > 0) {
        out.put(name, i64::from(count));
    }
    out.text("within", retention.within);
    out.0
}

fn dataset(dataset: &Dataset) -> Table {
    let mut out = Fields::default();
    match &dataset.source {
        None => {}
        Some(DatasetSource::Paths(paths)) => out.list("paths", paths.iter().map(|path| shown(path))),
        Some(DatasetSource::Uri(uri)) => out.put("source", uri.to_string()),
    }
    out.list("exclude", dataset.exclude.clone());
    out.list("exclude-file", dataset.exclude_files.iter().map(|path| shown(path)));
    out.list("exclude-if-present", dataset.exclude_if_present.clone());
    out.flag("exclude-caches", dataset.exclude_caches);
    out.flag("one-file-system", dataset.one_file_system);
    out.list("tags", dataset.tags.clone());
    out.text("location", dataset.location.as_ref());
    out.text("account", dataset.account.as_ref());
    out.text("rpo", dataset.rpo);
    out.text("rto", dataset.rto);
    out.text("schedule", dataset.schedule.as_ref());
    out.flag("pitr", dataset.pitr);
    out.table("retention", dataset.retention.as_ref().map(retention).unwrap_or_default());
    out.text("drill", dataset.drill.as_ref().map(|_| "(not read yet)"));
    out.0
}

fn alerts(alerts: &Alerts) -> Table {
    let mut out = Fields::default();
    out.text("webhook", alerts.webhook.as_ref().map(|_| REDACTED));
    if let Some((to, _)) = &alerts.email {
        let mut email = Fields::default();
        email.put("to", to.clone());
        email.put("smtp", REDACTED);
        out.table("email", email.0);
    }
    out.list("command", command(&alerts.command));
    out.text("ping", alerts.ping.as_ref().map(|_| REDACTED));
    out.0
}
