use serde_json::json;
use snap_engine::repair::{Action, Ill, Lost, RepairOptions, RepairReport, repair};
use snap_format::ObjectId;
use snap_repo::repair::Foundations;
use snap_repo::{Area, Finding, FindingCode, object_name};

use super::{Done, Outcome};
use crate::app::App;
use crate::args::RepairArgs;
use crate::exit::Exit;
use crate::render::{CliObserver, json, text};
use crate::{locks, repo, system};

/// Lost files that are named; all of them with `--json`.
const SHOWN_LOST: usize = 1000;

pub fn run(app: &App, args: &RepairArgs) -> Outcome {
    let (opened, foundations) = repo::open_for_repair(app, args.dry_run, args.give_up_epochs)?;
    let options =
        RepairOptions { dry_run: args.dry_run, give_up_epochs: args.give_up_epochs, now: system::now() };
    let observer = CliObserver::without_findings(app);
    let repository = &opened.repository;
    let cache = opened.cache.as_ref();
    let mut report = app.engine(&observer, |context| repair(repository, cache, &options, context))?;
    if !args.dry_run {
        foundations.remove_strays(repository)?;
    }
    let mut actions = of_foundations(&foundations);
    actions.append(&mut report.actions);
    report.actions = actions;
    show(app, &report, args.dry_run);
    let exit = match args.dry_run {
        true if report.actions.is_empty() && report.newer.is_empty() => Exit::Done,
        false if !report.has_losses() && report.newer.is_empty() => Exit::Done,
        _ => Exit::Damage,
    };
    let ids = |(old, new): &(ObjectId, ObjectId)| json!({ "old": old.to_hex(), "new": new.to_hex() });
    let locks = if args.dry_run { serde_json::Value::Null } else { locks::extend_after_run(app, &opened) };
    let summary = json::object(json!({
        "dry_run": args.dry_run,
        "locks": locks,
        "repaired": report.actions.len(),
        "lost": report.lost_count,
        "rewritten": report.rewritten.iter().map(ids).collect::<Vec<_>>(),
        "moved_blobs": report.moved_blobs,
        "duplicate_blobs": report.duplicates,
        "temporaries": report.temporaries,
    }));
    Ok(Done { exit, summary })
}

/// What was brought back before the key opened anything.
fn of_foundations(foundations: &Foundations) -> Vec<Action> {
    let patches = foundations.patches.iter().map(|patch| {
        let ill = if patch.finding.object.starts_with("config") { Ill::LostConfig } else { Ill::LostEpoch };
        Action { ill, finding: patch.finding.clone(), does: format!("written again from {}", patch.source) }
    });
    let strays = foundations.stray_epochs.iter().map(|id| {
        let why = "its bytes do not have the hash in its name, and nothing names it: half-written";
        let finding = Finding::new(FindingCode::Corrupt, object_name(Area::Epochs, id).as_str(), why);
        Action { ill: Ill::StrayEpoch, finding, does: "removed: nothing needs it".into() }
    });
    patches.chain(strays).collect()
}

fn show(app: &App, report: &RepairReport, dry_run: bool) {
    let out = &app.out;
    let safe = |text: &str| text::printable(text.as_bytes());
    for action in &report.actions {
        out.event(event(action));
    }
    let row = |action: &Action| {
        vec![
            action.ill.as_str().to_owned(),
            safe(&action.finding.object),
            safe(&action.finding.why),
            action.does.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = report.actions.iter().map(row).collect();
    if !rows.is_empty() {
        let heading = if dry_run { "what would be done" } else { "what was done" };
        text::table(&["what", "object", "what is wrong", heading], &rows)
            .iter()
            .for_each(|line| out.line(line));
    }
    for lost in &report.lost {
        out.event(lost_event(lost));
    }
    for Lost { snapshot, path, missing } in report.lost.iter().take(SHOWN_LOST) {
        out.line(&format!("lost: {}:{} ({missing})", text::short(snapshot), text::printable(path)));
    }
    if let Some(more @ 1..) = report.lost_count.checked_sub(report.lost.len().min(SHOWN_LOST) as u64) {
        out.line(&format!("lost: and {}", text::counted(more, "more entry", "more entries")));
    }
    for (old, new) in report.rewritten.iter().filter(|(old, new)| old != new) {
        out.line(&format!("the snapshot {} is {} now", text::short(old), text::short(new)));
    }
    report.newer.iter().for_each(|error| out.warning(&format!("left alone: {error}")));
    tell(app, report, dry_run);
}

fn tell(app: &App, report: &RepairReport, dry_run: bool) {
    let out = &app.out;
    if report.duplicates > 0 {
        let blobs = text::counted(report.duplicates, "blob is", "blobs are");
        out.note(&format!("{blobs} stored more than once: no damage, and what `snap prune` tidies up"));
    }
    if report.temporaries > 0 {
        let files = text::counted(report.temporaries, "temporary file", "temporary files");
        out.note(&format!("removed {files} of interrupted writes"));
    }
    if report.actions.is_empty() {
        return out.done("nothing to repair");
    }
    let things = text::counted(report.actions.len() as u64, "thing", "things");
    match (dry_run, report.lost_count) {
        (true, 0) => out.done(&format!("would repair {things}; nothing that was backed up is lost")),
        (true, lost) => {
            let lost = text::counted(lost, "file or directory", "files and directories");
            out.done(&format!("would repair {things}; parts of {lost} are lost"));
        }
        (false, 0) => out.done(&format!("repaired {things}")),
        (false, lost) => {
            let lost = text::counted(lost, "file or directory", "files and directories");
            out.done(&format!("repaired {things}; parts of {lost} are lost and marked"));
        }
    }
    if report.lost_count > 0 {
        out.tell(
            "hint: where another copy still has what is missing, bring it back from there before this is run: an object \
             that is damaged here may be replaced by the whole one of the same name",
        );
    }
}

fn event(action: &Action) -> json::Object {
    let mut out = json::finding(&action.finding);
    out.insert("event".into(), "repair".into());
    out.insert("what".into(), action.ill.as_str().into());
    out.insert("action".into(), action.does.as_str().into());
    out
}

fn lost_event(lost: &Lost) -> json::Object {
    let mut out = json::object(json!({
        "event": "lost",
        "snapshot": lost.snapshot.to_hex(),
        "missing": lost.missing,
    }));
    json::put_bytes(&mut out, "path", &lost.path);
    out
}
