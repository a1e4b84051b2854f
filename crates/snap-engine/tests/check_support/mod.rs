//! Repositories made by hand for the tests of `check`: small trees written through the writer of `snap-repo`, and a
//! forger, who has a slot's secret, the format page, and bad intentions.

#![allow(dead_code, missing_docs)] // each test uses a part of it

pub mod forger;
pub mod meanwhile;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use snap_backend::{Backend, MemoryBackend, ObjectName};
use snap_crypto::Zeroizing;
use snap_engine::browse::Browser;
use snap_engine::{CheckOptions, CheckReport, Context, Event, NullObserver, Observer, Progress, ReadData};
use snap_format::{BlobId, BlobKind, Content, Node, NodeKind, ObjectId, Role, Summary, Time, TreeBlob};
use snap_repo::{Index, NewSlot, NewSnapshot, Repository, Scratch, Secret, Writer, WriterOptions};

pub type Files = BTreeMap<&'static str, Vec<u8>>;

pub fn key(byte: u8) -> Secret {
    Secret::KeyFile(Zeroizing::new([byte; 32]))
}

pub const OWNER: u8 = 1;
pub const BACKUP: u8 = 2;
pub const RESTORE: u8 = 3;

pub fn time(secs: i64) -> Time {
    Time::new(1_700_000_000 + secs, 0)
}

/// Bytes that do not compress, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// A repository with an owner, a backup slot with its own domain, and a restore slot: three epochs.
pub struct Fixture {
    pub backend: MemoryBackend,
    pub expected: BTreeMap<ObjectId, Files>,
    pub snapshots: Vec<ObjectId>,
}

/// How a file is stored; chunks are this long.
pub const CHUNK: usize = 10_000;

impl Fixture {
    /// The empty repository, first epoch only.
    pub fn new() -> Self {
        let backend = MemoryBackend::new();
        Repository::create(&backend, &key(OWNER), "owner", time(0)).unwrap();
        Self { backend, expected: BTreeMap::new(), snapshots: Vec::new() }
    }

    pub fn add_slot(&self, role: Role, secret: u8, label: &str) {
        let secret = key(secret);
        let new = NewSlot { role, secret: &secret, label: label.into(), domain: None };
        self.open(OWNER).add_slot(new, time(1)).unwrap();
    }

    /// Three snapshots in a row by the owner, the first under the first epoch, and one by the backup slot.
    pub fn full() -> Self {
        let mut fixture = Self::new();
        fixture.backup(OWNER, 1);
        fixture.add_slot(Role::Backup, BACKUP, "web");
        fixture.add_slot(Role::Restore, RESTORE, "drill");
        fixture.backup(OWNER, 2);
        fixture.backup(OWNER, 3);
        fixture.backup(BACKUP, 4);
        fixture
    }

    pub fn open(&self, secret: u8) -> Repository {
        Repository::open(Arc::new(self.backend.clone()), &key(secret)).unwrap()
    }

    /// Backs up files of which most are new for each `seed`, and one is always the same.
    pub fn backup(&mut self, secret: u8, seed: u64) -> ObjectId {
        let files: Files = [
            ("/srv/app/always", noise(0, 25_000)),
            ("/srv/app/new", noise(seed, 45_000)),
            ("/srv/app/text", format!("{seed} is a number\n").repeat(500).into_bytes()),
            ("/srv/empty", Vec::new()),
            ("/srv/long", noise(100 + seed, 35_000)),
            ("/srv/sparse", [vec![0; 5000], noise(200 + seed, 12_000), vec![0; 3000]].concat()),
        ]
        .into();
        let repository = self.open(secret);
        let previous = self.snapshots.last().copied().filter(|_| secret == OWNER);
        let writer = begin(&repository);
        let root = store_tree(&writer, &files);
        let id =
            writer.finish().unwrap().commit(new_snapshot(root, time(10 + seed as i64), previous)).unwrap();
        self.expected.insert(id, files);
        self.snapshots.push(id);
        id
    }

    pub fn names(&self, prefix: &str) -> Vec<ObjectName> {
        self.backend.names().into_iter().filter(|name| name.as_str().starts_with(prefix)).collect()
    }
}

pub fn begin(repository: &Repository) -> Writer {
    let (index, findings) = Index::load(repository, None).unwrap();
    assert_eq!(findings, []);
    let options = WriterOptions { pack_target: 1 << 20, uploads: 1, ..WriterOptions::default() };
    Writer::begin(repository, index, None, options).unwrap()
}

pub fn new_snapshot(root: BlobId, time: Time, previous: Option<ObjectId>) -> NewSnapshot {
    NewSnapshot {
        time,
        dataset: "files".into(),
        host: "host".into(),
        previous,
        tags: Vec::new(),
        label: String::new(),
        summary: Summary::default(),
        root,
        paths: vec![b"/srv".to_vec()],
        details: None,
    }
}

pub fn leaf(writer: &Writer, nodes: Vec<Node>) -> BlobId {
    add(writer, BlobKind::Tree, &TreeBlob::Leaf(nodes).encode())
}

pub fn add(writer: &Writer, kind: BlobKind, plain: &[u8]) -> BlobId {
    writer.add(kind, plain, &mut Scratch::new(3).unwrap()).unwrap().0
}

pub fn dir(name: &str, tree: BlobId) -> Node {
    Node::new(name.into(), NodeKind::Dir { tree }, time(0))
}

pub fn file(name: &str, size: u64, content: Content, holes: Vec<(u64, u64)>) -> Node {
    Node::new(name.into(), NodeKind::File { size, content, holes, profile: 1 }, time(0))
}

fn chunks(writer: &Writer, bytes: &[u8]) -> Vec<BlobId> {
    bytes.chunks(CHUNK).map(|chunk| add(writer, BlobKind::Data, chunk)).collect()
}

/// `/srv/app` is a branch of two leaves, `/srv/long` has content lists, `/srv/sparse` holes at both ends.
fn store_tree(writer: &Writer, files: &Files) -> BlobId {
    let plain = |name: &'static str| {
        let bytes = &files[name];
        let short = name.rsplit('/').next().unwrap();
        file(short, bytes.len() as u64, Content::Blobs(chunks(writer, bytes)), Vec::new())
    };
    let first = leaf(writer, vec![plain("/srv/app/always"), plain("/srv/app/new")]);
    let second = leaf(writer, vec![plain("/srv/app/text")]);
    let entry = |first: &str, id, nodes| snap_format::BranchEntry { first: first.into(), id, nodes };
    let branch = TreeBlob::Branch(vec![entry("always", first, 2), entry("text", second, 1)]);
    let app = add(writer, BlobKind::Tree, &branch.encode());
    let long = &files["/srv/long"];
    let lists: Vec<BlobId> = chunks(writer, long)
        .chunks(2)
        .map(|ids| add(writer, BlobKind::Tree, &TreeBlob::Content(ids.to_vec()).encode()))
        .collect();
    let sparse = &files["/srv/sparse"];
    let middle = chunks(writer, &sparse[5000..17_000]);
    let srv = leaf(
        writer,
        vec![
            dir("app", app),
            plain("/srv/empty"),
            file("long", long.len() as u64, Content::Lists(lists), Vec::new()),
            file("sparse", 20_000, Content::Blobs(middle), vec![(0, 5000), (17_000, 3000)]),
        ],
    );
    leaf(writer, vec![dir("srv", srv)])
}

/// Collects what the observer hears.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<String>>);

impl Observer for Heard {
    fn event(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

pub fn with_context<T>(observer: &dyn Observer, run: impl FnOnce(Context<'_>) -> T) -> T {
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    run(Context { observer, progress: &progress, stop: &stop, threads: 2, memory_bytes: 256 << 20 })
}

pub fn check_with(repository: &Repository, read_data: ReadData) -> CheckReport {
    let options = CheckOptions { read_data };
    with_context(&NullObserver, |context| snap_engine::check(repository, &options, context)).unwrap()
}

pub fn check_keyless(backend: &dyn Backend) -> CheckReport {
    with_context(&NullObserver, |context| snap_engine::check_keyless(backend, context)).unwrap()
}

/// `code object` of each finding, sorted.
pub fn brief(report: &CheckReport) -> Vec<String> {
    let mut out: Vec<_> = report
        .findings
        .iter()
        .map(|finding| format!("{} {}", finding.code.as_str(), finding.object))
        .collect();
    out.sort();
    out
}

/// Reads every file that no finding names, of every snapshot that is there, and compares it. Returns how many.
pub fn read_the_rest(repository: &Repository, fixture: &Fixture, report: &CheckReport) -> usize {
    let (index, _) = Index::load(repository, None).unwrap();
    let index = Arc::new(index);
    let mut scratch = Scratch::new(3).unwrap();
    let mut read = 0;
    for snapshot in repository.snapshots().unwrap().snapshots {
        let Some(files) = fixture.expected.get(&snapshot.id) else { continue };
        let lost: Vec<String> = report
            .findings
            .iter()
            .filter(|finding| finding.snapshots.contains(&snapshot.id))
            .flat_map(|finding| &finding.paths)
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        let is_lost = |path: &str| {
            lost.iter().any(|lost| path == lost || lost == "/" || path.starts_with(&format!("{lost}/")))
        };
        if lost.iter().any(|path| path == "/") {
            continue;
        }
        let browser = Browser::open(repository, Arc::clone(&index), &snapshot).unwrap();
        for (path, expected) in files.iter().filter(|(path, _)| !is_lost(path)) {
            let found = browser.find(path.as_bytes(), &mut scratch);
            let node = match found.unwrap_or_else(|error| panic!("{path}: {error}")) {
                snap_engine::browse::Found::Node(node) => node,
                snap_engine::browse::Found::Root => unreachable!(),
            };
            let mut bytes = Vec::new();
            browser.cat(&node, &mut bytes, &mut scratch).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(bytes == *expected, "{path} of {}", snapshot.id);
            read += 1;
        }
    }
    read
}
