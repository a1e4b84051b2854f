//! What a removed slot can still open, tried with every key that it ever had on every object, by the format page alone.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::{Lab, odd};
use snap_backend::{Backend, MemoryBackend, ObjectName};
use snap_crypto::{AgreementKey, SealKey, derive_key};
use snap_format::{Bundle, Epoch, EpochKeys, RepoId, Role, RunKeyEntry, SlotId, Time};
use snap_repo::prune::PruneOptions;
use snap_repo::{NewSlot, Repository, Secret};

const NOW: Time = Time::new(1_000_000, 7);
const HEAD: usize = 28;

/// Everything that a slot's secret ever gave.
struct Loot {
    repository: RepoId,
    slot: SlotId,
    agreement: AgreementKey,
    keys: Vec<EpochKeys>,
}

fn epochs(memory: &MemoryBackend) -> Vec<Epoch> {
    let names = memory.names().into_iter().filter(|name| name.as_str().starts_with("epochs/"));
    names.map(|name| Epoch::decode(&memory.get(&name).unwrap()).unwrap().0).collect()
}

impl Loot {
    fn of(memory: &MemoryBackend, repository: RepoId, slot: SlotId, secret: [u8; 32]) -> Self {
        let wrap = SealKey::new(derive_key("snap v0 slot wrap", &[&secret, &slot.0]));
        let mut out = None;
        for epoch in epochs(memory) {
            let Some(row) = epoch.slots.iter().find(|row| row.id == slot) else { continue };
            let ad =
                [b"snap v0 slot secrets".as_slice(), &repository.0, &slot.0, &[row.role.code()]].concat();
            let plain = wrap.open(&ad, &row.secrets).unwrap();
            let agreement = AgreementKey::new(*plain.first_chunk().unwrap());
            let loot = out.get_or_insert(Self { repository, slot, agreement, keys: Vec::new() });
            let info = [b"snap v0 bundle".as_slice(), &repository.0, &slot.0].concat();
            let bundle = loot.agreement.open(&info, &epoch.id.0, &row.bundle).unwrap();
            loot.keys.extend(Bundle::decode(&bundle).unwrap().epochs.iter().cloned());
        }
        out.unwrap()
    }

    fn index_key_opens(&self, ad: &[&[u8]], sealed: &[u8]) -> bool {
        let ad = [&[self.repository.0.as_slice()], ad].concat().concat();
        self.keys.iter().any(|keys| SealKey::new(keys.index).open(&ad, sealed).is_ok())
    }

    /// Whether an object, or a part of it, opens with any of the keys.
    fn opens(&self, area: &str, bytes: &[u8]) -> bool {
        let (head, rest) = bytes.split_at(HEAD);
        match area {
            "packs" => {
                let (before, trailer) = bytes.split_last_chunk::<48>().unwrap();
                let may_begin_at = HEAD..before.len();
                self.index_key_opens(&[head, b"trailer"], trailer)
                    || may_begin_at.len() < 5000
                        && may_begin_at
                            .into_iter()
                            .any(|at| self.index_key_opens(&[head, b"header"], &before[at..]))
            }
            "epochs" => self.opens_epoch(&Epoch::decode(bytes).unwrap().0),
            _ => self.index_key_opens(&[head], rest),
        }
    }

    fn opens_epoch(&self, epoch: &Epoch) -> bool {
        let details = [b"snap v0 slot details".as_slice(), &self.repository.0, &epoch.id.0].concat();
        let has_details =
            self.keys.iter().any(|keys| SealKey::new(keys.index).open(&details, &epoch.details).is_ok());
        has_details
            || epoch.slots.iter().any(|row| {
                [row.id, self.slot].into_iter().any(|id| {
                    let info = [b"snap v0 bundle".as_slice(), &self.repository.0, &id.0].concat();
                    self.agreement.open(&info, &epoch.id.0, &row.bundle).is_ok()
                })
            })
    }

    fn opens_run_key(&self, entry: &RunKeyEntry) -> bool {
        let info = [b"snap v0 run key".as_slice(), &self.repository.0].concat();
        let readers = self.keys.iter().filter_map(|keys| keys.reader);
        let mut keys = readers.map(AgreementKey::new).chain([self.agreement.clone()]);
        keys.any(|key| key.open(&info, &entry.epoch.0, &entry.sealed).is_ok())
    }
}

#[test]
fn a_removed_slot_opens_nothing_that_is_written_after() {
    for (role, reads) in [(Role::Backup, false), (Role::Restore, true), (Role::Owner, true)] {
        let (lab, memory) = common::in_memory();
        let bytes = [role.code() + 40; 32];
        let secret = Secret::KeyFile(bytes.into());
        let new = NewSlot { role, secret: &secret, label: "leaves".into(), domain: None };
        let (slot, _) = lab.repository().add_slot(new, NOW).unwrap();
        let old = written(&lab, &memory, 1);
        let loot = |memory: &MemoryBackend| Loot::of(memory, lab.id, slot, bytes);
        // So that what follows proves something: it opened all of this.
        let held = loot(&memory);
        assert!(old.iter().all(|name| held.opens(area(name), &memory.get(name).unwrap())), "{role}");
        assert_eq!(held.opens_run_key(&lab.latest().envelope.run_key), reads);

        let change = lab.repository().remove_slot(slot, NOW).unwrap();
        assert!(change.counts);
        let removal: Vec<_> = epochs(&memory).into_iter().filter(|epoch| epoch.number == 2).collect();
        assert!(removal.len() == 1 && !loot(&memory).opens_epoch(&removal[0]));
        for round in 2..4 {
            let new = written(&lab, &memory, round);
            let areas: BTreeSet<_> = new.iter().map(area).collect();
            assert_eq!(areas.into_iter().collect::<Vec<_>>(), ["index", "packs", "snapshots"]);
            let loot = loot(&memory);
            for name in &new {
                assert!(!loot.opens(area(name), &memory.get(name).unwrap()), "{role} opens {name}");
            }
            assert!(!loot.opens_run_key(&lab.latest().envelope.run_key));
            let opened = Repository::open(Arc::clone(&lab.backend), &secret);
            assert!(matches!(opened, Err(snap_repo::RepoError::SlotRemoved { epoch: 2, .. })));
            assert!(lab.repository().rotate_keys(NOW).unwrap().counts);
        }
    }
}

#[test]
fn after_a_reseal_it_opens_no_data_no_tree_and_no_index() {
    for role in [Role::Backup, Role::Restore, Role::Owner] {
        let (lab, memory) = common::in_memory();
        let bytes = [role.code() + 40; 32];
        let secret = Secret::KeyFile(bytes.into());
        let new = NewSlot { role, secret: &secret, label: "leaves".into(), domain: None };
        let (slot, _) = lab.repository().add_slot(new, NOW).unwrap();
        written(&lab, &memory, 1);
        written(&lab, &memory, 2);
        lab.repository().remove_slot(slot, NOW).unwrap();
        let loot = Loot::of(&memory, lab.id, slot, bytes);
        let opened = |of: &str| {
            let names = memory.names().into_iter().filter(|name| area(name) == of);
            let (all, opens): (Vec<_>, Vec<_>) =
                names.map(|name| ((), loot.opens(of, &memory.get(&name).unwrap()))).unzip();
            (all.len(), opens.into_iter().filter(|opens| *opens).count())
        };
        assert_eq!((opened("packs"), opened("index"), opened("snapshots")), ((4, 4), (2, 2), (2, 2)));
        let options = PruneOptions { reseal: true, grace: Duration::ZERO, ..PruneOptions::at(NOW) };
        snap_engine::prune(&lab.repository(), &options, lab.context()).unwrap();
        let (packs, index) = (opened("packs"), opened("index"));
        assert!(packs.0 > 0 && index.0 > 0 && (packs.1, index.1) == (0, 0), "{role}: {packs:?} {index:?}");
        // As docs/guide/keys.md says: the time, the host and the paths of an old snapshot it still reads, and no more.
        assert_eq!(opened("snapshots"), (2, 2));
        lab.check_over(&lab.backend);
    }
}

fn area(name: &ObjectName) -> &str {
    name.as_str().split('/').next().unwrap()
}

/// The objects that a backup of something new writes.
fn written(lab: &Lab, memory: &MemoryBackend, round: u64) -> Vec<ObjectName> {
    let before: BTreeSet<_> = memory.names().into_iter().collect();
    std::fs::write(lab.source("file"), odd::noise(round, 100_000)).unwrap();
    lab.backup();
    memory.names().into_iter().filter(|name| !before.contains(name)).collect()
}
