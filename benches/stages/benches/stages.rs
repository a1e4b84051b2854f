//! Each stage by itself, on one thread: cut, hash, seal, open, the writer (hash, compress, prove, seal), reading back,
//! trees, the index.
#![allow(missing_docs, reason = "criterion's macros define undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop where it fails")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use snap_benches::{Lab, Random, noise, rows};
use snap_chunker::{Chunker, CutKey, Profile};
use snap_crypto::{IdKey, SealKey};
use snap_format::{
    BlobEntry, BlobId, BlobKind, Codec, Content, EpochId, IndexedPack, Node, NodeKind, ObjectId, RunKeyEntry,
    SEAL_OVERHEAD, Time, TreeBlob,
};
use snap_repo::{BlobReader, Index, Scratch, Writer};

const MIB: usize = 1 << 20;

fn cut(c: &mut Criterion) {
    let mut group = c.benchmark_group("cut");
    let inputs = [("noise", noise(1, 16 * MIB)), ("rows", rows(1, 16 * MIB))];
    group.throughput(Throughput::Bytes(16 * MIB as u64));
    for profile in [Profile::General, Profile::Text] {
        for (name, data) in &inputs {
            let mut chunker = Chunker::new(&CutKey::new([0xc7; 32]), profile);
            let mut cuts = Vec::new();
            group.bench_function(format!("{profile:?}, {name}"), |b| {
                b.iter(|| {
                    cuts.clear();
                    black_box(chunker.cut(data, true, &mut cuts));
                });
            });
        }
    }
    group.finish();
}

fn hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    let key = IdKey::new([7; 32]);
    for len in [4 << 10, 64 << 10, MIB] {
        let data = noise(1, len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &data, |b, data| b.iter(|| key.id(data)));
    }
    group.finish();
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    let key = SealKey::new([7; 32]);
    for len in [4 << 10, 64 << 10, MIB] {
        let (plain, mut sealed, mut opened) = (noise(1, len), Vec::new(), Vec::new());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("seal", len), |b| {
            b.iter(|| {
                sealed.clear();
                key.seal_into(b"place", &plain, &mut sealed).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("open", len), |b| {
            b.iter(|| key.open_into(b"place", &sealed, &mut opened).unwrap());
        });
    }
    group.finish();
}

fn add_all(writer: &Writer, blobs: &[Vec<u8>], scratch: &mut Scratch) -> Vec<BlobId> {
    blobs.iter().map(|blob| writer.add(BlobKind::Data, blob, scratch).unwrap().0).collect()
}

/// Blobs that differ from each other.
fn blobs(make: fn(u64, usize) -> Vec<u8>, count: u64, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|seed| make(seed, len)).collect()
}

fn writer(c: &mut Criterion) {
    let mut group = c.benchmark_group("writer");
    let mut scratch = Scratch::new(3).unwrap();
    let sizes = [("noise of 1 MiB", blobs(noise, 16, MIB)), ("rows of 1 MiB", blobs(rows, 16, MIB))];
    let small =
        [("rows of 24 KiB", blobs(rows, 600, 24 << 10)), ("rows of 2 KiB", blobs(rows, 4000, 2 << 10))];
    for (name, blobs) in sizes.iter().chain(&small) {
        group.throughput(Throughput::Bytes(blobs.iter().map(|blob| blob.len() as u64).sum()));
        group.bench_function(format!("add {name}"), |b| {
            b.iter_batched(
                || Lab::new().writer(),
                |writer| {
                    add_all(&writer, blobs, &mut scratch);
                    writer
                },
                BatchSize::PerIteration,
            );
        });
    }
    let (_, noise) = &sizes[0];
    group.throughput(Throughput::Bytes((noise.len() * MIB) as u64));
    group.bench_function("add what is known", |b| {
        let writer = Lab::new().writer();
        add_all(&writer, noise, &mut scratch);
        b.iter(|| black_box(add_all(&writer, noise, &mut scratch)));
    });
    // Header, trailer, hash and name of the packs, their upload to memory, and the signed index.
    group.bench_function("finish with open packs", |b| {
        b.iter_batched(
            || {
                let writer = Lab::new().writer();
                add_all(&writer, noise, &mut scratch);
                writer
            },
            |writer| writer.finish().unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    let mut scratch = Scratch::new(3).unwrap();
    for (name, blobs) in [("noise of 1 MiB", blobs(noise, 16, MIB)), ("rows of 1 MiB", blobs(rows, 16, MIB))]
    {
        let lab = Lab::new();
        let writer = lab.writer();
        let domain = lab.repository().keyring().domain(lab.repository().keyring().own_domain()).unwrap();
        let ids = add_all(&writer, &blobs, &mut scratch);
        writer.finish().unwrap().abandon();
        let reader = BlobReader::new(lab.repository(), lab.index().into());
        let mut out = Vec::new();
        group.throughput(Throughput::Bytes((blobs.len() * MIB) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for id in &ids {
                    reader.read(&domain, BlobKind::Data, id, &mut scratch, &mut out).unwrap();
                }
            });
        });
    }
    group.finish();
}

fn tree(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree");
    let mut random = Random::new(1);
    let node = |number: u32| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&random.next().to_le_bytes());
        let size = u64::from(number) * 100;
        let content = Content::Blobs(vec![BlobId(id)]);
        let kind = NodeKind::File { size, content, holes: Vec::new(), profile: 1 };
        let mut node =
            Node::new(format!("file-{number:06}.txt").into_bytes(), kind, Time::new(1_700_000_000, 5));
        (node.mode, node.uid, node.gid) = (0o644, 1000, 1000);
        (node.ctime, node.inode) = (Some(Time::new(1_700_000_001, 6)), Some(u64::from(number)));
        node
    };
    let leaf = TreeBlob::Leaf((0..1000).map(node).collect());
    let bytes = leaf.encode();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("encode 1,000 nodes", |b| b.iter(|| black_box(leaf.encode())));
    group.bench_function("decode 1,000 nodes", |b| b.iter(|| TreeBlob::decode(black_box(&bytes)).unwrap()));
    group.finish();
}

const PACKS: u64 = 1000;
const BLOBS_A_PACK: u64 = 1000;

fn blob_id(number: u64) -> BlobId {
    let mut random = Random::new(number);
    let mut id = [0; 32];
    id.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_le_bytes()));
    BlobId(id)
}

fn packs() -> Vec<IndexedPack> {
    let blob = |number| BlobEntry {
        id: blob_id(number),
        stored_len: 10_000 + SEAL_OVERHEAD as u32,
        plain_len: 20_000,
        grouped: false,
        codec: Codec::Zstd,
        run_key: 0,
    };
    let pack = |number: u64| IndexedPack {
        id: ObjectId(blob_id(u64::MAX - number).0),
        size: 11 << 20,
        kind: BlobKind::Data,
        domain: "main".into(),
        run_keys: vec![RunKeyEntry { epoch: EpochId([1; 16]), sealed: [2; 80] }],
        blobs: (number * BLOBS_A_PACK..(number + 1) * BLOBS_A_PACK).map(blob).collect(),
    };
    (0..PACKS).map(pack).collect()
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index of 1,000,000 blobs");
    let packs = packs();
    let fill = || {
        let mut index = Index::default();
        packs.iter().for_each(|pack| index.insert(pack));
        index
    };
    group.throughput(Throughput::Elements(PACKS * BLOBS_A_PACK));
    group.bench_function("insert all", |b| b.iter_with_large_drop(fill));
    let index = fill();
    assert_eq!(index.blobs() as u64, PACKS * BLOBS_A_PACK);
    const ASKED: u64 = 10_000;
    // Far apart, so that the processor's caches help as little as they do in a backup.
    let known: Vec<_> = (0..ASKED).map(|number| blob_id(number * 99)).collect();
    let unknown: Vec<_> = (0..ASKED).map(|number| blob_id(1 << 40 | number)).collect();
    group.throughput(Throughput::Elements(ASKED));
    for (name, ids) in [("look up what is there", &known), ("look up what is not", &unknown)] {
        group.bench_function(name, |b| {
            b.iter(|| ids.iter().filter(|id| index.plain_len("main", id).is_some()).count());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    targets = cut, hash, seal, writer, read, tree, index
}
criterion_main!(benches);
