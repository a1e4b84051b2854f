//! What `open` understands, and how it refuses the rest.
#![allow(clippy::unwrap_used)] // Helpers of tests are test code too.

use snap_backend::{BackendError, ErrorKind, OpenOptions, open};

const SECRET: &str = "hunter2hunter2";

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "AWS_ACCESS_KEY_ID" | "AZURE_STORAGE_ACCOUNT" | "B2_APPLICATION_KEY_ID" => "somebody",
        "AWS_SECRET_ACCESS_KEY" | "AWS_SESSION_TOKEN" | "B2_APPLICATION_KEY" | "WEBDAV_PASSWORD" => SECRET,
        "AZURE_STORAGE_KEY" => "aHVudGVyMmh1bnRlcjI=",
        "GOOGLE_APPLICATION_CREDENTIALS" => "/etc/snap/google.json",
        _ => return None,
    };
    Some(value.to_owned())
}

fn with_environment() -> OpenOptions<'static> {
    OpenOptions { env: Some(&environment), ..Default::default() }
}

fn refusal(uri: &str, options: &OpenOptions<'_>) -> BackendError {
    open(uri, options).expect_err(uri)
}

#[test]
fn every_scheme_opens_and_hides_its_secrets() {
    for uri in [
        "memory:",
        "file:///srv/repo",
        "/srv/repo",
        "s3://bucket/prefix?region=eu-central-1",
        "s3://bucket?endpoint=http://127.0.0.1:9000&path-style=false&checksum=md5",
        "gcs://bucket/prefix",
        "azblob://container/prefix",
        "b2://bucket/prefix?bucket-id=abc",
        "webdav://bob@example.org/dav",
        "webdav://bob:hunter2hunter2@example.org:8080/dav?tls=false",
        "sftp://bob@example.org:2222/srv/repo?key=/k&known-hosts=accept-new",
    ] {
        let backend = open(uri, &with_environment()).unwrap_or_else(|error| panic!("{uri}: {error}"));
        let shown = format!("{backend:?} {} {:?}", backend.location(), with_environment());
        assert!(!shown.contains(SECRET) && !shown.contains("aHVudGVy"), "{shown}");
    }
}

#[test]
fn what_cannot_be_understood_is_named() {
    for (uri, says) in [
        ("ftp://host/x", "known are azblob://"),
        ("s3:bucket", "write s3://"),
        ("", "empty path"),
        ("s3:///prefix?region=x", "no bucket"),
        ("s3://bucket", "AWS_REGION"),
        ("s3://bucket?regoin=x", "anonymous, checksum, endpoint, path-style, region"),
        ("s3://bucket?region=x&checksum=sha1", "crc32c"),
        ("s3://bucket?region=x&path-style=maybe", "true or false"),
        ("s3://bucket?endpoint=host:9000", "http://"),
        ("s3://bucket?endpoint=http://a:hunter2hunter2@host", "must not hold credentials"),
        ("s3://id:hunter2hunter2@bucket?region=x", "do not belong in the URI"),
        ("b2://bucket", "bucket-id"),
        ("sftp://bob:hunter2hunter2@host/x", "no password"),
        ("sftp://-oProxyCommand=x/y", "begins with `-`"),
        ("sftp://host/x?known-hosts=never", "strict or accept-new"),
        ("file://host/x", "file:///path"),
        ("file:///x?y=1", "unknown query key `y`"),
    ] {
        let error = refusal(uri, &with_environment());
        assert_eq!(error.kind(), ErrorKind::Config, "{uri}: {error}");
        assert!(error.to_string().contains(says), "{uri}: {error}");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
}

#[test]
fn missing_credentials_name_their_variables() {
    for (uri, variable) in [
        ("s3://bucket?region=x", "AWS_SECRET_ACCESS_KEY"),
        ("gcs://bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("azblob://container?account=x", "AZURE_STORAGE_KEY"),
        ("b2://bucket?bucket-id=x", "B2_APPLICATION_KEY"),
    ] {
        let error = refusal(uri, &OpenOptions::default());
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(error.to_string().contains(variable), "{error}");
    }
}

#[test]
fn explicit_credentials_win() {
    let credentials = [("AWS_REGION".to_owned(), "eu-west-3".to_owned())].into();
    let options = OpenOptions { credentials, ..with_environment() };
    open("s3://bucket", &options).unwrap();
    assert!(!format!("{options:?}").contains("eu-west-3"));
}
