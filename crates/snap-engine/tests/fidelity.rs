//! What was backed up is what comes back: every kind of entry, every attribute, whole and in parts.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::compare::{Leeway, assert_same};
use common::{Lab, odd};
use snap_engine::{Context, Event, Observer, Overwrite, RestoreOptions, RestoreReport, RestoreTarget};

const EXACT: Leeway = Leeway { owners: false, holes: false, roots: false, dir_times: false };

/// Removes what a temporary directory cannot remove by path.
struct Deep(PathBuf);

impl Drop for Deep {
    fn drop(&mut self) {
        odd::remove_deep(&self.0, "d".repeat(250).as_bytes());
    }
}

/// Backs up a tree of everything, restores it, and backs it up again.
fn everything_comes_back(lab: &Lab, leeway: Leeway) {
    let (source, target) = (lab.source(""), lab.dir.path().join("target"));
    let _deep = [Deep(source.clone()), Deep(target.clone())];
    let (dirs, files, others) = odd::count(&source);
    let first = lab.backup().summary;
    let ancestors = source.ancestors().count() as u64 - 2;
    assert_eq!((first.files, first.dirs, first.others), (files, dirs + ancestors, others));
    assert_eq!((first.unreadable, first.vanished, first.changed_while_read), (0, 0, 0));
    let heard = lab.heard();
    assert!(heard.len() == 1 && heard[0].contains("/socket: left out"), "{heard:?}");

    let report = lab.restore(&target, &RestoreOptions { verify: true, ..RestoreOptions::default() });
    assert_eq!(lab.heard(), [""; 0]);
    assert_eq!((report.damaged, report.failed, report.deleted, report.overwritten), (0, 0, 0, 0));
    // All but the target itself.
    assert_eq!(report.restored + report.skipped, dirs - 1 + files + others);
    assert_same(&source, &target, leeway);

    let second = lab.backup().summary;
    assert_eq!((second.files_unchanged, second.files_new, second.files_changed), (files, 0, 0));
    assert_eq!((second.added_bytes, second.stored_bytes), (0, 0));
    lab.check_over(&lab.backend);
    // A second restore finds everything in place.
    let again = lab.restore(&target, &RestoreOptions::default());
    assert_eq!((again.restored, again.restored_bytes, again.fetched_bytes, again.requests), (0, 0, 0, 0));
    assert_same(&source, &target, leeway);
}

#[test]
fn a_tree_of_everything_comes_back() {
    let lab = Lab::new();
    odd::make_ordinary(&lab.source(""));
    odd::make_many(&lab.source(""), 5000);
    if odd::is_root() {
        odd::make_privileged(&lab.source(""));
    }
    everything_comes_back(&lab, EXACT);
    let hole = lab.dir.path().join("target/sparse/hole");
    assert!(odd::allocated(&hole) < 1 << 20 && hole.metadata().unwrap().len() == 100 << 30);
}

#[test]
fn an_ordinary_user_gets_back_what_is_his() {
    if odd::as_ordinary_user("an_ordinary_user_gets_back_what_is_his") {
        return;
    }
    let lab = Lab::new();
    odd::make_ordinary(&lab.source(""));
    everything_comes_back(&lab, EXACT);
}

#[test]
fn an_ordinary_user_restores_what_root_backed_up() {
    if !odd::is_root() {
        return;
    }
    // Made by root, restored by a thread of an ordinary user: device nodes and owners are notes, the rest is there.
    let (lab, _) = common::in_memory();
    odd::make_privileged(&lab.source(""));
    // His own, and nobody can go in once its mode is set: what is below comes first.
    std::fs::create_dir_all(lab.source("no way in/below")).unwrap();
    odd::set_mode(&lab.source("no way in/below"), 0o711);
    odd::set_mode(&lab.source("no way in"), 0o600);
    // More than there are handles kept open.
    (0..500).for_each(|number| std::fs::create_dir(lab.source(&format!("some {number}"))).unwrap());
    lab.backup();
    lab.heard();
    let target = lab.dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::chown(&target, Some(12_345), Some(12_345)).unwrap();
    odd::set_mode(lab.dir.path(), 0o755);
    let report = std::thread::scope(|scope| {
        let restore = || {
            // Of this thread alone, and of those that it starts.
            rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(12_345)).unwrap();
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(12_345)).unwrap();
            lab.restore(&target, &RestoreOptions::default())
        };
        scope.spawn(restore).join().unwrap()
    });
    assert_eq!((report.failed, report.damaged), (0, 0));
    let heard = lab.heard();
    let count = |what: &str| heard.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("only root can make device nodes"), 2, "{heard:?}");
    assert_eq!(count("set-id bits not set"), 1, "{heard:?}");
    assert!(count("owner not set") >= 4, "{heard:?}");
    assert!(!target.join("privileged/null").exists());
    let mode = |path: &str| {
        std::os::unix::fs::MetadataExt::mode(&target.join("privileged").join(path).metadata().unwrap())
    };
    assert_eq!(mode("set-id of another") & 0o7777, 0o755);
    assert_eq!((mode("../no way in") & 0o7777, mode("../no way in/below") & 0o7777), (0o600, 0o711));
    assert_eq!(std::fs::read(target.join("privileged/a large id")).unwrap(), b"a large id");
}

#[test]
fn a_whole_snapshot_goes_below_the_target_with_its_ancestors() {
    let lab = Lab::new();
    std::fs::write(lab.source("a"), b"a").unwrap();
    odd::set_mode(lab.dir.path(), 0o751);
    lab.backup();
    let target = lab.dir.path().join("target");
    let report = whole(&lab, &target, &RestoreOptions::default());
    assert_eq!(report.failed, 0);
    let below = |path: &Path| target.join(path.strip_prefix("/").unwrap());
    assert_same(&lab.source(""), &below(&lab.source("")), EXACT);
    for ancestor in lab.dir.path().ancestors().filter(|path| *path != Path::new("/")) {
        let (was, is) = (ancestor.metadata().unwrap(), below(ancestor).metadata().unwrap());
        use std::os::unix::fs::MetadataExt;
        assert_eq!((was.mode(), was.uid(), was.gid()), (is.mode(), is.uid(), is.gid()), "{ancestor:?}");
    }
}

fn whole(lab: &Lab, target: &Path, options: &RestoreOptions) -> RestoreReport {
    let target = RestoreTarget::Dir(target.to_owned());
    snap_engine::restore(&lab.browser(), None, target, options, lab.context()).unwrap()
}

/// Restores what is at `from` below the source.
fn part(lab: &Lab, from: &str, to: &Path, options: &RestoreOptions) -> RestoreReport {
    let from = lab.source(from);
    let target = RestoreTarget::Dir(to.to_owned());
    let from = std::os::unix::ffi::OsStrExt::as_bytes(from.as_os_str());
    snap_engine::restore(&lab.browser(), Some(from), target, options, lab.context()).unwrap()
}

/// A small tree with a bit of everything that a plan can meet.
fn small_tree(top: &Path) {
    std::fs::create_dir_all(top.join("sub/deeper")).unwrap();
    for (name, content) in
        [("a.txt", "aaa"), ("b.log", "bbb"), ("sub/c.txt", "ccc"), ("sub/deeper/d.txt", "d")]
    {
        std::fs::write(top.join(name), content).unwrap();
        odd::set_time(&top.join(name), 1_500_000_000, 42);
    }
    // As a database's file, it is cut every 64 KiB whatever the keys are.
    let big = [b"SQLite format 3\0".to_vec(), odd::noise(1, 3 << 20)].concat();
    std::fs::write(top.join("sub/big"), big).unwrap();
    odd::sparse(&top.join("sub/sparse"), 5 << 20, &[(2 << 20, odd::noise(2, 1 << 20))]);
    std::fs::hard_link(top.join("a.txt"), top.join("sub/a again.txt")).unwrap();
    std::os::unix::fs::symlink("a.txt", top.join("link")).unwrap();
    odd::fifo(&top.join("pipe"));
    std::fs::create_dir(top.join("empty")).unwrap();
    odd::set_time(&top.join("empty"), 1_400_000_000, 7);
}

#[test]
fn parts_of_a_snapshot() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    let target = |name: &str| lab.dir.path().join(name);
    let plain = RestoreOptions::default();
    // The contents of a directory go into the target, which gets its metadata; trailing slashes do not matter.
    let report = part(&lab, "sub", &target("sub"), &plain);
    assert_eq!((report.restored, report.failed), (6, 0));
    assert_same(&lab.source("sub"), &target("sub"), Leeway { holes: false, ..EXACT });
    part(&lab, "sub/./deeper//", &target("not/there/yet"), &plain);
    assert_same(&lab.source("sub/deeper"), &target("not/there/yet"), EXACT);
    // One file goes into the target, which stays as it is.
    std::fs::create_dir(target("one")).unwrap();
    odd::set_mode(&target("one"), 0o713);
    odd::set_time(&target("one"), 1_300_000_000, 0);
    let report = part(&lab, "sub/c.txt", &target("one"), &plain);
    assert_eq!((report.restored, report.restored_bytes, report.requests), (1, 3, 1));
    assert_eq!(std::fs::read(target("one/c.txt")).unwrap(), b"ccc");
    assert_eq!(std::fs::read_dir(target("one")).unwrap().count(), 1);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(target("one").metadata().unwrap().permissions().mode() & 0o777, 0o713);
    // A link, alone, is a link; one of two hard-linked names is a file.
    part(&lab, "link", &target("one"), &plain);
    assert_eq!(std::fs::read_link(target("one/link")).unwrap(), Path::new("a.txt"));
    part(&lab, "sub/a again.txt", &target("one"), &plain);
    assert_eq!(std::fs::read(target("one/a again.txt")).unwrap(), b"aaa");
    // What is not there leaves no target behind.
    let nowhere = RestoreTarget::Dir(target("nowhere"));
    let from = lab.source("sub/c.txt/x");
    let failed = snap_engine::restore(
        &lab.browser(),
        Some(from.to_str().unwrap().as_bytes()),
        nowhere,
        &plain,
        lab.context(),
    );
    assert!(matches!(failed, Err(snap_engine::EngineError::NoPath { .. })), "{failed:?}");
    assert!(!target("nowhere").exists());
}

/// A target whose files are older, newer, the same, of another type, missing, and too many.
fn touched_target(lab: &Lab, target: &Path) {
    lab.restore(target, &RestoreOptions::default());
    lab.heard();
    std::fs::write(target.join("a.txt"), "older and longer").unwrap(); // takes "sub/a again.txt" along
    odd::set_time(&target.join("a.txt"), 1_000_000_000, 0);
    std::fs::write(target.join("b.log"), "newer").unwrap();
    odd::set_time(&target.join("b.log"), 2_000_000_000, 0);
    std::fs::remove_file(target.join("sub/c.txt")).unwrap();
    odd::set_mode(&target.join("sub/deeper/d.txt"), 0o600); // the same but for its mode
    std::fs::write(target.join("extra"), "extra").unwrap();
    std::fs::create_dir_all(target.join("sub/more/extra")).unwrap();
    std::fs::remove_file(target.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", target.join("link")).unwrap();
    let big = std::fs::OpenOptions::new().write(true).open(target.join("sub/big")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&big, b"changed", 1 << 20).unwrap();
    std::fs::write(target.join("sub/sparse"), odd::noise(77, 6 << 20)).unwrap();
    odd::set_time(&target.join("sub/sparse"), 1_000_000_000, 0);
}

fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_is_there_is_treated_as_asked() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    for overwrite in [Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never, Overwrite::Always] {
        let target = lab.dir.path().join(format!("{overwrite:?}"));
        touched_target(&lab, &target);
        let options = RestoreOptions { overwrite, verify: true, ..RestoreOptions::default() };
        let report = lab.restore(&target, &options);
        assert_eq!((report.failed, report.damaged, report.deleted), (0, 0, 0), "{:?}", lab.heard());
        // What is not in the snapshot stays, what is missing comes, whatever was asked.
        assert_eq!(read(&target.join("extra")), "extra");
        assert!(target.join("sub/more/extra").is_dir());
        assert_eq!(read(&target.join("sub/c.txt")), "ccc");
        let expected = match overwrite {
            Overwrite::IfChanged | Overwrite::Always => ["aaa", "bbb", "a.txt"],
            Overwrite::IfNewer => ["aaa", "newer", "elsewhere"],
            Overwrite::Never => ["older and longer", "newer", "elsewhere"],
        };
        let link = std::fs::read_link(target.join("link")).unwrap();
        let found = [read(&target.join("a.txt")), read(&target.join("b.log")), link.to_str().unwrap().into()];
        assert_eq!(found, expected, "{overwrite:?}");
        let big_is_right =
            std::fs::read(target.join("sub/big")).unwrap() == std::fs::read(lab.source("sub/big")).unwrap();
        assert_eq!(
            big_is_right,
            matches!(overwrite, Overwrite::IfChanged | Overwrite::Always),
            "{overwrite:?}"
        );
        if overwrite == Overwrite::IfChanged {
            // Only what differs was fetched: a page of the large file, the data of the sparse one, three small ones.
            assert_eq!(report.restored_bytes, (64 << 10) + (1 << 20) + 9);
            std::fs::remove_file(target.join("extra")).unwrap();
            std::fs::remove_dir_all(target.join("sub/more")).unwrap();
            lab.restore(&target, &RestoreOptions::default());
            assert_same(&lab.source(""), &target, EXACT);
        }
    }
}

#[test]
fn deleting_stays_inside_what_is_restored() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    let target = lab.dir.path().join("target");
    let options = RestoreOptions { delete: true, ..RestoreOptions::default() };
    touched_target(&lab, &target);
    std::fs::create_dir_all(target.join("sub/more/extra/still/more")).unwrap();
    std::fs::write(target.join("sub/more/extra/still/file"), b"x").unwrap();
    let outside = lab.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), b"x").unwrap();
    std::os::unix::fs::symlink(&outside, target.join("a way out")).unwrap();
    // Of a part: only there.
    let report = part(&lab, "sub", &target.join("sub"), &options);
    assert_eq!((report.deleted, report.failed), (1, 0));
    assert!(target.join("extra").exists() && !target.join("sub/more").exists());
    // Of all, but what is excluded is none of its business.
    std::fs::write(target.join("kept.log"), b"x").unwrap();
    let report = lab.restore(&target, &RestoreOptions { exclude: vec!["*.log".into()], ..options.clone() });
    assert_eq!((report.deleted, report.failed), (2, 0));
    assert!(target.join("kept.log").exists() && !target.join("extra").exists());
    assert_eq!(read(&outside.join("precious")), "x");
    let report = lab.restore(&target, &options);
    assert_eq!(report.deleted, 1);
    assert_same(&lab.source(""), &target, EXACT);
    // One file: its neighbours stay.
    std::fs::write(target.join("neighbour"), b"x").unwrap();
    assert_eq!(part(&lab, "a.txt", &target, &options).deleted, 0);
    assert!(target.join("neighbour").exists());
}

/// A file with several names is replaced rather than written to, even if the others are deleted in between.
#[test]
fn another_name_that_is_deleted_takes_nothing_along() {
    let lab = Lab::new();
    let content = odd::noise(1, 3 << 20);
    std::fs::write(lab.source("file"), &content).unwrap();
    lab.backup();
    let target = lab.dir.path().join("target");
    for delete in [true, false] {
        lab.restore(&target, &RestoreOptions::default());
        std::fs::hard_link(target.join("file"), target.join("other name")).unwrap();
        odd::set_time(&target.join("file"), 1_000_000_000, 0);
        let report = lab.restore(&target, &RestoreOptions { delete, verify: true, ..Default::default() });
        assert_eq!((report.failed, report.overwritten), (0, 1));
        assert!(std::fs::read(target.join("file")).unwrap() == content);
        assert_eq!(target.join("other name").exists(), !delete);
    }
}

#[test]
fn another_type_in_the_way() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    let target = lab.dir.path().join("target");
    std::fs::create_dir_all(target.join("b.log/not empty")).unwrap();
    std::fs::create_dir_all(target.join("link")).unwrap();
    std::fs::write(target.join("sub"), b"a file where a directory belongs").unwrap();
    std::os::unix::fs::symlink("/etc", target.join("empty")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", target.join("a.txt")).unwrap();
    std::fs::write(target.join("pipe"), b"no pipe").unwrap();
    // Never: what is there stays, whatever it is.
    let never = RestoreOptions { overwrite: Overwrite::Never, ..RestoreOptions::default() };
    lab.restore(&target, &never);
    assert_eq!(read(&target.join("sub")), "a file where a directory belongs");
    assert_eq!(std::fs::read_link(target.join("empty")).unwrap(), Path::new("/etc"));
    assert_eq!(std::fs::read_link(target.join("a.txt")).unwrap(), Path::new("/etc/hostname"));
    assert!(target.join("b.log/not empty").is_dir());
    lab.heard();
    // By default files and links give way; a directory, which may hold anything, does not, and that is said.
    let report = lab.restore(&target, &RestoreOptions::default());
    let heard = lab.heard();
    assert_eq!((report.failed, report.damaged), (2, 0), "{heard:?}");
    assert!(heard.iter().all(|line| line.contains("a directory stands in its place")), "{heard:?}");
    std::fs::remove_dir_all(target.join("b.log")).unwrap();
    std::fs::remove_dir(target.join("link")).unwrap();
    lab.restore(&target, &RestoreOptions::default());
    assert_same(&lab.source(""), &target, EXACT);
}

#[test]
fn selections() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    let names = |options: RestoreOptions| {
        let target = tempfile::tempdir().unwrap();
        lab.restore(target.path(), &options);
        let mut names = Vec::new();
        let mut waiting = vec![target.path().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                names.push(path.strip_prefix(target.path()).unwrap().to_str().unwrap().to_owned());
                if path.symlink_metadata().unwrap().is_dir() {
                    waiting.push(path);
                }
            }
        }
        names.sort();
        names
    };
    let list = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let include = |patterns: &[&str]| RestoreOptions { include: list(patterns), ..Default::default() };
    // Only the directories that lead to something are made.
    assert_eq!(
        names(include(&["*.txt"])),
        ["a.txt", "sub", "sub/a again.txt", "sub/c.txt", "sub/deeper", "sub/deeper/d.txt"]
    );
    assert_eq!(names(include(&["sub/deeper"])), ["sub", "sub/deeper", "sub/deeper/d.txt"]);
    assert_eq!(names(include(&["no such thing"])), [""; 0]);
    let both = RestoreOptions { exclude: list(&["deeper"]), ..include(&["*.txt"]) };
    assert_eq!(names(both), ["a.txt", "sub", "sub/a again.txt", "sub/c.txt"]);
    let exclude = RestoreOptions { exclude: list(&["sub", "empty"]), ..Default::default() };
    assert_eq!(names(exclude), ["a.txt", "b.log", "link", "pipe"]);
    let absolute = lab.source("sub/c.txt").to_str().unwrap().to_owned();
    assert_eq!(names(include(&[&absolute])), ["sub", "sub/c.txt"]);
}

#[test]
fn a_rehearsal_counts_the_same_and_touches_nothing() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    let count = |report: &RestoreReport| {
        let RestoreReport { restored, skipped, overwritten, deleted, restored_bytes, .. } = *report;
        (restored, skipped, overwritten, deleted, restored_bytes, report.fetched_bytes, report.requests)
    };
    let overwrites = [Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never, Overwrite::Always];
    for (number, overwrite) in overwrites.into_iter().enumerate() {
        for delete in [false, true] {
            let real = RestoreOptions { overwrite, delete, ..RestoreOptions::default() };
            let dry = RestoreOptions { dry_run: true, ..real.clone() };
            // Into nothing.
            let target = lab.dir.path().join(format!("fresh {number} {delete}"));
            let planned = lab.restore(&target, &dry);
            assert!(!target.exists());
            assert_eq!(count(&planned), count(&lab.restore(&target, &real)), "{real:?}");
            // Into what is there.
            let (target, copy) = (target.join("touched"), target.join("copy"));
            touched_target(&lab, &target);
            common::copy_tree(&target, &copy);
            let planned = lab.restore(&target, &dry);
            assert_same(&copy, &target, EXACT);
            assert_eq!(count(&planned), count(&lab.restore(&target, &real)), "{real:?}");
        }
    }
}

/// Spoils a file at the moment when it is said to be restored.
struct Vandal {
    file: PathBuf,
    heard: Mutex<Vec<String>>,
}

impl Observer for Vandal {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Done { path, .. } if path.ends_with(b"/big") => {
                let file = std::fs::OpenOptions::new().write(true).open(&self.file).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, b"!", 2_000_000).unwrap();
            }
            Event::Done { .. } => {}
            other => self.heard.lock().unwrap().push(format!("{other:?}")),
        }
    }

    fn wants_done(&self) -> bool {
        true
    }
}

#[test]
fn verifying_reads_what_is_on_the_disk() {
    let lab = Lab::new();
    small_tree(&lab.source(""));
    lab.backup();
    let target = lab.dir.path().join("target");
    let vandal = Vandal { file: target.join("sub/big"), heard: Mutex::default() };
    let context = Context { observer: &vandal, ..lab.context() };
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let from = lab.source("");
    let from = from.to_str().unwrap().as_bytes();
    let report =
        snap_engine::restore(&lab.browser(), Some(from), RestoreTarget::Dir(target), &options, context)
            .unwrap();
    let heard = vandal.heard.into_inner().unwrap();
    assert_eq!(report.failed, 1, "{heard:?}");
    assert!(heard.len() == 1 && heard[0].contains("differs from the snapshot"), "{heard:?}");
}

/// A tar that stays in memory.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_tar_is_what_gnu_tar_takes() {
    let lab = Lab::new();
    odd::make_ordinary(&lab.source(""));
    odd::remove_deep(&lab.source(""), "d".repeat(250).as_bytes()); // GNU tar does not take such a path
    if odd::is_root() {
        odd::make_privileged(&lab.source(""));
    }
    std::fs::remove_dir_all(lab.source("sparse")).unwrap();
    odd::sparse(&lab.source("sparse"), 5 << 20, &[(1 << 20, odd::noise(1, 70_000))]);
    lab.backup();
    lab.heard();
    let out = Shared::default();
    let from = lab.source("");
    let from = from.to_str().unwrap().trim_end_matches('/').as_bytes();
    let options = RestoreOptions::default();
    let report = snap_engine::restore(
        &lab.browser(),
        Some(from),
        RestoreTarget::Tar(Box::new(out.clone())),
        &options,
        lab.context(),
    )
    .unwrap();
    assert_eq!((report.failed, report.damaged, lab.heard()), (0, 0, Vec::new()));
    let (dirs, files, others) = odd::count(&lab.source(""));
    assert_eq!(report.restored, dirs - 1 + files + others);
    let target = lab.dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(lab.dir.path().join("a.tar"), &*out.0.lock().unwrap()).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["-xpf", "../a.tar", "--xattrs", "--xattrs-include=*", "--numeric-owner"])
        .current_dir(&target)
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert_same(&lab.source(""), &target, Leeway { holes: true, roots: true, ..EXACT });
    // A single file, relative to itself.
    let out = Shared::default();
    let from = lab.source("links/second");
    let target = RestoreTarget::Tar(Box::new(out.clone()));
    let from = Some(from.to_str().unwrap().as_bytes());
    snap_engine::restore(&lab.browser(), from, target, &options, lab.context()).unwrap();
    std::fs::write(lab.dir.path().join("one.tar"), &*out.0.lock().unwrap()).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(lab.dir.path().join("one.tar")).output();
    assert_eq!(listed.unwrap().stdout, b"second\n");
}
