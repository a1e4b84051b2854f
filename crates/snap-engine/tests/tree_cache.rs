//! The local cache, of trees or of the index, fails: a run takes longer, and is none the worse.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::PathBuf;

use common::Lab;
use snap_engine::RestoreOptions;

const FILES: u64 = 60;

fn lab() -> Lab {
    let lab = Lab::new();
    for number in 0..FILES {
        let dir = lab.source(&format!("{}", number % 7));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(number.to_string()), number.to_string()).unwrap();
    }
    lab
}

/// The files of the cached trees.
fn cached(lab: &Lab) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in std::fs::read_dir(lab.cache().root().join("trees")).unwrap() {
        let entries = std::fs::read_dir(dir.unwrap().path()).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files
}

fn assert_restores(lab: &Lab) {
    let target = lab.dir.path().join(format!("restored {}", lab.heard().len()));
    lab.restore(&target, &RestoreOptions::default());
    common::compare::assert_same(&lab.source(""), &target, common::compare::Leeway::default());
    std::fs::remove_dir_all(&target).unwrap();
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let lab = lab();
    std::fs::create_dir_all(lab.cache().root()).unwrap();
    std::fs::write(lab.cache().root().join("trees"), b"in the way").unwrap();
    for unchanged in [0, FILES] {
        // The second run reads the trees from the repository, as it may.
        assert_eq!(lab.backup().summary.files_unchanged, unchanged);
        let heard = lab.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].starts_with("warning the local cache cannot be written"), "{heard:?}");
    }
    assert_restores(&lab);
}

#[test]
fn whatever_is_done_to_the_files_the_next_run_is_right() {
    type Harm = fn(&[u8]) -> Vec<u8>;
    let harms: [Harm; 3] = [
        |_| Vec::new(),
        |bytes| bytes.iter().map(|byte| byte ^ 0x55).collect(),
        |bytes| bytes[..bytes.len() / 2].to_vec(),
    ];
    let lab = lab();
    lab.backup();
    let count = cached(&lab).len();
    for harm in harms {
        for number in 0..count {
            let path = &cached(&lab)[number];
            std::fs::write(path, harm(&std::fs::read(path).unwrap())).unwrap();
            for _ in 0..2 {
                let report = lab.backup();
                assert_eq!((report.summary.files_unchanged, report.summary.added_bytes), (FILES, 0));
            }
            assert_eq!(lab.heard(), [""; 0]);
            assert_eq!(cached(&lab).len(), count);
        }
    }
    assert_restores(&lab);
}

#[test]
fn a_run_that_makes_no_snapshot_keeps_the_trees_it_fetched() {
    let lab = lab();
    lab.backup();
    std::fs::remove_dir_all(lab.cache().root()).unwrap();
    let options = snap_engine::BackupOptions { skip_if_unchanged: true, ..lab.options() };
    assert_eq!(lab.backup_with(options).unwrap().snapshot, None);
    assert!(cached(&lab).len() > 1);
}

/// Files of the cached index, the manifest among them.
fn tables(lab: &Lab) -> Vec<PathBuf> {
    let files =
        std::fs::read_dir(lab.cache().root().join("tables").join(lab.repository().copy_id())).unwrap();
    files.map(|file| file.unwrap().path()).filter(|path| path.file_name().unwrap() != "lock").collect()
}

#[test]
fn damage_of_the_cached_index_stores_nothing_twice() {
    let lab = lab();
    lab.backup();
    lab.backup();
    for name_is_long in [false, true] {
        let harmed: Vec<_> = tables(&lab)
            .into_iter()
            .filter(|path| (path.file_name().unwrap().len() == 32) == name_is_long)
            .collect();
        assert!(!harmed.is_empty());
        for path in harmed {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()).unwrap();
        }
        std::fs::write(lab.source(&format!("new {name_is_long}")), b"new").unwrap();
        let report = lab.backup();
        assert_eq!((report.summary.files_new, report.summary.files_unchanged >= FILES), (1, true));
        assert!(report.summary.added_bytes < 3000, "{:?}", report.summary);
    }
    assert_eq!(lab.heard(), [""; 0]);
    assert_restores(&lab);
}

#[test]
fn what_the_cached_index_knows_and_the_store_does_not_is_stored_again() {
    let lab = lab();
    lab.backup();
    lab.backup();
    assert!(tables(&lab).len() >= 2);
    let mut lost = Vec::new();
    for prefix in ["index/", "packs/", "snapshots/"] {
        lab.backend
            .list(prefix, &mut |meta| {
                lost.push(meta.name);
                Ok(())
            })
            .unwrap();
    }
    lost.iter().for_each(|name| lab.backend.delete(name).unwrap());
    assert_eq!(lab.backup().summary.files_new, FILES);
    assert_restores(&lab);
}

#[test]
fn an_index_that_cannot_be_cached_is_a_warning() {
    let lab = lab();
    std::fs::create_dir_all(lab.cache().root()).unwrap();
    std::fs::write(lab.cache().root().join("tables"), b"in the way").unwrap();
    lab.backup();
    let report = lab.backup();
    assert_eq!((report.summary.files_unchanged, report.summary.added_bytes), (FILES, 0));
    let heard = lab.heard();
    assert!(heard.iter().any(|told| told.starts_with("warning the index cannot be written")), "{heard:?}");
    assert_restores(&lab);
}
