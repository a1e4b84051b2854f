//! What a run does to the machine around it: its page cache, and how many threads read.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use common::{Lab, odd};
use snap_engine::{Context, Event, Observer};
use snap_source::{SourceDir, SourceFile};

fn open(path: &Path) -> SourceFile {
    let dir = SourceDir::open(path.parent().unwrap()).unwrap();
    dir.open_file(path.file_name().unwrap().as_encoded_bytes()).unwrap()
}

fn chill(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    open(path).drop_cache(0, file.metadata().unwrap().len());
}

/// How many of some places of the file are in the page cache. Asking makes the kernel read: once for each file.
fn cached_places(path: &Path) -> usize {
    let file = open(path);
    let size = fs::metadata(path).unwrap().len();
    // From the end: what the kernel reads because it was asked lies behind the place.
    (0..8).rev().filter(|place| file.is_cached(size / 8 * place)).count()
}

#[test]
fn what_was_not_in_the_page_cache_leaves_it_again_and_what_was_stays() {
    let lab = Lab::new();
    let files = [
        ("cold-small", 100_000),
        ("cold-large", 30 << 20),
        ("warm-small", 100_000),
        ("warm-large", 30 << 20),
    ];
    for (number, (name, size)) in files.iter().enumerate() {
        fs::write(lab.source(name), odd::noise(number as u64, *size)).unwrap();
        if name.starts_with("cold") {
            chill(&lab.source(name));
        }
    }
    fs::write(lab.source("probe"), odd::noise(9, 1 << 20)).unwrap();
    chill(&lab.source("probe"));
    if open(&lab.source("probe")).is_cached(0) {
        return; // a file system in memory
    }
    fs::remove_file(lab.source("probe")).unwrap();
    let report = lab.backup();
    assert_eq!(report.summary.files, 4);
    let cached = files.map(|(name, _)| (name, cached_places(&lab.source(name))));
    assert_eq!(cached, [("cold-small", 0), ("cold-large", 0), ("warm-small", 8), ("warm-large", 8)]);
}

/// Holds every thread that has stored a file until so many have.
struct Gate {
    wanted: usize,
    arrived: Mutex<HashSet<ThreadId>>,
    changed: Condvar,
}

impl Observer for Gate {
    fn event(&self, event: Event<'_>) {
        if !matches!(event, Event::Done { .. }) {
            return;
        }
        let mut arrived = self.arrived.lock().unwrap();
        arrived.insert(std::thread::current().id());
        self.changed.notify_all();
        let missing = |arrived: &mut HashSet<ThreadId>| arrived.len() < self.wanted;
        let limit = Duration::from_secs(20);
        drop(self.changed.wait_timeout_while(arrived, limit, missing).unwrap());
    }

    fn wants_done(&self) -> bool {
        true
    }
}

#[test]
fn as_many_threads_read_as_there_are_readers() {
    for readers in [5, 2] {
        let lab = Lab::new();
        for number in 0..12 {
            let dir = lab.source(&format!("dir-{number}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("small"), format!("content {number}")).unwrap();
        }
        let gate = Gate { wanted: readers, arrived: Mutex::default(), changed: Condvar::new() };
        let options = snap_engine::BackupOptions { readers: Some(readers), ..lab.options() };
        let context = Context { observer: &gate, ..lab.context() };
        snap_engine::backup(&lab.repository(), None, options, context).unwrap();
        assert_eq!(gate.arrived.into_inner().unwrap().len(), readers);
    }
}
