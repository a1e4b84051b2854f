//! Restoring to a tar stream.

use std::collections::{HashSet, VecDeque};
use std::io::{BufWriter, Write};

use snap_format::{Link, Node, NodeKind};
use snap_repo::Scratch;
use snap_source::{PathMatcher, TarError, TarWriter, Verdict};

use super::Restore;
use crate::browse::Found;
use crate::read_ahead::{FileReader, ReadAhead};
use crate::{EngineError, Phase, Result};

/// Entries, and bytes of their contents, that are asked for before the first of them is written: enough to keep all threads
/// reading where files are small.
const ENTRIES_AHEAD: usize = 1024;
const BYTES_AHEAD: u64 = 32 << 20;

/// Writes `path` of the snapshot as a tar: paths relative to it, or to the root.
pub(super) fn write(restore: &Restore<'_>, path: Option<&[u8]>, out: Box<dyn Write + Send>) -> Result<()> {
    let new_scratch =
        || Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error));
    let (mut scratch, content_scratch) = (new_scratch()?, new_scratch()?);
    let options = restore.options;
    let roots: Vec<_> = restore.browser.paths().iter().map(|path| super::to_path(path)).collect();
    let matcher = PathMatcher::below(&roots, &options.include, &options.exclude)
        .map_err(|error| EngineError::Pattern(error.to_string()))?;
    restore.context.progress.begin(Phase::Restoring, 0, 0);
    let found = restore.browser.find(path.unwrap_or_default(), &mut scratch)?;
    let (base, tree) = match &found {
        Found::Root => (Vec::new(), Some(restore.browser.root())),
        Found::Node(node) => (super::plan::normal(path.unwrap_or_default()), node.tree()),
    };
    let threads = restore.browser.reading_threads(restore.context.threads);
    ReadAhead::scope(restore.browser, threads, restore.context.memory_bytes, |ahead| {
        let mut archive = Archive {
            restore,
            ahead,
            tar: TarWriter::new(BufWriter::with_capacity(1 << 20, out)),
            scratch: content_scratch,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            links: HashSet::new(),
        };
        match (tree, &found) {
            (Some(tree), _) => {
                let mut each = |full: &[u8], node: &Node| {
                    let verdict = matcher.matches(full, node.tree().is_some());
                    if verdict == Verdict::Take {
                        let relative = full.get(base.len()..).unwrap_or(full);
                        let relative = relative.strip_prefix(b"/").unwrap_or(relative);
                        archive.add(relative, full, node)?;
                    }
                    Ok(verdict != Verdict::Skip)
                };
                let mut lost = |path: &[u8], error| restore.lost(path, error);
                restore.browser.walk_past(&base, tree, &mut scratch, &mut each, &mut lost)?;
            }
            (None, Found::Node(node)) => archive.add(&node.name, &base, node)?,
            (None, Found::Root) => {}
        }
        archive.finish()
    })
}

/// An entry whose content is being read.
struct Entry<'s, 'a> {
    name: Vec<u8>,
    full: Vec<u8>,
    node: Node,
    content: FileReader<'s, 'a>,
}

struct Archive<'s, 'a> {
    restore: &'s Restore<'a>,
    ahead: &'s ReadAhead<'a>,
    tar: TarWriter<BufWriter<Box<dyn Write + Send>>>,
    scratch: Scratch,
    waiting: VecDeque<Entry<'s, 'a>>,
    waiting_bytes: u64,
    /// Files of which the first name was met: the archive holds their content once.
    links: HashSet<Link>,
}

fn failed(error: std::io::Error) -> EngineError {
    EngineError::io("writing", b"the tar stream", error)
}

impl Archive<'_, '_> {
    fn add(&mut self, name: &[u8], full: &[u8], node: &Node) -> Result<()> {
        let link = node.link.filter(|_| matches!(node.kind, NodeKind::File { .. }));
        let is_further_name = link.is_some_and(|link| !self.links.insert(link));
        let ids = match self.restore.browser.file_blobs(node, &mut self.scratch) {
            Ok(_) if is_further_name => Vec::new(),
            Ok(ids) => ids,
            Err(error) => return self.restore.lost(full, error),
        };
        self.waiting_bytes += node.size();
        let content = self.ahead.file(ids);
        self.waiting.push_back(Entry {
            name: name.to_vec(),
            full: full.to_vec(),
            node: node.clone(),
            content,
        });
        while self.waiting.len() > ENTRIES_AHEAD || self.waiting_bytes > BYTES_AHEAD {
            self.write_first()?;
        }
        Ok(())
    }

    fn write_first(&mut self) -> Result<()> {
        let restore = self.restore;
        restore.context.check_stop()?;
        let Some(Entry { name, full, node, mut content }) = self.waiting.pop_front() else { return Ok(()) };
        self.waiting_bytes -= node.size();
        match self.tar.append(&name, &node, node.size(), &mut content) {
            Ok(()) => {
                super::bump(&restore.counts.restored, 1);
                super::bump(&restore.counts.restored_bytes, node.size());
                restore.context.progress.add(1, node.size());
                Ok(())
            }
            // The archive goes on with zeros in place of what is lost; the loss is named.
            Err(TarError::Content(error)) => match content.take_failure() {
                Some(failure) => restore.lost(&full, failure),
                None => Err(failed(error)),
            },
            Err(TarError::Unfit(why)) => {
                restore.context.note(&full, why);
                Ok(())
            }
            Err(TarError::Output(error)) => Err(failed(error)),
        }
    }

    fn finish(mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.write_first()?;
        }
        let mut out = self.tar.finish().map_err(failed)?;
        out.flush().map_err(failed)
    }
}
