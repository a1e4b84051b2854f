//! What a put does to a disk, and what of it a power failure leaves.
//!
//! The system calls that matter are noted in order. A crash may come after any of them; it keeps a name only
//! if its directory was synced since, and the content of a file only if the file was.

use std::cell::RefCell;

use rustix::fs::fstat;

use super::*;

/// Device and inode.
pub(super) type Id = (u64, u64);

#[derive(Debug)]
pub(super) enum Event {
    /// A directory (`file` is none) or an object got its name.
    Named {
        dir: Id,
        name: String,
        file: Option<Id>,
    },
    Removed(Id),
    SyncedFile(Id),
    SyncedDir(Id),
}

thread_local! {
    static EVENTS: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn note(event: Event) {
    EVENTS.with_borrow_mut(|events| events.push(event));
}

pub(super) fn id(fd: &std::os::fd::OwnedFd) -> Id {
    let stat = fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

fn id_of(path: &Path) -> Id {
    id(&std::fs::File::open(path).unwrap().into())
}

fn take() -> Vec<Event> {
    EVENTS.take()
}

/// The names that a power failure right now would take.
fn lost(events: &[Event]) -> Vec<&str> {
    let named = events.iter().enumerate().filter_map(|(at, event)| match event {
        Event::Named { dir, name, .. } => Some((at, dir, name)),
        _ => None,
    });
    let synced =
        |at: usize, dir: &Id| events[at..].iter().any(|e| matches!(e, Event::SyncedDir(d) if d == dir));
    named.filter(|(at, dir, _)| !synced(*at, dir)).map(|(_, _, name)| name.as_str()).collect()
}

fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

#[test]
fn after_a_put_nothing_on_the_way_to_the_object_can_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(dir.path().join("a/b"), true);
    take();
    backend.put(&object("packs/ab/c"), Bytes::from_static(b"x")).unwrap();
    let events = take();
    // Unfinished files may be lost with the directory that holds them.
    assert!(lost(&events).iter().all(|name| *name == TEMPORARIES), "{events:?}");
    let named = events.iter().filter(|event| matches!(event, Event::Named { .. })).count();
    assert_eq!(named, "a b packs ab tmp c".split(' ').count(), "{events:?}");
}

#[test]
fn an_object_has_its_content_before_its_name() {
    let dir = tempfile::tempdir().unwrap();
    take();
    LocalBackend::new(dir.path(), false).put(&object("config"), Bytes::from_static(b"x")).unwrap();
    let events = take();
    let at = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let named = at(&|event| matches!(event, Event::Named { file: Some(_), .. }));
    let Event::Named { file: Some(file), .. } = &events[named] else { unreachable!() };
    assert!(at(&|event| matches!(event, Event::SyncedFile(synced) if synced == file)) < named);
}

#[test]
fn a_directory_or_object_of_another_process_is_synced_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("packs/ab")).unwrap();
    std::fs::write(dir.path().join("packs/ab/c"), "x").unwrap();
    take();
    let backend = LocalBackend::new(dir.path(), false);
    assert_eq!(backend.put(&object("packs/ab/c"), Bytes::from_static(b"x")).unwrap(), PutOutcome::Existed);
    let events = take();
    for path in ["", "packs", "packs/ab"] {
        let id = id_of(&dir.path().join(path));
        assert!(
            events.iter().any(|event| matches!(event, Event::SyncedDir(synced) if *synced == id)),
            "{path}"
        );
    }
}

#[test]
fn a_deletion_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(dir.path(), false);
    backend.put(&object("marks/a"), Bytes::new()).unwrap();
    take();
    backend.delete(&object("marks/a")).unwrap();
    let marks = id_of(&dir.path().join("marks"));
    let [Event::Removed(from), Event::SyncedDir(synced)] = &take()[..] else {
        panic!("removed, then synced")
    };
    assert_eq!((*from, *synced), (marks, marks));
}
