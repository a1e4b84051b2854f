//! Putting many snapshots into few objects, and taking snapshots away (`docs/format.md` §10, F30).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use snap_format::{BundledSnapshot, ObjectId, ObjectKind, SnapshotBundle};

use crate::boxes::seal_box;
use crate::listing::{Listed, list_area};
use crate::snapshot_area::{Known, SnapshotObject};
use crate::writer::lock;
use crate::{Area, RepoError, Repository, Result, for_each_parallel, object_name};

/// Payload at which a bundle is ended, bytes.
const BUNDLE_TARGET: usize = 8 << 20;
/// Bundles below this size are merged again.
const SMALL_BUNDLE: u64 = BUNDLE_TARGET as u64 / 2;
/// Larger snapshots stay alone: bundling saves requests, and these are few.
const MEMBER_MAX: u64 = 1 << 20;
/// How often other merges may get in the way.
const ATTEMPTS: usize = 3;

/// Which snapshots to merge, and which to take away.
#[derive(Debug, Clone, Default)]
pub struct MergeRequest {
    /// Snapshots that the store took before this second (since 1970-01-01 UTC, by its own clock) go into bundles.
    pub stored_before_secs: i64,
    /// Snapshots that go away, wherever they stand. That an owner's `forget` record names them is up to the caller.
    pub drop: HashSet<ObjectId>,
}

/// What a merge will do; nothing has been written yet.
#[derive(Debug)]
pub struct MergePlan {
    repository: Repository,
    /// Snapshots by themselves that go into bundles.
    alone: Vec<Listed>,
    /// Bundles whose members go into others.
    bundles: Vec<Listed>,
    /// Snapshots by themselves that go away.
    dropped: Vec<Listed>,
    drop: HashSet<ObjectId>,
    /// Distinct snapshots that go away.
    drops: u64,
}

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MergeReport {
    /// Snapshots in the bundles that were put.
    pub merged: u64,
    /// Snapshots that went away.
    pub dropped: u64,
    /// Bundles put.
    pub bundles: u64,
    /// Their size, bytes.
    pub stored_bytes: u64,
    /// Objects deleted: snapshots by themselves, and bundles.
    pub deleted: u64,
}

impl Repository {
    /// Puts snapshots into bundles, and takes some away: a plan that is carried out at once. If another merge gets in the
    /// way, it plans again. Whenever it is killed, no snapshot is lost that was not to be dropped.
    pub fn merge_snapshots(&self, request: &MergeRequest) -> Result<MergeReport> {
        for _ in 1..ATTEMPTS {
            match self.plan_merge(request)?.run() {
                Err(RepoError::Overtaken) => {}
                other => return other,
            }
        }
        self.plan_merge(request)?.run()
    }

    /// Looks at what there is to merge. Owners only. Reads every object of the area: the only copy of a snapshot must not be
    /// deleted because the cache remembers another.
    pub fn plan_merge(&self, request: &MergeRequest) -> Result<MergePlan> {
        self.keyring().require_owner("merging snapshots")?;
        let objects = self.read_snapshot_area(Known::Nothing)?;
        let mut places: HashMap<ObjectId, usize> = HashMap::new();
        for snapshot in objects.iter().flat_map(|object| &object.snapshots) {
            *places.entry(snapshot.id).or_default() += 1;
        }
        let loses = |object: &SnapshotObject| {
            object.snapshots.iter().any(|snapshot| request.drop.contains(&snapshot.id))
        };
        let is_double = |object: &SnapshotObject| {
            object.snapshots.iter().any(|snapshot| places.get(&snapshot.id).is_some_and(|count| *count > 1))
        };
        let is_due = |object: &SnapshotObject| {
            object.listed.stored.is_some_and(|stored| {
                let is_old = stored.unix_seconds < request.stored_before_secs;
                is_old && object.listed.size <= MEMBER_MAX || is_double(object)
            })
        };
        let mut plan = MergePlan {
            repository: self.clone(),
            alone: Vec::new(),
            bundles: Vec::new(),
            dropped: Vec::new(),
            drop: request.drop.clone(),
            drops: 0,
        };
        let mut small = Vec::new();
        for object in &objects {
            let to = match object {
                _ if request.drop.contains(&object.listed.id) => &mut plan.dropped,
                // What does not verify is left where it is, for `check` to tell of.
                _ if object.snapshots.is_empty() => continue,
                _ if object.is_bundle && (loses(object) || is_double(object)) => &mut plan.bundles,
                _ if object.is_bundle && object.listed.size < SMALL_BUNDLE => &mut small,
                _ if !object.is_bundle && is_due(object) => &mut plan.alone,
                _ => continue,
            };
            to.push(object.listed);
        }
        match plan.alone.len() + plan.bundles.len() + small.len() {
            // One by itself is no less in a bundle.
            1 if plan.bundles.is_empty() => plan.alone.clear(),
            _ => plan.bundles.append(&mut small),
        }
        let unreadable = plan.dropped.iter().filter(|listed| !places.contains_key(&listed.id)).count();
        let readable = request.drop.iter().filter(|id| places.contains_key(*id)).count();
        plan.drops = (unreadable + readable) as u64;
        Ok(plan)
    }
}

impl MergePlan {
    /// Objects that will be deleted: snapshots by themselves, and bundles.
    pub fn objects(&self) -> usize {
        self.alone.len() + self.bundles.len() + self.dropped.len()
    }

    /// Snapshots that will go away.
    pub const fn drops(&self) -> u64 {
        self.drops
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.objects() == 0
    }

    /// Does it. [`RepoError::Overtaken`] if another merge came between: then nothing was deleted.
    pub fn run(self) -> Result<MergeReport> {
        let mut report = MergeReport { dropped: self.drops, ..MergeReport::default() };
        let members = self.members()?;
        let put = self.put_bundles(members, &mut report)?;
        if !put.is_empty() {
            // F30: what was put is durable and listed before anything goes. Another merge may have replaced it already.
            let listed = list_area(self.repository.backend().as_ref(), Area::Snapshots)?;
            let listed: HashSet<(ObjectId, u64)> =
                listed.iter().map(|object| (object.id, object.size)).collect();
            if !put.iter().all(|bundle| listed.contains(bundle)) {
                return Err(RepoError::Overtaken);
            }
        }
        // First the snapshots that are to go, then the rest.
        for gone in [&self.dropped, &self.bundles, &self.alone] {
            let threads = self.repository.backend().parallelism();
            for_each_parallel(gone, threads, |listed| {
                self.repository.backend().delete(&object_name(Area::Snapshots, &listed.id))
            })?;
            report.deleted += gone.len() as u64;
        }
        Ok(report)
    }

    /// The bytes of all snapshots that go into bundles, as they are in the store now, whatever the cache says.
    fn members(&self) -> Result<BTreeMap<ObjectId, BundledSnapshot>> {
        let members: Mutex<BTreeMap<ObjectId, BundledSnapshot>> = Mutex::default();
        let add = |member: BundledSnapshot| {
            let id = ObjectId(snap_crypto::hash(&member.bytes));
            if self.drop.contains(&id) {
                return;
            }
            let mut members = lock(&members);
            let known = members.entry(id).or_insert_with(|| member.clone());
            known.stored_secs = known.stored_secs.min(member.stored_secs);
        };
        let repository = &self.repository;
        let objects: Vec<&Listed> = self.alone.iter().chain(&self.bundles).collect();
        for_each_parallel(&objects, repository.backend().parallelism(), |listed| {
            let bytes = repository.get_snapshot_object(listed)?.ok_or(RepoError::Overtaken)?;
            match repository.parse_snapshot_bundle(&listed.id, &bytes)? {
                Some(bundle) => bundle.members.into_iter().for_each(&add),
                None => {
                    let stored = listed.stored.expect("only what has a time is due");
                    add(BundledSnapshot { stored_secs: stored.unix_seconds, bytes: bytes.to_vec() });
                }
            }
            Ok::<_, RepoError>(())
        })?;
        Ok(members.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Puts the members into as few bundles as may be, the oldest first. Returns names and sizes.
    fn put_bundles(
        &self,
        members: BTreeMap<ObjectId, BundledSnapshot>,
        report: &mut MergeReport,
    ) -> Result<Vec<(ObjectId, u64)>> {
        let mut members: Vec<BundledSnapshot> = members.into_values().collect();
        members.sort_by_key(|member| member.stored_secs);
        let (mut put, mut bundle, mut len) = (Vec::new(), Vec::new(), 0);
        for member in members {
            let more = SnapshotBundle::member_len(member.bytes.len());
            if !bundle.is_empty() && (len + more > BUNDLE_TARGET || !SnapshotBundle::has_room(bundle.len())) {
                put.push(self.put_bundle(std::mem::take(&mut bundle), report)?);
                len = 0;
            }
            len += more;
            bundle.push(member);
        }
        if !bundle.is_empty() {
            put.push(self.put_bundle(bundle, report)?);
        }
        Ok(put)
    }

    fn put_bundle(&self, members: Vec<BundledSnapshot>, report: &mut MergeReport) -> Result<(ObjectId, u64)> {
        let count = members.len() as u64;
        let payload = SnapshotBundle { members }.encode();
        let bytes = seal_box(self.repository.keyring(), ObjectKind::SnapshotBundle, &payload)?;
        let (id, size) = (ObjectId(snap_crypto::hash(&bytes)), bytes.len() as u64);
        self.repository.backend().put(&object_name(Area::Snapshots, &id), bytes.into())?;
        report.merged += count;
        report.bundles += 1;
        report.stored_bytes += size;
        Ok((id, size))
    }
}
