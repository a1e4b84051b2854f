//! Restoring to a tar stream.

use std::io::{BufWriter, Write};

use snap_format::Node;
use snap_repo::Scratch;
use snap_source::{PathMatcher, TarError, TarWriter, Verdict};

use super::Restore;
use crate::browse::{FileReader, Found};
use crate::{EngineError, Phase, Result};

/// Writes `path` of the snapshot as a tar: paths relative to it, or to the root.
pub(super) fn write(restore: &Restore<'_>, path: Option<&[u8]>, out: Box<dyn Write + Send>) -> Result<()> {
    let new_scratch =
        || Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error));
    let (mut scratch, mut content_scratch) = (new_scratch()?, new_scratch()?);
    let options = restore.options;
    let roots: Vec<_> = restore.browser.paths().iter().map(|path| super::to_path(path)).collect();
    let matcher = PathMatcher::below(&roots, &options.include, &options.exclude)
        .map_err(|error| EngineError::Pattern(error.to_string()))?;
    restore.context.progress.begin(Phase::Restoring, 0, 0);
    let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 20, out));
    let failed = |error| EngineError::io("writing", b"the tar stream", error);
    let mut append = |name: &[u8], full: &[u8], node: &Node| -> Result<()> {
        restore.context.check_stop()?;
        let blobs = match restore.browser.file_blobs(node, &mut content_scratch) {
            Ok(blobs) => blobs,
            Err(error) => return restore.lost(full, error),
        };
        let mut reader = FileReader::new(restore.browser, blobs, &mut content_scratch);
        match tar.append(name, node, node.size(), &mut reader) {
            Ok(()) => {
                super::bump(&restore.counts.restored, 1);
                super::bump(&restore.counts.restored_bytes, node.size());
                restore.context.progress.add(1, node.size());
                Ok(())
            }
            // The archive goes on with zeros in place of what is lost; the loss is named.
            Err(TarError::Content(error)) => match reader.failure.take() {
                Some(failure) => restore.lost(full, failure),
                None => Err(failed(error)),
            },
            Err(TarError::Unfit(why)) => {
                restore.context.note(full, why);
                Ok(())
            }
            Err(TarError::Output(error)) => Err(failed(error)),
        }
    };
    let found = restore.browser.find(path.unwrap_or_default(), &mut scratch)?;
    let (base, tree) = match &found {
        Found::Root => (Vec::new(), Some(restore.browser.root())),
        Found::Node(node) => (super::plan::normal(path.unwrap_or_default()), node.tree()),
    };
    match (tree, &found) {
        (Some(tree), _) => {
            let mut each = |full: &[u8], node: &Node| {
                let verdict = matcher.matches(full, node.tree().is_some());
                if verdict == Verdict::Take {
                    let relative = full.get(base.len()..).unwrap_or(full);
                    let relative = relative.strip_prefix(b"/").unwrap_or(relative);
                    append(relative, full, node)?;
                }
                Ok(verdict != Verdict::Skip)
            };
            let mut lost = |path: &[u8], error| restore.lost(path, error);
            restore.browser.walk_past(&base, tree, &mut scratch, &mut each, &mut lost)?;
        }
        (None, Found::Node(node)) => append(&node.name.clone(), &base, node)?,
        (None, Found::Root) => {}
    }
    let mut out = tar.finish().map_err(failed)?;
    out.flush().map_err(failed)
}
