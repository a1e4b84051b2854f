//! The verbs: back up, restore, check, look. They join a source with a repository and know neither terminals nor clocks.
//!
//! - [`backup()`] takes [`BackupOptions`] and commits a snapshot.
//! - [`restore()`] brings a snapshot, a directory or a file of it back, [`restore_guarded`] among newer things; [`browse`] looks without restoring, [`read_ahead`] gives contents in order.
//!   [`SnapshotFiles`] gives them to whoever restores into something that is no file system.
//! - [`backup_copies()`] does so in several copies at once, [`copy_snapshots()`] brings one up to date.
//! - [`check()`] verifies a repository, [`check_keyless`] without any key; [`heal()`] brings back what is damaged.
//! - [`ForgetPlan`] says what a [`retention::Policy`] keeps and drops, and drops it.
//! - [`erase::ErasePlan`] takes paths out of snapshots, or whole snapshots.
//! - [`repair::repair()`] rebuilds what can be rebuilt and marks what is lost.
//! - [`rewrite`] makes new snapshots of old ones, without some nodes or with others in their place.
//! - [`locks`] says how long nobody can delete what a snapshot needs, and makes that longer.
//! - [`prune()`] frees the space of what no snapshot needs.
//! - [`Selector`] names snapshots as a user does: `latest`, `latest~2`, an id prefix.
//! - [`estimate`] says how long a restore will take, by earlier ones.
//! - [`Context`] is what every verb is given: threads, memory, an [`Observer`] for everything that is not fatal, a
//!   [`Progress`] to draw, and a way to be stopped.
//!
//! Not here: arguments and rendering (`snap-cli`), order of writes (`snap-repo`), system calls on files (`snap-source`).

pub mod backup;
pub mod browse;
pub mod check;
mod context;
mod copy;
pub mod erase;
mod error;
pub mod estimate;
mod forget;
mod heal;
pub mod locks;
pub mod look;
mod prune;
pub mod read_ahead;
pub mod repair;
pub mod restore;
pub mod retention;
pub mod rewrite;
mod select;
mod stats;
mod stored;
mod work;

pub use backup::{BackupOptions, BackupReport, BackupSource, CommandStream, Lag, backup, backup_copies};
pub use check::{CheckOptions, CheckReport, ReadData, check, check_immutable, check_keyless};
pub use context::{Context, Event, NullObserver, Observer, Phase, Progress};
pub use copy::{CopyOptions, CopyReport, copy_snapshots, note_forgotten};
pub use error::EngineError;
pub use forget::ForgetPlan;
pub use heal::{HealOptions, HealReport, Sibling, heal};
pub use prune::prune;
pub use restore::{Overwrite, RestoreOptions, RestoreReport, RestoreTarget, restore, restore_guarded};
pub use select::{Selection, Selector, SnapshotFilter};
pub use stats::{RepositoryStats, stats};
pub use stored::SnapshotFiles;

/// One word for the result of everything here.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
