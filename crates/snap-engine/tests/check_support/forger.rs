//! Objects made by hand from `docs/format.md`, with the keys that a slot's secret opens.

use snap_backend::{Backend, MemoryBackend, ObjectName};
use snap_crypto::{AgreementKey, IdKey, SealKey, SignatureKey, derive_key, hash, seal_to};
use snap_format::{
    BlobEntry, BlobId, BlobKind, Body, Bundle, Codec, Config, Envelope, Epoch, EpochId, Head, IndexObject,
    IndexedPack, Inner, Mark, ObjectId, ObjectKind, PackHeader, Record, RepoId, RunKeyEntry, SlotId, Summary,
};
use snap_repo::{Area, object_name};

use super::time;

pub struct Forger {
    pub backend: MemoryBackend,
    pub repository: RepoId,
    pub slot: SlotId,
    pub epoch: EpochId,
    pub epoch_name: ObjectId,
    pub head: Epoch,
    signer: SignatureKey,
    index: SealKey,
    reader: [u8; 32],
    seeds: Vec<(String, [u8; 32])>,
    master: Option<[u8; 32]>,
}

impl Forger {
    /// Opens the head epoch with a key file's secret.
    pub fn new(backend: &MemoryBackend, secret: [u8; 32]) -> Self {
        let config = backend.get(&ObjectName::new("config").unwrap()).unwrap();
        let repository = Config::decode(&config[..config.len() - 32]).unwrap().repository;
        let (epoch_name, head) = backend
            .names()
            .into_iter()
            .filter(|name| name.as_str().starts_with("epochs/"))
            .map(|name| {
                let id = ObjectId::from_hex(&name.as_str()[7..]).unwrap();
                (id, Epoch::decode(&backend.get(&name).unwrap()).unwrap().0)
            })
            .max_by_key(|(_, epoch)| epoch.number)
            .unwrap();
        for slot in &head.slots {
            let wrap = SealKey::new(derive_key("snap v0 slot wrap", &[&secret, &slot.id.0]));
            let ad =
                [b"snap v0 slot secrets".as_slice(), &repository.0, &slot.id.0, &[slot.role.code()]].concat();
            let Ok(plain) = wrap.open(&ad, &slot.secrets) else { continue };
            let ([agreement, seed, ..], []) = plain.as_chunks::<32>() else { panic!("secrets of a slot") };
            let info = [b"snap v0 bundle".as_slice(), &repository.0, &slot.id.0].concat();
            let bundle = AgreementKey::new(*agreement).open(&info, &head.id.0, &slot.bundle).unwrap();
            let bundle = Bundle::decode(&bundle).unwrap();
            let keys = bundle.epochs.iter().find(|keys| keys.id == head.id).unwrap();
            return Self {
                backend: backend.clone(),
                repository,
                slot: slot.id,
                epoch: head.id,
                epoch_name,
                signer: SignatureKey::new(*seed),
                index: SealKey::new(keys.index),
                reader: head.reader,
                seeds: bundle.domains.clone(),
                master: bundle.master,
                head,
            };
        }
        panic!("no slot opens");
    }

    /// The domain that the bundle gives, or `main`.
    pub fn domain(&self) -> String {
        self.seeds.first().map_or("main".to_owned(), |(name, _)| name.clone())
    }

    /// The id that a blob of the own domain has.
    pub fn id(&self, kind: BlobKind, plain: &[u8]) -> BlobId {
        let seed = match (self.seeds.first(), &self.master) {
            (Some((_, seed)), _) => *seed,
            (None, Some(master)) => derive_key("snap v0 domain seed", &[master, b"main"]),
            (None, None) => panic!("no domain"),
        };
        let context = match kind {
            BlobKind::Data => "snap v0 data id key",
            BlobKind::Tree => "snap v0 tree id key",
        };
        BlobId(IdKey::new(derive_key(context, &[&seed])).id(plain))
    }

    /// Sealed and signed parts, as §5 has them.
    fn inner(&self, head: &[u8], payload: &[u8]) -> Vec<u8> {
        let message =
            [b"snap v0 box".as_slice(), &self.repository.0, head, &self.slot.0, &hash(payload)].concat();
        let signature = self.signer.sign(&message);
        let plain_len = payload.len() as u32;
        Inner { slot: self.slot, signature, codec: Codec::Raw, plain_len, stored: payload }.encode(0)
    }

    pub fn seal_box(&self, kind: ObjectKind, payload: &[u8]) -> Vec<u8> {
        let head = Head { kind, epoch: self.epoch }.encode();
        let mut out = head.to_vec();
        let ad = [self.repository.0.as_slice(), &head].concat();
        self.index.seal_into(&ad, &self.inner(&head, payload), &mut out).unwrap();
        out
    }

    pub fn run_key(&self) -> (SealKey, RunKeyEntry) {
        let key = SealKey::random().unwrap();
        let info = [b"snap v0 run key".as_slice(), &self.repository.0].concat();
        let sealed = seal_to(&self.reader, &info, &self.epoch.0, key.expose()).unwrap();
        (key, RunKeyEntry { epoch: self.epoch, sealed: sealed.try_into().unwrap() })
    }

    /// A pack of blobs under whatever ids are claimed.
    pub fn pack(&self, kind: BlobKind, domain: &str, blobs: &[(BlobId, &[u8])]) -> (IndexedPack, Vec<u8>) {
        let head = self.pack_head(kind);
        let (key, entry) = self.run_key();
        let mut out = head.to_vec();
        let mut table = Vec::new();
        for (id, plain) in blobs {
            let plain_len = plain.len() as u32;
            let ad = [&self.repository.0[..], &[kind.code()], &id.0, &[0], &plain_len.to_le_bytes()].concat();
            key.seal_into(&ad, plain, &mut out).unwrap();
            let stored_len = plain_len + 40;
            table.push(BlobEntry {
                id: *id,
                stored_len,
                plain_len,
                codec: Codec::Raw,
                grouped: false,
                run_key: 0,
            });
        }
        self.end_pack(kind, domain, entry, table, out)
    }

    /// A pack with one group of these blobs, under whatever ids are claimed.
    pub fn group(&self, domain: &str, blobs: &[(BlobId, &[u8])]) -> (IndexedPack, Vec<u8>) {
        let kind = BlobKind::Data;
        let (key, run_key) = self.run_key();
        let plain: Vec<u8> = blobs.iter().flat_map(|(_, plain)| *plain).copied().collect();
        let plain_len = plain.len() as u32;
        let ad = [&self.repository.0[..], &[kind.code()], &[0; 32], &[2], &plain_len.to_le_bytes()].concat();
        let mut out = self.pack_head(kind).to_vec();
        key.seal_into(&ad, &plain, &mut out).unwrap();
        let entry = |(at, (id, plain)): (usize, &(BlobId, &[u8]))| BlobEntry {
            id: *id,
            stored_len: if at == 0 { plain_len + 40 } else { 0 },
            plain_len: plain.len() as u32,
            codec: Codec::Raw,
            grouped: true,
            run_key: 0,
        };
        let table = blobs.iter().enumerate().map(entry).collect();
        self.end_pack(kind, domain, run_key, table, out)
    }

    fn pack_head(&self, kind: BlobKind) -> [u8; snap_format::HEAD_LEN] {
        let object = if kind == BlobKind::Data { ObjectKind::DataPack } else { ObjectKind::TreePack };
        Head { kind: object, epoch: self.epoch }.encode()
    }

    fn end_pack(
        &self,
        kind: BlobKind,
        domain: &str,
        entry: RunKeyEntry,
        table: Vec<BlobEntry>,
        mut out: Vec<u8>,
    ) -> (IndexedPack, Vec<u8>) {
        let head = self.pack_head(kind);
        let header = PackHeader {
            domain: domain.to_owned(),
            run_keys: vec![entry],
            blobs: table.clone(),
            body_hash: hash(&out),
        };
        let part = |part: &str| [self.repository.0.as_slice(), &head, part.as_bytes()].concat();
        let body = out.len();
        self.index.seal_into(&part("header"), &self.inner(&head, &header.encode()), &mut out).unwrap();
        let length = (out.len() - body) as u64;
        self.index.seal_into(&part("trailer"), &length.to_le_bytes(), &mut out).unwrap();
        let (id, size) = (ObjectId(hash(&out)), out.len() as u64);
        let domain = domain.to_owned();
        (IndexedPack { id, size, kind, domain, run_keys: vec![entry], blobs: table }, out)
    }

    pub fn put(&self, area: Area, bytes: Vec<u8>) -> ObjectName {
        let name = object_name(area, &ObjectId(hash(&bytes)));
        self.backend.put(&name, bytes.into()).unwrap();
        name
    }

    pub fn put_pack(&self, kind: BlobKind, domain: &str, blobs: &[(BlobId, &[u8])]) -> IndexedPack {
        let (pack, bytes) = self.pack(kind, domain, blobs);
        self.put(Area::Packs, bytes);
        pack
    }

    pub fn put_index(&self, packs: &[IndexedPack]) -> ObjectName {
        let payload = IndexObject { packs: packs.to_vec(), replaces: Vec::new() }.encode();
        self.put(Area::Index, self.seal_box(ObjectKind::Index, &payload))
    }

    pub fn put_snapshot(&self, domain: &str, root: BlobId, previous: Option<ObjectId>) -> ObjectName {
        self.put_envelope(root, |envelope| {
            envelope.domain = domain.to_owned();
            envelope.previous = previous;
        })
    }

    /// A snapshot that says what it is made to say.
    pub fn put_envelope(&self, root: BlobId, change: impl FnOnce(&mut Envelope)) -> ObjectName {
        let (key, run_key) = self.run_key();
        let mut body = Vec::new();
        let ad = [self.repository.0.as_slice(), b"snapshot body"].concat();
        key.seal_into(&ad, &Body { root, paths: vec![b"/x".to_vec()], details: None }.encode(), &mut body)
            .unwrap();
        let mut envelope = Envelope {
            time: time(1000),
            dataset: "files".into(),
            host: "host".into(),
            domain: self.domain(),
            previous: None,
            tags: Vec::new(),
            label: String::new(),
            summary: Summary::default(),
            run_key,
            body,
            set: None,
            log_segments: Vec::new(),
        };
        change(&mut envelope);
        self.put(Area::Snapshots, self.seal_box(ObjectKind::Snapshot, &envelope.encode()))
    }

    pub fn put_mark(&self, packs: &[ObjectId]) -> ObjectName {
        let payload = Mark { time: time(900), packs: packs.to_vec() }.encode();
        self.put(Area::Marks, self.seal_box(ObjectKind::Mark, &payload))
    }

    pub fn put_forget(&self, snapshots: &[ObjectId]) -> ObjectName {
        self.put_record("forget", Record::forget_body(snapshots))
    }

    pub fn put_record(&self, kind: &str, body: Vec<u8>) -> ObjectName {
        let payload = Record { kind: kind.into(), time: time(900), body }.encode();
        self.put(Area::Records, self.seal_box(ObjectKind::Record, &payload))
    }

    /// A next epoch that the slot signs itself.
    pub fn put_epoch(&self) -> ObjectName {
        let mut epoch = self.head.clone();
        epoch.previous = Some(self.epoch_name);
        epoch.number += 1;
        epoch.id = EpochId([0x66; 16]);
        epoch.signer = self.slot;
        let mut bytes = epoch.encode();
        let message = [b"snap v0 epoch".as_slice(), &hash(&bytes)].concat();
        bytes.extend_from_slice(&self.signer.sign(&message));
        self.put(Area::Epochs, bytes)
    }

    /// How findings call this slot.
    pub fn name(&self) -> String {
        self.slot.to_hex()
    }
}
