//! Merging: several sources become one table, in one pass over their blobs and with little memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use snap_format::{ObjectId, RUN_KEY_ENTRY_LEN};

use super::block::{BlockWriter, Damaged, Items, Page, Sink, TableId, prefix};
use super::entry::{PLACE_LEN, Place, RECORD_LEN, Record};
use super::filter::{FILTER_BLOCK, Filter};
use super::table::{Absorbed, Layout, MAGIC, Section, Source, Table, encode_lists};

/// Lists of run keys that are remembered, so that each is written once: runs write many packs.
const KEY_LISTS: usize = 1 << 14;
/// Tables from this size on are made durable before they are relied on: to make them again costs more, bytes.
const SYNC_BYTES: u64 = 64 << 20;
/// Stands for a pack that nobody names any more.
const DEAD: u32 = u32::MAX;

/// Why there is no table.
#[derive(Debug)]
pub(super) enum MergeError {
    /// This source is damaged.
    Source(usize),
    /// The table cannot be written.
    Write(std::io::Error),
}

impl From<std::io::Error> for MergeError {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

type Merged<T> = Result<T, MergeError>;

/// Names and keys of a table that is about to be written.
pub(super) struct NewTable {
    pub(super) id: TableId,
    pub(super) key: snap_crypto::IdKey,
    pub(super) sink: Sink,
}

/// A pack line and where it comes from.
#[derive(Clone, Copy)]
struct Line {
    source: usize,
    number: u32,
    record: Record,
}

/// Reads the pack lines of all sources in their common order, those that say the same together.
struct Groups<'a> {
    sources: &'a [&'a dyn Source],
    /// By source: the place of its index objects in the common list; none for those that are gone.
    objects: &'a [Vec<Option<u32>>],
    heads: BTreeMap<(ObjectId, [u8; 32], u32, usize), Line>,
    pages: Vec<Page>,
}

impl<'a> Groups<'a> {
    fn new(sources: &'a [&'a dyn Source], objects: &'a [Vec<Option<u32>>]) -> Merged<Self> {
        let pages = sources.iter().map(|_| Page::default()).collect();
        let mut groups = Self { sources, objects, heads: BTreeMap::new(), pages };
        (0..sources.len()).try_for_each(|source| groups.advance(source, 0))?;
        Ok(groups)
    }

    fn advance(&mut self, source: usize, number: u32) -> Merged<()> {
        if number < self.sources[source].records() {
            let record = self.sources[source]
                .record(number, &mut self.pages[source])
                .map_err(|Damaged| MergeError::Source(source))?;
            self.heads.insert((record.id, record.digest, number, source), Line { source, number, record });
        }
        Ok(())
    }

    /// The lines that say one thing of one pack.
    fn next(&mut self) -> Merged<Option<Vec<Line>>> {
        let mut group: Vec<Line> = Vec::new();
        while let Some(entry) = self.heads.first_entry() {
            let from = *entry.get();
            let same =
                |first: &Line| (first.record.id, first.record.digest) == (from.record.id, from.record.digest);
            if !group.first().is_none_or(same) {
                break;
            }
            entry.remove();
            group.push(from);
            self.advance(from.source, from.number + 1)?;
        }
        Ok((!group.is_empty()).then_some(group))
    }

    /// The place in the common list of the object that a line is from.
    fn object(&self, from: &Line) -> Option<u32> {
        self.objects[from.source].get(from.record.object as usize).copied().flatten()
    }

    /// Of a group, the objects that are alive, each once.
    fn living(&self, group: &[Line]) -> Vec<u32> {
        let mut objects: Vec<u32> = group.iter().filter_map(|from| self.object(from)).collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }
}

struct Merge<'a> {
    sources: &'a [&'a dyn Source],
    out: BlockWriter,
    objects: Vec<Absorbed>,
    places: Vec<Vec<Option<u32>>>,
    domains: Vec<Arc<str>>,
    record_fences: Vec<u64>,
    fences: Vec<u64>,
}

/// Writes the table that holds what `sources` hold, but not what only objects say that are not `alive`.
pub(super) fn merge(
    sources: &[&dyn Source],
    is_alive: &dyn Fn(&ObjectId) -> bool,
    new: NewTable,
) -> Merged<Table> {
    let mut objects: Vec<Absorbed> = sources
        .iter()
        .flat_map(|source| source.objects())
        .filter(|object| is_alive(&object.id))
        .copied()
        .collect();
    objects.sort_unstable();
    objects.dedup_by_key(|object| object.id);
    let place_of = |object: &Absorbed| {
        objects.binary_search_by_key(&object.id, |other| other.id).ok().map(|place| place as u32)
    };
    let places = sources.iter().map(|source| source.objects().iter().map(place_of).collect()).collect();
    let out = BlockWriter::new(new.sink, new.key);
    let (record_fences, fences) = (Vec::new(), Vec::new());
    let mut merge = Merge { sources, out, objects, places, domains: Vec::new(), record_fences, fences };
    let keys = merge.write_keys()?;
    let (records, remap) = merge.write_records(&keys.1)?;
    merge.write_rest(new.id, keys.0, records, &remap)
}

impl Merge<'_> {
    fn begin(&mut self, item_len: usize) -> std::io::Result<Items> {
        self.out.end_block()?;
        Ok(Items { first: self.out.position(), count: 0, item_len })
    }

    /// Writes the run keys and finds out which domains live. Returns where each group's keys begin.
    fn write_keys(&mut self) -> Merged<(Items, Vec<u32>)> {
        let mut items = self.begin(RUN_KEY_ENTRY_LEN)?;
        let (mut at, mut domains) = (Vec::new(), std::collections::BTreeSet::new());
        let mut known: HashMap<[u8; 32], u32> = HashMap::new();
        let all_domains: Vec<_> = self.sources.iter().map(|source| source.domains()).collect();
        let mut groups = Groups::new(self.sources, &self.places)?;
        let mut page = Page::default();
        while let Some(group) = groups.next()? {
            if groups.living(&group).is_empty() {
                continue;
            }
            let Line { source, record, .. } = group[0];
            let damaged = || MergeError::Source(source);
            let (domain, _) = all_domains[source].get(record.domain as usize).ok_or_else(damaged)?;
            if !domains.contains(domain) {
                domains.insert(Arc::clone(domain));
            }
            let keys = self.sources[source].keys(&record, &mut page).map_err(|Damaged| damaged())?;
            let bytes: Vec<u8> = keys.iter().flat_map(snap_format::RunKeyEntry::encode).collect();
            if known.len() >= KEY_LISTS {
                known.clear();
            }
            let next = u32::try_from(items.count).map_err(std::io::Error::other)?;
            let first = *known.entry(snap_crypto::hash(&bytes)).or_insert(next);
            if first == next {
                for entry in bytes.chunks_exact(RUN_KEY_ENTRY_LEN) {
                    self.out.item(entry)?;
                    items.count += 1;
                }
            }
            at.push(first);
        }
        self.domains = domains.into_iter().collect();
        Ok((items, at))
    }

    /// Writes the packs. Returns, by source, the new number of each pack.
    fn write_records(&mut self, keys_at: &[u32]) -> Merged<(Items, Vec<Vec<u32>>)> {
        let mut items = self.begin(RECORD_LEN)?;
        let mut remap: Vec<Vec<u32>> =
            self.sources.iter().map(|source| vec![DEAD; source.records() as usize]).collect();
        let all_domains: Vec<_> = self.sources.iter().map(|source| source.domains()).collect();
        let mut groups = Groups::new(self.sources, &self.places)?;
        let mut keys_at = keys_at.iter();
        while let Some(group) = groups.next()? {
            let living = groups.living(&group);
            if living.is_empty() {
                continue;
            }
            let Line { source, record, .. } = group[0];
            let first = u32::try_from(items.count).map_err(std::io::Error::other)?;
            group.iter().for_each(|from| remap[from.source][from.number as usize] = first);
            let name = &all_domains[source][record.domain as usize].0;
            let domain = self.domains.binary_search(name).map_err(|_| MergeError::Source(source))? as u32;
            let keys_at = *keys_at.next().ok_or(MergeError::Source(source))?;
            for (position, object) in living.into_iter().enumerate() {
                let record = Record { keys_at, domain, object, is_first: position == 0, ..record };
                if self.out.item(&record.encode())? {
                    self.record_fences.push(prefix(&record.id.0));
                }
                items.count += 1;
            }
        }
        Ok((items, remap))
    }

    fn write_rest(mut self, id: TableId, keys: Items, records: Items, remap: &[Vec<u32>]) -> Merged<Table> {
        let places_first = self.begin(PLACE_LEN)?.first;
        let all = self.sources.iter().flat_map(|source| source.domains()).map(|(_, count)| count).sum();
        let mut filter = Filter::new(all);
        let mut sections = Vec::with_capacity(self.domains.len());
        for domain in std::mem::take(&mut self.domains) {
            let mut places = self.begin(PLACE_LEN)?;
            let mut lines = Lines::new(self.sources, remap, &domain)?;
            let mut last = None;
            while let Some(place) = lines.next()? {
                if last == Some(place.sort_key()) {
                    continue;
                }
                last = Some(place.sort_key());
                if self.out.item(&place.encode())? {
                    self.fences.push(prefix(&place.id.0));
                }
                places.count += 1;
                filter.insert(&place.id);
            }
            sections.push(Section { domain, places });
        }
        let mut filter_items = self.begin(FILTER_BLOCK)?;
        for block in filter.encode() {
            self.out.item(&block)?;
            filter_items.count += 1;
        }
        let mut fence_items = self.begin(8)?;
        for fence in self.record_fences.iter().chain(&self.fences) {
            self.out.item(&fence.to_be_bytes())?;
            fence_items.count += 1;
        }
        let layout = Layout { keys, records, filter: filter_items, fences: fence_items, places_first };
        let lists = encode_lists(&layout, &self.objects, &sections);
        let first = self.begin(1)?.first;
        self.out.bytes(&lists)?;
        self.out.end_block()?;
        self.out.bytes(&[MAGIC, first.to_le_bytes(), (lists.len() as u64).to_le_bytes()].concat())?;
        self.out.end_block()?;
        if self.out.position() * super::block::BLOCK as u64 >= SYNC_BYTES {
            self.out.sync()?;
        }
        let blocks = self.out.finish(id)?;
        let (record_fences, fences, objects) = (self.record_fences, self.fences, self.objects);
        Ok(Table { id, blocks, layout, filter, record_fences, fences, objects, sections })
    }
}

/// Reads the blobs of a domain from all sources in their common order, with the new numbers of their packs.
struct Lines<'a> {
    /// Source, number of the domain there, next line, how many there are.
    cursors: Vec<Cursor<'a>>,
    heads: std::collections::BinaryHeap<std::cmp::Reverse<Head>>,
}

struct Cursor<'a> {
    source: usize,
    reader: &'a dyn Source,
    domain: usize,
    next: u64,
    count: u64,
    remap: &'a [u32],
    page: Page,
}

#[derive(PartialEq, Eq)]
struct Head {
    place: Place,
    cursor: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |head: &Self| (head.place.sort_key(), head.cursor);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Lines<'a> {
    fn new(sources: &'a [&'a dyn Source], remap: &'a [Vec<u32>], domain: &str) -> Merged<Self> {
        let mut cursors = Vec::new();
        for (source, reader) in sources.iter().enumerate() {
            let domains = reader.domains();
            if let Some(number) = domains.iter().position(|(name, _)| **name == *domain) {
                cursors.push(Cursor {
                    source,
                    reader: *reader,
                    domain: number,
                    next: 0,
                    count: domains[number].1,
                    remap: &remap[source],
                    page: Page::default(),
                });
            }
        }
        let mut lines = Self { heads: std::collections::BinaryHeap::with_capacity(cursors.len()), cursors };
        (0..lines.cursors.len()).try_for_each(|cursor| {
            let head = lines.read(cursor)?;
            lines.heads.extend(head.map(std::cmp::Reverse));
            Ok::<_, MergeError>(())
        })?;
        Ok(lines)
    }

    /// The next line of a source whose pack lives.
    fn read(&mut self, number: usize) -> Merged<Option<Head>> {
        let cursor = &mut self.cursors[number];
        while cursor.next < cursor.count {
            let damaged = |Damaged| MergeError::Source(cursor.source);
            let mut place =
                cursor.reader.place(cursor.domain, cursor.next, &mut cursor.page).map_err(damaged)?;
            cursor.next += 1;
            place.pack = *cursor.remap.get(place.pack as usize).ok_or(MergeError::Source(cursor.source))?;
            if place.pack != DEAD {
                return Ok(Some(Head { place, cursor: number }));
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Merged<Option<Place>> {
        let Some(std::cmp::Reverse(head)) = self.heads.peek() else { return Ok(None) };
        let (place, cursor) = (head.place, head.cursor);
        match self.read(cursor)? {
            // In place of the one that was first: the heap is put in order once.
            Some(next) => *self.heads.peek_mut().expect("it was just looked at") = std::cmp::Reverse(next),
            None => drop(self.heads.pop()),
        }
        Ok(Some(place))
    }
}
