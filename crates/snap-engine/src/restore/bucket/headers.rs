//! What goes with an object besides its bytes. For a file: time, mode and owner, under the names and in the form that s3fs and
//! rclone give them.

use std::collections::BTreeMap;

use snap_backend::Headers;
use snap_format::{Node, NodeKind, Time};

/// `S_IFREG`, which s3fs wants to see in a mode.
const REGULAR: u32 = 0o100_000;

/// Of a file or object.
pub(super) fn of(node: &Node) -> Headers {
    let mut metadata = BTreeMap::new();
    let mut content_type = None;
    if let NodeKind::Object { metadata: own, .. } = &node.kind {
        content_type.clone_from(&own.content_type);
        metadata.extend(own.user.iter().cloned());
    } else {
        metadata.insert("mode".to_owned(), (REGULAR | node.mode & 0o7777).to_string());
        metadata.insert("uid".to_owned(), node.uid.to_string());
        metadata.insert("gid".to_owned(), node.gid.to_string());
    }
    metadata.entry("mtime".to_owned()).or_insert_with(|| decimal(node.mtime));
    Headers { content_type, metadata }
}

/// The time that a header says, if it says one.
pub(super) fn mtime(headers: &Headers) -> Option<Time> {
    parse(headers.metadata.get("mtime")?)
}

/// Seconds since 1970 with nine decimals.
fn decimal(time: Time) -> String {
    match (time.secs, time.nanos) {
        (secs, nanos) if secs >= 0 || nanos == 0 => format!("{secs}.{nanos:09}"),
        (secs, nanos) => format!("-{}.{:09}", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos),
    }
}

fn parse(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some(Time::new(secs.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some(Time::new(secs, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        let cases = [
            (Time::new(1_500_000_000, 42), "1500000000.000000042"),
            (Time::new(0, 0), "0.000000000"),
            (Time::new(-2, 500_000_000), "-1.500000000"),
            (Time::new(-1, 1), "-0.999999999"),
            (Time::new(-3, 0), "-3.000000000"),
        ];
        for (time, text) in cases {
            assert_eq!(decimal(time), text);
            assert_eq!(parse(text), Some(time), "{text}");
        }
        // As others write them.
        assert_eq!(parse("1500000000"), Some(Time::new(1_500_000_000, 0)));
        assert_eq!(parse("1500000000.25"), Some(Time::new(1_500_000_000, 250_000_000)));
        for bad in ["", "x", "1.x", "1.0000000001", "1e9"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
