//! Reading back what was restored.

use std::collections::HashSet;
use std::io;

use snap_format::NodeKind;
use snap_repo::for_each_parallel;

use super::Restore;
use super::plan::{FileTask, Plan};
use crate::Result;

/// Reads every file that was written, and not lost, and hashes it again; a difference is a failure of that file.
pub(super) fn verify(restore: &Restore<'_>, plan: &Plan, lost: &HashSet<usize>) -> Result<()> {
    let written = plan.files.iter().enumerate().filter(|(number, _)| !lost.contains(number));
    let written: Vec<&FileTask> = written.map(|(_, task)| task).collect();
    let bytes = written.iter().map(|task| task.node.size()).sum();
    restore.expect(written.len() as u64, bytes);
    for_each_parallel(&written, restore.context.threads, |task| {
        restore.context.check_stop()?;
        if let Err(error) = verify_file(restore, plan, task) {
            restore.failed(&plan.dirs.path(task.dir, &task.node.name), &error);
        }
        restore.context.progress.add(1, task.node.size());
        Ok(())
    })
}

fn verify_file(restore: &Restore<'_>, plan: &Plan, task: &FileTask) -> io::Result<()> {
    let dir = plan.dirs.open(task.dir)?.as_source();
    let file = dir.open_file(&task.node.name)?;
    let differs =
        || io::Error::new(io::ErrorKind::InvalidData, "what was read back differs from the snapshot");
    if file.opened_stat().size != task.node.size() {
        return Err(differs());
    }
    let holes: &[(u64, u64)] = match &task.node.kind {
        NodeKind::File { holes, .. } => holes,
        _ => &[],
    };
    let reader = restore.browser.reader();
    let domain = restore.browser.domain();
    let mut holes = holes.iter().peekable();
    let (mut offset, mut chunk) = (0, Vec::new());
    for id in &task.blobs {
        chunk.resize(reader.plain_len(&domain.name, id).unwrap_or(0) as usize, 0);
        let mut filled = 0;
        while filled < chunk.len() {
            while let Some((_, length)) = holes.next_if(|(start, _)| *start == offset) {
                offset += length;
            }
            let until = holes.peek().map_or(u64::MAX, |(start, _)| start - offset);
            let want = (chunk.len() - filled).min(usize::try_from(until).unwrap_or(usize::MAX));
            let read = file.read_at(&mut chunk[filled..filled + want], offset)?;
            if read == 0 {
                return Err(differs());
            }
            (filled, offset) = (filled + read, offset + read as u64);
        }
        if domain.data_id.id(&chunk) != id.0 {
            return Err(differs());
        }
    }
    Ok(())
}
