use serde_json::json;
use snap_engine::{CopyOptions, CopyReport, copy_snapshots, note_forgotten};
use snap_repo::Repository;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::CopyArgs;
use crate::copies::{self, Copies};
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{Opened, Place, Purpose};
use crate::system;

/// What one copy got.
#[derive(Default)]
struct Got {
    report: CopyReport,
    /// Snapshots that it never had and that are noted there as forgotten.
    forgotten: u64,
    /// Why it is not up to date.
    failed: Option<Failure>,
}

pub fn run(app: &App, args: &CopyArgs) -> Outcome {
    let (places, from) = places(app, args)?;
    let all = places.len().max(Place::all(app)?.len());
    let mut copies = copies::open_places(app, places, Purpose::Keys, args.dry_run)?;
    let names: Vec<String> = copies.opened.iter().map(|opened| opened.copy.name.clone()).collect();
    if let Some(from) = from.as_ref().filter(|from| !names.contains(from)) {
        copies.tell(app, Vec::new(), false);
        return Err(Failure::new(Exit::Failed, format!("the copy {from} cannot be read"))
            .hint("see the warnings above"));
    }
    let is_target = |name: &String| match args.to.as_slice() {
        [] => Some(name) != from.as_ref(),
        wanted => wanted.contains(name),
    };
    let mut got = Vec::new();
    for target in copies.opened.iter().filter(|opened| is_target(&opened.copy.name)) {
        let is_source = |source: &&Opened| {
            let name = &source.copy.name;
            *name != target.copy.name && from.as_ref().is_none_or(|from| from == name)
        };
        let sources: Vec<&Opened> = copies.opened.iter().filter(is_source).collect();
        let mut brought = bring(app, args, &sources, target);
        if sources.len() + 1 == all && !args.dry_run && brought.failed.is_none() {
            let sources: Vec<&Repository> = sources.iter().map(|source| &source.repository).collect();
            brought.forgotten = note_forgotten(&sources, &target.repository, system::now())?;
        }
        got.push((target.copy.name.clone(), brought));
    }
    finish(app, args, &mut copies, got)
}

/// The copies that take part, and the name of the one to take from.
fn places(app: &App, args: &CopyArgs) -> Result<(Vec<Place>, Option<String>), Failure> {
    let mut places = Place::all(app)?;
    let is_known = |places: &[Place], name: &str| places.iter().any(|place| place.copy.name == name);
    if let Some(name) = args.to.iter().find(|name| !is_known(&places, name)) {
        let names: Vec<_> = places.iter().map(|place| place.copy.name.clone()).collect();
        return Err(Failure::usage(format!("--to {name}: there is no such copy"))
            .hint(format!("there are {}", names.join(", "))));
    }
    let mut from = args.from.clone();
    if let Some(name) = &args.from
        && !is_known(&places, name)
    {
        let mut place = Place::named(app, name)?;
        "source".clone_into(&mut place.copy.name);
        from = Some(place.copy.name.clone());
        places.push(place);
    }
    if !args.to.is_empty() && from.is_some() {
        places.retain(|place| args.to.contains(&place.copy.name) || Some(&place.copy.name) == from.as_ref());
    }
    if places.len() < 2 {
        return Err(Failure::usage("there is one copy only, and nothing to copy from or to")
            .hint("name the copies in snap.toml as [[repository.copies]], or give --from"));
    }
    Ok((places, from))
}

/// Brings one copy up to date from each of the others.
fn bring(app: &App, args: &CopyArgs, sources: &[&Opened], target: &Opened) -> Got {
    let mut got = Got::default();
    for source in sources {
        let options = CopyOptions { dry_run: args.dry_run, ..CopyOptions::new(system::now()) };
        let observer = CliObserver::new(app);
        let outcome = app.engine(&observer, |context| {
            copy_snapshots(&source.repository, &target.repository, target.cache.as_ref(), &options, context)
        });
        match outcome {
            Ok(report) => {
                let all = &mut got.report;
                all.left.retain(|id| !report.snapshots.contains(id));
                let new = report.snapshots.into_iter().filter(|id| !all.snapshots.contains(id));
                let new: Vec<_> = new.collect();
                all.snapshots.extend(new);
                let left = report.left.into_iter().filter(|id| !all.left.contains(id));
                let left: Vec<_> = left.collect();
                all.left.extend(left);
                all.packs += report.packs;
                all.stored_bytes += report.stored_bytes;
                all.records += report.records;
            }
            Err(failure) => {
                let (from, to) = (&source.copy.name, &target.copy.name);
                let why = copies::in_words(&failure);
                app.out.warning(&format!("copying from {from} to {to} failed: {why}"));
                got.failed.get_or_insert(failure);
                if app.signals.exit().is_some() {
                    break;
                }
            }
        }
    }
    let all = &mut got.report;
    let snapshots = std::mem::take(&mut all.snapshots);
    all.left.retain(|id| !snapshots.contains(id));
    all.snapshots = snapshots;
    got
}

fn finish(app: &App, args: &CopyArgs, copies: &mut Copies, got: Vec<(String, Got)>) -> Outcome {
    let verb = if args.dry_run { "would get" } else { "got" };
    let mut exit = Exit::Done;
    let (mut all, mut all_forgotten) = (CopyReport::default(), 0);
    let mut states = copies.states(app);
    for (name, Got { report, forgotten, failed }) in got {
        let snapshots = text::counted(report.snapshots.len() as u64, "snapshot", "snapshots");
        app.out.done(&format!(
            "{name} {verb} {snapshots}, {} in {}",
            text::bytes(report.stored_bytes),
            text::counted(report.packs, "pack", "packs")
        ));
        let mut reason = failed.as_ref().map(copies::in_words);
        if !report.left.is_empty() {
            let left = text::counted(report.left.len() as u64, "snapshot", "snapshots");
            let why =
                format!("{left} could not be copied: damaged where they are, or of another key's domain");
            app.out.warning(&format!("{name}: {why}"));
            exit = Exit::Damage;
            reason.get_or_insert(why);
        }
        if let Some(failure) = failed {
            if failure.exit == Exit::Interrupted || failure.exit == Exit::Terminated {
                return Err(failure);
            }
            exit = if exit == Exit::Damage { exit } else { Exit::Failed };
        }
        let mut state = json::object(json!({
            "name": name,
            "state": if reason.is_none() { "ok" } else { "lagging" },
            "snapshots": report.snapshots.len(),
        }));
        if let Some(reason) = reason {
            state.insert("reason".to_owned(), reason.into());
        }
        states.retain(|other| other["name"] != name);
        states.push(state.into());
        all.packs += report.packs;
        all.stored_bytes += report.stored_bytes;
        all.records += report.records;
        all_forgotten += forgotten;
        all.snapshots.extend(report.snapshots);
    }
    let summary = json::object(json!({
        "snapshots": all.snapshots.len(),
        "packs": all.packs,
        "stored_bytes": all.stored_bytes,
        "records": all.records,
        "forgotten": all_forgotten,
        "dry_run": args.dry_run,
        "copies": states,
    }));
    Ok(Done { exit, summary })
}
