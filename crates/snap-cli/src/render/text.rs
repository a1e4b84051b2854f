//! Bytes, times, durations and names, for people.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use snap_format::{NodeKind, ObjectId, Time};

/// Digits of an id that are shown.
const SHORT: usize = 12;

/// The first digits of an id.
pub fn short(id: &ObjectId) -> String {
    id.to_hex()[..SHORT].to_owned()
}

/// `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 entry`, `2,000 entries`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `0.4 s`, `2:07`, `1:02:07`.
pub fn duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{}:{:02}", secs / 60, secs % 60),
        _ => format!("{}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60),
    }
}

fn timestamp(time: Time) -> Option<Timestamp> {
    let time = Timestamp::new(time.secs, i32::try_from(time.nanos).ok()?).ok()?;
    let year = time.to_zoned(jiff::tz::TimeZone::UTC).year();
    (0..=9999).contains(&year).then_some(time)
}

/// RFC 3339 in UTC with nanoseconds; years that it cannot write as `@seconds.nanoseconds` since 1970.
pub fn rfc3339(time: Time) -> String {
    match timestamp(time) {
        Some(time) => format!("{time:.9}"),
        None => format!("@{}.{:09}", time.secs, time.nanos),
    }
}

/// `2026-01-31 14:05:09`, UTC.
pub fn date_time(time: Time) -> String {
    match timestamp(time) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => format!("@{}", time.secs),
    }
}

/// A name or path with everything escaped that a terminal would act on or that is not UTF-8.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if is_unsafe(c) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Control characters, and those that reverse the direction of what is written.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// `drwxr-xr-x`.
pub fn mode(kind: &NodeKind, mode: u32) -> String {
    let mut out = String::with_capacity(10);
    out.push(match kind {
        NodeKind::File { .. } => '-',
        NodeKind::Dir { .. } => 'd',
        NodeKind::Symlink { .. } => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::CharDevice { .. } => 'c',
        NodeKind::BlockDevice { .. } => 'b',
        NodeKind::Object { .. } => 'o',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// Rows below their headings, each column as wide as it must be; columns whose heading begins with `>` to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> =
        headings.iter().map(|it| it.trim_start_matches('>').chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for ((cell, heading), width) in cells.zip(headings).zip(&widths) {
            let fill = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if heading.starts_with('>') { (fill, String::new()) } else { (String::new(), fill) };
            let _ = write!(out, "{before}{cell}{after}  ");
        }
        out.trim_end().to_owned()
    };
    let mut out = vec![line(&mut headings.iter().map(|it| it.trim_start_matches('>')))];
    out.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    out
}

#[cfg(test)]
mod tests {
    use snap_format::BlobId;

    use super::*;

    #[test]
    fn sizes_and_counts() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!(counted(2000, "entry", "entries"), "2,000 entries");
        assert_eq!(duration(Duration::from_secs(3727)), "1:02:07");
    }

    #[test]
    fn times_of_every_age_are_written() {
        assert_eq!(rfc3339(Time::new(0, 5)), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(rfc3339(Time::new(-1, 500_000_000)), "1969-12-31T23:59:59.500000000Z");
        assert_eq!(date_time(Time::new(951_782_400, 0)), "2000-02-29 00:00:00");
        for far in [i64::MIN, -70_000_000_000, 253_402_300_800, i64::MAX] {
            assert_eq!(rfc3339(Time::new(far, 1)), format!("@{far}.000000001"));
            assert_eq!(date_time(Time::new(far, 1)), format!("@{far}"));
        }
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable("plain ä".as_bytes()), "plain ä");
        assert_eq!(printable(b"a\x1b[2Jb\n\xff"), "a\\u{1b}[2Jb\\n\\xff");
        assert_eq!(printable("\u{202e}gnp".as_bytes()), "\\u{202e}gnp");
    }

    #[test]
    fn modes() {
        let dir = NodeKind::Dir { tree: BlobId([0; 32]) };
        assert_eq!(mode(&dir, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(&NodeKind::Fifo, 0o4650), "prwSr-x---");
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bcd".into(), "100".into()]];
        assert_eq!(table(&["id", ">n"], &rows), ["id     n", "a      1", "bcd  100"]);
    }
}
