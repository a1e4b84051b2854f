use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use snap_engine::estimate::Run;
use snap_engine::{CheckOptions, CheckReport, ReadData, check, check_keyless};
use snap_repo::{Area, Finding, FindingCode, RepoError, object_name};

use super::estimate::remember;
use super::{Done, Outcome, heal, immutable};
use crate::app::App;
use crate::args::CheckArgs;
use crate::args::values::Subset;
use crate::copies;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, Output, json, text};
use crate::repo::{self, Place};

/// Paths that are named of one finding; the rest is counted.
const SHOWN_PATHS: usize = 20;

pub fn run(app: &App, args: &CheckArgs) -> Outcome {
    if args.immutable {
        return immutable::run(app, args.require_immutable);
    }
    if args.repair {
        return heal::run(app, CheckOptions { read_data: read_data(args)? });
    }
    let report = if args.keyless { without_key(app)? } else { with_key(app, args)? };
    for finding in &report.findings {
        app.out.event(json::finding(finding));
    }
    show(app, &report);
    let summary = json::object(json!({
        "findings": report.findings.len(),
        "objects": report.objects,
        "read_bytes": report.read_bytes,
        "leftover_packs": report.leftovers.iter().map(|id| object_name(Area::Packs, id).to_string()).collect::<Vec<_>>(),
        "duplicate_blobs": report.duplicates,
    }));
    let exit = if report.findings.is_empty() { Exit::Done } else { Exit::Damage };
    Ok(Done { exit, summary })
}

fn with_key(app: &App, args: &CheckArgs) -> Result<CheckReport, Failure> {
    let options = CheckOptions { read_data: read_data(args)? };
    // What the store holds is to be checked, not what the cache holds.
    let opened = match repo::open(app, repo::Purpose::Checking) {
        Err(failure) if matches!(failure.exit, Exit::NoRepository | Exit::Damage) => {
            return unopened(app, failure);
        }
        opened => opened?,
    };
    let observer = CliObserver::without_findings(app);
    let began = Instant::now();
    let mut report = app.engine(&observer, |context| check(&opened.repository, &options, context))?;
    if args.read_data || args.read_data_subset.is_some() {
        remember(&opened, Run::of_check(report.read_bytes, began.elapsed()));
    }
    report.findings.extend(opened.rolled_back);
    Ok(report)
}

/// What is wrong with a repository that cannot be opened, as far as that can be told without its keys.
fn unopened(app: &App, failure: Failure) -> Result<CheckReport, Failure> {
    let report = without_key(app)?;
    if report.findings.is_empty() {
        return Err(failure);
    }
    app.out.warning(&format!("nothing but names was checked: {}", copies::in_words(&failure)));
    Ok(report)
}

fn without_key(app: &App) -> Result<CheckReport, Failure> {
    let place = Place::find(app)?;
    let backend = place.connect(app, false)?;
    if !repo::exists(place.probe(app)?.as_ref())? && is_empty(backend.as_ref())? {
        return Err(RepoError::NoRepository(backend.location()).into());
    }
    let observer = CliObserver::without_findings(app);
    app.engine(&observer, |context| check_keyless(backend.as_ref(), context))
}

/// Whether there is nothing that could be a repository which lost its config.
fn is_empty(backend: &dyn snap_backend::Backend) -> Result<bool, Failure> {
    let mut found = false;
    for area in Area::ALL {
        let listed = backend.list(area.prefix(), &mut |_| {
            found = true;
            Ok(())
        });
        match listed {
            Err(error) if error.is_not_found() => return Ok(true),
            listed => listed?,
        }
    }
    Ok(!found)
}

fn read_data(args: &CheckArgs) -> Result<ReadData, Failure> {
    let seed = || Ok::<_, Failure>(u64::from_le_bytes(snap_crypto::random()?));
    Ok(match args.read_data_subset {
        _ if args.read_data => ReadData::All,
        // What nobody has read is not known to be damaged.
        None if args.repair => ReadData::All,
        None => ReadData::None,
        Some(Subset::Part { number, of }) => ReadData::Part { number, of },
        Some(Subset::Percent(percent)) => ReadData::Percent { percent, seed: seed()? },
        Some(Subset::Bytes(bytes)) => ReadData::Bytes { bytes, seed: seed()? },
    })
}

fn show(app: &App, report: &CheckReport) {
    show_findings(app, report);
    if !report.findings.is_empty() {
        app.out.tell(&format!("hint: {}", hint(&report.findings)));
    }
}

/// Lists what was found, and counts it.
pub fn show_findings(app: &App, report: &CheckReport) {
    let out = &app.out;
    let mut code = None;
    for finding in &report.findings {
        if code.replace(finding.code) != Some(finding.code) {
            out.line(&format!("{}:", finding.code.as_str()));
        }
        show_finding(app, finding);
    }
    tell_leftovers(out, report);
    let looked = format!("{} objects, {} read", text::count(report.objects), text::bytes(report.read_bytes));
    if report.findings.is_empty() {
        return out.done(&format!("no damage: {looked}"));
    }
    let findings = text::counted(report.findings.len() as u64, "finding", "findings");
    out.line(&format!("{findings}: {looked}"));
    let snapshots: BTreeSet<_> = report.findings.iter().flat_map(|finding| &finding.snapshots).collect();
    if !snapshots.is_empty() {
        let ids: Vec<_> = snapshots.into_iter().map(text::short).collect();
        out.line(&format!("snapshots touched: {}", ids.join(", ")));
    }
}

/// What is no damage, and yet nobody's.
fn tell_leftovers(out: &Output, report: &CheckReport) {
    if let Some(first) = report.leftovers.first() {
        let packs = text::counted(report.leftovers.len() as u64, "pack", "packs");
        out.note(&format!(
            "{packs} named by no index, such as {}: interrupted runs left them, or one is at work; the next backup with the \
             same key takes them over, `snap repair` names them again, `snap prune` deletes what nothing needs",
            object_name(Area::Packs, first)
        ));
    }
    if report.duplicates > 0 {
        let blobs = text::counted(report.duplicates, "blob is", "blobs are");
        out.note(&format!("{blobs} stored more than once: no damage, and what `snap prune` tidies up"));
    }
}

fn hint(findings: &[Finding]) -> &'static str {
    if findings.iter().all(|finding| finding.code == FindingCode::Unindexed) {
        return "an interrupted run left this; nothing is lost, and the next `snap backup` with the same key takes it over";
    }
    if findings.iter().any(|finding| finding.code == FindingCode::Forged) {
        return "somebody who may not wrote to this store: change its credentials, look at `snap key list`, and delete \
                nothing";
    }
    "`snap check --repair` brings back what another copy has, or a file that is still what it was; `snap repair --dry-run` shows \
     what can be done about the rest. Delete nothing in the store; `snap restore` brings back all but what is named here"
}

fn show_finding(app: &App, finding: &Finding) {
    let out = &app.out;
    let safe = |text: &str| text::printable(text.as_bytes());
    out.line(&format!("  {}: {}", safe(&finding.object), safe(&finding.why)));
    if let Some(blob) = finding.blob {
        out.line(&format!("    blob {blob}"));
    }
    if !finding.snapshots.is_empty() {
        let ids: Vec<_> = finding.snapshots.iter().map(text::short).collect();
        out.line(&format!("    in snapshots {}", ids.join(", ")));
    }
    for path in finding.paths.iter().take(SHOWN_PATHS) {
        out.line(&format!("    {}", text::printable(path)));
    }
    if let Some(more @ 1..) = finding.paths.len().checked_sub(SHOWN_PATHS) {
        out.line(&format!("    and {more} more, named with --json"));
    }
}
