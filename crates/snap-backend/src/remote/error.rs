//! What an object store's answer means.

use std::error::Error as _;

use opendal::ErrorKind as Kind;

use super::credentials::Secrets;
use crate::ErrorKind;

/// Answers by which stores say that they do not accept the credentials; OpenDAL folds them into
/// "permission denied" or "unexpected".
const UNAUTHENTICATED: &[&str] = &[
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "NotSignedUp",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "bad_auth_token",
    "expired_auth_token",
    "unauthorized",
    "Unauthorized",
    "status: 401",
];

/// Whether a store's word for a failure means that it does not accept the credentials.
pub(super) fn says_unauthenticated(code: &str) -> bool {
    UNAUTHENTICATED.contains(&code)
}

/// The kind of an OpenDAL error.
pub(super) fn classify(error: &opendal::Error) -> ErrorKind {
    let text = error.message();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error.kind() {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::PermissionDenied | Kind::Unexpected if says(UNAUTHENTICATED) => ErrorKind::Unauthenticated,
        Kind::PermissionDenied => ErrorKind::Permission,
        Kind::ConfigInvalid if says(&["NoSuchBucket"]) => ErrorKind::NotFound,
        Kind::ConfigInvalid => ErrorKind::Config,
        Kind::Unsupported => ErrorKind::Unsupported,
        Kind::RateLimited => ErrorKind::Throttled,
        Kind::RangeNotSatisfied => ErrorKind::OutOfRange,
        _ if says(&["too little data", "too much data"]) => ErrorKind::Truncated,
        _ if says(&["QuotaExceeded", "InsufficientStorage", "storage_cap_exceeded"]) => ErrorKind::NoSpace,
        _ if error.is_temporary() => ErrorKind::Network,
        _ => ErrorKind::Other,
    }
}

/// The message and its causes on one line, without OpenDAL's context: that holds whole requests, headers
/// and query strings included.
pub(super) fn describe(error: &opendal::Error, secrets: &Secrets) -> String {
    let mut text = one_line(error.message());
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = one_line(&error.to_string());
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    if text.is_empty() {
        // An answer to HEAD has no body.
        text = error.kind().to_string();
    }
    secrets.scrub(text)
}

/// Some stores answer with a page of HTML.
const LONGEST_TEXT: usize = 600;

fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use opendal::Error;

    use super::*;

    #[test]
    fn answers_have_kinds() {
        let unexpected = |text: &str| Error::new(Kind::Unexpected, text.to_owned());
        for (error, kind) in [
            (Error::new(Kind::NotFound, ""), ErrorKind::NotFound),
            (Error::new(Kind::RateLimited, ""), ErrorKind::Throttled),
            (Error::new(Kind::PermissionDenied, "AccessDenied"), ErrorKind::Permission),
            (Error::new(Kind::PermissionDenied, "SignatureDoesNotMatch"), ErrorKind::Unauthenticated),
            (Error::new(Kind::ConfigInvalid, "NoSuchBucket"), ErrorKind::NotFound),
            (Error::new(Kind::RangeNotSatisfied, ""), ErrorKind::OutOfRange),
            (unexpected("reader got too little data"), ErrorKind::Truncated),
            (unexpected("connection reset").set_temporary(), ErrorKind::Network),
            (unexpected("?"), ErrorKind::Other),
        ] {
            assert_eq!(classify(&error), kind, "{error}");
        }
    }

    #[test]
    fn descriptions_hold_no_context() {
        let error =
            Error::new(Kind::Unexpected, "failed\n  badly").with_context("url", "https://h/?sig=hunter2");
        assert_eq!(describe(&error, &Secrets::default()), "failed badly");
    }
}
