use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use snap_ops::{Config, KeyRef, ResolvedCopy};

use super::{Done, Outcome};
use crate::app::App;
use crate::args::ConfigCommand;
use crate::config::{self, Origin};
use crate::exit::{Exit, Failure};
use crate::keys::KeySource;
use crate::render::{json, text};
use crate::select;

pub fn run(app: &App, command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check => check(app),
        ConfigCommand::Show => show(app),
        ConfigCommand::Init => init(app),
    }
}

fn check(app: &App) -> Outcome {
    let Some(config) = app.config()? else {
        let looked: Vec<_> = config::candidates(app).iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(Exit::Failed, "there is no snap.toml")
            .cause(format!("looked for {}", looked.join(", ")))
            .hint("`snap config init` writes an example; --config names a file"));
    };
    let warnings = warnings(app, config);
    warnings.iter().for_each(|warning| app.out.warning(warning));
    app.out.done(&format!(
        "{}: {}, {}, {}",
        config.file.display(),
        text::counted(config.copies.len() as u64, "copy", "copies"),
        text::counted(config.datasets.len() as u64, "dataset", "datasets"),
        text::counted(config.apps.len() as u64, "application", "applications"),
    ));
    Ok(Done::with(json::object(json!({
        "file": config.file.display().to_string(),
        "copies": config.copies.len(),
        "datasets": config.datasets.len(),
        "apps": config.apps.len(),
        "warnings": warnings.len(),
    }))))
}

/// What a run on this machine would miss.
fn warnings(app: &App, config: &Config) -> Vec<String> {
    let mut out = Vec::new();
    let mut miss = |what: &str, path: &Path| {
        if !path.exists() {
            out.push(format!("{what} {} is not there", path.display()));
        }
    };
    // A reader's key is usually on another host only.
    let keys = config.copies.iter().map(|copy| &copy.keys).chain([&config.keys]);
    let mut seen: Vec<&KeyRef> = Vec::new();
    for key in keys.filter_map(|keys| keys.key.as_ref()) {
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        match key {
            KeyRef::File(path) => miss("the key file", path),
            KeyRef::PasswordFile(path) => miss("the password file", path),
            KeyRef::PasswordCommand(_) | KeyRef::PasswordWords(_) => {}
        }
    }
    for (name, dataset) in &config.datasets {
        if let Some(snap_ops::DatasetSource::Paths(paths)) = &dataset.source {
            paths.iter().for_each(|path| miss(&format!("the source of {name},"), path));
        }
        dataset.exclude_files.iter().for_each(|path| miss(&format!("the exclude-file of {name},"), path));
    }
    let env = |name: &str| app.env.text(name);
    for copy in &config.copies {
        for (variable, secret) in copy.credentials.iter() {
            if let Err(error) = secret.resolve(&env) {
                out.push(format!("the copy {}: no {variable}: {error}", copy.name));
            }
        }
    }
    out
}

fn show(app: &App) -> Outcome {
    let config = app.config()?;
    let (copies, origin) = match config::copies(app)? {
        Some((copies, origin)) => (copies.iter().cloned().collect(), origin),
        None => (Vec::new(), Origin::Default),
    };
    if app.out.options().json {
        let file = config.map(|config| config.file.display().to_string());
        let used = copies.iter().map(|copy| shown(app, copy)).collect::<Result<Vec<_>, _>>()?;
        let written = config.map(|config| serde_json::to_value(config.shown_value())).transpose();
        let written = written.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        app.out.event(json::object(json!({
            "event": "config",
            "file": file,
            "repository": { "from": origin.as_str(), "copies": used },
            "config": written,
        })));
        return Ok(Done::plain());
    }
    match config {
        Some(config) => app.out.line(&format!("# {}", config.file.display())),
        None => app.out.line("# no snap.toml"),
    }
    for line in explain(app, &copies, origin)? {
        app.out.line(&format!("# {line}"));
    }
    if let Some(config) = config {
        app.out.line("");
        app.out.line(config.shown().trim_end());
    }
    Ok(Done::plain())
}

/// What a run would use, for people.
fn explain(app: &App, copies: &[ResolvedCopy], origin: Origin) -> Result<Vec<String>, Failure> {
    let from = match origin {
        Origin::Flag => "from --repo",
        Origin::Environment => "from SNAP_REPO",
        Origin::Config => "from this file",
        Origin::Default => return Ok(vec!["used: the default repository in your data directory".to_owned()]),
    };
    let line = |copy: &ResolvedCopy| -> Result<String, Failure> {
        let key = match key(app, copy)? {
            Some((kind, from)) => format!("{kind} from {from}"),
            None => "none, so a password is asked for".to_owned(),
        };
        Ok(format!("used: {} {} ({from}); key: {key}", copy.name, copy.uri))
    };
    copies.iter().map(line).collect()
}

fn shown(app: &App, copy: &ResolvedCopy) -> Result<json::Object, Failure> {
    let key = key(app, copy)?.map(|(kind, from)| json!({ "kind": kind, "from": from }));
    Ok(json::object(json!({
        "name": copy.name,
        "uri": copy.uri.to_string(),
        "media": copy.media,
        "location": copy.location,
        "account": copy.account,
        "immutable": copy.immutable,
        "key": key,
    })))
}

/// Kind of the key and where it is named.
fn key(app: &App, copy: &ResolvedCopy) -> Result<Option<(&'static str, &'static str)>, Failure> {
    let found = match KeySource::from_flags(&app.global)? {
        Some(source) => Some((source, "flag")),
        None => match KeySource::from_env(&app.env)? {
            Some(source) => Some((source, "environment")),
            None => config::key(app, copy, false)?.map(|source| (source, "config")),
        },
    };
    Ok(found.map(|(source, from)| (source.kind(), from)))
}

fn init(app: &App) -> Outcome {
    let file = match config::named(app)? {
        Some(file) => file,
        None => select::working_dir()?.join(config::FILE_NAME),
    };
    write_new(&file).map_err(|error| {
        let failure = Failure::io(format!("cannot write {}", file.display()), &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("it is left as it is; --config names another"),
            _ => failure,
        }
    })?;
    app.out.done(&format!("wrote {}: take away the # of the lines that you want", file.display()));
    Ok(Done::with(json::object(json!({ "file": file.display().to_string() }))))
}

/// For this user alone: passwords may come to stand in it.
fn write_new(file: &PathBuf) -> std::io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    new.write_all(snap_ops::EXAMPLE.as_bytes())?;
    new.sync_all()
}
