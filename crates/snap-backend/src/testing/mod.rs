//! Doubles that fail, die and remember, and the suite that every backend passes.

mod clock;
mod conformance;
mod crash;
mod fault;
mod recording;

pub use clock::ManualClock;
pub use conformance::{CASES, Case, conformance};
pub use crash::{CrashBackend, CrashMode, CrashPoint};
pub use fault::{Fault, FaultBackend, FaultOptions};
pub use recording::{Recorded, RecordingBackend};

pub use crate::memory::{MemoryBackend, MemoryState};
