//! `webdav://[user@]host[:port]/path`, over HTTPS; `?tls=false` for plain HTTP.
//!
//! Credentials: `WEBDAV_USERNAME` (else the URI's user) and `WEBDAV_PASSWORD` (else the URI's), or
//! `WEBDAV_TOKEN`. Without any, requests are anonymous.
//!
//! A server may show a PUT half done, so objects are written under `tmp/` and moved. When they are durable
//! is the server's affair: WebDAV has no word for it.

use opendal::Operator;
use opendal::services::Webdav;

use super::Built;
use crate::remote::{Credentials, Uri};

const KEYS: &[&str] = &["tls"];

pub(super) fn operator(uri: &Uri, credentials: &mut Credentials<'_>) -> Built {
    uri.expect_keys(KEYS)?;
    let scheme = if uri.flag("tls")?.unwrap_or(true) { "https" } else { "http" };
    let mut endpoint = format!("{scheme}://{}", uri.expect_host("host")?);
    if let Some(port) = uri.port {
        endpoint.push_str(&format!(":{port}"));
    }
    let mut builder = Webdav::default().endpoint(&endpoint).root(&uri.path);
    if let Some(token) = credentials.secret(&["WEBDAV_TOKEN"]) {
        return Ok(Operator::new(builder.token(&token))?);
    }
    if let Some(user) = credentials.plain(&["WEBDAV_USERNAME"]).or_else(|| uri.user.clone()) {
        builder = builder.username(&user);
    }
    let password = credentials.secret(&["WEBDAV_PASSWORD"]).or_else(|| uri.password.clone());
    if let Some(password) = password {
        credentials.hide(&password);
        builder = builder.password(&password);
    }
    Ok(Operator::new(builder)?)
}
