use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use snap_format::{ObjectId, Time};
use snap_repo::Snapshot;

use crate::names::{in_path, utc};
use crate::snapshots::{Instance, Snap};
use crate::store::Store;

/// The inode of the mount's root.
pub(crate) const ROOT: u64 = 1;
/// Fewest digits by which a snapshot is found below `by-id`.
const MIN_PREFIX: usize = 4;

/// A snapshot of the list, opened when somebody looks into it.
pub(crate) struct Held {
    pub(crate) snapshot: Snapshot,
    snap: OnceLock<Option<Arc<Snap>>>,
}

/// The root of a snapshot at one of its places.
pub(crate) struct Root {
    pub(crate) parent: u64,
    pub(crate) held: Arc<Held>,
    instance: OnceLock<Option<Arc<Instance>>>,
}

impl Root {
    /// The snapshot; none if it cannot be opened, which is told.
    pub(crate) fn instance(&self, store: &Store, domain_number: u32) -> Option<Arc<Instance>> {
        let open = || match Snap::open(store.repository(), &self.held.snapshot, domain_number) {
            Ok(snap) => Some(Arc::new(snap)),
            Err(error) => {
                store.reports.error(error);
                None
            }
        };
        let snap = || self.held.snap.get_or_init(open).clone();
        self.instance.get_or_init(|| snap().map(|snap| Arc::new(Instance::new(snap)))).clone()
    }
}

/// Something above the snapshots.
#[derive(Clone)]
pub(crate) enum Top {
    /// A directory of such things.
    Dir(Arc<TopDir>),
    /// A snapshot.
    Root(Arc<Root>),
    /// A symlink, to a name beside it.
    Link(Vec<u8>, Time),
}

/// A directory above the snapshots.
pub(crate) struct TopDir {
    pub(crate) parent: u64,
    pub(crate) entries: BTreeMap<Vec<u8>, u64>,
    /// The newest snapshot below; its nanoseconds count how often the list has changed, so that the kernel sees each change.
    pub(crate) changed: Time,
}

/// What stands above the snapshots: views of one list of them.
#[derive(Default)]
pub(crate) struct Tops(RwLock<Table>);

#[derive(Default)]
struct Table {
    tops: HashMap<u64, Top>,
    /// Roots, those that are gone too: somebody may stand in one.
    roots: HashMap<u64, Arc<Root>>,
    /// The inode of each path, for ever.
    inos: HashMap<Vec<u8>, u64>,
    held: HashMap<ObjectId, Arc<Held>>,
    domains: HashMap<String, u32>,
    changes: u32,
}

impl Tops {
    /// The tree of one snapshot, which is the root itself.
    pub(crate) fn of_one(snapshot: Snapshot) -> Self {
        let mut table = Table::default();
        table.inos.insert(Vec::new(), ROOT);
        let held = table.hold(&snapshot);
        let root = Arc::new(Root { parent: ROOT, held, instance: OnceLock::new() });
        table.roots.insert(ROOT, Arc::clone(&root));
        table.tops.insert(ROOT, Top::Root(root));
        Self(RwLock::new(table))
    }

    /// Shows these snapshots, oldest first, and no others.
    pub(crate) fn show(&self, snapshots: &[Snapshot]) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = !table.tops.is_empty()
            && table.held.len() == snapshots.len()
            && snapshots.iter().all(|snapshot| table.held.contains_key(&snapshot.id));
        if !is_same {
            table.build(snapshots);
        }
    }

    /// Whether all of these are shown already.
    pub(crate) fn has_all(&self, snapshots: &[Snapshot]) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        snapshots.iter().all(|snapshot| table.held.contains_key(&snapshot.id))
    }

    pub(crate) fn of(&self, ino: u64) -> Option<Top> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let gone = || table.roots.get(&ino).cloned().map(Top::Root);
        table.tops.get(&ino).cloned().or_else(gone)
    }

    /// The number that stands for a snapshot's domain.
    pub(crate) fn domain_number(&self, held: &Held) -> u32 {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.domains.get(&held.snapshot.envelope.domain).copied().unwrap_or(u32::MAX)
    }

    /// An entry of a directory. Below `by-id` the first digits of an id are a link to the whole.
    pub(crate) fn find(&self, dir: &TopDir, name: &[u8]) -> Option<(u64, Top)> {
        if let Some(ino) = dir.entries.get(name) {
            return self.of(*ino).map(|top| (*ino, top));
        }
        let is_hex = name.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
        if name.len() < MIN_PREFIX || !is_hex {
            return None;
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_by_id = table.inos.get(&b"/by-id"[..]).and_then(|ino| table.tops.get(ino));
        let Some(Top::Dir(by_id)) = is_by_id.filter(|_| dir.parent == ROOT) else { return None };
        if !std::ptr::eq(&raw const **by_id, dir) {
            return None;
        }
        let mut fitting = dir.entries.range(name.to_vec()..).take_while(|(id, _)| id.starts_with(name));
        let (Some((whole, _)), None) = (fitting.next(), fitting.next()) else { return None };
        let link = Top::Link(whole.clone(), dir.changed);
        let ino = table.ino([b"/by-id/", name, b"\0"].concat());
        table.tops.insert(ino, link.clone());
        Some((ino, link))
    }
}

impl Table {
    fn ino(&mut self, path: Vec<u8>) -> u64 {
        let next = ROOT + self.inos.len() as u64;
        *self.inos.entry(path).or_insert(next)
    }

    fn hold(&mut self, snapshot: &Snapshot) -> Arc<Held> {
        let number = self.domains.len() as u32; // few: a slot has one
        self.domains.entry(snapshot.envelope.domain.clone()).or_insert(number);
        let new = || Arc::new(Held { snapshot: snapshot.clone(), snap: OnceLock::new() });
        Arc::clone(self.held.entry(snapshot.id).or_insert_with(new))
    }

    fn build(&mut self, snapshots: &[Snapshot]) {
        self.changes = (self.changes + 1) % 1_000_000_000;
        let ids: HashSet<ObjectId> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        self.held.retain(|id, _| ids.contains(id));
        let mut dirs: HashMap<Vec<u8>, TopDir> = HashMap::new();
        let mut tops: HashMap<u64, Top> = HashMap::new();
        for fixed in ["", "/by-dataset", "/by-id", "/by-time", "/latest"] {
            self.dir(&mut dirs, fixed.as_bytes(), Time::default());
        }
        // The newest of each dataset and host, by the rule of `latest`.
        let mut latest: BTreeMap<Vec<u8>, (&Snapshot, Vec<u8>)> = BTreeMap::new();
        for snapshot in snapshots {
            let (envelope, held) = (&snapshot.envelope, self.hold(snapshot));
            let group = [b"/", &in_path(&envelope.dataset)[..], b"/", &in_path(&envelope.host)].concat();
            let id = snapshot.id.to_hex();
            let in_group = [b"/by-dataset", &group[..]].concat();
            let time = free_name(&dirs, &in_group, utc(envelope.time), &id);
            let overall = free_name(&dirs, b"/by-time", utc(envelope.time), &id);
            for (dir, name) in [(&b"/by-id"[..], id.as_bytes()), (b"/by-time", &overall), (&in_group, &time)]
            {
                self.root(&mut dirs, &mut tops, dir, name, &held);
            }
            let rank = |it: &Snapshot| (!it.is_from_the_future(), it.envelope.time, it.id);
            match latest.get_mut(&group) {
                Some((newest, _)) if rank(newest) > rank(snapshot) => {}
                _ => drop(latest.insert(group, (snapshot, time))),
            }
        }
        for (group, (snapshot, time)) in latest {
            let held = self.hold(snapshot);
            let (dir, host) = group.split_at(group.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            self.root(&mut dirs, &mut tops, &[b"/latest", dir].concat(), &host[1..], &held);
            let in_group = [b"/by-dataset", &group[..]].concat();
            let ino = self.ino([&in_group[..], b"/latest\0", &time].concat());
            let changed = held.snapshot.envelope.time;
            self.dir(&mut dirs, &in_group, changed).entries.insert(b"latest".to_vec(), ino);
            tops.insert(ino, Top::Link(time, changed));
        }
        for (path, mut dir) in dirs {
            dir.changed.nanos = self.changes;
            tops.insert(self.ino(path), Top::Dir(Arc::new(dir)));
        }
        self.tops = tops;
    }

    /// A directory, made with those above it, which are as new as what is in them.
    fn dir<'a>(
        &mut self,
        dirs: &'a mut HashMap<Vec<u8>, TopDir>,
        path: &[u8],
        newest: Time,
    ) -> &'a mut TopDir {
        let ino = self.ino(path.to_vec());
        let parent = match path.iter().rposition(|byte| *byte == b'/') {
            None => ROOT,
            Some(at) => {
                let above = self.ino(path[..at].to_vec());
                self.dir(dirs, &path[..at], newest).entries.insert(path[at + 1..].to_vec(), ino);
                above
            }
        };
        let new = || TopDir { parent, entries: BTreeMap::new(), changed: newest };
        let dir = dirs.entry(path.to_vec()).or_insert_with(new);
        dir.changed = dir.changed.max(newest);
        dir
    }

    fn root(
        &mut self,
        dirs: &mut HashMap<Vec<u8>, TopDir>,
        tops: &mut HashMap<u64, Top>,
        dir: &[u8],
        name: &[u8],
        held: &Arc<Held>,
    ) {
        let id = held.snapshot.id;
        let ino = self.ino([dir, b"/", name, b"\0", &id.0].concat());
        self.dir(dirs, dir, held.snapshot.envelope.time).entries.insert(name.to_vec(), ino);
        let parent = self.ino(dir.to_vec());
        let new = || Arc::new(Root { parent, held: Arc::clone(held), instance: OnceLock::new() });
        let root = Arc::clone(self.roots.entry(ino).or_insert_with(new));
        tops.insert(ino, Top::Root(root));
    }
}

/// A time as a name: the first digits of the id go with it if another snapshot has it.
fn free_name(dirs: &HashMap<Vec<u8>, TopDir>, dir: &[u8], time: Vec<u8>, id: &str) -> Vec<u8> {
    match dirs.get(dir) {
        Some(dir) if dir.entries.contains_key(&time) => [&time[..], b"-", &id.as_bytes()[..12]].concat(),
        _ => time,
    }
}
