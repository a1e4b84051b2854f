//! A month of life on two copies, with kills and damage: nothing that is to be kept is lost.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::time::Duration;

use common::life::Life;
use common::within;

#[test]
fn after_a_month_both_copies_are_whole() {
    within(Duration::from_secs(600), || {
        let mut life = Life::new(4);
        for _ in 0..30 {
            life.day();
        }
        life.judge();
        let events = &life.events;
        assert!(events.snapshots >= 30 && events.forgotten > 5, "{events:?}");
        assert!(events.killed > 5 && events.damaged > 5 && events.healed > 5, "{events:?}");
        assert!(events.pruned_packs > 5, "{events:?}");
    });
}
