//! A repository, a copy of it, and a source.

use std::collections::BTreeSet;
use std::sync::Arc;

use snap_backend::{Backend, MemoryBackend};
use snap_engine::{BackupReport, Context, CopyOptions, CopyReport, copy_snapshots};
use snap_format::{ObjectId, Time};
use snap_repo::{Index, Repository};

use super::compare::{Leeway, assert_same};
use super::{Lab, in_memory, odd};

/// Small packs, so that a run has many steps.
pub const PACK: usize = 20 << 10;
pub const NOW: Time = Time { secs: 2_000_000, nanos: 0 };

/// A repository and a copy of it, both in memory, and a source.
pub struct Scene {
    pub lab: Lab,
    pub stores: [Arc<MemoryBackend>; 2],
}

impl Scene {
    pub fn new() -> Self {
        let (lab, first) = in_memory();
        let second = Arc::new(MemoryBackend::new());
        lab.repository().create_copy(second.as_ref(), NOW).unwrap();
        let scene = Self { lab, stores: [first, second] };
        scene.write(1);
        scene
    }

    /// A version of the source: small files that go into groups, some that do not shrink, a large one.
    pub fn write(&self, version: u64) {
        let dir = self.lab.source("sub");
        std::fs::create_dir_all(&dir).unwrap();
        for number in 0..12 {
            let seed = if number % 3 > 0 { version * 100 + number } else { number };
            std::fs::write(dir.join(format!("noise {number}")), odd::noise(seed, 40_000)).unwrap();
            let text = format!("{}{seed}", "all work and no play ".repeat(200));
            std::fs::write(dir.join(format!("text {number}")), text).unwrap();
        }
        std::fs::write(self.lab.source("large"), odd::noise(version, 1_500_000)).unwrap();
    }

    pub fn store(&self, number: usize) -> Arc<dyn Backend> {
        Arc::clone(&self.stores[number]) as _
    }

    pub fn both(&self) -> [Arc<dyn Backend>; 2] {
        [self.store(0), self.store(1)]
    }

    pub fn try_backup(
        &self,
        stores: &[Arc<dyn Backend>],
        threads: usize,
    ) -> snap_engine::Result<BackupReport> {
        let open = |store: &Arc<dyn Backend>| Repository::open(Arc::clone(store), &self.lab.secret);
        let copies: Vec<_> = stores.iter().map(open).collect::<Result<_, _>>()?;
        let memory_bytes = if threads == 1 { 0 } else { 160 << 20 };
        let context = Context { threads, memory_bytes, ..self.lab.context() };
        let cache = self.lab.cache();
        snap_engine::backup::backup_in_packs(&copies, Some(&cache), self.lab.options(), context, PACK)
    }

    pub fn backup(&self, stores: &[Arc<dyn Backend>]) -> BackupReport {
        let report = self.try_backup(stores, 2).unwrap();
        assert_eq!(report.lagging, []);
        report
    }

    pub fn open(&self, number: usize) -> Repository {
        Repository::open(self.store(number), &self.lab.secret).unwrap()
    }

    /// Copies from the first to the second, in small packs.
    pub fn try_copy(&self, target: Arc<dyn Backend>) -> snap_engine::Result<CopyReport> {
        let target = Repository::open(target, &self.lab.secret)?;
        let options = CopyOptions { pack_target: PACK, ..CopyOptions::new(NOW) };
        let cache = self.lab.cache();
        copy_snapshots(&self.open(0), &target, Some(&cache), &options, self.lab.context())
    }

    pub fn copy(&self) -> CopyReport {
        self.try_copy(self.store(1)).unwrap()
    }

    pub fn snapshots(&self, number: usize) -> Vec<ObjectId> {
        self.open(number).snapshots().unwrap().snapshots.iter().map(|snapshot| snapshot.id).collect()
    }

    /// The newest snapshot of a copy is what the source is now, bit by bit, read from this copy alone.
    pub fn restores(&self, number: usize) {
        let store = self.store(number);
        let repository = Repository::open(Arc::clone(&store), &self.lab.secret).unwrap();
        let newest = repository.snapshots().unwrap().snapshots.len() - 1;
        let target = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
        let report = self.lab.restore_over(&store, newest, target.path());
        assert_eq!((report.failed, report.damaged), (0, 0));
        assert_same(&self.lab.source(""), target.path(), Leeway::default());
    }

    pub fn is_sound(&self, number: usize) {
        self.lab.check_over(&self.store(number));
        self.restores(number);
    }

    pub fn names(&self, number: usize, area: &str) -> BTreeSet<String> {
        let names = self.stores[number].names();
        names.iter().map(|name| name.as_str().to_owned()).filter(|name| name.starts_with(area)).collect()
    }

    /// Blobs that lie in more than one pack of a copy.
    pub fn stored_twice(&self, number: usize) -> usize {
        let repository = Repository::open(self.store(number), &self.lab.secret).unwrap();
        let (index, _) = Index::load(&repository, None).unwrap();
        index.iter("main").filter(|(id, _)| index.locate_all("main", id).len() > 1).count()
    }
}
