//! The gate of the S3 server: who somebody is, and what their policy allows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hyper::Request;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::DeleteObjectsInput;
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

use crate::policy::Policy;

/// Everybody who may ask for anything.
#[derive(Debug, Default)]
pub(crate) struct Guard(Mutex<HashMap<String, User>>);

#[derive(Debug, Clone)]
struct User {
    secret: String,
    /// Nothing: everything is allowed.
    policy: Option<Policy>,
}

impl Guard {
    pub(crate) fn add(&self, access: &str, secret: &str, policy: Option<Policy>) {
        let user = User { secret: secret.to_owned(), policy };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(access.to_owned(), user);
    }

    fn user(&self, access: &str) -> Option<User> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(access).cloned()
    }

    fn check_all(&self, access: &str, needs: &[Need]) -> S3Result<()> {
        let user = self.user(access).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        let Some(policy) = &user.policy else { return Ok(()) };
        for Need { action, resource, prefix } in needs {
            if !policy.allows(action, resource, prefix.as_deref()) {
                let message = format!(
                    "User: arn:aws:iam::123456789012:user/{access} is not authorized to perform: {action} on \
                     resource: \"{resource}\" because no identity-based policy allows the {action} action"
                );
                return Err(S3Error::with_message(S3ErrorCode::AccessDenied, message));
            }
        }
        Ok(())
    }

    /// Whether a missing object may be called missing: only to whoever may list the bucket without saying what.
    pub(crate) fn tells_what_is_missing<B>(&self, request: &Request<B>) -> bool {
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let access = header.and_then(|header| header.split_once("Credential=")?.1.split('/').next());
        let bucket = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        let needs = [Need::new("s3:ListBucket", bucket.to_owned())];
        access.is_none_or(|access| self.check_all(access, &needs).is_ok())
    }
}

/// An action on a resource.
struct Need {
    action: &'static str,
    resource: String,
    prefix: Option<String>,
}

impl Need {
    fn new(action: &'static str, resource: String) -> Self {
        Self { action, resource: format!("arn:aws:s3:::{resource}"), prefix: None }
    }
}

/// What a request needs, after the table of actions in Amazon's "Actions, resources, and condition keys for S3".
fn needs(cx: &S3AccessContext<'_>) -> S3Result<Vec<Need>> {
    let resource = match cx.s3_path() {
        S3Path::Root => "*".to_owned(),
        S3Path::Bucket { bucket } => bucket.to_string(),
        S3Path::Object { bucket, key } => format!("{bucket}/{key}"),
    };
    let query = cx.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(value)).next()
    };
    let version = parameter("versionId").is_some();
    let action = match (cx.s3_op().name(), version) {
        ("ListObjects" | "ListObjectsV2" | "HeadBucket", _) => "s3:ListBucket",
        ("ListObjectVersions", _) => "s3:ListBucketVersions",
        ("GetObject" | "HeadObject", false) => "s3:GetObject",
        ("GetObject" | "HeadObject", true) => "s3:GetObjectVersion",
        ("PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload", _) => {
            "s3:PutObject"
        }
        ("AbortMultipartUpload", _) => "s3:AbortMultipartUpload",
        ("DeleteObject", false) => "s3:DeleteObject",
        ("DeleteObject", true) => "s3:DeleteObjectVersion",
        ("GetObjectRetention", _) => "s3:GetObjectRetention",
        ("PutObjectRetention", _) => "s3:PutObjectRetention",
        ("GetBucketVersioning", _) => "s3:GetBucketVersioning",
        ("GetObjectLockConfiguration", _) => "s3:GetBucketObjectLockConfiguration",
        // Each key by itself, when they are known.
        ("DeleteObjects", _) => return Ok(Vec::new()),
        (other, _) => return Err(s3_error!(NotImplemented, "no policy says what {other} needs")),
    };
    let mut out = vec![Need { prefix: parameter("prefix"), ..Need::new(action, resource.clone()) }];
    let has = |name: &str| cx.headers().contains_key(name);
    if action == "s3:PutObject" && has("x-amz-object-lock-mode") {
        out.push(Need::new("s3:PutObjectRetention", resource.clone()));
    }
    if has("x-amz-bypass-governance-retention") {
        out.push(Need::new("s3:BypassGovernanceRetention", resource));
    }
    Ok(out)
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, used) = match (first, hex) {
            (b'%', Some(byte)) => (byte, 3),
            _ => (*first, 1),
        };
        out.push(byte);
        rest = &rest[used..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The gate, as s3s wants it.
#[derive(Debug, Clone)]
pub(crate) struct Gate(pub(crate) std::sync::Arc<Guard>);

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let user = self.0.user(access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        Ok(SecretKey::from(user.secret))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let access = cx.credentials().map(|it| it.access_key.clone());
        let access = access.ok_or_else(|| s3_error!(AccessDenied, "signature is required"))?;
        self.0.check_all(&access, &needs(cx)?)
    }

    async fn delete_objects(&self, request: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let access = request.credentials.as_ref().map(|it| it.access_key.clone()).unwrap_or_default();
        let needs = request.input.delete.objects.iter().map(|object| {
            let resource = format!("{}/{}", request.input.bucket, object.key);
            let versioned = object.version_id.is_some();
            Need::new(if versioned { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" }, resource)
        });
        self.0.check_all(&access, &needs.collect::<Vec<_>>())
    }
}
