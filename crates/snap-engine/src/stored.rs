//! Files of a snapshot for whoever restores them into something that is no file system.

use std::io::{self, Write};

use snap_format::{Node, NodeKind};
use snap_repo::Scratch;
use snap_source::{StoredFile, StoredFiles};

use crate::EngineError;
use crate::browse::{Browser, Found};

/// The files of a snapshot, read by whichever thread asks.
#[derive(Debug)]
pub struct SnapshotFiles<'a> {
    browser: &'a Browser,
}

impl<'a> SnapshotFiles<'a> {
    /// Those of this snapshot.
    pub fn new(browser: &'a Browser) -> Self {
        Self { browser }
    }
}

fn scratch() -> io::Result<Scratch> {
    // Nothing is compressed.
    Scratch::new(1)
}

fn other(error: EngineError) -> io::Error {
    match error {
        EngineError::Io { source, .. } => source,
        error => io::Error::other(error),
    }
}

fn stored(path: &[u8], node: &Node) -> Option<StoredFile> {
    let is_file = matches!(node.kind, NodeKind::File { .. });
    is_file.then(|| StoredFile { path: path.to_vec(), size_bytes: node.size(), xattrs: node.xattrs.clone() })
}

impl StoredFiles for SnapshotFiles<'_> {
    fn files(&self, path: &[u8]) -> io::Result<Vec<StoredFile>> {
        let mut scratch = scratch()?;
        let mut out = Vec::new();
        let tree = match self.browser.find(path, &mut scratch).map_err(other)? {
            Found::Root => self.browser.root(),
            Found::Node(node) => match node.tree() {
                Some(tree) => tree,
                None => return Ok(stored(path, &node).into_iter().collect()),
            },
        };
        let mut each = |path: &[u8], node: &Node| {
            out.extend(stored(path, node));
            Ok(true)
        };
        self.browser.walk(path, tree, &mut scratch, &mut each).map_err(other)?;
        Ok(out)
    }

    fn read(&self, path: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut scratch = scratch()?;
        match self.browser.find(path, &mut scratch).map_err(other)? {
            Found::Node(node) => self.browser.cat(&node, out, &mut scratch).map_err(other),
            Found::Root => Err(io::Error::new(io::ErrorKind::IsADirectory, "the root is no file")),
        }
    }
}
