//! Stores that stall, and damage.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};

use snap_backend::{Backend, ObjectName};

use super::{Bed, EIO, SOON};
use crate::common::{Lab, in_memory, odd, within};
use crate::stores::{Gate, damage, data_packs};
use crate::{all, options};

#[test]
fn who_asks_for_what_is_in_memory_does_not_wait_for_the_store() {
    let gate = Gate::new(true);
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&gate) as _);
    std::fs::create_dir(lab.source("sub")).unwrap();
    std::fs::write(lab.source("sub/inside"), b"x").unwrap();
    // Its tree lies in a pack of its own, so that it does not come along with others.
    lab.backup();
    for number in 0..50 {
        std::fs::write(lab.source(&format!("f{number:02}")), odd::noise(number + 1, 300_000)).unwrap();
    }
    lab.backup();
    let bed = Arc::new(Bed::new(&lab));
    let inodes: Vec<u64> =
        (0..50).map(|number| bed.find(lab.source(&format!("f{number:02}"))).inode).collect();
    assert!(bed.read(inodes[0], 0, 300_000).unwrap() == odd::noise(1, 300_000));
    let (top, sub) = (bed.find(lab.source("")).inode, bed.find(lab.source("sub")).inode);
    gate.close(vec![String::new()]);
    // More than there are threads, of either kind.
    let reads: Vec<_> = inodes[1..].iter().map(|inode| bed.ask(*inode, 0, 300_000)).collect();
    let (sender, lists) = channel();
    for _ in 0..50 {
        let sender = sender.clone();
        bed.inside.page_then(sub, 0, 10, move |page| {
            let _ = sender.send(page.map(|page| page.len()));
        });
    }
    let (same, first) = (Arc::clone(&bed), inodes[0]);
    within(SOON, move || {
        assert_eq!(same.inside.lookup(top, b"f49").unwrap().unwrap().size, 300_000);
        assert_eq!(same.inside.lookup(top, b"nothing"), Ok(None));
        assert_eq!(same.list(top, 1000).len(), 51);
        assert!(same.read(first, 100_000, 50_000).unwrap() == odd::noise(1, 300_000)[100_000..150_000]);
    });
    assert!(reads.iter().all(|read| read.try_recv().is_err()) && lists.try_recv().is_err());
    gate.close(Vec::new());
    for (number, read) in (2..).zip(reads) {
        assert!(read.recv_timeout(SOON).unwrap().unwrap() == odd::noise(number, 300_000));
    }
    for _ in 0..50 {
        assert_eq!(lists.recv_timeout(SOON), Ok(Ok(3)));
    }
    assert_eq!(bed.ear.heard(), [""; 0]);
}

#[test]
fn who_waits_when_it_ends_is_let_go() {
    let gate = Gate::new(true);
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&gate) as _);
    for number in 0..4 {
        std::fs::write(lab.source(&format!("f{number}")), odd::noise(number + 1, 300_000)).unwrap();
    }
    lab.backup();
    let bed = Bed::new(&lab);
    let inodes = [0, 1, 2, 3].map(|number| bed.find(lab.source(&format!("f{number}"))).inode);
    gate.close(vec![String::new()]);
    let reads: Vec<_> = inodes.map(|inode| bed.ask(inode, 0, 300_000)).into();
    bed.inside.stop();
    // The reply was dropped, by which the kernel is told.
    for read in &reads {
        assert_eq!(read.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    }
    gate.close(Vec::new());
}

#[test]
fn while_the_store_stalls_the_last_list_is_shown() {
    let gate = Gate::new(true);
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::clone(&gate) as _);
    std::fs::write(lab.source("a"), b"a").unwrap();
    lab.backup();
    let bed = Arc::new(Bed::with(&lab, all, &options()));
    gate.close(vec![String::new()]);
    bed.inside.be_old();
    let same = Arc::clone(&bed);
    within(SOON, move || assert_eq!(same.names("by-id").len(), 1));
    gate.close(Vec::new());
}

#[test]
fn a_damaged_chunk_is_an_error_there_and_is_told_once() {
    let (lab, memory) = in_memory();
    std::fs::write(lab.source("bad"), odd::noise(1, 300_000)).unwrap();
    std::fs::write(lab.source("good"), odd::noise(2, 300_000)).unwrap();
    lab.backup();
    let chunk = damage(&lab, &memory, "bad", 0);
    let bed = Bed::new(&lab);
    let [bad, good] = ["bad", "good"].map(|name| bed.find(lab.source(name)).inode);
    for _ in 0..3 {
        assert_eq!(bed.read(bad, 0, 1000), Err(EIO));
    }
    assert!(bed.read(good, 0, 300_000).unwrap() == odd::noise(2, 300_000));
    let heard = bed.ear.heard();
    assert!(heard.len() == 1 && heard[0].contains(&chunk.to_string()), "{heard:?}");
}

#[test]
fn a_pack_that_is_gone_is_named() {
    let (lab, memory) = in_memory();
    std::fs::write(lab.source("a"), odd::noise(1, 300_000)).unwrap();
    lab.backup();
    let bed = Bed::new(&lab);
    let inode = bed.find(lab.source("a")).inode;
    for pack in data_packs(&lab) {
        memory.delete(&ObjectName::new(&pack).unwrap()).unwrap();
    }
    assert_eq!(bed.read(inode, 0, 1000), Err(EIO));
    let heard = bed.ear.heard();
    assert!(heard.len() == 1 && heard[0].starts_with("finding missing: packs/"), "{heard:?}");
}
