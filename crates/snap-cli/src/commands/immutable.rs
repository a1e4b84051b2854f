//! `check --immutable`.

use std::collections::BTreeSet;

use serde_json::json;
use snap_backend::ObjectName;
use snap_engine::check::{AreaLocks, ImmutableReport, Outcome as Tried, Probe};
use snap_engine::check_immutable;
use snap_repo::RepoError;

use super::{Done, Outcome};
use crate::app::App;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Place, Purpose};
use crate::{locks, system};

pub fn run(app: &App, is_required: bool) -> Outcome {
    let place = Place::find(app)?;
    let backend = place.connect(app, false)?;
    if !repo::exists(place.probe(app)?.as_ref())? {
        return Err(RepoError::NoRepository(backend.location()).into());
    }
    let lock = place.object_lock(app)?;
    let needed = if lock.is_some() { needed(app, &place)? } else { None };
    let observer = CliObserver::new(app);
    let report = app.engine(&observer, |context| {
        check_immutable(backend.as_ref(), lock.as_ref(), needed.as_ref(), system::now(), context)
    })?;
    let is_directory = backend.local_root().is_some();
    report.probes.iter().for_each(|probe| app.out.event(probe_event(probe)));
    report.locks.iter().for_each(|area| app.out.event(locks_event(area)));
    let findings = findings(&report, is_directory);
    findings.iter().for_each(|(object, message)| app.out.event(finding_event(object, message)));
    show(app, &report, &findings, is_directory);
    let is_claimed = place.copy.immutable;
    let contradicts = is_claimed && report.can_destroy;
    if contradicts {
        app.out.warning(&format!(
            "the copy {} is called immutable in snap.toml, and these credentials may destroy what is in it",
            place.copy.name
        ));
    }
    let summary = json::object(json!({
        "findings": findings.len(),
        "copy": place.copy.name,
        "called_immutable": is_claimed,
        "immutable": report.is_immutable(),
        "can_destroy": report.can_destroy,
        "versioned": report.versioned,
        "locks": report.has_locks,
        "locked_until": report.locked_until.map(text::rfc3339),
        "asked": if needed.is_some() { "needed" } else { "all" },
    }));
    let is_bad = contradicts || is_required && !report.is_immutable();
    Ok(Done { exit: if is_bad { Exit::Damage } else { Exit::Done }, summary })
}

/// What the snapshots need, if there is a key at hand that can tell. What nobody needs any more may be open.
fn needed(app: &App, place: &Place) -> Result<Option<BTreeSet<ObjectName>>, Failure> {
    if !place.has_key(app)? {
        return Ok(None);
    }
    let failure = match repo::open(app, Purpose::Deciding) {
        Ok(opened) if opened.repository.keyring().can_read() => match locks::needed(app, &opened) {
            Ok(objects) => return Ok(Some(objects)),
            Err(failure) => failure,
        },
        Ok(_) => return Ok(None),
        Err(failure) => failure,
    };
    if failure.exit == Exit::Interrupted {
        return Err(failure);
    }
    app.out.note(&format!(
        "which objects snapshots need cannot be told, so all of them are asked: {}",
        failure.message
    ));
    Ok(None)
}

/// What is wrong, by object or area.
fn findings(report: &ImmutableReport, is_directory: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for probe in report.probes.iter().filter(|probe| is_loss(probe)) {
        let message = match is_directory {
            true => format!("{}: whoever can write in the directory can", done(probe.action)),
            false => format!("{}, on an object of its own", done(probe.action)),
        };
        out.push((probe.object.as_str().to_owned(), message));
    }
    for area in report.locks.iter().filter(|area| area.destroyable > 0) {
        let message = format!(
            "{} of {} can be destroyed with these credentials",
            text::count(area.destroyable as u64),
            text::counted(area.objects as u64, "object", "objects")
        );
        out.push((area.area.to_owned(), message));
    }
    out
}

fn finding_event(object: &str, message: &str) -> json::Object {
    json::object(json!({
        "event": "finding",
        "code": "destroyable",
        "object": object,
        "blob": null,
        "snapshots": [],
        "paths": [],
        "message": message,
    }))
}

fn is_loss(probe: &Probe) -> bool {
    probe.destroys && probe.outcome == Tried::Allowed
}

fn words(outcome: &Tried) -> (&'static str, Option<&str>) {
    match outcome {
        Tried::Allowed => ("allowed", None),
        Tried::Denied(why) => ("denied", Some(why)),
        Tried::Unknown(why) => ("unknown", Some(why)),
    }
}

fn probe_event(probe: &Probe) -> json::Object {
    let (outcome, why) = words(&probe.outcome);
    json::object(json!({
        "event": "probe",
        "action": probe.action,
        "object": probe.object.as_str(),
        "outcome": outcome,
        "destroys": probe.destroys,
        "message": why,
    }))
}

fn locks_event(area: &AreaLocks) -> json::Object {
    json::object(json!({
        "event": "locks",
        "area": area.area,
        "objects": area.objects,
        "locked": area.locked,
        "governance": area.governance,
        "destroyable": area.destroyable,
        "locked_until": area.until.map(text::rfc3339),
    }))
}

/// What an action on an object would be, for people.
fn in_words(action: &str) -> &str {
    match action {
        "put" => "store a new object",
        "overwrite" => "overwrite an object",
        "delete" => "delete an object",
        "delete-version" => "delete an old version for good",
        "lock" => "lock an object",
        "shorten-lock" => "shorten a lock",
        "bypass-shorten" => "shorten a lock, bypassing governance",
        "bypass-delete" => "delete what is locked, bypassing governance",
        "compliance-delete" => "delete what is locked in compliance mode",
        other => other,
    }
}

/// The same for what was done.
fn done(action: &str) -> &str {
    match action {
        "overwrite" => "it was overwritten, and nothing is left of what it was",
        "delete" => "it was deleted, and nothing is left of it",
        "delete-version" => "an old version was deleted for good",
        "shorten-lock" | "bypass-shorten" => "a lock was shortened",
        "bypass-delete" | "compliance-delete" => "what was locked was deleted",
        other => other,
    }
}

fn remark(probe: &Probe, is_versioned: bool) -> &'static str {
    match probe.action {
        _ if is_loss(probe) => "data would be lost",
        "overwrite" | "delete" if is_versioned && probe.outcome == Tried::Allowed => {
            "hides it; what it was is kept as an older version"
        }
        _ => "",
    }
}

fn show(app: &App, report: &ImmutableReport, findings: &[(String, String)], is_directory: bool) {
    let out = &app.out;
    let is_versioned = report.versioned == Some(true);
    let row = |probe: &Probe| {
        let outcome = words(&probe.outcome).0.to_owned();
        vec![in_words(probe.action).to_owned(), outcome, remark(probe, is_versioned).to_owned()]
    };
    let probes: Vec<Vec<String>> = report.probes.iter().map(row).collect();
    text::table(&["with these credentials", "", ""], &probes).iter().for_each(|line| out.line(line));
    let locks: Vec<Vec<String>> = report
        .locks
        .iter()
        .map(|area| {
            let until = area.until.map(text::date_time).unwrap_or_default();
            let locked = format!("{} of {}", area.locked, area.objects);
            vec![area.area.to_owned(), locked, until]
        })
        .collect();
    if !locks.is_empty() {
        let headings = ["area", "locked", "at least until (UTC)"];
        text::table(&headings, &locks).iter().for_each(|line| out.line(line));
    }
    for (object, message) in findings {
        out.line(&format!("destroyable: {}: {message}", text::printable(object.as_bytes())));
    }
    out.done(&verdict(report, is_directory));
}

fn verdict(report: &ImmutableReport, is_directory: bool) -> String {
    if is_directory {
        let who = if report.can_destroy { "and this user can" } else { "this user could not" };
        return format!("this is a directory: whoever can write in it can delete all of it; {who}");
    }
    let can = match (report.can_destroy, report.versioned) {
        (true, None) => "these credentials may be able to destroy what is stored",
        (true, Some(_)) => "these credentials can destroy what is stored",
        (false, _) => "these credentials cannot destroy what is stored",
    };
    let others = match report.locked_until {
        Some(until) => format!("all that was asked is locked until {} UTC", text::date_time(until)),
        None => "it is not all locked, so others may".to_owned(),
    };
    format!("{can}; {others}. What the bucket is told to keep was not tried to change")
}
