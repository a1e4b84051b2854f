//! Snapshots written by hand: what is true of them is answered, what is a lie is an error there, and nothing hangs.

use snap_format::{BlobId, BlobKind, BranchEntry, Content, Link, Node, NodeKind, Summary, Time, TreeBlob};
use snap_mount::testing::ROOT;
use snap_repo::{Index, NewSnapshot, Scratch, Writer, WriterOptions};

use super::{Bed, EIO, SOON};
use crate::common::{Lab, in_memory, within};

const EACCES: i32 = 13;
const EOVERFLOW: i32 = 75;

/// Writes trees and contents as they are given.
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

    fn tree(&mut self, tree: &TreeBlob) -> BlobId {
        self.writer.add(BlobKind::Tree, &tree.encode(), &mut self.scratch).unwrap().0
    }

    fn dir(&mut self, nodes: Vec<Node>) -> BlobId {
        self.tree(&TreeBlob::Leaf(nodes))
    }

    fn chunk(&mut self, bytes: &[u8]) -> BlobId {
        self.writer.add(BlobKind::Data, bytes, &mut self.scratch).unwrap().0
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
    Node::new(name.into(), kind, Time::new(0, 0))
}

fn file(name: &str, size: u64, content: Content) -> Node {
    node(name, NodeKind::File { size, content, holes: Vec::new(), profile: 1 })
}

fn dir(name: &str, tree: BlobId) -> Node {
    node(name, NodeKind::Dir { tree })
}

/// A piece of a directory with these names, and what a branch says of it.
fn piece(forgery: &mut Forgery, names: &[&str]) -> BranchEntry {
    let id = forgery.dir(names.iter().map(|name| file(name, 0, Content::default())).collect());
    BranchEntry { first: names[0].into(), id, nodes: names.len() as u64 }
}

#[test]
fn branches_that_lie_are_errors_where_they_lie() {
    let (lab, _) = in_memory();
    let mut forgery = Forgery::begin(&lab);
    let good = [["a", "b"], ["k", "l"], ["x", "y"]].map(|names| piece(&mut forgery, &names));
    let [first, middle, last] = good.clone();
    let mut lies = Vec::new();
    for lie in [
        // More, and fewer, than there are.
        BranchEntry { nodes: 3, ..middle.clone() },
        BranchEntry { nodes: 1, ..middle.clone() },
        BranchEntry { nodes: u64::MAX, ..middle.clone() },
        // It begins with another name; it reaches into the next one.
        BranchEntry { first: b"j".to_vec(), ..middle.clone() },
        piece(&mut forgery, &["k", "x"]),
    ] {
        let tree = forgery.tree(&TreeBlob::Branch(vec![first.clone(), lie, last.clone()]));
        lies.push(dir(&format!("lie {}", lies.len()), tree));
    }
    let mut deep = first.clone();
    for _ in 0..12 {
        deep.id = forgery.tree(&TreeBlob::Branch(vec![deep.clone()]));
    }
    let content = forgery.tree(&TreeBlob::Content(vec![BlobId([1; 32])]));
    let mut all = vec![dir("content", content), dir("deep", deep.id)];
    let honest = forgery.tree(&TreeBlob::Branch(good.to_vec()));
    all.push(dir("honest", honest));
    all.extend(lies);
    all.push(dir("missing", BlobId([7; 32])));
    let root = forgery.dir(all);
    forgery.commit(&lab, root);

    let bed = Bed::new(&lab);
    assert_eq!(bed.names("honest"), ["a", "b", "k", "l", "x", "y"]);
    for number in 0..5 {
        let inode = bed.find(format!("lie {number}")).inode;
        assert!(bed.inside.lookup(inode, b"a").unwrap().is_some(), "{number}");
        assert_eq!(bed.inside.lookup(inode, b"l"), Err(EIO), "{number}");
        match bed.inside.lookup(inode, b"y") {
            Ok(found) => assert!(found.is_some(), "{number}"),
            // There are no inodes for so many.
            Err(error) => assert_eq!((error, number), (EOVERFLOW, 2)),
        }
        // Two entries, `.` and `..` among them, and then the lie.
        let page = bed.inside.page(inode, 0, 100).unwrap();
        assert_eq!(page.len(), 4, "{number}");
        assert_eq!(bed.inside.page(inode, page[3].next, 100), Err(EIO), "{number}");
    }
    for name in ["content", "deep", "missing"] {
        let inode = bed.find(name).inode;
        assert_eq!(bed.inside.lookup(inode, b"a"), Err(EIO), "{name}");
        assert_eq!(bed.inside.page(inode, 0, 100), Err(EIO), "{name}");
    }
    // Each lie once.
    let heard = bed.ear.heard();
    assert!(heard.len() >= 4 && heard.iter().all(|it| it.starts_with("finding ")), "{heard:?}");
}

#[test]
fn files_that_are_not_what_their_chunks_are_cannot_be_read() {
    let (lab, _) = in_memory();
    let mut forgery = Forgery::begin(&lab);
    let chunk = forgery.chunk(&[b'x'; 1000]);
    let list = forgery.tree(&TreeBlob::Content(vec![chunk; 3]));
    let many = forgery.tree(&TreeBlob::Content(vec![chunk; 8000]));
    let leaf = forgery.dir(Vec::new());
    let holes = vec![(0, 4096), (8192, 4096)];
    let root = forgery.dir(vec![
        file("endless", 10_000, Content::Lists(vec![many; 4000])),
        file("good", 2000, Content::Blobs(vec![chunk; 2])),
        file("list", 3000, Content::Lists(vec![list])),
        file("long", 1001, Content::Blobs(vec![chunk])),
        file("no list", 1000, Content::Lists(vec![leaf])),
        node(
            "sparse",
            NodeKind::File { size: 12_288, content: Content::Blobs(vec![chunk]), holes, profile: 1 },
        ),
        file("unknown", 1000, Content::Blobs(vec![BlobId([7; 32])])),
    ]);
    forgery.commit(&lab, root);
    let bed = Bed::new(&lab);
    for name in ["endless", "long", "no list", "sparse", "unknown"] {
        assert_eq!(bed.read(bed.find(name).inode, 0, 100), Err(EIO), "{name}");
    }
    for (name, size) in [("good", 2000), ("list", 3000)] {
        assert_eq!(bed.read(bed.find(name).inode, 0, 5000), Ok(vec![b'x'; size]), "{name}");
    }
}

#[test]
fn a_directory_that_could_not_be_read_is_not_empty() {
    let (lab, _) = in_memory();
    let mut forgery = Forgery::begin(&lab);
    let empty = forgery.dir(Vec::new());
    let closed = Node { unreadable: true, ..dir("closed", empty) };
    let root = forgery.dir(vec![closed, dir("empty", empty)]);
    forgery.commit(&lab, root);
    let bed = Bed::new(&lab);
    assert_eq!(bed.names("empty"), [""; 0]);
    let closed = bed.find("closed").inode;
    assert_eq!(bed.inside.page(closed, 0, 10), Err(EACCES));
    assert_eq!(bed.inside.lookup(closed, b"a"), Err(EACCES));
}

#[test]
fn a_tree_of_trees_that_multiply_holds_nobody_up() {
    let (lab, _) = in_memory();
    let mut forgery = Forgery::begin(&lab);
    let linked = Node { link: Some(Link { device: 1, inode: 2 }), ..file("linked", 0, Content::default()) };
    let mut tree = forgery.dir(vec![linked]);
    // 16 to the 24th directories, in 25 trees.
    for _ in 0..24 {
        tree = forgery.dir((0..16).map(|number| dir(&format!("{number:02}"), tree)).collect());
    }
    forgery.commit(&lab, tree);
    within(SOON, move || {
        let bed = Bed::new(&lab);
        let path = "07/".repeat(24) + "linked";
        // The count of its names will not end: it is what is known so far.
        assert_eq!(bed.find(&path).links, 2);
        assert_eq!(bed.list(ROOT, 100).len(), 16);
    });
}
