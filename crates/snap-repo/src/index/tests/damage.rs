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
fn a_cache_made_with_other_keys_is_not_believed_whatever_it_says() {
    let (lab, mut objects) = filled();
    objects.sort_unstable();
    // A table that names all our index objects, so that nothing seems to be left to read, made by who has not our keys.
    let backend = Arc::new(MemoryBackend::new());
    Repository::create(backend.as_ref(), &lab.owner, "test", NOW).unwrap();
    let theirs = Repository::open(backend, &lab.owner).unwrap();
    let forged = crate::index_scale::Scale { blobs: 1200, packs: 30, objects };
    forged.write(&lab.repository, &lab.cache()).unwrap();
    assert!(lab.load().plain_len("main", &forged.known(7)).is_some(), "it would be believed with our keys");
    forged.write(&theirs, &lab.cache()).unwrap();
    std::fs::remove_dir_all(lab.tables()).unwrap();
    std::fs::rename(lab.tables().with_file_name(theirs.copy_id()), lab.tables()).unwrap();
    let index = lab.load();
    assert_eq!((index.plain_len("main", &forged.known(7)), lab.fetched()), (None, 6));
    assert_knows(&index, 0..30, "read from the store");
}

#[test]
fn a_block_of_another_table_of_ours_is_not_believed() {
    let (lab, _) = filled();
    let old = std::fs::read(&lab.files()[0]).unwrap();
    lab.put(&[40, 41, 42].map(|number| pack(number, "main", 0, number * 40..(number + 1) * 40)));
    drop(lab.load());
    for block in 0..old.len() / BLOCK {
        let at = block * BLOCK..(block + 1) * BLOCK;
        assert_eq!(lab.files().len(), 1);
        overwrite(&lab.files()[0], |bytes| bytes[at.clone()].copy_from_slice(&old[at.clone()]));
        let index = lab.load();
        assert_knows(&index, 0..30, &block.to_string());
        assert_eq!((index.packs().count(), index.blobs()), (33, 1320), "block {block}");
        for number in 40..43 {
            let place = index.locate("main", &blob_id(number * 40 + 3)).unwrap();
            assert_eq!(place.pack_id, pack_id(number), "block {block}");
        }
    }
}

#[test]
fn a_manifest_that_is_not_whole_lists_nothing() {
    let (lab, _) = filled();
    let home = Home::new(&lab.repository, &lab.cache());
    let manifest = std::fs::read(lab.tables().join("manifest")).unwrap();
    assert_eq!(home.listed().len(), 1);
    for at in 0..manifest.len() {
        overwrite(&lab.tables().join("manifest"), |bytes| bytes[at] ^= 1);
        assert!(home.listed().is_empty(), "byte {at}");
        overwrite(&lab.tables().join("manifest"), |bytes| bytes[at] ^= 1);
    }
    assert_eq!(home.listed().len(), 1);
    for length in [0, 1, 8, 40, 59] {
        overwrite(&lab.tables().join("manifest"), |bytes| bytes.truncate(length));
        assert_knows(&lab.load(), 0..30, &length.to_string());
        assert_eq!(lab.files().len(), 1);
    }
    std::fs::remove_dir_all(lab.cache().root()).unwrap();
    assert_knows(&lab.load(), 0..30, "no cache");
}

#[test]
fn a_table_that_was_cut_or_grew_is_made_anew() {
    let (lab, _) = filled();
    let whole = std::fs::metadata(&lab.files()[0]).unwrap().len() as usize;
    for in_use in [false, true] {
        for length in [0, 1, BLOCK - 1, BLOCK, 7 * BLOCK, whole - BLOCK, whole - 1, whole + 1, whole + BLOCK]
        {
            let context = format!("{length} bytes of {whole}, in use: {in_use}");
            let cut = || overwrite(&lab.files()[0], |bytes| bytes.resize(length, 0));
            if !in_use {
                cut();
            }
            let index = lab.load();
            if in_use {
                cut();
            }
            assert_knows(&index, 0..30, &context);
            assert_eq!((index.packs().count(), index.blobs()), (30, 1200), "{context}");
            let is_missed = !in_use || length < whole - BLOCK;
            assert_eq!(lab.fetched(), if is_missed { 6 } else { 0 }, "{context}");
            assert_knows(&lab.load(), 0..30, &context);
            assert_eq!(lab.fetched(), if is_missed { 0 } else { 6 }, "{context}");
        }
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let lab = Lab::new();
    lab.put(&[pack(1, "main", 0, 0..100)]);
    // A file where the directory should be.
    std::fs::create_dir_all(lab.tables().parent().unwrap()).unwrap();
    std::fs::write(lab.tables(), b"").unwrap();
    let index = lab.load();
    assert_eq!((index.blobs(), index.packs().count()), (100, 1));
    assert!(index.cache_failure().is_some());
}

#[test]
fn a_full_disk_costs_memory_and_is_told() {
    let (lab, _) = filled();
    let before = lab.files();
    assert_eq!(lab.load().cache_failure(), None);
    let full = lab.cache().root().join("full");
    std::fs::write(&full, b"").unwrap();
    for number in 30..40 {
        lab.put(&[pack(number, "main", 0, number * 40..(number + 1) * 40)]);
    }
    for _ in 0..2 {
        let index = lab.load();
        assert_eq!((lab.fetched(), index.packs().count(), index.blobs()), (10, 40, 1600));
        for blob in [0, 1199, 1200, 1599] {
            assert_eq!(index.locate("main", &blob_id(blob)).unwrap().pack_id, pack_id(blob / 40));
        }
        assert!(index.slots.iter().any(|slot| slot.table.blocks.held_bytes() > 0));
        let told = index.cache_failure().unwrap();
        assert!(told.contains("No space left on device"), "{told}");
        // What was there before is used, and nothing else is left.
        assert_eq!(lab.files(), before);
    }
    // Damage that is met while the disk is full is mended in memory.
    let index = lab.load();
    overwrite(&lab.files()[0], |bytes| bytes.fill(0xaa));
    assert_eq!(index.blobs(), 1600);
    index.check().unwrap();
    std::fs::remove_file(&full).unwrap();
    let index = lab.load();
    assert_eq!((index.blobs(), index.cache_failure(), lab.files().len()), (1600, None, 1));
    let _ = lab.fetched();
    assert_eq!((lab.load().blobs(), lab.fetched()), (1600, 0));
}

#[test]
fn a_manifest_that_cannot_be_written_costs_the_next_run_time() {
    let lab = Lab::new();
    lab.put(&[pack(1, "main", 0, 0..100)]);
    std::fs::create_dir_all(lab.tables().join("manifest/in the way")).unwrap();
    for _ in 0..2 {
        let index = lab.load();
        assert_eq!((index.blobs(), index.cache_failure().is_some(), lab.fetched()), (100, true, 1));
    }
}

#[test]
fn several_processes_at_once_agree() {
    let lab = Lab::new();
    lab.put(&[pack(0, "main", 0, 0..40)]);
    let done = std::sync::atomic::AtomicU64::new(1);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // Each opens the repository, the lock and the tables for itself.
                let repository = Repository::open(Arc::clone(&lab.memory) as _, &lab.owner).unwrap();
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let packs = done.load(std::sync::atomic::Ordering::Acquire);
                    let (index, findings) =
                        Index::load_in_batches(&repository, Some(&lab.cache()), Some(40)).unwrap();
                    assert_eq!((findings, index.cache_failure()), (vec![], None));
                    for blob in 0..packs * 40 {
                        let place = index.locate("main", &blob_id(blob)).map(|place| place.pack_id);
                        assert_eq!(place, Some(pack_id(blob / 40)));
                    }
                    index.check().unwrap();
                }
            });
        }
        for number in 1..60 {
            lab.put(&[pack(number, "main", 0, number * 40..(number + 1) * 40)]);
            done.store(number + 1, std::sync::atomic::Ordering::Release);
            if number == 30 {
                lab.files().iter().for_each(|file| std::fs::write(file, b"damaged").unwrap());
            }
            drop(lab.load());
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(lab.load().blobs(), 2400);
    assert!(lab.files().len() <= 3, "{:?}", lab.files());
}
