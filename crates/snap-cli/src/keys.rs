//! Which key opens the repository, and where it comes from.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use snap_crypto::Zeroizing;
use snap_repo::Secret;

use crate::args::GlobalArgs;
use crate::exit::{Exit, Failure};
use crate::system::Env;

/// Where a key comes from. No `Debug`: some hold it.
#[derive(PartialEq, Eq)]
pub enum KeySource {
    /// A key file.
    KeyFile(PathBuf),
    /// A file with a password.
    PasswordFile(PathBuf),
    /// A command that prints a password.
    PasswordCommand(OsString),
    /// The password itself.
    Password(Zeroizing<String>),
    /// A file with a recovery key, `-` for standard input.
    RecoveryFile(PathBuf),
    /// The recovery key itself.
    Recovery(Zeroizing<String>),
}

/// The ways to give a key, for hints.
pub const WAYS: &str = "give one with --key-file, --password-file, --password-command or --recovery-key-file, or in \
SNAP_KEY_FILE, SNAP_PASSWORD_FILE, SNAP_PASSWORD_COMMAND, SNAP_PASSWORD or SNAP_RECOVERY_KEY, or to a systemd unit as the \
credential snap-key or snap-password";

/// The longest key or password that is read, bytes.
const MAX_SECRET_BYTES: u64 = 1 << 20;

impl KeySource {
    /// What the flags say; a flag silences every variable.
    pub fn from_flags(global: &GlobalArgs) -> Result<Option<Self>, Failure> {
        let given = [
            ("--key-file", global.key_file.clone().map(Self::KeyFile)),
            ("--password-file", global.password_file.clone().map(Self::PasswordFile)),
            (
                "--password-command",
                global.password_command.clone().map(|it| Self::PasswordCommand(it.into())),
            ),
            ("--recovery-key-file", global.recovery_key_file.clone().map(Self::RecoveryFile)),
        ];
        let mut given = given.into_iter().filter_map(|(flag, source)| Some((flag, source?)));
        match (given.next(), given.next()) {
            (Some((first, _)), Some((second, _))) => {
                Err(Failure::usage(format!("{first} and {second} both name a key"))
                    .hint("give one of them: a repository is opened with one key"))
            }
            (first, _) => Ok(first.map(|(_, source)| source)),
        }
    }

    /// What the environment says: the first variable that is set, in the order of the contract; after them what systemd
    /// has for this unit.
    pub fn from_env(env: &Env) -> Result<Option<Self>, Failure> {
        let text = |name: &str| match env.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
                None => Err(Failure::new(Exit::Key, format!("{name} is not UTF-8"))),
            },
        };
        Ok(if let Some(file) = env.get("SNAP_KEY_FILE") {
            Some(Self::KeyFile(file.into()))
        } else if let Some(file) = env.get("SNAP_PASSWORD_FILE") {
            Some(Self::PasswordFile(file.into()))
        } else if let Some(command) = env.get("SNAP_PASSWORD_COMMAND") {
            Some(Self::PasswordCommand(command.clone()))
        } else if let Some(password) = text("SNAP_PASSWORD")? {
            Some(Self::Password(password))
        } else if let Some(key) = text("SNAP_RECOVERY_KEY")? {
            Some(Self::Recovery(key))
        } else {
            Self::from_credentials(env)
        })
    }

    /// What `LoadCredential=` and its like gave to the unit. A credential that is there and cannot be read is not passed
    /// over: the next key might open another repository, or make one.
    fn from_credentials(env: &Env) -> Option<Self> {
        let directory = PathBuf::from(env.get("CREDENTIALS_DIRECTORY")?);
        let given = |name: &str| {
            let file = directory.join(name);
            let found = std::fs::symlink_metadata(&file);
            let is_absent = found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            (!is_absent).then_some(file)
        };
        let key = given("snap-key").map(Self::KeyFile);
        key.or_else(|| given("snap-password").map(Self::PasswordFile))
    }

    /// Flags over environment.
    pub fn choose(global: &GlobalArgs, env: &Env) -> Result<Option<Self>, Failure> {
        match Self::from_flags(global)? {
            Some(source) => Ok(Some(source)),
            None => Self::from_env(env),
        }
    }

    /// The name of the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::KeyFile(_) => "key-file",
            Self::PasswordFile(_) => "password-file",
            Self::PasswordCommand(_) => "password-command",
            Self::Password(_) => "password",
            Self::RecoveryFile(_) => "recovery-key-file",
            Self::Recovery(_) => "recovery-key",
        }
    }

    /// Whether reading it takes standard input.
    pub fn reads_stdin(&self) -> bool {
        matches!(self, Self::RecoveryFile(path) if path.as_os_str() == "-")
    }

    /// Gets the key.
    pub fn load(&self) -> Result<Secret, Failure> {
        match self {
            Self::KeyFile(path) => parse_key_file(path, &read_file(path, "key file")?),
            Self::PasswordFile(path) => {
                password(read_file(path, "password file")?, &path.display().to_string())
            }
            Self::PasswordCommand(command) => password(run(command)?, "the password command"),
            Self::Password(text) => password(Zeroizing::new(text.as_bytes().to_vec()), "SNAP_PASSWORD"),
            Self::RecoveryFile(path) if self.reads_stdin() => {
                let bytes = read_all(io::stdin().lock()).map_err(|error| {
                    Failure::io("cannot read the recovery key from standard input", &error)
                })?;
                parse_recovery(&bytes, &path.display().to_string())
            }
            Self::RecoveryFile(path) => {
                parse_recovery(&read_file(path, "recovery key file")?, &path.display().to_string())
            }
            Self::Recovery(text) => parse_recovery(text.as_bytes(), "SNAP_RECOVERY_KEY"),
        }
    }
}

fn read_all(stream: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    stream.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any key"));
    }
    Ok(bytes)
}

fn read_file(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    File::open(path)
        .and_then(read_all)
        .map_err(|error| Failure::io(format!("cannot read the {what} {}", path.display()), &error))
}

fn parse_key_file(path: &Path, bytes: &[u8]) -> Result<Secret, Failure> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    Secret::from_key_file(text).map_err(|error| {
        Failure::new(Exit::Key, format!("{} is not a key file", path.display()))
            .cause(error.to_string())
            .hint("for a file that holds a password: --password-file")
    })
}

/// Reads a printed recovery key.
pub fn parse_recovery(bytes: &[u8], from: &str) -> Result<Secret, Failure> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    Secret::from_recovery_key(text).map_err(|error| {
        Failure::new(Exit::Key, format!("the recovery key from {from} cannot be used"))
            .cause(error.to_string())
            .hint("it has 8 groups of 7 letters and digits; case, spaces and dashes do not matter")
    })
}

/// One trailing newline is no part of a password.
fn password(mut bytes: Zeroizing<Vec<u8>>, from: &str) -> Result<Secret, Failure> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Secret::Password(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(Failure::new(Exit::Key, format!("the password from {from} is not UTF-8"))
            .hint("for a key of random bytes use a key file: `snap key add --new-key-file FILE`")),
    }
}

/// Runs a command without a shell and takes what it prints.
fn run(command: &OsString) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let words = command.to_str().and_then(shlex::split).unwrap_or_default();
    let Some((program, args)) = words.split_first() else {
        return Err(Failure::usage("the password command cannot be split into words")
            .hint("quote it as for a shell, such as --password-command 'pass show snap'"));
    };
    let failed =
        |error: &io::Error| Failure::io(format!("the password command {program} cannot be run"), error);
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let stdout = child.stdout.take().expect("the child was started with a pipe");
    let bytes = read_all(stdout);
    let status = child.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(Failure::new(Exit::Failed, format!("the password command {program} failed: {status}"))
            .hint("run it by itself to see why"));
    }
    bytes.map_err(|error| failed(&error))
}

/// Refuses an empty password for a new slot.
pub fn refuse_empty(secret: &Secret) -> Result<(), Failure> {
    match secret {
        Secret::Password(text) if text.is_empty() => Err(Failure::usage("the password is empty")
            .hint("an empty password protects nothing: choose another")),
        _ => Ok(()),
    }
}

/// Nobody can be asked, and nothing was given.
pub fn no_key() -> Failure {
    Failure::usage("no key is given, and there is no terminal to ask for a password").hint(WAYS)
}

/// A key file that was made by this run, and goes away with it unless it is kept.
pub struct NewKeyFile {
    path: PathBuf,
    is_kept: bool,
}

impl NewKeyFile {
    /// Makes `path`, readable by its owner alone, with a fresh key; durable before anything depends on it. What is there
    /// already is not touched.
    pub fn create(path: &Path) -> io::Result<(Self, Secret)> {
        let secret = Secret::random_key_file().map_err(io::Error::other)?;
        let text = secret.to_text().expect("key files have a text");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let made = Self { path: path.to_owned(), is_kept: false };
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
        Ok((made, secret))
    }

    /// Something depends on it now.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for NewKeyFile {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLES: [(&str, &str); 5] = [
        ("SNAP_KEY_FILE", "/k"),
        ("SNAP_PASSWORD_FILE", "/p"),
        ("SNAP_PASSWORD_COMMAND", "c"),
        ("SNAP_PASSWORD", "pw"),
        ("SNAP_RECOVERY_KEY", "rk"),
    ];

    fn name(source: Option<KeySource>) -> &'static str {
        match source {
            None => "none",
            Some(KeySource::KeyFile(_)) => "key-file",
            Some(KeySource::PasswordFile(_)) => "password-file",
            Some(KeySource::PasswordCommand(_)) => "password-command",
            Some(KeySource::Password(_)) => "password",
            Some(KeySource::RecoveryFile(_)) => "recovery-file",
            Some(KeySource::Recovery(_)) => "recovery",
        }
    }

    #[test]
    fn variables_have_an_order() {
        let order = ["key-file", "password-file", "password-command", "password", "recovery", "none"];
        for (first, expected) in order.into_iter().enumerate() {
            let env = VARIABLES[first..]
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect();
            let chosen = KeySource::choose(&GlobalArgs::default(), &env);
            assert_eq!(name(chosen.ok().flatten()), expected);
        }
    }

    #[test]
    fn a_flag_silences_every_variable_and_two_flags_are_refused() {
        let env = VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let mut global = GlobalArgs { recovery_key_file: Some("r".into()), ..GlobalArgs::default() };
        assert_eq!(name(KeySource::choose(&global, &env).ok().flatten()), "recovery-file");
        global.password_command = Some("x".into());
        let failure = KeySource::choose(&global, &env).err().unwrap();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn systemd_credentials_come_after_every_variable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().as_os_str().to_owned();
        let env = |extra: &[(&str, &str)]| -> Env {
            let own = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
            own.chain([("CREDENTIALS_DIRECTORY".to_owned(), path.clone())]).collect()
        };
        let chosen = |env: &Env| name(KeySource::choose(&GlobalArgs::default(), env).ok().flatten());
        assert_eq!(chosen(&env(&[])), "none");
        std::fs::write(dir.path().join("snap-password"), "pw\n").unwrap();
        assert_eq!(chosen(&env(&[])), "password-file");
        // One that cannot be read is still the one that was meant.
        std::os::unix::fs::symlink("/no/such/file", dir.path().join("snap-key")).unwrap();
        assert_eq!(chosen(&env(&[])), "key-file");
        for variable in VARIABLES {
            assert_ne!(chosen(&env(&[variable])), "none");
            let alone = [variable].map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
            assert_eq!(chosen(&env(&[variable])), chosen(&alone), "{variable:?}");
        }
        let flag = GlobalArgs { recovery_key_file: Some("r".into()), ..GlobalArgs::default() };
        assert_eq!(name(KeySource::choose(&flag, &env(&[])).ok().flatten()), "recovery-file");
    }

    fn read(source: KeySource) -> Zeroizing<String> {
        match source.load() {
            Ok(Secret::Password(text)) => text,
            Ok(_) => panic!("not a password"),
            Err(failure) => panic!("{}", failure.message),
        }
    }

    #[test]
    fn one_trailing_newline_is_stripped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        for (content, expected) in
            [("pw\n", "pw"), ("pw", "pw"), ("pw\n\n", "pw\n"), ("pw\r\n", "pw"), (" pw ", " pw ")]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(KeySource::PasswordFile(path.clone())).as_str(), expected);
            assert_eq!(read(KeySource::Password(content.to_owned().into())).as_str(), expected);
        }
    }

    #[test]
    fn a_password_command_runs_without_a_shell() {
        assert_eq!(
            read(KeySource::PasswordCommand("printf '%s\\n' 'a $HOME;b'".into())).as_str(),
            "a $HOME;b"
        );
        for (bad, exit) in
            [("false", Exit::Failed), ("", Exit::Usage), ("'", Exit::Usage), ("/no/such", Exit::Failed)]
        {
            let failure = KeySource::PasswordCommand(bad.into()).load().err().unwrap();
            assert_eq!(failure.exit, exit, "{bad:?}");
        }
    }

    #[test]
    fn a_new_key_file_is_private_and_goes_unless_kept() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (made, _) = NewKeyFile::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(NewKeyFile::create(&path).is_err());
        drop(made);
        assert!(!path.exists());
        let (made, _) = NewKeyFile::create(&path).unwrap();
        made.keep();
        assert!(KeySource::KeyFile(path).load().is_ok());
    }
}
