use snap_format::Time;

/// Longest name of a file, bytes.
const NAME_MAX: usize = 255;

/// A dataset or host as a name in a directory.
pub(crate) fn in_path(name: &str) -> Vec<u8> {
    let mut out = match name {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => name.replace('/', "%2F").replace('\0', "%00"),
    };
    // Never in the middle of a character.
    while out.len() > NAME_MAX {
        out.pop();
    }
    out.into_bytes()
}

/// `2026-01-31T14:05:09Z`; what no calendar has is the number of seconds.
pub(crate) fn utc(time: Time) -> Vec<u8> {
    match jiff::Timestamp::from_second(time.secs) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into_bytes(),
        Err(_) => time.secs.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_components() {
        assert_eq!(in_path("web1"), b"web1");
        assert_eq!(in_path("../a"), b"..%2Fa");
        assert_eq!(
            (in_path(""), in_path(".."), in_path(".")),
            (b"%".into(), b"%2E%2E".into(), b"%2E".into())
        );
        assert_eq!(in_path(&"é".repeat(200)).len(), 254);
    }

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(utc(Time::new(1_769_868_309, 999_999_999)), b"2026-01-31T14:05:09Z");
        assert_eq!(utc(Time::new(-1, 0)), b"1969-12-31T23:59:59Z");
        assert_eq!(utc(Time::new(i64::MAX, 0)), b"9223372036854775807");
    }
}
