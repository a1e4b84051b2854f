//! Contents: many readers, and places at random.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use snap_backend::testing::RecordingBackend;
use snap_backend::{MemoryBackend, Operation};

use crate::common::{Lab, odd};
use crate::{can_mount, latest, mount_latest, mount_over};

#[test]
fn four_readers_fetch_what_one_fetches() {
    if !can_mount() {
        return;
    }
    let recording = RecordingBackend::new(Arc::new(MemoryBackend::new()));
    let lab = Lab::over(tempfile::tempdir().unwrap(), Arc::new(recording.clone()));
    let content = odd::noise(7, 40 << 20);
    std::fs::write(lab.source("large"), &content).unwrap();
    lab.backup();
    let dir = lab.dir.path().join("mnt");
    let mounted = mount_over(&lab.backend, &lab.secret, &dir, latest);
    let large = dir.join(lab.source("large").strip_prefix("/").unwrap());
    large.metadata().unwrap();
    let _ = recording.take();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut read = Vec::new();
                std::fs::File::open(&large).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == content);
            });
        }
    });
    let fetched = recording.take();
    let reads =
        fetched.iter().filter(|it| it.operation == Operation::GetRange && it.name.starts_with("packs/"));
    let bytes: u64 = reads.map(|it| it.amount).sum();
    let all = content.len() as u64;
    assert!((all..all + all / 50).contains(&bytes), "{bytes} bytes were fetched for {all}");
    assert_eq!(mounted.ear.heard(), [""; 0]);
}

#[test]
fn any_range_of_any_file() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let mut text = odd::text(9 << 20);
    std::fs::write(lab.source("text"), &text).unwrap();
    let noise = odd::noise(1, 6 << 20);
    std::fs::write(lab.source("noise"), &noise).unwrap();
    let pieces = [(1 << 20, odd::noise(3, (3 << 20) + 1000)), (20 << 20, odd::text(100_000))];
    odd::sparse(&lab.source("sparse"), (30 << 20) + 17, &pieces);
    let mut sparse = vec![0; (30 << 20) + 17];
    for (offset, bytes) in &pieces {
        sparse[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
    }
    lab.backup();
    let (_mounted, top) = mount_latest(&lab);
    for (name, expected) in [("text", &mut text), ("noise", &mut noise.clone()), ("sparse", &mut sparse)] {
        let file = std::fs::File::open(top.join(name)).unwrap();
        let mut state = 12_345_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..300 {
            let (at, length) = (random(expected.len()), random(300_000));
            let mut buffer = vec![1; length];
            let mut done = 0;
            while done < length {
                match file.read_at(&mut buffer[done..], (at + done) as u64).unwrap() {
                    0 => break,
                    read => done += read,
                }
            }
            let end = (at + length).min(expected.len());
            assert_eq!(done, end - at, "{name} at {at}");
            assert!(buffer[..done] == expected[at..end], "{name} at {at}");
        }
    }
}
