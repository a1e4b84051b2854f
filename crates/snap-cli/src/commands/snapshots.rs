use serde_json::json;
use snap_format::{Pin, Time};
use snap_repo::Snapshot;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::SnapshotsArgs;
use crate::locks::{self, Told};
use crate::render::{json, text};
use crate::select::{self, Snapshots};
use crate::{repo, system};

pub fn run(app: &App, args: &SnapshotsArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Snapshots)?;
    let snapshots = select::load_with_records(app, &opened, &args.filter, true)?;
    let now = system::now();
    let locks = match args.locks {
        true => Some(locks::ask(app, &opened, &snapshots.list)?),
        false => None,
    };
    if app.out.options().json {
        for snapshot in &snapshots.list {
            let pin = snapshots.overlays.pin(&snapshot.id, now);
            let mut event = event(snapshot, paths(&snapshots, snapshot), pin);
            if let Some(details) = snapshots.details.get(&snapshot.id) {
                event.insert("database".to_owned(), json!({ "kind": details.kind, "facts": details.facts }));
            }
            if let Some(told) = &locks {
                put_lock(&mut event, told, snapshot);
            }
            app.out.event(event);
        }
    } else {
        show(app, &snapshots, now);
        if let Some(told) = &locks {
            show_locks(app, &snapshots, told);
        }
    }
    warn_of_future(app, &snapshots);
    Ok(Done::with(json::object(json!({ "snapshots": snapshots.list.len() }))))
}

fn paths<'a>(snapshots: &'a Snapshots, snapshot: &Snapshot) -> &'a [Vec<u8>] {
    snapshots.paths.get(&snapshot.id).map_or(&[], Vec::as_slice)
}

fn event(snapshot: &Snapshot, paths: &[Vec<u8>], pin: Option<&Pin>) -> json::Object {
    let envelope = &snapshot.envelope;
    let mut out = json::object(json!({
        "event": "snapshot",
        "id": snapshot.id.to_hex(),
        "time": text::rfc3339(envelope.time),
        "dataset": envelope.dataset,
        "host": envelope.host,
        "tags": envelope.tags,
        "label": envelope.label,
        "incomplete": snapshot.is_incomplete(),
        "source_bytes": envelope.summary.source_bytes,
        "files": envelope.summary.files,
        "slot": snapshot.slot.to_hex(),
        "slot_label": snapshot.slot_label,
        "pinned": pin.is_some(),
        "pinned_until": pin.and_then(|pin| pin.until).map(text::rfc3339),
        "pin_reason": pin.map(|pin| &pin.reason),
    }));
    json::put_byte_list(&mut out, "paths", paths);
    out
}

fn put_lock(event: &mut json::Object, told: &Told, snapshot: &Snapshot) {
    let lock = told.of(&snapshot.id).and_then(Result::ok);
    let until = lock.and_then(|lock| lock.until);
    event.insert("locked_until".to_owned(), until.map(text::rfc3339).into());
    let is_known = !matches!(told, Told::Nothing);
    let mode = match lock {
        Some(lock) if until.is_some() => Some(if lock.is_final { "compliance" } else { "governance" }),
        _ => is_known.then_some("none"),
    };
    event.insert("lock".to_owned(), mode.into());
}

fn show_locks(app: &App, snapshots: &Snapshots, told: &Told) {
    match told {
        Told::Nothing => return app.out.done("this kind of store cannot be asked what can be deleted"),
        Told::Open(why) => return app.out.line(&format!("nothing keeps anybody from deleting them: {why}")),
        Told::Locks(_) => {}
    }
    for snapshot in &snapshots.list {
        let Some(Ok(lock)) = told.of(&snapshot.id) else { continue };
        let id = text::short(&snapshot.id);
        app.out.line(&match lock.until {
            Some(until) if lock.is_final => {
                format!("{id} cannot be deleted before {} UTC", text::date_time(until))
            }
            Some(until) => format!(
                "{id} cannot be deleted before {} UTC but by who may bypass governance",
                text::date_time(until)
            ),
            None => format!("{id} can be deleted: {}", locks::why_open(lock)),
        });
    }
}

fn show(app: &App, snapshots: &Snapshots, now: Time) {
    if snapshots.list.is_empty() {
        app.out.done("no snapshots");
        return;
    }
    let safe = |text: &str| text::printable(text.as_bytes());
    let rows: Vec<Vec<String>> = snapshots
        .list
        .iter()
        .map(|snapshot| {
            let envelope = &snapshot.envelope;
            let names: Vec<String> =
                paths(snapshots, snapshot).iter().map(|path| text::printable(path)).collect();
            let mut remarks = vec![envelope.tags.iter().map(|tag| safe(tag)).collect::<Vec<_>>().join(",")];
            remarks.retain(|tags| !tags.is_empty());
            if snapshot.is_incomplete() {
                remarks.push("(incomplete)".to_owned());
            }
            if let Some(pin) = snapshots.overlays.pin(&snapshot.id, now) {
                let until = pin.until.map(|until| format!(" until {}", text::date_time(until)));
                remarks.push(format!("(pinned{})", until.unwrap_or_default()));
            }
            vec![
                text::short(&snapshot.id),
                text::date_time(envelope.time),
                safe(&envelope.dataset),
                safe(&envelope.host),
                remarks.join(" "),
                text::count(envelope.summary.files),
                text::bytes(envelope.summary.source_bytes),
                names.join(" "),
            ]
        })
        .collect();
    let headings = ["id", "time (UTC)", "dataset", "host", "tags", ">files", ">size", "paths"];
    for line in text::table(&headings, &rows) {
        app.out.line(&line);
    }
    app.out.done(&text::counted(snapshots.list.len() as u64, "snapshot", "snapshots"));
}

/// A snapshot whose time lies ahead is never `latest`: say so, or nobody understands why.
fn warn_of_future(app: &App, snapshots: &Snapshots) {
    for snapshot in snapshots.list.iter().filter(|snapshot| snapshot.is_from_the_future()) {
        app.out.warning(&format!(
            "the time of {} lies ahead of the store's: it is not taken as `latest` while another is there \
             (this machine's clock says {} UTC)",
            select::describe(snapshot),
            text::date_time(system::now())
        ));
    }
}
