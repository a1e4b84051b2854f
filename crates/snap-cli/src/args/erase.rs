use std::path::PathBuf;

use clap::Args;

use super::values::Grace;

const ERASE_HELP: &str = "\
Writes the snapshots anew without what is erased, in the same place of their series, and forgets the old ones; in all copies
that can be reached, or the one that --copy names. A path is that of a file or of a directory with all that is below; patterns
are not taken. Other names of a hard-linked file are others.
Then it prunes: the packs that hold what was erased hold nothing else by then, and the first prune after the grace deletes them.
It says which copies still hold the bytes, and until when; locks of a bucket cannot be cut short. The next backup stores the path
again, unless it is excluded. Needs an owner's key.

Examples:
  snap erase --path /srv/app/customers.csv --reason 'request of 2026-11-20' --dry-run
  snap erase --path /home/ann --host web1 --reason 'she left' --yes
  snap erase --dataset orders --from 2025-01-01 --to 2025-06-30 --reason 'retention' --yes
  snap erase --path /srv/key.pem --reason 'leaked' --grace 0 --yes";

/// What `erase` takes.
#[derive(Debug, Args)]
#[command(after_help = ERASE_HELP)]
pub struct EraseArgs {
    /// Erase this file or directory; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub path: Vec<PathBuf>,

    /// Erase the snapshots of this dataset; with --path, only from them. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub dataset: Vec<String>,

    /// Only from snapshots of this host; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,

    /// Only from snapshots as old as this one or newer: a snapshot, a day or a time.
    #[arg(long, value_name = "SNAPSHOT|TIME")]
    pub from: Option<String>,

    /// Only from snapshots as old as this one or older: a snapshot, a day (to its end) or a time.
    #[arg(long, value_name = "SNAPSHOT|TIME")]
    pub to: Option<String>,

    /// Why; kept in a signed record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,

    /// How long what held it waits for its deletion, such as 48h or 7d; 0 deletes at once [default: 23h].
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Grace>,

    /// Pinned snapshots too; those that stay in part stay pinned.
    #[arg(long)]
    pub pinned: bool,

    /// Only show what would be erased.
    #[arg(long, short = 'n')]
    pub dry_run: bool,

    /// Do not ask.
    #[arg(long, short = 'y')]
    pub yes: bool,
}
