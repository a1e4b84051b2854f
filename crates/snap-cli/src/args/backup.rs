use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::values;

const AFTER_HELP: &str = "\
Patterns are those of a .gitignore: `*.o` at any depth, `/build` below the given paths, `!keep.o` takes back.
A command's output becomes one file; if the command fails, there is no snapshot.

Examples:
  snap backup /etc /srv --exclude '*.tmp' --tag nightly
  snap backup . --exclude-caches --one-file-system --skip-if-unchanged
  pg_dump shop | snap backup --stdin shop.sql
  snap backup --command shop.sql --dataset shop -- pg_dump shop
  find . -name '*.pdf' -print0 | snap backup --files-from0 -
  snap backup --source postgres://postgres@/shop --dataset shop";

/// What `backup` takes.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct BackupArgs {
    /// Files and directories to back up.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,

    /// The command to run with --command, and its arguments.
    #[arg(last = true, value_name = "ARGV", value_hint = ValueHint::CommandWithArguments)]
    pub argv: Vec<OsString>,

    /// Back up standard input as one file of this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["command", "paths", "files_from", "files_from0", "as_path"])]
    pub stdin: Option<String>,

    /// Back up what a command prints as one file of this name; the command follows `--`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "files_from", "files_from0", "as_path"])]
    pub command: Option<String>,

    /// Back up a database, such as postgres://user@host:port/database.
    #[arg(long, value_name = "URI", conflicts_with_all = ["stdin", "command", "paths", "argv", "files_from", "files_from0", "as_path"])]
    pub source: Option<String>,

    /// Also back up the paths in this file, one a line; empty lines and # comments are skipped; - for standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files_from: Vec<PathBuf>,

    /// Also back up the paths in this file, separated by NUL bytes and taken as they are; - for standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files_from0: Vec<PathBuf>,

    /// Name of what is protected [default: files, or the name of the database or the one given to --stdin or --command].
    #[arg(long, value_name = "NAME", value_parser = values::dataset, help_heading = "Snapshot")]
    pub dataset: Option<String>,

    /// Host name to record [default: this machine's].
    #[arg(long, value_name = "NAME", help_heading = "Snapshot")]
    pub host: Option<String>,

    /// Tag the snapshot; may be repeated or separated by commas.
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = values::tag, help_heading = "Snapshot")]
    pub tag: Vec<String>,

    /// A line about the snapshot, for people.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        help_heading = "Snapshot"
    )]
    pub label: String,

    /// Store under this absolute path instead of its own; for a single PATH.
    #[arg(long, value_name = "PATH", help_heading = "Snapshot")]
    pub as_path: Option<PathBuf>,

    /// Make no snapshot if nothing differs from the one before.
    #[arg(long, help_heading = "Snapshot")]
    pub skip_if_unchanged: bool,

    /// Leave out what this pattern matches.
    #[arg(long, value_name = "PATTERN", help_heading = "Leaving out")]
    pub exclude: Vec<String>,

    /// Leave out what the patterns in this file match.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Leaving out")]
    pub exclude_file: Vec<PathBuf>,

    /// Leave out the contents of directories that hold a file NAME, or one that begins with HEADER.
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = "Leaving out")]
    pub exclude_if_present: Vec<String>,

    /// Leave out the contents of directories marked as caches by a CACHEDIR.TAG.
    #[arg(long, help_heading = "Leaving out")]
    pub exclude_caches: bool,

    /// Do not enter other file systems.
    #[arg(long, help_heading = "Leaving out")]
    pub one_file_system: bool,

    /// Read this many files at once [default: chosen by the machine].
    #[arg(long, value_name = "N", value_parser = values::readers, help_heading = "Resources")]
    pub readers: Option<usize>,

    /// zstd level from 1, fast, to 19, small.
    #[arg(long, value_name = "LEVEL", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    #[arg(help_heading = "Resources")]
    pub compression: i32,

    /// Read and count, write nothing.
    #[arg(long)]
    pub dry_run: bool,
}
