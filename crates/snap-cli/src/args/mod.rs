//! The one clap tree: help, completions, man pages and the reference all come from it.
//!
//! Parsed here, validated where it is used. No environment is read here: a key flag silences every key variable, and
//! that is decided in `keys`.

mod backup;
mod config;
mod copy;
mod erase;
mod history;
mod key;
mod look;
mod prune;
mod repair;
mod restore;
mod retention;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

pub use backup::BackupArgs;
pub use config::{ConfigArgs, ConfigCommand, PolicyArgs};
pub use copy::CopyArgs;
pub use erase::EraseArgs;
pub use history::{DeletedArgs, DiffArgs, FindArgs, VersionsArgs};
pub use key::{KeyAddArgs, KeyArgs, KeyCommand, RoleArg};
pub use look::{CatArgs, CheckArgs, FilterArgs, LsArgs, SnapshotsArgs, SortBy};
pub use prune::PruneArgs;
pub use repair::RepairArgs;
pub use restore::RestoreArgs;
pub use retention::{ForgetArgs, PinArgs, TagArgs};
use values::Size;

const AFTER_HELP: &str = "\
Exit codes:
  0 done   1 failed   2 usage   3 done, but some source entries could not be read
  4 damage, or a finding of policy --check   10 no repository there   12 wrong key, or a role that may not
  130 interrupted   143 terminated

Examples:
  snap backup ~                                 the first run makes a repository and its key
  snap snapshots                                what there is
  snap restore latest:/home/me/notes --target . bring one directory back
  snap -r s3://bucket/prefix --password-file pw backup /srv --tag nightly";

/// Backs up to an encrypted, deduplicating repository, and brings the data back.
#[derive(Debug, Parser)]
#[command(name = "snap", version, arg_required_else_help = true)]
#[command(after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Filters given before the command.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes, before or after its name.
#[derive(Debug, Default, Clone, Args)]
pub struct GlobalArgs {
    /// Directory or URI of the repository [env: SNAP_REPO] [default: one in your data directory].
    #[arg(short, long, global = true, value_name = "PATH|URI", value_hint = ValueHint::DirPath)]
    pub repo: Option<OsString>,

    /// The configuration [env: SNAP_CONFIG] [default: ./snap.toml, else the user's, else /etc/snap/snap.toml].
    #[arg(short, long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Use this one of the configured copies [default: the first].
    #[arg(long, global = true, value_name = "NAME")]
    pub copy: Option<String>,

    /// Open with this key file, for unattended runs [env: SNAP_KEY_FILE].
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Key")]
    pub key_file: Option<PathBuf>,

    /// Read the password from this file [env: SNAP_PASSWORD_FILE; SNAP_PASSWORD holds the password itself].
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Key")]
    pub password_file: Option<PathBuf>,

    /// Run this and take its output as the password; no shell is involved [env: SNAP_PASSWORD_COMMAND].
    #[arg(long, global = true, value_name = "COMMAND", help_heading = "Key")]
    pub password_command: Option<String>,

    /// Open as owner with the printed recovery key in this file, - for standard input [env: SNAP_RECOVERY_KEY].
    #[arg(long, global = true, value_name = "FILE|-", value_hint = ValueHint::FilePath, help_heading = "Key")]
    pub recovery_key_file: Option<PathBuf>,

    /// Write JSON lines to standard output, the last one a summary.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,

    /// Say nothing but errors and warnings.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,

    /// Name every entry that is stored, restored or deleted.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,

    /// Draw no progress bar; there is one only on a terminal anyway.
    #[arg(long, global = true, help_heading = "Output")]
    pub no_progress: bool,

    /// Where to keep the local cache; it may be deleted at any time [env: SNAP_CACHE_DIR].
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Resources")]
    pub cache_dir: Option<PathBuf>,

    /// Memory for data on its way, such as 64M or 1GiB [env: SNAP_MEMORY] [default: 160MiB].
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Resources")]
    pub memory: Option<Size>,

    /// Upload at most SIZE a second, such as 2M.
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Resources")]
    pub limit_upload: Option<Size>,

    /// Download at most SIZE a second.
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Resources")]
    pub limit_download: Option<Size>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository and print its recovery key.
    #[command(after_help = "\
The global key options become the first owner's key; --key-file FILE creates FILE if it is not there.
The recovery key is printed once, to standard error: it opens the repository when the key is lost.

Examples:
  snap init -r /mnt/disk/snap --key-file ~/.config/snap.key
  snap init -r s3://bucket/prefix --password-file /etc/snap/password
  snap init                                     in your data directory, with a key file beside it
  snap init -r /mnt/other/snap --copy-of /mnt/disk/snap
  snap init --copy cloud --copy-of disk         both as snap.toml names them")]
    Init(InitArgs),
    /// Back up files, a stream or the output of a command.
    Backup(Box<BackupArgs>),
    /// List snapshots, oldest first.
    Snapshots(SnapshotsArgs),
    /// List what is in a snapshot.
    Ls(LsArgs),
    /// Look for names in all snapshots.
    Find(FindArgs),
    /// List the versions of a path, and which snapshots hold them.
    Versions(VersionsArgs),
    /// Compare two snapshots, or a part of them.
    Diff(DiffArgs),
    /// List what is gone from this machine, and how to get it back.
    Deleted(DeletedArgs),
    /// Write a file of a snapshot to standard output, or a directory as a tar.
    Cat(CatArgs),
    /// Show how large the repository is and what it saves.
    #[command(after_help = "Examples:\n  snap stats\n  snap -r /mnt/disk/snap stats --json")]
    Stats,
    /// Bring a snapshot, or a part of it, back.
    Restore(Box<RestoreArgs>),
    /// Bring copies up to date.
    Copy(CopyArgs),
    /// Verify the repository.
    Check(CheckArgs),
    /// Rebuild what can be rebuilt, and mark what is lost.
    Repair(RepairArgs),
    /// Drop snapshots, by a policy or by name.
    Forget(Box<ForgetArgs>),
    /// Free the space of what no snapshot needs any more.
    Prune(PruneArgs),
    /// Take files, or whole snapshots, out of the repository.
    Erase(Box<EraseArgs>),
    /// Keep snapshots from being forgotten.
    Pin(PinArgs),
    /// Change the tags of snapshots.
    Tag(TagArgs),
    /// List, add and remove the keys of the repository.
    Key(KeyArgs),
    /// State for each dataset how many copies there are, and whether they are apart.
    Policy(PolicyArgs),
    /// Check, show or begin the configuration.
    Config(ConfigArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "\
Examples:
  snap completions bash > ~/.local/share/bash-completion/completions/snap
  snap completions zsh > ~/.zfunc/_snap
  snap completions fish > ~/.config/fish/completions/snap.fish")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page, or write all of them to a directory.
    #[command(after_help = "\
Examples:
  snap man | man -l -
  snap man key add | man -l -
  snap man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}

/// What `init` takes.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Make a copy of this repository: the same keys open both, and `backup` writes to all copies that snap.toml names. A
    /// directory, a URI, or the name of a copy.
    #[arg(long, value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub copy_of: Option<String>,
}

/// What `man` takes.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command whose page is wanted, such as `backup` or `key add`; none for the main page.
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,

    /// Write the pages of all commands to this directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "command")]
    pub dir: Option<PathBuf>,

    /// Print the reference of all commands as Markdown.
    #[arg(long, hide = true, conflicts_with_all = ["command", "dir"])]
    pub markdown: bool,
}

impl Command {
    /// The name in JSON summaries.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Snapshots(_) => "snapshots",
            Self::Ls(_) => "ls",
            Self::Find(_) => "find",
            Self::Versions(_) => "versions",
            Self::Diff(_) => "diff",
            Self::Deleted(_) => "deleted",
            Self::Cat(_) => "cat",
            Self::Stats => "stats",
            Self::Restore(_) => "restore",
            Self::Copy(_) => "copy",
            Self::Check(_) => "check",
            Self::Repair(_) => "repair",
            Self::Forget(_) => "forget",
            Self::Prune(_) => "prune",
            Self::Erase(_) => "erase",
            Self::Pin(_) => "pin",
            Self::Tag(_) => "tag",
            Self::Key(args) => args.command.name(),
            Self::Policy(_) => "policy",
            Self::Config(args) => args.command.name(),
            Self::Completions { .. } => "completions",
            Self::Man(_) => "man",
        }
    }

    /// Whether the command reads stored data, so that a key which may is preferred.
    pub const fn reads_content(&self) -> bool {
        matches!(
            self,
            Self::Check(CheckArgs { repair: false, .. })
                | Self::Ls(_)
                | Self::Find(_)
                | Self::Versions(_)
                | Self::Diff(_)
                | Self::Deleted(_)
                | Self::Cat(_)
                | Self::Restore(_)
        )
    }

    /// Whether the command prints something other than events on standard output, so that `--json` has no room there.
    pub fn owns_stdout(&self) -> bool {
        match self {
            Self::Cat(_) | Self::Completions { .. } => true,
            Self::Man(args) => args.dir.is_none(),
            Self::Restore(args) => args.is_tar(),
            _ => false,
        }
    }
}

/// What can be told of a command line that clap refuses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// `--json` is there.
    pub json: bool,
    /// The command, if there is one.
    pub command: Option<String>,
}

impl Glimpse {
    /// Looks at the arguments without parsing them.
    pub fn of(args: &[OsString]) -> Self {
        let own = args.iter().skip(1).take_while(|arg| *arg != "--");
        let mut out = Self::default();
        let tree = Cli::command();
        for arg in own.filter_map(|arg| arg.to_str()) {
            out.json |= arg == "--json";
            if out.command.is_none() && tree.find_subcommand(arg).is_some() {
                out.command = Some(arg.to_owned());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_help_and_every_command_examples() {
        fn visit(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no help");
            if !command.has_subcommands() || name == "snap" {
                let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("Examples:"), "{name} has no examples");
            }
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{name}: {} has no help", arg.get_id());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn global_flags_go_before_or_after_the_command() {
        for line in ["snap -r /x --json ls", "snap ls -r /x --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json && cli.global.repo.as_deref() == Some("/x".as_ref()), "{line}");
        }
    }

    #[test]
    fn a_glimpse_sees_json_and_the_command() {
        let glimpse = |line: &str| Glimpse::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(glimpse("snap --nonsense ls --json").command.as_deref(), Some("ls"));
        assert!(glimpse("snap --nonsense ls --json").json);
        assert!(!glimpse("snap backup -- --json").json);
        assert_eq!(glimpse("snap"), Glimpse::default());
    }
}
