//! Properties of everything in `snap` that reads bytes which others wrote.
//!
//! A fuzz target (`fuzz_targets/`) hands its input to one function here; the everyday tests of the workspace include
//! the same files and run them over the corpus. So a function here knows nothing of the fuzzer.

pub mod corpus;
pub mod cuts;
pub mod format;
pub mod names;
