//! Lines in the order of their keys, in bounded memory: sorted runs go to a file without a name.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of keys and lines that are held before they go to disk.
const IN_MEMORY: usize = 64 << 20;
/// Bytes that are read of a run at once.
const WINDOW: usize = 256 << 10;

/// A key and its line.
type Entry = (Vec<u8>, Vec<u8>);

/// Lines on their way to be sorted.
pub struct Sorted {
    dir: PathBuf,
    reverse: bool,
    in_memory: usize,
    held: Vec<Entry>,
    held_bytes: usize,
    /// The file, and where each run in it begins and ends.
    spilled: Option<File>,
    runs: Vec<(u64, u64)>,
}

impl Sorted {
    /// Larger keys come last, or first if `reverse`; what does not fit into memory goes to a file in `dir`.
    pub fn new(dir: &Path, reverse: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            reverse,
            in_memory: IN_MEMORY,
            held: Vec::new(),
            held_bytes: 0,
            spilled: None,
            runs: Vec::new(),
        }
    }

    /// Takes a line.
    pub fn push(&mut self, key: Vec<u8>, line: Vec<u8>) -> io::Result<()> {
        self.held_bytes += key.len() + line.len() + size_of::<Entry>();
        self.held.push((key, line));
        if self.held_bytes >= self.in_memory { self.spill() } else { Ok(()) }
    }

    fn sort(&mut self) {
        self.held.sort_by(|a, b| order(&a.0, &b.0, self.reverse));
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let file = match self.spilled.take() {
            Some(file) => file,
            None => create_nameless(&self.dir)?,
        };
        let start = self.runs.last().map_or(0, |(_, end)| *end);
        let mut end = start;
        let mut out = BufWriter::with_capacity(WINDOW, &file);
        for (key, line) in self.held.drain(..) {
            for part in [&key, &line] {
                out.write_all(&(part.len() as u64).to_le_bytes())?;
                out.write_all(part)?;
                end += 8 + part.len() as u64;
            }
        }
        out.flush()?;
        drop(out);
        self.held_bytes = 0;
        self.spilled = Some(file);
        self.runs.push((start, end));
        Ok(())
    }

    /// Gives the lines in order.
    pub fn finish(mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        if self.spilled.is_none() {
            self.sort();
            self.held.iter().for_each(|(_, line)| each(line));
            return Ok(());
        }
        self.spill()?;
        let file = self.spilled.take().expect("it was just written");
        let mut runs: Vec<Run> = self
            .runs
            .iter()
            .map(|(start, end)| Run { at: *start, end: *end, read: Vec::new(), next: 0 })
            .collect();
        let mut heads = BinaryHeap::new();
        for (number, run) in runs.iter_mut().enumerate() {
            heads.extend(run.pop(&file)?.map(|entry| Reverse(Head { entry, number, reverse: self.reverse })));
        }
        while let Some(Reverse(head)) = heads.pop() {
            each(&head.entry.1);
            let next = runs[head.number].pop(&file)?;
            heads.extend(next.map(|entry| Reverse(Head { entry, ..head })));
        }
        Ok(())
    }
}

fn order(a: &[u8], b: &[u8], reverse: bool) -> Ordering {
    if reverse { b.cmp(a) } else { a.cmp(b) }
}

/// The next line of a run.
struct Head {
    entry: Entry,
    number: usize,
    reverse: bool,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.entry.0, &other.entry.0, self.reverse).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// A sorted run on disk, read a window at a time.
struct Run {
    at: u64,
    end: u64,
    read: Vec<u8>,
    next: usize,
}

impl Run {
    fn pop(&mut self, file: &File) -> io::Result<Option<Entry>> {
        if self.next == self.read.len() && self.at == self.end {
            return Ok(None);
        }
        let key = self.part(file)?;
        Ok(Some((key, self.part(file)?)))
    }

    fn part(&mut self, file: &File) -> io::Result<Vec<u8>> {
        let length = self.take(file, 8)?;
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes were taken"));
        self.take(file, length as usize)
    }

    fn take(&mut self, file: &File, length: usize) -> io::Result<Vec<u8>> {
        if self.read.len() - self.next < length {
            self.read.drain(..self.next);
            self.next = 0;
            let have = self.read.len();
            let more = length.max(WINDOW) - have;
            let more = more.min((self.end - self.at) as usize);
            self.read.resize(have + more, 0);
            file.read_exact_at(&mut self.read[have..], self.at)?;
            self.at += more as u64;
        }
        let taken = self.read.get(self.next..self.next + length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.next += length;
        Ok(taken.to_vec())
    }
}

/// A file that is gone with its handle.
fn create_nameless(dir: &Path) -> io::Result<File> {
    let name: [u8; 16] = snap_crypto::random().map_err(io::Error::other)?;
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = dir.join(format!(".sort-{name}"));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_order_from_memory_and_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        for in_memory in [usize::MAX, 3000, 1] {
            for reverse in [false, true] {
                let mut sorted = Sorted { in_memory, ..Sorted::new(dir.path(), reverse) };
                // 101 is prime: every number once, out of order.
                for number in (0..101u32).map(|number| number * 37 % 101) {
                    let line = vec![b'x'; number as usize * 100];
                    sorted.push(number.to_be_bytes().to_vec(), line).unwrap();
                }
                let mut lengths = Vec::new();
                sorted.finish(|line| lengths.push(line.len() / 100)).unwrap();
                let mut expected: Vec<usize> = (0..101).collect();
                if reverse {
                    expected.reverse();
                }
                assert_eq!(lengths, expected, "{in_memory} {reverse}");
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
