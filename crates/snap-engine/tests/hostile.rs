//! Snapshots written to do harm, and targets prepared to: nothing leaves the target, nothing fills the disk, nothing panics.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Lab, odd, within};
use snap_engine::browse::{Browser, Found};
use snap_engine::{Context, Event, Observer, Overwrite, RestoreOptions, RestoreReport, RestoreTarget};
use snap_format::{
    BlobId, BlobKind, BranchEntry, Content, Link, Node, NodeKind, ObjectMetadata, Summary, Time, TreeBlob,
    Xattr,
};
use snap_repo::{Index, NewSnapshot, Scratch, Writer, WriterOptions};

const LIMIT: Duration = Duration::from_secs(120);

/// Writes a snapshot by hand: blobs and trees as they are given, true or not.
struct Forgery {
    writer: Writer,
    scratch: Scratch,
}

impl Forgery {
    fn begin(lab: &Lab) -> Self {
        let repository = lab.repository();
        let (index, _) = Index::load(&repository, None).unwrap();
        let writer = Writer::begin(&repository, index, None, WriterOptions::default()).unwrap();
        Self { writer, scratch: Scratch::new(1).unwrap() }
    }

    fn data(&mut self, plain: &[u8]) -> BlobId {
        self.writer.add(BlobKind::Data, plain, &mut self.scratch).unwrap().0
    }

    fn tree(&mut self, tree: &TreeBlob) -> BlobId {
        self.writer.add(BlobKind::Tree, &tree.encode(), &mut self.scratch).unwrap().0
    }

    fn dir(&mut self, nodes: Vec<Node>) -> BlobId {
        self.tree(&TreeBlob::Leaf(nodes))
    }

    /// A leaf that a branch can name.
    fn leaf(&mut self, nodes: Vec<Node>) -> BranchEntry {
        let (first, count) = (nodes[0].name.clone(), nodes.len() as u64);
        BranchEntry { first, id: self.dir(nodes), nodes: count }
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Node {
        let id = self.data(content);
        file(name, content.len() as u64, Content::Blobs(vec![id]), Vec::new())
    }

    fn commit(self, lab: &Lab, root: BlobId) {
        let new = NewSnapshot {
            time: lab.options().time,
            dataset: "files".into(),
            host: "lab".into(),
            previous: None,
            tags: Vec::new(),
            label: String::new(),
            summary: Summary::default(),
            root,
            paths: vec![b"/".to_vec()],
            details: None,
        };
        self.writer.finish().unwrap().commit(new).unwrap();
    }
}

fn node(name: &str, kind: NodeKind) -> Node {
    let mut node = Node::new(name.as_bytes().to_vec(), kind, Time::new(1_600_000_000, 0));
    node.mode = 0o755;
    (node.uid, node.gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    node
}

fn file(name: &str, size: u64, content: Content, holes: Vec<(u64, u64)>) -> Node {
    node(name, NodeKind::File { size, content, holes, profile: 1 })
}

fn link_to(name: &str, target: &Path) -> Node {
    node(name, NodeKind::Symlink { target: target.to_str().unwrap().into() })
}

fn dir(name: &str, tree: BlobId) -> Node {
    node(name, NodeKind::Dir { tree })
}

fn restore_into(lab: &Lab, to: &Path, options: &RestoreOptions) -> RestoreReport {
    let to = RestoreTarget::Dir(to.to_owned());
    snap_engine::restore(&lab.browser(), None, to, options, lab.context()).unwrap()
}

/// What must not be touched: a directory beside the target with a file and nothing else.
struct Outside(PathBuf);

impl Outside {
    fn new(lab: &Lab) -> Self {
        let path = lab.dir.path().join("outside");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("precious"), "precious").unwrap();
        odd::set_mode(&path.join("precious"), 0o640);
        odd::set_time(&path.join("precious"), 1_111_111_111, 0);
        odd::set_time(&path, 1_111_111_111, 0);
        Self(path)
    }

    fn assert_untouched(&self) {
        let precious = self.0.join("precious").metadata().unwrap();
        assert_eq!(std::fs::read(self.0.join("precious")).unwrap(), b"precious");
        assert_eq!((precious.mode() & 0o7777, precious.mtime(), precious.nlink()), (0o640, 1_111_111_111, 1));
        assert_eq!(self.0.metadata().unwrap().mtime(), 1_111_111_111);
        assert_eq!(std::fs::read_dir(&self.0).unwrap().count(), 1);
    }
}

const OVERWRITES: [Overwrite; 4] =
    [Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never, Overwrite::Always];

#[test]
fn names_that_lead_out() {
    for name in ["..", ".", "", "a/b", "/etc/x", "../outside/precious", "a\0b"] {
        let (lab, _) = common::in_memory();
        let outside = Outside::new(&lab);
        let mut forgery = Forgery::begin(&lab);
        let evil = forgery.file(name, b"evil");
        let evil = forgery.dir(vec![evil]);
        let good = forgery.file("good", b"good");
        let root = forgery.dir(vec![dir("evil", evil), good]);
        forgery.commit(&lab, root);
        let target = lab.dir.path().join("target");
        let report = restore_into(&lab, &target, &RestoreOptions::default());
        // The tree with the name is refused as a whole, and said so; the rest is restored.
        assert_eq!((report.damaged, report.failed), (1, 0));
        let heard = lab.heard();
        assert!(heard.len() == 1 && heard[0].contains("not a plain component"), "{heard:?}");
        assert_eq!(std::fs::read(target.join("good")).unwrap(), b"good");
        assert_eq!(std::fs::read_dir(target.join("evil")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(lab.dir.path()).unwrap().count(), 3);
        outside.assert_untouched();
    }
}

#[test]
fn a_target_full_of_links_to_the_outside() {
    for overwrite in OVERWRITES {
        for delete in [false, true] {
            let (lab, _) = common::in_memory();
            let outside = Outside::new(&lab);
            let mut forgery = Forgery::begin(&lab);
            let precious = forgery.file("precious", b"evil");
            let inner = forgery.dir(vec![precious.clone()]);
            let deep = forgery.dir(vec![dir("inner", inner)]);
            let mut linked = forgery.file("linked", b"evil");
            linked.link = Some(Link { device: 1, inode: 2 });
            let mut linked_too = linked.clone();
            linked_too.name = b"linked too".to_vec();
            let empty = forgery.dir(Vec::new());
            let hole = file("hole", 1000, Content::default(), vec![(0, 1000)]);
            let nodes = vec![
                dir("deep", deep),
                dir("empty", empty),
                file("empty file", 0, Content::default(), Vec::new()),
                forgery.file("file", b"evil"),
                hole,
                dir("inner", inner),
                linked,
                linked_too,
                node("pipe", NodeKind::Fifo),
            ];
            let root = forgery.dir(nodes);
            forgery.commit(&lab, root);
            // Every name that the snapshot brings leads out of the target.
            let target = lab.dir.path().join("target");
            std::fs::create_dir_all(target.join("deep")).unwrap();
            symlink(&outside.0, target.join("deep/inner")).unwrap();
            for name in ["empty", "inner"] {
                symlink(&outside.0, target.join(name)).unwrap();
            }
            for name in ["empty file", "file", "hole", "linked", "linked too", "pipe"] {
                symlink(outside.0.join("precious"), target.join(name)).unwrap();
            }
            let options = RestoreOptions { overwrite, delete, verify: true, ..Default::default() };
            let report = restore_into(&lab, &target, &options);
            outside.assert_untouched();
            if matches!(overwrite, Overwrite::IfChanged | Overwrite::Always) {
                assert_eq!((report.failed, report.damaged), (0, 0), "{:?}", lab.heard());
                for name in ["inner/precious", "deep/inner/precious", "file", "linked", "linked too"] {
                    assert_eq!(std::fs::read(target.join(name)).unwrap(), b"evil");
                    assert!(target.join(name).symlink_metadata().unwrap().is_file());
                }
                assert_eq!(target.join("linked").metadata().unwrap().nlink(), 2);
                assert!(target.join("empty").symlink_metadata().unwrap().is_dir());
            }
        }
    }
}

#[test]
fn a_file_that_has_another_name_outside() {
    for overwrite in OVERWRITES {
        let (lab, _) = common::in_memory();
        let outside = lab.dir.path().join("outside");
        std::fs::write(&outside, "precious content").unwrap();
        odd::set_mode(&outside, 0o600);
        let mut forgery = Forgery::begin(&lab);
        let evil = forgery.file("file", b"evil content");
        let root = forgery.dir(vec![evil]);
        forgery.commit(&lab, root);
        let target = lab.dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::fs::hard_link(&outside, target.join("file")).unwrap();
        odd::set_time(&outside, 1_000_000_000, 0);
        restore_into(&lab, &target, &RestoreOptions { overwrite, ..Default::default() });
        assert_eq!(std::fs::read(&outside).unwrap(), b"precious content");
        assert_eq!(outside.metadata().unwrap().mode() & 0o777, 0o600);
        let is_restored = std::fs::read(target.join("file")).unwrap() == b"evil content";
        assert_eq!(is_restored, overwrite != Overwrite::Never);
    }
}

#[test]
fn a_link_planted_by_one_snapshot_is_no_way_for_the_next() {
    let (lab, _) = common::in_memory();
    let outside = Outside::new(&lab);
    let target = lab.dir.path().join("target");
    let mut forgery = Forgery::begin(&lab);
    let root = forgery.dir(vec![link_to("d", &outside.0), link_to("f", &outside.0.join("precious"))]);
    forgery.commit(&lab, root);
    restore_into(&lab, &target, &RestoreOptions::default());
    outside.assert_untouched();
    assert_eq!(std::fs::read_link(target.join("d")).unwrap(), outside.0);
    let mut forgery = Forgery::begin(&lab);
    let evil = forgery.file("precious", b"evil");
    let below = forgery.dir(vec![evil]);
    let evil = forgery.file("f", b"evil");
    let root = forgery.dir(vec![dir("d", below), evil]);
    forgery.commit(&lab, root);
    for overwrite in OVERWRITES {
        restore_into(&lab, &target, &RestoreOptions { overwrite, delete: true, ..Default::default() });
        outside.assert_untouched();
    }
    assert_eq!(std::fs::read(target.join("d/precious")).unwrap(), b"evil");
}

#[test]
fn one_name_twice_in_a_directory_of_several_leaves() {
    // Each leaf is in order; together they are not. The codec sees one leaf at a time.
    for overwrite in OVERWRITES {
        let (lab, _) = common::in_memory();
        let outside = Outside::new(&lab);
        let mut forgery = Forgery::begin(&lab);
        let evil = forgery.file("precious", b"evil");
        let below = forgery.dir(vec![evil]);
        let evil = forgery.file("f", b"evil");
        let leaves = [
            vec![
                node("a", NodeKind::Fifo),
                link_to("d", &outside.0),
                link_to("f", &outside.0.join("precious")),
            ],
            vec![node("b", NodeKind::Fifo), dir("d", below), evil],
        ];
        let leaves = leaves.into_iter().map(|nodes| forgery.leaf(nodes)).collect();
        let twice = forgery.tree(&TreeBlob::Branch(leaves));
        let root = forgery.dir(vec![dir("twice", twice)]);
        forgery.commit(&lab, root);
        let target = lab.dir.path().join("target");
        std::fs::create_dir_all(target.join("twice")).unwrap();
        std::fs::write(target.join("twice/mine"), "mine").unwrap();
        let options = RestoreOptions { overwrite, delete: true, ..Default::default() };
        let report = restore_into(&lab, &target, &options);
        outside.assert_untouched();
        assert_eq!((report.damaged, report.failed), (1, 0), "{:?}", lab.heard());
        // What cannot be listed to its end is not taken for a reason to delete.
        assert_eq!(std::fs::read(target.join("twice/mine")).unwrap(), b"mine");
        // Looking finds the same.
        let browser = lab.browser();
        let mut scratch = Scratch::new(1).unwrap();
        let walked = browser.walk(b"/", browser.root(), &mut scratch, &mut |_, _| Ok(true));
        assert!(walked.is_err());
    }
}

/// Swaps a directory of the target for a link as soon as the first file is there.
struct Swapper {
    dir: PathBuf,
    outside: PathBuf,
    done: Mutex<bool>,
}

impl Observer for Swapper {
    fn event(&self, event: Event<'_>) {
        let mut done = self.done.lock().unwrap();
        if matches!(event, Event::Done { .. }) && !*done {
            *done = true;
            std::fs::rename(&self.dir, self.dir.with_extension("aside")).unwrap();
            symlink(&self.outside, &self.dir).unwrap();
        }
    }

    fn wants_done(&self) -> bool {
        true
    }
}

#[test]
fn a_directory_that_becomes_a_link_meanwhile() {
    let (lab, _) = common::in_memory();
    let outside = Outside::new(&lab);
    let mut forgery = Forgery::begin(&lab);
    let files = (0..50).map(|number| forgery.file(&format!("precious {number:02}"), b"evil")).collect();
    let below = forgery.dir(files);
    let root = forgery.dir(vec![dir("d", below)]);
    forgery.commit(&lab, root);
    let target = lab.dir.path().join("target");
    let swapper = Swapper { dir: target.join("d"), outside: outside.0.clone(), done: Mutex::default() };
    let context = Context { observer: &swapper, threads: 1, ..lab.context() };
    let to = RestoreTarget::Dir(target.clone());
    snap_engine::restore(&lab.browser(), None, to, &RestoreOptions::default(), context).unwrap();
    assert!(*swapper.done.lock().unwrap());
    outside.assert_untouched();
}

/// A tar that counts what it is given.
struct Counting(Arc<Mutex<u64>>);

impl std::io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0.lock().unwrap() += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Files whose size, holes and content do not fit together: by name, with what is wrong.
fn lies(forgery: &mut Forgery) -> Vec<Node> {
    const EIB: u64 = 1 << 60;
    let ten = forgery.data(&odd::noise(1, 10));
    let large = forgery.data(&odd::noise(2, 100_000));
    let empty = forgery.data(b"");
    let some_dir = forgery.dir(vec![node("x", NodeKind::Fifo)]);
    let list = forgery.tree(&TreeBlob::Content(vec![large; 8192]));
    let nothing = forgery.tree(&TreeBlob::Content(vec![empty; 8192]));
    let blobs = |ids: &[BlobId]| Content::Blobs(ids.to_vec());
    let object = |name: &str, size, content| {
        node(name, NodeKind::Object { size, content, profile: 1, metadata: ObjectMetadata::default() })
    };
    let mut nodes = vec![
        file("1 EiB of nothing", EIB, Content::default(), Vec::new()),
        file("1 EiB of ten bytes", EIB, blobs(&[ten]), Vec::new()),
        file("all of u64", u64::MAX, blobs(&[ten]), vec![(0, u64::MAX - 1)]),
        file("all but ten of u64, and more", u64::MAX, blobs(&[large]), vec![(0, u64::MAX - 11)]),
        file("more than it is", 3, blobs(&[ten]), Vec::new()),
        file("more than nothing", 0, blobs(&[ten]), Vec::new()),
        file("less than it is", 11, blobs(&[ten]), Vec::new()),
        file("holes too many", 10, blobs(&[ten]), vec![(0, 5)]),
        file("holes too few", 30, blobs(&[ten]), vec![(10, 10)]),
        file("a directory for content", 10, Content::Lists(vec![some_dir]), Vec::new()),
        file("a list for content", 10, blobs(&[list]), Vec::new()),
        file("content for a list", 10, Content::Lists(vec![ten]), Vec::new()),
        file("unknown", 10, blobs(&[BlobId([9; 32])]), Vec::new()),
        file("an unknown list", 10, Content::Lists(vec![BlobId([9; 32])]), Vec::new()),
        // Each of these would be tens of gigabytes of ids.
        file("a list a thousand times over", 5, Content::Lists(vec![list; 100_000]), Vec::new()),
        file("nothing a thousand times over", 5, Content::Lists(vec![nothing; 100_000]), Vec::new()),
        object("an object", EIB, blobs(&[ten])),
        dir("a list for a directory", list),
        dir("data for a directory", ten),
        dir("an unknown directory", BlobId([9; 32])),
    ];
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

#[test]
fn sizes_holes_and_contents_that_lie() {
    within(LIMIT, || {
        let (lab, _) = common::in_memory();
        let mut forgery = Forgery::begin(&lab);
        let evil = lies(&mut forgery);
        let (count, dirs) = (evil.len() as u64, evil.iter().filter(|node| node.tree().is_some()).count());
        let evil_tree = forgery.dir(evil.clone());
        let good = forgery.file("good", b"good");
        let root = forgery.dir(vec![dir("evil", evil_tree), good]);
        forgery.commit(&lab, root);
        // Into nothing, and over what is there already.
        for prepared in [false, true] {
            let target = lab.dir.path().join(format!("target {prepared}"));
            if prepared {
                std::fs::create_dir_all(target.join("evil")).unwrap();
                for node in evil.iter().filter(|node| node.tree().is_none()) {
                    let path = target.join("evil").join(std::str::from_utf8(&node.name).unwrap());
                    std::fs::write(path, "was there").unwrap();
                }
            }
            let report = restore_into(&lab, &target, &RestoreOptions { verify: true, ..Default::default() });
            let heard = lab.heard();
            assert_eq!((report.damaged, report.failed), (count, 0), "{heard:?}");
            for node in &evil {
                let name = String::from_utf8_lossy(&node.name);
                assert_eq!(heard.iter().filter(|line| line.starts_with("finding")).count() as u64, count);
                let path = target.join("evil").join(&*name);
                match path.metadata() {
                    Ok(found) if node.tree().is_none() => {
                        assert!(prepared && found.len() == 9, "{name}: {}", found.len());
                    }
                    found => assert_eq!(found.is_ok(), node.tree().is_some(), "{name}"),
                }
            }
            assert_eq!(std::fs::read(target.join("good")).unwrap(), b"good");
        }
        // A tar of it is small, and a rehearsal says the same.
        let length = Arc::new(Mutex::new(0));
        let out = RestoreTarget::Tar(Box::new(Counting(Arc::clone(&length))));
        let options = RestoreOptions::default();
        let report = snap_engine::restore(&lab.browser(), None, out, &options, lab.context()).unwrap();
        assert_eq!((report.damaged, report.restored), (count, 2 + dirs as u64));
        assert!(*length.lock().unwrap() < 1 << 20);
        let dry = RestoreOptions { dry_run: true, ..options };
        let rehearsed = restore_into(&lab, &lab.dir.path().join("none"), &dry);
        assert_eq!((rehearsed.damaged, rehearsed.restored), (count, 2 + dirs as u64));
        lab.heard();
        // Printing one fails, at once.
        let (browser, mut scratch) = (lab.browser(), Scratch::new(1).unwrap());
        for node in evil.iter().filter(|node| node.content().is_some()) {
            let mut out = Counting(Arc::default());
            assert!(browser.cat(node, &mut out, &mut scratch).is_err());
            assert_eq!(*out.0.lock().unwrap(), 0);
        }
    });
}

#[test]
fn attributes_without_sense() {
    let (lab, _) = common::in_memory();
    let mut forgery = Forgery::begin(&lab);
    let xattr = |name: &[u8], value: Vec<u8>| Xattr { name: name.to_vec(), value };
    let mut nodes = Vec::new();
    let mut add = |forgery: &mut Forgery, name: &str, change: &dyn Fn(&mut Node)| {
        let tree = forgery.dir(Vec::new());
        for mut node in [forgery.file(name, b"content"), dir(&format!("{name} dir"), tree)] {
            change(&mut node);
            nodes.push(node);
        }
    };
    add(&mut forgery, "mode", &|node| node.mode = 0o7777);
    add(&mut forgery, "owner", &|node| (node.uid, node.gid) = (u32::MAX, u32::MAX));
    add(&mut forgery, "past", &|node| node.mtime = Time::new(i64::MIN, 999_999_999));
    add(&mut forgery, "future", &|node| node.mtime = Time::new(i64::MAX, 999_999_999));
    add(&mut forgery, "attributes", &|node| {
        node.xattrs = vec![
            xattr(b"", b"empty".to_vec()),
            xattr(b"no.such.namespace", b"x".to_vec()),
            xattr(b"security.capability", b"nonsense".to_vec()),
            xattr(b"system.posix_acl_access", b"nonsense".to_vec()),
            xattr(b"user.a\0b", b"x".to_vec()),
            xattr(b"user.huge", vec![7; 1 << 20]),
            xattr(b"user.good", b"good".to_vec()),
            xattr(&[b'x'; 5000], b"x".to_vec()),
        ];
        node.xattrs.sort();
    });
    add(&mut forgery, "user", &|node| node.user = Some("root\0\n\u{1b}".into()));
    for (name, target) in
        [("empty target", Vec::new()), ("long target", vec![b'x'; 100_000]), ("NUL", vec![0; 3])]
    {
        nodes.push(node(name, NodeKind::Symlink { target }));
    }
    nodes.push(node(&"n".repeat(256), NodeKind::Fifo));
    nodes.push(node("device", NodeKind::CharDevice { major: u32::MAX, minor: u32::MAX }));
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let files = nodes.iter().filter(|node| node.content().is_some()).count();
    let root = forgery.dir(nodes);
    forgery.commit(&lab, root);
    let target = lab.dir.path().join("target");
    let report = restore_into(&lab, &target, &RestoreOptions { verify: true, ..Default::default() });
    // What the system refuses is said; contents come back all the same.
    let heard = lab.heard();
    assert_eq!(report.damaged, 0, "{heard:?}");
    assert!((3..=5).contains(&report.failed), "{heard:?}");
    let intact = std::fs::read_dir(&target).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.is_file() && std::fs::read(path).unwrap() == b"content"
    });
    assert_eq!(intact.count(), files);
    assert_eq!(target.join("mode").metadata().unwrap().mode() & 0o7777, 0o7777);
    let mut value = [0; 16];
    let length = rustix::fs::lgetxattr(target.join("attributes"), "user.good", &mut value).unwrap();
    assert_eq!(&value[..length], b"good");
}

#[test]
fn ten_thousand_levels() {
    const LEVELS: usize = 10_000;
    within(LIMIT, || {
        let (lab, _) = common::in_memory();
        let mut forgery = Forgery::begin(&lab);
        let bottom = forgery.file("at the bottom", b"here");
        let mut tree = forgery.dir(vec![bottom]);
        for _ in 0..LEVELS {
            tree = forgery.dir(vec![dir("d", tree)]);
        }
        forgery.commit(&lab, tree);
        let browser = lab.browser();
        let mut scratch = Scratch::new(1).unwrap();
        let mut deepest = 0;
        let mut each = |path: &[u8], _: &Node| {
            deepest = deepest.max(path.len());
            Ok(true)
        };
        browser.walk(b"/", browser.root(), &mut scratch, &mut each).unwrap();
        assert_eq!(deepest, 2 * LEVELS + "/at the bottom".len());
        let path = ["d"; LEVELS].join("/") + "/at the bottom";
        assert!(matches!(browser.find(path.as_bytes(), &mut scratch).unwrap(), Found::Node(_)));

        let target = lab.dir.path().join("target");
        let report = restore_into(&lab, &target, &RestoreOptions { verify: true, ..Default::default() });
        let _tidy = Tidy(target.clone());
        assert_eq!((report.failed, report.damaged), (0, 0), "{:?}", lab.heard());
        assert_eq!(report.restored, LEVELS as u64 + 1);
        assert_eq!(odd::count(&target), (LEVELS as u64 + 1, 1, 0));
        // And such a tree can be backed up.
        let source = snap_engine::BackupSource::Paths {
            paths: vec![target.clone()],
            working_dir: PathBuf::from("/"),
            filter: snap_source::FilterOptions::default(),
            as_path: None,
        };
        let options = snap_engine::BackupOptions { source, ..lab.options() };
        let report = lab.backup_with(options).unwrap();
        assert_eq!((report.summary.files, report.summary.unreadable), (1, 0));
        lab.check_over(&lab.backend);
    });
}

struct Tidy(PathBuf);

impl Drop for Tidy {
    fn drop(&mut self) {
        odd::remove_deep(&self.0, b"d");
    }
}

#[test]
fn branches_without_end() {
    let (lab, _) = common::in_memory();
    let mut forgery = Forgery::begin(&lab);
    let good = forgery.file("a", b"a");
    let mut branch = forgery.leaf(vec![good.clone()]);
    // One level more than a reader follows.
    for _ in 0..=snap_format::limits::BRANCH_LEVELS {
        branch.id = forgery.tree(&TreeBlob::Branch(vec![branch.clone()]));
    }
    let root = forgery.dir(vec![good, dir("b", branch.id)]);
    forgery.commit(&lab, root);
    let target = lab.dir.path().join("target");
    let report = restore_into(&lab, &target, &RestoreOptions::default());
    assert_eq!((report.damaged, report.failed), (1, 0));
    assert_eq!(std::fs::read(target.join("a")).unwrap(), b"a");
    let mut scratch = Scratch::new(1).unwrap();
    assert!(lab.browser().find(b"/b/a", &mut scratch).is_err());
}

#[test]
fn a_source_that_lies_about_nothing_is_unharmed_by_all_this() {
    // What the checks above cost must not hit an honest snapshot: holes at all places, lists, many leaves.
    let (lab, _) = common::in_memory();
    let noise = odd::noise(1, 50_000);
    odd::sparse(&lab.source("sparse"), 1 << 20, &[(0, noise.clone()), (300_000, noise)]);
    odd::make_many(&lab.source(""), 3000);
    lab.backup();
    let target = lab.dir.path().join("target");
    let report = lab.restore(&target, &RestoreOptions { verify: true, ..Default::default() });
    assert_eq!((report.damaged, report.failed), (0, 0));
    common::compare::assert_same(&lab.source(""), &target, Default::default());
    let browser: Browser = lab.browser();
    assert!(
        browser
            .find(lab.source("many/entry 02999").to_str().unwrap().as_bytes(), &mut Scratch::new(1).unwrap())
            .is_ok()
    );
}
