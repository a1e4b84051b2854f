use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use snap_engine::estimate::Run;
use snap_engine::{CheckOptions, CheckReport, ReadData, check, check_keyless};
use snap_repo::{Finding, FindingCode, RepoError};

use super::estimate::remember;
use super::{Done, Outcome, immutable};
use crate::app::App;
use crate::args::CheckArgs;
use crate::args::values::Subset;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Place};

/// Paths that are named of one finding; the rest is counted.
const SHOWN_PATHS: usize = 20;

pub fn run(app: &App, args: &CheckArgs) -> Outcome {
    if args.immutable {
        return immutable::run(app, args.require_immutable);
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
    }));
    let exit = if report.findings.is_empty() { Exit::Done } else { Exit::Damage };
    Ok(Done { exit, summary })
}

fn with_key(app: &App, args: &CheckArgs) -> Result<CheckReport, Failure> {
    let options = CheckOptions { read_data: read_data(args)? };
    // What the store holds is to be checked, not what the cache holds.
    let opened = repo::open(app, repo::Purpose::Checking)?;
    let observer = CliObserver::without_findings(app);
    let began = Instant::now();
    let mut report = app.engine(&observer, |context| check(&opened.repository, &options, context))?;
    if args.read_data || args.read_data_subset.is_some() {
        remember(&opened, Run::of_check(report.read_bytes, began.elapsed()));
    }
    report.findings.extend(opened.rolled_back);
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
    for area in snap_repo::Area::ALL {
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
        None => ReadData::None,
        Some(Subset::Part { number, of }) => ReadData::Part { number, of },
        Some(Subset::Percent(percent)) => ReadData::Percent { percent, seed: seed()? },
        Some(Subset::Bytes(bytes)) => ReadData::Bytes { bytes, seed: seed()? },
    })
}

fn show(app: &App, report: &CheckReport) {
    let out = &app.out;
    let mut code = None;
    for finding in &report.findings {
        if code.replace(finding.code) != Some(finding.code) {
            out.line(&format!("{}:", finding.code.as_str()));
        }
        show_finding(app, finding);
    }
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
    out.tell(&format!("hint: {}", hint(&report.findings)));
}

fn hint(findings: &[Finding]) -> &'static str {
    if findings.iter().all(|finding| finding.code == FindingCode::Unindexed) {
        return "an interrupted run left this; nothing is lost, and the next `snap backup` with the same key takes it over";
    }
    if findings.iter().any(|finding| finding.code == FindingCode::Forged) {
        return "somebody who may not wrote to this store: change its credentials, look at `snap key list`, and delete \
                nothing";
    }
    "restore what you need now: `snap restore` brings back all but what is named here. Delete nothing in the store"
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
