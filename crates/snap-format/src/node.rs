use crate::cbor::{Dec, Enc, Unknown};
use crate::{BlobId, FormatError, limits};

const WHAT: &str = "node";

/// An instant: seconds since 1970-01-01 UTC (negative before) and nanoseconds from 0 to 999,999,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds, rounded towards the past.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

impl Time {
    /// From seconds and nanoseconds; nanoseconds out of range are cut to 999,999,999.
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos: if nanos > 999_999_999 { 999_999_999 } else { nanos } }
    }

    pub(crate) fn put(self, enc: &mut Enc) {
        enc.array(2).int(self.secs).uint(u64::from(self.nanos));
    }

    pub(crate) fn take(dec: &mut Dec<'_>) -> Result<Self, FormatError> {
        dec.fixed_array(2)?;
        let (secs, nanos) = (dec.int()?, dec.uint32()?);
        if nanos > 999_999_999 {
            return Err(dec.error("nanoseconds out of range"));
        }
        Ok(Self { secs, nanos })
    }
}

/// BlobIds in the order of the content.
pub type BlobIds = Vec<BlobId>;

/// Where a file's bytes are, holes left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The data blobs themselves.
    Blobs(BlobIds),
    /// Content lists ([`crate::TreeBlob::Content`]) that name the data blobs.
    Lists(BlobIds),
}

impl Default for Content {
    fn default() -> Self {
        Self::Blobs(Vec::new())
    }
}

/// Device and inode of a file with several names; the same pair within a snapshot is the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// Device number on the source host.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
}

/// An extended attribute; POSIX ACLs are two of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.mime_type`.
    pub name: Vec<u8>,
    /// Value, possibly empty.
    pub value: Vec<u8>,
}

/// What a bucket says of an object beyond its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectMetadata {
    /// MIME type.
    pub content_type: Option<String>,
    /// Entity tag.
    pub etag: Option<String>,
    /// Version id of a versioned bucket.
    pub version: Option<String>,
    /// User metadata, sorted by name.
    pub user: Vec<(String, String)>,
}

/// What kind of thing a node is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are; units as everywhere: bytes
pub enum NodeKind {
    File { size: u64, content: Content, holes: Vec<(u64, u64)>, profile: u8 },
    Dir { tree: BlobId },
    Symlink { target: Vec<u8> },
    Fifo,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Object { size: u64, content: Content, profile: u8, metadata: ObjectMetadata },
}

/// One entry of a directory, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Raw bytes; [`Node::name_is_safe`] holds for every decoded node.
    pub name: Vec<u8>,
    /// Type and content.
    pub kind: NodeKind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The owner's name on the source host.
    pub user: Option<String>,
    /// The group's name on the source host.
    pub group: Option<String>,
    /// Time of last modification.
    pub mtime: Time,
    /// Time of last change of the inode; tells changes, is never restored.
    pub ctime: Option<Time>,
    /// Inode number; tells changes.
    pub inode: Option<u64>,
    /// Set if the file has more than one name.
    pub link: Option<Link>,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The file changed while it was read, twice.
    pub changed_while_read: bool,
    /// The entry was there and its content could not be read.
    pub unreadable: bool,
    /// Fields of newer versions, kept as they are.
    pub unknown: Vec<(u64, Vec<u8>)>,
}

const FLAG_CHANGED: u64 = 1;
const FLAG_UNREADABLE: u64 = 2;
const DEFAULT_PROFILE: u8 = 1;

impl Node {
    /// A node with mode 0 and nothing optional.
    pub fn new(name: Vec<u8>, kind: NodeKind, mtime: Time) -> Self {
        Self {
            name,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime,
            ctime: None,
            inode: None,
            link: None,
            xattrs: Vec::new(),
            changed_while_read: false,
            unreadable: false,
            unknown: Vec::new(),
        }
    }

    /// Whether `name` can be a single component below a directory (F22).
    pub fn name_is_safe(name: &[u8]) -> bool {
        !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
    }

    /// Size in bytes, holes included; 0 for what has none.
    pub fn size(&self) -> u64 {
        match &self.kind {
            NodeKind::File { size, .. } | NodeKind::Object { size, .. } => *size,
            _ => 0,
        }
    }

    /// The content of a file or object.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            NodeKind::File { content, .. } | NodeKind::Object { content, .. } => Some(content),
            _ => None,
        }
    }

    /// The tree of a directory.
    pub fn tree(&self) -> Option<BlobId> {
        match self.kind {
            NodeKind::Dir { tree } => Some(tree),
            _ => None,
        }
    }

    const fn type_code(&self) -> u64 {
        match self.kind {
            NodeKind::File { .. } => 0,
            NodeKind::Dir { .. } => 1,
            NodeKind::Symlink { .. } => 2,
            NodeKind::Fifo => 3,
            NodeKind::CharDevice { .. } => 4,
            NodeKind::BlockDevice { .. } => 5,
            NodeKind::Object { .. } => 6,
        }
    }

    const fn flags(&self) -> u64 {
        (if self.changed_while_read { FLAG_CHANGED } else { 0 })
            | (if self.unreadable { FLAG_UNREADABLE } else { 0 })
    }

    pub(crate) fn put(&self, out: &mut Enc, scratch: &mut Vec<u8>) {
        scratch.clear();
        let mut fields = Fields { enc: Enc::with_buffer(std::mem::take(scratch)), count: 0 };
        fields.key(0).bytes(&self.name);
        fields.key(1).uint(self.type_code());
        fields.key(2).uint(u64::from(self.mode));
        fields.uint_unless(3, u64::from(self.uid), 0);
        fields.uint_unless(4, u64::from(self.gid), 0);
        fields.text(5, self.user.as_deref());
        fields.text(6, self.group.as_deref());
        self.mtime.put(fields.key(7));
        if let Some(ctime) = self.ctime {
            ctime.put(fields.key(8));
        }
        if let Some(inode) = self.inode {
            fields.key(9).uint(inode);
        }
        if let Some(link) = self.link {
            fields.key(10).array(2).uint(link.device).uint(link.inode);
        }
        self.put_kind(&mut fields);
        for (key, value) in &self.unknown {
            fields.key(*key).raw(value);
        }
        out.map(fields.count);
        *scratch = fields.enc.finish();
        out.raw(scratch);
    }

    fn put_kind(&self, fields: &mut Fields) {
        let no_metadata = ObjectMetadata::default();
        let (size, content, holes, profile, metadata) = match &self.kind {
            NodeKind::File { size, content, holes, profile } => {
                (*size, Some(content), &holes[..], *profile, &no_metadata)
            }
            NodeKind::Object { size, content, profile, metadata } => {
                (*size, Some(content), &[][..], *profile, metadata)
            }
            _ => (0, None, &[][..], DEFAULT_PROFILE, &no_metadata),
        };
        fields.uint_unless(11, size, 0);
        match content {
            Some(Content::Blobs(ids)) if !ids.is_empty() => put_ids(fields.key(12), ids),
            Some(Content::Lists(ids)) => put_ids(fields.key(13), ids),
            _ => {}
        }
        if !holes.is_empty() {
            let enc = fields.key(14).array(holes.len());
            for (offset, length) in holes {
                enc.array(2).uint(*offset).uint(*length);
            }
        }
        match &self.kind {
            NodeKind::Symlink { target } => {
                fields.key(15).bytes(target);
            }
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                fields.key(16).array(2).uint(u64::from(*major)).uint(u64::from(*minor));
            }
            _ => {}
        }
        if !self.xattrs.is_empty() {
            let enc = fields.key(17).array(self.xattrs.len());
            for xattr in &self.xattrs {
                enc.array(2).bytes(&xattr.name).bytes(&xattr.value);
            }
        }
        if let NodeKind::Dir { tree } = &self.kind {
            fields.key(18).bytes(&tree.0);
        }
        fields.uint_unless(19, u64::from(profile), u64::from(DEFAULT_PROFILE));
        fields.uint_unless(20, self.flags(), 0);
        fields.text(21, metadata.content_type.as_deref());
        fields.text(22, metadata.etag.as_deref());
        fields.text(23, metadata.version.as_deref());
        if !metadata.user.is_empty() {
            let enc = fields.key(24).array(metadata.user.len());
            for (name, value) in &metadata.user {
                enc.array(2).text(name).text(value);
            }
        }
    }

    pub(crate) fn take(dec: &mut Dec<'_>) -> Result<Self, FormatError> {
        let mut raw = Raw::default();
        raw.unknown = dec.map(|dec, key| raw.field(dec, key))?;
        raw.into_node(dec)
    }
}

fn put_ids(enc: &mut Enc, ids: &[BlobId]) {
    let mut flat = Vec::with_capacity(ids.len() * BlobId::LEN);
    ids.iter().for_each(|id| flat.extend_from_slice(&id.0));
    enc.bytes(&flat);
}

pub(crate) fn take_ids(dec: &mut Dec<'_>) -> Result<BlobIds, FormatError> {
    let flat = dec.bytes()?;
    let (ids, rest) = flat.as_chunks::<{ BlobId::LEN }>();
    if rest.is_empty() {
        Ok(ids.iter().map(|id| BlobId(*id)).collect())
    } else {
        Err(dec.error("a broken list of ids"))
    }
}

/// Counts the fields as they are written, since the count stands before them.
struct Fields {
    enc: Enc,
    count: usize,
}

impl Fields {
    fn key(&mut self, key: u64) -> &mut Enc {
        self.count += 1;
        self.enc.uint(key)
    }

    fn uint_unless(&mut self, key: u64, value: u64, default: u64) {
        if value != default {
            self.key(key).uint(value);
        }
    }

    fn text(&mut self, key: u64, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key).text(value);
        }
    }
}

/// The fields as they come, before the type decides which of them belong together.
#[derive(Default)]
struct Raw {
    name: Option<Vec<u8>>,
    type_code: Option<u64>,
    mode: Option<u32>,
    uid: u32,
    gid: u32,
    user: Option<String>,
    group: Option<String>,
    mtime: Option<Time>,
    ctime: Option<Time>,
    inode: Option<u64>,
    link: Option<Link>,
    size: u64,
    blobs: Option<BlobIds>,
    lists: Option<BlobIds>,
    holes: Vec<(u64, u64)>,
    target: Option<Vec<u8>>,
    device: Option<(u32, u32)>,
    xattrs: Vec<Xattr>,
    tree: Option<BlobId>,
    profile: Option<u64>,
    flags: u64,
    metadata: ObjectMetadata,
    unknown: Vec<Unknown>,
}

impl Raw {
    fn field(&mut self, dec: &mut Dec<'_>, key: u64) -> Result<bool, FormatError> {
        match key {
            0 => self.name = Some(dec.bytes()?.to_vec()),
            1 => self.type_code = Some(dec.uint()?),
            2 => self.mode = Some(dec.uint32()?),
            3 => self.uid = dec.uint32()?,
            4 => self.gid = dec.uint32()?,
            5 => self.user = Some(dec.text()?.to_owned()),
            6 => self.group = Some(dec.text()?.to_owned()),
            7 => self.mtime = Some(Time::take(dec)?),
            8 => self.ctime = Some(Time::take(dec)?),
            9 => self.inode = Some(dec.uint()?),
            10 => {
                dec.fixed_array(2)?;
                self.link = Some(Link { device: dec.uint()?, inode: dec.uint()? });
            }
            11 => self.size = dec.uint()?,
            12 => self.blobs = Some(take_ids(dec)?),
            13 => self.lists = Some(take_ids(dec)?),
            14 => self.holes = take_holes(dec)?,
            15 => self.target = Some(dec.bytes()?.to_vec()),
            16 => {
                dec.fixed_array(2)?;
                self.device = Some((dec.uint32()?, dec.uint32()?));
            }
            17 => {
                self.xattrs = dec.array(|dec| {
                    dec.fixed_array(2)?;
                    Ok(Xattr { name: dec.bytes()?.to_vec(), value: dec.bytes()?.to_vec() })
                })?;
            }
            18 => self.tree = Some(BlobId(dec.fixed()?)),
            19 => self.profile = Some(dec.uint()?),
            20 => {
                self.flags = dec.uint()?;
                if self.flags & !(FLAG_CHANGED | FLAG_UNREADABLE) != 0 {
                    return Err(FormatError::Newer { what: "flags of a node", found: self.flags });
                }
            }
            21 => self.metadata.content_type = Some(dec.text()?.to_owned()),
            22 => self.metadata.etag = Some(dec.text()?.to_owned()),
            23 => self.metadata.version = Some(dec.text()?.to_owned()),
            24 => {
                self.metadata.user = dec.array(|dec| {
                    dec.fixed_array(2)?;
                    Ok((dec.text()?.to_owned(), dec.text()?.to_owned()))
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What a file or object holds, and how it was cut.
    fn take_content(&mut self) -> Result<(Content, u8), FormatError> {
        let content = match (self.blobs.take(), self.lists.take()) {
            (Some(_), Some(_)) => {
                return Err(FormatError::malformed(WHAT, "both content and content lists"));
            }
            (Some(ids), None) if ids.len() > limits::INLINE_CONTENT => {
                return Err(FormatError::malformed(WHAT, "content that is too long for a node"));
            }
            (blobs, None) => Content::Blobs(blobs.unwrap_or_default()),
            (None, Some(lists)) => Content::Lists(lists),
        };
        let code = self.profile.unwrap_or(u64::from(DEFAULT_PROFILE));
        let newer = FormatError::Newer { what: "chunk profile", found: code };
        Ok((content, u8::try_from(code).map_err(|_| newer)?))
    }

    /// A field that does not belong to the type is left out.
    fn into_node(mut self, dec: &Dec<'_>) -> Result<Node, FormatError> {
        let name = dec.required(self.name.take())?;
        if !Node::name_is_safe(&name) {
            return Err(FormatError::malformed(WHAT, "a name that is not a plain component"));
        }
        let mode = dec.required(self.mode)?;
        if mode > 0o7777 {
            return Err(FormatError::malformed(WHAT, "mode out of range"));
        }
        if !self.xattrs.is_sorted_by_key(|xattr| &xattr.name) {
            return Err(FormatError::malformed(WHAT, "extended attributes out of order"));
        }
        let kind = match dec.required(self.type_code)? {
            0 => {
                let (content, profile) = self.take_content()?;
                check_holes(&self.holes, self.size)?;
                NodeKind::File { size: self.size, content, holes: self.holes, profile }
            }
            1 => NodeKind::Dir { tree: dec.required(self.tree)? },
            2 => NodeKind::Symlink { target: dec.required(self.target)? },
            3 => NodeKind::Fifo,
            4 => dec.required(self.device).map(|(major, minor)| NodeKind::CharDevice { major, minor })?,
            5 => dec.required(self.device).map(|(major, minor)| NodeKind::BlockDevice { major, minor })?,
            6 => {
                let (content, profile) = self.take_content()?;
                NodeKind::Object { size: self.size, content, profile, metadata: self.metadata }
            }
            other => return Err(FormatError::Newer { what: "node type", found: other }),
        };
        Ok(Node {
            name,
            kind,
            mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user,
            group: self.group,
            mtime: dec.required(self.mtime)?,
            ctime: self.ctime,
            inode: self.inode,
            link: self.link,
            xattrs: self.xattrs,
            changed_while_read: self.flags & FLAG_CHANGED != 0,
            unreadable: self.flags & FLAG_UNREADABLE != 0,
            unknown: self.unknown,
        })
    }
}

fn take_holes(dec: &mut Dec<'_>) -> Result<Vec<(u64, u64)>, FormatError> {
    dec.array(|dec| {
        dec.fixed_array(2)?;
        Ok((dec.uint()?, dec.uint()?))
    })
}

/// Holes ascend, have a length, do not touch, and end within the file.
fn check_holes(holes: &[(u64, u64)], size: u64) -> Result<(), FormatError> {
    let mut free_from = None;
    for (offset, length) in holes {
        let end = offset.checked_add(*length).filter(|end| *end <= size);
        let after_last = free_from.is_none_or(|free| *offset > free);
        match end {
            Some(end) if after_last && *length > 0 => free_from = Some(end),
            _ => return Err(FormatError::malformed(WHAT, "holes out of order or outside the file")),
        }
    }
    Ok(())
}
