//! One module a command.

mod backup;
mod cat;
mod check;
mod completions;
mod config;
mod copy;
mod database;
mod deleted;
mod diff;
mod erase;
mod estimate;
mod find;
mod forget;
mod heal;
mod immutable;
mod init;
mod key;
mod ls;
mod man;
mod mount;
mod pin;
mod policy;
mod prune;
mod repair;
mod restore;
mod snapshots;
mod stats;
mod stream;
mod tag;
mod versions;

use crate::app::App;
use crate::args::Command;
use crate::exit::{Exit, Failure};
use crate::render::json::Object;

/// What a command that ran to its end leaves.
pub struct Done {
    /// How it ended.
    pub exit: Exit,
    /// Fields of the JSON summary.
    pub summary: Object,
}

impl Done {
    /// Done, with fields for the summary.
    pub fn with(summary: Object) -> Self {
        Self { exit: Exit::Done, summary }
    }

    /// Done, with nothing to add.
    pub fn plain() -> Self {
        Self::with(Object::new())
    }
}

impl Done {
    /// What a stream to standard output ends with: that its reader went away is no failure.
    pub fn unless_broken(app: &App, failure: Failure) -> Outcome {
        if app.out.is_broken() { Ok(Self::plain()) } else { Err(failure) }
    }
}

/// How a command ends.
pub type Outcome = Result<Done, Failure>;

/// Runs a command.
pub fn run(app: &App, command: Command) -> Outcome {
    if !matches!(
        command,
        Command::Snapshots(_)
            | Command::Ls(_)
            | Command::Find(_)
            | Command::Versions(_)
            | Command::Diff(_)
            | Command::Deleted(_)
            | Command::Cat(_)
            | Command::Restore(_)
            | Command::Mount(_)
            | Command::Backup(_)
            | Command::Forget(_)
            | Command::Pin(_)
            | Command::Tag(_)
    ) {
        app.refuse_filters()?;
    }
    match command {
        Command::Init(args) => init::run(app, &args),
        Command::Backup(args) => backup::run(app, *args),
        Command::Snapshots(args) => snapshots::run(app, &args),
        Command::Ls(args) => ls::run(app, &args),
        Command::Find(args) => find::run(app, &args),
        Command::Versions(args) => versions::run(app, &args),
        Command::Diff(args) => diff::run(app, &args),
        Command::Deleted(args) => deleted::run(app, &args),
        Command::Cat(args) => cat::run(app, &args),
        Command::Stats => stats::run(app),
        Command::Restore(args) => restore::run(app, &args),
        Command::Mount(args) => mount::run(app, &args),
        Command::Copy(args) => copy::run(app, &args),
        Command::Check(args) => check::run(app, &args),
        Command::Repair(args) => repair::run(app, &args),
        Command::Forget(args) => forget::run(app, &args),
        Command::Prune(args) => prune::run(app, &args),
        Command::Erase(args) => erase::run(app, &args),
        Command::Pin(args) => pin::run(app, &args),
        Command::Tag(args) => tag::run(app, &args),
        Command::Key(args) => key::run(app, args.command),
        Command::Policy(args) => policy::run(app, &args),
        Command::Config(args) => config::run(app, &args.command),
        Command::Completions { shell } => completions::run(app, shell),
        Command::Man(args) => man::run(app, &args),
    }
}
