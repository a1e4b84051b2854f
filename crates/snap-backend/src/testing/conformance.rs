//! Each promise of [`Backend`]'s documentation as a case.
#![allow(clippy::unwrap_used)] // This module is test code, compiled into test binaries of other crates.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Backend, BackendError, ErrorKind, MAX_SEGMENT_BYTES, ObjectMeta, ObjectName, Operation, PutOutcome,
};

/// One promise, and the check of it on an empty backend.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The promise, in a few words.
    pub name: &'static str,
    /// Panics if the backend breaks it.
    pub run: fn(&Arc<dyn Backend>),
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case of the suite.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), run: $name }),*];
    };
}

cases![
    what_was_put_is_read,
    an_empty_object_is_an_object,
    a_large_object_survives,
    ranges_are_exact,
    ranges_past_the_end_are_refused,
    absent_is_not_found,
    a_directory_is_not_an_object,
    stat_tells_size_and_time,
    an_existing_object_is_never_damaged,
    a_fixed_name_is_never_replaced,
    delete_is_idempotent,
    a_deleted_name_can_be_put_again,
    list_recurses,
    list_keeps_to_its_prefix,
    list_refuses_a_malformed_prefix,
    list_hands_out_many,
    list_stops_at_the_first_error,
    list_lets_its_callback_use_the_backend,
    the_longest_names_work,
    threads_put_different_objects,
    threads_put_the_same_object,
    bodies_are_not_interpreted,
    the_location_is_one_line,
];

/// Runs every case, each on a fresh, empty backend from `make`.
///
/// # Panics
///
/// If a promise is broken; the message names all that are.
pub fn conformance(make: impl Fn() -> Arc<dyn Backend>) {
    let failures: Vec<String> = CASES
        .iter()
        .filter_map(|case| {
            let panic = catch_unwind(AssertUnwindSafe(|| (case.run)(&make()))).err()?;
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Some(format!("{}: {}", case.name, text.unwrap_or_default()))
        })
        .collect();
    assert!(failures.is_empty(), "broken promises:\n{}", failures.join("\n"));
}

fn name(name: impl Into<String>) -> ObjectName {
    ObjectName::new(name).unwrap()
}

/// Bytes without a pattern that a wrong offset would hide.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[track_caller]
fn fails<T: std::fmt::Debug>(kind: ErrorKind, result: Result<T, BackendError>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

fn names(backend: &Arc<dyn Backend>, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut each = |meta: ObjectMeta| {
        assert!(found.insert(meta.name.to_string()), "{} was listed twice", meta.name);
        Ok(())
    };
    backend.list(prefix, &mut each).unwrap();
    found
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn what_was_put_is_read(backend: &Arc<dyn Backend>) {
    let object = name("packs/ab/abcdef");
    let body = noise(10_000, 1);
    assert_eq!(backend.put(&object, body.clone()).unwrap(), PutOutcome::Created);
    assert_eq!(backend.get(&object).unwrap(), body);
    assert!(backend.exists(&object).unwrap());
}

fn an_empty_object_is_an_object(backend: &Arc<dyn Backend>) {
    let object = name("marks/empty");
    backend.put(&object, Bytes::new()).unwrap();
    assert!(backend.get(&object).unwrap().is_empty());
    assert!(backend.get_range(&object, 0, 0).unwrap().is_empty());
    assert_eq!(backend.stat(&object).unwrap().size_bytes, 0);
    fails(ErrorKind::OutOfRange, backend.get_range(&object, 0, 1));
}

fn a_large_object_survives(backend: &Arc<dyn Backend>) {
    let object = name("packs/00/large");
    let body = noise(20 << 20, 2);
    backend.put(&object, body.clone()).unwrap();
    assert!(backend.get(&object).unwrap() == body, "20 MiB came back changed");
    let (offset, len) = ((7 << 20) + 13, 9 << 20);
    let range = backend.get_range(&object, offset as u64, len as u64).unwrap();
    assert!(range == body.slice(offset..offset + len), "9 MiB within came back changed");
}

fn ranges_are_exact(backend: &Arc<dyn Backend>) {
    let object = name("packs/01/ranges");
    let body = noise(1000, 3);
    backend.put(&object, body.clone()).unwrap();
    for (offset, len) in [(0, 1000), (0, 1), (999, 1), (1, 998), (500, 0), (0, 0), (1000, 0), (250, 500)] {
        let want = body.slice(offset..offset + len);
        assert_eq!(backend.get_range(&object, offset as u64, len as u64).unwrap(), want, "{offset}+{len}");
        let mut buffer = vec![0; len];
        backend.get_into(&object, offset as u64, &mut buffer).unwrap();
        assert_eq!(buffer, want, "{offset}+{len} into a buffer");
    }
}

fn ranges_past_the_end_are_refused(backend: &Arc<dyn Backend>) {
    let object = name("packs/01/short");
    backend.put(&object, noise(100, 4)).unwrap();
    for (offset, len) in [(0, 101), (99, 2), (100, 1), (101, 0), (5000, 10), (u64::MAX, 2), (0, u64::MAX)] {
        fails(ErrorKind::OutOfRange, backend.get_range(&object, offset, len));
    }
    fails(ErrorKind::OutOfRange, backend.get_into(&object, 90, &mut [0; 20]));
}

fn absent_is_not_found(backend: &Arc<dyn Backend>) {
    backend.put(&name("config"), noise(10, 5)).unwrap();
    for absent in ["config2", "packs/ab/absent", "snapshots/absent"] {
        let absent = name(absent);
        fails(ErrorKind::NotFound, backend.get(&absent));
        fails(ErrorKind::NotFound, backend.get_range(&absent, 0, 1));
        fails(ErrorKind::NotFound, backend.get_range(&absent, 0, 0));
        fails(ErrorKind::NotFound, backend.get_into(&absent, 0, &mut [0; 4]));
        fails(ErrorKind::NotFound, backend.stat(&absent));
        assert!(!backend.exists(&absent).unwrap());
    }
}

fn a_directory_is_not_an_object(backend: &Arc<dyn Backend>) {
    backend.put(&name("packs/ab/abcdef"), noise(10, 6)).unwrap();
    fails(ErrorKind::NotFound, backend.stat(&name("packs/ab")));
    fails(ErrorKind::NotFound, backend.get(&name("packs")));
}

fn stat_tells_size_and_time(backend: &Arc<dyn Backend>) {
    let object = name("snapshots/a");
    backend.put(&object, noise(1234, 7)).unwrap();
    let meta = backend.stat(&object).unwrap();
    assert_eq!((meta.name, meta.size_bytes), (object, 1234));
    if let Some(modified) = meta.modified {
        assert!(modified.unix_seconds > 1_000_000_000, "{modified:?} is no time of this century");
    }
}

fn an_existing_object_is_never_damaged(backend: &Arc<dyn Backend>) {
    let object = name("packs/ab/twice");
    let body = noise(100_000, 8);
    backend.put(&object, body.clone()).unwrap();
    backend.put(&object, body.clone()).unwrap();
    assert_eq!(backend.get(&object).unwrap(), body);
    assert_eq!(names(backend, ""), set(["packs/ab/twice"]));
}

fn a_fixed_name_is_never_replaced(backend: &Arc<dyn Backend>) {
    let object = name("config");
    assert_eq!(backend.put(&object, Bytes::from_static(b"first")).unwrap(), PutOutcome::Created);
    assert_eq!(backend.put(&object, Bytes::from_static(b"second")).unwrap(), PutOutcome::Existed);
    assert_eq!(backend.get(&object).unwrap(), "first");
}

fn delete_is_idempotent(backend: &Arc<dyn Backend>) {
    let object = name("marks/a");
    backend.delete(&object).unwrap();
    backend.put(&object, noise(10, 9)).unwrap();
    backend.put(&name("marks/b"), noise(10, 9)).unwrap();
    backend.delete(&object).unwrap();
    backend.delete(&object).unwrap();
    fails(ErrorKind::NotFound, backend.get(&object));
    assert_eq!(names(backend, ""), set(["marks/b"]));
}

fn a_deleted_name_can_be_put_again(backend: &Arc<dyn Backend>) {
    let object = name("marks/a");
    backend.put(&object, Bytes::from_static(b"1")).unwrap();
    backend.delete(&object).unwrap();
    assert_eq!(backend.put(&object, Bytes::from_static(b"2")).unwrap(), PutOutcome::Created);
    assert_eq!(backend.get(&object).unwrap(), "2");
}

fn list_recurses(backend: &Arc<dyn Backend>) {
    assert!(names(backend, "").is_empty() && names(backend, "packs/").is_empty());
    let all = ["config", "packs/ab/c", "packs/ab/d", "packs/cd/e", "snapshots/f", "a/b/c/d/e/f/g"];
    for (size, object) in all.into_iter().enumerate() {
        backend.put(&name(object), noise(size, 10)).unwrap();
    }
    assert_eq!(names(backend, ""), set(all));
    let mut each = |meta: ObjectMeta| {
        assert_eq!(meta.size_bytes, all.iter().position(|one| *one == meta.name.as_str()).unwrap() as u64);
        Ok(())
    };
    backend.list("", &mut each).unwrap();
}

fn list_keeps_to_its_prefix(backend: &Arc<dyn Backend>) {
    for object in ["packs/ab/c", "packs/abc/d", "packs2/e", "pack"] {
        backend.put(&name(object), noise(1, 11)).unwrap();
    }
    assert_eq!(names(backend, "packs/"), set(["packs/ab/c", "packs/abc/d"]));
    assert_eq!(names(backend, "packs/ab/"), set(["packs/ab/c"]));
    assert!(names(backend, "absent/").is_empty());
    // The name of an object is no directory.
    assert!(names(backend, "pack/").is_empty());
}

fn list_refuses_a_malformed_prefix(backend: &Arc<dyn Backend>) {
    for bad in ["packs", "/", "../", "packs/../", "tmp/", "A/"] {
        fails(ErrorKind::InvalidName, backend.list(bad, &mut |_| Ok(())));
    }
}

fn list_hands_out_many(backend: &Arc<dyn Backend>) {
    let all: BTreeSet<String> = (0..1200).map(|i| format!("packs/{:02x}/{i:06}", i % 16)).collect();
    let each: Vec<_> = all.iter().collect();
    std::thread::scope(|scope| {
        for part in each.chunks(150) {
            scope.spawn(|| {
                part.iter().for_each(|one| assert!(backend.put(&name(*one), noise(9, 12)).is_ok()))
            });
        }
    });
    assert_eq!(names(backend, "packs/").len(), 1200);
    assert_eq!(names(backend, ""), all);
}

fn list_stops_at_the_first_error(backend: &Arc<dyn Backend>) {
    for i in 0..5 {
        backend.put(&name(format!("marks/{i}")), Bytes::new()).unwrap();
    }
    let mut calls = 0;
    let stopped = backend.list("", &mut |_| {
        calls += 1;
        // A kind that would be worth another attempt if the store had reported it.
        Err(BackendError::new(ErrorKind::Timeout, Operation::List))
    });
    fails(ErrorKind::Timeout, stopped);
    assert_eq!(calls, 1);
}

fn list_lets_its_callback_use_the_backend(backend: &Arc<dyn Backend>) {
    for i in 0..3 {
        backend.put(&name(format!("marks/{i}")), noise(i, 13)).unwrap();
    }
    let mut total = 0;
    let mut each = |meta: ObjectMeta| {
        total += backend.get(&meta.name)?.len();
        backend.delete(&meta.name)
    };
    backend.list("marks/", &mut each).unwrap();
    assert_eq!(total, 3);
    assert!(names(backend, "").is_empty());
}

fn the_longest_names_work(backend: &Arc<dyn Backend>) {
    let widest = "z".repeat(MAX_SEGMENT_BYTES);
    let all = [format!("packs/{widest}"), widest];
    for object in &all {
        backend.put(&name(object), noise(20, 14)).unwrap();
        assert_eq!(backend.get(&name(object)).unwrap(), noise(20, 14));
    }
    assert_eq!(names(backend, ""), all.into());
}

fn threads_put_different_objects(backend: &Arc<dyn Backend>) {
    let all: Vec<_> =
        (0..8).map(|i| (name(format!("packs/{i:02x}/t{i}")), noise(50_000 + i, i as u64))).collect();
    std::thread::scope(|scope| {
        for (object, body) in &all {
            scope.spawn(move || assert!(backend.put(object, body.clone()).is_ok()));
        }
    });
    std::thread::scope(|scope| {
        for (object, body) in &all {
            scope.spawn(move || assert!(backend.get(object).unwrap() == *body));
        }
    });
}

fn threads_put_the_same_object(backend: &Arc<dyn Backend>) {
    let object = name("packs/ff/same");
    let body = noise(300_000, 15);
    std::thread::scope(|scope| {
        let put = || {
            let _ = backend.put(&object, body.clone()).unwrap();
            assert!(backend.get(&object).unwrap() == body, "a part of an object was seen");
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(put)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(names(backend, ""), set(["packs/ff/same"]));
}

fn bodies_are_not_interpreted(backend: &Arc<dyn Backend>) {
    let bodies: [&'static [u8]; 4] = [b"\x1f\x8b\x08\x00gzip?", b"<xml/>", b"\r\n\0\n", b"{}"];
    for (i, body) in bodies.into_iter().enumerate() {
        // Names that a store might give a media type or an encoding.
        let object = name(["keys/a.gz", "keys/b.xml", "keys/c.txt", "keys/d.json"][i]);
        backend.put(&object, Bytes::from_static(body)).unwrap();
        assert_eq!(backend.get(&object).unwrap(), body);
    }
}

fn the_location_is_one_line(backend: &Arc<dyn Backend>) {
    let location = backend.location();
    assert!(!location.is_empty() && !location.chars().any(char::is_control), "{location:?}");
    let error = backend.get(&name("absent")).unwrap_err();
    assert!(error.to_string().contains(&location), "{error} does not say where: {location}");
    assert!(backend.parallelism() > 0);
}
