use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum, ValueHint};
use snap_format::Role;

use super::values;

/// What `key` takes.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What can be done with keys; owners only.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys.
    #[command(after_help = "Examples:\n  snap key list\n  snap key list --json")]
    List,
    /// Add a key for another person or machine.
    Add(KeyAddArgs),
    /// Remove a key: what is written from then on it cannot open.
    #[command(after_help = "\
What was written before stays readable to whoever kept both the old key and access to the store: change the store's
credentials too.

Examples:
  snap key list
  snap key remove 4f2a")]
    Remove {
        /// The first digits of its id, at least four.
        #[arg(value_name = "ID")]
        id: String,

        /// Remove it even if it is the key that opens the repository now.
        #[arg(long)]
        current: bool,
    },
    /// Seal what is written from now on under fresh keys; every key file, password and recovery key stays as it is.
    #[command(after_help = "\
It takes one owner's key and nothing from anybody else. Runs that are under way end under the old keys. What is stored
already stays under the old keys and stays readable. A stolen key file or password is not made useless by this: `snap
key remove` does that, and gives fresh keys as well.

Examples:
  snap key rotate --dry-run
  snap key rotate")]
    Rotate {
        /// Show what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Replace the recovery key by a fresh one and print it.
    #[command(after_help = "The old recovery key stops working.\n\nExamples:\n  snap key recovery")]
    Recovery,
    /// Try the recovery key that lies in the safe.
    #[command(after_help = "\
It opens the repository as owner and, for each change of keys since, the newest snapshot that was made under them.
Exits 0 if it does, 12 if it is not a key of this repository.

Examples:
  snap key verify-recovery                      asks for it
  snap key verify-recovery --recovery-key-file paper.txt")]
    VerifyRecovery,
}

impl KeyCommand {
    /// The name in JSON summaries.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::List => "key list",
            Self::Add(_) => "key add",
            Self::Remove { .. } => "key remove",
            Self::Rotate { .. } => "key rotate",
            Self::Recovery => "key recovery",
            Self::VerifyRecovery => "key verify-recovery",
        }
    }
}

/// What `key add` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
The global key options open the repository; the --new-… options give the key that is added.

Examples:
  snap key add --role backup --new-key-file /etc/snap/backup.key --label web1
  snap key add --role restore --new-key-file drill.key
  snap key add --role owner --new-password-file second-admin.txt")]
#[command(group = ArgGroup::new("new").required(true).args(["new_password_file", "new_password_command", "new_key_file"]))]
pub struct KeyAddArgs {
    /// What the key may do.
    #[arg(long, value_enum)]
    pub role: RoleArg,

    /// Read the new password from this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub new_password_file: Option<PathBuf>,

    /// Run this and take its output as the new password.
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<String>,

    /// Create this key file; one that is there already is refused.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub new_key_file: Option<PathBuf>,

    /// Whose key it is, for people.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub label: String,

    /// Share deduplication with this domain; for the role backup [default: a domain of its own].
    #[arg(long, value_name = "NAME", value_parser = values::domain)]
    pub domain: Option<String>,
}

/// `--role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Everything.
    Owner,
    /// Write, and see which snapshots there are, but not what is in them.
    Backup,
    /// Read, but not write.
    Restore,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Owner => Self::Owner,
            RoleArg::Backup => Self::Backup,
            RoleArg::Restore => Self::Restore,
        }
    }
}
