//! Files below the root, over one connection.

use std::io::SeekFrom;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use openssh_sftp_client::Sftp;
use openssh_sftp_client::error::SftpErrorKind;
use openssh_sftp_client::file::{File, TokioCompatFile};
use openssh_sftp_client::fs::Fs;
use openssh_sftp_client::metadata::{MetaData, Permissions};
use tokio::io::{AsyncSeek, AsyncWriteExt};

use super::{Failure, Outcome, SftpBackend};
use crate::name::is_valid;
use crate::{ErrorKind, ObjectMeta, ObjectName, PutOutcome, Timestamp};

const TEMPORARIES: &str = "tmp";

/// How old an unfinished file must be before nobody can be writing it.
const STALE_SECONDS: i64 = 24 * 60 * 60;

pub(super) struct Files<'a> {
    pub backend: &'a SftpBackend,
    pub sftp: &'a Sftp,
}

impl Files<'_> {
    fn path(&self, name: &str) -> String {
        let root = self.backend.root.trim_end_matches('/');
        if name.is_empty() { self.backend.root.clone() } else { format!("{root}/{name}") }
    }

    fn fs(&self) -> Fs {
        self.sftp.fs()
    }

    /// Reads a range, or all.
    pub async fn get(&self, name: &str, range: Option<(u64, u64)>) -> Outcome<Bytes> {
        let mut file = self.sftp.open(self.path(name)).await?;
        let metadata = file.metadata().await?;
        if metadata.file_type().is_some_and(|kind| !kind.is_file()) {
            return Err(Failure::not_found("not a file"));
        }
        let size = metadata.len().unwrap_or(0);
        let (offset, len) = range.unwrap_or((0, size));
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(Failure::Short { size });
        }
        let len =
            usize::try_from(len).map_err(|_| Failure::Kind(ErrorKind::Other, "too large".to_owned()))?;
        let body = read(&mut file, offset, len).await?;
        file.close().await?;
        if body.len() != len {
            let why = format!("expected {len} bytes, found {}", body.len());
            return Err(Failure::Kind(ErrorKind::Truncated, why));
        }
        Ok(body.freeze())
    }

    pub async fn put(&self, name: &str, body: &[u8]) -> Outcome<PutOutcome> {
        let parents = name.rsplit_once('/').map_or("", |(parents, _)| parents);
        self.make_dirs(parents).await?;
        let temporary = match self.write_temporary(body).await {
            // Somebody removed a directory that was there.
            Err(failure) if failure.is(SftpErrorKind::NoSuchFile) => {
                self.backend.forget_directories();
                self.make_dirs(parents).await?;
                self.write_temporary(body).await?
            }
            other => other?,
        };
        let placed = self.place(&temporary, &self.path(name)).await;
        if !matches!(placed, Ok(Placed::Moved)) {
            // What cannot be removed now is swept later.
            let _ = self.fs().remove_file(&temporary).await;
        }
        Ok(match placed? {
            Placed::Moved | Placed::Linked => PutOutcome::Created,
            Placed::Existed => PutOutcome::Existed,
        })
    }

    async fn write_temporary(&self, body: &[u8]) -> Outcome<String> {
        self.make_dirs(TEMPORARIES).await?;
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| Failure::Kind(ErrorKind::Other, error.to_string()))?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let temporary = self.path(&format!("{TEMPORARIES}/{random}"));
        let file = self.sftp.options().write(true).create_new(true).open(&temporary).await?;
        if let Err(failure) = self.fill(file, body).await {
            let _ = self.fs().remove_file(&temporary).await;
            return Err(failure);
        }
        Ok(temporary)
    }

    async fn fill(&self, file: File, body: &[u8]) -> Outcome<()> {
        // Sends many requests before the first is answered, unlike the file's own `write_all`.
        let mut file = Box::pin(TokioCompatFile::new(file));
        file.write_all(body).await.map_err(sftp_error)?;
        file.flush().await.map_err(sftp_error)?;
        if self.sftp.support_fsync() {
            file.as_mut().as_mut_file().sync_all().await?;
        }
        file.shutdown().await.map_err(sftp_error)?;
        Ok(())
    }

    async fn place(&self, temporary: &str, target: &str) -> Outcome<Placed> {
        if self.sftp.support_hardlink() {
            match self.fs().hard_link(temporary, target).await {
                Ok(()) => return Ok(Placed::Linked),
                Err(error) => {
                    if self.is_there(target).await? {
                        return Ok(Placed::Existed);
                    }
                    // Some file systems have no links: then the rest is for them.
                    if !Failure::Sftp(error).is(SftpErrorKind::Failure) {
                        return Err(Failure::not_found("the directory went away"));
                    }
                }
            }
        }
        // Two writers that pass this check together write the same bytes, since such names are hashes of the
        // content.
        if self.is_there(target).await? {
            return Ok(Placed::Existed);
        }
        self.fs().rename(temporary, target).await?;
        Ok(Placed::Moved)
    }

    async fn is_there(&self, path: &str) -> Outcome<bool> {
        match self.fs().symlink_metadata(path).await.map_err(Failure::from) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(SftpErrorKind::NoSuchFile) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    pub async fn root_is_there(&self) -> Outcome<()> {
        self.fs().metadata(&self.backend.root).await?;
        Ok(())
    }

    /// Makes the directories of `path` below the root, and the root itself if it may be made.
    async fn make_dirs(&self, path: &str) -> Outcome<()> {
        if self.backend.knows(path) {
            return Ok(());
        }
        if !self.is_there(&self.backend.root).await? {
            if !self.backend.create {
                return Err(Failure::not_found("the directory is missing"));
            }
            for (at, _) in self.backend.root.match_indices('/').filter(|(at, _)| *at > 0) {
                self.make_dir(&self.backend.root[..at]).await?;
            }
            self.make_dir(&self.backend.root).await?;
        }
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.filter(|end| *end > 0) {
            self.make_dir(&self.path(&path[..end])).await?;
        }
        self.backend.learn(path);
        Ok(())
    }

    async fn make_dir(&self, path: &str) -> Outcome<()> {
        let mut owner_only = Permissions::new();
        owner_only.set_read_by_owner(true).set_write_by_owner(true).set_execute_by_owner(true);
        match self.fs().dir_builder().permissions(owner_only).create(path).await {
            Ok(()) => Ok(()),
            // SFTP has no word for "exists".
            Err(_) if self.is_there(path).await? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn stat(&self, name: &ObjectName) -> Outcome<ObjectMeta> {
        let metadata = self.fs().symlink_metadata(self.path(name.as_str())).await?;
        if metadata.file_type().is_some_and(|kind| !kind.is_file()) {
            return Err(Failure::not_found("not a file"));
        }
        Ok(object_meta(name.clone(), &metadata))
    }

    /// The objects directly below `dir` (`""` or ending with `/`), and the directories.
    pub async fn list(&self, dir: &str) -> Outcome<(Vec<ObjectMeta>, Vec<String>)> {
        let path = self.path(dir.trim_end_matches('/'));
        if !dir.is_empty()
            && self.fs().symlink_metadata(&path).await?.file_type().is_none_or(|kind| !kind.is_dir())
        {
            return Err(Failure::not_found("not a directory"));
        }
        let mut entries = Box::pin(self.fs().open_dir(path).await?.read_dir());
        let (mut objects, mut below) = (Vec::new(), Vec::new());
        while let Some(entry) = entries.try_next().await? {
            let Some(name) = entry.filename().to_str().map(|leaf| format!("{dir}{leaf}")) else { continue };
            let metadata = entry.metadata();
            match metadata.file_type() {
                _ if !is_valid(&name) => {}
                Some(kind) if kind.is_dir() => below.push(format!("{name}/")),
                Some(kind) if kind.is_file() => {
                    let name = ObjectName::new(name).expect("checked above");
                    objects.push(object_meta(name, &metadata));
                }
                _ => {}
            }
        }
        Ok((objects, below))
    }

    pub async fn delete(&self, name: &str) -> Outcome<()> {
        match self.fs().remove_file(self.path(name)).await.map_err(Failure::from) {
            Err(failure) if failure.is(SftpErrorKind::NoSuchFile) => Ok(()),
            other => other,
        }
    }

    pub async fn sweep(&self) -> Outcome<u64> {
        if !self.is_there(&self.path(TEMPORARIES)).await? {
            return Ok(0);
        }
        // A file written now tells what time the server thinks it is.
        let probe = self.write_temporary(&[]).await?;
        let now = self.fs().symlink_metadata(&probe).await.map(|metadata| modified(&metadata));
        self.fs().remove_file(&probe).await?;
        let now = now?.map_or(0, |time| time.unix_seconds);
        let mut entries = Box::pin(self.fs().open_dir(self.path(TEMPORARIES)).await?.read_dir());
        let mut stale = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            let metadata = entry.metadata();
            let old =
                modified(&metadata).is_some_and(|time| now.saturating_sub(time.unix_seconds) > STALE_SECONDS);
            if old && metadata.file_type().is_some_and(|kind| kind.is_file()) {
                stale.extend(entry.filename().to_str().map(str::to_owned));
            }
        }
        for name in &stale {
            self.delete(&format!("{TEMPORARIES}/{name}")).await?;
        }
        Ok(stale.len() as u64)
    }
}

enum Placed {
    /// The temporary name is gone.
    Moved,
    /// The temporary name is still there.
    Linked,
    Existed,
}

/// Reads up to `len` bytes, fewer only at the end of the file.
async fn read(file: &mut File, offset: u64, len: usize) -> Outcome<BytesMut> {
    let mut body = BytesMut::new();
    body.reserve(len);
    while body.len() < len {
        // The server may answer with less than was asked for; the file's own offset does not know that.
        let at = SeekFrom::Start(offset + body.len() as u64);
        Pin::new(&mut *file).start_seek(at).map_err(sftp_error)?;
        let want = u32::try_from(len - body.len()).unwrap_or(u32::MAX);
        let tail = body.split_off(body.len());
        match file.read(want, tail).await? {
            Some(read) if !read.is_empty() => body.unsplit(read),
            _ => break,
        }
    }
    Ok(body)
}

/// An error of the asynchronous file interfaces, which wrap one of SFTP.
fn sftp_error(error: std::io::Error) -> Failure {
    match error.downcast() {
        Ok(inner) => Failure::Sftp(inner),
        Err(error) => Failure::Sftp(error.into()),
    }
}

fn modified(metadata: &MetaData) -> Option<Timestamp> {
    let time = metadata.modified()?.as_duration();
    Some(Timestamp { unix_seconds: i64::try_from(time.as_secs()).ok()?, nanos: time.subsec_nanos() })
}

fn object_meta(name: ObjectName, metadata: &MetaData) -> ObjectMeta {
    ObjectMeta { name, size_bytes: metadata.len().unwrap_or(0), modified: modified(metadata) }
}
