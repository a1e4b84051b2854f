//! Looking through many snapshots at once: what is where, since when, what changed, what is gone.
//!
//! A [`History`] is the snapshots that are meant, opened. [`find`] looks for names, [`versions`] follows one path, [`diff`]
//! compares two snapshots, [`deleted`] compares the live file system with all of them. A tree that several snapshots share is
//! read once. Damage is told to the observer, with what it hides; what is elsewhere is found all the same.

mod compare;
mod cursor;
mod deleted;
mod diff;
mod find;
mod history;
mod matcher;
mod versions;

pub use compare::Change;
pub use deleted::{DeletedReport, Vanished, deleted};
pub use diff::{DiffReport, DiffSide, Differing, diff};
pub use find::{FindReport, find};
pub use history::{History, Past};
pub use matcher::{EntryType, FindOptions};
pub use versions::{Version, Versions, versions};
