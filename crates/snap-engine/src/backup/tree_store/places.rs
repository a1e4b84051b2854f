//! Where trees lie in a file: entries of a fixed size, sorted by id, searched where they are on disk. Ids are hashes, so a
//! guess from the first bytes lands close by, and two or three small reads find an entry among millions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use snap_format::BlobId;

/// Where a tree lies: offset in the file and length, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// Bytes of an entry: id, offset, length.
pub(crate) const ENTRY: usize = 32 + 8 + 4;
/// Entries that are read at once.
const WINDOW: u64 = 64;
/// Guesses before halving: in a table that is not what it should be, guesses lead nowhere.
const GUESSES: u32 = 8;
/// Entries that are sorted in memory; more go to disk in sorted runs.
const IN_MEMORY: usize = 1 << 17;

fn encode(id: &BlobId, place: Place) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..32].copy_from_slice(&id.0);
    entry[32..40].copy_from_slice(&place.offset.to_le_bytes());
    entry[40..].copy_from_slice(&place.length.to_le_bytes());
    entry
}

fn decode(entry: &[u8; ENTRY]) -> (BlobId, Place) {
    let (id, rest) = entry.split_first_chunk().expect("an entry begins with an id");
    let (offset, length) = rest.split_first_chunk().expect("an offset follows it");
    let length = length.first_chunk().expect("a length ends it");
    (BlobId(*id), Place { offset: u64::from_le_bytes(*offset), length: u32::from_le_bytes(*length) })
}

fn entries(bytes: &[u8]) -> &[[u8; ENTRY]] {
    bytes.as_chunks().0
}

/// A sorted table within a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Where it begins in its file.
    pub(crate) offset: u64,
    /// Its entries.
    pub(crate) count: u64,
}

impl Table {
    /// Looks an id up; gives its position in the table as well. A table that is damaged finds nothing or something wrong.
    pub(crate) fn find(&self, file: &File, id: &BlobId) -> Option<(u64, Place)> {
        let key = |id: &[u8]| u64::from_be_bytes(*id.first_chunk().expect("an id is longer"));
        let wanted = key(&id.0);
        let (mut low, mut high) = (0, self.count);
        let (mut low_key, mut high_key) = (0, u64::MAX);
        let mut window = [0; WINDOW as usize * ENTRY];
        for guesses in 0.. {
            if low >= high {
                return None;
            }
            let is_guess = guesses < GUESSES && low_key < high_key;
            let share = wanted.saturating_sub(low_key).min(high_key.saturating_sub(low_key));
            let (part, whole) = if is_guess { (share, high_key - low_key) } else { (1, 2) };
            let guess = low + (u128::from(high - low) * u128::from(part) / u128::from(whole)) as u64;
            let start = guess.saturating_sub(WINDOW / 2).min(high.saturating_sub(WINDOW)).max(low);
            let length = WINDOW.min(high - start);
            let bytes = &mut window[..length as usize * ENTRY];
            file.read_exact_at(bytes, self.offset + start * ENTRY as u64).ok()?;
            let read = entries(bytes);
            let (first, last) = (&read[0], &read[read.len() - 1]);
            if id.0[..] < first[..32] {
                (high, high_key) = (start, key(first));
            } else if id.0[..] > last[..32] {
                (low, low_key) = (start + length, key(last));
            } else {
                let at = read.binary_search_by(|entry| entry[..32].cmp(&id.0[..])).ok()?;
                return Some((start + at as u64, decode(&read[at]).1));
            }
        }
        None
    }

    /// Calls `each` for all entries, in their order.
    pub(crate) fn for_each(
        &self,
        file: &File,
        mut each: impl FnMut(BlobId, Place) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut run = Run { next: self.offset, left: self.count, read: Vec::new() };
        while let Some((id, place)) = run.pop(file)? {
            each(id, place)?;
        }
        Ok(())
    }
}

/// Entries in order, read in pieces.
struct Run {
    next: u64,
    left: u64,
    /// The entries read, the next one last.
    read: Vec<[u8; ENTRY]>,
}

impl Run {
    fn pop(&mut self, file: &File) -> io::Result<Option<(BlobId, Place)>> {
        if self.read.is_empty() && self.left > 0 {
            let count = self.left.min(512);
            let mut bytes = vec![0; count as usize * ENTRY];
            file.read_exact_at(&mut bytes, self.next)?;
            self.read.extend(entries(&bytes).iter().rev());
            self.next += bytes.len() as u64;
            self.left -= count;
        }
        Ok(self.read.pop().map(|entry| decode(&entry)))
    }
}

/// Sorts the places of any number of trees in bounded memory.
pub(crate) struct Places {
    recent: HashMap<BlobId, Place>,
    in_memory: usize,
    /// Sorted runs, one after the other in a file without a name, and the entries of each.
    spilled: Option<File>,
    runs: Vec<u64>,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self::with_room(IN_MEMORY)
    }

    fn with_room(in_memory: usize) -> Self {
        Self { recent: HashMap::new(), in_memory, spilled: None, runs: Vec::new() }
    }

    /// Whether a tree was noted lately.
    pub(crate) fn has_lately(&self, id: &BlobId) -> bool {
        self.recent.contains_key(id)
    }

    /// Notes a tree. Of several places of one tree the one noted last counts. `dir` is where too many are put.
    pub(crate) fn note(&mut self, id: BlobId, place: Place, dir: &Path) -> io::Result<()> {
        if self.recent.len() >= self.in_memory && !self.recent.contains_key(&id) {
            self.spill(dir)?;
        }
        self.note_here(id, place);
        Ok(())
    }

    /// Notes a tree without regard to how many there are.
    pub(crate) fn note_here(&mut self, id: BlobId, place: Place) {
        self.recent.insert(id, place);
    }

    fn take_sorted(&mut self) -> Vec<(BlobId, Place)> {
        let mut sorted: Vec<_> = self.recent.drain().collect();
        sorted.sort_unstable();
        sorted
    }

    fn spill(&mut self, dir: &Path) -> io::Result<()> {
        let sorted = self.take_sorted();
        let file = match &mut self.spilled {
            Some(file) => file,
            none => none.insert(super::file::create_nameless(dir)?),
        };
        let mut out = io::BufWriter::new(file);
        sorted.iter().try_for_each(|(id, place)| out.write_all(&encode(id, *place)))?;
        out.flush()?;
        self.runs.push(sorted.len() as u64);
        Ok(())
    }

    /// Writes the table; returns its entries.
    pub(crate) fn write(mut self, out: &mut impl Write) -> io::Result<u64> {
        let mut last = self.take_sorted().into_iter();
        let Some(file) = self.spilled.take() else {
            let count = last.len() as u64;
            last.try_for_each(|(id, place)| out.write_all(&encode(&id, place)))?;
            return Ok(count);
        };
        let mut at = 0;
        let mut runs: Vec<Run> = Vec::new();
        for left in &self.runs {
            runs.push(Run { next: at, left: *left, read: Vec::new() });
            at += left * ENTRY as u64;
        }
        let mut pop = |run: usize| match runs.get_mut(run) {
            Some(run) => run.pop(&file),
            None => Ok(last.next()),
        };
        // The later run first among equal ids.
        let mut heads = BinaryHeap::new();
        for run in 0..=self.runs.len() {
            heads.extend(pop(run)?.map(|(id, place)| Reverse((id, Reverse(run), place))));
        }
        let (mut count, mut before) = (0, None);
        while let Some(Reverse((id, Reverse(run), place))) = heads.pop() {
            if before != Some(id) {
                out.write_all(&encode(&id, place))?;
                count += 1;
                before = Some(id);
            }
            heads.extend(pop(run)?.map(|(id, place)| Reverse((id, Reverse(run), place))));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(bytes: &[u8]) -> BlobId {
        BlobId(snap_crypto::hash(bytes))
    }

    fn table_of(noted: &[(BlobId, Place)], room: usize) -> (File, Table) {
        let dir = tempfile::tempdir().unwrap();
        let mut places = Places::with_room(room);
        for (id, place) in noted {
            places.note(*id, *place, dir.path()).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        let count = places.write(&mut file).unwrap();
        (file, Table { offset: 6, count })
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(
            noted in proptest::collection::vec((0_u16..400, 0_u64..1000, 0_u32..1000), 0..800),
            room in 1_usize..300,
            // Ids that share their first bytes, as no hash would.
            alike in 0_usize..33,
        ) {
            let id_of = |number: u16| {
                let mut id = id(&number.to_le_bytes());
                id.0[..alike].fill(7);
                if alike > 30 {
                    id.0[30..].copy_from_slice(&number.to_le_bytes());
                }
                id
            };
            let noted: Vec<_> = noted
                .into_iter()
                .map(|(number, offset, length)| (id_of(number), Place { offset, length }))
                .collect();
            let model: BTreeMap<BlobId, Place> = noted.iter().copied().collect();
            let (file, table) = table_of(&noted, room);
            prop_assert_eq!(table.count, model.len() as u64);
            let mut all = Vec::new();
            table.for_each(&file, |id, place| { all.push((id, place)); Ok(()) }).unwrap();
            prop_assert_eq!(&all, &model.iter().map(|(id, place)| (*id, *place)).collect::<Vec<_>>());
            for number in 0..500 {
                let id = id_of(number);
                let expected = model.get(&id).map(|place| {
                    (model.range(..id).count() as u64, *place)
                });
                prop_assert_eq!(table.find(&file, &id), expected);
            }
        }

        #[test]
        fn a_damaged_table_ends(bytes in proptest::collection::vec(any::<u8>(), 0..40_000), number in any::<u16>()) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            // One entry more than is there: reading fails, and that is all.
            let table = Table { offset: 0, count: (bytes.len() / ENTRY) as u64 + 1 };
            let _ = table.find(&file, &id(&number.to_le_bytes()));
        }
    }
}
