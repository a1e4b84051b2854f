//! The documentation against the program: pages, links, commands, flags, exit codes, query keys, variables.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use snap_house_tests::{anchors, expect_none, files, links, packages, read, root, shell_lines, table};

/// Pages in the root, those of the book, and those beside what they are about.
fn pages() -> Vec<String> {
    let own = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned);
    let below = ["docs", "benches", "crates", "fuzz", "tests"]
        .into_iter()
        .flat_map(|directory| files(directory, ".md"));
    own.into_iter().chain(below).collect()
}

/// `a/../b` as `b`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[test]
fn the_summary_lists_every_page_once() {
    let listed: Vec<String> =
        links(&read("docs/SUMMARY.md")).iter().map(|link| format!("docs/{link}")).collect();
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "docs/SUMMARY.md lists a page twice");
    let there: BTreeSet<_> =
        files("docs", ".md").into_iter().filter(|path| path != "docs/SUMMARY.md").collect();
    let missing = there.difference(&unique).map(|path| format!("{path} is not in docs/SUMMARY.md"));
    let dead = unique.difference(&there).map(|path| format!("{path} is in docs/SUMMARY.md alone"));
    expect_none("docs/SUMMARY.md", &missing.chain(dead).collect::<Vec<_>>());
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match target {
                "" => PathBuf::from(&page),
                target => plain(&Path::new(&page).parent().unwrap_or(Path::new("")).join(target)),
            };
            let is_there = root().join(&target).exists();
            let knows_anchor = || anchors(&read(&target.to_string_lossy())).iter().any(|it| it == anchor);
            if !is_there || !anchor.is_empty() && !knows_anchor() {
                problems.push(format!("{page}: {link}"));
            }
        }
    }
    expect_none("links that lead nowhere", &problems);
}

/// A section of `docs/cli.md`: the command and what is said of it.
fn reference() -> Vec<(String, String)> {
    let page = read("docs/cli.md");
    let sections = page
        .split("\n## `")
        .skip(1)
        .flat_map(|part| part.split("\n### `"))
        .flat_map(|part| part.split("\n#### `"));
    sections
        .filter_map(|part| part.split_once('`'))
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect()
}

/// A line cut where one command ends and the next begins.
fn commands(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if matches!(c, ';' | '|' | '&') => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}

/// The words of each call of `snap` in a line, without the program.
fn calls(line: &str) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    for part in commands(line) {
        let words: Vec<String> = part.split_whitespace().map(str::to_owned).collect();
        // Programs beside it, as benchmarks are, are not on its page.
        if words.windows(2).any(|pair| pair[0] == "--bin" && pair[1] != "snap") {
            continue;
        }
        let at = match part.contains("cargo run") {
            true => words.iter().position(|word| word == "--"),
            false => words.iter().take(4).position(|word| word == "snap"),
        };
        if let Some(at) = at {
            out.push(words[at + 1..].to_vec());
        }
    }
    out
}

/// What of a call of `snap` the reference does not know.
fn unknown(reference: &[(String, String)], words: &[String]) -> Vec<String> {
    let fits = |(name, _): &&(String, String)| {
        let parts: Vec<&str> = name.split(' ').skip(1).collect();
        let own = words.iter().position(|word| Some(&word.as_str()) == parts.first());
        own.is_some_and(|at| parts.iter().zip(&words[at..]).filter(|(a, b)| a == b).count() == parts.len())
    };
    let Some((name, text)) = reference.iter().filter(fits).max_by_key(|(name, _)| name.len()) else {
        let is_known = words.iter().any(|word| word == "--help" || word == "--version");
        return if is_known { Vec::new() } else { vec!["no command".to_owned()] };
    };
    let global =
        reference.iter().find(|(name, _)| name == "snap").map(|(_, text)| text).expect("the program itself");
    let flags = words.iter().take_while(|word| *word != "--").filter(|word| word.starts_with("--"));
    flags
        .map(|flag| flag.split('=').next().unwrap_or_default())
        .filter(|flag| {
            let has = |text: &str| text.contains(&format!("{flag} ")) || text.contains(&format!("{flag}`"));
            !has(text) && !has(global) && *flag != "--help"
        })
        .map(|flag| format!("{name} has no {flag}"))
        .collect()
}

#[test]
fn commands_and_flags_in_the_documentation_exist() {
    let reference = reference();
    let mut problems = Vec::new();
    let mut seen = 0;
    for page in pages().into_iter().filter(|page| page != "docs/cli.md") {
        for line in shell_lines(&read(&page)) {
            for words in calls(&line) {
                seen += 1;
                let unknown = unknown(&reference, &words).into_iter();
                problems.extend(unknown.map(|what| format!("{page}: {what}: {line}")));
            }
        }
    }
    assert!(seen > 20, "the documentation shows how the program is used");
    expect_none("docs/cli.md does not know", &problems);
}

#[test]
fn commands_and_flags_in_messages_exist() {
    let reference = reference();
    let mut problems = Vec::new();
    let mut seen = 0;
    // The page's own remark names a flag that is not for users.
    let sources = files("crates/snap-cli/src", ".rs").into_iter();
    for file in sources.filter(|file| !file.ends_with("render/markdown.rs")) {
        let all = read(&file);
        // Comments speak to us, but for those that are help.
        let is_shown = |line: &&str| file.contains("/args/") || !line.trim_start().starts_with("//");
        let text = all.lines().filter(is_shown).collect::<Vec<_>>().join("\n");
        for quoted in text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("snap ")) {
            let words: Vec<String> = quoted.split_whitespace().map(str::to_owned).collect();
            // A name in capitals stands for whatever the command is.
            if words.first().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) {
                seen += 1;
                let unknown = unknown(&reference, &words).into_iter();
                problems.extend(unknown.map(|what| format!("{file}: {what}: snap {quoted}")));
            }
        }
    }
    assert!(seen > 20, "messages say what to type");
    expect_none("docs/cli.md does not know", &problems);
}

#[test]
fn scripts_and_benches_in_the_documentation_exist() {
    let packages = packages();
    let mut problems = Vec::new();
    for page in pages() {
        let text = read(&page);
        for line in text.lines() {
            for word in line.split(|c: char| c.is_whitespace() || matches!(c, '`' | '(' | ')' | ',' | ';')) {
                let word = word.trim_end_matches(['.', ':']);
                if word.starts_with("scripts/") && !root().join(word).exists() {
                    problems.push(format!("{page}: {word}"));
                }
            }
            if let Some((_, rest)) = line.split_once("cargo bench -p ") {
                let mut words = rest.split([' ', '`']);
                let (package, bench) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
                let is_there = |it: &snap_house_tests::Package| {
                    it.name == package && it.benches.iter().any(|b| b == bench)
                };
                if !packages.iter().any(is_there) {
                    problems.push(format!("{page}: cargo bench -p {package} --bench {bench}"));
                }
            }
        }
    }
    expect_none("not there", &problems);
}

#[test]
fn every_exit_code_is_documented() {
    let source = read("crates/snap-cli/src/exit.rs");
    let body = source
        .split("pub enum Exit {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .expect("the exit codes");
    let codes: BTreeSet<String> = body
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = "))
        .map(|(_, code)| code.to_owned())
        .collect();
    let documented: BTreeSet<String> =
        table(&read("docs/guide/scripting.md"), "Exit codes").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(codes, documented, "docs/guide/scripting.md and crates/snap-cli/src/exit.rs");
}

/// Texts in double quotes.
fn quoted(source: &str) -> impl Iterator<Item = &str> {
    source.split('"').skip(1).step_by(2)
}

#[test]
fn every_query_key_and_variable_of_a_store_is_documented() {
    let page = read("docs/guide/stores.md");
    let mut problems = Vec::new();
    for path in files("crates/snap-backend/src/remote/services", ".rs") {
        let source = read(&path);
        let keys = source.split("const KEYS: &[&str] = &[").nth(1).and_then(|rest| rest.split(']').next());
        let is_variable = |text: &&str| {
            text.contains('_')
                && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        };
        let wanted = quoted(keys.unwrap_or_default()).chain(quoted(&source).filter(is_variable));
        problems.extend(
            wanted.filter(|word| !page.contains(&format!("`{word}`"))).map(|word| format!("{word} ({path})")),
        );
    }
    expect_none("docs/guide/stores.md does not name", &problems);
}

#[test]
fn every_variable_of_the_program_is_documented() {
    let sources = files("crates/snap-cli/src", ".rs");
    let documented: String = ["docs/guide/scripting.md", "docs/guide/stores.md"].map(read).concat();
    let mut problems = BTreeSet::new();
    for path in sources {
        for (at, _) in read(&path).match_indices("SNAP_") {
            let text = &read(&path)[at..];
            let name: String = text.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            if !documented.contains(&format!("`{name}`")) {
                problems.insert(format!("{name} ({path})"));
            }
        }
    }
    expect_none("docs/guide/scripting.md does not name", &problems.into_iter().collect::<Vec<_>>());
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let numbers: Vec<usize> = files("docs/adr", ".md")
        .iter()
        .map(|path| {
            let name = path.trim_start_matches("docs/adr/");
            let number = name.split('-').next().unwrap_or_default();
            assert!(read(path).starts_with(&format!("# {number} ")), "{path} begins with its number");
            number.parse().unwrap_or_else(|_| panic!("{path} does not begin with a number"))
        })
        .collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

#[test]
fn files_in_the_architecture_exist() {
    let page = read("docs/architecture.md");
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let (mut problems, mut seen) = (Vec::new(), 0);
    for row in rows {
        let mut of = None;
        for word in row.split('`').skip(1).step_by(2) {
            if root().join("crates").join(word).join("src").is_dir() {
                of = Some(word);
            } else if let Some(of) = of.filter(|_| word.ends_with(".rs") || word.ends_with('/')) {
                seen += 1;
                if !root().join("crates").join(of).join("src").join(word).exists() {
                    problems.push(format!("{of}: {word}"));
                }
            }
        }
    }
    assert!(seen > 50, "the page says where things are");
    expect_none("docs/architecture.md names what is not there", &problems);
}
