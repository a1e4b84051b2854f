//! Trees on local disk: one base file and a few later ones, and a small file `current` that names them, the snapshot and the
//! root they belong to. All but `current` are written once. A commit replaces `current` as a whole, so readers see the old
//! state or the new one; whatever is missing, damaged or of another repository is as if it had never been there.

mod file;
mod places;

use std::collections::HashMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use snap_crypto::hash;
use snap_format::{BlobId, Content, ObjectId, RepoId, TreeBlob};

use self::file::FileName;
pub(super) use self::file::{TreeFile, TreeFileWriter, create_nameless, read_place};
pub(super) use self::places::{ENTRY, Place, Places, Table};

const MAGIC: &[u8; 8] = b"SNAPTREC";
const CURRENT: &str = "current";
const LOCK: &str = "lock";
/// More files than there ever are.
const MAX_FILES: usize = 128;
/// Times that a reader looks again because the files it was told of have been replaced.
const LOOKS: usize = 3;

/// Tells whether a tree is the one that its id names.
pub(super) type IsRight<'a> = dyn Fn(&BlobId, &[u8]) -> bool + 'a;

/// Finds trees elsewhere.
pub(super) type Others<'a> = dyn Fn(&BlobId) -> Option<Found> + 'a;

/// Makes a directory of the cache; what an older version left in its place goes.
fn make_dir(dir: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().recursive(true).mode(0o700).create(dir);
    match make() {
        Err(_) if dir.is_file() => {
            std::fs::remove_file(dir)?;
            make()
        }
        outcome => outcome,
    }
}

/// What `current` says.
struct Current {
    snapshot: ObjectId,
    root: BlobId,
    files: Vec<(FileName, u64)>,
}

impl Current {
    fn encode(&self, repository: &RepoId) -> Vec<u8> {
        let mut out = [MAGIC.as_slice(), &self.snapshot.0, &self.root.0].concat();
        for (name, size) in &self.files {
            out.extend_from_slice(&name.0);
            out.extend_from_slice(&size.to_le_bytes());
        }
        let checksum = hash(&[repository.0.as_slice(), &out].concat());
        out.extend_from_slice(&checksum);
        out
    }

    fn decode(bytes: &[u8], repository: &RepoId) -> Option<Self> {
        let (said, checksum) = bytes.split_last_chunk::<32>()?;
        if hash(&[repository.0.as_slice(), said].concat()) != *checksum {
            return None;
        }
        let (snapshot, rest) = said.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        let (files, rest) = rest.as_chunks::<24>();
        if !rest.is_empty() || files.len() > MAX_FILES {
            return None;
        }
        let file = |bytes: &[u8; 24]| {
            let (name, size) = bytes.split_first_chunk::<16>()?;
            Some((FileName(*name), u64::from_le_bytes(*size.first_chunk()?)))
        };
        let files = files.iter().map(file).collect::<Option<_>>()?;
        Some(Self { snapshot: ObjectId(*snapshot), root: BlobId(*root), files })
    }
}

/// A tree that was found, and where: the number of a table, how many it holds, and the position in it.
pub(super) struct Found {
    pub(super) table: usize,
    pub(super) count: u64,
    pub(super) position: u64,
    pub(super) plain: Vec<u8>,
}

/// Remembers which entries of tables were met, in one bit each.
#[derive(Default)]
pub(super) struct Seen(HashMap<usize, Vec<u64>>);

impl Seen {
    /// Notes what was found; true if it is met for the first time.
    pub(super) fn is_first(&mut self, found: &Found) -> bool {
        let words = self.0.entry(found.table).or_insert_with(|| vec![0; found.count as usize / 64 + 1]);
        let (word, bit) = (&mut words[found.position as usize / 64], 1 << (found.position % 64));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    }
}

/// What a tree refers to that is a tree blob itself, in order.
pub(super) fn children(tree: &TreeBlob) -> Vec<BlobId> {
    match tree {
        TreeBlob::Leaf(nodes) => nodes
            .iter()
            .flat_map(|node| {
                let lists: &[BlobId] = match node.content() {
                    Some(Content::Lists(lists)) => lists,
                    _ => &[],
                };
                node.tree().into_iter().chain(lists.iter().copied())
            })
            .collect(),
        TreeBlob::Branch(entries) => entries.iter().map(|entry| entry.id).collect(),
        TreeBlob::Content(_) => Vec::new(),
    }
}

/// Which files to merge, the oldest first: from the first on that is not more than twice as long as all later ones. So there
/// are few, each byte is copied a few times in its life, and the base is written anew when half as much has been added.
fn merge_from(sizes: &[u64]) -> Option<usize> {
    let later = |at: usize| sizes[at + 1..].iter().sum::<u64>();
    (0..sizes.len().saturating_sub(1)).find(|at| sizes[*at] <= later(*at).saturating_mul(2))
}

/// The trees of one dataset and host, as they were when this was opened.
pub(super) struct TreeStore {
    dir: PathBuf,
    repository: RepoId,
    /// The bytes of `current`, whatever they are.
    current: Option<Vec<u8>>,
    /// Snapshot and root.
    state: Option<(ObjectId, BlobId)>,
    /// The newest last.
    files: Vec<TreeFile>,
}

impl TreeStore {
    /// Opens what is in `dir`; writes nothing.
    pub(super) fn open(dir: PathBuf, repository: RepoId) -> Self {
        let mut store = Self { dir, repository, current: None, state: None, files: Vec::new() };
        for _ in 0..LOOKS {
            let now = store.read_current();
            let before = std::mem::replace(&mut store.current, now);
            let Some(current) =
                store.current.as_ref().and_then(|bytes| Current::decode(bytes, &store.repository))
            else {
                break;
            };
            let open = |(name, size): &(_, _)| TreeFile::open(&store.dir, *name, *size, &store.repository);
            if let Some(files) = current.files.iter().map(open).collect() {
                store.files = files;
                store.state = Some((current.snapshot, current.root));
                break;
            }
            if before == store.current {
                break; // not replaced meanwhile: damaged
            }
        }
        store
    }

    fn read_current(&self) -> Option<Vec<u8>> {
        std::fs::read(self.dir.join(CURRENT)).ok()
    }

    /// The snapshot and the root that the trees belong to.
    pub(super) fn state(&self) -> Option<(ObjectId, BlobId)> {
        self.state
    }

    /// Where a new file of trees may be written.
    pub(super) fn writer(&self) -> io::Result<TreeFileWriter> {
        TreeFileWriter::create(&self.dir, self.repository)
    }

    /// Where files may be put for the time of a run.
    pub(super) fn dir(&self) -> io::Result<&Path> {
        make_dir(&self.dir).map(|()| self.dir.as_path())
    }

    /// Finds a tree that is right.
    pub(super) fn find(&self, id: &BlobId, is_right: &IsRight<'_>) -> Option<Vec<u8>> {
        find_in(&self.files, id, is_right).map(|found| found.plain)
    }

    /// Makes what is here, with the trees in `new`, the trees of `root`. With `others`, which finds trees elsewhere, all that
    /// belongs to the root is written anew, from wherever it is. If another process was faster, its work stands.
    pub(super) fn commit(
        mut self,
        new: Option<TreeFileWriter>,
        others: Option<&Others<'_>>,
        (snapshot, root): (ObjectId, BlobId),
        is_right: &IsRight<'_>,
    ) -> io::Result<()> {
        make_dir(&self.dir)?;
        let lock =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(self.dir.join(LOCK))?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) || self.read_current() != self.current {
            return Ok(());
        }
        // If anything fails below, what was finished is removed by a later commit.
        let mut files = std::mem::take(&mut self.files);
        if let Some(new) = new {
            files.push(new.finish()?);
        }
        let sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
        let from = if others.is_some() { Some(0) } else { merge_from(&sizes) };
        if let Some(from) = from {
            let mut merged = self.writer()?;
            if from == 0 {
                let other = |id: &BlobId| {
                    let found = others?(id)?;
                    Some(Found { table: MAX_FILES + found.table, ..found })
                };
                let find = |id: &BlobId| find_in(&files, id, is_right).or_else(|| other(id));
                copy_reachable(root, find, &mut merged)?;
            } else {
                files[from..].iter().try_for_each(|file| merged.append(file))?;
            }
            files.truncate(from);
            files.push(merged.finish()?);
        }
        let files: Vec<_> = files.iter().map(|file| (file.name, file.size)).collect();
        let current = Current { snapshot, root, files };
        self.replace_current(&current.encode(&self.repository))?;
        self.clean_up(&current);
        Ok(())
    }

    fn replace_current(&self, bytes: &[u8]) -> io::Result<()> {
        file::replace(&self.dir, CURRENT, bytes)
    }

    /// Removes what nobody names and nobody is writing. Only called with the lock, under which `current` stays as it is.
    fn clean_up(&self, current: &Current) {
        let named: Vec<String> = current.files.iter().map(|(name, _)| name.text()).collect();
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_kept = name.to_str().is_some_and(|name| {
                [CURRENT, LOCK].contains(&name) || named.iter().any(|named| named == name)
            });
            let is_idle = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
            if !is_kept && is_idle() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// The newest right one of a tree.
fn find_in(files: &[TreeFile], id: &BlobId, is_right: &IsRight<'_>) -> Option<Found> {
    files.iter().enumerate().rev().find_map(|(number, file)| {
        let (position, place) = file.table.find(&file.file, id)?;
        let plain = read_place(&file.file, place).filter(|plain| is_right(id, plain))?;
        Some(Found { table: number, count: file.table.count, position, plain })
    })
}

/// Writes all trees below `root` that can be found, each before those below it, as a run reads them.
fn copy_reachable(
    root: BlobId,
    find: impl Fn(&BlobId) -> Option<Found>,
    out: &mut TreeFileWriter,
) -> io::Result<()> {
    let mut seen = Seen::default();
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        let Some(found) = find(&id) else { continue };
        if seen.is_first(&found) {
            out.add(id, &found.plain)?;
            if let Ok(tree) = TreeBlob::decode(&found.plain) {
                waiting.extend(children(&tree).into_iter().rev());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
