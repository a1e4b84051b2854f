use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use snap_engine::prune;
use snap_format::ObjectId;
use snap_repo::prune::{PackSum, PruneOptions, PruneReport};

use super::Outcome;
use crate::app::App;
use crate::args::PruneArgs;
use crate::exit::Failure;
use crate::render::{CliObserver, json, text};
use crate::repo::{Opened, Purpose};
use crate::{copies, locks, system};

pub fn run(app: &App, args: &PruneArgs) -> Outcome {
    let mut copies = copies::open_each(app, Purpose::Keys, args.dry_run)?;
    copies.first().repository.keyring().require_owner("prune")?;
    copies.in_each(app, |opened| {
        let mut options = PruneOptions { dry_run: args.dry_run, ..PruneOptions::at(system::now()) };
        if let Some(grace) = args.grace {
            options.grace = grace.0;
        }
        if let Some(unused) = args.max_unused {
            options.max_waste = unused.0;
        }
        let mut summary = execute(app, opened, &options)?;
        let locks = if args.dry_run { serde_json::Value::Null } else { locks::extend_after_run(app, opened) };
        summary.insert("locks".to_owned(), locks);
        Ok(summary)
    })
}

/// Prunes with the defaults, after a `forget`; in a rehearsal as if it had forgotten `without`.
pub fn after_forget(
    app: &App,
    opened: &Opened,
    dry_run: bool,
    without: HashSet<ObjectId>,
) -> Result<json::Object, Failure> {
    let options = PruneOptions { dry_run, without, ..PruneOptions::at(system::now()) };
    execute(app, opened, &options)
}

/// After an `erase`, which has moved all else out of the packs that hold what was erased.
pub fn after_erase(app: &App, opened: &Opened, grace: Duration) -> Result<json::Object, Failure> {
    execute(app, opened, &PruneOptions { grace, ..PruneOptions::at(system::now()) })
}

fn execute(app: &App, opened: &Opened, options: &PruneOptions) -> Result<json::Object, Failure> {
    if !options.dry_run {
        opened.require_current_keys()?;
    }
    let observer = CliObserver::new(app);
    let report = app.engine(&observer, |context| prune(&opened.repository, options, context))?;
    report.notes.iter().for_each(|finding| app.out.finding(finding));
    for line in table(&report) {
        // What a rehearsal was asked for; otherwise a report.
        if options.dry_run { app.out.line(&line) } else { app.out.done(&line) }
    }
    tell(app, &report, options);
    Ok(summary(&report, options.dry_run))
}

fn table(report: &PruneReport) -> Vec<String> {
    let row = |what: &str, sum: PackSum, note: String| {
        vec![what.to_owned(), text::count(sum.packs), text::bytes(sum.bytes), note]
    };
    let unused = format!("{} of it unused", text::bytes(report.waste_bytes));
    let moved = format!("{} of it moved to new ones", text::bytes(report.moved_bytes));
    let rows = [
        row("kept", report.kept, unused),
        row("repacked", report.repacked, moved),
        row("unused", report.dead, String::new()),
        row("left by interrupted runs", report.orphans, String::new()),
        row("deleted now", report.deleted, String::new()),
        row("deleted after the grace", report.waiting, String::new()),
    ];
    text::table(&["packs", "number", "size", ""], &rows)
}

fn tell(app: &App, report: &PruneReport, options: &PruneOptions) {
    let freed = text::bytes(freed(report));
    app.out.done(&match options.dry_run {
        true => format!("would free {freed}"),
        false => format!("freed {freed}"),
    });
    if report.waiting.packs > 0 {
        app.out.note(&format!(
            "{} ({}) wait for the grace of {} to pass: the first prune after that deletes them",
            text::counted(report.waiting.packs, "pack", "packs"),
            text::bytes(report.waiting.bytes),
            text::duration(options.grace),
        ));
    }
}

/// What goes less what is written again. The headers of new packs are not counted, nor is the index.
fn freed(report: &PruneReport) -> u64 {
    report.deleted.bytes.saturating_sub(report.moved_bytes)
}

fn summary(report: &PruneReport, dry_run: bool) -> json::Object {
    json::object(json!({
        "dry_run": dry_run,
        "snapshots": report.snapshots,
        "blobs": report.live_blobs,
        "packs_before": report.before.packs,
        "packs_before_bytes": report.before.bytes,
        "packs_kept": report.kept.packs,
        "packs_kept_bytes": report.kept.bytes,
        "packs_repacked": report.repacked.packs,
        "packs_repacked_bytes": report.repacked.bytes,
        "packs_unused": report.dead.packs,
        "packs_unused_bytes": report.dead.bytes,
        "packs_orphaned": report.orphans.packs,
        "packs_orphaned_bytes": report.orphans.bytes,
        "packs_deleted": report.deleted.packs,
        "deleted_bytes": report.deleted.bytes,
        "packs_waiting": report.waiting.packs,
        "waiting_bytes": report.waiting.bytes,
        "blobs_moved": report.moved_blobs,
        "moved_bytes": report.moved_bytes,
        "unused_bytes": report.waste_bytes,
        "freed_bytes": freed(report),
        "stored_bytes": report.stored_bytes,
        "snapshots_bundled": report.bundled,
        "index_replaced": report.index_replaced,
        "index_written": report.index_written,
    }))
}
