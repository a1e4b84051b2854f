//! Looking at trees written to do harm, and at trees that are not there any more: what is whole is found, what is not is
//! named, nothing panics, hangs or fills the memory.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Lab, within};
use snap_engine::look::{Change, DiffSide, FindOptions, History, deleted, diff, find, versions};
use snap_format::{BlobId, BlobKind, BranchEntry, Content, Node, NodeKind, Summary, Time, TreeBlob};
use snap_repo::{Index, NewSnapshot, Scratch, Writer, WriterOptions};

const LIMIT: Duration = Duration::from_secs(120);

/// Writes a snapshot by hand: trees as they are given, true or not.
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

    fn leaf(&mut self, names: &[&str]) -> BranchEntry {
        let id = self.dir(names.iter().map(|name| file(name, 0)).collect());
        BranchEntry { first: names[0].into(), id, nodes: names.len() as u64 }
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

fn file(name: &str, mtime: i64) -> Node {
    let kind = NodeKind::File { size: 0, content: Content::default(), holes: Vec::new(), profile: 1 };
    Node::new(name.into(), kind, Time::new(mtime, 0))
}

fn dir(name: &str, tree: BlobId) -> Node {
    Node::new(name.into(), NodeKind::Dir { tree }, Time::new(0, 0))
}

fn history(lab: &Lab) -> History {
    let repository = lab.repository();
    let (index, _) = Index::load(&repository, None).unwrap();
    let set = repository.snapshots().unwrap();
    History::open(&repository, Arc::new(index), &set.snapshots, &lab.ear).unwrap()
}

fn names(lab: &Lab, history: &History, pattern: &str, regex: bool) -> Vec<String> {
    let options = FindOptions { patterns: vec![pattern.into()], regex, ..FindOptions::default() };
    let mut out = Vec::new();
    find(history, &options, lab.context(), &mut |_, path, _| {
        out.push(String::from_utf8(path.to_vec()).unwrap());
        Ok(())
    })
    .unwrap();
    out
}

fn differing(lab: &Lab, history: &History) -> Vec<(String, Change)> {
    let side = |number: usize| DiffSide { past: &history.past()[number], path: None };
    let mut out = Vec::new();
    diff(history, side(0), side(1), lab.context(), &mut |entry| {
        out.push((String::from_utf8(entry.path.to_vec()).unwrap(), entry.change));
        Ok(())
    })
    .unwrap();
    out
}

#[test]
fn a_tree_that_is_missing_is_named_and_the_rest_is_found() {
    let (lab, _) = common::in_memory();
    let mut forgery = Forgery::begin(&lab);
    let good = forgery.dir(vec![file("needle", 1)]);
    let root = forgery.dir(vec![dir("bad", good), dir("good", good)]);
    forgery.commit(&lab, root);
    let mut forgery = Forgery::begin(&lab);
    let good = forgery.dir(vec![file("needle", 2)]);
    let root = forgery.dir(vec![dir("bad", BlobId([7; 32])), dir("good", good)]);
    forgery.commit(&lab, root);
    let history_of = || (history(&lab), lab.heard());

    for (pattern, regex) in [("needle", false), ("/**/needle", false), ("needle$", true)] {
        let (history, _) = history_of();
        assert_eq!(names(&lab, &history, pattern, regex), ["/bad/needle", "/good/needle", "/good/needle"]);
        assert_eq!(history.damaged(), 1);
        let heard = lab.heard();
        assert!(heard.len() == 1 && heard[0].contains("no index names it"), "{heard:?}");
    }
    // A whole path that does not lead there does not meet it.
    let (history, _) = history_of();
    assert_eq!(names(&lab, &history, "/good/*", false).len(), 2);
    assert_eq!(history.damaged(), 0);
    // What cannot be listed is neither there nor gone.
    assert_eq!(differing(&lab, &history), [("/good/needle".to_owned(), Change::Metadata)]);
    assert_eq!(history.damaged(), 1);

    let (history, _) = history_of();
    let found = versions(&history, b"/bad/needle", lab.context()).unwrap();
    assert_eq!((found.list.len(), found.absent, found.unknown), (1, vec![], vec![1]));
    assert_eq!(history.damaged(), 1);
    let (history, _) = history_of();
    let gone = deleted(&history, &[b"/bad".to_vec()], lab.context()).unwrap();
    let gone: Vec<_> = gone.vanished.iter().map(|gone| (gone.path.as_slice(), gone.last)).collect();
    // The directory comes back from the last snapshot, and what its tree is not known to hold from the one before.
    assert_eq!(gone, [(&b"/bad"[..], 1), (b"/bad/needle", 0)]);
    assert_eq!(history.damaged(), 1);
}

#[test]
fn pieces_that_contradict_their_branch_hide_only_themselves() {
    let (lab, _) = common::in_memory();
    let mut forgery = Forgery::begin(&lab);
    let pieces = [["a", "b"], ["k", "l"], ["x", "y"]].map(|names| forgery.leaf(&names));
    let whole = forgery.tree(&TreeBlob::Branch(pieces.to_vec()));
    forgery.commit(&lab, whole);
    let mut forgery = Forgery::begin(&lab);
    let [first, middle, last] = pieces;
    let lies = BranchEntry { first: b"h".to_vec(), ..forgery.leaf(&["c", "d"]) };
    let root = forgery.tree(&TreeBlob::Branch(vec![first, lies, middle, last]));
    forgery.commit(&lab, root);
    let history = history(&lab);
    // Between "b" and "k" nothing can be told of the second snapshot; all the rest is the same.
    assert_eq!(differing(&lab, &history), []);
    assert_eq!(history.damaged(), 1);
    for name in ["a", "l", "y"] {
        assert_eq!(names(&lab, &history, name, false).len(), 2, "{name}");
    }
}

#[test]
fn what_is_no_directory_is_refused() {
    let (lab, _) = common::in_memory();
    let mut forgery = Forgery::begin(&lab);
    let content = forgery.tree(&TreeBlob::Content(vec![BlobId([1; 32])]));
    let mut deep = forgery.leaf(&["needle"]);
    for _ in 0..12 {
        deep.id = forgery.tree(&TreeBlob::Branch(vec![deep.clone()]));
    }
    let root = forgery.dir(vec![dir("content", content), dir("deep", deep.id), file("needle", 0)]);
    forgery.commit(&lab, root);
    let mut forgery = Forgery::begin(&lab);
    let root = forgery.dir(vec![dir("content", root), file("needle", 1)]);
    forgery.commit(&lab, root);
    let history = history(&lab);
    assert_eq!(names(&lab, &history, "needle", false), ["/needle", "/content/needle", "/needle"]);
    assert!(history.damaged() >= 2);
    assert!(differing(&lab, &history).contains(&("/needle".to_owned(), Change::Metadata)));
    let gone = deleted(&history, &[b"/".to_vec()], lab.context()).unwrap();
    assert!(gone.vanished.iter().any(|gone| gone.path == b"/needle" && gone.last == 1));
}

#[test]
fn a_tree_of_trees_that_multiply_is_looked_at_once() {
    let (lab, _) = common::in_memory();
    let mut forgery = Forgery::begin(&lab);
    let mut tree = forgery.dir(vec![file("leaf", 0)]);
    // 16 to the 24th directories, in 25 trees.
    for _ in 0..24 {
        tree = forgery.dir((0..16).map(|number| dir(&format!("{number:02}"), tree)).collect());
    }
    forgery.commit(&lab, tree);
    let mut forgery = Forgery::begin(&lab);
    let root = forgery.dir(vec![dir("x", tree), file("y", 0)]);
    forgery.commit(&lab, root);
    within(LIMIT, move || {
        let history = history(&lab);
        let options = FindOptions { patterns: vec!["y".into()], ..FindOptions::default() };
        let report = find(&history, &options, lab.context(), &mut |_, _, _| Ok(())).unwrap();
        assert_eq!((report.matches, report.trees), (1, 26));
        // Whoever wants all of it can stop.
        let options = FindOptions { patterns: vec!["leaf".into()], ..FindOptions::default() };
        let mut left = 1000;
        let stopped = find(&history, &options, lab.context(), &mut |_, _, _| {
            left -= 1;
            if left == 0 { Err(snap_engine::EngineError::Interrupted) } else { Ok(()) }
        });
        assert!(stopped.is_err());
    });
}
