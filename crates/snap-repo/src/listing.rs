use snap_backend::{Backend, Timestamp};
use snap_format::ObjectId;

use crate::{Area, Repository, Result, parse_object_name};

/// An object as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) id: ObjectId,
    /// Bytes.
    pub(crate) size: u64,
    /// By the store's own clock.
    pub(crate) stored: Option<Timestamp>,
}

/// The objects of an area, sorted; names that are not of the format are left out.
pub(crate) fn list_area(backend: &dyn Backend, area: Area) -> Result<Vec<Listed>> {
    let mut out = Vec::new();
    backend.list(area.prefix(), &mut |meta| {
        if let Some((_, id)) = parse_object_name(meta.name.as_str()) {
            out.push(Listed { id, size: meta.size_bytes, stored: meta.modified });
        }
        Ok(())
    })?;
    out.sort_unstable();
    Ok(out)
}

impl Repository {
    /// Ids of the objects in an area, with their sizes; names that are not of the format are left out.
    pub fn list(&self, area: Area) -> Result<Vec<(ObjectId, u64)>> {
        let listed = list_area(self.backend().as_ref(), area)?;
        Ok(listed.iter().map(|object| (object.id, object.size)).collect())
    }
}
