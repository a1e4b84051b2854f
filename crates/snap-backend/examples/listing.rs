use snap_backend::{Backend, LocalBackend};
fn main() {
    let b = LocalBackend::new("/tmp/snaps/list/repo", false);
    for p in ["snapshots/", "packs/", "snapshots/", "packs/"] {
        let t = std::time::Instant::now();
        let mut n = 0;
        b.list(p, &mut |m| {
            n += m.size_bytes;
            Ok(())
        })
        .unwrap();
        println!("{p} {n} {:?}", t.elapsed());
    }
}
