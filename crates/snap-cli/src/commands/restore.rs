use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use snap_engine::{EngineError, Overwrite, RestoreOptions, RestoreReport, RestoreTarget, restore};

use super::cat::refuse_terminal;
use super::database;
use super::ls::{browse, tell_rescued};
use super::{Done, Outcome};
use crate::app::App;
use crate::args::RestoreArgs;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo;
use crate::select::{self, Chosen};

pub fn run(app: &App, args: &RestoreArgs) -> Outcome {
    if let Some(uri) = args.target_uri().filter(|uri| database::is_database(uri)) {
        return database::restore(app, args, uri);
    }
    validate(app, args)?;
    let began = Instant::now();
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("restore")?;
    let chosen = select::choose(app, &opened, &args.filter, &args.snapshot.snapshot)?;
    settle_groups(app, args, &chosen)?;
    let browser = browse(app, &opened, &chosen.snapshot)?;
    let target = match args.is_tar() {
        true => RestoreTarget::Tar(Box::new(app.out.writer())),
        false => RestoreTarget::Dir(args.target.clone()),
    };
    let options = RestoreOptions {
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: args.overwrite(),
        delete: args.delete,
        verify: args.verify,
        dry_run: args.dry_run,
        no_owner: args.no_owner,
    };
    let observer = CliObserver::new(app);
    let path = args.snapshot.path.as_deref();
    let outcome = app.engine(&observer, |context| restore(&browser, path, target, &options, context));
    tell_rescued(app, &opened, browser.reader());
    let report = match outcome {
        Ok(report) => report,
        Err(failure) if args.is_tar() => return Done::unless_broken(app, failure),
        Err(failure) => return Err(failure),
    };
    if !args.is_tar() {
        tell(app, args, &chosen, &report, began);
    }
    let mut summary = summary(&report);
    summary.insert("snapshot".to_owned(), chosen.snapshot.id.to_hex().into());
    summary.insert("dry_run".to_owned(), args.dry_run.into());
    summary.insert("seconds".to_owned(), began.elapsed().as_secs_f64().into());
    Ok(Done { exit: exit_of(&report), summary })
}

fn validate(app: &App, args: &RestoreArgs) -> Result<(), Failure> {
    if args.is_tar() {
        if args.delete || args.verify || args.dry_run || args.overwrite() != Overwrite::IfChanged {
            return Err(Failure::usage("a tar takes no --overwrite, --delete, --verify or --dry-run")
                .hint("restore into a directory, or leave them out"));
        }
        return refuse_terminal(app);
    }
    if args.target.as_os_str().is_empty() {
        return Err(Failure::usage("the target is empty").hint("--target . is the working directory"));
    }
    match args.target.to_str() {
        Some(target) if target.contains("://") => Err(Failure::usage(format!("{target} is no directory"))
            .hint("restore into a directory; for one of that name write ./…")),
        _ => Ok(()),
    }
}

/// Reading may guess which dataset is meant; writing over what is there may not.
fn settle_groups(app: &App, args: &RestoreArgs, chosen: &Chosen) -> Result<(), Failure> {
    if chosen.groups.is_empty() {
        return Ok(());
    }
    if args.is_tar() || is_vacant(&args.target) {
        select::tell(app, chosen);
        return Ok(());
    }
    let (name, groups) = (args.snapshot.snapshot.clone(), chosen.groups.join(", "));
    Err(Failure::from(EngineError::SeveralGroups { name, groups })
        .cause(format!("the target {} is not empty", args.target.display())))
}

/// Whether nothing is there that could be overwritten.
fn is_vacant(target: &Path) -> bool {
    match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Damage before failures: it says more.
pub fn exit_of(report: &RestoreReport) -> Exit {
    match report {
        RestoreReport { damaged: 1.., .. } => Exit::Damage,
        RestoreReport { failed: 1.., .. } => Exit::Failed,
        _ => Exit::Done,
    }
}

fn summary(report: &RestoreReport) -> json::Object {
    json::object(json!({
        "restored": report.restored,
        "skipped": report.skipped,
        "overwritten": report.overwritten,
        "deleted": report.deleted,
        "restored_bytes": report.restored_bytes,
        "fetched_bytes": report.fetched_bytes,
        "requests": report.requests,
        "damaged": report.damaged,
        "failed": report.failed,
    }))
}

fn tell(app: &App, args: &RestoreArgs, chosen: &Chosen, report: &RestoreReport, began: Instant) {
    let restored = if args.dry_run { "would restore" } else { "restored" };
    app.out.done(&format!("snapshot {} to {}", select::describe(&chosen.snapshot), args.target.display()));
    app.out.done(&format!(
        "{restored} {} ({} overwritten), {}; left as they are {}; deleted {}",
        text::counted(report.restored, "entry", "entries"),
        text::count(report.overwritten),
        text::bytes(report.restored_bytes),
        text::count(report.skipped),
        text::count(report.deleted),
    ));
    if !args.dry_run {
        app.out.done(&format!(
            "fetched {} in {} requests, {}",
            text::bytes(report.fetched_bytes),
            text::count(report.requests),
            text::duration(began.elapsed())
        ));
    }
    if report.damaged > 0 {
        app.out.warning(&format!(
            "{} lost to damage of the repository, named above; everything else was restored. An older snapshot may \
             have them: `snap snapshots`",
            text::counted(report.damaged, "entry is", "entries are")
        ));
    }
    if report.failed > 0 {
        let why = if rustix::process::geteuid().is_root() { "" } else { "; as root more may be possible" };
        app.out.warning(&format!(
            "{} could not be written, named above{why}",
            text::counted(report.failed, "entry", "entries")
        ));
    }
}
