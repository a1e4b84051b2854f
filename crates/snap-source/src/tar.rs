use std::collections::HashMap;
use std::io::{self, Read, Write};

use ::tar::{Builder, EntryType, Header};
use snap_format::{Link, Node, NodeKind, Time};

use crate::holes::WithHoles;

const NAME_BYTES: usize = 100;
const OWNER_BYTES: usize = 32;
const BLOCK_BYTES: usize = 512;
/// What twelve, and eight, octal digits of a header hold at most.
const MAX_TIME: i64 = 0o777_7777_7777;
const MAX_SIZE: u64 = 0o777_7777_7777;
const MAX_ID: u32 = 0o777_7777;

/// Why an entry did not become part of an archive as it should.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The content could not be read to its end, or was not of the length that the node says. Zeros stand
    /// for what is missing, and the archive can go on.
    #[error("the content could not be read; zeros stand for what is missing")]
    Content(#[source] io::Error),
    /// The node cannot be put into a tar archive. Nothing was written, and the archive can go on.
    #[error("a tar archive cannot hold this entry: {0}")]
    Unfit(&'static str),
    /// The archive could not be written; it is broken.
    #[error("the archive could not be written")]
    Output(#[source] io::Error),
}

impl From<TarError> for io::Error {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Content(error) | TarError::Output(error) => error,
            TarError::Unfit(_) => Self::new(io::ErrorKind::InvalidInput, error),
        }
    }
}

/// Writes nodes as a POSIX (pax) tar archive. The second name of a file becomes a hard link to the first.
pub struct TarWriter<W: Write> {
    builder: Builder<W>,
    first_names: HashMap<Link, Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// An archive written to `out`, in pieces of up to 64 KiB and down to 512 bytes: buffer it.
    pub fn new(out: W) -> Self {
        Self { builder: Builder::new(out), first_names: HashMap::new(), buffer: Vec::new() }
    }

    /// Appends an entry under `path`; leading slashes are left out. For a file, `content` yields the stored
    /// content, that is without the node's holes; it is read only for the first name of a file, and for
    /// other types not at all.
    pub fn append(
        &mut self,
        path: &[u8],
        node: &Node,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), TarError> {
        let path = member_path(path, matches!(node.kind, NodeKind::Dir { .. }));
        let first_name = match (&node.kind, node.link) {
            (NodeKind::File { .. }, Some(link)) => match self.first_names.get(&link) {
                Some(first) => Some(first.clone()),
                None => {
                    self.first_names.insert(link, path.clone());
                    None
                }
            },
            _ => None,
        };
        let is_link = first_name.is_some();
        let (header, pax) = describe(&path, node, size, first_name)?;
        self.start(&header, &pax).map_err(TarError::Output)?;
        match &node.kind {
            NodeKind::File { holes, .. } if !is_link => {
                self.content(size, &mut WithHoles::new(content, holes, size))
            }
            NodeKind::Object { .. } => self.content(size, content),
            _ => Ok(()),
        }
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<W> {
        let mut out = self.builder.into_inner()?;
        out.flush()?;
        Ok(out)
    }

    fn start(&mut self, header: &Header, pax: &Pax) -> io::Result<()> {
        if !pax.records.is_empty() {
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_mtime(0);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_size(pax.records.len() as u64);
            put(&mut extension.as_old_mut().name, b"./PaxHeaders/entry");
            extension.set_cksum();
            self.builder.append(&extension, &pax.records[..])?;
        }
        self.builder.get_mut().write_all(header.as_bytes())
    }

    fn content(&mut self, size: u64, content: &mut dyn Read) -> Result<(), TarError> {
        self.buffer.resize(64 << 10, 0);
        let out = self.builder.get_mut();
        let mut left = size;
        let mut failed = None;
        while left > 0 {
            let want = usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let count = match failed {
                Some(_) => want,
                None => match content.read(&mut self.buffer[..want]) {
                    Ok(0) => {
                        failed = Some(io::ErrorKind::UnexpectedEof.into());
                        self.buffer.fill(0);
                        continue;
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        failed = Some(error);
                        self.buffer.fill(0);
                        continue;
                    }
                },
            };
            out.write_all(&self.buffer[..count]).map_err(TarError::Output)?;
            left -= count as u64;
        }
        if failed.is_none() {
            failed = match content.read(&mut [0]) {
                Ok(0) => None,
                Ok(_) => Some(io::Error::new(io::ErrorKind::InvalidData, "more content than the file holds")),
                Err(error) => Some(error),
            };
        }
        let padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        let zeros = [0_u8; BLOCK_BYTES];
        out.write_all(&zeros[..usize::try_from(padding).unwrap_or(0)]).map_err(TarError::Output)?;
        match failed {
            Some(error) => Err(TarError::Content(error)),
            None => Ok(()),
        }
    }
}

/// Relative, and with a slash at the end of a directory.
fn member_path(path: &[u8], is_dir: bool) -> Vec<u8> {
    let start = path.iter().take_while(|byte| **byte == b'/').count();
    let mut path = path[start..].to_vec();
    if path.is_empty() {
        path.push(b'.');
    }
    if is_dir && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

/// The records of a pax extended header.
#[derive(Default)]
struct Pax {
    records: Vec<u8>,
}

impl Pax {
    /// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.records.extend_from_slice(format!("{length} ").as_bytes());
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = field.len().min(value.len());
    field.fill(0);
    field[..length].copy_from_slice(&value[..length]);
}

fn describe(
    path: &[u8],
    node: &Node,
    size: u64,
    first_name: Option<Vec<u8>>,
) -> Result<(Header, Pax), TarError> {
    let mut header = Header::new_ustar();
    let mut pax = Pax::default();
    let mut size = size;
    let (kind, target) = match &node.kind {
        NodeKind::File { .. } if first_name.is_some() => (EntryType::Link, first_name),
        NodeKind::File { .. } | NodeKind::Object { .. } => (EntryType::Regular, None),
        NodeKind::Dir { .. } => (EntryType::Directory, None),
        NodeKind::Symlink { target } => (EntryType::Symlink, Some(target.clone())),
        NodeKind::Fifo => (EntryType::Fifo, None),
        NodeKind::CharDevice { .. } => (EntryType::Char, None),
        NodeKind::BlockDevice { .. } => (EntryType::Block, None),
    };
    header.set_entry_type(kind);
    if kind != EntryType::Regular {
        size = 0;
    }
    text(&mut pax, &mut header.as_old_mut().name, "path", path);
    if let Some(target) = target {
        text(&mut pax, &mut header.as_old_mut().linkname, "linkpath", &target);
    }
    header.set_size(size);
    if size > MAX_SIZE {
        pax.add(b"size", size.to_string().as_bytes());
    }
    header.set_mode(if matches!(node.kind, NodeKind::Object { .. }) { 0o644 } else { node.mode & 0o7777 });
    owner(&mut header, &mut pax, node);
    header.set_mtime(u64::try_from(node.mtime.secs.clamp(0, MAX_TIME)).unwrap_or(0));
    if node.mtime.nanos != 0 || !(0..=MAX_TIME).contains(&node.mtime.secs) {
        pax.add(b"mtime", decimal(node.mtime).as_bytes());
    }
    if let NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } = node.kind {
        if major > MAX_ID || minor > MAX_ID {
            return Err(TarError::Unfit("the device number is too large"));
        }
        let numbers = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        numbers.map_err(TarError::Output)?;
    }
    for xattr in &node.xattrs {
        pax.add(&[b"SCHILY.xattr.", &xattr_key(&xattr.name)[..]].concat(), &xattr.value);
    }
    header.set_cksum();
    Ok((header, pax))
}

/// Into the header if it fits, else into the extension.
fn text(pax: &mut Pax, field: &mut [u8; NAME_BYTES], key: &str, value: &[u8]) {
    if value.len() > NAME_BYTES {
        pax.add(key.as_bytes(), value);
    }
    put(field, value);
}

fn owner(header: &mut Header, pax: &mut Pax, node: &Node) {
    header.set_uid(u64::from(node.uid));
    header.set_gid(u64::from(node.gid));
    if node.uid > MAX_ID {
        pax.add(b"uid", node.uid.to_string().as_bytes());
    }
    if node.gid > MAX_ID {
        pax.add(b"gid", node.gid.to_string().as_bytes());
    }
    let user = node.user.as_deref().unwrap_or_default();
    let group = node.group.as_deref().unwrap_or_default();
    if user.len() >= OWNER_BYTES {
        pax.add(b"uname", user.as_bytes());
    }
    if group.len() >= OWNER_BYTES {
        pax.add(b"gname", group.as_bytes());
    }
    if let Some(ustar) = header.as_ustar_mut() {
        put(&mut ustar.uname[..OWNER_BYTES - 1], user.as_bytes());
        put(&mut ustar.gname[..OWNER_BYTES - 1], group.as_bytes());
    }
}

/// Seconds with a fraction; before 1970 the fraction counts away from zero, as the sign covers both.
fn decimal(time: Time) -> String {
    let nanos = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let text = format!("{sign}{}.{:09}", magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As GNU tar writes it: a key must not contain `=`.
fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            other => key.push(*other),
        }
    }
    key
}
