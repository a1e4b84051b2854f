use clap::Args;

use super::values::{Grace, Unused};

const PRUNE_HELP: &str = "\
What no snapshot needs any more is marked first, and deleted by the first prune after the grace. Backups, restores and checks
go on meanwhile, from any machine; a backup that relied on something that goes notices it, and moves or stores it again.
With --grace 0 it is deleted at once: a backup that runs right now may then have to be run again.
Packs of which too much is unused are repacked, small packs and index objects are merged.

Examples:
  snap prune --dry-run                          what would be freed
  snap prune                                    once a day: deletes what the day before marked
  snap prune --grace 0 --max-unused 0           free all that can be freed, now
  snap forget --keep-daily 14 --prune           forget, then prune";

/// What `prune` takes.
#[derive(Debug, Args)]
#[command(after_help = PRUNE_HELP)]
pub struct PruneArgs {
    /// How long what is marked stays, by the store's own times: 0, 90min, 48h, 7d [default: 23h].
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Grace>,

    /// Leave so much unused data where it is, as moving the rest costs more: a share, a size or `unlimited` [default: 5%].
    #[arg(long, value_name = "P%|SIZE|unlimited")]
    pub max_unused: Option<Unused>,

    /// Only show what would be done.
    #[arg(long, short = 'n')]
    pub dry_run: bool,
}
