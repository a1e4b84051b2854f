//! Whatever is done to a tree between snapshots: every snapshot restores to the tree as it was.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use common::compare::{Leeway, assert_same, differences};
use common::{Lab, odd};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use snap_engine::{Overwrite, RestoreOptions, RestoreTarget};

/// Something done to a tree. Names come from so few that edits meet one another; what cannot be done is not done.
#[derive(Debug, Clone)]
enum Edit {
    Create {
        at: usize,
        size: usize,
        seed: u64,
    },
    Write {
        at: usize,
        offset: usize,
        size: usize,
        seed: u64,
    },
    /// As a program does that hides it: size and time stay.
    Overwrite {
        at: usize,
        seed: u64,
    },
    Truncate {
        at: usize,
        size: usize,
    },
    /// A hole, if it was shorter.
    Lengthen {
        at: usize,
        by: usize,
    },
    MakeDir {
        at: usize,
    },
    Delete {
        at: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Chmod {
        at: usize,
        mode: u32,
    },
    Symlink {
        at: usize,
        to: usize,
    },
    HardLink {
        from: usize,
        to: usize,
    },
    Fifo {
        at: usize,
    },
    Time {
        at: usize,
        seconds: i64,
    },
    Xattr {
        at: usize,
        value: u8,
    },
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e\u{e9}", "f\n"];

/// One of 6 + 36 + 216 places: the number in base 6 is the way there, its names.
fn place(top: &Path, at: usize) -> PathBuf {
    let mut path = top.to_owned();
    let mut at = at;
    loop {
        path.push(NAMES[at % 6]);
        at /= 6;
        if at == 0 {
            return path;
        }
        at -= 1;
    }
}

/// Near places are likelier than far ones.
fn places() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..6usize, 2 => 6..18usize, 1 => 42..60usize]
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..100usize, 3 => 1000..70_000usize, 1 => 1_000_000..2_500_000usize]
}

fn edits() -> impl Strategy<Value = Edit> {
    let mode = prop_oneof![Just(0o600), Just(0o644), Just(0o700), Just(0o755), Just(0o4711)];
    prop_oneof![
        5 => (places(), sizes(), any::<u64>()).prop_map(|(at, size, seed)| Edit::Create { at, size, seed }),
        3 => (places(), sizes(), 1..5000usize, any::<u64>())
            .prop_map(|(at, offset, size, seed)| Edit::Write { at, offset, size, seed }),
        2 => (places(), any::<u64>()).prop_map(|(at, seed)| Edit::Overwrite { at, seed }),
        1 => (places(), sizes()).prop_map(|(at, size)| Edit::Truncate { at, size }),
        1 => (places(), 10_000..3_000_000usize).prop_map(|(at, by)| Edit::Lengthen { at, by }),
        4 => places().prop_map(|at| Edit::MakeDir { at }),
        2 => places().prop_map(|at| Edit::Delete { at }),
        3 => (places(), places()).prop_map(|(from, to)| Edit::Rename { from, to }),
        1 => (places(), mode).prop_map(|(at, mode)| Edit::Chmod { at, mode }),
        1 => (places(), places()).prop_map(|(at, to)| Edit::Symlink { at, to }),
        2 => (places(), places()).prop_map(|(from, to)| Edit::HardLink { from, to }),
        1 => places().prop_map(|at| Edit::Fifo { at }),
        1 => (places(), 0..3i64).prop_map(|(at, seconds)| Edit::Time { at, seconds: 1_500_000_000 + seconds }),
        1 => (places(), any::<u8>()).prop_map(|(at, value)| Edit::Xattr { at, value }),
    ]
}

fn is_plain(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}

/// No way leads through a link: nothing outside may be edited.
fn is_below(top: &Path, path: &Path) -> bool {
    let parents = path.ancestors().skip(1).take_while(|parent| *parent != top);
    parents.into_iter().all(|parent| parent.symlink_metadata().is_ok_and(|found| found.is_dir()))
}

fn edit(top: &Path, edit: &Edit) {
    let writable = |at| {
        let path = place(top, at);
        let file = is_below(top, &path) && is_plain(&path);
        file.then(|| std::fs::OpenOptions::new().write(true).open(&path).unwrap())
    };
    let free = |at| {
        let path = place(top, at);
        (is_below(top, &path) && path.symlink_metadata().is_err()).then_some(path)
    };
    let taken = |at| {
        let path = place(top, at);
        (is_below(top, &path) && path.symlink_metadata().is_ok()).then_some(path)
    };
    match *edit {
        Edit::Create { at, size, seed } => {
            if let Some(path) = free(at) {
                std::fs::write(path, odd::noise(seed, size)).unwrap();
            }
        }
        Edit::Write { at, offset, size, seed } => {
            if let Some(file) = writable(at) {
                file.write_all_at(&odd::noise(seed, size), offset as u64).unwrap();
            }
        }
        Edit::Overwrite { at, seed } => {
            if let Some(file) = writable(at) {
                let was = file.metadata().unwrap();
                file.write_all_at(&odd::noise(seed, was.len() as usize), 0).unwrap();
                odd::set_time(&place(top, at), was.mtime(), was.mtime_nsec());
            }
        }
        Edit::Truncate { at, size } => {
            if let Some(file) = writable(at) {
                file.set_len(file.metadata().unwrap().len().min(size as u64)).unwrap();
            }
        }
        Edit::Lengthen { at, by } => {
            if let Some(file) = writable(at) {
                file.set_len((file.metadata().unwrap().len() + by as u64).min(8 << 20)).unwrap();
            }
        }
        Edit::MakeDir { at } => {
            if let Some(path) = free(at) {
                std::fs::create_dir(path).unwrap();
            }
        }
        Edit::Delete { at } => {
            if let Some(path) = taken(at) {
                match path.symlink_metadata().unwrap().is_dir() {
                    true => std::fs::remove_dir_all(path).unwrap(),
                    false => std::fs::remove_file(path).unwrap(),
                }
            }
        }
        Edit::Rename { from, to } => {
            if let (Some(from), true) = (taken(from), is_below(top, &place(top, to))) {
                // Onto a directory that is not empty, or into itself: refused, and that is fine.
                let _ = std::fs::rename(from, place(top, to));
            }
        }
        Edit::Chmod { at, mode } => {
            if let Some(path) = taken(at).filter(|path| !path.is_symlink()) {
                // A directory that its owner cannot enter would be another test.
                let mode = if path.is_dir() { mode | 0o700 } else { mode };
                odd::set_mode(&path, mode);
            }
        }
        Edit::Symlink { at, to } => {
            if let Some(path) = free(at) {
                symlink(NAMES[to % 6], path).unwrap();
            }
        }
        Edit::HardLink { from, to } => {
            if let (Some(from), Some(to)) = (taken(from).filter(|path| is_plain(path)), free(to)) {
                std::fs::hard_link(from, to).unwrap();
            }
        }
        Edit::Fifo { at } => {
            if let Some(path) = free(at) {
                odd::fifo(&path);
            }
        }
        Edit::Time { at, seconds } => {
            if let Some(path) = taken(at) {
                odd::set_time(&path, seconds, 5);
            }
        }
        Edit::Xattr { at, value } => {
            if let Some(path) = taken(at).filter(|path| is_plain(path)) {
                odd::set_xattr(&path, "user.test", &[value]);
            }
        }
    }
}

/// Until the file system's clock has moved on: two changes within one of its ticks look like one.
fn wait_for_a_tick(dir: &Path) {
    let probe = dir.join("probe");
    let touch = || {
        std::fs::write(&probe, "x").unwrap();
        let found = probe.metadata().unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let first = touch();
    while touch() == first {
        std::thread::yield_now();
    }
}

fn every_snapshot_restores(rounds: &[Vec<Edit>]) {
    let (lab, memory) = common::in_memory();
    let source = lab.source("");
    let mut copies = Vec::new();
    for (number, edits) in rounds.iter().enumerate() {
        edits.iter().for_each(|done| edit(&source, done));
        wait_for_a_tick(lab.dir.path());
        let summary = lab.backup().summary;
        assert_eq!((summary.unreadable, summary.vanished, summary.changed_while_read), (0, 0, 0));
        copies.push(lab.keep(&format!("copy {number}")));
        assert_eq!(lab.backup().summary.stored_bytes, 0, "an unchanged tree");
    }
    let store: std::sync::Arc<dyn snap_backend::Backend> = memory;
    lab.check_over(&store);
    // One after the other into the same target: what is there is made what the snapshot has. And each by itself.
    let merged = lab.dir.path().join("merged");
    for (number, copy) in copies.iter().enumerate() {
        let alone = lab.dir.path().join(format!("alone {number}"));
        assert_eq!(lab.restore_over(&store, 2 * number, &alone).failed, 0);
        assert_same(copy, &alone, Leeway::default());
        merge_both(&lab, 2 * number, &merged, copy);
    }
    // Backwards, too: older over newer.
    for (number, copy) in copies.iter().enumerate().rev() {
        merge_both(&lab, 2 * number + 1, &merged, copy);
    }
}

/// By default a file of the same size and time counts as the same, as everywhere; asked to write it always, it is.
fn merge_both(lab: &Lab, number: usize, target: &Path, expected: &Path) {
    let differences = || {
        let open = |path| snap_source::SourceDir::open(path).unwrap();
        differences(&open(expected), &open(target), Leeway::default())
    };
    merge(lab, number, target, Overwrite::IfChanged);
    let found = differences();
    let is_content = |line: &String| line.contains("content differs") || line.contains("space on disk");
    assert!(found.iter().all(is_content), "{found:?}");
    merge(lab, number, target, Overwrite::Always);
    assert_eq!(differences(), [""; 0]);
}

/// Makes `target` what the snapshot is. A directory in the way of something else is left to the user: here, removed.
fn merge(lab: &Lab, number: usize, target: &Path, overwrite: Overwrite) {
    let repository = lab.repository();
    let (index, _) = snap_repo::Index::load(&repository, None).unwrap();
    let set = repository.snapshots().unwrap();
    let index = std::sync::Arc::new(index);
    let browser = snap_engine::browse::Browser::open(&repository, index, &set.snapshots[number]).unwrap();
    let options = RestoreOptions { overwrite, delete: true, verify: true, ..RestoreOptions::default() };
    let from = lab.source("");
    let run = || {
        let to = RestoreTarget::Dir(target.to_owned());
        let from = Some(from.to_str().unwrap().as_bytes());
        let report = snap_engine::restore(&browser, from, to, &options, lab.context()).unwrap();
        assert_eq!(report.damaged, 0);
        (report.failed, lab.heard())
    };
    let (mut failed, mut heard) = run();
    while failed > 0 {
        for line in heard {
            let (path, why) = line.strip_prefix("unreadable ").unwrap().rsplit_once(": ").unwrap();
            if why == "another name of a file that could not be restored" {
                continue;
            }
            assert_eq!(why, "a directory stands in its place");
            // Paths are told below the target.
            let path = path.trim_start_matches('/');
            let path = path.strip_prefix(from.to_str().unwrap().trim_matches('/')).unwrap_or(path);
            std::fs::remove_dir_all(target.join(path.trim_start_matches('/'))).unwrap();
        }
        (failed, heard) = run();
    }
}

#[test]
fn any_history_of_a_tree() {
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let histories = prop::collection::vec(prop::collection::vec(edits(), 1..25), 1..5);
    TestRunner::new_with_rng(config, rng)
        .run(&histories, |rounds| {
            every_snapshot_restores(&rounds);
            Ok(())
        })
        .unwrap();
}
