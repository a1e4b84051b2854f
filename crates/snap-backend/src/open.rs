//! From what the user wrote to a backend.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::remote::{self, SCHEMES, Uri, looks_like_uri};
use crate::{
    Backend, BackendError, BandwidthBackend, BandwidthOptions, Bucket, Clock, ConcurrencyBackend, ErrorKind,
    LocalBackend, MemoryBackend, MonotonicClock, ObjectLock, Operation, RetryBackend, RetryOptions,
};

/// Looks a name up in the caller's environment.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + 'a);

/// How to open a backend. This crate reads no environment of its own accord: it all comes in here.
#[derive(Clone)]
pub struct OpenOptions<'a> {
    /// Whether the first put may make a missing directory.
    pub create: bool,
    /// Where credentials and proxies are looked up, by the names of their usual variables.
    pub env: Option<Environment<'a>>,
    /// Credentials given explicitly, by the same names; they win over `env`.
    pub credentials: BTreeMap<String, String>,
    /// Whether a cloud's own ways of finding credentials may be used where none are given: configuration
    /// files, instance metadata. They read the environment and the home directory.
    pub ambient_credentials: bool,
    /// How long a request may take, beyond the time that its body needs at a megabit per second.
    pub request_timeout: Duration,
    /// How remote requests are repeated; `None` leaves that to the caller.
    pub retry: Option<RetryOptions>,
    /// The most requests at once; `None` leaves that to the caller.
    pub connections: Option<NonZeroUsize>,
    /// The most bytes per second.
    pub bandwidth: BandwidthOptions,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            create: false,
            env: None,
            credentials: BTreeMap::new(),
            ambient_credentials: false,
            request_timeout: Duration::from_secs(60),
            retry: Some(RetryOptions::default()),
            connections: None,
            bandwidth: BandwidthOptions::default(),
        }
    }
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials: Vec<_> = self.credentials.keys().collect();
        f.debug_struct("OpenOptions")
            .field("create", &self.create)
            .field("credentials", &credentials)
            .field("ambient_credentials", &self.ambient_credentials)
            .field("request_timeout", &self.request_timeout)
            .field("retry", &self.retry)
            .field("connections", &self.connections)
            .field("bandwidth", &self.bandwidth)
            .finish_non_exhaustive()
    }
}

/// Opens the backend that `uri` names: a path, `file://`, `s3://`, `gcs://`, `azblob://`, `b2://`, `webdav://`,
/// `sftp://`, or `memory:` for tests.
///
/// Nothing is asked of the store yet: whether it can be reached shows with the first operation. What cannot be
/// understood is [`ErrorKind::Config`], missing credentials are [`ErrorKind::Unauthenticated`].
pub fn open(uri: &str, options: &OpenOptions<'_>) -> Result<Arc<dyn Backend>, BackendError> {
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::new());
    let (mut backend, remote) = open_store(uri, options)?;
    if let Some(limit) = options.connections {
        backend = Arc::new(ConcurrencyBackend::new(backend, limit));
    }
    if options.bandwidth != BandwidthOptions::default() {
        backend = Arc::new(BandwidthBackend::new(backend, options.bandwidth, clock.clone()));
    }
    // Outermost: who waits for the next attempt holds no connection.
    match &options.retry {
        Some(retry) if remote => Ok(Arc::new(RetryBackend::new(backend, retry.clone(), clock))),
        _ => Ok(backend),
    }
}

/// Opens a bucket, or a part of one, for objects of any name; `uri` is one as for [`open`], but no directory and no SFTP.
pub fn open_bucket(uri: &str, options: &OpenOptions<'_>) -> Result<Bucket, BackendError> {
    let fail = |error: BackendError| match error.location() {
        None => error.with_location(remote::redact(uri)),
        Some(_) => error,
    };
    let parsed = Uri::parse(uri).map_err(fail)?;
    remote::open_bucket(&parsed, options).map_err(fail)
}

/// The versions and locks of the store that `uri` names; none if it is of a kind that has no such thing, or none that is
/// known here. Nothing is asked of it yet.
pub fn open_object_lock(uri: &str, options: &OpenOptions<'_>) -> Result<Option<ObjectLock>, BackendError> {
    if !looks_like_uri(uri) {
        return Ok(None);
    }
    let fail = |error: BackendError| match error.location() {
        None => error.with_location(remote::redact(uri)),
        Some(_) => error,
    };
    let parsed = Uri::parse(uri).map_err(fail)?;
    remote::open_object_lock(&parsed, options).map_err(fail)
}

/// The bare store, and whether it is remote.
fn open_store(uri: &str, options: &OpenOptions<'_>) -> Result<(Arc<dyn Backend>, bool), BackendError> {
    if uri == "memory:" {
        return Ok((Arc::new(MemoryBackend::new()), false));
    }
    if !looks_like_uri(uri) {
        refuse_half_a_uri(uri)?;
        return Ok((Arc::new(LocalBackend::new(uri, options.create)), false));
    }
    let fail = |error: BackendError| match error.location() {
        None => error.with_location(remote::redact(uri)),
        Some(_) => error,
    };
    let parsed = Uri::parse(uri).map_err(fail)?;
    if parsed.scheme == "file" {
        return Ok((local(&parsed, options).map_err(fail)?, false));
    }
    remote::open(&parsed, options).map(|backend| (backend, true)).map_err(fail)
}

fn local(uri: &Uri, options: &OpenOptions<'_>) -> Result<Arc<dyn Backend>, BackendError> {
    uri.expect_keys(&[])?;
    if !uri.host.is_empty() {
        return Err(config_error("file:// has no host: write file:///path"));
    }
    Ok(Arc::new(LocalBackend::new(&uri.path, options.create)))
}

/// `s3:bucket` would be a fine name for a directory, and is never meant as one.
fn refuse_half_a_uri(path: &str) -> Result<(), BackendError> {
    if path.is_empty() {
        return Err(config_error("an empty path"));
    }
    match path.split_once(':') {
        Some((scheme, _)) if SCHEMES.contains(&scheme) => {
            Err(config_error(format!("write {scheme}://…, or ./{scheme}:… for a directory of that name")))
        }
        _ => Ok(()),
    }
}

fn config_error(why: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Config, Operation::Open).with_source(why.into())
}
