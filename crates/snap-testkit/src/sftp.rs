//! SFTP, served by the machine's `sshd` as the current user.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where distributions put the server; it insists on being called by its full path.
const SSHD: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// An `sshd` with its own host key, one authorized key, and nothing but SFTP.
#[derive(Debug)]
pub struct SftpServer {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// The file of the private key that is let in.
    pub key: PathBuf,
    /// A file of known hosts that holds the server's.
    pub known_hosts: PathBuf,
    directory: TempDir,
    sshd: Child,
}

impl SftpServer {
    /// Starts a server, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it cannot be started; the message names the missing package, if that is why.
    #[must_use]
    pub fn start() -> Self {
        let sshd = SSHD.iter().find(|path| Path::new(path).exists());
        let sshd = sshd.expect("no sshd: install the Debian package openssh-server");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        make_key(&path("host_key"));
        make_key(&path("user_key"));
        fs::copy(path("user_key.pub"), path("authorized_keys")).expect("an authorized key");
        fs::create_dir(path("files")).expect("a directory to serve");
        make_privilege_separation_directory();
        let port = free_port();
        fs::write(path("sshd_config"), config(directory.path(), port)).expect("a configuration");
        let host_key = fs::read_to_string(path("host_key.pub")).expect("a host key");
        fs::write(path("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).expect("known hosts");
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sshd starts");
        let (key, known_hosts) = (path("user_key"), path("known_hosts"));
        let mut server = Self { port, user: current_user(), key, known_hosts, directory, sshd: child };
        server.wait_until_listening();
        server
    }

    /// `sftp://user@127.0.0.1:PORT/…/NAME?key=…&known-hosts-file=…`, for a directory that is not there yet.
    #[must_use]
    pub fn uri(&self, name: &str) -> String {
        let (user, port, path) = (&self.user, self.port, self.path(name));
        let (key, known_hosts) = (self.key.display(), self.known_hosts.display());
        format!("sftp://{user}@127.0.0.1:{port}{}?key={key}&known-hosts-file={known_hosts}", path.display())
    }

    /// The directory that [`uri`](Self::uri) names, on this machine.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("files").join(name)
    }

    /// Kills the server's side of every connection; new ones are let in.
    pub fn break_connections(&self) {
        let pid = self.sshd.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the children of sshd");
        for child in children.split_whitespace() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", child]).status();
        }
    }

    fn wait_until_listening(&mut self) {
        let stderr = self.sshd.stderr.take().expect("piped above");
        let mut said = String::new();
        let mut lines = BufReader::new(stderr);
        let began = Instant::now();
        while !said.contains("Server listening") {
            let ended = lines.read_line(&mut said).expect("sshd speaks") == 0;
            assert!(!ended && began.elapsed() < STARTS_WITHIN, "sshd did not start: {said}");
        }
        // Nobody reads its log from here on, and a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    }
}

impl Drop for SftpServer {
    fn drop(&mut self) {
        // Its sessions end with their clients.
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn make_key(file: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(file)
        .status()
        .expect("no ssh-keygen: install the Debian package openssh-client");
    assert!(status.success(), "ssh-keygen failed");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("a private key of one's own");
}

/// Run by root, sshd wants a directory that otherwise the service manager makes.
fn make_privilege_separation_directory() {
    let _ = fs::create_dir_all("/run/sshd");
}

/// Nobody else takes it in the moment until sshd does, as long as the system hands out others first.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("a bound address").port()
}

fn config(directory: &Path, port: u16) -> String {
    let dir = directory.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host_key\nPidFile none\n\
         AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\nMaxSessions 100\n\
         Subsystem sftp internal-sftp\nForceCommand internal-sftp\n"
    )
}

fn current_user() -> String {
    let id = Command::new("id").arg("-un").output().expect("a user name");
    String::from_utf8(id.stdout).expect("a user name in UTF-8").trim().to_owned()
}
