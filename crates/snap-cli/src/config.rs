//! `snap.toml`: where it is looked for, and what it gives a run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use snap_ops::{Config, ConfigError, KeyConfig, KeyRef, ResolvedCopies, ResolvedCopy};

use crate::app::App;
use crate::exit::Failure;
use crate::keys::KeySource;
use crate::select;

/// The name of the file, wherever it lies.
pub const FILE_NAME: &str = "snap.toml";

/// The system's.
const SYSTEM_FILE: &str = "/etc/snap/snap.toml";

/// The file that a flag or variable names, absolute.
pub fn named(app: &App) -> Result<Option<PathBuf>, Failure> {
    let given = app.global.config.clone().or_else(|| app.env.get("SNAP_CONFIG").map(PathBuf::from));
    given.map(|path| Ok(select::working_dir()?.join(path))).transpose()
}

/// Where a file may lie that nobody names, the nearest first.
pub fn candidates(app: &App) -> Vec<PathBuf> {
    let here = select::working_dir().ok().map(|directory| directory.join(FILE_NAME));
    let users = app.env.config_dir().map(|directory| directory.join(FILE_NAME));
    here.into_iter().chain(users).chain([PathBuf::from(SYSTEM_FILE)]).collect()
}

/// Reads the configuration of this run, if there is one.
pub fn load(app: &App) -> Result<Option<Config>, Failure> {
    if let Some(file) = named(app)? {
        return Ok(Some(Config::load(&file)?));
    }
    for (at, file) in candidates(app).into_iter().enumerate() {
        match Config::load(&file) {
            Ok(config) => {
                if at == 0 {
                    refuse_anothers(&file)?;
                }
                return Ok(Some(config));
            }
            Err(ConfigError::Unreadable { source, .. }) if is_absent(&source) => {}
            Err(error) => {
                if at == 0 {
                    refuse_anothers(&file)?;
                }
                return Err(error.into());
            }
        }
    }
    Ok(None)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// A file in the working directory can name commands to run: one that somebody else put there, or may change, counts
/// only when it is named.
fn refuse_anothers(file: &Path) -> Result<(), Failure> {
    let Ok(metadata) = std::fs::metadata(file) else { return Ok(()) };
    let own = rustix::process::geteuid().as_raw();
    let is_own = metadata.uid() == own || metadata.uid() == 0;
    if is_own && metadata.mode() & 0o002 == 0 {
        return Ok(());
    }
    let why = if is_own { "may be changed by anybody" } else { "belongs to another user" };
    Err(Failure::usage(format!("{} {why}, so it is not used unasked", file.display()))
        .hint(format!("look into it, then name it: --config {}", file.display())))
}

/// How a run came by its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `--repo`.
    Flag,
    /// `SNAP_REPO`.
    Environment,
    /// `snap.toml`.
    Config,
    /// Nobody named one.
    Default,
}

impl Origin {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::Config => "config",
            Self::Default => "default",
        }
    }
}

/// The copies of this run: flag over environment over configuration; none if nobody names any. `--copy` leaves one.
pub fn copies(app: &App) -> Result<Option<(ResolvedCopies, Origin)>, Failure> {
    let wanted = app.global.copy.as_deref();
    let given = match (&app.global.repo, app.env.get("SNAP_REPO")) {
        (Some(_), _) if wanted.is_some() => {
            return Err(Failure::usage("--repo and --copy both choose a repository").hint("give one of them"));
        }
        (Some(repo), _) => Some((repo, Origin::Flag)),
        // A flag wins over the variable.
        (None, Some(repo)) if wanted.is_none() => Some((repo, Origin::Environment)),
        _ => None,
    };
    if let Some((repo, origin)) = given {
        let uri = repo.to_str().ok_or_else(|| {
            Failure::usage("the name of the repository is not UTF-8").hint("use another path")
        })?;
        return Ok(Some((ResolvedCopy::plain(uri).into(), origin)));
    }
    let copies = app.config()?.and_then(|config| ResolvedCopies::new(config.copies.clone()));
    let Some(name) = wanted else { return Ok(copies.map(|copies| (copies, Origin::Config))) };
    let Some(copies) = copies else {
        return Err(Failure::usage(format!("--copy {name}: no copies are configured"))
            .hint("name them in snap.toml as [[repository.copies]], or use --repo"));
    };
    match copies.only(name) {
        Some(one) => Ok(Some((one, Origin::Config))),
        None => Err(Failure::usage(format!("--copy {name}: there is no such copy"))
            .hint(format!("there are {}", copies.names().join(", ")))),
    }
}

/// The key that the configuration names for this copy, `reading` stored data or not.
pub fn key(app: &App, copy: &ResolvedCopy, reading: bool) -> Result<Option<KeySource>, Failure> {
    let general = KeyConfig::default();
    // A repository that a flag names has no keys of its own.
    let of_repository = app.config()?.map_or(&general, |config| &config.keys);
    let keys = if copy.keys == general { of_repository } else { &copy.keys };
    // It usually lies on another host, where the rehearsals are.
    let reader = keys.read_key_file.clone().filter(|file| file.exists()).map(KeySource::KeyFile);
    let plain = keys.key.as_ref().map(source).transpose()?;
    Ok(if reading { reader.or(plain) } else { plain.or(reader) })
}

fn source(key: &KeyRef) -> Result<KeySource, Failure> {
    Ok(match key {
        KeyRef::File(path) => KeySource::KeyFile(path.clone()),
        KeyRef::PasswordFile(path) => KeySource::PasswordFile(path.clone()),
        KeyRef::PasswordCommand(line) => KeySource::PasswordCommand(line.expose().into()),
        KeyRef::PasswordWords(words) => {
            let line = shlex::try_join(words.iter().map(|word| word.expose()))
                .map_err(|_| Failure::usage("the password command has a NUL byte"))?;
            KeySource::PasswordCommand(line.into())
        }
    })
}
