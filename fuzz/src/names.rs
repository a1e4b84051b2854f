//! What the readers of names owe: objects in a store, snapshots on a command line.
//!
//! Each function takes one input, asserts the properties, and returns whether it was accepted.

use std::path::{Component, Path};

use snap_backend::ObjectName;
use snap_engine::Selector;
use snap_repo::parse_object_name;

/// Name of an object: nothing escapes a directory or is mistaken for another; a name of the format has one spelling.
pub fn object_name(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    if let Some((area, id)) = parse_object_name(text) {
        assert_eq!(snap_repo::object_name(area, &id).as_str(), text, "an object has one name");
        assert!(text.starts_with(area.prefix()));
        assert!(ObjectName::new(text).is_ok());
    }
    let Ok(name) = ObjectName::new(text) else { return false };
    assert_eq!(name.as_str(), text);
    assert!(text.len() <= 512 && !text.starts_with("tmp"));
    assert!(!text.contains(|c: char| !c.is_ascii() || c.is_ascii_uppercase() || c.is_ascii_control()));
    assert!(!text.contains(['\\', ':', ' ', '%', '*', '?', '"', '<', '>', '|']));
    let parts: Vec<_> = Path::new(text).components().collect();
    assert!(parts.iter().all(|part| matches!(part, Component::Normal(part) if part.len() <= 128)));
    assert_eq!(parts.len(), text.split('/').count(), "a path would drop a segment");
    assert_eq!(name.is_fixed(), parts.len() == 1);
    true
}

/// Name of a snapshot.
pub fn selector(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match Selector::parse(text) {
        Ok(Selector::Latest(back)) => {
            let number = text.strip_prefix("latest").expect("it says so");
            let number = number.strip_prefix('~').unwrap_or("0");
            assert_eq!(number.trim_start_matches('+').parse(), Ok(back));
            true
        }
        Ok(Selector::Prefix(prefix)) => {
            assert!(prefix == text && (4..=64).contains(&prefix.len()));
            assert!(prefix.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
