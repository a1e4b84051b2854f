//! Names in a database as names of files: `/`, `%` and control characters are percent-encoded, so different names stay
//! different and every name is one component of a path.

/// The name of a file or directory for the thing of this name.
pub(crate) fn encode(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars() {
        match character {
            '/' | '%' | '\u{7f}' | '\0'..='\u{1f}' => out.push_str(&format!("%{:02X}", u32::from(character))),
            other => out.push(other),
        }
    }
    match out.as_str() {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E.".to_owned(),
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_component_and_stays_itself() {
        let names = [
            "a",
            "A",
            "a b",
            "a/b",
            "a%2Fb",
            ".",
            "..",
            "%2E",
            "",
            "%",
            "a\nb",
            "naïve",
            "'; drop table x; --",
        ];
        let encoded: Vec<_> = names.iter().map(|name| encode(name)).collect();
        for (name, file) in names.iter().zip(&encoded) {
            assert!(snap_format::Node::name_is_safe(file.as_bytes()), "{name:?} {file:?}");
            assert_eq!(encoded.iter().filter(|other| *other == file).count(), 1, "{name:?}");
            assert!(!file.chars().any(char::is_control));
        }
        assert_eq!((encode("a/b").as_str(), encode("50%").as_str()), ("a%2Fb", "50%25"));
    }
}
