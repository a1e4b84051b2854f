use std::sync::{Arc, Mutex, PoisonError};

use crate::lru::Lru;

/// Files of which is known how they are read.
const FILES: u64 = 512;
/// Readers of one file that are told apart.
const READERS: usize = 8;
/// The kernel's own read-ahead comes out of order, by so many bytes at most.
const SLACK: u64 = 2 << 20;

/// Who reads in order, so that what follows can be fetched before it is asked for.
pub(crate) struct Streams {
    files: Mutex<Lru<u64, Arc<Mutex<Vec<Stream>>>>>,
    /// Most bytes ahead of a reader.
    most: u64,
}

/// A reader that goes through a file.
struct Stream {
    /// Where it has got to.
    next: u64,
    /// Bytes read in order.
    run: u64,
    /// What has been asked for ahead of it ends here.
    ahead: u64,
}

impl Streams {
    pub(crate) fn new(most: u64) -> Self {
        Self { files: Mutex::new(Lru::new(FILES)), most }
    }

    /// A range of a file is read: says which bytes to fetch ahead, from where to where, if any. Reading in order doubles it.
    pub(crate) fn read(&self, ino: u64, offset: u64, length: u64) -> Option<(u64, u64)> {
        let streams = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.get(&ino).unwrap_or_else(|| {
                let new = Arc::<Mutex<Vec<Stream>>>::default();
                files.insert(ino, Arc::clone(&new), 1, drop);
                new
            })
        };
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        let is_near = |stream: &Stream| offset <= stream.next + SLACK && offset + SLACK >= stream.next;
        let mut stream = match streams.iter().position(is_near) {
            Some(at) => streams.remove(at),
            None => Stream { next: offset, run: 0, ahead: offset },
        };
        streams.truncate(READERS - 1);
        stream.next = stream.next.max(offset + length);
        stream.run += length;
        stream.ahead = stream.ahead.max(stream.next);
        // One that begins at the beginning probably goes on.
        let is_in_order = stream.run > length || offset == 0;
        let until = stream.next + (2 * stream.run).min(self.most);
        // A few large requests rather than many small ones.
        let is_due = stream.ahead < stream.next + (2 * stream.run).min(self.most) / 2;
        let wanted = (is_in_order && is_due).then_some((stream.ahead, until));
        streams.insert(0, stream);
        wanted
    }

    /// So far has been asked for: less than was wanted if there was no room.
    pub(crate) fn asked(&self, ino: u64, next: u64, until: u64) {
        let streams = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&ino);
        let Some(streams) = streams else { return };
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.iter_mut().find(|stream| stream.ahead == next) {
            stream.ahead = stream.ahead.max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_reads_in_order_is_read_ahead_for() {
        const STEP: u64 = 128 << 10;
        let streams = Streams::new(8 << 20);
        assert_eq!(streams.read(1, 500 << 20, STEP), None);
        assert_eq!(streams.read(1, 100 << 20, STEP), None);
        assert_eq!(streams.read(1, 300 << 20, STEP), None);
        // Two who read on, at different places.
        for start in [100 << 20, 500 << 20] {
            let (from, until) = streams.read(1, start + STEP, STEP).unwrap();
            assert_eq!((from, until), (start + 2 * STEP, start + 6 * STEP));
            streams.asked(1, from, until);
            assert_eq!(streams.read(1, start + 2 * STEP, STEP), None);
        }
        // From the beginning at once; never more than the most.
        assert_eq!(streams.read(2, 0, STEP), Some((STEP, 3 * STEP)));
        for at in 1..200 {
            let wanted = streams.read(2, at * STEP, STEP);
            let Some((from, until)) = wanted else { continue };
            assert!(until <= (at + 1) * STEP + (8 << 20));
            streams.asked(2, from, until);
        }
    }
}
