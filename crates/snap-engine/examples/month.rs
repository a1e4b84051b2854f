//! Two copies of a repository live for days, with kills and damage; then everything that is to be kept must be there, bit by bit.
//!
//! ```sh
//! cargo run --release -p snap-engine --example month -- DAYS SEEDS [FIRST SEED]
//! ```
#![allow(clippy::unwrap_used)] // it fails as tests do

#[path = "../tests/common/mod.rs"]
mod common;

use common::life::Life;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let days = args.next().unwrap_or(30);
    let seeds = args.next().unwrap_or(10);
    let first = args.next().unwrap_or(0);
    for seed in first..first + seeds {
        println!("seed {seed}, {days} days");
        let mut life = Life::new(seed);
        (0..days).for_each(|_| life.day());
        life.judge();
        println!("  {:?}", life.events);
    }
}
