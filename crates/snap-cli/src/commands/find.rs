use std::collections::HashSet;

use serde_json::json;
use snap_engine::EngineError;
use snap_engine::look::{FindOptions, History, Past, find};
use snap_format::Node;
use snap_repo::{Index, Snapshot};

use super::ls::{Show, tell_rescued};
use super::{Done, Outcome};
use crate::app::App;
use crate::args::FindArgs;
use crate::args::values::SizeRange;
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Opened};
use crate::{select, system};

pub fn run(app: &App, args: &FindArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("find")?;
    let mut snapshots = select::load(app, &opened, &args.filter, false)?.list;
    if !args.snapshot.is_empty() {
        let list: Vec<&Snapshot> = snapshots.iter().collect();
        let chosen: Vec<_> =
            args.snapshot.iter().map(|name| select::among(app, &list, name)).collect::<Result<_, _>>()?;
        snapshots.retain(|snapshot| chosen.contains(&snapshot.id));
    }
    if args.once {
        snapshots.reverse();
    }
    let history = history(app, &opened, &snapshots)?.with_cache(opened.cache.as_ref());
    let now = system::now();
    let options = FindOptions {
        patterns: args.pattern.clone(),
        regex: args.regex,
        ignore_case: args.ignore_case,
        types: args.kind.clone(),
        size_bytes: args.size.map(|SizeRange(least, most)| (least, most)),
        newer: args.newer.map(|moment| moment.time(now)),
        older: args.older.map(|moment| moment.time(now)),
    };
    let observer = CliObserver::new(app);
    let mut seen = HashSet::new();
    let mut entries = 0u64;
    let found = app.engine(&observer, |context| {
        find(&history, &options, context, &mut |past, path, node| {
            // Nobody reads any more.
            if app.out.is_broken() {
                return Err(EngineError::Interrupted);
            }
            if !args.once || seen.insert(snap_crypto::hash(path)) {
                entries += 1;
                show(app, args, past, path, node);
            }
            Ok(())
        })
    });
    tell_rescued(app, &opened, history.reader());
    if let Err(failure) = found {
        return Done::unless_broken(app, failure);
    }
    let searched = history.past().len() as u64;
    if entries == 0 {
        app.out.note(&format!("nothing found in {}", text::counted(searched, "snapshot", "snapshots")));
    }
    let summary = json::object(json!({ "snapshots": searched, "entries": entries }));
    Ok(Done { exit: exit_of(&history), summary })
}

fn show(app: &App, args: &FindArgs, past: &Past, path: &[u8], node: &Node) {
    let id = &past.snapshot.id;
    Show { app, snapshot: id, with_id: true, is_long: args.long }.entry(path, node);
}

/// Opens snapshots to look through them; damage of the index is told.
pub fn history(app: &App, opened: &Opened, snapshots: &[Snapshot]) -> Result<History, Failure> {
    let (index, findings) = Index::load(&opened.repository, opened.cache.as_ref())?;
    findings.iter().for_each(|finding| app.out.finding(finding));
    let history = History::open(&opened.repository, index.into(), snapshots, &CliObserver::new(app))?;
    Ok(match repo::other_copies(app, opened)? {
        Some(open) => history.with_others(open),
        None => history,
    })
}

/// Damage hid something.
pub fn exit_of(history: &History) -> Exit {
    if history.damaged() > 0 { Exit::Damage } else { Exit::Done }
}
