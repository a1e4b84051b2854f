//! From a URI to a store. Each service has its query keys and its credentials in one place.

mod azblob;
mod b2;
mod gcs;
mod s3;
mod sftp;
mod webdav;

use std::sync::Arc;
use std::time::Duration;

use opendal::{HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::bucket::Bucket;
use super::credentials::{Credentials, Secrets};
use super::error::{classify, describe};
use super::object_store::ObjectStore;
use super::uri::config_error;
use super::{ObjectLock, Uri, runtime};
use crate::{Backend, BackendError, ErrorKind, OpenOptions, Operation};

/// What may stand before `://`.
pub const SCHEMES: &[&str] = &["azblob", "b2", "file", "gcs", "s3", "sftp", "webdav"];

/// Opens the store that `uri` names; nothing is asked of it yet.
pub(crate) fn open(uri: &Uri, options: &OpenOptions<'_>) -> Result<Arc<dyn Backend>, BackendError> {
    match uri.scheme.as_str() {
        "sftp" => sftp::open(uri, &Credentials::new(options)),
        _ => Ok(Arc::new(object_store(uri, options)?)),
    }
}

/// Opens the bucket that `uri` names for objects of other names than a repository's.
pub(crate) fn open_bucket(uri: &Uri, options: &OpenOptions<'_>) -> Result<Bucket, BackendError> {
    match uri.scheme.as_str() {
        "sftp" => Err(BackendError::new(ErrorKind::Unsupported, Operation::Open)
            .with_location(uri.redacted())
            .with_source("only object stores and WebDAV take files that are no repository's")),
        _ => Ok(Bucket::new(object_store(uri, options)?, options)),
    }
}

fn object_store(uri: &Uri, options: &OpenOptions<'_>) -> Result<ObjectStore, BackendError> {
    let mut credentials = Credentials::new(options);
    let (operator, staged) = match uri.scheme.as_str() {
        "s3" => (s3::operator(uri, &mut credentials), false),
        "gcs" => (gcs::operator(uri, &mut credentials), false),
        "azblob" => (azblob::operator(uri, &mut credentials), false),
        "b2" => (b2::operator(uri, &mut credentials), false),
        "webdav" => (webdav::operator(uri, &mut credentials), true),
        _ => {
            let known = SCHEMES.join("://, ");
            return Err(config_error(format!("unknown scheme `{}://`; known are {known}://", uri.scheme)));
        }
    };
    let transport =
        http_client(&credentials).map(|client| HttpTransporter::new(ReqwestTransport::new(client)));
    let secrets = credentials.into_secrets();
    let location = uri.redacted();
    let operator = operator.map_err(|error| error.into_backend_error(&secrets).with_location(&location))?;
    let context = OperationContext::default().with_http_transport(transport?);
    let handle = runtime::handle().map_err(|error| {
        BackendError::new(ErrorKind::Other, Operation::Open).with_location(&location).with_source(error)
    })?;
    let timeout = options.request_timeout;
    let operator = operator.with_context(context);
    Ok(ObjectStore { operator, handle, location, secrets, timeout, staged })
}

/// The versions and locks of the store that `uri` names, where it has such things.
pub(crate) fn open_object_lock(
    uri: &Uri,
    options: &OpenOptions<'_>,
) -> Result<Option<ObjectLock>, BackendError> {
    if uri.scheme != "s3" {
        return Ok(None);
    }
    let credentials = Credentials::new(options);
    let client = http_client(&credentials)?;
    s3::object_lock(uri, credentials, client).map(Some)
}

/// What building an operator can end with.
enum BuildError {
    Ours(BackendError),
    Theirs(opendal::Error),
}

impl From<BackendError> for BuildError {
    fn from(error: BackendError) -> Self {
        Self::Ours(error)
    }
}

impl From<opendal::Error> for BuildError {
    fn from(error: opendal::Error) -> Self {
        Self::Theirs(error)
    }
}

impl BuildError {
    fn into_backend_error(self, secrets: &Secrets) -> BackendError {
        match self {
            Self::Ours(error) => error,
            Self::Theirs(error) => {
                BackendError::new(classify(&error), Operation::Open).with_source(describe(&error, secrets))
            }
        }
    }
}

type Built = Result<Operator, BuildError>;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// HTTP/1.1 over rustls with ring and the system's certificates; proxies only as the caller's environment
/// names them.
fn http_client(credentials: &Credentials<'_>) -> Result<reqwest::Client, BackendError> {
    // Fails only if the process has chosen a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy();
    let except = credentials.plain(&["NO_PROXY", "no_proxy"]);
    let except = except.as_deref().and_then(reqwest::NoProxy::from_string);
    let refused = |_| config_error("the proxy of the environment is no URL");
    if let Some(proxy) = credentials.plain(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]) {
        let proxy = reqwest::Proxy::https(proxy).map_err(refused)?;
        client = client.proxy(proxy.no_proxy(except.clone()));
    }
    // Only in lower case, as everywhere: a server sets the upper-case one from a request's header.
    if let Some(proxy) = credentials.plain(&["http_proxy"]) {
        client = client.proxy(reqwest::Proxy::http(proxy).map_err(refused)?.no_proxy(except));
    }
    client.build().map_err(|error| {
        BackendError::new(ErrorKind::Other, Operation::Open).with_source(error.without_url())
    })
}
