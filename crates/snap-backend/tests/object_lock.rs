//! Versions and locks, against a double of an S3 bucket that has them.
#![allow(clippy::unwrap_used)] // Helpers of tests are test code too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use snap_backend::testing::conformance;
use snap_backend::{
    Bytes, ErrorKind, LockMode, ObjectLock, ObjectName, OpenOptions, Retention, Timestamp, open,
    open_object_lock,
};
use snap_testkit::{Keeping, S3Server};

const DAY: i64 = 86_400;
const LOCKS: Keeping = Keeping::Locks(None);

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn options(credentials: [(&'static str, String); 2]) -> OpenOptions<'static> {
    let credentials = credentials.map(|(name, value)| (name.to_owned(), value)).into();
    OpenOptions { credentials, retry: None, ..Default::default() }
}

fn lock_of(server: &S3Server) -> ObjectLock {
    // A prefix that has to be encoded, and signed as it is encoded.
    open_object_lock(&server.uri("a%20prefix"), &options(server.credentials())).unwrap().unwrap()
}

fn days(days: i64, mode: LockMode) -> Retention {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let until = Timestamp { unix_seconds: i64::try_from(now).unwrap() + days * DAY, nanos: 0 };
    Retention { mode, until }
}

fn body() -> Bytes {
    Bytes::from_static(b"bytes")
}

#[test]
fn the_double_is_a_store_as_any_other() {
    for keeping in
        [Keeping::Nothing, Keeping::Versions, Keeping::Locks(Some((Duration::from_secs(60), true)))]
    {
        let server = S3Server::start_keeping(keeping);
        let next = std::sync::atomic::AtomicUsize::new(0);
        conformance(|| {
            let prefix = format!("p{}", next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            open(&server.uri(&prefix), &options(server.credentials())).unwrap()
        });
    }
}

#[test]
fn a_bucket_says_what_it_keeps() {
    for (keeping, versions, locks) in
        [(Keeping::Nothing, false, false), (Keeping::Versions, true, false), (LOCKS, true, true)]
    {
        let server = S3Server::start_keeping(keeping);
        let lock = lock_of(&server);
        assert_eq!((lock.is_versioned().unwrap(), lock.has_locks().unwrap()), (versions, locks));
        let version = lock.put(&name("packs/a"), body(), None).unwrap();
        assert_eq!(version.is_some(), versions);
        assert_eq!(lock.retention_of(&name("packs/a"), None).unwrap(), None);
        assert_eq!(lock.retention_of(&name("packs/none"), None).unwrap_err().kind(), ErrorKind::NotFound);
    }
    for uri in ["/some/dir", "webdav://host/path"] {
        assert!(open_object_lock(uri, &OpenOptions::default()).unwrap().is_none());
    }
}

#[test]
fn what_the_backend_puts_the_lock_sees() {
    let server = S3Server::start_keeping(Keeping::Locks(Some((Duration::from_secs(3600), true))));
    let backend = open(&server.uri("a%20prefix"), &options(server.credentials())).unwrap();
    backend.put(&name("packs/ab/x"), body()).unwrap();
    let lock = lock_of(&server);
    assert_eq!(lock.retention_of(&name("packs/ab/x"), None).unwrap().unwrap().mode, LockMode::Compliance);
    // Deleting hides; the version is there, and stays.
    lock.delete(&name("packs/ab/x"), None, false).unwrap();
    assert!(!backend.exists(&name("packs/ab/x")).unwrap());
    lock.put(&name("packs/ab/x"), body(), None).unwrap();
    assert_eq!(backend.get(&name("packs/ab/x")).unwrap(), "bytes");
}

#[test]
fn a_lock_holds_until_its_end_and_governance_can_be_bypassed() {
    let server = S3Server::start_keeping(LOCKS);
    let lock = lock_of(&server);
    for mode in [LockMode::Governance, LockMode::Compliance] {
        let object = name("packs/a");
        let version = lock.put(&object, body(), Some(days(2, mode))).unwrap().unwrap();
        let version = Some(version.as_str());
        assert_eq!(lock.retention_of(&object, None).unwrap(), Some(days(2, mode)));
        for error in [
            lock.delete(&object, version, false).unwrap_err(),
            lock.set_retention(&object, version, days(1, mode), false).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Permission);
            assert!(error.to_string().contains("object lock"), "{error}");
        }
        let bypassed = lock.set_retention(&object, version, days(1, mode), true);
        assert_eq!(bypassed.is_ok(), mode == LockMode::Governance);
        assert_eq!(lock.delete(&object, version, true).is_ok(), mode == LockMode::Governance);
    }
}

#[test]
fn retention_is_extended_and_never_shortened() {
    let server = S3Server::start_keeping(LOCKS);
    let lock = lock_of(&server);
    let objects: Vec<_> = (0..40).map(|number| name(&format!("packs/{number:02}"))).collect();
    let kept = [
        None,
        Some(days(1, LockMode::Governance)),
        Some(days(30, LockMode::Governance)),
        Some(days(1, LockMode::Compliance)),
        Some(days(30, LockMode::Compliance)),
    ];
    for (number, object) in objects.iter().enumerate() {
        lock.put(object, body(), kept[number % 5]).unwrap();
    }
    let wanted = days(7, LockMode::Governance);
    let extended =
        |object, wanted: Retention| lock.extend_retention(object, None, wanted.until, wanted).unwrap().1;
    let changed: Vec<bool> = objects.iter().map(|object| extended(object, wanted)).collect();
    assert!(
        changed.iter().enumerate().all(|(number, changed)| *changed == [0, 1, 3].contains(&(number % 5)))
    );
    let expected = [
        wanted,
        wanted,
        days(30, LockMode::Governance),
        days(7, LockMode::Compliance),
        days(30, LockMode::Compliance),
    ];
    for (number, object) in objects.iter().enumerate() {
        let (found, expected) = (lock.retention_of(object, None).unwrap().unwrap(), expected[number % 5]);
        assert_eq!(found.mode, expected.mode);
        assert!((found.until.unix_seconds - expected.until.unix_seconds).abs() <= 2, "{number}");
    }
    // A stricter mode is taken on at once, and no time is lost by it.
    assert!(extended(&objects[2], days(7, LockMode::Compliance)));
    let third = lock.retention_of(&objects[2], None).unwrap().unwrap();
    assert_eq!(third.mode, LockMode::Compliance);
    assert!(third.until.unix_seconds > days(29, LockMode::Governance).until.unix_seconds);
    let missing = lock.extend_retention(&name("packs/missing"), None, wanted.until, wanted).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn every_version_is_listed_and_has_a_lock_of_its_own() {
    let server = S3Server::start_keeping(LOCKS);
    let lock = lock_of(&server);
    let put = |object: &str| lock.put(&name(object), body(), None).unwrap().unwrap();
    for number in 0..20 {
        put(&format!("packs/{number:02}"));
    }
    let old = put("packs/00");
    let new = put("packs/00");
    lock.delete(&name("packs/01"), None, false).unwrap();
    let listed = |prefix: &str| {
        let mut out = Vec::new();
        lock.list_versions(prefix, &mut |version| {
            out.push(version);
            Ok(())
        })
        .unwrap();
        out
    };
    let packs = listed("packs/");
    assert_eq!(packs.len(), 20 + 2 + 1, "{packs:?}");
    let of = |object: &str| packs.iter().filter(|it| it.name == name(object)).collect::<Vec<_>>();
    let (first, second) = (of("packs/00"), of("packs/01"));
    assert_eq!((first.len(), first[0].version.as_str(), first[1].version.as_str()), (3, &*new, &*old));
    assert!(first[0].is_newest && !first[1].is_newest && !first[2].is_newest);
    // Markers and versions come in two lists; whoever needs their order asks `is_newest`.
    assert!(second.iter().any(|it| it.is_delete_marker && it.is_newest));
    assert!(second.iter().any(|it| !it.is_delete_marker && !it.is_newest));
    assert_eq!(listed("").len(), 23);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((lock.store_time().unwrap().unix_seconds - now).abs() <= 5);
    // Whatever the prefix of the repository is called, and what is beside it is not seen.
    let odd =
        open_object_lock(&server.uri("p%2Bq%20%26%25"), &options(server.credentials())).unwrap().unwrap();
    odd.put(&name("packs/00"), body(), None).unwrap();
    let mut found = Vec::new();
    odd.list_versions("", &mut |version| {
        found.push(version.name);
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [name("packs/00")]);

    let wanted = days(7, LockMode::Compliance);
    lock.extend_retention(&name("packs/00"), Some(&old), wanted.until, wanted).unwrap();
    assert_eq!(lock.retention_of(&name("packs/00"), None).unwrap(), None);
    assert_eq!(lock.retention_of(&name("packs/00"), Some(&old)).unwrap().unwrap().mode, wanted.mode);
    assert!(lock.delete(&name("packs/00"), Some(&old), true).is_err());
    lock.delete(&name("packs/00"), Some(&new), false).unwrap();
}

#[test]
fn refusals_are_told_without_secrets() {
    let server = S3Server::start_keeping(LOCKS);
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::bucket/*"}]}"#;
    let lock =
        open_object_lock(&server.uri("p"), &options(server.add_user("WRITER", policy))).unwrap().unwrap();
    lock.put(&name("packs/a"), body(), None).unwrap();
    for refused in [
        lock.put(&name("packs/a"), body(), Some(days(1, LockMode::Governance))).unwrap_err(),
        lock.is_versioned().unwrap_err(),
        lock.retention_of(&name("packs/a"), None).unwrap_err(),
        lock.delete(&name("packs/a"), None, false).unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Permission, "{refused}");
        assert!(refused.to_string().contains("not authorized"), "{refused}");
    }
    let wrong =
        [("AWS_ACCESS_KEY_ID", "WRITER".to_owned()), ("AWS_SECRET_ACCESS_KEY", "a-wrong-secret".to_owned())];
    let lock = open_object_lock(&server.uri("p"), &options(wrong)).unwrap().unwrap();
    let refused = lock.put(&name("packs/a"), body(), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    assert!(!refused.to_string().contains("a-wrong-secret"));
    let none = open_object_lock(&server.uri("p"), &OpenOptions::default()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Unauthenticated);
}
