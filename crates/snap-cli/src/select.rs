//! Which snapshot is meant.

use std::collections::HashMap;
use std::path::PathBuf;

use snap_engine::{Selector, SnapshotFilter};
use snap_format::ObjectId;
use snap_repo::Snapshot;

use crate::app::App;
use crate::args::FilterArgs;
use crate::args::values::absolute;
use crate::exit::Failure;
use crate::render::text;
use crate::repo::Opened;

/// Snapshots that pass the filters, oldest first.
pub struct Snapshots {
    /// They.
    pub list: Vec<Snapshot>,
    /// Their source paths, where they were looked up and the role may know them.
    pub paths: HashMap<ObjectId, Vec<Vec<u8>>>,
}

/// The snapshot that a name means.
pub struct Chosen {
    /// It.
    pub snapshot: Snapshot,
    /// `dataset@host` of all that the name could have meant, if several.
    pub groups: Vec<String>,
}

/// Reads the snapshots. What is damaged or forged is told and does not hide the others.
pub fn load(app: &App, opened: &Opened, filter: &FilterArgs, with_paths: bool) -> Result<Snapshots, Failure> {
    let repository = &opened.repository;
    let filter = engine_filter(app, filter)?;
    if !filter.paths.is_empty() {
        repository.keyring().require_reader("filtering by --path")?;
    }
    let set = repository.snapshots()?;
    for finding in &set.findings {
        app.out.finding(finding);
    }
    let mut paths: HashMap<ObjectId, Vec<Vec<u8>>> = HashMap::new();
    let looks = (with_paths || !filter.paths.is_empty()) && repository.keyring().can_read();
    if looks {
        let (bodies, findings) = repository.open_bodies(&set.snapshots)?;
        findings.iter().for_each(|finding| app.out.finding(finding));
        paths = bodies.into_iter().map(|(id, body)| (id, body.paths)).collect();
    }
    let known = |snapshot: &Snapshot| paths.get(&snapshot.id).map_or(&[][..], Vec::as_slice);
    let fits = |snapshot: &Snapshot| filter.matches(snapshot, known(snapshot));
    let list = set.snapshots.iter().filter(|snapshot| fits(snapshot)).cloned().collect();
    Ok(Snapshots { list, paths })
}

fn engine_filter(app: &App, own: &FilterArgs) -> Result<SnapshotFilter, Failure> {
    let FilterArgs { host, dataset, tag, path } = app.filter(own);
    let paths = if path.is_empty() { Vec::new() } else { absolute_all(&path)? };
    Ok(SnapshotFilter { hosts: host, datasets: dataset, tags: tag, paths })
}

fn absolute_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    let working_dir = working_dir()?;
    Ok(paths.iter().map(|path| absolute(path, &working_dir)).collect())
}

/// The working directory.
pub fn working_dir() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::io("the working directory is gone", &error))
}

/// Finds the snapshot that `name` means after the filters.
pub fn choose(app: &App, opened: &Opened, filter: &FilterArgs, name: &str) -> Result<Chosen, Failure> {
    let selector = Selector::parse(name)?;
    let snapshots = load(app, opened, filter, false)?;
    let list: Vec<&Snapshot> = snapshots.list.iter().collect();
    let found = selector.select(&list)?;
    Ok(Chosen { snapshot: found.snapshot.clone(), groups: found.groups })
}

/// The same for a command that reads: if several datasets or hosts remain, it says which snapshot it takes.
pub fn choose_and_tell(
    app: &App,
    opened: &Opened,
    filter: &FilterArgs,
    name: &str,
) -> Result<Snapshot, Failure> {
    let chosen = choose(app, opened, filter, name)?;
    if !chosen.groups.is_empty() {
        tell(app, &chosen);
    }
    Ok(chosen.snapshot)
}

/// Says which snapshot was taken of which groups.
pub fn tell(app: &App, chosen: &Chosen) {
    app.out.note(&format!(
        "taking {}; there are snapshots of {} (--dataset and --host choose)",
        describe(&chosen.snapshot),
        text::printable(chosen.groups.join(", ").as_bytes()),
    ));
}

/// `4f2a… (files@web1, 2026-01-31 14:05:09 UTC)`.
pub fn describe(snapshot: &Snapshot) -> String {
    let envelope = &snapshot.envelope;
    format!(
        "{} ({}@{}, {} UTC)",
        text::short(&snapshot.id),
        text::printable(envelope.dataset.as_bytes()),
        text::printable(envelope.host.as_bytes()),
        text::date_time(envelope.time)
    )
}
