//! Versions and locks of an S3 bucket: the few requests that OpenDAL does not make.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use tokio::runtime::Handle;

use super::credentials::Secrets;
use super::error::says_unauthenticated;
use super::runtime::patience;
use crate::{BackendError, ErrorKind, ObjectName, Operation, Timestamp};

/// Who may end a retention before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has the permission to bypass it.
    Governance,
    /// Nobody, the owner of the account included.
    Compliance,
}

/// Until when an object cannot be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Who may end it.
    pub mode: LockMode,
    /// By the store's clock.
    pub until: Timestamp,
}

/// A version of an object, as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Of which object.
    pub name: ObjectName,
    /// Its id.
    pub version: String,
    /// Whether it is what reading the object gives.
    pub is_newest: bool,
    /// Whether it holds nothing and says that the object was deleted.
    pub is_delete_marker: bool,
}

/// The versions and locks of a bucket. Requests are made once; who wants them repeated repeats them.
///
/// Retention is a matter of single *versions*; an object's is that of its newest one.
pub struct ObjectLock {
    pub(super) client: reqwest::Client,
    pub(super) signer: Option<Signer<Credential>>,
    pub(super) handle: Handle,
    /// Of the bucket, without a slash at its end.
    pub(super) base: String,
    /// Before the name of each object: empty, or with a slash at its end.
    pub(super) prefix: String,
    pub(super) location: String,
    pub(super) secrets: Secrets,
    pub(super) timeout: Duration,
    /// What the last answer said of the time.
    pub(super) told_time: Mutex<Option<Timestamp>>,
}

impl std::fmt::Debug for ObjectLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectLock").field("location", &self.location).finish_non_exhaustive()
    }
}

/// What stays as it is in a path: RFC 3986's unreserved characters, and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What stays as it is in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

struct Request<'a> {
    operation: Operation,
    method: reqwest::Method,
    name: Option<&'a ObjectName>,
    query: Vec<(&'static str, Option<Cow<'a, str>>)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// An answer that is no failure.
struct Answer {
    version: Option<String>,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// A failure, and the word that S3 has for it.
struct Refusal {
    code: String,
    error: BackendError,
}

impl From<Refusal> for BackendError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl ObjectLock {
    /// Whether the bucket keeps older versions of what is overwritten or deleted.
    pub fn is_versioned(&self) -> Result<bool, BackendError> {
        let answer =
            self.send(Request::new(Operation::Open, reqwest::Method::GET).ask("versioning", None))?;
        Ok(element(&answer.text(), "Status") == Some("Enabled"))
    }

    /// Whether the bucket has object lock.
    pub fn has_locks(&self) -> Result<bool, BackendError> {
        let request = Request::new(Operation::Open, reqwest::Method::GET).ask("object-lock", None);
        match self.send(request) {
            Ok(answer) => Ok(element(&answer.text(), "ObjectLockEnabled") == Some("Enabled")),
            Err(refusal) if refusal.code == "ObjectLockConfigurationNotFoundError" => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Stores an object, with a retention or as the bucket has it. Returns its version, if the bucket has versions.
    pub fn put(
        &self,
        name: &ObjectName,
        body: Bytes,
        retention: Option<Retention>,
    ) -> Result<Option<String>, BackendError> {
        let mut request = Request::new(Operation::Put, reqwest::Method::PUT).of(name).with(body);
        if let Some(Retention { mode, until }) = retention {
            request.headers.push(("x-amz-object-lock-mode", mode.word().to_owned()));
            request.headers.push(("x-amz-object-lock-retain-until-date", date(until)?));
        }
        Ok(self.send(request)?.version)
    }

    /// Reads a version of an object, one that is hidden or written over too.
    pub fn get(&self, name: &ObjectName, version: &str) -> Result<Bytes, BackendError> {
        let request = Request::new(Operation::Get, reqwest::Method::GET).of(name);
        Ok(self.send(request.version(Some(version)))?.body)
    }

    /// Until when a version of an object, by default the newest, cannot be deleted; none if it can be.
    pub fn retention_of(
        &self,
        name: &ObjectName,
        version: Option<&str>,
    ) -> Result<Option<Retention>, BackendError> {
        let request = Request::new(Operation::Stat, reqwest::Method::GET).of(name);
        let request = request.ask("retention", None).version(version);
        let text = match self.send(request) {
            Ok(answer) => answer.text().into_owned(),
            // The object, or the whole bucket, has none.
            Err(refusal) if ["NoSuchObjectLockConfiguration", "InvalidRequest"].contains(&&*refusal.code) => {
                return Ok(None);
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let mode = match element(&text, "Mode") {
            Some("COMPLIANCE") => LockMode::Compliance,
            Some("GOVERNANCE") => LockMode::Governance,
            _ => return Ok(None),
        };
        let until = element(&text, "RetainUntilDate").and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let until = until.ok_or_else(|| {
            self.error(ErrorKind::Other, Operation::Stat, Some(name), "a retention without a date")
        })?;
        let until = Timestamp { unix_seconds: until.as_second(), nanos: 0 };
        Ok(Some(Retention { mode, until }))
    }

    /// Sets the retention of a version, by default the newest. What shortens one needs `bypass` and the permission for it,
    /// and cannot be done at all in compliance mode.
    pub fn set_retention(
        &self,
        name: &ObjectName,
        version: Option<&str>,
        retention: Retention,
        bypass: bool,
    ) -> Result<(), BackendError> {
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
             <RetainUntilDate>{}</RetainUntilDate></Retention>",
            retention.mode.word(),
            date(retention.until)?
        );
        let mut request = Request::new(Operation::Put, reqwest::Method::PUT).of(name).with(body.into());
        request = request.ask("retention", None).version(version).bypassing(bypass);
        self.send(request)?;
        Ok(())
    }

    /// Sees to it that a version, by default the newest, is retained at least until `at_least`, in the mode of `goal` or a
    /// stricter one; if it is not, then as long as `goal` says. Never shortens a retention, nor weakens its mode: what is
    /// retained in compliance mode stays so. Returns how it is retained now, and whether that took a change.
    pub fn extend_retention(
        &self,
        name: &ObjectName,
        version: Option<&str>,
        at_least: Timestamp,
        mut goal: Retention,
    ) -> Result<(Retention, bool), BackendError> {
        if let Some(now) = self.retention_of(name, version)? {
            let is_weaker = goal.mode == LockMode::Compliance && now.mode == LockMode::Governance;
            if now.until >= at_least && !is_weaker {
                return Ok((now, false));
            }
            goal.until = goal.until.max(now.until);
            if now.mode == LockMode::Compliance {
                goal.mode = LockMode::Compliance;
            }
        }
        self.set_retention(name, version, goal, false)?;
        Ok((goal, true))
    }

    /// Lists every version of every object whose name begins with `prefix`, delete markers too. Names that no
    /// store of ours can have are left out.
    pub fn list_versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(ObjectVersion) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let prefix = format!("{}{prefix}", self.prefix);
        let mut after: Option<(String, Option<String>)> = None;
        loop {
            let mut request = Request::new(Operation::List, reqwest::Method::GET);
            request = request.ask("encoding-type", Some("url".into()));
            if let Some((key, version)) = after.take() {
                request = request.ask("key-marker", Some(key.into()));
                if let Some(version) = version {
                    request = request.ask("version-id-marker", Some(version.into()));
                }
            }
            request = request.ask("prefix", Some(prefix.as_str().into())).ask("versions", None);
            let answer = self.send(request)?;
            let text = answer.text();
            let is_encoded = element(&text, "EncodingType") == Some("url");
            let mut rest: &str = &text;
            while let Some((is_delete_marker, entry, behind)) = next_version(rest) {
                rest = behind;
                if let Some(found) = self.version_of(entry, is_delete_marker, is_encoded) {
                    each(found)?;
                }
            }
            if element(&text, "IsTruncated") != Some("true") {
                return Ok(());
            }
            let key =
                element(&text, "NextKeyMarker").map(|key| decoded(key, is_encoded)).ok_or_else(|| {
                    self.error(
                        ErrorKind::Other,
                        Operation::List,
                        None,
                        "a listing that does not say how it goes on",
                    )
                })?;
            after = Some((key, element(&text, "NextVersionIdMarker").map(str::to_owned)));
        }
    }

    fn version_of(&self, entry: &str, is_delete_marker: bool, is_encoded: bool) -> Option<ObjectVersion> {
        let key = decoded(element(entry, "Key")?, is_encoded);
        Some(ObjectVersion {
            name: ObjectName::new(key.strip_prefix(&self.prefix)?).ok()?,
            version: element(entry, "VersionId")?.to_owned(),
            is_newest: element(entry, "IsLatest") == Some("true"),
            is_delete_marker,
        })
    }

    /// Deletes an object, or one version of it for good; success if there is none.
    pub fn delete(&self, name: &ObjectName, version: Option<&str>, bypass: bool) -> Result<(), BackendError> {
        let request = Request::new(Operation::Delete, reqwest::Method::DELETE).of(name);
        self.send(request.version(version).bypassing(bypass))?;
        Ok(())
    }

    /// The store's own time, as its last answer told it; none before the first. Who locks something for long does not rest
    /// that on the clock of some machine.
    pub fn store_time(&self) -> Option<Timestamp> {
        *self.told_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this is, for messages: holds no credential.
    pub fn location(&self) -> &str {
        &self.location
    }

    fn url(&self, request: &Request<'_>) -> String {
        let mut url = format!("{}/", self.base);
        if let Some(name) = request.name {
            url.extend(utf8_percent_encode(&self.prefix, PATH));
            url.extend(utf8_percent_encode(name.as_str(), PATH));
        }
        for (number, (key, value)) in request.query.iter().enumerate() {
            url.push(if number == 0 { '?' } else { '&' });
            url.push_str(key);
            url.push('=');
            url.extend(utf8_percent_encode(value.as_deref().unwrap_or_default(), QUERY));
        }
        url
    }

    fn error(
        &self,
        kind: ErrorKind,
        operation: Operation,
        name: Option<&ObjectName>,
        why: impl Into<String>,
    ) -> BackendError {
        let error = BackendError::new(kind, operation).with_location(&self.location);
        let error = error.with_source(self.secrets.scrub(why.into()));
        match name {
            Some(name) => error.with_name(name.as_str()),
            None => error,
        }
    }

    fn send(&self, request: Request<'_>) -> Result<Answer, Refusal> {
        let (operation, name) = (request.operation, request.name);
        let fail = |kind, code: &str, why: String| Refusal {
            code: code.to_owned(),
            error: self.error(kind, operation, name, why),
        };
        let limit = patience(self.timeout, request.body.len() as u64);
        let exchange = async {
            let prepared = self.prepare(request).await.map_err(|why| fail(ErrorKind::Other, "", why))?;
            let network =
                |error: reqwest::Error| fail(ErrorKind::Network, "", error.without_url().to_string());
            let response = self.client.execute(prepared).await.map_err(network)?;
            let status = response.status();
            let date = response.headers().get("date").and_then(|it| it.to_str().ok());
            if let Some(time) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
                let time = Timestamp { unix_seconds: time.timestamp().as_second(), nanos: 0 };
                *self.told_time.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
            }
            let version = response.headers().get("x-amz-version-id").and_then(|it| it.to_str().ok());
            let version = version.filter(|version| *version != "null").map(str::to_owned);
            let body = response.bytes().await.map_err(network)?;
            let answer = Answer { version, body };
            if status.is_success() {
                return Ok(answer);
            }
            let text = answer.text();
            let code = element(&text, "Code").unwrap_or_default();
            let message = element(&text, "Message").unwrap_or_default();
            Err(fail(
                judge(status.as_u16(), code),
                code,
                format!("{status} {code} {message}").trim().to_owned(),
            ))
        };
        let late = || fail(ErrorKind::Timeout, "", format!("no answer within {limit:?}"));
        self.handle
            .block_on(async { tokio::time::timeout(limit, exchange).await })
            .unwrap_or_else(|_| Err(late()))
    }

    async fn prepare(&self, request: Request<'_>) -> Result<reqwest::Request, String> {
        let mut builder = http::Request::builder().method(request.method.clone()).uri(self.url(&request));
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if request.method == reqwest::Method::PUT {
            // What has to do with locks is refused without one.
            let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &request.body) as u32;
            let sum = base64::engine::general_purpose::STANDARD.encode(sum.to_be_bytes());
            builder = builder.header("x-amz-checksum-crc32c", sum);
        }
        let (mut parts, body) = builder.body(request.body).map_err(|error| error.to_string())?.into_parts();
        if let Some(signer) = &self.signer {
            signer.sign(&mut parts, None).await.map_err(|error| error.to_string())?;
        }
        let signed = http::Request::from_parts(parts, body);
        reqwest::Request::try_from(signed).map_err(|error| error.without_url().to_string())
    }
}

impl LockMode {
    const fn word(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

impl<'a> Request<'a> {
    fn new(operation: Operation, method: reqwest::Method) -> Self {
        Self { operation, method, name: None, query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    fn of(self, name: &'a ObjectName) -> Self {
        Self { name: Some(name), ..self }
    }

    fn with(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    fn ask(mut self, key: &'static str, value: Option<Cow<'a, str>>) -> Self {
        self.query.push((key, value));
        self
    }

    fn version(self, version: Option<&'a str>) -> Self {
        if version.is_some() { self.ask("versionId", version.map(Cow::Borrowed)) } else { self }
    }

    fn bypassing(mut self, bypass: bool) -> Self {
        if bypass {
            self.headers.push(("x-amz-bypass-governance-retention", "true".to_owned()));
        }
        self
    }
}

fn judge(status: u16, code: &str) -> ErrorKind {
    match status {
        _ if says_unauthenticated(code) => ErrorKind::Unauthenticated,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Permission,
        404 => ErrorKind::NotFound,
        429 | 503 => ErrorKind::Throttled,
        405 | 501 => ErrorKind::Unsupported,
        500..=599 => ErrorKind::Network,
        _ => ErrorKind::Other,
    }
}

/// RFC 3339, in UTC.
fn date(time: Timestamp) -> Result<String, BackendError> {
    let told = jiff::Timestamp::from_second(time.unix_seconds).map(|time| time.to_string());
    told.map_err(|error| BackendError::new(ErrorKind::Config, Operation::Put).with_source(error.to_string()))
}

/// The text of the first element of that name; S3's answers have neither attributes nor nesting where this is asked.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    Some(after.split_once(&format!("</{name}>"))?.0.trim())
}

/// The next entry of a listing of versions: whether it is a delete marker, what it says, and what stands behind it.
fn next_version(xml: &str) -> Option<(bool, &str, &str)> {
    const TAGS: [(&str, &str); 2] = [("<Version>", "</Version>"), ("<DeleteMarker>", "</DeleteMarker>")];
    let found = TAGS.iter().enumerate().filter_map(|(kind, (open, _))| Some((xml.find(open)?, kind)));
    let (at, kind) = found.min()?;
    let (open, close) = TAGS[kind];
    let (entry, behind) = xml[at + open.len()..].split_once(close)?;
    Some((kind == 1, entry, behind))
}

/// A key out of a listing: encoded as in a form, where the store understood `encoding-type=url`.
fn decoded(text: &str, is_encoded: bool) -> String {
    if is_encoded {
        return percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    }
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    plain.replace("&amp;", "&")
}
