//! What a restore does to what is there already, as data. It is found by going through everything without touching it, and
//! serves a rehearsal, the refusal, what is saved first, and the restore itself, which does nothing that is not in it.

use snap_format::Time;
use snap_source::{Doomed, Selection, Stat};

use crate::browse::join;

/// Paths that are named of those that were modified after the snapshot.
const EXAMPLES: usize = 5;

/// How much becomes of what is there already. Counts are entries, all below a deleted directory included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// They get other content, or become something else.
    pub overwritten: u64,
    /// They go.
    pub deleted: u64,
    /// They get another mode, owner or extended attribute alone.
    pub adjusted: u64,
    /// Of those overwritten: modified after the snapshot.
    pub newer_overwritten: u64,
    /// Of those deleted: modified after the snapshot.
    pub newer_deleted: u64,
    /// Bytes of the files among them: what has to be saved.
    pub bytes: u64,
}

/// What becomes of entries that are there already.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) counts: ChangeCounts,
    /// Paths of a few of those that were modified after the snapshot, below the target.
    pub(super) examples: Vec<Vec<u8>>,
    /// Absolute path of the target.
    top: Vec<u8>,
    /// The time of the snapshot.
    since: Time,
    pub(super) selection: Selection,
}

impl Changes {
    /// Of what stands at `top`, absolute; what was modified later than `since` is newer.
    pub(super) fn new(top: Vec<u8>, since: Time) -> Self {
        Self { top, since, ..Self::default() }
    }

    /// Whether anything has to be saved first.
    pub(super) fn has_losses(&self) -> bool {
        self.counts.overwritten + self.counts.deleted + self.counts.adjusted > 0
    }

    /// Later than the snapshot.
    pub(super) fn is_newer(&self, stat: &Stat) -> bool {
        stat.mtime > self.since
    }

    /// Of the snapshot.
    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn overwrite(&mut self, path: &[u8], stat: &Stat, is_newer: bool) {
        self.counts.overwritten += 1;
        self.counts.bytes += stat.size;
        self.note_newer(path, u64::from(is_newer), |counts| &mut counts.newer_overwritten);
        self.selection.add(&self.absolute(path), stat);
    }

    pub(super) fn adjust(&mut self, path: &[u8], stat: &Stat) {
        self.counts.adjusted += 1;
        self.counts.bytes += if stat.is_dir() { 0 } else { stat.size };
        self.selection.add(&self.absolute(path), stat);
    }

    /// Takes down a directory that gets another time, which is saved if anything else is.
    pub(super) fn touch(&mut self, path: &[u8], stat: &Stat) {
        self.selection.add(&self.absolute(path), stat);
    }

    pub(super) fn delete(&mut self, path: &[u8], doomed: &Doomed) {
        self.counts.deleted += doomed.entries;
        self.counts.bytes += doomed.bytes;
        self.note_newer(path, doomed.newer, |counts| &mut counts.newer_deleted);
        self.selection.add_whole(&self.absolute(path), doomed.digest);
    }

    fn note_newer(&mut self, path: &[u8], count: u64, counter: impl Fn(&mut ChangeCounts) -> &mut u64) {
        *counter(&mut self.counts) += count;
        if count > 0 && self.examples.len() < EXAMPLES {
            self.examples.push(path.to_vec());
        }
    }

    /// Whether the entry was found to be overwritten, and is still what it was then.
    pub(super) fn has(&self, path: &[u8], stat: &Stat) -> bool {
        self.selection.has(&self.absolute(path), stat)
    }

    /// The same for what is deleted.
    pub(super) fn has_doomed(&self, path: &[u8], doomed: &Doomed) -> bool {
        self.selection.has_whole(&self.absolute(path), doomed.digest)
    }

    /// The absolute path of one below the target.
    fn absolute(&self, path: &[u8]) -> Vec<u8> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if path.is_empty() { self.top.clone() } else { join(&self.top, path) }
    }
}
