use std::path::PathBuf;

use clap::Args;
use snap_engine::look::EntryType;

use super::look::FilterArgs;
use super::values::{self, Moment, SizeRange, SnapshotPath};

/// What `find` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
A PATTERN is a name at any depth; with a slash in it, the end of a path; with one in front, a whole path. * and ? stop at slashes,
** does not, a slash at the end asks for directories. All snapshots are searched, unless filters or --snapshot say otherwise.
What is found comes as SNAPSHOT:PATH, which ls, cat, diff and restore take. Nothing found is no failure.

Examples:
  snap find 'invoice-*.pdf'
  snap find notes.md --once                     where it was last
  snap find '/srv/app/**/*.conf' --snapshot latest
  snap find --regex '/(core|dump)\\.[0-9]+$' --size +1G
  snap find '*.odt' --newer 7d --host laptop -l")]
pub struct FindArgs {
    /// What to look for; several: entries that any of them names.
    #[arg(value_name = "PATTERN", required_unless_present_any = ["kind", "size", "newer", "older"])]
    pub pattern: Vec<String>,

    /// The patterns are regular expressions, looked for anywhere in the path.
    #[arg(long, requires = "pattern")]
    pub regex: bool,

    /// Take upper and lower case alike.
    #[arg(short, long)]
    pub ignore_case: bool,

    /// Only entries of this type: file, dir, symlink, fifo, char, block or object; may be repeated.
    #[arg(long = "type", id = "kind", value_name = "TYPE", value_delimiter = ',', value_parser = values::entry_type)]
    pub kind: Vec<EntryType>,

    /// Only files of this size: +1G at least, -10M at most, 1M..2M between, or exactly.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub size: Option<SizeRange>,

    /// Only what was modified at this time or later: 2026-01-31, 2026-01-31T12:00:00Z, or 7d for so long ago.
    #[arg(long, value_name = "TIME")]
    pub newer: Option<Moment>,

    /// Only what was modified at this time or earlier.
    #[arg(long, value_name = "TIME")]
    pub older: Option<Moment>,

    /// Only in this snapshot: latest, latest~N or the first digits of an id; may be repeated.
    #[arg(short, long, value_name = "SNAPSHOT")]
    pub snapshot: Vec<String>,

    /// Name each path once, in the newest snapshot that has it; newest snapshots first.
    #[arg(long)]
    pub once: bool,

    /// Show type, mode, owner, size and time.
    #[arg(short, long)]
    pub long: bool,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `versions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Two versions differ in content, target, mode, owner, time or extended attributes. SNAPSHOT:PATH of each is that of the newest
snapshot that holds it, as cat, diff and restore take it.

Examples:
  snap versions /etc/fstab
  snap versions notes.md
  snap versions /srv/app --host web1 --json")]
pub struct VersionsArgs {
    /// A path as it was backed up; one that does not begin with a slash is meant from here.
    #[arg(id = "of", value_name = "PATH")]
    pub of: PathBuf,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `diff` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
  +  added     -  removed     M  content or target     U  mode, owner, time or attributes     T  another type

A PATH given on one side counts for both. That something differs is no failure.

Examples:
  snap diff                                     what the last backup found changed
  snap diff latest~7 latest
  snap diff 4f2a:/etc latest --content
  snap diff latest:/etc/nginx latest:/etc/nginx.old")]
pub struct DiffArgs {
    /// Before: latest, latest~N or the first digits of an id; then, after a colon, a path in it.
    #[arg(value_name = "A[:PATH]", default_value = "latest~1", value_parser = values::snapshot_path())]
    pub before: SnapshotPath,

    /// After.
    #[arg(value_name = "B[:PATH]", default_value = "latest", value_parser = values::snapshot_path())]
    pub after: SnapshotPath,

    /// Show what changed in text files.
    #[arg(long)]
    pub content: bool,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `deleted` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Compares what is on this machine now with all its snapshots, and names what they have and the machine has not, with the last
snapshot that has it and the command that brings it back. Of a directory that is gone, only what the command does not bring
back is named, too. Without --host, snapshots of this host are taken, or all if it has none.

Examples:
  snap deleted
  snap deleted ~/documents
  snap deleted /srv --dataset files --json")]
pub struct DeletedArgs {
    /// Where to look, as it was backed up [default: all source paths].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}
