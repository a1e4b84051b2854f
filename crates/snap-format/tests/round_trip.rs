//! Whatever can be said is read as it was said.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use snap_format::{
    BlobEntry, BlobId, BlobKind, Body, BranchEntry, Bundle, BundledSnapshot, Codec, Config, Content,
    Envelope, Epoch, EpochId, EpochKeys, FormatError, HEAD_LEN, Head, IndexObject, IndexedPack, Inner,
    KdfParams, Link, Mark, Node, NodeKind, ObjectId, ObjectKind, ObjectMetadata, PackHeader, Pin, Record,
    RecordBody, Replacement, RepoId, Role, RunKeyEntry, SEAL_OVERHEAD, Slot, SlotDetails, SlotId, SlotKind,
    SnapshotBundle, Summary, Time, TreeBlob, Xattr, decode_key_file, decode_recovery_key, encode_key_file,
    encode_recovery_key, limits, padme,
};

/// Numbers of every length that CBOR has.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..30u64, any::<u8>().prop_map(u64::from), any::<u16>().prop_map(u64::from), any::<u64>()]
}

fn number32() -> impl Strategy<Value = u32> {
    number().prop_map(|number| number as u32)
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["", "[a-z]{1,12}", "\\PC{0,12}", any::<String>()]
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time::new(secs, nanos))
}

fn blob_id() -> impl Strategy<Value = BlobId> {
    any::<[u8; 32]>().prop_map(BlobId)
}

fn object_id() -> impl Strategy<Value = ObjectId> {
    any::<[u8; 32]>().prop_map(ObjectId)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'.'), 1..=255u8].prop_filter("no separator", |byte| *byte != b'/');
    vec(byte, 1..12).prop_filter("a plain component", |name| Node::name_is_safe(name))
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![vec(blob_id(), 0..4).prop_map(Content::Blobs), vec(blob_id(), 0..4).prop_map(Content::Lists),]
}

/// Ascending, not touching; and a size that holds them.
fn holes_and_size() -> impl Strategy<Value = (Vec<(u64, u64)>, u64)> {
    (vec((1..1u64 << 40, 1..1u64 << 40), 0..4), any::<bool>(), 0..1u64 << 40).prop_map(
        |(gaps, at_start, tail)| {
            let (mut at, mut holes) = (0, Vec::new());
            for (index, (gap, length)) in gaps.into_iter().enumerate() {
                let offset = if index == 0 && at_start { 0 } else { at + gap };
                holes.push((offset, length));
                at = offset + length;
            }
            (holes, at + tail)
        },
    )
}

fn metadata() -> impl Strategy<Value = ObjectMetadata> {
    let user = btree_map(text(), text(), 0..3).prop_map(|user: BTreeMap<_, _>| user.into_iter().collect());
    (option::of(text()), option::of(text()), option::of(text()), user)
        .prop_map(|(content_type, etag, version, user)| ObjectMetadata { content_type, etag, version, user })
}

fn node_kind() -> impl Strategy<Value = NodeKind> {
    let file = (content(), holes_and_size(), any::<u8>())
        .prop_map(|(content, (holes, size), profile)| NodeKind::File { size, content, holes, profile });
    let object = (number(), content(), any::<u8>(), metadata())
        .prop_map(|(size, content, profile, metadata)| NodeKind::Object { size, content, profile, metadata });
    prop_oneof![
        3 => file,
        1 => blob_id().prop_map(|tree| NodeKind::Dir { tree }),
        1 => bytes(30).prop_map(|target| NodeKind::Symlink { target }),
        1 => Just(NodeKind::Fifo),
        1 => (number32(), number32()).prop_map(|(major, minor)| NodeKind::CharDevice { major, minor }),
        1 => (number32(), number32()).prop_map(|(major, minor)| NodeKind::BlockDevice { major, minor }),
        1 => object,
    ]
}

/// Fields of a later version: keys from 128 up, each with an item of CBOR, which here is the payload of another object.
fn unknown() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let item = vec(object_id(), 0..3).prop_map(|ids| Record::forget_body(&ids));
    btree_map(prop_oneof![128..140u64, 128..u64::MAX], item, 0..3)
        .prop_map(|fields: BTreeMap<_, _>| fields.into_iter().collect())
}

fn node() -> impl Strategy<Value = Node> {
    let owner = (number32(), number32(), option::of(text()), option::of(text()));
    let times = (time(), option::of(time()), option::of(number()));
    let link = option::of((number(), number()).prop_map(|(device, inode)| Link { device, inode }));
    let xattrs = btree_map(bytes(20), bytes(40), 0..3).prop_map(|xattrs: BTreeMap<_, _>| {
        xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect()
    });
    let flags = any::<(bool, bool)>();
    (name(), node_kind(), 0..0o10000u32, owner, times, link, xattrs, flags, unknown()).prop_map(
        |(name, kind, mode, owner, times, link, xattrs, flags, unknown)| Node {
            name,
            kind,
            mode,
            uid: owner.0,
            gid: owner.1,
            user: owner.2,
            group: owner.3,
            mtime: times.0,
            ctime: times.1,
            inode: times.2,
            link,
            xattrs,
            changed_while_read: flags.0,
            unreadable: flags.1,
            unknown,
        },
    )
}

fn tree() -> impl Strategy<Value = TreeBlob> {
    let leaf = vec(node(), 0..6).prop_map(|mut nodes| {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        TreeBlob::Leaf(nodes)
    });
    let branch = btree_map(name(), (blob_id(), number()), 1..5).prop_map(|entries: BTreeMap<_, _>| {
        let entries = entries.into_iter().map(|(first, (id, nodes))| BranchEntry { first, id, nodes });
        TreeBlob::Branch(entries.collect())
    });
    prop_oneof![4 => leaf, 1 => branch, 1 => vec(blob_id(), 0..5).prop_map(TreeBlob::Content)]
}

fn run_key() -> impl Strategy<Value = RunKeyEntry> {
    (any::<[u8; 16]>(), vec(any::<u8>(), 80)).prop_map(|(epoch, sealed)| RunKeyEntry {
        epoch: EpochId(epoch),
        sealed: sealed.try_into().expect("80 were asked for"),
    })
}

/// Run keys, and blobs that name one of them and together stay below the limit of a pack.
fn tables() -> impl Strategy<Value = (Vec<RunKeyEntry>, Vec<BlobEntry>)> {
    let member = (any::<[u8; 32]>(), 0..=1u32 << 20);
    let unit = (vec(member, 1..4), any::<bool>(), 0..1u32 << 20, any::<bool>(), any::<prop::sample::Index>());
    (vec(run_key(), 1..4), vec(unit, 0..5)).prop_map(|(run_keys, units)| {
        let mut blobs = Vec::new();
        for (members, grouped, packed_len, packed, key) in units {
            let grouped = grouped || members.len() > 1;
            let plain: u32 = members.iter().map(|(_, len)| len).sum();
            for (at, (id, plain_len)) in members.into_iter().enumerate() {
                let stored = if packed { packed_len } else { plain };
                blobs.push(BlobEntry {
                    id: BlobId(id),
                    stored_len: if at == 0 { stored + SEAL_OVERHEAD as u32 } else { 0 },
                    plain_len,
                    codec: if packed { Codec::Zstd } else { Codec::Raw },
                    grouped,
                    run_key: key.index(run_keys.len()) as u8,
                });
            }
        }
        (run_keys, blobs)
    })
}

fn pack() -> impl Strategy<Value = IndexedPack> {
    let kind = prop_oneof![Just(BlobKind::Data), Just(BlobKind::Tree)];
    (object_id(), number(), kind, text(), tables()).prop_map(|(id, size, kind, domain, tables)| IndexedPack {
        id,
        size,
        kind,
        domain,
        run_keys: tables.0,
        blobs: tables.1,
    })
}

fn slot() -> impl Strategy<Value = Slot> {
    let role = prop_oneof![Just(Role::Owner), Just(Role::Backup), Just(Role::Restore)];
    let kdf = (1..=16u32, 1..=64u32, any::<u32>(), vec(any::<u8>(), 8..=64)).prop_map(
        |(lanes, passes, memory, salt)| {
            let memory_kib = memory.clamp(8 * lanes, KdfParams::MAX_MEMORY_KIB);
            KdfParams { memory_kib, passes, lanes, salt }
        },
    );
    let kind = prop_oneof![
        kdf.prop_map(|kdf| (SlotKind::Password, Some(kdf))),
        Just((SlotKind::KeyFile, None)),
        Just((SlotKind::Recovery, None)),
    ];
    (any::<[u8; 16]>(), role, kind, any::<[u8; 32]>(), any::<[u8; 32]>(), bytes(200), bytes(200)).prop_map(
        |(id, role, (kind, kdf), public, verify, secrets, bundle)| Slot {
            id: SlotId(id),
            role,
            kind,
            kdf,
            public,
            verify,
            secrets,
            bundle,
        },
    )
}

fn epoch() -> impl Strategy<Value = Epoch> {
    let place = prop_oneof![
        Just((0, None)),
        (1..=u64::MAX, object_id()).prop_map(|(number, previous)| (number, Some(previous))),
    ];
    let ids = (any::<[u8; 32]>(), any::<[u8; 16]>(), any::<[u8; 32]>(), any::<[u8; 16]>());
    (ids, place, time(), vec(slot(), 0..4), bytes(100)).prop_map(
        |((repository, id, reader, signer), (number, previous), created, slots, details)| Epoch {
            repository: RepoId(repository),
            id: EpochId(id),
            number,
            previous,
            created,
            reader,
            slots,
            details,
            signer: SlotId(signer),
        },
    )
}

/// The keys, slot by slot: a bundle itself does not show what it holds.
type BundleParts = (Vec<([u8; 16], [u8; 32], Option<[u8; 32]>)>, Option<[u8; 32]>, Vec<(String, [u8; 32])>);

fn bundle_parts() -> impl Strategy<Value = BundleParts> {
    let key = any::<[u8; 32]>;
    let keys = (any::<[u8; 16]>(), key(), option::of(key()));
    (vec(keys, 0..4), option::of(key()), vec((text(), key()), 0..3))
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let names = (text(), text(), text(), text());
    let ids = (option::of(object_id()), option::of(any::<[u8; 16]>()), run_key());
    let lists = (vec(text(), 0..3), vec(text(), 0..3));
    let counts = (number(), number(), number(), number());
    (time(), names, ids, lists, counts, bytes(100)).prop_map(|(time, names, ids, lists, counts, body)| {
        let summary = Summary {
            files: counts.0,
            others: counts.1,
            changed_while_read: counts.2,
            duration_ms: counts.3,
            ..Summary::default()
        };
        Envelope {
            time,
            dataset: names.0,
            host: names.1,
            domain: names.2,
            previous: ids.0,
            tags: lists.0,
            label: names.3,
            summary,
            run_key: ids.2,
            body,
            set: ids.1,
            log_segments: lists.1,
        }
    })
}

proptest! {
    #[test]
    fn trees(tree in tree()) {
        prop_assert_eq!(TreeBlob::decode(&tree.encode()), Ok(tree));
    }

    /// No byte of a tree goes without saying: another byte is another tree, or none.
    #[test]
    fn every_byte_of_a_tree_counts(tree in tree(), at in any::<prop::sample::Index>(), change in 1..=255u8) {
        let mut bytes = tree.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(TreeBlob::decode(&bytes) != Ok(tree));
    }

    #[test]
    fn names_are_sorted_and_unique(nodes in vec(node(), 0..5)) {
        let names: Vec<_> = nodes.iter().map(|node| &node.name).collect();
        let sorted: BTreeSet<_> = names.iter().collect();
        let is_sorted = sorted.into_iter().eq(&names);
        prop_assert_eq!(TreeBlob::decode(&TreeBlob::encode_leaf(&nodes)).is_ok(), is_sorted);
    }

    #[test]
    fn pack_headers(domain in text(), (run_keys, blobs) in tables(), body_hash in any::<[u8; 32]>()) {
        let header = PackHeader { domain, run_keys, blobs, body_hash };
        prop_assert_eq!(PackHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn index_objects(packs in vec(pack(), 0..4), replaces in vec(object_id(), 0..4)) {
        let index = IndexObject { packs, replaces };
        prop_assert_eq!(IndexObject::decode(&index.encode()), Ok(index));
    }

    #[test]
    fn configs(repository: [u8; 32], copy: [u8; 16], created in time(), first in object_id(), optional in vec(text(), 0..3)) {
        let required = Vec::new();
        let config = Config { repository: RepoId(repository), copy, created, first_epoch: first, required, optional };
        prop_assert_eq!(Config::decode(&config.encode()), Ok(config));
    }

    #[test]
    fn epochs(epoch in epoch(), sign in any::<u8>()) {
        let signed = epoch.encode();
        let bytes = [&signed[..], &[sign; 64]].concat();
        prop_assert_eq!(Epoch::decode(&bytes), Ok((epoch, &signed[..], [sign; 64])));
    }

    #[test]
    fn slot_details(details in vec((text(), text(), time()), 0..4)) {
        let details: Vec<_> =
            details.into_iter().map(|(label, domain, created)| SlotDetails { label, domain, created }).collect();
        prop_assert_eq!(Epoch::decode_details(&Epoch::encode_details(&details)), Ok(details));
    }

    #[test]
    fn bundles((epochs, master, domains) in bundle_parts()) {
        let epochs = epochs.into_iter().map(|(id, index, reader)| EpochKeys { id: EpochId(id), index, reader });
        let bundle = Bundle { epochs: epochs.collect(), master, domains };
        prop_assert!(Bundle::decode(&bundle.encode()).is_ok_and(|read| read == bundle));
    }

    #[test]
    fn envelopes(envelope in envelope()) {
        prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }

    #[test]
    fn bodies(root in blob_id(), paths in vec(bytes(30), 0..4)) {
        let body = Body { root, paths, details: None };
        prop_assert_eq!(Body::decode(&body.encode()), Ok(body));
    }

    #[test]
    fn forget_records(time in time(), ids in vec(object_id(), 0..4)) {
        let record = Record { kind: "forget".into(), time, body: Record::forget_body(&ids) };
        prop_assert_eq!(record.forgotten(), Ok(ids));
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn records_about_snapshots(
        ids in vec(object_id(), 0..4),
        reason in text(),
        until in option::of(time()),
        tags in vec(text(), 0..4),
        replaced in vec((object_id(), any::<[u8; 16]>(), option::of(any::<i64>())), 0..4),
    ) {
        let pairs = replaced
            .into_iter()
            .map(|(new, slot, stored_secs)| Replacement {
                old: ids.first().copied().unwrap_or(new),
                new,
                slot: SlotId(slot),
                stored_secs,
            })
            .collect();
        let bodies = [
            RecordBody::Replace(pairs, reason.clone()),
            RecordBody::Forget(ids.clone()),
            RecordBody::Pin(ids.clone(), Pin { reason, until }),
            RecordBody::Unpin(ids.clone()),
            RecordBody::Tag(ids, tags),
        ];
        for body in bodies {
            prop_assert!(RecordBody::is_owners(body.kind()));
            prop_assert_eq!(RecordBody::decode(body.kind(), &body.encode()), Ok(Some(body)));
        }
    }

    #[test]
    fn snapshot_bundles(members in vec((any::<i64>(), bytes(300)), 1..5)) {
        let members = members.into_iter().map(|(stored_secs, bytes)| BundledSnapshot { stored_secs, bytes }).collect();
        let bundle = SnapshotBundle { members };
        prop_assert_eq!(SnapshotBundle::decode(&bundle.encode()), Ok(bundle));
    }

    #[test]
    fn marks(time in time(), packs in vec(object_id(), 0..4)) {
        let mark = Mark { time, packs };
        prop_assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }

    #[test]
    fn inner_parts(slot: [u8; 16], sign: u8, stored in bytes(200), packed: Option<u32>, padding in 0..300usize) {
        let plain_len = packed.map_or(stored.len() as u32, |len| len % (limits::PAYLOAD_PLAIN as u32 + 1));
        let codec = if packed.is_some() { Codec::Zstd } else { Codec::Raw };
        let inner = Inner { slot: SlotId(slot), signature: [sign; 64], codec, plain_len, stored: &stored };
        let bytes = inner.encode(padding);
        prop_assert_eq!(Inner::decode(&bytes), Ok(inner));
    }

    #[test]
    fn heads(kind in 0..7usize, epoch: [u8; 16], behind in bytes(9)) {
        use ObjectKind::{DataPack, Index, Mark, Record, Snapshot, SnapshotBundle, TreePack};
        let kind = [DataPack, TreePack, Index, Snapshot, Record, Mark, SnapshotBundle][kind];
        let head = Head { kind, epoch: EpochId(epoch) };
        let bytes = head.encode();
        prop_assert_eq!(Head::decode(&[&bytes[..], &behind].concat()), Ok(head));
        prop_assert!(Head::decode(&bytes[..HEAD_LEN - 1]).is_err());
    }

    #[test]
    fn keys_as_text(secret: [u8; 32], check: [u8; 3]) {
        let file = encode_key_file(&secret);
        prop_assert_eq!(*decode_key_file(&file).expect("it was written so"), secret);
        let printed = encode_recovery_key(&secret, check);
        let (read, read_check) = decode_recovery_key(&printed).expect("it was written so");
        prop_assert_eq!((*read, read_check), (secret, check));
    }

    /// As the format states it, in floating point where that is exact.
    #[test]
    fn padded_lengths(length in 4..1u64 << 40) {
        let exponent = f64::log2(length as f64).floor();
        let kept = exponent.log2().floor() + 1.0;
        let unit = (exponent - kept).max(0.0).exp2() as u64;
        prop_assert_eq!(padme(length), length.next_multiple_of(unit));
        prop_assert_eq!(padme(padme(length)), padme(length));
    }
}

#[test]
fn a_node_holds_so_many_ids_and_no_more() {
    let leaf = |count| {
        let content = Content::Blobs(vec![BlobId([1; 32]); count]);
        let kind = NodeKind::File { size: 1, content, holes: vec![], profile: 1 };
        TreeBlob::encode_leaf(&[Node::new(b"long".to_vec(), kind, Time::default())])
    };
    assert!(TreeBlob::decode(&leaf(limits::INLINE_CONTENT)).is_ok());
    assert!(matches!(
        TreeBlob::decode(&leaf(limits::INLINE_CONTENT + 1)),
        Err(FormatError::Malformed { .. })
    ));
}
