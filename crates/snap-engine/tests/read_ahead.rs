//! Reading ahead gives what reading one chunk after another gives.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::fs;
use std::io::Read;
use std::time::Duration;

use common::{Lab, odd, within};
use snap_engine::browse::{Browser, Found};
use snap_engine::read_ahead::ReadAhead;
use snap_format::BlobId;
use snap_repo::Scratch;

fn ids(lab: &Lab, browser: &Browser, name: &str) -> Vec<BlobId> {
    let mut scratch = Scratch::new(1).unwrap();
    let path = lab.source(name);
    match browser.find(path.to_str().unwrap().as_bytes(), &mut scratch).unwrap() {
        Found::Node(node) => browser.file_blobs(&node, &mut scratch).unwrap(),
        Found::Root => panic!("{name} is the root"),
    }
}

fn lab() -> Lab {
    let lab = Lab::new();
    let text = |at: usize| format!("line {at} of {}\n", at * 7919 % 1013);
    fs::write(lab.source("text"), (0..400_000).map(text).collect::<String>()).unwrap();
    fs::write(lab.source("noise"), odd::noise(3, 21 << 20)).unwrap();
    fs::write(lab.source("empty"), b"").unwrap();
    for number in 0..50 {
        fs::write(lab.source(&format!("small-{number}")), odd::noise(number, 20_000)).unwrap();
    }
    lab.backup();
    lab
}

#[test]
fn with_any_number_of_threads_and_little_memory_too() {
    within(Duration::from_secs(120), || {
        let lab = lab();
        let browser = lab.browser();
        let mut names: Vec<String> = (0..50).map(|number| format!("small-{number}")).collect();
        names.extend(["text", "noise", "empty"].map(str::to_owned));
        for (threads, memory_bytes) in [(0, 0), (1, 0), (2, 4 << 20), (5, 24 << 20)] {
            ReadAhead::scope(&browser, threads, memory_bytes, |ahead| {
                let mut readers: Vec<_> =
                    names.iter().map(|name| (name, ahead.file(ids(&lab, &browser, name)))).collect();
                // Some are not wanted after all, and one is taken out of turn.
                readers.retain(|(name, _)| !name.ends_with('7'));
                let noise = readers.iter().position(|(name, _)| *name == "noise").unwrap();
                readers.swap(0, noise);
                for (name, mut reader) in readers {
                    let mut content = Vec::new();
                    reader.read_to_end(&mut content).unwrap();
                    assert!(content == fs::read(lab.source(name)).unwrap(), "{name}, {threads} threads");
                }
            });
        }
    });
}

#[test]
fn damage_comes_where_it_is_and_is_named() {
    within(Duration::from_secs(120), || {
        let lab = Lab::new();
        let noise = odd::noise(3, 40 << 20);
        fs::write(lab.source("noise"), &noise).unwrap();
        lab.backup();
        let browser = lab.browser();
        let ids = ids(&lab, &browser, "noise");
        // A byte of a chunk in the middle.
        let (middle, domain) = (&ids[ids.len() / 2], &browser.domain().name);
        let before: u64 = ids[..ids.len() / 2]
            .iter()
            .map(|id| u64::from(browser.reader().index().plain_len(domain, id).unwrap()))
            .sum();
        let place = browser.reader().index().locate(domain, middle).unwrap();
        let pack = lab
            .dir
            .path()
            .join("repo")
            .join(snap_repo::object_name(snap_repo::Area::Packs, &place.pack_id).as_str());
        let mut bytes = fs::read(&pack).unwrap();
        bytes[place.offset as usize + 100] ^= 1;
        fs::write(&pack, bytes).unwrap();
        for threads in [0, 3] {
            ReadAhead::scope(&browser, threads, 8 << 20, |ahead| {
                let mut reader = ahead.file(ids.clone());
                let mut content = Vec::new();
                assert!(reader.read_to_end(&mut content).is_err());
                assert!(content.len() as u64 == before && noise.starts_with(&content), "{threads} threads");
                let failure = reader.take_failure().unwrap().to_string();
                assert!(failure.contains(&place.pack_id.to_string()), "{failure}");
            });
        }
    });
}
