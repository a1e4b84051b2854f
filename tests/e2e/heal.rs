//! A pack is lost: the next backup must not build on it.

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
    type Damage = fn(&std::path::Path);
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
