use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use snap_backend::ObjectName;
use snap_format::{ObjectId, Time};
use snap_repo::{Area, BlobReader, RepoError, Repository, Snapshot, for_each_parallel, object_name};

use super::graph::Graph;
use super::hold::{Locks, SnapshotLock, Weakness};
use crate::work::lock;
use crate::{Context, Result};

/// The objects that snapshots need to be restored.
pub struct Needs {
    /// What every snapshot needs.
    common: Vec<ObjectName>,
    snapshots: Vec<ObjectId>,
    /// Of each snapshot; none if its body cannot be read.
    roots: Vec<Option<u32>>,
    graph: Graph,
    /// By snapshot, the objects in which it stands: alone, in a bundle, or both.
    holders: HashMap<ObjectId, Vec<ObjectName>>,
    /// By pack, the index objects that name it.
    indexes: HashMap<ObjectId, Vec<ObjectName>>,
    objects: BTreeSet<ObjectName>,
    is_known: bool,
}

impl std::fmt::Debug for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Needs({} objects of {} snapshots)", self.objects.len(), self.snapshots.len())
    }
}

impl Needs {
    /// Finds out what `snapshots` need. Takes a key that reads. Damage is told to the observer. Where a tree cannot be read
    /// nobody knows what is below it, and its snapshot is not called locked.
    pub fn gather(reader: &BlobReader, snapshots: &[Snapshot], context: Context<'_>) -> Result<Self> {
        let repository = reader.repository();
        let mut graph = Graph::default();
        let mut roots = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let body = match repository.open_body(snapshot) {
                Ok(body) => Some(body),
                Err(error) => {
                    context.observer.event(crate::Event::Finding(&error.into_finding()?));
                    None
                }
            };
            let root = |body: snap_format::Body| Ok(graph.root(repository.domain_of(snapshot)?, body.root));
            roots.push(body.map(root).transpose().map_err(|error: RepoError| error)?);
        }
        let known: Vec<u32> = roots.iter().flatten().copied().collect();
        graph.grow(reader, &known, context)?;

        let mut common =
            crate::check::CONFIGS.map(|name| ObjectName::new(name).expect("a plain name")).to_vec();
        let epochs = repository.list(Area::Epochs)?;
        common.extend(epochs.iter().map(|(id, _)| object_name(Area::Epochs, id)));
        let (packs, is_all) = graph.packs_below(&known);
        let is_known = is_all && roots.iter().all(Option::is_some);
        let indexes = indexes_of(repository, &packs)?;
        let snapshots: Vec<ObjectId> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        let mut holders: HashMap<ObjectId, Vec<ObjectName>> = HashMap::new();
        for (object, members) in repository.snapshot_holders()? {
            for member in members {
                holders.entry(member.id).or_default().push(object_name(Area::Snapshots, &object));
            }
        }
        let wanted: BTreeSet<&ObjectId> = snapshots.iter().collect();
        holders.retain(|id, _| wanted.contains(id));
        let objects = common
            .iter()
            .cloned()
            .chain(holders.values().flatten().cloned())
            .chain(packs.iter().map(|id| object_name(Area::Packs, id)))
            .chain(indexes.values().flatten().cloned())
            .collect();
        Ok(Self { common, snapshots, roots, graph, holders, indexes, objects, is_known })
    }

    /// Whether it is known what all of the snapshots need; else [`Needs::objects`] is not all of it.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// All of them.
    pub fn objects(&self) -> &BTreeSet<ObjectName> {
        &self.objects
    }

    /// The lock of each snapshot at `now`: the weakest of all that it needs.
    pub fn weakest(&self, locks: &Locks, now: Time) -> BTreeMap<ObjectId, SnapshotLock> {
        let hold = |name: &ObjectName| Weakness { hold: locks.hold(name, now), object: Some(name.clone()) };
        let of_pack = |id: &ObjectId| {
            let names = self.indexes.get(id).map_or(&[][..], Vec::as_slice);
            // Any index object that names a pack will do.
            let index = names.iter().map(hold).max().unwrap_or_else(Weakness::unknown);
            hold(&object_name(Area::Packs, id)).and(index)
        };
        let known: Vec<u32> = self.roots.iter().flatten().copied().collect();
        let mut least = self.graph.fold(&known, of_pack, Weakness::and, &Weakness::unknown()).into_iter();
        let common = self.common.iter().map(hold).reduce(Weakness::and).unwrap_or_else(Weakness::unknown);
        let mut out = BTreeMap::new();
        for (id, root) in self.snapshots.iter().zip(&self.roots) {
            let below = root.and_then(|_| least.next().flatten()).unwrap_or_else(Weakness::unknown);
            // Any object in which it stands will do.
            let names = self.holders.get(id).map_or(&[][..], Vec::as_slice);
            let own = names.iter().map(hold).max().unwrap_or_else(Weakness::unknown);
            out.insert(*id, SnapshotLock::of(common.clone().and(below).and(own)));
        }
        out
    }
}

/// Which index objects name these packs. What cannot be read, or went meanwhile, names none.
fn indexes_of(
    repository: &Repository,
    packs: &BTreeSet<ObjectId>,
) -> Result<HashMap<ObjectId, Vec<ObjectName>>> {
    let objects = repository.list(Area::Index)?;
    let out: Mutex<HashMap<ObjectId, Vec<ObjectName>>> = Mutex::default();
    for_each_parallel(&objects, repository.backend().parallelism(), |(id, size)| {
        let name = object_name(Area::Index, id);
        if *size > snap_repo::MAX_BOX_BYTES {
            return Ok(());
        }
        let parsed = match repository.backend().get(&name) {
            Ok(bytes) => repository.parse_index(id, &bytes),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(RepoError::from(error)),
        };
        match parsed {
            Ok(parsed) => {
                let named = parsed.packs.iter().map(|pack| pack.id).filter(|id| packs.contains(id));
                let mut out = lock(&out);
                named.for_each(|pack| out.entry(pack).or_default().push(name.clone()));
                Ok(())
            }
            Err(error) => error.into_finding().map(drop),
        }
    })?;
    Ok(out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
