use serde::Deserialize;

use crate::Interval;

/// Which snapshots of a dataset are kept: of the newest so many hours, days, … one each. What is kept by one rule is
/// kept. Zero, or nothing said, keeps nothing by that rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// The newest, whatever their times are.
    pub last: u32,
    /// One of each hour that has one, for this many such hours.
    pub hourly: u32,
    /// One of each day.
    pub daily: u32,
    /// One of each week.
    pub weekly: u32,
    /// One of each month.
    pub monthly: u32,
    /// One of each year.
    pub yearly: u32,
    /// All that are younger than this, counted back from the newest.
    pub within: Option<Interval>,
}

impl Retention {
    /// The counting rules by their names in `snap.toml`.
    pub fn counts(&self) -> [(&'static str, u32); 6] {
        [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
    }

    /// Whether no rule keeps anything.
    pub fn keeps_nothing(&self) -> bool {
        self.within.is_none() && self.counts().iter().all(|(_, count)| *count == 0)
    }
}
