#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod damage;
mod model;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snap_backend::testing::RecordingBackend;
use snap_backend::{Backend, MemoryBackend, Operation};
use snap_format::{BlobEntry, EpochId, Role, Time};

use super::*;
use crate::{FindingCode, NewSlot, Secret, object_name};

const NOW: Time = Time { secs: 1, nanos: 0 };

/// A repository of index objects without packs, and a cache.
struct Lab {
    dir: tempfile::TempDir,
    memory: Arc<MemoryBackend>,
    recording: RecordingBackend,
    repository: Repository,
    owner: Secret,
}

impl Lab {
    fn new() -> Self {
        let memory = Arc::new(MemoryBackend::new());
        let recording = RecordingBackend::new(Arc::clone(&memory) as _);
        let owner = Secret::random_key_file().unwrap();
        Repository::create(&recording, &owner, "test", NOW).unwrap();
        let repository = Repository::open(Arc::new(recording.clone()), &owner).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), memory, recording, repository, owner }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.dir.path(), self.repository.id())
    }

    fn tables(&self) -> PathBuf {
        self.cache().root().join("tables").join(self.repository.copy_id())
    }

    /// Table files.
    fn files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.tables()).into_iter().flatten().map(|file| file.unwrap().path());
        let is_table = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 32);
        let mut files: Vec<_> = files.filter(is_table).collect();
        files.sort();
        files
    }

    fn put(&self, packs: &[IndexedPack]) -> ObjectId {
        put(&self.repository, packs)
    }

    fn delete(&self, object: &ObjectId) {
        self.memory.delete(&object_name(Area::Index, object)).unwrap();
    }

    /// In batches so small that there are several.
    fn load(&self) -> Index {
        let (index, findings) =
            Index::load_in_batches(&self.repository, Some(&self.cache()), Some(40)).unwrap();
        assert_eq!(findings, []);
        index
    }

    /// Index objects fetched since the last call.
    fn fetched(&self) -> usize {
        let calls = self.recording.take();
        calls
            .iter()
            .filter(|call| call.operation == Operation::Get && call.name.starts_with("index/"))
            .count()
    }
}

fn put(repository: &Repository, packs: &[IndexedPack]) -> ObjectId {
    let payload = IndexObject { packs: packs.to_vec(), replaces: Vec::new() }.encode();
    repository.put_box(Area::Index, snap_format::ObjectKind::Index, &payload).unwrap()
}

fn blob_id(number: u64) -> BlobId {
    BlobId(snap_crypto::hash(&number.to_le_bytes()))
}

fn pack_id(number: u64) -> ObjectId {
    ObjectId(snap_crypto::hash(&[b"pack".as_slice(), &number.to_le_bytes()].concat()))
}

/// A pack with these blobs, of each four the last three in a group; `run` is in its run key.
fn pack(number: u64, domain: &str, run: u8, blobs: impl IntoIterator<Item = u64>) -> IndexedPack {
    let run_key = RunKeyEntry { epoch: EpochId([7; 16]), sealed: [run; 80] };
    let blob = |(at, number): (usize, u64)| BlobEntry {
        id: blob_id(number),
        stored_len: if at % 4 < 2 { 50 + number as u32 % 1000 } else { 0 },
        plain_len: 10 + number as u32 % 1000,
        codec: if at % 8 == 4 { Codec::Raw } else { Codec::Zstd },
        grouped: at % 4 > 0,
        run_key: u8::from(at % 8 < 4),
    };
    IndexedPack {
        id: pack_id(number),
        size: 1000 + number,
        kind: if number.is_multiple_of(5) { BlobKind::Tree } else { BlobKind::Data },
        domain: domain.to_owned(),
        run_keys: vec![run_key, RunKeyEntry { sealed: [run ^ 255; 80], ..run_key }],
        blobs: blobs.into_iter().enumerate().map(blob).collect(),
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_lie_about_a_pack_does_not_hide_the_truth() {
    let lies = [pack(7, "slot-1", 0, [1]), pack(7, "main", 0, [1]), pack(7, "main", 0, [2])];
    let lab = Lab::new();
    let mut in_memory = Index::default();
    for lie in lies.iter().chain(&lies[2..]) {
        in_memory.insert(lie);
        lab.put(std::slice::from_ref(lie));
    }
    let mut mixed = lab.load();
    mixed.insert(&lies[0]);
    for index in [in_memory, lab.load(), mixed] {
        assert_eq!((index.pack_numbers(&pack_id(7)).count(), index.packs().count()), (3, 3));
        assert!(index.names_pack(&pack_id(7), "main") && !index.names_pack(&pack_id(7), "x"));
        let digest = |blob| {
            let place = index.locate("main", &blob_id(blob)).unwrap();
            index.pack(place.pack).unwrap().digest
        };
        assert_eq!([digest(1), digest(2)], [pack_digest(&lies[1]), pack_digest(&lies[2])]);
        assert_eq!(index.locate("slot-1", &blob_id(2)), None);
    }
}

#[test]
fn a_new_object_costs_one_request_and_leaves_large_tables_alone() {
    let lab = Lab::new();
    lab.put(&[pack(1, "main", 0, 0..20_000)]);
    drop(lab.load());
    let large = lab.files();
    assert_eq!((large.len(), lab.fetched()), (1, 1));
    for number in 2..30 {
        lab.put(&[pack(number, "main", 0, [30_000 + number, 40_000 + number])]);
        let index = lab.load();
        assert_eq!(lab.fetched(), 1);
        assert!(lab.files().contains(&large[0]) && lab.files().len() == 2, "{:?}", lab.files());
        for known in [19_999, 30_002, 40_000 + number] {
            assert!(index.plain_len("main", &blob_id(known)).is_some(), "{known}");
        }
    }
    // Nothing new: nothing is read or written.
    let before = lab.files();
    let manifest = std::fs::metadata(lab.tables().join("manifest")).unwrap().modified().unwrap();
    assert_eq!(lab.load().blobs(), 20_056);
    assert_eq!((lab.fetched(), lab.files()), (0, before));
    assert_eq!(std::fs::metadata(lab.tables().join("manifest")).unwrap().modified().unwrap(), manifest);
}

#[test]
fn what_is_wrong_with_an_object_is_said_each_time() {
    let lab = Lab::new();
    let secret = Secret::random_key_file().unwrap();
    let slot =
        NewSlot { role: Role::Backup, secret: &secret, label: "web".into(), domain: Some("web".into()) };
    lab.repository.add_slot(slot, NOW).unwrap();
    let writer = Repository::open(Arc::clone(&lab.memory) as _, &secret).unwrap();
    let owner = Repository::open(Arc::clone(&lab.memory) as _, &lab.owner).unwrap();
    put(&writer, &[pack(1, "web", 0, [1]), pack(2, "main", 0, [2])]);
    put(&owner, &[pack(3, "main", 0, [3])]);
    let garbage = b"SNAPSBOX, or not".to_vec();
    let name = object_name(Area::Index, &ObjectId(snap_crypto::hash(&garbage)));
    lab.memory.put(&name, garbage.into()).unwrap();
    for repository in [&owner, &writer, &owner] {
        let (index, findings) = Index::load(repository, Some(&lab.cache())).unwrap();
        let mut codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
        codes.sort_unstable();
        assert_eq!(codes, [FindingCode::Corrupt, FindingCode::Forged]);
        let known = [("web", 1), ("main", 2), ("main", 3)];
        let known = known.map(|(domain, blob)| index.plain_len(domain, &blob_id(blob)).is_some());
        assert_eq!(known, [true, false, true]);
        assert_eq!(index.objects().len(), 3);
    }
}

#[test]
fn packs_that_only_gone_objects_named_are_not_believed() {
    let lab = Lab::new();
    let shared = pack(2, "main", 0, [2, 20]);
    let first = lab.put(&[pack(1, "main", 0, [1]), shared.clone()]);
    lab.put(&[pack(3, "main", 0, [3]), shared]);
    let others = [5, 6, 8, 9, 10, 11, 12, 13].map(|number| pack(number, "main", 0, [number]));
    lab.put(&others);
    drop(lab.load());
    let before = lab.files();
    lab.delete(&first);
    let index = lab.load();
    assert_eq!(lab.files(), before, "a sixth is not worth the work");
    let known = [1, 2, 20, 3, 5].map(|blob| index.plain_len("main", &blob_id(blob)).is_some());
    assert_eq!(known, [false, true, true, true, true]);
    assert_eq!((index.packs().count(), index.blobs(), index.pack_limit()), (10, 11, 10));
    assert!(!index.names_pack(&pack_id(1), "main") && index.names_pack(&pack_id(2), "main"));
    // Too much is dead: the table is written anew, and the dead are gone.
    let rest: Vec<ObjectId> = index.objects().to_vec();
    lab.delete(&rest[0]);
    lab.delete(&rest[1]);
    assert_eq!(lab.load().packs().count(), 0);
    assert_ne!(lab.files(), before);
}

#[test]
fn who_does_not_get_the_lock_goes_on_without() {
    let lab = Lab::new();
    lab.put(&[pack(1, "main", 0, 0..100)]);
    drop(lab.load());
    let before = lab.files();
    lab.put(&[pack(2, "main", 0, 200..300)]);
    let lock = std::fs::File::open(lab.tables().join("lock")).unwrap();
    lock.lock().unwrap();
    let index = lab.load();
    assert_eq!((index.blobs(), lab.files()), (200, before.clone()));
    lock.unlock().unwrap();
    // What another process published since is used while the first goes on.
    assert_eq!((lab.load().blobs(), index.blobs()), (200, 200));
    assert_ne!(lab.files(), before);
    for number in 0..300 {
        let expected = (!(100..200).contains(&number)).then_some(10 + number as u32);
        assert_eq!(index.plain_len("main", &blob_id(number)), expected, "{number}");
    }
}

#[test]
fn what_a_killed_run_left_is_removed() {
    let lab = Lab::new();
    lab.put(&[pack(1, "main", 0, [1])]);
    drop(lab.load());
    std::fs::write(lab.tables().join("0123456789abcdef0123456789abcdef"), b"half a table").unwrap();
    std::fs::write(lab.tables().join(".tmp-1"), b"half a manifest").unwrap();
    std::fs::create_dir_all(lab.cache().root().join("index")).unwrap();
    lab.put(&[pack(2, "main", 0, [2])]);
    drop(lab.load());
    assert_eq!(lab.files().len(), 1);
    assert!(!lab.tables().join(".tmp-1").exists() && !lab.cache().root().join("index").exists());
}
