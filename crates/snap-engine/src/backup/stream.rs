//! Large files, and streams of unknown length: read and cut piece by piece by one thread at a time, while the chunks are hashed,
//! compressed and sealed by all.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use snap_chunker::{Chunker, HEAD_LEN};
use snap_format::{BlobId, BlobKind, Node, NodeKind, Xattr};
use snap_repo::Scratch;
use snap_source::{Residency, SourceDir, SourceFile, Stat};

use super::dir_state::{DirState, Outcome, complete};
use super::files::{FileItem, is_unchanged, open};
use super::queue::{SEGMENT, Segment};
use super::run::{FileChange, Run, Worker};
use super::trees::store_content;
use crate::browse::join;
use crate::{EngineError, Result};

/// Chunks are handed out in groups of at least this many bytes.
const GROUP: usize = 512 << 10;
/// Most data extents of a file; a file with more has its smallest holes read as zeros.
const MAX_EXTENTS: usize = 4096;

/// Bytes to be cut.
pub(super) trait ByteSource: Send {
    /// Fills the buffer as far as there are bytes; fewer only at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// What is known once the end is reached.
    fn finish(&mut self) -> Ended;

    /// What it means that a stream cannot be read: half of it must not look like a backup.
    fn failed(&self, error: io::Error) -> EngineError {
        EngineError::Command(format!("its output cannot be read: {error}"))
    }
}

/// How reading ended.
pub(super) enum Ended {
    File(Box<FileEnd>),
    /// A stream of so many bytes, and what is known of it.
    Stream(u64, Vec<Xattr>),
    /// What is behind it failed.
    Failed(EngineError),
}

pub(super) struct FileEnd {
    size: u64,
    holes: Vec<(u64, u64)>,
    /// As it is now, and whether that differs from when it was opened.
    stat: io::Result<(Stat, bool)>,
    file: SourceFile,
}

/// A large file or stream on its way through the queue.
pub(super) struct StreamJob {
    source: Box<dyn ByteSource>,
    chunker: Option<Chunker>,
    /// What was read and not yet cut.
    tail: Vec<u8>,
    shared: Arc<Shared>,
}

struct Shared {
    dir: Arc<DirState>,
    /// Handle of the directory, to open the file again.
    reopen: Option<SourceDir>,
    item: FileItem,
    /// The node of a stream in the parent snapshot.
    before: Option<Box<Node>>,
    attempt: u32,
    profile: Mutex<u8>,
    ids: Mutex<Vec<BlobId>>,
    /// Groups of chunks that are not stored yet, and one for the reader.
    outstanding: AtomicUsize,
    ended: Mutex<Option<Ended>>,
}

/// Some chunks of a segment.
pub(super) struct ChunkJob {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    start: usize,
    lengths: Vec<u32>,
    /// Position of the first in the file.
    first: usize,
}

/// Puts a large file on the queue.
pub(super) fn start_file(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    source: &SourceDir,
    item: FileItem,
    worker: &mut Worker,
) -> Result<()> {
    start_attempt(run, dir, source, item, 0, &mut worker.scratch)
}

fn start_attempt(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    source: &SourceDir,
    item: FileItem,
    attempt: u32,
    scratch: &mut Scratch,
) -> Result<()> {
    let Some(file) = open(run, &dir.path, source, &item) else {
        return complete(run, dir, item.slot, None, scratch);
    };
    let path = join(&dir.path, item.stored_name());
    match FileBytes::new(file) {
        Ok(bytes) => {
            let shared = Shared::new(dir, Some(source.clone()), item, None, attempt);
            run.queue.push_stream(StreamJob::new(Box::new(bytes), shared));
            Ok(())
        }
        Err(error) => {
            run.unreadable(&path, &error);
            complete(run, dir, item.slot, None, scratch)
        }
    }
}

/// Puts a stream on the queue, as the entry `item` of `dir`.
pub(super) fn start_stream(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    item: FileItem,
    stream: Box<dyn super::CommandStream>,
) {
    start_bytes(run, dir, item, None, Box::new(StreamBytes { stream, read: 0 }));
}

/// Puts bytes of unknown length on the queue, as the entry `item` of `dir`, which was `before` in the parent snapshot.
pub(super) fn start_bytes(
    run: &Run<'_>,
    dir: &Arc<DirState>,
    item: FileItem,
    before: Option<Box<Node>>,
    bytes: Box<dyn ByteSource>,
) {
    let shared = Shared::new(dir, None, item, before, 1);
    run.queue.push_stream(StreamJob::new(bytes, shared));
}

impl Shared {
    fn new(
        dir: &Arc<DirState>,
        reopen: Option<SourceDir>,
        item: FileItem,
        before: Option<Box<Node>>,
        attempt: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            dir: Arc::clone(dir),
            reopen,
            item,
            before,
            attempt,
            profile: Mutex::new(1),
            ids: Mutex::default(),
            outstanding: AtomicUsize::new(1),
            ended: Mutex::default(),
        })
    }

    fn path(&self) -> Vec<u8> {
        join(&self.dir.path, self.item.stored_name())
    }

    /// Counts a group, or the reader, as done; whoever is last makes the node.
    fn finish_one(self: &Arc<Self>, run: &Run<'_>, scratch: &mut Scratch) -> Result<()> {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        match ended {
            Some(Ended::File(end)) => self.finish_file(run, *end, ids, scratch),
            Some(Ended::Stream(size, xattrs)) => self.finish_stream(run, size, xattrs, ids, scratch),
            Some(Ended::Failed(error)) => Err(error),
            // It could not be read to its end: that was said and counted.
            None => complete(run, &self.dir, self.item.slot, None, scratch),
        }
    }

    fn finish_stream(
        &self,
        run: &Run<'_>,
        size: u64,
        xattrs: Vec<Xattr>,
        ids: Vec<BlobId>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let content = store_content(&run.writer, ids, &run.trees, scratch)?;
        let profile = *self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = NodeKind::File { size, content, holes: Vec::new(), profile };
        let mut node = Node::new(self.item.name.clone(), kind, self.item.stat.mtime);
        (node.mode, node.xattrs) = (self.item.stat.mode, xattrs);
        (node.uid, node.gid) = (self.item.stat.uid, self.item.stat.gid);
        // A stream has no times of its own: its bytes are as old as the first snapshot that had them.
        let change = match &self.before {
            None => FileChange::New,
            Some(before) if before.kind == node.kind && before.xattrs == node.xattrs => {
                node.mtime = before.mtime;
                FileChange::Unchanged
            }
            Some(_) => FileChange::Changed,
        };
        run.count_stream(size, change);
        run.context.done(&self.path(), change.word());
        complete(run, &self.dir, self.item.slot, Outcome::Differs(node), scratch)
    }

    fn finish_file(
        self: &Arc<Self>,
        run: &Run<'_>,
        end: FileEnd,
        ids: Vec<BlobId>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let path = self.path();
        let (stat, changed) = match end.stat {
            Ok(seen) => seen,
            Err(error) => {
                run.unreadable(&path, &error);
                return complete(run, &self.dir, self.item.slot, None, scratch);
            }
        };
        let item = &self.item;
        let again = || FileItem { stat, ..item.clone() };
        if let Some(source) = self.reopen.as_ref().filter(|_| changed && self.attempt == 0) {
            return start_attempt(run, &self.dir, source, again(), 1, scratch);
        }
        if changed {
            run.changed_while_read(&path);
        }
        let content = store_content(&run.writer, ids, &run.trees, scratch)?;
        let profile = *self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = NodeKind::File { size: end.size, content, holes: end.holes, profile };
        let mut node = run.node(self.item.stored_name().to_vec(), kind, &stat);
        node.xattrs = run.xattrs(&path, end.file.xattrs());
        node.changed_while_read = changed;
        run.count_file(end.size, self.item.change());
        run.context.done(&path, self.item.change().word());
        run.context.progress.add(1, 0);
        complete(run, &self.dir, self.item.slot, Some(node), scratch)
    }
}

impl StreamJob {
    fn new(source: Box<dyn ByteSource>, shared: Arc<Shared>) -> Self {
        Self { source, chunker: None, tail: Vec::new(), shared }
    }

    /// Reads a segment, cuts it, hands out its chunks, and goes back to the queue unless it ended.
    pub(super) fn run(mut self, run: &Run<'_>, mut segment: Segment, worker: &mut Worker) -> Result<()> {
        let buffer = &mut segment.bytes;
        buffer.resize(SEGMENT, 0);
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        let read = match self.source.fill(&mut buffer[kept..]) {
            Ok(read) => read,
            Err(error) if self.shared.reopen.is_none() => return Err(self.source.failed(error)),
            Err(error) => {
                drop(segment);
                run.unreadable(&self.shared.path(), &error);
                return self.shared.finish_one(run, &mut worker.scratch);
            }
        };
        let filled = kept + read;
        let last = filled < SEGMENT;
        run.context.progress.add(0, read as u64);
        let chunker = self.chunker.get_or_insert_with(|| {
            let head = &buffer[..filled.min(HEAD_LEN)];
            let known_size = self.shared.reopen.is_some().then_some(self.shared.item.stat.size);
            let profile = run.profile(self.shared.item.profile, head, known_size);
            *self.shared.profile.lock().unwrap_or_else(PoisonError::into_inner) = profile.code();
            run.chunker(profile)
        });
        let mut lengths = Vec::new();
        let consumed = chunker.cut(&buffer[..filled], last, &mut lengths);
        self.tail.extend_from_slice(&buffer[consumed..filled]);
        self.hand_out(run, segment, &lengths);
        if last {
            *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.source.finish());
            return self.shared.finish_one(run, &mut worker.scratch);
        }
        run.queue.continue_stream(self);
        Ok(())
    }

    fn hand_out(&self, run: &Run<'_>, segment: Segment, lengths: &[u32]) {
        let segment = Arc::new(segment);
        let mut next = {
            let mut ids = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner);
            let first = ids.len();
            ids.resize(first + lengths.len(), BlobId([0; 32]));
            first
        };
        let (mut jobs, mut start) = (Vec::new(), 0);
        let mut rest = lengths;
        while !rest.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            while bytes < GROUP && count < rest.len() {
                bytes += rest[count] as usize;
                count += 1;
            }
            let (group, after) = rest.split_at(count);
            jobs.push(ChunkJob {
                shared: Arc::clone(&self.shared),
                segment: Arc::clone(&segment),
                start,
                lengths: group.to_vec(),
                first: next,
            });
            (start, next, rest) = (start + bytes, next + count, after);
        }
        self.shared.outstanding.fetch_add(jobs.len(), Ordering::AcqRel);
        run.queue.push_chunks(jobs);
    }
}

impl ChunkJob {
    pub(super) fn run(self, run: &Run<'_>, worker: &mut Worker) -> Result<()> {
        let mut stored = Vec::with_capacity(self.lengths.len());
        let mut rest = &self.segment.bytes[self.start..];
        for length in &self.lengths {
            let (chunk, after) = rest.split_at(*length as usize);
            stored.push(run.writer.add(BlobKind::Data, chunk, &mut worker.scratch)?.0);
            rest = after;
        }
        drop(self.segment);
        {
            let mut ids = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids[self.first..self.first + stored.len()].copy_from_slice(&stored);
        }
        self.shared.finish_one(run, &mut worker.scratch)
    }
}

/// The bytes of a file outside its holes, up to the size that it had when it was opened: a file that grows for ever ends.
struct FileBytes {
    file: Option<SourceFile>,
    opened: Stat,
    extents: Vec<(u64, u64)>,
    extent: usize,
    offset: u64,
    /// Set when the file ended early.
    shrunk_to: Option<u64>,
    /// What was in the page cache before.
    residency: Residency,
}

impl FileBytes {
    fn new(file: SourceFile) -> io::Result<Self> {
        let opened = *file.opened_stat();
        let extents = if opened.may_have_holes() {
            file.data_extents(opened.size, MAX_EXTENTS)?
        } else if opened.size > 0 {
            vec![(0, opened.size)]
        } else {
            Vec::new()
        };
        let residency = file.residency(opened.size);
        file.advise_sequential();
        let offset = extents.first().map_or(0, |extent| extent.0);
        Ok(Self { file: Some(file), opened, extents, extent: 0, offset, shrunk_to: None, residency })
    }

    /// What lies between the extents.
    fn holes(&self, size: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut at = 0;
        for (offset, length) in self.extents.iter().chain(&[(size, 0)]) {
            let offset = (*offset).min(size);
            if offset > at {
                holes.push((at, offset - at));
            }
            at = at.max((offset + length).min(size));
        }
        holes
    }
}

impl ByteSource for FileBytes {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file.as_ref().expect("the file stays until the end");
        let mut filled = 0;
        while filled < buffer.len() && self.shrunk_to.is_none() {
            let Some((start, length)) = self.extents.get(self.extent).copied() else { break };
            let left = start + length - self.offset;
            let want = (buffer.len() - filled).min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = file.read_at(&mut buffer[filled..filled + want], self.offset)?;
            file.drop_what_came(&self.residency, self.offset, read as u64);
            filled += read;
            self.offset += read as u64;
            if read < want {
                self.shrunk_to = Some(self.offset);
            } else if read as u64 == left {
                self.extent += 1;
                self.offset = self.extents.get(self.extent).map_or(self.offset, |extent| extent.0);
            }
        }
        Ok(filled)
    }

    fn finish(&mut self) -> Ended {
        let file = self.file.take().expect("finish is called once");
        let size = self.shrunk_to.unwrap_or(self.opened.size);
        let stat =
            file.stat().map(|now| (now, self.shrunk_to.is_some() || !is_unchanged(&self.opened, &now)));
        Ended::File(Box::new(FileEnd { size, holes: self.holes(size), stat, file }))
    }
}

struct StreamBytes {
    stream: Box<dyn super::CommandStream>,
    read: u64,
}

impl ByteSource for StreamBytes {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.read += filled as u64;
        Ok(filled)
    }

    fn finish(&mut self) -> Ended {
        match self.stream.finish() {
            Ok(()) => Ended::Stream(self.read, Vec::new()),
            Err(why) => Ended::Failed(EngineError::Command(why)),
        }
    }
}
