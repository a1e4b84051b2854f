use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use snap_engine::ForgetPlan;
use snap_engine::retention::{Group, Suspicion, Verdict};
use snap_format::{ObjectId, SlotId};
use snap_repo::Snapshot;

use super::{Done, Outcome, prune};
use crate::app::App;
use crate::args::ForgetArgs;
use crate::exit::Failure;
use crate::render::{json, text};
use crate::select::{self, Everything};
use crate::{locks, repo, system};

pub fn run(app: &App, args: &ForgetArgs) -> Outcome {
    refuse_nonsense(args)?;
    let opened = repo::open(app, repo::Purpose::Deciding)?;
    opened.repository.keyring().require_owner("forgetting snapshots")?;
    if !args.dry_run {
        opened.require_current_keys()?;
    }
    let plan = plan(args, select::load_all(app, &opened, &args.filter)?)?;
    show(app, &plan, args.dry_run);
    let (kept, dropped) = plan.counts();
    let forgotten: HashSet<ObjectId> = plan.dropped().collect();
    if !args.dry_run {
        plan.execute(&opened.repository)?;
    }
    tell(app, kept, dropped, args.dry_run);
    let mut summary = json::object(json!({ "kept": kept, "dropped": dropped, "dry_run": args.dry_run }));
    if args.prune {
        let pruned = prune::after_forget(app, &opened, args.dry_run, forgotten)?;
        summary.insert("prune".into(), pruned.into());
    }
    let locks = if args.dry_run { serde_json::Value::Null } else { locks::extend_after_run(app, &opened) };
    summary.insert("locks".into(), locks);
    Ok(Done::with(summary))
}

fn refuse_nonsense(args: &ForgetArgs) -> Result<(), Failure> {
    match (args.snapshots.is_empty(), args.has_policy()) {
        (true, false) => Err(Failure::usage("neither a policy nor a snapshot is given").hint(
            "say what to keep, such as --keep-daily 14 --keep-monthly 24, or which snapshots to forget",
        )),
        (false, true) => {
            Err(Failure::usage("snapshots are named, and a policy is given").hint("give one of the two"))
        }
        (true, true) if args.policy().is_empty() => Err(Failure::usage("the policy keeps nothing at all")
            .hint("to forget all snapshots of a group, name them")),
        _ => Ok(()),
    }
}

fn plan(args: &ForgetArgs, everything: Everything) -> Result<ForgetPlan, Failure> {
    let Everything { all, meant, overlays, .. } = everything;
    let now = system::now();
    if args.snapshots.is_empty() {
        let is_meant = |snapshot: &Snapshot| meant.contains(&snapshot.id);
        let policy = args.policy();
        return Ok(ForgetPlan::by_policy(all, &overlays, is_meant, &policy, now)?);
    }
    let list: Vec<&Snapshot> = all.iter().filter(|snapshot| meant.contains(&snapshot.id)).collect();
    let named: Vec<ObjectId> =
        select::choose_each(&list, &args.snapshots)?.into_iter().map(|snapshot| snapshot.id).collect();
    Ok(ForgetPlan::of_named(all, &overlays, &named, now)?)
}

fn show(app: &App, plan: &ForgetPlan, is_rehearsal: bool) {
    for group in plan.groups() {
        for verdict in &group.verdicts {
            app.out.event(event(plan.snapshot(verdict), verdict));
        }
        for line in table(plan, group) {
            // What a rehearsal was asked for; otherwise a report.
            if is_rehearsal { app.out.line(&line) } else { app.out.done(&line) }
        }
        warn(app, plan, group);
    }
}

fn reasons(verdict: &Verdict) -> Vec<String> {
    verdict.reasons.iter().map(ToString::to_string).collect()
}

fn event(snapshot: &Snapshot, verdict: &Verdict) -> json::Object {
    json::object(json!({
        "event": "retention",
        "id": snapshot.id.to_hex(),
        "time": text::rfc3339(snapshot.envelope.time),
        "dataset": snapshot.envelope.dataset,
        "host": snapshot.envelope.host,
        "keep": verdict.keep,
        "reasons": reasons(verdict),
        "slot": snapshot.slot.to_hex(),
        "slot_label": snapshot.slot_label,
    }))
}

fn slots<'a>(plan: &'a ForgetPlan, group: &Group) -> BTreeMap<SlotId, &'a str> {
    let snapshots = group.verdicts.iter().map(|verdict| plan.snapshot(verdict));
    snapshots.map(|snapshot| (snapshot.slot, snapshot.slot_label.as_str())).collect()
}

fn slot_name(slot: SlotId, label: &str) -> String {
    format!("{} {}", &slot.to_hex()[..12], text::printable(label.as_bytes())).trim_end().to_owned()
}

fn table(plan: &ForgetPlan, group: &Group) -> Vec<String> {
    let shows_slots = slots(plan, group).len() > 1;
    let safe = |text: &str| text::printable(text.as_bytes());
    let rows: Vec<Vec<String>> = group
        .verdicts
        .iter()
        .map(|verdict| {
            let snapshot = plan.snapshot(verdict);
            let mut row = vec![
                text::short(&snapshot.id),
                text::date_time(snapshot.envelope.time),
                safe(&group.dataset),
                safe(&group.host),
            ];
            if shows_slots {
                row.push(slot_name(snapshot.slot, &snapshot.slot_label));
            }
            row.push(if verdict.keep { "keep" } else { "drop" }.to_owned());
            row.push(safe(&reasons(verdict).join(", ")));
            row
        })
        .collect();
    let mut headings = vec!["id", "time (UTC)", "dataset", "host"];
    if shows_slots {
        headings.push("key");
    }
    headings.extend(["verdict", "why"]);
    let mut lines = text::table(&headings, &rows);
    lines.push(String::new());
    lines
}

/// Says which snapshots were judged apart, and why.
fn warn(app: &App, plan: &ForgetPlan, group: &Group) {
    let name = text::printable(format!("{}@{}", group.dataset, group.host).as_bytes());
    let slots = slots(plan, group);
    if slots.len() > 1 {
        let keys: Vec<String> = slots.iter().map(|(slot, label)| slot_name(*slot, label)).collect();
        app.out.note(&format!(
            "{name} has snapshots of {} keys, each judged by itself: {}",
            keys.len(),
            keys.join(", ")
        ));
    }
    let mut classes: BTreeMap<(SlotId, u8, usize), (u64, Suspicion)> = BTreeMap::new();
    for verdict in &group.verdicts {
        let Some(suspicion) = verdict.suspicion() else { continue };
        let class = match suspicion {
            Suspicion::Ahead { .. } => (0, 0),
            Suspicion::Behind { .. } => (1, 0),
            Suspicion::Burst { number, .. } => (2, number),
        };
        let slot = plan.snapshot(verdict).slot;
        classes.entry((slot, class.0, class.1)).or_insert((0, suspicion)).0 += 1;
    }
    for ((slot, ..), (count, suspicion)) in classes {
        let why = match suspicion {
            Suspicion::Ahead { .. } => "their times lie ahead of the store's".to_owned(),
            Suspicion::Behind { .. } => "they were stored long after the times that they claim".to_owned(),
            burst @ Suspicion::Burst { .. } => format!("each is {burst}"),
        };
        app.out.warning(&format!(
            "{} of {name} by the key {} judged apart, so that they displace nothing: {why}",
            text::counted(count, "snapshot", "snapshots"),
            slot_name(slot, slots.get(&slot).copied().unwrap_or_default()),
        ));
    }
}

fn tell(app: &App, kept: u64, dropped: u64, is_rehearsal: bool) {
    let kept = text::counted(kept, "snapshot", "snapshots");
    let dropped = text::counted(dropped, "snapshot", "snapshots");
    app.out.done(&match is_rehearsal {
        true => format!("would forget {dropped} and keep {kept}"),
        false => format!("forgot {dropped} and kept {kept}"),
    });
}
