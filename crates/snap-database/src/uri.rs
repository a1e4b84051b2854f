//! URIs of databases, taken apart.

use crate::DatabaseError;

/// `scheme://user:password@host:port/path?name=value&…`, decoded. What is not there is `None` or empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Uri {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<String>,
    /// Without the slash.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
}

impl Uri {
    pub(crate) fn parse(uri: &str) -> Result<Self, DatabaseError> {
        let (_, rest) =
            uri.split_once("://").ok_or_else(|| DatabaseError::Uri("a URI begins with scheme://".into()))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| {
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)))
        }) {
            Some((user, password)) => (Some(percent_decode(user)), password.map(percent_decode)),
            None => (None, None),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Ok(Self {
            user: user.filter(|user| !user.is_empty()),
            password,
            host: Some(percent_decode(host)).filter(|host| !host.is_empty()),
            port: port.filter(|port| !port.is_empty()).map(str::to_owned),
            path: percent_decode(path),
            query: pairs.map(|(name, value)| (percent_decode(name), percent_decode(value))).collect(),
        })
    }
}

/// `%41` is `A`; what is no such code stays.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
