use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::{Errno, FileAttr, FileType};
use snap_format::{BlobId, Node, NodeKind};

use crate::attr;
use crate::content::{FileMap, Segment};
use crate::dirs::{Dir, Dirs, is_top, join, split};
use crate::error::{Answer, Fault};
use crate::lru::Lru;
use crate::refresh::Refresh;
use crate::snapshots::Names;
use crate::store::Store;
use crate::streams::Streams;
use crate::tops::{ROOT, Root, Top, TopDir, Tops};
use crate::trees::{At, Load, Trees};
use crate::units::{Opened, Units, Want};

/// How long the kernel may believe what never changes.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long it may believe what stands above the snapshots, and the number of names while that is being counted.
pub(crate) const FOR_NOW: Duration = Duration::from_secs(1);

/// Everything that answers requests.
pub(crate) struct Core {
    pub(crate) store: Arc<Store>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) units: Arc<Units>,
    pub(crate) tops: Arc<Tops>,
    pub(crate) refresh: Option<Arc<Refresh>>,
    pub(crate) dirs: Dirs,
    pub(crate) maps: Mutex<Lru<u64, Arc<FileMap>>>,
    pub(crate) streams: Streams,
    /// User and group who mount.
    pub(crate) owner: (u32, u32),
}

/// What is found by name.
pub(crate) enum Found {
    Entry(FileAttr, Duration),
    Nothing(Duration),
}

/// What a directory holds, from some place on.
pub(crate) enum Page {
    /// Inode, offset of the next entry, name, attributes.
    Tops(Vec<(FileAttr, u64, Vec<u8>)>),
    /// A piece of a directory of a snapshot.
    Nodes { dir: Arc<Dir>, number: u64, at: At },
}

impl Core {
    pub(crate) fn lookup(&self, parent: u64, name: &[u8], load: Load) -> Answer<Found> {
        if let Some(Top::Dir(_)) = self.top(parent)? {
            self.be_fresh(load)?;
            // It may be another one by now.
            let Some(Top::Dir(dir)) = self.top(parent)? else { return Err(Errno::ESTALE.into()) };
            let found = self.tops.find(&dir, name);
            return Ok(found.map_or(Found::Nothing(FOR_NOW), |(ino, top)| {
                Found::Entry(self.top_attr(ino, &top), FOR_NOW)
            }));
        }
        let (number, dir) = self.dir(parent, load)?;
        let Some(at) = self.trees.find(&dir.instance.snap, &dir.tree, name, load)? else {
            return Ok(Found::Nothing(FOR_EVER));
        };
        let node = at.node().ok_or(Errno::EIO)?;
        let ino = join(number, at.position()).ok_or(Errno::EOVERFLOW)?;
        let (attr, ttl) = self.node_attr(&dir, ino, node, load == Load::Fetch);
        // Who may wait for the count comes again.
        if ttl != FOR_EVER && load == Load::Cached {
            return Err(Fault::NotCached);
        }
        Ok(Found::Entry(attr, ttl))
    }

    pub(crate) fn attr(&self, ino: u64, load: Load) -> Answer<(FileAttr, Duration)> {
        if let Some(top) = self.top(ino)? {
            // By the times of a directory the kernel sees whether what it has listed is still true.
            if let Top::Dir(_) = top {
                self.be_fresh(load)?;
            }
            let top = self.top(ino)?.unwrap_or(top);
            return Ok((self.top_attr(ino, &top), FOR_NOW));
        }
        let (dir, at) = self.entry(ino, load)?;
        let node = at.node().ok_or(Errno::ESTALE)?;
        let (attr, ttl) = self.node_attr(&dir, ino, node, load == Load::Fetch);
        if ttl != FOR_EVER && load == Load::Cached {
            return Err(Fault::NotCached);
        }
        Ok((attr, ttl))
    }

    /// The entries of a directory from `offset` on: 0 and 1 are itself and its parent.
    pub(crate) fn page(&self, ino: u64, offset: u64, load: Load) -> Answer<Page> {
        if let Some(Top::Dir(_)) = self.top(ino)? {
            if offset == 0 {
                self.be_fresh(load)?;
            }
            let Some(Top::Dir(dir)) = self.top(ino)? else { return Err(Errno::ESTALE.into()) };
            return Ok(Page::Tops(self.top_entries(&dir, offset)));
        }
        let (number, dir) = self.dir(ino, load)?;
        let at = self.trees.at(&dir.instance.snap, &dir.tree, offset.saturating_sub(2), load)?;
        Ok(Page::Nodes { dir, number, at })
    }

    /// Whether directories below are worth fetching before anybody asks, and which.
    pub(crate) fn fetch_subtrees(&self, dir: &Dir, trees: &[BlobId]) {
        for tree in trees {
            if self.store.is_closed() || self.trees.tree(&dir.instance.snap, tree, Load::Fetch).is_err() {
                return;
            }
        }
    }

    /// Works on the node of an inode; nothing above the snapshots has one.
    pub(crate) fn with_node<T>(
        &self,
        ino: u64,
        load: Load,
        work: impl FnOnce(&Node) -> T,
    ) -> Answer<Option<T>> {
        if is_top(ino) {
            return Ok(None);
        }
        let (_, at) = self.entry(ino, load)?;
        Ok(Some(work(at.node().ok_or(Errno::ESTALE)?)))
    }

    pub(crate) fn target(&self, ino: u64, load: Load) -> Answer<Vec<u8>> {
        if let Some(top) = self.top(ino)? {
            return match top {
                Top::Link(target, _) => Ok(target),
                _ => Err(Errno::EINVAL.into()),
            };
        }
        let target = self.with_node(ino, load, |node| match &node.kind {
            NodeKind::Symlink { target } => Some(target.clone()),
            _ => None,
        })?;
        target.flatten().ok_or(Errno::EINVAL.into())
    }

    /// Where the bytes of a file are.
    pub(crate) fn map(&self, ino: u64, load: Load) -> Answer<Arc<FileMap>> {
        let maps = || self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = maps().get(&ino) {
            return Ok(map);
        }
        if is_top(ino) {
            return Err(Errno::EISDIR.into());
        }
        let (dir, at) = self.entry(ino, load)?;
        let node = at.node().ok_or(Errno::ESTALE)?;
        let map = Arc::new(FileMap::open(&self.store, &self.trees, &dir.instance.snap, node, load)?);
        maps().insert(ino, Arc::clone(&map), map.weight(), drop);
        Ok(map)
    }

    /// Answers a read, now or when what it wants is there. `reply` gets the whole range, or an error: a short one would be
    /// taken for the end of the file. When everything ends before that, it is dropped.
    pub(crate) fn read(
        self: &Arc<Self>,
        ino: u64,
        map: &Arc<FileMap>,
        offset: u64,
        size: u32,
        reply: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let segments = map.segments(offset, size as usize);
        if segments.is_empty() {
            return reply(Ok(&[]));
        }
        let reader = self.store.reader();
        let mut wants = Vec::with_capacity(segments.len());
        for segment in &segments {
            let Segment::Data(chunk, _) = segment else { continue };
            let id = map.chunks[*chunk];
            let Some(place) = reader.index().locate(&map.snap.domain.name, &id) else {
                return reply(Err(self.store.not_indexed(&id).errno()));
            };
            wants.push(Want { snap: Arc::clone(&map.snap), id, place });
        }
        let (core, asked) = (Arc::clone(self), wants.clone());
        let then = move |units: Vec<Opened>| match core.assemble(&segments, &asked, &units) {
            Ok(Assembled::Within(unit, range)) => reply(Ok(&unit[range])),
            Ok(Assembled::Whole(bytes)) => reply(Ok(&bytes)),
            Err(fault) => reply(Err(fault.errno())),
        };
        self.units.with(wants, Box::new(then));
        self.read_ahead(ino, map, offset, u64::from(size));
    }

    fn read_ahead(&self, ino: u64, map: &Arc<FileMap>, offset: u64, size: u64) {
        // All of it is here, or on its way.
        if map.chunks.len() <= 1 {
            return;
        }
        let Some((from, until)) = self.streams.read(ino, offset, size) else { return };
        let reader = self.store.reader();
        let chunks = &map.chunks[map.chunks_after(from, until - from)];
        let wants = chunks.iter().map_while(|id| {
            let place = reader.index().locate(&map.snap.domain.name, id)?;
            Some(Want { snap: Arc::clone(&map.snap), id: *id, place })
        });
        let wants: Vec<_> = wants.collect();
        let wanted = wants.len();
        if self.units.prepare(wants) == wanted {
            self.streams.asked(ino, from, until);
        }
    }

    fn assemble(&self, segments: &[Segment], wants: &[Want], units: &[Opened]) -> Answer<Assembled> {
        if let ([Segment::Data(_, range)], [want], [Some(unit)]) = (segments, wants, units)
            && let Some(start) = self.start_of(want, unit)
        {
            return Ok(Assembled::Within(Arc::clone(unit), start + range.start..start + range.end));
        }
        let length = segments.iter().map(|segment| match segment {
            Segment::Hole(length) => *length,
            Segment::Data(_, range) => range.len(),
        });
        let mut out = Vec::with_capacity(length.sum());
        let mut data = wants.iter().zip(units);
        for segment in segments {
            let Segment::Data(_, range) = segment else {
                let Segment::Hole(length) = segment else { continue };
                out.resize(out.len() + length, 0);
                continue;
            };
            let (want, unit) = data.next().ok_or(Errno::EIO)?;
            let here = unit.as_ref().and_then(|unit| Some((unit, self.start_of(want, unit)?)));
            match here {
                Some((unit, start)) => out.extend_from_slice(&unit[start + range.start..start + range.end]),
                // Perhaps it is stored elsewhere, too; if not, that names the damage.
                None => {
                    let chunk = self.store.chunk(&want.snap.domain, &want.id)?;
                    out.extend_from_slice(chunk.get(range.clone()).ok_or(Errno::EIO)?);
                }
            }
        }
        Ok(Assembled::Whole(out))
    }

    /// Where a chunk begins in its unit, once it is certain that it is it (F14).
    fn start_of(&self, want: &Want, unit: &[u8]) -> Option<usize> {
        if want.place.group.is_some() {
            self.store.reader().member(&want.snap.domain, &want.id, &want.place, unit).ok()?;
        }
        Some(want.place.within().start)
    }

    /// The attributes of a node, and how long they may be believed.
    pub(crate) fn node_attr(&self, dir: &Dir, ino: u64, node: &Node, may_wait: bool) -> (FileAttr, Duration) {
        let Some(link) = node.link else { return (attr::of_node(ino, node, 1), FOR_EVER) };
        let ino = dir.instance.inode(link, ino);
        match dir.instance.snap.names(&link, &self.store, may_wait) {
            Names::Known(names) => (attr::of_node(ino, node, names), FOR_EVER),
            Names::NotYet => (attr::of_node(ino, node, 2), FOR_NOW),
        }
    }

    /// The directory that an inode is.
    fn dir(&self, ino: u64, load: Load) -> Answer<(u64, Arc<Dir>)> {
        if let Some(known) = self.dirs.of(ino) {
            return Ok(known);
        }
        let dir = match self.top(ino)? {
            Some(Top::Root(root)) => {
                let instance = self.instance(&root)?;
                Dir { ino, parent: root.parent, tree: instance.snap.root, instance }
            }
            Some(_) => return Err(Errno::ENOTDIR.into()),
            None => {
                let (holding, at) = self.entry(ino, load)?;
                let node = at.node().ok_or(Errno::ESTALE)?;
                // Nobody knows what was in it: it is not empty.
                if node.unreadable {
                    return Err(Errno::EACCES.into());
                }
                let tree = node.tree().ok_or(Errno::ENOTDIR)?;
                Dir { ino, parent: holding.ino, tree, instance: Arc::clone(&holding.instance) }
            }
        };
        Ok(self.dirs.insert(dir))
    }

    fn instance(&self, root: &Root) -> Answer<Arc<crate::snapshots::Instance>> {
        let number = self.tops.domain_number(&root.held);
        root.instance(&self.store, number).ok_or(Errno::EIO.into())
    }

    /// The directory and the place in it that an inode stands for.
    fn entry(&self, ino: u64, load: Load) -> Answer<(Arc<Dir>, At)> {
        let dir = self.dirs.holding(ino).ok_or(Errno::ESTALE)?;
        let at = self.trees.at(&dir.instance.snap, &dir.tree, split(ino).1, load)?;
        Ok((dir, at))
    }

    fn top(&self, ino: u64) -> Answer<Option<Top>> {
        match is_top(ino) {
            true => self.tops.of(ino).map(Some).ok_or(Errno::ESTALE.into()),
            false => Ok(None),
        }
    }

    fn be_fresh(&self, load: Load) -> Answer<()> {
        match &self.refresh {
            Some(refresh) if !refresh.is_fresh() => match load {
                Load::Cached => Err(Fault::NotCached),
                Load::Fetch => {
                    refresh.wait();
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    fn top_attr(&self, ino: u64, top: &Top) -> FileAttr {
        match top {
            Top::Dir(dir) => attr::of_top(ino, FileType::Directory, dir.changed, self.owner, 0),
            Top::Root(root) => {
                let time = root.held.snapshot.envelope.time;
                attr::of_top(ino, FileType::Directory, time, self.owner, 0)
            }
            Top::Link(target, time) => {
                attr::of_top(ino, FileType::Symlink, *time, self.owner, target.len() as u64)
            }
        }
    }

    fn top_entries(&self, dir: &TopDir, offset: u64) -> Vec<(FileAttr, u64, Vec<u8>)> {
        let skipped = offset.saturating_sub(2) as usize;
        let rest = dir.entries.iter().enumerate().skip(skipped);
        let with_top = rest.filter_map(|(at, (name, ino))| {
            let top = self.tops.of(*ino)?;
            Some((self.top_attr(*ino, &top), at as u64 + 3, name.clone()))
        });
        with_top.take(1024).collect()
    }

    /// The inode of a directory's parent; that of the root is the root.
    pub(crate) fn parent(&self, ino: u64, page: &Page) -> u64 {
        match page {
            Page::Nodes { dir, .. } => dir.parent,
            Page::Tops(_) => match self.tops.of(ino) {
                Some(Top::Dir(dir)) => dir.parent,
                _ => ROOT,
            },
        }
    }
}

/// The bytes of a read.
enum Assembled {
    /// They lie together in one unit.
    Within(Arc<Vec<u8>>, std::ops::Range<usize>),
    Whole(Vec<u8>),
}
