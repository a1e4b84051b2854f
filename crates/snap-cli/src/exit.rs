//! How a run ends: exit codes, what is said, and what to type next. The one place that decides it.

use std::error::Error;

use snap_backend::{BackendError, ErrorKind, Operation};
use snap_crypto::CryptoError;
use snap_engine::EngineError;
use snap_mount::{MountError, PointProblem};
use snap_ops::{ConfigError, SecretError};
use snap_repo::{RepoError, parse_object_name};

use crate::render::text;

/// Exit codes; they are API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Done, but some source entries could not be read.
    Incomplete = 3,
    /// Damage was found, or a finding of `policy --check`.
    Damage = 4,
    /// There is no repository.
    NoRepository = 10,
    /// The key is wrong, or its role may not.
    Key = 12,
    /// By SIGINT.
    Interrupted = 130,
    /// By SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command failed, as it is told.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, and where.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without cause and hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something of the operating system failed.
    pub fn io(message: impl Into<String>, error: &std::io::Error) -> Self {
        let mut out = Self::new(Exit::Failed, message);
        out.causes.push(error.to_string());
        out.hint = io_hint(error.kind()).map(str::to_owned);
        out
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    fn of(error: &dyn Error, verdict: Verdict) -> Self {
        let message = error.to_string();
        let mut causes = Vec::new();
        let mut told = message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors repeat their source in their own text.
            if !told.contains(&text) {
                told.push_str(&text);
                causes.push(text);
            }
            next = cause.source();
        }
        Self { exit: verdict.0, message, causes, hint: verdict.1.map(str::to_owned) }
    }
}

/// Exit code and hint.
type Verdict = (Exit, Option<&'static str>);

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let verdict = judge_engine(&error);
        let mut failure = Self::of(&error, verdict);
        if let EngineError::Newer { examples, .. } = &error {
            let examples: Vec<_> = examples.iter().map(|path| text::printable(path.as_bytes())).collect();
            failure.causes.push(format!("such as {}", examples.join(", ")));
        }
        failure
    }
}

impl From<RepoError> for Failure {
    fn from(error: RepoError) -> Self {
        let verdict = judge_repo(&error);
        Self::of(&error, verdict)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let verdict = judge_backend(&error);
        Self::of(&error, verdict)
    }
}

impl From<CryptoError> for Failure {
    fn from(error: CryptoError) -> Self {
        let verdict = judge_crypto(error);
        Self::of(&error, verdict)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::Unreadable { .. } => "check the path; `snap config init` writes an example",
            ConfigError::Invalid { .. } => "correct it, or name another file: --config or SNAP_CONFIG",
        };
        Self::of(&error, (Exit::Usage, Some(hint)))
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::of(&error, (Exit::Failed, Some("snap.toml says that credentials are there")))
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let verdict = judge_mount(&error);
        Self::of(&error, verdict)
    }
}

fn judge_mount(error: &MountError) -> Verdict {
    let hint = match error {
        MountError::Repo(error) => return judge_repo(error),
        MountError::Point { why, .. } => match why {
            PointProblem::Missing => "make the directory first",
            PointProblem::NotEmpty => "name an empty directory: what is in this one would be hidden",
            PointProblem::Mounted => {
                "name another directory, or take it away: `umount DIR`, or `fusermount3 -u DIR`"
            }
            PointProblem::Stale => {
                "take it away: `umount -l DIR`, or `fusermount3 -u DIR` as an ordinary user"
            }
            _ => "name an empty directory that you may read",
        },
        MountError::NoFuse(_) => {
            "load the module (`modprobe fuse`); in a container: --device /dev/fuse --cap-add SYS_ADMIN; \
             `snap restore` and `snap cat` need none"
        }
        MountError::Refused { .. } => {
            "an ordinary user needs fusermount3 (package fuse3), and user_allow_other in /etc/fuse.conf for --allow-other"
        }
        _ => "take away what is left: `umount -l DIR`",
    };
    (Exit::Failed, Some(hint))
}

fn judge_engine(error: &EngineError) -> Verdict {
    match error {
        EngineError::Repo(error) => judge_repo(error),
        EngineError::Io { source, .. } => (Exit::Failed, io_hint(source.kind())),
        EngineError::NoSource(_) => (Exit::Failed, Some("check the paths; no snapshot was made")),
        EngineError::Pattern(_) => {
            (Exit::Usage, Some("patterns are those of a .gitignore; a leading \\ takes a character as it is"))
        }
        EngineError::Command(_) => {
            (Exit::Failed, Some("run the command by itself to see why; the repository is as it was"))
        }
        EngineError::Stream { .. } => {
            (Exit::Failed, Some("the repository is as it was; mend that, then run it again"))
        }
        EngineError::NoSnapshot(_) => (Exit::Failed, Some("`snap snapshots` lists what there is")),
        EngineError::Ambiguous { .. } => (Exit::Usage, Some("give more digits of the id")),
        EngineError::SeveralGroups { .. } => {
            (Exit::Usage, Some("choose with --dataset or --host, or give the id of a snapshot"))
        }
        EngineError::KeepsNothing(_) => {
            (Exit::Failed, Some("nothing was forgotten; to forget all of a group, name its snapshots"))
        }
        EngineError::Pinned(_) => {
            (Exit::Failed, Some("nothing was forgotten; `snap pin --remove SNAPSHOT` takes the pin away"))
        }
        EngineError::Newer { .. } => (
            Exit::Failed,
            Some(
                "--no-overwrite-newer leaves them, --missing-only leaves all that is there, --overwrite if-changed \
                 overwrites them; --dry-run -v names each",
            ),
        ),
        EngineError::NotSaved { .. } => (
            Exit::Failed,
            Some("--safety-dir DIR saves it as files in DIR, --no-safety-snapshot goes on without"),
        ),
        EngineError::NoPath { .. } => (Exit::Failed, Some("`snap ls SNAPSHOT` lists the paths in it")),
        EngineError::Usage(_) => (Exit::Usage, Some("add --help to the command to see what it takes")),
        EngineError::Interrupted => (Exit::Interrupted, Some(AGAIN)),
        _ => (Exit::Failed, None),
    }
}

/// For copies whose keys were changed on each without the other.
const PARTED: &str = "compare `snap key list --copy NAME` of each; work with --copy NAME on the one that is right until the \
other is made anew: move it away, then `snap init --copy-of`";

/// For what was interrupted.
pub const AGAIN: &str = "run the same command again: it continues with what is stored already";

fn judge_repo(error: &RepoError) -> Verdict {
    match error {
        RepoError::Backend(error) => judge_backend(error),
        RepoError::NoRepository(_) => (
            Exit::NoRepository,
            Some("`snap init` creates one; --repo or SNAP_REPO name another place; is the disk mounted?"),
        ),
        RepoError::AlreadyExists(_) => {
            (Exit::Failed, Some("use it as it is (`snap backup`), or name another place with --repo"))
        }
        RepoError::NoCopy { .. } => (
            Exit::Failed,
            Some(
                "`snap init --copy-of REPO` makes a copy; correct the place in snap.toml if another is meant",
            ),
        ),
        RepoError::CopiesForked { .. } => (Exit::Failed, Some(PARTED)),
        RepoError::WrongKey(_) => (
            Exit::Key,
            Some("a key flag wins over every key variable; with the recovery key: --recovery-key-file FILE"),
        ),
        RepoError::SlotRemoved { .. } => {
            (Exit::Key, Some("an owner can give you a new key: snap key add --role …"))
        }
        RepoError::Role { .. } => {
            (Exit::Key, Some("open the repository with another key: --key-file or --password-file"))
        }
        RepoError::Counterfeit(_) => (
            Exit::Key,
            Some("check --repo; if it is right, do not use this store until you know who changed it"),
        ),
        RepoError::Damaged(_) => (Exit::Damage, Some("`snap check` lists all damage and what it touches")),
        RepoError::Unprunable(_) => (
            Exit::Damage,
            Some("`snap check` lists all damage and what it touches; mend or forget that, then prune"),
        ),
        RepoError::Newer { .. } => (Exit::Failed, Some("upgrade snap on this machine")),
        RepoError::Crypto(error) => judge_crypto(*error),
        RepoError::Overtaken | RepoError::KeysChanged => (Exit::Failed, Some(AGAIN)),
        _ => (Exit::Failed, None),
    }
}

fn judge_crypto(error: CryptoError) -> Verdict {
    match error {
        CryptoError::SelfTest(_) => {
            (Exit::Failed, Some("use another build of snap, or test this machine's memory"))
        }
        CryptoError::Authentication => (Exit::Damage, Some("`snap check` lists all damage")),
        _ => (Exit::Failed, None),
    }
}

fn judge_backend(error: &BackendError) -> Verdict {
    let is_read = matches!(error.operation(), Operation::Get | Operation::GetRange | Operation::Stat);
    let is_object = is_read && error.name().is_some_and(|name| parse_object_name(name).is_some());
    let hint = match error.kind() {
        ErrorKind::NotFound | ErrorKind::OutOfRange if is_object => {
            return (Exit::Damage, Some("`snap check` lists all damage and what it touches"));
        }
        ErrorKind::Config | ErrorKind::InvalidName => {
            return (Exit::Usage, Some("--repo takes a directory or a URI such as s3://bucket/prefix"));
        }
        ErrorKind::NotFound => Some("is the disk still mounted, the bucket still there?"),
        ErrorKind::Permission => Some(match error.operation() {
            Operation::Get | Operation::GetRange | Operation::Stat => {
                "the store does not let these credentials read: S3 wants s3:GetObject, and s3:ListBucket to tell a missing \
                 object from a forbidden one; for files check owner and mode"
            }
            Operation::Put => {
                "the store does not let these credentials write: S3 wants s3:PutObject; for files check owner and mode"
            }
            Operation::List => {
                "the store does not let these credentials list: S3 wants s3:ListBucket; for files check owner and mode"
            }
            Operation::Delete => {
                "the store does not let these credentials delete: S3 wants s3:DeleteObject; for files check owner and mode"
            }
            _ => "the store refuses: check the owner and mode of files, or the store's policy",
        }),
        ErrorKind::Unauthenticated => {
            Some("set the store's credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        }
        ErrorKind::NoSpace => Some("free some space or raise the quota, then run the same command again"),
        ErrorKind::ReadOnly => Some("remount it for writing, or name another place with --repo"),
        ErrorKind::Throttled => Some("the store is busy; try again later"),
        ErrorKind::Timeout | ErrorKind::Network | ErrorKind::Truncated => {
            Some("check the network and the endpoint; running the same command again continues")
        }
        ErrorKind::Interrupted => return (Exit::Interrupted, Some(AGAIN)),
        ErrorKind::Unsupported | ErrorKind::Stopped => Some("name another place with --repo"),
        _ => None,
    };
    (Exit::Failed, hint)
}

fn io_hint(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind as Io;
    match kind {
        Io::PermissionDenied => Some("check owner and mode, or run as a user who may"),
        Io::StorageFull | Io::QuotaExceeded => Some("free some space, then run the same command again"),
        Io::ReadOnlyFilesystem => Some("name another place, or remount it for writing"),
        Io::NotFound => Some("check the path"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use snap_format::Role;
    use snap_repo::{Finding, FindingCode};

    use super::*;

    fn backend(kind: ErrorKind, name: &str) -> RepoError {
        BackendError::new(kind, Operation::Get).with_name(name).into()
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let role = RepoError::Role { verb: "reading", role: Role::Backup, needs: "owner or restore" };
        let removed = RepoError::SlotRemoved { slot: "ab".into(), epoch: 1 };
        let damaged = RepoError::from(Finding::new(FindingCode::Corrupt, "index/ab", "bad"));
        let pack = format!("packs/ab/{}", "ab".repeat(32));
        let cases = [
            (RepoError::NoRepository("x".into()), 10),
            (RepoError::AlreadyExists("x".into()), 1),
            (RepoError::WrongKey("password"), 12),
            (removed, 12),
            (role, 12),
            (RepoError::Counterfeit("x".into()), 12),
            (damaged, 4),
            (RepoError::Unprunable(Box::new(Finding::new(FindingCode::Missing, "index/ab", "gone"))), 4),
            (RepoError::Overtaken, 1),
            (RepoError::KeysChanged, 1),
            (RepoError::Refused("x".into()), 1),
            (backend(ErrorKind::Network, "config"), 1),
            (backend(ErrorKind::Timeout, "config"), 1),
            (backend(ErrorKind::Permission, "config"), 1),
            (backend(ErrorKind::Unauthenticated, "config"), 1),
            (backend(ErrorKind::NotFound, "packs/"), 1),
            (backend(ErrorKind::NotFound, &pack), 4),
            (backend(ErrorKind::OutOfRange, &pack), 4),
            (backend(ErrorKind::Config, ""), 2),
        ];
        for (error, code) in cases {
            let text = error.to_string();
            let failure = Failure::from(EngineError::from(error));
            assert_eq!(failure.exit.code(), code, "{text}");
            assert!(failure.hint.is_some() || text == "x", "{text} has no hint");
        }
    }

    #[test]
    fn engine_errors_have_their_codes() {
        let cases = [
            (EngineError::Usage("x".into()), 2),
            (EngineError::Pattern("x".into()), 2),
            (EngineError::Ambiguous { name: "ab".into(), matches: "x".into() }, 2),
            (EngineError::SeveralGroups { name: "latest".into(), groups: "x".into() }, 2),
            (EngineError::NoSnapshot("x".into()), 1),
            (EngineError::NoPath { path: "/".into(), snapshot: "x".into() }, 1),
            (EngineError::NoSource("x".into()), 1),
            (EngineError::Command("x".into()), 1),
            (EngineError::Refused("x".into()), 1),
            (EngineError::KeepsNothing("x".into()), 1),
            (EngineError::Pinned("x".into()), 1),
            (EngineError::Newer { overwritten: 1, deleted: 0, of: 2, examples: vec!["/x".into()] }, 1),
            (EngineError::NotSaved { source: Box::new(EngineError::Refused("x".into())) }, 1),
            (EngineError::Interrupted, 130),
        ];
        for (error, code) in cases {
            let text = error.to_string();
            assert_eq!(Failure::from(error).exit.code(), code, "{text}");
        }
    }

    #[test]
    fn a_cause_that_is_in_the_message_is_not_repeated() {
        let error = BackendError::new(ErrorKind::Network, Operation::Get).with_source("connection refused");
        let failure = Failure::from(error);
        assert!(failure.message.contains("connection refused"));
        assert!(failure.causes.is_empty());
        let error = EngineError::Io {
            what: "reading",
            path: "/x".into(),
            source: std::io::Error::from(std::io::ErrorKind::PermissionDenied),
        };
        assert_eq!(Failure::from(error).causes, ["permission denied"]);
    }
}
