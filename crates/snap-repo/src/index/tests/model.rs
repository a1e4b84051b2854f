//! Random histories against hash tables that are made anew for each question.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const DOMAINS: [&str; 3] = ["main", "slot-1", "web"];
const BLOBS: u64 = 150;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn random_pack(random: &mut Random) -> IndexedPack {
    let domain = DOMAINS[random.below(10).min(2) as usize];
    // Few numbers, so that the same and other things are said of one pack.
    let (number, run, first) = (random.below(25), random.below(3) as u8, random.below(BLOBS));
    let blobs: Vec<u64> = (0..random.below(30)).map(|_| (first + random.below(40)) % BLOBS).collect();
    if random.below(3) == 0 {
        return pack(number, "main", 1, number..number + 9);
    }
    pack(number, domain, run, blobs)
}

/// What is said of a blob's place, without numbers: pack, its size, offset, lengths, codec, place in the group, run key.
type Saying = (ObjectId, u64, u64, [u32; 2], u8, Option<[u32; 2]>, [u8; 80]);

fn saying(place: &Located) -> Saying {
    let Located { pack_id, offset, stored_len, plain_len, run_key, pack_size, codec, .. } = place;
    let group = place.group.map(|group| [group.offset, group.plain_len]);
    (*pack_id, *pack_size, *offset, [*stored_len, *plain_len], codec.code(), group, run_key.sealed)
}

/// What a pack map says of its blobs, by the words of the format page.
fn sayings(pack: &IndexedPack) -> Vec<(BlobId, Saying)> {
    let mut out: Vec<(BlobId, Saying)> = Vec::new();
    let (mut end, mut unit) = (28_u64, 0);
    for blob in &pack.blobs {
        if blob.stored_len > 0 {
            unit = out.len();
        }
        let (offset, stored_len, within) = match out[unit..].last() {
            None => (end, blob.stored_len, 0),
            Some((_, (_, _, offset, [stored_len, plain_len], _, group, _))) => {
                (*offset, *stored_len, group.unwrap()[0] + plain_len)
            }
        };
        end += u64::from(blob.stored_len);
        let group = blob.grouped.then_some([within, 0]);
        let key = pack.run_keys[usize::from(blob.run_key)].sealed;
        let lens = [stored_len, blob.plain_len];
        out.push((blob.id, (pack.id, pack.size, offset, lens, blob.codec.code(), group, key)));
        let unit_len = out[unit..].iter().map(|(_, saying)| saying.3[1]).sum();
        for (_, saying) in &mut out[unit..] {
            saying.5 = saying.5.map(|[within, _]| [within, unit_len]);
        }
    }
    out
}

fn check(index: &Index, objects: &BTreeMap<ObjectId, Vec<IndexedPack>>, context: &str) {
    index.check().unwrap();
    let mut packs: BTreeMap<[u8; 32], &IndexedPack> = BTreeMap::new();
    for pack in objects.values().flatten() {
        packs.insert(pack_digest(pack), pack);
    }
    let mut found: Vec<_> = index.packs().map(|pack| pack.digest).collect();
    found.sort_unstable();
    assert_eq!(found, packs.keys().copied().collect::<Vec<_>>(), "{context}");
    for number in 0..25 {
        let expected: BTreeSet<_> =
            packs.iter().filter(|(_, pack)| pack.id == pack_id(number)).map(|(digest, _)| *digest).collect();
        let numbers = index.pack_numbers(&pack_id(number));
        let found: BTreeSet<_> = numbers.map(|number| index.pack(number).unwrap().digest).collect();
        assert_eq!(found, expected, "{context}: pack {number}");
    }
    for domain in DOMAINS {
        let mut places: BTreeMap<BlobId, BTreeSet<_>> = BTreeMap::new();
        for pack in packs.values().filter(|pack| pack.domain == domain) {
            for (id, saying) in sayings(pack) {
                places.entry(id).or_default().insert(saying);
            }
        }
        for id in (0..BLOBS + 20).map(blob_id) {
            let expected = places.get(&id).cloned().unwrap_or_default();
            let found: Vec<_> = index.locate_all(domain, &id);
            assert_eq!(found.iter().map(saying).collect::<BTreeSet<_>>(), expected, "{context}");
            let first = index.locate(domain, &id);
            assert_eq!(first.as_ref(), found.first(), "{context}");
            assert_eq!(index.plain_len(domain, &id), first.map(|place| place.plain_len), "{context}");
            let mut numbers = BTreeSet::new();
            index.packs_of(domain, &id, |pack| {
                numbers.insert(pack);
                false
            });
            let of_places: BTreeSet<_> = found.iter().map(|place| place.pack).collect();
            assert!(numbers.is_superset(&of_places), "{context}");
        }
        let listed: Vec<_> = index.iter(domain).collect();
        let is_tabled = !index.slots.is_empty();
        assert!(!is_tabled || listed.is_sorted_by(|a, b| a.0 < b.0), "{context}");
        let ids: BTreeSet<_> = listed.iter().map(|(id, _)| *id).collect();
        assert_eq!((ids.len(), ids), (listed.len(), places.keys().copied().collect()), "{context}");
        assert!(listed.iter().all(|(id, place)| places[id].contains(&saying(place))), "{context}");
    }
}

/// Changes a byte of a file, cuts it, or takes it away.
fn damage(random: &mut Random, path: &Path) -> &'static str {
    let mut bytes = std::fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let what = match random.below(4) {
        0 => {
            std::fs::remove_file(path).unwrap();
            return "removed";
        }
        1 => {
            bytes.truncate(at);
            "truncated"
        }
        2 => {
            bytes[at] ^= 1 << random.below(8);
            "flipped"
        }
        _ => {
            bytes[at..].fill(0);
            "emptied"
        }
    };
    // In place: who has it open sees it, too.
    std::fs::write(path, bytes).unwrap();
    what
}

#[test]
fn any_history_of_objects_and_damage_gives_what_the_objects_say() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let lab = Lab::new();
        let mut objects: BTreeMap<ObjectId, Vec<IndexedPack>> = BTreeMap::new();
        for step in 0..25 {
            let mut context = format!("seed {seed}, step {step}");
            for _ in 0..random.below(4) {
                let packs: Vec<_> = (0..random.below(5)).map(|_| random_pack(&mut random)).collect();
                objects.insert(lab.put(&packs), packs);
            }
            if random.below(3) == 0 && !objects.is_empty() {
                let gone = *objects.keys().nth(random.below(objects.len() as u64) as usize).unwrap();
                objects.remove(&gone);
                lab.delete(&gone);
            }
            let files = lab.files();
            if random.below(5) == 0 && !files.is_empty() {
                let file = &files[random.below(files.len() as u64) as usize];
                context.push_str(damage(&mut random, file));
            }
            let index = lab.load();
            if random.below(3) == 0 {
                for file in lab.files() {
                    let what = damage(&mut random, &file);
                    context = format!("{context}, {what} while in use");
                }
            }
            check(&index, &objects, &context);
        }
        let (in_memory, _) = Index::load(&lab.repository, None).unwrap();
        check(&in_memory, &objects, "in memory");
    }
}
