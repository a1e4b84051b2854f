use clap::{Args, ValueHint};

/// What `copy` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Each copy gets the snapshots that another has and it lacks, unless it has forgotten them itself, with all that they need,
and their pins and tags. What is stored moves as it is: nothing is decrypted. New keys go first. It may be interrupted at any
time and run again. `backup` writes to all copies at once; this is for those that were away, or are new.

Examples:
  snap copy                                     bring every copy of snap.toml up to date
  snap copy --to cloud --dry-run                what would one of them get?
  snap copy --from /mnt/disk/snap -r s3://bucket/prefix")]
pub struct CopyArgs {
    /// Take from this copy only: its name in snap.toml, a directory or a URI [default: from every copy].
    #[arg(long, value_name = "NAME|URI", value_hint = ValueHint::DirPath)]
    pub from: Option<String>,

    /// Bring only this copy up to date; may be repeated [default: every copy].
    #[arg(long, value_name = "NAME")]
    pub to: Vec<String>,

    /// Say what would be copied, and write nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}
