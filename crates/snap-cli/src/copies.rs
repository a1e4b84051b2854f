//! The copies of a run that writes: opened together, and brought to the same keys.

use std::sync::Arc;

use serde_json::{Value, json};
use snap_backend::Backend;
use snap_engine::Lag;
use snap_format::ObjectId;
use snap_repo::{Epochs, RepoError, Repository, Secret};

use crate::app::App;
use crate::commands::Done;
use crate::exit::{Exit, Failure};
use crate::keys::KeySource;
use crate::render::json;
use crate::repo::{self, Opened, Place, Purpose};

/// What a copy that lags needs.
const CATCH_UP: &str = "`snap copy` brings it up to date";

/// The copies of a run, in the order of the configuration.
pub struct Copies {
    /// All names.
    names: Vec<String>,
    /// Those that can be written, all under the same keys; at least one.
    pub opened: Vec<Opened>,
    /// For each of these, its position among all.
    positions: Vec<usize>,
    /// Those that cannot, and why.
    absent: Vec<Absent>,
}

/// A copy that cannot be written.
struct Absent {
    position: usize,
    why: String,
    is_missing: bool,
}

/// A copy that is configured, and its key.
type Keyed = (Place, Result<Secret, Failure>);

/// Opens the copies of this run, for writing: those whose keys are older than another's get the newer ones first, unless it is
/// a rehearsal. Fails if none can be opened, or if their keys have parted.
pub fn open(app: &App, purpose: Purpose, is_rehearsal: bool) -> Result<Copies, Failure> {
    let places = Place::all(app)?;
    if places.len() == 1 {
        let opened = repo::open(app, purpose)?;
        opened.require_current_keys()?;
        return Ok(Copies::of_one(opened));
    }
    open_places(app, places, purpose, is_rehearsal)
}

/// The same of these places, of which there are several.
pub fn open_places(
    app: &App,
    places: Vec<Place>,
    purpose: Purpose,
    is_rehearsal: bool,
) -> Result<Copies, Failure> {
    let names = places.iter().map(|place| place.copy.name.clone()).collect();
    let keyed = load_secrets(app, places)?;
    let mut outcomes = open_all_keyed(app, &keyed, purpose);
    agree_on_keys(app, &keyed, &mut outcomes, purpose, is_rehearsal)?;
    let mut copies = Copies { names, opened: Vec::new(), positions: Vec::new(), absent: Vec::new() };
    let mut failures = Vec::new();
    for (position, outcome) in outcomes.into_iter().enumerate() {
        let current = outcome.and_then(|opened| opened.require_current_keys().map(|()| opened));
        match current {
            Ok(opened) => {
                opened.tell_findings(app);
                copies.opened.push(opened);
                copies.positions.push(position);
            }
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => {
                let is_missing = failure.exit == Exit::NoRepository;
                copies.absent.push(Absent { position, why: in_words(&failure), is_missing });
                failures.push(failure);
            }
        }
    }
    if copies.opened.is_empty() {
        return Err(all_failed(app, &copies, failures));
    }
    Ok(copies)
}

/// A failure with its causes, in one line.
pub fn in_words(failure: &Failure) -> String {
    [vec![failure.message.clone()], failure.causes.clone()].concat().join(": ")
}

/// None of the copies can be opened. What is the same with all keeps its meaning.
fn all_failed(app: &App, copies: &Copies, mut failures: Vec<Failure>) -> Failure {
    for absent in &copies.absent {
        app.out.warning(&format!("the copy {}: {}", copies.names[absent.position], absent.why));
    }
    let is_key = failures.iter().all(|failure| failure.exit == Exit::Key);
    let first = failures.swap_remove(0);
    let exit = if is_key { Exit::Key } else { Exit::Failed };
    let mut failure = Failure::new(exit, "none of the copies can be opened");
    failure.causes = [vec![first.message], first.causes].concat();
    failure.hint = first.hint;
    failure
}

/// A key for each place; one that is given, or asked for, is for all.
fn load_secrets(app: &App, places: Vec<Place>) -> Result<Vec<Keyed>, Failure> {
    let given = KeySource::choose(&app.global, &app.env)?;
    let mut shared: Option<Secret> = None;
    let mut out = Vec::new();
    for place in places {
        let mut load = || {
            let source = match &given {
                Some(_) => None,
                None => place.key(app)?,
            };
            if let Some(own) = source {
                return repo::load_secret(Some(&own), place.probe(app)?.as_ref());
            }
            if shared.is_none() {
                shared = Some(repo::load_secret(given.as_ref(), place.probe(app)?.as_ref())?);
            }
            Ok(shared.clone().expect("it was just loaded"))
        };
        let secret = load();
        out.push((place, secret));
    }
    Ok(out)
}

/// Opens all at the same time: one that is down is waited for once.
fn open_all_keyed(app: &App, keyed: &[Keyed], purpose: Purpose) -> Vec<Result<Opened, Failure>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = keyed
            .iter()
            .map(|(place, secret)| {
                scope.spawn(move || match secret {
                    Ok(secret) => open_patiently(app, place, secret, purpose),
                    Err(failure) => Err(failure.clone()),
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|it| std::panic::resume_unwind(it))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Opens with little patience, for it may be down for long; what comes after has more.
fn open_patiently(app: &App, place: &Place, secret: &Secret, purpose: Purpose) -> Result<Opened, Failure> {
    let mut opened = repo::open_quietly(app, place, place.probe(app)?, secret, purpose)?;
    let backend = place.connect(app, false)?;
    let store: Arc<dyn Backend> = match &opened.cache {
        Some(cache) if backend.local_root().is_none() => cache.wrap(backend),
        _ => backend,
    };
    opened.repository = opened.repository.over(store);
    Ok(opened)
}

/// Opens one of several copies, to look at it.
pub fn open_for_reading(app: &App, place: &Place, purpose: Purpose) -> Result<Opened, Failure> {
    let secret = repo::load_secret(place.key(app)?.as_ref(), place.probe(app)?.as_ref())?;
    open_patiently(app, place, &secret, purpose)
}

/// The other copies that snap.toml names, whether `--copy` chose this one or not: those that answer.
pub fn siblings(app: &App, place: &Place) -> Result<Vec<Opened>, Failure> {
    let mut out = Vec::new();
    for other in Place::siblings(app, place)? {
        match open_for_reading(app, &other, Purpose::Keys) {
            Ok(opened) => out.push(opened),
            Err(failure) if matches!(failure.exit, Exit::Interrupted | Exit::Terminated) => {
                return Err(failure);
            }
            Err(failure) => {
                let name = &other.copy.name;
                app.out.warning(&format!("the copy {name} cannot be asked: {}", in_words(&failure)));
            }
        }
    }
    Ok(out)
}

/// Brings all copies to the keys of the one that has the newest, and opens those anew that had older ones, or another slot.
fn agree_on_keys(
    app: &App,
    keyed: &[Keyed],
    outcomes: &mut [Result<Opened, Failure>],
    purpose: Purpose,
    is_rehearsal: bool,
) -> Result<(), Failure> {
    let Some(leading) = newest_keys(outcomes)? else { return Ok(()) };
    // The run has one slot: that of the first copy that is open.
    let first = outcomes.iter().zip(keyed).find_map(|(outcome, (_, secret))| {
        Some((outcome.as_ref().ok()?.repository.keyring().slot(), secret.as_ref().ok()?))
    });
    let Some((slot, secret)) = first else { return Ok(()) };
    for (outcome, (place, _)) in outcomes.iter_mut().zip(keyed) {
        let compared = match outcome {
            Ok(opened) => leading.compare_epochs(&opened.repository),
            // It may be that it lacks the epoch in which this key was made.
            Err(failure) if failure.exit == Exit::Key => Ok(Epochs::Behind(0)),
            Err(_) => continue,
        };
        let is_behind = match compared {
            Ok(epochs) => matches!(epochs, Epochs::Behind(_)),
            Err(error @ RepoError::CopiesForked { .. }) => return Err(error.into()),
            Err(error) => {
                *outcome = Err(error.into());
                continue;
            }
        };
        if is_behind && is_rehearsal {
            *outcome = Err(Failure::new(Exit::Failed, "it lacks keys, which a run would bring there first"));
            continue;
        }
        if is_behind {
            let backend = place.connect(app, false)?;
            if let Err(error) = leading.bring_epochs(backend.as_ref()) {
                *outcome = Err(error.into());
                continue;
            }
        }
        let is_other = outcome.as_ref().is_ok_and(|opened| opened.repository.keyring().slot() != slot);
        if is_behind || is_other {
            *outcome = open_patiently(app, place, secret, purpose);
        }
    }
    Ok(())
}

/// The copy whose head is newest; an error if two have parted.
fn newest_keys(outcomes: &[Result<Opened, Failure>]) -> Result<Option<Repository>, Failure> {
    let mut newest: Option<&Repository> = None;
    for opened in outcomes.iter().flatten() {
        newest = match newest.map(|leader| leader.compare_epochs(&opened.repository)) {
            None | Some(Ok(Epochs::Ahead)) => Some(&opened.repository),
            Some(Err(error @ RepoError::CopiesForked { .. })) => return Err(error.into()),
            // Another repository is told of later.
            Some(_) => newest,
        };
    }
    Ok(newest.cloned())
}

/// Opens the copies of a run that changes each of them for itself; the same for a repository without others.
pub fn open_each(app: &App, purpose: Purpose, is_rehearsal: bool) -> Result<Copies, Failure> {
    let places = Place::all(app)?;
    if places.len() > 1 {
        return open_places(app, places, purpose, is_rehearsal);
    }
    let opened = repo::open(app, purpose)?;
    if !is_rehearsal {
        opened.require_current_keys()?;
    }
    Ok(Copies::of_one(opened))
}

/// Adds what another copy counted; what is no number stays as it is.
fn add(into: &mut json::Object, from: &json::Object) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => add(into, from),
            (Some(sum), value) => {
                if let Some(both) = sum.as_u64().zip(value.as_u64()) {
                    *sum = both.0.saturating_add(both.1).into();
                }
            }
            (None, value) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

impl Copies {
    /// Whether there are others beside the first, open or not.
    pub fn are_several(&self) -> bool {
        self.names.len() > 1
    }

    /// Does the same in each copy for itself: what fails in one hinders no other. The summary adds up what `verb` counts, and
    /// says under `copies` what it was in each.
    pub fn in_each(
        &mut self,
        app: &App,
        verb: impl Fn(&Opened) -> Result<json::Object, Failure>,
    ) -> Result<Done, Failure> {
        if !self.are_several() {
            return verb(self.first()).map(Done::with);
        }
        let (mut sum, mut done, mut failed) = (json::Object::new(), Vec::new(), None);
        for (opened, position) in self.opened.iter().zip(&self.positions) {
            let name = &opened.copy.name;
            app.out.done(&format!("the copy {name}:"));
            let state = match verb(opened) {
                Ok(counted) => {
                    add(&mut sum, &counted);
                    let mut state = json::object(json!({ "name": name, "state": "ok" }));
                    state.extend(counted);
                    state
                }
                Err(failure)
                    if matches!(failure.exit, Exit::Interrupted | Exit::Terminated | Exit::Usage) =>
                {
                    return Err(failure);
                }
                Err(failure) => {
                    let why = in_words(&failure);
                    let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                    app.out.warning(&format!("the copy {name}: {why}{hint}"));
                    failed.get_or_insert(failure);
                    json::object(json!({ "name": name, "state": "failed", "reason": why }))
                }
            };
            done.push((*position, Value::from(state)));
        }
        if let Some(failure) = failed.as_ref().filter(|_| sum.is_empty()) {
            return Err(failure.clone());
        }
        let lagging = self.states(app).into_iter();
        let absent: Vec<usize> = self.absent.iter().map(|absent| absent.position).collect();
        done.extend(absent.into_iter().zip(lagging));
        done.sort_by_key(|(position, _)| *position);
        sum.insert("copies".into(), done.into_iter().map(|(_, state)| state).collect::<Vec<_>>().into());
        Ok(Done { exit: failed.map_or(Exit::Done, |failure| failure.exit), summary: sum })
    }

    /// Brings pins and tags of each copy to the others: a copy that was away knows of what must stay before it forgets.
    pub fn share_records(&self, app: &App) {
        for (to, target) in self.opened.iter().enumerate() {
            for (_, source) in self.opened.iter().enumerate().filter(|(from, _)| *from != to) {
                if let Err(error) = source.repository.bring_records(&target.repository) {
                    let (from, to) = (&source.copy.name, &target.copy.name);
                    let why = in_words(&error.into());
                    app.out.warning(&format!("the pins of the copy {from} were not brought to {to}: {why}"));
                }
            }
        }
    }

    /// Writes records into the first copy, and brings them to the others as they are. Returns what the summary says of each.
    pub fn write_records(
        &mut self,
        app: &App,
        write: impl FnOnce(&Repository) -> Result<(), RepoError>,
    ) -> Result<Option<Value>, Failure> {
        let first = self.first().repository.clone();
        write(&first)?;
        let mut lagging = Vec::new();
        for (copy, opened) in self.opened.iter().enumerate().skip(1) {
            if let Err(error) = first.bring_records(&opened.repository) {
                lagging.push(Lag { copy, why: in_words(&error.into()) });
            }
        }
        Ok(self.are_several().then(|| self.tell(app, lagging, true)))
    }

    /// A repository without others.
    pub fn of_one(opened: Opened) -> Self {
        let names = vec![opened.copy.name.clone()];
        Self { names, opened: vec![opened], positions: vec![0], absent: Vec::new() }
    }

    /// The first that is open.
    pub fn first(&self) -> &Opened {
        &self.opened[0]
    }

    /// Those that cannot be written: their names, and why.
    pub fn absent(&self) -> impl Iterator<Item = (&str, &str)> {
        self.absent.iter().map(|absent| (self.names[absent.position].as_str(), absent.why.as_str()))
    }

    /// Notes those that failed since, warns of all that lag, and returns what the summary says of each.
    pub fn tell(&mut self, app: &App, lagging: Vec<Lag>, is_written: bool) -> Value {
        self.states_after(app, lagging, is_written).into()
    }

    /// Warns of those that cannot be opened; what a summary says of them.
    pub fn states(&mut self, app: &App) -> Vec<Value> {
        self.states_after(app, Vec::new(), false)
    }

    fn states_after(&mut self, app: &App, lagging: Vec<Lag>, is_written: bool) -> Vec<Value> {
        for Lag { copy, why } in lagging {
            self.absent.push(Absent { position: self.positions[copy], why, is_missing: false });
        }
        self.absent.sort_by_key(|absent| absent.position);
        for Absent { position, why, is_missing } in &self.absent {
            let name = &self.names[*position];
            let hint = match is_missing {
                true => format!(
                    "is it mounted? `snap init --copy {name} --copy-of {}` makes it if it never was there",
                    self.first().copy.name
                ),
                false => CATCH_UP.to_owned(),
            };
            app.out.warning(&format!("the copy {name} lags: {why} ({hint})"));
        }
        let states = self.names.iter().enumerate().filter_map(|(position, name)| {
            match self.absent.iter().find(|absent| absent.position == position) {
                Some(absent) => Some(json!({ "name": name, "state": "lagging", "reason": absent.why })),
                None => is_written.then(|| json!({ "name": name, "state": "ok" })),
            }
        });
        states.collect()
    }

    /// Puts what a change of the keys has made into the other copies.
    pub fn spread_keys(&mut self, app: &App, epoch: &ObjectId) -> json::Object {
        let mut lagging = Vec::new();
        let first = self.first().repository.clone();
        for (copy, opened) in self.opened.iter().enumerate().skip(1) {
            let backend = opened.repository.backend();
            if let Err(error) = first.bring_epoch(epoch, backend.as_ref()) {
                lagging.push(Lag { copy, why: in_words(&error.into()) });
            }
        }
        json::object(json!({ "copies": self.tell(app, lagging, true) }))
    }
}
