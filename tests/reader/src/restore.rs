//! Restores a snapshot into a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

use crate::crypto::Key;
use crate::pack::{DATA, Store};
use crate::repo::Findings;
use crate::snapshot::Snapshot;
use crate::tree::{Node, Type};

/// Restores `snapshot` into `target`, which must be empty or absent. Owners, extended attributes and devices are
/// restored as far as the system allows; what fails of them, and what was not backed up, are warnings.
pub fn restore(store: &Store, snapshot: &Snapshot, target: &Path, warnings: &mut Findings) -> Result<()> {
    ensure!(store.repo.can_read(), "this slot may back up, not restore: its bundle holds no reader key");
    fs::create_dir_all(target)?;
    ensure!(fs::read_dir(target)?.next().is_none(), "{} is not empty", target.display());
    let root = snapshot.root(&store.repo)?;
    Restore { store, domain: &snapshot.domain, links: HashMap::new(), warnings }.directory(&root, target)
}

struct Restore<'a> {
    store: &'a Store,
    domain: &'a str,
    links: HashMap<(u64, u64), PathBuf>,
    warnings: &'a mut Findings,
}

impl Restore<'_> {
    fn directory(&mut self, tree: &Key, path: &Path) -> Result<()> {
        let nodes = self.store.directory(self.domain, tree).with_context(|| path.display().to_string())?;
        for node in nodes {
            let path = path.join(OsStr::from_bytes(&node.name));
            self.node(&node, &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, path: &Path) -> Result<()> {
        if node.unreadable {
            self.warn(path, "could not be read when it was backed up");
            if !matches!(node.kind, Type::Directory(_)) {
                return Ok(());
            }
        }
        if let Some(first) = node.link.and_then(|link| self.links.get(&link)) {
            return Ok(fs::hard_link(first, path)?);
        }
        match &node.kind {
            Type::Directory(tree) => {
                fs::create_dir(path)?;
                if let Some(tree) = tree {
                    self.directory(tree, path)?;
                }
            }
            Type::File { size, content, holes } => {
                let chunks = self.store.chunks(self.domain, content)?;
                self.file(path, *size, &chunks, holes)?;
            }
            Type::Symlink(target) => symlink(OsStr::from_bytes(target), path)?,
            Type::Fifo => rustix::fs::mkfifoat(CWD, path, Mode::from_raw_mode(0o600))?,
            Type::CharacterDevice(major, minor) | Type::BlockDevice(major, minor) => {
                let block = matches!(node.kind, Type::BlockDevice(..));
                let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
                let device = rustix::fs::makedev(*major, *minor);
                if let Err(error) = rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device) {
                    self.warn(path, &format!("device: {error}"));
                    return Ok(());
                }
            }
        }
        if let Some(link) = node.link {
            self.links.insert(link, path.to_owned());
        }
        self.metadata(node, path)
    }

    /// Writes the chunks around the holes.
    fn file(&self, path: &Path, size: u64, chunks: &[Key], holes: &[(u64, u64)]) -> Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let (mut at, mut holes) = (0, holes.iter().peekable());
        for id in chunks {
            let chunk = self.store.blob(self.domain, DATA, id)?;
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                at += skip_holes(&mut holes, at, &mut file)?;
                let room = holes.peek().map_or(size, |hole| hole.0) - at;
                ensure!(room > 0, "more content than the size tells");
                let (now, later) = rest.split_at(rest.len().min(usize::try_from(room)?));
                file.write_all(now)?;
                at += now.len() as u64;
                rest = later;
            }
        }
        at += skip_holes(&mut holes, at, &mut file)?;
        ensure!(at == size && holes.peek().is_none(), "chunks and holes do not add up to the size"); // F21
        Ok(file.set_len(size)?)
    }

    /// Owner, extended attributes, mode, time: in this order, as each may undo those after it.
    fn metadata(&mut self, node: &Node, path: &Path) -> Result<()> {
        if let Err(error) = lchown(path, Some(node.uid), Some(node.gid)) {
            self.warn(path, &format!("owner {}:{}: {error}", node.uid, node.gid));
        }
        for (name, value) in &node.xattrs {
            if let Err(error) = rustix::fs::lsetxattr(path, &name[..], value, XattrFlags::empty()) {
                self.warn(path, &format!("extended attribute {}: {error}", name.escape_ascii()));
            }
        }
        if !matches!(node.kind, Type::Symlink(_)) {
            fs::set_permissions(path, Permissions::from_mode(node.mode))?;
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: node.mtime.0, tv_nsec: node.mtime.1.into() },
        };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn warn(&mut self, path: &Path, what: &str) {
        self.warnings.push(format!("{}: {what}", path.display()));
    }
}

type Holes<'a> = std::iter::Peekable<std::slice::Iter<'a, (u64, u64)>>;

/// Skips the hole that begins at `at`, if one does; its length.
fn skip_holes(holes: &mut Holes<'_>, at: u64, file: &mut File) -> Result<u64> {
    match holes.next_if(|hole| hole.0 == at) {
        Some((offset, length)) => Ok(file.seek(SeekFrom::Start(offset + length))? - at),
        None => Ok(0),
    }
}
