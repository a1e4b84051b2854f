//! Names that people give, and what they may have meant.

/// What a dataset may be called, for messages.
pub const DATASET_RULE: &str =
    "a dataset name is a-z, then a-z, 0-9, _ or -; not `latest`, and not eight or more hexadecimal digits";

/// What a copy or an application may be called, for messages.
pub const NAME_RULE: &str = "a name is a-z, then a-z, 0-9, _ or -";

/// Whether a dataset may have this name: not one that could be taken for a snapshot's.
pub fn is_dataset_name(name: &str) -> bool {
    let looks_like_id = name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name(name) && name != "latest" && !looks_like_id
}

/// Whether a copy or an application may have this name.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    name.as_bytes().first().is_some_and(u8::is_ascii_lowercase) && name.bytes().all(plain)
}

/// How alike two words must be, from 0 to 1, for one to be a misspelling of the other.
const ALIKE: f64 = 0.5;

/// The one of `known` that `word` was probably meant to be.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Where a dash was forgotten, or a flag's prefix added: `keyfile`, `keep-daily`.
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let score = |candidate: &str| {
        let (word, candidate) = (plain(word), plain(candidate));
        let is_end = candidate.len().min(word.len()) >= 4
            && (word.ends_with(&candidate) || candidate.ends_with(&word));
        let alike = strsim::normalized_damerau_levenshtein(&word, &candidate);
        if is_end { alike.max(0.9) } else { alike }
    };
    let scored = known.into_iter().map(|candidate| (score(candidate), candidate));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dataset_names() {
        for good in ["files", "orders-2", "a", "a_b", "deadbee", "deadbeefs", "latest-one"] {
            assert!(is_dataset_name(good), "{good}");
        }
        for bad in ["", "Files", "2orders", "-a", "a.b", "a b", "latest", "deadbeef", "abcdef0123", "é"] {
            assert!(!is_dataset_name(bad), "{bad}");
        }
    }

    #[test]
    fn misspellings_are_recognised_and_other_words_are_not() {
        let keys = ["uri", "path", "key-file", "read-key-file", "copies", "daily"];
        for (word, meant) in [
            ("keyfile", Some("key-file")),
            ("key_file", Some("key-file")),
            ("url", Some("uri")),
            ("copy", Some("copies")),
            ("keep-daily", Some("daily")),
            ("compression", None),
        ] {
            assert_eq!(did_you_mean(word, keys), meant, "{word}");
        }
    }
}
