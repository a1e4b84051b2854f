//! The policies that the guide prints, enforced by a server that denies everything else.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use snap_backend::{Backend, ErrorKind, ObjectName, OpenOptions};
use snap_testkit::{Keeping, S3Server};

use crate::lab::{Lab, Ran, files_below, finish, noise};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/stores.md");

/// The policies of the guide by the line above each.
fn policies() -> HashMap<String, String> {
    let guide = std::fs::read_to_string(GUIDE).unwrap();
    let mut parts = guide.split("```json\n");
    let mut before = parts.next().unwrap();
    let mut out = HashMap::new();
    for part in parts {
        let (policy, after) = part.split_once("```").unwrap();
        let title = before.trim_end().rsplit_once('\n').unwrap().1.split(':').next().unwrap();
        out.insert(title.to_owned(), policy.to_owned());
        before = after;
    }
    out
}

struct Cloud {
    lab: Lab,
    server: S3Server,
    policies: HashMap<String, String>,
}

/// Somebody: a name at the store, and a key file.
struct Who<'a> {
    cloud: &'a Cloud,
    name: String,
    key: &'static str,
    credentials: [(&'static str, String); 2],
}

impl Cloud {
    fn new() -> Self {
        Self { lab: Lab::new(), server: S3Server::start(), policies: policies() }
    }

    fn who(&self, policy: &str, key: &'static str) -> Who<'_> {
        let name = policy.replace(['`', ' ', ',', '-'], "").to_uppercase();
        let credentials = self.server.add_user(&name, &self.policies[policy]);
        Who { cloud: self, name, key, credentials }
    }

    fn packs(&self) -> usize {
        files_below(&self.server.bucket_path().join("prefix/packs")).len()
    }
}

impl Who<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cloud.lab.command(&self.name, args);
        command.env("SNAP_REPO", self.cloud.server.uri("prefix"));
        command.env("SNAP_KEY_FILE", self.cloud.lab.path(self.key));
        command.envs(self.credentials.clone());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).arg("--json").output().unwrap())
    }

    /// It is denied, and the error names what is missing.
    #[track_caller]
    fn denied(&self, args: &[&str], action: &str, object: &str) {
        let ran = self.run(args);
        ran.summary(1);
        let error = ran.lines.iter().find(|line| line["event"] == "error").unwrap();
        let text = error.to_string();
        assert!(error["hint"].as_str().unwrap().contains(action), "{text}");
        assert!(text.contains(object), "{text}");
    }

    fn store(&self) -> std::sync::Arc<dyn Backend> {
        let credentials = self.credentials.clone().map(|(name, value)| (name.to_owned(), value)).into();
        let options = OpenOptions { credentials, retry: None, ..OpenOptions::default() };
        snap_backend::open(&self.cloud.server.uri("prefix"), &options).unwrap()
    }
}

const OWNER: &str = "`owner` who does not delete";
const PRUNER: &str = "`owner` who prunes";
const BACKUP: &str = "`backup`";
const LOCKER: &str = "`owner` who locks";
const RESTORE: &str = "`restore`, and `check --keyless`";

/// A repository that an owner made who may not delete, with a slot for each role, and a source of a few packs.
fn made(megabytes: usize) -> Cloud {
    let cloud = Cloud::new();
    let owner = cloud.who(OWNER, "owner.key");
    owner.run(&["init"]).summary(0);
    for (role, file) in [("backup", "web.key"), ("restore", "drill.key")] {
        owner.run(&["key", "add", "--role", role, "--new-key-file", file]).summary(0);
    }
    let source = cloud.lab.path("source");
    std::fs::create_dir(&source).unwrap();
    for part in 0..megabytes {
        std::fs::write(source.join(format!("part-{part}")), noise(part as u64 + 1, 1 << 20)).unwrap();
    }
    cloud
}

#[test]
fn each_role_does_its_work_with_the_credentials_of_the_guide() {
    let cloud = made(2);
    let (owner, backup) = (cloud.who(OWNER, "owner.key"), cloud.who(BACKUP, "web.key"));
    assert_eq!(backup.run(&["backup", "source"]).summary(0)["files_new"], 2);
    let unchanged = backup.run(&["backup", "source"]);
    assert_eq!(
        (&unchanged.summary(0)["files_unchanged"], &unchanged.summary(0)["added_bytes"]),
        (&2.into(), &0.into())
    );
    let listed = backup.run(&["snapshots"]);
    assert_eq!((listed.code, listed.lines.len()), (0, 3), "{}", listed.stderr);
    owner.run(&["backup", "source"]).summary(0);
    owner.run(&["key", "rotate"]).summary(0);
    owner.run(&["key", "recovery"]).summary(0);
    assert_eq!(backup.run(&["backup", "source"]).summary(0)["added_bytes"], 0);

    let restore = cloud.who(RESTORE, "drill.key");
    let target = cloud.lab.path("out");
    restore.run(&["restore", "latest", "--target", target.to_str().unwrap(), "--verify"]).summary(0);
    let below = target.join(cloud.lab.path("source").strip_prefix("/").unwrap());
    assert!(std::fs::read(below.join("part-1")).unwrap() == noise(2, 1 << 20));
    for who in [&restore, &owner] {
        assert_eq!(who.run(&["check", "--read-data"]).summary(0)["findings"], 0);
    }
    assert_eq!(restore.run(&["check", "--keyless"]).summary(0)["findings"], 0);
}

#[test]
fn an_owner_who_locks_needs_no_more_than_the_guide_says() {
    let server = S3Server::start_keeping(Keeping::Locks(None));
    let cloud = Cloud { lab: Lab::new(), server, policies: policies() };
    let locker = cloud.who(LOCKER, "owner.key");
    let [(_, id), (_, secret)] = &locker.credentials;
    let text = format!(
        "[repository]\nuri = \"{}\"\nlock = \"1d\"\nimmutable = true\n\
         credentials = {{ access-key-id = \"{id}\", secret-access-key = \"{secret}\" }}\n",
        cloud.server.uri("prefix")
    );
    std::fs::write(cloud.lab.path("snap.toml"), text).unwrap();
    std::fs::create_dir(cloud.lab.path("source")).unwrap();
    std::fs::write(cloud.lab.path("source/a"), "a").unwrap();
    let run =
        |args: &[&str]| finish(locker.command(args).env_remove("SNAP_REPO").arg("--json").output().unwrap());
    run(&["init"]).summary(0);
    assert_eq!(run(&["backup", "source"]).summary(0)["locks"]["state"], "ok");
    let ran = run(&["snapshots", "--locks"]);
    assert_eq!(ran.lines[0]["lock"], "compliance");
    let checked = run(&["check", "--immutable", "--require-immutable"]);
    assert_eq!(checked.summary(0)["immutable"], true);
}

#[test]
fn a_backup_key_goes_on_after_an_interruption_without_reading_packs() {
    let cloud = made(48);
    let backup = cloud.who(BACKUP, "web.key");
    let mut child = backup.command(&["backup", "source", "-q"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while cloud.packs() < 1 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be killed");
        std::thread::yield_now();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    let packs = cloud.server.bucket_path().join("prefix/packs");
    let left = files_below(&packs);
    let resumed = backup.run(&["backup", "source"]);
    assert_eq!(resumed.summary(0)["files_new"], 48);
    let notes: Vec<_> = resumed.lines.iter().filter(|line| line["event"] == "note").collect();
    assert!(notes.len() == 1 && notes[0]["message"].as_str().unwrap().contains("may not read packs"));
    // Told once: the next run has nothing to take over.
    let next = backup.run(&["backup", "source"]);
    assert_eq!(next.summary(0)["files_unchanged"], 48);
    assert!(next.lines.iter().all(|line| line["event"] != "note"));
    let owner = cloud.who(OWNER, "owner.key");
    assert_eq!(owner.run(&["check", "--read-data"]).summary(0)["findings"], 0);
    let now = files_below(&packs);
    assert!(left.iter().all(|pack| now.contains(pack)), "what was left is still there");
}

#[test]
fn what_a_policy_does_not_allow_is_named() {
    let cloud = made(1);
    let backup = cloud.who(BACKUP, "web.key");
    backup.run(&["backup", "source"]).summary(0);
    let target = cloud.lab.path("out");
    let restore = ["restore", "latest", "--target", target.to_str().unwrap()];
    // The owner's key does not help where the store says no.
    let thief = Who { key: "owner.key", ..cloud.who(BACKUP, "owner.key") };
    thief.denied(&restore, "s3:GetObject", "packs/");
    thief.denied(&["key", "rotate"], "s3:PutObject", "epochs/");
    let reader = cloud.who(RESTORE, "owner.key");
    reader.denied(&["backup", "source"], "s3:PutObject", "packs/");
    let nobody = r#"{"Version": "2012-10-17", "Statement": []}"#;
    let nobody =
        Who { credentials: cloud.server.add_user("NOBODY", nobody), ..cloud.who(RESTORE, "owner.key") };
    nobody.denied(&["snapshots"], "s3:ListBucket", "config");
}

#[test]
fn only_whoever_prunes_deletes() {
    let cloud = made(1);
    let name = |name: &str| ObjectName::new(name).unwrap();
    let mine = name("probe/of-a-test");
    for policy in [OWNER, BACKUP, RESTORE, LOCKER] {
        let refused = cloud.who(policy, "owner.key").store().delete(&name("config")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Permission, "{policy}: {refused}");
    }
    let pruner = cloud.who(PRUNER, "owner.key");
    pruner.store().put(&mine, b"x".as_slice().into()).unwrap();
    pruner.store().delete(&mine).unwrap();
    assert!(!pruner.store().exists(&mine).unwrap());
    // A backup slot's credentials reach nothing of the keys, and nothing outside of the prefix.
    let backup = cloud.who(BACKUP, "web.key").store();
    for outside in ["config", "epochs/x", "marks/x", "records/x", "other"] {
        let refused = backup.put(&name(outside), b"x".as_slice().into());
        assert!(matches!(refused, Ok(snap_backend::PutOutcome::Existed)) || refused.is_err(), "{outside}");
        let kinds = [ErrorKind::Permission];
        assert!(refused.err().is_none_or(|error| kinds.contains(&error.kind())), "{outside}");
    }
}
