//! Snapshots as a read-only file system, by FUSE.
//!
//! [`Mount::start`] mounts what [`MountOptions`] say of a repository on a directory and answers the kernel on threads of its
//! own; [`Mount::wait`] lasts until somebody unmounts it or asks for the end.
//!
//! How a request is served: whatever is in memory is answered by the thread that reads it; whatever has to be fetched is handed
//! to a pool (directories) or to the threads of the unit cache (contents), which reply when it is there. So nothing waits for
//! a store that stalls but those who want something from it.
//!
//! - `tops`, `refresh`: the directories above the snapshots, listed anew when somebody looks.
//! - `trees`, `dirs`, `core`: directories and inodes of snapshots. `content`, `units`, `streams`: what is in files.
//!
//! Not here: which snapshots pass the filters, signals, messages.

mod attr;
mod content;
mod core;
mod dirs;
mod error;
mod fs;
mod lru;
mod names;
mod point;
mod pool;
mod refresh;
mod snapshots;
mod store;
mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod tops;
mod trees;
mod units;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use rustix::mount::UnmountFlags;
use snap_repo::{Cache, RepoError, Repository, Snapshot};

use crate::core::Core;
use crate::dirs::Dirs;
use crate::error::Reports;
use crate::fs::SnapFs;
use crate::lru::Lru;
use crate::pool::Pool;
use crate::refresh::Refresh;
use crate::store::Store;
use crate::streams::Streams;
use crate::tops::Tops;
use crate::trees::Trees;
use crate::units::Units;

pub use error::{MountError, MountObserver, PointProblem};
pub use point::{is_in_a_mount, mounted};
pub use refresh::ListSnapshots;

/// Threads that read requests: each answers what is in memory.
const READERS: usize = 2;
/// Most threads that fetch directories: they wait for the store.
const FETCHERS: usize = 32;
/// Most threads that fetch contents from a store that is far.
const FAR_THREADS: usize = 8;
/// How often it is looked whether the end was asked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the end waits for files that are open.
const UNMOUNT_WITHIN: Duration = Duration::from_millis(500);

/// What is mounted.
pub enum Shown {
    /// One snapshot: its root is the root.
    One(Box<Snapshot>),
    /// All that the list gives: below `latest`, `by-id`, `by-time` and `by-dataset`.
    All(ListSnapshots),
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(snapshot) => write!(f, "One({})", snapshot.id),
            Self::All(_) => write!(f, "All"),
        }
    }
}

/// How it is mounted.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Where the index lies on this machine, if it may.
    pub cache: Option<Cache>,
    /// Threads that compute.
    pub threads: usize,
    /// Memory for contents and directories, bytes: beyond it what was not used for longest goes.
    pub memory_bytes: u64,
    /// Other users may look, too.
    pub allow_other: bool,
    /// The kernel compares modes, owners and ACLs with who asks.
    pub check_permissions: bool,
    /// `fusermount3` is there and is to unmount when the program dies; only where others may look.
    pub auto_unmount: bool,
}

/// How a mount ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody unmounted it.
    Unmounted,
    /// It was asked to end, and unmounted itself.
    Stopped,
}

/// A mount. If it is dropped, it is unmounted.
pub struct Mount {
    dir: PathBuf,
    /// Serves until the file system is gone.
    session: Option<JoinHandle<io::Result<()>>>,
    unmounter: Mutex<SessionUnmounter>,
    core: Arc<Core>,
    pool: Pool,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({})", self.dir.display())
    }
}

impl Mount {
    /// Mounts snapshots of a repository on an empty directory; readers only.
    pub fn start(
        repository: &Repository,
        shown: Shown,
        dir: &Path,
        options: &MountOptions,
        observer: Arc<dyn MountObserver>,
    ) -> Result<Self, MountError> {
        repository.keyring().require_reader("mount")?;
        let dir = point::check(dir)?;
        std::fs::File::options().read(true).write(true).open("/dev/fuse").map_err(MountError::NoFuse)?;
        let store = Arc::new(Store::open(repository.clone(), options.cache.clone(), Reports::new(observer))?);
        let fs = match file_system(&store, shown, options)? {
            Ok(fs) => fs,
            Err(source) => return Err(MountError::Refused { dir, source }),
        };
        let (core, pool) = (Arc::clone(&fs.core), fs.pool.clone());
        let served = Session::new(fs, &dir, &config(options)).and_then(|mut session| {
            let unmounter = Mutex::new(session.unmount_callable());
            let serve = std::thread::Builder::new().name("mount".into()).spawn(move || session.run())?;
            Ok((serve, unmounter))
        });
        match served {
            Ok((session, unmounter)) => Ok(Self { dir, session: Some(session), unmounter, core, pool }),
            Err(source) => {
                stop(&core, &pool);
                Err(MountError::Refused { dir, source })
            }
        }
    }

    /// The directory, its whole path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lasts until somebody unmounts it, or until `asked_to_stop` is set; then it is unmounted, whoever has files open there.
    pub fn wait(mut self, asked_to_stop: &AtomicBool) -> Result<Ended, MountError> {
        let Some(session) = self.session.take() else { return Ok(Ended::Unmounted) };
        while !session.is_finished() {
            if asked_to_stop.load(Ordering::SeqCst) {
                self.unmount(&session);
                return Ok(Ended::Stopped);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let broken = |source| MountError::Broken { dir: self.dir.clone(), source };
        match session.join() {
            Ok(Ok(())) => Ok(Ended::Unmounted),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(broken(io::Error::other("a thread panicked"))),
        }
    }

    /// Takes it from the directory at once. Files that are open there are cut off when the program ends.
    fn unmount(&self, session: &JoinHandle<io::Result<()>>) {
        if rustix::mount::unmount(&self.dir, UnmountFlags::DETACH).is_err() {
            // That of an ordinary user is taken away by fusermount3.
            let _ = self.unmounter.lock().unwrap_or_else(PoisonError::into_inner).unmount();
        }
        let began = Instant::now();
        while !session.is_finished() && began.elapsed() < UNMOUNT_WITHIN {
            std::thread::sleep(LOOK_EVERY / 10);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.unmount(&session);
        }
        stop(&self.core, &self.pool);
    }
}

/// What answers the kernel, its threads running; [`stop`] ends them. The second error is that there can be none.
fn file_system(
    store: &Arc<Store>,
    shown: Shown,
    options: &MountOptions,
) -> Result<io::Result<SnapFs>, RepoError> {
    let (tops, list) = match shown {
        Shown::One(snapshot) => (Tops::of_one(*snapshot), None),
        Shown::All(list) => {
            let (tops, set) = (Tops::default(), list()?);
            set.findings.iter().for_each(|finding| store.reports.finding(finding));
            tops.show(&set.snapshots);
            (tops, Some(list))
        }
    };
    let started = start_threads(store, Arc::new(tops), list, options);
    Ok(started.map(|(core, pool)| SnapFs {
        core,
        pool,
        checks_permissions: options.check_permissions,
        is_watched: is_watched(options),
    }))
}

/// Whether `fusermount3` stays and unmounts when the program dies.
const fn is_watched(options: &MountOptions) -> bool {
    options.allow_other && options.auto_unmount
}

fn start_threads(
    store: &Arc<Store>,
    tops: Arc<Tops>,
    list: Option<ListSnapshots>,
    options: &MountOptions,
) -> io::Result<(Arc<Core>, Pool)> {
    let memory = options.memory_bytes;
    let backend = store.repository().backend();
    let threads = match backend.local_root() {
        Some(_) => options.threads,
        None => options.threads.max(backend.parallelism().min(FAR_THREADS)),
    };
    let list = list.map(|list| Refresh::start(list, Arc::clone(store), Arc::clone(&tops)));
    let core = Core {
        store: Arc::clone(store),
        trees: Arc::new(Trees::new(Arc::clone(store), memory / 4)),
        units: Units::start(Arc::clone(store), threads, memory / 2)?,
        tops,
        refresh: list.transpose()?,
        dirs: Dirs::default(),
        maps: Mutex::new(Lru::new(memory / 16)),
        streams: Streams::new(memory / 16),
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    };
    Ok((Arc::new(core), Pool::start("dir", FETCHERS)?))
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(point::NAME.to_owned()),
        MountOption::Subtype(point::NAME.to_owned()),
        MountOption::RO,
        MountOption::NoAtime,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.check_permissions {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    if is_watched(options) {
        config.mount_options.push(MountOption::AutoUnmount);
    }
    if options.allow_other {
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(READERS);
    config.clone_fd = true;
    config
}

fn stop(core: &Core, pool: &Pool) {
    core.store.close();
    core.units.stop();
    if let Some(refresh) = &core.refresh {
        refresh.stop();
    }
    pool.stop();
}
