use clap::Args;

const REPAIR_HELP: &str = "\
Reads everything, then rebuilds what can be rebuilt: the config and its twin, lost epochs from this machine's cache, the index
from the headers of packs, what is left of damaged packs. What is lost for good is never hidden: a file keeps its size, what
is missing becomes a hole, and the attribute user.snap.missing tells where; its snapshot gets the tag `repaired`.
What another copy still has is better brought back from there first: a damaged object may be replaced by the whole one of the
same name. Needs an owner's key.
Exit code 4 says that something is lost, or, of a rehearsal, that something is wrong.

Examples:
  snap repair --dry-run
  snap repair
  snap -r /mnt/disk/snap --key-file owner.key repair --json";

/// What `repair` takes.
#[derive(Debug, Args)]
#[command(after_help = REPAIR_HELP)]
pub struct RepairArgs {
    /// Only show what is wrong and what would be done.
    #[arg(long, short = 'n')]
    pub dry_run: bool,

    /// Go on although an epoch seems to be lost, and remove what is sealed under its keys.
    #[arg(long)]
    pub give_up_epochs: bool,
}
