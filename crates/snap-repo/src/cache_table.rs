//! Many small things in two files of the cache: a large one, and a small one with what came since, so that a run that adds
//! one thing writes little. Authenticated, since what is in them is not verified again.

use std::collections::HashMap;

use snap_crypto::IdKey;
use snap_format::ObjectId;

use crate::Cache;

const MAGIC: &[u8; 8] = b"SNAPTAB0";
const MAC_LEN: usize = 32;
/// The small file may grow to this size, or to this part of the large one.
const RECENT_BYTES: usize = 256 << 10;
const RECENT_PART: usize = 8;
/// Id and length before each value.
const ENTRY_HEAD: usize = 36;

/// Values by id. Whatever is wrong with its files only means that they count as empty.
pub(crate) struct CacheTable {
    name: &'static str,
    key: IdKey,
    /// Large and small.
    files: [Vec<u8>; 2],
    /// File, offset and length of each value.
    places: HashMap<ObjectId, (usize, usize, usize)>,
}

impl CacheTable {
    /// Reads both files. `key` is bound to the repository and to what the values are.
    pub(crate) fn load(cache: &Cache, name: &'static str, key: IdKey) -> Self {
        let files = Self::names(name).map(|file| {
            let bytes = cache.read(&file).unwrap_or_default();
            if Self::is_genuine(&key, &bytes) { bytes } else { Vec::new() }
        });
        let mut places = HashMap::with_capacity(files[0].len() / 512);
        for (number, file) in files.iter().enumerate() {
            let mut at = MAGIC.len() + MAC_LEN;
            while let Some((head, _)) = file.get(at..).and_then(<[u8]>::split_first_chunk::<ENTRY_HEAD>) {
                let (Some(id), Some(len)) = (ObjectId::from_slice(&head[..32]), head[32..].first_chunk())
                else {
                    break;
                };
                let (start, len) = (at + ENTRY_HEAD, u32::from_le_bytes(*len) as usize);
                if file.get(start..).is_none_or(|rest| rest.len() < len) {
                    break;
                }
                places.insert(id, (number, start, len));
                at = start + len;
            }
        }
        Self { name, key, files, places }
    }

    fn names(name: &str) -> [String; 2] {
        [format!("{name}.table"), format!("{name}.recent")]
    }

    fn is_genuine(key: &IdKey, bytes: &[u8]) -> bool {
        let body = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first_chunk::<MAC_LEN>);
        body.is_some_and(|(mac, body)| key.id(body) == *mac)
    }

    /// The value of an id.
    pub(crate) fn get(&self, id: &ObjectId) -> Option<&[u8]> {
        let (file, start, len) = *self.places.get(id)?;
        self.files[file].get(start..start + len)
    }

    /// Keeps `fresh`, and forgets what is not `live` when it writes the large file anew. Two processes that do so at once each
    /// leave a whole file: what one of them learned is learned again.
    pub(crate) fn store(
        self,
        cache: &Cache,
        fresh: &[(ObjectId, Vec<u8>)],
        live: impl Fn(&ObjectId) -> bool,
    ) {
        let gone: usize =
            self.places.iter().filter(|(id, _)| !live(id)).map(|(_, place)| place.2 + ENTRY_HEAD).sum();
        let is_wasteful = gone > RECENT_BYTES.max(self.files[0].len() / 4);
        let added: usize = fresh.iter().map(|(_, value)| value.len() + ENTRY_HEAD).sum();
        let room = RECENT_BYTES.max(self.files[0].len() / RECENT_PART);
        if fresh.is_empty() && !is_wasteful && self.files[1].len() <= room {
            return;
        }
        let [large, small] = Self::names(self.name);
        // Without a cache everything works, only slower: failures to write are none.
        if !is_wasteful && self.files[1].len() + added <= room {
            let mut body = self.files[1].get(MAGIC.len() + MAC_LEN..).unwrap_or_default().to_vec();
            fresh.iter().for_each(|(id, value)| put(&mut body, id, value));
            let _ = Self::write(&self.key, cache, &small, &body);
            return;
        }
        let mut body = Vec::with_capacity(self.files.iter().map(Vec::len).sum::<usize>() + added);
        for id in self.places.keys().filter(|id| live(id)) {
            put(&mut body, id, self.get(id).unwrap_or_default());
        }
        fresh.iter().for_each(|(id, value)| put(&mut body, id, value));
        if Self::write(&self.key, cache, &large, &body).is_ok() {
            cache.remove(&small);
        }
    }

    /// Adds one value without reading the large file.
    pub(crate) fn add(cache: &Cache, name: &'static str, key: &IdKey, id: &ObjectId, value: &[u8]) {
        let [_, small] = Self::names(name);
        let mut body = cache.read(&small).filter(|bytes| Self::is_genuine(key, bytes)).unwrap_or_default();
        body.drain(..body.len().min(MAGIC.len() + MAC_LEN));
        put(&mut body, id, value);
        let _ = Self::write(key, cache, &small, &body);
    }

    fn write(key: &IdKey, cache: &Cache, file: &str, body: &[u8]) -> std::io::Result<()> {
        cache.write(file, &[MAGIC.as_slice(), &key.id(body), body].concat())
    }
}

fn put(out: &mut Vec<u8>, id: &ObjectId, value: &[u8]) {
    out.extend_from_slice(&id.0);
    out.extend_from_slice(&u32::try_from(value.len()).expect("values are small").to_le_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_format::RepoId;

    fn id(number: u32) -> ObjectId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        ObjectId(id)
    }

    fn load(cache: &Cache) -> CacheTable {
        CacheTable::load(cache, "x", IdKey::new([1; 32]))
    }

    fn entries(numbers: std::ops::Range<u32>) -> Vec<(ObjectId, Vec<u8>)> {
        numbers.map(|number| (id(number), vec![number as u8; 1000])).collect()
    }

    #[test]
    fn what_is_stored_is_found_however_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), RepoId([7; 32]));
        // One by one into the small file, which flows over into the large one.
        for number in 0..600 {
            load(&cache).store(&cache, &entries(number..number + 1), |_| true);
        }
        let table = load(&cache);
        for number in 0..600 {
            assert_eq!(table.get(&id(number)), Some(&vec![number as u8; 1000][..]));
        }
        assert_eq!(table.get(&id(600)), None);
        assert!(table.files.iter().all(|file| !file.is_empty()));
        // One more goes into the small file, until reading it makes it part of the large one.
        CacheTable::add(&cache, "x", &IdKey::new([1; 32]), &id(600), b"more");
        let table = load(&cache);
        assert_eq!((table.get(&id(600)), table.places.len()), (Some(&b"more"[..]), 601));
        for number in 601..1200 {
            CacheTable::add(&cache, "x", &IdKey::new([1; 32]), &id(number), &[1; 1000]);
        }
        load(&cache).store(&cache, &[], |_| true);
        assert!(!cache.has("x.recent"));
        let table = load(&cache);
        assert_eq!(table.places.len(), 1200);
        // What is gone stays while it is little, and goes with the rest.
        table.store(&cache, &[], |id| id.0[0] % 2 == 0);
        let table = load(&cache);
        assert_eq!((table.get(&id(1)), table.get(&id(2)).is_some()), (None, true));
        assert_eq!(table.places.len(), 600);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), RepoId([7; 32]));
        load(&cache).store(&cache, &entries(0..1000), |_| true);
        load(&cache).store(&cache, &entries(1000..1001), |_| true);
        assert_eq!(load(&cache).places.len(), 1001);
        assert_eq!(CacheTable::load(&cache, "x", IdKey::new([2; 32])).places.len(), 0);
        for file in ["x.table", "x.recent"] {
            let whole = cache.read(file).unwrap();
            for at in [0, 20, 39, 40, 80, whole.len() - 1] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                cache.write(file, &damaged).unwrap();
                assert!(load(&cache).places.len() < 1001, "{file} at {at}");
            }
            for len in [0, 7, 8, 39, 40, whole.len() - 1] {
                cache.write(file, &whole[..len]).unwrap();
                assert!(load(&cache).places.len() < 1001, "{file} of {len} bytes");
            }
            cache.write(file, &whole).unwrap();
        }
        // And is written anew.
        cache.write("x.table", b"rubbish").unwrap();
        load(&cache).store(&cache, &entries(0..1000), |_| true);
        assert_eq!(load(&cache).places.len(), 1001);
    }
}
