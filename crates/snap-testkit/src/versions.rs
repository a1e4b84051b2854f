//! A bucket with versioning and object lock, in memory: as much of S3 as a repository needs, after Amazon's "How S3 Object
//! Lock works". It is a double: what it says of Amazon's own service is only as good as that page.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

/// How a bucket keeps what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// What is overwritten or deleted is gone.
    Nothing,
    /// Versioning: what is overwritten or deleted is there as an older version.
    Versions,
    /// Versioning and object lock. New objects are locked for so long, in compliance mode if the flag says so, else in
    /// governance mode; `None` locks what is asked for only.
    Locks(Option<(Duration, bool)>),
}

#[derive(Debug, Clone)]
struct Version {
    id: String,
    /// None: a delete marker.
    body: Option<Bytes>,
    modified: SystemTime,
    lock: Option<Lock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lock {
    compliance: bool,
    until: SystemTime,
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct VersionedBucket {
    keeping: Keeping,
    keys: Mutex<BTreeMap<String, Vec<Version>>>,
    next: std::sync::atomic::AtomicU64,
}

impl Lock {
    fn is_active(self) -> bool {
        self.until > SystemTime::now()
    }

    fn parse(mode: Option<&str>, until: Option<Timestamp>) -> S3Result<Option<Self>> {
        match (mode, until) {
            (None, None) => Ok(None),
            (Some(mode @ ("COMPLIANCE" | "GOVERNANCE")), Some(until)) => {
                let until = SystemTime::from(time::OffsetDateTime::from(until));
                let lock = Self { compliance: mode == "COMPLIANCE", until };
                if lock.is_active() {
                    Ok(Some(lock))
                } else {
                    Err(s3_error!(InvalidArgument, "a date in the past"))
                }
            }
            _ => Err(s3_error!(InvalidArgument, "mode and date go together")),
        }
    }

    fn mode(self) -> &'static str {
        if self.compliance { ObjectLockMode::COMPLIANCE } else { ObjectLockMode::GOVERNANCE }
    }
}

impl VersionedBucket {
    pub(crate) fn new(keeping: Keeping) -> Self {
        Self { keeping, keys: Mutex::default(), next: 1.into() }
    }

    fn is_locking(&self) -> bool {
        matches!(self.keeping, Keeping::Locks(_))
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<Version>>) -> S3Result<T>) -> S3Result<T> {
        work(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest version, or the one that is asked for; not a delete marker.
    fn read(&self, key: &str, version: Option<&str>) -> S3Result<Version> {
        self.with(|keys| {
            let versions = keys.get(key).ok_or_else(|| s3_error!(NoSuchKey))?;
            let found = match version {
                None => versions.last(),
                Some(id) => versions.iter().find(|it| it.id == id),
            };
            let found = found.filter(|it| it.body.is_some()).cloned();
            found.ok_or_else(
                || if version.is_some() { s3_error!(NoSuchVersion) } else { s3_error!(NoSuchKey) },
            )
        })
    }

    fn add(&self, key: String, body: Option<Bytes>, lock: Option<Lock>) -> S3Result<String> {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let id = format!("v{number}");
        let version = Version { id: id.clone(), body, modified: SystemTime::now(), lock };
        self.with(|keys| {
            let versions = keys.entry(key).or_default();
            if self.keeping == Keeping::Nothing {
                versions.clear();
            }
            versions.push(version);
            Ok(id)
        })
    }

    fn version_id(&self, id: String) -> Option<String> {
        (self.keeping != Keeping::Nothing).then_some(id)
    }
}

/// As Amazon does for `encoding-type=url`: a space is a plus.
fn encoded(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*/".contains(&byte);
    key.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn etag(body: &Bytes) -> ETag {
    ETag::Strong(format!("{:x}", body.len()))
}

#[async_trait::async_trait]
impl S3 for VersionedBucket {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let mode = input.object_lock_mode.as_ref().map(ObjectLockMode::as_str);
        let mut lock = Lock::parse(mode, input.object_lock_retain_until_date)?;
        if let (None, Keeping::Locks(Some((length, compliance)))) = (lock, self.keeping) {
            lock = Some(Lock { compliance, until: SystemTime::now() + length });
        }
        let has_checksum = input.content_md5.is_some() || input.checksum_crc32c.is_some();
        if lock.is_some() && !(self.is_locking() && has_checksum) {
            return Err(s3_error!(InvalidRequest, "locks need a bucket with object lock, and a checksum"));
        }
        let body = match input.body {
            None => Bytes::new(),
            Some(body) => Body::from(body).collect().await.map_err(|_| s3_error!(IncompleteBody))?.to_bytes(),
        };
        let tag = etag(&body);
        let id = self.add(input.key, Some(body), lock)?;
        let output =
            PutObjectOutput { e_tag: Some(tag), version_id: self.version_id(id), ..Default::default() };
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let version = self.read(&req.input.key, req.input.version_id.as_deref())?;
        let body = version.body.unwrap_or_default();
        let len = body.len() as u64;
        let (part, content_range) = match req.input.range {
            None => (body.clone(), None),
            Some(range) => {
                let range = range.check(len)?;
                let told = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                (body.slice(range.start as usize..range.end as usize), Some(told))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(part.len() as i64),
            content_range,
            e_tag: Some(etag(&body)),
            last_modified: Some(version.modified.into()),
            body: Some(StreamingBlob::from(Body::from(part))),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let version = self.read(&req.input.key, req.input.version_id.as_deref())?;
        let body = version.body.unwrap_or_default();
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(body.len() as i64),
            e_tag: Some(etag(&body)),
            last_modified: Some(version.modified.into()),
            version_id: self.version_id(version.id),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let contents: Vec<_> = self.with(|keys| {
            let live = keys.iter().filter(|(key, _)| key.starts_with(&prefix));
            let newest = live.filter_map(|(key, versions)| Some((key, versions.last()?)));
            let object = |(key, version): (&String, &Version)| {
                let body = version.body.as_ref()?;
                Some(Object {
                    key: Some(key.clone()),
                    size: Some(body.len() as i64),
                    e_tag: Some(etag(body)),
                    last_modified: Some(version.modified.into()),
                    ..Default::default()
                })
            };
            Ok(newest.filter_map(object).collect())
        })?;
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some(contents.len() as i32),
            contents: Some(contents),
            is_truncated: Some(false),
            name: Some(req.input.bucket),
            prefix: Some(prefix),
            ..Default::default()
        }))
    }

    /// In pages as small as S3 may make them, so that whoever reads one page alone is found out.
    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        const PAGE: usize = 7;
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let all: Vec<(String, Version, bool)> = self.with(|keys| {
            let live = keys.iter().filter(|(key, _)| key.starts_with(&prefix));
            let newest_first = live.flat_map(|(key, versions)| {
                versions.iter().rev().enumerate().map(|(at, it)| (key.clone(), it.clone(), at == 0))
            });
            Ok(newest_first.collect())
        })?;
        let start = match (&input.key_marker, &input.version_id_marker) {
            (None, _) => 0,
            (Some(key), Some(id)) => {
                all.iter().position(|(it, version, _)| it == key && version.id == *id).map_or(0, |at| at + 1)
            }
            (Some(key), None) => all.iter().filter(|(it, ..)| it <= key).count(),
        };
        let page = &all[start..all.len().min(start + PAGE)];
        let is_encoded = input.encoding_type.as_ref().is_some_and(|it| it.as_str() == EncodingType::URL);
        let is_truncated = start + page.len() < all.len();
        let mut output = ListObjectVersionsOutput {
            is_truncated: Some(is_truncated),
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            prefix: Some(prefix),
            ..Default::default()
        };
        if let Some((key, version, _)) = page.last().filter(|_| is_truncated) {
            output.next_key_marker = Some(if is_encoded { encoded(key) } else { key.clone() });
            output.next_version_id_marker = Some(version.id.clone());
        }
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        for (key, version, is_latest) in page.iter().cloned() {
            let key = if is_encoded { encoded(&key) } else { key };
            match version.body {
                Some(body) => versions.push(ObjectVersion {
                    key: Some(key),
                    version_id: Some(version.id),
                    is_latest: Some(is_latest),
                    size: Some(body.len() as i64),
                    last_modified: Some(version.modified.into()),
                    ..Default::default()
                }),
                None => markers.push(DeleteMarkerEntry {
                    key: Some(key),
                    version_id: Some(version.id),
                    is_latest: Some(is_latest),
                    last_modified: Some(version.modified.into()),
                    ..Default::default()
                }),
            }
        }
        (output.versions, output.delete_markers) = (Some(versions), Some(markers));
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let Some(id) = input.version_id else {
            if self.keeping == Keeping::Nothing {
                self.with(|keys| Ok(keys.remove(&input.key)))?;
            } else {
                self.add(input.key, None, None)?;
            }
            return Ok(S3Response::new(DeleteObjectOutput::default()));
        };
        let bypass = input.bypass_governance_retention.unwrap_or(false);
        self.with(|keys| {
            let Some(versions) = keys.get_mut(&input.key) else { return Ok(()) };
            let held = |version: &Version| {
                version.lock.is_some_and(|it| it.is_active() && (it.compliance || !bypass))
            };
            if versions.iter().any(|version| version.id == id && held(version)) {
                return Err(s3_error!(
                    AccessDenied,
                    "Access Denied because object protected by object lock."
                ));
            }
            versions.retain(|version| version.id != id);
            Ok(())
        })?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        _: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let enabled = BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
        let status = (self.keeping != Keeping::Nothing).then_some(enabled);
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }

    async fn get_object_lock_configuration(
        &self,
        _: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        if !self.is_locking() {
            return Err(s3_error!(ObjectLockConfigurationNotFoundError));
        }
        let enabled = ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED);
        let configuration = ObjectLockConfiguration { object_lock_enabled: Some(enabled), rule: None };
        let output = GetObjectLockConfigurationOutput { object_lock_configuration: Some(configuration) };
        Ok(S3Response::new(output))
    }

    async fn get_object_retention(
        &self,
        req: S3Request<GetObjectRetentionInput>,
    ) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        let version = self.read(&req.input.key, req.input.version_id.as_deref())?;
        let lock = version.lock.ok_or_else(|| s3_error!(NoSuchObjectLockConfiguration))?;
        let retention = ObjectLockRetention {
            mode: Some(ObjectLockRetentionMode::from_static(lock.mode())),
            retain_until_date: Some(lock.until.into()),
        };
        Ok(S3Response::new(GetObjectRetentionOutput { retention: Some(retention) }))
    }

    async fn put_object_retention(
        &self,
        req: S3Request<PutObjectRetentionInput>,
    ) -> S3Result<S3Response<PutObjectRetentionOutput>> {
        let input = req.input;
        if !self.is_locking() {
            return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
        }
        let asked = input.retention.ok_or_else(|| s3_error!(MalformedXML))?;
        let mode = asked.mode.as_ref().map(ObjectLockRetentionMode::as_str);
        let lock = Lock::parse(mode, asked.retain_until_date)?;
        let bypass = input.bypass_governance_retention.unwrap_or(false);
        let id = self.read(&input.key, input.version_id.as_deref())?.id;
        self.with(|keys| {
            let versions = keys.get_mut(&input.key).into_iter().flatten();
            for version in versions.filter(|version| version.id == id) {
                let old = version.lock.filter(|lock| lock.is_active());
                let weakens = old.is_some_and(|old| {
                    lock.is_none_or(|new| new.until < old.until || old.compliance && !new.compliance)
                });
                if weakens && (old.is_some_and(|old| old.compliance) || !bypass) {
                    return Err(s3_error!(
                        AccessDenied,
                        "Access Denied because object protected by object lock."
                    ));
                }
                version.lock = lock;
            }
            Ok(())
        })?;
        Ok(S3Response::new(PutObjectRetentionOutput::default()))
    }
}
