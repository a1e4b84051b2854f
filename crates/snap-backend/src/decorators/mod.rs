//! Backends around a backend.

mod bandwidth;
mod concurrency;
mod retry;

pub use bandwidth::{BandwidthBackend, BandwidthOptions};
pub use concurrency::ConcurrencyBackend;
pub(crate) use retry::repeat;
pub use retry::{RetryBackend, RetryOptions};

/// Forwards what a decorator does not change to its field `inner`.
macro_rules! forward_description {
    () => {
        fn location(&self) -> String {
            self.inner.location()
        }

        fn local_root(&self) -> Option<&std::path::Path> {
            self.inner.local_root()
        }
    };
}
pub(crate) use forward_description;
