//! Verifying a repository.
//!
//! [`check()`] looks at the structure first: config, epochs, every index object, snapshot, record and mark is read and
//! verified, every pack that an index names must be there in its full length, every snapshot must have its predecessor or
//! a record that forgot it. Roles that read then walk every tree once: each reference must resolve, and lengths must add
//! up (F21). On top of that comes as much of the packs as [`ReadData`] asks for. [`check_keyless`] needs no key.
//!
//! What the codes of [`Finding`] mean here, by the object that a finding names:
//!
//! - `missing`: the object is not there, and something that can be believed names it.
//! - `corrupt`: its bytes are not what was written. One finding stands for all blobs lost in a pack.
//! - `misnamed`: it holds the bytes of another object of this repository, or one of another kind.
//! - `unindexed`: a pack that snapshots need and no index names. Other packs without an index are what interrupted runs
//!   leave; they are legal (F28) and no finding.
//! - `dangling`: the snapshot needs a blob that neither an index nor a pack names.
//! - `forged`: signed by nobody who may; or whole by its name, and not true. A snapshot that a record forgot and that is
//!   there again counts as put there by somebody who may not.
//!
//! A tail of snapshots that was cut off leaves no trace, nor do records and marks: see the threat model.
//!
//! Everything is asked of the store itself in ranges, which no cache answers.

mod damage;
mod immutable;
mod keyless;
mod packs;
mod report;
mod sample;
mod store;
mod structure;
mod trace;
mod trees;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use snap_format::ObjectId;
use snap_repo::{Area, BlobReader, Finding, FindingCode, Repository, object_name};

use crate::work::lock;
use crate::{Context, Phase, Result};
use damage::Damage;
use packs::PackCheck;
use report::Findings;
use store::Store;
use structure::Structure;
use trees::Trees;

pub use immutable::{AreaLocks, ImmutableReport, Outcome, Probe, check_immutable};
pub(crate) use keyless::CONFIGS;
pub use keyless::check_keyless;

/// How much of the packs to read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// None: structure alone.
    #[default]
    None,
    /// All of them.
    All,
    /// Every pack falls in one part by its name, so that as many runs as there are parts read everything. The first 8
    /// bytes of the name as a big-endian number, modulo `of`, are `number - 1`.
    Part {
        /// Which part, from 1.
        number: u64,
        /// How many there are.
        of: u64,
    },
    /// A share of the packs: those that come first when sorted by `BLAKE3(seed as 8 little-endian bytes | name)`.
    Percent {
        /// Of their number, 0 to 100; rounded up.
        percent: f64,
        /// Draws others.
        seed: u64,
    },
    /// Packs in the order of [`ReadData::Percent`] until they reach this many bytes together.
    Bytes {
        /// How many.
        bytes: u64,
        /// Draws others.
        seed: u64,
    },
}

/// What to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// How much of the packs to read.
    pub read_data: ReadData,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Damage, sorted.
    pub findings: Vec<Finding>,
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read from the store; of packs that were not read whole, the trees alone.
    pub read_bytes: u64,
    /// Packs that no index names and that nothing needs: what interrupted runs left (F28), and no damage.
    pub leftovers: Vec<ObjectId>,
    /// How many times blobs are stored beyond the first: no damage either.
    pub duplicates: u64,
}

/// Checks that every reference resolves, and reads as much of the packs as asked. Each finding goes to the observer too.
/// Objects of a newer version are warned of; if nothing else was found they are an error, since they were not checked.
pub fn check(repository: &Repository, options: &CheckOptions, context: Context<'_>) -> Result<CheckReport> {
    let read_bytes = AtomicU64::new(0);
    let store = Store { backend: repository.backend().as_ref(), context, read_bytes: &read_bytes };
    let mut findings = Findings::default();
    keyless::check_configs(store, &mut findings.objects)?;
    let mut structure = Structure::gather(repository, store)?;
    findings.objects.append(&mut structure.findings);
    findings.add_opening(repository);
    findings.newer.append(&mut structure.newer);

    let damage = Damage::default();
    for pack in &structure.missing {
        damage.whole_pack(pack, missing_pack(pack, &structure));
    }
    let reader = BlobReader::new(repository.clone(), structure.index.clone());
    let packs = PackCheck {
        repository,
        store,
        structure: &structure,
        reader: &reader,
        damage: &damage,
        lies: Mutex::default(),
        newer: Mutex::default(),
    };
    let mut suspects = structure.suspects.clone();
    let trees = match repository.keyring().can_read() {
        true => Some(Trees::new(&packs)?),
        false => None,
    };
    context.progress.begin(Phase::Checking, 0, 0);
    if let Some(trees) = &trees {
        trees.walk()?;
        suspects.append(&mut lock(&trees.suspects));
    }

    let all: Vec<(ObjectId, u64)> = structure.packs.iter().map(|(id, size)| (*id, *size)).collect();
    let mut selected = sample::select(options.read_data, all)?;
    let chosen: HashSet<ObjectId> = selected.iter().map(|(id, _)| *id).collect();
    let further = suspects.iter().filter(|id| !chosen.contains(*id));
    selected.extend(further.filter_map(|id| structure.packs.get(id).map(|size| (*id, *size))));
    let bytes = selected.iter().map(|(_, size)| size).sum();
    context.progress.begin(Phase::ReadingData, selected.len() as u64, bytes);
    packs.read(&selected)?;

    findings.objects.append(&mut lock(&packs.lies));
    findings.newer.append(&mut lock(&packs.newer));
    match &trees {
        Some(trees) => findings.add_traced(trees, &damage)?,
        None => {
            findings.objects.extend(damage.findings().into_iter().map(|(_, finding)| finding));
            findings.objects.extend(structure.packs_of_committed_runs());
        }
    }
    let findings = findings.finish(context)?;
    let objects = structure.objects + CONFIGS.len() as u64;
    let (leftovers, duplicates) = (structure.leftovers(&findings), structure.duplicates());
    let read_bytes = read_bytes.load(Ordering::Relaxed);
    Ok(CheckReport { findings, objects, read_bytes, leftovers, duplicates })
}

fn missing_pack(pack: &ObjectId, structure: &Structure) -> Finding {
    let claim = structure.claims.get(pack).and_then(|claims| claims.first());
    let why = claim.map_or_else(
        || "an index names it".to_owned(),
        |claim| format!("the index object {} of {} names it", claim.index, claim.signer),
    );
    Finding::new(FindingCode::Missing, object_name(Area::Packs, pack).as_str(), why)
}
