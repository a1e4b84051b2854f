//! Names and values in SQL, and the lines of COPY.

use super::wire::Value;

/// `"name"`: always quoted, so that no word is special.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// `E'value'`, whatever `standard_conforming_strings` is.
pub(super) fn literal(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `"a", "b"`.
pub(super) fn list(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| ident(name)).collect();
    names.join(", ")
}

/// `("a", "b")`, or nothing for a table without columns.
pub(super) fn columns(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("({})", list(names)) }
}

/// A line in COPY's text format.
pub(super) fn copy_line(values: &[Value]) -> String {
    let field = |value: &Value| match value {
        None => "\\N".to_owned(),
        Some(text) => {
            text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
        }
    };
    let fields: Vec<_> = values.iter().map(field).collect();
    fields.join("\t") + "\n"
}

/// The fields of a line that [`copy_line`] wrote.
pub(super) fn copy_fields(line: &str) -> Vec<Value> {
    let field = |field: &str| {
        if field == "\\N" {
            return None;
        }
        let mut out = String::new();
        let mut characters = field.chars();
        while let Some(character) = characters.next() {
            match (character, character == '\\') {
                (_, true) => match characters.next() {
                    Some('t') => out.push('\t'),
                    Some('n') => out.push('\n'),
                    Some('r') => out.push('\r'),
                    Some(other) => out.push(other),
                    None => {}
                },
                (character, false) => out.push(character),
            }
        }
        Some(out)
    };
    line.split('\t').map(field).collect()
}

/// Statements of a script that has no dollar quotes, such as that of roles: split at semicolons outside of quotes and comments.
pub(super) fn statements(script: &str) -> Vec<String> {
    let (mut out, mut statement) = (Vec::new(), String::new());
    let mut characters = script.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                // A doubled quote ends one and begins another. A backslash takes the next one along in E'…' alone.
                let escapes = character == '\'' && statement.ends_with(['E', 'e']);
                statement.push(character);
                while let Some(inner) = characters.next() {
                    statement.push(inner);
                    if inner == '\\' && escapes {
                        statement.extend(characters.next());
                    } else if inner == character {
                        break;
                    }
                }
            }
            '-' if characters.peek() == Some(&'-') => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            '\\' if statement.trim().is_empty() => {
                // A command of psql's.
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            ';' => {
                out.push(statement.trim().to_owned());
                statement.clear();
            }
            other => statement.push(other),
        }
    }
    out.push(statement.trim().to_owned());
    out.retain(|statement| !statement.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_its_quotes() {
        assert_eq!(qualified("a\"b", "c d"), "\"a\"\"b\".\"c d\"");
        assert_eq!(literal("it's \\ this"), "E'it''s \\\\ this'");
        assert_eq!(
            (columns(&[]).as_str(), columns(&["a".into(), "b\"".into()]).as_str()),
            ("", "(\"a\", \"b\"\"\")")
        );
    }

    #[test]
    fn lines_come_back() {
        let values = [Some("a\tb\n\\N".to_owned()), None, Some(String::new()), Some("\\\r".to_owned())];
        let line = copy_line(&values);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(copy_fields(line.trim_end_matches('\n')), values);
    }

    #[test]
    fn scripts_are_split_outside_of_quotes() {
        let script = "-- a; comment\n\\restrict abc\nCREATE ROLE \"a;b\";\nALTER ROLE \"a;b\" PASSWORD 'x;''y';\n\
                      COMMENT ON ROLE x IS E'it\\'s; fine';\n\n\\unrestrict abc\n";
        let expected = [
            "CREATE ROLE \"a;b\"",
            "ALTER ROLE \"a;b\" PASSWORD 'x;''y'",
            "COMMENT ON ROLE x IS E'it\\'s; fine'",
        ];
        assert_eq!(statements(script), expected);
    }
}
