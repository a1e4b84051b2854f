//! Bringing back what a check has found damaged or missing: from other copies of the repository, from what is left of it, from
//! the trees that this machine keeps, and from the files themselves if they are still what they were.
//!
//! In this order, each step durable before the next:
//!
//! 1. Objects whose bytes another copy has under the same name: epochs, packs, snapshots, records. They are put in place of
//!    what stands there.
//! 2. The index of packs that none names, then damaged index objects go.
//! 3. Marks for the packs that stay damaged; then blobs that snapshots need and that lie in no whole pack, into new packs. Without
//!    the marks a prune could find these superfluous.
//! 4. Snapshots that are gone, with all that they need; what other copies have forgotten is noted. Then damaged bundles of snapshots
//!    and damaged records go, if nothing is missed for want of them.
//! 5. What is left of damaged packs goes, as a prune would do it (F32), and so do damaged marks.
//!
//! What cannot be had anywhere stays as it is: marking holes is the business of a repair.

mod blobs;
mod files;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;

use snap_backend::Bytes;
use snap_format::{ObjectId, Time};
use snap_repo::prune::PruneOptions;
use snap_repo::{
    Area, Cache, Finding, FindingCode, RepoError, Repository, Snapshot, for_each_parallel, object_name,
    parse_object_name,
};

use crate::check::CONFIGS;
use crate::work::lock;
use crate::{Context, Event, Phase, Result, prune};

/// The source of what was made of something else in the same copy.
const OWN: &str = "itself";
/// A pack on its way from one copy to another is in memory twice.
const PACK_BYTES: u64 = 40 << 20;

/// How to heal.
#[derive(Debug, Clone)]
pub struct HealOptions<'a> {
    /// The time of what is written.
    pub time: Time,
    /// Name of this host: its files are looked at for what snapshots of it have lost.
    pub host: &'a str,
    /// All other copies that there are can be asked: what none of them has nobody has.
    pub has_all_copies: bool,
    /// Size at which a pack is finished, bytes.
    pub pack_target: usize,
}

/// Another copy of the repository, opened under the same keys.
#[derive(Debug, Clone)]
pub struct Sibling {
    /// Its name.
    pub name: String,
    /// It.
    pub repository: Repository,
}

/// What was brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealReport {
    /// Objects that are whole again, and the copy that had them.
    pub objects: Vec<(String, String)>,
    /// Packs that an index names again.
    pub indexed: u64,
    /// Blobs that were stored again, from whichever copy or cache.
    pub blobs: u64,
    /// Blobs that were stored again from files.
    pub file_blobs: u64,
    /// Snapshots that are there again.
    pub snapshots: Vec<ObjectId>,
    /// Snapshots that were there once, that another copy forgot and none has: they are noted as forgotten.
    pub forgotten: Vec<ObjectId>,
    /// Damaged objects that are gone, since nothing needs them any more.
    pub removed: Vec<String>,
    /// Blobs that snapshots need and that are nowhere.
    pub lost: u64,
}

impl HealReport {
    /// Whether anything was done.
    pub fn has_done_something(&self) -> bool {
        *self != Self { lost: self.lost, ..Self::default() }
    }
}

/// Brings back what `findings` of a check of `repository` name. Owners only. The repository must have been opened without a
/// cache of its objects. What fails with one copy is a warning, and the next one is asked.
pub fn heal(
    repository: &Repository,
    siblings: &[Sibling],
    findings: &[Finding],
    cache: Option<&Cache>,
    options: &HealOptions<'_>,
    context: Context<'_>,
) -> Result<HealReport> {
    repository.keyring().require_owner("bringing back what is damaged")?;
    let mut heal = Heal {
        repository,
        siblings,
        cache,
        options,
        context,
        damage: Damage::of(findings),
        bad: HashSet::new(),
        report: HealReport::default(),
    };
    if findings.iter().any(|finding| CONFIGS.contains(&finding.object.as_str())) {
        let put = repository.put_back_own_config(options.time)?;
        heal.report.objects.extend(put.into_iter().map(|name| (name, OWN.to_owned())));
    }
    heal.objects()?;
    heal.index()?;
    heal.blobs()?;
    heal.snapshots()?;
    heal.leftovers()?;
    Ok(heal.report)
}

/// What a check has found, as far as it may be healed.
#[derive(Default)]
struct Damage {
    /// Objects that are missing, or that are not what their names say.
    objects: BTreeSet<(Area, ObjectId)>,
    /// Snapshots that another one names, and that are not there.
    gone: BTreeSet<ObjectId>,
    /// Packs are not named, or index objects damaged.
    is_index_torn: bool,
    /// Something that snapshots need is named by nothing.
    has_dangling: bool,
    /// The snapshots that lack something.
    touched: BTreeSet<ObjectId>,
}

impl Damage {
    fn of(findings: &[Finding]) -> Self {
        let mut out = Self::default();
        for finding in findings {
            let is_lost =
                matches!(finding.code, FindingCode::Missing | FindingCode::Corrupt | FindingCode::Misnamed);
            let object = parse_object_name(&finding.object);
            out.is_index_torn |= finding.code == FindingCode::Unindexed;
            out.has_dangling |= finding.code == FindingCode::Dangling;
            match object {
                Some((Area::Snapshots, id)) if finding.code == FindingCode::Missing => {
                    out.gone.insert(id);
                    continue;
                }
                Some((area, id)) if is_lost => {
                    out.objects.insert((area, id));
                    out.is_index_torn |= area == Area::Index;
                    if area == Area::Snapshots {
                        continue;
                    }
                }
                _ => {}
            }
            out.touched.extend(&finding.snapshots);
        }
        out
    }

    fn of_area(&self, wanted: Area) -> Vec<ObjectId> {
        self.objects.iter().filter(|(area, _)| *area == wanted).map(|(_, id)| *id).collect()
    }
}

struct Heal<'a> {
    repository: &'a Repository,
    siblings: &'a [Sibling],
    cache: Option<&'a Cache>,
    options: &'a HealOptions<'a>,
    context: Context<'a>,
    damage: Damage,
    /// Packs that stay damaged.
    bad: HashSet<ObjectId>,
    report: HealReport,
}

impl Heal<'_> {
    /// Puts back what another copy has under the same name.
    fn objects(&mut self) -> Result<()> {
        let is_shared =
            |area: Area| matches!(area, Area::Epochs | Area::Packs | Area::Snapshots | Area::Records);
        let wanted: Vec<(Area, ObjectId)> =
            self.damage.objects.iter().filter(|(area, _)| is_shared(*area)).copied().collect();
        self.context.progress.begin(Phase::Moving, wanted.len() as u64, 0);
        let affordable = usize::try_from(self.context.memory_bytes / PACK_BYTES).unwrap_or(usize::MAX);
        let threads = self.repository.backend().parallelism().min(affordable).max(1);
        let done = Mutex::new(Vec::new());
        for_each_parallel(&wanted, threads, |(area, id)| {
            self.context.check_stop()?;
            for sibling in self.siblings {
                if let Some(bytes) = self.fetch(sibling, *area, id) {
                    let length = bytes.len() as u64;
                    self.repository.put_back(*area, id, bytes)?;
                    lock(&done).push((*area, *id, sibling.name.clone()));
                    self.context.progress.add(1, length);
                    break;
                }
            }
            Ok::<_, crate::EngineError>(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort();
        for (area, id, name) in done {
            self.damage.objects.remove(&(area, id));
            self.report.objects.push((object_name(area, &id).to_string(), name));
        }
        self.bad = self.damage.of_area(Area::Packs).into_iter().collect();
        Ok(())
    }

    /// The bytes of an object from another copy, if they are believed.
    fn fetch(&self, sibling: &Sibling, area: Area, id: &ObjectId) -> Option<Bytes> {
        let repository = &sibling.repository;
        let fetched = match area {
            Area::Packs => repository.sealed_pack(id).map(|pack| Some(pack.bytes().clone())),
            Area::Snapshots => repository.snapshot_bytes(&HashSet::from([*id])).map(|mut all| all.remove(id)),
            _ => repository.backend().get(&object_name(area, id)).map(Some).map_err(RepoError::from),
        };
        let judged = fetched.and_then(|bytes| {
            if let (Area::Records, Some(bytes)) = (area, &bytes) {
                repository.parse_record(id, bytes)?;
            }
            Ok(bytes.filter(|bytes| snap_crypto::hash(bytes) == id.0))
        });
        match judged {
            Ok(bytes) => bytes,
            // It lacks it, too.
            Err(error) => match error.into_finding() {
                Ok(_) => None,
                Err(error) => {
                    self.warn(&format!("the copy {} cannot be asked: {error}", sibling.name));
                    None
                }
            },
        }
    }

    fn warn(&self, text: &str) {
        self.context.observer.event(Event::Warning { text });
    }

    /// Names packs that no index names, then takes away index objects that say nothing.
    fn index(&mut self) -> Result<()> {
        if !self.damage.is_index_torn {
            return Ok(());
        }
        self.report.indexed = self.repository.index_unnamed()?;
        for id in self.damage.of_area(Area::Index) {
            self.remove(Area::Index, &id)?;
        }
        Ok(())
    }

    fn remove(&mut self, area: Area, id: &ObjectId) -> Result<()> {
        if self.repository.remove_damaged(area, id, self.options.time)? {
            self.damage.objects.remove(&(area, *id));
            self.report.removed.push(object_name(area, id).to_string());
        }
        Ok(())
    }

    /// Stores again what snapshots need and lack.
    fn blobs(&mut self) -> Result<()> {
        if self.bad.is_empty() && !self.damage.has_dangling && !self.damage.is_index_torn {
            return Ok(());
        }
        self.repository.mark_damaged(&self.bad, self.options.time)?;
        let mut snapshots = self.repository.snapshots()?.snapshots;
        // What an index object that is lost has named nobody knows; a pack whose blobs are all whole may be damaged elsewhere, and
        // goes as well.
        if self.bad.is_empty() && !self.damage.is_index_torn {
            snapshots.retain(|snapshot| self.damage.touched.contains(&snapshot.id));
        }
        let mut domains: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
        for snapshot in snapshots {
            domains.entry(snapshot.envelope.domain.clone()).or_default().push(snapshot);
        }
        for snapshots in domains.into_values() {
            self.blobs_of(&snapshots)?;
        }
        Ok(())
    }

    /// Takes away what is of no use any more.
    fn leftovers(&mut self) -> Result<()> {
        for id in self.damage.of_area(Area::Marks) {
            self.remove(Area::Marks, &id)?;
        }
        if self.bad.is_empty() || self.report.lost > 0 {
            return Ok(());
        }
        let options = PruneOptions {
            damaged: self.bad.clone(),
            pack_target: self.options.pack_target,
            ..PruneOptions::at(self.options.time)
        };
        match prune(self.repository, &options, self.context) {
            Ok(_) => {
                let mut gone = BTreeSet::new();
                for name in self.bad.iter().map(|id| object_name(Area::Packs, id)) {
                    if !self.repository.backend().exists(&name).map_err(RepoError::from)? {
                        gone.insert(name.to_string());
                    }
                }
                self.report.removed.extend(gone);
                Ok(())
            }
            Err(crate::EngineError::Repo(error @ (RepoError::Unprunable(_) | RepoError::Overtaken))) => {
                self.warn(&format!("what is left of damaged packs stays for now: {error}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
