use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::look::FilterArgs;

/// What `mount` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
The snapshots are below DIR/latest/DATASET/HOST, DIR/by-dataset/DATASET/HOST/TIME, DIR/by-time/TIME and DIR/by-id/ID;
new ones appear. With --snapshot its content is in DIR itself. Nothing can be written there.
It lasts until `umount DIR` or Ctrl-C. What a killed program leaves is taken away by `umount -l DIR`, or by
`fusermount3 -u DIR` as an ordinary user.

Examples:
  snap mount /mnt/snap
  snap mount /mnt/snap --snapshot latest --host web1
  cp -a /mnt/snap/latest/files/web1/home/me/notes .
  snap mount /mnt/snap --allow-other            for all users, each sees what the modes let him")]
pub struct MountArgs {
    /// An empty directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// Only this snapshot, in DIR itself: latest, latest~N or the first digits of an id.
    #[arg(long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,

    /// Let other users look, too; modes, owners and ACLs hold.
    #[arg(long)]
    pub allow_other: bool,

    /// With --allow-other: whoever looks may read everything, whatever the modes say.
    #[arg(long, requires = "allow_other")]
    pub no_default_permissions: bool,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}
