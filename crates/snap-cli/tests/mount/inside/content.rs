//! What is read: any range, holes, in order, by many.

use std::sync::Arc;
use std::time::Instant;

use rustix::fs::SeekFrom;
use snap_backend::testing::RecordingBackend;
use snap_backend::{MemoryBackend, Operation};
use snap_mount::MountOptions;

use super::{Bed, SOON};
use crate::common::{Lab, odd};
use crate::{latest, options};

/// Numbers that look random, the same each time.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*state >> 33) as usize % below
}

#[test]
fn any_range_of_any_file() {
    let lab = Lab::new();
    let pieces = [(1 << 20, odd::noise(3, (3 << 20) + 1000)), (6 << 20, odd::text(100_000))];
    odd::sparse(&lab.source("sparse"), (9 << 20) + 17, &pieces);
    let large = [("text", odd::text(5 << 20)), ("noise", odd::noise(1, 4 << 20))];
    let small = ["a", "b", "c", "d"].map(|name| (name, odd::noise(name.len() as u64, 3000)));
    for (name, bytes) in large.iter().chain(&small) {
        std::fs::write(lab.source(name), bytes).unwrap();
    }
    std::fs::write(lab.source("empty"), b"").unwrap();
    lab.backup();
    // Once with room for all of it, and once where units come and go.
    for memory_bytes in [64 << 20, 1 << 20] {
        let bed = Bed::with(&lab, latest, &MountOptions { memory_bytes, ..options() });
        for name in ["sparse", "text", "noise", "a", "d", "empty"] {
            let expected = std::fs::read(lab.source(name)).unwrap();
            let inode = bed.find(lab.source(name)).inode;
            let check = |offset: usize, size: usize| {
                let read = bed.read(inode, offset as u64, size as u32).unwrap();
                let start = offset.min(expected.len());
                let end = (offset + size).min(expected.len());
                assert!(read == expected[start..end], "{name}: {size} at {offset}");
            };
            let mut state = 12_345;
            for _ in 0..60 {
                check(random(&mut state, expected.len() + 5000), random(&mut state, 300_000));
            }
            let end = expected.len();
            for (offset, size) in [(0, 0), (0, 1), (end, 1), (end.saturating_sub(1), 4096), (end + 1, 1)] {
                check(offset, size);
            }
            assert_eq!(bed.read(inode, u64::MAX, 4096), Ok(Vec::new()), "{name}");
        }
        assert_eq!(bed.ear.heard(), [""; 0]);
    }
}

#[test]
fn data_and_holes_are_found_where_the_source_has_them() {
    let lab = Lab::new();
    let (path, size) = (lab.source("sparse"), 40 << 20);
    let pieces =
        [(1 << 20, odd::noise(1, 1 << 20)), (8 << 20, odd::noise(2, 5000)), (39 << 20, odd::text(9))];
    odd::sparse(&path, size, &pieces);
    std::fs::write(lab.source("whole"), odd::noise(3, 100_000)).unwrap();
    lab.backup();
    let bed = Bed::new(&lab);
    for name in ["sparse", "whole"] {
        let inode = bed.find(lab.source(name)).inode;
        let file = std::fs::File::open(lab.source(name)).unwrap();
        for at in (0..=42 << 20).step_by(100_000).chain([(1 << 20) - 1, 1 << 20, 2 << 20, 8 << 20, size]) {
            // SEEK_DATA and SEEK_HOLE of lseek(2).
            let [data, hole] =
                [SeekFrom::Data(at), SeekFrom::Hole(at)].map(|from| rustix::fs::seek(&file, from));
            let found = [true, false].map(|is_for_data| bed.inside.seek(inode, at, is_for_data).unwrap());
            assert_eq!(found, [data.ok(), hole.ok()], "{name} at {at}");
        }
    }
    let attr = bed.find(&path);
    assert!(attr.blocks * 512 >= 1 << 20 && attr.blocks * 512 < 2 << 20, "{}", attr.blocks);
}

/// Bytes that were read from packs since the last look.
fn fetched(recording: &RecordingBackend) -> u64 {
    let reads = recording.take().into_iter();
    let of_packs = reads.filter(|it| it.operation == Operation::GetRange && it.name.starts_with("packs/"));
    of_packs.map(|it| it.amount).sum()
}

#[test]
fn reading_in_order_is_fetched_ahead_and_only_once() {
    const STEP: u32 = 128 << 10;
    let recording = RecordingBackend::new(Arc::new(MemoryBackend::new()));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    let content = odd::noise(7, 24 << 20);
    std::fs::write(lab.source("large"), &content).unwrap();
    lab.backup();
    let bed = Bed::new(&lab);
    let inode = bed.find(lab.source("large")).inode;
    // One read in the middle brings its chunk and no more.
    let _ = recording.take();
    assert!(bed.read(inode, 20 << 20, STEP).unwrap() == content[20 << 20..(20 << 20) + STEP as usize]);
    let alone = fetched(&recording);
    assert!(alone < 6 << 20, "{alone}");
    // Four at once, each from the beginning to the end.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (at, expected) in (0..).step_by(STEP as usize).zip(content.chunks(STEP as usize)) {
                    assert!(bed.read(inode, at, STEP).unwrap() == expected, "at {at}");
                }
            });
        }
    });
    let all = content.len() as u64;
    let bytes = alone + fetched(&recording);
    assert!((all..all + all / 50).contains(&bytes), "{bytes} bytes were fetched for {all}");
    // Who stops after a few still has had more fetched than he asked for.
    let bed = Bed::new(&lab);
    let inode = bed.find(lab.source("large")).inode;
    let _ = recording.take();
    for at in (0..4 << 20).step_by(STEP as usize) {
        bed.read(inode, at, STEP).unwrap();
    }
    let (began, mut ahead) = (Instant::now(), 0);
    while ahead < 11 << 19 {
        assert!(began.elapsed() < SOON, "{ahead}");
        std::thread::yield_now();
        ahead += fetched(&recording);
    }
    assert_eq!(bed.ear.heard(), [""; 0]);
}
