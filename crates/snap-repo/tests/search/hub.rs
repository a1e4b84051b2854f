//! One execution: actors on threads of their own, whose store lets each operation happen only when the scheduler says so.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use snap_backend::{
    Backend, BackendError, Bytes, ErrorKind, MemoryBackend, ObjectMeta, ObjectName, Operation, PutOutcome,
};

/// Stands for anything: what differs has another.
pub type Print = u64;

pub fn print(of: impl Hash) -> Print {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// An operation that is asked for.
#[derive(Clone, Debug)]
pub enum Op {
    /// Getting an object, a part of it, or its size.
    Read(ObjectName),
    Put(ObjectName, Bytes),
    Delete(ObjectName),
    List(String),
}

impl Op {
    /// The area: the first part of the name.
    pub fn area(&self) -> &str {
        let name = match self {
            Self::Read(name) | Self::Put(name, _) | Self::Delete(name) => name.as_str(),
            Self::List(prefix) => prefix,
        };
        name.split('/').next().unwrap_or_default()
    }

    pub const fn mutates(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_))
    }
}

/// What the scheduler lets happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The actor's operation happens.
    Step(usize),
    /// The actor's put or delete gets lost on its way, and the actor with it; it may land later.
    Lose(usize),
    /// The actor's put happens, and once more later: an attempt that was given up, and another one.
    Repeat(usize),
    /// The operation that is on its way lands.
    Land,
    /// The actor's listing begins.
    BeginList(usize),
    /// The listing ends: of what came or went meanwhile it shows all, or nothing.
    EndList(usize, bool),
}

impl Choice {
    /// Whose operation it is.
    pub const fn actor(self) -> Option<usize> {
        match self {
            Self::Land => None,
            Self::Step(actor)
            | Self::Lose(actor)
            | Self::Repeat(actor)
            | Self::BeginList(actor)
            | Self::EndList(actor, _) => Some(actor),
        }
    }
}

/// A listing under way: what there was when it began.
type Begun = BTreeSet<ObjectName>;

#[derive(Default)]
struct Actor {
    pending: Option<Op>,
    begun: Option<Begun>,
    /// Set by the scheduler: the answer to a listing.
    answer: Option<Result<Vec<ObjectMeta>, ErrorKind>>,
    granted: bool,
    /// The last operation was a read: those that follow are the same step.
    reading: bool,
    /// A function of all that the actor has seen.
    history: Print,
    /// Reads of this step: their order, by random names, says nothing.
    reads: u64,
    dead: bool,
    outcome: Option<bool>,
}

struct State {
    store: MemoryBackend,
    actors: Vec<Actor>,
    names: BTreeMap<ObjectName, (usize, usize)>,
    made: Vec<usize>,
    on_its_way: Option<Op>,
    over: bool,
    faults: u32,
}

/// What actors and scheduler share.
pub struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

/// Where an execution stands.
pub struct View {
    pub print: Print,
    /// The store alone.
    pub store: Print,
    /// By actor: what it waits for; `None` when it has ended or is dead.
    pub pending: Vec<Option<(Op, bool)>>,
    /// By actor: whether it succeeded, once it has ended.
    pub outcomes: Vec<Option<bool>>,
    pub on_its_way: bool,
    pub faults: u32,
}

impl Hub {
    pub fn new(store: MemoryBackend, actors: usize) -> Arc<Self> {
        let state = State {
            store,
            actors: (0..actors).map(|_| Actor::default()).collect(),
            names: BTreeMap::new(),
            made: vec![0; actors],
            on_its_way: None,
            over: false,
            faults: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store as it is, for whoever checks it.
    pub fn store(&self) -> MemoryBackend {
        MemoryBackend::from_state(self.lock().store.snapshot())
    }

    /// Called by an actor's thread when it has ended.
    pub fn ended(&self, actor: usize, success: bool) {
        let mut state = self.lock();
        if !state.over && !state.actors[actor].dead {
            state.actors[actor].outcome = Some(success);
        }
        self.changed.notify_all();
    }

    /// Waits until each actor waits for something or has ended.
    pub fn settle(&self) -> View {
        let mut state = self.lock();
        while !state
            .actors
            .iter()
            .all(|actor| actor.dead || actor.outcome.is_some() || actor.pending.is_some())
        {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.view()
    }

    /// A choice in words.
    pub fn describe(&self, choice: Choice) -> String {
        let state = self.lock();
        let op = match choice.actor() {
            None => state.on_its_way.as_ref(),
            Some(actor) => state.actors[actor].pending.as_ref(),
        };
        let named = |name: &ObjectName| match state.names.get(name) {
            Some((actor, made)) => {
                format!("{} {made} of {actor}", name.as_str().split('/').next().unwrap_or(""))
            }
            None => name.as_str().chars().take(20).collect(),
        };
        let op = op.map(|op| match op {
            Op::Read(name) => format!("read {}", named(name)),
            Op::Put(name, _) => format!("put {}", named(name)),
            Op::Delete(name) => format!("delete {}", named(name)),
            Op::List(prefix) => format!("list {prefix}"),
        });
        format!("  {choice:?}: {}", op.unwrap_or_default())
    }

    /// What an actor's operation would look like in another execution.
    pub fn label(&self, choice: Choice) -> Print {
        let state = self.lock();
        let op = match choice {
            Choice::Land => state.on_its_way.as_ref(),
            Choice::Step(actor)
            | Choice::Lose(actor)
            | Choice::Repeat(actor)
            | Choice::BeginList(actor)
            | Choice::EndList(actor, _) => state.actors[actor].pending.as_ref(),
        };
        print((choice, op.map(|op| state.op_print(op))))
    }

    /// Whether a listing that ends now would show anything else than when it began.
    pub fn is_torn(&self, actor: usize) -> bool {
        let state = self.lock();
        let actor = &state.actors[actor];
        match (&actor.begun, &actor.pending) {
            (Some(begun), Some(Op::List(prefix))) => *begun != state.listed(prefix),
            _ => false,
        }
    }

    /// Lets a choice happen.
    pub fn take(&self, choice: Choice) {
        let mut state = self.lock();
        match choice {
            Choice::Step(actor) => state.step(actor),
            Choice::Lose(actor) => {
                state.on_its_way = state.actors[actor].pending.take();
                state.actors[actor].dead = true;
                state.faults += 1;
            }
            Choice::Repeat(actor) => {
                state.on_its_way = state.actors[actor].pending.clone();
                state.faults += 1;
                state.step(actor);
            }
            Choice::Land => {
                if let Some(op) = state.on_its_way.take() {
                    state.apply(&op);
                }
            }
            Choice::BeginList(actor) => {
                let Some(Op::List(prefix)) = state.actors[actor].pending.clone() else {
                    panic!("no listing")
                };
                state.actors[actor].begun = Some(state.listed(&prefix));
                state.faults += 1;
            }
            Choice::EndList(actor, all) => state.end_list(actor, all),
        }
        self.changed.notify_all();
    }

    /// Ends the execution: every operation fails from now on.
    pub fn stop(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    fn ask(
        &self,
        actor: usize,
        op: Op,
    ) -> Result<(MutexGuard<'_, State>, Option<Vec<ObjectMeta>>), BackendError> {
        let failed = |kind| Err(BackendError::new(kind, Operation::Get).with_name("searched"));
        let mut state = self.lock();
        if state.over || state.actors[actor].dead {
            return failed(ErrorKind::Stopped);
        }
        let is_read = matches!(op, Op::Read(_));
        if is_read && state.actors[actor].reading {
            state.note_read(actor, &op);
            return Ok((state, None));
        }
        state.actors[actor].pending = Some(op.clone());
        self.changed.notify_all();
        loop {
            if state.over || state.actors[actor].dead {
                return failed(ErrorKind::Stopped);
            }
            if std::mem::take(&mut state.actors[actor].granted) {
                let answer = state.actors[actor].answer.take();
                return match answer {
                    Some(Err(kind)) => failed(kind),
                    Some(Ok(listed)) => Ok((state, Some(listed))),
                    None => Ok((state, None)),
                };
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn name_print(&self, name: &ObjectName) -> Print {
        match self.names.get(name) {
            Some(made) => print(made),
            // Of the repository as it was in the beginning: the same in each execution.
            None => print(name.as_str()),
        }
    }

    fn op_print(&self, op: &Op) -> Print {
        match op {
            Op::Read(_) => print("read"),
            Op::Put(name, _) => print(("put", op.area(), self.names.get(name))),
            Op::Delete(name) => print(("delete", self.name_print(name))),
            Op::List(prefix) => print(("list", prefix)),
        }
    }

    fn listed(&self, prefix: &str) -> Begun {
        self.store.names().into_iter().filter(|name| name.as_str().starts_with(prefix)).collect()
    }

    fn set_print(&self, names: &BTreeSet<ObjectName>) -> Print {
        let mut prints: Vec<Print> = names.iter().map(|name| self.name_print(name)).collect();
        prints.sort_unstable();
        print(prints)
    }

    fn note_read(&mut self, actor: usize, op: &Op) {
        let Op::Read(name) = op else { return };
        let seen = print((self.name_print(name), self.store.exists(name).unwrap_or(false)));
        self.actors[actor].reads = self.actors[actor].reads.wrapping_add(seen);
    }

    /// Adds to what an actor has seen.
    fn note(&mut self, actor: usize, seen: impl Hash) {
        let actor = &mut self.actors[actor];
        actor.history = print((actor.history, std::mem::take(&mut actor.reads), seen));
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put(name, bytes) => {
                let _ = self.store.put(name, bytes.clone());
            }
            Op::Delete(name) => {
                self.store.remove(name);
            }
            Op::Read(_) | Op::List(_) => {}
        }
    }

    fn step(&mut self, number: usize) {
        let Some(op) = self.actors[number].pending.take() else { panic!("the actor waits for nothing") };
        if let Op::Put(name, _) = &op
            && !self.names.contains_key(name)
        {
            let made = self.made[number];
            self.made[number] += 1;
            self.names.insert(name.clone(), (number, made));
        }
        let label = self.op_print(&op);
        match &op {
            Op::Read(_) => {
                self.note(number, "reads");
                self.note_read(number, &op);
            }
            Op::List(prefix) => {
                let names = self.listed(prefix);
                let seen = self.set_print(&names);
                self.note(number, (label, seen));
                self.answer_list(number, names);
            }
            Op::Put(..) | Op::Delete(_) => {
                self.note(number, label);
                self.apply(&op);
            }
        }
        self.actors[number].reading = matches!(op, Op::Read(_));
        self.actors[number].granted = true;
    }

    fn end_list(&mut self, number: usize, all: bool) {
        let Some(Op::List(prefix)) = self.actors[number].pending.take() else { panic!("no listing") };
        let begun = self.actors[number].begun.take().unwrap_or_default();
        let now = self.listed(&prefix);
        let names: BTreeSet<_> = match all {
            true => begun.union(&now).cloned().collect(),
            false => begun.intersection(&now).cloned().collect(),
        };
        let (label, seen) = (self.op_print(&Op::List(prefix)), self.set_print(&names));
        self.note(number, (label, seen));
        self.answer_list(number, names);
        self.actors[number].reading = false;
        self.actors[number].granted = true;
    }

    fn answer_list(&mut self, number: usize, names: BTreeSet<ObjectName>) {
        let mut sizes: BTreeMap<ObjectName, ObjectMeta> = BTreeMap::new();
        let _ = self.store.list("", &mut |meta| {
            sizes.insert(meta.name.clone(), meta);
            Ok(())
        });
        let metas = names.into_iter().map(|name| {
            let gone = ObjectMeta { name: name.clone(), size_bytes: 1000, modified: None };
            sizes.remove(&name).unwrap_or(gone)
        });
        self.actors[number].answer = Some(Ok(metas.collect()));
    }

    fn view(&self) -> View {
        let all: BTreeSet<ObjectName> = self.store.names().into_iter().collect();
        let store = self.set_print(&all);
        let actors: Vec<_> = self
            .actors
            .iter()
            .map(|actor| {
                let pending = actor.pending.as_ref().map(|op| self.op_print(op));
                let begun = actor.begun.as_ref().map(|names| self.set_print(names));
                (actor.history, actor.reads, pending, begun, actor.dead, actor.outcome)
            })
            .collect();
        let on_its_way = self.on_its_way.as_ref().map(|op| match op {
            // It may be a put of something that is there already, or not any more.
            Op::Put(name, _) => print(("put", self.name_print_or_next(name))),
            other => self.op_print(other),
        });
        let of = |actor: &Actor| {
            let waits = actor.outcome.is_none() && !actor.dead;
            actor.pending.clone().filter(|_| waits).map(|op| (op, actor.begun.is_some()))
        };
        View {
            print: print((store, &actors, on_its_way, self.faults)),
            store,
            pending: self.actors.iter().map(of).collect(),
            outcomes: self.actors.iter().map(|actor| actor.outcome).collect(),
            on_its_way: self.on_its_way.is_some(),
            faults: self.faults,
        }
    }

    fn name_print_or_next(&self, name: &ObjectName) -> Print {
        match self.names.get(name) {
            Some(made) => print(made),
            None => print(name.as_str().split('/').next()),
        }
    }
}

/// The store as an actor sees it.
#[derive(Clone)]
pub struct Door {
    hub: Arc<Hub>,
    actor: usize,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({})", self.actor)
    }
}

impl Door {
    pub const fn new(hub: Arc<Hub>, actor: usize) -> Self {
        Self { hub, actor }
    }
}

impl Backend for Door {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        let (state, _) = self.hub.ask(self.actor, Op::Read(name.clone()))?;
        state.store.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        let (state, _) = self.hub.ask(self.actor, Op::Read(name.clone()))?;
        state.store.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        drop(self.hub.ask(self.actor, Op::Put(name.clone(), body))?);
        Ok(PutOutcome::Created)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        let (state, _) = self.hub.ask(self.actor, Op::Read(name.clone()))?;
        state.store.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let (state, listed) = self.hub.ask(self.actor, Op::List(prefix.to_owned()))?;
        drop(state);
        listed.unwrap_or_default().into_iter().try_for_each(each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        drop(self.hub.ask(self.actor, Op::Delete(name.clone()))?);
        Ok(())
    }

    fn location(&self) -> String {
        "searched:".into()
    }

    fn parallelism(&self) -> usize {
        1
    }
}
