//! Going through the snapshot and the bucket side by side, a directory at a time.

use std::collections::{BTreeMap, HashSet};

use snap_backend::{Bucket, BucketObject, Listed};
use snap_format::{BlobId, Link, Node, NodeKind};
use snap_repo::{RepoError, Scratch};
use snap_source::{PathMatcher, Verdict};

use super::super::{Overwrite, Restore, bump, plan, to_path};
use super::upload::{self, Upload};
use super::{Found, Unfit, Victims, identity, time_of};
use crate::browse::{Found as At, join};
use crate::{EngineError, Result};

/// Files that are planned before they are written.
const BATCH: usize = 4096;
/// Paths that are named of objects that are newer.
const EXAMPLES: usize = 5;

pub(super) struct Walk<'a> {
    restore: &'a Restore<'a>,
    bucket: &'a Bucket,
    approved: Option<&'a Victims>,
    unfit: &'a Unfit,
    matcher: PathMatcher,
    found: Found,
    uploads: Vec<Upload>,
    links: HashSet<Link>,
}

/// A directory that waits: its path in the snapshot, its prefix in the bucket, its tree, and whether anything is there.
type Waiting = (Vec<u8>, String, BlobId, bool);

/// What a live level holds under a name.
#[derive(Default)]
struct Live {
    object: Option<BucketObject>,
    is_prefix: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        restore: &'a Restore<'a>,
        bucket: &'a Bucket,
        approved: Option<&'a Victims>,
        unfit: &'a Unfit,
    ) -> Result<Self> {
        let options = restore.options;
        let roots: Vec<_> = restore.browser.paths().iter().map(|path| to_path(path)).collect();
        let matcher = PathMatcher::below(&roots, &options.include, &options.exclude)
            .map_err(|error| EngineError::Pattern(error.to_string()))?;
        let (found, uploads, links) = (Found::default(), Vec::new(), HashSet::new());
        Ok(Self { restore, bucket, approved, unfit, matcher, found, uploads, links })
    }

    pub(super) fn run(mut self, path: Option<&[u8]>, is_occupied: bool) -> Result<Found> {
        let mut scratch =
            Scratch::new(1).map_err(|error| EngineError::io("preparing", b"decompression", error))?;
        let at = self.restore.browser.find(path.unwrap_or_default(), &mut scratch)?;
        let path = plan::normal(path.unwrap_or_default());
        let root = match at {
            At::Root => self.restore.browser.root(),
            At::Node(node) => match node.tree() {
                Some(tree) => tree,
                None => {
                    let name = node.name.clone();
                    let live = if is_occupied { self.live("")? } else { BTreeMap::new() };
                    let object = std::str::from_utf8(&name).ok().and_then(|name| live.get(name));
                    self.entry(&path, "", *node, object.and_then(|live| live.object.as_ref()), &mut scratch)?;
                    upload::run(self.restore, self.bucket, &mut self.uploads)?;
                    return Ok(self.found);
                }
            },
        };
        let mut waiting = vec![(path, String::new(), root, is_occupied)];
        while let Some(dir) = waiting.pop() {
            self.restore.context.check_stop()?;
            let below = self.directory(dir, &mut scratch)?;
            waiting.extend(below.into_iter().rev());
        }
        upload::run(self.restore, self.bucket, &mut self.uploads)?;
        Ok(self.found)
    }

    fn live(&self, prefix: &str) -> Result<BTreeMap<String, Live>> {
        let mut out: BTreeMap<String, Live> = BTreeMap::new();
        for listed in self.bucket.list(prefix).map_err(RepoError::from)? {
            match listed {
                Listed::Object(name, object) => out.entry(name).or_default().object = Some(object),
                Listed::Prefix(name) => out.entry(name).or_default().is_prefix = true,
            }
        }
        Ok(out)
    }

    fn directory(&mut self, dir: Waiting, scratch: &mut Scratch) -> Result<Vec<Waiting>> {
        let (path, prefix, tree, is_occupied) = dir;
        let live = if is_occupied { self.live(&prefix)? } else { BTreeMap::new() };
        let (mut below, mut names, mut is_empty) = (Vec::new(), HashSet::new(), true);
        let browser = self.restore.browser;
        let outcome = browser.entries(tree, scratch, &mut |node, scratch| {
            is_empty = false;
            let full = join(&path, &node.name);
            let name = std::str::from_utf8(&node.name).ok().map(str::to_owned);
            names.extend(name.clone().filter(|_| self.restore.options.delete));
            let there = name.as_ref().and_then(|name| live.get(name));
            let Some(tree) = node.tree() else {
                if self.matcher.matches(&full, false) == Verdict::Take {
                    self.entry(&full, &prefix, node, there.and_then(|live| live.object.as_ref()), scratch)?;
                }
                return Ok(());
            };
            match (self.matcher.matches(&full, true), name) {
                (Verdict::Skip, _) => {}
                (_, None) => self.leave_out(&full, "its name is not UTF-8"),
                (_, Some(name)) => {
                    let is_occupied = there.is_some_and(|live| live.is_prefix);
                    below.push((full, format!("{prefix}{name}/"), tree, is_occupied));
                }
            }
            Ok(())
        });
        if let Err(error) = outcome {
            self.restore.lost(&path, error)?;
            return Ok(below); // what cannot be listed must not be taken for empty: nothing is deleted here
        }
        if is_empty && !path.is_empty() && self.matcher.matches(&path, true) == Verdict::Take {
            self.leave_out(&path, "a bucket has no empty directories");
        }
        if self.restore.options.delete {
            self.delete_others(&path, &prefix, &live, &names)?;
        }
        Ok(below)
    }

    fn leave_out(&self, path: &[u8], why: &str) {
        bump(&self.unfit.entries, 1);
        self.restore.context.note(path, &format!("left out: {why}"));
    }

    /// Plans anything but a directory.
    fn entry(
        &mut self,
        full: &[u8],
        prefix: &str,
        node: Node,
        there: Option<&BucketObject>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let context = self.restore.context;
        if node.unreadable {
            context.note(full, "was unreadable when it was backed up; nothing to restore");
            return Ok(());
        }
        let Ok(name) = std::str::from_utf8(&node.name) else {
            self.leave_out(full, "its name is not UTF-8");
            return Ok(());
        };
        match &node.kind {
            NodeKind::File { .. } | NodeKind::Object { .. } => {}
            NodeKind::Symlink { target } => {
                let target = String::from_utf8_lossy(target);
                self.leave_out(full, &format!("a bucket holds no links, and it leads to {target}"));
                return Ok(());
            }
            _ => {
                self.leave_out(full, "a bucket holds neither pipes nor devices");
                return Ok(());
            }
        }
        let key = format!("{prefix}{name}");
        if let Err(why) = Bucket::check_key(&key) {
            self.leave_out(full, why);
            return Ok(());
        }
        bump(&self.unfit.with_xattrs, u64::from(!node.xattrs.is_empty()));
        let is_further_name = node.link.is_some_and(|link| !self.links.insert(link));
        bump(&self.unfit.names, u64::from(is_further_name));
        if let Some(there) = there
            && !self.overwrites(full, &key, &node, there)?
        {
            return Ok(());
        }
        match self.restore.browser.file_blobs(&node, scratch) {
            Err(error) => return self.restore.lost(full, error),
            Ok(ids) => {
                let replaces = there.is_some();
                self.uploads.push(Upload { full: full.to_vec(), key, node, ids, replaces });
            }
        }
        if self.uploads.len() >= BATCH {
            upload::run(self.restore, self.bucket, &mut self.uploads)?;
        }
        Ok(())
    }

    /// Whether an object that is there is written anew; if not, that is counted.
    fn overwrites(&mut self, full: &[u8], key: &str, node: &Node, there: &BucketObject) -> Result<bool> {
        let overwrite = self.restore.options.overwrite;
        if overwrite == Overwrite::Never {
            self.restore.count_skipped();
            return Ok(false);
        }
        // A listing says nothing of the metadata.
        let looked = self.bucket.stat(key).map_err(RepoError::from)?;
        bump(&self.restore.counts.requests, 1);
        let there = looked.as_ref().unwrap_or(there);
        let time = time_of(there);
        let is_same =
            there.size_bytes == node.size() && super::headers::mtime(&there.headers) == Some(node.mtime);
        let stays = match overwrite {
            Overwrite::IfNewer => is_same || time.is_none_or(|time| node.mtime <= time),
            Overwrite::IfChanged => is_same,
            Overwrite::Always | Overwrite::Never => false,
        };
        if stays {
            self.restore.count_skipped();
            return Ok(false);
        }
        if let Some(approved) = self.approved {
            let is_approved = approved.get(key) == Some(&identity(there));
            if !is_approved {
                self.restore.failed(full, &changed_meanwhile());
            }
            return Ok(is_approved);
        }
        let counts = &mut self.found.counts;
        counts.overwritten += 1;
        counts.bytes += there.size_bytes;
        if time.is_none_or(|time| time > self.restore.browser.snapshot().envelope.time) {
            counts.newer_overwritten += 1;
            self.example(key);
        }
        self.found.victims.insert(key.to_owned(), identity(there));
        Ok(true)
    }

    fn example(&mut self, key: &str) {
        if self.found.examples.len() < EXAMPLES {
            self.found.examples.push(key.as_bytes().to_vec());
        }
    }

    /// Deletes objects that the snapshot does not have.
    fn delete_others(
        &mut self,
        path: &[u8],
        prefix: &str,
        live: &BTreeMap<String, Live>,
        names: &HashSet<String>,
    ) -> Result<()> {
        for (name, live) in live.iter().filter(|(name, _)| !names.contains(*name)) {
            let full = join(path, name.as_bytes());
            if let Some(object) = live.object.as_ref()
                && self.matcher.matches(&full, false) == Verdict::Take
            {
                self.delete(&full, format!("{prefix}{name}"), object)?;
            }
            if !live.is_prefix || self.matcher.matches(&full, true) != Verdict::Take {
                continue;
            }
            let below = format!("{prefix}{name}/");
            for (key, object) in self.bucket.list_all(&below).map_err(RepoError::from)? {
                let full = join(&full, &key.as_bytes()[below.len()..]);
                if self.matcher.matches(&full, false) == Verdict::Take {
                    self.delete(&full, key, &object)?;
                }
            }
        }
        Ok(())
    }

    fn delete(&mut self, full: &[u8], key: String, object: &BucketObject) -> Result<()> {
        self.restore.context.check_stop()?;
        if let Some(approved) = self.approved {
            if approved.get(&key) != Some(&identity(object)) {
                self.restore.failed(full, &changed_meanwhile());
                return Ok(());
            }
            bump(&self.restore.counts.requests, 1);
            self.bucket.delete(&key).map_err(RepoError::from)?;
        } else {
            let stored = time_of(object);
            let since = self.restore.browser.snapshot().envelope.time;
            self.found.counts.deleted += 1;
            self.found.counts.bytes += object.size_bytes;
            if stored.is_none_or(|time| time > since) {
                self.found.counts.newer_deleted += 1;
                self.example(&key);
            }
            self.found.victims.insert(key, identity(object));
        }
        self.restore.count_deleted(full);
        Ok(())
    }
}

fn changed_meanwhile() -> std::io::Error {
    std::io::Error::other("it changed while the restore was prepared; it stays as it is")
}
