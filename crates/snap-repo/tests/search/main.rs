//! An explicit-state search over the real protocol: writers and prunes run on threads against a store in memory, each of
//! whose operations is a step of a scheduler, which tries all orders. A crash is a schedule in which an actor's turn does not
//! come again; so is a long suspend, but for that its turn comes at last. Besides, puts and deletes land after their caller
//! has died, puts land twice, and listings show some of what changed while they were taken, and not the rest.
//!
//! At each state everything that was kept, or reported as a success, must be readable. States are told apart by what the
//! store holds and by what each actor has seen; names, which are random, are replaced by who made an object, and as which.
//! Reads that follow one another are one step.
//!
//! With three actors not all orders are tried, but all in which an actor that could go on is left for another one at most so many
//! times. A loss needs few: the last look is missed at one.
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
use snap_backend::{Backend, MemoryBackend};
use snap_repo::prune::{PruneOptions, Waste};
use snap_repo::{Area, Sabotage, WriterOptions};
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
    Search { store, open, roles, faults, kept: vec![kept], switches: None, most_states: 2_000_000 }
}

/// The same, but all blobs of the forgotten snapshot lie in one pack, and the kept one needs some of them.
fn mixed(dead: &[u64], kept: &[u64], roles: Vec<Role>, faults: Faults) -> Search {
    let store = MemoryBackend::new();
    let secret = create(&store);
    let repository = open(Arc::new(store.clone()), &secret);
    let options = WriterOptions { pack_target: PACK, ..support::writer_options(Sabotage::None) };
    let gone = backup_with(&repository, dead, 10, options.clone()).unwrap();
    let kept = backup_with(&repository, kept, 11, options).unwrap();
    forget(&repository, &gone).unwrap();
    let template = open(Arc::new(store.clone()), &secret);
    let open = Arc::new(move |backend| template.over(backend));
    Search { store, open, roles, faults, kept: vec![kept], switches: None, most_states: 2_000_000 }
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
    // Names are random, and where they decide an order, one schedule may not come again.
    assert!(found.given_up <= found.executions / 1000, "{} given up", found.given_up);
    assert!(found.good_ends > 0);
}

/// Puts and deletes that land late, puts that land twice, listings that take their time: one of these.
const ONE_FAULT: Faults = Faults { most: 1, late: true, slow_lists: true };

/// The bound of the everyday tests, or no bound but `all`.
fn switches(everyday: u32, all: Option<u32>) -> Option<u32> {
    if std::env::var_os("SNAP_SEARCH").is_some_and(|what| what == "all") { all } else { Some(everyday) }
}

/// As [`writes`], but lists ahead, in the order that is worst: first the packs, the index last.
fn writes_ahead(pieces: &'static [u64]) -> Role {
    let options = WriterOptions { pack_target: PACK, ..support::writer_options(Sabotage::None) };
    let act = move |repository: &snap_repo::Repository| {
        for area in [Area::Packs, Area::Marks, Area::Index] {
            repository.prefetch(&[area])?;
        }
        backup_with(repository, pieces, 100, options.clone()).map(Some)
    };
    Role { act: Arc::new(act), changes: &["packs", "index", "snapshots"] }
}

/// Backups that find the dead blob known, and one that stores something new.
fn known() -> Role {
    writes(&[1], Sabotage::None)
}

fn fresh() -> Role {
    writes(&[2], Sabotage::None)
}

#[test]
fn one_backup_and_one_prune() {
    let roles = vec![known(), prunes(Sabotage::None)];
    let search = Search { switches: switches(5, None), ..search(&[1], &[3], roles, Faults::default()) };
    finds_nothing("backup, prune", &search);
}

#[test]
fn one_backup_and_one_prune_with_a_fault() {
    let roles = vec![known(), prunes(Sabotage::None)];
    let search = Search { switches: switches(1, Some(6)), ..search(&[1], &[3], roles, ONE_FAULT) };
    finds_nothing("backup, prune, one fault", &search);
}

#[test]
fn a_prune_that_moves() {
    // 3 stays, 1 lies beside it in one pack.
    let roles = vec![known(), prunes(Sabotage::None)];
    let search = Search { switches: switches(3, None), ..mixed(&[1, 3], &[3], roles, Faults::default()) };
    finds_nothing("backup, prune that moves", &search);
}

#[test]
fn two_backups_and_one_prune() {
    let roles = vec![known(), known(), prunes(Sabotage::None)];
    let search = Search { switches: switches(2, Some(4)), ..search(&[1], &[3], roles, Faults::default()) };
    finds_nothing("two backups, prune", &search);
}

#[test]
fn two_backups_and_one_prune_with_a_fault() {
    let roles = vec![known(), fresh(), prunes(Sabotage::None)];
    let search = Search { switches: switches(0, Some(1)), ..search(&[1], &[3], roles, ONE_FAULT) };
    finds_nothing("two backups, prune, one fault", &search);
}

#[test]
fn one_backup_and_two_prunes() {
    let roles = vec![known(), prunes(Sabotage::None), prunes(Sabotage::None)];
    let search = Search { switches: switches(2, Some(3)), ..search(&[1], &[3], roles, Faults::default()) };
    finds_nothing("backup, two prunes", &search);
}

#[test]
fn a_backup_that_lists_ahead() {
    let roles = vec![writes_ahead(&[1]), prunes(Sabotage::None)];
    let search = Search { switches: switches(3, None), ..mixed(&[1], &[3], roles, Faults::default()) };
    finds_nothing("backup that lists ahead, prune", &search);
}

/// A writer has died when its packs were stored. Its index object, which names them, lands any time.
fn late_index(writer: Role) -> Search {
    let mut search = search(&[1], &[3], vec![writer, prunes(Sabotage::None)], Faults::default());
    let before = search.store.clone();
    let after = MemoryBackend::from_state(before.snapshot());
    let options = WriterOptions { pack_target: PACK, ..support::writer_options(Sabotage::None) };
    backup_with(&(search.open)(Arc::new(after.clone())), &[2], 50, options).unwrap();
    let mut late = None;
    for name in after.names().into_iter().filter(|name| !before.exists(name).unwrap()) {
        let bytes = after.get(&name).unwrap();
        match name.as_str().split('/').next() {
            Some("packs") => drop(before.put(&name, bytes).unwrap()),
            Some("index") => late = Some((name, bytes)),
            _ => {}
        }
    }
    let (name, bytes) = late.unwrap();
    let act = move |repository: &snap_repo::Repository| {
        repository.backend().put(&name, bytes.clone())?;
        Ok(None)
    };
    search.roles.push(Role { act: Arc::new(act), changes: &["index"] });
    search
}

#[test]
fn an_index_object_that_lands_late() {
    for (what, writer) in [("in order", fresh()), ("listed ahead", writes_ahead(&[2]))] {
        let search = Search { switches: switches(2, Some(4)), ..late_index(writer) };
        finds_nothing(&format!("late index object, backup {what}, prune"), &search);
    }
}

/// What is taken out must be missed: else the search, or the protocol, has something too much.
#[test]
fn without_a_part_of_the_protocol_something_is_lost() {
    let last_look = writes(&[1], Sabotage::NoLastLook);
    let cases = [
        ("no last look", vec![last_look.clone(), prunes(Sabotage::None)], Faults::default()),
        ("no last look, two backups", vec![known(), last_look, prunes(Sabotage::None)], Faults::default()),
        (
            "snapshots are not listed again",
            vec![known(), prunes(Sabotage::SnapshotsBeforeMarks)],
            Faults::default(),
        ),
        ("marks go first", vec![known(), prunes(Sabotage::MarksFirst)], Faults::default()),
    ];
    let case = |(what, roles, faults)| (what, search(&[1], &[3], roles, faults));
    let mut cases: Vec<_> = cases.into_iter().map(case).collect();
    cases.push(("no list of packs", late_index(writes(&[2], Sabotage::NoListOfPacks))));
    for (what, search) in cases {
        let search = Search { switches: Some(2), ..search };
        let found = report(what, &search);
        assert!(found.loss.is_some(), "{what}: nothing is lost");
    }
}
