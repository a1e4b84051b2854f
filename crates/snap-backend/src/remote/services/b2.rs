//! `b2://bucket/prefix?bucket-id=…`.
//!
//! Credentials: `B2_APPLICATION_KEY_ID` and `B2_APPLICATION_KEY`.

use opendal::Operator;
use opendal::services::B2;

use super::Built;
use crate::remote::credentials::missing;
use crate::remote::uri::config_error;
use crate::remote::{Credentials, Uri};

const KEYS: &[&str] = &["bucket-id"];

pub(super) fn operator(uri: &Uri, credentials: &mut Credentials<'_>) -> Built {
    uri.expect_keys(KEYS)?;
    uri.expect_no_userinfo("B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY")?;
    let id = credentials.plain(&["B2_APPLICATION_KEY_ID"]);
    let (Some(id), Some(key)) = (id, credentials.secret(&["B2_APPLICATION_KEY"])) else {
        return Err(missing("B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY").into());
    };
    let bucket_id = uri.value("bucket-id").ok_or_else(|| config_error("no bucket id: add ?bucket-id=…"))?;
    let builder = B2::default().bucket(uri.expect_host("bucket")?).bucket_id(bucket_id).root(&uri.path);
    Ok(Operator::new(builder.application_key_id(&id).application_key(&key))?)
}
