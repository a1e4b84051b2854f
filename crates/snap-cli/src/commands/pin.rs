use std::collections::HashMap;

use serde_json::json;
use snap_format::{ObjectId, Pin};
use snap_repo::Snapshot;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::PinArgs;
use crate::exit::{Exit, Failure};
use crate::render::{json, text};
use crate::repo::{self, Opened, Purpose};
use crate::select::{self, Snapshots};
use crate::{copies, system};

pub fn run(app: &App, args: &PinArgs) -> Outcome {
    if args.list {
        return list(app, args, &repo::open(app, Purpose::Deciding)?);
    }
    let mut copies = copies::open_each(app, Purpose::Deciding, false)?;
    copies.first().repository.keyring().require_owner("pinning snapshots")?;
    let now = system::now();
    let pin = pin(args, now)?;
    let all = select::load_from_all(app, &copies.opened, &args.filter)?;
    let chosen = select::choose_each(&select::union(&all), &args.snapshots)?;
    let ids: Vec<ObjectId> = chosen.iter().map(|snapshot| snapshot.id).collect();
    if pin.is_some() {
        refuse_forgotten(&all, &chosen)?;
    }
    let time = select::time_after(&all, now);
    let states = copies.write_records(app, |repository| match &pin {
        Some(pin) => repository.pin(&ids, pin, time),
        None => repository.unpin(&ids, time),
    })?;
    let what = if pin.is_some() { "pinned" } else { "no longer pinned:" };
    for snapshot in chosen {
        app.out.done(&format!("{what} {}", select::describe(snapshot)));
    }
    let mut summary = json::object(json!({
        "snapshots": ids.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        "pinned": pin.is_some(),
        "reason": pin.as_ref().map(|pin| &pin.reason),
        "until": pin.and_then(|pin| pin.until).map(text::rfc3339),
    }));
    summary.extend(states.map(|states| ("copies".to_owned(), states)));
    Ok(Done::with(summary))
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

/// A copy may keep what another forgets; if all that have it have forgotten it, a pin comes too late.
fn refuse_forgotten(all: &[Snapshots], chosen: &[&Snapshot]) -> Result<(), Failure> {
    let is_kept = |id: &ObjectId| {
        let mut having = all.iter().filter(|copy| copy.list.iter().any(|snapshot| snapshot.id == *id));
        having.any(|copy| !copy.overlays.was_forgotten(id))
    };
    match chosen.iter().find(|snapshot| !is_kept(&snapshot.id)) {
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
