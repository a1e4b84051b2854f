//! Trees (§9).

use anyhow::{Context, Result, bail, ensure};

use crate::cbor::{Fields, Time, Value};
use crate::crypto::Key;
use crate::pack::{DATA, Store, TREE};

/// The type of a node, with what only that type has.
#[derive(Debug, PartialEq, Eq)]
pub enum Type {
    /// A file, or an object of a bucket.
    File {
        /// Size, holes included.
        size: u64,
        /// Ids of the chunks, or of content lists.
        content: Content,
        /// `[offset, length]`, ascending.
        holes: Vec<(u64, u64)>,
    },
    /// A directory, and its tree.
    Directory(Option<Key>),
    /// A symbolic link, and its target.
    Symlink(Vec<u8>),
    /// A fifo.
    Fifo,
    /// A character device.
    CharacterDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
}

/// How a file names its chunks.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Directly.
    Chunks(Vec<Key>),
    /// By content lists.
    Lists(Vec<Key>),
}

/// An entry of a directory.
pub struct Node {
    /// Its name, checked (F22).
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Type,
    /// `0o7777` bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification.
    pub mtime: Time,
    /// `[device, inode]` that nodes of one file share.
    pub link: Option<(u64, u64)>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The entry could not be read when it was backed up.
    pub unreadable: bool,
}

/// F22: not empty, without `/` and NUL, not `.` or `..`.
fn check_name(name: &[u8]) -> Result<()> {
    let bad = matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0);
    ensure!(!bad, "forbidden name {:?}", name.escape_ascii().to_string());
    Ok(())
}

fn pair<A, B>(
    value: Value,
    a: impl Fn(Value) -> Result<A>,
    b: impl Fn(Value) -> Result<B>,
) -> Result<(A, B)> {
    let [first, second] = value.tuple()?;
    Ok((a(first)?, b(second)?))
}

fn parse_node(value: Value) -> Result<Node> {
    let mut map = value.fields()?;
    let name = map.need(0)?.bytes()?;
    check_name(&name)?;
    let kind: u64 = map.need(1)?.uint()?;
    let mode = map.need(2)?.uint()?;
    ensure!(mode <= 0o7777, "mode out of range");
    let id = |v: Option<Value>| v.map_or(Ok(0), Value::uint::<u32>);
    let (uid, gid) = (id(map.opt(3))?, id(map.opt(4))?);
    let mtime = map.need(7)?.time()?;
    let numbers = |v: Value| pair(v, Value::uint, Value::uint);
    let link = map.opt(10).map(numbers).transpose()?;
    let size = map.opt(11).map_or(Ok(0), Value::uint)?;
    let chunks = map.opt(12).map(Value::joined).transpose()?;
    let lists = map.opt(13).map(Value::joined).transpose()?;
    let content = match (chunks, lists) {
        (chunks, None) => Content::Chunks(chunks.unwrap_or_default()),
        (None, Some(lists)) => Content::Lists(lists),
        _ => bail!("content and content lists"),
    };
    ensure!(!matches!(&content, Content::Chunks(ids) if ids.len() > 4096), "too many chunks for key 12");
    let holes = map.opt(14).map(|v| v.array(numbers)).transpose()?.unwrap_or_default();
    check_holes(&holes, size)?;
    let target = map.opt(15).map(Value::bytes).transpose()?;
    let device = map.opt(16).map(|v| pair(v, Value::uint, Value::uint)).transpose()?;
    let xattrs = map.opt(17).map(|v| v.array(|v| pair(v, Value::bytes, Value::bytes))).transpose()?;
    let xattrs = xattrs.unwrap_or_default();
    ensure!(xattrs.is_sorted_by(|a, b| a.0 < b.0), "extended attributes not sorted");
    let tree = map.opt(18).map(Value::fixed).transpose()?;
    let flags: u64 = map.opt(20).map_or(Ok(0), Value::uint)?;
    // Keys that a restore has no use for.
    for (key, text) in [(5, true), (6, true), (9, false), (19, false), (21, true), (22, true), (23, true)] {
        if let Some(value) = map.opt(key) {
            if text { drop(value.text()?) } else { value.uint::<u64>().map(drop)? }
        }
    }
    map.opt(8).map(Value::time).transpose()?;
    map.opt(24).map(|v| v.array(|v| pair(v, Value::text, Value::text))).transpose()?;
    map.end()?;
    let unreadable = flags & 2 != 0;
    let kind = match kind {
        0 | 6 => Type::File { size, content, holes },
        1 if tree.is_none() && !unreadable => bail!("directory without a tree"),
        1 => Type::Directory(tree),
        2 => Type::Symlink(target.context("symlink without a target")?),
        3 => Type::Fifo,
        4 | 5 => {
            let (major, minor) = device.context("device without numbers")?;
            if kind == 4 { Type::CharacterDevice(major, minor) } else { Type::BlockDevice(major, minor) }
        }
        _ => bail!("node of an unknown type {kind}: needs a newer snap"),
    };
    Ok(Node { name, kind, mode, uid, gid, mtime, link, xattrs, unreadable })
}

/// Ascending, not empty, not touching, within the size.
fn check_holes(holes: &[(u64, u64)], size: u64) -> Result<()> {
    let mut least = 0;
    for (offset, length) in holes {
        let end = offset.checked_add(*length).filter(|end| *end <= size).context("hole beyond the end")?;
        ensure!(*offset >= least && *length > 0, "holes not ascending, touching or empty");
        least = end + 1;
    }
    Ok(())
}

/// One tree object.
enum Object {
    Leaf(Vec<Node>),
    Branch(Vec<(Vec<u8>, Key, u64)>),
    List(Vec<Key>),
}

impl Store {
    fn tree_object(&self, domain: &str, id: &Key) -> Result<Object> {
        let mut map = Fields::decode(&self.blob(domain, TREE, id)?)?;
        let branch = |v: Value| {
            let [name, id, count] = v.tuple()?;
            Ok((name.bytes()?, id.fixed()?, count.uint()?))
        };
        let object = match (map.opt(0), map.opt(1), map.opt(2)) {
            (Some(leaf), None, None) => Object::Leaf(leaf.array(parse_node)?),
            (None, Some(value), None) => Object::Branch(value.array(branch)?),
            (None, None, Some(list)) => Object::List(list.joined()?),
            _ => bail!("tree object without exactly one key"),
        };
        map.end()?;
        Ok(object)
    }

    /// The nodes of a directory, in order.
    pub fn directory(&self, domain: &str, root: &Key) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        self.collect(domain, root, 0, &mut nodes)?;
        ensure!(nodes.is_sorted_by(|a, b| a.name < b.name), "names not sorted or not unique");
        Ok(nodes)
    }

    fn collect(&self, domain: &str, id: &Key, level: u32, nodes: &mut Vec<Node>) -> Result<()> {
        match self.tree_object(domain, id)? {
            Object::Leaf(leaf) => nodes.extend(leaf),
            Object::Branch(children) => {
                ensure!(level < 8, "too many levels of branches");
                for (first, child, count) in children {
                    let before = nodes.len();
                    self.collect(domain, &child, level + 1, nodes)?;
                    ensure!(
                        nodes.get(before).map(|n| &n.name) == Some(&first),
                        "branch names another first node"
                    );
                    ensure!((nodes.len() - before) as u64 == count, "branch counts nodes wrong");
                }
            }
            Object::List(_) => bail!("a content list in place of a directory"),
        }
        Ok(())
    }

    /// The ids of a file's chunks, in order.
    pub fn chunks(&self, domain: &str, content: &Content) -> Result<Vec<Key>> {
        let lists = match content {
            Content::Chunks(chunks) => return Ok(chunks.clone()),
            Content::Lists(lists) => lists,
        };
        let mut chunks = Vec::new();
        for id in lists {
            let Object::List(list) = self.tree_object(domain, id)? else { bail!("not a content list") };
            chunks.extend(list);
        }
        Ok(chunks)
    }

    /// Whether chunks and holes add up to the size, by the lengths in the index (F21).
    pub fn check_lengths(&self, domain: &str, size: u64, chunks: &[Key], holes: &[(u64, u64)]) -> Result<()> {
        let mut sum = holes.iter().map(|(_, length)| length).sum::<u64>();
        for chunk in chunks {
            let (_, row) = self.index.places(domain, DATA, chunk).next().context("chunk not in the index")?;
            sum = sum.saturating_add(row.plain.into());
        }
        ensure!(sum == size, "chunks and holes make {sum} bytes, not {size}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b".a", b"\xff", b"a\\b", b" "] {
            check_name(good).unwrap();
        }
    }

    #[test]
    fn holes() {
        check_holes(&[(0, 5), (6, 4)], 10).unwrap();
        assert!(check_holes(&[(0, 5), (5, 5)], 10).is_err(), "touching");
        assert!(check_holes(&[(6, 4), (0, 5)], 10).is_err(), "descending");
        assert!(check_holes(&[(0, 0)], 10).is_err(), "empty");
        assert!(check_holes(&[(6, 5)], 10).is_err(), "beyond the end");
        assert!(check_holes(&[(u64::MAX, 2)], u64::MAX).is_err(), "overflow");
    }
}
