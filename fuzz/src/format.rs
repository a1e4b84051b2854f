//! What every decoder of `snap-format` owes, whatever bytes it is given.
//!
//! Each function takes one input, asserts the properties, and returns whether the decoder accepted the input.

use std::collections::BTreeMap;

use snap_format::{
    BlobEntry, Body, Bundle, Config, Content, Envelope, Epoch, FormatError, HEAD_LEN, Head, IndexObject,
    Inner, Mark, Node, NodeKind, PackHeader, Record, RecordBody, RunKeyEntry, SnapshotBundle, TreeBlob,
    decode_key_file, decode_recovery_key, encode_key_file, encode_recovery_key, limits,
};

/// A property, and the name of its target and of the directory with its corpus.
pub type Property = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const PROPERTIES: [Property; 16] = [
    ("config", config),
    ("epoch", epoch),
    ("slot_details", slot_details),
    ("bundle", bundle),
    ("frame", frame),
    ("pack_header", pack_header),
    ("index", index),
    ("tree_blob", tree_blob),
    ("envelope", envelope),
    ("snapshot_bundle", snapshot_bundle),
    ("body", body),
    ("record", record),
    ("mark", mark),
    ("key_file", key_file),
    ("recovery_key", recovery_key),
    ("cbor", cbor),
];

/// What was read can be written and is read again the same; writing adds nothing to what was read: it leaves out
/// unknown optional fields and defaults, or else gives the same bytes.
fn stable<T: PartialEq>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = match decode(data) {
        Ok(value) => value,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let written = encode(&value);
    assert!(written == data || written.len() < data.len(), "writing what was read invents something");
    assert!(decode(&written).is_ok_and(|again| again == value), "what was written is not what was read");
    Some(value)
}

/// Config, without its checksum.
pub fn config(data: &[u8]) -> bool {
    stable(data, Config::decode, Config::encode).is_some()
}

/// Epoch with its signature.
pub fn epoch(data: &[u8]) -> bool {
    let Ok((_, signed, signature)) = Epoch::decode(data) else { return false };
    assert!([signed, &signature].concat() == data, "bytes that nobody signs");
    let whole = |epoch: &Epoch| [&epoch.encode()[..], &signature].concat();
    let epoch =
        stable(data, |data| Epoch::decode(data).map(|read| read.0), whole).expect("it was read before");
    assert!(data.len() <= limits::EPOCH && epoch.slots.len() <= limits::SLOTS);
    for kdf in epoch.slots.iter().filter_map(|slot| slot.kdf.as_ref()) {
        assert!(kdf.memory_kib <= 1 << 20 && kdf.passes <= 64 && kdf.lanes <= 16 && kdf.salt.len() <= 64);
        assert!(kdf.passes > 0 && kdf.lanes > 0 && kdf.memory_kib >= 8 * kdf.lanes && kdf.salt.len() >= 8);
    }
    true
}

/// The sealed details of an epoch's slots.
pub fn slot_details(data: &[u8]) -> bool {
    stable(data, Epoch::decode_details, |details| Epoch::encode_details(details)).is_some()
}

/// The keys that a slot is given.
pub fn bundle(data: &[u8]) -> bool {
    stable(data, Bundle::decode, Bundle::encode).is_some()
}

/// Head, then inner part; the two are read on their own.
pub fn frame(data: &[u8]) -> bool {
    let head = Head::decode(data).ok();
    if let Some(head) = &head {
        assert_eq!(head.encode(), data[..HEAD_LEN], "a head has one encoding");
    }
    let rest = data.get(HEAD_LEN..).unwrap_or_default();
    let inner = Inner::decode(rest).ok();
    if let Some(inner) = &inner {
        let padding = rest.len() - inner.encode(0).len();
        assert_eq!(inner.encode(padding), rest, "an inner part has one encoding");
        assert!(inner.plain_len as usize <= limits::PAYLOAD_PLAIN);
    }
    head.is_some() && inner.is_some()
}

fn check_tables(run_keys: &[RunKeyEntry], blobs: &[BlobEntry]) {
    assert!(run_keys.len() <= limits::RUN_KEYS && blobs.len() <= limits::PACK_BLOBS);
    let end = PackHeader::body_end(blobs);
    assert!(end <= limits::PACK);
    let mut at = HEAD_LEN as u64;
    let mut seen = 0;
    for unit in PackHeader::units(blobs) {
        assert_eq!(unit.offset, at, "blobs lie one behind the other");
        assert!(unit.plain_len() <= limits::BLOB_PLAIN as u64);
        assert!(unit.is_group() || unit.blobs.len() == 1);
        assert!(unit.blobs.iter().all(|blob| usize::from(blob.run_key) < run_keys.len()));
        at += u64::from(unit.stored_len());
        seen += unit.members().count();
    }
    assert_eq!((at, seen), (end, blobs.len()));
}

/// Payload of a pack's header.
pub fn pack_header(data: &[u8]) -> bool {
    let header = stable(data, PackHeader::decode, PackHeader::encode);
    header.inspect(|header| check_tables(&header.run_keys, &header.blobs)).is_some()
}

/// Payload of an index object.
pub fn index(data: &[u8]) -> bool {
    let index = stable(data, IndexObject::decode, IndexObject::encode);
    index
        .inspect(|index| index.packs.iter().for_each(|pack| check_tables(&pack.run_keys, &pack.blobs)))
        .is_some()
}

/// A blob of kind *tree*. Nodes are stored again from what was read of them, so nothing may be lost but what means
/// nothing: defaults that are written out, and fields that do not belong to a node's type.
pub fn tree_blob(data: &[u8]) -> bool {
    let Some(tree) = stable(data, TreeBlob::decode, TreeBlob::encode) else { return false };
    if let TreeBlob::Leaf(nodes) = &tree {
        assert!(nodes.is_sorted_by(|a, b| a.name < b.name));
        nodes.iter().for_each(check_node);
    }
    let written = tree.encode();
    if written != data {
        let (before, after) = (model::tree(data), model::tree(&written));
        assert!(before.others.iter().all(|(key, _)| *key >= 128) && after.others.is_empty());
        assert_eq!(before.nodes.is_none(), after.nodes.is_none());
        let (before, after) = (before.nodes.unwrap_or_default(), after.nodes.unwrap_or_default());
        assert_eq!(before.len(), after.len());
        before.iter().zip(&after).for_each(|(before, after)| check_kept(before, after));
    }
    true
}

/// Fields of a node by key, each with its bytes.
type Fields = BTreeMap<u64, Vec<u8>>;

fn check_kept(before: &Fields, after: &Fields) {
    assert!(after.iter().all(|(key, value)| before.get(key) == Some(value)), "a field was changed");
    let belongs: &[u64] = match after[&1][..] {
        [0] => &[11, 12, 13, 14, 19],
        [1] => &[18],
        [2] => &[15],
        [4 | 5] => &[16],
        [6] => &[11, 12, 13, 19, 21, 22, 23, 24],
        _ => &[],
    };
    for (key, value) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        let default: &[u8] = match key {
            3 | 4 | 11 | 20 => &[0x00],
            12 => &[0x40],
            14 | 17 | 24 => &[0x80],
            19 => &[0x01],
            _ => &[],
        };
        let is_foreign = (11..=24).contains(key) && ![17, 20].contains(key) && !belongs.contains(key);
        assert!(value == default || is_foreign, "the field {key} was lost");
    }
}

fn check_node(node: &Node) {
    assert!(Node::name_is_safe(&node.name));
    let text = String::from_utf8_lossy(&node.name);
    assert!(text != "." && text != ".." && !text.contains(['/', '\0']) && !text.is_empty());
    assert!(node.mode <= 0o7777 && node.mtime.nanos <= 999_999_999);
    assert!(node.xattrs.is_sorted_by(|a, b| a.name <= b.name));
    assert!(node.unknown.iter().all(|(key, _)| *key >= 128));
    if let Some(Content::Blobs(ids)) = node.content() {
        assert!(ids.len() <= limits::INLINE_CONTENT);
    }
    if let NodeKind::File { size, holes, .. } = &node.kind {
        let mut covered = 0u64;
        for pair in holes.windows(2) {
            assert!(pair[0].0 + pair[0].1 < pair[1].0, "holes touch");
        }
        for (offset, length) in holes {
            assert!(*length > 0 && offset + length <= *size, "a hole lies outside");
            covered += length;
        }
        assert!(covered <= *size);
    }
}

/// Payload of a snapshot.
pub fn envelope(data: &[u8]) -> bool {
    stable(data, Envelope::decode, Envelope::encode).is_some()
}

/// Payload of a snapshot bundle.
pub fn snapshot_bundle(data: &[u8]) -> bool {
    let Some(bundle) = stable(data, SnapshotBundle::decode, SnapshotBundle::encode) else { return false };
    assert!((1..=limits::ITEMS).contains(&bundle.members.len()));
    true
}

/// What only readers know of a snapshot.
pub fn body(data: &[u8]) -> bool {
    stable(data, Body::decode, Body::encode).is_some()
}

/// Payload of a record.
pub fn record(data: &[u8]) -> bool {
    let Some(record) = stable(data, Record::decode, Record::encode) else { return false };
    if record.kind != "forget" {
        assert_eq!(record.forgotten(), Ok(Vec::new()));
    } else if let Ok(ids) = record.forgotten() {
        let again = Record { body: Record::forget_body(&ids), ..record };
        assert_eq!(again.forgotten(), Ok(ids));
    }
    let record = Record::decode(data).expect("it was read before");
    let read = |body: &[u8]| RecordBody::decode(&record.kind, body);
    if let Ok(Some(body)) = read(&record.body) {
        assert_eq!(body.kind(), record.kind);
        let written = body.encode();
        // A name list that is missing is empty, and is written so: two bytes for each of none.
        assert!(written.len() <= record.body.len() + 2, "writing what was read invents something");
        assert_eq!(read(&written), Ok(Some(body)));
    } else if RecordBody::is_owners(&record.kind) {
        assert!(read(&record.body).is_err(), "a type that is an owner's is known");
    }
    true
}

/// Payload of a mark.
pub fn mark(data: &[u8]) -> bool {
    stable(data, Mark::decode, Mark::encode).is_some()
}

/// Text of a key file.
pub fn key_file(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(secret) = decode_key_file(text) else { return false };
    let written = encode_key_file(&secret);
    assert_eq!(decode_key_file(&written), Ok(secret));
    assert_eq!(written.trim(), text.trim(), "only white space around it is ignored");
    true
}

/// Text of a printed recovery key.
pub fn recovery_key(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok((secret, check)) = decode_recovery_key(text) else { return false };
    let written = encode_recovery_key(&secret, check);
    assert_eq!(written.len(), 56 + 7);
    assert_eq!(decode_recovery_key(&written), Ok((secret, check)));
    let symbols = |text: &str| -> String {
        let text = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
        text.map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        })
        .collect()
    };
    assert_eq!(symbols(&written), symbols(text), "a key has one spelling");
    true
}

/// One item of CBOR: accepted if and only if another, simpler reader finds that it is in the deterministic encoding.
/// And any bytes at all through every decoder.
pub fn cbor(data: &[u8]) -> bool {
    for (name, property) in PROPERTIES {
        if name != "cbor" {
            property(data);
        }
    }
    // A record's body may be any map.
    let payload = [&[0xa3, 0x00, 0x60, 0x01, 0x82, 0x00, 0x00, 0x02][..], data].concat();
    let accepted = Record::decode(&payload).is_ok();
    let expected = model::read(data).filter(|(value, rest)| rest.is_empty() && value.is_allowed(1));
    let expected = expected.filter(|(value, _)| value.is_map() && value.encode() == data);
    assert_eq!(accepted, expected.is_some(), "F1");
    accepted
}

/// The definition again: a lenient reader, a writer that knows only the shortest form, and a comparison.
mod model {
    #[derive(Debug)]
    pub(super) enum Value {
        Number(u8, u64),
        Bytes(Vec<u8>),
        Text(Vec<u8>),
        Array(Vec<Value>),
        Map(Vec<(Value, Value)>),
    }

    /// A tree as its decoder has accepted it: the nodes, if it is a leaf, and the fields that it should not have.
    pub(super) struct Tree {
        pub(super) nodes: Option<Vec<super::Fields>>,
        pub(super) others: super::Fields,
    }

    pub(super) fn tree(bytes: &[u8]) -> Tree {
        let (value, _) = read(bytes).expect("it was accepted");
        let Value::Map(pairs) = value else { panic!("a tree that is no map was accepted") };
        let mut tree = Tree { nodes: None, others: super::Fields::new() };
        for (key, value) in pairs {
            match (key.unsigned(), value) {
                (Some(0), Value::Array(nodes)) => {
                    tree.nodes = Some(nodes.iter().map(Value::fields).collect());
                }
                (Some(1 | 2), _) => {}
                (key, value) => drop(tree.others.insert(key.unwrap_or_default(), value.encode())),
            }
        }
        tree
    }

    /// Any definite encoding of an item without tags, floats and simple values; and what follows it.
    pub(super) fn read(bytes: &[u8]) -> Option<(Value, &[u8])> {
        read_at(bytes, 0)
    }

    fn read_at(bytes: &[u8], depth: usize) -> Option<(Value, &[u8])> {
        let (first, rest) = bytes.split_first()?;
        let (major, info) = (first >> 5, first & 31);
        let width = match info {
            0..=23 => 0,
            24..=27 => 1 << (info - 24),
            _ => return None,
        };
        let (argument, mut rest) = rest.split_at_checked(width)?;
        let argument = argument.iter().fold(0, |value, byte| value * 256 + u64::from(*byte));
        let number = if width == 0 { u64::from(info) } else { argument };
        if depth > 100 {
            return None;
        }
        let value = match major {
            0 | 1 => Value::Number(major, number),
            2 | 3 => {
                let (string, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                rest = after;
                if major == 2 { Value::Bytes(string.to_vec()) } else { Value::Text(string.to_vec()) }
            }
            4 | 5 => {
                let mut items = Vec::new();
                for _ in 0..number.checked_mul(u64::from(major - 3))? {
                    let (item, after) = read_at(rest, depth + 1)?;
                    items.push(item);
                    rest = after;
                }
                if major == 4 { Value::Array(items) } else { Value::pairs(items) }
            }
            _ => return None,
        };
        Some((value, rest))
    }

    impl Value {
        fn pairs(items: Vec<Self>) -> Self {
            let mut items = items.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Self::Map(pairs)
        }

        fn fields(&self) -> super::Fields {
            let Self::Map(pairs) = self else { panic!("a node that is no map was accepted") };
            pairs.iter().map(|(key, value)| (key.unsigned().unwrap_or_default(), value.encode())).collect()
        }

        pub(super) fn is_map(&self) -> bool {
            matches!(self, Self::Map(_))
        }

        /// What the format rules out beyond the encoding: depth, keys that are not unsigned or not in order, text
        /// that is none.
        pub(super) fn is_allowed(&self, depth: usize) -> bool {
            depth <= 16
                && match self {
                    Self::Number(..) | Self::Bytes(_) => true,
                    Self::Text(text) => std::str::from_utf8(text).is_ok(),
                    Self::Array(items) => items.iter().all(|item| item.is_allowed(depth + 1)),
                    Self::Map(pairs) => {
                        let keys: Option<Vec<u64>> = pairs.iter().map(|pair| pair.0.unsigned()).collect();
                        keys.is_some_and(|keys| keys.is_sorted_by(|a, b| a < b))
                            && pairs.iter().all(|pair| pair.1.is_allowed(depth + 1))
                    }
                }
        }

        fn unsigned(&self) -> Option<u64> {
            match self {
                Self::Number(0, number) => Some(*number),
                _ => None,
            }
        }

        pub(super) fn encode(&self) -> Vec<u8> {
            match self {
                Self::Number(major, number) => head(*major, *number),
                Self::Bytes(string) => [head(2, string.len() as u64), string.clone()].concat(),
                Self::Text(string) => [head(3, string.len() as u64), string.clone()].concat(),
                Self::Array(items) => {
                    let items = items.iter().flat_map(Self::encode);
                    head(4, self.len()).into_iter().chain(items).collect()
                }
                Self::Map(pairs) => {
                    let pairs = pairs.iter().flat_map(|(key, value)| [key.encode(), value.encode()].concat());
                    head(5, self.len()).into_iter().chain(pairs).collect()
                }
            }
        }

        fn len(&self) -> u64 {
            match self {
                Self::Array(items) => items.len() as u64,
                Self::Map(pairs) => pairs.len() as u64,
                _ => 0,
            }
        }
    }

    fn head(major: u8, number: u64) -> Vec<u8> {
        let bytes = number.to_be_bytes();
        let (info, width) = match number {
            0..24 => return vec![major << 5 | bytes[7]],
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        [&[major << 5 | info], &bytes[8 - width..]].concat()
    }
}
