//! One run: what all workers share, and the workers.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use snap_chunker::{Chunker, CutKey, Profile};
use snap_format::{BlobId, Summary, Xattr};
use snap_repo::{RepoError, Scratch, Writer, WriterStats};
use snap_source::{Filter, Names};

use super::queue::{Job, Queue};
use super::tree_cache::{Enough, Trees};
use crate::{Context, EngineError, Result};

/// Counters of a run.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) dirs: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) files_new: AtomicU64,
    pub(super) files_changed: AtomicU64,
    pub(super) files_unchanged: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) vanished: AtomicU64,
    pub(super) changed_while_read: AtomicU64,
    pub(super) source_bytes: AtomicU64,
}

pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How a file compares with the parent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileChange {
    New,
    Changed,
    Unchanged,
}

impl FileChange {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What all workers share.
pub(super) struct Run<'a> {
    pub(super) context: Context<'a>,
    pub(super) writer: Writer,
    pub(super) filter: Filter,
    pub(super) names: Names,
    pub(super) trees: Trees,
    pub(super) counts: Counts,
    pub(super) queue: Arc<Queue>,
    pub(super) cut_key: CutKey,
    pub(super) level: i32,
    pub(super) root: Mutex<Option<BlobId>>,
    pub(super) failure: Mutex<Option<EngineError>>,
}

/// What one thread has to itself.
pub(super) struct Worker {
    pub(super) scratch: Scratch,
    pub(super) buffer: Vec<u8>,
    pub(super) cuts: Vec<u32>,
}

/// Lets the other workers end if this one panics: they would wait for it for ever.
struct StopOnUnwind<'a>(&'a Queue);

impl Drop for StopOnUnwind<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Run<'_> {
    /// Works until the queue is empty, with so many threads; returns the root. Meanwhile trees of the parent's root come from
    /// the repository, if the cache does not have them.
    pub(super) fn work(&self, threads: usize, parent_root: Option<BlobId>) -> Result<BlobId> {
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.trees.fetch_ahead(parent_root, &enough));
            let _enough = Enough(&enough);
            std::thread::scope(|scope| {
                for _ in 0..threads.max(1) {
                    scope.spawn(|| {
                        if let Err(error) = self.work_one() {
                            self.fail(error);
                        }
                    });
                }
            });
        });
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        self.context.check_stop()?;
        let root = *self.root.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(root.expect("the root is finished when all below it is"))
    }

    fn work_one(&self) -> Result<()> {
        let scratch =
            Scratch::new(self.level).map_err(|error| EngineError::io("preparing", b"compression", error))?;
        let mut worker = Worker { scratch, buffer: Vec::new(), cuts: Vec::new() };
        while let Some(job) = self.queue.take() {
            let unwinding = StopOnUnwind(&self.queue);
            let outcome = self.context.check_stop().and_then(|()| match job {
                Job::Chunks(job) => job.run(self, &mut worker),
                Job::Stream(job, segment) => job.run(self, segment, &mut worker),
                Job::Files(job) => job.run(self, &mut worker),
                Job::Dir(job) => job.run(self, &mut worker),
            });
            std::mem::forget(unwinding);
            self.queue.done();
            outcome?;
        }
        Ok(())
    }

    /// Keeps the first failure that says something; stops everyone.
    fn fail(&self, error: EngineError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_echo = matches!(error, EngineError::Repo(RepoError::Refused(_)));
        if failure.is_none() || matches!(*failure, Some(EngineError::Repo(RepoError::Refused(_)))) && !is_echo
        {
            *failure = Some(error);
        }
        self.queue.stop();
    }

    pub(super) fn set_root(&self, tree: BlobId) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree);
    }

    pub(super) fn chunker(&self, profile: Profile) -> Chunker {
        Chunker::new(&self.cut_key, profile)
    }

    pub(super) fn count_file(&self, size: u64, change: FileChange) {
        self.count(size, change);
        if change == FileChange::Unchanged {
            self.context.progress.add(1, size);
        }
    }

    /// Of a stream all bytes were read, and shown, whatever it was before.
    pub(super) fn count_stream(&self, size: u64, change: FileChange) {
        self.count(size, change);
        self.context.progress.add(1, 0);
    }

    fn count(&self, size: u64, change: FileChange) {
        bump(&self.counts.files);
        bump(match change {
            FileChange::New => &self.counts.files_new,
            FileChange::Changed => &self.counts.files_changed,
            FileChange::Unchanged => &self.counts.files_unchanged,
        });
        self.counts.source_bytes.fetch_add(size, Ordering::Relaxed);
    }

    /// Extended attributes; what cannot be read is a note, since the content is worth more.
    pub(super) fn xattrs(&self, path: &[u8], read: io::Result<Vec<Xattr>>) -> Vec<Xattr> {
        read.unwrap_or_else(|error| {
            self.context.note(path, &format!("its extended attributes cannot be read: {error}"));
            Vec::new()
        })
    }
}

impl Counts {
    pub(super) fn summary(&self, stats: &WriterStats) -> Summary {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = self;
        Summary {
            files: count(&counts.files),
            dirs: count(&counts.dirs),
            others: count(&counts.others),
            files_new: count(&counts.files_new),
            files_changed: count(&counts.files_changed),
            files_unchanged: count(&counts.files_unchanged),
            unreadable: count(&counts.unreadable),
            vanished: count(&counts.vanished),
            changed_while_read: count(&counts.changed_while_read),
            source_bytes: count(&counts.source_bytes),
            added_bytes: count(&stats.added_bytes),
            stored_bytes: count(&stats.stored_bytes),
            duration_ms: 0,
        }
    }
}
