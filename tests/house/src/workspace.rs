use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::root;

/// A member of the workspace.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// Its directory, relative to the root.
    pub directory: String,
    /// The roots of its library and programs, relative to the workspace.
    pub roots: Vec<String>,
    /// Names of its benches.
    pub benches: Vec<String>,
    /// What it depends on directly.
    pub dependencies: Vec<Dependency>,
}

/// A direct dependency.
#[derive(Debug)]
pub struct Dependency {
    /// The name of the package.
    pub name: String,
    /// Whether only tests and benches use it.
    pub is_dev: bool,
}

/// A package that the program or its tests are built from, and its licence.
#[derive(Debug)]
pub struct Licensed {
    /// Its name.
    pub name: String,
    /// An SPDX expression.
    pub licence: String,
}

fn metadata(args: &[&str]) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .args(args)
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn relative(path: &Value) -> String {
    let path = text(path);
    Path::new(&path).strip_prefix(root()).map_or(path.clone(), |path| path.to_string_lossy().into_owned())
}

/// The members of the workspace.
pub fn packages() -> Vec<Package> {
    let metadata = metadata(&["--no-deps"]);
    list(&metadata["packages"]).iter().map(package).collect()
}

fn package(package: &Value) -> Package {
    let targets = |kinds: &[&str], field: &str| -> Vec<Value> {
        let is_wanted =
            |target: &&Value| list(&target["kind"]).iter().any(|kind| kinds.contains(&text(kind).as_str()));
        list(&package["targets"]).iter().filter(is_wanted).map(|target| target[field].clone()).collect()
    };
    let manifest = relative(&package["manifest_path"]);
    Package {
        name: text(&package["name"]),
        description: text(&package["description"]),
        directory: manifest.trim_end_matches("/Cargo.toml").to_owned(),
        roots: targets(&["lib", "bin"], "src_path").iter().map(relative).collect(),
        benches: targets(&["bench"], "name").iter().map(text).collect(),
        dependencies: list(&package["dependencies"])
            .iter()
            .map(|it| Dependency { name: text(&it["name"]), is_dev: it["kind"] == "dev" })
            .collect(),
    }
}

/// Everything that is built on Linux, tests included; members of the workspace are left out.
pub fn licensed_packages() -> Vec<Licensed> {
    let metadata = metadata(&["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let own: BTreeSet<String> = list(&metadata["workspace_members"]).iter().map(text).collect();
    list(&metadata["packages"])
        .iter()
        .filter(|package| !own.contains(&text(&package["id"])))
        .map(|package| Licensed { name: text(&package["name"]), licence: text(&package["license"]) })
        .collect()
}
