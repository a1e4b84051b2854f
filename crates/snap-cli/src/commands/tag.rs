use std::collections::BTreeMap;

use serde_json::json;
use snap_format::ObjectId;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::TagArgs;
use crate::render::{json, text};
use crate::repo::Purpose;
use crate::{copies, select, system};

pub fn run(app: &App, args: &TagArgs) -> Outcome {
    let mut copies = copies::open_each(app, Purpose::Deciding, false)?;
    copies.first().repository.keyring().require_owner("changing tags")?;
    let all = select::load_from_all(app, &copies.opened, &args.filter)?;
    let mut changes: BTreeMap<Vec<String>, Vec<ObjectId>> = BTreeMap::new();
    for snapshot in select::choose_each(&select::union(&all), &args.snapshots)? {
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
    let time = select::time_after(&all, system::now());
    let states = copies.write_records(app, |repository| {
        changes.iter().try_for_each(|(tags, ids)| repository.set_tags(ids, tags, time))
    })?;
    let changed: Vec<String> = changes.into_values().flatten().map(|id| id.to_hex()).collect();
    app.out.done(&format!("{} changed", text::counted(changed.len() as u64, "snapshot", "snapshots")));
    let mut summary = json::object(json!({ "changed": changed }));
    summary.extend(states.map(|states| ("copies".to_owned(), states)));
    Ok(Done::with(summary))
}
