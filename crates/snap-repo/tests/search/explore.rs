//! Depth-first search over all schedules: each execution runs the actors anew along a known schedule and goes on into what
//! has not been seen; it ends at a state that has.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use snap_backend::{Backend, MemoryBackend};
use snap_format::ObjectId;
use snap_repo::Repository;

use crate::hub::{Choice, Door, Hub, Op, Print, View, print};
use crate::support::read_back;

/// How often a schedule is tried anew when names, which are random, order its steps otherwise.
const TRIES: usize = 200;

/// What runs: a backup or a prune. A backup that succeeds gives its snapshot.
pub type Act = Arc<dyn Fn(&Repository) -> Result<Option<ObjectId>, snap_repo::RepoError> + Send + Sync>;

/// An actor, and the areas that it changes.
#[derive(Clone)]
pub struct Role {
    pub act: Act,
    pub changes: &'static [&'static str],
}

/// What may go wrong in one execution.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// So many faults together.
    pub most: u32,
    /// Puts and deletes that land late, their caller dead; puts that land twice.
    pub late: bool,
    /// Listings that take their time.
    pub slow_lists: bool,
}

/// What is searched.
pub struct Search {
    pub store: MemoryBackend,
    pub open: Arc<dyn Fn(Arc<dyn Backend>) -> Repository + Send + Sync>,
    pub roles: Vec<Role>,
    pub faults: Faults,
    /// Snapshots that are there and stay.
    pub kept: Vec<ObjectId>,
    /// How often an actor that could go on may be left for another one; each order of all steps if there is no bound.
    pub switches: Option<u32>,
    /// Gives up beyond.
    pub most_states: usize,
}

/// A schedule: choices, each with what it looked like.
type Schedule = Vec<(Choice, Print)>;

/// Who ran last, and how often somebody was left who could have gone on.
#[derive(Clone, Copy, Default)]
struct Turn {
    last: Option<usize>,
    switches: u32,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub states: usize,
    pub executions: u64,
    pub given_up: u64,
    /// The first loss: the schedule in words, and what could not be read.
    pub loss: Option<String>,
    /// Ends in which all actors succeeded, and in which some did not.
    pub good_ends: u64,
    pub bad_ends: u64,
}

struct Shared<'a> {
    search: &'a Search,
    /// By state and who ran last: the fewest switches with which it was reached.
    visited: Mutex<HashMap<Print, u32>>,
    states: Mutex<HashSet<Print>>,
    checked: Mutex<HashMap<Print, bool>>,
    work: Mutex<(Vec<Schedule>, usize)>,
    more: Condvar,
    loss: Mutex<Option<String>>,
    stop: AtomicBool,
    counts: [AtomicU64; 4],
}

impl Search {
    /// Searches with two threads.
    pub fn run(&self) -> Found {
        let shared = Shared {
            search: self,
            visited: Mutex::default(),
            states: Mutex::default(),
            checked: Mutex::default(),
            work: Mutex::new((vec![Vec::new()], 0)),
            more: Condvar::new(),
            loss: Mutex::default(),
            stop: AtomicBool::new(false),
            counts: Default::default(),
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| shared.work());
            }
        });
        let count = |at: usize| shared.counts[at].load(Ordering::Relaxed);
        let (executions, given_up, good_ends, bad_ends) = (count(0), count(1), count(2), count(3));
        let states = shared.states.lock().unwrap().len();
        let loss = shared.loss.lock().unwrap().take();
        Found { states, executions, given_up, loss, good_ends, bad_ends }
    }
}

impl Shared<'_> {
    fn count(&self, at: usize) {
        self.counts[at].fetch_add(1, Ordering::Relaxed);
    }

    fn work(&self) {
        loop {
            let schedule = {
                let mut work = self.work.lock().unwrap();
                loop {
                    if self.stop.load(Ordering::Relaxed) || work.0.is_empty() && work.1 == 0 {
                        self.more.notify_all();
                        return;
                    }
                    match work.0.pop() {
                        Some(schedule) => {
                            work.1 += 1;
                            break schedule;
                        }
                        None => work = self.more.wait(work).unwrap(),
                    }
                }
            };
            let done = (0..TRIES).any(|_| self.execute(&schedule));
            if !done {
                self.count(1);
            }
            self.work.lock().unwrap().1 -= 1;
            self.more.notify_all();
        }
    }

    /// Runs along a schedule and beyond. False if the execution went another way.
    fn execute(&self, schedule: &Schedule) -> bool {
        self.count(0);
        let search = self.search;
        let store = MemoryBackend::from_state(search.store.snapshot());
        let hub = Hub::new(store, search.roles.len());
        let snapshots: Arc<Mutex<Vec<Option<ObjectId>>>> =
            Arc::new(Mutex::new(vec![None; search.roles.len()]));
        let plain: Arc<dyn Backend> = Arc::new(search.store.clone());
        let threads: Vec<_> = search
            .roles
            .iter()
            .enumerate()
            .map(|(number, role)| {
                let (hub, act, snapshots) = (Arc::clone(&hub), Arc::clone(&role.act), Arc::clone(&snapshots));
                let repository = (search.open)(Arc::clone(&plain));
                std::thread::spawn(move || {
                    let repository = repository.over(Arc::new(Door::new(Arc::clone(&hub), number)));
                    let outcome = act(&repository);
                    let success = outcome.is_ok();
                    snapshots.lock().unwrap()[number] = outcome.ok().flatten();
                    hub.ended(number, success);
                })
            })
            .collect();
        let went_along = self.follow(&hub, schedule, &snapshots);
        hub.stop();
        for thread in threads {
            thread.join().unwrap();
        }
        went_along
    }

    fn follow(&self, hub: &Hub, schedule: &Schedule, snapshots: &Mutex<Vec<Option<ObjectId>>>) -> bool {
        let mut view = hub.settle();
        let (mut turn, mut words) = (Turn::default(), Vec::new());
        for (choice, label) in schedule {
            if !self.choices(hub, &view).contains(choice) || hub.label(*choice) != *label {
                return false;
            }
            turn = self.after(turn, *choice, &view);
            words.push(hub.describe(*choice));
            hub.take(*choice);
            view = hub.settle();
        }
        let mut path = schedule.clone();
        loop {
            {
                let key = self.search.switches.map_or(view.print, |_| print((view.print, turn.last)));
                let mut visited = self.visited.lock().unwrap();
                let fewest = visited.entry(key).or_insert(u32::MAX);
                if *fewest <= turn.switches {
                    return true;
                }
                *fewest = turn.switches;
                let mut states = self.states.lock().unwrap();
                states.insert(view.print);
                if states.len() > self.search.most_states {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            self.check(hub, &view, &snapshots.lock().unwrap(), &words);
            if self.stop.load(Ordering::Relaxed) {
                return true;
            }
            let mut choices = self.choices(hub, &view);
            if let Some(most) = self.search.switches {
                choices.retain(|choice| self.after(turn, *choice, &view).switches <= most);
                // Who runs goes on.
                choices.sort_by_key(|choice| self.after(turn, *choice, &view).switches);
            }
            let mut choices = choices.into_iter();
            let Some(first) = choices.next() else {
                let all_succeeded = view.outcomes.iter().all(|outcome| *outcome == Some(true));
                self.count(if all_succeeded { 2 } else { 3 });
                return true;
            };
            {
                let mut work = self.work.lock().unwrap();
                for other in choices {
                    let mut branch = path.clone();
                    branch.push((other, hub.label(other)));
                    work.0.push(branch);
                }
                self.more.notify_all();
            }
            path.push((first, hub.label(first)));
            turn = self.after(turn, first, &view);
            words.push(hub.describe(first));
            hub.take(first);
            view = hub.settle();
        }
    }

    /// Who runs after a choice.
    fn after(&self, turn: Turn, choice: Choice, view: &View) -> Turn {
        let Some(actor) = choice.actor() else { return turn };
        if turn.last == Some(actor) || self.is_free(actor, view) {
            return turn;
        }
        let could_go_on = turn.last.is_some_and(|last| view.pending[last].is_some());
        Turn { last: Some(actor), switches: turn.switches + u32::from(could_go_on) }
    }

    /// Whether the order of an actor's operation makes no difference to anyone: what nobody else changes is read at once.
    fn is_free(&self, actor: usize, view: &View) -> bool {
        let Some((op, false)) = &view.pending[actor] else { return false };
        let mut others =
            (0..view.pending.len()).filter(|other| *other != actor && view.pending[*other].is_some());
        !op.mutates()
            && !view.on_its_way
            && others.all(|other| !self.search.roles[other].changes.contains(&op.area()))
    }

    /// What can happen next.
    fn choices(&self, hub: &Hub, view: &View) -> Vec<Choice> {
        let faults = self.search.faults;
        let may_fail = view.faults < faults.most;
        let waiting = || view.pending.iter().enumerate().filter_map(|(n, op)| Some((n, op.as_ref()?)));
        if let Some((number, _)) = waiting().find(|(number, _)| self.is_free(*number, view)) {
            return vec![Choice::Step(number)];
        }
        let mut choices = Vec::new();
        for (number, (op, begun)) in waiting() {
            if *begun {
                choices.push(Choice::EndList(number, false));
                if hub.is_torn(number) {
                    choices.push(Choice::EndList(number, true));
                }
                continue;
            }
            choices.push(Choice::Step(number));
            if may_fail && faults.late && op.mutates() {
                choices.push(Choice::Lose(number));
                if matches!(op, Op::Put(..)) {
                    choices.push(Choice::Repeat(number));
                }
            }
            if may_fail && faults.slow_lists && matches!(op, Op::List(_)) {
                choices.push(Choice::BeginList(number));
            }
        }
        if view.on_its_way {
            choices.push(Choice::Land);
        }
        choices
    }

    /// Whatever was kept, or reported as a success, can be read now: everybody might stop here for good.
    fn check(&self, hub: &Hub, view: &View, snapshots: &[Option<ObjectId>], words: &[String]) {
        let key = print((view.store, &view.outcomes));
        if self.checked.lock().unwrap().insert(key, true).is_some() {
            return;
        }
        let repository = (self.search.open)(Arc::new(hub.store()));
        let committed = snapshots.iter().flatten();
        for snapshot in self.search.kept.iter().chain(committed) {
            if let Err(why) = read_back(&repository, snapshot) {
                let what = format!(
                    "snapshot {snapshot}: {why}
after {} steps:
{}",
                    words.len(),
                    words.join(
                        "
"
                    )
                );
                self.loss.lock().unwrap().get_or_insert(what);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}
