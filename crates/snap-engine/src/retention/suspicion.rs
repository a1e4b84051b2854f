//! Which snapshots are suspicious. The rule stands in the documentation of the module above.

use std::collections::VecDeque;
use std::fmt;

use snap_format::{ObjectId, Time};

use super::Candidate;

/// A claimed time may be so far ahead of the store's, seconds: clocks differ.
const AHEAD_SECS: i64 = 300;
/// And so far behind, in seconds, besides what the run took.
const BEHIND_SECS: i64 = 3600;
/// So many gaps make the rhythm, at most.
const RHYTHM: usize = 32;
/// Fewer gaps make none.
const MIN_RHYTHM: usize = 4;
/// A gap is small below the rhythm's by this factor; and so many snapshots within one gap of the rhythm are a burst.
const BURST: usize = 8;
/// Where snapshots come by the second, people or scripts are trying things: no rhythm.
const MIN_GAP_NANOS: i128 = 60 * SECOND;
/// The first day of a series has no rhythm.
const FIRST_DAY_NANOS: i128 = 24 * 3600 * SECOND;
const SECOND: i128 = 1_000_000_000;

/// Why a snapshot is judged apart from the others of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Its time lies ahead of the store's.
    Ahead {
        /// By how much, seconds.
        secs: u64,
    },
    /// The store got it long after its time, though its run did not take so long.
    Behind {
        /// By how much, seconds.
        secs: u64,
    },
    /// It is one of many that came much faster than the ones before.
    Burst {
        /// Which burst of its slot, from 0.
        number: usize,
        /// How many came.
        snapshots: usize,
        /// Within how many seconds.
        secs: u64,
        /// The usual gap between two, seconds.
        usual_secs: u64,
    },
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ahead { secs } => write!(f, "its time lies {} ahead of the store's", length(secs)),
            Self::Behind { secs } => write!(f, "it was stored {} after its time", length(secs)),
            Self::Burst { snapshots, secs, usual_secs, .. } => write!(
                f,
                "one of {snapshots} that came within {}, where one in {} is usual",
                length(secs),
                length(usual_secs)
            ),
        }
    }
}

/// `3d 4h`, `2min 5s`: the two largest units.
fn length(secs: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(unit, _)| secs >= *unit).unwrap_or(3);
    let mut out = format!("{}{}", secs / units[first].0, units[first].1);
    if let Some((unit, name)) = units.get(first + 1) {
        let rest = secs % units[first].0 / unit;
        if rest > 0 {
            out.push_str(&format!(" {rest}{name}"));
        }
    }
    out
}

fn nanos(time: Time) -> i128 {
    i128::from(time.secs) * SECOND + i128::from(time.nanos)
}

fn whole_secs(nanos: i128) -> u64 {
    u64::try_from(nanos.max(0) / SECOND).unwrap_or(u64::MAX)
}

/// What a snapshot looks like to the burst rule.
struct Arrival {
    /// Its place in the list that was given.
    at: usize,
    id: ObjectId,
    previous: Option<ObjectId>,
    stored: i128,
}

/// Judges the snapshots of one slot in one group; in the order of the list.
pub(super) fn suspicions(snapshots: &[&Candidate]) -> Vec<Option<Suspicion>> {
    let mut out = vec![None; snapshots.len()];
    let mut order: Vec<(i128, usize)> = snapshots
        .iter()
        .enumerate()
        .filter_map(|(at, snapshot)| Some((nanos(snapshot.stored?), at)))
        .collect();
    order.sort_by_key(|(stored, at)| (*stored, snapshots[*at].id));
    let mut arrivals: Vec<Arrival> = Vec::with_capacity(order.len());
    for (stored, at) in order {
        let snapshot = snapshots[at];
        out[at] = misfit(snapshot, stored, arrivals.last().map(|arrival| arrival.stored));
        if out[at].is_none() {
            arrivals.push(Arrival { at, id: snapshot.id, previous: snapshot.previous, stored });
        }
    }
    mark_bursts(&arrivals, &mut out);
    out
}

/// Whether the claimed time does not fit the store's. `before` is when the one before was stored.
fn misfit(snapshot: &Candidate, stored: i128, before: Option<i128>) -> Option<Suspicion> {
    let claimed = nanos(snapshot.time);
    if snapshot.time.secs > snapshot.stored?.secs.saturating_add(AHEAD_SECS) {
        return Some(Suspicion::Ahead { secs: whole_secs(claimed - stored) });
    }
    let tolerance = i128::from(BEHIND_SECS) * SECOND;
    // How long the run took is its own word: it is taken as far as it did not begin before another one ended.
    let duration = i128::from(snapshot.duration_ms) * (SECOND / 1000);
    let earliest = (stored - duration).max(before.unwrap_or(i128::MIN).min(stored)) - tolerance;
    (claimed < earliest).then(|| Suspicion::Behind { secs: whole_secs(stored - claimed) })
}

fn mark_bursts(arrivals: &[Arrival], out: &mut [Option<Suspicion>]) {
    let mut gaps: VecDeque<i128> = VecDeque::new();
    let mut last: Option<&Arrival> = None;
    let (mut at, mut number) = (0, 0);
    while let Some(arrival) = arrivals.get(at) {
        let usual = median(&gaps).filter(|gap| *gap >= MIN_GAP_NANOS);
        if let Some(usual) = usual
            && !is_first_day(arrivals, at)
            && let Some((end, is_over)) = burst(arrivals, at, usual)
        {
            let burst = Suspicion::Burst {
                number,
                snapshots: end - at,
                secs: whole_secs(arrivals[end - 1].stored - arrival.stored),
                usual_secs: whole_secs(usual),
            };
            arrivals[at..end].iter().for_each(|arrival| out[arrival.at] = Some(burst));
            number += 1;
            at = end;
            if !is_over {
                // It has lasted as long as what it was compared with: this is how they come from now on.
                gaps.clear();
                last = None;
            }
            continue;
        }
        // Where the one before was forgotten, the gap says nothing of how often they came.
        if let Some(last) = last.filter(|last| arrival.previous == Some(last.id)) {
            gaps.push_back(arrival.stored - last.stored);
            if gaps.len() > RHYTHM {
                gaps.pop_front();
            }
        }
        last = Some(arrival);
        at += 1;
    }
}

/// The lower one of the two in the middle.
fn median(gaps: &VecDeque<i128>) -> Option<i128> {
    let mut sorted: Vec<i128> = gaps.iter().copied().collect();
    sorted.sort_unstable();
    (sorted.len() >= MIN_RHYTHM).then(|| sorted[(sorted.len() - 1) / 2])
}

/// Whether the series is less than a day old, as far as its first snapshot is still there.
fn is_first_day(arrivals: &[Arrival], at: usize) -> bool {
    arrivals[0].previous.is_none() && arrivals[at].stored - arrivals[0].stored < FIRST_DAY_NANOS
}

/// Where the burst that begins with `at` ends, and whether it is over then rather than taken for the new rhythm. A burst is
/// made of snapshots that begin and end with a small gap before them, at least [`BURST`] within one usual gap after the one
/// before it, and goes on while another small gap ends within one usual gap.
fn burst(arrivals: &[Arrival], at: usize, usual: i128) -> Option<(usize, bool)> {
    let before = arrivals[at.checked_sub(1)?].stored;
    let is_small = |at: usize| {
        let gap = arrivals[at].stored - arrivals[at - 1].stored;
        gap.saturating_mul(BURST as i128) < usual
    };
    // The last one with a small gap before it that came within one usual gap of `since`.
    let reach = |from: usize, since: i128| {
        let within = arrivals[from..].iter().take_while(|arrival| arrival.stored - since < usual).count();
        (from..from + within).rev().find(|at| is_small(*at))
    };
    if !is_small(at) {
        return None;
    }
    let mut end = reach(at, before)?;
    if end + 1 - at < BURST {
        return None;
    }
    let longest = usual.saturating_mul(RHYTHM as i128);
    while arrivals[end].stored - before < longest {
        match reach(end + 1, arrivals[end].stored) {
            Some(next) => end = next,
            None => return Some((end + 1, true)),
        }
    }
    Some((end + 1, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1min"),
            (125, "2min 5s"),
            (3600, "1h"),
            (90_000, "1d 1h"),
            (86_400 * 400 + 60, "400d"),
        ] {
            assert_eq!(length(secs), text);
        }
    }
}
