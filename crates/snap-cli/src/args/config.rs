use clap::{Args, Subcommand};

/// What `config` takes.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What can be done with `snap.toml`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether snap.toml makes sense, and whether what it names is there.
    #[command(after_help = "\
Exits 2 and names file and line if it does not. What is missing on this machine is a warning.

Examples:
  snap config check
  snap config check -c /etc/snap/snap.toml")]
    Check,
    /// Print what snap.toml comes to, and what this run would use; secrets are left out.
    #[command(after_help = "Examples:\n  snap config show\n  snap config show --json")]
    Show,
    /// Write a commented example.
    #[command(after_help = "\
Nothing in it is switched on, and a file that is there is left alone.

Examples:
  snap config init                              ./snap.toml
  snap config init -c /etc/snap/snap.toml")]
    Init,
}

impl ConfigCommand {
    /// The name in JSON summaries.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Check => "config check",
            Self::Show => "config show",
            Self::Init => "config init",
        }
    }
}

/// What `policy` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
For every dataset, configured or found: how many copies hold its newest snapshot, on how many media, how many of them
are elsewhere, whether one is immutable; and whether what is called two copies can be lost at once.

Examples:
  snap policy
  snap policy --check                           from a timer: 4 if 3-2-1 does not hold
  snap policy --json")]
pub struct PolicyArgs {
    /// Exit 4 if there is a finding.
    #[arg(long)]
    pub check: bool,

    /// Ask every copy what can be deleted; without it, those that are called immutable.
    #[arg(long)]
    pub locks: bool,

    /// First make the locks of all that kept snapshots need last, in the copies whose `lock` says so. Owners only; their
    /// `backup` and `forget` do it too.
    #[arg(long)]
    pub extend_locks: bool,
}
