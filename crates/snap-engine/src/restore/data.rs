//! Writing file contents: pack by pack, so that each byte is fetched once and in order, on all threads.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use snap_format::{BlobId, BlobKind, Node, NodeKind};
use snap_repo::{Area, Located, RepoError, Scratch, for_each_parallel, object_name};
use snap_source::{Stat, TargetDir, TargetFile};

use super::Restore;
use super::plan::{FileTask, Plan, directory_in_the_way, remove_non_directory};
use crate::{EngineError, Phase, Result};

/// Most bytes of one request.
const REQUEST: u64 = 4 << 20;
/// Bytes between two wanted blobs that are fetched along rather than asked for anew.
const GAP: u64 = 64 << 10;
/// Chunks that follow one another in a file are written together, up to so many bytes.
const WRITE: usize = 1 << 20;
/// Files from this size on need not stay in the page cache.
const LARGE: u64 = 4 << 20;
/// Files kept open while they wait for more blobs.
const OPEN_FILES: usize = 256;

/// A wanted blob and where it goes: file and offset.
struct Wanted {
    place: Located,
    id: BlobId,
    to: Vec<(u32, u64)>,
}

/// The state of a file on its way.
struct FileState {
    remaining: AtomicU32,
    damaged: AtomicBool,
    handle: Mutex<Option<TargetFile>>,
    begun: AtomicBool,
}

struct Data<'a, 'b> {
    restore: &'a Restore<'b>,
    plan: &'a Plan,
    states: Vec<FileState>,
    open_files: AtomicUsize,
}

/// Writes all files of the plan. Returns the positions of those that did not come out whole, each said and counted.
pub(super) fn write_files(restore: &Restore<'_>, plan: &Plan, spare: &Spare) -> Result<HashSet<usize>> {
    let mut packs: Vec<Vec<Wanted>> = Vec::new();
    let mut states = Vec::with_capacity(plan.files.len());
    let mut by_blob: HashMap<BlobId, (usize, usize)> = HashMap::new();
    let mut by_pack: HashMap<u32, usize> = HashMap::new();
    let mut total_bytes = 0;
    for (number, task) in plan.files.iter().enumerate() {
        restore.context.check_stop()?;
        let needed = if task.existing.is_some_and(|stat| stat.is_dir()) {
            restore.failed(&plan.dirs.path(task.dir, &task.node.name), &directory_in_the_way());
            None
        } else {
            needed_blobs(restore, plan, task)?
        };
        let Some(needed) = needed else {
            states.push(FileState::new(0, true));
            continue;
        };
        states.push(FileState::new(needed.len() as u32, false));
        for (id, offset, place) in needed {
            total_bytes += u64::from(place.plain_len);
            if let Some((pack, at)) = by_blob.get(&id) {
                packs[*pack][*at].to.push((number as u32, offset));
                continue;
            }
            let pack = *by_pack.entry(place.pack).or_insert_with(|| {
                packs.push(Vec::new());
                packs.len() - 1
            });
            by_blob.insert(id, (pack, packs[pack].len()));
            packs[pack].push(Wanted { place, id, to: vec![(number as u32, offset)] });
        }
    }
    drop(by_blob);
    packs
        .iter_mut()
        .for_each(|wanted| wanted.sort_by_key(|wanted| (wanted.place.offset, wanted.place.within().start)));
    let requests: Vec<&[Wanted]> = packs.iter().flat_map(|wanted| split_requests(wanted)).collect();
    restore.plan_transfer(&requests, plan.files.len() as u64, total_bytes);
    if restore.options.dry_run {
        let planned = plan.files.iter().zip(&states);
        planned
            .filter(|(_, state)| !state.damaged.load(Ordering::Relaxed))
            .for_each(|(task, _)| restore.count_restored(0, task.existing.is_some()));
        super::bump(&restore.counts.restored_bytes, total_bytes);
        return Ok(HashSet::new());
    }
    let data = Data { restore, plan, states, open_files: AtomicUsize::new(0) };
    data.write_empty()?;
    let threads = restore.browser.reading_threads(restore.context.threads);
    for_each_parallel(&requests, threads, |wanted| {
        let buffers = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffers = match buffers {
            Some(buffers) => buffers,
            None => Buffers::new()?,
        };
        let outcome = data.fetch_and_write(wanted, &mut buffers);
        spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
        outcome
    })?;
    let states = data.states.iter().enumerate();
    Ok(states.filter(|(_, state)| state.damaged.load(Ordering::Acquire)).map(|(number, _)| number).collect())
}

/// Buffers to be used again.
pub(super) type Spare = Mutex<Vec<Buffers>>;

pub(super) struct Buffers {
    sealed: Vec<u8>,
    /// Of units.
    plain: Vec<u8>,
    scratch: Scratch,
}

impl Buffers {
    fn new() -> Result<Self> {
        let scratch =
            Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error))?;
        Ok(Self { sealed: Vec::new(), plain: Vec::new(), scratch })
    }
}

impl FileState {
    fn new(blobs: u32, damaged: bool) -> Self {
        Self {
            remaining: AtomicU32::new(blobs),
            damaged: AtomicBool::new(damaged),
            handle: Mutex::default(),
            begun: AtomicBool::new(false),
        }
    }
}

/// A blob, its offset in the file, and where it lies.
type Needed = Vec<(BlobId, u64, Located)>;

/// The blobs of a file that have to be fetched: all of them or, where a file stands, those that differ. `None` if one is
/// not in the index: then the file is lost, which is said and counted.
fn needed_blobs(restore: &Restore<'_>, plan: &Plan, task: &FileTask) -> Result<Option<Needed>> {
    let index = restore.browser.reader().index();
    let domain = &restore.browser.domain().name;
    let holes: &[(u64, u64)] = match &task.node.kind {
        NodeKind::File { holes, .. } => holes,
        _ => &[],
    };
    // What is going to be replaced has nothing to keep, even if its other names, which are why, are deleted by now.
    let is_compared =
        |stat: &Stat| restore.options.overwrite != super::Overwrite::Always && is_written_in_place(stat);
    let existing = task.existing.filter(is_compared);
    let existing = existing.and_then(|_| plan.dirs.open(task.dir).ok()?.open_existing(&task.node.name).ok());
    let mut holes = holes.iter().peekable();
    let (mut offset, mut needed) = (0, Vec::with_capacity(task.blobs.len()));
    let mut current = Vec::new();
    for id in &task.blobs {
        while let Some((_, length)) = holes.next_if(|(start, _)| *start == offset) {
            offset += length;
        }
        let Some(place) = restore.browser.reader().locate(domain, id) else {
            index.check()?;
            let finding =
                snap_repo::Finding::new(snap_repo::FindingCode::Missing, "index", "no index names it");
            restore.lost(
                &plan.dirs.path(task.dir, &task.node.name),
                RepoError::from(finding.blob(*id)).into(),
            )?;
            return Ok(None);
        };
        let length = u64::from(place.plain_len);
        // A chunk that spans a hole cannot be compared in one piece; it is fetched.
        let spans_hole = holes.peek().is_some_and(|(start, _)| *start < offset + length);
        let is_there = !spans_hole
            && existing.as_ref().is_some_and(|file| {
                current.resize(place.plain_len as usize, 0);
                file.read_at(&mut current, offset).is_ok_and(|read| read == current.len())
                    && restore.browser.domain().data_id.id(&current) == id.0
            });
        if !is_there {
            needed.push((*id, offset, place));
        }
        offset += length;
        let mut end = offset;
        while spans_hole && let Some((_, length)) = holes.next_if(|(start, _)| *start < end) {
            end += length;
        }
        offset = end;
    }
    Ok(Some(needed))
}

/// Cuts the wanted blobs of a pack into requests.
fn split_requests(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    let mut out = Vec::new();
    let mut start = 0;
    for at in 1..=wanted.len() {
        let ends = wanted.get(at).is_none_or(|next| {
            let last = &wanted[at - 1].place;
            let last_end = last.offset + u64::from(last.stored_len);
            let next_end = next.place.offset + u64::from(next.place.stored_len);
            // The members of a group stay together.
            next.place.offset > last_end + GAP
                || next.place.offset != last.offset && next_end - wanted[start].place.offset > REQUEST
        });
        if ends && start < at {
            out.push(&wanted[start..at]);
            start = at;
        }
    }
    out
}

impl Restore<'_> {
    /// Counts what will be fetched, and tells the progress.
    fn plan_transfer(&self, requests: &[&[Wanted]], files: u64, bytes: u64) {
        let fetched = requests.iter().map(|wanted| span(wanted).1).sum();
        super::bump(&self.counts.requests, requests.len() as u64);
        super::bump(&self.counts.fetched_bytes, fetched);
        self.expect(files, bytes);
    }

    /// Adds to what the progress counts up to.
    pub(super) fn expect(&self, files: u64, bytes: u64) {
        let progress = self.context.progress;
        if progress.phase() != Phase::Restoring {
            progress.begin(Phase::Restoring, 0, 0);
        }
        progress.items_total.fetch_add(files, Ordering::Relaxed);
        progress.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Offset and length of the bytes that hold the wanted blobs.
fn span(wanted: &[Wanted]) -> (u64, u64) {
    let first = &wanted[0].place;
    let last = &wanted[wanted.len() - 1].place;
    (first.offset, last.offset + u64::from(last.stored_len) - first.offset)
}

impl Data<'_, '_> {
    /// Files that need nothing fetched: empty ones, ones of holes alone, and ones that are there already.
    fn write_empty(&self) -> Result<()> {
        let empty: Vec<u32> = (0..self.states.len() as u32)
            .filter(|number| self.states[*number as usize].remaining.load(Ordering::Relaxed) == 0)
            .filter(|number| !self.states[*number as usize].damaged.load(Ordering::Relaxed))
            .collect();
        for_each_parallel(&empty, self.restore.context.threads, |number| {
            self.restore.context.check_stop()?;
            self.count_written(*number);
            let outcome = self.with_file(*number, |_| Ok(()));
            self.settle(*number, outcome)?;
            self.finish(*number)
        })
    }

    fn fetch_and_write(&self, wanted: &[Wanted], buffers: &mut Buffers) -> Result<()> {
        self.restore.context.check_stop()?;
        let (start, length) = span(wanted);
        let reader = self.restore.browser.reader();
        let name = object_name(Area::Packs, &wanted[0].place.pack_id);
        if buffers.sealed.len() < length as usize {
            buffers.sealed.resize(length as usize, 0);
        }
        let bytes = &mut buffers.sealed[..length as usize];
        let fetched = reader.repository().backend().get_into(&name, start, bytes);
        // If the range fails because the pack is damaged or gone, each blob is tried by itself, elsewhere too.
        let fetched = match fetched.map_err(RepoError::from).map_err(RepoError::into_finding) {
            Ok(()) => true,
            Err(Ok(_)) => false,
            Err(Err(error)) => return Err(error.into()),
        };
        let Buffers { sealed, plain, scratch } = buffers;
        let domain = self.restore.browser.domain();
        let mut run: Option<Run<'_>> = None;
        for unit in wanted.chunk_by(|one, next| one.place.offset == next.place.offset) {
            self.restore.context.check_stop()?;
            let place = &unit[0].place;
            let at = plain.len() + place.within().start;
            if !run.as_ref().is_some_and(|run| run.is_followed_by(&unit[0], at)) {
                self.write(run.take(), plain)?;
                plain.clear();
            }
            let unit_at = plain.len();
            let opened = fetched && {
                let sealed = &sealed[(place.offset - start) as usize..][..place.stored_len as usize];
                reader.open_unit(BlobKind::Data, &unit[0].id, place, sealed, scratch, plain).is_ok()
            };
            for wanted in unit {
                let is_here =
                    opened && reader.member(domain, &wanted.id, &wanted.place, &plain[unit_at..]).is_ok();
                let at = if is_here { unit_at + wanted.place.within().start } else { plain.len() };
                // What is damaged here is perhaps stored elsewhere, too.
                if !is_here
                    && let Err(error) = reader.read_onto(domain, BlobKind::Data, &wanted.id, scratch, plain)
                {
                    self.lose(wanted, error.into())?;
                    continue;
                }
                match run.as_mut().filter(|run| run.is_followed_by(wanted, at)) {
                    Some(run) => run.push(wanted),
                    None => self.write(run.replace(Run::new(wanted, at)), plain)?,
                }
            }
        }
        self.write(run, plain)
    }

    /// A blob that cannot be had: every file that needs it is lost, each named once.
    fn lose(&self, wanted: &Wanted, error: EngineError) -> Result<()> {
        let EngineError::Repo(error) = error else { return Err(error) };
        let finding = error.into_finding()?;
        for (file, _) in &wanted.to {
            let state = &self.states[*file as usize];
            if !state.damaged.swap(true, Ordering::AcqRel) {
                let task = &self.plan.files[*file as usize];
                let path = self.plan.dirs.path(task.dir, &task.node.name);
                self.restore.lost(&path, RepoError::from(finding.clone()).into())?;
            }
            self.blobs_done(*file, 1)?;
        }
        Ok(())
    }

    fn write(&self, run: Option<Run<'_>>, plain: &[u8]) -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        let plain = &plain[run.plain];
        run.to.iter().try_for_each(|(file, offset)| self.write_to(*file, *offset, plain, run.chunks))
    }

    fn write_to(&self, file: u32, offset: u64, plain: &[u8], chunks: u32) -> Result<()> {
        let task = &self.plan.files[file as usize];
        if !self.states[file as usize].damaged.load(Ordering::Acquire) {
            let outcome =
                self.with_file(file, |handle| write_around_holes(handle, &task.node, offset, plain));
            if outcome.is_ok() {
                super::bump(&self.restore.counts.restored_bytes, plain.len() as u64);
            }
            self.settle(file, outcome)?;
        }
        self.restore.context.progress.add(0, plain.len() as u64);
        self.blobs_done(file, chunks)
    }

    /// A full disk ends the restore; any other failure costs the file.
    fn settle(&self, file: u32, outcome: io::Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        let task = &self.plan.files[file as usize];
        let path = self.plan.dirs.path(task.dir, &task.node.name);
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        ) {
            return Err(EngineError::io("writing", &path, error));
        }
        if !self.states[file as usize].damaged.swap(true, Ordering::AcqRel) {
            self.restore.failed(&path, &error);
        }
        Ok(())
    }

    fn blobs_done(&self, file: u32, count: u32) -> Result<()> {
        if self.states[file as usize].remaining.fetch_sub(count, Ordering::AcqRel) == count {
            self.count_written(file);
            self.finish(file)?;
        }
        Ok(())
    }

    fn count_written(&self, file: u32) {
        let task = &self.plan.files[file as usize];
        if !self.states[file as usize].damaged.load(Ordering::Acquire) {
            self.restore.count_restored(0, task.existing.is_some());
        }
    }

    /// Calls `action` with the open file, making it first if need be.
    fn with_file(&self, file: u32, action: impl FnOnce(&TargetFile) -> io::Result<()>) -> io::Result<()> {
        let state = &self.states[file as usize];
        let mut handle = state.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_none() {
            *handle = Some(self.open(file, state)?);
            self.open_files.fetch_add(1, Ordering::Relaxed);
        }
        let outcome = action(handle.as_ref().expect("it was just opened"));
        if self.open_files.load(Ordering::Relaxed) > OPEN_FILES {
            *handle = None;
            self.open_files.fetch_sub(1, Ordering::Relaxed);
        }
        outcome
    }

    fn open(&self, file: u32, state: &FileState) -> io::Result<TargetFile> {
        let task = &self.plan.files[file as usize];
        let (dir, name) = (self.plan.dirs.open(task.dir)?, &task.node.name);
        if state.begun.load(Ordering::Acquire) {
            return dir.open_existing(name);
        }
        let opened = self.open_first(task, &dir)?;
        // Only now: what could not be made is neither written to nor taken away.
        state.begun.store(true, Ordering::Release);
        Ok(opened)
    }

    fn open_first(&self, task: &FileTask, dir: &TargetDir) -> io::Result<TargetFile> {
        let name = &task.node.name;
        let Some(stat) = task.existing else { return dir.create_file(name) };
        // A file with several names, or something that is no file, is replaced rather than written to.
        if is_written_in_place(&stat) {
            let opened = dir.open_existing(name)?;
            // Longer content and holes go by giving up the end; what is kept was compared.
            if stat.size > task.node.size() {
                opened.set_len(task.node.size())?;
            }
            if let NodeKind::File { holes, .. } = &task.node.kind {
                holes
                    .iter()
                    .filter(|hole| hole.0 < stat.size)
                    .try_for_each(|hole| opened.punch_hole(hole.0, hole.1))?;
            }
            return Ok(opened);
        }
        remove_non_directory(dir, name)?;
        dir.create_file(name)
    }

    /// Gives a file its length and attributes; takes away what came out damaged.
    fn finish(&self, file: u32) -> Result<()> {
        let state = &self.states[file as usize];
        let task = &self.plan.files[file as usize];
        let path = || self.plan.dirs.path(task.dir, &task.node.name);
        if state.damaged.load(Ordering::Acquire) {
            let begun = state.begun.load(Ordering::Acquire);
            if begun && task.existing.is_none() {
                // Half a file looks like a file: better none, and the loss named.
                let removed = self.plan.dirs.open(task.dir).and_then(|dir| dir.remove(&task.node.name));
                removed.unwrap_or_else(|error| self.restore.failed(&path(), &error));
            }
        } else {
            let outcome = self.with_file(file, |handle| {
                if !ends_with_data(task) {
                    handle.set_len(task.node.size())?;
                }
                self.restore.notes(&path, handle.apply(&task.node, &self.restore.apply_options));
                Ok(())
            });
            self.settle(file, outcome)?;
            self.restore.context.done(&path(), "restored");
        }
        if state.handle.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.open_files.fetch_sub(1, Ordering::Relaxed);
        }
        self.restore.context.progress.add(1, 0);
        Ok(())
    }
}

/// Chunks that are written together, and where to.
struct Run<'a> {
    to: &'a [(u32, u64)],
    /// Where they stand in the plaintext.
    plain: Range<usize>,
    chunks: u32,
}

impl<'a> Run<'a> {
    fn new(first: &'a Wanted, at: usize) -> Self {
        Self { to: &first.to, plain: at..at + first.place.plain_len as usize, chunks: 1 }
    }

    /// Whether `next`, of which the plaintext stands at `at`, belongs right behind this, in the one file that wants them.
    fn is_followed_by(&self, next: &Wanted, at: usize) -> bool {
        let [(file, offset)] = *self.to else { return false };
        let is_next = self.plain.end == at && next.to == [(file, offset + self.plain.len() as u64)];
        is_next && self.plain.len() + next.place.plain_len as usize <= WRITE
    }

    fn push(&mut self, next: &Wanted) {
        self.plain.end += next.place.plain_len as usize;
        self.chunks += 1;
    }
}

/// Whether a file that was made anew has its length when its chunks are written.
fn ends_with_data(task: &FileTask) -> bool {
    let hole_at_end = match &task.node.kind {
        NodeKind::File { holes, .. } => {
            holes.last().is_some_and(|(start, length)| start + length >= task.node.size())
        }
        _ => false,
    };
    task.existing.is_none() && !hole_at_end
}

/// Whether what stands there stays, and only what differs is written.
pub(super) fn is_written_in_place(stat: &Stat) -> bool {
    stat.kind == snap_source::FileType::File && stat.links == 1
}

/// Writes a chunk that may span holes: `offset` is where its first byte goes.
fn write_around_holes(file: &TargetFile, node: &Node, mut offset: u64, mut plain: &[u8]) -> io::Result<()> {
    let size = node.size();
    let holes: &[(u64, u64)] = match &node.kind {
        NodeKind::File { holes, .. } => holes,
        _ => &[],
    };
    let write = |bytes: &[u8], offset| match size >= LARGE {
        true => file.write_at_uncached(bytes, offset),
        false => file.write_at(bytes, offset),
    };
    let first = holes.partition_point(|(start, _)| *start < offset);
    for (start, length) in &holes[first..] {
        let before = start - offset;
        if before >= plain.len() as u64 {
            break;
        }
        let (now, later) = plain.split_at(before as usize);
        write(now, offset)?;
        (offset, plain) = (start + length, later);
    }
    write(plain, offset)
}
