//! What is to go: computed, shown, then carried out.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use snap_format::{BlobId, BlobKind, IndexedPack, ObjectId, PackHeader, limits};

use super::inventory::{Inventory, Listed, Pack, Tally};
use super::live::{Counts, LiveSet, Salt};
use super::{PackSum, PruneOptions};
use crate::Result;
use crate::marks::Marks;
use crate::writer::lock;

/// Packs below this share of the target are small, unless they list so many run keys that merging would not make them larger.
const SMALL_SHARE: u64 = 8;
/// Small packs of one sort are merged when there are as many, so that what is merged is not merged again the next day.
const SMALL_PACKS: usize = 10;

/// A blob for certain: two that share 128 bits of their ids do not occur.
pub(super) type Exact = u128;

pub(super) fn exact(domain: &str, kind: BlobKind, id: &BlobId, salts: &LiveSet) -> Exact {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = id.0;
    let salt = salts.salt(domain, kind).bits();
    u128::from_le_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]) ^ u128::from(salt)
}

/// Of blobs that are stored several times, the pack where each is kept.
pub(super) type Homes = HashMap<Exact, u32>;

/// Finds the sealed units of each pack that stay: those with a blob that snapshots need. Of a blob that is stored twice one
/// place counts. Returns where such blobs are at home, and the keys of blobs that are nowhere.
pub(super) fn survey(inventory: &mut Inventory, live: &LiveSet, marks: &Marks) -> Result<(Homes, Vec<u64>)> {
    let counts = live.counts();
    tally(inventory, live, |_, _, salt, id| counts.add(salt, id))?;
    let missing = counts.missing();
    let homes =
        if counts.has_doubles() { choose_homes(inventory, live, &counts, marks)? } else { Homes::new() };
    Ok((homes, missing))
}

/// Counts the units in which `wanted` picks a blob, by the number of its pack. It is asked of every blob.
fn tally(
    inventory: &mut Inventory,
    live: &LiveSet,
    wanted: impl Fn(u32, &IndexedPack, Salt, &BlobId) -> bool + Sync,
) -> Result<()> {
    let tallies: Vec<Mutex<Tally>> = inventory.packs.iter().map(|_| Mutex::default()).collect();
    inventory.stream_packs(|number, pack| {
        let salt = live.salt(&pack.domain, pack.kind);
        let mut sum = Tally::default();
        for unit in PackHeader::units(&pack.blobs) {
            // Not `any`: each place of a blob is to be seen.
            let picked = unit.blobs.iter().filter(|blob| wanted(number, &pack, salt, &blob.id)).count();
            if picked > 0 {
                sum.blobs += unit.blobs.len() as u64;
                sum.bytes += u64::from(unit.stored_len());
            }
        }
        *lock(&tallies[number as usize]) = sum;
    })?;
    for (pack, tally) in inventory.packs.iter_mut().zip(tallies) {
        pack.live = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    Ok(())
}

/// Where blobs that are stored twice are kept: not in a pack that goes, and best in one of which much is kept. Then the
/// units are counted again: one whose needed blobs are all at home elsewhere is needed no more.
fn choose_homes(inventory: &mut Inventory, live: &LiveSet, counts: &Counts, marks: &Marks) -> Result<Homes> {
    let rank: Vec<(bool, u64, std::cmp::Reverse<ObjectId>)> = inventory
        .packs
        .iter()
        .map(|pack| {
            let share = pack.live.bytes.saturating_mul(1 << 20) / pack.body_bytes.max(1);
            (!marks.names(&pack.id), share, std::cmp::Reverse(pack.id))
        })
        .collect();
    let homes: Mutex<Homes> = Mutex::default();
    inventory.stream_packs(|number, pack| {
        let salt = live.salt(&pack.domain, pack.kind);
        for blob in pack.blobs.iter().filter(|blob| counts.is_double(salt, &blob.id)) {
            let mut homes = lock(&homes);
            let home = homes.entry(exact(&pack.domain, pack.kind, &blob.id, live)).or_insert(number);
            if rank[number as usize] > rank[*home as usize] {
                *home = number;
            }
        }
    })?;
    let homes = homes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally(inventory, live, |number, pack, salt, id| {
        if !live.contains(salt, id) {
            return false;
        }
        // A home that is marked is none: somebody may be about to delete it.
        let home = homes.get(&exact(&pack.domain, pack.kind, id, live));
        home.is_none_or(|home| *home == number || !rank[*home as usize].0)
    })?;
    Ok(homes)
}

/// The packs that go.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Named by the index, nothing in them is needed.
    pub(super) dead: Vec<u32>,
    /// Named by the index, what is needed of them is moved.
    pub(super) repack: Vec<u32>,
    /// In the store, named by no index, old enough.
    pub(super) orphans: Vec<(ObjectId, u64)>,
}

impl Choice {
    /// The packs that the index names.
    pub(super) fn named(&self) -> impl Iterator<Item = u32> + '_ {
        self.dead.iter().chain(&self.repack).copied()
    }
}

/// Chooses the packs that go, but for those that are marked already. `is_old` judges packs that no index names.
pub(super) fn choose(
    inventory: &Inventory,
    marks: &Marks,
    options: &PruneOptions,
    is_old: impl Fn(&Listed) -> bool,
) -> Choice {
    if !options.damaged.is_empty() {
        return choose_damaged(inventory, &options.damaged);
    }
    let mut choice = Choice::default();
    let is_candidate = |pack: &&Pack| inventory.there.contains_key(&pack.id) && !marks.names(&pack.id);
    let number = |id: &ObjectId| inventory.number(id).expect("the inventory has it");
    // In a damaged pack nothing counts as stored: whatever is needed of it is elsewhere.
    let (dead, kept): (Vec<_>, Vec<_>) =
        inventory.packs.iter().filter(is_candidate).partition(|pack| pack.live.blobs == 0);
    choice.dead.extend(dead.iter().map(|pack| number(&pack.id)));

    // The most wasteful first, until the rest is within what is allowed.
    let total: u64 = kept.iter().map(|pack| pack.body_bytes).sum();
    let mut waste: u64 = kept.iter().map(|pack| pack.dead_bytes()).sum();
    let mut wasteful: Vec<_> = kept.iter().filter(|pack| pack.dead_bytes() > 0).collect();
    wasteful.sort_by(|a, b| {
        let left = u128::from(a.dead_bytes()) * u128::from(b.body_bytes);
        let right = u128::from(b.dead_bytes()) * u128::from(a.body_bytes);
        right.cmp(&left).then(a.id.cmp(&b.id))
    });
    let mut chosen: HashSet<ObjectId> = HashSet::new();
    for pack in wasteful {
        if options.max_waste.allows(waste, total) {
            break;
        }
        waste -= pack.dead_bytes();
        chosen.insert(pack.id);
    }
    let mut small: HashMap<(&str, BlobKind), Vec<&Pack>> = HashMap::new();
    let is_small = |pack: &Pack| {
        pack.size < options.pack_target as u64 / SMALL_SHARE && pack.run_keys < limits::RUN_KEYS / 2
    };
    for pack in kept.iter().filter(|pack| is_small(pack)) {
        small.entry((&pack.domain, pack.kind)).or_default().push(pack);
    }
    for packs in small.values().filter(|packs| packs.len() >= SMALL_PACKS) {
        chosen.extend(packs.iter().map(|pack| pack.id));
    }
    choice.repack.extend(chosen.iter().map(number));
    choice.dead.sort_unstable();
    choice.repack.sort_unstable();
    choice.orphans.extend(
        inventory
            .there
            .iter()
            .filter(|(id, listed)| !inventory.is_named(id) && !marks.names(id) && is_old(listed))
            .map(|(id, listed)| (*id, listed.size)),
    );
    choice.orphans.sort_unstable();
    choice
}

/// Chooses these, in which nothing counts as stored, marked or not: whoever found them damaged has marked them.
fn choose_damaged(inventory: &Inventory, damaged: &HashSet<ObjectId>) -> Choice {
    let mut choice = Choice::default();
    for id in damaged {
        match (inventory.number(id), inventory.there.get(id)) {
            (Some(number), Some(_)) => choice.dead.push(number),
            (None, Some(listed)) => choice.orphans.push((*id, listed.size)),
            (_, None) => {}
        }
    }
    choice.dead.sort_unstable();
    choice.orphans.sort_unstable();
    choice
}

/// Number and size of packs that are in the store.
pub(super) fn weigh<'a>(inventory: &Inventory, packs: impl IntoIterator<Item = &'a ObjectId>) -> PackSum {
    let mut out = PackSum::default();
    for listed in packs.into_iter().filter_map(|id| inventory.there.get(id)) {
        out.packs += 1;
        out.bytes += listed.size;
    }
    out
}
