//! What no source file may hold, and what each must.

use std::collections::BTreeSet;

use snap_house_tests::{expect_none, files, packages, read};

/// A file this long is to be split.
const MAX_LINES: usize = 800;

fn sources() -> Vec<(String, String)> {
    let below = ["crates", "tests", "benches", "fuzz"];
    let paths = below.iter().flat_map(|directory| files(directory, ".rs"));
    paths.map(|path| (read(&path), path)).map(|(text, path)| (path, text)).collect()
}

#[test]
fn no_file_is_too_long() {
    let long = |(path, text): (String, String)| {
        let lines = text.lines().count();
        (lines > MAX_LINES).then(|| format!("{path}: {lines} lines"))
    };
    expect_none("split these", &sources().into_iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_out_or_let_through() {
    // Written in two parts, so that this file does not find itself.
    let banned = [
        (concat!("#[ign", "ore"), "a test that does not run proves nothing"),
        (concat!("to", "do!("), "unfinished"),
        (concat!("unimpl", "emented!("), "unfinished"),
        (
            concat!("allow(unsafe", "_code)"),
            "unsafe code is for one module that maps files, and there is none yet",
        ),
        (concat!("FIX", "ME"), "fix it, or write down where it stands"),
    ];
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for (what, why) in banned.iter().filter(|(what, _)| line.contains(what)) {
                problems.push(format!("{path}:{}: {what}: {why}", number + 1));
            }
        }
    }
    expect_none("not here", &problems);
}

/// Every `F` and number that stands by itself.
fn invariants(text: &str) -> BTreeSet<u32> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices('F') {
        let digits: String = text[at + 1..].chars().take_while(char::is_ascii_digit).collect();
        let (before, after) = (text[..at].chars().next_back(), text[at + 1 + digits.len()..].chars().next());
        if let (Ok(number), false, false) = (digits.parse(), is_word(before), is_word(after)) {
            found.insert(number);
        }
    }
    found
}

#[test]
fn every_invariant_that_is_cited_exists() {
    let page = read("docs/format.md");
    let defined: Vec<u32> = (1..1000).filter(|number| page.contains(&format!("**F{number}**"))).collect();
    assert_eq!(
        defined,
        (1..=defined.len() as u32).collect::<Vec<_>>(),
        "the numbers of invariants have a gap"
    );
    let mut problems = Vec::new();
    let pages = files("docs", ".md").into_iter().map(|path| (path.clone(), read(&path)));
    for (path, text) in sources().into_iter().chain(pages) {
        let unknown = invariants(&text).into_iter().filter(|number| !defined.contains(number));
        problems.extend(unknown.map(|number| format!("{path} cites F{number}")));
    }
    expect_none("docs/format.md has no such invariant", &problems);
}

#[test]
fn every_section_of_the_format_that_is_cited_exists() {
    let page = read("docs/format.md");
    let citation = concat!("docs/format.md", "` §");
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (at, mark) in text.match_indices(citation) {
            let digits: String = text[at + mark.len()..].chars().take_while(char::is_ascii_digit).collect();
            if !page.contains(&format!("\n## {digits} ")) {
                problems.push(format!("{path} cites §{digits}"));
            }
        }
    }
    expect_none("docs/format.md has no such section", &problems);
}

#[test]
fn invariants_are_found_as_words_only() {
    assert_eq!(invariants("F1, (F22) F3a xF4 0xF5 F6_ F7"), BTreeSet::from([1, 7, 22]));
}

#[test]
fn versions_stand_in_one_place() {
    // Two crates that ask for two versions of a third build it twice.
    let mut seen = std::collections::BTreeMap::<String, String>::new();
    let mut problems = Vec::new();
    for package in packages() {
        let manifest = format!("{}/Cargo.toml", package.directory);
        for line in read(&manifest).lines() {
            let Some((name, rest)) = line.split_once(" = ") else { continue };
            let versioned = rest.starts_with('"') || rest.contains("version = ");
            let is_dependency = package.dependencies.iter().any(|it| it.name == name);
            if is_dependency
                && versioned
                && let Some(other) = seen.insert(name.to_owned(), manifest.clone())
            {
                problems.push(format!("{name} has a version in {other} and in {manifest}"));
            }
        }
    }
    expect_none("move the version to [workspace.dependencies]", &problems);
}
