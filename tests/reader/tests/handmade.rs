//! Reads repositories that a small writer, made here from `docs/format.md` too, lays down.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signer, SigningKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use snap_reader::cbor::Value::{self, Array, Bytes, Negative, Text, Uint};
use snap_reader::crypto::{Key, Secret, derive, ed25519_public, hash, hex, keyed, padme, x25519_public};
use snap_reader::pack::Store;
use snap_reader::repo::{Findings, Repo};
use snap_reader::restore::restore;
use snap_reader::snapshot::snapshots;
use snap_reader::verify::verify;

const REPO: Key = [0xaa; 32];
const MASTER: Key = [0xbb; 32];
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

fn encode(value: &Value) -> Vec<u8> {
    let head = |major: u8, n: u64| {
        let big = n.to_be_bytes();
        let (info, tail) = match n {
            0..24 => (n as u8, &big[8..]),
            24..256 => (24, &big[7..]),
            256..65_536 => (25, &big[6..]),
            65_536..0x1_0000_0000 => (26, &big[4..]),
            _ => (27, &big[..]),
        };
        [&[major << 5 | info], tail].concat()
    };
    match value {
        Uint(n) => head(0, *n),
        Negative(n) => head(1, *n),
        Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
        Text(text) => [head(3, text.len() as u64), text.clone().into_bytes()].concat(),
        Array(items) => [head(4, items.len() as u64), items.iter().flat_map(encode).collect()].concat(),
        Value::Map(map) => {
            let items = map.iter().flat_map(|(k, v)| [encode(&Uint(*k)), encode(v)].concat()).collect();
            [head(5, map.len() as u64), items].concat()
        }
    }
}

fn map<const N: usize>(fields: [(u64, Value); N]) -> Value {
    Value::Map(BTreeMap::from(fields))
}

fn bytes(b: &[u8]) -> Value {
    Bytes(b.to_vec())
}

fn text(t: &str) -> Value {
    Text(t.to_owned())
}

fn time(seconds: i64) -> Value {
    let seconds = if seconds < 0 { Negative((-1 - seconds) as u64) } else { Uint(seconds as u64) };
    Array(vec![seconds, Uint(7)])
}

fn seal(key: &Key, ad: &[&[u8]], plain: &[u8]) -> Vec<u8> {
    let nonce = [&hash(&[plain])[..24]].concat();
    let payload = Payload { msg: plain, aad: &ad.concat() };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::try_from(&nonce[..]).unwrap(), payload);
    [nonce, sealed.unwrap()].concat()
}

fn hpke_seal(public: &Key, info: &[&[u8]], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).unwrap();
    let (encapsulated, sealed) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &info.concat(),
        plain,
        aad,
    )
    .unwrap();
    [encapsulated.to_bytes().to_vec(), sealed].concat()
}

fn put(dir: &Path, kind: &str, object: &[u8]) -> Key {
    let name = hash(&[object]);
    let mut path = dir.join(kind);
    if kind == "packs" {
        path.push(&hex(&name)[..2]);
    }
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(hex(&name)), object).unwrap();
    name
}

/// A slot; all of its secrets derive from its number.
#[derive(Clone, Copy)]
struct Slot(u8, u64, &'static str);

const OWNER: Slot = Slot(1, 1, "main");
const BACKUP: Slot = Slot(2, 2, "web");
const RESTORE: Slot = Slot(3, 3, "");

impl Slot {
    fn id(self) -> [u8; 16] {
        [self.0; 16]
    }
    fn x25519(self) -> Key {
        [self.0 + 0x10; 32]
    }
    fn seed(self) -> Key {
        [self.0 + 0x20; 32]
    }
    fn secret(self) -> Secret {
        match self.0 {
            1 => Secret::KeyFile([1; 32]),
            2 => Secret::Recovery([2; 32]),
            _ => Secret::Password(b"correct horse".to_vec()),
        }
    }
}

/// An epoch; all of its secrets derive from its number.
#[derive(Clone, Copy)]
struct Epoch(u8);

impl Epoch {
    fn id(self) -> [u8; 16] {
        [self.0 + 0x50; 16]
    }
    fn index_key(self) -> Key {
        [self.0 + 0x60; 32]
    }
    fn reader_key(self) -> Key {
        [self.0 + 0x70; 32]
    }

    fn slot(self, slot: Slot) -> Value {
        let argon2 = (8, 1, 1, vec![9; 16]);
        let wrap = slot.secret().wrap_key(&slot.id(), Some(&argon2)).unwrap();
        let secrets = [slot.x25519(), slot.seed(), REPO, ed25519_public(&OWNER.seed())].concat();
        let ad: [&[u8]; 4] = [b"snap v0 slot secrets", &REPO, &slot.id(), &[slot.1 as u8]];
        let epochs = (0..=self.0).map(|number| {
            let epoch = Epoch(number);
            let keys = [(0, bytes(&epoch.id())), (1, bytes(&epoch.index_key()))].into_iter();
            Value::Map(keys.chain((slot.1 != 2).then(|| (2, bytes(&epoch.reader_key())))).collect())
        });
        let mut bundle = BTreeMap::from([(0, Array(epochs.collect()))]);
        if slot.1 == 2 {
            bundle.insert(2, Array(vec![Array(vec![text(slot.2), bytes(&seed(slot.2))])]));
        } else {
            bundle.insert(1, bytes(&MASTER));
        }
        let bundle = encode(&Value::Map(bundle));
        let public = x25519_public(&slot.x25519()).unwrap();
        let info: [&[u8]; 3] = [b"snap v0 bundle", &REPO, &slot.id()];
        let mut fields = BTreeMap::from([
            (0, bytes(&slot.id())),
            (1, Uint(slot.1)),
            (2, Uint(slot.secret().kind())),
            (4, bytes(&public)),
            (5, bytes(&ed25519_public(&slot.seed()))),
            (6, bytes(&seal(&wrap, &ad, &secrets))),
            (7, bytes(&hpke_seal(&public, &info, &self.id(), &bundle))),
        ]);
        if slot.secret().kind() == 1 {
            fields.insert(3, Array(vec![Uint(8), Uint(1), Uint(1), bytes(&[9; 16])]));
        }
        Value::Map(fields)
    }

    fn write(self, dir: &Path, previous: Option<Key>, slots: &[Slot], signer: Slot) -> Key {
        let detail = |slot: &Slot| map([(0, text("label")), (1, text(slot.2)), (2, time(0))]);
        let details = encode(&Array(slots.iter().map(detail).collect()));
        let ad: [&[u8]; 3] = [b"snap v0 slot details", &REPO, &self.id()];
        let mut body = BTreeMap::from([
            (0, bytes(&REPO)),
            (1, bytes(&self.id())),
            (2, Uint(self.0.into())),
            (4, time(0)),
            (5, bytes(&x25519_public(&self.reader_key()).unwrap())),
            (6, Array(slots.iter().map(|slot| self.slot(*slot)).collect())),
            (7, bytes(&seal(&self.index_key(), &ad, &details))),
            (8, bytes(&signer.id())),
            (200, text("to be skipped")),
        ]);
        if let Some(previous) = previous {
            body.insert(3, bytes(&previous));
        }
        let before = [b"SNAPEPOC\0\0", &encode(&Value::Map(body))[..]].concat();
        let message = [&b"snap v0 epoch"[..], &hash(&[&before])].concat();
        let signature = SigningKey::from_bytes(&signer.seed()).sign(&message).to_bytes();
        put(dir, "epochs", &[&before[..], &signature].concat())
    }

    fn head(self, magic: &[u8], kind: u8) -> Vec<u8> {
        [magic, &[0, 0, kind, 0], &self.id()].concat()
    }

    fn write_box(self, dir: &Path, place: &str, kind: u8, slot: Slot, payload: &Value) -> Key {
        let head = self.head(b"SNAPSBOX", kind);
        let sealed = seal(&self.index_key(), &[&REPO, &head], &inner(&head, slot, payload, ZSTD, 3));
        put(dir, place, &[head, sealed].concat())
    }

    fn run_entry(self, run_key: &Key) -> Vec<u8> {
        let public = x25519_public(&self.reader_key()).unwrap();
        let sealed = hpke_seal(&public, &[b"snap v0 run key", &REPO], &self.id(), run_key);
        [self.id().to_vec(), sealed].concat()
    }

    /// A pack of `(codec, plaintext)`; its entry for an index object.
    fn write_pack(self, dir: &Path, slot: Slot, domain: &str, kind: u8, blobs: &[(u8, &[u8])]) -> Value {
        let head = self.head(b"SNAPPACK", kind);
        let run_key = [0x33; 32];
        let (mut body, mut table) = (head.clone(), Vec::new());
        for (codec, plain) in blobs {
            let id = blob_id(domain, kind, plain);
            let length = (plain.len() as u32).to_le_bytes();
            let stored =
                if *codec == ZSTD { zstd::bulk::compress(plain, 3).unwrap() } else { plain.to_vec() };
            let sealed = seal(&run_key, &[&REPO, &[kind], &id, &[*codec], &length], &stored);
            table.push([&id[..], &(sealed.len() as u32).to_le_bytes(), &length, &[*codec, 0]].concat());
            body.extend(sealed);
        }
        let (run_entries, table) = (bytes(&self.run_entry(&run_key)), bytes(&table.concat()));
        let payload = map([
            (0, text(domain)),
            (1, run_entries.clone()),
            (2, table.clone()),
            (3, bytes(&hash(&[&body]))),
        ]);
        let bare = (body.len() + inner(&head, slot, &payload, PLAIN, 0).len() + 40 + 48) as u64;
        let zeros = (padme(bare) - bare) as usize;
        let inner = inner(&head, slot, &payload, PLAIN, zeros);
        let header = seal(&self.index_key(), &[&REPO, &head, b"header"], &inner);
        let length = u64::try_from(header.len()).unwrap().to_le_bytes();
        let trailer = seal(&self.index_key(), &[&REPO, &head, b"trailer"], &length);
        let pack = [body, header, trailer].concat();
        let name = put(dir, "packs", &pack);
        map([
            (0, bytes(&name)),
            (1, Uint(pack.len() as u64)),
            (2, Uint(kind.into())),
            (3, text(domain)),
            (4, run_entries),
            (5, table),
        ])
    }

    fn write_snapshot(self, dir: &Path, slot: Slot, domain: &str, seconds: i64, root: &Key) -> Key {
        let run_key = [0x44; 32];
        let body = encode(&map([(0, bytes(root)), (1, Array(vec![bytes(b"/srv")]))]));
        let envelope = map([
            (0, time(seconds)),
            (1, text("files")),
            (2, text("host")),
            (3, text(domain)),
            (7, map([(0, Uint(4)), (12, Uint(1))])),
            (8, bytes(&self.run_entry(&run_key))),
            (9, bytes(&seal(&run_key, &[&REPO, b"snapshot body"], &body))),
        ]);
        self.write_box(dir, "snapshots", 2, slot, &envelope)
    }
}

fn inner(head: &[u8], slot: Slot, payload: &Value, codec: u8, zeros: usize) -> Vec<u8> {
    let payload = encode(payload);
    let message = [b"snap v0 box", &REPO[..], head, &slot.id(), &hash(&[&payload])].concat();
    let signature = SigningKey::from_bytes(&slot.seed()).sign(&message).to_bytes();
    let stored = if codec == ZSTD { zstd::bulk::compress(&payload, 3).unwrap() } else { payload.clone() };
    let lengths = [stored.len(), payload.len()].map(|n| (n as u32).to_le_bytes()).concat();
    [&slot.id(), &signature[..], &[codec], &lengths, &stored, &vec![0; zeros]].concat()
}

fn seed(domain: &str) -> Key {
    derive("snap v0 domain seed", &[&MASTER, domain.as_bytes()])
}

fn blob_id(domain: &str, kind: u8, plain: &[u8]) -> Key {
    let context = if kind == 1 { "snap v0 data id key" } else { "snap v0 tree id key" };
    keyed(&derive(context, &[&seed(domain)]), plain)
}

fn node<const N: usize>(name: &str, kind: u64, more: [(u64, Value); N]) -> Value {
    let mut fields =
        BTreeMap::from([(0, bytes(name.as_bytes())), (1, Uint(kind)), (2, Uint(0o750)), (7, time(-86_400))]);
    fields.extend(more);
    Value::Map(fields)
}

/// A repository with two epochs; an owner's and a backup slot's snapshot of the same tree. `link` is the name of
/// a symlink in it.
fn repository(dir: &Path, link: &str) -> [Key; 2] {
    let first = Epoch(0).write(dir, None, &[OWNER, RESTORE], OWNER);
    Epoch(1).write(dir, Some(first), &[OWNER, BACKUP, RESTORE], OWNER);
    let config = encode(&map([
        (0, bytes(&REPO)),
        (1, bytes(&[0xcc; 16])),
        (2, time(1)),
        (3, bytes(&first)),
        (5, Array(vec![text("some-hint")])),
    ]));
    let config = [b"SNAPCONF\0\0", &config[..]].concat();
    let config = [&config[..], &hash(&[&config])].concat();
    fs::write(dir.join("config"), &config).unwrap();
    fs::write(dir.join("config.bak"), &config).unwrap();

    [(OWNER, Epoch(0)), (BACKUP, Epoch(1))].map(|(slot, epoch)| {
        let domain = slot.2;
        let chunks: [&[u8]; 2] = [b"hello, ", &b"world ".repeat(100)];
        let ids = chunks.map(|chunk| blob_id(domain, 1, chunk));
        let list = encode(&map([(2, bytes(&ids.concat()))]));
        let list_id = blob_id(domain, 2, &list);
        // 607 bytes around holes at 3 to 5 and at the end.
        let holes = Array(vec![Array(vec![Uint(3), Uint(2)]), Array(vec![Uint(609), Uint(1000)])]);
        let pair = (10, Array(vec![Uint(1), Uint(2)]));
        let leaf = |nodes: Vec<Value>| encode(&map([(0, Array(nodes))]));
        let leaves = [
            leaf(vec![
                node("a", 0, [pair.clone(), (11, Uint(607)), (12, bytes(&ids.concat()))]),
                node("b", 0, [pair, (11, Uint(607)), (12, bytes(&ids.concat()))]),
                node("fifo", 3, []),
            ]),
            leaf(vec![
                node(link, 2, [(15, bytes(b"../a"))]),
                node("sparse", 0, [(11, Uint(1609)), (13, bytes(&list_id)), (14, holes)]),
            ]),
        ];
        let part = |name: &str, tree: &[u8], n: u64| {
            Array(vec![bytes(name.as_bytes()), bytes(&blob_id(domain, 2, tree)), Uint(n)])
        };
        let parts = vec![part("a", &leaves[0], 3), part(link, &leaves[1], 2)];
        let branch = encode(&map([(1, Array(parts))]));
        let root = leaf(vec![node("srv", 1, [(18, bytes(&blob_id(domain, 2, &branch)))])]);
        let trees: [(u8, &[u8]); 5] =
            [(ZSTD, &list), (PLAIN, &leaves[0]), (ZSTD, &leaves[1]), (PLAIN, &branch), (ZSTD, &root)];
        let packs = vec![
            epoch.write_pack(dir, slot, domain, 1, &[(PLAIN, chunks[0]), (ZSTD, chunks[1])]),
            epoch.write_pack(dir, slot, domain, 2, &trees),
        ];
        epoch.write_box(dir, "index", 1, slot, &map([(0, Array(packs))]));
        epoch.write_snapshot(dir, slot, domain, i64::from(slot.0), &blob_id(domain, 2, &root))
    })
}

fn found(dir: &Path, slot: Slot) -> Findings {
    let mut findings = Findings::new();
    let repo = Repo::open(dir, &slot.secret(), &mut findings).unwrap();
    verify(&Store::new(repo, false, &mut findings).unwrap(), &mut findings).unwrap();
    findings
}

fn one_finding(dir: &Path, what: &str) {
    let findings = found(dir, OWNER);
    assert!(findings.len() == 1 && findings[0].contains(what), "{findings:#?}");
}

fn restored(dir: &Path, slot: Slot, which: usize, from_packs: bool, target: &Path) -> anyhow::Result<()> {
    let mut findings = Findings::new();
    let repo = Repo::open(dir, &slot.secret(), &mut findings)?;
    let snapshot = snapshots(&repo, &mut findings)?.remove(which);
    let store = Store::new(repo, from_packs, &mut findings)?;
    assert_eq!(findings, Findings::new());
    restore(&store, &snapshot, target, &mut findings)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn restores() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path(), "link");
    assert_eq!(found(dir.path(), OWNER), Findings::new());
    assert_eq!(found(dir.path(), BACKUP), Findings::new());
    assert_eq!(found(dir.path(), RESTORE), Findings::new());
    for (n, (slot, from_packs)) in
        [(OWNER, false), (OWNER, true), (RESTORE, false), (RESTORE, true)].into_iter().enumerate()
    {
        for which in 0..2 {
            let out = dir.path().join(format!("out/{n}/{which}"));
            restored(dir.path(), slot, which, from_packs, &out).unwrap();
            let content = [&b"hello, "[..], &b"world ".repeat(100)].concat();
            let srv = out.join("srv");
            assert_eq!(fs::read(srv.join("a")).unwrap(), content);
            let (a, b) = (fs::metadata(srv.join("a")).unwrap(), fs::metadata(srv.join("b")).unwrap());
            assert_eq!((a.ino(), a.mode() & 0o7777, a.mtime(), a.mtime_nsec()), (b.ino(), 0o750, -86_400, 7));
            assert_eq!(fs::metadata(&srv).unwrap().mtime(), -86_400);
            assert!(fs::metadata(srv.join("fifo")).unwrap().file_type().is_fifo());
            assert_eq!(fs::read_link(srv.join("link")).unwrap(), Path::new("../a"));
            let sparse = [&content[..3], &[0; 2], &content[3..], &[0; 1000]].concat();
            assert!(fs::read(srv.join("sparse")).unwrap() == sparse);
        }
    }
}

#[test]
fn a_backup_slot_does_not_restore() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path(), "link");
    let error = restored(dir.path(), BACKUP, 0, false, &dir.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("may back up, not restore"), "{error}");
    assert!(Repo::open(dir.path(), &Secret::KeyFile([2; 32]), &mut Findings::new()).is_err());
}

#[test]
fn every_rotten_object_is_found() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path(), "link");
    for path in files(dir.path()) {
        let before = fs::read(&path).unwrap();
        let mut after = before.clone();
        after[before.len() / 2] ^= 1;
        fs::write(&path, &after).unwrap();
        let mut findings = Findings::new();
        let opened = Repo::open(dir.path(), &OWNER.secret(), &mut findings);
        assert!(opened.is_err() || !found(dir.path(), OWNER).is_empty(), "{}", path.display());
        fs::write(&path, &before).unwrap();
    }
    assert_eq!(found(dir.path(), OWNER), Findings::new());
}

#[test]
fn forgeries_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let [snapshot, _] = repository(path, "link");
    let undo = |name: Key, kind: &str| fs::remove_file(path.join(kind).join(hex(&name))).unwrap();

    // An index object of a backup slot on a pack of another domain, then snapshots.
    let pack = map([
        (0, bytes(&[1; 32])),
        (1, Uint(500)),
        (2, Uint(1)),
        (3, text("main")),
        (4, bytes(&[])),
        (5, bytes(&[])),
    ]);
    let name = Epoch(1).write_box(path, "index", 1, BACKUP, &map([(0, Array(vec![pack]))]));
    one_finding(path, "forged");
    undo(name, "index");
    let forged = [
        Epoch(1).write_snapshot(path, BACKUP, "main", 9, &[0; 32]),
        Epoch(1).write_snapshot(path, RESTORE, "", 9, &[0; 32]),
        Epoch(0).write_snapshot(path, BACKUP, "web", 9, &[0; 32]),
    ];
    let findings = found(path, OWNER);
    assert!(findings.len() == 3 && findings.iter().all(|f| f.contains("forged")), "{findings:#?}");
    for name in forged {
        undo(name, "snapshots");
    }
    // An owner may stand in for a backup slot: the tree is that of its snapshot, in its domain.
    let list = |dir: &Path| {
        let repo = Repo::open(dir, &OWNER.secret(), &mut Findings::new()).unwrap();
        snapshots(&repo, &mut Findings::new()).unwrap().iter().map(|s| s.domain.clone()).collect::<Vec<_>>()
    };
    let root = {
        let repo = Repo::open(path, &OWNER.secret(), &mut Findings::new()).unwrap();
        let all = snapshots(&repo, &mut Findings::new()).unwrap();
        all.iter().find(|s| s.domain == "web").unwrap().root(&repo).unwrap()
    };
    let name = Epoch(1).write_snapshot(path, OWNER, "web", 9, &root);
    assert_eq!(
        (found(path, OWNER), list(path)),
        (Findings::new(), ["main", "web", "web"].map(str::to_owned).to_vec())
    );
    undo(name, "snapshots");

    // An epoch that a backup slot signs, and a snapshot under it.
    let head = files(&path.join("epochs"));
    let head = head.iter().map(|p| hash(&[&fs::read(p).unwrap()]));
    for previous in head {
        let name = Epoch(2).write(path, Some(previous), &[BACKUP, OWNER], BACKUP);
        let findings = found(path, OWNER);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        undo(name, "epochs");
    }

    // Marks and records.
    let names = |key: &Key| Array(vec![bytes(key)]);
    let mark = map([(0, time(1)), (1, names(&[5; 32]))]);
    Epoch(1).write_box(path, "marks", 4, OWNER, &mark);
    assert_eq!(found(path, OWNER), Findings::new());
    let name = Epoch(1).write_box(path, "marks", 4, BACKUP, &mark);
    one_finding(path, "an owner's");
    undo(name, "marks");
    let record = |kind: &str, body: Value| map([(0, text(kind)), (1, time(1)), (2, body)]);
    let check = record("check", map([(0, Uint(0)), (1, Uint(1)), (2, Uint(2))]));
    let forget = record("forget", map([(0, names(&snapshot))]));
    Epoch(1).write_box(path, "records", 3, RESTORE, &check);
    Epoch(1).write_box(path, "records", 3, OWNER, &forget);
    Epoch(1).write_box(path, "records", 3, OWNER, &record("later", map([(3, Uint(1))])));
    let pair = [(0, bytes(&snapshot)), (1, bytes(&[7; 32])), (2, bytes(&BACKUP.id())), (3, Uint(5))];
    let replace = record("replace", map([(0, Array(vec![map(pair)])), (1, text("why"))]));
    Epoch(1).write_box(path, "records", 3, OWNER, &replace);
    assert_eq!(found(path, OWNER), Findings::new());
    let name = Epoch(1).write_box(path, "records", 3, BACKUP, &replace);
    one_finding(path, "an owner's");
    undo(name, "records");
    Epoch(1).write_box(path, "records", 3, RESTORE, &forget);
    one_finding(path, "role");
}

#[test]
fn bundles() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let ids = repository(path, "link");
    let place = |name: &Key| path.join("snapshots").join(hex(name));
    let member = |bytes: &[u8]| Array(vec![Uint(1_700_000_000), Bytes(bytes.to_vec())]);
    let originals = ids.map(|id| fs::read(place(&id)).unwrap());
    let bundle = |members: Vec<Value>| map([(0, Array(members))]);
    let both = || originals.iter().map(|bytes| member(bytes)).collect::<Vec<_>>();
    let found_ids = || {
        let mut findings = Findings::new();
        let repo = Repo::open(path, &RESTORE.secret(), &mut findings).unwrap();
        let found = snapshots(&repo, &mut findings).unwrap();
        (found.iter().map(|s| s.id).collect::<Vec<_>>(), findings)
    };

    // Beside the originals, and in their place.
    let name = Epoch(1).write_box(path, "snapshots", 5, OWNER, &bundle(both()));
    assert_eq!(found_ids(), (ids.to_vec(), Findings::new()));
    ids.iter().for_each(|id| fs::remove_file(place(id)).unwrap());
    assert_eq!(found_ids(), (ids.to_vec(), Findings::new()));
    assert_eq!(found(path, OWNER), Findings::new());
    for which in 0..2 {
        restored(path, OWNER, which, false, &path.join(format!("out/{which}"))).unwrap();
    }

    // A member that is none hides no other; nor does a bundle that is not an owner's.
    fs::remove_file(place(&name)).unwrap();
    let mut rotten = originals[1].clone();
    rotten[40] ^= 1;
    let members = vec![member(&originals[0]), member(&rotten)];
    let name = Epoch(1).write_box(path, "snapshots", 5, OWNER, &bundle(members));
    one_finding(path, "bundle");
    assert_eq!(found_ids().0, ids[..1]);
    Epoch(1).write_box(path, "snapshots", 5, BACKUP, &bundle(both()));
    assert_eq!((found_ids().0, found_ids().1.len()), (ids[..1].to_vec(), 2));
    fs::remove_file(place(&name)).unwrap();
    one_finding(path, "an owner's");
    let empty = Epoch(1).write_box(path, "snapshots", 5, OWNER, &bundle(Vec::new()));
    assert_eq!(found(path, OWNER).len(), 2);
    fs::remove_file(place(&empty)).unwrap();
}

#[test]
fn bad_names_and_bad_orders_stop_a_restore() {
    for (link, what) in [("..", "forbidden name"), ("x/y", "forbidden name"), ("a", "not sorted")] {
        let dir = tempfile::tempdir().unwrap();
        repository(dir.path(), link);
        let error = restored(dir.path(), OWNER, 0, false, &dir.path().join("out")).unwrap_err();
        assert!(format!("{error:#}").contains(what), "{error:#}");
    }
}

#[test]
fn a_counterfeit_first_epoch_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path(), "link");
    // The owner's slot, copied into a first epoch that another key signs.
    fs::remove_dir_all(dir.path().join("epochs")).unwrap();
    let first = Epoch(0).write(dir.path(), None, &[OWNER, Slot(4, 1, "main")], Slot(4, 1, "main"));
    let config = encode(&map([(0, bytes(&REPO)), (1, bytes(&[0; 16])), (2, time(1)), (3, bytes(&first))]));
    let config = [b"SNAPCONF\0\0", &config[..]].concat();
    fs::write(dir.path().join("config"), [&config[..], &hash(&[&config])].concat()).unwrap();
    fs::remove_file(dir.path().join("config.bak")).unwrap();
    let error = Repo::open(dir.path(), &OWNER.secret(), &mut Findings::new()).err().unwrap().to_string();
    assert!(error.contains("counterfeit"), "{error}");
}

#[test]
fn the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let ids = repository(dir.path(), "link").map(|id| hex(&id));
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let key = file("key", &format!("snap-key-v0 {}\n", "01".repeat(32)));
    let password = file("password", "correct horse\n");
    let out = file("out", "").replace("/out", "/restored");
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_snap-reader"));
        let output = command.arg(dir.path()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let lines = format!("{} 1 files host\n{} 2 files host\n", ids[0], ids[1]);
    assert_eq!(run(&["--key-file", &key, "list"]), (Some(0), lines));
    assert_eq!(run(&["--password-file", &password, "verify"]), (Some(0), String::new()));
    let restore = ["--password-file", &password, "--from-packs", "restore", &ids[1][..8], &out];
    assert_eq!(run(&restore), (Some(0), String::new()));
    assert!(Path::new(&out).join("srv/a").exists());
    assert_eq!(run(&restore).0, Some(2), "the target is not empty");
    assert_eq!(run(&["--recovery-key-file", &key, "list"]).0, Some(2));
    Epoch(1).write_box(dir.path(), "marks", 4, BACKUP, &map([]));
    let (code, findings) = run(&["--key-file", &key, "verify"]);
    assert_eq!((code, findings.lines().count()), (Some(1), 1), "{findings}");
}
