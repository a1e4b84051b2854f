//! `docs/cli.md` is made from the clap tree; `scripts/docs` makes it anew.

use std::process::Command;

#[test]
fn the_reference_is_current() {
    let output = Command::new(env!("CARGO_BIN_EXE_snap")).args(["man", "--markdown"]).output().unwrap();
    assert!(output.status.success());
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let written = std::fs::read(page).unwrap();
    assert!(output.stdout == written, "docs/cli.md is out of date: run scripts/docs");
}
