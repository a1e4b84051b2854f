//! Snapshots without files: the root is a content list, whose blobs are the content.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::sync::Arc;

use snap_backend::Backend;
use snap_format::{BlobId, BlobKind, ObjectId, Record, Summary, Time, TreeBlob};
use snap_repo::prune::{LiveSet, PruneOptions, PruneReport, TreePlaces, Walk, Waste, prune};
use snap_repo::{
    Area, BlobReader, Finding, Index, NewSnapshot, RepoError, Repository, Result, Sabotage, Scratch, Secret,
    Snapshot, Writer, WriterOptions, object_name,
};

/// Packs of this size or more are finished: each blob of a test gets its own.
pub const PACK: usize = 500;

pub fn writer_options(sabotage: Sabotage) -> WriterOptions {
    WriterOptions { pack_target: PACK, uploads: 1, group_below: 0, sabotage, ..WriterOptions::default() }
}

pub fn prune_options(grace_secs: u64) -> PruneOptions {
    let grace = std::time::Duration::from_secs(grace_secs);
    PruneOptions {
        grace,
        max_waste: Waste::Share(0.0),
        pack_target: PACK,
        ..PruneOptions::at(Time::new(0, 0))
    }
}

/// A new repository.
pub fn create(backend: &dyn Backend) -> Secret {
    let secret = Secret::random_key_file().unwrap();
    Repository::create(backend, &secret, "test", Time::new(1, 0)).unwrap();
    secret
}

pub fn open(backend: Arc<dyn Backend>, secret: &Secret) -> Repository {
    Repository::open(backend, secret).unwrap()
}

/// Bytes that do not compress, told apart by number.
pub fn noise(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Backs up pieces of noise, each a blob, named by number.
pub fn backup(repository: &Repository, pieces: &[u64], secs: i64) -> Result<ObjectId> {
    backup_with(repository, pieces, secs, writer_options(Sabotage::None))
}

pub fn backup_with(
    repository: &Repository,
    pieces: &[u64],
    secs: i64,
    options: WriterOptions,
) -> Result<ObjectId> {
    let (index, _) = Index::load(repository, None)?;
    let writer = Writer::begin(repository, index, None, options)?;
    let mut scratch = Scratch::new(1).unwrap();
    let mut ids = Vec::new();
    for piece in pieces {
        ids.push(writer.add(BlobKind::Data, &noise(*piece, 500), &mut scratch)?.0);
    }
    let (root, _) = writer.add(BlobKind::Tree, &TreeBlob::Content(ids).encode(), &mut scratch)?;
    writer.finish()?.commit(new_snapshot(root, secs))
}

pub fn new_snapshot(root: BlobId, secs: i64) -> NewSnapshot {
    NewSnapshot {
        time: Time::new(secs, 0),
        dataset: "files".into(),
        host: "lab".into(),
        previous: None,
        tags: Vec::new(),
        label: String::new(),
        summary: Summary::default(),
        root,
        paths: Vec::new(),
        details: None,
    }
}

/// Forgets a snapshot: the record, then the object.
pub fn forget(repository: &Repository, snapshot: &ObjectId) -> Result<()> {
    repository.put_record("forget", Time::new(5, 0), Record::forget_body(&[*snapshot]))?;
    repository.backend().delete(&object_name(Area::Snapshots, snapshot))?;
    Ok(())
}

/// Reads all that a snapshot of [`backup`] holds.
pub fn read_back(repository: &Repository, snapshot: &ObjectId) -> Result<usize, String> {
    let (index, findings) = Index::load(repository, None).map_err(|error| error.to_string())?;
    if let Some(finding) = findings.first() {
        return Err(finding.to_string());
    }
    let name = object_name(Area::Snapshots, snapshot);
    let bytes = repository.backend().get(&name).map_err(|error| error.to_string())?;
    let snapshot = repository.parse_snapshot(snapshot, &bytes).map_err(|error| error.to_string())?;
    let (body, domain) = (repository.open_body(&snapshot).unwrap(), repository.domain_of(&snapshot).unwrap());
    let reader = BlobReader::new(repository.clone(), Arc::new(index));
    let (mut scratch, mut plain) = (Scratch::new(1).unwrap(), Vec::new());
    let tree = reader.tree(&domain, &body.root, &mut scratch).map_err(|error| error.to_string())?;
    let TreeBlob::Content(ids) = tree else { return Err("no content list".into()) };
    for id in &ids {
        reader
            .read(&domain, BlobKind::Data, id, &mut scratch, &mut plain)
            .map_err(|error| error.to_string())?;
    }
    Ok(ids.len())
}

/// Walks content lists.
pub struct Lists<'a>(pub &'a Repository);

impl Lists<'_> {
    fn ids(&self, snapshot: &Snapshot, trees: &TreePlaces) -> Result<(BlobId, Vec<BlobId>)> {
        let (body, domain) = (self.0.open_body(snapshot)?, self.0.domain_of(snapshot)?);
        let missing = || RepoError::from(Finding::new(snap_repo::FindingCode::Dangling, "tree", "not there"));
        let number = trees.number(&domain.name, &body.root).ok_or_else(missing)?;
        let (mut scratch, mut plain) = (Scratch::new(1).unwrap(), Vec::new());
        let mut failure = missing();
        for place in trees.places(number) {
            let name = object_name(Area::Packs, &place.pack_id);
            let sealed = self.0.backend().get_range(&name, place.offset, u64::from(place.stored_len));
            let opened = sealed.map_err(RepoError::from).and_then(|sealed| {
                let kind = BlobKind::Tree;
                self.0.open_sealed(&domain, kind, &body.root, &place, &sealed, &mut scratch, &mut plain)
            });
            match opened {
                Ok(()) => match TreeBlob::decode(&plain).unwrap() {
                    TreeBlob::Content(ids) => return Ok((body.root, ids)),
                    other => panic!("{other:?}"),
                },
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Walk for Lists<'_> {
    type Error = RepoError;

    fn walk(&self, snapshots: &[Snapshot], trees: &TreePlaces, live: &LiveSet) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for snapshot in snapshots {
            match self.ids(snapshot, trees).map_err(RepoError::into_finding) {
                Ok((root, ids)) => {
                    live.insert(live.salt(&snapshot.envelope.domain, BlobKind::Tree), &root);
                    let data = live.salt(&snapshot.envelope.domain, BlobKind::Data);
                    ids.iter().for_each(|id| {
                        live.insert(data, id);
                    });
                }
                Err(Ok(finding)) => findings.push(finding),
                Err(Err(error)) => return Err(error),
            }
        }
        Ok(findings)
    }

    fn blame(&self, snapshots: &[Snapshot], trees: &TreePlaces, lost: &LiveSet) -> Result<Vec<ObjectId>> {
        let touches = |snapshot: &&Snapshot| match self.ids(snapshot, trees) {
            Ok((_, ids)) => {
                let data = lost.salt(&snapshot.envelope.domain, BlobKind::Data);
                ids.iter().any(|id| lost.contains(data, id))
            }
            Err(_) => true,
        };
        Ok(snapshots.iter().filter(touches).map(|snapshot| snapshot.id).collect())
    }
}

/// Prunes with [`prune_options`].
pub fn prune_now(repository: &Repository, options: &PruneOptions) -> Result<PruneReport> {
    prune(repository, options, &Lists(repository))
}
