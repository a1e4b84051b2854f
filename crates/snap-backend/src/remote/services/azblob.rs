//! `azblob://container/prefix`; query keys `account` (else `AZURE_STORAGE_ACCOUNT`), `endpoint` (else that of
//! the account) and `anonymous`.
//!
//! Credentials: `AZURE_STORAGE_KEY`, or `AZURE_STORAGE_SAS_TOKEN`.

use opendal::Operator;
use opendal::services::Azblob;

use super::Built;
use crate::remote::credentials::missing;
use crate::remote::uri::config_error;
use crate::remote::{Credentials, Uri};

const KEYS: &[&str] = &["account", "anonymous", "endpoint"];

pub(super) fn operator(uri: &Uri, credentials: &mut Credentials<'_>) -> Built {
    uri.expect_keys(KEYS)?;
    uri.expect_no_userinfo("AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY")?;
    let account = uri.value("account").map(str::to_owned);
    let account = account.or_else(|| credentials.plain(&["AZURE_STORAGE_ACCOUNT"]));
    let default = account.as_ref().map(|account| format!("https://{account}.blob.core.windows.net"));
    let endpoint = uri.endpoint(default)?;
    let endpoint =
        endpoint.ok_or_else(|| config_error("no account: add ?account=… or set AZURE_STORAGE_ACCOUNT"))?;

    let mut builder =
        Azblob::default().container(uri.expect_host("container")?).root(&uri.path).endpoint(&endpoint);
    if let Some(account) = &account {
        builder = builder.account_name(account);
    }
    if uri.flag("anonymous")? == Some(true) {
        builder = builder.skip_signature();
    } else if let Some(key) = credentials.secret(&["AZURE_STORAGE_KEY"]) {
        builder = builder.account_key(&key);
    } else if let Some(token) = credentials.secret(&["AZURE_STORAGE_SAS_TOKEN"]) {
        builder = builder.sas_token(token.trim_start_matches('?'));
    } else if !credentials.ambient() {
        return Err(missing("AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN").into());
    }
    Ok(Operator::new(builder)?)
}
