mod plan;
mod report;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use snap_engine::erase::ErasePlan;
use snap_repo::prune::DEFAULT_GRACE;
use snap_repo::{Area, object_name};

use self::report::{Fate, Held};
use super::{Done, Outcome, prune};
use crate::app::App;
use crate::args::{EraseArgs, values};
use crate::copies::{self, Copies};
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{Opened, Place, Purpose};
use crate::{locks, prompt, select, system};

pub fn run(app: &App, args: &EraseArgs) -> Outcome {
    let paths = paths(args)?;
    if args.reason.trim().is_empty() {
        return Err(Failure::usage("the reason is empty").hint("say why, for those who find the gap later"));
    }
    let copies = copies::open(app, Purpose::Reading, args.dry_run)?;
    copies.first().repository.keyring().require_owner("erasing")?;
    let plans = plan::of_all(app, args, &copies, paths)?;
    let left = left(app, &copies)?;
    report::show(app, &copies, &plans, args.dry_run);
    let mut summary = report::summary(&plans, args.dry_run);
    if args.dry_run {
        report::warn_of_left(app, &left, true);
        summary.insert("copies_left".into(), names(&left).into());
        return Ok(Done::with(summary));
    }
    confirm(args, &copies)?;
    let fates = carry_out(app, args, &copies, plans);
    report::tell(app, &copies, &fates);
    report::warn_of_left(app, &left, false);
    let failed = fates.iter().zip(&copies.opened).filter(|(fate, _)| fate.failure.is_some());
    let failed = failed.map(|(_, opened)| opened.copy.name.as_str());
    let not_done: Vec<&str> = failed.chain(left.iter().map(|(name, _)| name.as_str())).collect();
    summary.insert("copies_left".into(), not_done.into());
    summary.append(&mut report::outcome(&copies, &fates, &left));
    let failure = fates.iter().find_map(|fate| fate.failure.clone());
    if let (Some(failure), [_]) = (&failure, &copies.opened[..]) {
        return Err(failure.clone());
    }
    let failure = failure.or_else(|| fates.into_iter().find_map(|fate| fate.prune_failure));
    let exit = failure.map_or(Exit::Done, |failure| {
        app.out.failure(&failure);
        failure.exit
    });
    Ok(Done { exit, summary })
}

fn names(left: &[(String, String)]) -> Vec<&str> {
    left.iter().map(|(name, _)| name.as_str()).collect()
}

fn paths(args: &EraseArgs) -> Result<Vec<Vec<u8>>, Failure> {
    if args.path.is_empty() && args.dataset.is_empty() {
        return Err(Failure::usage("neither a path nor a dataset is given")
            .hint("name what to erase: --path PATH, or --dataset NAME"));
    }
    let working_dir = select::working_dir()?;
    let path = |path: &std::path::PathBuf| {
        let bytes = path.as_os_str().as_bytes();
        if is_glob(bytes) && !bytes.starts_with(b"/") {
            return Err(glob(bytes));
        }
        Ok(values::absolute(path, &working_dir))
    };
    args.path.iter().map(path).collect()
}

fn is_glob(path: &[u8]) -> bool {
    path.iter().any(|byte| b"*?[".contains(byte))
}

fn glob(path: &[u8]) -> Failure {
    Failure::usage(format!("{}: patterns are not taken", text::printable(path))).hint(
        "name files and directories one by one; one whose name has such a character by its absolute path",
    )
}

/// Copies of this repository that this run does not reach: their names, and why.
fn left(app: &App, copies: &Copies) -> Result<Vec<(String, String)>, Failure> {
    let absent = copies.absent().map(|(name, why)| (name.to_owned(), why.to_owned()));
    let configured = app.config()?.map(|config| config.copies.clone()).unwrap_or_default();
    let places = Place::all(app)?;
    let is_meant = |uri| places.iter().any(|place| place.copy.uri == uri);
    let mut left: Vec<(String, String)> = absent.collect();
    if configured.iter().any(|copy| is_meant(copy.uri.clone())) {
        let others = configured.iter().filter(|copy| !is_meant(copy.uri.clone()));
        left.extend(others.map(|copy| (copy.name.clone(), "it was not asked to".to_owned())));
    }
    Ok(left)
}

/// Erasing cannot be undone.
fn confirm(args: &EraseArgs, copies: &Copies) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !prompt::can_ask() {
        return Err(Failure::usage("erasing cannot be undone, and nobody can be asked")
            .hint("look at it with --dry-run, then say --yes"));
    }
    let places: Vec<String> =
        copies.opened.iter().map(|opened| opened.repository.backend().location()).collect();
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "erase this from {}? (yes/no) ", places.join(" and "));
    let mut answer = String::new();
    let answered = asked.and_then(|()| stderr.flush()).and_then(|()| std::io::stdin().read_line(&mut answer));
    answered.map_err(|error| Failure::io("cannot read from the terminal", &error))?;
    match answer.trim() {
        "yes" | "y" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was erased")),
    }
}

/// Copy by copy; one that fails stops no other.
fn carry_out(app: &App, args: &EraseArgs, copies: &Copies, plans: Vec<ErasePlan>) -> Vec<Fate> {
    let mut done: Vec<&snap_repo::Repository> = Vec::new();
    let mut fates = Vec::new();
    for (opened, plan) in copies.opened.iter().zip(plans) {
        let fate = carry_out_in(app, args, opened, plan, &done);
        if fate.failure.is_none() {
            done.push(&opened.repository);
        }
        fates.push(fate);
    }
    fates
}

fn carry_out_in(
    app: &App,
    args: &EraseArgs,
    opened: &Opened,
    plan: ErasePlan,
    done: &[&snap_repo::Repository],
) -> Fate {
    let mut fate = Fate { is_meant: !plan.is_empty(), ..Fate::default() };
    if !fate.is_meant {
        return fate;
    }
    let observer = CliObserver::new(app);
    let (repository, cache) = (&opened.repository, opened.cache.as_ref());
    let erasure = match app.engine(&observer, |context| plan.execute(repository, cache, done, context)) {
        Ok(erasure) => erasure,
        Err(failure) => return Fate { failure: Some(failure), ..fate },
    };
    erasure.damaged.iter().for_each(|finding| app.out.finding(finding));
    let grace = args.grace.map_or(DEFAULT_GRACE, |grace| grace.0);
    match prune::after_erase(app, opened, grace) {
        Ok(pruned) => fate.pruned = Some(pruned),
        Err(failure) => fate.prune_failure = Some(failure),
    }
    let names: BTreeSet<_> = erasure.packs.iter().map(|id| object_name(Area::Packs, id)).collect();
    match held(app, opened, &erasure.packs, &names, grace) {
        Ok(held) => fate.held = Some(held),
        Err(failure) => app.out.warning(&format!(
            "what {} still has of it is not known: {}",
            text::printable(opened.copy.name.as_bytes()),
            copies::in_words(&failure)
        )),
    }
    fate.erasure = erasure;
    // What is new is needed.
    fate.locks = locks::extend_after_run(app, opened);
    fate
}

/// What a copy still holds of what was erased.
fn held(
    app: &App,
    opened: &Opened,
    packs: &[snap_format::ObjectId],
    names: &BTreeSet<snap_backend::ObjectName>,
    grace: std::time::Duration,
) -> Result<Held, Failure> {
    let there = opened.repository.list(Area::Packs)?;
    let mut held = Held::default();
    for (_, size) in there.iter().filter(|(id, _)| packs.contains(id)) {
        held.packs += 1;
        held.bytes += size;
    }
    if held.packs > 0 {
        let now = system::now();
        let seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        held.deletable_after = Some(snap_format::Time::new(now.secs.saturating_add(seconds), 0));
    }
    held.versions = locks::left_of(app, opened, names)?;
    Ok(held)
}

/// The fields of one copy in the summary.
fn of_copy(name: &str, state: &str) -> json::Object {
    json::object(json!({ "name": name, "state": state }))
}
