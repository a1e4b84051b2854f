//! Roles that a database needs and the target's server does not have, from the script of globals.

use std::collections::BTreeSet;

use super::sql::{ident, statements};
use super::wire::{Connection, WireError};

/// Statements that make or describe one role.
const OF_ROLE: [&str; 3] = ["CREATE ROLE ", "ALTER ROLE ", "COMMENT ON ROLE "];

/// Makes the roles that `definitions` names and the server lacks, as they were, and tells which. What the server has already is
/// left as it is.
pub(super) fn restore(
    connection: &mut Connection,
    globals: &str,
    roles: &[String],
    definitions: &str,
    note: &dyn Fn(&str),
) -> Result<(), WireError> {
    let known: BTreeSet<String> = connection
        .query("SELECT rolname FROM pg_catalog.pg_roles")?
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    let is_named = |role: &&String| definitions.contains(&ident(role)) || has_word(definitions, role);
    let missing: BTreeSet<&String> =
        roles.iter().filter(|role| !known.contains(*role)).filter(is_named).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut failed = Vec::new();
    for statement in statements(globals) {
        let wanted = match (role_of(&statement), granted_to(&statement)) {
            (Some(role), _) => missing.contains(&role),
            (None, Some((group, member))) => {
                missing.contains(&member) && (missing.contains(&group) || known.contains(&group))
            }
            (None, None) => false,
        };
        if wanted && let Err(error) = connection.execute(&statement) {
            let WireError::Server(error) = error else { return Err(error) };
            // Never the statement: it may hold a password.
            failed.push(error.message);
        }
    }
    let names: Vec<_> = missing.iter().map(|role| role.as_str()).collect();
    match failed.first() {
        None => note(&format!("roles that the server did not have were made: {}", names.join(", "))),
        Some(why) => note(&format!(
            "roles that the server does not have cannot all be made ({}): {why}",
            names.join(", ")
        )),
    }
    Ok(())
}

/// The role that a statement makes or describes.
fn role_of(statement: &str) -> Option<String> {
    let rest = OF_ROLE.iter().find_map(|prefix| statement.strip_prefix(prefix))?;
    Some(take_name(rest)?.0)
}

/// Group and member of `GRANT group TO member`.
fn granted_to(statement: &str) -> Option<(String, String)> {
    let (group, rest) = take_name(statement.strip_prefix("GRANT ")?)?;
    let (member, _) = take_name(rest.strip_prefix(" TO ")?)?;
    Some((group, member))
}

/// The name at the beginning, quoted or not, and the rest.
fn take_name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|character: char| !is_word(character)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let (mut name, mut characters) = (String::new(), quoted.char_indices().peekable());
    while let Some((at, character)) = characters.next() {
        if character != '"' {
            name.push(character);
        } else if characters.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &quoted[at + 1..]));
        }
    }
    None
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$'
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_say_whose_they_are() {
        assert_eq!(role_of("CREATE ROLE shop"), Some("shop".into()));
        assert_eq!(role_of("ALTER ROLE \"a\"\"b; c\" WITH LOGIN PASSWORD 'x'"), Some("a\"b; c".into()));
        assert_eq!(role_of("CREATE TABLESPACE x OWNER y LOCATION '/z'"), None);
        let granted = granted_to("GRANT \"the group\" TO shop WITH INHERIT TRUE GRANTED BY postgres");
        assert_eq!(granted, Some(("the group".into(), "shop".into())));
    }

    #[test]
    fn a_role_is_named_as_a_word() {
        assert!(has_word("ALTER TABLE t OWNER TO shop;", "shop"));
        assert!(!has_word("CREATE TABLE shopping (workshop int)", "shop"));
    }
}
