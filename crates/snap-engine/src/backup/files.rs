//! Small files: read whole, cut, stored, in one go.

use std::sync::Arc;

use snap_chunker::{Profile, detect};
use snap_format::{BlobId, BlobKind, Content, Node, NodeKind};
use snap_source::{SourceDir, SourceFile, Stat};

use super::dir::is_gone;
use super::dir_state::{DirState, complete};
use super::run::{FileChange, Run, Worker};
use super::stream;
use crate::Result;
use crate::browse::join;

/// Files up to this size are read whole by one thread; larger ones are cut as they are read, by all.
pub(super) const INLINE_MAX: u64 = 1 << 20;

/// A file to be read.
#[derive(Clone)]
pub(super) struct FileItem {
    pub(super) slot: usize,
    pub(super) name: Vec<u8>,
    /// The name in the tree, where it differs: a source that is a symlink.
    pub(super) stored_as: Option<Vec<u8>>,
    pub(super) stat: Stat,
    /// Chunk profile in the parent: a file never flips.
    pub(super) profile: Option<u8>,
    /// The parent did not have it.
    pub(super) is_new: bool,
}

impl FileItem {
    pub(super) fn stored_name(&self) -> &[u8] {
        self.stored_as.as_deref().unwrap_or(&self.name)
    }

    pub(super) fn change(&self) -> FileChange {
        if self.is_new { FileChange::New } else { FileChange::Changed }
    }
}

/// Small files of one directory.
pub(super) struct FilesJob {
    dir: Arc<DirState>,
    source: SourceDir,
    files: Vec<FileItem>,
}

impl FilesJob {
    pub(super) fn new(dir: &Arc<DirState>, source: &SourceDir, files: Vec<FileItem>) -> Self {
        Self { dir: Arc::clone(dir), source: source.clone(), files }
    }

    pub(super) fn run(self, run: &Run<'_>, worker: &mut Worker) -> Result<()> {
        for file in self.files {
            run.context.check_stop()?;
            match open(run, &self.dir.path, &self.source, &file) {
                Some(opened) => store_small(run, &self.dir, &self.source, file, &opened, worker)?,
                None => complete(run, &self.dir, file.slot, None, &mut worker.scratch)?,
            }
        }
        Ok(())
    }
}

/// Opens a file; says why it cannot, and counts it.
pub(super) fn open(
    run: &Run<'_>,
    directory: &[u8],
    source: &SourceDir,
    file: &FileItem,
) -> Option<SourceFile> {
    match source.open_file(&file.name) {
        Ok(opened) => Some(opened),
        Err(error) if is_gone(&error) => {
            run.vanished(&join(directory, file.stored_name()));
            None
        }
        Err(error) => {
            run.unreadable(&join(directory, file.stored_name()), &error);
            None
        }
    }
}

/// Whether a file is what it was when it was opened.
pub(super) fn is_unchanged(opened: &Stat, now: &Stat) -> bool {
    opened.size == now.size && opened.mtime == now.mtime && opened.ctime == now.ctime
}

fn store_small(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    source: &SourceDir,
    file: FileItem,
    opened: &SourceFile,
    worker: &mut Worker,
) -> Result<()> {
    let path = || join(&dir.path, file.stored_name());
    let mut stat = *opened.opened_stat();
    if stat.size > INLINE_MAX || stat.may_have_holes() {
        return stream::start_file(run, dir, source, file, worker);
    }
    let mut changed = false;
    for attempt in 0..2 {
        let mut buffer = std::mem::take(&mut worker.buffer);
        let outcome = read_whole(opened, stat.size, &mut buffer);
        worker.buffer = buffer;
        let now = outcome.and_then(|()| opened.stat());
        let now = match now {
            Ok(now) => now,
            Err(error) => {
                run.unreadable(&path(), &error);
                return complete(run, dir, file.slot, None, &mut worker.scratch);
            }
        };
        changed = !is_unchanged(&stat, &now);
        stat = now;
        if !changed {
            break;
        }
        if attempt == 0 && stat.size > INLINE_MAX {
            return stream::start_file(run, dir, source, file, worker);
        }
    }
    if changed {
        run.changed_while_read(&path());
    }
    let size = worker.buffer.len() as u64;
    let profile = run.profile(file.profile, &worker.buffer, Some(size));
    let ids = store_buffer(run, profile, worker)?;
    let kind =
        NodeKind::File { size, content: Content::Blobs(ids), holes: Vec::new(), profile: profile.code() };
    let mut node = run.node(file.stored_name().to_vec(), kind, &stat);
    node.xattrs = run.xattrs(&path(), opened.xattrs());
    node.changed_while_read = changed;
    run.count_file(size, file.change());
    run.context.done(&path(), file.change().word());
    run.context.progress.add(1, size);
    complete(run, dir, file.slot, Some(node), &mut worker.scratch)
}

/// Reads up to `size` bytes, fewer if the file has shrunk. What was not in the page cache leaves it again.
fn read_whole(file: &SourceFile, size: u64, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.resize(usize::try_from(size).unwrap_or(0), 0);
    let (read, cached) = file.read_at_noting_cache(buffer, 0)?;
    file.drop_cache(cached as u64, (read - cached) as u64);
    buffer.truncate(read);
    Ok(())
}

/// Cuts and stores the worker's buffer.
fn store_buffer(run: &Run<'_>, profile: Profile, worker: &mut Worker) -> Result<Vec<BlobId>> {
    let Worker { buffer, scratch, cuts, .. } = worker;
    if buffer.is_empty() {
        return Ok(Vec::new());
    }
    cuts.clear();
    let mut chunker = run.chunker(profile);
    chunker.cut(buffer, true, cuts);
    let mut ids = Vec::with_capacity(cuts.len());
    let mut rest = buffer.as_slice();
    for length in cuts.iter() {
        let (chunk, after) = rest.split_at(*length as usize);
        ids.push(run.writer.add(BlobKind::Data, chunk, scratch)?.0);
        rest = after;
    }
    Ok(ids)
}

impl Run<'_> {
    /// The profile that the parent recorded, else what the beginning of the file says.
    pub(super) fn profile(&self, recorded: Option<u8>, head: &[u8], size: Option<u64>) -> Profile {
        recorded
            .and_then(Profile::from_code)
            .unwrap_or_else(|| detect(&head[..head.len().min(snap_chunker::HEAD_LEN)], size))
    }

    pub(super) fn changed_while_read(&self, path: &[u8]) {
        super::run::bump(&self.counts.changed_while_read);
        self.context.note(path, "changed while it was read, twice; stored as it was read");
    }

    /// A node with everything that every entry has.
    pub(super) fn node(&self, name: Vec<u8>, kind: NodeKind, stat: &Stat) -> Node {
        let mut node = Node::new(name, kind, stat.mtime);
        node.mode = stat.mode;
        node.uid = stat.uid;
        node.gid = stat.gid;
        node.user = self.names.user(stat.uid).map(|name| name.to_string());
        node.group = self.names.group(stat.gid).map(|name| name.to_string());
        node.ctime = Some(stat.ctime);
        node.inode = Some(stat.inode);
        node.link = (stat.links > 1 && !stat.is_dir())
            .then_some(snap_format::Link { device: stat.device, inode: stat.inode });
        node
    }
}
