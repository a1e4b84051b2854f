//! What cannot be deleted, and until when: against a double of a bucket with versions and locks, by real requests.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use snap_backend::{
    Backend, LockMode, ObjectLock, ObjectName, OpenOptions, Retention, Timestamp, open_object_lock,
};
use snap_testkit::{Keeping, S3Server};

use crate::config::{run, write};
use crate::lab::{Lab, Ran, noise};

const DAY: i64 = 86_400;

/// Whoever writes and reads, and deletes no version.
const WRITER: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning",
        "s3:GetBucketObjectLockConfiguration"], "Resource": "arn:aws:s3:::bucket"},
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:GetObjectRetention", "s3:PutObjectRetention"],
        "Resource": "arn:aws:s3:::bucket/*"}]}"#;

/// The same, and deletes.
const DELETER: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning",
        "s3:GetBucketObjectLockConfiguration"], "Resource": "arn:aws:s3:::bucket"},
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:GetObjectRetention", "s3:PutObjectRetention",
        "s3:DeleteObject", "s3:DeleteObjectVersion"], "Resource": "arn:aws:s3:::bucket/*"}]}"#;

struct Cloud {
    lab: Lab,
    server: S3Server,
}

impl Cloud {
    /// A bucket, and a configuration that calls it immutable; `more` is said of the copy.
    fn new(keeping: Keeping, more: &str) -> Self {
        let out = Self { lab: Lab::new(), server: S3Server::start_keeping(keeping) };
        out.configure(&out.server.credentials(), more);
        out
    }

    fn configure(&self, credentials: &[(&'static str, String); 2], more: &str) {
        let text = format!(
            "[repository]\nuri = \"{}\"\nkey-file = \"owner.key\"\n\
             credentials = {{ access-key-id = \"{}\", secret-access-key = \"{}\" }}\n{more}\n",
            self.server.uri("snap"),
            credentials[0].1,
            credentials[1].1
        );
        write(&self.lab, "snap.toml", &text);
    }

    /// The same with a repository and a snapshot in it.
    fn filled(keeping: Keeping, more: &str) -> Self {
        let out = Self::new(keeping, more);
        out.run(&["init"]).summary(0);
        write(&out.lab, "source/a", "a");
        std::fs::write(out.lab.path("source/noise"), noise(1, 300_000)).unwrap();
        out.run(&["backup", "source"]).summary(0);
        out
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(&self.lab, args)
    }

    /// Asks and changes behind the program's back.
    fn lock(&self) -> ObjectLock {
        let credentials =
            self.server.credentials().map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let options = OpenOptions { credentials, retry: None, ..OpenOptions::default() };
        open_object_lock(&self.server.uri("snap"), &options).unwrap().unwrap()
    }

    fn store(&self) -> Arc<dyn Backend> {
        let credentials =
            self.server.credentials().map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let options = OpenOptions { credentials, retry: None, ..OpenOptions::default() };
        snap_backend::open(&self.server.uri("snap"), &options).unwrap()
    }

    /// The pack of data, and the pack of trees.
    fn packs(&self) -> [ObjectName; 2] {
        let mut found = Vec::new();
        self.store()
            .list("packs/", &mut |meta| {
                found.push((meta.size_bytes, meta.name));
                Ok(())
            })
            .unwrap();
        found.sort();
        let [(_, trees), (_, data)] = found.try_into().unwrap();
        [data, trees]
    }

    /// Every version of every object, with its lock.
    fn versions(&self) -> BTreeMap<(String, String), Option<i64>> {
        let (lock, mut found) = (self.lock(), Vec::new());
        lock.list_versions("", &mut |version| {
            found.push(version);
            Ok(())
        })
        .unwrap();
        let real = found.into_iter().filter(|it| !it.is_delete_marker);
        real.map(|it| {
            let retention = lock.retention_of(&it.name, Some(&it.version)).unwrap();
            ((it.name.to_string(), it.version), retention.map(|it| it.until.unix_seconds))
        })
        .collect()
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn seconds(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    text.parse::<jiff::Timestamp>().unwrap().as_second()
}

fn of<'a>(ran: &'a Ran, event: &str) -> Vec<&'a Value> {
    ran.lines.iter().filter(|line| line["event"] == event).collect()
}

fn outcomes(ran: &Ran) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    of(ran, "probe").into_iter().map(|it| (text(&it["action"]), text(&it["outcome"]))).collect()
}

const LOCKED: Keeping = Keeping::Locks(Some((Duration::from_secs(30 * DAY as u64), true)));
const GOVERNED: Keeping = Keeping::Locks(Some((Duration::from_secs(30 * DAY as u64), false)));

#[test]
fn a_directory_can_be_destroyed_by_whoever_writes_in_it() {
    let lab = Lab::new();
    write(&lab, "snap.toml", "[repository]\npath = \"store\"\nkey-file = \"owner.key\"\n");
    run(&lab, &["init"]).summary(0);
    let ran = run(&lab, &["check", "--immutable"]);
    let summary = ran.summary(0);
    assert_eq!((&summary["can_destroy"], &summary["findings"]), (&true.into(), &1.into()));
    assert_eq!(of(&ran, "finding")[0]["code"], "destroyable");
    assert!(
        of(&ran, "finding")[0]["message"].as_str().unwrap().contains("whoever can write in the directory")
    );
    run(&lab, &["check", "--immutable", "--require-immutable"]).summary(4);
    assert!(crate::lab::files_below(&lab.path("store/packs")).is_empty(), "the probe is gone");
    write(&lab, "snap.toml", "[repository]\npath = \"store\"\nkey-file = \"owner.key\"\nimmutable = true\n");
    let ran = run(&lab, &["check", "--immutable"]);
    assert_eq!(ran.summary(4)["called_immutable"], true);
    assert!(ran.stderr.is_empty() || ran.stderr.contains("called immutable"), "{}", ran.stderr);
    let text = lab.command("host", &["check", "--immutable"]).env_remove("SNAP_REPO").output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("delete an object") && text.contains("data would be lost"), "{text}");
}

#[test]
fn what_the_holder_of_credentials_can_destroy_is_tried_and_nothing_else_is_touched() {
    // Store, credentials, exit, can destroy, actions that would lose data and are allowed.
    type Case = (Keeping, Option<&'static str>, i32, bool, &'static [&'static str]);
    let cases: &[Case] = &[
        (Keeping::Nothing, None, 4, true, &["overwrite", "delete"]),
        (Keeping::Nothing, Some(WRITER), 4, true, &["overwrite"]),
        (Keeping::Versions, None, 4, true, &["delete-version"]),
        (Keeping::Versions, Some(WRITER), 0, false, &[]),
        (Keeping::Locks(None), None, 4, true, &["delete-version", "bypass-shorten", "bypass-delete"]),
        (Keeping::Locks(None), Some(DELETER), 4, true, &["delete-version"]),
        (Keeping::Locks(None), Some(WRITER), 0, false, &[]),
        (GOVERNED, None, 4, true, &["bypass-shorten", "bypass-delete"]),
        (GOVERNED, Some(DELETER), 0, false, &[]),
        (LOCKED, None, 0, false, &["bypass-shorten", "bypass-delete"]),
        (LOCKED, Some(DELETER), 0, false, &[]),
    ];
    for (keeping, policy, exit, can_destroy, lost) in cases {
        let case = format!("{keeping:?} {policy:?}");
        let cloud = Cloud::filled(*keeping, "immutable = true");
        let before = cloud.versions();
        if let Some(policy) = policy {
            cloud.configure(&cloud.server.add_user("HOLDER", policy), "immutable = true");
        }
        let ran = cloud.run(&["check", "--immutable"]);
        assert_eq!(ran.code, *exit, "{case}: {:?} {}", ran.lines, ran.stderr);
        let summary = ran.summary(*exit);
        assert_eq!(summary["can_destroy"], *can_destroy, "{case}");
        assert_eq!(summary["asked"], "needed");
        let probes = of(&ran, "probe");
        let losses = probes.iter().filter(|it| it["destroys"] == true && it["outcome"] == "allowed");
        let losses: Vec<_> = losses.map(|it| it["action"].as_str().unwrap()).collect();
        assert_eq!(losses, *lost, "{case}");
        assert!(outcomes(&ran).get("compliance-delete").is_none_or(|it| it == "denied"), "{case}");
        // Everything that was there is there, locked as it was.
        let after = cloud.versions();
        for (version, until) in &before {
            assert_eq!(after.get(version), Some(until), "{case}");
        }
        let probes = after.keys().filter(|version| !before.contains_key(*version));
        assert!(probes.clone().all(|(name, _)| name.starts_with("packs/immutable-probe-")), "{case}");
        if !matches!(keeping, Keeping::Locks(_)) && policy.is_none() {
            assert_eq!(probes.count(), 0, "{case}: the probe is gone");
        }
        cloud.configure(&cloud.server.credentials(), "");
        assert_eq!(cloud.run(&["check", "--read-data"]).summary(0)["findings"], 0, "{case}");
        // Without the claim the same is told, and is no failure.
        if *exit == 4 {
            assert_eq!(cloud.run(&["check", "--immutable"]).summary(0)["can_destroy"], true, "{case}");
        }
    }
}

#[test]
fn a_bucket_that_locks_everything_is_immutable_for_those_who_cannot_bypass_it() {
    let cloud = Cloud::filled(LOCKED, "immutable = true");
    let ran = cloud.run(&["check", "--immutable", "--require-immutable"]);
    let summary = ran.summary(0);
    assert_eq!(summary["immutable"], true);
    assert!((seconds(&summary["locked_until"]) - now() - 30 * DAY).abs() < 120);
    assert!(of(&ran, "locks").iter().all(|area| area["locked"] == area["objects"]));
    // No key at hand: all objects are asked.
    let mut command = cloud.lab.command("host", &["check", "--immutable", "--json"]);
    command.env_remove("SNAP_REPO").env_remove("SNAP_KEY_FILE");
    let text = std::fs::read_to_string(cloud.lab.path("snap.toml")).unwrap();
    write(&cloud.lab, "snap.toml", &text.replace("key-file = \"owner.key\"\n", ""));
    let ran = crate::lab::finish(command.output().unwrap());
    assert_eq!((&ran.summary(0)["asked"], &ran.summary(0)["immutable"]), (&"all".into(), &true.into()));
}

fn locks_of(ran: &Ran) -> Vec<Option<i64>> {
    of(ran, "snapshot")
        .iter()
        .map(|it| it["locked_until"].as_str().map(|_| seconds(&it["locked_until"])))
        .collect()
}

#[test]
fn runs_of_the_owner_lock_what_kept_snapshots_need_and_nothing_else() {
    let cloud = Cloud::new(Keeping::Locks(None), "immutable = true\nlock = \"30d\"");
    cloud.run(&["init"]).summary(0);
    std::fs::create_dir(cloud.lab.path("source")).unwrap();
    let file = cloud.lab.path("source/noise");
    std::fs::write(&file, noise(1, 300_000)).unwrap();
    let first = cloud.run(&["backup", "source"]);
    let locks = &first.summary(0)["locks"];
    assert_eq!(
        (&locks["state"], &locks["failed"], &locks["sufficient"]),
        (&"ok".into(), &0.into(), &0.into())
    );
    assert_eq!(locks["extended"], locks["objects"]);
    // Config twice, the epoch, two packs, an index object, the snapshot.
    assert_eq!(locks["objects"], 7);
    let all = cloud.versions();
    assert_eq!(all.len(), 7);
    assert!(
        all.values().all(|until| until.is_some_and(|it| it >= now() + 37 * DAY && it <= now() + 38 * DAY))
    );

    // What is locked long enough costs a question, and no change.
    std::fs::write(&file, noise(2, 300_000)).unwrap();
    let second = cloud.run(&["backup", "source"]);
    let locks = &second.summary(0)["locks"];
    assert_eq!(
        (&locks["sufficient"], &locks["extended"], &locks["objects"]),
        (&7.into(), &4.into(), &11.into())
    );
    let listed = cloud.run(&["snapshots", "--locks"]);
    let until = locks_of(&listed);
    assert!(until.len() == 2 && until.iter().all(|it| it.is_some_and(|it| it >= now() + 37 * DAY)));
    assert!(of(&listed, "snapshot").iter().all(|it| it["lock"] == "compliance"));
    // Not asked for, not told.
    assert!(of(&cloud.run(&["snapshots"]), "snapshot")[0].get("locked_until").is_none());

    // What nobody needs any more is not locked anew.
    let forgotten = cloud.run(&["forget", first.summary(0)["snapshot"].as_str().unwrap()]);
    assert_eq!(forgotten.summary(0)["locks"]["objects"], 3 + 2 + 1 + 1);
    let governed = cloud.run(&["policy", "--extend-locks"]);
    assert_eq!(governed.summary(0)["locks"][0]["sufficient"], 7);
}

#[test]
fn a_snapshot_is_locked_as_long_as_the_weakest_object_that_it_needs() {
    let cloud =
        Cloud::new(Keeping::Locks(None), "immutable = true\nlock = \"30d\"\nlock-mode = \"governance\"");
    cloud.run(&["init"]).summary(0);
    std::fs::create_dir(cloud.lab.path("source")).unwrap();
    std::fs::write(cloud.lab.path("source/one"), noise(1, 300_000)).unwrap();
    cloud.run(&["backup", "source"]).summary(0);
    let first: Vec<String> = cloud.versions().into_keys().map(|(name, _)| name).collect();
    std::fs::write(cloud.lab.path("source/two"), noise(2, 300_000)).unwrap();
    cloud.run(&["backup", "source"]).summary(0);
    let lock = cloud.lock();
    let goal = |secs: i64| Retention {
        mode: LockMode::Governance,
        until: Timestamp { unix_seconds: now() + secs, nanos: 0 },
    };
    let new: Vec<String> =
        cloud.versions().into_keys().map(|(name, _)| name).filter(|name| !first.contains(name)).collect();
    let shown = || locks_of(&cloud.run(&["snapshots", "--locks"]));
    let near = |until: Option<i64>, days: i64| until.is_some_and(|it| (it - now() - days * DAY).abs() < DAY);
    assert!(shown().iter().all(|it| near(*it, 37)));
    // Each object that the second run wrote: its own snapshot is as weak, the first one is not.
    assert_eq!(new.len(), 4, "{new:?}");
    for name in &new {
        let object = ObjectName::new(name).unwrap();
        lock.set_retention(&object, None, goal(10 * DAY), true).unwrap();
        let until = shown();
        assert!(near(until[0], 37) && near(until[1], 10), "{name}: {until:?}");
        lock.set_retention(&object, None, goal(37 * DAY), true).unwrap();
    }
    // What the first one wrote both need: but for its snapshot, its tree and the index object of both packs.
    let mut both = 0;
    for name in &first {
        let object = ObjectName::new(name).unwrap();
        lock.set_retention(&object, None, goal(5 * DAY), true).unwrap();
        let until = shown();
        assert!(near(until[0], 5), "{name}: {until:?}");
        both += usize::from(near(until[1], 5));
        lock.set_retention(&object, None, goal(37 * DAY), true).unwrap();
    }
    assert_eq!(both, 5, "config twice, the epoch, the pack of data, its index object");
    let policy = cloud.run(&["policy"]);
    assert_eq!(of(&policy, "policy")[0]["immutable"], "governed");
}

#[test]
fn a_copy_is_called_immutable_only_when_the_store_says_so_of_all() {
    let cloud = Cloud::filled(Keeping::Locks(None), "immutable = true");
    let open = cloud.run(&["policy"]);
    let finding = of(&open, "finding").into_iter().find(|it| it["code"] == "not-immutable").unwrap();
    assert!(finding["message"].as_str().unwrap().contains("is not locked"), "{finding}");
    assert_eq!(of(&open, "policy")[0]["immutable"], "no");
    cloud.run(&["policy", "--extend-locks"]).summary(2);

    cloud.configure(&cloud.server.credentials(), "immutable = true\nlock = \"30d\"");
    let locked = cloud.run(&["policy", "--extend-locks"]);
    let policy = of(&locked, "policy")[0];
    assert_eq!(policy["immutable"], "proven");
    assert!(seconds(&policy["immutable_until"]) > now() + 29 * DAY);
    assert!(of(&locked, "finding").iter().all(|it| it["code"] != "not-immutable"));

    // Somebody writes over a pack: what it was is locked, what it is now is not.
    let lock = cloud.lock();
    let [pack, tree_pack] = cloud.packs();
    lock.put(&pack, b"garbage".as_slice().into(), None).unwrap();
    let told = cloud.run(&["policy"]);
    let finding = of(&told, "finding").into_iter().find(|it| it["code"] == "not-immutable").unwrap();
    assert!(finding["message"].as_str().unwrap().contains(pack.as_str()), "{finding}");
    // The owner's next run does not let the old one lapse for it, and says what it saw.
    let extended = cloud.run(&["policy", "--extend-locks"]);
    assert_eq!(extended.summary(0)["locks"][0]["overwritten"], 1);
    let versions: Vec<_> =
        cloud.versions().into_iter().filter(|((name, _), _)| *name == pack.as_str()).collect();
    assert!(versions.len() == 2 && versions.iter().all(|(_, until)| until.is_some()), "{versions:?}");

    // Somebody hides an object: its lock counts no more, until it can be read again.
    let snapshot = of(&cloud.run(&["snapshots"]), "snapshot")[0]["id"].as_str().unwrap().to_owned();
    lock.delete(&pack, None, false).unwrap();
    let told = cloud.run(&["snapshots", "--locks"]);
    assert_eq!(locks_of(&told), [None], "{snapshot}");
    let extended = cloud.run(&["policy", "--extend-locks"]);
    assert_eq!(extended.summary(1)["locks"][0]["hidden"], 1);

    // Somebody writes over the trees, so that nobody knows what is needed: nothing lapses for that.
    lock.put(&tree_pack, b"garbage".as_slice().into(), None).unwrap();
    lock.put(&pack, b"more garbage".as_slice().into(), None).unwrap();
    let told = cloud.run(&["policy"]);
    let finding = of(&told, "finding").into_iter().find(|it| it["code"] == "not-immutable").unwrap();
    assert!(finding["message"].as_str().unwrap().contains("nobody knows"), "{finding}");
    let extended = cloud.run(&["policy", "--extend-locks"]);
    let locks = &extended.summary(1)["locks"][0];
    assert_eq!((&locks["guessed"], &locks["state"]), (&true.into(), &"incomplete".into()));
    assert!(cloud.versions().values().all(Option::is_some), "all is locked: {:?}", cloud.versions());
}

#[test]
fn whoever_hides_snapshots_does_not_make_their_locks_lapse() {
    for overwrites in [false, true] {
        let cloud = Cloud::filled(Keeping::Locks(None), "");
        std::fs::write(cloud.lab.path("source/noise"), noise(2, 300_000)).unwrap();
        cloud.run(&["backup", "source"]).summary(0);
        let ids: Vec<String> = of(&cloud.run(&["snapshots"]), "snapshot")
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect();
        let lock = cloud.lock();
        let hide = |id: &str| {
            let name = ObjectName::new(format!("snapshots/{id}")).unwrap();
            match overwrites {
                true => drop(lock.put(&name, b"garbage".as_slice().into(), None).unwrap()),
                false => lock.delete(&name, None, false).unwrap(),
            }
        };
        // One that its owner forgot is not lost; the program leaves a marker too.
        cloud.run(&["forget", &ids[0]]).summary(0);
        cloud.configure(&cloud.server.credentials(), "lock = \"30d\"");
        let locks = cloud.run(&["policy", "--extend-locks"]).summary(0)["locks"][0].clone();
        assert_eq!((&locks["lost"], &locks["state"]), (&0.into(), &"ok".into()));
        let locked = |prefix: &str| -> (usize, usize) {
            let versions = cloud.versions();
            let meant = versions.iter().filter(|((name, _), _)| name.starts_with(prefix));
            (meant.clone().filter(|(_, until)| until.is_some()).count(), meant.count())
        };
        let packs = locked("packs/");
        assert!(packs.0 < packs.1, "what only the forgotten one needs is open: {packs:?}");
        hide(&ids[1]);
        // This machine remembers a snapshot that it has read; what the store has counts.
        let ran = cloud.run(&["policy", "--extend-locks"]);
        let locks = &ran.summary(1)["locks"][0];
        assert_eq!((&locks["lost"], &locks["guessed"]), (&1.into(), &true.into()), "{overwrites}");
        assert_eq!(locked("packs/"), (packs.1, packs.1));
        // But for the forgotten one.
        assert_eq!(locked("snapshots/"), (1 + usize::from(overwrites), 2 + usize::from(overwrites)));
    }
}

#[test]
fn locks_that_cannot_be_had_are_told_and_fail_no_backup() {
    let cloud = Cloud::filled(Keeping::Versions, "lock = \"30d\"");
    let ran = cloud.run(&["backup", "source"]);
    assert_eq!(ran.summary(0)["locks"]["state"], "failed");
    let warning = of(&ran, "warning")[0]["message"].as_str().unwrap();
    assert!(warning.contains("no object lock"), "{warning}");
    cloud.run(&["policy", "--extend-locks"]).summary(1);
    // Credentials that may not lock.
    let policy = WRITER.replace(", \"s3:PutObjectRetention\"", "");
    let cloud = Cloud::filled(Keeping::Locks(None), "");
    cloud.configure(&cloud.server.add_user("WRITER", &policy), "lock = \"30d\"");
    let ran = cloud.run(&["backup", "source"]);
    let locks = &ran.summary(0)["locks"];
    assert_eq!((&locks["state"], &locks["extended"]), (&"incomplete".into(), &0.into()));
    assert_eq!(locks["failed"], locks["objects"]);
    // Nobody but an owner locks, and a key that does not read cannot ask.
    cloud.configure(&cloud.server.credentials(), "lock = \"30d\"");
    cloud.run(&["key", "add", "--role", "backup", "--new-key-file", "web.key"]).summary(0);
    let mut web = cloud.lab.command("web", &["backup", "source", "--json"]);
    web.env_remove("SNAP_REPO").env("SNAP_KEY_FILE", cloud.lab.path("web.key"));
    assert_eq!(crate::lab::finish(web.output().unwrap()).summary(0)["locks"], Value::Null);
    let mut web = cloud.lab.command("web", &["snapshots", "--locks", "--json"]);
    web.env_remove("SNAP_REPO").env("SNAP_KEY_FILE", cloud.lab.path("web.key"));
    crate::lab::finish(web.output().unwrap()).summary(12);
}

#[test]
fn a_snapshot_in_a_bundle_is_locked_as_long_as_the_bundle() {
    let cloud = Cloud::filled(Keeping::Locks(None), "lock = \"30d\"");
    for seed in [2, 3] {
        std::fs::write(cloud.lab.path("source/noise"), noise(seed, 100_000)).unwrap();
        cloud.run(&["backup", "source"]).summary(0);
    }
    let shown = || locks_of(&cloud.run(&["snapshots", "--locks"]));
    assert!(shown().len() == 3 && shown().iter().all(Option::is_some));
    let key = std::fs::read_to_string(cloud.lab.path("owner.key")).unwrap();
    let secret = snap_repo::Secret::from_key_file(&key).unwrap();
    let repository = snap_repo::Repository::open(cloud.store(), &secret).unwrap();
    let everything = snap_repo::MergeRequest { stored_before_secs: i64::MAX, drop: HashSet::new() };
    repository.merge_snapshots(&everything).unwrap();
    // The objects that it replaced are hidden, and locked; the bundle is not yet.
    assert_eq!(shown(), [None, None, None]);
    let locks = cloud.run(&["policy", "--extend-locks"]).summary(0)["locks"][0].clone();
    assert_eq!(
        (&locks["extended"], &locks["lost"], &locks["guessed"]),
        (&1.into(), &0.into(), &false.into())
    );
    assert!(shown().iter().all(Option::is_some));
    let mut bundle = None;
    cloud
        .store()
        .list("snapshots/", &mut |meta| {
            assert!(bundle.replace(meta.name).is_none(), "one bundle");
            Ok(())
        })
        .unwrap();
    // A bundle that was written anew without a snapshot that was forgotten hides nothing that anybody misses.
    let first = of(&cloud.run(&["snapshots"]), "snapshot")[0]["id"].as_str().unwrap().to_owned();
    let locks = cloud.run(&["forget", &first]).summary(0)["locks"].clone();
    assert_eq!((&locks["state"], &locks["lost"]), (&"ok".into(), &0.into()));
    let mut newest = None;
    cloud
        .store()
        .list("snapshots/", &mut |meta| {
            newest = Some(meta.name);
            Ok(())
        })
        .unwrap();
    assert_ne!(newest, bundle);
    cloud.lock().delete(&newest.unwrap(), None, false).unwrap();
    let locks = cloud.run(&["policy", "--extend-locks"]).summary(1)["locks"][0].clone();
    assert_eq!((&locks["lost"], &locks["guessed"]), (&2.into(), &true.into()));
}

#[test]
fn what_is_erased_stays_as_long_as_it_is_locked() {
    for (keeping, lock) in [(LOCKED, "compliance"), (GOVERNED, "governance")] {
        let cloud = Cloud::filled(keeping, "");
        let noise = cloud.lab.path("source/noise");
        let args = ["erase", "--path", noise.to_str().unwrap(), "--reason", "r", "--grace", "0", "--yes"];
        let ran = cloud.run(&args);
        let copy = &ran.summary(0)["copies"][0];
        assert_eq!(
            (&copy["state"], &copy["packs"], &copy["lock"]),
            (&"erased".into(), &0.into(), &lock.into())
        );
        assert_eq!(copy["packs_with_versions"], 2, "data and trees: {copy}");
        let until = seconds(&copy["locked_until"]);
        assert!((now() + 29 * DAY..=now() + 30 * DAY).contains(&until), "{copy}");
    }
    // Without locks older versions stay until somebody deletes them.
    let cloud = Cloud::filled(Keeping::Versions, "");
    let noise = cloud.lab.path("source/noise");
    let ran =
        cloud.run(&["erase", "--path", noise.to_str().unwrap(), "--reason", "r", "--grace", "0", "--yes"]);
    let copy = &ran.summary(0)["copies"][0];
    assert_eq!((&copy["packs_with_versions"], &copy["lock"]), (&2.into(), &Value::Null));
}
