#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    snap_fuzz::format::snapshot_bundle(data);
});
