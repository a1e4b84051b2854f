//! URIs of repositories: taken apart, and shown without their secrets.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::{BackendError, ErrorKind, Operation};

/// `scheme://[user[:password]@]host[:port]/path?key=value&…`.
pub(crate) struct Uri {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    /// Decoded, with its leading slash; `/` if there was none.
    pub path: String,
    query: BTreeMap<String, String>,
}

pub(super) fn config_error(why: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Config, Operation::Open).with_source(why.into())
}

/// Whether `text` names a store rather than a path.
pub(crate) fn looks_like_uri(text: &str) -> bool {
    split_scheme(text).is_some()
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let mut bytes = scheme.bytes();
    let valid = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

fn decode(text: &str) -> Result<String, BackendError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| config_error("percent-encoding that is not UTF-8"))
}

impl Uri {
    pub fn parse(text: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = split_scheme(text).ok_or_else(|| config_error("not a URI"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let (host, port) = split_port(host)?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            host: decode(host)?,
            port,
            path: decode(path)?,
            query: parse_query(query)?,
        })
    }

    /// Refuses what the store does not know, naming what it does.
    pub fn expect_keys(&self, known: &[&str]) -> Result<(), BackendError> {
        match self.query.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let (scheme, known) = (&self.scheme, known.join(", "));
                Err(config_error(format!("unknown query key `{key}`; {scheme}:// knows {known}")))
            }
        }
    }

    pub fn expect_no_userinfo(&self, instead: &str) -> Result<(), BackendError> {
        if self.user.is_none() && self.password.is_none() {
            return Ok(());
        }
        Err(config_error(format!("credentials do not belong in the URI; set {instead}")))
    }

    pub fn expect_host(&self, what: &str) -> Result<&str, BackendError> {
        if self.host.is_empty() {
            return Err(config_error(format!("no {what}: write {}://{what}/prefix", self.scheme)));
        }
        Ok(&self.host)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, BackendError> {
        match self.value(key) {
            None => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            Some(_) => Err(config_error(format!("`{key}` is true or false"))),
        }
    }

    /// An endpoint given as a query key: `http://` or `https://`, and no credentials.
    pub fn endpoint(&self, fallback: Option<String>) -> Result<Option<String>, BackendError> {
        let Some(endpoint) = self.value("endpoint").map(str::to_owned).or(fallback) else { return Ok(None) };
        if endpoint.contains('@') {
            return Err(config_error("the endpoint must not hold credentials"));
        }
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(config_error("the endpoint begins with http:// or https://"));
        }
        Ok(Some(endpoint.trim_end_matches('/').to_owned()))
    }

    /// The URI for messages: without the password, and without values that might hold a secret.
    pub fn redacted(&self) -> String {
        let mut text = format!("{}://", self.scheme);
        if let Some(user) = &self.user {
            text.push_str(user);
            text.push('@');
        }
        text.push_str(&self.host);
        if let Some(port) = self.port {
            text.push_str(&format!(":{port}"));
        }
        text.push_str(self.path.trim_end_matches('/'));
        for (i, (key, value)) in self.query.iter().enumerate() {
            text.push(if i == 0 { '?' } else { '&' });
            text.push_str(&shown_pair(key, value));
        }
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

fn split_port(host: &str) -> Result<(&str, Option<u16>), BackendError> {
    // Within the brackets of an IPv6 address a colon is part of it.
    match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().map_err(|_| config_error("the port is no number below 65536"))?;
            Ok((host, Some(port)))
        }
        _ => Ok((host, None)),
    }
}

fn parse_query(query: &str) -> Result<BTreeMap<String, String>, BackendError> {
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
        if pairs.insert(decode(key)?, decode(value)?).is_some() {
            return Err(config_error(format!("`{key}` is given twice")));
        }
    }
    Ok(pairs)
}

/// The values of these keys may be shown.
const HARMLESS_KEYS: &[&str] = &[
    "account",
    "anonymous",
    "bucket-id",
    "checksum",
    "endpoint",
    "key",
    "known-hosts",
    "known-hosts-file",
    "path-style",
    "region",
    "tls",
];

fn shown_pair(key: &str, value: &str) -> String {
    // An `@` may end a password.
    let harmless = HARMLESS_KEYS.contains(&key) && !value.contains('@');
    format!("{key}={}", if harmless { value } else { "[redacted]" })
}

/// A repository's path or URI as it may be shown: without password, and without the values of query keys
/// that might hold a secret. It takes anything, malformed URIs too.
#[must_use]
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = split_scheme(text) else { return text.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let rest = without_password(rest);
    let Some(query) = query else { return format!("{scheme}://{rest}") };
    let show = |pair: &str| match pair.split_once('=') {
        Some((key, value)) => shown_pair(key, value),
        None => pair.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(show).collect();
    format!("{scheme}://{rest}?{}", query.join("&"))
}

/// `user:password@host/path` without the password, whatever strange characters it has: the last `@` ends it.
fn without_password(rest: &str) -> String {
    match rest.rsplit_once('@') {
        Some((userinfo, host)) => match userinfo.split_once(':') {
            Some((user, _)) => format!("{user}:[redacted]@{host}"),
            None => format!("{userinfo}@{host}"),
        },
        None => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart() {
        let uri = Uri::parse("sftp://bob:p%40ss@[::1]:2222/srv/a%20b?key=/k+1&x").unwrap();
        assert_eq!((uri.scheme.as_str(), uri.host.as_str(), uri.port), ("sftp", "[::1]", Some(2222)));
        assert_eq!((uri.user.as_deref(), uri.password.as_deref()), (Some("bob"), Some("p@ss")));
        assert_eq!(
            (uri.path.as_str(), uri.value("key"), uri.value("x")),
            ("/srv/a b", Some("/k+1"), Some("true"))
        );
        let bare = Uri::parse("s3://bucket").unwrap();
        assert_eq!((bare.host.as_str(), bare.path.as_str(), bare.port), ("bucket", "/", None));
        assert_eq!(Uri::parse("sftp://[::1]/x").unwrap().host, "[::1]");
    }

    #[test]
    fn paths_are_not_uris() {
        for path in ["/srv/repo", "repo", "./a://b", "c:\\x", "s3:bucket", "://x"] {
            assert!(!looks_like_uri(path), "{path}");
        }
        assert!(looks_like_uri("s3://b") && looks_like_uri("webdav+x://b"));
    }

    #[test]
    fn malformed_uris_are_refused_without_repeating_secrets() {
        for bad in ["s3://h:99999/x", "s3://b/?a=hunter2&a=hunter2", "s3://b/%ff", "s3://b:hunter2x/"] {
            let error = Uri::parse(bad).err().expect(bad);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn unknown_keys_name_the_known_ones() {
        let uri = Uri::parse("s3://b/?secret=hunter2").unwrap();
        let error = uri.expect_keys(&["endpoint", "region"]).unwrap_err().to_string();
        assert!(error.contains("`secret`") && error.contains("endpoint, region"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn redaction_takes_passwords_and_unknown_values() {
        for (text, shown) in [
            ("/srv/repo", "/srv/repo"),
            ("s3://b/p?region=eu", "s3://b/p?region=eu"),
            ("webdav://u:hunter2@h/p", "webdav://u:[redacted]@h/p"),
            ("webdav://u:hun/ter2@x@h/p", "webdav://u:[redacted]@h/p"),
            ("s3://b/p?secret=hunter2&region=eu", "s3://b/p?secret=[redacted]&region=eu"),
            ("s3://b?endpoint=http://u:hunter2@h", "s3://b?endpoint=[redacted]"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
