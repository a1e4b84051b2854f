//! Where fuzzing starts: what the encoders write, and what breaks one rule each.

use snap_format::{
    BlobEntry, BlobId, BlobKind, Body, BranchEntry, Bundle, BundledSnapshot, Codec, Config, Content,
    Envelope, Epoch, EpochId, EpochKeys, Head, IndexObject, IndexedPack, Inner, KdfParams, Link, Mark, Node,
    NodeKind, ObjectId, ObjectKind, ObjectMetadata, PackHeader, Pin, Record, RecordBody, Replacement, RepoId,
    Role, RunKeyEntry, Slot, SlotDetails, SlotId, SlotKind, SnapshotBundle, Summary, Time, TreeBlob, Xattr,
    encode_key_file, encode_recovery_key,
};

/// A sample of the corpus.
pub struct Seed {
    pub target: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Items of CBOR by hand, for what no encoder writes.
mod item {
    fn head(major: u8, number: usize) -> Vec<u8> {
        match number {
            0..24 => vec![major << 5 | number as u8],
            24..256 => vec![major << 5 | 24, number as u8],
            _ => vec![major << 5 | 25, (number >> 8) as u8, number as u8],
        }
    }

    pub fn uint(number: usize) -> Vec<u8> {
        head(0, number)
    }

    pub fn bytes(value: &[u8]) -> Vec<u8> {
        [head(2, value.len()), value.to_vec()].concat()
    }

    pub fn text(value: &str) -> Vec<u8> {
        [head(3, value.len()), value.as_bytes().to_vec()].concat()
    }

    pub fn array(items: &[Vec<u8>]) -> Vec<u8> {
        [head(4, items.len()), items.concat()].concat()
    }

    pub fn map(fields: &[(usize, Vec<u8>)]) -> Vec<u8> {
        let fields_flat = fields.iter().flat_map(|(key, value)| [uint(*key), value.clone()].concat());
        head(5, fields.len()).into_iter().chain(fields_flat).collect()
    }
}

use item::{array, bytes, map, text, uint};

#[derive(Default)]
struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target, name: name.into(), bytes: bytes.into() });
    }
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    configs(&mut seeds);
    epochs(&mut seeds);
    bundles(&mut seeds);
    frames(&mut seeds);
    packs_and_index(&mut seeds);
    trees(&mut seeds);
    odd_nodes(&mut seeds);
    snapshots(&mut seeds);
    records(&mut seeds);
    texts(&mut seeds);
    encodings(&mut seeds);
    seeds.0
}

fn configs(seeds: &mut Seeds) {
    let bare = Config {
        repository: RepoId([1; 32]),
        copy: [2; 16],
        created: Time::new(1_700_000_000, 4),
        first_epoch: ObjectId([5; 32]),
        required: vec![],
        optional: vec![],
    };
    let nice = Config { optional: vec!["nice".into(), String::new()], ..bare.clone() };
    let newer = Config { required: vec!["essential".into()], ..bare.clone() };
    seeds.add("config", "valid-bare", bare.encode());
    seeds.add("config", "valid-optional-features", nice.encode());
    seeds.add("config", "refused-required-feature", newer.encode());
    seeds.add("config", "refused-bytes-behind", [bare.encode(), vec![0]].concat());
    let mut version = bare.encode();
    version[8] = 1;
    seeds.add("config", "refused-version", version);
}

fn slot(kind: SlotKind, role: Role) -> Slot {
    let kdf = KdfParams { memory_kib: 65_536, passes: 3, lanes: 1, salt: vec![9; 16] };
    Slot {
        id: SlotId([1; 16]),
        role,
        kind,
        kdf: (kind == SlotKind::Password).then_some(kdf),
        public: [2; 32],
        verify: [3; 32],
        secrets: vec![4; 168],
        bundle: vec![5; 100],
    }
}

fn epochs(seeds: &mut Seeds) {
    let first = Epoch {
        repository: RepoId([6; 32]),
        id: EpochId([7; 16]),
        number: 0,
        previous: None,
        created: Time::new(-1, 1),
        reader: [9; 32],
        slots: vec![slot(SlotKind::Password, Role::Owner)],
        details: vec![10; 80],
        signer: SlotId([1; 16]),
    };
    let later = Epoch {
        number: 1,
        previous: Some(ObjectId([8; 32])),
        slots: vec![
            slot(SlotKind::Recovery, Role::Owner),
            slot(SlotKind::KeyFile, Role::Backup),
            slot(SlotKind::Password, Role::Restore),
        ],
        ..first.clone()
    };
    let signed = |epoch: &Epoch| [epoch.encode(), vec![0xee; 64]].concat();
    seeds.add("epoch", "valid-first", signed(&first));
    seeds.add("epoch", "valid-later", signed(&later));
    seeds.add("epoch", "refused-without-previous", signed(&Epoch { number: 1, ..first.clone() }));
    let mut greedy = first.clone();
    greedy.slots[0].kdf = Some(KdfParams { memory_kib: u32::MAX, passes: 1, lanes: 1, salt: vec![0; 8] });
    seeds.add("epoch", "refused-memory", signed(&greedy));
    let mut bare = first;
    bare.slots[0].kdf = None;
    seeds.add("epoch", "refused-password-without-parameters", signed(&bare));

    let details =
        |label: &str| SlotDetails { label: label.into(), domain: "main".into(), created: Time::new(0, 0) };
    seeds.add("slot_details", "valid", Epoch::encode_details(&[details("ann's laptop"), details("")]));
    seeds.add("slot_details", "valid-none", Epoch::encode_details(&[]));
    let unknown = map(&[(0, text("a")), (1, text("b")), (2, array(&[uint(0), uint(0)])), (128, uint(1))]);
    seeds.add("slot_details", "valid-unknown-field", array(&[unknown]));
    seeds.add("slot_details", "refused-without-domain", array(&[map(&[(0, text("a"))])]));
}

fn bundles(seeds: &mut Seeds) {
    let keys = |n, reader| EpochKeys { id: EpochId([n; 16]), index: [2; 32], reader };
    let owner = Bundle {
        epochs: vec![keys(1, Some([3; 32])), keys(2, Some([4; 32]))],
        master: Some([5; 32]),
        domains: vec![],
    };
    let backup =
        Bundle { epochs: vec![keys(1, None)], master: None, domains: vec![("slot-1".into(), [6; 32])] };
    seeds.add("bundle", "valid-owner", owner.encode());
    seeds.add("bundle", "valid-backup", backup.encode());
    seeds.add("bundle", "valid-empty-domains", map(&[(0, array(&[])), (2, array(&[]))]));
    seeds.add("bundle", "refused-without-epochs", map(&[(1, bytes(&[5; 32]))]));
}

fn frames(seeds: &mut Seeds) {
    let inner = |codec, plain_len| Inner {
        slot: SlotId([1; 16]),
        signature: [2; 64],
        codec,
        plain_len,
        stored: b"abc",
    };
    let frame = |kind, inner: &Inner<'_>, padding| {
        let head = Head { kind, epoch: EpochId([7; 16]) };
        [head.encode().to_vec(), inner.encode(padding)].concat()
    };
    use ObjectKind::{DataPack, Index, Mark, Record, Snapshot, SnapshotBundle, TreePack};
    for kind in [DataPack, TreePack, Index, Snapshot, Record, Mark, SnapshotBundle] {
        seeds.add("frame", format!("valid-{kind:?}").to_lowercase(), frame(kind, &inner(Codec::Raw, 3), 0));
    }
    let padded = frame(DataPack, &inner(Codec::Zstd, 1000), 9);
    let dirty = [&padded[..padded.len() - 1], &[1]].concat();
    seeds.add("frame", "valid-padded", padded);
    seeds.add("frame", "refused-dirty-padding", dirty);
    seeds.add("frame", "refused-raw-of-another-length", frame(Index, &inner(Codec::Raw, 4), 0));
    seeds.add("frame", "refused-payload-too-large", frame(Index, &inner(Codec::Zstd, (64 << 20) + 1), 0));
}

fn packs_and_index(seeds: &mut Seeds) {
    let blob = |n, codec, stored_len, plain_len| BlobEntry {
        id: BlobId([n; 32]),
        stored_len,
        plain_len,
        codec,
        grouped: false,
        run_key: n % 2,
    };
    let member =
        |n, stored_len| BlobEntry { grouped: true, run_key: 1, ..blob(n, Codec::Zstd, stored_len, 9) };
    let run_key = |n| RunKeyEntry { epoch: EpochId([n; 16]), sealed: [n; 80] };
    let header = PackHeader {
        domain: "main".into(),
        run_keys: vec![run_key(4), run_key(5)],
        blobs: vec![
            blob(1, Codec::Raw, 140, 100),
            blob(2, Codec::Zstd, 41, 16 << 20),
            blob(3, Codec::Raw, 40, 0),
        ],
        body_hash: [6; 32],
    };
    let none = PackHeader { domain: String::new(), run_keys: vec![], blobs: vec![], body_hash: [0; 32] };
    let with = |damage: fn(&mut PackHeader)| {
        let mut header = header.clone();
        damage(&mut header);
        header.encode()
    };
    seeds.add("pack_header", "valid", header.encode());
    seeds.add("pack_header", "valid-empty", none.encode());
    seeds.add("pack_header", "refused-run-key-that-is-not-there", with(|h| h.run_keys.truncate(1)));
    seeds.add("pack_header", "refused-raw-of-another-length", with(|h| h.blobs[0].plain_len = 99));
    seeds.add("pack_header", "refused-shorter-than-a-seal", with(|h| h.blobs[1].stored_len = 39));
    let groups =
        |h: &mut PackHeader| h.blobs.extend([member(7, 60), member(8, 0), member(9, 0), member(10, 50)]);
    let mut grouped = header.clone();
    groups(&mut grouped);
    seeds.add("pack_header", "valid-groups", grouped.encode());
    grouped.blobs[4].run_key = 0;
    seeds.add("pack_header", "refused-group-of-two-run-keys", grouped.encode());
    seeds.add("pack_header", "refused-group-without-a-beginning", with(|h| h.blobs[2].stored_len = 0));
    seeds.add("pack_header", "refused-pack-too-large", with(|h| h.blobs[1].stored_len = 80 << 20));

    let PackHeader { domain, run_keys, blobs, .. } = header;
    let pack =
        IndexedPack { id: ObjectId([1; 32]), size: 4096, kind: BlobKind::Tree, domain, run_keys, blobs };
    let bare =
        IndexedPack { run_keys: vec![], blobs: vec![], kind: BlobKind::Data, size: u64::MAX, ..pack.clone() };
    let index = IndexObject { packs: vec![pack, bare], replaces: vec![ObjectId([5; 32])] };
    seeds.add("index", "valid", index.encode());
    seeds.add("index", "valid-empty", IndexObject::default().encode());
    seeds.add("index", "valid-unknown-field", map(&[(0, array(&[])), (200, array(&[uint(1)]))]));
    seeds.add("index", "refused-unknown-field", map(&[(0, array(&[])), (127, uint(0))]));
    seeds.add("index", "refused-without-packs", map(&[]));
    let no_tables = map(&[(0, bytes(&[1; 32])), (1, uint(9)), (2, uint(1)), (3, text("main"))]);
    seeds.add("index", "refused-pack-without-tables", map(&[(0, array(&[no_tables]))]));
}

fn node(name: &str, kind: NodeKind) -> Node {
    Node { mode: 0o644, ..Node::new(name.into(), kind, Time::new(-5, 7)) }
}

fn full_node() -> Node {
    Node {
        name: b"b\xff\n".to_vec(),
        kind: NodeKind::File {
            size: 100_000,
            content: Content::Blobs(vec![BlobId([1; 32]), BlobId([2; 32])]),
            holes: vec![(0, 4096), (8192, 4096)],
            profile: 2,
        },
        mode: 0o6755,
        uid: 1000,
        gid: u32::MAX,
        user: Some("ann".into()),
        group: Some(String::new()),
        mtime: Time::new(i64::MIN, 0),
        ctime: Some(Time::new(i64::MAX, 999_999_999)),
        inode: Some(u64::MAX),
        link: Some(Link { device: 1, inode: 2 }),
        xattrs: vec![
            Xattr { name: b"security.x".to_vec(), value: vec![0, 1] },
            Xattr { name: b"user.x".to_vec(), value: vec![] },
        ],
        changed_while_read: true,
        unreadable: true,
        unknown: vec![(128, vec![0x01]), (1000, map(&[(0, array(&[text("x")]))]))],
    }
}

fn trees(seeds: &mut Seeds) {
    let metadata = ObjectMetadata {
        content_type: Some("text/plain".into()),
        etag: Some("e".into()),
        version: Some(String::new()),
        user: vec![("a".into(), "b".into())],
    };
    let file = |content| NodeKind::File { size: 3, content, holes: vec![], profile: 1 };
    let nodes = vec![
        node("a", NodeKind::Dir { tree: BlobId([9; 32]) }),
        full_node(),
        node("c", NodeKind::Symlink { target: b"../\xfe".to_vec() }),
        node("d", NodeKind::Fifo),
        node("e", NodeKind::CharDevice { major: 1, minor: 3 }),
        node("f", NodeKind::BlockDevice { major: 8, minor: 1 << 19 }),
        node(
            "g",
            NodeKind::Object {
                size: 3,
                content: Content::Lists(vec![BlobId([3; 32])]),
                profile: 3,
                metadata,
            },
        ),
        node("h", file(Content::Lists(vec![]))),
        node("i", file(Content::default())),
    ];
    for (number, node) in nodes.iter().enumerate() {
        let name = format!("valid-node-{number}");
        seeds.add("tree_blob", name, TreeBlob::encode_leaf(std::slice::from_ref(node)));
    }
    seeds.add("tree_blob", "valid-leaf", TreeBlob::encode_leaf(&nodes));
    seeds.add("tree_blob", "valid-empty-leaf", TreeBlob::encode_leaf(&[]));
    let entry = |first: &str, nodes| BranchEntry { first: first.into(), id: BlobId([1; 32]), nodes };
    let branch = TreeBlob::Branch(vec![entry("a", 3), entry("b", u64::MAX)]);
    seeds.add("tree_blob", "valid-branch", branch.encode());
    seeds.add("tree_blob", "refused-empty-branch", TreeBlob::Branch(vec![]).encode());
    seeds.add(
        "tree_blob",
        "refused-unsorted-branch",
        TreeBlob::Branch(vec![entry("b", 1), entry("a", 1)]).encode(),
    );
    seeds.add("tree_blob", "valid-content", TreeBlob::Content(vec![BlobId([5; 32]); 3]).encode());
    seeds.add("tree_blob", "valid-empty-content", TreeBlob::Content(vec![]).encode());
    seeds.add("tree_blob", "refused-part-of-an-id", map(&[(2, bytes(&[5; 33]))]));
    seeds.add("tree_blob", "refused-two-keys", map(&[(0, array(&[])), (2, bytes(&[]))]));
    seeds.add("tree_blob", "valid-unknown-key-beside", map(&[(0, array(&[])), (128, uint(0))]));
    seeds.add("tree_blob", "refused-unknown-key", map(&[(3, array(&[]))]));
    seeds.add(
        "tree_blob",
        "refused-same-name-twice",
        TreeBlob::encode_leaf(&[node("a", NodeKind::Fifo), node("a", NodeKind::Fifo)]),
    );
}

/// A leaf with one node, which no encoder writes: each breaks one rule, or says what need not be said.
fn odd_nodes(seeds: &mut Seeds) {
    let base = |type_code| {
        vec![(0, bytes(b"p")), (1, uint(type_code)), (2, uint(0o600)), (7, array(&[uint(5), uint(7)]))]
    };
    let mut add = |name: &str, type_code: usize, changes: &[(usize, Vec<u8>)]| {
        let mut fields = base(type_code);
        for change in changes {
            fields.retain(|field| field.0 != change.0);
            fields.push(change.clone());
        }
        fields.sort();
        seeds.add("tree_blob", name, map(&[(0, array(&[map(&fields)]))]));
    };
    let (file, dir, link, fifo, object) = (0, 1, 2, 3, 6);
    let pair = |a, b| array(&[a, b]);
    add("valid-unknown-field-kept", fifo, &[(128, pair(uint(1), text("x")))]);
    add("refused-unknown-field", fifo, &[(25, uint(1))]);
    add("refused-unknown-type", 7, &[]);
    for (name, bad) in [("empty", ""), ("dot", "."), ("parent", ".."), ("slash", "a/b"), ("nul", "a\0")] {
        add(&format!("refused-name-{name}"), fifo, &[(0, bytes(bad.as_bytes()))]);
    }
    add("refused-mode", fifo, &[(2, uint(0o10000))]);
    add("refused-nanoseconds", fifo, &[(7, pair(uint(0), vec![0x1a, 0x3b, 0x9a, 0xca, 0x00]))]);
    add("valid-default-uid", fifo, &[(3, uint(0))]);
    add("valid-default-size", file, &[(11, uint(0))]);
    add("valid-default-content", file, &[(12, bytes(&[]))]);
    add("valid-default-holes", file, &[(14, array(&[]))]);
    add("valid-default-profile", file, &[(19, uint(1))]);
    add("valid-default-flags", fifo, &[(20, uint(0))]);
    add("valid-default-xattrs", fifo, &[(17, array(&[]))]);
    add("valid-default-user-metadata", object, &[(24, array(&[]))]);
    add("refused-profile-of-two-bytes", file, &[(19, uint(300))]);
    add("refused-unknown-flag", fifo, &[(20, uint(5))]);
    add("valid-profile-of-a-fifo", fifo, &[(19, uint(300))]);
    add("valid-both-contents-of-a-fifo", fifo, &[(12, bytes(&[1; 32])), (13, bytes(&[2; 32]))]);
    add("refused-both-contents", file, &[(12, bytes(&[1; 32])), (13, bytes(&[2; 32]))]);
    add("valid-content-of-a-link", link, &[(12, bytes(&[1; 32])), (15, bytes(b"x"))]);
    add("valid-size-of-a-directory", dir, &[(11, uint(9)), (18, bytes(&[1; 32]))]);
    add("valid-target-of-a-fifo", fifo, &[(15, bytes(b"x"))]);
    add("valid-metadata-of-a-file", file, &[(21, text("x"))]);
    add("valid-holes-of-an-object", object, &[(11, uint(9)), (14, array(&[pair(uint(0), uint(9))]))]);
    add("refused-link-without-target", link, &[]);
    add("refused-device-without-numbers", 4, &[]);
    add("refused-hole-outside", file, &[(11, uint(9)), (14, array(&[pair(uint(0), uint(10))]))]);
    let huge = vec![0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    add("refused-hole-that-wraps", file, &[(11, huge.clone()), (14, array(&[pair(huge, uint(2))]))]);
    let touching = array(&[pair(uint(0), uint(4)), pair(uint(4), uint(4))]);
    add("refused-holes-that-touch", file, &[(11, uint(9)), (14, touching)]);
    let xattr = |name: &str| pair(bytes(name.as_bytes()), bytes(b""));
    add("refused-xattrs-out-of-order", fifo, &[(17, array(&[xattr("b"), xattr("a")]))]);
}

fn snapshots(seeds: &mut Seeds) {
    let full = Envelope {
        time: Time::new(1, 2),
        dataset: "orders".into(),
        host: "db1".into(),
        domain: "main".into(),
        previous: Some(ObjectId([1; 32])),
        tags: vec!["a".into(), String::new()],
        label: "before migration".into(),
        summary: Summary { files: 3, stored_bytes: 1 << 50, duration_ms: 9, ..Summary::default() },
        run_key: RunKeyEntry { epoch: EpochId([2; 16]), sealed: [3; 80] },
        body: vec![9; 100],
        set: Some([4; 16]),
        log_segments: vec!["x".into()],
    };
    let bare = Envelope {
        previous: None,
        tags: vec![],
        label: String::new(),
        set: None,
        log_segments: vec![],
        summary: Summary::default(),
        body: vec![],
        ..full.clone()
    };
    seeds.add("envelope", "valid-full", full.encode());
    seeds.add("envelope", "valid-bare", bare.encode());
    let mut short = full.encode();
    short.truncate(40);
    seeds.add("envelope", "refused-short", short);

    let member = |stored_secs, bytes: &[u8]| BundledSnapshot { stored_secs, bytes: bytes.to_vec() };
    let members = vec![member(1_700_000_000, &full.encode()), member(-5, b"")];
    seeds.add("snapshot_bundle", "valid", SnapshotBundle { members }.encode());
    let pair = array(&[uint(5), bytes(b"x")]);
    seeds.add(
        "snapshot_bundle",
        "valid-unknown-field",
        map(&[(0, array(std::slice::from_ref(&pair))), (128, uint(1))]),
    );
    seeds.add(
        "snapshot_bundle",
        "refused-unknown-field",
        map(&[(0, array(std::slice::from_ref(&pair))), (1, uint(1))]),
    );
    seeds.add("snapshot_bundle", "refused-empty", map(&[(0, array(&[]))]));
    seeds.add("snapshot_bundle", "refused-without-members", map(&[]));
    let triple = array(&[uint(5), bytes(b"x"), uint(1)]);
    seeds.add("snapshot_bundle", "refused-member-of-three", map(&[(0, array(&[pair, triple]))]));
    let no_time = array(&[text("5"), bytes(b"x")]);
    seeds.add("snapshot_bundle", "refused-time-that-is-none", map(&[(0, array(&[no_time]))]));

    let body =
        Body { root: BlobId([7; 32]), paths: vec![b"/srv/\xff".to_vec(), b"/".to_vec()], details: None };
    seeds.add("body", "valid", body.encode());
    seeds.add("body", "valid-stream", Body { paths: vec![], ..body }.encode());
    let details = [(0, bytes(&[7; 32])), (1, array(&[])), (2, map(&[(0, text("postgres"))]))];
    seeds.add("body", "valid-database", map(&details));
    seeds.add("body", "refused-without-paths", map(&details[..1]));
    seeds.add(
        "body",
        "refused-details-that-are-no-map",
        map(&[details[0].clone(), details[1].clone(), (2, uint(1))]),
    );
}

fn records(seeds: &mut Seeds) {
    let ids = [ObjectId([1; 32]), ObjectId([2; 32])];
    let record = |kind: &str, body| Record { kind: kind.into(), time: Time::new(5, 0), body };
    seeds.add("record", "valid-forget", record("forget", Record::forget_body(&ids)).encode());
    seeds.add(
        "record",
        "valid-check",
        record("check", map(&[(0, uint(0)), (1, uint(9)), (2, uint(99))])).encode(),
    );
    seeds.add(
        "record",
        "valid-forget-of-something-else",
        record("forget", map(&[(0, array(&[uint(1)]))])).encode(),
    );
    let typed = |body: RecordBody| record(body.kind(), body.encode()).encode();
    let pin = |reason: &str, until| RecordBody::Pin(ids.to_vec(), Pin { reason: reason.into(), until });
    seeds.add("record", "valid-pin", typed(pin("before the migration", Some(Time::new(9, 1)))));
    seeds.add("record", "valid-pin-without-reason-and-end", typed(pin("", None)));
    seeds.add("record", "valid-pin-of-something-else", record("pin", map(&[(1, uint(1))])).encode());
    seeds.add("record", "valid-unpin", typed(RecordBody::Unpin(ids.to_vec())));
    seeds.add("record", "valid-tag", typed(RecordBody::Tag(ids.to_vec(), vec!["a".into(), String::new()])));
    seeds.add("record", "valid-tag-none", typed(RecordBody::Tag(ids.to_vec(), vec![])));
    let pair = |stored_secs| Replacement { old: ids[0], new: ids[1], slot: SlotId([3; 16]), stored_secs };
    let replace = |pairs, reason: &str| typed(RecordBody::Replace(pairs, reason.into()));
    seeds.add("record", "valid-replace", replace(vec![pair(Some(-5)), pair(None)], "erased"));
    seeds.add("record", "valid-replace-without-reason", replace(vec![pair(None)], ""));
    seeds.add(
        "record",
        "valid-replace-of-something-else",
        record("replace", map(&[(0, array(&[bytes(&[1; 32])]))])).encode(),
    );
    seeds.add("record", "valid-unknown-type", record("", map(&[])).encode());
    seeds.add("record", "refused-body-that-is-no-map", record("check", uint(1)).encode());

    let mark = Mark { time: Time::new(6, 1), packs: ids.to_vec() };
    seeds.add("mark", "valid", mark.encode());
    seeds.add("mark", "valid-empty", Mark { packs: vec![], ..mark }.encode());
    seeds.add("mark", "refused-without-packs", map(&[(0, array(&[uint(0), uint(0)]))]));
}

fn texts(seeds: &mut Seeds) {
    let secret: [u8; 32] = std::array::from_fn(|i| i as u8 * 8 + 1);
    let key_file = encode_key_file(&secret);
    seeds.add("key_file", "valid", key_file.as_bytes());
    seeds.add("key_file", "valid-white-space-around", format!("\n\t {}\r\n\u{a0}", key_file.trim()));
    seeds.add("key_file", "refused-without-space", key_file.replace(' ', ""));
    seeds.add("key_file", "refused-newline-within", key_file.replace(' ', " \n"));
    seeds.add("key_file", "refused-upper-case", key_file.to_uppercase());
    seeds.add("key_file", "refused-short", &key_file.as_bytes()[..70]);

    let printed = encode_recovery_key(&secret, [1, 2, 3]);
    seeds.add("recovery_key", "valid", printed.as_bytes());
    let careless = printed.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " \u{2003}");
    seeds.add("recovery_key", "valid-careless", careless);
    seeds.add("recovery_key", "refused-letter", printed.replace('0', "U"));
    seeds.add("recovery_key", "refused-one-more", format!("{}0", printed.as_str()));
    seeds.add("recovery_key", "refused-beyond-ascii", printed.replace('0', "\u{ff10}"));
}

/// Items of every shape, and what F1 refuses.
fn encodings(seeds: &mut Seeds) {
    let nested = |depth| (0..depth).fold(map(&[]), |inner, _| map(&[(0, inner)]));
    let items = [
        uint(0),
        uint(23),
        uint(24),
        uint(255),
        uint(256),
        vec![0x1a, 0, 1, 0, 0],
        vec![0x1b, 0, 0, 0, 1, 0, 0, 0, 0],
        vec![0x20],
        vec![0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        bytes(&[0xff; 24]),
        text("\u{1f600}"),
        array(&[]),
    ];
    seeds.add("cbor", "valid-empty", map(&[]));
    seeds.add("cbor", "valid-items", map(&[(0, array(&items)), (24, map(&[(1000, uint(1))]))]));
    seeds.add("cbor", "valid-deep", nested(15));
    seeds.add("cbor", "refused-too-deep", nested(16));
    let refused: [(&str, &[u8]); 14] = [
        ("long-integer", &[0x18, 0x17]),
        ("long-length", &[0x58, 0x01, 0x00]),
        ("indefinite-string", &[0x5f, 0xff]),
        ("indefinite-array", &[0x9f, 0xff]),
        ("reserved-length", &[0x1c]),
        ("tag", &[0xc0, 0x00]),
        ("null", &[0xf6]),
        ("float", &[0xf9, 0x00, 0x00]),
        ("broken-text", &[0x61, 0xff]),
        ("string-past-the-end", &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("array-past-the-end", &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("map-past-the-end", &[0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x00]),
        ("text-key", &[0x61, 0x61]),
        ("negative-key", &[0x20]),
    ];
    for (name, item) in refused {
        let is_key = name.ends_with("-key");
        let payload = if is_key { [&[0xa1], item, &[0x00]].concat() } else { [&[0xa1, 0x00], item].concat() };
        seeds.add("cbor", format!("refused-{name}"), payload);
    }
    seeds.add("cbor", "refused-keys-out-of-order", map(&[(1, uint(0)), (0, uint(0))]));
    seeds.add("cbor", "refused-key-twice", map(&[(1, uint(0)), (1, uint(0))]));
    seeds.add("cbor", "refused-bytes-behind", [map(&[]), vec![0]].concat());
    seeds.add("cbor", "refused-no-map", array(&[]));
}
