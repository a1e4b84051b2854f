//! The stress test for as long as one likes: eight writers, two prunes and a checker on one bucket, some of them killed.
//!
//! ```sh
//! cargo run --release -p snap-engine --example stress -- --minutes 5 [--seed N]
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for the terminal

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/stress/run.rs"]
mod run;

use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        Some(args.get(at + 1).unwrap().parse::<u64>().unwrap())
    };
    let (minutes, seed) = (value("--minutes").unwrap_or(5), value("--seed").unwrap_or(1));
    let (began, length) = (Instant::now(), Duration::from_secs(60 * minutes));
    let tally = run::run(seed, |_| began.elapsed() < length);
    println!("nothing was lost: seed {seed}, {tally:#?}");
}
