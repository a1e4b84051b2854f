//! Packs on their way to the store, and the index that follows them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use snap_format::BlobKind;

use crate::Result;
use crate::pack::PackBuilder;
use crate::writer::{CopySet, Members, WriterOptions, lock};

/// Room for the last blob, header, padding and trailer beyond the target size.
const BUFFER_SLACK: usize = 5 << 20;

/// How often a thread that waits for a buffer looks whether it waits in vain.
const FAILURE_POLL: Duration = Duration::from_millis(50);

/// Threads that finish packs and put them. Memory is bounded by a fixed number of pooled buffers: who wants another
/// waits until an upload has ended.
pub(crate) struct Uploader {
    shared: Arc<Shared>,
    sender: Option<Sender<(PackBuilder, CopySet)>>,
    buffers: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    members: Arc<Members>,
    domain: String,
    under_way: Mutex<usize>,
    idle: Condvar,
    pool: Sender<Vec<u8>>,
}

/// A pack's bytes, shared with the store.
struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Uploader {
    /// `open`: packs of data that may be in the making at the same time.
    pub(crate) fn start(members: &Arc<Members>, domain: &str, open: usize, options: &WriterOptions) -> Self {
        let uploads = options.uploads.max(1);
        let (pool, buffers) = unbounded();
        // Some are being filled while the others are on their way. Their memory is touched when they are first used.
        for _ in 0..open + uploads {
            let _ = pool.send(Vec::with_capacity(options.pack_target + BUFFER_SLACK));
        }
        let shared = Arc::new(Shared {
            members: Arc::clone(members),
            domain: domain.to_owned(),
            under_way: Mutex::new(0),
            idle: Condvar::new(),
            pool,
        });
        let (sender, receiver) = bounded::<(PackBuilder, CopySet)>(1);
        let threads = (0..uploads)
            .map(|_| {
                let (shared, receiver) = (Arc::clone(&shared), receiver.clone());
                std::thread::spawn(move || receiver.iter().for_each(|(pack, to)| shared.upload(pack, to)))
            })
            .collect();
        Self { shared, sender: Some(sender), buffers, threads }
    }

    /// Space for a pack. Trees are few: their packs grow as they need.
    pub(crate) fn buffer(&self, kind: BlobKind) -> Vec<u8> {
        match kind {
            BlobKind::Tree => Vec::new(),
            BlobKind::Data => loop {
                match self.buffers.recv_timeout(FAILURE_POLL) {
                    Ok(buffer) => break buffer,
                    // After a failure buffers are lost; whoever waits goes on, and meets the failure at the next step.
                    Err(_) if self.shared.members.have_failed() => break Vec::new(),
                    Err(_) => {}
                }
            },
        }
    }

    /// Sends a pack to some of the copies.
    pub(crate) fn send(&self, pack: PackBuilder, to: CopySet) -> Result<()> {
        self.shared.members.check()?;
        *lock(&self.shared.under_way) += 1;
        let sender = self.sender.as_ref().expect("the sender lives until the uploader is dropped");
        sender.send((pack, to)).expect("the upload threads live as long as the sender");
        Ok(())
    }

    /// Waits for all packs, then writes the index that names them.
    pub(crate) fn drain(&self) -> Result<()> {
        let mut under_way = lock(&self.shared.under_way);
        while *under_way > 0 {
            under_way = self.shared.idle.wait(under_way).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(under_way);
        let members = &self.shared.members;
        members.check()?;
        members.each(members.living(), |_, member| member.flush_index(&members.stats))
    }
}

/// Counts an upload as ended, even if the store panicked: whoever drains would wait for ever.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.members.stop();
        }
        let mut under_way = lock(&self.0.under_way);
        *under_way -= 1;
        if *under_way == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn upload(&self, pack: PackBuilder, to: CopySet) {
        let _ended = Ended(self);
        if !self.members.have_failed()
            && let Err(error) = self.try_upload(pack, to)
        {
            self.members.fail_all(error);
        }
    }

    /// A pack is finished once, and put to all copies at the same time.
    fn try_upload(&self, pack: PackBuilder, to: CopySet) -> Result<()> {
        let members = &self.members;
        let kind = pack.kind;
        let (indexed, bytes) = pack.finish(members.keyring(), &self.domain)?;
        let bytes = Arc::new(bytes);
        members.on_each(to, |_, member| {
            member.put_pack(&indexed.id, Bytes::from_owner(Lent(Arc::clone(&bytes))))
        });
        if kind == BlobKind::Data {
            // A store that keeps the bytes, in memory, must not keep the run from going on.
            let buffer = Arc::try_unwrap(bytes).unwrap_or_default();
            let _ = self.pool.send(buffer);
        }
        if !to.and(members.living()).is_empty() {
            members.stats.packs.fetch_add(1, Ordering::Relaxed);
        }
        members.on_each(to, |_, member| member.note_pack(&indexed, &members.stats));
        Ok(())
    }
}
