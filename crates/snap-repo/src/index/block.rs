//! Blocks of a table file: 4 KiB each, read by position, every one with a keyed checksum over its bytes and its number.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use snap_crypto::IdKey;

/// Size of a block, bytes.
pub(super) const BLOCK: usize = 4096;
/// What a block carries: the rest is its checksum, bytes.
pub(super) const PAYLOAD: usize = BLOCK - CHECKSUM;
const CHECKSUM: usize = 32;
/// Blocks that are read at once where many are read.
const READ_AHEAD: usize = 64;

/// A table of at most so many blocks keeps those in memory that were read and checked: a backup of a tree that has not changed
/// asks for each chunk, and hashing a block for each took a fifth of its time.
const MOST_KEPT: u64 = 4096;

/// What was read is not what was written: the cache is rebuilt from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// One word for what comes of reading the cache.
pub(super) type Read<T> = Result<T, Damaged>;

/// Name of a table: random, so that a page and a checksum know whose block it is.
pub(super) type TableId = [u8; 16];

/// A block that was read last, and its number.
pub(super) struct Page {
    loaded: Option<(TableId, u64)>,
    bytes: [u8; BLOCK],
}

impl Default for Page {
    fn default() -> Self {
        Self { loaded: None, bytes: [0; BLOCK] }
    }
}

/// The checksum of a block. Its number stands in the checksum's place meanwhile: four whole kibibytes are hashed side by side,
/// which takes a third of the time.
fn checksum(key: &IdKey, number: u64, block: &mut [u8]) -> [u8; CHECKSUM] {
    let (number_at, zeros) = block[PAYLOAD..].split_at_mut(8);
    number_at.copy_from_slice(&number.to_le_bytes());
    zeros.fill(0);
    key.id(block)
}

/// The bytes of a table, to be read.
pub(super) enum Medium {
    File(File),
    /// Where the cache cannot be written.
    Memory(Vec<u8>),
}

/// The blocks of a table.
pub(super) struct Blocks {
    medium: Medium,
    key: IdKey,
    count: u64,
    table: TableId,
    /// By number, in a small file: blocks that were read and checked.
    kept: Vec<OnceLock<Box<[u8; BLOCK]>>>,
}

impl Blocks {
    pub(super) fn open(medium: Medium, table: TableId, key: IdKey) -> Read<Self> {
        let length = match &medium {
            Medium::File(file) => file.metadata().map_err(|_| Damaged)?.len(),
            Medium::Memory(bytes) => bytes.len() as u64,
        };
        if length % BLOCK as u64 != 0 {
            return Err(Damaged);
        }
        Ok(Self::new(medium, table, key, length / BLOCK as u64))
    }

    fn new(medium: Medium, table: TableId, key: IdKey, count: u64) -> Self {
        let keeps = matches!(medium, Medium::File(_)) && count <= MOST_KEPT;
        let kept = (0..if keeps { count } else { 0 }).map(|_| OnceLock::new()).collect();
        Self { medium, key, count, table, kept }
    }

    /// Number of blocks.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of it that are in memory.
    pub(super) const fn held_bytes(&self) -> u64 {
        match &self.medium {
            Medium::File(_) => 0,
            Medium::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn fill(&self, number: u64, buffer: &mut [u8]) -> Read<()> {
        let at = number.checked_mul(BLOCK as u64).ok_or(Damaged)?;
        match &self.medium {
            Medium::File(file) => file.read_exact_at(buffer, at).map_err(|_| Damaged),
            Medium::Memory(bytes) => {
                let at = usize::try_from(at).map_err(|_| Damaged)?;
                let end = at.checked_add(buffer.len()).ok_or(Damaged)?;
                buffer.copy_from_slice(bytes.get(at..end).ok_or(Damaged)?);
                Ok(())
            }
        }
    }

    fn check<'a>(&self, number: u64, block: &'a mut [u8]) -> Read<&'a [u8]> {
        let found: [u8; CHECKSUM] = block[PAYLOAD..].try_into().map_err(|_| Damaged)?;
        if checksum(&self.key, number, block) == found { Ok(&block[..PAYLOAD]) } else { Err(Damaged) }
    }

    /// The payload of a block, through `page` unless it is kept.
    pub(super) fn payload<'a>(&'a self, number: u64, page: &'a mut Page) -> Read<&'a [u8]> {
        if let Some(kept) = usize::try_from(number).ok().and_then(|number| self.kept.get(number)) {
            if let Some(block) = kept.get() {
                return Ok(&block[..PAYLOAD]);
            }
            let mut block = Box::new([0; BLOCK]);
            self.fill(number, &mut *block)?;
            self.check(number, &mut *block)?;
            return Ok(&kept.get_or_init(|| block)[..PAYLOAD]);
        }
        if page.loaded != Some((self.table, number)) {
            page.loaded = None;
            self.fill(number, &mut page.bytes)?;
            self.check(number, &mut page.bytes)?;
            page.loaded = Some((self.table, number));
        }
        Ok(&page.bytes[..PAYLOAD])
    }

    /// The payloads of `count` blocks from `first` on.
    pub(super) fn each_payload(&self, first: u64, count: u64, mut each: impl FnMut(&[u8])) -> Read<()> {
        let end = first.checked_add(count).filter(|end| *end <= self.count).ok_or(Damaged)?;
        let mut buffer = vec![0; BLOCK * READ_AHEAD];
        let mut number = first;
        while number < end {
            let some = (end - number).min(READ_AHEAD as u64) as usize;
            self.fill(number, &mut buffer[..some * BLOCK])?;
            for block in buffer[..some * BLOCK].chunks_exact_mut(BLOCK) {
                each(self.check(number, block)?);
                number += 1;
            }
        }
        Ok(())
    }
}

/// Items of one size, as many to a block as fit, from block `first` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Items {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) item_len: usize,
}

impl Items {
    pub(super) const fn per_block(&self) -> u64 {
        (PAYLOAD / self.item_len) as u64
    }

    /// Number of blocks.
    pub(super) const fn blocks(&self) -> u64 {
        self.count.div_ceil(self.per_block())
    }

    /// One of the items, through `page`.
    pub(super) fn get<'a>(&self, blocks: &'a Blocks, number: u64, page: &'a mut Page) -> Read<&'a [u8]> {
        if number >= self.count {
            return Err(Damaged);
        }
        let at = (number % self.per_block()) as usize * self.item_len;
        let payload = blocks.payload(self.first + number / self.per_block(), page)?;
        Ok(&payload[at..at + self.item_len])
    }

    /// The first item that is not below `key`, where items are sorted and begin with 32-byte keys. `fences` holds the
    /// prefix of the first key of each block.
    pub(super) fn lower_bound(
        &self,
        blocks: &Blocks,
        fences: &[u64],
        key: &[u8; 32],
        page: &mut Page,
    ) -> Read<u64> {
        let wanted = prefix(key);
        let mut block = fences.partition_point(|fence| *fence < wanted).saturating_sub(1) as u64;
        while block < self.blocks() {
            let first = block * self.per_block();
            let here = (self.count - first).min(self.per_block());
            if fences.get(block as usize).is_none_or(|fence| *fence > wanted) {
                return Ok(first);
            }
            let payload = blocks.payload(self.first + block, page)?;
            let key_at = |at: u64| &payload[at as usize * self.item_len..][..32];
            let (mut low, mut high) = (0, here);
            while low < high {
                let middle = low.midpoint(high);
                if key_at(middle) < key.as_slice() { low = middle + 1 } else { high = middle }
            }
            if low < here {
                return Ok(first + low);
            }
            block += 1;
        }
        Ok(self.count)
    }
}

/// The first eight bytes of a key; they sort as the keys do.
pub(super) fn prefix(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Where the blocks of a new table go.
pub(super) enum Sink {
    File(File),
    Memory(Vec<u8>),
}

/// Writes blocks one after the other.
pub(super) struct BlockWriter {
    sink: Sink,
    key: IdKey,
    /// Blocks that are not in the sink yet, and the payload that is being filled.
    buffer: Vec<u8>,
    payload: Vec<u8>,
    blocks: u64,
}

impl BlockWriter {
    pub(super) fn new(sink: Sink, key: IdKey) -> Self {
        let buffer = Vec::with_capacity(BLOCK * READ_AHEAD);
        Self { sink, key, buffer, payload: Vec::with_capacity(BLOCK), blocks: 0 }
    }

    /// Number of the next block.
    pub(super) const fn position(&self) -> u64 {
        self.blocks
    }

    /// Adds an item to the block; true if it is the first in it.
    pub(super) fn item(&mut self, item: &[u8]) -> std::io::Result<bool> {
        if self.payload.len() + item.len() > PAYLOAD {
            self.end_block()?;
        }
        let is_first = self.payload.is_empty();
        self.payload.extend_from_slice(item);
        Ok(is_first)
    }

    /// Adds bytes without regard to the borders of blocks.
    pub(super) fn bytes(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            if self.payload.len() == PAYLOAD {
                self.end_block()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PAYLOAD - self.payload.len()));
            self.payload.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Ends the block, if anything is in it: what follows begins a new one.
    pub(super) fn end_block(&mut self) -> std::io::Result<()> {
        if self.payload.is_empty() {
            return Ok(());
        }
        self.payload.resize(BLOCK, 0);
        let checksum = checksum(&self.key, self.blocks, &mut self.payload);
        self.buffer.extend_from_slice(&self.payload[..PAYLOAD]);
        self.buffer.extend_from_slice(&checksum);
        self.payload.clear();
        self.blocks += 1;
        if self.buffer.len() >= BLOCK * READ_AHEAD {
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> std::io::Result<()> {
        match &mut self.sink {
            Sink::File(file) => file.write_all(&self.buffer)?,
            Sink::Memory(bytes) => bytes.extend_from_slice(&self.buffer),
        }
        self.buffer.clear();
        Ok(())
    }

    /// Ends the file, which can be read from now on.
    pub(super) fn finish(mut self, table: TableId) -> std::io::Result<Blocks> {
        self.end_block()?;
        self.drain()?;
        let medium = match self.sink {
            Sink::File(file) => Medium::File(file),
            Sink::Memory(bytes) => Medium::Memory(bytes),
        };
        Ok(Blocks::new(medium, table, self.key, self.blocks))
    }

    /// Makes what was written outlive the machine.
    pub(super) fn sync(&mut self) -> std::io::Result<()> {
        self.drain()?;
        match &self.sink {
            Sink::File(file) => file.sync_data(),
            Sink::Memory(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> IdKey {
        IdKey::new([byte; 32])
    }

    fn written(items: u64) -> Vec<u8> {
        let mut writer = BlockWriter::new(Sink::Memory(Vec::new()), key(1));
        for number in 0..items {
            let mut item = [0; 50];
            item[..8].copy_from_slice(&(number / 3).to_be_bytes());
            writer.item(&item).unwrap();
        }
        match writer.finish([0; 16]).unwrap().medium {
            Medium::Memory(bytes) => bytes,
            Medium::File(_) => unreachable!(),
        }
    }

    #[test]
    fn what_was_changed_or_moved_is_noticed() {
        let bytes = written(200);
        assert_eq!(bytes.len(), 3 * BLOCK);
        let read = |bytes: &[u8], key| {
            let blocks = Blocks::open(Medium::Memory(bytes.to_vec()), [0; 16], key)?;
            (0..3).try_for_each(|number| blocks.payload(number, &mut Page::default()).map(drop))
        };
        assert_eq!(read(&bytes, key(1)), Ok(()));
        assert_eq!(read(&bytes, key(2)), Err(Damaged));
        assert_eq!(read(&bytes[..2 * BLOCK], key(1)), Err(Damaged));
        assert_eq!(read(&bytes[..bytes.len() - 1], key(1)), Err(Damaged));
        for at in [0, 4049, 4063, 4064, 4095, BLOCK + 7, 3 * BLOCK - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(read(&flipped, key(1)), Err(Damaged), "{at}");
        }
        let mut swapped = bytes.clone();
        swapped[..2 * BLOCK].rotate_left(BLOCK);
        assert_eq!(read(&swapped, key(1)), Err(Damaged));
    }

    #[test]
    fn a_small_file_is_read_once_and_a_large_one_each_time() {
        for (items, is_small) in [(200, true), (MOST_KEPT * 81 + 1, false)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&written(items)).unwrap();
            let blocks = Blocks::open(Medium::File(file.try_clone().unwrap()), [0; 16], key(1)).unwrap();
            let first = blocks.payload(0, &mut Page::default()).unwrap().to_vec();
            file.set_len(0).unwrap();
            let again = blocks.payload(0, &mut Page::default()).map(<[u8]>::to_vec);
            assert_eq!(again, if is_small { Ok(first) } else { Err(Damaged) });
            assert_eq!(blocks.payload(1, &mut Page::default()), Err(Damaged));
        }
    }

    #[test]
    fn the_first_of_equal_keys_is_found_across_blocks() {
        let blocks = Blocks::open(Medium::Memory(written(200)), [0; 16], key(1)).unwrap();
        let items = Items { first: 0, count: 200, item_len: 50 };
        let fences = [0, 81 / 3, 162 / 3];
        for number in 0..70_u64 {
            let mut wanted = [0; 32];
            wanted[..8].copy_from_slice(&number.to_be_bytes());
            let found = items.lower_bound(&blocks, &fences, &wanted, &mut Page::default()).unwrap();
            assert_eq!(found, (number * 3).min(200), "{number}");
            wanted[31] = 1;
            let found = items.lower_bound(&blocks, &fences, &wanted, &mut Page::default()).unwrap();
            assert_eq!(found, (number * 3 + 3).min(200), "after {number}");
        }
    }
}
