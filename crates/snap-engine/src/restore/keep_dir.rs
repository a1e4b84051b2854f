//! Saving what a restore is about to overwrite or delete as plain files.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use snap_format::{BlobId, Content, Node, NodeKind};
use snap_source::{ApplyOptions, FileType, Selection, SourceDir, SourceFile, Stat, TargetDir, TargetFile};

use crate::browse::join;
use crate::{Context, EngineError, Result};

/// Most data extents of a file; the holes between more are written as zeros.
const MAX_EXTENTS: usize = 4096;

/// An entry on its way; a directory comes twice.
enum Step {
    Copy {
        from: SourceDir,
        to: TargetDir,
        name: Vec<u8>,
        path: Vec<u8>,
    },
    /// Everything in it is there: its attributes.
    Finish {
        made: TargetDir,
        node: Box<Node>,
        path: Vec<u8>,
    },
}

struct Copying<'a> {
    selection: &'a Selection,
    context: Context<'a>,
    waiting: Vec<Step>,
    buffer: Vec<u8>,
    made: TargetDir,
    top: &'a [u8],
    /// Where files with several names were copied to, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Copies what `selection` takes of `top` into `dir`, which must be new and lie elsewhere.
pub(super) fn keep(dir: &Path, top: &Path, selection: &Selection, context: Context<'_>) -> Result<()> {
    let bytes = dir.as_os_str().as_bytes();
    let failed = |error| EngineError::io("saving into", bytes, error);
    let (made, is_new) = TargetDir::open_or_create(dir, 0o700).map_err(failed)?;
    let real = std::fs::canonicalize(dir).map_err(failed)?;
    if real.starts_with(top) {
        let _ = std::fs::remove_dir(dir);
        let dir = dir.display();
        return Err(EngineError::Refused(format!("{dir} lies in the target, where it could be overwritten")));
    }
    if !is_new {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let from = SourceDir::open(top).map_err(failed)?;
    let top = top.as_os_str().as_bytes();
    let mut copying = Copying {
        selection,
        context,
        waiting: Vec::new(),
        buffer: vec![0; 1 << 20],
        made: made.clone(),
        top,
        links: HashMap::new(),
    };
    copying.list(&from, &made, top).map_err(|error| EngineError::io("saving", top, error))?;
    while let Some(step) = copying.waiting.pop() {
        context.check_stop()?;
        let path = match &step {
            Step::Copy { path, .. } | Step::Finish { path, .. } => path.clone(),
        };
        copying.step(step).map_err(|error| EngineError::io("saving", &path, error))?;
    }
    // As it is copied back, the target gets its own attributes again.
    let node = top_node(&from).map_err(failed)?;
    copying.tell(top, &made.apply_self(&node, &ApplyOptions::default()));
    made.sync().map_err(failed)
}

fn top_node(top: &SourceDir) -> io::Result<Node> {
    let mut node = node_of(top, b".", &top.stat()?)?;
    node.xattrs = top.xattrs()?;
    Ok(node)
}

impl Copying<'_> {
    fn list(&mut self, from: &SourceDir, to: &TargetDir, path: &[u8]) -> io::Result<()> {
        for (name, _) in from.types()? {
            let path = join(path, &name);
            if self.selection.takes(&path) {
                let (from, to) = (from.clone(), to.clone());
                self.waiting.push(Step::Copy { from, to, name, path });
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        let (from, to, name, path) = match step {
            Step::Copy { from, to, name, path } => (from, to, name, path),
            Step::Finish { made, node, path } => {
                let notes = made.apply_self(&node, &ApplyOptions::default());
                self.tell(&path, &notes);
                return Ok(());
            }
        };
        let stat = from.stat_child(&name)?;
        if stat.kind == FileType::Socket {
            self.context.note(&path, "not saved: a socket has no content");
            return Ok(());
        }
        let mut node = node_of(&from, &name, &stat)?;
        node.xattrs = from.xattrs_child(&name)?;
        match stat.kind {
            FileType::Dir => {
                let (below, (made, _)) = (from.open_child(&name)?, to.make_child(&name)?);
                let finish = Step::Finish { made: made.clone(), node: Box::new(node), path: path.clone() };
                self.waiting.push(finish);
                return self.list(&below, &made, &path);
            }
            FileType::File if stat.links > 1 && self.link(&stat, &to, &name, &path) => return Ok(()),
            FileType::File => {
                let (read, written) = (from.open_file(&name)?, to.create_file(&name)?);
                self.content(&read, &written, stat.size)?;
                let notes = written.apply(&node, &ApplyOptions::default());
                written.sync()?;
                self.tell(&path, &notes);
                return Ok(());
            }
            FileType::Symlink => to.symlink(&from.read_link(&name)?, &name)?,
            _ => to.mknod(&name, &node)?,
        }
        let notes = to.apply_child(&name, &node, &ApplyOptions::default());
        self.tell(&path, &notes);
        Ok(())
    }

    /// Gives the copy of a file another name; false if there is no copy yet, or none that can be reached.
    fn link(&mut self, stat: &Stat, to: &TargetDir, name: &[u8], path: &[u8]) -> bool {
        let Some(first) = self.links.get(&(stat.device, stat.inode)) else {
            self.links.insert((stat.device, stat.inode), path.to_vec());
            return false;
        };
        let below = first.get(self.top.len()..).unwrap_or_default();
        let mut parts: Vec<&[u8]> =
            below.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        let Some(last) = parts.pop() else { return false };
        let dir = parts.into_iter().try_fold(self.made.clone(), |dir, part| dir.open_child(part));
        dir.and_then(|dir| dir.link(last, to, name)).is_ok()
    }

    fn content(&mut self, from: &SourceFile, to: &TargetFile, size: u64) -> io::Result<()> {
        for (start, length) in from.data_extents(size, MAX_EXTENTS)? {
            let (mut at, end) = (start, start + length);
            while at < end {
                let want = (end - at).min(self.buffer.len() as u64) as usize;
                let read = from.read_at(&mut self.buffer[..want], at)?;
                if read == 0 {
                    return Err(io::Error::other("it became shorter while it was saved"));
                }
                to.write_at(&self.buffer[..read], at)?;
                at += read as u64;
            }
        }
        to.set_len(size)
    }

    fn tell(&self, path: &[u8], notes: &[snap_source::ApplyNote]) {
        notes.iter().for_each(|note| self.context.note(path, &format!("not saved: {note}")));
    }
}

/// The attributes of an entry; its content is none of the node's business here.
fn node_of(dir: &SourceDir, name: &[u8], stat: &Stat) -> io::Result<Node> {
    let (major, minor) = stat.rdev;
    let kind = match stat.kind {
        FileType::Dir => NodeKind::Dir { tree: BlobId([0; 32]) },
        FileType::Symlink => NodeKind::Symlink { target: dir.read_link(name)? },
        FileType::CharDevice => NodeKind::CharDevice { major, minor },
        FileType::BlockDevice => NodeKind::BlockDevice { major, minor },
        FileType::Fifo => NodeKind::Fifo,
        _ => NodeKind::File { size: stat.size, content: Content::default(), holes: Vec::new(), profile: 1 },
    };
    let mut node = Node::new(name.to_vec(), kind, stat.mtime);
    (node.mode, node.uid, node.gid) = (stat.mode, stat.uid, stat.gid);
    Ok(node)
}
