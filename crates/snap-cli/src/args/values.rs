//! Values of flags that are more than a string.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use snap_engine::look::EntryType;
use snap_engine::retention::Span;
use snap_format::Time;
use snap_ops::{DATASET_RULE, is_dataset_name};
use snap_repo::prune::Waste;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// Powers of 1024 but for `KB`, `MB`, …, which are powers of 1000.
const UNITS: [(&str, u64); 17] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        match (number.parse::<u64>(), factor) {
            (Ok(number), Some(factor)) => {
                number.checked_mul(factor).map(Self).ok_or_else(|| "it is too large".to_owned())
            }
            _ => Err("a size is a number and a unit, such as 64M or 1GiB".to_owned()),
        }
    }
}

/// A part of the stored data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subset {
    /// The part `number` of `of`, from 1.
    Part { number: u64, of: u64 },
    /// More than 0, at most 100.
    Percent(f64),
    /// About this many.
    Bytes(u64),
}

impl FromStr for Subset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((number, of)) = text.split_once('/') {
            return match (number.parse(), of.parse()) {
                (Ok(number), Ok(of)) if 1 <= number && number <= of => Ok(Self::Part { number, of }),
                _ => Err("a part is N/M with N from 1 to M, such as 3/30".to_owned()),
            };
        }
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
                _ => Err("a percentage is more than 0% and at most 100%".to_owned()),
            };
        }
        match text.parse() {
            Ok(Size(bytes)) if bytes > 0 => Ok(Self::Bytes(bytes)),
            _ => Err("a subset is N/M, P% or a size, such as 3/30, 2% or 10GiB".to_owned()),
        }
    }
}

/// A time such as `2037-01-31T12:00:00Z`.
pub fn timestamp(text: &str) -> Option<Time> {
    text.parse::<jiff::Timestamp>().ok().map(|time| Time::new(time.as_second(), 0))
}

/// A day of UTC, by its first second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day(i64);

impl Day {
    /// Its first second.
    pub fn start(self) -> Time {
        Time::new(self.0, 0)
    }

    /// Its last second.
    pub fn end(self) -> Time {
        Time::new(self.0 + 86_399, 0)
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let date = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == "2037-01-31".len());
        let start = date.and_then(|date| date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok());
        let start = start.map(|start| Self(start.timestamp().as_second()));
        start.ok_or_else(|| "a day such as 2037-01-31".to_owned())
    }
}

/// How long something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl FromStr for Grace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || "a duration is a number and s, min, h, d or w, such as 90min, 48h or 7d, or 0".to_owned();
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(bad()),
        };
        // Not beyond what adds up with a time.
        let number = u64::from(digits.parse::<u32>().map_err(|_| bad())?);
        Ok(Self(Duration::from_secs(number * unit)))
    }
}

/// Unused data that may stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unused(pub Waste);

impl FromStr for Unused {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self(Waste::Unlimited));
        }
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(Waste::Share(percent / 100.0))),
                _ => Err("a percentage is from 0% to 100%".to_owned()),
            };
        }
        let size = text.parse().map(|Size(bytes)| Self(Waste::Bytes(bytes)));
        size.map_err(|_| "a share, a size or `unlimited`, such as 5% or 2GiB".to_owned())
    }
}

/// When something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At a time.
    At(Time),
    /// So long from now.
    For(Span),
}

impl Until {
    /// The time that it means.
    pub fn time(self, now: Time) -> Time {
        match self {
            Self::At(time) => time,
            Self::For(span) => span.after(now),
        }
    }
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse() {
            return Ok(Self::For(span));
        }
        if let Some(time) = timestamp(text) {
            return Ok(Self::At(time));
        }
        text.parse().map(|day: Day| Self::At(day.end())).map_err(|_: String| {
            "a day such as 2037-01-31, a time such as 2037-01-31T12:00:00Z, or a duration such as 90d or 1y6m"
                .to_owned()
        })
    }
}

/// A time in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This one.
    At(Time),
    /// So long ago.
    Ago(Span),
}

impl Moment {
    /// The time that it means.
    pub fn time(self, now: Time) -> Time {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => span.before(now),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse() {
            return Ok(Self::Ago(span));
        }
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Time::new(time.as_second(), 0)));
        }
        let start = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == "2026-01-31".len());
        let start = start.and_then(|date| date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok());
        start.map(|start| Self::At(Time::new(start.timestamp().as_second(), 0))).ok_or_else(|| {
            "a day such as 2026-01-31, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 7d or 12h"
                .to_owned()
        })
    }
}

/// Least and most bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRange(pub u64, pub u64);

impl FromStr for SizeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| {
            text.parse::<Size>()
                .map(|size| size.0)
                .map_err(|why| format!("{why}; +1G is at least, -1G at most, 1M..2M between"))
        };
        if let Some(least) = text.strip_prefix('+') {
            return Ok(Self(size(least)?, u64::MAX));
        }
        if let Some(most) = text.strip_prefix('-') {
            return Ok(Self(0, size(most)?));
        }
        if let Some((least, most)) = text.split_once("..") {
            let range = Self(size(least)?, size(most)?);
            return if range.0 <= range.1 {
                Ok(range)
            } else {
                Err("the smaller size comes first".to_owned())
            };
        }
        size(text).map(|exact| Self(exact, exact))
    }
}

/// For clap.
pub fn entry_type(name: &str) -> Result<EntryType, String> {
    Ok(match name {
        "file" | "f" => EntryType::File,
        "dir" | "d" => EntryType::Dir,
        "symlink" | "l" => EntryType::Symlink,
        "fifo" | "p" => EntryType::Fifo,
        "char" | "c" => EntryType::Char,
        "block" | "b" => EntryType::Block,
        "object" => EntryType::Object,
        _ => return Err("a type is file, dir, symlink, fifo, char, block or object".to_owned()),
    })
}

/// `SNAPSHOT[:PATH]`; the first colon ends SNAPSHOT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// The snapshot's name.
    pub snapshot: String,
    /// The path, raw bytes with a leading slash; `None` for all of it.
    pub path: Option<Vec<u8>>,
}

impl SnapshotPath {
    /// Takes it apart.
    pub fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.into_vec();
        let (name, path) = match bytes.iter().position(|byte| *byte == b':') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&bytes[..], &[][..]),
        };
        let snapshot = std::str::from_utf8(name).map_err(|_| "not the name of a snapshot".to_owned())?;
        if snapshot.is_empty() {
            return Err("it begins with the name of a snapshot, such as latest:/etc".to_owned());
        }
        let mut absolute = Vec::new();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if name == b".." {
                return Err("a path in a snapshot has no `..`".to_owned());
            }
            absolute.push(b'/');
            absolute.extend_from_slice(name);
        }
        let path = (!absolute.is_empty()).then_some(absolute);
        Ok(Self { snapshot: snapshot.to_owned(), path })
    }
}

/// For clap.
pub fn snapshot_path() -> impl TypedValueParser<Value = SnapshotPath> {
    OsStringValueParser::new().try_map(SnapshotPath::parse)
}

/// For clap.
pub fn dataset(name: &str) -> Result<String, String> {
    if is_dataset_name(name) { Ok(name.to_owned()) } else { Err(DATASET_RULE.to_owned()) }
}

/// The dataset of a stream called `name`, if none is given.
pub fn dataset_of_stream(name: &str) -> String {
    let reduce = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
        _ => '-',
    };
    let reduced: String = name.chars().map(reduce).collect();
    let reduced = reduced.trim_matches('-');
    if is_dataset_name(reduced) { reduced.to_owned() } else { "stdin".to_owned() }
}

/// For clap.
pub fn domain(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if name.as_bytes().first().is_some_and(u8::is_ascii_lowercase) && name.bytes().all(plain) {
        return Ok(name.to_owned());
    }
    Err("a domain name is a-z, then a-z, 0-9, _ or -".to_owned())
}

/// For clap.
pub fn tag(tag: &str) -> Result<String, String> {
    let tag = tag.trim();
    if tag.is_empty() || tag.chars().any(char::is_control) {
        return Err("a tag is not empty and has no control characters".to_owned());
    }
    Ok(tag.to_owned())
}

/// For clap.
pub fn readers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(readers @ 1..=1024) => Ok(readers),
        _ => Err("a number from 1 to 1024".to_owned()),
    }
}

/// The name under which a stream is stored: one plain component.
pub fn is_file_name(name: &str) -> bool {
    snap_format::Node::name_is_safe(name.as_bytes())
}

/// `path` made absolute without looking at the file system.
pub fn absolute(path: &std::path::Path, working_dir: &std::path::Path) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    let joined = working_dir.join(path);
    for name in joined.as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(out.pop()),
            name => out.push(name),
        }
    }
    let mut bytes = vec![b'/'];
    bytes.extend_from_slice(&out.join(&b'/'));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_a_grace() {
        let secs = |text: &str| text.parse::<Grace>().map(|grace| grace.0.as_secs());
        assert_eq!(
            ["0", "90min", "48h", "7d", "2w", "5s"].map(|text| secs(text).unwrap()),
            [0, 5400, 172_800, 604_800, 1_209_600, 5]
        );
        for bad in ["", "7", "1m", "h", "-1h", "1.5h", "1h30min", "99999999999d"] {
            assert!(secs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unused_data() {
        let waste = |text: &str| text.parse::<Unused>().map(|unused| unused.0);
        assert_eq!(waste("5%"), Ok(Waste::Share(0.05)));
        assert_eq!(waste("0"), Ok(Waste::Bytes(0)));
        assert_eq!(waste("2KiB"), Ok(Waste::Bytes(2048)));
        assert_eq!(waste("unlimited"), Ok(Waste::Unlimited));
        for bad in ["", "101%", "-1%", "NaN%", "some"] {
            assert!(waste(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("1GiB", 1 << 30),
            ("10 KiB", 10 << 10),
            ("2T", 2 << 40),
            ("3MB", 3_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "1 X", "99999999999T", "1G1"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subsets() {
        assert_eq!("3/30".parse(), Ok(Subset::Part { number: 3, of: 30 }));
        assert_eq!("2.5%".parse(), Ok(Subset::Percent(2.5)));
        assert_eq!("10GiB".parse(), Ok(Subset::Bytes(10 << 30)));
        for bad in ["0/3", "4/3", "1/", "0%", "101%", "NaN%", "-1%", "0", "x"] {
            assert!(bad.parse::<Subset>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_sizes() {
        for (text, least, most) in
            [("+1K", 1024, u64::MAX), ("-2", 0, 2), ("1..1k", 1, 1024), ("0", 0, 0), ("5M", 5 << 20, 5 << 20)]
        {
            assert_eq!(text.parse(), Ok(SizeRange(least, most)), "{text}");
        }
        for bad in ["", "+", "2..1", "..", "1..", "--1", "x"] {
            assert!(bad.parse::<SizeRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        let at = |secs| Ok(Moment::At(Time::new(secs, 0)));
        assert_eq!("2037-01-31".parse(), at(2_116_972_800)); // date -u -d 2037-01-31 +%s
        assert_eq!("2037-01-31T12:00:00Z".parse(), at(2_117_016_000));
        let ago = "2d".parse::<Moment>().map(|moment| moment.time(Time::new(200_000, 6)));
        assert_eq!(ago, Ok(Time::new(27_200, 6)));
        for bad in ["", "yesterday", "2037-02-30", "12:00"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ends() {
        let at = |secs| Ok(Until::At(Time::new(secs, 0)));
        assert_eq!("2037-01-31".parse(), at(2_117_059_199)); // date -u -d '2037-01-31 23:59:59' +%s
        assert_eq!("2037-01-31T12:00:00Z".parse(), at(2_117_016_000));
        assert_eq!("2037-01-31T12:00:00+02:00".parse(), at(2_117_008_800));
        assert_eq!("2d".parse::<Until>().map(|until| until.time(Time::new(5, 6))), Ok(Time::new(172_805, 6)));
        for bad in ["", "tomorrow", "2037-02-30", "2037-01-31 12:00", "12:00", "2d ago"] {
            assert!(bad.parse::<Until>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_colon_ends_the_snapshot() {
        let parse = |text: &str| SnapshotPath::parse(text.into()).map(|it| (it.snapshot, it.path));
        let path = |path: &str| Some(path.as_bytes().to_vec());
        assert_eq!(parse("latest"), Ok(("latest".into(), None)));
        assert_eq!(parse("latest:"), Ok(("latest".into(), None)));
        assert_eq!(parse("latest:/"), Ok(("latest".into(), None)));
        assert_eq!(parse("latest~2:/srv/a:b"), Ok(("latest~2".into(), path("/srv/a:b"))));
        assert_eq!(parse("4f2a:srv//app/./x/"), Ok(("4f2a".into(), path("/srv/app/x"))));
        assert!(parse(":/etc").is_err() && parse("").is_err() && parse("latest:/a/../b").is_err());
        let odd = SnapshotPath::parse(OsString::from_vec(b"latest:/\xff".to_vec())).unwrap();
        assert_eq!(odd.path.unwrap(), b"/\xff");
    }

    #[test]
    fn streams_get_a_dataset() {
        for (name, dataset) in [
            ("shop.sql", "shop-sql"),
            ("Dump", "dump"),
            ("2026.sql", "stdin"),
            ("deadbeef", "stdin"),
            ("latest", "stdin"),
            ("…", "stdin"),
        ] {
            assert_eq!(dataset_of_stream(name), dataset, "{name}");
        }
    }

    #[test]
    fn paths_become_absolute_lexically() {
        let absolute = |path: &str| String::from_utf8(absolute(path.as_ref(), "/home/me".as_ref())).unwrap();
        assert_eq!(absolute("a/./b"), "/home/me/a/b");
        assert_eq!(absolute("../x/"), "/home/x");
        assert_eq!(absolute("/../../etc"), "/etc");
        assert_eq!(absolute("/"), "/");
    }
}
