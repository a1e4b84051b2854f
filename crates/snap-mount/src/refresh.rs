use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snap_repo::{RepoError, SnapshotSet};

use crate::store::Store;
use crate::tops::Tops;

/// The list of snapshots is believed for so long.
const EVERY: Duration = Duration::from_secs(3);
/// Whoever looks waits for a new list for so long, then gets the old one: the store may be stalled.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lists the snapshots that are to be shown, oldest first, and what is wrong with the rest.
pub type ListSnapshots = Box<dyn Fn() -> Result<SnapshotSet, RepoError> + Send + Sync>;

/// Lists the snapshots anew when somebody looks, on a thread of its own.
pub(crate) struct Refresh {
    list: ListSnapshots,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    listed: Option<Instant>,
    /// Since when a list is wanted.
    wanted: Option<Instant>,
    stopped: bool,
}

impl Refresh {
    /// Starts the thread; the list has just been read.
    pub(crate) fn start(
        list: ListSnapshots,
        store: Arc<Store>,
        tops: Arc<Tops>,
    ) -> std::io::Result<Arc<Self>> {
        let state = State { listed: Some(Instant::now()), ..State::default() };
        let refresh = Arc::new(Self { list, state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&refresh);
        std::thread::Builder::new().name("snapshots".into()).spawn(move || own.work(&store, &tops))?;
        Ok(refresh)
    }

    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the list is new enough.
    pub(crate) fn is_fresh(&self) -> bool {
        self.lock().listed.is_some_and(|listed| listed.elapsed() < EVERY)
    }

    /// As if it had been a while since the last list.
    #[cfg(feature = "testing")]
    pub(crate) fn be_old(&self) {
        self.lock().listed = None;
    }

    /// Has the snapshots listed, and waits for that for a moment.
    pub(crate) fn wait(&self) {
        let mut state = self.lock();
        let listed = state.listed;
        let since = *state.wanted.get_or_insert_with(Instant::now);
        self.changed.notify_all();
        while state.listed == listed && !state.stopped {
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&self, store: &Store, tops: &Tops) {
        let mut state = self.lock();
        while !state.stopped {
            if state.wanted.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            self.update(store, tops);
            state = self.lock();
            state.wanted = None;
            state.listed = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Shows what there is now.
    pub(crate) fn update(&self, store: &Store, tops: &Tops) {
        let listed = (self.list)().and_then(|set| {
            // What is new may lie in new packs.
            if !tops.has_all(&set.snapshots) {
                store.reload()?;
            }
            Ok(set)
        });
        match listed {
            Ok(set) => {
                set.findings.iter().for_each(|finding| store.reports.finding(finding));
                tops.show(&set.snapshots);
            }
            Err(error) => {
                store.reports.error(error);
            }
        }
    }
}
