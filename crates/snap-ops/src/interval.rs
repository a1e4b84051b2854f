use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A length of time as people write it: `5m`, `1h`, `30d`, `1h30m`. Never zero; whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

/// Seconds of a unit, the longest first. A month has no length.
const UNITS: [(&str, u64); 6] =
    [("y", 365 * 86_400), ("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

const RULE: &str = "a duration is numbers with units s, m, h, d, w or y, such as 5m, 1h30m or 30d";

impl Interval {
    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Its length in seconds.
    pub const fn seconds(self) -> u64 {
        self.0.as_secs()
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || format!("{text:?}: {RULE}");
        let (mut rest, mut total) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = rest.split_at(digits);
            let unit = UNITS.iter().find(|(name, _)| after.starts_with(name)).ok_or_else(rule)?;
            let number: u64 = number.parse().map_err(|_| rule())?;
            let seconds = number.checked_mul(unit.1).and_then(|seconds| total.checked_add(seconds));
            total = seconds.ok_or_else(|| format!("{text:?} is too long"))?;
            rest = &after[unit.0.len()..];
        }
        if total == 0 {
            return Err(if text.is_empty() { rule() } else { format!("{text:?} is no time at all") });
        }
        Ok(Self(Duration::from_secs(total)))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.seconds();
        // Weeks and years are for writing: 30d is read more easily than 4w2d.
        for (name, seconds) in UNITS.iter().filter(|(name, _)| !matches!(*name, "y" | "w")) {
            if rest >= *seconds {
                write!(f, "{}{name}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_and_written() {
        for (text, seconds, shown) in [
            ("5m", 300, "5m"),
            ("90s", 90, "1m30s"),
            ("1h30m", 5400, "1h30m"),
            ("30d", 2_592_000, "30d"),
            ("2w", 1_209_600, "14d"),
            ("1y", 31_536_000, "365d"),
        ] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!((interval.seconds(), interval.to_string().as_str()), (seconds, shown), "{text}");
        }
        for bad in ["", "5", "m", "5 m", "-5m", "1.5h", "5M", "0h", "99999999999999999y", "1mo", "５m"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
    }
}
