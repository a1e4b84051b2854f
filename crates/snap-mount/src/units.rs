//! One cache of opened units for all readers. A unit that is wanted by many is fetched and opened once; whoever waits for one
//! is called when it is there, so that no thread waits.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use snap_backend::Bytes;
use snap_format::{BlobId, BlobKind, ObjectId};
use snap_repo::{Area, Located, object_name};

use crate::lru::Lru;
use crate::snapshots::Snap;
use crate::store::Store;

/// Bytes of plaintext after which a request ends.
const REQUEST: u64 = 1 << 20;
/// Bytes between two units in a pack that are fetched along rather than asked for anew.
const GAP: u64 = 16 << 10;
/// Bytes fetched with a group that is wanted: small files that were stored together are read together.
const WINDOW: u64 = 1 << 20;
/// Windows kept: 4 MiB.
const WINDOWS: usize = 4;
/// Buffers kept to be used again: memory that is new costs more than what is put into it.
const SPARE: usize = 8;

/// A sealed unit, by where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Unit {
    pack: ObjectId,
    offset: u64,
}

/// A chunk that is wanted, and where it lies.
#[derive(Clone)]
pub(crate) struct Want {
    pub(crate) snap: Arc<Snap>,
    pub(crate) id: BlobId,
    pub(crate) place: Located,
}

impl Want {
    fn unit(&self) -> Unit {
        Unit { pack: self.place.pack_id, offset: self.place.offset }
    }
}

/// The plaintext of a unit, or nothing if it cannot be had from that place.
pub(crate) type Opened = Option<Arc<Vec<u8>>>;
type Then = Box<dyn FnOnce(Vec<Opened>) + Send>;

/// Several units that somebody waits for.
struct Gather {
    units: Mutex<Vec<Opened>>,
    missing: AtomicUsize,
    then: Mutex<Option<Then>>,
}

/// Units that lie behind one another in a pack, fetched at once.
struct Job {
    wants: Vec<Want>,
    is_begun: AtomicBool,
}

struct Flight {
    job: Arc<Job>,
    waiting: Vec<(Arc<Gather>, usize)>,
    is_urgent: bool,
}

struct State {
    cache: Lru<Unit, Arc<Vec<u8>>>,
    flights: HashMap<Unit, Flight>,
    /// Somebody waits for these.
    urgent: VecDeque<Arc<Job>>,
    /// These will be wanted soon.
    ahead: VecDeque<Arc<Job>>,
    /// Plain bytes in `ahead` or begun from there.
    ahead_bytes: u64,
    windows: VecDeque<(ObjectId, u64, Bytes)>,
    spare: Vec<Vec<u8>>,
    stopped: bool,
}

pub(crate) struct Units {
    store: Arc<Store>,
    memory_bytes: u64,
    state: Mutex<State>,
    work: Condvar,
}

impl Units {
    /// Starts the threads, which end with [`Units::stop`].
    pub(crate) fn start(store: Arc<Store>, threads: usize, memory_bytes: u64) -> std::io::Result<Arc<Self>> {
        let state = State {
            cache: Lru::new(memory_bytes),
            flights: HashMap::new(),
            urgent: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            windows: VecDeque::new(),
            spare: Vec::new(),
            stopped: false,
        };
        let units = Arc::new(Self { store, memory_bytes, state: Mutex::new(state), work: Condvar::new() });
        for number in 0..threads {
            let units = Arc::clone(&units);
            std::thread::Builder::new().name(format!("unit-{number}")).spawn(move || units.work())?;
        }
        Ok(units)
    }

    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let flights = std::mem::take(&mut state.flights);
        drop(state);
        self.work.notify_all();
        // Whoever waits is answered as its reply is dropped.
        drop(flights);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `then` with the plaintexts of the units in which these chunks lie: at once if all are there, else from the thread
    /// that opens the last of them. Once they are stopped, nobody calls it.
    pub(crate) fn with(&self, wants: Vec<Want>, then: Then) {
        let mut found = Vec::with_capacity(wants.len());
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        found.extend(wants.iter().map(|want| state.cache.get(&want.unit())));
        let missing: Vec<usize> = (0..wants.len()).filter(|at| found[*at].is_none()).collect();
        if missing.is_empty() {
            drop(state);
            return then(found);
        }
        let gather = Arc::new(Gather {
            units: Mutex::new(found),
            missing: AtomicUsize::new(missing.len()),
            then: Mutex::new(Some(then)),
        });
        let new: Vec<Want> = missing.iter().map(|at| wants[*at].clone()).collect();
        for job in jobs(new, |unit| state.flights.contains_key(unit)) {
            state.add_flights(&job, true);
            state.urgent.push_back(job);
        }
        for at in missing {
            if let Some(flight) = state.flights.get_mut(&wants[at].unit()) {
                flight.waiting.push((Arc::clone(&gather), at));
                // It was to be fetched some time: now.
                if !std::mem::replace(&mut flight.is_urgent, true) {
                    let job = Arc::clone(&flight.job);
                    state.urgent.push_back(job);
                }
            }
        }
        drop(state);
        self.work.notify_all();
    }

    /// Has these fetched before somebody wants them, as far as there is room: says how many will be there.
    pub(crate) fn prepare(&self, wants: Vec<Want>) -> usize {
        let mut state = self.lock();
        let mut taken = 0;
        let mut new = Vec::new();
        let mut bytes = 0;
        for want in wants {
            let unit = want.unit();
            if !state.cache.contains(&unit) && !state.flights.contains_key(&unit) {
                if state.ahead_bytes + bytes > self.memory_bytes / 2 {
                    break;
                }
                bytes += u64::from(want.place.plain_len);
                new.push(want);
            }
            taken += 1;
        }
        for job in jobs(new, |_| false) {
            state.add_flights(&job, false);
            state.ahead_bytes += job.bytes();
            state.ahead.push_back(job);
        }
        drop(state);
        self.work.notify_all();
        taken
    }

    fn work(&self) {
        let mut sealed = Vec::new();
        let mut state = self.lock();
        while !state.stopped {
            let Some((job, is_ahead)) = state.next_job() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if !job.is_begun.swap(true, Ordering::Relaxed) {
                drop(state);
                self.run(&job, &mut sealed);
                state = self.lock();
            }
            if is_ahead {
                state.ahead_bytes -= job.bytes();
            }
        }
    }

    fn run(&self, job: &Job, sealed: &mut Vec<u8>) {
        let fetched = catch_unwind(AssertUnwindSafe(|| self.fetch(job, sealed))).ok().flatten();
        for want in &job.wants {
            let opened = fetched.as_ref().and_then(|(start, bytes)| {
                let bytes = bytes.as_deref().unwrap_or(sealed);
                let at = (want.place.offset - start) as usize;
                let sealed = bytes.get(at..at + want.place.stored_len as usize)?;
                catch_unwind(AssertUnwindSafe(|| self.open(want, sealed))).ok().flatten()
            });
            self.done(want.unit(), opened);
        }
    }

    /// Fetches what the job wants: its bytes, in `sealed` unless they come with others, begin at the offset.
    fn fetch(&self, job: &Job, sealed: &mut Vec<u8>) -> Option<(u64, Option<Bytes>)> {
        let (first, last) = (&job.wants.first()?.place, &job.wants.last()?.place);
        let end = last.offset + u64::from(last.stored_len);
        let length = end - first.offset;
        let reader = self.store.reader();
        let backend = self.store.repository().backend();
        let name = object_name(Area::Packs, &first.pack_id);
        if first.group.is_some() && length < WINDOW && backend.local_root().is_none() {
            if let Some(found) = self.lock().window(first.pack_id, first.offset, end) {
                return Some(found);
            }
            let number = reader.index().pack_number(&first.pack_id)?;
            let window = WINDOW.min(reader.pack_size(number).saturating_sub(first.offset));
            if window > length
                && let Ok(bytes) = backend.get_range(&name, first.offset, window)
                && bytes.len() as u64 == window
            {
                let mut state = self.lock();
                state.windows.truncate(WINDOWS - 1);
                state.windows.push_front((first.pack_id, first.offset, bytes.clone()));
                return Some((first.offset, Some(bytes)));
            }
        }
        let length = usize::try_from(length).ok()?;
        if sealed.len() < length {
            sealed.resize(length, 0);
        }
        backend.get_into(&name, first.offset, &mut sealed[..length]).ok()?;
        Some((first.offset, None))
    }

    /// Opens a unit. A chunk that stands alone in it is hashed, too; members of a group are when they are used (F14).
    fn open(&self, want: &Want, sealed: &[u8]) -> Opened {
        let reader = self.store.reader();
        let length = want.place.unit_len() as usize;
        // A large buffer is not spent on little.
        let spare = if length as u64 >= REQUEST / 4 { self.lock().spare.pop() } else { None };
        let mut plain = spare.unwrap_or_default();
        plain.clear();
        plain.reserve(length);
        let Want { snap, id, place } = want;
        let opened = self.store.with_scratch(|scratch| {
            reader.open_unit(BlobKind::Data, id, place, sealed, scratch, &mut plain).is_ok()
        });
        let is_whole = opened == Ok(true)
            && (place.group.is_some() || reader.member(&snap.domain, id, place, &plain).is_ok());
        is_whole.then(|| Arc::new(plain))
    }

    /// Tells all who wait. Whoever finds that it is damaged here looks for another place, and says so if there is none.
    fn done(&self, unit: Unit, opened: Opened) {
        let mut state = self.lock();
        if let Some(plain) = &opened {
            state.keep(unit, plain);
        }
        let waiting = state.flights.remove(&unit).map(|flight| flight.waiting).unwrap_or_default();
        drop(state);
        for (gather, at) in waiting {
            gather.units.lock().unwrap_or_else(PoisonError::into_inner)[at].clone_from(&opened);
            if gather.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                let then = gather.then.lock().unwrap_or_else(PoisonError::into_inner).take();
                let units = std::mem::take(&mut *gather.units.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(then) = then {
                    // A panic drops the reply, which answers.
                    let _ = catch_unwind(AssertUnwindSafe(|| then(units)));
                }
            }
        }
    }
}

impl State {
    fn add_flights(&mut self, job: &Arc<Job>, is_urgent: bool) {
        for want in &job.wants {
            let flight = Flight { job: Arc::clone(job), waiting: Vec::new(), is_urgent };
            self.flights.insert(want.unit(), flight);
        }
    }

    fn next_job(&mut self) -> Option<(Arc<Job>, bool)> {
        match self.urgent.pop_front() {
            Some(job) => Some((job, false)),
            None => self.ahead.pop_front().map(|job| (job, true)),
        }
    }

    fn keep(&mut self, unit: Unit, plain: &Arc<Vec<u8>>) {
        let Self { cache, spare, .. } = self;
        cache.insert(unit, Arc::clone(plain), plain.capacity() as u64 + 200, |old| {
            if let Some(buffer) = Arc::into_inner(old)
                && spare.len() < SPARE
                && buffer.capacity() as u64 >= REQUEST / 4
            {
                spare.push(buffer);
            }
        });
    }

    fn window(&self, pack: ObjectId, start: u64, end: u64) -> Option<(u64, Option<Bytes>)> {
        self.windows.iter().find_map(|(of, offset, bytes)| {
            let fits = *of == pack && *offset <= start && end <= offset + bytes.len() as u64;
            fits.then(|| (*offset, Some(bytes.clone())))
        })
    }
}

impl Job {
    /// Plain bytes of the units.
    fn bytes(&self) -> u64 {
        self.wants.iter().map(|want| u64::from(want.place.unit_len())).sum()
    }
}

/// Puts together what lies together in a pack, each unit once; `is_known` ones are left out.
fn jobs(wants: Vec<Want>, is_known: impl Fn(&Unit) -> bool) -> Vec<Arc<Job>> {
    let mut out: Vec<Vec<Want>> = Vec::new();
    let mut seen: Vec<Unit> = Vec::new();
    let mut bytes = 0;
    for want in wants {
        let unit = want.unit();
        if is_known(&unit) || seen.contains(&unit) {
            continue;
        }
        seen.push(unit);
        let length = u64::from(want.place.unit_len());
        let adjoins = out.last().and_then(|job| job.last()).is_some_and(|before| {
            let end = before.place.offset + u64::from(before.place.stored_len);
            let at = want.place.offset;
            before.place.pack_id == want.place.pack_id && (end..=end + GAP).contains(&at)
        });
        match out.last_mut() {
            Some(job) if adjoins && bytes + length <= REQUEST => {
                job.push(want);
                bytes += length;
            }
            _ => {
                out.push(vec![want]);
                bytes = length;
            }
        }
    }
    out.into_iter().map(|wants| Arc::new(Job { wants, is_begun: AtomicBool::new(false) })).collect()
}
