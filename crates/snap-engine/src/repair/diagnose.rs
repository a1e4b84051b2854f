//! What is wrong: every object is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use snap_format::{BlobId, BlobKind, IndexedPack, ObjectId};
use snap_repo::repair::{Boxes, PackState};
use snap_repo::{
    Area, BlobReader, Cache, Finding, FindingCode, Index, RepoError, Repository, Scratch, for_each_parallel,
    object_name,
};

use super::{Action, Ill, RepairOptions};
use crate::{Context, EngineError, Phase, Result};

/// What was found.
pub(super) struct Diagnosis {
    pub(super) actions: Vec<Action>,
    /// Whole packs that no index object truly names.
    pub(super) spare: Vec<IndexedPack>,
    /// Whole packs that no index object truly names, and that wait for their deletion: nothing in them should be needed.
    pub(super) reserve: Vec<IndexedPack>,
    /// Damaged packs, with what is said to be in them.
    pub(super) bad_packs: BTreeMap<ObjectId, Vec<IndexedPack>>,
    /// Packs that are named and not there.
    pub(super) missing_packs: BTreeSet<ObjectId>,
    /// Index objects that cannot be read.
    pub(super) bad_index: Vec<ObjectId>,
    /// Index objects that say something that is not so, or not any more.
    pub(super) false_index: BTreeSet<ObjectId>,
    pub(super) boxes: Boxes,
    /// By whole pack, a digest of what is in it.
    pub(super) truth: HashMap<ObjectId, [u8; 32]>,
    /// The index, with the packs that it should name.
    pub(super) index: Arc<Index>,
    pub(super) newer: Vec<RepoError>,
}

impl Diagnosis {
    fn act(&mut self, ill: Ill, finding: Finding, does: impl Into<String>) {
        self.actions.push(Action { ill, finding, does: does.into() });
    }

    /// Whether a blob can be had from a whole pack.
    pub(super) fn has(&self, domain: &str, kind: BlobKind, id: &BlobId) -> bool {
        self.index.claims(domain, id).iter().any(|place| {
            let said = self.index.pack(place.pack).map(|pack| pack.digest);
            place.kind == kind && said.is_some() && self.truth.get(&place.pack_id).copied() == said
        })
    }

    /// Fails if an index object that was read is gone: a prune has taken packs away (F26), and what seems lost may lie
    /// elsewhere.
    pub(super) fn require_undisturbed(&self, repository: &Repository) -> Result<()> {
        let there: HashSet<ObjectId> = repository.list(Area::Index)?.into_iter().map(|(id, _)| id).collect();
        let is_there = |id: &ObjectId| there.contains(id);
        if self.boxes.index.iter().all(is_there) { Ok(()) } else { Err(RepoError::Overtaken.into()) }
    }

    /// Index objects without these packs: what they truly say of others.
    pub(super) fn true_claims(&self, packs: Vec<IndexedPack>) -> Vec<IndexedPack> {
        let is_true = |pack: &IndexedPack| self.truth.get(&pack.id) == Some(&snap_repo::pack_digest(pack));
        packs.into_iter().filter(is_true).collect()
    }
}

/// How often a prune may get in the way.
const ATTEMPTS: usize = 3;

pub(super) fn diagnose(
    repository: &Repository,
    cache: Option<&Cache>,
    options: &RepairOptions,
    context: Context<'_>,
) -> Result<Diagnosis> {
    for _ in 1..ATTEMPTS {
        match look(repository, cache, options, context) {
            Err(EngineError::Repo(RepoError::Overtaken)) => {}
            other => return other,
        }
    }
    look(repository, cache, options, context)
}

fn look(
    repository: &Repository,
    cache: Option<&Cache>,
    options: &RepairOptions,
    context: Context<'_>,
) -> Result<Diagnosis> {
    context.progress.begin(Phase::Checking, 0, 0);
    let mut boxes = repository.survey_boxes()?;
    let repository = &repository.without(boxes.unreadable.clone());
    let packs = repository.list(Area::Packs)?;
    if !options.give_up_epochs {
        refuse_lost_epochs(repository, &boxes)?;
    }
    let (mut index, _) = Index::load(repository, cache)?;
    let newer = std::mem::take(&mut boxes.newer);
    let mut found = Diagnosis {
        actions: Vec::new(),
        spare: Vec::new(),
        reserve: Vec::new(),
        bad_packs: BTreeMap::new(),
        missing_packs: BTreeSet::new(),
        bad_index: Vec::new(),
        false_index: BTreeSet::new(),
        boxes,
        truth: HashMap::new(),
        index: Arc::default(),
        newer,
    };
    let states = survey_packs(repository, &packs, context)?;
    let mut untouchable: HashSet<ObjectId> = HashSet::new();
    let mut headers: HashMap<ObjectId, IndexedPack> = HashMap::new();
    let mut bad: BTreeMap<ObjectId, Finding> = BTreeMap::new();
    for (id, state) in states {
        match state {
            PackState::Whole(digest) => {
                found.truth.insert(id, digest);
            }
            PackState::Torn(finding, header) => {
                found.boxes.torn.insert(id);
                headers.extend(header.map(|header| (id, *header)));
                bad.insert(id, finding);
            }
            PackState::Bad(finding, header) => {
                headers.extend(header.map(|header| (id, *header)));
                bad.insert(id, finding);
            }
            PackState::Newer(error) => {
                found.newer.push(error);
                untouchable.insert(id);
            }
            PackState::Gone => {}
        }
    }
    found.require_undisturbed(repository)?;
    judge_boxes(&mut found);
    judge_index(&mut found, &bad, &untouchable);
    for (id, finding) in bad {
        judge_bad_pack(repository, &mut found, id, finding, headers.remove(&id))?;
    }
    let sizes: HashMap<ObjectId, u64> = packs.iter().copied().collect();
    let mut unnamed: Vec<ObjectId> = found.truth.keys().copied().collect();
    unnamed.sort_unstable();
    for id in unnamed {
        let claims = found.boxes.claims.get(&id).map_or(&[][..], Vec::as_slice);
        let is_named = claims.iter().any(|(_, digest)| found.truth.get(&id) == Some(digest));
        if is_named {
            continue;
        }
        let pack = match repository.read_pack_header(id, sizes[&id]) {
            Ok((_, pack)) => pack,
            // A prune took what nothing named.
            Err(RepoError::Backend(error)) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        if found.boxes.marked.contains(&id) {
            found.reserve.push(pack);
        } else {
            found.actions.push(Action::unindexed(&pack));
            found.spare.push(pack);
        }
    }
    found.spare.iter().for_each(|pack| index.insert(pack));
    found.bad_packs.values().flatten().for_each(|pack| index.insert(pack));
    found.index = Arc::new(index);
    Ok(found)
}

/// An epoch under which packs or index objects were written was not made up: its object is lost, and what looks forged is not.
fn refuse_lost_epochs(repository: &Repository, boxes: &Boxes) -> Result<()> {
    let mut lost: BTreeMap<_, BTreeSet<String>> = repository.unknown_epochs_of_packs()?;
    for (epoch, objects) in &boxes.unknown_epochs {
        if objects.iter().any(|name| name.starts_with(Area::Index.prefix())) {
            lost.entry(*epoch).or_default().extend(objects.iter().cloned());
        }
    }
    let Some((epoch, objects)) = lost.into_iter().next() else { return Ok(()) };
    let first = objects.first().cloned().unwrap_or_default();
    let why = format!(
        "an epoch is lost: {} objects, such as {first}, are sealed under the epoch {epoch}, which is not here. Copy \
         `epochs/` from another copy of the repository, or run this on a machine that has used it since; if somebody \
         forged them, --give-up-epochs removes them",
        objects.len()
    );
    Err(RepoError::from(Finding::new(FindingCode::Missing, Area::Epochs.prefix(), why)).into())
}

fn survey_packs(
    repository: &Repository,
    packs: &[(ObjectId, u64)],
    context: Context<'_>,
) -> Result<Vec<(ObjectId, PackState)>> {
    let bytes = packs.iter().map(|(_, size)| size).sum();
    context.progress.begin(Phase::ReadingData, packs.len() as u64, bytes);
    let known: HashSet<ObjectId> = packs.iter().map(|(id, _)| *id).collect();
    let reader = BlobReader::new(repository.clone(), Arc::default());
    let states = Mutex::new(Vec::with_capacity(packs.len()));
    let threads = context.threads.min((context.memory_bytes / (40 << 20)).max(1) as usize);
    for_each_parallel(packs, threads, |(id, size)| {
        context.check_stop()?;
        let mut scratch = Scratch::new(1).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        let mut plain = Vec::new();
        let state = repository.survey_pack(&reader, (*id, *size), &known, &mut scratch, &mut plain)?;
        states.lock().unwrap_or_else(PoisonError::into_inner).push((*id, state));
        context.progress.add(1, *size);
        Ok::<_, EngineError>(())
    })?;
    Ok(states.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn judge_boxes(found: &mut Diagnosis) {
    let mut actions = Vec::new();
    for (area, id, finding) in &found.boxes.bad {
        let (ill, does) = match area {
            Area::Index => {
                found.bad_index.push(*id);
                (Ill::DamagedIndex, "removed, once the packs that it named are indexed from their headers")
            }
            Area::Snapshots => (Ill::DamagedSnapshot, "forgotten by a record, then removed"),
            Area::Records => (
                Ill::DamagedRecord,
                "removed: what it said, a pin perhaps, is lost; look at `snap pin --list`",
            ),
            _ => (Ill::DamagedMark, "removed: it never counted"),
        };
        actions.push(Action { ill, finding: finding.clone(), does: does.into() });
    }
    for (_, finding) in found.boxes.bad_members.values().flatten() {
        let does = "forgotten by a record; its bundle is written anew without it".to_owned();
        actions.push(Action { ill: Ill::DamagedSnapshot, finding: finding.clone(), does });
    }
    found.actions.append(&mut actions);
}

/// What index objects say of packs that are not there, are damaged, or hold something else.
fn judge_index(found: &mut Diagnosis, bad: &BTreeMap<ObjectId, Finding>, untouchable: &HashSet<ObjectId>) {
    let mut false_claims: BTreeMap<ObjectId, Finding> =
        found.boxes.lies.iter().map(|(id, finding)| (*id, finding.clone())).collect();
    for (pack, claims) in &found.boxes.claims {
        for (index, digest) in claims {
            if untouchable.contains(pack) || found.truth.get(pack) == Some(digest) {
                continue;
            }
            found.false_index.insert(*index);
            match found.truth.get(pack) {
                Some(_) => {
                    let name = object_name(Area::Index, index);
                    let why = format!("it says of the pack {pack} what its header does not");
                    let finding = Finding::new(FindingCode::Forged, name.as_str(), why);
                    false_claims.entry(*index).or_insert(finding);
                }
                None if !bad.contains_key(pack) => {
                    found.missing_packs.insert(*pack);
                }
                None => {}
            }
        }
    }
    for (index, finding) in false_claims {
        found.false_index.insert(index);
        found.act(Ill::FalseIndex, finding, "written anew without what is not so");
    }
    for pack in found.missing_packs.clone() {
        let name = object_name(Area::Packs, &pack);
        let finding =
            Finding::new(FindingCode::Missing, name.as_str(), "an index names it, and it is not there");
        found.act(
            Ill::MissingPack,
            finding,
            "no longer named; what was in it is lost where nothing else has it",
        );
    }
}

fn judge_bad_pack(
    repository: &Repository,
    found: &mut Diagnosis,
    id: ObjectId,
    mut finding: Finding,
    header: Option<IndexedPack>,
) -> Result<()> {
    let mut tables: Vec<IndexedPack> = header.into_iter().collect();
    let is_named = found.boxes.claims.contains_key(&id);
    for (index, _) in found.boxes.claims.get(&id).into_iter().flatten() {
        let bytes = match repository.backend().get(&object_name(Area::Index, index)) {
            Err(error) if error.is_not_found() => return Err(RepoError::Overtaken.into()),
            read => read.map_err(RepoError::from)?,
        };
        let packs = repository.parse_index(index, &bytes)?.packs.into_iter().filter(|pack| pack.id == id);
        for pack in packs {
            if !tables.contains(&pack) {
                tables.push(pack);
            }
        }
    }
    if tables.is_empty() && !is_named {
        finding.why.push_str("; no index names it: a run that died left it half-written");
        found.act(Ill::HalfWrittenPack, finding, "removed: nobody can tell what is in it");
    } else {
        let does = "what of it still authenticates moves to a new pack; then it is removed";
        found.act(Ill::DamagedPack, finding, does);
    }
    found.bad_packs.insert(id, tables);
    Ok(())
}
