//! Where a server is and who asks: a URI as libpq takes it, the variables and the password file that libpq reads.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::wire::WireError;
use crate::DatabaseError;
use crate::uri::Uri;

/// Directories in which servers put their socket, as they are packaged.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The directory of its socket.
    Socket(PathBuf),
    /// A name or an address.
    Name(String),
}

/// libpq's `sslmode`, but for `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl TlsMode {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            // Without TLS first, then with it: here the better of both is tried first.
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How to log in to a server. Shown without the password.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens.
    pub host: Host,
    /// Its port, which is part of a socket's name, too.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The database, if one is named.
    pub database: Option<String>,
    /// How strict TLS is; not for sockets.
    pub tls: TlsMode,
    /// Certificates to believe instead of the system's.
    pub root_certificates: Option<PathBuf>,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Socket(directory) => {
                write!(f, "the server at {}/.s.PGSQL.{}", directory.display(), self.port)
            }
            Host::Name(name) => write!(f, "the server at {name}:{}", self.port),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self}, {:?})", self.database)
    }
}

impl Settings {
    /// Reads `postgres://user:password@host:port/database?…`. What it does not say, libpq's variables say, which `variable` looks
    /// up.
    pub fn parse(uri: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, DatabaseError> {
        let uri = Uri::parse(uri)?;
        let refuse = |why: String| DatabaseError::Uri(why);
        let mut sslmode = variable("PGSSLMODE");
        let mut root_certificates = variable("PGSSLROOTCERT");
        let (mut host, mut port) = (uri.host.clone(), uri.port.clone());
        let (mut user, mut password) = (uri.user.clone(), uri.password.clone());
        let mut database = Some(uri.path.clone()).filter(|path| !path.is_empty());
        for (name, value) in &uri.query {
            let value = Some(value.clone());
            match name.as_str() {
                "host" => host = value,
                "port" => port = value,
                "user" => user = value,
                "password" => password = value,
                "dbname" => database = value,
                "sslmode" => sslmode = value,
                "sslrootcert" => root_certificates = value,
                other => {
                    return Err(refuse(format!(
                        "?{other}= is not known for PostgreSQL: there are host, port, user, password, dbname, sslmode and sslrootcert"
                    )));
                }
            }
        }
        let host = host.filter(|host| !host.is_empty()).or_else(|| variable("PGHOST"));
        let host = match host {
            Some(path) if path.starts_with('/') => Host::Socket(path.into()),
            Some(name) if name.contains(',') => return Err(refuse("several hosts: name one".into())),
            Some(name) => Host::Name(name),
            None => Host::Socket(socket_directory()),
        };
        let port = match port.or_else(|| variable("PGPORT")) {
            Some(port) => port.parse().map_err(|_| refuse(format!("{port} is no port")))?,
            None => DEFAULT_PORT,
        };
        let user =
            user.or_else(|| variable("PGUSER")).or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        let user = user.ok_or_else(|| {
            refuse("it does not say as whom to log in: postgres://USER@…, or PGUSER".into())
        })?;
        let tls = match &sslmode {
            Some(mode) => TlsMode::of(mode).ok_or_else(|| {
                refuse(format!(
                    "sslmode={mode}: there are disable, prefer, require, verify-ca and verify-full"
                ))
            })?,
            None => TlsMode::Prefer,
        };
        let home_file = || Some(Path::new(&variable("HOME")?).join(".pgpass"));
        Ok(Self {
            host,
            port,
            user,
            database: database.or_else(|| variable("PGDATABASE")),
            tls,
            root_certificates: root_certificates.map(PathBuf::from),
            password: password.or_else(|| variable("PGPASSWORD")),
            password_file: variable("PGPASSFILE").map(PathBuf::from).or_else(home_file),
        })
    }

    /// The password: from the URI or `PGPASSWORD`, else from the password file.
    pub(super) fn password_for(&self, database: &str) -> Result<String, WireError> {
        if let Some(password) = self.password.clone().or_else(|| self.password_from_file(database)) {
            return Ok(password);
        }
        Err(WireError::Login(format!(
            "{self} asks {} for a password, and none is given: PGPASSWORD, or a line in ~/.pgpass",
            self.user
        )))
    }

    /// The first line `host:port:database:user:password` that fits.
    fn password_from_file(&self, database: &str) -> Option<String> {
        let text = fs::read_to_string(self.password_file.as_ref()?).ok()?;
        let port = self.port.to_string();
        let host = match &self.host {
            Host::Name(name) => name.as_str(),
            Host::Socket(directory)
                if SOCKET_DIRECTORIES.iter().any(|known| directory == Path::new(known)) =>
            {
                "localhost"
            }
            Host::Socket(directory) => directory.to_str()?,
        };
        let wanted = [host, &port, database, &self.user];
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let fields = fields(line);
            let fits = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
            let fits = fields.len() == 5 && fields.iter().zip(&wanted).all(fits);
            fits.then(|| fields[4].clone())
        })
    }

    /// The environment that makes the server's own programs log in the same way.
    pub(super) fn environment(&self, database: &str) -> Result<Vec<(&'static str, String)>, WireError> {
        let host = match &self.host {
            Host::Name(name) => name.clone(),
            Host::Socket(directory) => directory.to_string_lossy().into_owned(),
        };
        let mut out = vec![
            ("PGHOST", host),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", database.to_owned()),
            ("PGSSLMODE", self.tls.word().to_owned()),
            ("PGAPPNAME", "snap".to_owned()),
        ];
        if let Some(password) = self.password.clone().or_else(|| self.password_from_file(database)) {
            out.push(("PGPASSWORD", password));
        }
        if let Some(file) = &self.root_certificates {
            out.push(("PGSSLROOTCERT", file.to_string_lossy().into_owned()));
        }
        Ok(out)
    }
}

fn socket_directory() -> PathBuf {
    let known = SOCKET_DIRECTORIES.iter().map(PathBuf::from);
    let mut found = known.filter(|directory| directory.is_dir());
    found.next().unwrap_or_else(|| SOCKET_DIRECTORIES[0].into())
}

/// Fields between colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last = out.last_mut().expect("there is always one");
        match character {
            ':' => out.push(String::new()),
            '\\' => last.extend(characters.next()),
            character => last.push(character),
        }
    }
    out
}

/// Whether a URI is one of PostgreSQL's.
pub fn is_postgres(uri: &str) -> bool {
    uri.starts_with("postgres://") || uri.starts_with("postgresql://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::percent_decode;

    fn parse(uri: &str, variables: &[(&str, &str)]) -> Result<Settings, DatabaseError> {
        let of = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::parse(uri, &of)
    }

    #[test]
    fn a_uri_says_everything_or_leaves_it_to_the_environment() {
        let full = parse("postgres://me:a%40b@db.example:6000/sh%2Fop?sslmode=verify-full", &[]).unwrap();
        assert_eq!(full.host, Host::Name("db.example".into()));
        assert_eq!((full.port, full.user.as_str(), full.database.as_deref()), (6000, "me", Some("sh/op")));
        assert_eq!((full.tls, full.password_for("x").unwrap()), (TlsMode::VerifyFull, "a@b".to_owned()));
        let bare = parse(
            "postgresql://",
            &[("PGHOST", "/sockets"), ("PGPORT", "1"), ("PGUSER", "you"), ("PGDATABASE", "d")],
        );
        let bare = bare.unwrap();
        assert_eq!((&bare.host, bare.port), (&Host::Socket("/sockets".into()), 1));
        assert_eq!((bare.user.as_str(), bare.database.as_deref()), ("you", Some("d")));
        assert!(bare.password_for("d").is_err());
        for socket in ["postgres://me@%2Frun%2Fpg:7/d", "postgres://me@/d?host=/run/pg&port=7"] {
            let settings = parse(socket, &[("PGHOST", "elsewhere")]).unwrap();
            assert_eq!((settings.host, settings.port), (Host::Socket("/run/pg".into()), 7), "{socket}");
        }
        let v6 = parse("postgres://me@[::1]:5433/d", &[]).unwrap();
        assert_eq!((v6.host, v6.port), (Host::Name("::1".into()), 5433));
        for bad in [
            "postgres://me@h:port/d",
            "postgres://me@h/d?nonsense=1",
            "postgres://h/d",
            "postgres://me@a,b/d",
        ] {
            assert!(parse(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_password_file_is_searched_as_libpq_does() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        fs::write(&file, "# no:no:no:no:no\nh:1:d:other:wrong\nh:*:d:me:se\\:cr\\\\et\n*:*:*:*:last\n")
            .unwrap();
        let file = file.to_str().unwrap();
        let settings = parse("postgres://me@h:1", &[("PGPASSFILE", file)]).unwrap();
        assert_eq!(settings.password_for("d").unwrap(), "se:cr\\et");
        assert_eq!(settings.password_for("e").unwrap(), "last");
    }

    #[test]
    fn a_password_is_never_shown() {
        let settings = parse("postgres://me:hunter2@h/d", &[]).unwrap();
        assert!(!format!("{settings:?} {settings}").contains("hunter2"));
        assert_eq!(percent_decode("a%41%zz%4"), "aA%zz%4");
    }
}
