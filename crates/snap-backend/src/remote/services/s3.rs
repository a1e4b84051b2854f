//! `s3://bucket/prefix`.
//!
//! | query key | |
//! |---|---|
//! | `endpoint` | the server's URL, else `AWS_ENDPOINT_URL`, else Amazon's |
//! | `region` | else `AWS_REGION` or `AWS_DEFAULT_REGION`; with an endpoint, `us-east-1` if nothing is said |
//! | `path-style` | `true`: `endpoint/bucket/key`, the default with an endpoint; `false`: `bucket.endpoint/key` |
//! | `checksum` | what each PUT carries: `crc32c` (default), `md5` or `none` |
//! | `anonymous` | `true`: unsigned requests |
//!
//! Credentials: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.

use opendal::Operator;
use opendal::services::S3;
use reqsign_aws_v4::{RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};

use super::Built;
use crate::remote::credentials::missing;
use crate::remote::uri::config_error;
use crate::remote::{Credentials, ObjectLock, Uri, runtime};
use crate::{BackendError, ErrorKind, Operation};

const KEYS: &[&str] = &["anonymous", "checksum", "endpoint", "path-style", "region"];

/// Where a bucket is, from the URI and the environment.
struct Bucket<'a> {
    name: &'a str,
    endpoint: Option<String>,
    region: String,
    path_style: bool,
}

impl<'a> Bucket<'a> {
    fn find(uri: &'a Uri, credentials: &Credentials<'_>) -> Result<Self, BackendError> {
        uri.expect_keys(KEYS)?;
        uri.expect_no_userinfo("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")?;
        let endpoint = uri.endpoint(credentials.plain(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]))?;
        let region = uri.value("region").map(str::to_owned);
        let region = region.or_else(|| credentials.plain(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
        let region = region.ok_or_else(|| config_error("no region: add ?region=… or set AWS_REGION"))?;
        let path_style = uri.flag("path-style")?.unwrap_or(endpoint.is_some());
        Ok(Self { name: uri.expect_host("bucket")?, endpoint, region, path_style })
    }

    /// Its URL, without a slash at the end.
    fn url(&self) -> String {
        let amazon = || format!("https://s3.{}.amazonaws.com", self.region);
        let endpoint = self.endpoint.clone().unwrap_or_else(amazon);
        let endpoint = endpoint.trim_end_matches('/');
        match endpoint.split_once("://") {
            Some((scheme, host)) if !self.path_style => format!("{scheme}://{}.{host}", self.name),
            _ => format!("{endpoint}/{}", self.name),
        }
    }
}

pub(super) fn operator(uri: &Uri, credentials: &mut Credentials<'_>) -> Built {
    let bucket = Bucket::find(uri, credentials)?;
    let mut builder = S3::default().bucket(bucket.name).root(&uri.path).region(&bucket.region);
    builder = match uri.value("checksum").unwrap_or("crc32c") {
        checksum @ ("crc32c" | "md5") => builder.checksum_algorithm(checksum),
        "none" => builder,
        _ => return Err(config_error("`checksum` is crc32c, md5 or none").into()),
    };
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if !bucket.path_style {
        builder = builder.enable_virtual_host_style();
    }
    Ok(Operator::new(sign(builder, uri, credentials)?)?)
}

/// The bucket's versions and locks. Credentials must be given: those that only Amazon's own ways find are not looked for.
pub(super) fn object_lock(
    uri: &Uri,
    mut credentials: Credentials<'_>,
    client: reqwest::Client,
) -> Result<ObjectLock, BackendError> {
    let bucket = Bucket::find(uri, &credentials)?;
    let id = credentials.plain(&["AWS_ACCESS_KEY_ID"]);
    let provider = match (id, credentials.secret(&["AWS_SECRET_ACCESS_KEY"])) {
        _ if uri.flag("anonymous")? == Some(true) => None,
        (Some(id), Some(secret)) => Some(StaticCredentialProvider::new(&id, &secret)),
        _ => return Err(missing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")),
    };
    let token = credentials.secret(&["AWS_SESSION_TOKEN"]);
    let signer = provider.map(|provider| {
        let provider = match &token {
            Some(token) => provider.with_session_token(token),
            None => provider,
        };
        Signer::new(Context::new(), provider, RequestSigner::new("s3", &bucket.region))
    });
    let handle = runtime::handle()
        .map_err(|error| BackendError::new(ErrorKind::Other, Operation::Open).with_source(error))?;
    let prefix = uri.path.trim_matches('/');
    Ok(ObjectLock {
        client,
        signer,
        handle,
        base: bucket.url(),
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        told_time: std::sync::Mutex::default(),
        location: uri.redacted(),
        timeout: credentials.options().request_timeout,
        secrets: credentials.into_secrets(),
    })
}

fn sign(mut builder: S3, uri: &Uri, credentials: &mut Credentials<'_>) -> Result<S3, super::BuildError> {
    if !credentials.ambient() {
        builder = builder.disable_config_load().disable_ec2_metadata();
    }
    if uri.flag("anonymous")? == Some(true) {
        return Ok(builder.skip_signature());
    }
    let id = credentials.plain(&["AWS_ACCESS_KEY_ID"]);
    match (id, credentials.secret(&["AWS_SECRET_ACCESS_KEY"])) {
        (Some(id), Some(secret)) => builder = builder.access_key_id(&id).secret_access_key(&secret),
        _ if credentials.ambient() => return Ok(builder),
        _ => return Err(missing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY").into()),
    }
    match credentials.secret(&["AWS_SESSION_TOKEN"]) {
        Some(token) => Ok(builder.session_token(&token)),
        None => Ok(builder),
    }
}
