//! From what the user gave to an opened repository.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snap_backend::{Backend, BandwidthOptions, ObjectLock, ObjectName, RetryOptions, Site};
use snap_crypto::Zeroizing;
use snap_format::RepoId;
use snap_ops::ResolvedCopy;
use snap_repo::repair::Foundations;
use snap_repo::{Area, Cache, Finding, Index, OpenCopies, RepoError, Repository, Secret, areas_of_a_backup};

use crate::app::App;
use crate::exit::{Exit, Failure};
use crate::keys::{self, KeySource, NewKeyFile};
use crate::{config, copies, prompt, system};

/// Attempts to reach a store for the first time, a few seconds in all.
const PROBE_ATTEMPTS: u32 = 5;

/// Where the repository is.
pub struct Place {
    /// The repository, and what the configuration says of it.
    pub copy: ResolvedCopy,
    /// The key file of the embedded default, if that is meant.
    pub default_key: Option<PathBuf>,
}

impl Place {
    /// The one that is read: the first of [`Self::all`].
    pub fn find(app: &App) -> Result<Self, Failure> {
        Ok(Self::all(app)?.swap_remove(0))
    }

    /// All copies of this run, at least one: flag over environment over configuration over the embedded default.
    pub fn all(app: &App) -> Result<Vec<Self>, Failure> {
        match config::copies(app)? {
            Some((copies, _)) => {
                Ok(copies.iter().map(|copy| Self { copy: copy.clone(), default_key: None }).collect())
            }
            None => Ok(vec![Self::default_one(app)?]),
        }
    }

    /// The configured copies beside this one; none if a flag or variable named it.
    pub fn siblings(app: &App, of: &Self) -> Result<Vec<Self>, Failure> {
        let is_configured = matches!(config::copies(app)?, Some((_, config::Origin::Config)));
        let all = app.config()?.filter(|_| is_configured).map(|config| config.copies.as_slice());
        let others = all.unwrap_or_default().iter().filter(|copy| copy.name != of.copy.name);
        Ok(others.map(|copy| Self { copy: copy.clone(), default_key: None }).collect())
    }

    /// The copy that is configured under this name, else the repository at that place.
    pub fn named(app: &App, name: &str) -> Result<Self, Failure> {
        let configured = app.config()?.and_then(|config| config.copies.iter().find(|copy| copy.name == name));
        let copy = configured.cloned().unwrap_or_else(|| ResolvedCopy::plain(name));
        Ok(Self { copy, default_key: None })
    }

    fn default_one(app: &App) -> Result<Self, Failure> {
        let not_utf8 = || Failure::usage("the name of the repository is not UTF-8").hint("use another path");
        let data = app.env.data_dir().ok_or_else(|| {
            Failure::usage("no repository is named, and there is no home directory for the default one")
                .hint("name one with --repo or SNAP_REPO, or set HOME")
        })?;
        let uri = data.join("repo").to_str().ok_or_else(not_utf8)?.to_owned();
        Ok(Self { copy: ResolvedCopy::plain(uri), default_key: Some(data.join("key")) })
    }

    /// The store, of which nothing is asked yet.
    pub fn connect(&self, app: &App, create: bool) -> Result<Arc<dyn Backend>, Failure> {
        self.connect_with(app, create, RetryOptions::default())
    }

    /// The same, but soon out of patience: a store that never answered is more likely to be misspelt than busy, and
    /// nothing is lost yet.
    pub fn probe(&self, app: &App) -> Result<Arc<dyn Backend>, Failure> {
        let retry = RetryOptions { attempts: PROBE_ATTEMPTS, ..RetryOptions::default() };
        self.connect_with(app, false, retry)
    }

    fn connect_with(
        &self,
        app: &App,
        create: bool,
        retry: RetryOptions,
    ) -> Result<Arc<dyn Backend>, Failure> {
        self.with_options(app, |options| {
            let options = snap_backend::OpenOptions { create, retry: Some(retry), ..options };
            Ok(snap_backend::open(self.copy.uri.expose(), &options)?)
        })
    }

    /// Where it is, as far as its URI and the environment tell.
    pub fn site(&self, app: &App) -> Result<Site, Failure> {
        self.with_options(app, |options| Ok(Site::of(self.copy.uri.expose(), &options)?))
    }

    fn with_options<T>(
        &self,
        app: &App,
        call: impl FnOnce(snap_backend::OpenOptions<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let given = &self.copy.credentials;
        let env = |name: &str| if given.hides(name) { None } else { app.env.text(name) };
        call(snap_backend::OpenOptions {
            env: Some(&env),
            credentials: given.resolve(&|name| app.env.text(name))?,
            // Credentials that are given are meant: nothing else is tried in their place.
            ambient_credentials: given.is_empty(),
            bandwidth: BandwidthOptions {
                upload_bytes: app.global.limit_upload.and_then(|size| NonZeroU64::new(size.0)),
                download_bytes: app.global.limit_download.and_then(|size| NonZeroU64::new(size.0)),
            },
            ..snap_backend::OpenOptions::default()
        })
    }

    /// Versions and locks of the store, if it has such things.
    pub fn object_lock(&self, app: &App) -> Result<Option<ObjectLock>, Failure> {
        self.with_options(app, |options| {
            Ok(snap_backend::open_object_lock(self.copy.uri.expose(), &options)?)
        })
    }

    /// Where the key comes from; the default repository brings its own.
    pub(crate) fn key(&self, app: &App) -> Result<Option<KeySource>, Failure> {
        let chosen = self.chosen_key(app, app.reads_content)?;
        Ok(chosen.or_else(|| {
            let file = self.default_key.as_ref().filter(|file| file.exists())?;
            Some(KeySource::KeyFile(file.clone()))
        }))
    }

    /// Whether a key is named somewhere, so that nobody is asked for one.
    pub fn has_key(&self, app: &App) -> Result<bool, Failure> {
        Ok(self.key(app)?.is_some())
    }

    /// Flags over environment over configuration.
    fn chosen_key(&self, app: &App, reading: bool) -> Result<Option<KeySource>, Failure> {
        match KeySource::choose(&app.global, &app.env)? {
            Some(source) => Ok(Some(source)),
            None => config::key(app, &self.copy, reading),
        }
    }

    pub(crate) fn explain(&self, mut failure: Failure) -> Failure {
        let Some(key) = &self.default_key else { return failure };
        match failure.exit {
            Exit::NoRepository => {
                failure.hint = Some(
                    "no repository is named and the default one is not made yet: `snap backup PATH` makes it; \
                     --repo or SNAP_REPO name another"
                        .to_owned(),
                );
            }
            Exit::Key => {
                failure.hint = Some(format!(
                    "no repository is named, so this is the default one; its key file is {}, used if no key flag or \
                     variable is given",
                    key.display()
                ));
            }
            _ => {}
        }
        failure
    }
}

/// Whether there is a repository, as far as its fixed names tell.
pub fn exists(backend: &dyn Backend) -> Result<bool, Failure> {
    for name in ["config", "config.bak"] {
        let name = ObjectName::new(name).expect("a plain name");
        if backend.exists(&name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An opened repository and what belongs to it on this machine.
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Its cache, unless there can be none.
    pub cache: Option<Cache>,
    /// Where caches lie.
    pub cache_base: Option<PathBuf>,
    /// What the configuration says of it.
    pub copy: ResolvedCopy,
    /// What opened it, and opens its copies.
    secret: Secret,
    /// Whether this is the embedded default.
    pub is_default: bool,
    /// The store shows other keys than this machine saw last: reading is safe, writing is not.
    pub rolled_back: Option<Finding>,
}

impl Opened {
    /// Tells of damage that was met while opening.
    pub fn tell_findings(&self, app: &App) {
        let findings = self.repository.findings().iter().chain(&self.rolled_back);
        findings.for_each(|finding| app.out.finding(finding));
    }

    /// Refuses to write under keys that do not follow from those seen last.
    pub fn require_current_keys(&self) -> Result<(), Failure> {
        match &self.rolled_back {
            None => Ok(()),
            Some(finding) => Err(Failure::from(RepoError::from(finding.clone())).hint(
                "a copy that was away while keys were changed gets them by `snap copy`; if the store was put back on purpose, delete the file `head` in this repository's cache directory; \
                 else find out who did it, and write nothing until then",
            )),
        }
    }
}

/// What opening lists on the way, so that it costs no round trip of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing: the keys are all that is wanted.
    Keys,
    /// Nothing, and small objects come from the store itself, not from the cache.
    Checking,
    /// The snapshots.
    Snapshots,
    /// The same, to decide what becomes of them: in this copy and in no other.
    Deciding,
    /// Snapshots and index.
    Reading,
    /// All that a backup looks at before it begins.
    Backup,
}

impl Purpose {
    fn areas(self, cache_base: Option<&Path>, location: &str) -> Vec<Area> {
        match self {
            Self::Keys | Self::Checking => Vec::new(),
            Self::Snapshots | Self::Deciding => vec![Area::Snapshots],
            Self::Reading => vec![Area::Snapshots, Area::Index],
            Self::Backup => {
                let place = cache_base.map(|base| Cache::of_place(base, location));
                areas_of_a_backup(place.as_ref())
            }
        }
    }
}

/// Opens the repository; of several copies, for looking, the first that answers.
pub fn open(app: &App, purpose: Purpose) -> Result<Opened, Failure> {
    let mut places = Place::all(app)?;
    if places.len() == 1 || !matches!(purpose, Purpose::Snapshots | Purpose::Reading) {
        let place = places.swap_remove(0);
        return open_at(app, &place, purpose).map_err(|failure| place.explain(failure));
    }
    let mut first: Option<(String, Failure)> = None;
    for place in places {
        match copies::open_for_reading(app, &place, purpose) {
            Ok(opened) => {
                if let Some((name, failure)) = first {
                    let why = copies::in_words(&failure);
                    app.out
                        .note(&format!("the copy {name} cannot be used: {why}; this is {}", place.copy.name));
                }
                opened.tell_findings(app);
                return Ok(opened);
            }
            // Whoever lacks the key is not helped by another copy, and would not learn of it.
            Err(failure) if matches!(failure.exit, Exit::Failed | Exit::Damage | Exit::NoRepository) => {
                first.get_or_insert((place.copy.name.clone(), failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(first.map(|(_, failure)| failure).unwrap_or_else(|| Failure::usage("no copy is configured")))
}

/// The other copies of this run, to be opened when one is needed.
pub fn other_copies(app: &App, opened: &Opened) -> Result<Option<Box<OpenCopies>>, Failure> {
    let mut others = Vec::new();
    for place in Place::all(app)?.into_iter().filter(|place| place.copy.name != opened.copy.name) {
        // One that cannot even be named helps nobody; `policy` and `backup` tell of it.
        if let Ok(backend) = place.probe(app) {
            others.push((place.copy.name.clone(), backend));
        }
    }
    if others.is_empty() {
        return Ok(None);
    }
    let (secret, cache, id) = (opened.secret.clone(), opened.cache.clone(), opened.repository.id());
    let open = move || {
        let open_one = |(name, backend): &(String, Arc<dyn Backend>)| {
            let repository = Repository::open(Arc::clone(backend), &secret).ok()?;
            if repository.id() != id {
                return None;
            }
            let (index, _) = Index::load(&repository, cache.as_ref()).ok()?;
            Some((name.clone(), repository, Arc::new(index)))
        };
        others.iter().filter_map(open_one).collect()
    };
    Ok(Some(Box::new(open)))
}

/// Opens this one and no other.
pub fn open_place(app: &App, place: &Place, purpose: Purpose) -> Result<Opened, Failure> {
    open_at(app, place, purpose).map_err(|failure| place.explain(failure))
}

fn open_at(app: &App, place: &Place, purpose: Purpose) -> Result<Opened, Failure> {
    let source = place.key(app)?;
    let backend = place.connect(app, false)?;
    let secret = load_secret(source.as_ref(), place.probe(app)?.as_ref())?;
    open_with(app, place, backend, &secret, purpose)
}

/// A copy, opened, or why it is not.
pub type MaybeOpened = (Place, Result<Opened, Failure>);

/// Opens every copy of this run, each for itself: one that does not answer hides no other.
pub fn open_all(app: &App, purpose: Purpose) -> Result<Vec<MaybeOpened>, Failure> {
    let given = KeySource::choose(&app.global, &app.env)?;
    // Standard input can be read once.
    let mut shared: Option<Secret> = None;
    let mut out = Vec::new();
    for place in Place::all(app)? {
        let mut open = || {
            let backend = place.connect(app, false)?;
            if given.is_none() {
                let secret = load_secret(place.key(app)?.as_ref(), place.probe(app)?.as_ref())?;
                return open_with(app, &place, backend, &secret, purpose);
            }
            if shared.is_none() {
                shared = Some(load_secret(given.as_ref(), place.probe(app)?.as_ref())?);
            }
            open_with(app, &place, backend, shared.as_ref().expect("it was just loaded"), purpose)
        };
        let opened = open().map_err(|failure| place.explain(failure));
        out.push((place, opened));
    }
    Ok(out)
}

/// Opens the repository with this key and no other.
pub fn open_with_secret(app: &App, secret: &Secret) -> Result<Opened, Failure> {
    let place = Place::find(app)?;
    let backend = place.connect(app, false)?;
    open_with(app, &place, backend, secret, Purpose::Keys)
}

/// Gets the key. That there is no repository is told before anything that is wrong with the key.
pub(crate) fn load_secret(source: Option<&KeySource>, backend: &dyn Backend) -> Result<Secret, Failure> {
    let missing = |failure: Failure| match exists(backend) {
        Ok(false) => RepoError::NoRepository(backend.location()).into(),
        Ok(true) => failure,
        Err(unreachable) => unreachable,
    };
    match source {
        Some(source) => source.load().map_err(missing),
        None if !prompt::can_ask() => Err(missing(keys::no_key())),
        None if !exists(backend)? => Err(RepoError::NoRepository(backend.location()).into()),
        None => prompt::ask_password(&backend.location()),
    }
}

/// Opens a repository that may have lost its config or epochs, with what can be brought back of them; written unless it is a
/// rehearsal.
pub fn open_for_repair(app: &App, dry_run: bool, give_up: bool) -> Result<(Opened, Foundations), Failure> {
    let place = Place::find(app)?;
    let backend = place.connect(app, false)?;
    let secret = match place.key(app)? {
        Some(source) => source.load()?,
        None if prompt::can_ask() => prompt::ask_password(&backend.location())?,
        None => load_secret(None, place.probe(app)?.as_ref())?,
    };
    let foundations = Foundations::examine(&backend, &secret, cache_base(app).as_deref(), give_up)?;
    let rehearsed = open_with(app, &place, foundations.over(&backend), &secret, Purpose::Checking)?;
    rehearsed.repository.keyring().require_owner("repairing a repository")?;
    if dry_run {
        return Ok((rehearsed, foundations));
    }
    rehearsed.require_current_keys()?;
    foundations.write(backend.as_ref())?;
    Ok((open_with(app, &place, backend, &secret, Purpose::Checking)?, foundations))
}

fn open_with(
    app: &App,
    place: &Place,
    backend: Arc<dyn Backend>,
    secret: &Secret,
    purpose: Purpose,
) -> Result<Opened, Failure> {
    let opened = open_quietly(app, place, backend, secret, purpose)?;
    // `check`, which wants nothing from the cache, reports these itself.
    if purpose != Purpose::Checking {
        opened.tell_findings(app);
    }
    Ok(opened)
}

/// The same; what was found on the way is not told.
pub(crate) fn open_quietly(
    app: &App,
    place: &Place,
    backend: Arc<dyn Backend>,
    secret: &Secret,
    purpose: Purpose,
) -> Result<Opened, Failure> {
    let cache_base = cache_base(app);
    let is_checking = purpose == Purpose::Checking;
    let areas = purpose.areas(cache_base.as_deref(), &backend.location());
    let store = match &cache_base {
        Some(base) if backend.local_root().is_none() && !is_checking => Cache::wrap_below(base, backend),
        _ => backend,
    };
    let repository = Repository::open_with(store, secret, &areas)?;
    let cache = cache_base.as_ref().map(|base| Cache::new(base, repository.id()));
    let rolled_back = cache.as_ref().and_then(|cache| repository.accept_head(cache));
    if !is_checking {
        cache.iter().for_each(|cache| repository.remember_in(cache));
    }
    let (copy, is_default) = (place.copy.clone(), place.default_key.is_some());
    let secret = secret.clone();
    Ok(Opened { repository, cache, cache_base, copy, secret, is_default, rolled_back })
}

/// Makes the directory of all caches. Without one everything works, only slower.
fn cache_base(app: &App) -> Option<PathBuf> {
    let given = app.global.cache_dir.clone().or_else(|| app.env.get("SNAP_CACHE_DIR").map(PathBuf::from));
    let Some(base) = given.or_else(|| app.env.cache_dir()) else {
        app.out
            .note("there is no home directory for the cache: going on without one (--cache-dir names one)");
        return None;
    };
    match system::make_private_dir(&base) {
        Ok(()) => Some(base),
        Err(error) => {
            app.out
                .note(&format!("the cache {} cannot be made: {error}; going on without one", base.display()));
            None
        }
    }
}

/// What making a repository gives.
pub struct Created {
    /// Its id.
    pub id: RepoId,
    /// The recovery key, printed form.
    pub recovery_key: Zeroizing<String>,
    /// Where it is.
    pub location: String,
    /// The key file that was made for it.
    pub key_file: Option<PathBuf>,
    /// The key that opens it.
    secret: Secret,
}

/// What making a copy gives.
pub struct Copied {
    /// The id that both share.
    pub id: RepoId,
    /// Where the copy is.
    pub location: String,
    /// Where the other is.
    pub source: String,
}

/// Makes a copy, without data yet, of the repository that `source` names by its place or by the name of a copy.
pub fn create_copy(app: &App, source: &str) -> Result<Copied, Failure> {
    let mut places = Place::all(app)?;
    if places.len() > 1 {
        return Err(Failure::usage("several copies are configured: which one is to be made?")
            .hint("name it with --copy NAME, or its place with --repo"));
    }
    let place = places.swap_remove(0);
    if place.default_key.is_some() {
        return Err(Failure::usage("the place of the copy is missing")
            .hint("name it with --repo, or with --copy NAME as snap.toml calls it"));
    }
    let original = Place::named(app, source)?;
    let opened = open_at(app, &original, Purpose::Keys)?;
    opened.require_current_keys()?;
    let backend = place.connect(app, true)?;
    opened.repository.create_copy(backend.as_ref(), system::now())?;
    Ok(Copied {
        id: opened.repository.id(),
        location: backend.location(),
        source: opened.repository.backend().location(),
    })
}

/// Makes the repository that the global options name.
pub fn create(app: &App) -> Result<Created, Failure> {
    let place = Place::find(app)?;
    create_at(app, &place)
}

fn create_at(app: &App, place: &Place) -> Result<Created, Failure> {
    let chosen = place.chosen_key(app, false)?;
    let source = chosen.or_else(|| place.default_key.clone().map(KeySource::KeyFile));
    if matches!(source, Some(KeySource::Recovery(_) | KeySource::RecoveryFile(_))) {
        return Err(Failure::usage(
            "a recovery key cannot be the key of a new repository, which gets one of its own",
        )
        .hint("give --key-file or --password-file"));
    }
    let backend = place.connect(app, true)?;
    if exists(place.probe(app)?.as_ref())? {
        return Err(RepoError::AlreadyExists(backend.location()).into());
    }
    if let Some(parent) = place.default_key.as_ref().and_then(|key| key.parent()) {
        system::make_private_dir(parent).map_err(|error| {
            Failure::io(format!("cannot make the directory {}", parent.display()), &error)
        })?;
    }
    let (secret, new_key_file) = new_secret(source.as_ref(), &backend.location())?;
    keys::refuse_empty(&secret)?;
    match Repository::create(backend.as_ref(), &secret, &system::host_name(), system::now()) {
        Ok((id, recovery)) => {
            let key_file = new_key_file.map(|(made, path)| {
                made.keep();
                path
            });
            let recovery_key = recovery.to_text().expect("recovery keys have a text");
            Ok(Created { id, recovery_key, location: backend.location(), key_file, secret })
        }
        Err(error) => Err(undo_create(app, backend.as_ref(), error, new_key_file)),
    }
}

/// Removes the new key file, unless a repository may depend on it by now.
fn undo_create(
    app: &App,
    backend: &dyn Backend,
    error: RepoError,
    new_key_file: Option<(NewKeyFile, PathBuf)>,
) -> Failure {
    let is_anothers = matches!(error, RepoError::AlreadyExists(_));
    if let Some((made, path)) = new_key_file
        && !is_anothers
        && !matches!(exists(backend), Ok(false))
    {
        made.keep();
        app.out.warning(&format!(
            "the repository may have been made in part: the key file {} is kept, since it may be the only key",
            path.display()
        ));
    }
    error.into()
}

/// The key of a new repository, and its file if that is new too.
fn new_secret(
    source: Option<&KeySource>,
    location: &str,
) -> Result<(Secret, Option<(NewKeyFile, PathBuf)>), Failure> {
    match source {
        Some(KeySource::KeyFile(path)) => match make_key_file(path) {
            Ok((made, secret)) => Ok((secret, Some((made, path.clone())))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                KeySource::KeyFile(path.clone()).load().map(|secret| (secret, None))
            }
            Err(error) => Err(Failure::io(format!("cannot make the key file {}", path.display()), &error)),
        },
        Some(source) => source.load().map(|secret| (secret, None)),
        None if prompt::can_ask() => prompt::ask_new_password(location).map(|secret| (secret, None)),
        None => Err(keys::no_key()),
    }
}

fn make_key_file(path: &Path) -> std::io::Result<(NewKeyFile, Secret)> {
    NewKeyFile::create(path)
}

/// Opens the repository, and makes the embedded default if that is meant and not there.
pub fn open_or_create_default(app: &App) -> Result<(Opened, Option<Created>), Failure> {
    let place = Place::find(app)?;
    if place.default_key.is_none() || exists(place.probe(app)?.as_ref())? {
        return open(app, Purpose::Backup).map(|opened| (opened, None));
    }
    let created = create_at(app, &place)?;
    let backend = place.connect(app, false)?;
    let opened = open_with(app, &place, backend, &created.secret, Purpose::Backup)?;
    Ok((opened, Some(created)))
}

impl Opened {
    /// Device and inode of the repository and of the caches: never backed up.
    pub fn protected(&self) -> Vec<(u64, u64)> {
        let root = self.repository.backend().local_root();
        root.into_iter().chain(self.cache_base.as_deref()).filter_map(system::identity).collect()
    }
}
