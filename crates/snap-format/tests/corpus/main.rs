//! What is fuzzed (`fuzz/`), over the committed corpus: every sample whole, truncated and damaged.

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../../fuzz/src/format.rs"]
mod format;
mod seeds;

use std::collections::BTreeSet;
use std::fs;

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            corpus::run(stringify!($name), format::$name, 1000);
        })*

        #[test]
        fn no_target_is_left_out() {
            let here: BTreeSet<_> = [$(stringify!($name)),*].into();
            assert_eq!(here, format::PROPERTIES.map(|(name, _)| name).into());
            assert_eq!(here, seeds::all().iter().map(|seed| seed.target).collect());
        }
    };
}

targets! {
    config epoch slot_details bundle frame pack_header index tree_blob envelope snapshot_bundle body record mark key_file recovery_key
    cbor
}

#[test]
fn any_decoder_takes_what_is_meant_for_another() {
    for (target, _) in format::PROPERTIES {
        for (_, sample) in corpus::samples(target) {
            format::cbor(&sample);
        }
    }
}

/// A seed is the encoding of something on the day it was added. When this fails, an encoding has changed: once the
/// format is frozen, that is a bug; before, `SNAP_WRITE_CORPUS=1 cargo test -p snap-format --test corpus` writes them anew.
#[test]
fn encodings_have_not_changed() {
    let write = std::env::var_os("SNAP_WRITE_CORPUS").is_some();
    for seed in seeds::all() {
        let path = corpus::directory(seed.target).join(&seed.name);
        if write {
            fs::create_dir_all(corpus::directory(seed.target)).unwrap();
            fs::write(&path, &seed.bytes).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|bytes| bytes == seed.bytes), "{}", path.display());
    }
}
