//! The policy: cases by hand, a naive reference, and what attackers and ordinary lives look like to it.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::collection::vec;
use proptest::prelude::*;
use snap_engine::retention::{Candidate, Policy, Reason, Span, Standing, Suspicion, Verdict, judge};
use snap_format::{ObjectId, Pin, SlotId, Time};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn id(number: u64) -> ObjectId {
    let mut out = [0; 32];
    out[24..].copy_from_slice(&number.to_be_bytes());
    ObjectId(out)
}

/// Stored right when it claims.
fn snapshot(number: u64, secs: i64) -> Candidate {
    Candidate {
        id: id(number),
        time: Time::new(secs, 0),
        stored: Some(Time::new(secs, 0)),
        duration_ms: 0,
        previous: None,
        dataset: "files".into(),
        host: "web".into(),
        slot: SlotId([1; 16]),
        tags: Vec::new(),
        pin: None,
        standing: Standing::Open,
    }
}

/// Each names the one before; the first one names one that is not there any more.
fn chained(times: impl IntoIterator<Item = i64>) -> Vec<Candidate> {
    let chain = (1..)
        .zip(times)
        .map(|(number, secs)| Candidate { previous: Some(id(number - 1)), ..snapshot(number, secs) });
    chain.collect()
}

fn at(text: &str) -> i64 {
    format!("{text}Z").parse::<Timestamp>().unwrap().as_second()
}

/// Of one group, in the order of the candidates.
fn verdicts(candidates: &[Candidate], policy: &Policy) -> Vec<Verdict> {
    let mut groups = judge(candidates, policy);
    assert_eq!(groups.len(), 1);
    let mut verdicts = groups.remove(0).verdicts;
    verdicts.sort_by_key(|verdict| verdict.candidate);
    verdicts
}

fn kept(candidates: &[Candidate], policy: &Policy) -> BTreeSet<ObjectId> {
    let groups = judge(candidates, policy);
    let verdicts = groups.iter().flat_map(|group| &group.verdicts);
    verdicts.filter(|verdict| verdict.keep).map(|verdict| candidates[verdict.candidate].id).collect()
}

fn suspicions(candidates: &[Candidate]) -> Vec<(u64, Suspicion)> {
    let policy = Policy { last: 1, ..Policy::default() };
    let groups = judge(candidates, &policy);
    let verdicts = groups.iter().flat_map(|group| &group.verdicts);
    let number = |id: ObjectId| u64::from_be_bytes(id.0[24..].try_into().unwrap());
    verdicts
        .filter_map(|verdict| Some((number(candidates[verdict.candidate].id), verdict.suspicion()?)))
        .collect()
}

#[test]
fn cases_by_hand() {
    let policy = |rule: &str, count| match rule {
        "last" => Policy { last: count, ..Policy::default() },
        "hourly" => Policy { hourly: count, ..Policy::default() },
        "daily" => Policy { daily: count, ..Policy::default() },
        "weekly" => Policy { weekly: count, ..Policy::default() },
        "monthly" => Policy { monthly: count, ..Policy::default() },
        "yearly" => Policy { yearly: count, ..Policy::default() },
        span => Policy { within: Some(span.parse().unwrap()), ..Policy::default() },
    };
    // Oldest first; of each the reasons but that of the newest.
    type Case = (&'static str, u64, &'static [(&'static str, &'static str)]);
    let cases: &[Case] = &[
        (
            "last",
            2,
            &[
                ("2026-01-01T00:00:00", ""),
                ("2026-01-01T00:00:01", "last 2"),
                ("2026-01-02T00:00:00", "last 1"),
            ],
        ),
        // Several at the same second: the one with the greatest id is the newest.
        (
            "last",
            1,
            &[("2026-01-01T00:00:00", ""), ("2026-01-01T00:00:00", ""), ("2026-01-01T00:00:00", "last 1")],
        ),
        (
            "daily",
            2,
            &[
                ("2026-01-01T00:00:00", ""),
                ("2026-01-01T00:00:00", "daily 2026-01-01"),
                ("2026-01-02T00:00:00", "daily 2026-01-02"),
            ],
        ),
        // The newest of each, and days without a snapshot do not count.
        (
            "daily",
            3,
            &[
                ("2024-02-27T12:00:00", ""),
                ("2024-02-28T12:00:00", "daily 2024-02-28"),
                ("2024-02-29T00:00:00", ""),
                ("2024-02-29T23:59:59", "daily 2024-02-29"),
                ("2024-03-04T00:00:00", "daily 2024-03-04"),
            ],
        ),
        (
            "hourly",
            2,
            &[
                ("2026-06-30T22:59:59", ""),
                ("2026-06-30T23:00:00", ""),
                ("2026-06-30T23:59:59", "hourly 2026-06-30 23:00"),
                ("2026-07-01T00:00:00", "hourly 2026-07-01 00:00"),
            ],
        ),
        // 2020 has 53 weeks; its last one ends on the third of January.
        (
            "weekly",
            3,
            &[
                ("2020-12-27T23:59:59", "weekly 2020-W52"),
                ("2020-12-28T00:00:00", ""),
                ("2020-12-31T23:59:59", ""),
                ("2021-01-03T23:59:59", "weekly 2020-W53"),
                ("2021-01-04T00:00:00", "weekly 2021-W01"),
            ],
        ),
        // The last days of 2024 are in the first week of 2025.
        (
            "weekly",
            2,
            &[
                ("2024-12-29T00:00:00", "weekly 2024-W52"),
                ("2024-12-30T00:00:00", ""),
                ("2025-01-05T00:00:00", "weekly 2025-W01"),
            ],
        ),
        (
            "monthly",
            2,
            &[
                ("2023-12-31T23:59:59", "monthly 2023-12"),
                ("2024-01-01T00:00:00", ""),
                ("2024-01-31T00:00:00", "monthly 2024-01"),
            ],
        ),
        (
            "yearly",
            2,
            &[
                ("2022-12-31T23:59:59", ""),
                ("2023-06-01T00:00:00", "yearly 2023"),
                ("2024-12-31T23:59:59", "yearly 2024"),
            ],
        ),
        ("yearly", 9, &[("1969-12-31T23:59:59", "yearly 1969"), ("1970-01-01T00:00:00", "yearly 1970")]),
        // A month before the 31st of March is the end of February.
        (
            "1m",
            0,
            &[
                ("2024-02-28T23:59:59", ""),
                ("2024-02-29T12:00:00", "within 1m"),
                ("2024-03-31T12:00:00", "within 1m"),
            ],
        ),
        (
            "48h",
            0,
            &[
                ("2026-01-01T00:00:00", ""),
                ("2026-01-01T00:00:01", "within 48h"),
                ("2026-01-03T00:00:01", "within 48h"),
            ],
        ),
    ];
    for (rule, count, snapshots) in cases {
        let candidates: Vec<Candidate> =
            (1..).zip(*snapshots).map(|(number, (time, _))| snapshot(number, at(time))).collect();
        let found = verdicts(&candidates, &policy(rule, *count));
        for ((time, expected), verdict) in snapshots.iter().zip(found) {
            let reasons: Vec<String> = verdict
                .reasons
                .iter()
                .filter(|reason| !matches!(reason, Reason::Newest))
                .map(ToString::to_string)
                .collect();
            let expected = if expected.is_empty() { "no rule keeps it" } else { expected };
            assert_eq!(reasons, [expected], "{rule} {count}: {time}");
            assert_eq!(verdict.keep, expected != "no rule keeps it");
        }
    }
}

#[test]
fn every_reason_is_told() {
    let mut only = snapshot(1, at("2026-11-20T10:00:00"));
    only.tags = vec!["x".into(), "y".into()];
    only.pin = Some(Pin { reason: "audit".into(), until: Some(Time::new(at("2027-01-01T00:00:00"), 0)) });
    let policy = Policy {
        last: 3,
        hourly: 1,
        daily: 1,
        weekly: 1,
        monthly: 1,
        yearly: 1,
        within: Some("1y6m".parse().unwrap()),
        tags: vec![vec!["y".into(), "x".into()], vec!["x".into(), "z".into()]],
    };
    let reasons: Vec<String> =
        verdicts(&[only], &policy)[0].reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        reasons,
        [
            "last 1",
            "hourly 2026-11-20 10:00",
            "daily 2026-11-20",
            "weekly 2026-W47",
            "monthly 2026-11",
            "yearly 2026",
            "within 1y6m",
            "tag y,x",
            "newest of its key",
            "pinned until 2027-01-01 00:00:00 UTC: audit",
        ]
    );
}

#[test]
fn groups_and_slots_are_judged_by_themselves() {
    let mut candidates = Vec::new();
    for (group, (dataset, host, slot)) in
        (0..).zip([("a", "web", 1), ("a", "web", 2), ("a", "db", 1), ("b", "web", 1)])
    {
        for number in 0..3 {
            candidates.push(Candidate {
                dataset: dataset.into(),
                host: host.into(),
                slot: SlotId([slot; 16]),
                ..snapshot(group * 10 + number, number as i64 * DAY)
            });
        }
    }
    let policy = Policy { last: 1, ..Policy::default() };
    assert_eq!(kept(&candidates, &policy), [2, 12, 22, 32].map(id).into());
    let groups: Vec<(String, String, usize)> = judge(&candidates, &policy)
        .into_iter()
        .map(|group| (group.dataset, group.host, group.verdicts.len()))
        .collect();
    let expected = [("a", "db", 3), ("a", "web", 6), ("b", "web", 3)];
    assert_eq!(groups, expected.map(|(dataset, host, count)| (dataset.into(), host.into(), count)));
}

#[test]
fn what_was_not_meant_is_not_judged_and_what_was_forgotten_does_not_count() {
    let mut candidates: Vec<Candidate> =
        (1..=4).map(|number| snapshot(number, number as i64 * DAY)).collect();
    candidates[3].standing = Standing::NotMeant;
    candidates[2].standing = Standing::Forgotten;
    let found = verdicts(&candidates, &Policy { last: 1, ..Policy::default() });
    let brief: Vec<(usize, bool)> = found.iter().map(|verdict| (verdict.candidate, verdict.keep)).collect();
    assert_eq!(brief, [(0, false), (1, true), (2, false)]);
    assert_eq!(found[2].reasons, [Reason::ForgottenBefore]);
}

#[test]
fn a_policy_that_keeps_nothing_is_told_and_the_newest_stays_nevertheless() {
    let candidates: Vec<Candidate> = (1..=3).map(|number| snapshot(number, number as i64)).collect();
    let policy = Policy { tags: vec![vec!["x".into()]], ..Policy::default() };
    assert!(!judge(&candidates, &policy)[0].is_kept_by_rule);
    assert_eq!(kept(&candidates, &policy), [id(3)].into());
}

/// The naive reference: what each rule says of one snapshot, from its definition, by another calendar.
fn naive(candidates: &[Candidate], policy: &Policy, of: usize) -> Vec<String> {
    let order = |candidate: &Candidate| (candidate.time, candidate.id);
    let this = &candidates[of];
    let newer: Vec<&Candidate> = candidates.iter().filter(|other| order(other) > order(this)).collect();
    let civil =
        |candidate: &Candidate| Timestamp::from_second(candidate.time.secs).unwrap().to_zoned(TimeZone::UTC);
    let mut out = Vec::new();
    if (newer.len() as u64) < policy.last {
        out.push(format!("last {}", newer.len() + 1));
    }
    for (rule, count, format) in [
        ("hourly", policy.hourly, "%Y-%m-%d %H:00"),
        ("daily", policy.daily, "%Y-%m-%d"),
        ("weekly", policy.weekly, "%G-W%V"),
        ("monthly", policy.monthly, "%Y-%m"),
        ("yearly", policy.yearly, "%Y"),
    ] {
        let name = |candidate: &Candidate| civil(candidate).strftime(format).to_string();
        let names: BTreeSet<String> = newer.iter().map(|other| name(other)).collect();
        if !names.contains(&name(this)) && (names.len() as u64) < count {
            out.push(format!("{rule} {}", name(this)));
        }
    }
    if let Some(span) = policy.within {
        let newest = candidates.iter().max_by_key(|candidate| order(candidate)).unwrap();
        let length = jiff::Span::new()
            .years(i64::from(span.years))
            .months(i64::from(span.months))
            .weeks(i64::from(span.weeks))
            .days(i64::from(span.days))
            .hours(i64::from(span.hours));
        if civil(this) >= civil(newest).checked_sub(length).unwrap() {
            out.push(format!("within {span}"));
        }
    }
    for wanted in &policy.tags {
        if wanted.iter().all(|tag| this.tags.contains(tag)) {
            out.push(format!("tag {}", wanted.join(",")));
        }
    }
    if newer.is_empty() {
        out.push("newest of its key".into());
    }
    if out.is_empty() {
        out.push("no rule keeps it".into());
    }
    out
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    vec(prop_oneof![Just("a".to_owned()), Just("b".to_owned())], 0..3)
}

fn policy() -> impl Strategy<Value = Policy> {
    let counts = prop::array::uniform6(prop_oneof![Just(0u64), 0..5u64, Just(u64::MAX)]);
    let span = (0..2u32, 0..4u32, 0..4u32, 0..9u32, 0..50u32).prop_filter_map("zero", |(y, m, w, d, h)| {
        let span = Span { years: y, months: m, weeks: w, days: d, hours: h };
        (span != Span::default()).then_some(span)
    });
    let tags = vec(tags().prop_filter("empty", |tags| !tags.is_empty()), 0..2);
    (counts, prop::option::of(span), tags).prop_map(|(counts, within, tags)| {
        let [last, hourly, daily, weekly, monthly, yearly] = counts;
        Policy { last, hourly, daily, weekly, monthly, yearly, within, tags }
    })
}

/// Times that lie close together, around the ends of years and leap days.
fn time() -> impl Strategy<Value = i64> {
    let around = prop_oneof![
        Just(at("2020-12-31T00:00:00")),
        Just(at("2024-02-29T00:00:00")),
        Just(at("1970-01-01T00:00:00")),
    ];
    let offset = prop_oneof![-3..3i64, -10 * HOUR..10 * HOUR, -40 * DAY..40 * DAY, -900 * DAY..900 * DAY];
    (around, offset).prop_map(|(around, offset)| around + offset)
}

proptest! {
    #[test]
    fn as_the_reference_does(times in vec((time(), tags()), 1..40), policy in policy()) {
        // The store tells no times: nothing is suspicious.
        let candidates: Vec<Candidate> = (0..)
            .zip(times)
            .map(|(number, (secs, tags))| Candidate { stored: None, tags, ..snapshot(number, secs) })
            .collect();
        for verdict in verdicts(&candidates, &policy) {
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            prop_assert_eq!(&reasons, &naive(&candidates, &policy, verdict.candidate));
            prop_assert_eq!(verdict.keep, reasons != ["no rule keeps it"]);
        }
    }

    /// Whatever other slots sign, and whatever this one signs with times that do not fit, every good one that stayed
    /// stays.
    #[test]
    fn what_is_suspicious_displaces_nothing(
        good in vec(0..400 * DAY, 1..30),
        others in vec((prop_oneof![Just(0), -900 * DAY..900 * DAY], 0..400 * DAY), 0..30),
        misfits in vec((prop_oneof![-900 * DAY..-2 * HOUR, 301..900 * DAY], 0..400 * DAY), 0..30),
        policy in policy(),
    ) {
        let base = at("2024-01-15T03:00:00");
        let good: Vec<Candidate> =
            (0..).zip(good).map(|(number, secs)| snapshot(number, base + secs)).collect();
        let before = kept(&good, &policy);
        let mut all = good;
        for (number, (off, stored)) in (1000..).zip(others) {
            let (secs, stored) = (base + stored + off, Some(Time::new(base + stored, 0)));
            all.push(Candidate { slot: SlotId([2; 16]), stored, ..snapshot(number, secs) });
        }
        for (number, (off, stored)) in (2000..).zip(misfits) {
            let stored = base + stored;
            all.push(Candidate {
                stored: Some(Time::new(stored, 0)),
                tags: vec!["a".into(), "b".into()],
                ..snapshot(number, stored + off)
            });
        }
        prop_assert!(kept(&all, &policy).is_superset(&before));
    }

    /// A flood of the same slot, with times that fit: after it every good one that stayed stays.
    #[test]
    fn a_flood_displaces_nothing(
        usual in prop_oneof![Just(300i64), Just(HOUR), Just(DAY), 120..DAY],
        jitter in vec(0..20i64, 6..60),
        flood in 8..300u64,
        policy in policy(),
    ) {
        let base = at("2026-03-01T00:00:00");
        let times: Vec<i64> =
            (0..).zip(&jitter).map(|(number, jitter)| base + number * usual + jitter * usual / 200).collect();
        let last = *times.last().unwrap();
        let mut all = chained(times);
        let before = kept(&all, &policy);
        let count = all.len() as u64;
        for number in 0..flood {
            // All of them within a sixteenth of a gap.
            let secs = last + 1 + (usual / 16 - 2).max(0) * number as i64 / flood as i64;
            all.push(Candidate { previous: Some(id(count + number)), ..snapshot(count + 1 + number, secs) });
        }
        prop_assert!(kept(&all, &policy).is_superset(&before));
        let marked: BTreeSet<u64> = suspicions(&all).into_iter().map(|(number, _)| number).collect();
        prop_assert_eq!(marked, (count + 1..=count + flood).collect());
    }
}

#[test]
fn times_that_do_not_fit() {
    let now = at("2026-05-05T12:00:00");
    let case = |claimed: i64, duration_secs: u64, before: Option<i64>| {
        let mut candidates = vec![Candidate {
            stored: Some(Time::new(now, 0)),
            duration_ms: duration_secs * 1000,
            ..snapshot(1, now + claimed)
        }];
        candidates.extend(before.map(|before| snapshot(2, now + before)));
        suspicions(&candidates).into_iter().find(|(number, _)| *number == 1).map(|(_, why)| why)
    };
    assert_eq!(case(300, 0, None), None);
    assert_eq!(case(301, 0, None), Some(Suspicion::Ahead { secs: 301 }));
    assert_eq!(case(-3600, 0, None), None);
    assert_eq!(case(-3601, 0, None), Some(Suspicion::Behind { secs: 3601 }));
    // A long run.
    assert_eq!(case(-10_000, 6400, None), None);
    assert_eq!(case(-10_001, 6400, None), Some(Suspicion::Behind { secs: 10_001 }));
    // A run that claims to have been long, and began before the one before it ended.
    let year = 365 * DAY as u64;
    assert_eq!(case(-20 * DAY, year, None), None);
    assert_eq!(case(-20 * DAY, year, Some(-20 * DAY)), None);
    assert!(matches!(case(-20 * DAY, year, Some(-DAY)), Some(Suspicion::Behind { .. })));
    assert_eq!(case(i64::MIN / 2, u64::MAX / 1000, Some(-DAY)).map(|_| ()), Some(()));
    assert!(case(i64::MAX - now, 0, None).is_some());
}

#[test]
fn a_back_dated_snapshot_in_every_bucket_displaces_nothing() {
    // One for each day before the last one, later that day than the good one, claiming runs as long as it takes.
    let base = at("2026-03-01T03:00:00");
    let good = chained((0..30).map(|day| base + day * DAY));
    let policy = Policy { daily: 7, weekly: 4, monthly: 2, ..Policy::default() };
    let before = kept(&good, &policy);
    let now = base + 29 * DAY + HOUR;
    let mut all = good;
    for day in 0..29 {
        let claimed = base + day * DAY + 20 * HOUR;
        all.push(Candidate {
            stored: Some(Time::new(now + day * 3600, 0)),
            duration_ms: u64::MAX,
            ..snapshot(100 + day as u64, claimed)
        });
    }
    assert!(kept(&all, &policy).is_superset(&before));
}

#[test]
fn floods_with_pauses_are_noticed() {
    // Seven within seconds, a pause of a good eighth of the rhythm, and again: never eight small gaps in a row.
    let base = at("2026-03-01T00:00:00");
    let mut all = chained((0..40).map(|hour| base + hour * HOUR));
    let last = base + 39 * HOUR;
    let policy = Policy { last: 24, ..Policy::default() };
    let before = kept(&all, &policy);
    for number in 0..100 {
        let secs = last + 1 + number / 7 * 451 + number % 7;
        all.push(snapshot(1000 + number as u64, secs));
    }
    assert!(kept(&all, &policy).is_superset(&before));
}

#[test]
fn a_flood_with_a_pause_before_it_displaces_one_at_most() {
    let base = at("2026-03-01T00:00:00");
    let mut all = chained((0..40).map(|hour| base + hour * HOUR));
    let policy = Policy { last: 24, ..Policy::default() };
    let before = kept(&all, &policy);
    all.extend((0..200).map(|number| snapshot(1000 + number, base + 39 * HOUR + 1800 + number as i64)));
    let after = kept(&all, &policy);
    assert_eq!(before.difference(&after).count(), 1);
}

/// What is dropped is gone; the rest goes on naming it.
fn forget(candidates: &mut Vec<Candidate>, policy: &Policy) {
    let kept = kept(candidates, policy);
    candidates.retain(|candidate| kept.contains(&candidate.id));
}

#[test]
fn an_ordinary_life_raises_no_alarm() {
    // Years of hourly or daily backups, thinned out every day: the kept ones lie months, days, then hours apart.
    let policy =
        Policy { last: 3, hourly: 24, daily: 14, weekly: 8, monthly: 24, yearly: 9, ..Policy::default() };
    let daily_only = Policy { daily: 30, monthly: 24, ..Policy::default() };
    for (usual, policy) in [(HOUR, &policy), (DAY, &policy), (DAY, &daily_only), (6 * HOUR, &daily_only)] {
        let base = at("2024-01-01T00:00:00");
        let (mut candidates, mut last) = (Vec::<Candidate>::new(), None);
        for number in 0..(900 * DAY / usual) {
            // A few minutes early or late, and now and then three by hand within minutes.
            let jitter = number * 7919 % 300;
            let by_hand = if number % 50 == 7 { 4 } else { 1 };
            for extra in 0..by_hand {
                let new = number as u64 * 10 + extra as u64 + 1;
                let secs = base + number * usual + jitter + extra * 240;
                candidates.push(Candidate { previous: last, ..snapshot(new, secs) });
                last = Some(id(new));
            }
            if number * usual % DAY == 0 {
                assert_eq!(suspicions(&candidates), [], "after {number} of one in {usual} s");
                forget(&mut candidates, policy);
            }
        }
        assert!(candidates.len() > 20);
    }
}

#[test]
fn the_first_day_raises_no_alarm() {
    // Somebody who tries things: some by the hour, then many by the minute; and a script that makes them by the second.
    let base = at("2026-03-01T09:00:00");
    let times = [0, 3000, 7000, 9000, 12_000, 14_000].into_iter().chain((0..40).map(|n| 15_000 + n * 70));
    let mut day = chained(times.map(|secs| base + secs));
    day[0].previous = None;
    assert_eq!(suspicions(&day), []);
    let mut script =
        chained([0, 9, 20, 31, 45].into_iter().chain((0..60).map(|n| 50 + n / 20)).map(|secs| base + secs));
    script[0].previous = None;
    assert_eq!(suspicions(&script), []);
    script[0].previous = Some(id(0));
    assert_eq!(suspicions(&script), []);
}

#[test]
fn a_new_schedule_becomes_the_rhythm() {
    // Daily, then one in five minutes from now on.
    let base = at("2026-03-01T00:00:00");
    let days = (0..20).map(|day| base + day * DAY);
    let often = (1..12_000).map(|number| base + 19 * DAY + number * 300);
    let candidates = chained(days.chain(often));
    let suspicions = suspicions(&candidates);
    let numbers: Vec<u64> = suspicions.iter().map(|(number, _)| *number).collect();
    // From the first on for 32 days, or one more, and none after.
    let count = numbers.len() as u64;
    assert!((32 * 288..33 * 288).contains(&count));
    assert!(numbers == (21..21 + count).collect::<Vec<_>>());
    assert!(suspicions.iter().all(|(_, why)| matches!(why, Suspicion::Burst { number: 0, .. })));
}

#[test]
fn a_burst_says_how_fast_it_was() {
    let base = at("2026-03-01T00:00:00");
    let mut all = chained((0..10).map(|hour| base + hour * HOUR));
    all.extend((0..50).map(|number| snapshot(100 + number, base + 9 * HOUR + 10 + number as i64)));
    let found = suspicions(&all);
    assert_eq!(found.len(), 50);
    let expected = Suspicion::Burst { number: 0, snapshots: 50, secs: 49, usual_secs: 3600 };
    assert_eq!(found[0].1, expected);
    assert_eq!(expected.to_string(), "one of 50 that came within 49s, where one in 1h is usual");
}
