//! The programs that people point at a mount.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Lab, odd};
use crate::{can_mount, mount_latest};

/// Runs a program that must succeed.
fn run(program: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let output = Command::new(program).args(args.iter().map(|arg| arg.as_ref())).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&text));
    output
}

fn make(top: &Path) {
    odd::make_many(top, 400);
    for number in 0..20 {
        let dir = top.join(format!("d{number}/e"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("text"), odd::text(40_000 + number)).unwrap();
        std::fs::write(dir.join("noise"), odd::noise(number as u64 + 1, 300_000)).unwrap();
        std::fs::hard_link(dir.join("text"), top.join(format!("again {number}"))).unwrap();
        std::os::unix::fs::symlink("../nowhere\u{e4}", dir.join("link")).unwrap();
    }
    odd::set_xattr(&top.join("d3/e/text"), "user.note", b"\xff\0");
    odd::set_xattr(&top.join("d4/e/noise"), "system.posix_acl_access", &odd::acl(12_345));
    odd::sparse(&top.join("sparse"), 30 << 20, &[(9 << 20, odd::noise(3, 2 << 20))]);
    std::fs::write(top.join("d7/e/needle"), b"in a\nhaystack-17\n").unwrap();
    odd::set_time(&top.join("d7/e"), 1_111_111_111, 111_111_111);
}

#[test]
fn diff_cp_rsync_and_grep() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    make(&lab.source(""));
    lab.backup();
    let (mounted, top) = mount_latest(&lab);
    // Times of one second are the same to rsync: what it makes must not look as old as the source.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    run("diff", &[&"-r", &"--no-dereference", &lab.source(""), &top]);
    for (name, copy) in [("cp", &["-a", "--sparse=auto"][..]), ("rsync", &["-aHAXS"])] {
        let target = lab.dir.path().join(name);
        std::fs::create_dir(&target).unwrap();
        let from = format!("{}/.", top.display());
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = copy.iter().map(|arg| arg as _).collect();
        args.extend([&from as &dyn AsRef<std::ffi::OsStr>, &target]);
        run(name, &args);
        use crate::common::compare::{Leeway, assert_same};
        assert_same(&lab.source(""), &target, Leeway::default());
    }
    let found = run("grep", &[&"-rn", &"haystack-17", &top]);
    let line = format!("{}:2:haystack-17\n", top.join("d7/e/needle").display());
    assert_eq!(String::from_utf8(found.stdout).unwrap(), line);
    // Nothing is transferred when all is the same.
    let again = lab.dir.path().join("rsync/");
    let from = format!("{}/", top.display());
    let listed = run("rsync", &[&"-aHAXSn", &"--itemize-changes", &from, &again]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "");
    assert_eq!(mounted.ear.heard(), [""; 0]);
}

#[test]
fn sqlite_opens_a_database_inside() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let make = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('create table t(id integer primary key, word text)')
db.executemany('insert into t(word) values (?)', ((f'word {n}' * 9,) for n in range(60000)))
db.execute('create index w on t(word)')
db.commit()";
    run("python3", &[&"-c", &make, &lab.source("a.db")]);
    lab.backup();
    let (_mounted, top) = mount_latest(&lab);
    let ask = "import sqlite3, sys
db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
print(db.execute('pragma integrity_check').fetchone()[0])
print(db.execute('select id from t where word = ?', ('word 31415' * 9,)).fetchone()[0])";
    let asked = run("python3", &[&"-c", &ask, &top.join("a.db")]);
    assert_eq!(String::from_utf8(asked.stdout).unwrap(), "ok\n31416\n");
}
