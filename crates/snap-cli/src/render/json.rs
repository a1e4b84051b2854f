//! Shapes of the JSON events that several commands share.

use serde_json::{Map, Value, json};
use snap_format::{Node, NodeKind, ObjectId};
use snap_repo::Finding;

use super::{rows, text};
use crate::exit::Failure;

/// An object under construction.
pub type Object = Map<String, Value>;

/// Turns `json!({…})` into the object that it is.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// Puts raw bytes under `name` as UTF-8, and under `name_b64` where that loses something.
pub fn put_bytes(object: &mut Object, name: &str, bytes: &[u8]) {
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{name}_b64"), base64(bytes).into());
    }
    object.insert(name.to_owned(), String::from_utf8_lossy(bytes).into());
}

/// The same for a list; `name_b64` has `null` for what is UTF-8.
pub fn put_byte_list(object: &mut Object, name: &str, list: &[Vec<u8>]) {
    if list.iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
        let encode = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
            Ok(_) => Value::Null,
            Err(_) => base64(bytes).into(),
        };
        object.insert(format!("{name}_b64"), list.iter().map(encode).collect());
    }
    let texts: Value = list.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    object.insert(name.to_owned(), texts);
}

/// The event of a failure.
pub fn failure(failure: &Failure) -> Object {
    let cause = if failure.causes.is_empty() { Value::Null } else { failure.causes.join(": ").into() };
    object(json!({ "event": "error", "message": failure.message, "cause": cause, "hint": failure.hint }))
}

/// The event of a finding.
pub fn finding(finding: &Finding) -> Object {
    let snapshots: Vec<String> = finding.snapshots.iter().map(|id| id.to_hex()).collect();
    let mut out = object(json!({
        "event": "finding",
        "code": finding.code.as_str(),
        "object": finding.object,
        "blob": finding.blob.map(snap_format::BlobId::to_hex),
        "snapshots": snapshots,
        "message": finding.why,
    }));
    put_byte_list(&mut out, "paths", &finding.paths);
    out
}

/// The event of an entry in a snapshot.
pub fn node(snapshot: &ObjectId, path: &[u8], node: &Node) -> Object {
    let mut out = object(json!({ "event": "node", "snapshot": snapshot.to_hex() }));
    put_bytes(&mut out, "path", path);
    out.append(&mut object(json!({
        "type": type_name(&node.kind),
        "mode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "size_bytes": node.size(),
        "mtime": text::rfc3339(node.mtime),
        "target": null,
    })));
    if let NodeKind::Symlink { target } = &node.kind {
        put_bytes(&mut out, "target", target);
    }
    rows::put(&mut out, node);
    out
}

/// The word for a type.
pub const fn type_name(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File { .. } => "file",
        NodeKind::Dir { .. } => "dir",
        NodeKind::Symlink { .. } => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::CharDevice { .. } => "char",
        NodeKind::BlockDevice { .. } => "block",
        NodeKind::Object { .. } => "object",
    }
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let symbol = char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]);
            out.push(if at <= group.len() { symbol } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use snap_format::Time;
    use snap_repo::FindingCode;

    use super::*;

    #[test]
    fn base64_as_published() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn what_is_not_utf8_comes_twice() {
        let kind = NodeKind::Symlink { target: b"\xff".to_vec() };
        let event = node(&ObjectId([1; 32]), b"/a\xff", &Node::new(b"a\xff".to_vec(), kind, Time::new(0, 0)));
        assert_eq!(event["path"], "/a\u{fffd}");
        assert_eq!(event["path_b64"], "L2H/");
        assert_eq!(event["target_b64"], "/w==");
        let mut found = Finding::new(FindingCode::Corrupt, "packs/x", "bad");
        found.paths = vec![b"/ok".to_vec(), b"/\xff".to_vec()];
        let event = finding(&found);
        assert_eq!(event["paths"][0], "/ok");
        assert_eq!(event["paths_b64"], json!([null, "L/8="]));
        assert_eq!(event["blob"], Value::Null);
    }
}
