//! The commit point.

use std::sync::Arc;

use snap_backend::Bytes;
use snap_format::{BlobId, Body, Details, Envelope, ObjectId, ObjectKind, Summary, Time};

use super::looks::Sabotage;
use super::members::Member;
use super::{Lagging, Writer, pending_name, settled_name};
use crate::boxes::seal_box;
use crate::pack_look::{PackLook, index_digest};
use crate::snapshots::body_ad;
use crate::{Area, Cache, Result, WriterStats, object_name, snapshot_cache};

/// Proof that all packs and the index that names them are stored: the only thing that commits a snapshot.
#[must_use = "a run that is not committed leaves nothing to restore"]
#[derive(Debug)]
pub struct IndexFlushed {
    pub(super) writer: Writer,
}

/// A snapshot to be committed.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // as in `Envelope` and `Body`
pub struct NewSnapshot {
    pub time: Time,
    pub dataset: String,
    pub host: String,
    pub previous: Option<ObjectId>,
    pub tags: Vec<String>,
    pub label: String,
    pub summary: Summary,
    pub root: BlobId,
    pub paths: Vec<Vec<u8>>,
    pub details: Option<Details>,
}

impl IndexFlushed {
    /// Copies that the run has left behind so far.
    pub fn lagging(&self) -> Arc<Lagging> {
        self.writer.lagging()
    }

    /// Bytes written so far and other counters.
    pub fn stats(&self) -> &WriterStats {
        self.writer.stats()
    }

    /// Ends the run without a snapshot: what was stored stays known to the next.
    pub fn abandon(self) {
        self.writer.settle();
    }

    /// Puts the snapshot and looks once more. Only then is it a success: in every copy that has not failed until then, the
    /// same bytes.
    pub fn commit(self, new: NewSnapshot) -> Result<ObjectId> {
        let (id, bytes) = self.seal_snapshot(new, None)?;
        self.put_snapshots(&[(id, bytes)])?;
        Ok(id)
    }

    /// The same of snapshots that stand in place of others: `announce` hears their ids before the first of them is there. They
    /// keep what of the old ones a [`NewSnapshot`] does not say. Owners only.
    pub fn commit_replacements(
        self,
        new: Vec<(NewSnapshot, &Envelope)>,
        announce: impl FnOnce(&[ObjectId]) -> Result<()>,
    ) -> Result<Vec<ObjectId>> {
        self.writer.members.keyring().require_owner("writing snapshots anew")?;
        let sealed: Vec<_> =
            new.into_iter().map(|(new, old)| self.seal_snapshot(new, Some(old))).collect::<Result<_>>()?;
        let ids: Vec<ObjectId> = sealed.iter().map(|(id, _)| *id).collect();
        announce(&ids)?;
        self.put_snapshots(&sealed)?;
        Ok(ids)
    }

    fn seal_snapshot(&self, new: NewSnapshot, old: Option<&Envelope>) -> Result<(ObjectId, Bytes)> {
        let writer = &self.writer;
        let keyring = writer.members.keyring();
        let mut body = Vec::new();
        let plain = Body { root: new.root, paths: new.paths, details: new.details }.encode();
        writer.run.0.seal_into(&body_ad(keyring.repository), &plain, &mut body)?;
        let envelope = Envelope {
            time: new.time,
            dataset: new.dataset,
            host: new.host,
            domain: writer.domain.name.clone(),
            previous: new.previous,
            tags: new.tags,
            label: new.label,
            summary: new.summary,
            run_key: writer.run.1,
            body,
            set: old.and_then(|old| old.set),
            log_segments: old.map(|old| old.log_segments.clone()).unwrap_or_default(),
        };
        let bytes: Bytes = seal_box(keyring, ObjectKind::Snapshot, &envelope.encode())?.into();
        Ok((ObjectId(snap_crypto::hash(&bytes)), bytes))
    }

    fn put_snapshots(&self, sealed: &[(ObjectId, Bytes)]) -> Result<()> {
        let writer = &self.writer;
        for (id, bytes) in sealed {
            let name = object_name(Area::Snapshots, id);
            writer.members.each(writer.members.living(), |_, member| {
                member.repository.backend().put(&name, bytes.clone())?;
                Ok(())
            })?;
        }
        // F27 d.
        if writer.options.sabotage != Sabotage::NoLastLook {
            writer.last_look()?;
        }
        if let Some(cache) = &writer.cache {
            let repository = writer.repository();
            sealed.iter().for_each(|(_, bytes)| snapshot_cache::remember(repository, cache, bytes));
        }
        writer.settle();
        Ok(())
    }
}

impl Writer {
    /// Tells the next run that nothing of this one is left to adopt. What fails here fails nothing.
    pub(super) fn settle(&self) {
        if let Some(cache) = &self.cache {
            self.members.on_each(self.members.living(), |_, member| {
                member.settle(cache);
                Ok(())
            });
        }
    }
}

impl Member {
    fn settle(&self, cache: &Cache) {
        if cache.write(&settled_name(&self.repository), b"").is_ok() {
            cache.remove(&pending_name(&self.repository));
            let (before, own) = (self.index.objects(), self.written.index_objects());
            if !own.is_empty() {
                let place = cache.place(&self.repository.backend().location());
                PackLook::extend(&place, index_digest(before), index_digest(before.iter().chain(&own)));
            }
        }
    }
}
