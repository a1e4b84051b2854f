//! The rules of a policy over one class of snapshots.

use snap_format::Time;

use super::calendar::Unit;
use super::{Policy, Reason};

/// What the rules look at.
pub(super) struct Item<'a> {
    pub(super) time: Time,
    pub(super) tags: &'a [String],
}

/// Why the rules keep each of `items`, which come newest first; nothing where none does.
pub(super) fn apply(policy: &Policy, items: &[Item<'_>]) -> Vec<Vec<Reason>> {
    let mut out: Vec<Vec<Reason>> = vec![Vec::new(); items.len()];
    for (at, reasons) in (1..).zip(&mut out).take_while(|(at, _)| *at <= policy.last) {
        reasons.push(Reason::Last(at));
    }
    let counted = [
        (policy.hourly, Unit::Hour, "hourly"),
        (policy.daily, Unit::Day, "daily"),
        (policy.weekly, Unit::Week, "weekly"),
        (policy.monthly, Unit::Month, "monthly"),
        (policy.yearly, Unit::Year, "yearly"),
    ];
    for (count, unit, rule) in counted {
        keep_newest_of_each(count, unit, rule, items, &mut out);
    }
    if let (Some(span), Some(newest)) = (policy.within, items.first()) {
        let since = span.before(newest.time);
        for (_, reasons) in items.iter().zip(&mut out).filter(|(item, _)| item.time >= since) {
            reasons.push(Reason::Within(span));
        }
    }
    for (item, reasons) in items.iter().zip(&mut out) {
        let fits = policy.tags.iter().filter(|wanted| wanted.iter().all(|tag| item.tags.contains(tag)));
        reasons.extend(fits.map(|wanted| Reason::Tag(wanted.join(","))));
    }
    out
}

fn keep_newest_of_each(
    mut count: u64,
    unit: Unit,
    rule: &'static str,
    items: &[Item<'_>],
    out: &mut [Vec<Reason>],
) {
    let mut last = None;
    for (item, reasons) in items.iter().zip(out) {
        let number = unit.number(item.time);
        if last == Some(number) {
            continue;
        }
        if count == 0 {
            break;
        }
        count -= 1;
        last = Some(number);
        reasons.push(Reason::NewestOf { rule, name: unit.name(item.time) });
    }
}
