//! Which snapshot is meant.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use snap_backend::ErrorKind;
use snap_engine::{EngineError, Selector, SnapshotFilter};
use snap_format::{Details, ObjectId, Time};
use snap_mount::ListSnapshots;
use snap_repo::{Overlays, RepoError, Repository, Snapshot, SnapshotSet};

use crate::app::App;
use crate::args::FilterArgs;
use crate::args::values::absolute;
use crate::copies;
use crate::exit::Failure;
use crate::render::text;
use crate::repo::{Opened, Place, Purpose};

/// Snapshots that pass the filters, oldest first, with the tags that they have now where tags were asked for.
pub struct Snapshots {
    /// They.
    pub list: Vec<Snapshot>,
    /// Their source paths, where they were looked up and the role may know them.
    pub paths: HashMap<ObjectId, Vec<Vec<u8>>>,
    /// What is known of those that are databases, where paths are.
    pub details: HashMap<ObjectId, Details>,
    /// What records say of them, where they were read.
    pub overlays: Overlays,
}

/// All snapshots, and which of them pass the filters.
pub struct Everything {
    /// All of them, oldest first.
    pub all: Vec<Snapshot>,
    /// Those that pass.
    pub meant: HashSet<ObjectId>,
    /// As in [`Snapshots`].
    pub paths: HashMap<ObjectId, Vec<Vec<u8>>>,
    /// What is known of those that are databases, where paths are.
    pub details: HashMap<ObjectId, Details>,
    /// What records say of them.
    pub overlays: Overlays,
}

/// The snapshot that a name means.
pub struct Chosen {
    /// It.
    pub snapshot: Snapshot,
    /// `dataset@host` of all that the name could have meant, if several.
    pub groups: Vec<String>,
}

/// Reads the snapshots. What is damaged or forged is told and does not hide the others. Records are read only where a tag
/// is to be compared.
pub fn load(app: &App, opened: &Opened, filter: &FilterArgs, with_paths: bool) -> Result<Snapshots, Failure> {
    let with_records = !app.filter(filter).tag.is_empty();
    let others = Others::ForWhatIsDamaged;
    read(app, opened, filter, Wants { with_paths, with_records, others }).map(meant)
}

/// The same, and what records say of them.
pub fn load_with_records(
    app: &App,
    opened: &Opened,
    filter: &FilterArgs,
    with_paths: bool,
) -> Result<Snapshots, Failure> {
    let wants = Wants { with_paths, with_records: true, others: Others::ForWhatIsDamaged };
    read(app, opened, filter, wants).map(meant)
}

/// Lists the snapshots that pass the filters, oldest first, as often as it is called.
pub fn lister(app: &App, opened: &Opened, filter: &FilterArgs) -> Result<ListSnapshots, Failure> {
    let filter = engine_filter(app, filter)?;
    let repository = opened.repository.clone();
    Ok(Box::new(move || {
        let (mut set, overlays) = match filter.tags.is_empty() {
            true => (repository.snapshots()?, Overlays::default()),
            false => repository.snapshots_with_overlays()?,
        };
        set.findings.extend(overlays.findings.into_iter().chain(overlays.unreadable));
        let mut bodies = HashMap::new();
        if !filter.paths.is_empty() {
            let (opened, findings) = repository.open_bodies(&set.snapshots)?;
            set.findings.extend(findings);
            bodies = opened;
        }
        let paths = |snapshot: &Snapshot| bodies.get(&snapshot.id).map_or(&[][..], |body| &body.paths);
        set.snapshots.retain(|snapshot| filter.matches(snapshot, paths(snapshot)));
        Ok(set)
    }))
}

/// Everything, for who decides what becomes of it.
pub fn load_all(app: &App, opened: &Opened, filter: &FilterArgs) -> Result<Everything, Failure> {
    read(app, opened, filter, Wants { with_paths: false, with_records: true, others: Others::Never })
}

/// Those that pass the filters, of each copy.
pub fn load_from_all(app: &App, copies: &[Opened], filter: &FilterArgs) -> Result<Vec<Snapshots>, Failure> {
    copies.iter().map(|opened| load_all(app, opened, filter).map(meant)).collect()
}

/// All of these, each once, oldest first.
pub fn union(all: &[Snapshots]) -> Vec<&Snapshot> {
    let mut list: Vec<&Snapshot> = all.iter().flat_map(|snapshots| &snapshots.list).collect();
    list.sort_by_key(|snapshot| (snapshot.envelope.time, snapshot.id));
    list.dedup_by_key(|snapshot| snapshot.id);
    list
}

/// A time for a record that is to outdo those of all copies.
pub fn time_after(all: &[Snapshots], now: Time) -> Time {
    all.iter().fold(now, |time, copy| time.max(copy.overlays.time_after(now)))
}

fn meant(everything: Everything) -> Snapshots {
    let Everything { mut all, meant, paths, details, overlays } = everything;
    all.retain(|snapshot| meant.contains(&snapshot.id));
    Snapshots { list: all, paths, details, overlays }
}

/// Whether other copies are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// This one alone decides.
    Never,
    /// Something in this copy is damaged: it may be a snapshot that another has.
    ForWhatIsDamaged,
}

/// What is read.
#[derive(Clone, Copy)]
struct Wants {
    with_paths: bool,
    with_records: bool,
    others: Others,
}

fn read(app: &App, opened: &Opened, filter: &FilterArgs, wants: Wants) -> Result<Everything, Failure> {
    let Wants { with_paths, with_records, others } = wants;
    let repository = &opened.repository;
    let filter = engine_filter(app, filter)?;
    if !filter.paths.is_empty() {
        repository.keyring().require_reader("filtering by --path")?;
    }
    let (mut set, overlays) = match with_records {
        true => with_overlays(app, repository)?,
        false => (repository.snapshots()?, Overlays::default()),
    };
    for finding in set.findings.iter().chain(&overlays.findings).chain(&overlays.unreadable) {
        app.out.finding(finding);
    }
    if !set.findings.is_empty() && others == Others::ForWhatIsDamaged {
        fill_in(app, opened, &mut set);
    }
    let (mut paths, mut details) = (HashMap::<ObjectId, Vec<Vec<u8>>>::new(), HashMap::new());
    let looks = (with_paths || !filter.paths.is_empty()) && repository.keyring().can_read();
    if looks {
        let (bodies, findings) = repository.open_bodies(&set.snapshots)?;
        findings.iter().for_each(|finding| app.out.finding(finding));
        for (id, body) in bodies {
            paths.insert(id, body.paths);
            details.extend(body.details.map(|details| (id, details)));
        }
    }
    let known = |snapshot: &Snapshot| paths.get(&snapshot.id).map_or(&[][..], Vec::as_slice);
    let fits = |snapshot: &&Snapshot| filter.matches(snapshot, known(snapshot));
    let meant = set.snapshots.iter().filter(fits).map(|snapshot| snapshot.id).collect();
    Ok(Everything { all: set.snapshots, meant, paths, details, overlays })
}

/// Adds the snapshots that another copy has and this one lacks, unless they were forgotten here.
fn fill_in(app: &App, opened: &Opened, set: &mut SnapshotSet) {
    let Ok(overlays) = opened.repository.overlays() else { return };
    let name = &opened.copy.name;
    for place in Place::all(app).unwrap_or_default().iter().filter(|place| place.copy.name != *name) {
        let Ok(other) = copies::open_for_reading(app, place, Purpose::Snapshots) else { continue };
        let is_same = other.repository.id() == opened.repository.id();
        let Ok(others) = other.repository.snapshots() else { continue };
        let is_missing = |snapshot: &Snapshot| {
            is_same
                && !set.snapshots.iter().any(|known| known.id == snapshot.id)
                && !overlays.ever_forgotten().contains(&snapshot.id)
        };
        let mut missing: Vec<Snapshot> = others.snapshots.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            let count = text::counted(missing.len() as u64, "snapshot", "snapshots");
            app.out.warning(&format!(
                "snapshots of the copy {name} are damaged; {count} that it lacks come from the copy {}; `snap check --copy {name} \
                 --repair` brings them back",
                place.copy.name
            ));
            missing.iter_mut().for_each(|snapshot| overlays.apply(snapshot));
            set.snapshots.append(&mut missing);
        }
    }
    set.snapshots.sort_by_key(|snapshot| (snapshot.envelope.time, snapshot.id));
}

/// A machine that only writes may have store credentials that do not let it read records.
fn with_overlays(app: &App, repository: &Repository) -> Result<(SnapshotSet, Overlays), Failure> {
    match repository.snapshots_with_overlays() {
        Err(RepoError::Backend(error))
            if error.kind() == ErrorKind::Permission && !repository.keyring().can_read() =>
        {
            app.out.note("the store does not let this key read records: no pins, and tags as they were made");
            Ok((repository.snapshots()?, Overlays::default()))
        }
        read => Ok(read?),
    }
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

/// The snapshots that `names` mean, for a command that changes what becomes of them: no name may mean several.
pub fn choose_each<'a>(list: &[&'a Snapshot], names: &[String]) -> Result<Vec<&'a Snapshot>, Failure> {
    let mut chosen: Vec<&Snapshot> = Vec::new();
    for name in names {
        let found = Selector::parse(name)?.select(list)?;
        if !found.groups.is_empty() {
            let groups = found.groups.join(", ");
            return Err(EngineError::SeveralGroups { name: name.clone(), groups }.into());
        }
        if !chosen.iter().any(|snapshot| snapshot.id == found.snapshot.id) {
            chosen.push(found.snapshot);
        }
    }
    Ok(chosen)
}

/// The snapshot that `name` means among those that passed the filters; if several datasets or hosts remain, it says which
/// one it takes.
pub fn among(app: &App, list: &[&Snapshot], name: &str) -> Result<ObjectId, Failure> {
    let found = Selector::parse(name)?.select(list)?;
    let chosen = Chosen { snapshot: found.snapshot.clone(), groups: found.groups };
    if !chosen.groups.is_empty() {
        tell(app, &chosen);
    }
    Ok(chosen.snapshot.id)
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
