//! `check --repair`.

use serde_json::json;
use snap_engine::{CheckOptions, CheckReport, HealOptions, HealReport, Sibling, check, heal};
use snap_repo::{Area, Finding, FindingCode, RepoError, WriterOptions, parse_object_name};

use super::check::show_findings;
use super::{Done, Outcome};
use crate::app::App;
use crate::copies;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Opened, Place, Purpose};
use crate::system;

/// Blobs that are nowhere are what is left for it.
const LEFT: &str = "restore what you need now: `snap restore` brings back all but what is named here. Delete nothing in the store; \
                    connect copies that are away, and run this again";

pub fn run(app: &App, options: CheckOptions) -> Outcome {
    let place = Place::find(app)?;
    let siblings = copies::siblings(app, &place)?;
    let others = Place::siblings(app, &place)?.len();
    let (opened, keys) = open(app, &place, &siblings)?;
    opened.repository.keyring().require_owner("check --repair")?;
    opened.require_current_keys()?;
    let siblings = of_this(app, &opened, siblings)?;
    let before = look(app, &opened, &options)?;
    before.findings.iter().for_each(|finding| app.out.event(json::finding(finding)));
    keys.iter().for_each(|(object, from)| tell_object(app, object, from));
    if before.findings.is_empty() {
        show_findings(app, &before);
        return Ok(Done::with(summary(&before, &before, keys.len() as u64, &HealReport::default())));
    }
    show_findings(app, &before);
    let host = system::host_name();
    let pack_target = WriterOptions::default().pack_target;
    let has_all_copies = siblings.len() == others;
    let heal_options = HealOptions { time: system::now(), host: &host, has_all_copies, pack_target };
    let observer = CliObserver::without_findings(app);
    let (repository, cache) = (&opened.repository, opened.cache.as_ref());
    let report = app.engine(&observer, |context| {
        heal(repository, &siblings, &before.findings, cache, &heal_options, context)
    })?;
    tell(app, &report);
    // Under keys that may be newer now.
    let opened = repo::open_place(app, &place, Purpose::Checking)?;
    let mut after = look(app, &opened, &options)?;
    add_unhealed(&mut after.findings, &before.findings, &report);
    let is_new = |finding: &&Finding| !before.findings.iter().any(|other| other.object == finding.object);
    after.findings.iter().filter(is_new).for_each(|finding| app.out.event(json::finding(finding)));
    if after.findings.is_empty() {
        app.out.done("checked again: no damage is left");
    } else {
        app.out.line("what is left:");
        show_findings(app, &after);
        app.out.tell(&format!("hint: {LEFT}"));
    }
    let exit = if after.findings.is_empty() { Exit::Done } else { Exit::Damage };
    let healed =
        keys.len() as u64 + (before.findings.len() as u64).saturating_sub(still_there(&before, &after));
    Ok(Done { exit, summary: summary(&before, &after, healed, &report) })
}

/// Keys that were put back, and the copy that had them.
type Keys = Vec<(String, String)>;

/// Opens the copy; config and epochs that are damaged there are taken from others first, since nothing can be judged without.
fn open(app: &App, place: &Place, siblings: &[Opened]) -> Result<(Opened, Keys), Failure> {
    let backend = place.connect(app, false)?;
    let mut keys = Keys::new();
    for sibling in siblings {
        match sibling.repository.put_back_keys(backend.as_ref(), system::now()) {
            Ok(names) => keys.extend(names.into_iter().map(|name| (name, sibling.copy.name.clone()))),
            Err(error @ RepoError::CopiesForked { .. }) => return Err(error.into()),
            // Whether that matters shows when it is opened.
            Err(_) => {}
        }
    }
    Ok((repo::open_place(app, place, Purpose::Checking)?, keys))
}

/// Those that are copies of this repository.
fn of_this(app: &App, opened: &Opened, siblings: Vec<Opened>) -> Result<Vec<Sibling>, Failure> {
    let mut out = Vec::new();
    for sibling in siblings {
        let name = sibling.copy.name;
        match opened.repository.compare_epochs(&sibling.repository) {
            Ok(_) => out.push(Sibling { name, repository: sibling.repository }),
            Err(error @ RepoError::CopiesForked { .. }) => return Err(error.into()),
            Err(error) => app.out.warning(&format!("the copy {name} is not asked: {error}")),
        }
    }
    Ok(out)
}

fn look(app: &App, opened: &Opened, options: &CheckOptions) -> Result<CheckReport, Failure> {
    let observer = CliObserver::without_findings(app);
    app.engine(&observer, |context| check(&opened.repository, options, context))
}

/// A second look at a part of the data is at another part: what was found and not healed is there all the same.
fn add_unhealed(after: &mut Vec<Finding>, before: &[Finding], report: &HealReport) {
    let is_left = |finding: &&Finding| {
        let is_pack = parse_object_name(&finding.object).is_some_and(|(area, _)| area == Area::Packs);
        let is_rotten = matches!(finding.code, FindingCode::Corrupt | FindingCode::Misnamed);
        let is_healed = report.objects.iter().any(|(object, _)| *object == finding.object);
        let is_gone = report.removed.contains(&finding.object);
        is_pack && is_rotten && !is_healed && !is_gone
    };
    for finding in before.iter().filter(is_left) {
        if !after.iter().any(|other| other.object == finding.object) {
            after.push(finding.clone());
        }
    }
    after.sort();
}

fn still_there(before: &CheckReport, after: &CheckReport) -> u64 {
    let is_left = |finding: &&Finding| after.findings.iter().any(|other| other.object == finding.object);
    before.findings.iter().filter(is_left).count() as u64
}

fn tell_object(app: &App, object: &str, from: &str) {
    app.out.event(json::object(json!({ "event": "healed", "object": object, "from": from })));
    app.out.done(&format!("brought back {object} from the copy {from}"));
}

fn tell(app: &App, report: &HealReport) {
    report.objects.iter().for_each(|(object, from)| tell_object(app, object, from));
    let tell = |count: u64, one: &str, many: &str, what: &str| {
        if count > 0 {
            app.out.done(&format!("{} {what}", text::counted(count, one, many)));
        }
    };
    tell(report.indexed, "pack", "packs", "named in the index again");
    tell(report.blobs, "blob", "blobs", "stored again from other copies, or from what is left here");
    tell(report.file_blobs, "blob", "blobs", "stored again from files of this host");
    tell(report.snapshots.len() as u64, "snapshot", "snapshots", "brought back");
    tell(
        report.forgotten.len() as u64,
        "snapshot",
        "snapshots",
        "that other copies forgot, and that are in none, noted as forgotten",
    );
    if report.removed.iter().any(|object| is_record(object)) {
        app.out.warning(
            "a record that nobody can read any more was taken away: if it was a pin that no other copy had, set it again \
             (`snap pin --list` shows those that are there)",
        );
    }
    tell(
        report.removed.len() as u64,
        "damaged object",
        "damaged objects",
        "taken away: nothing needs them any more",
    );
    tell(report.lost, "blob", "blobs", "that snapshots need could not be found anywhere");
}

fn is_record(object: &str) -> bool {
    parse_object_name(object).is_some_and(|(area, _)| area == Area::Records)
}

fn summary(before: &CheckReport, after: &CheckReport, healed: u64, report: &HealReport) -> json::Object {
    let from: Vec<_> =
        report.objects.iter().map(|(object, from)| json!({ "object": object, "from": from })).collect();
    json::object(json!({
        "findings": after.findings.len(),
        "found": before.findings.len(),
        "healed": healed,
        "objects": after.objects,
        "read_bytes": after.read_bytes,
        "brought_back": from,
        "indexed": report.indexed,
        "blobs": report.blobs,
        "file_blobs": report.file_blobs,
        "snapshots": report.snapshots.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        "forgotten": report.forgotten.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        "removed": report.removed,
        "lost": report.lost,
    }))
}
