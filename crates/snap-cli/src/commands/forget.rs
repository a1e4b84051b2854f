use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::json;
use snap_engine::ForgetPlan;
use snap_engine::retention::{Group, Policy, Span, Suspicion, Verdict};
use snap_format::{ObjectId, SlotId};
use snap_ops::Retention;
use snap_repo::Snapshot;

use super::{Outcome, prune};
use crate::app::App;
use crate::args::ForgetArgs;
use crate::copies::{self, Copies};
use crate::exit::Failure;
use crate::render::{json, text};
use crate::repo::{Opened, Purpose};
use crate::select::{self, Everything};
use crate::{locks, system};

pub fn run(app: &App, args: &ForgetArgs) -> Outcome {
    let configured = Configured::load(app)?;
    refuse_nonsense(args, &configured)?;
    let mut copies = copies::open_each(app, Purpose::Deciding, args.dry_run)?;
    copies.first().repository.keyring().require_owner("forgetting snapshots")?;
    if !args.dry_run {
        copies.share_records(app);
    }
    let named = named(app, args, &copies)?;
    let are_several = copies.are_several();
    copies.in_each(app, |opened| {
        let name = are_several.then_some(opened.copy.name.as_str());
        let everything = select::load_all(app, opened, &args.filter)?;
        let plan = match &named {
            Some(named) => ForgetPlan::of_named(everything.all, &everything.overlays, named, system::now())?,
            None => by_policy(app, args, opened, &configured, everything)?,
        };
        forget(app, args, opened, plan, name)
    })
}

fn forget(
    app: &App,
    args: &ForgetArgs,
    opened: &Opened,
    plan: ForgetPlan,
    copy: Option<&str>,
) -> Result<json::Object, Failure> {
    show(app, &plan, args.dry_run, copy);
    let (kept, dropped) = plan.counts();
    let forgotten: HashSet<ObjectId> = plan.dropped().collect();
    if !args.dry_run {
        plan.execute(&opened.repository)?;
    }
    tell(app, kept, dropped, args.dry_run);
    let mut summary = json::object(json!({ "kept": kept, "dropped": dropped, "dry_run": args.dry_run }));
    if args.prune {
        let pruned = prune::after_forget(app, opened, args.dry_run, forgotten)?;
        summary.insert("prune".into(), pruned.into());
    }
    let locks = if args.dry_run { serde_json::Value::Null } else { locks::extend_after_run(app, opened) };
    summary.insert("locks".into(), locks);
    Ok(summary)
}

/// What snap.toml says is to be kept.
struct Configured {
    /// By dataset.
    datasets: BTreeMap<String, Policy>,
    /// By copy, in place of that.
    copies: BTreeMap<String, Policy>,
}

impl Configured {
    fn load(app: &App) -> Result<Self, Failure> {
        let mut out = Self { datasets: BTreeMap::new(), copies: BTreeMap::new() };
        let Some(config) = app.config()? else { return Ok(out) };
        for (name, dataset) in &config.datasets {
            out.datasets.extend(dataset.retention.as_ref().map(|it| (name.clone(), policy(it))));
        }
        for copy in &config.copies {
            out.copies.extend(copy.retention.as_ref().map(|it| (copy.name.clone(), policy(it))));
        }
        Ok(out)
    }

    fn is_empty(&self) -> bool {
        self.datasets.is_empty() && self.copies.is_empty()
    }
}

fn policy(retention: &Retention) -> Policy {
    let Retention { last, hourly, daily, weekly, monthly, yearly, within } = retention;
    let count = |count: &u32| u64::from(*count);
    // To the hour, rounded up.
    let hours = |seconds: u64| u32::try_from(seconds.div_ceil(3600)).unwrap_or(u32::MAX);
    Policy {
        last: count(last),
        hourly: count(hourly),
        daily: count(daily),
        weekly: count(weekly),
        monthly: count(monthly),
        yearly: count(yearly),
        within: within.map(|within| Span { hours: hours(within.seconds()), ..Span::default() }),
        tags: Vec::new(),
    }
}

fn refuse_nonsense(args: &ForgetArgs, configured: &Configured) -> Result<(), Failure> {
    match (args.snapshots.is_empty(), args.has_policy()) {
        (true, false) if configured.is_empty() => {
            Err(Failure::usage("neither a policy nor a snapshot is given").hint(
                "say what to keep, such as --keep-daily 14 --keep-monthly 24 or `retention` in snap.toml, or which snapshots to \
                 forget",
            ))
        }
        (false, true) => {
            Err(Failure::usage("snapshots are named, and a policy is given").hint("give one of the two"))
        }
        (true, true) if args.policy().is_empty() => Err(Failure::usage("the policy keeps nothing at all")
            .hint("to forget all snapshots of a group, name them")),
        _ => Ok(()),
    }
}

/// The snapshots that are named, wherever they are; none if none is.
fn named(app: &App, args: &ForgetArgs, copies: &Copies) -> Result<Option<Vec<ObjectId>>, Failure> {
    if args.snapshots.is_empty() {
        return Ok(None);
    }
    let all = select::load_from_all(app, &copies.opened, &args.filter)?;
    let list = select::union(&all);
    let chosen = select::choose_each(&list, &args.snapshots)?;
    Ok(Some(chosen.into_iter().map(|snapshot| snapshot.id).collect()))
}

/// Flags stand in place of what snap.toml says of datasets. What it says of a copy holds there unless that copy is chosen.
fn by_policy(
    app: &App,
    args: &ForgetArgs,
    opened: &Opened,
    configured: &Configured,
    everything: Everything,
) -> Result<ForgetPlan, Failure> {
    let Everything { all, meant, overlays, .. } = everything;
    let name = &opened.copy.name;
    let flags = args.has_policy().then(|| args.policy());
    let is_chosen = app.global.copy.is_some() && flags.is_some();
    let own = configured.copies.get(name).filter(|_| !is_chosen && opened.copy.retention.is_some());
    if own.is_some() && flags.is_some() {
        app.out.note(&format!(
            "{name} keeps what its own `retention` in snap.toml says; with --copy {name} the flags count there"
        ));
    }
    let policy_of = |dataset: &str| own.or(flags.as_ref()).or_else(|| configured.datasets.get(dataset));
    let is_meant = |snapshot: &Snapshot| meant.contains(&snapshot.id);
    let left: BTreeSet<&str> = all
        .iter()
        .filter(|snapshot| is_meant(snapshot))
        .map(|snapshot| &*snapshot.envelope.dataset)
        .filter(|dataset| policy_of(dataset).is_none())
        .collect();
    if !left.is_empty() {
        let left: Vec<&str> = left.into_iter().collect();
        let names = text::printable(left.join(", ").as_bytes());
        app.out.note(&format!("snap.toml does not say what to keep of {names}: all of it stays"));
    }
    Ok(ForgetPlan::by_policies(all, &overlays, is_meant, policy_of, system::now())?)
}

fn show(app: &App, plan: &ForgetPlan, is_rehearsal: bool, copy: Option<&str>) {
    for group in plan.groups() {
        for verdict in &group.verdicts {
            let mut event = event(plan.snapshot(verdict), verdict);
            event.extend(copy.map(|name| ("copy".to_owned(), name.into())));
            app.out.event(event);
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
