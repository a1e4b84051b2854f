//! The walk over the trees of all snapshots: every reference must resolve.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use snap_format::{BlobId, BlobKind, BranchEntry, Content, Node, NodeKind, ObjectId, TreeBlob, limits};
use snap_repo::{BlobReader, DomainKeys, FindingCode, Index, Located, RepoError, parse_object_name};

use super::packs::PackCheck;
use crate::Result;
use crate::work::{Worker, for_each_growing, lock};

/// Names of a tree that are remembered as contradicting it.
const NAMES_KEPT: usize = 100;

/// A snapshot whose trees are walked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) snapshot: ObjectId,
    /// Position in [`Trees::domains`].
    pub(super) domain: usize,
    pub(super) tree: BlobId,
}

/// What is to blame for a blob that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Blame {
    /// The pack that it lies in.
    Pack(ObjectId),
    /// It is there, but only in a pack that no index names.
    Unindexed(ObjectId),
    /// Nothing names it.
    Dangling(BlobId),
}

/// The pack of a tree that contradicts itself, and the names in question; none means the tree as a whole.
type Accused = (ObjectId, Vec<Vec<u8>>);

/// Trees of readers, and what the walk over them found.
pub(super) struct Trees<'a> {
    pub(super) check: &'a PackCheck<'a>,
    spare: BlobReader,
    pub(super) domains: Vec<DomainKeys>,
    pub(super) roots: Vec<Root>,
    /// By domain: directories that were walked, or wait for it. 32 bytes a tree is what a large repository costs here.
    seen: Vec<Mutex<HashSet<BlobId>>>,
    /// Plain length of what a content list names; `None` if some of it cannot be had.
    lists: Mutex<HashMap<(usize, BlobId), Option<u64>>>,
    /// Trees that contradict themselves.
    pub(super) liars: Mutex<BTreeMap<BlobId, Accused>>,
    /// Packs to be read whole, since a tree in them is damaged.
    pub(super) suspects: Mutex<BTreeSet<ObjectId>>,
    /// Whether a reference was met that does not resolve, or only by a pack that no index names.
    pub(super) is_torn: Mutex<bool>,
}

/// A directory, or a piece of one, that waits to be walked.
struct Item {
    domain: usize,
    tree: BlobId,
    level: usize,
    bounds: Option<Box<Bounds>>,
}

/// What the branch above says of a piece of a directory.
struct Bounds {
    first: Vec<u8>,
    before: Option<Vec<u8>>,
    nodes: u64,
}

impl<'a> Trees<'a> {
    /// The trees of all believed snapshots.
    pub(super) fn new(check: &'a PackCheck<'a>) -> Result<Self> {
        let (mut domains, mut roots): (Vec<DomainKeys>, _) = (Vec::new(), Vec::new());
        for snapshot in &check.structure.snapshots {
            let body = check.repository.open_body(snapshot)?;
            let name = &snapshot.envelope.domain;
            let domain = match domains.iter().position(|domain| domain.name == *name) {
                Some(known) => known,
                None => {
                    domains.push(check.repository.domain_of(snapshot)?);
                    domains.len() - 1
                }
            };
            roots.push(Root { snapshot: snapshot.id, domain, tree: body.root });
        }
        let spare = BlobReader::new(check.repository.clone(), Arc::clone(&check.structure.spare));
        let seen = domains.iter().map(|_| Mutex::default()).collect();
        Ok(Self {
            check,
            spare,
            domains,
            roots,
            seen,
            lists: Mutex::default(),
            liars: Mutex::default(),
            suspects: Mutex::default(),
            is_torn: Mutex::default(),
        })
    }

    /// Walks every tree once.
    pub(super) fn walk(&self) -> Result<()> {
        let items = self.roots.iter().rev().filter_map(|root| self.item(root.domain, root.tree, 0, None));
        for_each_growing(items.collect(), self.check.store.context.threads, |item, worker, added| {
            self.check.store.context.check_stop()?;
            self.visit(&item, worker, added)?;
            self.check.store.context.progress.add(1, 0);
            added.reverse(); // the last is taken first: neighbours lie next to each other
            Ok(())
        })
    }

    fn item(&self, domain: usize, tree: BlobId, level: usize, bounds: Option<Box<Bounds>>) -> Option<Item> {
        lock(&self.seen[domain]).insert(tree).then_some(Item { domain, tree, level, bounds })
    }

    fn visit(&self, item: &Item, worker: &mut Worker, added: &mut Vec<Item>) -> Result<()> {
        let Some(tree) = self.load(item.domain, &item.tree, worker)? else { return Ok(()) };
        let fits = item.bounds.as_ref().is_none_or(|bounds| bounds.fit(&tree));
        if !fits {
            self.accuse(item, Vec::new(), "holds other names than the branch above it says");
        }
        match tree {
            TreeBlob::Leaf(nodes) => self.visit_nodes(item, &nodes, worker, added),
            TreeBlob::Branch(entries) if item.level < limits::BRANCH_LEVELS => {
                for (number, BranchEntry { first, id, nodes }) in entries.iter().enumerate() {
                    let outer = item.bounds.as_ref().and_then(|bounds| bounds.before.clone());
                    let before = entries.get(number + 1).map(|next| next.first.clone()).or(outer);
                    let bounds = Box::new(Bounds { first: first.clone(), before, nodes: *nodes });
                    added.extend(self.item(item.domain, *id, item.level + 1, Some(bounds)));
                }
                Ok(())
            }
            TreeBlob::Branch(_) => {
                self.accuse(item, Vec::new(), "is a branch below too many branches");
                Ok(())
            }
            TreeBlob::Content(_) => {
                self.accuse(item, Vec::new(), "is a content list where a directory is expected");
                Ok(())
            }
        }
    }

    fn visit_nodes(
        &self,
        item: &Item,
        nodes: &[Node],
        worker: &mut Worker,
        added: &mut Vec<Item>,
    ) -> Result<()> {
        let mut wrong = Vec::new();
        for node in nodes {
            if let NodeKind::Dir { tree } = node.kind {
                added.extend(self.item(item.domain, tree, 0, None));
            }
            let Some(content) = node.content() else { continue };
            let holes: u64 = match &node.kind {
                NodeKind::File { holes, .. } => holes.iter().map(|(_, length)| length).sum(),
                _ => 0,
            };
            // F21; what cannot be had has been noted and says nothing of lengths.
            let found = self.content_len(item, content, worker)?;
            if found.is_some_and(|length| length.checked_add(holes) != Some(node.size())) {
                wrong.push(node.name.clone());
            }
        }
        if !wrong.is_empty() {
            self.accuse(item, wrong, "gives a file a size that its chunks and holes do not add up to");
        }
        Ok(())
    }

    fn content_len(&self, item: &Item, content: &Content, worker: &mut Worker) -> Result<Option<u64>> {
        let lists = match content {
            Content::Blobs(ids) => return Ok(self.data_len(item.domain, ids)),
            Content::Lists(lists) => lists,
        };
        let mut sum = Some(0u64);
        for list in lists {
            let key = (item.domain, *list);
            let known = lock(&self.lists).get(&key).copied();
            let length = match known {
                Some(length) => length,
                None => {
                    let length = match self.load(item.domain, list, worker)? {
                        Some(TreeBlob::Content(ids)) => self.data_len(item.domain, &ids),
                        Some(_) => {
                            self.accuse_blob(item.domain, *list, Vec::new(), "is no content list");
                            None
                        }
                        None => None,
                    };
                    lock(&self.lists).insert(key, length);
                    length
                }
            };
            sum = sum.and_then(|sum| length.and_then(|length| sum.checked_add(length)));
        }
        Ok(sum)
    }

    /// Plain length of data blobs together; `None` if one of them is nowhere.
    fn data_len(&self, domain: usize, ids: &[BlobId]) -> Option<u64> {
        let name = &self.domains[domain].name;
        let index = self.index();
        let mut sum = Some(0u64);
        for id in ids {
            let place = index.locate(name, id).filter(|place| place.kind == BlobKind::Data);
            let length = match place {
                Some(place) => Some(place.plain_len),
                None => {
                    *lock(&self.is_torn) = true;
                    self.check.structure.spare.locate(name, id).map(|place| place.plain_len)
                }
            };
            sum = sum.and_then(|sum| length.and_then(|length| sum.checked_add(u64::from(length))));
        }
        sum
    }

    fn index(&self) -> &Index {
        &self.check.structure.index
    }

    /// Every place of a blob of the right kind, as the index says.
    fn places(index: &Index, domain: &str, id: &BlobId, kind: BlobKind) -> Vec<Located> {
        let mut places = index.locate_all(domain, id);
        places.retain(|place| place.kind == kind);
        places
    }

    /// A tree, from wherever it can be had; if it cannot, that is noted. Content that no index names is read from the
    /// packs that have it, so that one lost index object is not a thousand findings.
    pub(super) fn load(&self, domain: usize, id: &BlobId, worker: &mut Worker) -> Result<Option<TreeBlob>> {
        let keys = &self.domains[domain];
        let mut reader = self.check.reader;
        let mut places = Self::places(self.index(), &keys.name, id, BlobKind::Tree);
        if places.is_empty() {
            *lock(&self.is_torn) = true;
            reader = &self.spare;
            places = Self::places(&self.check.structure.spare, &keys.name, id, BlobKind::Tree);
        }
        if places.iter().all(|place| self.check.damage.is_bad(place, id)) {
            return Ok(None);
        }
        let Worker { scratch, plain, .. } = worker;
        match reader.read(keys, BlobKind::Tree, id, scratch, plain) {
            Ok(()) => {
                self.check.store.count(u64::from(places[0].stored_len));
                match TreeBlob::decode(plain) {
                    Ok(tree) => return Ok(Some(tree)),
                    Err(error) if error.is_newer() => {
                        let object = snap_repo::object_name(snap_repo::Area::Packs, &places[0].pack_id);
                        let source = Box::new(error);
                        lock(&self.check.newer).push(RepoError::Newer { object: object.to_string(), source });
                    }
                    Err(error) => self.discard(&places, *id, FindingCode::Forged, error.to_string()),
                }
            }
            Err(error) => {
                let finding = error.into_finding()?;
                // Which of its places is damaged, and how, is found by reading those packs whole.
                self.discard(&places, *id, finding.code, finding.why);
                if let Some((_, pack)) = parse_object_name(&finding.object) {
                    lock(&self.suspects).insert(pack);
                }
            }
        }
        Ok(None)
    }

    fn discard(&self, places: &[Located], id: BlobId, code: FindingCode, why: String) {
        let why = match code {
            FindingCode::Forged => self.signed(&places[0].pack_id, why),
            _ => why,
        };
        let code = if code == FindingCode::Missing { FindingCode::Corrupt } else { code };
        for place in places.iter().filter(|place| !self.check.damage.is_bad(place, &id)) {
            self.check.damage.blob(&place.pack_id, id, code, why.clone());
            lock(&self.suspects).insert(place.pack_id);
        }
    }

    fn signed(&self, pack: &ObjectId, why: String) -> String {
        match self.check.writer_of(pack) {
            Some(writer) => format!("{why} (written by {writer})"),
            None => why,
        }
    }

    fn accuse(&self, item: &Item, names: Vec<Vec<u8>>, why: &str) {
        self.accuse_blob(item.domain, item.tree, names, why);
    }

    /// A tree is what its writer made it, and contradicts itself.
    fn accuse_blob(&self, domain: usize, tree: BlobId, mut names: Vec<Vec<u8>>, why: &str) {
        let name = &self.domains[domain].name;
        let place =
            self.index().locate(name, &tree).or_else(|| self.check.structure.spare.locate(name, &tree));
        let Some(place) = place else { return };
        let why = self.signed(&place.pack_id, format!("the tree {tree} {why}"));
        self.check.damage.liar(&place.pack_id, tree, why);
        names.truncate(NAMES_KEPT);
        lock(&self.liars).entry(tree).or_insert((place.pack_id, names));
    }

    /// What keeps a blob from being had; `None` if nothing does.
    pub(super) fn blame(&self, domain: usize, id: &BlobId, kind: BlobKind) -> Option<Blame> {
        let name = &self.domains[domain].name;
        let places = Self::places(self.index(), name, id, kind);
        if let Some(first) = places.first() {
            let all_bad = places.iter().all(|place| self.check.damage.is_bad(place, id));
            return all_bad.then_some(Blame::Pack(first.pack_id));
        }
        let spare = Self::places(&self.check.structure.spare, name, id, kind);
        Some(spare.first().map_or(Blame::Dangling(*id), |place| Blame::Unindexed(place.pack_id)))
    }
}

impl Bounds {
    fn fit(&self, tree: &TreeBlob) -> bool {
        let (first, last, nodes) = match tree {
            TreeBlob::Leaf(nodes) => (
                nodes.first().map(|node| &node.name),
                nodes.last().map(|node| &node.name),
                Some(nodes.len() as u64),
            ),
            TreeBlob::Branch(entries) => (
                entries.first().map(|entry| &entry.first),
                entries.last().map(|entry| &entry.first),
                entries.iter().try_fold(0u64, |sum, entry| sum.checked_add(entry.nodes)),
            ),
            TreeBlob::Content(_) => return true, // refused for what it is
        };
        let before = |last: &Vec<u8>| self.before.as_ref().is_none_or(|before| last < before);
        first == Some(&self.first) && last.is_some_and(before) && nodes == Some(self.nodes)
    }
}
