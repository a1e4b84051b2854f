//! The real binary, from the outside: what a user, a second host and a kill -9 see.
#![allow(clippy::unwrap_used)]

mod conditions;
mod config;
mod copies;
mod erase;
mod golden;
mod heal;
mod immutable;
mod keys;
mod kill;
mod lab;
mod least;
mod look;
mod policy;
mod postgres;
mod prune;
mod repair;
mod restore;
mod retention;
mod roles;
mod sqlite;
mod unexpected;
