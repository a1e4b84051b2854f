//! Days, weeks and months in UTC, for every time that a snapshot may claim.

use std::fmt;
use std::str::FromStr;

use snap_format::Time;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const WEEK: u32 = 7;

/// A day of the Gregorian calendar, extended to all times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
}

impl Date {
    /// `days` since 1970-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    pub(super) fn of_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * month_from_march + 2) / 5 + 1,
        }
    }

    /// The reverse, `days_from_civil` there.
    fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let month_from_march = (self.month + 9) % 12;
        let of_year = (153 * month_from_march + 2) / 5 + self.day - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
    }

    const fn is_leap(year: i64) -> bool {
        year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
    }

    const fn days_in_month(year: i64, month: i64) -> i64 {
        match month {
            4 | 6 | 9 | 11 => 30,
            2 if Self::is_leap(year) => 29,
            2 => 28,
            _ => 31,
        }
    }

    /// The same day of a month that many months later, or the last one of it.
    fn plus_months(self, months: i64) -> Self {
        let total = self.year * 12 + self.month - 1 + months;
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
        Self { year, month, day: self.day.min(Self::days_in_month(year, month)) }
    }
}

/// What snapshots are counted by: at most one is kept of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Hour,
    Day,
    /// ISO 8601: from Monday on; the first week of a year is the one with its first Thursday.
    Week,
    Month,
    Year,
}

impl Unit {
    /// The number of the unit that a time falls in; it grows with time.
    pub(super) fn number(self, time: Time) -> i64 {
        let days = time.secs.div_euclid(DAY);
        let date = Date::of_days(days);
        match self {
            Self::Hour => time.secs.div_euclid(HOUR),
            Self::Day => days,
            Self::Week => (days + 3).div_euclid(7), // 1970-01-01 was a Thursday
            Self::Month => date.year * 12 + date.month - 1,
            Self::Year => date.year,
        }
    }

    /// Its name, such as `2026-11-20` or `2026-W47`.
    pub(super) fn name(self, time: Time) -> String {
        let days = time.secs.div_euclid(DAY);
        let Date { year, month, day } = Date::of_days(days);
        match self {
            Self::Hour => {
                format!("{year:04}-{month:02}-{day:02} {:02}:00", time.secs.rem_euclid(DAY) / HOUR)
            }
            Self::Day => format!("{year:04}-{month:02}-{day:02}"),
            Self::Week => {
                let thursday = days - (days + 3).rem_euclid(7) + 3;
                let year = Date::of_days(thursday).year;
                let week = (thursday - Date { year, month: 1, day: 1 }.days()) / 7 + 1;
                format!("{year:04}-W{week:02}")
            }
            Self::Month => format!("{year:04}-{month:02}"),
            Self::Year => format!("{year:04}"),
        }
    }
}

/// `2026-01-31 14:05:09 UTC`.
pub(super) fn date_time(time: Time) -> String {
    let of_day = time.secs.rem_euclid(DAY);
    format!("{} {:02}:{:02}:{:02} UTC", Unit::Day.name(time), of_day / HOUR, of_day / 60 % 60, of_day % 60)
}

/// A length of time by the calendar: `7d`, `2w`, `1y6m`, `48h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Calendar years.
    pub years: u32,
    /// Calendar months.
    pub months: u32,
    /// Weeks.
    pub weeks: u32,
    /// Days of 24 hours.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl Span {
    fn shift(self, time: Time, sign: i64) -> Time {
        let months = sign * (i64::from(self.years) * 12 + i64::from(self.months));
        let days = time.secs.div_euclid(DAY);
        let moved = Date::of_days(days).plus_months(months).days() - days;
        let whole_days = moved + sign * (i64::from(self.weeks) * i64::from(WEEK) + i64::from(self.days));
        let secs = whole_days.saturating_mul(DAY).saturating_add(sign * i64::from(self.hours) * HOUR);
        Time::new(time.secs.saturating_add(secs), time.nanos)
    }

    /// The time so long before; where a month has no such day, its last one.
    pub fn before(self, time: Time) -> Time {
        self.shift(time, -1)
    }

    /// The time so long after.
    pub fn after(self, time: Time) -> Time {
        self.shift(time, 1)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WHAT: &str =
            "a duration is made of y, m (months), w, d and h, such as 7d, 2w, 1y6m or 48h, and not zero";
        let mut out = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number: u32 = rest[..digits].parse().map_err(|_| WHAT.to_owned())?;
            let mut after = rest[digits..].chars();
            let field = match after.next() {
                Some('y') => &mut out.years,
                Some('m') => &mut out.months,
                Some('w') => &mut out.weeks,
                Some('d') => &mut out.days,
                Some('h') => &mut out.hours,
                _ => return Err(WHAT.to_owned()),
            };
            *field = field.checked_add(number).ok_or("the duration is too long")?;
            rest = after.as_str();
        }
        if out == Self::default() { Err(WHAT.to_owned()) } else { Ok(out) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [(self.years, "y"), (self.months, "m"), (self.weeks, "w"), (self.days, "d"), (self.hours, "h")];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seconds from `date -u -d … +%s`, weeks from `date -u -d … +%G-W%V`.
    #[test]
    fn units_by_date() {
        let cases = [
            (0, "1970-01-01 00:00", "1970-W01"),
            (-1, "1969-12-31 23:00", "1970-W01"),
            (951_782_400, "2000-02-29 00:00", "2000-W09"),
            (1_709_251_199, "2024-02-29 23:00", "2024-W09"),
            (1_709_251_200, "2024-03-01 00:00", "2024-W09"),
            (1_609_459_199, "2020-12-31 23:00", "2020-W53"),
            (1_609_459_200, "2021-01-01 00:00", "2020-W53"),
            (1_609_718_400, "2021-01-04 00:00", "2021-W01"),
            (1_735_603_200, "2024-12-31 00:00", "2025-W01"),
            (1_798_675_199, "2026-12-30 23:00", "2026-W53"),
            (1_799_020_800, "2027-01-04 00:00", "2027-W01"),
            (-2_203_891_200, "1900-03-01 00:00", "1900-W09"),
        ];
        for (secs, hour, week) in cases {
            let time = Time::new(secs, 0);
            assert_eq!(Unit::Hour.name(time), hour);
            assert_eq!(Unit::Day.name(time), hour[..10]);
            assert_eq!(Unit::Month.name(time), hour[..7]);
            assert_eq!(Unit::Year.name(time), hour[..4]);
            assert_eq!(Unit::Week.name(time), week, "{hour}");
        }
        assert_eq!(date_time(Time::new(951_782_399, 5)), "2000-02-28 23:59:59 UTC");
    }

    #[test]
    fn a_name_changes_when_the_number_does() {
        for unit in [Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year] {
            let mut last: Option<(i64, String)> = None;
            for secs in (-400 * DAY..1000 * DAY).step_by(HOUR as usize) {
                let now = (unit.number(Time::new(secs, 0)), unit.name(Time::new(secs, 0)));
                if let Some(last) = &last {
                    assert!(now.0 == last.0 || now.0 == last.0 + 1);
                    assert_eq!(now.0 == last.0, now.1 == last.1, "{unit:?} {secs}");
                }
                last = Some(now);
            }
        }
    }

    #[test]
    fn times_that_nobody_means_do_no_harm() {
        let long =
            Span { years: u32::MAX, months: u32::MAX, weeks: u32::MAX, days: u32::MAX, hours: u32::MAX };
        for secs in [i64::MIN, i64::MAX] {
            let time = Time::new(secs, 0);
            for unit in [Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year] {
                assert!(!unit.name(time).is_empty());
                unit.number(time);
            }
            assert!(long.before(time) <= time && long.after(time) >= time);
        }
    }

    #[test]
    fn spans() {
        let span = |text: &str| text.parse::<Span>();
        for text in ["7d", "2w", "1y6m", "48h", "1y2m3w4d5h"] {
            assert_eq!(span(text).unwrap().to_string(), text);
        }
        for text in
            ["", "7", "d", "0d", "7x", "7 d", "-7d", "1.5d", "99999999999d", "7dd", "7D", "4294967295d1d"]
        {
            assert!(span(text).is_err(), "{text}");
        }
        // Seconds from `date -u -d …`.
        let cases = [
            ("1m", 1_711_843_200, 1_709_164_800),   // 2024-03-31 to 2024-02-29
            ("1m", 1_680_220_800, 1_677_542_400),   // 2023-03-31 to 2023-02-28
            ("1y", 1_709_164_800, 1_677_542_400),   // 2024-02-29 to 2023-02-28
            ("1y1m", 1_705_276_800, 1_671_062_400), // 2024-01-15 to 2022-12-15
            ("1w2d3h", 1_000_000_000, 1_000_000_000 - 9 * 86_400 - 3 * 3600),
        ];
        for (text, from, to) in cases {
            assert_eq!(span(text).unwrap().before(Time::new(from, 7)), Time::new(to, 7), "{text}");
        }
        let forward = span("1m").unwrap().after(Time::new(1_706_659_200, 0)); // 2024-01-31
        assert_eq!(forward, Time::new(1_709_164_800, 0)); // 2024-02-29
    }
}
