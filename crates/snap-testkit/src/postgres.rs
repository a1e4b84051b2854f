//! A PostgreSQL server, from the machine's own packages, in a temporary directory and on a socket there.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian puts each version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Names another directory of programs, to test against another version.
const OTHER: &str = "SNAP_TEST_POSTGRES";
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Starts the server, and ends it when its own standard input does: with the process that started it, however that ends.
const KEEPER: &str = "\
\"$@\" < /dev/null &
server=$!
read -r _
kill -QUIT $server
wait $server
rm -rf \"$DIRECTORY\"";

/// What is faster and not durable.
const SETTINGS: &str = "\
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 32MB
max_connections = 60
max_locks_per_transaction = 256
password_encryption = scram-sha-256
timezone = 'UTC'
";

/// A server with a superuser `postgres`, whom it lets in without a password over its socket.
#[derive(Debug)]
pub struct PostgresServer {
    /// Directory of the socket.
    pub socket: PathBuf,
    /// Port, on 127.0.0.1, too; part of the socket's name.
    pub port: u16,
    bin: PathBuf,
    keeper: Child,
}

impl PostgresServer {
    /// The one of this test process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it cannot be started; the message names the missing package, if that is why.
    #[must_use]
    pub fn start() -> Self {
        let bin = programs();
        // Kept by the keeper, which outlives this process by a moment.
        let directory = TempDir::with_prefix("snap-postgres-").expect("a temporary directory").keep();
        let owner = unprivileged();
        if let Some((uid, gid)) = owner {
            chown(&directory, Some(uid), Some(gid)).expect("a directory of the server's user");
        }
        let data = directory.join("data");
        let mut init = as_user(owner, &bin.join("initdb"));
        init.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]);
        ok(init.current_dir(&directory).output().expect("initdb runs"));
        let port = free_port();
        let settings = format!(
            "{SETTINGS}port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n",
            directory.display()
        );
        let mut file =
            fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("a configuration");
        file.write_all(settings.as_bytes()).expect("a configuration that can be written");
        let server = as_user(owner, &bin.join("postgres"));
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(&data)
            .env("DIRECTORY", &directory)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).expect("a log"))
            .spawn()
            .expect("sh starts");
        let server = Self { socket: directory, port, bin, keeper };
        let began = Instant::now();
        while !server.command("pg_isready", "postgres").output().expect("pg_isready runs").status.success() {
            let log = fs::read_to_string(server.socket.join("log")).unwrap_or_default();
            assert!(began.elapsed() < STARTS_WITHIN, "the server did not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// `postgres://USER@…/DATABASE` by the socket; the database's name is encoded.
    #[must_use]
    pub fn uri(&self, user: &str, database: &str) -> String {
        let encoded: String = database.bytes().map(encoded).collect();
        format!("postgres://{user}@/{encoded}?host={}&port={}", self.socket.display(), self.port)
    }

    /// A program of the server's, which will log in as `postgres` to a database.
    #[must_use]
    pub fn command(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("PGHOST", &self.socket).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database).stdin(Stdio::null());
        command
    }

    /// Runs a script and returns what it prints, unaligned.
    ///
    /// # Panics
    ///
    /// If a statement fails.
    pub fn run(&self, database: &str, script: &str) -> String {
        let mut command = self.command("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql runs");
        let mut stdin = child.stdin.take().expect("piped above");
        let script = script.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = ok(child.wait_with_output().expect("psql ends"));
        let _ = writer.join();
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Makes an empty database.
    pub fn create(&self, name: &str) {
        self.run("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")));
    }

    /// A database as `pg_dump` prints it, without what differs from run to run.
    #[must_use]
    pub fn dump(&self, database: &str) -> String {
        let output = ok(self.command("pg_dump", database).output().expect("pg_dump runs"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_random = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
        text.lines().filter(|line| !is_random(line)).map(|line| line.to_owned() + "\n").collect()
    }

    /// Ends all sessions of a role.
    pub fn disconnect(&self, role: &str) {
        self.run(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"),
        );
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn ok(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

/// The directory of the newest version.
fn programs() -> PathBuf {
    if let Some(other) = std::env::var_os(OTHER) {
        return other.into();
    }
    let versions = fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let numbered =
        versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let newest = numbered.filter(|(_, path)| path.join("bin/postgres").exists()).max();
    newest.map(|(_, path)| path.join("bin")).expect("no postgres: install the Debian package postgresql")
}

/// Whom to run it as: it refuses root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &str| {
        let output = Command::new("id").args([flag, user]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    let own = Command::new("id").arg("-u").output().expect("id runs");
    if String::from_utf8_lossy(&own.stdout).trim() != "0" {
        return None;
    }
    let of = |user: &str| Some((id("-u", user)?, id("-g", user)?));
    Some(of("postgres").or_else(|| of("nobody")).expect("a user that is not root"))
}

fn as_user(owner: Option<(u32, u32)>, program: &Path) -> Command {
    let Some((uid, gid)) = owner else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()])
        .arg(program);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
