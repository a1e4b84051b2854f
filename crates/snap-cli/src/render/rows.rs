//! What is known of a table among the files of a snapshot.

use snap_database::{CHECKSUM, ROWS};
use snap_format::Node;

use super::json::Object;
use super::text;

fn attribute(node: &Node, name: &str) -> Option<String> {
    let found = node.xattrs.iter().find(|xattr| xattr.name == name.as_bytes())?;
    String::from_utf8(found.value.clone()).ok()
}

/// How many rows it has, if it is a table.
pub fn rows(node: &Node) -> Option<u64> {
    attribute(node, ROWS)?.parse().ok()
}

/// Adds rows and checksum to the event of a node.
pub fn put(event: &mut Object, node: &Node) {
    if let Some(rows) = rows(node) {
        event.insert("rows".to_owned(), rows.into());
        event.insert("checksum".to_owned(), attribute(node, CHECKSUM).into());
    }
}

/// For behind a path; empty for what is no table.
pub fn remark(node: &Node) -> String {
    rows(node).map(|rows| format!("  ({})", text::counted(rows, "row", "rows"))).unwrap_or_default()
}

/// The same for what changed.
pub fn change(before: Option<&Node>, after: Option<&Node>) -> String {
    match (before.and_then(rows), after.and_then(rows)) {
        (Some(before), Some(after)) => {
            format!("  ({} -> {} rows)", text::count(before), text::count(after))
        }
        (Some(rows), None) | (None, Some(rows)) => format!("  ({})", text::counted(rows, "row", "rows")),
        (None, None) => String::new(),
    }
}
