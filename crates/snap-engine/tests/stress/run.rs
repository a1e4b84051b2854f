//! Writers, prunes and a checker on one bucket at the same time, some of them killed: nothing that was committed may be lost.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use snap_backend::testing::{CrashBackend, CrashMode, CrashPoint};
use snap_backend::{Backend, OpenOptions, RetryOptions};
use snap_engine::browse::Browser;
use snap_engine::{BackupOptions, BackupSource, CheckOptions, Context, EngineError, ReadData, RestoreTarget};
use snap_format::{ObjectId, Time};
use snap_repo::prune::{PruneOptions, PruneReport};
use snap_repo::{Index, MergeRequest, RepoError, Repository};
use snap_source::FilterOptions;
use snap_testkit::{Keeping, S3Server};

use crate::common::{Lab, odd};

const WRITERS: u64 = 8;
const PRUNES: u64 = 2;
/// Files of a source, and the contents that they are chosen from: few, so that what one forgets another one needs.
const FILES: u64 = 8;
const CONTENTS: u64 = 40;
const CONTENT_LEN: usize = 20_000;
/// Small, so that there are many packs.
const PACK: usize = 48 << 10;
/// Snapshots that no prune forgets: the newest.
const KEPT: usize = 6;
/// How often a reader may be overtaken by prunes.
const TRIES: usize = 20;

/// What a snapshot holds: the number of the content of each file.
type Files = [u64; FILES as usize];

/// What happened.
#[derive(Debug, Default)]
pub struct Tally {
    pub committed: AtomicU64,
    pub killed_writers: AtomicU64,
    pub failed_writers: AtomicU64,
    pub prunes: AtomicU64,
    pub killed_prunes: AtomicU64,
    pub overtaken_prunes: AtomicU64,
    pub refused_prunes: AtomicU64,
    pub deleted_packs: AtomicU64,
    pub moved_blobs: AtomicU64,
    pub forgotten: AtomicU64,
    pub read_back: AtomicU64,
    pub read_again: AtomicU64,
    pub checks: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

struct Stress {
    lab: Lab,
    server: S3Server,
    /// What was committed and not forgotten.
    promised: Mutex<BTreeMap<ObjectId, (Files, u64)>>,
    /// Held while a run may store a snapshot of which nothing is known yet.
    gate: RwLock<()>,
    over: AtomicBool,
    next: AtomicU64,
    tally: Tally,
}

fn open_bucket(server: &S3Server) -> Arc<dyn Backend> {
    let credentials = server.credentials().map(|(name, value)| (name.to_owned(), value)).into();
    let retry = RetryOptions {
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(50),
        ..RetryOptions::default()
    };
    let options = OpenOptions { credentials, retry: Some(retry), ..OpenOptions::default() };
    snap_backend::open(&server.uri("stress"), &options).unwrap()
}

/// Runs it all: each writer as long as `goes_on` says of the number of its run. Panics at the first loss.
pub fn run(seed: u64, goes_on: impl Fn(u64) -> bool + Sync) -> Tally {
    let server = S3Server::start_keeping(Keeping::Nothing);
    let lab = Lab::over(tempfile::tempdir().unwrap(), open_bucket(&server));
    server.faults().internal_error_one_in.store(150, Ordering::Relaxed);
    server.faults().lost_answer_one_in.store(170, Ordering::Relaxed);
    let stress = Stress {
        lab,
        server,
        promised: Mutex::default(),
        gate: RwLock::default(),
        over: AtomicBool::new(false),
        next: AtomicU64::new(0),
        tally: Tally::default(),
    };
    std::thread::scope(|scope| {
        let (stress, goes_on) = (&stress, &goes_on);
        let dice = |actor: u64| Dice(seed.wrapping_mul(1000) + actor);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(move || stress.write_all(number, dice(number), goes_on)))
            .collect();
        let mut others: Vec<_> =
            (0..PRUNES).map(|number| scope.spawn(move || stress.prune_all(dice(100 + number)))).collect();
        others.push(scope.spawn(move || stress.read_all(dice(200))));
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stress.over.store(true, Ordering::Relaxed);
        let ended = ended.into_iter().chain(others.into_iter().map(|other| other.join()));
        if let Some(panic) = ended.filter_map(Result::err).next() {
            let why = panic.downcast_ref::<String>().map_or("", String::as_str);
            panic!("seed {seed}: {why}: {:?}", stress.tally);
        }
    });
    stress.settle();
    stress.tally
}

impl Stress {
    fn context(&self) -> Context<'_> {
        self.lab.context()
    }

    fn time(&self) -> Time {
        Time::new(2_000_000 + self.next.fetch_add(1, Ordering::Relaxed) as i64, 0)
    }

    /// A handle of its own; one in four dies after some operations.
    fn store(&self, dice: &mut Dice) -> (Arc<dyn Backend>, bool) {
        let store = open_bucket(&self.server);
        if dice.roll(4) > 0 {
            return (store, false);
        }
        let point = match dice.roll(2) {
            0 => CrashPoint::Operation(dice.roll(60)),
            _ => CrashPoint::Mutation(dice.roll(12)),
        };
        let mode = if dice.roll(2) == 0 { CrashMode::Before } else { CrashMode::After };
        (Arc::new(CrashBackend::new(store, point, mode)), true)
    }

    fn write_all(&self, number: u64, mut dice: Dice, goes_on: impl Fn(u64) -> bool) {
        let source = self.lab.source(&format!("of {number}"));
        std::fs::create_dir(&source).unwrap();
        let mut files: Files = [0; FILES as usize];
        for round in (0..).take_while(|round| goes_on(*round)) {
            for (at, content) in files.iter_mut().enumerate() {
                if round == 0 || dice.roll(3) == 0 {
                    *content = dice.roll(CONTENTS);
                    std::fs::write(source.join(at.to_string()), odd::noise(*content, CONTENT_LEN)).unwrap();
                }
            }
            let (store, may_die) = self.store(&mut dice);
            let _gate = self.gate.read().unwrap();
            match self.back_up(store, number, source.clone()) {
                Ok(snapshot) => {
                    let order = self.next.fetch_add(1, Ordering::Relaxed);
                    self.promised.lock().unwrap().insert(snapshot, (files, order));
                    count(&self.tally.committed, 1);
                }
                Err(_) if may_die => count(&self.tally.killed_writers, 1),
                // What it relied on went, and nobody can give it back: the run says so.
                Err(EngineError::Repo(RepoError::Overtaken)) => count(&self.tally.failed_writers, 1),
                Err(error) => panic!("writer {number}: {error}"),
            }
        }
    }

    fn back_up(
        &self,
        store: Arc<dyn Backend>,
        number: u64,
        source: PathBuf,
    ) -> snap_engine::Result<ObjectId> {
        // Half of the machines have a cache.
        let cache = number.is_multiple_of(2).then(|| self.lab.dir.path().join(format!("cache {number}")));
        let source = BackupSource::Paths {
            paths: vec![source],
            working_dir: PathBuf::from("/"),
            filter: FilterOptions::default(),
            as_path: Some(PathBuf::from("/data")),
        };
        let (host, time) = (format!("host-{number}"), self.time());
        let options = BackupOptions { source, host, time, ..self.lab.options() };
        let report = self.lab.backup_over(store, cache.as_deref(), options, self.context(), PACK)?;
        Ok(report.snapshot.unwrap())
    }

    fn prune_all(&self, mut dice: Dice) {
        while !self.over.load(Ordering::Relaxed) {
            let (store, may_die) = self.store(&mut dice);
            let outcome = self.forget_and_prune(store, &mut dice);
            match outcome {
                Ok(report) => {
                    count(&self.tally.prunes, 1);
                    count(&self.tally.deleted_packs, report.deleted.packs);
                    count(&self.tally.moved_blobs, report.moved_blobs);
                }
                Err(EngineError::Repo(RepoError::Unprunable(finding))) => {
                    count(&self.tally.refused_prunes, 1);
                    self.clear_away(&finding.snapshots);
                }
                Err(_) if may_die => count(&self.tally.killed_prunes, 1),
                Err(EngineError::Repo(RepoError::Overtaken)) => count(&self.tally.overtaken_prunes, 1),
                // Two that change the snapshots at the same time: one of them finds what it was about to read gone.
                Err(EngineError::Repo(RepoError::Refused(_) | RepoError::Damaged(_))) => {
                    count(&self.tally.overtaken_prunes, 1);
                }
                Err(error) => panic!("prune: {error}"),
            }
        }
    }

    fn forget_and_prune(&self, store: Arc<dyn Backend>, dice: &mut Dice) -> snap_engine::Result<PruneReport> {
        let repository = Repository::open(store, &self.lab.secret)?;
        let old = {
            let mut promised = self.promised.lock().unwrap();
            let mut by_age: Vec<_> = promised.iter().map(|(id, (_, order))| (*order, *id)).collect();
            by_age.sort_unstable();
            by_age.truncate(by_age.len().saturating_sub(KEPT));
            let old: Vec<_> = by_age.into_iter().map(|(_, id)| id).filter(|_| dice.roll(2) == 0).collect();
            promised.retain(|id, _| !old.contains(id));
            old
        };
        count(&self.tally.forgotten, old.len() as u64);
        repository.forget(&old, &[], self.time())?;
        if dice.roll(3) == 0 {
            let request = MergeRequest { stored_before_secs: i64::MAX, ..MergeRequest::default() };
            repository.merge_snapshots(&request)?;
        }
        snap_engine::prune(&repository, &self.prune_options(), self.context())
    }

    fn prune_options(&self) -> PruneOptions {
        PruneOptions { grace: Duration::ZERO, pack_target: PACK, ..PruneOptions::at(self.time()) }
    }

    /// A run that died, or failed, between its snapshot and its last look may leave a snapshot that is not whole, which stops every
    /// prune. It goes, once nobody writes; what was promised must be readable.
    fn clear_away(&self, blamed: &[ObjectId]) {
        let _gate = self.gate.write().unwrap();
        let promised: BTreeSet<ObjectId> = self.promised.lock().unwrap().keys().copied().collect();
        let (kept, left): (Vec<_>, Vec<_>) = blamed.iter().copied().partition(|id| promised.contains(id));
        kept.iter().for_each(|id| self.must_read(id));
        let repository = Repository::open(open_bucket(&self.server), &self.lab.secret).unwrap();
        let there: HashSet<ObjectId> =
            repository.snapshots().unwrap().snapshots.iter().map(|snapshot| snapshot.id).collect();
        let left: Vec<_> = left.into_iter().filter(|id| there.contains(id)).collect();
        // Another prune may be at work on them; the next one comes by again.
        let _ = repository.forget(&left, &[], self.time());
    }

    fn read_all(&self, mut dice: Dice) {
        while !self.over.load(Ordering::Relaxed) {
            let ids: Vec<ObjectId> = self.promised.lock().unwrap().keys().copied().collect();
            if ids.is_empty() {
                std::thread::yield_now();
                continue;
            }
            self.must_read(&ids[dice.roll(ids.len() as u64) as usize]);
            if dice.roll(4) == 0 {
                // What it finds while others delete may be gone, or not yet there; that it goes on is what counts.
                let repository = Repository::open(open_bucket(&self.server), &self.lab.secret).unwrap();
                let options = CheckOptions { read_data: ReadData::None };
                if snap_engine::check(&repository, &options, self.context()).is_ok() {
                    count(&self.tally.checks, 1);
                }
            }
        }
    }

    /// Restores a snapshot that was promised, unless it is forgotten meanwhile.
    fn must_read(&self, id: &ObjectId) {
        let mut why = String::new();
        for _ in 0..TRIES {
            let Some((files, _)) = self.promised.lock().unwrap().get(id).copied() else { return };
            match self.read(id, &files) {
                Ok(()) => return count(&self.tally.read_back, 1),
                Err(error) => why = error,
            }
            count(&self.tally.read_again, 1);
        }
        if self.promised.lock().unwrap().contains_key(id) {
            panic!("LOST: snapshot {}: {why}", id.to_hex());
        }
    }

    fn read(&self, id: &ObjectId, files: &Files) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let repository =
            Repository::open(open_bucket(&self.server), &self.lab.secret).map_err(|it| text(&it))?;
        // As everybody who reads: snapshots first, what they need afterwards.
        let set = repository.snapshots().map_err(|it| text(&it))?;
        let snapshot = set.snapshots.iter().find(|snapshot| snapshot.id == *id).ok_or("it is not listed")?;
        let (index, _) = Index::load(&repository, None).map_err(|it| text(&it))?;
        let browser = Browser::open(&repository, Arc::new(index), snapshot).map_err(|it| text(&it))?;
        let dir = tempfile::tempdir_in(self.lab.dir.path()).unwrap();
        let to = RestoreTarget::Dir(dir.path().to_owned());
        let report = snap_engine::restore(&browser, Some(b"/data"), to, &Default::default(), self.context())
            .map_err(|it| text(&it))?;
        if (report.failed, report.damaged) != (0, 0) {
            return Err(format!("{report:?}: {:?}", self.lab.heard()));
        }
        for (at, content) in files.iter().enumerate() {
            let got = std::fs::read(dir.path().join(at.to_string())).map_err(|it| text(&it))?;
            assert!(got == odd::noise(*content, CONTENT_LEN), "snapshot {}, file {at}", id.to_hex());
        }
        Ok(())
    }

    /// When all have ended: what the dead left is cleared away, a prune goes through, all that was promised is there, and `check`
    /// finds nothing.
    fn settle(&self) {
        let faults = self.server.faults();
        faults.internal_error_one_in.store(0, Ordering::Relaxed);
        faults.lost_answer_one_in.store(0, Ordering::Relaxed);
        let repository = Repository::open(open_bucket(&self.server), &self.lab.secret).unwrap();
        let promised: Vec<ObjectId> = self.promised.lock().unwrap().keys().copied().collect();
        let set = repository.snapshots().unwrap();
        assert_eq!(set.findings, []);
        let listed = set.snapshots.iter().map(|snapshot| snapshot.id);
        let left: Vec<_> = listed.filter(|id| !promised.contains(id)).collect();
        repository.forget(&left, &[], self.time()).unwrap();
        promised.iter().for_each(|id| self.must_read(id));
        snap_engine::prune(&repository, &self.prune_options(), self.context()).unwrap();
        self.lab.check_over(&open_bucket(&self.server));
        promised.iter().for_each(|id| self.must_read(id));
        let again = snap_engine::prune(&repository, &self.prune_options(), self.context()).unwrap();
        assert_eq!((again.deleted.packs, again.waiting.packs), (0, 0), "{again:?}");
    }
}
