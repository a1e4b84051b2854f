//! The outside world as entries, and back: file systems by directory handle, filters, tar output.
//!
//! A [`SourceDir`] is an open directory to read from and a [`TargetDir`] one to restore into; files come
//! from them as [`SourceFile`] and [`TargetFile`]. Whatever is below the directory that the user named is
//! reached by a handle and one component: no symlink is followed, no `..` passes, and the length of a path
//! does not matter. What was replaced between listing and opening is an error that [`was_replaced`] knows.
//! A [`Filter`] says what of a source is left out, a [`PathMatcher`] what of a snapshot is restored, a
//! [`Selection`] what of a target has to be saved before that.
//! [`TargetDir::apply_child`] and its siblings give an entry its metadata and return as [`ApplyNote`]s
//! what this user may not set. A [`TarWriter`] is the other way out.
//!
//! ```
//! use snap_source::{ApplyOptions, FileType, SourceDir, TargetDir};
//!
//! # let directory = tempfile::tempdir()?;
//! # let (from, to) = (directory.path().join("from"), directory.path().join("to"));
//! # std::fs::create_dir(&from)?;
//! # std::fs::write(from.join("a"), "content")?;
//! let source = SourceDir::open(&from)?;
//! let (target, _created) = TargetDir::open_or_create(&to, 0o755)?;
//! for entry in source.entries()?.into_iter().flatten().filter(|entry| entry.stat.kind == FileType::File) {
//!     let file = source.open_file(&entry.name)?;
//!     let mut content = vec![0; entry.stat.size as usize];
//!     let length = file.read_at(&mut content, 0)?;
//!     target.create_file(&entry.name)?.write_at(&content[..length], 0)?;
//! }
//! # assert_eq!(std::fs::read(to.join("a"))?, b"content");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Not here: what becomes of the bytes (`snap-engine`), and anything of a repository.

mod apply;
mod filter;
mod holes;
mod linux;
mod matcher;
mod names;
mod patterns;
mod selection;
mod source;
mod stat;
mod streams;
mod tar;
mod target;

pub use apply::{ApplyNote, ApplyOptions, Owner, OwnerMap};
pub use filter::{Filter, FilterError, FilterOptions};
pub use holes::WithHoles;
pub use linux::dir::{EntryResult, entry_name};
pub use matcher::{PathMatcher, Verdict};
pub use names::Names;
pub use selection::{Doomed, Selection};
pub use source::{Located, Residency, SourceDir, SourceFile};
pub use stat::{Entry, FileType, Stat};
pub use streams::{EntryStream, StoredFile, StoredFiles, StreamSource};
pub use tar::{TarError, TarWriter};
pub use target::{TargetDir, TargetFile};

/// Whether an open failed because the entry is no longer of the type it was listed with: someone put a
/// link, a pipe or a directory in its place. Look again, or treat it as vanished.
pub fn was_replaced(error: &std::io::Error) -> bool {
    linux::was_replaced(error)
}

/// Lets this process open as many files as the system allows, and tells how many: every level of a tree
/// that is being walked holds a handle. For a program to call once, as it starts.
pub fn raise_open_files_limit() -> std::io::Result<u64> {
    linux::raise_open_files_limit()
}

/// How many files this process may have open at a time.
pub fn open_files_limit() -> u64 {
    linux::open_files_limit()
}

/// User and group of this process: who owns what comes from a stream.
pub fn process_owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
