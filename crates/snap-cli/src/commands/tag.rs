use std::collections::BTreeMap;

use serde_json::json;
use snap_format::ObjectId;
use snap_repo::Snapshot;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::TagArgs;
use crate::render::{json, text};
use crate::{repo, select, system};

pub fn run(app: &App, args: &TagArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Deciding)?;
    opened.repository.keyring().require_owner("changing tags")?;
    opened.require_current_keys()?;
    let snapshots = select::load_with_records(app, &opened, &args.filter, false)?;
    let list: Vec<&Snapshot> = snapshots.list.iter().collect();
    let mut changes: BTreeMap<Vec<String>, Vec<ObjectId>> = BTreeMap::new();
    for snapshot in select::choose_each(&list, &args.snapshots)? {
        let old = &snapshot.envelope.tags;
        let new = args.change(old);
        if new != *old {
            let tags = text::printable(new.join(",").as_bytes());
            app.out.done(&format!(
                "{}: {}",
                select::describe(snapshot),
                if new.is_empty() { "-" } else { &tags }
            ));
            changes.entry(new).or_default().push(snapshot.id);
        }
    }
    let time = snapshots.overlays.time_after(system::now());
    for (tags, ids) in &changes {
        opened.repository.set_tags(ids, tags, time)?;
    }
    let changed: Vec<String> = changes.into_values().flatten().map(|id| id.to_hex()).collect();
    app.out.done(&format!("{} changed", text::counted(changed.len() as u64, "snapshot", "snapshots")));
    Ok(Done::with(json::object(json!({ "changed": changed }))))
}
