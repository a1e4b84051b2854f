//! What the benches work on: bytes that are the same on every machine, and a repository in memory.
//!
//! - [`noise`], [`rows`]: bytes that do not compress, and bytes that compress to about half, as a database dump does.
//! - [`Lab`]: a repository over a [`MemoryBackend`], so that no disk and no network is measured.
//! - [`write_tree`]: a directory of small, middling and large files.
//!
//! ```
//! assert_eq!(snap_benches::noise(7, 100).len(), 100);
//! assert!(snap_benches::rows(7, 1000).starts_with(b"1\t"));
//! ```
//!
//! Not here: measuring (`benches/`), and the comparison with other programs (`benches/compare`).
#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a benchmark may stop where it fails")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use snap_backend::{Backend, MemoryBackend};
use snap_engine::{BackupOptions, BackupSource, Context, NullObserver, Progress};
use snap_format::Time;
use snap_repo::{Index, Repository, Secret, Writer, WriterOptions};
use snap_source::FilterOptions;

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut out: Vec<u8> =
        std::iter::repeat_with(|| random.next().to_le_bytes()).take(len.div_ceil(8)).flatten().collect();
    out.truncate(len);
    out
}

/// Lines of a database dump: they compress to about half.
pub fn rows(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut out = String::with_capacity(len + 200);
    for id in 1.. {
        let (r, token) = (random.next(), u128::from(random.next()) << 64 | u128::from(random.next()));
        let (branch, balance, day) = (1 + (r >> 40) % 12, r % 2_000_000, 1 + (r >> 24) % 28);
        writeln!(
            out,
            "{id}\t{branch}\t{balance}\t2024-03-{day:02} 12:00:00+00\t{token:032x}\tcustomer account"
        )
        .expect("a string takes everything");
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out.into_bytes()
}

/// Fills `dir` with about `len` bytes: four tenths in files of 2 to 34 KiB, four tenths in files of 1 MiB that do not
/// compress, the rest in one text.
pub fn write_tree(dir: &Path, len: usize) {
    let mut random = Random::new(1);
    let write = |path: String, bytes: &[u8]| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory is made");
        std::fs::write(path, bytes).expect("a file is written");
    };
    let text = rows(2, 4 << 20);
    let (mut small, mut number) = (0, 0);
    while small < len / 10 * 4 {
        let r = random.next() as usize;
        let (size, at) = ((2 << 10) + r % (32 << 10), (r >> 20) % (text.len() - (64 << 10)));
        write(format!("small/{:02}/{number:05}.txt", number / 100), &text[at..at + size]);
        small += size;
        number += 1;
    }
    for number in 0..(len / 10 * 4) >> 20 {
        write(format!("uploads/{number:03}.jpg"), &noise(1000 + number as u64, 1 << 20));
    }
    write("dump.sql".to_owned(), &rows(3, len / 10 * 2));
}

/// A repository in memory, and what opens it.
pub struct Lab {
    backend: Arc<dyn Backend>,
    secret: Secret,
    progress: Progress,
    stop: AtomicBool,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lab")
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A new, empty repository.
    pub fn new() -> Self {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let secret = Secret::random_key_file().expect("the system gives random bytes");
        Repository::create(backend.as_ref(), &secret, "bench", Time::new(1_000_000, 0))
            .expect("memory takes everything");
        Self { backend, secret, progress: Progress::default(), stop: AtomicBool::new(false) }
    }

    /// The repository, opened as its owner.
    pub fn repository(&self) -> Repository {
        Repository::open(Arc::clone(&self.backend), &self.secret).expect("it was just made")
    }

    /// The index as it is stored.
    pub fn index(&self) -> Index {
        Index::load(&self.repository(), None).expect("memory gives back what it took").0
    }

    /// A writer without a cache.
    pub fn writer(&self) -> Writer {
        Writer::begin(&self.repository(), self.index(), None, WriterOptions::default())
            .expect("an owner may write")
    }

    /// As the program chooses it.
    pub fn context(&self) -> Context<'_> {
        Context {
            observer: &NullObserver,
            progress: &self.progress,
            stop: &self.stop,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: 160 << 20,
        }
    }

    /// A backup of `dir` begun at second `time`.
    pub fn options(dir: &Path, time: i64) -> BackupOptions {
        BackupOptions {
            source: BackupSource::Paths {
                paths: vec![dir.to_owned()],
                working_dir: "/".into(),
                filter: FilterOptions::default(),
                as_path: None,
            },
            dataset: "files".into(),
            host: "bench".into(),
            tags: Vec::new(),
            label: String::new(),
            time: Time::new(time, 0),
            level: 3,
            readers: None,
            skip_if_unchanged: false,
            dry_run: false,
        }
    }
}
