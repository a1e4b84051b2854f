//! The hidden runtime.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// A second of patience for each so many bytes of a body: about one megabit per second.
const BYTES_PER_SECOND: u64 = 128 << 10;

/// One runtime for all backends of the process: it only waits, so two threads are plenty.
pub(super) fn handle() -> io::Result<Handle> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let runtime =
        Builder::new_multi_thread().worker_threads(2).thread_name("snap-io").enable_all().build()?;
    // Another thread may have been faster; then this one is dropped.
    Ok(RUNTIME.get_or_init(|| runtime).handle().clone())
}

/// How long a request with a body of `bytes` may take.
pub(super) fn patience(base: Duration, bytes: u64) -> Duration {
    base.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND))
}
