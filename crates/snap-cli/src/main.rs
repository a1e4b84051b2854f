//! The program `snap`: arguments, rendering, hints, exit codes. What it does is in the libraries below.
//!
//! - `args`: the clap tree; `commands`: one module a command; `render`: everything that is written.
//! - `exit`: every failure becomes an exit code, a message and a hint in one place.
//! - `config`, `keys`, `prompt` and `repo`: from flags, environment and `snap.toml` to an opened repository.
//! - `app`: one run from arguments to exit code; `signals`: its interruption.
//!
//! Environment, clock, home directory and terminal are read in this crate and handed down.

mod app;
mod args;
mod commands;
mod config;
mod copies;
mod exit;
mod keys;
mod locks;
mod prompt;
mod render;
mod repo;
mod select;
mod signals;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    ExitCode::from(app::run(&args, system::Env::of_process()).code())
}
