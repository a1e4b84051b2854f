//! Looking through many snapshots: what is found, what differs, what is gone, and at what cost.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use common::{Lab, odd};
use snap_backend::MemoryBackend;
use snap_backend::testing::RecordingBackend;
use snap_engine::look::{Change, DiffSide, EntryType, FindOptions, History, deleted, diff, find, versions};
use snap_repo::Index;

fn history(lab: &Lab) -> History {
    let repository = lab.repository();
    let (index, _) = Index::load(&repository, None).unwrap();
    let set = repository.snapshots().unwrap();
    History::open(&repository, Arc::new(index), &set.snapshots, &lab.ear).unwrap()
}

fn glob(pattern: &str) -> FindOptions {
    FindOptions { patterns: vec![pattern.to_owned()], ..FindOptions::default() }
}

/// Paths below the source, with the number of the snapshot.
fn found(lab: &Lab, history: &History, options: &FindOptions) -> Vec<(usize, String)> {
    let top = lab.source("").to_str().unwrap().to_owned();
    let mut out = Vec::new();
    let number = |id| history.past().iter().position(|past| past.snapshot.id == id).unwrap();
    find(history, options, lab.context(), &mut |past, path, _| {
        let path = path.escape_ascii().to_string();
        out.push((number(past.snapshot.id), path.strip_prefix(&top).unwrap_or(&path).to_owned()));
        Ok(())
    })
    .unwrap();
    out
}

fn write(lab: &Lab, name: &[u8], content: &str) {
    let path = lab.source("").join(OsStr::from_bytes(name));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Three snapshots of which each knows something else.
fn three() -> Lab {
    let (lab, _) = common::in_memory();
    write(&lab, b"same/deep/a.txt", "a");
    write(&lab, b"same/b.bin", "bb");
    write(&lab, b"moves/c.txt", "c");
    write(&lab, b"odd\n\xff/d.txt", "d");
    lab.backup();
    write(&lab, b"new/e.txt", "eeee");
    std::fs::remove_dir_all(lab.source("moves")).unwrap();
    lab.backup();
    write(&lab, b"moves/c.txt", "c again");
    lab.backup();
    lab
}

#[test]
fn names_are_found_in_every_snapshot_that_has_them() {
    let lab = three();
    let history = history(&lab);
    let expected = |list: &[(usize, &str)]| -> Vec<(usize, String)> {
        list.iter().map(|(number, path)| (*number, (*path).to_owned())).collect()
    };
    let cases: [(FindOptions, &[(usize, &str)]); 9] = [
        (glob("c.*"), &[(0, "moves/c.txt"), (2, "moves/c.txt")]),
        (glob("e.txt"), &[(1, "new/e.txt"), (2, "new/e.txt")]),
        (glob("deep/a.txt"), &[(0, "same/deep/a.txt"), (1, "same/deep/a.txt"), (2, "same/deep/a.txt")]),
        (glob("d.txt"), &[(0, "odd\\n\\xff/d.txt"), (1, "odd\\n\\xff/d.txt"), (2, "odd\\n\\xff/d.txt")]),
        (
            glob(&format!("{}/m*/**", lab.source("").to_str().unwrap().trim_end_matches('/'))),
            &[(0, "moves/c.txt"), (2, "moves/c.txt")],
        ),
        (FindOptions { regex: true, ..glob("moves/c") }, &[(0, "moves/c.txt"), (2, "moves/c.txt")]),
        (
            FindOptions { size_bytes: Some((4, 6)), ..FindOptions::default() },
            &[(1, "new/e.txt"), (2, "new/e.txt")],
        ),
        (
            FindOptions { types: vec![EntryType::Dir], ..glob("[mn]*") },
            &[(0, "moves"), (1, "new"), (2, "moves"), (2, "new")],
        ),
        (glob("nothing"), &[]),
    ];
    for (options, list) in cases {
        assert_eq!(found(&lab, &history, &options), expected(list), "{options:?}");
    }
    assert_eq!(lab.heard(), [""; 0]);
}

#[test]
fn a_tree_that_snapshots_share_is_looked_at_once() {
    let recording = RecordingBackend::new(Arc::new(MemoryBackend::new()));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    for dir in 0..40 {
        write(&lab, format!("{dir}/file").as_bytes(), &dir.to_string());
    }
    write(&lab, b"0/needle", "");
    lab.backup();
    let of_one = {
        let history = history(&lab);
        find(&history, &glob("needle"), lab.context(), &mut |_, _, _| Ok(())).unwrap().trees
    };
    for turn in 0..10 {
        write(&lab, b"39/file", &format!("turn {turn}"));
        lab.backup();
    }
    let history = history(&lab);
    let levels = lab.source("").components().count() as u64; // down to the directory 39, which is new each time
    let mut matches = 0;
    for (options, by_path) in
        [(glob("needle"), false), (FindOptions { regex: true, ..glob("0/needle$") }, true)]
    {
        let report = find(&history, &options, lab.context(), &mut |_, _, _| {
            matches += 1;
            Ok(())
        });
        let report = report.unwrap();
        assert_eq!((report.matches, report.trees), (11, of_one + 10 * (levels + 1)), "{by_path}");
    }
    assert_eq!(matches, 22);
}

#[test]
fn a_large_directory_is_compared_piece_by_piece() {
    let recording = RecordingBackend::new(Arc::new(MemoryBackend::new()));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    for number in 0..8_000 {
        write(&lab, format!("many/{number:05}").as_bytes(), "");
    }
    lab.backup();
    write(&lab, b"many/04000", "changed");
    std::fs::remove_file(lab.source("many/00000")).unwrap();
    write(&lab, b"many/99999", "");
    lab.backup();
    let history = history(&lab);
    let (progress, mut seen) = (&lab.progress, BTreeMap::new());
    let (before, after) = (&history.past()[0], &history.past()[1]);
    let (before, after) = (DiffSide { past: before, path: None }, DiffSide { past: after, path: None });
    let report = diff(&history, before, after, lab.context(), &mut |entry| {
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap();
        seen.insert(String::from_utf8_lossy(name).into_owned(), entry.change);
        Ok(())
    });
    let report = report.unwrap();
    let expected = [("00000", Change::Removed), ("04000", Change::Modified), ("99999", Change::Added)];
    assert_eq!(seen, expected.map(|(name, change)| (name.to_owned(), change)).into());
    assert_eq!((report.added, report.removed, report.modified), (1, 1, 1));
    // Down to the directory on both sides, then those of its pieces in which something changed, and at most one beside each.
    let levels = lab.source("many").components().count() as u64;
    let read = progress.items.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read <= 2 * levels + 12, "{read} with {levels} levels");
    // And of 8,000 names one is found, in all snapshots that have it.
    assert_eq!(found(&lab, &history, &glob("00000")), [(0, "many/00000".to_owned())]);
    assert_eq!(found(&lab, &history, &glob("07999")).len(), 2);
    // Gone is what both snapshots had, and what the first had alone.
    std::fs::remove_file(lab.source("many/00001")).unwrap();
    let gone =
        deleted(&history, &[lab.source("many").as_os_str().as_bytes().to_vec()], lab.context()).unwrap();
    let gone: Vec<_> = gone.vanished.iter().map(|gone| (gone.node.name.as_slice(), gone.last)).collect();
    assert_eq!(gone, [(&b"00000"[..], 0), (b"00001", 1)]);
}

#[test]
fn every_way_to_differ_has_its_word() {
    let (lab, _) = common::in_memory();
    for name in ["touched", "modes", "content", "gone", "becomes-dir", "dir/inside", "stays"] {
        write(&lab, name.as_bytes(), name);
    }
    std::os::unix::fs::symlink("a", lab.source("link")).unwrap();
    lab.backup();
    odd::set_time(&lab.source("touched"), 5, 6);
    odd::set_mode(&lab.source("modes"), 0o600);
    odd::set_mode(&lab.source("dir"), 0o700);
    write(&lab, b"content", "another");
    for name in ["gone", "becomes-dir", "link", "dir/inside"] {
        std::fs::remove_file(lab.source(name)).unwrap();
    }
    write(&lab, b"becomes-dir/child", "x");
    std::os::unix::fs::symlink("b", lab.source("link")).unwrap();
    lab.backup();
    let history = history(&lab);
    let top = lab.source("").to_str().unwrap().to_owned();
    let compare = |from: usize, to: usize, path: Option<&str>| {
        let side = |number: usize| DiffSide { past: &history.past()[number], path: path.map(str::as_bytes) };
        let mut seen = BTreeMap::new();
        diff(&history, side(from), side(to), lab.context(), &mut |entry| {
            let path = String::from_utf8(entry.path.to_vec()).unwrap();
            let known = seen.insert(path.strip_prefix(&top).unwrap().to_owned(), entry.change.as_str());
            assert_eq!(known, None, "{path} twice");
            Ok(())
        })
        .unwrap();
        seen.into_iter().collect::<Vec<_>>()
    };
    let forward = [
        ("becomes-dir", "type"),
        ("becomes-dir/child", "added"),
        ("content", "modified"),
        ("dir", "metadata"),
        ("dir/inside", "removed"),
        ("gone", "removed"),
        ("link", "modified"),
        ("modes", "metadata"),
        ("touched", "metadata"),
    ];
    let own = |list: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        list.iter().map(|(path, word)| ((*path).to_owned(), *word)).collect()
    };
    assert_eq!(compare(0, 1, None), own(&forward));
    let backward = forward.map(|(path, word)| match word {
        "added" => (path, "removed"),
        "removed" => (path, "added"),
        _ => (path, word),
    });
    assert_eq!(compare(1, 0, None), own(&backward));
    assert_eq!(compare(1, 1, None), []);
    assert_eq!(compare(0, 1, Some(&format!("{top}content"))), own(&[("content", "modified")]));
    let missing = DiffSide { past: &history.past()[0], path: Some(b"/no/such") };
    assert!(diff(&history, missing, missing, lab.context(), &mut |_| Ok(())).is_err());
}

#[test]
fn versions_come_once_each_with_all_who_hold_them() {
    let (lab, _) = common::in_memory();
    let (one, two) = ("one", "two, longer");
    for content in [Some(one), Some(one), Some(two), None, Some(one)] {
        match content {
            Some(content) => {
                write(&lab, b"dir/file", content);
                odd::set_time(&lab.source("dir/file"), 1_600_000_000, 0);
            }
            None => std::fs::remove_dir_all(lab.source("dir")).unwrap(),
        }
        lab.backup();
    }
    odd::set_mode(&lab.source("dir/file"), 0o600);
    lab.backup();
    std::fs::remove_file(lab.source("dir/file")).unwrap();
    std::fs::create_dir(lab.source("dir/file")).unwrap();
    lab.backup();
    let history = history(&lab);
    let path = lab.source("dir/file");
    let found = versions(&history, path.as_os_str().as_bytes(), lab.context()).unwrap();
    let list: Vec<_> = found
        .list
        .iter()
        .map(|it| (it.snapshots.clone(), it.node.size(), it.change.map(Change::as_str)))
        .collect();
    let expected = [
        (vec![0, 1, 4], 3, None),
        (vec![2], 11, Some("modified")),
        (vec![5], 3, Some("modified")),
        (vec![6], 0, Some("type")),
    ];
    assert_eq!(list, expected);
    assert_eq!((found.absent, found.unknown), (vec![3], vec![]));
    let nothing = versions(&history, b"/no/such", lab.context()).unwrap();
    assert_eq!((nothing.list.len(), nothing.absent.len()), (0, 7));
    assert!(versions(&history, b"/", lab.context()).is_err());
}

#[test]
fn what_is_gone_is_named_once_with_the_last_who_had_it() {
    let lab = three(); // snapshots 0, 1, 2
    write(&lab, b"dir/old", "old");
    write(&lab, b"dir/last", "last");
    write(&lab, b"dir/sub/x", "x");
    write(&lab, b"was-dir/inside", "i");
    write(&lab, b"was-file", "f");
    lab.backup(); // 3
    std::fs::remove_file(lab.source("dir/old")).unwrap();
    std::fs::remove_file(lab.source("dir/sub/x")).unwrap();
    write(&lab, b"dir/sub/y", "y");
    lab.backup(); // 4
    for name in ["dir", "moves", "was-dir", "odd\n"] {
        let _ = std::fs::remove_dir_all(lab.source(name));
    }
    std::fs::remove_dir_all(lab.source("").join(OsStr::from_bytes(b"odd\n\xff"))).unwrap();
    std::os::unix::fs::symlink("same", lab.source("was-dir")).unwrap();
    std::fs::remove_file(lab.source("was-file")).unwrap();
    std::fs::create_dir(lab.source("was-file")).unwrap();
    let history = history(&lab);
    let top = lab.source("");
    let top = top.as_os_str().as_bytes();
    let report = deleted(&history, &[top[..top.len() - 1].to_vec()], lab.context()).unwrap();
    let list: Vec<_> = report
        .vanished
        .iter()
        .map(|gone| (gone.path[top.len()..].escape_ascii().to_string(), gone.last, gone.replaced))
        .collect();
    let expected = [
        ("dir", 4, false),
        ("dir/old", 3, false),
        ("dir/sub/x", 3, false),
        ("moves", 4, false),
        ("odd\\n\\xff", 4, false),
        ("was-dir", 4, true),
    ];
    let expected: Vec<_> = expected.iter().map(|(path, last, it)| ((*path).to_owned(), *last, *it)).collect();
    assert_eq!(list, expected);
    assert_eq!((report.unreadable, report.unknown.len()), (0, 0));
    let unknown = deleted(&history, &[b"/no/such".to_vec()], lab.context()).unwrap();
    assert_eq!((unknown.vanished.len(), unknown.unknown.len()), (0, 1));
}

#[test]
fn what_cannot_be_listed_does_not_count_as_gone() {
    if odd::is_root() {
        return assert!(odd::as_ordinary_user("what_cannot_be_listed_does_not_count_as_gone"));
    }
    let (lab, _) = common::in_memory();
    write(&lab, b"closed/a", "a");
    write(&lab, b"open/b", "b");
    lab.backup();
    std::fs::remove_file(lab.source("open/b")).unwrap();
    odd::set_mode(&lab.source("closed"), 0o000);
    let history = history(&lab);
    let path = lab.source("").as_os_str().as_bytes().to_vec();
    let report = deleted(&history, &[path], lab.context()).unwrap();
    odd::set_mode(&lab.source("closed"), 0o700);
    let names: Vec<_> = report.vanished.iter().map(|gone| gone.node.name.as_slice()).collect();
    assert_eq!((names, report.unreadable), (vec![&b"b"[..]], 1));
}
