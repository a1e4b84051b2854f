//! Licences of everything that is built, from cargo's own metadata: `cargo-deny` does it better, where it is installed.

use std::collections::BTreeSet;

use snap_house_tests::{expect_none, licensed_packages, read};

fn allowed() -> BTreeSet<String> {
    let deny = read("deny.toml");
    let section = deny.split("\n[licenses]").nth(1).expect("deny.toml has licences");
    let list =
        section.split("\nallow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("and allows some");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether the parts of an SPDX expression that are allowed make all of it allowed. `AND` binds before `OR`; what
/// stands in parentheses comes first.
fn is_satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // The spelling from before SPDX: a slash is an `OR`.
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    if let Some(open) = expression.rfind('(') {
        let Some(length) = expression[open..].find(')') else { return false };
        let inner = is_satisfied(&expression[open + 1..open + length], allowed);
        let stands_for = if inner { "yes" } else { "no" };
        let simpler = format!("{}{stands_for}{}", &expression[..open], &expression[open + length + 1..]);
        return is_satisfied(&simpler, allowed);
    }
    let holds = |licence: &str| licence == "yes" || allowed.contains(licence);
    expression.split(" OR ").any(|all| all.split(" AND ").all(|licence| holds(licence.trim())))
}

#[test]
fn every_licence_is_allowed() {
    let allowed = allowed();
    let packages = licensed_packages();
    assert!(packages.len() > 100, "cargo metadata lists what is built");
    let refused = packages.iter().filter(|package| !is_satisfied(&package.licence, &allowed));
    let refused: Vec<_> = refused.map(|package| format!("{}: {:?}", package.name, package.licence)).collect();
    expect_none("deny.toml does not allow the licence of", &refused);
}

#[test]
fn expressions_are_understood() {
    let allowed =
        BTreeSet::from(["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(GPL-3.0 OR ISC) AND MIT",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_satisfied(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT WITH nothing"] {
        assert!(!is_satisfied(bad, &allowed), "{bad}");
    }
}
