//! What the tests of the house look at: the source tree, the workspace as cargo sees it, tables and links of
//! Markdown pages. The tests themselves are in `tests/`: `layering`, `sources`, `docs`, `licences`.
//!
//! [`packages`] lists the members of the workspace with their dependencies, [`files`] finds files, [`table`] reads a
//! Markdown table as rows of cells. Not here: anything of the product; these tests read it, and never link it.
//!
//! ```
//! let rows = snap_house_tests::table("## Words\n\n| word | meaning |\n|---|---|\n| `pack` | blobs |\n", "Words");
//! assert_eq!(rows, [["pack", "blobs"]]);
//! ```

mod markdown;
mod workspace;

pub use markdown::{anchors, headings, links, shell_lines, table};
pub use workspace::{Dependency, Licensed, Package, licensed_packages, packages};

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two levels below the root").to_owned()
}

/// A file of the workspace; a test that needs it fails with its name.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below a directory whose names end with `suffix`, relative to the root, sorted. What is built or fetched is
/// left out.
pub fn files(below: &str, suffix: &str) -> Vec<String> {
    let root = root();
    let mut out = Vec::new();
    let mut waiting = vec![root.join(below)];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                let is_made = matches!(name.as_str(), "target" | "book");
                if !is_made && !name.starts_with('.') {
                    waiting.push(path);
                }
            } else if name.ends_with(suffix) {
                let relative = path.strip_prefix(&root).expect("it was found below the root");
                out.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    out.sort();
    out
}

/// Fails with all that is wrong at once.
///
/// # Panics
///
/// If there is anything.
pub fn expect_none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n  {}", problems.join("\n  "));
}
