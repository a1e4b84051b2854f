use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use snap_repo::Finding;

use crate::{EngineError, Result};

/// Something worth saying that does not stop the verb. Paths are absolute source paths, raw bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An entry that could not be read: the run ends with exit code 3.
    Unreadable {
        /// Which.
        path: &'a [u8],
        /// Why.
        error: &'a io::Error,
    },
    /// A note about an entry: it vanished, changed, was skipped, or an attribute could not be set.
    Note {
        /// Which.
        path: &'a [u8],
        /// What, in words.
        text: &'a str,
    },
    /// Something about the run as a whole.
    Warning {
        /// What, in words.
        text: &'a str,
    },
    /// Damage of the repository that was met.
    Finding(&'a Finding),
    /// An entry was stored, restored or deleted (for `-v`).
    Done {
        /// Which.
        path: &'a [u8],
        /// What happened: "new", "changed", "restored", ….
        what: &'static str,
    },
}

/// Hears of everything that is not fatal. Called from many threads.
pub trait Observer: Send + Sync {
    /// Takes an event; must not block for long.
    fn event(&self, event: Event<'_>);

    /// Whether [`Event::Done`] is wanted.
    fn wants_done(&self) -> bool {
        false
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullObserver;

impl Observer for NullObserver {
    fn event(&self, _: Event<'_>) {}
}

/// What a verb is doing, for the label of the progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Phase {
    Opening,
    Scanning,
    Storing,
    Finishing,
    Planning,
    Restoring,
    Checking,
    ReadingData,
    Moving,
    Deleting,
}

const PHASES: [Phase; 10] = [
    Phase::Opening,
    Phase::Scanning,
    Phase::Storing,
    Phase::Finishing,
    Phase::Planning,
    Phase::Restoring,
    Phase::Checking,
    Phase::ReadingData,
    Phase::Moving,
    Phase::Deleting,
];

/// Counters that a front draws while a verb runs. Totals are 0 while unknown.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Progress {
    phase: AtomicU8,
    pub items: AtomicU64,
    pub items_total: AtomicU64,
    pub bytes: AtomicU64,
    pub bytes_total: AtomicU64,
}

impl Progress {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed)) % PHASES.len()]
    }

    /// Enters a phase: the counters begin anew.
    pub fn begin(&self, phase: Phase, items_total: u64, bytes_total: u64) {
        self.items.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.items_total.store(items_total, Ordering::Relaxed);
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Counts work that is done.
    pub fn add(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What every verb is given.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Hears of everything that is not fatal.
    pub observer: &'a dyn Observer,
    /// Counters to draw.
    pub progress: &'a Progress,
    /// Set from outside to stop at the next step.
    pub stop: &'a AtomicBool,
    /// Threads that compute.
    pub threads: usize,
    /// Budget of the pipeline, bytes: buffers and packs on their way.
    pub memory_bytes: u64,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({} threads, {} bytes)", self.threads, self.memory_bytes)
    }
}

impl Context<'_> {
    pub(crate) fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(EngineError::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn note(&self, path: &[u8], text: &str) {
        self.observer.event(Event::Note { path, text });
    }

    pub(crate) fn done(&self, path: &[u8], what: &'static str) {
        if self.observer.wants_done() {
            self.observer.event(Event::Done { path, what });
        }
    }
}
