//! The judgment: facts in, findings out.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CopyFacts, DatasetPolicy, Evidence, Group, Immutable, LockFacts, PolicyCode, PolicyFinding,
    SnapshotFacts, SourceFacts,
};

/// Copies that must hold the newest snapshot: with the source they are three.
const WANTED_COPIES: usize = 2;
const WANTED_MEDIA: usize = 2;

/// Every dataset that is configured or found, by name and host.
pub fn groups<'a>(copies: &[CopyFacts], configured: impl IntoIterator<Item = &'a str>) -> Vec<Group> {
    let mut newest: BTreeMap<(&str, &str), &SnapshotFacts> = BTreeMap::new();
    // One whose time lies ahead of the store's is not the newest while another is there.
    let rank = |it: &SnapshotFacts| (!it.is_from_the_future, it.time, it.id);
    for snapshot in copies.iter().flat_map(|copy| copy.snapshots.as_deref().unwrap_or_default()) {
        let best = newest.entry((&snapshot.dataset, &snapshot.host)).or_insert(snapshot);
        if rank(snapshot) > rank(best) {
            *best = snapshot;
        }
    }
    let found: BTreeSet<&str> = newest.keys().map(|(dataset, _)| *dataset).collect();
    let group = |dataset: &str, host: Option<&str>, newest: Option<&SnapshotFacts>| Group {
        dataset: dataset.to_owned(),
        host: host.map(str::to_owned),
        newest: newest.cloned(),
    };
    let never =
        configured.into_iter().filter(|name| !found.contains(name)).map(|name| group(name, None, None));
    let mut out: Vec<Group> = newest
        .iter()
        .map(|((dataset, host), it)| group(dataset, Some(host), Some(it)))
        .chain(never)
        .collect();
    out.sort_by(|one, other| (&one.dataset, &one.host).cmp(&(&other.dataset, &other.host)));
    out
}

/// Judges one dataset. A copy that does not answer is believed to hold it as far as too few would be a finding: that it
/// does not answer is told by itself.
pub fn judge(group: Group, source: &SourceFacts, copies: &[CopyFacts]) -> DatasetPolicy {
    let held = |copy: &CopyFacts| -> Option<SnapshotFacts> {
        let newest = group.newest.as_ref()?;
        copy.snapshots.as_ref().ok()?.iter().find(|it| it.id == newest.id).cloned()
    };
    let names = |list: &[&CopyFacts]| -> Vec<String> { list.iter().map(|it| it.name.clone()).collect() };
    let (silent, answering): (Vec<_>, Vec<_>) = copies.iter().partition(|copy| copy.snapshots.is_err());
    let (holding, lacking): (Vec<_>, Vec<_>) = answering.into_iter().partition(|copy| held(copy).is_some());
    let hopeful: Vec<_> = holding.iter().chain(&silent).copied().collect();

    let mut findings = co_located(source, copies);
    let mut short = |is_short: bool, code| {
        if is_short {
            let copies = names(&holding);
            findings.push(PolicyFinding {
                code,
                with_source: false,
                copies,
                evidence: Vec::new(),
                why: None,
            });
        }
    };
    let never = group.newest.is_none() && silent.is_empty();
    short(never || hopeful.len() < WANTED_COPIES, PolicyCode::FewCopies);
    short(!never && media(source, &hopeful).len() < WANTED_MEDIA, PolicyCode::OneMedium);
    short(!never && elsewhere(source, &hopeful).is_empty(), PolicyCode::NoneElsewhere);

    for copy in holding.iter().filter(|copy| copy.is_declared_immutable) {
        if let Some(SnapshotFacts { lock: LockFacts::Open(why), .. }) = held(copy) {
            findings.push(PolicyFinding {
                code: PolicyCode::NotImmutable,
                with_source: false,
                copies: vec![copy.name.clone()],
                evidence: Vec::new(),
                why: Some(why),
            });
        }
    }
    let immutable = |copy: &&CopyFacts| match held(copy).map(|it| it.lock).unwrap_or_default() {
        LockFacts::Until { time, is_final: true } => Immutable::Until(time),
        LockFacts::Until { time, is_final: false } => Immutable::Governed(time),
        LockFacts::NotAsked if copy.is_declared_immutable => Immutable::Declared,
        LockFacts::NotAsked | LockFacts::Open(_) => Immutable::No,
    };
    DatasetPolicy {
        media: media(source, &holding),
        elsewhere: elsewhere(source, &holding),
        immutable: holding.iter().map(immutable).max().unwrap_or(Immutable::No),
        places: places(source, &holding),
        findings,
        holding: names(&holding),
        lacking: names(&lacking),
        silent: names(&silent),
        group,
    }
}

/// Whatever shares anything, the source first.
fn co_located(source: &SourceFacts, copies: &[CopyFacts]) -> Vec<PolicyFinding> {
    let mut out = Vec::new();
    let mut add = |with_source, copies: &[&CopyFacts], evidence: Vec<Evidence>| {
        if !evidence.is_empty() {
            let copies = copies.iter().map(|it| it.name.clone()).collect();
            let code = PolicyCode::CoLocated;
            out.push(PolicyFinding { code, with_source, copies, evidence, why: None });
        }
    };
    for copy in copies {
        add(true, &[copy], source.whereabouts.shared(&copy.whereabouts));
    }
    for (at, one) in copies.iter().enumerate() {
        for other in &copies[at + 1..] {
            add(false, &[one, other], one.whereabouts.shared(&other.whereabouts));
        }
    }
    out
}

fn media(source: &SourceFacts, copies: &[&CopyFacts]) -> Vec<String> {
    let all = copies.iter().map(|copy| &copy.media).chain([&source.media]);
    all.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// A label alone takes a copy away from the source; evidence brings it back.
fn elsewhere(source: &SourceFacts, copies: &[&CopyFacts]) -> Vec<String> {
    let is_elsewhere = |copy: &&&CopyFacts| {
        let labelled = copy.location.as_ref().is_some_and(|it| !it.eq_ignore_ascii_case(&source.location));
        labelled && source.whereabouts.shared(&copy.whereabouts).is_empty()
    };
    copies.iter().filter(is_elsewhere).map(|copy| copy.name.clone()).collect()
}

/// How many there are if those that share anything, directly or by way of a third, count once.
fn places(source: &SourceFacts, copies: &[&CopyFacts]) -> usize {
    let mut waiting: Vec<_> =
        copies.iter().map(|copy| &copy.whereabouts).chain([&source.whereabouts]).collect();
    let mut count = 0;
    while let Some(first) = waiting.pop() {
        count += 1;
        let mut reached = vec![first];
        while let Some(one) = reached.pop() {
            let (near, far): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|other| !one.shared(other).is_empty());
            reached.extend(near);
            waiting = far;
        }
    }
    count
}
