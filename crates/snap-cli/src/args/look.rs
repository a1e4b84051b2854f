use std::path::PathBuf;

use clap::Args;

use super::values::{self, SnapshotPath, Subset};

/// Which snapshots are meant, wherever one is named.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Snapshot filters")]
pub struct FilterArgs {
    /// Only snapshots of this host; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,

    /// Only snapshots of this dataset; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub dataset: Vec<String>,

    /// Only snapshots with this tag; if repeated, with all of them.
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = values::tag)]
    pub tag: Vec<String>,

    /// Only snapshots of this source path; if repeated, of all of them.
    #[arg(long, value_name = "PATH")]
    pub path: Vec<PathBuf>,
}

impl FilterArgs {
    /// Both, joined.
    pub fn and(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.host.extend_from_slice(&other.host);
        out.dataset.extend_from_slice(&other.dataset);
        out.tag.extend_from_slice(&other.tag);
        out.path.extend_from_slice(&other.path);
        out
    }

    /// The first flag that is given.
    pub fn first_flag(&self) -> Option<&'static str> {
        let flags = [
            ("--host", self.host.is_empty()),
            ("--dataset", self.dataset.is_empty()),
            ("--tag", self.tag.is_empty()),
            ("--path", self.path.is_empty()),
        ];
        flags.into_iter().find(|(_, empty)| !empty).map(|(flag, _)| flag)
    }
}

/// What `snapshots` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snap snapshots
  snap snapshots --host web1 --tag nightly
  snap snapshots --dataset orders --json
  snap snapshots --locks                        until when can none of them be deleted?")]
pub struct SnapshotsArgs {
    /// Ask the store until when nothing that each snapshot needs can be deleted; reads all their trees.
    #[arg(long)]
    pub locks: bool,

    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `ls` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Everything below PATH is listed.

Examples:
  snap ls
  snap ls latest:/etc -l
  snap ls latest~1 --host web1
  snap ls latest:/srv --sort size               the largest first
  snap ls 4f2a --json")]
pub struct LsArgs {
    /// latest, latest~N or the first digits of an id; then, after a colon, a path in it.
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest", value_parser = values::snapshot_path())]
    pub snapshot: SnapshotPath,

    /// Show type, mode, owner, size and time.
    #[arg(short, long)]
    pub long: bool,

    /// Sort everything by path, by size (the largest first) or by time of modification (the newest first) [default: directory
    /// by directory, by name].
    #[arg(long, value_name = "BY")]
    pub sort: Option<SortBy>,

    /// The other way round.
    #[arg(long, requires = "sort")]
    pub reverse: bool,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `ls` sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum SortBy {
    Name,
    Size,
    Time,
}

/// What `cat` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snap cat latest:/etc/fstab
  snap cat latest~1:/srv/app/config.toml --host web1
  snap cat latest:/srv/app | tar -t")]
pub struct CatArgs {
    /// latest, latest~N or the first digits of an id; then, after a colon, a path in it.
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = values::snapshot_path())]
    pub snapshot: SnapshotPath,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `check` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Without flags every reference is followed: snapshots, trees, index, packs. Damage is listed, and the exit code is 4.

Examples:
  snap check                                    structure, a few minutes at most
  snap check --read-data                        every stored byte
  snap check --read-data-subset 3/30            on the third day of the month
  snap check --read-data-subset 2%
  snap check --repair                           the same, and bring back what is damaged
  snap check --copy cloud --repair              in the copy that snap.toml calls cloud
  snap -r /mnt/disk/snap check --keyless        on the storage host, without any key
  snap check --immutable                        what could this machine's credentials destroy?")]
pub struct CheckArgs {
    /// Read, authenticate and re-hash every stored byte.
    #[arg(long, conflicts_with_all = ["read_data_subset", "keyless"])]
    pub read_data: bool,

    /// Read a part of the data: the Nth of M parts, a percentage, or about this many bytes.
    #[arg(long, value_name = "N/M|P%|SIZE", conflicts_with = "keyless")]
    pub read_data_subset: Option<Subset>,

    /// Compare every object with its name; needs no key.
    #[arg(long)]
    pub keyless: bool,

    /// Read every stored byte (or the subset), and bring back what is damaged: from the other copies of snap.toml, or from
    /// files of this host that are still what they were. Checks again afterwards; exit 4 if damage is left. Needs an owner's key.
    #[arg(long, conflicts_with_all = ["keyless", "immutable"])]
    pub repair: bool,

    /// Try, on objects of its own, what the store's credentials could destroy, and show what is locked until when. Exit 4
    /// if they could destroy a copy that snap.toml calls immutable. Needs no key; with one that reads, only what snapshots
    /// need is asked.
    #[arg(long, conflicts_with_all = ["read_data", "read_data_subset", "keyless"])]
    pub immutable: bool,

    /// With --immutable: exit with 4 unless everything is locked and these credentials cannot undo it.
    #[arg(long, requires = "immutable")]
    pub require_immutable: bool,
}
