//! Two copies of a repository that live for days: a changing tree, backups, retention, prunes, kills, and damage to one copy at a
//! time. What happens is drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, Bytes, MemoryBackend};
use snap_engine::backup::backup_in_packs;
use snap_engine::retention::Policy;
use snap_engine::{
    CheckOptions, Context, CopyOptions, EngineError, ForgetPlan, HealOptions, ReadData, Sibling, check,
    copy_snapshots, heal, note_forgotten, prune,
};
use snap_format::{ObjectId, Time};
use snap_repo::prune::{PruneOptions, Waste};
use snap_repo::{Cache, RepoError, Repository};

use super::compare::{Leeway, assert_same};
use super::{Lab, copy_tree, in_memory, odd};

/// When the clock of a [`MemoryBackend`] starts, seconds.
const START: i64 = 1_704_067_200;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Small packs, so that there are many.
const PACK: usize = 12 << 10;
/// Runs that may be killed before one is let alone.
const KILLS: usize = 2;

/// Numbers by splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one_of<'t, T>(&mut self, all: &'t [T]) -> Option<&'t T> {
        all.get(self.below(all.len()))
    }
}

/// What has happened.
#[derive(Debug, Default)]
pub struct Events {
    pub snapshots: u64,
    pub forgotten: u64,
    pub killed: u64,
    pub damaged: u64,
    pub healed: u64,
    pub pruned_packs: u64,
}

pub struct Life {
    lab: Lab,
    stores: [Arc<MemoryBackend>; 2],
    random: Random,
    day: i64,
    /// What the source was like, by snapshot.
    trees: BTreeMap<ObjectId, PathBuf>,
    /// Those that were forgotten.
    gone: BTreeSet<ObjectId>,
    pub events: Events,
}

impl Life {
    pub fn new(seed: u64) -> Self {
        let (lab, first) = in_memory();
        let second = Arc::new(MemoryBackend::new());
        lab.repository().create_copy(second.as_ref(), Time::new(START, 0)).unwrap();
        let stores = [first, second];
        let (trees, gone) = (BTreeMap::new(), BTreeSet::new());
        let mut life =
            Self { lab, stores, random: Random(seed), day: 0, trees, gone, events: Events::default() };
        for _ in 0..30 {
            life.change_one();
        }
        life
    }

    /// A day: work, damage perhaps, a backup, catching up, healing, and now and then retention and a prune.
    pub fn day(&mut self) {
        for _ in 0..6 {
            self.change_one();
        }
        let damaged = self.random.chance(50).then(|| self.random.below(2));
        if let Some(copy) = damaged {
            self.damage(copy);
        }
        self.backup();
        if let Some(copy) = damaged {
            self.heal(copy);
        }
        self.catch_up();
        if self.random.chance(60) {
            self.forget();
        }
        if self.random.chance(60) {
            let copy = self.random.below(2);
            self.prune(copy);
        }
        self.day += 1;
        self.stores.iter().for_each(|store| store.advance(DAY));
    }

    /// Both copies are whole, and have every snapshot that was not forgotten, as it was.
    pub fn judge(&mut self) {
        self.catch_up();
        let kept: BTreeSet<ObjectId> =
            self.trees.keys().filter(|id| !self.gone.contains(*id)).copied().collect();
        assert!(!kept.is_empty());
        for copy in 0..2 {
            let store: Arc<dyn Backend> = self.store(copy);
            self.lab.check_over(&store);
            let there = self.snapshots(copy);
            assert_eq!(there.iter().copied().collect::<BTreeSet<_>>(), kept, "copy {copy}");
            for (number, id) in there.iter().enumerate() {
                let target = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
                let report = self.lab.restore_over(&store, number, target.path());
                assert_eq!((report.failed, report.damaged), (0, 0));
                assert_same(&self.trees[id], target.path(), Leeway::default());
            }
        }
    }

    fn time(&self) -> Time {
        Time::new(START + self.day * DAY.as_secs().cast_signed(), 0)
    }

    fn context(&self) -> Context<'_> {
        self.lab.context()
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.lab.dir.path().join("cache"), self.lab.id)
    }

    fn store(&self, copy: usize) -> Arc<dyn Backend> {
        Arc::clone(&self.stores[copy]) as _
    }

    fn open(&self, copy: usize) -> Result<Repository, RepoError> {
        Repository::open(self.store(copy), &self.lab.secret)
    }

    fn snapshots(&self, copy: usize) -> Vec<ObjectId> {
        let set = self.open(copy).unwrap().snapshots().unwrap();
        set.snapshots.iter().map(|snapshot| snapshot.id).collect()
    }

    /// A store that dies after a number of changes, now and then.
    fn mortal(&mut self, copy: usize, attempt: usize, changes: usize) -> Arc<CrashBackend> {
        if attempt >= KILLS || !self.random.chance(35) {
            return Arc::new(CrashBackend::immortal(self.store(copy)));
        }
        let point = CrashPoint::Mutation(self.random.below(changes) as u64);
        let mode = if self.random.chance(50) { CrashMode::Before } else { CrashMode::After };
        Arc::new(CrashBackend::new(self.store(copy), point, mode))
    }

    fn count_dead(&mut self, stores: &[Arc<CrashBackend>]) {
        self.events.killed += stores.iter().filter(|store| store.is_dead()).count() as u64;
    }

    fn change_one(&mut self) {
        let dir = self.lab.source(&format!("dir {}", self.random.below(4)));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("file {}", self.random.below(12)));
        let old = std::fs::read(&path).unwrap_or_default();
        let seed = self.random.next();
        let new = match self.random.below(6) {
            0 => odd::noise(seed, self.random.below(30_000)),
            1 => format!("{seed} and so on ").repeat(self.random.below(300)).into_bytes(),
            2 => [old, odd::noise(seed, self.random.below(3000))].concat(),
            3 if old.len() > 1 => {
                let mut bytes = old;
                let at = self.random.below(bytes.len());
                bytes[at] ^= 1;
                bytes
            }
            4 => {
                let _ = std::fs::rename(&path, dir.join(format!("file {}", self.random.below(12))));
                return;
            }
            _ => {
                let _ = std::fs::remove_file(&path);
                return;
            }
        };
        std::fs::write(path, new).unwrap();
    }

    /// To all copies that can be opened; again until it is a success.
    fn backup(&mut self) {
        let tree = self.lab.dir.path().join(format!("day {}", self.day));
        copy_tree(&self.lab.source(""), &tree);
        for attempt in 0.. {
            let stores: Vec<Arc<CrashBackend>> = (0..2).map(|copy| self.mortal(copy, attempt, 25)).collect();
            let opened =
                stores.iter().map(|store| Repository::open(Arc::clone(store) as _, &self.lab.secret));
            let mut copies: Vec<Repository> = opened.filter_map(Result::ok).collect();
            if copies.len() == 2 && self.random.chance(15) {
                copies.remove(self.random.below(2));
            }
            let options = snap_engine::BackupOptions { time: self.time(), ..self.lab.options() };
            let cache = self.cache();
            let outcome = backup_in_packs(&copies, Some(&cache), options, self.context(), PACK);
            self.count_dead(&stores);
            // One that was killed may have come to its snapshot.
            for copy in 0..2 {
                let set = self.open(copy).and_then(|repository| repository.snapshots());
                for id in set.map(|set| set.snapshots).unwrap_or_default().iter().map(|it| it.id) {
                    self.events.snapshots += u64::from(!self.trees.contains_key(&id));
                    self.trees.entry(id).or_insert_with(|| tree.clone());
                }
            }
            match outcome {
                Ok(_) => return,
                Err(error) => assert!(attempt < KILLS, "{error:?}"),
            }
        }
    }

    fn catch_up(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            for attempt in 0.. {
                let store = self.mortal(to, attempt, 15);
                let options = CopyOptions { pack_target: PACK, ..CopyOptions::new(self.time()) };
                let outcome = (|| {
                    let target = Repository::open(Arc::clone(&store) as _, &self.lab.secret)?;
                    let (source, cache) = (self.open(from)?, self.cache());
                    let report = copy_snapshots(&source, &target, Some(&cache), &options, self.context())?;
                    note_forgotten(&[&source], &target, self.time())?;
                    Ok::<_, EngineError>(report)
                })();
                self.count_dead(&[Arc::clone(&store)]);
                match outcome {
                    Ok(report) => {
                        assert_eq!(report.left, []);
                        break;
                    }
                    Err(error) => assert!(store.is_dead(), "{error:?}"),
                }
            }
        }
    }

    /// Decided once, done in each.
    fn forget(&mut self) {
        let policy = Policy { last: 2, daily: 7, weekly: 3, ..Policy::default() };
        let (set, overlays) = self.open(0).unwrap().snapshots_with_overlays().unwrap();
        let plan = ForgetPlan::by_policy(set.snapshots, &overlays, |_| true, &policy, self.time()).unwrap();
        let named: Vec<ObjectId> = plan.dropped().collect();
        self.events.forgotten += named.len() as u64;
        self.gone.extend(&named);
        for copy in 0..2 {
            for attempt in 0.. {
                let store = self.mortal(copy, attempt, 4);
                let outcome = (|| {
                    let repository = Repository::open(Arc::clone(&store) as _, &self.lab.secret)?;
                    let (set, overlays) = repository.snapshots_with_overlays()?;
                    ForgetPlan::of_named(set.snapshots, &overlays, &named, self.time())?.execute(&repository)
                })();
                self.count_dead(&[Arc::clone(&store)]);
                match outcome {
                    Ok(()) => break,
                    Err(error) => assert!(store.is_dead(), "{error:?}"),
                }
            }
        }
    }

    /// What is killed is left to the next.
    fn prune(&mut self, copy: usize) {
        let store = self.mortal(copy, 0, 30);
        let grace = if self.random.chance(50) { Duration::ZERO } else { DAY };
        let options = PruneOptions {
            grace,
            max_waste: Waste::Share(0.0),
            pack_target: PACK,
            ..PruneOptions::at(self.time())
        };
        let outcome = Repository::open(Arc::clone(&store) as _, &self.lab.secret)
            .map_err(EngineError::from)
            .and_then(|repository| prune(&repository, &options, self.context()));
        self.count_dead(&[Arc::clone(&store)]);
        match outcome {
            Ok(report) => self.events.pruned_packs += report.deleted.packs,
            Err(error) => assert!(store.is_dead(), "{error:?}"),
        }
    }

    /// Something happens to objects of one area, or of all.
    fn damage(&mut self, copy: usize) {
        let store = Arc::clone(&self.stores[copy]);
        let areas = [
            "config",
            "epochs/",
            "index/",
            "packs/",
            "packs/",
            "packs/",
            "snapshots/",
            "records/",
            "marks/",
            "",
        ];
        let area = *self.random.one_of(&areas).unwrap();
        let names: Vec<_> =
            store.names().into_iter().filter(|name| name.as_str().starts_with(area)).collect();
        let count = match self.random.below(4) {
            0 => names.len(),
            1 => names.len() / 3 + 1,
            _ => 1,
        };
        for _ in 0..count {
            let (Some(name), Some(other)) = (self.random.one_of(&names), self.random.one_of(&names)) else {
                return;
            };
            let other = store.get(other).unwrap_or_default();
            let kind = self.random.below(6);
            let at = self.random.next();
            match kind {
                0 => drop(store.remove(name)),
                1 => store.replace(name, Bytes::new()),
                // Another config is a matter for people.
                2 if area != "config" && !name.as_str().starts_with("config") => store.replace(name, other),
                _ => {
                    store.damage(name, |bytes| {
                        let at = usize::try_from(at % bytes.len().max(1) as u64).unwrap();
                        match kind {
                            3 => bytes.truncate(at),
                            4 => bytes.iter_mut().skip(at).take(1000).for_each(|byte| *byte = 0),
                            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
                        }
                    });
                }
            }
            self.events.damaged += 1;
        }
    }

    /// As `check --repair` does it, until nothing is found.
    fn heal(&mut self, copy: usize) {
        for attempt in 0.. {
            let sibling = self.open(1 - copy).unwrap();
            let store = self.mortal(copy, attempt, 12);
            let outcome = (|| {
                sibling.put_back_keys(store.as_ref(), self.time())?;
                let target = Repository::open(Arc::clone(&store) as _, &self.lab.secret)?;
                let options = CheckOptions { read_data: ReadData::All };
                let found = check(&target, &options, self.context())?.findings;
                if found.is_empty() {
                    return Ok(found);
                }
                let siblings = [Sibling { name: "other".into(), repository: sibling.clone() }];
                let options = HealOptions {
                    time: self.time(),
                    host: "elsewhere",
                    has_all_copies: true,
                    pack_target: PACK,
                };
                heal(&target, &siblings, &found, None, &options, self.context())?;
                Ok::<_, EngineError>(found)
            })();
            self.count_dead(&[Arc::clone(&store)]);
            match outcome {
                Ok(found) if found.is_empty() => return,
                Ok(found) => {
                    assert!(attempt < KILLS + 3, "{found:#?}\n{:#?}", self.lab.heard());
                    self.events.healed += found.len() as u64;
                }
                Err(error) => assert!(store.is_dead(), "{error:?}"),
            }
        }
    }
}
