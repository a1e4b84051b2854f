//! An explicit-state search over the real protocol: writers and prunes run on threads against a store in memory, each of
//! whose operations is a step of a scheduler, which tries all orders. A crash is a schedule in which an actor's turn does not
//! come again; so is a long suspend, but for that its turn comes at last. Besides, puts and deletes land after their caller
//! has died, puts land twice, and listings show some of what changed while they were taken, and not the rest.
//!
//! At each state everything that was kept, or reported as a success, must be readable. States are told apart by what the
//! store holds and by what each actor has seen; names, which are random, are replaced by who made an object, and as which.
//! Reads that follow one another are one step.
//!
//! `SNAP_SEARCH=all cargo test -p snap-repo --test search -- --nocapture` searches with larger bounds.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests fail as tests do

mod explore;
mod hub;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Instant;

use explore::{Faults, Found, Role, Search};
use snap_backend::MemoryBackend;
use snap_repo::prune::{PruneOptions, Waste};
use snap_repo::{Sabotage, WriterOptions};
use support::{backup, backup_with, create, forget, open, prune_now, prune_options};

/// Packs are sent when a run ends, so that one operation of an actor is under way at a time.
const PACK: usize = 1 << 20;

fn writes(pieces: &'static [u64], sabotage: Sabotage) -> Role {
    let options = WriterOptions { pack_target: PACK, ..support::writer_options(sabotage) };
    let act = move |repository: &snap_repo::Repository| {
        backup_with(repository, pieces, 100, options.clone()).map(Some)
    };
    Role { act: Arc::new(act), changes: &["packs", "index", "snapshots"] }
}

fn prunes(sabotage: Sabotage) -> Role {
    let options =
        PruneOptions { sabotage, pack_target: PACK, max_waste: Waste::Share(0.2), ..prune_options(0) };
    let act = move |repository: &snap_repo::Repository| prune_now(repository, &options).map(|_| None);
    Role { act: Arc::new(act), changes: &["packs", "index", "marks"] }
}

/// A repository with a forgotten snapshot of `dead`, and one of `kept` that stays.
fn search(dead: &[u64], kept: &[u64], roles: Vec<Role>, faults: Faults) -> Search {
    let store = MemoryBackend::new();
    let secret = create(&store);
    let repository = open(Arc::new(store.clone()), &secret);
    let gone = backup(&repository, dead, 10).unwrap();
    let kept = backup(&repository, kept, 11).unwrap();
    forget(&repository, &gone).unwrap();
    let template = open(Arc::new(store.clone()), &secret);
    let open = Arc::new(move |backend| template.over(backend));
    Search { store, open, roles, faults, kept: vec![kept], most_states: 2_000_000 }
}

fn report(what: &str, search: &Search) -> Found {
    let began = Instant::now();
    let found = search.run();
    eprintln!(
        "{what}: {} states, {} executions, {} given up, {} ends in success, {} not, {:.1} s",
        found.states,
        found.executions,
        found.given_up,
        found.good_ends,
        found.bad_ends,
        began.elapsed().as_secs_f64()
    );
    found
}

fn finds_nothing(what: &str, search: &Search) {
    let found = report(what, search);
    if let Some(loss) = found.loss {
        panic!("{what}: {loss}");
    }
    assert_eq!(found.given_up, 0);
    assert!(found.good_ends > 0);
}

#[test]
fn one_backup_and_one_prune() {
    let roles = vec![writes(&[1], Sabotage::None), prunes(Sabotage::None)];
    finds_nothing("backup, prune", &search(&[1], &[3], roles, Faults::default()));
}
