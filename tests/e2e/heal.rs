//! Damage: the next backup must not build on it, and `check --repair` brings back what another copy or a file has.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::copies::{NAMES, Three};
use crate::lab::{Lab, files_below, noise};

#[test]
fn a_backup_after_a_pack_was_lost_restores() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let source = lab.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), noise(3, 2_000_000)).unwrap();
    lab.run("host", &["backup", "source"]).summary(0);
    let restore = |target: &str| {
        let path = format!("latest:{}", source.display());
        lab.run("host", &["restore", &path, "--target", lab.path(target).to_str().unwrap()])
    };
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 2] = [
        ("deleted", |pack| std::fs::remove_file(pack).unwrap()),
        ("truncated", |pack| {
            std::fs::OpenOptions::new().write(true).open(pack).unwrap().set_len(1000).unwrap()
        }),
    ];
    for (name, damage) in damages {
        files_below(&lab.path("repo/packs")).iter().for_each(|pack| damage(pack));
        assert_eq!(restore(&format!("damaged-{name}")).code, 4);
        let found = lab.run("host", &["check"]);
        assert!(found.summary(4)["findings"].as_u64().unwrap() > 0);
        let again = lab.run("host", &["backup", "source"]);
        assert!(again.summary(0)["added_bytes"].as_u64().unwrap() > 2_000_000, "{name}");
        restore(&format!("healed-{name}")).summary(0);
        assert!(std::fs::read(lab.path(&format!("healed-{name}/file"))).unwrap() == noise(3, 2_000_000));
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The largest file of an area, or the smallest.
fn one_of(dir: &Path, largest: bool) -> PathBuf {
    let mut files = files_below(dir);
    files.sort_by_key(|file| std::fs::metadata(file).unwrap().len());
    if largest { files.pop().unwrap() } else { files.swap_remove(0) }
}

/// Three copies with four snapshots each that hold different packs, and a pin.
fn diverged() -> Three {
    let three = Three::new();
    for version in 1..=4 {
        three.version(version);
        three.backup();
    }
    three.run(&["pin", "latest", "--reason", "why"]).summary(0);
    for name in ["disk", "cloud"] {
        three.run(&["forget", "latest~3", "--copy", name]).summary(0);
        three.run(&["prune", "--copy", name, "--grace", "0", "--max-unused", "0"]).summary(0);
    }
    three.run(&["forget", "latest~2", "--copy", "cloud"]).summary(0);
    three.run(&["prune", "--copy", "cloud", "--grace", "0", "--max-unused", "0"]).summary(0);
    NAMES.iter().for_each(|name| three.is_clean(name));
    three
}

#[test]
fn whatever_is_damaged_in_one_copy_comes_back_from_the_others() {
    let three = diverged();
    let at = |name: &str| three.lab.path("repo").join(name);
    let truncate =
        |path: &Path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    // In the middle of the chain: what nobody names is not missed.
    let second: Vec<Value> = three.snapshots("disk");
    let middle = at("snapshots").join(second[1].as_str().unwrap());
    let middle = match middle.exists() {
        true => middle,
        false => files_below(&at("snapshots"))
            .into_iter()
            .find(|it| it.ends_with(second[1].as_str().unwrap()))
            .unwrap(),
    };
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let damages: Vec<(&str, Damage<'_>)> = vec![
        ("a pack of data is rotten", Box::new(|| flip(&one_of(&at("packs"), true)))),
        ("a pack of trees is rotten", Box::new(|| flip(&one_of(&at("packs"), false)))),
        ("a pack is cut", Box::new(|| truncate(&one_of(&at("packs"), true)))),
        ("a pack is gone", Box::new(|| remove(&one_of(&at("packs"), true)))),
        ("all packs are rotten", Box::new(|| files_below(&at("packs")).iter().for_each(|it| flip(it)))),
        ("all packs are gone", Box::new(|| files_below(&at("packs")).iter().for_each(|it| remove(it)))),
        ("the index is rotten", Box::new(|| files_below(&at("index")).iter().for_each(|it| flip(it)))),
        ("the index is gone", Box::new(|| std::fs::remove_dir_all(at("index")).unwrap())),
        (
            "packs and index are gone",
            Box::new(|| {
                std::fs::remove_dir_all(at("index")).unwrap();
                std::fs::remove_dir_all(at("packs")).unwrap();
            }),
        ),
        ("a snapshot is rotten", Box::new(|| flip(&middle))),
        ("a snapshot is gone", Box::new(|| remove(&middle))),
        ("a snapshot is empty", Box::new(|| std::fs::write(&middle, b"").unwrap())),
        ("an epoch is rotten", Box::new(|| flip(&one_of(&at("epochs"), true)))),
        ("the epoch is gone", Box::new(|| remove(&one_of(&at("epochs"), true)))),
        ("a mark is rotten", Box::new(|| flip(&one_of(&at("marks"), true)))),
        ("the config is rotten", Box::new(|| flip(&at("config")))),
        ("the second config is gone", Box::new(|| remove(&at("config.bak")))),
        (
            "no config is whole",
            Box::new(|| {
                flip(&at("config"));
                remove(&at("config.bak"));
            }),
        ),
    ];
    for (what, damage) in &damages {
        make_writable(&at(""));
        damage();
        let found = three.run(&["check", "--read-data", "--copy", "disk"]);
        assert_ne!(found.code, 0, "{what}");
        let healed = three.run(&["check", "--repair", "--copy", "disk"]);
        assert_eq!(healed.code, 0, "{what}: {:?}\n{}", healed.lines, healed.stderr);
        assert!(healed.summary(0)["healed"].as_u64().unwrap() > 0, "{what}: {:?}", healed.lines);
        three.is_clean("disk");
        three.restores("disk");
    }
    assert_eq!(three.snapshots("disk").len(), 3);
    let pins = three.run(&["pin", "--list", "--copy", "disk"]);
    assert_eq!(pins.summary(0)["pins"], 1);
    // Nobody else was touched.
    for name in NAMES {
        three.is_clean(name);
        three.restores(name);
    }
}

fn make_writable(dir: &Path) {
    for file in files_below(dir) {
        let mut permissions = std::fs::metadata(&file).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)] // it is ours
        permissions.set_readonly(false);
        std::fs::set_permissions(&file, permissions).unwrap();
    }
}

#[test]
fn a_record_that_is_rotten_comes_back() {
    let three = diverged();
    let records = files_below(&three.lab.path("elsewhere/repo/records"));
    assert_eq!(records.len(), 1, "the pin");
    make_writable(&three.lab.path("elsewhere/repo"));
    flip(&records[0]);
    three.run(&["check", "--copy", "second"]).summary(4);
    let healed = three.run(&["check", "--copy", "second", "--repair"]);
    let from = &healed.summary(0)["brought_back"][0]["from"];
    assert!(["disk", "cloud"].contains(&from.as_str().unwrap()), "{from}");
    three.is_clean("second");
}

#[test]
fn what_no_copy_has_comes_back_from_files_that_are_what_they_were() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let source = lab.path("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..3 {
        std::fs::write(source.join(format!("noise {number}")), noise(number, 1_500_000)).unwrap();
    }
    lab.run("host", &["backup", "source"]).summary(0);
    make_writable(&lab.path("repo"));
    flip(&one_of(&lab.path("repo/packs"), true));
    let found = lab.run("host", &["check", "--read-data"]);
    assert_eq!(found.summary(4)["findings"], 1);
    let paths: Vec<&Value> = found.lines[0]["paths"].as_array().unwrap().iter().collect();
    let damaged = PathBuf::from(paths[0].as_str().unwrap());
    assert_eq!((paths.len(), damaged.parent()), (1, Some(&*source)));
    // Another file, and one that has changed, help nobody.
    let content = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, noise(9, 1_500_000)).unwrap();
    let left = lab.run("host", &["check", "--repair"]);
    assert_eq!((&left.summary(4)["lost"], &left.summary(4)["findings"]), (&1.into(), &1.into()));
    std::fs::write(&damaged, &content).unwrap();
    let healed = lab.run("host", &["check", "--repair"]);
    assert_eq!((&healed.summary(0)["file_blobs"], &healed.summary(0)["lost"]), (&1.into(), &0.into()));
    lab.run("host", &["check", "--read-data"]).summary(0);
    std::fs::remove_dir_all(&source).unwrap();
    let path = format!("latest:{}", source.display());
    lab.run("host", &["restore", &path, "--target", lab.path("back").to_str().unwrap()]).summary(0);
    assert!(std::fs::read(lab.path("back").join(damaged.file_name().unwrap())).unwrap() == content);
}

#[test]
fn only_an_owner_heals() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let key = lab.path("reader.key");
    lab.run("host", &["key", "add", "--role", "restore", "--new-key-file", key.to_str().unwrap()]).summary(0);
    lab.run_with_key("host", "reader.key", &["check", "--repair"]).summary(12);
}

#[test]
fn a_snapshot_that_is_damaged_is_read_from_another_copy() {
    let three = Three::new();
    three.backup();
    three.version(2);
    let newest = three.backup()["snapshot"].clone();
    make_writable(&three.lab.path("repo"));
    let files = files_below(&three.lab.path("repo/snapshots"));
    flip(files.iter().find(|file| file.ends_with(newest.as_str().unwrap())).unwrap());
    let target = three.lab.path("restored");
    let source = format!("latest:{}", three.lab.path("source").display());
    let args = ["restore", &source, "--target", target.to_str().unwrap(), "--cache-dir", "cold"];
    let ran = three.run(&args);
    assert_eq!(ran.summary(0)["snapshot"], newest);
    assert!(ran.stderr.contains("come from the copy second"), "{}", ran.stderr);
    assert!(
        std::fs::read(target.join("noise")).unwrap()
            == std::fs::read(three.lab.path("source/noise")).unwrap()
    );
}
