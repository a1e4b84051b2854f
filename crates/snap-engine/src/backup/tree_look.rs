//! Trees for those who only look: what the last runs kept, and whole packs where each request costs.

use std::sync::Arc;

use snap_format::BlobId;
use snap_repo::{BlobReader, Cache, DomainKeys};

use super::tree_cache::cache_name;
use super::tree_fetch::FetchedTrees;
use super::tree_store::TreeStore;

/// Datasets and hosts whose cached trees are looked at: each costs a look at its files for a tree that is not there.
const MAX_STORES: usize = 8;
/// Nothing is written with it.
const LEVEL: i32 = 1;

/// Trees on local disk. What is wrong or missing there is as if it had never been there.
pub(crate) struct LocalTrees {
    domain: DomainKeys,
    stores: Vec<TreeStore>,
    fetched: Option<FetchedTrees>,
}

impl LocalTrees {
    /// What the cache has of these datasets and hosts. With `whole_packs`, trees that it lacks come a pack at a time, into a
    /// nameless file beside it.
    pub(crate) fn open<'a>(
        cache: &Cache,
        groups: impl IntoIterator<Item = (&'a str, &'a str)>,
        reader: &Arc<BlobReader>,
        domain: &DomainKeys,
        whole_packs: bool,
    ) -> Self {
        let repository = reader.repository().id();
        let open =
            |(dataset, host)| TreeStore::open(cache.root().join(cache_name(dataset, host)), repository);
        let stores: Vec<TreeStore> = groups.into_iter().take(MAX_STORES).map(open).collect();
        let dir = || stores.first()?.dir().ok();
        let fetched = dir()
            .filter(|_| whole_packs)
            .and_then(|dir| FetchedTrees::new(dir, Arc::clone(reader), domain.clone(), LEVEL).ok());
        Self { domain: domain.clone(), stores, fetched }
    }

    /// The plaintext of a tree.
    pub(crate) fn find(&self, id: &BlobId) -> Option<Vec<u8>> {
        let is_right = |id: &BlobId, plain: &[u8]| self.domain.tree_id.id(plain) == id.0;
        let kept = self.stores.iter().find_map(|store| store.find(id, &is_right));
        kept.or_else(|| Some(self.fetched.as_ref()?.find(id)?.plain))
    }
}
