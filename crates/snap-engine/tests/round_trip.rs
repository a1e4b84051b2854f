//! Backing up and restoring real trees, against real directories.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

#[test]
fn a_backup_can_be_made_twice() {
    let lab = common::Lab::new();
    std::fs::write(lab.source("a.txt"), b"hello").unwrap();
    std::fs::create_dir(lab.source("sub")).unwrap();
    std::fs::write(lab.source("sub/big"), vec![7u8; 20 << 20]).unwrap();
    let first = lab.backup();
    assert_eq!((first.summary.files, first.summary.files_new), (2, 2));
    let second = lab.backup();
    assert_eq!((second.summary.files_unchanged, second.summary.added_bytes), (2, 0));
    assert_eq!(second.parent, first.snapshot);
}
