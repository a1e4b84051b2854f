//! A set of streams: from their paths to a tree whose files are read side by side.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use snap_format::{Details, Node, Time};
use snap_source::{EntryStream, StreamSource};

use super::dir::Before;
use super::dir_state::{DirState, Expected, NO_TREE, listed};
use super::entries::profile_of;
use super::plan::stream_item;
use super::run::{Run, Worker, bump};
use super::stream::{ByteSource, Ended, start_bytes};
use crate::browse::join;
use crate::{EngineError, Result};

/// What lies at a path.
enum Branch {
    Entry(usize),
    Dir(BTreeMap<Vec<u8>, Branch>),
}

/// An entry whose turn is to come, in the order of the source.
struct Waiting {
    entry: usize,
    dir: Arc<DirState>,
    slot: usize,
    name: Vec<u8>,
    before: Option<Node>,
}

/// The entries of the root that the streams lie in.
pub(super) fn tops(entries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let top = |path: &Vec<u8>| {
        path.split(|byte| *byte == b'/').find(|name| !name.is_empty()).map(|name| join(b"/", name))
    };
    let mut tops: Vec<_> = entries.iter().filter_map(top).collect();
    tops.sort();
    tops.dedup();
    tops
}

/// Asks the source, whose streams have all ended, for what it knows of the whole.
pub(super) fn finish(source: &dyn StreamSource) -> Result<Details> {
    source.finish().map_err(|source| EngineError::Stream { what: "the database".into(), source })
}

/// Puts all streams on the queue, in the order of the source.
pub(super) fn start(
    run: &Run<'_>,
    source: &Arc<dyn StreamSource>,
    before: Option<Node>,
    time: Time,
    worker: &mut Worker,
) -> Result<()> {
    let mut waiting = Vec::new();
    let mut root = BTreeMap::new();
    for (entry, path) in source.entries().iter().enumerate() {
        add(&mut root, path, entry)?;
    }
    let top = DirState::new(b"/".to_vec(), None);
    start_dir(run, &top, root, before.as_ref(), None, &mut waiting, worker)?;
    waiting.sort_by_key(|waiting| waiting.entry);
    let owner = snap_source::process_owner();
    for Waiting { entry, dir, slot, name, before } in waiting {
        let mut item = stream_item(&name, time, owner);
        (item.slot, item.profile) = (slot, before.as_ref().and_then(profile_of));
        let path = join(&dir.path, &name);
        let bytes = SetBytes { source: Arc::clone(source), entry, path, stream: None, read: 0 };
        start_bytes(run, &dir, item, before.map(Box::new), Box::new(bytes));
    }
    Ok(())
}

fn add(root: &mut BTreeMap<Vec<u8>, Branch>, path: &[u8], entry: usize) -> Result<()> {
    let refused = |why: &str| EngineError::Refused(format!("{}: {why}", String::from_utf8_lossy(path)));
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    let last = names.pop().unwrap_or_default();
    if !path.starts_with(b"/") || !names.iter().chain([&last]).all(|name| Node::name_is_safe(name)) {
        return Err(refused("not the path of an entry"));
    }
    let mut below = root;
    for name in names {
        let next = below.entry(name.to_vec()).or_insert_with(|| Branch::Dir(BTreeMap::new()));
        below = match next {
            Branch::Dir(next) => next,
            Branch::Entry(_) => return Err(refused("an entry lies above it")),
        };
    }
    match below.insert(last.to_vec(), Branch::Entry(entry)) {
        None => Ok(()),
        Some(_) => Err(refused("two entries have this path")),
    }
}

fn start_dir(
    run: &Run<'_>,
    state: &Arc<DirState>,
    below: BTreeMap<Vec<u8>, Branch>,
    before: Option<&Node>,
    node: Option<Node>,
    waiting: &mut Vec<Waiting>,
    worker: &mut Worker,
) -> Result<()> {
    state.expect(Expected::waiting(below.len()), node);
    let mut known = Before::new(run, before.and_then(Node::tree));
    for (slot, (name, branch)) in below.into_iter().enumerate() {
        let before = known.of(&name, &mut worker.scratch);
        match branch {
            Branch::Entry(entry) => {
                waiting.push(Waiting { entry, dir: Arc::clone(state), slot, name, before });
            }
            Branch::Dir(below) => {
                bump(&run.counts.dirs);
                let child = DirState::new(join(&state.path, &name), Some((Arc::clone(state), slot)));
                // As for the directories above a source: no times.
                let mut node = Node::new(name, NO_TREE, Time::default());
                node.mode = 0o755;
                (node.uid, node.gid) = snap_source::process_owner();
                start_dir(run, &child, below, before.as_ref(), Some(node), waiting, worker)?;
            }
        }
    }
    listed(run, state, &mut worker.scratch)
}

/// An entry, opened when its first byte is wanted.
struct SetBytes {
    source: Arc<dyn StreamSource>,
    entry: usize,
    path: Vec<u8>,
    stream: Option<Box<dyn EntryStream>>,
    read: u64,
}

impl ByteSource for SetBytes {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stream.is_none() {
            self.stream = Some(self.source.open(self.entry)?);
        }
        let stream = self.stream.as_mut().expect("it was just opened");
        let mut filled = 0;
        while filled < buffer.len() {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.read += filled as u64;
        Ok(filled)
    }

    fn finish(&mut self) -> Ended {
        let mut stream = self.stream.take().expect("it was read to its end");
        match stream.finish() {
            Ok(xattrs) => Ended::Stream(self.read, xattrs),
            Err(error) => Ended::Failed(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> EngineError {
        EngineError::Stream { what: String::from_utf8_lossy(&self.path).into_owned(), source }
    }
}
