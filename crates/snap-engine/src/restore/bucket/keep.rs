//! Saving the objects that are about to be overwritten or deleted.

use std::path::Path;

use snap_backend::Bucket;
use snap_repo::RepoError;
use snap_source::{TargetDir, TargetFile};

use super::super::keep::{Keeper, Kept};
use super::Victims;
use crate::{Context, EngineError, Result};

/// Bytes that are asked for at a time.
const REQUEST: u64 = 4 << 20;

/// Saves all of them, or the restore must not be.
pub(super) fn keep(
    keeper: &Keeper<'_>,
    bucket: &Bucket,
    victims: &Victims,
    context: Context<'_>,
) -> Result<Option<Kept>> {
    let refused = |why: &str| Err(EngineError::Refused(why.to_owned()));
    let kept = match keeper {
        Keeper::Nowhere => return Ok(None),
        Keeper::Dir(dir) => keep_in(dir, bucket, victims, context).map(|()| Kept::Dir(dir.clone())),
        Keeper::Snapshot(_) => refused("objects of a bucket cannot be saved in a snapshot yet"),
        Keeper::Unable(why) => refused(why),
    };
    match kept {
        Ok(kept) => Ok(Some(kept)),
        Err(EngineError::Interrupted) => Err(EngineError::Interrupted),
        Err(source) => Err(EngineError::NotSaved { source: Box::new(source) }),
    }
}

fn keep_in(dir: &Path, bucket: &Bucket, victims: &Victims, context: Context<'_>) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = dir.as_os_str().as_bytes();
    let failed = |error| EngineError::io("saving into", bytes, error);
    let (top, is_new) = TargetDir::open_or_create(dir, 0o700).map_err(failed)?;
    if !is_new {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    for (key, (size, _)) in victims {
        context.check_stop()?;
        let file = make(&top, key).map_err(|error| EngineError::io("saving", key.as_bytes(), error))?;
        let mut at = 0;
        while at < *size {
            let bytes = bucket.read(key, at, REQUEST.min(size - at)).map_err(RepoError::from)?;
            file.write_at(&bytes, at).map_err(|error| EngineError::io("saving", key.as_bytes(), error))?;
            at += bytes.len() as u64;
        }
        file.sync().map_err(|error| EngineError::io("saving", key.as_bytes(), error))?;
    }
    top.sync().map_err(failed)
}

/// The file of an object, below directories of its parts. A part that no file can have, or two objects of which one has the
/// name of the other's directory, is an error.
fn make(top: &TargetDir, key: &str) -> std::io::Result<TargetFile> {
    let mut parts: Vec<&str> = key.split('/').collect();
    let name = parts.pop().expect("a split has a last part");
    let mut dir = top.clone();
    for part in parts {
        dir = dir.make_child(part.as_bytes())?.0;
    }
    dir.create_file(name.as_bytes())
}
