//! The work queue of a backup. Workers take what frees memory first: chunks that have been read, then the next piece of a
//! large file, then small files, then directories, the newest first. So a run goes depth first, never blocks on itself, and
//! holds no more file contents than there are segment buffers. (`rayon` gives neither the order nor the bound.)

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::dir::DirJob;
use super::files::FilesJob;
use super::stream::{ChunkJob, StreamJob};

/// Bytes of a segment: the piece in which a large file is read and cut. At least two of the largest chunks.
pub(super) const SEGMENT: usize = 8 << 20;
/// Large files that may wait before no more directories are listed.
const MAX_WAITING_STREAMS: usize = 4096;

pub(super) enum Job {
    Chunks(ChunkJob),
    Stream(StreamJob, Segment),
    Files(FilesJob),
    Dir(Box<DirJob>),
}

#[derive(Default)]
struct State {
    chunks: VecDeque<ChunkJob>,
    streams: VecDeque<StreamJob>,
    files: Vec<FilesJob>,
    dirs: Vec<DirJob>,
    buffers: Vec<Vec<u8>>,
    /// Workers that may still add work.
    active: usize,
    /// Workers that wait for some. Waking costs a system call even if nobody is there.
    waiting: usize,
    stopped: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

/// A buffer that goes back to the queue when the last chunk in it is done.
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    queue: Arc<Queue>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.queue.push(|state| state.buffers.push(bytes));
    }
}

impl Queue {
    pub(super) fn new(buffers: usize) -> Arc<Self> {
        let buffers = (0..buffers.max(2)).map(|_| Vec::new()).collect();
        Arc::new(Self { state: Mutex::new(State { buffers, ..State::default() }), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, add: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        add(&mut state);
        let anyone_waits = state.waiting > 0;
        drop(state);
        if anyone_waits {
            self.changed.notify_all();
        }
    }

    pub(super) fn push_chunks(&self, jobs: impl IntoIterator<Item = ChunkJob>) {
        self.push(|state| state.chunks.extend(jobs));
    }

    /// A stream goes on before another begins.
    pub(super) fn continue_stream(&self, job: StreamJob) {
        self.push(|state| state.streams.push_front(job));
    }

    pub(super) fn push_stream(&self, job: StreamJob) {
        self.push(|state| state.streams.push_back(job));
    }

    /// Work found in a directory, in the order of its names: the first of it is done first.
    pub(super) fn push_found(&self, files: Vec<FilesJob>, dirs: Vec<DirJob>) {
        self.push(|state| {
            state.files.extend(files.into_iter().rev());
            state.dirs.extend(dirs.into_iter().rev());
        });
    }

    /// The next job; `None` when all is done or the run was stopped. The caller counts as active until it calls
    /// [`Queue::done`].
    pub(super) fn take(self: &Arc<Self>) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = self.next(&mut state) {
                state.active += 1;
                return Some(job);
            }
            if state.active == 0 {
                self.changed.notify_all();
                return None;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn next(self: &Arc<Self>, state: &mut State) -> Option<Job> {
        if let Some(job) = state.chunks.pop_front() {
            return Some(Job::Chunks(job));
        }
        if !state.streams.is_empty()
            && let Some(bytes) = state.buffers.pop()
            && let Some(job) = state.streams.pop_front()
        {
            return Some(Job::Stream(job, Segment { bytes, queue: Arc::clone(self) }));
        }
        if let Some(job) = state.files.pop() {
            return Some(Job::Files(job));
        }
        if state.streams.len() >= MAX_WAITING_STREAMS {
            return None;
        }
        state.dirs.pop().map(|job| Job::Dir(Box::new(job)))
    }

    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.active -= 1;
        if state.active == 0 {
            self.changed.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        self.push(|state| state.stopped = true);
    }
}
