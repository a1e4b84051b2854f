//! What is said of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use snap_engine::erase::{ErasePlan, Erased, Erasure};
use snap_engine::locks::Left;
use snap_format::{ObjectId, Time};

use super::of_copy;
use crate::app::App;
use crate::copies::Copies;
use crate::exit::Failure;
use crate::render::{json, text};

/// What became of it in one copy.
#[derive(Default)]
pub struct Fate {
    /// There was something to erase.
    pub is_meant: bool,
    pub erasure: Erasure,
    pub failure: Option<Failure>,
    pub pruned: Option<json::Object>,
    pub prune_failure: Option<Failure>,
    pub held: Option<Held>,
    pub locks: serde_json::Value,
}

/// What a copy still holds of it.
#[derive(Default)]
pub struct Held {
    pub packs: u64,
    pub bytes: u64,
    pub deletable_after: Option<Time>,
    /// As far as the store can be asked.
    pub versions: Option<Left>,
}

pub fn show(app: &App, copies: &Copies, plans: &[ErasePlan], is_rehearsal: bool) {
    // What a rehearsal was asked for; otherwise a report.
    let line = |text: &str| if is_rehearsal { app.out.line(text) } else { app.out.done(text) };
    for (opened, plan) in copies.opened.iter().zip(plans) {
        let name = &opened.copy.name;
        plan.erased().iter().for_each(|erased| app.out.event(event(name, erased)));
        if plans.len() > 1 {
            line(&format!("{}:", text::printable(name.as_bytes())));
        }
        table(plan).iter().for_each(|row| line(row));
        line(&format!("about {} are needed by no snapshot then", text::bytes(plan.freed_bytes())));
    }
    let (rewritten, dropped) = counts(plans);
    let snapshots = |number| text::counted(number, "snapshot", "snapshots");
    let (rewritten, dropped) = (snapshots(rewritten), snapshots(dropped));
    if is_rehearsal {
        app.out.done(&format!("would write {rewritten} anew and drop {dropped}"));
    }
}

fn table(plan: &ErasePlan) -> Vec<String> {
    let safe = |text: &str| text::printable(text.as_bytes());
    let row = |erased: &Erased| {
        let envelope = &erased.snapshot.envelope;
        vec![
            text::short(&erased.snapshot.id),
            text::date_time(envelope.time),
            safe(&envelope.dataset),
            safe(&envelope.host),
            becomes(erased).to_owned(),
            text::count(erased.taken.files),
            text::bytes(erased.taken.source_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = plan.erased().iter().map(row).collect();
    text::table(&["id", "time (UTC)", "dataset", "host", "becomes", ">files erased", ">size"], &rows)
}

const fn becomes(erased: &Erased) -> &'static str {
    if erased.goes { "dropped" } else { "rewritten" }
}

fn event(copy: &str, erased: &Erased) -> json::Object {
    let envelope = &erased.snapshot.envelope;
    json::object(json!({
        "event": "erase",
        "copy": copy,
        "id": erased.snapshot.id.to_hex(),
        "time": text::rfc3339(envelope.time),
        "dataset": envelope.dataset,
        "host": envelope.host,
        "becomes": becomes(erased),
        "files": erased.taken.files,
        "dirs": erased.taken.dirs,
        "source_bytes": erased.taken.source_bytes,
    }))
}

/// Distinct snapshots that are written anew, and that go.
fn counts(plans: &[ErasePlan]) -> (u64, u64) {
    let all: BTreeMap<ObjectId, bool> =
        plans.iter().flat_map(ErasePlan::erased).map(|erased| (erased.snapshot.id, erased.goes)).collect();
    let goes = all.values().filter(|goes| **goes).count() as u64;
    (all.len() as u64 - goes, goes)
}

/// What was planned.
pub fn summary(plans: &[ErasePlan], is_rehearsal: bool) -> json::Object {
    let (rewritten, dropped) = counts(plans);
    json::object(json!({
        "dry_run": is_rehearsal,
        "rewritten": rewritten,
        "dropped": dropped,
        "unreferenced_bytes": plans.iter().map(ErasePlan::freed_bytes).sum::<u64>(),
        "replaced": [],
    }))
}

/// What was done.
pub fn outcome(copies: &Copies, fates: &[Fate], left: &[(String, String)]) -> json::Object {
    let replaced: BTreeSet<(ObjectId, ObjectId)> =
        fates.iter().flat_map(|fate| fate.erasure.replaced.iter().copied()).collect();
    let ids = |(old, new): &(ObjectId, ObjectId)| json!({ "old": old.to_hex(), "new": new.to_hex() });
    let mut states: Vec<serde_json::Value> = Vec::new();
    for (opened, fate) in copies.opened.iter().zip(fates) {
        states.push(state(&opened.copy.name, fate).into());
    }
    for (name, why) in left {
        let mut out = of_copy(name, "left");
        out.insert("reason".into(), why.as_str().into());
        states.push(out.into());
    }
    json::object(json!({
        "replaced": replaced.iter().map(ids).collect::<Vec<_>>(),
        "copies": states,
    }))
}

fn state(name: &str, fate: &Fate) -> json::Object {
    if let Some(failure) = &fate.failure {
        let mut out = of_copy(name, "failed");
        out.insert("reason".into(), crate::copies::in_words(failure).into());
        return out;
    }
    let mut out = of_copy(name, if fate.is_meant { "erased" } else { "nothing" });
    if let Some(held) = &fate.held {
        let locked = held.versions.and_then(|left| left.locked_until_secs);
        let lock = held.versions.filter(|_| locked.is_some());
        let lock = lock.map(|left| if left.is_final { "compliance" } else { "governance" });
        out.insert("packs".into(), held.packs.into());
        out.insert("packs_bytes".into(), held.bytes.into());
        out.insert("deletable_after".into(), held.deletable_after.map(text::rfc3339).into());
        out.insert("packs_with_versions".into(), held.versions.map(|left| left.objects).into());
        out.insert("lock".into(), lock.into());
        out.insert("locked_until".into(), locked.map(|secs| text::rfc3339(Time::new(secs, 0))).into());
    }
    if let Some(pruned) = &fate.pruned {
        out.insert("prune".into(), pruned.clone().into());
    }
    out.insert("locks".into(), fate.locks.clone());
    if let Some(failure) = &fate.prune_failure {
        out.insert("not_pruned".into(), crate::copies::in_words(failure).into());
    }
    out
}

pub fn tell(app: &App, copies: &Copies, fates: &[Fate]) {
    for (opened, fate) in copies.opened.iter().zip(fates) {
        let name = text::printable(opened.copy.name.as_bytes());
        if let Some(failure) = &fate.failure {
            let why = crate::copies::in_words(failure);
            app.out.warning(&format!("{name}: nothing is certain, run this again: {why}"));
            continue;
        }
        if !fate.is_meant {
            app.out.done(&format!("{name}: there was nothing to erase"));
            continue;
        }
        let replaced = text::counted(fate.erasure.replaced.len() as u64, "snapshot", "snapshots");
        app.out.done(&format!("{name}: no snapshot has it any more; {replaced} written anew"));
        if let Some(failure) = &fate.prune_failure {
            let why = crate::copies::in_words(failure);
            app.out.warning(&format!("{name}: not pruned, so the bytes stay: {why}; `snap prune` does it"));
        }
        if !fate.erasure.damaged.is_empty() {
            let packs = text::counted(fate.erasure.damaged.len() as u64, "pack", "packs");
            app.out.warning(&format!(
                "{name}: {packs} that may hold it are damaged, and were left as they are: see `snap check`"
            ));
        }
        if let Some(held) = &fate.held {
            tell_held(app, &name, held);
        }
    }
}

/// What still holds the bytes, and until when.
fn tell_held(app: &App, name: &str, held: &Held) {
    let packs = |number: u64| text::counted(number, "pack", "packs");
    let locked = held.versions.and_then(|left| left.locked_until_secs.map(|until| (until, left)));
    if let Some((until, left)) = locked {
        let who = if left.is_final { "nobody" } else { "only who may bypass governance" };
        app.out.warning(&format!(
            "{name}: {} that hold the bytes are locked: {who} can delete the last of them before {} UTC",
            packs(left.objects),
            text::date_time(Time::new(until, 0))
        ));
    }
    if let Some(after) = held.deletable_after {
        app.out.note(&format!(
            "{name}: {} ({}) still hold the bytes, and nothing else: the first `snap prune` after {} UTC deletes them",
            packs(held.packs),
            text::bytes(held.bytes),
            text::date_time(after)
        ));
    } else if let Some(left) = held.versions.filter(|left| left.objects > 0 && locked.is_none()) {
        app.out.warning(&format!(
            "{name}: the bucket keeps older versions, those of {} that hold the bytes too: delete them, or let a \
             lifecycle rule do it",
            packs(left.objects)
        ));
    } else if locked.is_none() {
        app.out.done(&format!("{name}: the bytes are gone"));
    }
}

pub fn warn_of_left(app: &App, left: &[(String, String)], is_rehearsal: bool) {
    for (name, why) in left {
        let name = text::printable(name.as_bytes());
        let has = if is_rehearsal { "would still have it" } else { "still has it" };
        app.out.warning(&format!("the copy {name} {has}: {why}; do the same there with --copy {name}"));
    }
}
