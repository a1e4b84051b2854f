//! Chunks that no copy has, from the files that they came from. That a file is what it was is proved by the ids of its chunks.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use snap_chunker::{Chunker, CutKey, Profile};
use snap_format::{BlobId, BlobKind, Node, NodeKind};
use snap_repo::{Scratch, Snapshot};
use snap_source::{SourceDir, SourceFile};

use super::Heal;
use super::blobs::{Job, finding_of};
use crate::browse::Browser;
use crate::work::lock;
use crate::{EngineError, Phase, Result};

/// Bytes of a file that are read at once, at least.
const BUFFER: usize = 8 << 20;

impl Heal<'_> {
    /// Looks into the files of this host for what is lost of `snapshots`, the newest first. Returns how many blobs were stored.
    pub(super) fn look_into_files(&self, job: &Job<'_>, snapshots: &[Snapshot]) -> Result<u64> {
        let mut found = 0;
        let own = snapshots.iter().rev().filter(|snapshot| snapshot.envelope.host == self.options.host);
        for snapshot in own {
            let wanted = lost_data(job);
            if wanted.is_empty() {
                break;
            }
            self.context.progress.begin(Phase::Scanning, 0, 0);
            found += self.look_into_files_of(job, snapshot, wanted)?;
        }
        Ok(found)
    }

    fn look_into_files_of(
        &self,
        job: &Job<'_>,
        snapshot: &Snapshot,
        mut wanted: HashSet<BlobId>,
    ) -> Result<u64> {
        let index = job.writer.index().clone();
        let browser = match Browser::open(self.repository, index, snapshot) {
            Ok(browser) => browser.with_others(self.others()),
            Err(error) => return finding_of(error).map_or(Ok(0), Err),
        };
        let prepare = || Scratch::new(1).map_err(|error| EngineError::io("preparing", b"zstd", error));
        let (mut walking, mut scratch) = (prepare()?, prepare()?);
        let mut found = 0;
        let mut each = |path: &[u8], node: &Node| -> Result<bool> {
            self.context.check_stop()?;
            let Some(content) = node.content() else { return Ok(!wanted.is_empty()) };
            let ids = match browser.blobs(content, &mut scratch) {
                Ok(ids) => ids,
                Err(error) => return finding_of(error).map_or(Ok(true), Err),
            };
            if ids.iter().any(|id| wanted.contains(id)) {
                found += take_chunks(job, path, node, &mut wanted, &mut scratch)?;
            }
            Ok(true)
        };
        let mut lost = |_: &[u8], error: EngineError| finding_of(error).map_or(Ok(()), Err);
        browser.walk_past(b"", browser.root(), &mut walking, &mut each, &mut lost)?;
        Ok(found)
    }
}

fn lost_data(job: &Job<'_>) -> HashSet<BlobId> {
    lock(&job.lost).iter().filter(|(kind, _)| *kind == BlobKind::Data).map(|(_, id)| *id).collect()
}

/// Cuts a file as it was cut, and stores the chunks that are wanted. What cannot be read is passed over.
fn take_chunks(
    job: &Job<'_>,
    path: &[u8],
    node: &Node,
    wanted: &mut HashSet<BlobId>,
    scratch: &mut Scratch,
) -> Result<u64> {
    let NodeKind::File { size, holes, profile, .. } = &node.kind else { return Ok(0) };
    let (Some(profile), Some(file)) = (Profile::from_code(*profile), open(path, *size)) else { return Ok(0) };
    let mut chunker = Chunker::new(&CutKey::new(*job.domain.cut), profile);
    let mut reader = Reader { file, size: *size, holes, position: 0 };
    let mut buffer = vec![0; BUFFER.max(2 * chunker.max_len())];
    let (mut filled, mut found, mut cuts) = (0, 0, Vec::new());
    loop {
        let Ok(read) = reader.fill(&mut buffer[filled..]) else { return Ok(found) };
        filled += read;
        let is_last = filled < buffer.len();
        cuts.clear();
        let cut = chunker.cut(&buffer[..filled], is_last, &mut cuts);
        let mut rest = &buffer[..cut];
        for length in &cuts {
            let (chunk, after) = rest.split_at(*length as usize);
            rest = after;
            let id = BlobId(job.domain.data_id.id(chunk));
            if wanted.remove(&id) {
                job.writer.add(BlobKind::Data, chunk, scratch)?;
                lock(&job.lost).remove(&(BlobKind::Data, id));
                found += 1;
            }
        }
        if is_last || wanted.is_empty() {
            return Ok(found);
        }
        buffer.copy_within(cut..filled, 0);
        filled -= cut;
    }
}

/// A regular file of that size at this path.
fn open(path: &[u8], size: u64) -> Option<SourceFile> {
    let path = Path::new(OsStr::from_bytes(path));
    let (parent, name) = (path.parent()?, path.file_name()?);
    let dir = SourceDir::open_search(parent).ok()?;
    let file = dir.open_file(name.as_bytes()).ok()?;
    (file.opened_stat().size == size).then_some(file)
}

/// The bytes of a file that are outside of its holes.
struct Reader<'a> {
    file: SourceFile,
    size: u64,
    holes: &'a [(u64, u64)],
    position: u64,
}

impl Reader<'_> {
    /// Fills the buffer as far as there are bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let end = match self.holes.first() {
                Some((start, length)) if self.position >= *start => {
                    self.position = start + length;
                    self.holes = &self.holes[1..];
                    continue;
                }
                Some((start, _)) => *start,
                None => self.size,
            };
            let wanted = (end.saturating_sub(self.position)).min((buffer.len() - filled) as u64) as usize;
            if wanted == 0 {
                break;
            }
            let read = self.file.read_at(&mut buffer[filled..filled + wanted], self.position)?;
            if read == 0 {
                break;
            }
            self.position += read as u64;
            filled += read;
        }
        Ok(filled)
    }
}
