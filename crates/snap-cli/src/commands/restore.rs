use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use snap_backend::Bucket;
use snap_engine::estimate::Run;
use snap_engine::restore::{Guard, Keeper, Kept, SafetySnapshot, restore_to_bucket};
use snap_engine::{EngineError, RestoreOptions, RestoreReport, RestoreTarget, restore, restore_guarded};
use snap_source::{Names, OwnerMap};

use super::cat::refuse_terminal;
use super::database;
use super::deleted::command_line;
use super::estimate::{Estimate, remember};
use super::ls::{browse, tell_rescued};
use super::{Done, Outcome};
use crate::app::App;
use crate::args::RestoreArgs;
use crate::args::values::OwnerPair;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, quote, text};
use crate::repo::{self, Opened, Place};
use crate::select::{self, Chosen};
use crate::system;

pub fn run(app: &App, args: &RestoreArgs) -> Outcome {
    if let Some(uri) = args.target_uri().filter(|uri| database::is_database(uri)) {
        return database::restore(app, args, uri);
    }
    validate(app, args)?;
    let began = Instant::now();
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("restore")?;
    let chosen = select::choose(app, &opened, &args.filter, &args.snapshot.snapshot)?;
    let bucket = args.target_uri().map(|uri| Place::of_uri(uri).bucket(app)).transpose()?;
    settle_groups(app, args, bucket.as_ref(), &chosen)?;
    let browser = browse(app, &opened, &chosen.snapshot)?;
    let options = RestoreOptions {
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: args.overwrite(),
        delete: args.delete,
        verify: args.verify,
        dry_run: args.dry_run,
        no_owner: args.no_owner,
        owners_by_name: args.owners_by_name,
        owners: Arc::new(owners(args)?),
        protected: opened.protected(),
    };
    let observer = CliObserver::new(app);
    let path = args.snapshot.path.as_deref();
    let outcome = if args.is_tar() {
        let tar = RestoreTarget::Tar(Box::new(app.out.writer()));
        app.engine(&observer, |context| restore(&browser, path, tar, &options, context))
    } else {
        let safety = Safety::find(app, args, &opened)?;
        let guard = Guard { refuse_newer: !args.is_decided(), keeper: safety.keeper(args, &opened)? };
        app.engine(&observer, |context| match &bucket {
            Some(bucket) => restore_to_bucket(&browser, path, bucket, &options, &guard, context),
            None => restore_guarded(&browser, path, &args.target, &options, &guard, context),
        })
    };
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
    if args.dry_run {
        let estimate = Estimate::of(&opened, &report);
        estimate.tell(app);
        summary.extend(estimate.fields());
    } else if !args.is_tar() {
        remember(&opened, Run::of_restore(&report, began.elapsed()));
    }
    summary.insert("snapshot".to_owned(), chosen.snapshot.id.to_hex().into());
    summary.insert("dry_run".to_owned(), args.dry_run.into());
    summary.insert("seconds".to_owned(), began.elapsed().as_secs_f64().into());
    Ok(Done { exit: exit_of(&report), summary })
}

fn validate(app: &App, args: &RestoreArgs) -> Result<(), Failure> {
    if args.is_tar() {
        if args.verify || args.dry_run || args.is_decided() || args.keeps_or_maps() {
            return Err(Failure::usage(
                "a tar takes no --overwrite, --delete, --verify or --dry-run, and nothing about owners or safety",
            )
            .hint("restore into a directory, or leave them out"));
        }
        return refuse_terminal(app);
    }
    if args.target.as_os_str().is_empty() {
        return Err(Failure::usage("the target is empty").hint("--target . is the working directory"));
    }
    match args.target_uri() {
        Some(uri) if uri.starts_with("file://") => {
            Err(Failure::usage(format!("{uri} is a directory")).hint("name it as one, without file://"))
        }
        Some(_) if !args.map_owner.is_empty() || !args.map_group.is_empty() || args.owners_by_name => {
            Err(Failure::usage("objects of a bucket have no owners to map")
                .hint("restore into a directory, or leave it out"))
        }
        _ => Ok(()),
    }
}

/// Looks up who is meant here.
fn owners(args: &RestoreArgs) -> Result<OwnerMap, Failure> {
    let names = Names::new();
    let look_up = |pairs: &[OwnerPair], what: &str, find: fn(&Names, &str) -> Option<u32>| {
        let one = |pair: &OwnerPair| match &pair.to {
            Ok(id) => Ok((pair.from.clone(), *id)),
            Err(name) => find(&names, name).map(|id| (pair.from.clone(), id)).ok_or_else(|| {
                Failure::usage(format!("there is no {what} {name} on this machine")).hint("give a number")
            }),
        };
        pairs.iter().map(one).collect::<Result<Vec<_>, Failure>>()
    };
    Ok(OwnerMap {
        users: look_up(&args.map_owner, "user", Names::uid_of)?,
        groups: look_up(&args.map_group, "group", Names::gid_of)?,
    })
}

/// Reading may guess which dataset is meant; writing over what is there may not.
fn settle_groups(
    app: &App,
    args: &RestoreArgs,
    bucket: Option<&Bucket>,
    chosen: &Chosen,
) -> Result<(), Failure> {
    if chosen.groups.is_empty() {
        return Ok(());
    }
    let is_vacant = match bucket {
        Some(bucket) => bucket.list("")?.is_empty(),
        None => args.is_tar() || is_vacant(&args.target),
    };
    if is_vacant {
        select::tell(app, chosen);
        return Ok(());
    }
    let (name, groups) = (args.snapshot.snapshot.clone(), chosen.groups.join(", "));
    Err(Failure::from(EngineError::SeveralGroups { name, groups }).cause(match bucket {
        Some(bucket) => format!("the target {} is not empty", bucket.location()),
        None => format!("the target {} is not empty", args.target.display()),
    }))
}

/// Whether nothing is there that could be overwritten.
fn is_vacant(target: &Path) -> bool {
    match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Where what is overwritten is saved.
struct Safety {
    /// The repository under a key that may write, if the one that reads may not.
    writer: Option<Opened>,
}

impl Safety {
    fn find(app: &App, args: &RestoreArgs, opened: &Opened) -> Result<Self, Failure> {
        let needs_none = args.dry_run || args.no_safety_snapshot || args.safety_dir.is_some();
        if needs_none || opened.repository.keyring().can_write() || is_vacant(&args.target) {
            return Ok(Self { writer: None });
        }
        Ok(Self { writer: repo::open_to_write(app, opened)? })
    }

    fn keeper<'a>(&'a self, args: &RestoreArgs, opened: &'a Opened) -> Result<Keeper<'a>, Failure> {
        if args.no_safety_snapshot {
            return Ok(Keeper::Nowhere);
        }
        let time = system::now();
        if let Some(dir) = &args.safety_dir {
            let name = format!("before-restore-{}", text::stamp(time));
            return Ok(Keeper::Dir(select::working_dir()?.join(dir).join(name)));
        }
        let opened = self.writer.as_ref().unwrap_or(opened);
        if let Err(failure) = opened.require_current_keys() {
            return Ok(Keeper::Unable(failure.message));
        }
        let host = system::host_name();
        let (repository, cache) = (&opened.repository, opened.cache.as_ref());
        Ok(Keeper::Snapshot(SafetySnapshot { repository, cache, host, time }))
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
        "newer_overwritten": report.changes.newer_overwritten,
        "newer_deleted": report.changes.newer_deleted,
        "safety_snapshot": match &report.kept {
            Some(Kept::Snapshot { id, .. }) => id.to_hex().into(),
            _ => Value::Null,
        },
        "safety_dir": match &report.kept {
            Some(Kept::Dir(dir)) => dir.to_string_lossy().into(),
            _ => Value::Null,
        },
    }))
}

fn tell(app: &App, args: &RestoreArgs, chosen: &Chosen, report: &RestoreReport, began: Instant) {
    let restored = if args.dry_run { "would restore" } else { "restored" };
    let target = args.target_uri().map_or_else(|| args.target.display().to_string(), snap_backend::redact);
    app.out.done(&format!("snapshot {} to {target}", select::describe(&chosen.snapshot)));
    app.out.done(&format!(
        "{restored} {} ({} overwritten), {}; left as they are {}; deleted {}",
        text::counted(report.restored, "entry", "entries"),
        text::count(report.overwritten),
        text::bytes(report.restored_bytes),
        text::count(report.skipped),
        text::count(report.deleted),
    ));
    let fetched = format!(
        "{} in {}",
        text::bytes(report.fetched_bytes),
        text::counted(report.requests, "request", "requests")
    );
    app.out.done(&match args.dry_run {
        true => format!("to fetch: {fetched}"),
        false => format!("fetched {fetched}, {}", text::duration(began.elapsed())),
    });
    tell_newer(app, args, report);
    tell_kept(app, args, report);
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

/// What a rehearsal found that a real run would not do unasked.
fn tell_newer(app: &App, args: &RestoreArgs, report: &RestoreReport) {
    let changes = &report.changes;
    let newer = changes.newer_overwritten + changes.newer_deleted;
    if !args.dry_run || newer == 0 {
        return;
    }
    let newer = text::counted(newer, "entry", "entries");
    app.out.warning(&match args.is_decided() {
        true => format!("{newer} that were modified after the snapshot would be overwritten or deleted"),
        false => format!(
            "{newer} that were modified after the snapshot would be overwritten: without --overwrite or --delete, \
             nothing is restored"
        ),
    });
}

/// How to undo it.
fn tell_kept(app: &App, args: &RestoreArgs, report: &RestoreReport) {
    let target = quote::word(args.target.as_os_str().as_encoded_bytes());
    match &report.kept {
        None => {}
        Some(Kept::Dir(dir)) if args.target_uri().is_some() => {
            app.out.done(&format!("what was overwritten or deleted is in {}", dir.display()));
        }
        Some(Kept::Dir(dir)) => app.out.done(&format!(
            "what was overwritten or deleted is in {dir}; to bring it back: cp -a --remove-destination {dir}/. {target}/",
            dir = quote::word(dir.as_os_str().as_encoded_bytes()),
        )),
        Some(Kept::Snapshot { id, path }) => {
            let from = [text::short(id).as_bytes(), b":", path.as_slice()].concat();
            app.out.done(&format!(
                "what was overwritten or deleted is in the snapshot {}; to bring it back:\n    {} restore {} --target {target}",
                text::short(id),
                command_line(&app.global),
                quote::word(&from),
            ));
        }
    }
}
