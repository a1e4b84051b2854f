//! Packs of trees read whole: whoever wants most of the trees in a pack gets them in one request.

use snap_backend::{BackendError, Bytes, ErrorKind, Operation};
use snap_format::{BlobId, BlobKind, limits};

use crate::pack::parse_pack;
use crate::{
    Area, BlobReader, DomainKeys, Located, PackInfo, RepoError, Result, Scratch, object_name, pack_places,
};

/// A pack of trees in memory, its header verified.
#[derive(Debug)]
pub struct TreePack {
    bytes: Bytes,
    trees: Vec<(BlobId, Located)>,
}

impl TreePack {
    /// The trees in it, in the order in which they lie there.
    pub fn trees(&self) -> &[(BlobId, Located)] {
        &self.trees
    }
}

impl BlobReader {
    /// Size of a pack as the index gives it, bytes; 0 if the index has lost it.
    pub fn pack_size(&self, pack: u32) -> u64 {
        self.index().pack(pack).map_or(0, |info| info.size)
    }

    /// Fetches the pack with a number of the index, which holds trees of `domain`, in one request.
    pub fn tree_pack(&self, domain: &DomainKeys, pack: u32) -> Result<TreePack> {
        let Some(PackInfo { id, size, .. }) = self.index().pack(pack) else {
            self.index().check()?;
            return Err(RepoError::corrupt("index", "it does not have the pack any more"));
        };
        let name = object_name(Area::Packs, &id);
        let damaged = |why: &str| RepoError::corrupt(name.as_str(), why);
        if size > limits::PACK {
            return Err(damaged("it is larger than any pack"));
        }
        let backend = self.repository().backend();
        let bytes = backend.get_range(&name, 0, size)?;
        if bytes.len() as u64 != size {
            let error = BackendError::new(ErrorKind::Truncated, Operation::GetRange);
            return Err(error.with_name(name.as_str()).with_location(backend.location()).into());
        }
        let found = parse_pack(self.repository().keyring(), id, &bytes)?.pack;
        if found.kind != BlobKind::Tree || found.domain != domain.name {
            return Err(damaged("it does not hold trees of the domain that the index names"));
        }
        let trees = pack_places(&found).map(|(blob, place)| (blob.id, Located { pack, ..place })).collect();
        Ok(TreePack { bytes, trees })
    }

    /// Opens a tree of a pack that was fetched: authenticated, decompressed and hashed again, as every blob is (F14).
    pub fn open_tree(
        &self,
        domain: &DomainKeys,
        pack: &TreePack,
        (id, place): &(BlobId, Located),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        let start = place.offset as usize;
        let sealed = &pack.bytes[start..start + place.stored_len as usize];
        self.open_sealed(domain, BlobKind::Tree, id, place, sealed, scratch, out)
    }
}
