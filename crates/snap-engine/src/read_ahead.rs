//! File contents in order, read ahead of whoever takes them: chunks are fetched, opened and hashed on several threads while
//! those before them are being written. Memory is bounded by what is on its way, whatever the files' sizes.
//!
//! [`ReadAhead::scope`] starts the threads, [`ReadAhead::file`] gives a [`FileReader`] for a list of chunks. Files are read in
//! the order in which they were asked for, so whoever needs many asks for some before taking the first. A reader that gets to
//! a chunk which nobody has begun reads it itself: so none waits for ever, and there may be no threads at all.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use snap_format::{BlobId, BlobKind};
use snap_repo::{Located, Scratch, object_name};

use crate::browse::Browser;
use crate::{EngineError, Result};

/// Bytes of plaintext after which a request ends: small enough that all threads have work soon.
const REQUEST: u64 = 1 << 20;
/// Bytes between two chunks in a pack that are fetched along rather than asked for anew.
const GAP: u64 = 16 << 10;
/// Most bytes that are read and not yet taken, unless the caller has less.
const MEMORY: u64 = 24 << 20;

/// Reads the chunks of files before they are asked for.
pub struct ReadAhead<'a> {
    browser: &'a Browser,
    memory_bytes: u64,
    state: Mutex<State>,
    /// There is work, or room for more of it.
    work: Condvar,
    /// A part is ready.
    ready: Condvar,
}

#[derive(Default)]
struct State {
    files: HashMap<u64, File>,
    next_file: u64,
    /// Files with chunks that nobody has begun, in the order in which they were asked for.
    waiting: VecDeque<u64>,
    /// Plain bytes begun and not yet taken.
    under_way: u64,
    /// Buffers of parts, to be used again: memory that is new costs more than what is put into it.
    spare: Vec<Vec<u8>>,
    tools: Vec<Tools>,
    stopped: bool,
}

/// A file of which not everything is taken.
struct File {
    ids: Vec<BlobId>,
    /// Position of the first chunk that nobody has begun.
    next: usize,
    parts: VecDeque<Option<Part>>,
    /// Number of the first of `parts`.
    first_part: u64,
}

/// The result of a request.
struct Part {
    plain: Vec<u8>,
    /// How much of the memory it counts for.
    counted: u64,
    /// What came after the bytes.
    failure: Option<EngineError>,
}

/// Chunks that lie together in a pack.
struct Request {
    file: u64,
    part: u64,
    /// A chunk that no index names has no place.
    chunks: Vec<(BlobId, Option<Located>)>,
    /// How much memory it needs.
    bytes: u64,
}

/// What a thread needs for a request.
struct Tools {
    scratch: Scratch,
    /// Grows to the largest request met and is never cleared: clearing costs as much as reading.
    sealed: Vec<u8>,
    /// The plaintext of a group.
    unit: Vec<u8>,
}

/// Lets everyone else end if a thread panics: they would wait for its part for ever.
struct StopOnUnwind<'a, 'b>(&'a ReadAhead<'b>);

impl Drop for StopOnUnwind<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl std::fmt::Debug for ReadAhead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadAhead({:?}, {} bytes)", self.browser, self.memory_bytes)
    }
}

impl<'a> ReadAhead<'a> {
    /// Calls `work` with a reader that has so many threads; they end when `work` does. No more than `memory_bytes` of content
    /// are held, or one request for each thread and reader if that is more.
    pub fn scope<R>(
        browser: &'a Browser,
        threads: usize,
        memory_bytes: u64,
        work: impl FnOnce(&ReadAhead<'a>) -> R,
    ) -> R {
        let ahead = Self {
            browser,
            memory_bytes: memory_bytes.min(MEMORY),
            state: Mutex::default(),
            work: Condvar::new(),
            ready: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| ahead.work());
            }
            let _stop = StopOnUnwind(&ahead);
            work(&ahead)
        })
    }

    /// A file of these data chunks, in order.
    pub fn file(&self, ids: Vec<BlobId>) -> FileReader<'_, 'a> {
        let mut state = self.lock();
        let number = state.next_file;
        state.next_file += 1;
        if !ids.is_empty() {
            state.waiting.push_back(number);
        }
        state.files.insert(number, File { ids, next: 0, parts: VecDeque::new(), first_part: 0 });
        drop(state);
        self.work.notify_all();
        FileReader { ahead: self, number, part: None, at: 0, failure: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
        self.ready.notify_all();
    }

    /// What a thread does.
    fn work(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let Some(request) = self.next_request(&mut state) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            self.run(request);
            state = self.lock();
        }
    }

    /// The next request, if there is room for it.
    fn next_request(&self, state: &mut State) -> Option<Request> {
        let number = *state.waiting.front()?;
        if state.under_way > 0 && state.under_way + REQUEST > self.memory_bytes {
            return None;
        }
        Some(self.begin(state, number))
    }

    /// Begins the next chunks of a file that has some: those that lie behind one another, up to [`REQUEST`].
    fn begin(&self, state: &mut State, number: u64) -> Request {
        let file = state.files.get_mut(&number).expect("a file that waits is known");
        let (reader, domain) = (self.browser.reader(), &self.browser.domain().name);
        let mut chunks: Vec<(BlobId, Option<Located>)> = Vec::new();
        let mut bytes = 0;
        while let Some(id) = file.ids.get(file.next) {
            let place = reader.locate(domain, id);
            let length = place.as_ref().map_or(0, |place| u64::from(place.plain_len));
            if let Some((_, before)) = chunks.last() {
                let adjoins = before.as_ref().zip(place.as_ref()).is_some_and(|(a, b)| {
                    let end = a.offset + u64::from(a.stored_len);
                    // The next member of the same group, or what lies behind.
                    a.pack == b.pack && (a.offset == b.offset || (end..=end + GAP).contains(&b.offset))
                });
                if !adjoins || bytes + length > REQUEST {
                    break;
                }
            }
            chunks.push((*id, place));
            bytes += length;
            file.next += 1;
        }
        let part = file.first_part + file.parts.len() as u64;
        file.parts.push_back(None);
        if file.next == file.ids.len() {
            state.waiting.retain(|waiting| *waiting != number);
        }
        let bytes = if is_pooled(bytes) { bytes.max(REQUEST) } else { bytes };
        state.under_way += bytes;
        Request { file: number, part, chunks, bytes }
    }

    fn run(&self, request: Request) {
        let unwinding = StopOnUnwind(self);
        let Request { file, part, chunks, bytes } = request;
        let tools = self.lock().tools.pop();
        let mut plain = Vec::new();
        if is_pooled(bytes) {
            plain = self.lock().spare.pop().unwrap_or_default();
            plain.clear();
        }
        plain.reserve(bytes as usize);
        let failure = match tools.map_or_else(Tools::new, Ok) {
            Ok(mut tools) => {
                let outcome = self.read(&chunks, &mut tools, &mut plain);
                self.lock().tools.push(tools);
                outcome.err()
            }
            Err(error) => Some(error),
        };
        let done = Part { plain, counted: bytes, failure };
        let mut state = self.lock();
        match state.files.get_mut(&file) {
            Some(file) => {
                let at = (part - file.first_part) as usize;
                file.parts[at] = Some(done);
            }
            // Whoever wanted it went away.
            None => self.give_back(&mut state, done),
        }
        drop(state);
        self.ready.notify_all();
        std::mem::forget(unwinding);
    }

    /// Reads chunks up to the first that cannot be had.
    fn read(
        &self,
        chunks: &[(BlobId, Option<Located>)],
        tools: &mut Tools,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let (reader, domain) = (self.browser.reader(), self.browser.domain());
        let fetched = self.fetch(chunks, tools);
        // Of the group whose plaintext is in `tools.unit`.
        let mut unit_at = None;
        for (id, place) in chunks {
            let Tools { scratch, sealed, unit } = &mut *tools;
            let opened = fetched.zip(place.as_ref()).is_some_and(|(start, place)| {
                let at = (place.offset - start) as usize;
                let sealed = &sealed[at..at + place.stored_len as usize];
                if place.group.is_none() {
                    let kind = BlobKind::Data;
                    return reader.open_sealed(domain, kind, id, place, sealed, scratch, plain).is_ok();
                }
                if unit_at != Some(place.offset) {
                    unit.clear();
                    let opened = reader.open_unit(BlobKind::Data, id, place, sealed, scratch, unit);
                    unit_at = opened.is_ok().then_some(place.offset);
                }
                let member = unit_at.and_then(|_| reader.member(domain, id, place, unit).ok());
                member.map(|member| plain.extend_from_slice(member)).is_some()
            });
            // What cannot be had from here is perhaps stored elsewhere, too; if not, that names the damage.
            if !opened {
                reader.read_onto(domain, BlobKind::Data, id, scratch, plain)?;
            }
        }
        Ok(())
    }

    /// Fetches the range that holds all of the chunks; returns its offset, or `None` if it cannot be had in one piece.
    fn fetch(&self, chunks: &[(BlobId, Option<Located>)], tools: &mut Tools) -> Option<u64> {
        let (first, last) = (chunks.first()?.1.as_ref()?, chunks.last()?.1.as_ref()?);
        let length = (last.offset + u64::from(last.stored_len) - first.offset) as usize;
        if tools.sealed.len() < length {
            tools.sealed.resize(length, 0);
        }
        let (repository, name) =
            (self.browser.reader().repository(), object_name(snap_repo::Area::Packs, &first.pack_id));
        let fetched = repository.backend().get_into(&name, first.offset, &mut tools.sealed[..length]);
        fetched.is_ok().then_some(first.offset)
    }

    /// Makes room, and keeps the buffer if that is within the bound.
    fn give_back(&self, state: &mut State, part: Part) {
        state.under_way -= part.counted;
        let spare: usize = state.spare.iter().map(Vec::capacity).sum();
        let kept = state.under_way + (spare + part.plain.capacity()) as u64;
        if part.counted >= REQUEST && kept <= self.memory_bytes.max(4 * REQUEST) {
            state.spare.push(part.plain);
        }
        self.work.notify_all();
    }

    /// The next part of a file, in order; `None` at its end.
    fn next_part(&self, number: u64) -> Result<Option<Part>> {
        let mut state = self.lock();
        loop {
            let stopped = state.stopped;
            let file = state.files.get_mut(&number).expect("a file is known until its reader is dropped");
            match file.parts.front_mut() {
                Some(Some(_)) => {
                    file.first_part += 1;
                    return Ok(file.parts.pop_front().flatten());
                }
                Some(None) if stopped => return Err(EngineError::Interrupted),
                Some(None) => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                None if file.next == file.ids.len() => return Ok(None),
                None => {
                    let request = self.begin(&mut state, number);
                    drop(state);
                    self.run(request);
                    state = self.lock();
                }
            }
        }
    }
}

/// Whether a part of so many bytes gets a buffer of [`REQUEST`]; smaller ones, of small files, get what they need.
const fn is_pooled(bytes: u64) -> bool {
    bytes > REQUEST / 8
}

impl Tools {
    fn new() -> Result<Self> {
        let scratch =
            Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error))?;
        Ok(Self { scratch, sealed: Vec::new(), unit: Vec::new() })
    }
}

/// The content of a file, piece by piece or as a stream.
pub struct FileReader<'s, 'a> {
    ahead: &'s ReadAhead<'a>,
    number: u64,
    part: Option<Part>,
    at: usize,
    /// The error behind an `io::Error` that was returned.
    failure: Option<EngineError>,
}

impl std::fmt::Debug for FileReader<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileReader({})", self.number)
    }
}

impl FileReader<'_, '_> {
    /// The error behind an [`io::Error`] that [`Read::read`] returned.
    pub fn take_failure(&mut self) -> Option<EngineError> {
        self.failure.take()
    }

    /// The next bytes, some chunks of them; none at the end.
    pub fn next_piece(&mut self) -> Result<&[u8]> {
        while self.part.as_ref().is_none_or(|part| self.at == part.plain.len()) {
            if let Some(mut part) = self.part.take() {
                let failure = part.failure.take();
                self.ahead.give_back(&mut self.ahead.lock(), part);
                failure.map_or(Ok(()), Err)?;
            }
            self.at = 0;
            self.part = self.ahead.next_part(self.number)?;
            if self.part.is_none() {
                return Ok(&[]);
            }
        }
        let piece = self.part.as_ref().map_or(&[][..], |part| &part.plain[self.at..]);
        self.at += piece.len();
        Ok(piece)
    }
}

impl Read for FileReader<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let taken = self.next_piece().map(|piece| {
            let length = out.len().min(piece.len());
            out[..length].copy_from_slice(&piece[..length]);
            (length, piece.len() - length)
        });
        match taken {
            Ok((length, left)) => {
                self.at -= left;
                Ok(length)
            }
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("damaged"))
            }
        }
    }
}

impl Drop for FileReader<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.ahead.lock();
        let parts = state.files.remove(&self.number).map(|file| file.parts).unwrap_or_default();
        state.waiting.retain(|waiting| *waiting != self.number);
        // Parts that are not ready yet are given back by whoever reads them.
        for part in parts.into_iter().flatten().chain(self.part.take()) {
            self.ahead.give_back(&mut state, part);
        }
    }
}
