//! Writing objects, several at a time.

use std::io::{self, Write};

use snap_backend::{BackendError, Bucket, BucketWriter, Bytes};
use snap_format::{BlobId, Node};
use snap_repo::{RepoError, Scratch, for_each_parallel};

use super::super::existing::Layout;
use super::super::{Mode, Restore, bump};
use super::headers;
use crate::{EngineError, Phase, Result};

/// Memory that an object on its way takes at most: a part that is being sent, one that fills up, and what is read.
const MEMORY: u64 = 40 << 20;
/// Bytes that are handed over at a time.
const PIECE: usize = 1 << 20;

/// A file that becomes an object.
pub(super) struct Upload {
    /// Its path in the snapshot.
    pub(super) full: Vec<u8>,
    pub(super) key: String,
    pub(super) node: Node,
    pub(super) ids: Vec<BlobId>,
    /// An object of that name is there.
    pub(super) replaces: bool,
}

/// Writes what is planned, and forgets it.
pub(super) fn run(restore: &Restore<'_>, bucket: &Bucket, uploads: &mut Vec<Upload>) -> Result<()> {
    let uploads = std::mem::take(uploads);
    if restore.mode == Mode::Survey || uploads.is_empty() {
        return Ok(());
    }
    for upload in &uploads {
        count_transfer(restore, upload);
    }
    let bytes: u64 = uploads.iter().map(|upload| upload.node.size()).sum();
    if restore.mode == Mode::Rehearse {
        for upload in &uploads {
            restore.would_restore(&upload.full, upload.replaces);
            restore.count_restored(upload.node.size(), upload.replaces);
        }
        return Ok(());
    }
    if restore.context.progress.phase() != Phase::Restoring {
        restore.context.progress.begin(Phase::Restoring, 0, 0);
    }
    restore.expect(uploads.len() as u64, bytes);
    let affordable = usize::try_from(restore.context.memory_bytes / MEMORY).unwrap_or(1);
    let threads = bucket.parallelism().min(affordable).max(1);
    for_each_parallel(&uploads, threads, |upload| {
        restore.context.check_stop()?;
        match one(restore, bucket, upload) {
            Ok(()) => {
                restore.count_restored(upload.node.size(), upload.replaces);
                restore.context.done(&upload.full, "restored");
            }
            Err(error @ EngineError::Repo(RepoError::Backend(_))) => return Err(error),
            Err(error @ EngineError::Repo(_)) => restore.lost(&upload.full, error)?,
            Err(EngineError::Io { source, .. }) => restore.failed(&upload.full, &source),
            Err(error) => return Err(error),
        }
        restore.context.progress.add(1, upload.node.size());
        Ok(())
    })
}

/// Counts what is read of the repository, and the request that writes.
fn count_transfer(restore: &Restore<'_>, upload: &Upload) {
    let (reader, domain) = (restore.browser.reader(), &restore.browser.domain().name);
    let mut units: Vec<_> = upload.ids.iter().filter_map(|id| reader.locate(domain, id)).collect();
    units.dedup_by_key(|place| (place.pack, place.offset));
    bump(&restore.counts.fetched_bytes, units.iter().map(|place| u64::from(place.stored_len)).sum());
    bump(&restore.counts.requests, 1 + units.len() as u64);
}

fn one(restore: &Restore<'_>, bucket: &Bucket, upload: &Upload) -> Result<()> {
    let mut scratch =
        Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error))?;
    let headers = headers::of(&upload.node);
    // A part that failed cannot be repeated by itself: the object is begun anew.
    let written = bucket.repeat(|| {
        let writer = bucket.write(&upload.key, &headers)?;
        let mut sink = Sink { writer, buffer: Vec::new(), failure: None };
        let read = restore.browser.cat(&upload.node, &mut sink, &mut scratch);
        let flushed = sink.flush();
        match (sink.failure, read, flushed) {
            (Some(failure), ..) => {
                sink.writer.abandon();
                Err(failure)
            }
            (None, Err(error), _) => {
                sink.writer.abandon();
                Ok(Err(error))
            }
            (None, Ok(()), _) => sink.writer.finish().map(Ok),
        }
    });
    written.map_err(RepoError::from)??;
    if restore.options.verify { verify(restore, bucket, upload) } else { Ok(()) }
}

/// Hands bytes on in pieces, and keeps the store's own error.
struct Sink<'a> {
    writer: BucketWriter<'a>,
    buffer: Vec<u8>,
    failure: Option<BackendError>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failure.is_none() && !self.buffer.is_empty() {
            let piece = Bytes::from(std::mem::take(&mut self.buffer));
            self.failure = self.writer.write(piece).err();
        }
        match self.failure {
            Some(_) => Err(io::Error::other("the store failed")),
            None => Ok(()),
        }
    }
}

/// Reads an object back and hashes it again.
fn verify(restore: &Restore<'_>, bucket: &Bucket, upload: &Upload) -> Result<()> {
    let differs =
        || io::Error::new(io::ErrorKind::InvalidData, "what was read back differs from the snapshot");
    let failed = |error| EngineError::io("reading back", upload.key.as_bytes(), error);
    let stat = bucket.stat(&upload.key).map_err(RepoError::from)?;
    if stat.is_none_or(|object| object.size_bytes != upload.node.size()) {
        return Err(failed(differs()));
    }
    let (reader, domain) = (restore.browser.reader(), restore.browser.domain());
    let mut layout = Layout::new(&upload.node);
    for id in &upload.ids {
        let mut chunk = Vec::new();
        for (offset, length) in layout.next(u64::from(reader.plain_len(&domain.name, id).unwrap_or(0))) {
            chunk.extend_from_slice(&bucket.read(&upload.key, offset, length).map_err(RepoError::from)?);
        }
        if domain.data_id.id(&chunk) != id.0 {
            return Err(failed(differs()));
        }
    }
    Ok(())
}
