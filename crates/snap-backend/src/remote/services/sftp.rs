//! `sftp://[user@]host[:port]/path`; `/~/path` is relative to the user's home.
//!
//! | query key | |
//! |---|---|
//! | `key` | the file of the private key, else `SNAP_SFTP_KEY`, else what `ssh` finds |
//! | `known-hosts` | `strict` (default): the host key must be known; `accept-new`: an unknown one is noted |
//! | `known-hosts-file` | else `SNAP_SFTP_KNOWN_HOSTS`, else those of `ssh` |
//!
//! The `ssh` program makes the connection, so its configuration, its agent and its jump hosts work.

use std::sync::Arc;

use crate::remote::uri::config_error;
use crate::remote::{Credentials, Uri, sftp};
use crate::{Backend, BackendError};

const KEYS: &[&str] = &["key", "known-hosts", "known-hosts-file"];

pub(super) fn open(uri: &Uri, credentials: &Credentials<'_>) -> Result<Arc<dyn Backend>, BackendError> {
    uri.expect_keys(KEYS)?;
    if uri.password.is_some() {
        return Err(config_error("sftp:// takes no password; use a key, or an ssh agent"));
    }
    let host = uri.expect_host("host")?;
    let user = uri.user.as_deref().unwrap_or_default();
    if host.starts_with('-') || user.starts_with('-') {
        return Err(config_error("a host or user that begins with `-`"));
    }
    let accept_new = match uri.value("known-hosts") {
        None | Some("strict") => false,
        Some("accept-new") => true,
        Some(_) => return Err(config_error("`known-hosts` is strict or accept-new")),
    };
    let given =
        |key: &str, name: &str| uri.value(key).map(str::to_owned).or_else(|| credentials.plain(&[name]));
    let target = sftp::Target {
        host: host.trim_matches(['[', ']']).to_owned(),
        user: uri.user.clone(),
        port: uri.port,
        key: given("key", "SNAP_SFTP_KEY"),
        known_hosts: given("known-hosts-file", "SNAP_SFTP_KNOWN_HOSTS"),
        accept_new,
    };
    let root = uri.path.strip_prefix("/~/").unwrap_or(&uri.path).trim_end_matches('/');
    let root = if root.is_empty() { if uri.path == "/~/" { "." } else { "/" } } else { root };
    let options = credentials.options();
    let store =
        sftp::SftpBackend::new(target, root, uri.redacted(), options.create, options.request_timeout)?;
    Ok(Arc::new(store))
}
