//! Who may do what: policies in the language of Amazon's IAM, as far as a bucket of backups needs it.

use serde_json::Value;

/// A policy: what its statements allow is allowed, unless another denies it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy(Vec<Statement>);

#[derive(Debug, Clone)]
struct Statement {
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    /// `StringLike` on `s3:prefix`.
    prefixes: Option<Vec<String>>,
}

impl Policy {
    /// Reads a policy document.
    ///
    /// # Panics
    ///
    /// On anything that it does not understand: a test must not rest on a rule that is not enforced.
    pub(crate) fn parse(document: &str) -> Self {
        let document: Value = serde_json::from_str(document).expect("a policy is JSON");
        assert_eq!(document["Version"], "2012-10-17", "the version of the policy language");
        let statements = document["Statement"].as_array().expect("statements");
        Self(statements.iter().map(Statement::parse).collect())
    }

    /// Whether `action` on `resource` is allowed; `prefix` is that of a listing, if it has one.
    pub(crate) fn allows(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        let fits = |statement: &&Statement| statement.fits(action, resource, prefix);
        let mut found = self.0.iter().filter(fits).peekable();
        found.peek().is_some() && found.all(|statement| statement.allows)
    }
}

impl Statement {
    fn parse(statement: &Value) -> Self {
        let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
        let fields = statement.as_object().expect("a statement is a map");
        assert!(fields.keys().all(|key| known.contains(&key.as_str())), "unknown field in {statement}");
        let allows = match statement["Effect"].as_str() {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => panic!("unknown effect in {statement}"),
        };
        let prefixes = statement.get("Condition").map(|condition| {
            assert_eq!(condition.as_object().map(serde_json::Map::len), Some(1), "one condition");
            texts(&condition["StringLike"]["s3:prefix"])
        });
        let (actions, resources) = (texts(&statement["Action"]), texts(&statement["Resource"]));
        Self { allows, actions, resources, prefixes }
    }

    fn fits(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| is_like(pattern, text));
        let has_prefix = match &self.prefixes {
            None => true,
            Some(wanted) => prefix.is_some_and(|prefix| any(wanted, prefix)),
        };
        any(&self.actions, action) && any(&self.resources, resource) && has_prefix
    }
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a text, or a list of texts").to_owned();
    value.as_array().map_or_else(|| vec![text(value)], |list| list.iter().map(text).collect())
}

/// `*` stands for any characters, `?` for one.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some(wanted) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[wanted.len_utf8()..];
    if wanted == '*' {
        let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        return ends.any(|at| is_like(rest, &text[at..]));
    }
    let Some(found) = text.chars().next() else { return false };
    (wanted == '?' || wanted == found) && is_like(rest, &text[found.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: &str = "arn:aws:s3:::b";

    #[test]
    fn what_is_not_allowed_is_denied_and_what_is_denied_stays_so() {
        let policy = Policy::parse(
            r#"{"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b"},
                {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": ["arn:aws:s3:::b/p/*"]},
                {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/p/secret/*"}]}"#,
        );
        for (action, resource, allowed) in [
            ("s3:ListBucket", BUCKET, true),
            ("s3:ListBucket", "arn:aws:s3:::bb", false),
            ("s3:GetObject", "arn:aws:s3:::b/p/x", true),
            ("s3:GetObject", "arn:aws:s3:::b/q/x", false),
            ("s3:PutObject", "arn:aws:s3:::b/p/x", false),
            ("s3:GetObject", "arn:aws:s3:::b/p/secret/x", false),
        ] {
            assert_eq!(policy.allows(action, resource, None), allowed, "{action} {resource}");
        }
        assert!(!Policy::default().allows("s3:GetObject", BUCKET, None));
    }

    #[test]
    fn a_condition_on_the_prefix_needs_one() {
        let policy = Policy::parse(
            r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket",
                "Resource": "arn:aws:s3:::b", "Condition": {"StringLike": {"s3:prefix": ["p/*"]}}}]}"#,
        );
        let allows = |prefix| policy.allows("s3:ListBucket", BUCKET, prefix);
        assert!(allows(Some("p/packs/")) && !allows(Some("q/")) && !allows(None));
    }
}
