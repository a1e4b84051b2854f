//! Who depends on whom, and who may use what: `docs/architecture.md` says it, cargo shows it, `deny.toml` repeats it.

use std::collections::{BTreeMap, BTreeSet};

use snap_house_tests::{Package, expect_none, headings, packages, read, table};

const PAGE: &str = "docs/architecture.md";

fn names(cell: &str) -> BTreeSet<String> {
    cell.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "nothing")
        .map(str::to_owned)
        .collect()
}

/// The first two columns of a table: a name, and a set of names.
fn two_columns(heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    table(&read(PAGE), heading).into_iter().map(|row| (row[0].clone(), names(&row[1]))).collect()
}

#[test]
fn the_edges_between_crates_are_those_of_the_table() {
    let packages = packages();
    let members: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let edges = |package: &Package| -> BTreeSet<String> {
        let own = package.dependencies.iter().filter(|it| !it.is_dev && members.contains(it.name.as_str()));
        own.map(|it| it.name.clone()).collect()
    };
    let found: BTreeMap<_, _> =
        packages.iter().map(|package| (package.name.clone(), edges(package))).collect();
    let written = two_columns("Who depends on whom");
    let mut problems = Vec::new();
    for name in found.keys().chain(written.keys()).collect::<BTreeSet<_>>() {
        match (found.get(name), written.get(name)) {
            (Some(found), Some(written)) => {
                problems.extend(
                    found.difference(written).map(|to| format!("{name} -> {to} is not in the table")),
                );
                problems.extend(
                    written.difference(found).map(|to| format!("{name} -> {to} is in the table alone")),
                );
            }
            (Some(_), None) => problems.push(format!("{name} has no row")),
            _ => problems.push(format!("{name} is no crate of the workspace")),
        }
    }
    expect_none(&format!("{PAGE} and Cargo.toml disagree"), &problems);
}

#[test]
fn tests_reach_down_too() {
    // A crate's tests may use the crates below it and the doubles, never what stands above.
    let below = two_columns("Who depends on whom");
    let mut reach = below.clone();
    for _ in 0..below.len() {
        for (name, direct) in &below {
            let further: BTreeSet<_> =
                direct.iter().flat_map(|it| reach.get(it).cloned().unwrap_or_default()).collect();
            reach.entry(name.clone()).or_default().extend(further);
        }
    }
    let mut problems = Vec::new();
    for package in packages() {
        for it in package.dependencies.iter().filter(|it| it.is_dev && below.contains_key(&it.name)) {
            let is_fine = it.name == package.name
                || it.name == "snap-testkit"
                || it.name == "snap-reader"
                || reach[&package.name].contains(&it.name);
            if !is_fine {
                problems.push(format!("tests of {} use {}", package.name, it.name));
            }
        }
    }
    expect_none("tests that reach up", &problems);
}

#[test]
fn only_those_named_use_what_is_rationed() {
    let mut problems = Vec::new();
    let packages = packages();
    for (what, allowed) in two_columns("Who may use what") {
        let uses = |package: &&Package| package.dependencies.iter().any(|it| it.name == what);
        let users: BTreeSet<_> = packages.iter().filter(uses).map(|package| package.name.clone()).collect();
        problems.extend(users.difference(&allowed).map(|user| format!("{user} may not use {what}")));
        problems
            .extend(allowed.difference(&users).map(|user| format!("{user} does not use {what} any more")));
    }
    expect_none(&format!("{PAGE}, \"Who may use what\""), &problems);
}

#[test]
fn cargo_deny_is_told_the_same() {
    let members: BTreeSet<String> = packages().into_iter().map(|package| package.name).collect();
    let rules = two_columns("Who may use what");
    let deny = read("deny.toml");
    let mut problems = Vec::new();
    let mut seen = 0;
    for line in
        deny.lines().map(str::trim).filter(|line| line.starts_with("{ crate = ") && line.contains("wrappers"))
    {
        let mut quoted = line.split('"').skip(1).step_by(2).map(str::to_owned);
        let what = quoted.next().expect("the crate's name comes first");
        let own: BTreeSet<String> = quoted.filter(|name| members.contains(name)).collect();
        seen += 1;
        if rules.get(&what) != Some(&own) {
            problems.push(format!("deny.toml gives {what} to {own:?}, {PAGE} to {:?}", rules.get(&what)));
        }
    }
    assert!(seen > 5, "deny.toml is not read as it was written");
    expect_none("two rules", &problems);
}

#[test]
fn every_crate_says_what_it_is_and_denies_unsafe_code() {
    let mut problems = Vec::new();
    for package in packages() {
        if package.description.is_empty() {
            problems.push(format!("{} has no description", package.name));
        }
        for root in &package.roots {
            if !read(root).starts_with("//! ") {
                problems.push(format!("{root} does not begin with what it is for"));
            }
        }
        if !read(&format!("{}/Cargo.toml", package.directory)).contains("[lints]\nworkspace = true") {
            problems.push(format!("{} does not take the lints of the workspace", package.name));
        }
    }
    if !read("Cargo.toml").contains("unsafe_code = \"deny\"") {
        problems.push("the workspace does not deny unsafe code".to_owned());
    }
    expect_none("crates", &problems);
}

#[test]
fn the_code_map_names_every_crate() {
    let page = read(PAGE);
    assert!(headings(&page).iter().any(|heading| heading == "Where is what"));
    let map = page.split("\n## Where is what").nth(1).and_then(|rest| rest.split("\n## ").next());
    let map = map.expect("the heading was just found");
    let unnamed =
        packages().into_iter().map(|package| package.name).filter(|name| !map.contains(name.as_str()));
    expect_none("crates that the code map does not name", &unnamed.collect::<Vec<_>>());
}
