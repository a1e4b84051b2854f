//! The store against a map in memory, with damage, truncation, other repositories, leftovers and rivals.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use snap_format::{BranchEntry, Node, NodeKind, Time};

use super::*;

const REPOSITORY: RepoId = RepoId([1; 32]);
const FIRST: ObjectId = ObjectId([1; 32]);

fn is_right(id: &BlobId, plain: &[u8]) -> bool {
    hash(plain) == id.0
}

fn with_id(tree: &TreeBlob) -> (BlobId, Vec<u8>) {
    let plain = tree.encode();
    (BlobId(hash(&plain)), plain)
}

/// A directory without subdirectories, different for each number.
fn leaf(number: u64) -> (BlobId, Vec<u8>) {
    let node = Node::new(format!("file {number}").into_bytes(), NodeKind::Fifo, Time::new(0, 0));
    with_id(&TreeBlob::Leaf(vec![node; 1]))
}

/// A directory with these below it.
fn branch(below: &[BlobId]) -> (BlobId, Vec<u8>) {
    let entry = |(at, id): (usize, &BlobId)| BranchEntry {
        first: (at as u32).to_be_bytes().to_vec(),
        id: *id,
        nodes: 1,
    };
    with_id(&TreeBlob::Branch(below.iter().enumerate().map(entry).collect()))
}

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("trees/of one")
    }

    fn open(&self) -> TreeStore {
        TreeStore::open(self.path(), REPOSITORY)
    }

    fn writer(&self, trees: &[(BlobId, Vec<u8>)]) -> TreeFileWriter {
        let mut writer = self.open().writer().unwrap();
        trees.iter().for_each(|(id, plain)| writer.add(*id, plain).unwrap());
        writer
    }

    fn commit(&self, trees: &[(BlobId, Vec<u8>)], root: BlobId) {
        self.open().commit(Some(self.writer(trees)), None, (FIRST, root), &is_right).unwrap();
    }

    fn has(&self, id: &BlobId) -> bool {
        self.open().find(id, &is_right).is_some()
    }

    /// Names and lengths of the files that hold trees, finished or not.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let entries = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap());
        let trees = entries.filter(|entry| ![CURRENT, LOCK].contains(&entry.file_name().to_str().unwrap()));
        let mut files: Vec<_> = trees.map(|entry| (entry.path(), entry.metadata().unwrap().len())).collect();
        files.sort();
        files
    }
}

fn leaves(numbers: std::ops::Range<u64>) -> Vec<(BlobId, Vec<u8>)> {
    numbers.map(leaf).collect()
}

/// The leaves, and a root above them.
fn with_root(mut trees: Vec<(BlobId, Vec<u8>)>) -> (Vec<(BlobId, Vec<u8>)>, BlobId) {
    let ids: Vec<_> = trees.iter().map(|(id, _)| *id).collect();
    let root = branch(&ids);
    let id = root.0;
    trees.push(root);
    (trees, id)
}

proptest! {
    /// Any number of runs, each of which has some leaves of the last, and some others.
    #[test]
    fn what_belongs_to_the_root_is_there(
        runs in proptest::collection::vec(proptest::collection::btree_set(0_u64..300, 1..200), 1..12),
    ) {
        let scene = Scene::new();
        let mut known: HashMap<BlobId, Vec<u8>> = HashMap::new();
        for run in runs {
            let (trees, root) = with_root(run.into_iter().map(leaf).collect());
            let store = scene.open();
            let new: Vec<_> =
                trees.iter().filter(|(id, _)| store.find(id, &is_right).is_none()).cloned().collect();
            // All that belonged to the last root was there.
            prop_assert!(new.iter().all(|(id, _)| !known.contains_key(id)));
            store.commit(Some(scene.writer(&new)), None, (FIRST, root), &is_right).unwrap();
            known = trees.into_iter().collect();
            let store = scene.open();
            prop_assert_eq!(store.state(), Some((FIRST, root)));
            for (id, plain) in &known {
                prop_assert!(store.find(id, &is_right).as_ref() == Some(plain));
            }
            prop_assert_eq!(store.find(&leaf(1000).0, &is_right), None);
            prop_assert!(scene.files().len() <= 8);
        }
    }

    /// One byte is another, or the end is missing, somewhere in one of the files.
    #[test]
    fn damage_finds_nothing_wrong(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
                                  flip in 1_u8.., truncate in any::<bool>(), start_anew in any::<bool>()) {
        let scene = Scene::new();
        let (trees, root) = with_root(leaves(0..300));
        scene.commit(&trees, root);
        scene.commit(&leaves(300..310), root);
        let mut paths: Vec<_> = scene.files().into_iter().map(|(path, _)| path).collect();
        prop_assert_eq!(paths.len(), 2);
        paths.push(scene.path().join(CURRENT));
        let path = file.get(&paths);
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        if truncate { bytes.truncate(at) } else { bytes[at] ^= flip }
        std::fs::write(path, &bytes).unwrap();
        let store = scene.open();
        for (id, plain) in &trees {
            prop_assert!(store.find(id, &is_right).is_none_or(|found| found == *plain));
        }
        // And the next run that stores what it missed makes it whole again.
        let new = if start_anew { trees.clone() } else {
            trees.iter().filter(|(id, _)| store.find(id, &is_right).is_none()).cloned().collect()
        };
        store.commit(Some(scene.writer(&new)), None, (FIRST, root), &is_right).unwrap();
        let store = scene.open();
        prop_assert!(trees.iter().all(|(id, plain)| store.find(id, &is_right).as_ref() == Some(plain)));
    }
}

#[test]
fn only_what_belongs_to_the_root_outlives_a_merge() {
    let scene = Scene::new();
    let (trees, root) = with_root(leaves(0..100));
    scene.commit(&trees, root);
    // As much again: the base is written anew.
    let (trees, root) = with_root(leaves(90..200));
    scene.commit(&trees[10..], root);
    assert_eq!(scene.files().len(), 1);
    assert!(trees.iter().all(|(id, _)| scene.has(id)));
    assert!(leaves(0..90).iter().all(|(id, _)| !scene.has(id)));
}

#[test]
fn a_little_is_added_beside_the_base() {
    let scene = Scene::new();
    let (trees, root) = with_root(leaves(0..1000));
    scene.commit(&trees, root);
    let (base, size) = scene.files().remove(0);
    for number in 1000..1040 {
        scene.commit(&leaves(number..number + 1), root);
        assert!(scene.files().contains(&(base.clone(), size)), "{number}");
        assert!(scene.files().len() < 8);
    }
    assert!(leaves(0..1040).iter().all(|(id, _)| scene.has(id)));
}

#[test]
fn files_are_merged_when_later_ones_have_grown() {
    assert_eq!(merge_from(&[]), None);
    assert_eq!(merge_from(&[7]), None);
    assert_eq!(merge_from(&[100, 49]), None);
    assert_eq!(merge_from(&[100, 50]), Some(0));
    assert_eq!(merge_from(&[100, 10, 4]), None);
    assert_eq!(merge_from(&[100, 10, 4, 1]), Some(1));
    assert_eq!(merge_from(&[100, 20, 5, 3]), Some(2));
}

#[test]
fn the_cache_of_another_repository_is_none() {
    let scene = Scene::new();
    let (trees, root) = with_root(leaves(0..10));
    scene.commit(&trees, root);
    let other = || TreeStore::open(scene.path(), RepoId([2; 32]));
    assert!(other().state().is_none() && other().find(&root, &is_right).is_none());
    // A list that was made for it does not make the files its own.
    let ours = Current::decode(&std::fs::read(scene.path().join(CURRENT)).unwrap(), &REPOSITORY).unwrap();
    std::fs::write(scene.path().join(CURRENT), ours.encode(&RepoId([2; 32]))).unwrap();
    assert!(other().state().is_none() && other().find(&root, &is_right).is_none());
}

#[test]
fn a_tree_that_is_not_what_its_id_says_is_not_found() {
    let scene = Scene::new();
    let ((id, plain), (other, _)) = (leaf(1), leaf(2));
    scene.commit(&[(id, plain.clone()), (other, plain)], id);
    assert!(scene.has(&id) && !scene.has(&other));
}

#[test]
fn leftovers_go_and_work_under_way_stays() {
    let scene = Scene::new();
    let (trees, root) = with_root(leaves(0..100));
    // Another process is writing; a third one died, once before and once after it had finished its file.
    let under_way = scene.writer(&leaves(0..5));
    let died = scene.path().join(".tmp-0123");
    std::fs::write(&died, b"half").unwrap();
    scene.writer(&leaves(5..9)).finish().unwrap();
    assert_eq!(scene.files().len(), 3);
    scene.commit(&trees, root);
    assert_eq!(scene.files().len(), 2);
    assert!(!died.exists());
    // What is given up goes at once, and what is finished after all is good.
    drop(scene.writer(&leaves(5..9)));
    assert_eq!(scene.files().len(), 2);
    scene.open().commit(Some(under_way), None, (FIRST, root), &is_right).unwrap();
    assert!(trees.iter().all(|(id, _)| scene.has(id)));
}

#[test]
fn of_two_that_began_alike_the_faster_one_counts() {
    let scene = Scene::new();
    let (trees, root) = with_root(leaves(0..10));
    scene.commit(&trees, root);
    let (slower, reader) = (scene.open(), scene.open());
    let (other_trees, other_root) = with_root(leaves(10..40));
    scene.commit(&other_trees, other_root);
    // Who opened the old state keeps it, though its files are gone.
    assert_eq!(reader.state(), Some((FIRST, root)));
    assert!(trees.iter().all(|(id, _)| reader.find(id, &is_right).is_some()));
    slower.commit(Some(scene.writer(&leaves(50..60))), None, (FIRST, root), &is_right).unwrap();
    assert_eq!(scene.open().state(), Some((FIRST, other_root)));
    assert!(other_trees.iter().all(|(id, _)| scene.has(id)));
    assert_eq!(scene.files().len(), 1);
}

#[test]
fn with_others_all_is_written_anew() {
    let scene = Scene::new();
    let (trees, root) = with_root(leaves(0..20));
    scene.commit(&trees[..5], trees[0].0);
    let elsewhere = |id: &BlobId| {
        let position = trees.iter().position(|(other, _)| other == id)?;
        let plain = trees[position].1.clone();
        Some(Found { table: 0, count: trees.len() as u64, position: position as u64, plain })
    };
    scene.open().commit(None, Some(&elsewhere), (FIRST, root), &is_right).unwrap();
    assert_eq!(scene.files().len(), 1);
    assert!(trees.iter().all(|(id, _)| scene.has(id)));
}

#[test]
fn nobody_else_may_read_it_and_an_older_layout_makes_room() {
    let scene = Scene::new();
    std::fs::create_dir(scene.dir.path().join("trees")).unwrap();
    std::fs::write(scene.path(), b"SNAPTRE0 as it was").unwrap();
    assert!(scene.open().state().is_none());
    let (trees, root) = with_root(leaves(0..10));
    scene.commit(&trees, root);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&scene.path()), 0o700);
    for entry in std::fs::read_dir(scene.path()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert!(scene.has(&root));
}

#[test]
fn where_nothing_can_be_written_there_is_an_error() {
    let scene = Scene::new();
    std::fs::write(scene.dir.path().join("trees"), b"in the way").unwrap();
    assert!(scene.open().writer().is_err());
    assert!(scene.open().commit(None, None, (FIRST, leaf(0).0), &is_right).is_err());
}
