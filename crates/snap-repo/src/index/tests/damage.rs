//! A cache that is damaged, forged or another's costs time only.

use super::*;
use crate::index::block::BLOCK;

/// 30 packs of 40 blobs in six objects, all in one table.
fn filled() -> (Lab, Vec<ObjectId>) {
    let lab = Lab::new();
    let object = |first: u64| {
        let packs: Vec<_> = (first..first + 5)
            .map(|number| pack(number, "main", 0, number * 40..(number + 1) * 40))
            .collect();
        lab.put(&packs)
    };
    let objects = (0..6).map(|number| object(number * 5)).collect();
    drop(lab.load());
    assert_eq!((lab.files().len(), lab.fetched()), (1, 6));
    (lab, objects)
}

fn assert_knows(index: &Index, packs: impl Iterator<Item = u64>, context: &str) {
    for pack in packs {
        for blob in [pack * 40, pack * 40 + 39] {
            let place = index.locate("main", &blob_id(blob));
            assert_eq!(place.map(|place| place.pack_id), Some(pack_id(pack)), "{context}: {blob}");
        }
    }
    assert_eq!(index.plain_len("main", &blob_id(30 * 40)), None, "{context}");
    index.check().unwrap();
}

fn overwrite(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn each_block_may_be_damaged_at_rest_or_in_use() {
    let (lab, _) = filled();
    let blocks = std::fs::metadata(&lab.files()[0]).unwrap().len() as usize / BLOCK;
    assert!(blocks > 15);
    for in_use in [false, true] {
        for block in 0..blocks {
            let context = format!("block {block}, in use: {in_use}");
            let flip = || overwrite(&lab.files()[0], |bytes| bytes[block * BLOCK + 9] ^= 4);
            if !in_use {
                flip();
            }
            let index = lab.load();
            if in_use {
                flip();
            }
            assert_knows(&index, 0..30, &context);
            assert_eq!((index.packs().count(), index.blobs()), (30, 1200), "{context}");
            // For those who come later, too. What is in memory while it is in use is mended by the next who opens it.
            let is_read_in_use = block < blocks - 4; // filter, fences, lists, trailer
            assert_eq!(lab.fetched(), if in_use && !is_read_in_use { 0 } else { 6 }, "{context}");
            assert_knows(&lab.load(), 0..30, &context);
            assert_eq!(lab.fetched(), if in_use && !is_read_in_use { 6 } else { 0 }, "{context}");
        }
    }
}

#[test]
fn numbers_of_packs_outlive_damage() {
    for gone in [None, Some(0), Some(3)] {
        let (lab, objects) = filled();
        gone.into_iter().for_each(|gone: usize| lab.delete(&objects[gone]));
        let index = lab.load();
        let numbers = |index: &Index| -> Vec<Option<u32>> {
            (0..30).map(|pack| index.pack_number(&pack_id(pack))).collect()
        };
        let before = numbers(&index);
        let limit = index.pack_limit();
        assert_eq!(
            (before.iter().flatten().count(), limit),
            if gone.is_some() { (25, 25) } else { (30, 30) }
        );
        overwrite(&lab.files()[0], |bytes| bytes.fill(0xaa));
        for (pack, number) in before.iter().enumerate() {
            let place = index.locate("main", &blob_id(pack as u64 * 40));
            assert_eq!(place.map(|place| place.pack), *number);
        }
        assert_eq!((numbers(&index), index.pack_limit()), (before, limit));
        index.check().unwrap();
    }
}

#[test]
fn without_the_store_damage_is_an_error_and_the_next_run_is_well() {
    let (lab, objects) = filled();
    let index = lab.load();
    overwrite(&lab.files()[0], |bytes| bytes.fill(0xaa));
    let name = object_name(Area::Index, &objects[2]);
    let bytes = lab.memory.get(&name).unwrap();
    lab.delete(&objects[2]);
    assert_eq!(index.plain_len("main", &blob_id(0)), None);
    assert!(index.check().is_err() && index.check().is_err());
    assert_knows(&lab.load(), (0..10).chain(15..30), "the next run, one object fewer");
    lab.memory.put(&name, bytes).unwrap();
    assert_knows(&lab.load(), 0..30, "and when it is back");
}

#[test]
fn another_repositorys_cache_is_not_believed() {
    let (theirs, _) = filled();
    let lab = Lab::new();
    lab.put(&[pack(100, "main", 0, [5000])]);
    copy_dir(&theirs.tables(), &lab.tables());
    let index = lab.load();
    assert_eq!((index.packs().count(), index.plain_len("main", &blob_id(0))), (1, None));
    // Nor are their tables under a name that our manifest lists.
    let file = &lab.files()[0];
    std::fs::copy(&theirs.files()[0], file).unwrap();
    assert_eq!(lab.load().plain_len("main", &blob_id(0)), None);
    // Nor an old one of our own under a new name.
    let file = &lab.files()[0];
    let old = std::fs::read(file).unwrap();
    lab.put(&[pack(101, "main", 0, [6000])]);
    drop(lab.load());
    std::fs::write(&lab.files()[0], old).unwrap();
    let known = [5000, 6000].map(|blob| lab.load().plain_len("main", &blob_id(blob)).is_some());
    assert_eq!(known, [true, true]);
}

#[test]
fn a_manifest_that_is_not_whole_lists_nothing() {
    let (lab, _) = filled();
    for length in [0, 1, 8, 40, 59] {
        overwrite(&lab.tables().join("manifest"), |bytes| bytes.truncate(length));
        assert_knows(&lab.load(), 0..30, &length.to_string());
        assert_eq!(lab.files().len(), 1);
    }
    std::fs::remove_dir_all(lab.cache().root()).unwrap();
    assert_knows(&lab.load(), 0..30, "no cache");
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let lab = Lab::new();
    lab.put(&[pack(1, "main", 0, 0..100)]);
    // A file where the directory should be.
    std::fs::create_dir_all(lab.cache().root()).unwrap();
    std::fs::write(lab.tables(), b"").unwrap();
    let index = lab.load();
    assert_eq!((index.blobs(), index.packs().count()), (100, 1));
}
