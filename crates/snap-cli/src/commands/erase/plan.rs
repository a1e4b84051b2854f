//! What is to be erased from each copy.

use std::collections::BTreeSet;

use snap_engine::Selector;
use snap_engine::erase::{EraseOptions, ErasePlan};
use snap_format::Time;
use snap_repo::Snapshot;

use super::{glob, is_glob};
use crate::app::App;
use crate::args::values::{self, Day};
use crate::args::{EraseArgs, FilterArgs};
use crate::copies::Copies;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, text};
use crate::select::{self, Everything};
use crate::system;

/// A plan for each copy that is open; an empty one where there is nothing to erase. Fails if there is nothing in any, or not
/// every path is in one of them.
pub fn of_all(
    app: &App,
    args: &EraseArgs,
    copies: &Copies,
    paths: Vec<Vec<u8>>,
) -> Result<Vec<ErasePlan>, Failure> {
    let filter =
        FilterArgs { host: args.host.clone(), dataset: args.dataset.clone(), ..FilterArgs::default() };
    let mut everything = Vec::new();
    for opened in &copies.opened {
        everything.push(select::load_all(app, opened, &filter)?);
    }
    let from = moment(args.from.as_deref(), &everything, Day::start)?;
    let to = moment(args.to.as_deref(), &everything, Day::end)?;
    let observer = CliObserver::new(app);
    let mut plans = Vec::new();
    for (opened, Everything { all, meant, overlays, .. }) in copies.opened.iter().zip(everything) {
        let is_meant = |snapshot: &Snapshot| {
            let time = snapshot.envelope.time;
            let is_late = from.is_none_or(|from| time >= from);
            meant.contains(&snapshot.id) && is_late && to.is_none_or(|to| time <= to)
        };
        let reason = args.reason.clone();
        let options = EraseOptions { paths: paths.clone(), pinned: args.pinned, reason, now: system::now() };
        let (repository, cache) = (&opened.repository, opened.cache.as_ref());
        plans.push(app.engine(&observer, |context| {
            ErasePlan::new(repository, cache, all, overlays, is_meant, options, context)
        })?);
    }
    require_something(&plans)?;
    Ok(plans)
}

fn require_something(plans: &[ErasePlan]) -> Result<(), Failure> {
    let met: BTreeSet<&Vec<u8>> = plans.iter().flat_map(ErasePlan::met).collect();
    let mut paths = plans.iter().flat_map(ErasePlan::paths);
    if let Some(path) = paths.find(|path| !met.contains(path)) {
        return Err(match is_glob(path) {
            true => glob(path),
            false => {
                let path = text::printable(path);
                Failure::new(Exit::Failed, format!("{path} is in no snapshot that is meant"))
                    .hint("`snap find` and `snap versions` tell where it is; nothing was erased")
            }
        });
    }
    match plans.iter().all(ErasePlan::is_empty) {
        true => Err(Failure::new(Exit::Failed, "there is no snapshot that fits")),
        false => Ok(()),
    }
}

/// A day, a time, or that of a snapshot.
fn moment(
    text: Option<&str>,
    everything: &[Everything],
    of_day: fn(Day) -> Time,
) -> Result<Option<Time>, Failure> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(day) = text.parse::<Day>() {
        return Ok(Some(of_day(day)));
    }
    if let Some(time) = values::timestamp(text) {
        return Ok(Some(time));
    }
    let selector = Selector::parse(text)?;
    let mut failure = None;
    for Everything { all, meant, .. } in everything {
        let meant: Vec<&Snapshot> = all.iter().filter(|snapshot| meant.contains(&snapshot.id)).collect();
        match selector.select(&meant) {
            Ok(found) => return Ok(Some(found.snapshot.envelope.time)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(None), |error| Err(error.into()))
}
