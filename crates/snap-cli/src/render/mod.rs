//! Everything that leaves the program: JSON lines, tables, messages, progress.

pub mod json;
pub mod markdown;
mod observer;
mod output;
mod progress;
pub mod quote;
pub mod rows;
mod sorted;
pub mod text;

pub use observer::CliObserver;
pub use output::{Output, OutputOptions};
pub use progress::Ticker;
pub use sorted::Sorted;
