use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use snap_backend::{OpenOptions, Site};
use snap_engine::restore::is_safety_snapshot;
use snap_ops::DatasetSource;
use snap_ops::policy::{
    CopyFacts, DatasetPolicy, EvidenceKind, Group, Immutable, LockFacts, Machine, ONSITE, PolicyCode,
    PolicyFinding, SnapshotFacts, SourceFacts, Whereabouts, groups, judge,
};
use snap_repo::Snapshot;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::PolicyArgs;
use crate::exit::{Exit, Failure};
use crate::locks;
use crate::render::{json, text};
use crate::repo::{self, Opened, Place};
use crate::system;

/// A copy that answered, and its snapshots.
struct Answer {
    opened: Opened,
    snapshots: Vec<Snapshot>,
}

pub fn run(app: &App, args: &PolicyArgs) -> Outcome {
    let mut extended = Vec::new();
    let (copies, answers) = gather(app, args, &mut extended)?;
    if args.extend_locks && extended.is_empty() {
        return Err(Failure::usage("no copy that answers has a `lock` in snap.toml, so none was extended")
            .hint("add lock = \"30d\" to a copy on s3://"));
    }
    let config = app.config()?;
    let configured = config.iter().flat_map(|config| config.datasets.keys().map(String::as_str));
    let mut policies = Vec::new();
    for group in groups(&copies, configured) {
        let source = source_facts(app, &group, &answers)?;
        policies.push(judge(group, &source, &copies));
    }
    copies.iter().for_each(|copy| app.out.event(copy_event(copy)));
    for policy in &policies {
        app.out.event(policy_event(policy));
        policy.findings.iter().for_each(|finding| app.out.event(finding_event(policy, finding)));
    }
    show(app, &copies, &policies);
    let findings: usize = policies.iter().map(|policy| policy.findings.len()).sum();
    let summary = json::object(json!({
        "datasets": policies.len(),
        "copies": copies.len(),
        "unreachable": copies.iter().filter(|copy| copy.snapshots.is_err()).count(),
        "findings": findings,
    }));
    let mut summary = summary;
    if args.extend_locks {
        summary.insert("locks".to_owned(), extended.clone().into());
    }
    let exit = match () {
        () if extended.iter().any(|it| it["state"] != "ok") => Exit::Failed,
        () if args.check && findings > 0 => Exit::Damage,
        () => Exit::Done,
    };
    Ok(Done { exit, summary })
}

/// What the copies tell. One that does not answer is a fact; if none does, the first one's reason is the failure.
fn gather(
    app: &App,
    args: &PolicyArgs,
    extended: &mut Vec<serde_json::Value>,
) -> Result<(Vec<CopyFacts>, Vec<Answer>), Failure> {
    let machine = Machine::default();
    let (mut copies, mut answers, mut first_failure) = (Vec::new(), Vec::new(), None);
    for (place, opened) in repo::open_all(app, repo::Purpose::Snapshots)? {
        let answer = opened.and_then(|opened| {
            let mut set = opened.repository.snapshots()?;
            set.findings.iter().for_each(|finding| app.out.finding(finding));
            // What a restore saved first is no dataset that has to come back.
            set.snapshots.retain(|snapshot| !is_safety_snapshot(snapshot));
            Ok(Answer { opened, snapshots: set.snapshots })
        });
        let mut facts = copy_facts(app, &place)?;
        match answer {
            Ok(answer) => {
                // Only now: below a disk that is not mounted there is the disk of the mount point.
                if let Some(root) = answer.opened.repository.backend().local_root() {
                    facts.whereabouts.extend(machine.whereabouts(root).unwrap_or_default());
                }
                if args.extend_locks && answer.opened.copy.lock.is_some() {
                    answer.opened.repository.keyring().require_owner("extending locks")?;
                    let mut event = locks::extend_after_run(app, &answer.opened);
                    event["copy"] = facts.name.clone().into();
                    extended.push(event);
                }
                let mut snapshots: Vec<_> = answer.snapshots.iter().map(snapshot_facts).collect();
                if args.locks || facts.is_declared_immutable || answer.opened.copy.lock.is_some() {
                    ask_locks(app, &answer, &mut snapshots)?;
                }
                facts.snapshots = Ok(snapshots);
                answers.push(answer);
            }
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => {
                let why = [vec![failure.message.clone()], failure.causes.clone()].concat().join(": ");
                facts.snapshots = Err(why);
                first_failure.get_or_insert(failure);
            }
        }
        copies.push(facts);
    }
    warn_of_strangers(app, &answers);
    match first_failure {
        Some(failure) if answers.is_empty() => Err(failure),
        _ => Ok((copies, answers)),
    }
}

/// What was made by an `init` of its own is no copy, whatever it is called.
fn warn_of_strangers(app: &App, answers: &[Answer]) {
    let Some((first, others)) = answers.split_first() else { return };
    let id = |answer: &Answer| answer.opened.repository.id();
    for other in others.iter().filter(|other| id(other) != id(first)) {
        app.out.warning(&format!(
            "{} and {} are two repositories, not two copies of one",
            first.opened.copy.name, other.opened.copy.name
        ));
    }
}

/// Asks the store for the locks of the newest snapshot of each dataset and host, which are what is judged.
fn ask_locks(app: &App, answer: &Answer, facts: &mut [SnapshotFacts]) -> Result<(), Failure> {
    let name = &answer.opened.copy.name;
    let mut newest: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let rank = |at: usize| (!facts[at].is_from_the_future, facts[at].time, facts[at].id);
    for (at, it) in facts.iter().enumerate() {
        let best = newest.entry((&it.dataset, &it.host)).or_insert(at);
        if rank(at) > rank(*best) {
            *best = at;
        }
    }
    let judged: Vec<usize> = newest.into_values().collect();
    let snapshots: Vec<Snapshot> = judged.iter().map(|at| answer.snapshots[*at].clone()).collect();
    let told = match locks::ask(app, &answer.opened, &snapshots) {
        Ok(told) => told,
        Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
        Err(failure) => {
            let why = [vec![failure.message.clone()], failure.causes.clone()].concat().join(": ");
            app.out.warning(&format!("the copy {name} cannot be asked what can be deleted: {why}"));
            return Ok(());
        }
    };
    for at in judged {
        facts[at].lock = match told.of(&facts[at].id) {
            None => LockFacts::NotAsked,
            Some(Err(why)) => LockFacts::Open(why.to_owned()),
            Some(Ok(lock)) => match lock.until {
                Some(time) => LockFacts::Until { time, is_final: lock.is_final },
                None => LockFacts::Open(locks::why_open(lock)),
            },
        };
    }
    Ok(())
}

fn snapshot_facts(snapshot: &Snapshot) -> SnapshotFacts {
    SnapshotFacts {
        id: snapshot.id,
        dataset: snapshot.envelope.dataset.clone(),
        host: snapshot.envelope.host.clone(),
        time: snapshot.envelope.time,
        is_from_the_future: snapshot.is_from_the_future(),
        lock: LockFacts::NotAsked,
    }
}

fn copy_facts(app: &App, place: &Place) -> Result<CopyFacts, Failure> {
    let copy = &place.copy;
    // Without its credentials it is still in its bucket.
    let bare = || Site::of(copy.uri.expose(), &OpenOptions::default());
    let site = place.site(app).or_else(|_| bare().map_err(Failure::from))?;
    let mut whereabouts = Whereabouts::of_site(&site);
    if let Some(account) = &copy.account {
        whereabouts.add(EvidenceKind::Account, account.clone());
    }
    Ok(CopyFacts {
        name: copy.name.clone(),
        media: copy.media.clone().unwrap_or_else(|| usual_media(&site).to_owned()),
        location: copy.location.clone().or_else(|| usual_location(&site)),
        is_declared_immutable: copy.immutable,
        whereabouts,
        snapshots: Ok(Vec::new()),
    })
}

fn usual_media(site: &Site) -> &'static str {
    match site.scheme.as_str() {
        "s3" | "gcs" | "azblob" | "b2" => "object-store",
        "sftp" | "webdav" => "server",
        _ => "disk",
    }
}

/// A cloud is somewhere else than here; a server, nobody knows.
fn usual_location(site: &Site) -> Option<String> {
    let is_whole_cloud = matches!(site.scheme.as_str(), "gcs" | "azblob" | "b2") && site.host.is_none();
    site.region.clone().or_else(|| is_whole_cloud.then(|| site.scheme.clone()))
}

fn source_facts(app: &App, group: &Group, answers: &[Answer]) -> Result<SourceFacts, Failure> {
    let dataset = app.config()?.and_then(|config| config.dataset(&group.dataset));
    let is_here = group.host.as_ref().is_none_or(|host| *host == system::host_name());
    let mut facts =
        SourceFacts { media: "disk".into(), location: ONSITE.into(), whereabouts: Whereabouts::unknown() };
    match dataset.and_then(|dataset| dataset.source.as_ref()) {
        Some(DatasetSource::Uri(uri)) => {
            let env = |name: &str| app.env.text(name);
            let options = OpenOptions { env: Some(&env), ..OpenOptions::default() };
            let site = Site::of(uri.expose(), &options)?;
            facts.whereabouts = Whereabouts::of_site(&site);
            facts.location = usual_location(&site).unwrap_or(facts.location);
            facts.media = usual_media(&site).to_owned();
        }
        // Paths of another machine say nothing about this one's disks.
        _ if !is_here => {}
        Some(DatasetSource::Paths(paths)) => facts.whereabouts = whereabouts(paths),
        None => facts.whereabouts = whereabouts(&stored_paths(group, answers)),
    }
    if let Some(location) = dataset.and_then(|dataset| dataset.location.as_ref()) {
        facts.location.clone_from(location);
    }
    if let Some(account) = dataset.and_then(|dataset| dataset.account.as_ref()) {
        facts.whereabouts.add(EvidenceKind::Account, account.clone());
    }
    Ok(facts)
}

fn whereabouts(paths: &[PathBuf]) -> Whereabouts {
    let machine = Machine::default();
    let mut out = Whereabouts::unknown();
    for path in paths {
        out.extend(machine.whereabouts(path).unwrap_or_default());
    }
    out
}

/// What the newest snapshot was made of, if this key may know.
fn stored_paths(group: &Group, answers: &[Answer]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let Some(newest) = &group.newest else { return Vec::new() };
    let body = answers.iter().find_map(|answer| {
        let snapshot = answer.snapshots.iter().find(|snapshot| snapshot.id == newest.id)?;
        answer.opened.repository.open_body(snapshot).ok()
    });
    let path = |path: &Vec<u8>| Path::new(std::ffi::OsStr::from_bytes(path)).to_owned();
    body.map(|body| body.paths.iter().map(path).collect()).unwrap_or_default()
}

fn copy_event(copy: &CopyFacts) -> json::Object {
    json::object(json!({
        "event": "copy",
        "name": copy.name,
        "state": if copy.snapshots.is_ok() { "ok" } else { "unreachable" },
        "why": copy.snapshots.as_ref().err(),
        "media": copy.media,
        "location": copy.location,
        "immutable": if copy.is_declared_immutable { "declared" } else { "no" },
    }))
}

fn policy_event(policy: &DatasetPolicy) -> json::Object {
    let newest = policy.group.newest.as_ref();
    let (immutable, until) = match policy.immutable {
        Immutable::No => ("no", None),
        Immutable::Declared => ("declared", None),
        Immutable::Governed(time) => ("governed", Some(text::rfc3339(time))),
        Immutable::Until(time) => ("proven", Some(text::rfc3339(time))),
    };
    let codes: Vec<_> = policy.findings.iter().map(|finding| finding.code.as_str()).collect();
    json::object(json!({
        "event": "policy",
        "dataset": policy.group.dataset,
        "host": policy.group.host,
        "snapshot": newest.map(|it| it.id.to_hex()),
        "time": newest.map(|it| text::rfc3339(it.time)),
        "copies": policy.holding,
        "lagging": policy.lacking,
        "unreachable": policy.silent,
        "media": policy.media,
        "elsewhere": policy.elsewhere,
        "places": policy.places,
        "immutable": immutable,
        "immutable_until": until,
        "findings": codes,
    }))
}

fn finding_event(policy: &DatasetPolicy, finding: &PolicyFinding) -> json::Object {
    let evidence: Vec<_> =
        finding.evidence.iter().map(|it| json!({ "kind": it.kind.as_str(), "value": it.value })).collect();
    json::object(json!({
        "event": "finding",
        "code": finding.code.as_str(),
        "dataset": policy.group.dataset,
        "host": policy.group.host,
        "with_source": finding.with_source,
        "copies": finding.copies,
        "evidence": evidence,
        "message": finding.message(),
    }))
}

fn show(app: &App, copies: &[CopyFacts], policies: &[DatasetPolicy]) {
    let out = &app.out;
    for copy in copies {
        if let Err(why) = &copy.snapshots {
            out.warning(&format!("the copy {} does not answer: {why}", copy.name));
        }
    }
    let safe = |text: &str| text::printable(text.as_bytes());
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { safe(&names.join(", ")) };
    let row = |policy: &DatasetPolicy| {
        let newest = policy.group.newest.as_ref();
        let immutable = match policy.immutable {
            Immutable::No => "no".to_owned(),
            Immutable::Declared => "declared, not proven".to_owned(),
            Immutable::Governed(time) => format!("until {}, governed", text::date_time(time)),
            Immutable::Until(time) => format!("until {}", text::date_time(time)),
        };
        let holding = format!("{} of {}: {}", policy.holding.len(), copies.len(), list(&policy.holding));
        vec![
            safe(&policy.group.dataset),
            safe(policy.group.host.as_deref().unwrap_or("-")),
            newest.map_or_else(|| "never".to_owned(), |it| text::date_time(it.time)),
            holding,
            list(&policy.media),
            list(&policy.elsewhere),
            policy.places.to_string(),
            immutable,
        ]
    };
    let rows: Vec<_> = policies.iter().map(row).collect();
    if rows.is_empty() {
        return out.done("no dataset is configured, and no snapshot is there");
    }
    let headings =
        ["dataset", "host", "newest (UTC)", "copies", "media", "elsewhere", ">places", "immutable"];
    text::table(&headings, &rows).iter().for_each(|line| out.line(line));
    show_findings(app, policies);
}

/// Each finding once, with the datasets that it concerns.
fn show_findings(app: &App, policies: &[DatasetPolicy]) {
    let mut told: Vec<(PolicyCode, String, Vec<String>)> = Vec::new();
    for policy in policies {
        let host = policy.group.host.as_ref().map(|host| format!("@{host}")).unwrap_or_default();
        let name = format!("{}{host}", policy.group.dataset);
        for finding in &policy.findings {
            let message = finding.message();
            match told.iter_mut().find(|(code, other, _)| *code == finding.code && *other == message) {
                Some((_, _, datasets)) => datasets.push(name.clone()),
                None => told.push((finding.code, message, vec![name.clone()])),
            }
        }
    }
    told.sort_by_key(|(code, ..)| *code);
    for (code, message, datasets) in &told {
        let line = format!("{}: {message} [{}]", code.as_str(), datasets.join(", "));
        app.out.line(&text::printable(line.as_bytes()));
    }
    if told.is_empty() {
        app.out.done("3-2-1 holds, as far as this machine can tell");
    }
}
