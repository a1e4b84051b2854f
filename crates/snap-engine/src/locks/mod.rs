//! Locks of what snapshots need: how long nobody can delete it, and making that longer.
//!
//! [`Needs`] are the objects without which a snapshot cannot be restored: configuration, epochs, the snapshot, the packs of
//! its trees and data, and the index objects that name those packs. [`Locks`] is what the store says of them. The lock of a
//! snapshot is the weakest of all that it needs ([`Needs::weakest`]); [`extend_locks`] makes them last.
//!
//! Locks are a matter of single versions. Objects are written once, so an object with several versions was written over, or
//! a repetition of its own PUT; nobody here can tell which, so all of them are locked, and the weakest counts. What a delete
//! marker hides is locked too, and is not called locked: until the marker is taken away it cannot be read.

mod graph;
mod hold;
mod lost;
mod needs;

pub use hold::{Extension, Hold, Left, LockAim, Locks, SnapshotLock, Weakness, extend_locks};
pub use lost::{LostSnapshots, StoredSnapshots};
pub use needs::Needs;
