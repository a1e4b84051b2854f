//! `check --immutable`.

use serde_json::{Value, json};
use snap_backend::Timestamp;
use snap_engine::check::{AreaLocks, ImmutableReport, Outcome as Tried, Probe};
use snap_engine::check_immutable;
use snap_format::Time;
use snap_repo::RepoError;

use super::{Done, Outcome};
use crate::app::App;
use crate::exit::{Exit, Failure};
use crate::render::{json, text};
use crate::repo::{self, Place};
use crate::system;

pub fn run(app: &App, is_required: bool) -> Outcome {
    let place = Place::find(app)?;
    let backend = place.connect(app, false)?;
    if !repo::exists(place.probe(app)?.as_ref())? {
        return Err(RepoError::NoRepository(backend.location()).into());
    }
    let lock = place.object_lock(app)?;
    let report = check_immutable(backend.as_ref(), lock.as_ref(), system::now()).map_err(Failure::from)?;
    report.probes.iter().for_each(|probe| app.out.event(probe_event(probe)));
    report.locks.iter().for_each(|area| app.out.event(locks_event(area)));
    show(app, &report, backend.local_root().is_some());
    let destroying = report.probes.iter().filter(|probe| is_loss(probe)).count();
    let summary = json::object(json!({
        "findings": destroying,
        "immutable": report.is_immutable(),
        "can_destroy": report.can_destroy,
        "versioned": report.versioned,
        "locks": report.has_locks,
        "locked_until": report.locked_until.map(rfc3339),
    }));
    let exit = if is_required && !report.is_immutable() { Exit::Damage } else { Exit::Done };
    Ok(Done { exit, summary })
}

fn is_loss(probe: &Probe) -> bool {
    probe.destroys && probe.outcome == Tried::Allowed
}

fn time(at: Timestamp) -> Time {
    Time::new(at.unix_seconds, at.nanos)
}

fn rfc3339(at: Timestamp) -> String {
    text::rfc3339(time(at))
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
        "asked": area.asked,
        "locked": area.locked,
        "governance": area.governance,
        "locked_until": area.until.map_or(Value::Null, |until| rfc3339(until).into()),
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
        other => other,
    }
}

fn show(app: &App, report: &ImmutableReport, is_directory: bool) {
    let out = &app.out;
    let probes: Vec<Vec<String>> = report
        .probes
        .iter()
        .map(|probe| {
            let loss = if is_loss(probe) { "data would be lost" } else { "" };
            vec![in_words(probe.action).to_owned(), words(&probe.outcome).0.to_owned(), loss.to_owned()]
        })
        .collect();
    text::table(&["with these credentials", "", ""], &probes).iter().for_each(|line| out.line(line));
    let locks: Vec<Vec<String>> = report
        .locks
        .iter()
        .filter(|area| area.objects > 0)
        .map(|area| {
            let until = area.until.map(|until| text::date_time(time(until))).unwrap_or_default();
            let locked = format!("{} of {}", area.locked, area.asked);
            vec![area.area.to_owned(), text::count(area.objects as u64), locked, until]
        })
        .collect();
    if !locks.is_empty() {
        let headings = ["area", "objects", "locked, of those asked", "at least until (UTC)"];
        text::table(&headings, &locks).iter().for_each(|line| out.line(line));
    }
    out.done(&verdict(report, is_directory));
}

fn verdict(report: &ImmutableReport, is_directory: bool) -> String {
    if is_directory {
        return if report.can_destroy {
            "this is a directory: whoever can write in it can delete all of it, and this user can".to_owned()
        } else {
            "this is a directory: whoever can write in it can delete all of it; this user could not"
                .to_owned()
        };
    }
    let can = match (report.can_destroy, report.versioned) {
        (true, None) => "these credentials may be able to destroy what is stored",
        (true, Some(_)) => "these credentials can destroy what is stored",
        (false, _) => "these credentials cannot destroy what is stored",
    };
    match report.locked_until {
        Some(until) => format!("{can}; what was asked is locked until {} UTC", text::date_time(time(until))),
        None => format!("{can}; it is not all locked, so others may"),
    }
}
