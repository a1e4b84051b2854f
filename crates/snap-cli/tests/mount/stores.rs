//! Stores that stall, and damage.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use snap_backend::{Backend, BackendError, Bytes, MemoryBackend, ObjectMeta, ObjectName, PutOutcome};
use snap_format::{BlobId, BlobKind};
use snap_repo::{Area, Index, object_name};

use crate::common::{Lab, odd, within};
use crate::{all, can_mount, latest, mount_over};

/// While it is closed, whatever reads a pack of data waits.
#[derive(Debug)]
pub struct Gate {
    inner: MemoryBackend,
    closed: Mutex<Vec<String>>,
    opened: Condvar,
    lists: bool,
}

impl Gate {
    pub fn new(lists: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBackend::new(),
            closed: Mutex::default(),
            opened: Condvar::new(),
            lists,
        })
    }

    pub fn close(&self, names: Vec<String>) {
        *self.closed.lock().unwrap() = names;
        self.opened.notify_all();
    }

    fn pass(&self, name: &str) {
        let closed = self.closed.lock().unwrap();
        let is_closed = |closed: &mut Vec<String>| closed.iter().any(|it| name.starts_with(it.as_str()));
        drop(self.opened.wait_while(closed, is_closed).unwrap());
    }
}

impl Backend for Gate {
    fn get(&self, name: &ObjectName) -> Result<Bytes, BackendError> {
        self.pass(name.as_str());
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, BackendError> {
        self.pass(name.as_str());
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, body: Bytes) -> Result<PutOutcome, BackendError> {
        self.inner.put(name, body)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectMeta, BackendError> {
        self.inner.stat(name)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        if self.lists {
            self.pass(prefix);
        }
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.inner.delete(name)
    }

    fn location(&self) -> String {
        "gate".into()
    }
}

/// Names of all packs that hold data.
pub fn data_packs(lab: &Lab) -> Vec<String> {
    let (index, _) = Index::load(&lab.repository(), None).unwrap();
    let data = index.packs().filter(|pack| pack.kind == BlobKind::Data);
    data.map(|pack| object_name(Area::Packs, &pack.id).to_string()).collect()
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_store_that_stalls_holds_up_only_who_wants_something_from_it() {
    if !can_mount() {
        return;
    }
    let gate = Gate::new(false);
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&gate) as _);
    for number in 0..40 {
        std::fs::write(lab.source(&format!("large {number}")), odd::noise(number + 1, 300_000)).unwrap();
    }
    lab.backup();
    let dir = lab.dir.path().join("mnt");
    let mounted = mount_over(&lab.backend, &lab.secret, &dir, latest);
    let top = dir.join(lab.source("").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read(top.join("large 0")).unwrap().len(), 300_000);
    gate.close(data_packs(&lab));
    // More of them than there are threads of any kind.
    let readers: Vec<_> = (1..40)
        .map(|number| {
            let path = top.join(format!("large {number}"));
            std::thread::spawn(move || std::fs::read(path).unwrap())
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let looked = top.clone();
    within(SOON, move || {
        assert_eq!(std::fs::read_dir(&looked).unwrap().count(), 40);
        assert_eq!(looked.join("large 9").metadata().unwrap().len(), 300_000);
        assert!(!looked.join("nothing").exists());
        assert!(std::fs::read(looked.join("large 0")).unwrap() == odd::noise(1, 300_000));
    });
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    // Who waits can be killed.
    let path = top.join("large 5");
    within(SOON, move || {
        let mut cat =
            std::process::Command::new("cat").arg(path).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        cat.kill().unwrap();
        cat.wait().unwrap();
    });
    gate.close(Vec::new());
    for (number, reader) in (1..).zip(readers) {
        assert!(reader.join().unwrap() == odd::noise(number + 1, 300_000));
    }
    assert_eq!(mounted.ear.heard(), [""; 0]);
}

#[test]
fn while_the_store_stalls_the_last_list_is_shown_and_it_can_be_unmounted() {
    if !can_mount() {
        return;
    }
    let gate = Gate::new(true);
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&gate) as _);
    std::fs::write(lab.source("a"), odd::noise(1, 200_000)).unwrap();
    lab.backup();
    let dir = lab.dir.path().join("mnt");
    let mounted = mount_over(&lab.backend, &lab.secret, &dir, all);
    let top = dir.join("latest/files/lab").join(lab.source("").strip_prefix("/").unwrap());
    gate.close(vec![String::new()]);
    let reader = {
        let path = top.join("a");
        std::thread::spawn(move || std::fs::read(path).map(|read| read.len()))
    };
    // Until the list is too old to be believed.
    std::thread::sleep(Duration::from_millis(3200));
    let by_id = dir.join("by-id");
    within(SOON, move || assert_eq!(std::fs::read_dir(by_id).unwrap().count(), 1));
    let mounted = within(SOON, move || {
        let ear = mounted.ear;
        drop(mounted.mount);
        ear
    });
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    gate.close(Vec::new());
    // The one who waited was told that there is nothing, or still got it.
    within(SOON, move || drop(reader.join()));
    drop(mounted);
}

/// Changes a bit of a chunk of a file in the store; says which one it is.
pub fn damage(lab: &Lab, memory: &MemoryBackend, file: &str, number: usize) -> BlobId {
    let browser = lab.browser();
    let mut scratch = snap_repo::Scratch::new(1).unwrap();
    let path = lab.source(file);
    let found = browser.find(path.as_os_str().as_encoded_bytes(), &mut scratch).unwrap();
    let snap_engine::browse::Found::Node(node) = found else { panic!("no file") };
    let chunk = browser.file_blobs(&node, &mut scratch).unwrap()[number];
    let place = browser.reader().index().locate(&browser.domain().name, &chunk).unwrap();
    let name = object_name(Area::Packs, &place.pack_id);
    let mut bytes = memory.get(&name).unwrap().to_vec();
    bytes[place.offset as usize + 100] ^= 1;
    memory.delete(&name).unwrap();
    memory.put(&name, bytes.into()).unwrap();
    chunk
}

#[test]
fn a_damaged_chunk_is_an_error_there_and_nowhere_else() {
    if !can_mount() {
        return;
    }
    let memory = Arc::new(MemoryBackend::new());
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&memory) as _);
    // As a database's file, it is cut every 64 KiB.
    let pages = [b"SQLite format 3\0".to_vec(), odd::noise(1, (8 << 20) - 16)].concat();
    std::fs::write(lab.source("pages"), &pages).unwrap();
    std::fs::write(lab.source("other"), odd::noise(2, 700_000)).unwrap();
    lab.backup();
    let dir = lab.dir.path().join("mnt");
    let top = dir.join(lab.source("").strip_prefix("/").unwrap());
    // The chunk in the middle.
    let chunk = damage(&lab, &memory, "pages", 64);
    let mounted = mount_over(&lab.backend, &lab.secret, &dir, latest);
    let file = std::fs::File::open(top.join("pages")).unwrap();
    const PAGE: usize = 4096;
    let mut lost = Vec::new();
    let mut buffer = [0; PAGE];
    for number in 0..pages.len() / PAGE {
        match file.read_exact_at(&mut buffer, (number * PAGE) as u64) {
            Ok(()) => assert!(buffer[..] == pages[number * PAGE..(number + 1) * PAGE], "page {number}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{error}"); // EIO
                lost.push(number);
            }
        }
    }
    assert_eq!(lost, (64 * 16..65 * 16).collect::<Vec<_>>());
    let mut other = Vec::new();
    std::fs::File::open(top.join("other")).unwrap().read_to_end(&mut other).unwrap();
    assert!(other == odd::noise(2, 700_000));
    let heard = mounted.ear.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(
        heard[0].starts_with("finding corrupt: packs/") && heard[0].contains(&chunk.to_string()),
        "{heard:?}"
    );
}
