use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use snap_engine::Overwrite;

use super::FilterArgs;
use super::values::{self, OwnerPair, SnapshotPath};

const AFTER_HELP: &str = "\
`restore latest --target X` recreates absolute paths below X. `restore latest:/srv/app --target X` puts the contents
of /srv/app into X; of a file, the file. `--target /` restores in place, `--target -` writes a tar. In a bucket files become
objects, with time, mode and owner as metadata; links and what else it cannot hold are named and left out.
Only what differs is fetched and written: run it again after an interruption.
A database, /DB, a schema, /DB/tables/SCHEMA, or a table, /DB/tables/SCHEMA/TABLE.copy, goes into postgres://…/NEW, a database that is
made if it is not there and must be empty, or not have those tables.

What was modified after the snapshot is not overwritten unless --overwrite or --delete is given: nothing is touched then.
What is overwritten or deleted is saved first, in a snapshot with the tag before-restore, which can be restored like any
other: the command is printed.

Examples:
  snap restore latest --target /tmp/look
  snap restore latest:/srv/app --target /srv/app --dry-run
  snap restore latest:/srv/app --target /srv/app --missing-only
  snap restore latest~1 --target / --include /etc/nginx
  snap restore latest:/srv/uploads --target 's3://shop-uploads?region=eu-central-1' --missing-only
  snap restore latest:/shop --target postgres://postgres@/shop_again
  snap restore latest:/srv/app --target - | ssh web2 tar -x -C /srv/app";

/// What `restore` takes.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct RestoreArgs {
    /// latest, latest~N or the first digits of an id; then, after a colon, a path in it.
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = values::snapshot_path())]
    pub snapshot: SnapshotPath,

    /// Directory to restore into, made if missing; or the URI of a bucket or database; - writes a tar to standard output.
    #[arg(long, value_name = "DIR|URI|-", value_hint = ValueHint::DirPath)]
    pub target: PathBuf,

    /// Restore only what this pattern matches; may be repeated.
    #[arg(long, value_name = "PATTERN", help_heading = "What to restore")]
    pub include: Vec<String>,

    /// Do not restore what this pattern matches; may be repeated.
    #[arg(long, value_name = "PATTERN", help_heading = "What to restore")]
    pub exclude: Vec<String>,

    /// What to do with files that are there already.
    #[arg(long, value_name = "MODE", conflicts_with_all = ["missing_only", "no_overwrite_newer"])]
    #[arg(help_heading = "What is there already")]
    pub overwrite: Option<OverwriteArg>,

    /// Restore only what is missing; the same as --overwrite never.
    #[arg(long, conflicts_with = "no_overwrite_newer", help_heading = "What is there already")]
    pub missing_only: bool,

    /// Leave files alone that are newer than the snapshot's; the same as --overwrite if-newer.
    #[arg(long, help_heading = "What is there already")]
    pub no_overwrite_newer: bool,

    /// Delete what the snapshot does not have, inside the restored directories only.
    #[arg(long, help_heading = "What is there already")]
    pub delete: bool,

    /// Save what is overwritten or deleted as files in a new directory in this one, instead of in a snapshot.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "no_safety_snapshot")]
    #[arg(help_heading = "What is there already")]
    pub safety_dir: Option<PathBuf>,

    /// Do not save what is overwritten or deleted.
    #[arg(long, help_heading = "What is there already")]
    pub no_safety_snapshot: bool,

    /// Read everything back and compare after writing.
    #[arg(long)]
    pub verify: bool,

    /// Say what would be done (with -v to each entry), touch nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Do not set owners and groups: all belongs to whoever restores it.
    #[arg(long, help_heading = "Whose it is", conflicts_with_all = ["owners_by_name", "map_owner", "map_group"])]
    pub no_owner: bool,

    /// Go by the names of owners and groups where this machine knows them; else by number, as without this.
    #[arg(long, help_heading = "Whose it is")]
    pub owners_by_name: bool,

    /// Give what belonged to the user FROM to the user TO: names or numbers, * for all; may be repeated, the first that fits counts.
    #[arg(long, value_name = "FROM:TO", help_heading = "Whose it is")]
    pub map_owner: Vec<OwnerPair>,

    /// The same for groups.
    #[arg(long, value_name = "FROM:TO", help_heading = "Whose it is")]
    pub map_group: Vec<OwnerPair>,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl RestoreArgs {
    /// The target, if it is a URI and no directory.
    pub fn target_uri(&self) -> Option<&str> {
        self.target.to_str().filter(|target| target.contains("://"))
    }

    /// Whether a tar goes to standard output.
    pub fn is_tar(&self) -> bool {
        self.target.as_os_str() == "-"
    }

    /// Whether somebody said what becomes of what is there.
    pub fn is_decided(&self) -> bool {
        self.overwrite.is_some() || self.missing_only || self.no_overwrite_newer || self.delete
    }

    /// Whether something is said of what is saved, or of owners.
    pub fn keeps_or_maps(&self) -> bool {
        let maps = !self.map_owner.is_empty() || !self.map_group.is_empty();
        self.safety_dir.is_some() || self.no_safety_snapshot || self.owners_by_name || maps
    }

    /// The mode that the three flags mean.
    pub fn overwrite(&self) -> Overwrite {
        match self.overwrite {
            Some(OverwriteArg::IfChanged) => Overwrite::IfChanged,
            Some(OverwriteArg::IfNewer) => Overwrite::IfNewer,
            Some(OverwriteArg::Never) => Overwrite::Never,
            Some(OverwriteArg::Always) => Overwrite::Always,
            None if self.missing_only => Overwrite::Never,
            None if self.no_overwrite_newer => Overwrite::IfNewer,
            None => Overwrite::IfChanged,
        }
    }
}

/// `--overwrite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverwriteArg {
    /// Where it differs; only what differs is fetched and written. The default.
    IfChanged,
    /// Where the snapshot's file is newer.
    IfNewer,
    /// Never: only what is missing is restored.
    Never,
    /// Always, without comparing.
    Always,
}
