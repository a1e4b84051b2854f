use serde_json::json;
use snap_engine::EngineError;
use snap_engine::look::{History, Version, versions};
use snap_format::ObjectId;

use super::find::{exit_of, history};
use super::ls::tell_rescued;
use super::{Done, Outcome};
use crate::app::App;
use crate::args::VersionsArgs;
use crate::args::values::absolute;
use crate::exit::Failure;
use crate::render::{CliObserver, json, quote, text};
use crate::{repo, select};

pub fn run(app: &App, args: &VersionsArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("versions")?;
    let path = absolute(&args.of, &select::working_dir()?);
    let snapshots = select::load(app, &opened, &args.filter, false)?.list;
    if snapshots.is_empty() {
        return Err(EngineError::NoSnapshot("there is no snapshot that fits".into()).into());
    }
    let history = history(app, &opened, &snapshots)?;
    let observer = CliObserver::new(app);
    let found = app.engine(&observer, |context| versions(&history, &path, context));
    tell_rescued(app, &opened, history.reader());
    let found = found?;
    let searched = history.past().len() as u64;
    if found.list.is_empty() && found.unknown.is_empty() {
        let snapshots = text::counted(searched, "snapshot", "snapshots");
        let failure =
            EngineError::NoSnapshot(format!("{} is in none of {snapshots}", text::printable(&path)));
        return Err(Failure::from(failure).hint("`snap find NAME` looks for it in all of them"));
    }
    if app.out.options().json {
        found.list.iter().for_each(|version| app.out.event(event(&history, &path, version)));
    } else {
        show(app, &history, &path, &found.list);
        let mut told = format!(
            "{} in {}",
            text::counted(found.list.len() as u64, "version", "versions"),
            text::counted(searched, "snapshot", "snapshots")
        );
        if !found.absent.is_empty() {
            told.push_str(&format!("; {} without it", text::count(found.absent.len() as u64)));
        }
        app.out.done(&told);
    }
    let summary = json::object(json!({
        "snapshots": searched,
        "versions": found.list.len(),
        "absent": found.absent.len(),
        "unknown": found.unknown.len(),
    }));
    Ok(Done { exit: exit_of(&history), summary })
}

/// The newest snapshot that holds a version.
fn newest<'a>(history: &'a History, version: &Version) -> &'a ObjectId {
    let last = version.snapshots.last().expect("a version is of some snapshot");
    &history.past()[*last].snapshot.id
}

fn event(history: &History, path: &[u8], version: &Version) -> json::Object {
    let mut out = json::node(newest(history, version), path, &version.node);
    let ids: Vec<String> =
        version.snapshots.iter().map(|number| history.past()[*number].snapshot.id.to_hex()).collect();
    out.insert("snapshots".into(), ids.into());
    out.insert("change".into(), version.change.map(|change| change.as_str()).into());
    out
}

fn show(app: &App, history: &History, path: &[u8], list: &[Version]) {
    let time = |number: &usize| text::date_time(history.past()[*number].snapshot.envelope.time);
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|version| {
            let word = [text::short(newest(history, version)).as_bytes(), b":", path].concat();
            vec![
                text::date_time(version.node.mtime),
                text::mode(&version.node.kind, version.node.mode),
                text::count(version.node.size()),
                version.change.map_or("first", |change| change.as_str()).to_owned(),
                version.snapshots.first().map(time).unwrap_or_default(),
                version.snapshots.last().map(time).unwrap_or_default(),
                text::count(version.snapshots.len() as u64),
                quote::word(&word),
            ]
        })
        .collect();
    let headings =
        ["modified (UTC)", "mode", ">size", "change", "from (UTC)", "to (UTC)", ">snapshots", "newest"];
    for line in text::table(&headings, &rows) {
        app.out.line(&line);
    }
}
