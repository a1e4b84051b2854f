//! Where a store is: what two stores may turn out to have in common.

use std::path::PathBuf;

use super::{Credentials, Uri, looks_like_uri};
use crate::{BackendError, OpenOptions};

/// Where a store is, as far as its URI and the caller's environment tell. Nothing is asked of the store, and
/// nothing in here is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// `file`, `s3`, …; the text before `://` whatever it is.
    pub scheme: String,
    /// The directory, of a path or `file://`; the path below host or bucket otherwise, without slashes at its ends.
    pub path: PathBuf,
    /// The bucket or container.
    pub bucket: Option<String>,
    /// The server's name, in lower case and without port; none where the service is a whole cloud.
    pub host: Option<String>,
    /// The region of a cloud, such as `aws:eu-central-1`.
    pub region: Option<String>,
    /// The account that pays, or the public half of the credentials that are used.
    pub account: Option<String>,
}

impl Site {
    /// Reads a path or URI of any scheme, with the environment and the credentials that [`open`](crate::open) would
    /// use. Fails on what is no URI, never on an unknown scheme: sources have schemes of their own.
    pub fn of(uri: &str, options: &OpenOptions<'_>) -> Result<Self, BackendError> {
        let local = |path: &str| Self { scheme: "file".into(), path: path.into(), ..Self::default() };
        if !looks_like_uri(uri) {
            return Ok(local(uri));
        }
        let uri = Uri::parse(uri)?;
        if uri.scheme == "file" {
            return Ok(local(&uri.path));
        }
        let credentials = Credentials::new(options);
        let mut site =
            Self { scheme: uri.scheme.clone(), path: uri.path.trim_matches('/').into(), ..Self::default() };
        let mut endpoint = uri.value("endpoint").map(str::to_owned);
        match uri.scheme.as_str() {
            "s3" => {
                endpoint =
                    endpoint.or_else(|| credentials.plain(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
                site.account = credentials.plain(&["AWS_ACCESS_KEY_ID"]);
                let region = uri.value("region").map(str::to_owned);
                let region = region.or_else(|| credentials.plain(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
                if endpoint.as_deref().is_none_or(is_amazon) {
                    // The region of another server is a mere word: many say `us-east-1`.
                    (endpoint, site.region) = (None, region.map(|region| format!("aws:{region}")));
                }
            }
            "azblob" => {
                let account = uri.value("account").map(str::to_owned);
                site.account = account.or_else(|| credentials.plain(&["AZURE_STORAGE_ACCOUNT"]));
            }
            "b2" => site.account = credentials.plain(&["B2_APPLICATION_KEY_ID"]),
            "gcs" => site.account = credentials.plain(&["GOOGLE_APPLICATION_CREDENTIALS"]),
            _ => {
                site.host = host_name(&uri.host);
                return Ok(site);
            }
        }
        site.bucket = Some(uri.host).filter(|bucket| !bucket.is_empty());
        site.host = endpoint.as_deref().and_then(endpoint_host);
        Ok(site)
    }
}

fn is_amazon(endpoint: &str) -> bool {
    endpoint_host(endpoint)
        .is_some_and(|host| host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
}

/// The host of `http://host:port/…`.
fn endpoint_host(endpoint: &str) -> Option<String> {
    Uri::parse(endpoint).ok().and_then(|uri| host_name(&uri.host))
}

/// One spelling for one host, as far as that can be told without asking a name server.
fn host_name(host: &str) -> Option<String> {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let is_this_machine = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match host.as_str() {
        "" => None,
        _ if is_this_machine => Some("localhost".to_owned()),
        _ => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(uri: &str) -> Site {
        let env = |name: &str| {
            let value = match name {
                "AWS_ACCESS_KEY_ID" => "AKIA",
                "AWS_REGION" => "eu-1",
                _ => return None,
            };
            Some(value.to_owned())
        };
        Site::of(uri, &OpenOptions { env: Some(&env), ..OpenOptions::default() }).unwrap()
    }

    #[test]
    fn places_are_told_from_uris() {
        // scheme, path, bucket, host, region, account
        let cases = [
            ("/mnt/x", ["file", "/mnt/x", "", "", "", ""]),
            ("file:///mnt/x", ["file", "/mnt/x", "", "", "", ""]),
            ("s3://b/p/", ["s3", "p", "b", "", "aws:eu-1", "AKIA"]),
            ("s3://b?region=us-2", ["s3", "", "b", "", "aws:us-2", "AKIA"]),
            (
                "s3://b/p?endpoint=http://Store.Example.org:9000",
                ["s3", "p", "b", "store.example.org", "", "AKIA"],
            ),
            (
                "s3://b?region=us-2&endpoint=https://s3.us-2.amazonaws.com",
                ["s3", "", "b", "", "aws:us-2", "AKIA"],
            ),
            ("s3://b?endpoint=http://127.0.0.1:9000", ["s3", "", "b", "localhost", "", "AKIA"]),
            ("sftp://me@[::1]:22/srv", ["sftp", "srv", "", "localhost", "", ""]),
            ("sftp://Nas.local./srv", ["sftp", "srv", "", "nas.local", "", ""]),
            ("azblob://c/p?account=acme", ["azblob", "p", "c", "", "", "acme"]),
            ("gcs://b/p", ["gcs", "p", "b", "", "", ""]),
            (
                "postgres://u:pw@db.example.org:5432/orders",
                ["postgres", "orders", "", "db.example.org", "", ""],
            ),
        ];
        for (uri, expected) in cases {
            let site = site(uri);
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let path = site.path.to_str().unwrap().to_owned();
            let found = [
                site.scheme.clone(),
                path,
                text(&site.bucket),
                text(&site.host),
                text(&site.region),
                text(&site.account),
            ];
            assert_eq!(found, expected, "{uri}");
        }
        assert!(Site::of("s3://h:99999/x", &OpenOptions::default()).is_err());
    }
}
