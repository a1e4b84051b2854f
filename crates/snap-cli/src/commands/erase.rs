use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use snap_engine::Selector;
use snap_engine::erase::{EraseOptions, ErasePlan, Erased};
use snap_format::{ObjectId, Time};
use snap_repo::Snapshot;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::values::{self, Day};
use crate::args::{EraseArgs, FilterArgs};
use crate::exit::Failure;
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Opened, Place};
use crate::{prompt, select, system};

pub fn run(app: &App, args: &EraseArgs) -> Outcome {
    let paths = paths(args)?;
    if args.reason.trim().is_empty() {
        return Err(Failure::usage("the reason is empty").hint("say why, for those who find the gap later"));
    }
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_owner("erasing")?;
    if !args.dry_run {
        opened.require_current_keys()?;
    }
    let observer = CliObserver::new(app);
    let plan = plan(app, args, &opened, paths, &observer)?;
    let kept_on = other_copies(app, &opened)?;
    show(app, &plan, args.dry_run);
    let (rewritten, dropped, freed) = (count(&plan, false), count(&plan, true), plan.freed_bytes());
    let mut replaced = Vec::new();
    if !args.dry_run {
        confirm(args, &opened)?;
        replaced = app.engine(&observer, |context| plan.execute(&opened.repository, context))?;
    }
    tell(app, (rewritten, dropped), args.dry_run, &kept_on);
    let ids = |(old, new): &(ObjectId, ObjectId)| json!({ "old": old.to_hex(), "new": new.to_hex() });
    Ok(Done::with(json::object(json!({
        "dry_run": args.dry_run,
        "rewritten": rewritten,
        "dropped": dropped,
        "unreferenced_bytes": freed,
        "replaced": replaced.iter().map(ids).collect::<Vec<_>>(),
        "copies_left": kept_on,
    }))))
}

fn paths(args: &EraseArgs) -> Result<Vec<Vec<u8>>, Failure> {
    if args.path.is_empty() && args.dataset.is_empty() {
        return Err(Failure::usage("neither a path nor a dataset is given")
            .hint("name what to erase: --path PATH, or --dataset NAME"));
    }
    let working_dir = select::working_dir()?;
    let path = |path: &std::path::PathBuf| {
        let bytes = path.as_os_str().as_bytes();
        if bytes.iter().any(|byte| b"*?[".contains(byte)) && !bytes.starts_with(b"/") {
            return Err(glob(bytes));
        }
        Ok(values::absolute(path, &working_dir))
    };
    args.path.iter().map(path).collect()
}

fn glob(path: &[u8]) -> Failure {
    Failure::usage(format!("{}: patterns are not taken", text::printable(path))).hint(
        "name files and directories one by one; one whose name has such a character by its absolute path",
    )
}

fn plan(
    app: &App,
    args: &EraseArgs,
    opened: &Opened,
    paths: Vec<Vec<u8>>,
    observer: &CliObserver,
) -> Result<ErasePlan, Failure> {
    let filter =
        FilterArgs { host: args.host.clone(), dataset: args.dataset.clone(), ..FilterArgs::default() };
    let everything = select::load_all(app, opened, &filter)?;
    let meant: Vec<&Snapshot> =
        everything.all.iter().filter(|snapshot| everything.meant.contains(&snapshot.id)).collect();
    let from = args.from.as_deref().map(|text| moment(text, &meant, Day::start)).transpose()?;
    let to = args.to.as_deref().map(|text| moment(text, &meant, Day::end)).transpose()?;
    let meant = everything.meant.clone();
    let is_meant = |snapshot: &Snapshot| {
        let time = snapshot.envelope.time;
        meant.contains(&snapshot.id) && from.is_none_or(|from| time >= from) && to.is_none_or(|to| time <= to)
    };
    let globs: Vec<Vec<u8>> =
        paths.iter().filter(|path| path.iter().any(|byte| b"*?[".contains(byte))).cloned().collect();
    let options =
        EraseOptions { paths, pinned: args.pinned, reason: args.reason.clone(), now: system::now() };
    let (all, overlays) = (everything.all, everything.overlays);
    let plan = app.engine(observer, |context| {
        ErasePlan::new(&opened.repository, all, overlays, is_meant, options, context)
    });
    plan.map_err(|failure| match globs.first() {
        Some(path) if failure.message.contains("is in no snapshot") => glob(path),
        _ => failure,
    })
}

/// A day, a time, or that of a snapshot.
fn moment(text: &str, meant: &[&Snapshot], of_day: fn(Day) -> Time) -> Result<Time, Failure> {
    if let Ok(day) = text.parse::<Day>() {
        return Ok(of_day(day));
    }
    if let Some(time) = values::timestamp(text) {
        return Ok(time);
    }
    let found = Selector::parse(text)?.select(meant)?;
    Ok(found.snapshot.envelope.time)
}

/// Copies of this repository that hold the bytes too.
fn other_copies(app: &App, opened: &Opened) -> Result<Vec<String>, Failure> {
    let configured = app.config()?.map(|config| config.copies.clone()).unwrap_or_default();
    let this = Place::find(app)?.copy;
    let is_configured = configured.iter().any(|copy| copy.uri == this.uri);
    let others = configured.iter().filter(|copy| is_configured && copy.uri != opened.copy.uri);
    Ok(others.map(|copy| copy.name.clone()).collect())
}

fn count(plan: &ErasePlan, goes: bool) -> u64 {
    plan.erased().iter().filter(|erased| erased.goes == goes).count() as u64
}

fn show(app: &App, plan: &ErasePlan, is_rehearsal: bool) {
    for erased in plan.erased() {
        app.out.event(event(erased));
    }
    let safe = |text: &str| text::printable(text.as_bytes());
    let row = |erased: &Erased| {
        let envelope = &erased.snapshot.envelope;
        vec![
            text::short(&erased.snapshot.id),
            text::date_time(envelope.time),
            safe(&envelope.dataset),
            safe(&envelope.host),
            if erased.goes { "dropped" } else { "rewritten" }.to_owned(),
            text::count(erased.taken.files),
            text::bytes(erased.taken.source_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = plan.erased().iter().map(row).collect();
    let headings = ["id", "time (UTC)", "dataset", "host", "becomes", ">files erased", ">size"];
    let mut lines = text::table(&headings, &rows);
    lines.push(format!("about {} are needed by no snapshot then", text::bytes(plan.freed_bytes())));
    // What a rehearsal was asked for; otherwise a report.
    lines.iter().for_each(|line| if is_rehearsal { app.out.line(line) } else { app.out.done(line) });
}

fn event(erased: &Erased) -> json::Object {
    let envelope = &erased.snapshot.envelope;
    json::object(json!({
        "event": "erase",
        "id": erased.snapshot.id.to_hex(),
        "time": text::rfc3339(envelope.time),
        "dataset": envelope.dataset,
        "host": envelope.host,
        "becomes": if erased.goes { "dropped" } else { "rewritten" },
        "files": erased.taken.files,
        "dirs": erased.taken.dirs,
        "source_bytes": erased.taken.source_bytes,
    }))
}

/// Erasing cannot be undone.
fn confirm(args: &EraseArgs, opened: &Opened) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !prompt::can_ask() {
        return Err(Failure::usage("erasing cannot be undone, and nobody can be asked")
            .hint("look at it with --dry-run, then say --yes"));
    }
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "erase this from {}? (yes/no) ", opened.repository.backend().location());
    let mut answer = String::new();
    let answered = asked.and_then(|()| stderr.flush()).and_then(|()| std::io::stdin().read_line(&mut answer));
    answered.map_err(|error| Failure::io("cannot read from the terminal", &error))?;
    match answer.trim() {
        "yes" | "y" => Ok(()),
        _ => Err(Failure::new(crate::exit::Exit::Failed, "nothing was erased")),
    }
}

fn tell(app: &App, (rewritten, dropped): (u64, u64), is_rehearsal: bool, kept_on: &[String]) {
    let snapshots = |number| text::counted(number, "snapshot", "snapshots");
    let (rewritten, dropped) = (snapshots(rewritten), snapshots(dropped));
    app.out.done(&match is_rehearsal {
        true => format!("would write {rewritten} anew and drop {dropped}"),
        false => format!("wrote {rewritten} anew and dropped {dropped}"),
    });
    if is_rehearsal {
        return;
    }
    app.out.note("the bytes are still stored: `snap prune` frees them, once its grace is over");
    if !kept_on.is_empty() {
        let names = text::printable(kept_on.join(", ").as_bytes());
        app.out.warning(&format!(
            "these copies still have the snapshots as they were: {names}; erase and prune on each with --copy NAME"
        ));
    }
}
