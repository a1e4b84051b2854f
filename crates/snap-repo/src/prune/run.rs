//! The order of a prune.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use snap_backend::{ErrorKind, Timestamp};
use snap_format::{ObjectId, limits};

use super::inventory::{Inventory, is_surely_forged};
use super::live::LiveSet;
use super::plan::{Choice, Homes, choose, survey, weigh};
use super::repack::{Mover, Scene};
use super::rewrite::{delete, put_merged, to_replace};
use super::{PruneOptions, PruneReport, PruneStep, Walk};
use crate::marks::{MarkObject, Marks};
use crate::{
    Area, Finding, FindingCode, MergeRequest, RepoError, Repository, Result, Sabotage, Snapshot, object_name,
};

/// How often another prune may get in the way.
const ATTEMPTS: usize = 3;
/// Snapshots go into bundles when they are as old, seconds, and there are as many.
const BUNDLED_AFTER_SECS: i64 = 24 * 60 * 60;
const BUNDLED_TOGETHER: usize = 64;
/// Snapshots that a message names.
const NAMED: usize = 8;

pub(super) fn run<W: Walk>(
    repository: &Repository,
    options: &PruneOptions,
    walk: &W,
) -> Result<PruneReport, W::Error> {
    let mut bad: Vec<BadPack> = Vec::new();
    let mut left = ATTEMPTS;
    loop {
        let attempt = Run::begin(repository, options, walk, &bad).and_then(Run::all);
        match attempt {
            Ok(Ended::Done(report)) => return Ok(*report),
            // A pack that was to be emptied is damaged: what is in it is not there.
            Ok(Ended::Bad(_, finding)) if bad.len() == MOST_BAD => {
                return Err(RepoError::from(finding).into());
            }
            Ok(Ended::Bad(pack, finding)) => bad.push((pack, finding)),
            Err(Stop::Overtaken) if left > 1 => left -= 1,
            Err(Stop::Overtaken) => return Err(RepoError::Overtaken.into()),
            Err(Stop::Error(error)) => return Err(error),
        }
    }
}

/// Damaged packs after which a prune gives up.
const MOST_BAD: usize = 64;
/// How often the marks may change while a prune makes sure of what stays.
const LOOKS: usize = 16;

/// A pack that turned out to be damaged.
type BadPack = (ObjectId, Finding);

/// How an attempt ended.
enum Ended {
    Done(Box<PruneReport>),
    /// A pack that was to be emptied is damaged.
    Bad(ObjectId, Finding),
}

struct Run<'a, W> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    walk: &'a W,
    /// As they were when this run began: those that it may delete.
    first_marks: Marks,
    marks: Marks,
    snapshots: Vec<Snapshot>,
    inventory: Inventory,
    live: LiveSet,
    report: PruneReport,
}

impl<'a, W: Walk> Run<'a, W> {
    /// Looks at everything, in the order that makes what is seen belong together: marks before snapshots, snapshots before
    /// the index, the index before the packs (F31).
    fn begin(
        repository: &'a Repository,
        options: &'a PruneOptions,
        walk: &'a W,
        bad: &[BadPack],
    ) -> Result<Self, Stop<W::Error>> {
        walk.step(PruneStep::Looking, 0, 0).map_err(Stop::Error)?;
        // What was listed when the repository was opened may be old.
        repository.drop_listings();
        let marks = Marks::read(repository)?;
        let mut report = PruneReport::default();
        let snapshots = read_snapshots(repository, options, &mut report)?;
        let mut inventory = Inventory::read(repository, options.pass_over_forged).map_err(refuse)?;
        inventory.bad = bad.iter().map(|(pack, _)| *pack).chain(options.damaged.iter().copied()).collect();
        report.notes.extend(bad.iter().map(|(_, finding)| finding.clone()));
        let (first_marks, live) = (marks.clone(), LiveSet::default());
        if !options.damaged.is_empty() {
            // What is to replace a damaged pack cannot be moved from there: it must lie where nobody is about to delete it.
            inventory.bad.extend(marks.packs());
        }
        Ok(Self { repository, options, walk, first_marks, marks, snapshots, inventory, live, report })
    }

    fn all(mut self) -> Result<Ended, Stop<W::Error>> {
        self.walk_trees(0)?;
        let homes = self.survey()?;
        self.report.before = weigh(&self.inventory, self.inventory.there.keys());
        let choice = self.choose()?;
        self.describe(&choice);
        if self.options.dry_run {
            self.rehearse(&choice);
            return Ok(Ended::Done(Box::new(self.report)));
        }

        // What is needed is moved first, so that it never lies in marked packs alone.
        let mover = Mover::new(self.repository, self.options);
        let mut victims: HashSet<u32> = choice.named().collect();
        victims.extend(self.probably_ripe().iter().filter_map(|id| self.inventory.number(id)));
        if let Some((pack, finding)) = self.rescue(&mover, &homes, &victims)? {
            return Ok(Ended::Bad(pack, finding));
        }
        let own = self.put_marks(&choice)?;
        let mut going = HashSet::new();
        if !own.is_empty() {
            match self.secure(&mover, &own, &victims)? {
                Ok(ripe) => going = ripe,
                Err((pack, finding)) => return Ok(Ended::Bad(pack, finding)),
            }
        }
        self.report.moved_blobs = mover.moved_blobs.load(Ordering::Relaxed);
        self.report.moved_bytes = mover.moved_bytes.load(Ordering::Relaxed);
        self.report.stored_bytes = mover.stored_bytes();
        self.delete(&going, &own)?;
        self.bundle_snapshots()?;
        Ok(Ended::Done(Box::new(self.report)))
    }

    /// With the marks in place: sees to it that all that is needed lies in packs that stay, until nothing changes any more.
    /// Returns the packs that go, or a damaged one that was in the way.
    fn secure(
        &mut self,
        mover: &Mover,
        own: &HashSet<ObjectId>,
        rescued: &HashSet<u32>,
    ) -> Result<Result<HashSet<ObjectId>, BadPack>, Stop<W::Error>> {
        let mut is_same = self.look_again(mover, own)?;
        for _ in 0..LOOKS {
            let going = self.ripe(own);
            let victims: HashSet<u32> = going.iter().filter_map(|id| self.inventory.number(id)).collect();
            if going.is_empty() || is_same && victims.is_subset(rescued) {
                return Ok(Ok(going));
            }
            let homes = self.survey()?;
            let stored = mover.stored_bytes();
            if let Some(bad) = self.rescue(mover, &homes, &victims)? {
                return Ok(Err(bad));
            }
            // What was moved now may have been marked as a pack that no index names, before it was indexed: as with a
            // writer, the marks must be the same after the last put.
            if mover.stored_bytes() == stored || !self.marks.refresh(self.repository)? {
                return Ok(Ok(going));
            }
            self.look_again(mover, own)?;
            is_same = false;
        }
        Err(Stop::Overtaken)
    }

    /// Adds what the snapshots from position `from` on need to what is alive.
    fn walk_trees(&mut self, from: usize) -> Result<(), Stop<W::Error>> {
        self.walk.step(PruneStep::Walking, 0, 0).map_err(Stop::Error)?;
        let (new, trees) = (&self.snapshots[from..], &self.inventory.trees);
        let findings = self.walk.walk(new, trees, &self.live).map_err(Stop::Error)?;
        match findings.into_iter().next() {
            None => Ok(()),
            // It was there when the packs were listed.
            Some(finding) if finding.code == FindingCode::Missing => Err(Stop::Overtaken),
            Some(mut finding) => {
                let blamed = self.walk.blame(new, trees, &self.live.subset(&[])).map_err(Stop::Error)?;
                finding.snapshots = blamed;
                Err(Stop::from(unprunable(finding)))
            }
        }
    }

    /// Counts what is needed in each pack. Every blob that is needed must be somewhere.
    fn survey(&mut self) -> Result<Homes, Stop<W::Error>> {
        let (homes, missing) = survey(&mut self.inventory, &self.live, &self.marks)?;
        if missing.is_empty() {
            return Ok(homes);
        }
        let lost = self.live.subset(&missing);
        let snapshots =
            self.walk.blame(&self.snapshots, &self.inventory.trees, &lost).map_err(Stop::Error)?;
        let why = format!("{} blobs that snapshots need are in no pack", missing.len());
        let mut finding = match self.report.notes.iter().find(|note| note.object.starts_with("packs/")) {
            Some(note) => Finding { why: format!("{}; {why}", note.why), ..note.clone() },
            None => Finding::new(FindingCode::Dangling, "snapshots", why),
        };
        finding.snapshots = snapshots;
        Err(Stop::from(unprunable(finding)))
    }

    fn choose(&mut self) -> Result<Choice, Stop<W::Error>> {
        let newest = self.newest_time();
        let grace = self.options.grace;
        let is_old =
            |listed: &super::inventory::Listed| grace.is_zero() || has_passed(listed.stored, newest, grace);
        let mut choice = choose(&self.inventory, &self.marks, self.options, is_old);
        // That nothing of a pack is needed was said by somebody who may not know: the pack itself decides (F19).
        let mut doubtful = Vec::new();
        let is_doubtful = |number: &u32| {
            let pack = &self.inventory.packs[*number as usize];
            !pack.vouched && !self.options.damaged.contains(&pack.id)
        };
        for number in choice.named().filter(is_doubtful) {
            let pack = &self.inventory.packs[number as usize];
            match self.repository.read_pack_header(pack.id, pack.size) {
                Ok((_, truth)) if crate::pack_digest(&truth) == pack.digest => {}
                Ok(_) => {
                    let name = object_name(Area::Packs, &pack.id).to_string();
                    let why = "what an index object says of it is not what its header says; it is left alone";
                    self.report.notes.push(Finding::new(FindingCode::Forged, name, why));
                    doubtful.push(number);
                }
                Err(RepoError::Backend(error)) if error.kind() == ErrorKind::NotFound => {
                    return Err(Stop::Overtaken);
                }
                Err(error) => {
                    self.report.notes.push(error.into_finding()?);
                    doubtful.push(number);
                }
            }
        }
        choice.dead.retain(|number| !doubtful.contains(number));
        choice.repack.retain(|number| !doubtful.contains(number));
        Ok(choice)
    }

    fn describe(&mut self, choice: &Choice) {
        let inventory = &self.inventory;
        let id = |number: &u32| &inventory.packs[*number as usize].id;
        self.report.snapshots = self.snapshots.len() as u64;
        self.report.live_blobs = self.live.len() as u64;
        self.report.dead = weigh(inventory, choice.dead.iter().map(id));
        self.report.repacked = weigh(inventory, choice.repack.iter().map(id));
        self.report.orphans = weigh(inventory, choice.orphans.iter().map(|(id, _)| id));
        let gone: HashSet<u32> = choice.named().collect();
        let stays = inventory.packs.iter().filter(|pack| inventory.is_there(pack));
        let stays = stays.filter(|pack| !self.marks.names(&pack.id));
        let stays: Vec<_> =
            stays.filter(|pack| inventory.number(&pack.id).is_some_and(|n| !gone.contains(&n))).collect();
        self.report.waste_bytes = stays.iter().map(|pack| pack.dead_bytes()).sum();
        self.report.kept = weigh(inventory, stays.into_iter().map(|pack| &pack.id));
    }

    /// What a run of now would free, as far as it depends on nobody else.
    fn rehearse(&mut self, choice: &Choice) {
        let mut ripe = self.probably_ripe();
        let mut waiting: HashSet<ObjectId> = self.marks.packs().difference(&ripe).copied().collect();
        let named = choice.named().map(|number| self.inventory.packs[number as usize].id);
        let chosen: HashSet<ObjectId> = named.chain(choice.orphans.iter().map(|(id, _)| *id)).collect();
        if self.options.grace.is_zero() {
            ripe.extend(&chosen);
        } else {
            waiting.extend(&chosen);
        }
        let moved = choice.repack.iter().map(|number| &self.inventory.packs[*number as usize]);
        let (blobs, bytes) =
            moved.fold((0, 0), |(blobs, bytes), pack| (blobs + pack.live.blobs, bytes + pack.live.bytes));
        let marked = ripe.iter().filter_map(|id| self.inventory.number(id));
        let marked = marked.filter(|number| self.marks.names(&self.inventory.packs[*number as usize].id));
        let (more_blobs, more_bytes) = marked.fold((0, 0), |(blobs, bytes), number| {
            let pack = &self.inventory.packs[number as usize];
            (blobs + pack.live.blobs, bytes + pack.live.bytes)
        });
        self.report.moved_blobs = blobs + more_blobs;
        self.report.moved_bytes = bytes + more_bytes;
        self.report.deleted = weigh(&self.inventory, &ripe);
        self.report.waiting = weigh(&self.inventory, &waiting);
    }

    fn rescue(
        &mut self,
        mover: &Mover,
        homes: &Homes,
        victims: &HashSet<u32>,
    ) -> Result<Option<BadPack>, Stop<W::Error>> {
        let packs = victims.iter().map(|number| &self.inventory.packs[*number as usize]);
        let (items, bytes) = packs
            .filter(|pack| pack.live.blobs > 0)
            .fold((0, 0), |(items, bytes), pack| (items + 1, bytes + pack.size));
        self.walk.step(PruneStep::Moving, items, bytes).map_err(Stop::Error)?;
        let (inventory, live, marks) = (&self.inventory, &self.live, &self.marks);
        let scene = Scene { inventory, live, homes, marks, victims };
        Ok(mover.rescue(&scene, |bytes| self.walk.advance(1, bytes))?)
    }

    /// Announces what goes. A run that deletes what others announced writes a mark too: it tells the store's time, and that a
    /// prune went by. Returns the marks of this run.
    fn put_marks(&mut self, choice: &Choice) -> Result<HashSet<ObjectId>, Stop<W::Error>> {
        let named = choice.named().map(|number| self.inventory.packs[number as usize].id);
        let mut packs: Vec<ObjectId> = named.chain(choice.orphans.iter().map(|(id, _)| *id)).collect();
        packs.sort_unstable();
        if packs.is_empty() && self.probably_ripe().is_empty() {
            return Ok(HashSet::new());
        }
        let mut own = HashSet::new();
        for part in packs.chunks(limits::ITEMS) {
            own.insert(self.repository.put_mark(part.to_vec(), self.options.time)?);
        }
        if packs.is_empty() {
            own.insert(self.repository.put_mark(Vec::new(), self.options.time)?);
        }
        Ok(own)
    }

    /// With the marks in place, looks at all again in the same order: what came meanwhile is alive too. Returns whether
    /// nothing came and nothing went.
    fn look_again(&mut self, mover: &Mover, own: &HashSet<ObjectId>) -> Result<bool, Stop<W::Error>> {
        self.marks.refresh(self.repository)?;
        if !own.iter().all(|id| self.marks.objects.contains_key(id)) {
            let why =
                "a mark was stored, and a listing does not show it: nothing is deleted from such a store";
            return Err(Stop::from(RepoError::Refused(why.into())));
        }
        let others = self.marks.objects.keys().filter(|id| !own.contains(*id));
        let mut is_same = others.eq(self.first_marks.objects.keys());
        let known: HashSet<ObjectId> = self.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let mut new = match self.options.sabotage {
            Sabotage::SnapshotsBeforeMarks => Vec::new(),
            _ => read_snapshots(self.repository, self.options, &mut self.report)?,
        };
        new.retain(|snapshot| !known.contains(&snapshot.id));
        is_same &= new.is_empty();
        let own_index = mover.index_objects();
        let is_index_same =
            !self.inventory.refresh(self.options.pass_over_forged, &own_index).map_err(refuse)?;
        is_same &= is_index_same;
        if self.takes_damaged() {
            self.inventory.bad.extend(self.marks.packs());
        }
        let from = self.snapshots.len();
        self.snapshots.append(&mut new);
        if from < self.snapshots.len() {
            self.walk_trees(from)?;
            self.report.snapshots = self.snapshots.len() as u64;
            self.report.live_blobs = self.live.len() as u64;
        }
        Ok(is_same)
    }

    /// Whether this run takes damaged packs away and nothing else.
    fn takes_damaged(&self) -> bool {
        !self.options.damaged.is_empty()
    }

    /// The marked packs whose grace has passed, of marks that were there when this run began or are its own.
    fn ripe(&self, own: &HashSet<ObjectId>) -> HashSet<ObjectId> {
        if self.takes_damaged() {
            let objects = own.iter().filter_map(|id| self.marks.objects.get(id)?.mark.as_ref());
            return objects.flat_map(|(_, packs)| packs.iter().copied()).collect();
        }
        let times = own.iter().filter_map(|id| self.marks.objects.get(id)?.stored);
        let now = times.max();
        self.ripe_of(now, |id| own.contains(id) || self.first_marks.objects.contains_key(id))
    }

    /// As [`Run::ripe`] when the store's time is not known yet: with the clock of this machine, a mark too many is written
    /// or a deletion put off if it is wrong.
    fn probably_ripe(&self) -> HashSet<ObjectId> {
        if self.takes_damaged() {
            return HashSet::new();
        }
        let time = self.newest_time().max(Some(now(self.options)));
        self.ripe_of(time, |id| self.first_marks.objects.contains_key(id))
    }

    fn ripe_of(&self, time: Option<Timestamp>, counts: impl Fn(&ObjectId) -> bool) -> HashSet<ObjectId> {
        let grace = self.options.grace;
        let is_ripe = |object: &MarkObject| match (object.stored, &object.mark) {
            _ if grace.is_zero() => true,
            (Some(_), _) => has_passed(object.stored, time, grace),
            // A store that tells no times: those of whoever wrote the mark have to do. Safety is not at stake.
            (None, Some((written, _))) => {
                let written = Timestamp { unix_seconds: written.secs, nanos: 0 };
                has_passed(Some(written), Some(now(self.options)), grace)
            }
            (None, None) => false,
        };
        let ripe = self.marks.objects.iter().filter(|(id, object)| counts(id) && is_ripe(object));
        ripe.filter_map(|(_, object)| object.mark.as_ref())
            .flat_map(|(_, packs)| packs.iter().copied())
            .collect()
    }

    /// The newest time that the store has shown: it is at least as late now.
    fn newest_time(&self) -> Option<Timestamp> {
        let marks = self.marks.objects.values().filter_map(|object| object.stored);
        let packs = self.inventory.there.values().filter_map(|listed| listed.stored);
        let snapshots = self.snapshots.iter().filter_map(|snapshot| snapshot.stored);
        marks.chain(packs).chain(snapshots).max()
    }

    /// Index, packs, marks (F26).
    fn delete(&mut self, going: &HashSet<ObjectId>, own: &HashSet<ObjectId>) -> Result<(), Stop<W::Error>> {
        self.walk.step(PruneStep::Deleting, going.len() as u64, 0).map_err(Stop::Error)?;
        let repository = self.repository;
        if self.options.sabotage == Sabotage::MarksFirst {
            self.delete_marks(going, own)?;
        }
        let old = to_replace(&self.inventory, going);
        let written = put_merged(&self.inventory, &old, going)?;
        delete(repository, Area::Index, &old)?;
        self.report.index_replaced = old.len() as u64;
        self.report.index_written = written.len() as u64;
        let mut packs: Vec<ObjectId> = going.iter().copied().collect();
        packs.retain(|id| self.inventory.there.contains_key(id));
        packs.sort_unstable();
        delete(repository, Area::Packs, &packs)?;
        self.report.deleted = weigh(&self.inventory, going);
        let waiting: HashSet<ObjectId> = self.marks.packs().difference(going).copied().collect();
        self.report.waiting = weigh(&self.inventory, &waiting);
        if self.options.sabotage != Sabotage::MarksFirst {
            self.delete_marks(going, own)?;
        }
        Ok(())
    }

    /// Puts old snapshots into few objects (F30), if there are many.
    fn bundle_snapshots(&mut self) -> Result<(), Stop<W::Error>> {
        let Some(newest) = self.newest_time().filter(|_| !self.takes_damaged()) else { return Ok(()) };
        let stored_before_secs = newest.unix_seconds - BUNDLED_AFTER_SECS;
        let is_old = |snapshot: &&Snapshot| {
            snapshot.stored.is_some_and(|stored| stored.unix_seconds < stored_before_secs)
        };
        // Each that stands alone is an object.
        let objects = self.repository.list(Area::Snapshots)?;
        let is_alone =
            |snapshot: &&Snapshot| objects.binary_search_by_key(&snapshot.id, |(id, _)| *id).is_ok();
        if self.snapshots.iter().filter(is_old).filter(is_alone).count() < BUNDLED_TOGETHER {
            return Ok(());
        }
        let request = MergeRequest { stored_before_secs, ..MergeRequest::default() };
        self.report.bundled = self.repository.merge_snapshots(&request)?.merged;
        Ok(())
    }

    /// Deletes marks all of whose packs are gone, and traces of earlier prunes. One of this run stays, or a trace of it.
    fn delete_marks(&self, going: &HashSet<ObjectId>, own: &HashSet<ObjectId>) -> Result<(), Stop<W::Error>> {
        if own.is_empty() {
            return Ok(());
        }
        let is_done = |object: &MarkObject| match &object.mark {
            Some((_, packs)) => {
                packs.iter().all(|id| going.contains(id) || !self.inventory.there.contains_key(id))
            }
            // What is no mark is for `check` to tell of.
            None => false,
        };
        let is_trace = |object: &MarkObject| object.mark.as_ref().is_some_and(|(_, packs)| packs.is_empty());
        let (mut old, mut mine) = (Vec::new(), Vec::new());
        for (id, object) in self.marks.objects.iter().filter(|(_, object)| is_done(object)) {
            match own.contains(id) {
                true if !is_trace(object) => mine.push(*id),
                false if self.first_marks.objects.contains_key(id) => old.push(*id),
                _ => {}
            }
        }
        if mine.len() == own.len() && self.options.sabotage != Sabotage::NoTrace {
            self.repository.put_mark(Vec::new(), self.options.time)?;
        }
        delete(self.repository, Area::Marks, &old)?;
        delete(self.repository, Area::Marks, &mine)?;
        Ok(())
    }
}

/// Why the steps stop.
enum Stop<E> {
    Overtaken,
    Error(E),
}

impl<E: From<RepoError>> From<RepoError> for Stop<E> {
    fn from(error: RepoError) -> Self {
        match error {
            RepoError::Overtaken => Self::Overtaken,
            other => Self::Error(other.into()),
        }
    }
}

const fn now(options: &PruneOptions) -> Timestamp {
    Timestamp { unix_seconds: options.time.secs, nanos: options.time.nanos }
}

fn has_passed(since: Option<Timestamp>, now: Option<Timestamp>, grace: std::time::Duration) -> bool {
    let (Some(since), Some(now)) = (since, now) else { return false };
    let grace = i128::try_from(grace.as_nanos()).unwrap_or(i128::MAX);
    let nanos = |time: Timestamp| i128::from(time.unix_seconds) * 1_000_000_000 + i128::from(time.nanos);
    nanos(now) - nanos(since) >= grace
}

/// All snapshots but those that a record has forgotten; such as are left over from an interrupted `forget` are deleted.
fn read_snapshots(
    repository: &Repository,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<Vec<Snapshot>> {
    let set = repository.settled_snapshots()?;
    for finding in set.findings {
        if options.pass_over_forged && is_forged_object(repository, &finding)? {
            report.notes.push(finding);
            continue;
        }
        // Another owner forgets or merges.
        let is_gone = finding.code == FindingCode::Missing;
        return Err(if is_gone { RepoError::Overtaken } else { unprunable(finding) });
    }
    drop_forgotten(repository, options, set.snapshots, report)
}

fn is_forged_object(repository: &Repository, finding: &Finding) -> Result<bool> {
    let Some((area, id)) = crate::parse_object_name(&finding.object) else { return Ok(false) };
    match repository.backend().get(&object_name(area, &id)) {
        Ok(bytes) => Ok(is_surely_forged(repository, finding, &bytes)),
        Err(error) => Err(error.into()),
    }
}

/// Finishes what an interrupted `forget` began: snapshots go before anything else (F26).
fn drop_forgotten(
    repository: &Repository,
    options: &PruneOptions,
    mut snapshots: Vec<Snapshot>,
    report: &mut PruneReport,
) -> Result<Vec<Snapshot>> {
    let mut forgotten = HashSet::new();
    for (_, record) in repository.records()?.0 {
        forgotten.extend(record.forgotten().unwrap_or_default());
    }
    let gone: Vec<ObjectId> = snapshots.iter().map(|s| s.id).filter(|id| forgotten.contains(id)).collect();
    let is_without = |id: &ObjectId| options.dry_run && options.without.contains(id);
    snapshots.retain(|snapshot| !forgotten.contains(&snapshot.id) && !is_without(&snapshot.id));
    if !options.dry_run {
        repository.delete_snapshots(&gone)?;
    }
    report.forgotten += gone.len() as u64;
    Ok(snapshots)
}

/// Damage of the index makes it uncertain what is stored.
fn refuse(error: RepoError) -> RepoError {
    match error {
        RepoError::Damaged(finding) => unprunable(*finding),
        other => other,
    }
}

fn unprunable(mut finding: Finding) -> RepoError {
    if !finding.snapshots.is_empty() {
        let ids: Vec<String> =
            finding.snapshots.iter().take(NAMED).map(|id| id.to_hex()[..8].to_owned()).collect();
        let more = finding.snapshots.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        finding.why = format!("{} (snapshots {}{more})", finding.why, ids.join(", "));
    }
    RepoError::Unprunable(Box::new(finding))
}
