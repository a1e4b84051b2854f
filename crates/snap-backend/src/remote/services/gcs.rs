//! `gcs://bucket/prefix`; query keys `endpoint` and `anonymous`.
//!
//! Credentials: `GOOGLE_APPLICATION_CREDENTIALS` (the path of a key file), or an access token in
//! `GOOGLE_OAUTH_ACCESS_TOKEN`.

use opendal::Operator;
use opendal::services::Gcs;

use super::Built;
use crate::remote::credentials::missing;
use crate::remote::{Credentials, Uri};

const KEYS: &[&str] = &["anonymous", "endpoint"];

pub(super) fn operator(uri: &Uri, credentials: &mut Credentials<'_>) -> Built {
    uri.expect_keys(KEYS)?;
    uri.expect_no_userinfo("GOOGLE_APPLICATION_CREDENTIALS")?;
    let mut builder = Gcs::default().bucket(uri.expect_host("bucket")?).root(&uri.path);
    if let Some(endpoint) = uri.endpoint(None)? {
        builder = builder.endpoint(&endpoint);
    }
    if !credentials.ambient() {
        builder = builder.disable_config_load().disable_vm_metadata();
    }
    if uri.flag("anonymous")? == Some(true) {
        builder = builder.skip_signature();
    } else if let Some(path) = credentials.plain(&["GOOGLE_APPLICATION_CREDENTIALS"]) {
        builder = builder.credential_path(&path);
    } else if let Some(token) = credentials.secret(&["GOOGLE_OAUTH_ACCESS_TOKEN"]) {
        builder = builder.token(token);
    } else if !credentials.ambient() {
        return Err(missing("GOOGLE_APPLICATION_CREDENTIALS").into());
    }
    Ok(Operator::new(builder)?)
}
