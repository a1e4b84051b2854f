//! Putting a repository right: what can be rebuilt is rebuilt, what is lost is marked, and everything is said.
//!
//! Config and epochs come first, before a key opens anything: [`snap_repo::repair::Foundations`]. [`repair()`] does the rest, in
//! the order in which nothing is lost wherever it dies: what is new is stored, indexed and marked; then snapshots are written
//! anew; then index objects go, then packs, then marks, which leave a trace (F26, F34). Run again, it goes on. Backups may run
//! meanwhile; of a prune and a repair at the same time one gives way.

mod carry_out;
mod diagnose;
mod mend;

use snap_format::{IndexedPack, ObjectId, Time};
use snap_repo::{Area, Cache, Finding, FindingCode, RepoError, Repository, object_name};

use crate::{Context, Result};

/// The tag of snapshots of which something is missing.
pub const REPAIRED: &str = "repaired";

/// How to repair.
#[derive(Debug, Clone, Copy)]
pub struct RepairOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Go on although an epoch seems to be lost: what is sealed under its keys is removed.
    pub give_up_epochs: bool,
    /// The time, for records.
    pub now: Time,
}

/// What was wrong with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // `describe` says it
pub enum Ill {
    LostConfig,
    LostEpoch,
    StrayEpoch,
    UnindexedPack,
    MissingPack,
    DamagedPack,
    HalfWrittenPack,
    DamagedIndex,
    FalseIndex,
    DamagedSnapshot,
    LostSnapshot,
    RisenSnapshot,
    DamagedRecord,
    DamagedMark,
    LostBlobs,
}

impl Ill {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LostConfig => "config",
            Self::LostEpoch => "epoch",
            Self::StrayEpoch => "stray-epoch",
            Self::UnindexedPack => "unindexed-pack",
            Self::MissingPack => "missing-pack",
            Self::DamagedPack => "damaged-pack",
            Self::HalfWrittenPack => "half-written-pack",
            Self::DamagedIndex => "damaged-index",
            Self::FalseIndex => "false-index",
            Self::DamagedSnapshot => "damaged-snapshot",
            Self::LostSnapshot => "lost-snapshot",
            Self::RisenSnapshot => "risen-snapshot",
            Self::DamagedRecord => "damaged-record",
            Self::DamagedMark => "damaged-mark",
            Self::LostBlobs => "lost-blobs",
        }
    }
}

/// Something that is wrong, and what is done about it.
#[derive(Debug, Clone)]
pub struct Action {
    /// What sort of thing.
    pub ill: Ill,
    /// Which object, and what is wrong with it.
    pub finding: Finding,
    /// What is done.
    pub does: String,
}

impl Action {
    fn unindexed(pack: &IndexedPack) -> Self {
        let why =
            format!("no index names it; it holds {} blobs of the domain {}", pack.blobs.len(), pack.domain);
        let name = object_name(Area::Packs, &pack.id);
        let finding = Finding::new(FindingCode::Unindexed, name.as_str(), why);
        Self { ill: Ill::UnindexedPack, finding, does: "indexed from its header".into() }
    }
}

/// A file or directory of which something is lost for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The snapshot as it was.
    pub snapshot: ObjectId,
    /// Absolute path, raw bytes.
    pub path: Vec<u8>,
    /// What is missing: `offset+len,…`, in bytes, or `tree` for a directory.
    pub missing: String,
}

/// What was found and done; of a rehearsal, what would be done.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Everything, in the order in which it is done.
    pub actions: Vec<Action>,
    /// Files and directories of which something is lost.
    pub lost: Vec<Lost>,
    /// How many there are, those that are not listed included.
    pub lost_count: u64,
    /// Snapshots that were written anew: ids, old and new. Of a rehearsal, the old one twice.
    pub rewritten: Vec<(ObjectId, ObjectId)>,
    /// Blobs that were moved out of damaged packs.
    pub moved_blobs: u64,
    /// Temporary files of interrupted writes that were removed.
    pub temporaries: u64,
    /// Objects that only a newer version can judge: left alone.
    pub newer: Vec<RepoError>,
    /// Blobs that are stored more than once: no damage, and left to `prune`.
    pub duplicates: u64,
}

impl RepairReport {
    /// Whether something is lost for good: data, snapshots, or what records said.
    pub fn has_losses(&self) -> bool {
        let is_loss = |ill: Ill| matches!(ill, Ill::DamagedSnapshot | Ill::LostSnapshot | Ill::DamagedRecord);
        self.lost_count > 0 || self.actions.iter().any(|action| is_loss(action.ill))
    }
}

/// Finds what is wrong, reading everything, and puts it right. Owners only. [`RepoError::Overtaken`] if a prune gets in the way:
/// then nothing was taken away, and it may be run again.
pub fn repair(
    repository: &Repository,
    cache: Option<&Cache>,
    options: &RepairOptions,
    context: Context<'_>,
) -> Result<RepairReport> {
    repository.keyring().require_owner("repairing a repository")?;
    let diagnosis = diagnose::diagnose(repository, cache, options, context)?;
    carry_out::carry_out(repository, cache, diagnosis, options, context)
}
