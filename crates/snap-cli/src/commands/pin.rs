use std::collections::HashMap;

use serde_json::json;
use snap_format::{ObjectId, Pin};
use snap_repo::{Overlays, Snapshot};

use super::{Done, Outcome};
use crate::app::App;
use crate::args::PinArgs;
use crate::exit::{Exit, Failure};
use crate::render::{json, text};
use crate::repo::Opened;
use crate::{repo, select, system};

pub fn run(app: &App, args: &PinArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Deciding)?;
    if args.list {
        return list(app, args, &opened);
    }
    let repository = &opened.repository;
    repository.keyring().require_owner("pinning snapshots")?;
    opened.require_current_keys()?;
    let now = system::now();
    let pin = pin(args, now)?;
    let snapshots = select::load_with_records(app, &opened, &args.filter, false)?;
    let list: Vec<&Snapshot> = snapshots.list.iter().collect();
    let chosen = select::choose_each(&list, &args.snapshots)?;
    let ids: Vec<ObjectId> = chosen.iter().map(|snapshot| snapshot.id).collect();
    let time = snapshots.overlays.time_after(now);
    match &pin {
        Some(pin) => {
            refuse_forgotten(&snapshots.overlays, &chosen)?;
            repository.pin(&ids, pin, time)?;
        }
        None => repository.unpin(&ids, time)?,
    }
    let what = if pin.is_some() { "pinned" } else { "no longer pinned:" };
    for snapshot in chosen {
        app.out.done(&format!("{what} {}", select::describe(snapshot)));
    }
    Ok(Done::with(json::object(json!({
        "snapshots": ids.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        "pinned": pin.is_some(),
        "reason": pin.as_ref().map(|pin| &pin.reason),
        "until": pin.and_then(|pin| pin.until).map(text::rfc3339),
    }))))
}

/// The pin that is asked for; none to take pins away.
fn pin(args: &PinArgs, now: snap_format::Time) -> Result<Option<Pin>, Failure> {
    let Some(reason) = args.reason.as_deref().map(str::trim) else { return Ok(None) };
    if reason.is_empty() {
        return Err(Failure::usage("the reason is empty").hint("say why: --reason 'before the migration'"));
    }
    let until = args.until.map(|until| until.time(now));
    if until.is_some_and(|until| until <= now) {
        return Err(Failure::usage("the pin would be over already").hint("give a later --until"));
    }
    Ok(Some(Pin { reason: reason.to_owned(), until }))
}

fn refuse_forgotten(overlays: &Overlays, chosen: &[&Snapshot]) -> Result<(), Failure> {
    match chosen.iter().find(|snapshot| overlays.was_forgotten(&snapshot.id)) {
        None => Ok(()),
        Some(snapshot) => Err(Failure::new(
            Exit::Failed,
            format!("{} was forgotten, and only its deletion was interrupted", select::describe(snapshot)),
        )
        .hint("restore what you need of it now, and back that up")),
    }
}

fn list(app: &App, args: &PinArgs, opened: &Opened) -> Outcome {
    let snapshots = select::load_with_records(app, opened, &args.filter, false)?;
    let now = system::now();
    let safe = |text: &str| text::printable(text.as_bytes());
    let pins: HashMap<&ObjectId, &Pin> = snapshots.overlays.pins().collect();
    let mut rows = Vec::new();
    for snapshot in &snapshots.list {
        let Some(pin) = pins.get(&snapshot.id) else { continue };
        let envelope = &snapshot.envelope;
        app.out.event(json::object(json!({
            "event": "pin",
            "snapshot": snapshot.id.to_hex(),
            "time": text::rfc3339(envelope.time),
            "dataset": envelope.dataset,
            "host": envelope.host,
            "reason": pin.reason,
            "until": pin.until.map(text::rfc3339),
            "in_force": pin.is_in_force(now),
        })));
        let until = pin.until.map_or_else(|| "for ever".to_owned(), text::date_time);
        let over = if pin.is_in_force(now) { "" } else { " (over)" };
        rows.push(vec![
            text::short(&snapshot.id),
            text::date_time(envelope.time),
            safe(&envelope.dataset),
            safe(&envelope.host),
            format!("{until}{over}"),
            safe(&pin.reason),
        ]);
    }
    if rows.is_empty() {
        app.out.done("no pins");
    } else {
        let headings = ["id", "time (UTC)", "dataset", "host", "until (UTC)", "reason"];
        text::table(&headings, &rows).iter().for_each(|line| app.out.line(line));
    }
    Ok(Done::with(json::object(json!({ "pins": rows.len() }))))
}
