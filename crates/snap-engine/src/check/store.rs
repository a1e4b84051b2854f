//! Reading objects from the store itself: never from a cache, never more than an object may be long.

use std::sync::atomic::{AtomicU64, Ordering};

use snap_backend::{Backend, BackendError, ErrorKind, ObjectName};
use snap_crypto::Hasher;
use snap_format::limits;
use snap_repo::{Finding, FindingCode, RepoError};

use crate::{Context, EngineError, Result};

/// Objects above this are hashed piece by piece: no object of the format is larger.
const LARGEST: u64 = limits::PACK;
const PIECE: u64 = 16 << 20;

/// How reading an object ended.
pub(super) enum Fetched<'b> {
    /// All of its bytes.
    Whole(&'b [u8]),
    /// It is larger than any object of the format; the hash of its bytes.
    TooLarge([u8; 32]),
    /// It was listed and is not there any more.
    Gone,
    /// It is there and cannot be read.
    Damaged(Finding),
}

/// A store whose reads are counted.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) context: Context<'a>,
    pub(super) read_bytes: &'a AtomicU64,
}

impl Store<'_> {
    /// Reads an object of a listed size; `buffer` only grows. Ranges are asked for, which no cache answers.
    pub(super) fn fetch<'b>(
        &self,
        name: &ObjectName,
        size: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Fetched<'b>> {
        self.context.check_stop()?;
        let length = size.min(if size > LARGEST { PIECE } else { LARGEST }) as usize;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        if size > LARGEST {
            return self.hash_pieces(name, size, &mut buffer[..length]);
        }
        match self.backend.get_into(name, 0, &mut buffer[..length]) {
            Ok(()) => {
                self.count(size);
                Ok(Fetched::Whole(&buffer[..length]))
            }
            Err(error) => failed(name, error),
        }
    }

    fn hash_pieces<'b>(&self, name: &ObjectName, size: u64, piece: &mut [u8]) -> Result<Fetched<'b>> {
        let mut hasher = Hasher::default();
        let mut at = 0;
        while at < size {
            self.context.check_stop()?;
            let length = (size - at).min(PIECE);
            let part = &mut piece[..length as usize];
            if let Err(error) = self.backend.get_into(name, at, part) {
                return failed(name, error);
            }
            hasher.update(part);
            self.count(length);
            at += length;
        }
        Ok(Fetched::TooLarge(hasher.finish()))
    }

    pub(super) fn count(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An object that cannot be read is damage; a store that does not answer ends the check.
fn failed<'b>(name: &ObjectName, error: BackendError) -> Result<Fetched<'b>> {
    let why = match error.kind() {
        ErrorKind::NotFound => return Ok(Fetched::Gone),
        ErrorKind::OutOfRange | ErrorKind::Truncated => "it is shorter than the store lists it".to_owned(),
        ErrorKind::Other => format!("it cannot be read: {error}"),
        _ => return Err(EngineError::from(RepoError::from(error))),
    };
    Ok(Fetched::Damaged(Finding::new(FindingCode::Corrupt, name.as_str(), why)))
}
