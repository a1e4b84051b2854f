//! Eight writers, two prunes and a checker on one bucket. `examples/stress.rs` does the same for minutes.

#[path = "../common/mod.rs"]
mod common;
mod run;

use std::sync::atomic::Ordering;

#[test]
fn nothing_is_lost_while_writers_prunes_and_a_checker_work_and_die() {
    let tally = run::run(1, |round| round < 10);
    println!("{tally:?}");
    // Otherwise nothing was tried.
    let at_least =
        |counter: &std::sync::atomic::AtomicU64, least: u64| counter.load(Ordering::Relaxed) >= least;
    assert!(at_least(&tally.committed, 24) && at_least(&tally.killed_writers, 2), "{tally:?}");
    assert!(at_least(&tally.prunes, 2) && at_least(&tally.deleted_packs, 10), "{tally:?}");
}
