//! A table: an immutable file of sorted lines. In memory are its filter, the first key of each block, and its lists of index
//! objects and domains; everything else is read when it is asked for.
//!
//! ```text
//! run key entries | packs | blobs of the first domain | … | filter | fences | lists | trailer
//! ```
//!
//! Each part begins with a block of its own. What a table holds follows from the index objects that it was made of alone, so
//! that one made of them again has every line at the same place.

use std::sync::Arc;

use snap_format::{BlobId, ObjectId, RUN_KEY_ENTRY_LEN, RunKeyEntry};

use super::block::{Blocks, Damaged, Items, PAYLOAD, Page, Read, TableId};
use super::entry::{Fields, PLACE_LEN, Place, RECORD_LEN, Record};
use super::filter::{FILTER_BLOCK, Filter};

pub(super) const MAGIC: [u8; 8] = *b"snapidx1";

/// An index object that a table was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Absorbed {
    pub(super) id: ObjectId,
    /// Whether something in it is not to be believed: it is read each time, to say so again.
    pub(super) has_findings: bool,
}

/// A domain of a table, and its lines.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) domain: Arc<str>,
    pub(super) places: Items,
}

/// What a merge reads: tables, and index objects that were just parsed.
pub(super) trait Source {
    /// Sorted by name.
    fn objects(&self) -> &[Absorbed];
    /// Sorted; with how many blobs each has.
    fn domains(&self) -> Vec<(Arc<str>, u64)>;
    /// Number of pack lines.
    fn records(&self) -> u32;
    /// One of them.
    fn record(&self, number: u32, page: &mut Page) -> Read<Record>;
    /// Run key entries of a pack.
    fn keys(&self, record: &Record, page: &mut Page) -> Read<Vec<RunKeyEntry>>;
    /// One of the blobs of a domain.
    fn place(&self, domain: usize, number: u64, page: &mut Page) -> Read<Place>;
}

/// Where the parts lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) keys: Items,
    pub(super) records: Items,
    pub(super) filter: Items,
    pub(super) fences: Items,
    /// First block of the blobs.
    pub(super) places_first: u64,
}

impl Layout {
    const fn parts(&self) -> [Items; 4] {
        [self.keys, self.records, self.filter, self.fences]
    }
}

pub(super) struct Table {
    pub(super) id: TableId,
    pub(super) blocks: Blocks,
    pub(super) layout: Layout,
    pub(super) filter: Filter,
    pub(super) record_fences: Vec<u64>,
    /// Of all domains, one after the other.
    pub(super) fences: Vec<u64>,
    pub(super) objects: Vec<Absorbed>,
    pub(super) sections: Vec<Section>,
}

/// The lists of a table as bytes.
pub(super) fn encode_lists(layout: &Layout, objects: &[Absorbed], sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in layout.parts() {
        out.extend_from_slice(&part.first.to_le_bytes());
        out.extend_from_slice(&part.count.to_le_bytes());
    }
    out.extend_from_slice(&layout.places_first.to_le_bytes());
    out.extend_from_slice(&(objects.len() as u32).to_le_bytes());
    for object in objects {
        out.extend_from_slice(&object.id.0);
        out.push(u8::from(object.has_findings));
    }
    out.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    for section in sections {
        out.extend_from_slice(&(section.domain.len() as u32).to_le_bytes());
        out.extend_from_slice(section.domain.as_bytes());
        out.extend_from_slice(&section.places.first.to_le_bytes());
        out.extend_from_slice(&section.places.count.to_le_bytes());
    }
    out
}

fn decode_lists(bytes: &[u8]) -> Read<(Layout, Vec<Absorbed>, Vec<Section>)> {
    let mut fields = Fields(bytes);
    let number = |fields: &mut Fields<'_>| fields.take().map(u64::from_le_bytes);
    let mut part =
        |item_len| Ok(Items { first: number(&mut fields)?, count: number(&mut fields)?, item_len });
    let (keys, records) = (part(RUN_KEY_ENTRY_LEN)?, part(RECORD_LEN)?);
    let (filter, fences) = (part(FILTER_BLOCK)?, part(8)?);
    let places_first = number(&mut fields)?;
    let objects = (0..fields.count(33)?)
        .map(|_| Ok(Absorbed { id: ObjectId(fields.take()?), has_findings: fields.take::<1>()?[0] == 1 }))
        .collect::<Read<Vec<_>>>()?;
    let sections = (0..fields.count(20)?)
        .map(|_| {
            let length = fields.count(1)?;
            let domain = std::str::from_utf8(fields.bytes(length)?).map_err(|_| Damaged)?.into();
            let (first, count) = (number(&mut fields)?, number(&mut fields)?);
            Ok(Section { domain, places: Items { first, count, item_len: PLACE_LEN } })
        })
        .collect::<Read<Vec<_>>>()?;
    Ok((Layout { keys, records, filter, fences, places_first }, objects, sections))
}

/// Reads items that lie one after the other.
fn each_item(blocks: &Blocks, items: &Items, mut each: impl FnMut(&[u8])) -> Read<()> {
    let mut left = items.count as usize;
    blocks.each_payload(items.first, items.blocks(), |payload| {
        let here = left.min(items.per_block() as usize);
        payload.chunks_exact(items.item_len).take(here).for_each(&mut each);
        left -= here;
    })
}

impl Table {
    /// Reads what stays in memory.
    pub(super) fn open(id: TableId, blocks: Blocks) -> Read<Self> {
        let last = blocks.count().checked_sub(1).ok_or(Damaged)?;
        let mut page = Page::default();
        let mut trailer = Fields(blocks.payload(last, &mut page)?);
        if trailer.take()? != MAGIC {
            return Err(Damaged);
        }
        let (first, length) = (u64::from_le_bytes(trailer.take()?), u64::from_le_bytes(trailer.take()?));
        let mut lists = Vec::new();
        blocks.each_payload(first, length.div_ceil(PAYLOAD as u64), |payload| {
            lists.extend_from_slice(payload);
        })?;
        lists.truncate(length as usize);
        let (layout, objects, sections) = decode_lists(&lists)?;
        // Whoever can make the checksums need not be fought; what follows keeps a mistake of ours from becoming a panic.
        let fits = |items: &Items| items.first.checked_add(items.blocks()).is_some_and(|end| end <= last);
        let places = sections.iter().map(|section| section.places);
        let place_blocks: u64 = places.clone().map(|places| places.blocks()).sum();
        let are_in_order = places.clone().all(|places| places.first >= layout.places_first)
            && sections.is_sorted_by(|a, b| a.domain < b.domain);
        if !layout.parts().iter().copied().chain(places).all(|items| fits(&items))
            || !are_in_order
            || layout.records.count > u64::from(u32::MAX)
            || layout.fences.count != layout.records.blocks() + place_blocks
        {
            return Err(Damaged);
        }
        let mut filter = Filter::with_room(layout.filter.count);
        each_item(&blocks, &layout.filter, |item| {
            if let Some(block) = item.first_chunk() {
                filter.push(block);
            }
        })?;
        let mut record_fences = Vec::with_capacity(layout.records.blocks() as usize);
        let mut fences = Vec::with_capacity(place_blocks as usize);
        each_item(&blocks, &layout.fences, |item| {
            let all =
                if record_fences.len() < record_fences.capacity() { &mut record_fences } else { &mut fences };
            all.push(super::block::prefix(item));
        })?;
        Ok(Self { id, blocks, layout, filter, record_fences, fences, objects, sections })
    }

    /// Number of blob lines.
    pub(super) fn len(&self) -> u64 {
        self.sections.iter().map(|section| section.places.count).sum()
    }

    pub(super) fn section(&self, domain: &str) -> Option<usize> {
        self.sections.binary_search_by(|section| (*section.domain).cmp(domain)).ok()
    }

    /// The first line of a domain that is not below `id`.
    pub(super) fn lower_bound(&self, section: usize, id: &BlobId, page: &mut Page) -> Read<u64> {
        let places = &self.sections[section].places;
        let first = (places.first - self.layout.places_first) as usize;
        let fences = self.fences.get(first..first + places.blocks() as usize).ok_or(Damaged)?;
        places.lower_bound(&self.blocks, fences, &id.0, page)
    }

    /// Calls `each` for the lines of a blob, until it is content.
    pub(super) fn find(
        &self,
        domain: &str,
        id: &BlobId,
        mut each: impl FnMut(Place) -> Read<bool>,
    ) -> Read<bool> {
        if !self.filter.may_hold(id) {
            return Ok(false);
        }
        let Some(section) = self.section(domain) else { return Ok(false) };
        let mut page = Page::default();
        let mut number = self.lower_bound(section, id, &mut page)?;
        while number < self.sections[section].places.count {
            let place = self.place(section, number, &mut page)?;
            if place.id != *id {
                break;
            }
            if each(place)? {
                return Ok(true);
            }
            number += 1;
        }
        Ok(false)
    }

    /// Calls `each` for the lines of a pack.
    pub(super) fn find_pack(&self, id: &ObjectId, mut each: impl FnMut(u32, Record)) -> Read<()> {
        let mut page = Page::default();
        let records = &self.layout.records;
        let first = records.lower_bound(&self.blocks, &self.record_fences, &id.0, &mut page)?;
        for number in first as u32..self.records() {
            let record = self.record(number, &mut page)?;
            if record.id != *id {
                break;
            }
            each(number, record);
        }
        Ok(())
    }

    /// One of a pack's run key entries.
    pub(super) fn key(&self, record: &Record, number: u8) -> Read<RunKeyEntry> {
        if u16::from(number) >= record.keys {
            return Err(Damaged);
        }
        let at = u64::from(record.keys_at) + u64::from(number);
        let mut page = Page::default();
        let entry = self.layout.keys.get(&self.blocks, at, &mut page)?;
        entry.first_chunk().map(RunKeyEntry::decode).ok_or(Damaged)
    }
}

impl Source for Table {
    fn objects(&self) -> &[Absorbed] {
        &self.objects
    }

    fn domains(&self) -> Vec<(Arc<str>, u64)> {
        self.sections.iter().map(|section| (Arc::clone(&section.domain), section.places.count)).collect()
    }

    fn records(&self) -> u32 {
        self.layout.records.count as u32
    }

    fn record(&self, number: u32, page: &mut Page) -> Read<Record> {
        let record = Record::decode(self.layout.records.get(&self.blocks, number.into(), page)?)?;
        let fits =
            (record.object as usize) < self.objects.len() && (record.domain as usize) < self.sections.len();
        if fits { Ok(record) } else { Err(Damaged) }
    }

    fn keys(&self, record: &Record, page: &mut Page) -> Read<Vec<RunKeyEntry>> {
        let one = |number| {
            let entry = self.layout.keys.get(&self.blocks, u64::from(record.keys_at) + number, page)?;
            entry.first_chunk().map(RunKeyEntry::decode).ok_or(Damaged)
        };
        (0..u64::from(record.keys)).map(one).collect()
    }

    fn place(&self, domain: usize, number: u64, page: &mut Page) -> Read<Place> {
        let place = Place::decode(self.sections[domain].places.get(&self.blocks, number, page)?)?;
        if place.pack < self.records() { Ok(place) } else { Err(Damaged) }
    }
}
