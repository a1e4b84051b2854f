//! Moving sealed units out of packs that go: whole, with what is dead in them, since no key opens them on the way; the pack's
//! name, header and hashes vouch for them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use snap_backend::ErrorKind;
use snap_format::{BlobEntry, BlobKind, ObjectId, PackHeader, RunKeyEntry, Unit};

use super::PruneOptions;
use super::inventory::Inventory;
use super::live::LiveSet;
use super::plan::{Exact, Homes, exact};
use crate::marks::Marks;
use crate::pack::{PackBuilder, parse_pack};
use crate::uploader::Uploader;
use crate::writer::{CopySet, Members, lock};
use crate::{Area, Finding, RepoError, Repository, Result, WriterOptions, for_each_parallel, object_name};

/// Packs that are read at the same time: each is in memory as a whole, with its table.
const PACKS_AT_ONCE: usize = 2;

/// Packs on their way at the same time, for each domain.
const UPLOADS: usize = 2;

/// Packs in the making, and those made, for one domain.
struct Target {
    members: Arc<Members>,
    uploader: Uploader,
    open: [Mutex<Option<PackBuilder>>; 2],
}

/// Makes new packs of what is needed in old ones.
pub(super) struct Mover {
    repository: Repository,
    pack_target: usize,
    targets: Mutex<HashMap<String, Arc<Target>>>,
    /// Blobs that are stored twice, and that have been moved from one of their places.
    moved: Mutex<HashSet<Exact>>,
    pub(super) moved_blobs: AtomicU64,
    pub(super) moved_bytes: AtomicU64,
}

/// What is known when blobs are moved.
pub(super) struct Scene<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) live: &'a LiveSet,
    pub(super) homes: &'a Homes,
    pub(super) marks: &'a Marks,
    /// The packs that go.
    pub(super) victims: &'a HashSet<u32>,
}

impl Mover {
    pub(super) fn new(repository: &Repository, options: &PruneOptions) -> Self {
        Self {
            repository: repository.clone(),
            pack_target: options.pack_target,
            targets: Mutex::default(),
            moved: Mutex::default(),
            moved_blobs: AtomicU64::new(0),
            moved_bytes: AtomicU64::new(0),
        }
    }

    /// Moves what is needed of the packs that go and lies in none that stays, and indexes it. Returns the first pack that
    /// turned out to be damaged, if one did: then not everything was moved, and the plan is wrong.
    pub(super) fn rescue(
        &self,
        scene: &Scene<'_>,
        step: impl Fn(u64) + Sync,
    ) -> Result<Option<(ObjectId, Finding)>> {
        let mut packs: Vec<u32> = scene.victims.iter().copied().collect();
        packs.retain(|number| scene.inventory.packs[*number as usize].live.blobs > 0);
        packs.sort_unstable_by_key(|number| scene.inventory.packs[*number as usize].id);
        // Within one pass alone: where it went the last time somebody may have marked.
        lock(&self.moved).clear();
        let bad = Mutex::new(None);
        let threads = self.repository.backend().parallelism().min(PACKS_AT_ONCE);
        for_each_parallel(&packs, threads, |number| {
            if lock(&bad).is_some() {
                return Ok(());
            }
            match self.rescue_pack(scene, *number) {
                Ok(bytes) => step(bytes),
                Err(RepoError::Damaged(finding)) => {
                    *lock(&bad) = Some((scene.inventory.packs[*number as usize].id, *finding));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        self.flush()?;
        Ok(bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Whether a needed blob in the pack of that number must be moved, since no pack that stays has it.
    fn must_move(&self, scene: &Scene<'_>, number: u32, blob: Exact) -> bool {
        let Some(home) = scene.homes.get(&blob) else { return true };
        // Somebody else may delete it.
        let id = &scene.inventory.packs[*home as usize].id;
        let is_unsafe = scene.marks.names(id) && !scene.victims.contains(home);
        (*home == number || is_unsafe) && !lock(&self.moved).contains(&blob)
    }

    fn rescue_pack(&self, scene: &Scene<'_>, number: u32) -> Result<u64> {
        let known = &scene.inventory.packs[number as usize];
        let name = object_name(Area::Packs, &known.id);
        let bytes = match self.repository.backend().get(&name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(RepoError::Overtaken),
            Err(error) => return Err(error.into()),
        };
        crate::verify::check_name(&name, &known.id, &bytes)?;
        let opened = parse_pack(self.repository.keyring(), known.id, &bytes)?.pack;
        let salt = scene.live.salt(&opened.domain, opened.kind);
        let target = self.target(&opened.domain);
        for unit in PackHeader::units(&opened.blobs) {
            let exact = |blob: &BlobEntry| exact(&opened.domain, opened.kind, &blob.id, scene.live);
            let needed = || unit.blobs.iter().filter(|blob| scene.live.contains(salt, &blob.id));
            if !needed().any(|blob| self.must_move(scene, number, exact(blob))) {
                continue;
            }
            let doubles = needed().map(exact).filter(|blob| scene.homes.contains_key(blob));
            lock(&self.moved).extend(doubles);
            let sealed = &bytes[unit.offset as usize..][..unit.stored_len() as usize];
            let run_key = opened.run_keys[usize::from(unit.blobs[0].run_key)];
            self.push(&target, opened.kind, &unit, run_key, sealed)?;
            self.moved_blobs.fetch_add(unit.blobs.len() as u64, Ordering::Relaxed);
            self.moved_bytes.fetch_add(u64::from(unit.stored_len()), Ordering::Relaxed);
        }
        Ok(bytes.len() as u64)
    }

    fn target(&self, domain: &str) -> Arc<Target> {
        let mut targets = lock(&self.targets);
        let target = targets.entry(domain.to_owned()).or_insert_with(|| {
            let uploads = self.repository.backend().parallelism().min(UPLOADS);
            let options =
                WriterOptions { pack_target: self.pack_target, uploads, ..WriterOptions::default() };
            let members = Members::only(&self.repository);
            let uploader = Uploader::start(&members, domain, 1, &options);
            Arc::new(Target { members, uploader, open: Default::default() })
        });
        Arc::clone(target)
    }

    fn push(
        &self,
        target: &Target,
        kind: BlobKind,
        unit: &Unit<'_>,
        run_key: RunKeyEntry,
        sealed: &[u8],
    ) -> Result<()> {
        target.members.check()?;
        let mut open = lock(&target.open[usize::from(kind == BlobKind::Tree)]);
        let new_pack = || PackBuilder::new(self.repository.keyring(), kind, target.uploader.buffer(kind));
        let pack = open.get_or_insert_with(new_pack);
        let position = match pack.run_key(&run_key) {
            Some(position) => position,
            None => {
                let full = std::mem::replace(pack, new_pack());
                target.uploader.send(full, CopySet::one(0))?;
                pack.run_key(&run_key).expect("an empty list has room")
            }
        };
        pack.push(unit.blobs, position, sealed);
        if pack.len() >= self.pack_target
            && let Some(full) = open.take()
        {
            target.uploader.send(full, CopySet::one(0))?;
        }
        Ok(())
    }

    /// Stores what is open, and the index that names it.
    fn flush(&self) -> Result<()> {
        let targets: Vec<Arc<Target>> = lock(&self.targets).values().cloned().collect();
        for target in &targets {
            for open in &target.open {
                if let Some(pack) = lock(open).take().filter(|pack| !pack.is_empty()) {
                    target.uploader.send(pack, CopySet::one(0))?;
                }
            }
            target.uploader.drain()?;
        }
        Ok(())
    }

    fn members(&self) -> Vec<Arc<Members>> {
        lock(&self.targets).values().map(|target| Arc::clone(&target.members)).collect()
    }

    /// The index objects that were written.
    pub(super) fn index_objects(&self) -> HashSet<ObjectId> {
        self.members().iter().flat_map(|members| members.index_objects()).collect()
    }

    /// Bytes that were written, index included.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.members().iter().map(|members| members.stats.stored_bytes.load(Ordering::Relaxed)).sum()
    }
}
